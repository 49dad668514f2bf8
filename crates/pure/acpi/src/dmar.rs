//! Intel's IOMMUs: the DMAR table.
//!
//! Sections are those of the Intel Virtualization Technology for Directed I/O Architecture Specification 4.1.

use crate::bytes::{Chain, Shape, Structure, byte, double_word, quad_word, word};
use crate::{Error, Table};

/// Where the remapping structures begin.
const STRUCTURES: usize = 48;

/// The DMA remapping reporting table (§8.1), signature `DMAR`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Dmar<'table> {
    bytes: &'table [u8],
    host_address_width: u8,
    flags: u8,
}

impl<'table> Dmar<'table> {
    /// Checks length, signature and checksum. The structures are checked as they are read.
    ///
    /// # Errors
    /// As [`Table::new`], and [`Error::Signature`], [`Error::Length`].
    pub fn parse(bytes: &'table [u8]) -> Result<Self, Error> {
        let bytes = Table::expect(bytes, *b"DMAR", STRUCTURES)?.bytes();
        Ok(Self {
            bytes,
            host_address_width: byte(bytes, 36).ok_or(Error::Length)?,
            flags: byte(bytes, 37).ok_or(Error::Length)?,
        })
    }

    /// Bits of a physical address that DMA may use: 1 to 256, sensible up to 52.
    pub const fn address_bits(&self) -> u16 {
        self.host_address_width as u16 + 1
    }

    /// Whether the machine can remap interrupts.
    pub const fn interrupt_remapping(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Whether firmware asks that x2APIC be left off.
    pub const fn x2apic_opt_out(&self) -> bool {
        self.flags & 2 != 0
    }

    /// Whether firmware asks that DMA stay blocked until its device is in use.
    pub const fn dma_protection_opt_in(&self) -> bool {
        self.flags & 4 != 0
    }

    /// The structures in the table's order.
    pub fn structures(&self) -> DmarStructures<'table> {
        DmarStructures { chain: Chain::new(self.bytes, STRUCTURES, 0, Shape::WordWord) }
    }
}

/// A remapping structure (§8.2).
#[derive(Clone, Debug)]
pub enum DmarStructure<'table> {
    /// A remapping unit (DRHD, §8.3).
    Unit {
        /// PCI segment.
        segment: u16,
        /// Physical address of its registers.
        base: u64,
        /// It serves all PCI devices of the segment that no other unit's scope names.
        all_others: bool,
        /// What it serves.
        scopes: Scopes<'table>,
    },
    /// Memory that the devices in scope need to reach at all times (RMRR, §8.4).
    ReservedMemory {
        /// PCI segment.
        segment: u16,
        /// Physical address of the first byte.
        base: u64,
        /// Physical address of the last byte, at least `base`.
        last: u64,
        /// Which devices.
        scopes: Scopes<'table>,
    },
    /// Root ports below which devices may translate addresses themselves (ATSR, §8.5).
    RootPorts {
        /// PCI segment.
        segment: u16,
        /// All ports of the segment.
        all: bool,
        /// Which ports.
        scopes: Scopes<'table>,
    },
    /// Which memory domain a remapping unit is near (RHSA, §8.6).
    Affinity {
        /// Physical address of the unit's registers.
        base: u64,
        /// Its proximity domain.
        domain: u32,
    },
    /// A device of the ACPI name space that does DMA (ANDD, §8.7).
    NameSpaceDevice {
        /// The number by which scopes call it.
        number: u8,
        /// Its path in the name space, ASCII up to a zero byte.
        name: &'table [u8],
    },
    /// Devices inside the SoC that translate addresses themselves (SATC, §8.8).
    SocTranslation {
        /// PCI segment.
        segment: u16,
        /// They cannot do without.
        required: bool,
        /// Which devices.
        scopes: Scopes<'table>,
    },
    /// Properties of devices inside the SoC (SIDP, §8.9).
    SocProperties {
        /// PCI segment.
        segment: u16,
        /// Which devices.
        scopes: Scopes<'table>,
    },
    /// A structure of another kind.
    Other {
        /// Its type.
        kind: u16,
    },
}

impl<'table> DmarStructure<'table> {
    fn read(structure: &Structure<'table>) -> Option<Self> {
        let bytes = structure.bytes;
        let scopes = |start: usize| -> Option<Scopes<'table>> {
            (bytes.len() >= start)
                .then(|| Scopes { chain: Chain::new(bytes, start, structure.offset, Shape::ByteByte) })
        };
        Some(match structure.kind {
            0 => Self::Unit {
                segment: word(bytes, 6)?,
                base: quad_word(bytes, 8)?,
                all_others: byte(bytes, 4)? & 1 != 0,
                scopes: scopes(16)?,
            },
            1 => {
                let (base, last) = (quad_word(bytes, 8)?, quad_word(bytes, 16)?);
                if last < base {
                    return None;
                }
                Self::ReservedMemory { segment: word(bytes, 6)?, base, last, scopes: scopes(24)? }
            }
            2 => Self::RootPorts {
                segment: word(bytes, 6)?,
                all: byte(bytes, 4)? & 1 != 0,
                scopes: scopes(8)?,
            },
            3 => Self::Affinity { base: quad_word(bytes, 8)?, domain: double_word(bytes, 16)? },
            4 => {
                let name = bytes.get(8..)?;
                let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
                Self::NameSpaceDevice { number: byte(bytes, 7)?, name: name.get(..end)? }
            }
            5 => Self::SocTranslation {
                segment: word(bytes, 6)?,
                required: byte(bytes, 4)? & 1 != 0,
                scopes: scopes(8)?,
            },
            6 => Self::SocProperties { segment: word(bytes, 6)?, scopes: scopes(8)? },
            kind => Self::Other { kind },
        })
    }
}

/// The structures of a DMAR table; after an error there are none.
#[derive(Clone, Debug)]
pub struct DmarStructures<'table> {
    chain: Chain<'table>,
}

impl<'table> Iterator for DmarStructures<'table> {
    type Item = Result<DmarStructure<'table>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.chain.step_with(DmarStructure::read)
    }
}

/// What a scope names (§8.3.1).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ScopeKind {
    /// 1: a PCI device.
    Endpoint,
    /// 2: a PCI bridge and all that is below it.
    Bridge,
    /// 3: an I/O APIC.
    IoApic,
    /// 4: an HPET that sends its interrupts as messages.
    Hpet,
    /// 5: a device of the ACPI name space.
    NameSpaceDevice,
    /// Another one.
    Other(u8),
}

/// An entry of a device scope (§8.3.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scope<'table> {
    /// What it names.
    pub kind: ScopeKind,
    /// I/O APIC identifier, HPET number or name space device's number.
    pub enumeration: u8,
    /// The bus on which the path begins.
    pub start_bus: u8,
    /// The way from that bus through bridges to the device; at least one step.
    pub path: PciPath<'table>,
}

impl<'table> Scope<'table> {
    fn read(structure: &Structure<'table>) -> Option<Self> {
        let bytes = structure.bytes;
        let path = bytes.get(6..)?;
        // A step is a pair of bytes, and there is at least one (§8.3.1).
        if path.is_empty() || !path.len().is_multiple_of(2) {
            return None;
        }
        Some(Self {
            kind: match structure.kind {
                1 => ScopeKind::Endpoint,
                2 => ScopeKind::Bridge,
                3 => ScopeKind::IoApic,
                4 => ScopeKind::Hpet,
                5 => ScopeKind::NameSpaceDevice,
                other => ScopeKind::Other(other as u8),
            },
            enumeration: byte(bytes, 4)?,
            start_bus: byte(bytes, 5)?,
            path: PciPath { rest: path },
        })
    }
}

/// The entries of a device scope; after an error there are none.
#[derive(Clone, Debug)]
pub struct Scopes<'table> {
    chain: Chain<'table>,
}

impl<'table> Iterator for Scopes<'table> {
    type Item = Result<Scope<'table>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.chain.step_with(Scope::read)
    }
}

/// Steps of a path, as PCI device (0–31 where firmware is right) and function (0–7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PciPath<'table> {
    rest: &'table [u8],
}

impl Iterator for PciPath<'_> {
    type Item = (u8, u8);

    fn next(&mut self) -> Option<(u8, u8)> {
        let (step, rest) = self.rest.split_first_chunk::<2>()?;
        self.rest = rest;
        Some((step[0], step[1]))
    }
}
