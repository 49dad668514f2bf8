//! High-precision event timer: the HPET table.

use crate::bytes::{byte, double_word, word};
use crate::fadt::RegisterAddress;
use crate::{Error, Table};

/// Bytes of the table.
const LEAST: usize = 56;

/// The HPET description table (IA-PC HPET Specification 1.0a §3.2.4), signature `HPET`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Hpet {
    /// The block's identifier: bits 31–16 PCI vendor, 15 legacy replacement routes, 13 a 64-bit counter, 12–8 timers less
    /// one, 7–0 revision.
    pub block: u32,
    /// Where its registers lie.
    pub base: RegisterAddress,
    /// Number of this block; more than one have a table each.
    pub number: u8,
    /// The shortest period in ticks of the main counter that loses no interrupt in periodic mode.
    pub minimum_tick: u16,
}

impl Hpet {
    /// Checks length, signature and checksum.
    ///
    /// # Errors
    /// As [`Table::new`], and [`Error::Signature`], [`Error::Length`].
    #[inline(never)]
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let bytes = Table::expect(bytes, *b"HPET", LEAST)?.bytes();
        Self::read(bytes).ok_or(Error::Length)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            block: double_word(bytes, 36)?,
            base: RegisterAddress::read(bytes, 40)?,
            number: byte(bytes, 40 + RegisterAddress::LENGTH)?,
            minimum_tick: word(bytes, 53)?,
        })
    }

    /// Number of timers, 1 to 32.
    pub const fn timers(&self) -> u8 {
        (self.block >> 8 & 0x1f) as u8 + 1
    }

    /// Whether the main counter has 64 bits; else 32.
    pub const fn is_64_bit(&self) -> bool {
        self.block & 1 << 13 != 0
    }
}
