//! PCI Express configuration windows: the MCFG.

use crate::bytes::{byte, quad_word, word};
use crate::{Error, Table};

/// Where the allocations begin.
const ALLOCATIONS: usize = 44;
/// Bytes of an allocation.
const ALLOCATION: usize = 16;

/// A window into the configuration space of some buses (PCI Firmware Specification 3.3 §4.1.2, table 4-3).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct McfgAllocation {
    /// Physical address of bus 0's configuration space, also where `first_bus` is not 0.
    pub base: u64,
    /// PCI segment group.
    pub segment: u16,
    /// The lowest bus.
    pub first_bus: u8,
    /// The highest bus, at least `first_bus`.
    pub last_bus: u8,
}

impl McfgAllocation {
    /// Physical address of a function's 4 KiB of registers; `None` where the window does not reach it, or no such device
    /// (0–31) or function (0–7) can be.
    pub fn function(&self, bus: u8, device: u8, function: u8) -> Option<u64> {
        if bus < self.first_bus || bus > self.last_bus || device > 31 || function > 7 {
            return None;
        }
        self.base.checked_add((bus as u64) << 20 | (device as u64) << 15 | (function as u64) << 12)
    }
}

/// The memory-mapped configuration table, signature `MCFG`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Mcfg<'table> {
    bytes: &'table [u8],
}

impl<'table> Mcfg<'table> {
    /// Checks length, signature and checksum.
    ///
    /// # Errors
    /// As [`Table::new`], and [`Error::Signature`], [`Error::Length`].
    pub fn parse(bytes: &'table [u8]) -> Result<Self, Error> {
        Ok(Self { bytes: Table::expect(bytes, *b"MCFG", ALLOCATIONS)?.bytes() })
    }

    /// The windows in the table's order.
    pub fn allocations(&self) -> McfgAllocations<'table> {
        McfgAllocations { bytes: self.bytes, offset: ALLOCATIONS }
    }
}

/// The windows of an MCFG; after an error there are none.
#[derive(Clone, Debug)]
pub struct McfgAllocations<'table> {
    bytes: &'table [u8],
    offset: usize,
}

impl Iterator for McfgAllocations<'_> {
    type Item = Result<McfgAllocation, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        if offset >= self.bytes.len() {
            return None;
        }
        let allocation = || {
            let bytes = self.bytes.get(offset..offset.checked_add(ALLOCATION)?)?;
            Some(McfgAllocation {
                base: quad_word(bytes, 0)?,
                segment: word(bytes, 8)?,
                first_bus: byte(bytes, 10)?,
                last_bus: byte(bytes, 11)?,
            })
        };
        if let Some(found) = allocation().filter(|found| found.first_bus <= found.last_bus) {
            self.offset = offset.saturating_add(ALLOCATION);
            Some(Ok(found))
        } else {
            self.offset = usize::MAX;
            Some(Err(Error::Structure { offset }))
        }
    }
}
