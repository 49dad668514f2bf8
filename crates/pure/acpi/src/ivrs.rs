//! AMD's IOMMUs: the IVRS table.
//!
//! Sections are those of the AMD I/O Virtualization Technology (IOMMU) Specification, 48882 revision 3.08.

use crate::bytes::{Chain, Shape, Structure, array, byte, double_word, quad_word, word};
use crate::{Error, Table};

/// Where the blocks begin.
const BLOCKS: usize = 48;

/// The I/O virtualization reporting structure (§5.2.1), signature `IVRS`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Ivrs<'table> {
    bytes: &'table [u8],
    information: u32,
}

impl<'table> Ivrs<'table> {
    /// Checks length, signature and checksum. The blocks are checked as they are read.
    ///
    /// # Errors
    /// As [`Table::new`], and [`Error::Signature`], [`Error::Length`].
    pub fn parse(bytes: &'table [u8]) -> Result<Self, Error> {
        let bytes = Table::expect(bytes, *b"IVRS", BLOCKS)?.bytes();
        Ok(Self { bytes, information: double_word(bytes, 36).ok_or(Error::Length)? })
    }

    /// `IVinfo` as it stands (§5.2.1).
    pub const fn information(&self) -> u32 {
        self.information
    }

    /// Bits of a physical address that the IOMMUs reach (`PASize`); 0 where the table does not say.
    pub const fn physical_address_bits(&self) -> u8 {
        (self.information >> 8 & 0x7f) as u8
    }

    /// Bits of a virtual address that they translate (`VASize`); 0 where the table does not say.
    pub const fn virtual_address_bits(&self) -> u8 {
        (self.information >> 15 & 0x7f) as u8
    }

    /// Whether firmware asks that DMA stay blocked until its device is in use (`DMA remap support`).
    pub const fn dma_remap(&self) -> bool {
        self.information & 2 != 0
    }

    /// The blocks in the table's order. Firmware describes one IOMMU in up to three of them, of types 0x10, 0x11 and 0x40: who
    /// sets up takes the highest type for each that it understands (§5.2.2).
    pub fn blocks(&self) -> IvrsBlocks<'table> {
        IvrsBlocks { chain: Chain::new(self.bytes, BLOCKS, 0, Shape::ByteWord) }
    }
}

/// Which devices a memory block speaks of (§5.2.2.2).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum MemoryScope {
    /// 0x20: all.
    All,
    /// 0x21: one.
    Device(u16),
    /// 0x22: from the first to the last.
    Range(u16, u16),
}

/// An IOMMU (IVHD, §5.2.2.1).
#[derive(Clone, Debug)]
pub struct IommuBlock<'table> {
    /// The type of the block: 0x10, 0x11 or 0x40.
    pub kind: u8,
    /// Settings for its control register.
    pub flags: u8,
    /// Its own PCI identifier: bus in bits 15–8, device in 7–3, function in 2–0.
    pub device: u16,
    /// Where its capability block lies in configuration space.
    pub capability: u16,
    /// Physical address of its registers.
    pub base: u64,
    /// PCI segment.
    pub segment: u16,
    /// `IOMMU Info`: message-signalled interrupt number and unit identifier.
    pub information: u16,
    /// `IOMMU Feature Info` of type 0x10, `IOMMU Attributes` of the others.
    pub features: u32,
    /// A copy of its extended feature register; type 0x10 has none.
    pub extended_features: Option<u64>,
    /// The devices that it serves.
    pub entries: IommuEntries<'table>,
}

/// A block of the IVRS (§5.2.2).
#[derive(Clone, Debug)]
pub enum IvrsBlock<'table> {
    /// An IOMMU.
    Iommu(IommuBlock<'table>),
    /// Memory that devices need to reach, or must not reach (IVMD).
    Memory {
        /// Which devices.
        scope: MemoryScope,
        /// Bit 0 map it as it is, bit 1 readable, bit 2 writable, bit 3 exclusion range.
        flags: u8,
        /// Physical address of the first byte.
        start: u64,
        /// Bytes; the range does not wrap.
        length: u64,
    },
    /// A block of another kind.
    Other {
        /// Its type.
        kind: u8,
    },
}

impl<'table> IvrsBlock<'table> {
    fn read(structure: &Structure<'table>) -> Option<Self> {
        let bytes = structure.bytes;
        let kind = structure.kind as u8;
        Some(match kind {
            0x10 | 0x11 | 0x40 => {
                let start = if kind == 0x10 { 24 } else { 40 };
                if bytes.len() < start {
                    return None;
                }
                Self::Iommu(IommuBlock {
                    kind,
                    flags: byte(bytes, 1)?,
                    device: word(bytes, 4)?,
                    capability: word(bytes, 6)?,
                    base: quad_word(bytes, 8)?,
                    segment: word(bytes, 16)?,
                    information: word(bytes, 18)?,
                    features: double_word(bytes, 20)?,
                    extended_features: if kind == 0x10 { None } else { Some(quad_word(bytes, 24)?) },
                    entries: IommuEntries {
                        chain: Chain::new(bytes, start, structure.offset, Shape::ByKind),
                    },
                })
            }
            0x20..=0x22 => {
                let device = word(bytes, 4)?;
                let (start, length) = (quad_word(bytes, 16)?, quad_word(bytes, 24)?);
                start.checked_add(length)?;
                let scope = match kind {
                    0x20 => MemoryScope::All,
                    0x21 => MemoryScope::Device(device),
                    _ => MemoryScope::Range(device, word(bytes, 6)?),
                };
                Self::Memory { scope, flags: byte(bytes, 1)?, start, length }
            }
            kind => Self::Other { kind },
        })
    }
}

/// The blocks of an IVRS; after an error there are none.
#[derive(Clone, Debug)]
pub struct IvrsBlocks<'table> {
    chain: Chain<'table>,
}

impl<'table> Iterator for IvrsBlocks<'table> {
    type Item = Result<IvrsBlock<'table>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.chain.step_with(IvrsBlock::read)
    }
}

/// An entry of an IOMMU's block (§5.2.2.1). `settings` are the data settings that go into the device's
/// table entry: which of INIT, ExtInt, NMI and LINT pass.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum IommuEntry<'table> {
    /// 0 and 64: padding.
    Padding,
    /// 1: all devices.
    All {
        /// Data settings.
        settings: u8,
    },
    /// 2 and 70: one device.
    Device {
        /// Which.
        device: u16,
        /// Data settings.
        settings: u8,
        /// Extended settings, of 70.
        extended: u32,
    },
    /// 3 and 71: the first of a range of devices, which the next [`IommuEntry::EndOfRange`] ends.
    StartOfRange {
        /// Which.
        device: u16,
        /// Data settings.
        settings: u8,
        /// Extended settings, of 71.
        extended: u32,
    },
    /// 4: the last of a range.
    EndOfRange {
        /// Which.
        device: u16,
    },
    /// 66: a device that acts under another one's identifier.
    Alias {
        /// Which.
        device: u16,
        /// Data settings.
        settings: u8,
        /// The identifier that its requests carry.
        source: u16,
    },
    /// 67: the first of a range of devices that act under one identifier.
    StartOfAliasRange {
        /// Which.
        device: u16,
        /// Data settings.
        settings: u8,
        /// The identifier that their requests carry.
        source: u16,
    },
    /// 72: an I/O APIC or HPET.
    Special {
        /// Its I/O APIC identifier or HPET number.
        handle: u8,
        /// Data settings.
        settings: u8,
        /// The identifier that its requests carry.
        source: u16,
        /// 1 I/O APIC, 2 HPET.
        variety: u8,
    },
    /// 240: a device of the ACPI name space.
    NameSpaceDevice {
        /// The identifier that its requests carry.
        device: u16,
        /// Data settings.
        settings: u8,
        /// `_HID`.
        hardware: [u8; 8],
        /// `_UID` as it stands; empty where there is none.
        unique: &'table [u8],
    },
    /// An entry of another kind.
    Other {
        /// Its type.
        kind: u8,
    },
}

/// Bytes of the device entry at the front of `bytes` (§5.2.2.1): the two highest bits of the type say it, but for
/// type 240, which has a name at its end whose length is the byte before.
pub(crate) fn entry_length(bytes: &[u8]) -> Option<usize> {
    Some(match byte(bytes, 0)? {
        0..=63 => 4,
        64..=127 => 8,
        128..=191 => 16,
        240 => 22 + byte(bytes, 21)? as usize,
        _ => 32,
    })
}

impl<'table> IommuEntry<'table> {
    fn read(structure: &Structure<'table>) -> Option<Self> {
        let bytes = structure.bytes;
        let device = word(bytes, 1)?;
        let settings = byte(bytes, 3)?;
        Some(match structure.kind as u8 {
            0 | 64 => Self::Padding,
            1 => Self::All { settings },
            2 => Self::Device { device, settings, extended: 0 },
            3 => Self::StartOfRange { device, settings, extended: 0 },
            4 => Self::EndOfRange { device },
            66 => Self::Alias { device, settings, source: word(bytes, 5)? },
            67 => Self::StartOfAliasRange { device, settings, source: word(bytes, 5)? },
            70 => Self::Device { device, settings, extended: double_word(bytes, 4)? },
            71 => Self::StartOfRange { device, settings, extended: double_word(bytes, 4)? },
            72 => Self::Special {
                handle: byte(bytes, 4)?,
                settings,
                source: word(bytes, 5)?,
                variety: byte(bytes, 7)?,
            },
            240 => Self::NameSpaceDevice {
                device,
                settings,
                hardware: array(bytes, 4)?,
                unique: bytes.get(22..)?,
            },
            kind => Self::Other { kind },
        })
    }
}

/// The entries of an IOMMU's block; after an error there are none.
#[derive(Clone, Debug)]
pub struct IommuEntries<'table> {
    chain: Chain<'table>,
}

impl<'table> Iterator for IommuEntries<'table> {
    type Item = Result<IommuEntry<'table>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.chain.step_with(IommuEntry::read)
    }
}
