//! Processors and interrupt controllers: the MADT.

use crate::bytes::{Chain, Shape, Structure, byte, double_word, quad_word, word};
use crate::{Error, Table};

/// Where the entries begin.
const ENTRIES: usize = 44;

/// When an interrupt line is active (§5.2.12.5, table 5.26).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Polarity {
    /// As its bus says; for ISA: active high.
    Bus,
    /// Active high.
    High,
    /// The value that the specification does not define.
    Reserved,
    /// Active low.
    Low,
}

/// How an interrupt line signals (§5.2.12.5, table 5.26).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum TriggerMode {
    /// As its bus says; for ISA: edge.
    Bus,
    /// Edge.
    Edge,
    /// The value that the specification does not define.
    Reserved,
    /// Level.
    Level,
}

/// Polarity (bits 1–0) and trigger mode (bits 3–2) of MPS INTI flags.
const fn signalling(flags: u16) -> (Polarity, TriggerMode) {
    let polarity = match flags & 3 {
        0 => Polarity::Bus,
        1 => Polarity::High,
        2 => Polarity::Reserved,
        _ => Polarity::Low,
    };
    let trigger = match (flags >> 2) & 3 {
        0 => TriggerMode::Bus,
        1 => TriggerMode::Edge,
        2 => TriggerMode::Reserved,
        _ => TriggerMode::Level,
    };
    (polarity, trigger)
}

/// One entry of the MADT.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum MadtEntry {
    /// A processor with an 8-bit local APIC identifier (§5.2.12.2).
    LocalApic {
        /// Its identifier in the ACPI name space.
        processor: u8,
        /// Its local APIC's identifier.
        id: u8,
        /// It is there and may be used.
        enabled: bool,
        /// It may come to be there while the machine runs.
        online_capable: bool,
    },
    /// An I/O APIC (§5.2.12.3).
    IoApic {
        /// Its identifier.
        id: u8,
        /// Physical address of its registers.
        address: u32,
        /// The global system interrupt of its first line.
        gsi_base: u32,
    },
    /// An ISA interrupt that comes at another global system interrupt than its own number, or signals unlike ISA
    /// (§5.2.12.5).
    SourceOverride {
        /// The ISA interrupt.
        source: u8,
        /// Where it comes.
        gsi: u32,
        /// When it is active.
        polarity: Polarity,
        /// How it signals.
        trigger: TriggerMode,
    },
    /// A global system interrupt that is non-maskable (§5.2.12.6).
    NmiSource {
        /// Which.
        gsi: u32,
        /// When it is active.
        polarity: Polarity,
        /// How it signals.
        trigger: TriggerMode,
    },
    /// The local APIC input that the NMI is wired to (§5.2.12.7, §5.2.12.13).
    LocalApicNmi {
        /// The processor's identifier in the ACPI name space; `None`: of all.
        processor: Option<u32>,
        /// When it is active.
        polarity: Polarity,
        /// How it signals.
        trigger: TriggerMode,
        /// LINT0 or LINT1, as 0 or 1.
        input: u8,
    },
    /// The 64-bit address of the local APICs, in place of the table's 32-bit one (§5.2.12.8).
    AddressOverride {
        /// Physical address.
        address: u64,
    },
    /// A processor with a 32-bit local APIC identifier (§5.2.12.12).
    LocalX2Apic {
        /// Its identifier in the ACPI name space.
        processor: u32,
        /// Its local APIC's identifier.
        id: u32,
        /// It is there and may be used.
        enabled: bool,
        /// It may come to be there while the machine runs.
        online_capable: bool,
    },
    /// A structure of another kind.
    Other {
        /// Its type byte.
        kind: u8,
    },
}

impl MadtEntry {
    /// Reads an entry; `None` if it is shorter than its kind. What is longer is read as far as it is known.
    fn read(structure: &Structure<'_>) -> Option<Self> {
        let bytes = structure.bytes;
        Some(match structure.kind {
            0 => {
                let flags = double_word(bytes, 4)?;
                Self::LocalApic {
                    processor: byte(bytes, 2)?,
                    id: byte(bytes, 3)?,
                    enabled: flags & 1 != 0,
                    online_capable: flags & 2 != 0,
                }
            }
            1 => Self::IoApic {
                id: byte(bytes, 2)?,
                address: double_word(bytes, 4)?,
                gsi_base: double_word(bytes, 8)?,
            },
            2 => {
                let (polarity, trigger) = signalling(word(bytes, 8)?);
                Self::SourceOverride {
                    source: byte(bytes, 3)?,
                    gsi: double_word(bytes, 4)?,
                    polarity,
                    trigger,
                }
            }
            3 => {
                let (polarity, trigger) = signalling(word(bytes, 2)?);
                Self::NmiSource { gsi: double_word(bytes, 4)?, polarity, trigger }
            }
            4 => {
                let (polarity, trigger) = signalling(word(bytes, 3)?);
                let processor = byte(bytes, 2)?;
                Self::LocalApicNmi {
                    processor: (processor != u8::MAX).then_some(processor as u32),
                    polarity,
                    trigger,
                    input: byte(bytes, 5)?,
                }
            }
            5 => Self::AddressOverride { address: quad_word(bytes, 4)? },
            9 => {
                let flags = double_word(bytes, 8)?;
                Self::LocalX2Apic {
                    processor: double_word(bytes, 12)?,
                    id: double_word(bytes, 4)?,
                    enabled: flags & 1 != 0,
                    online_capable: flags & 2 != 0,
                }
            }
            10 => {
                let (polarity, trigger) = signalling(word(bytes, 2)?);
                let processor = double_word(bytes, 4)?;
                Self::LocalApicNmi {
                    processor: (processor != u32::MAX).then_some(processor),
                    polarity,
                    trigger,
                    input: byte(bytes, 8)?,
                }
            }
            kind => Self::Other { kind: kind as u8 },
        })
    }
}

/// The multiple APIC description table (§5.2.12), signature `APIC`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Madt<'table> {
    bytes: &'table [u8],
    address: u32,
    flags: u32,
}

impl<'table> Madt<'table> {
    /// Checks length, signature and checksum. The entries are checked as they are read.
    ///
    /// # Errors
    /// As [`Table::new`], and [`Error::Signature`], [`Error::Length`].
    pub fn parse(bytes: &'table [u8]) -> Result<Self, Error> {
        let bytes = Table::expect(bytes, *b"APIC", ENTRIES)?.bytes();
        Ok(Self {
            bytes,
            address: double_word(bytes, 36).ok_or(Error::Length)?,
            flags: double_word(bytes, 40).ok_or(Error::Length)?,
        })
    }

    /// Physical address of the local APICs, as all processors have it at reset: the override's, if there is one.
    pub fn local_apic_address(&self) -> u64 {
        self.entries()
            .find_map(|entry| match entry {
                Ok(MadtEntry::AddressOverride { address }) => Some(address),
                _ => None,
            })
            .unwrap_or(self.address as u64)
    }

    /// Whether there is a pair of 8259A, to be masked before the APICs are used.
    pub const fn has_legacy_pic(&self) -> bool {
        self.flags & 1 != 0
    }

    /// The entries in the table's order.
    pub fn entries(&self) -> MadtEntries<'table> {
        MadtEntries { chain: Chain::new(self.bytes, ENTRIES, 0, Shape::ByteByte) }
    }

    /// The processors in the table's order: the first that is enabled is the one that firmware started (§5.2.12.1).
    pub fn processors(&self) -> Processors<'table> {
        Processors { entries: self.entries() }
    }
}

/// The entries of a MADT; after an error there are none.
#[derive(Clone, Debug)]
pub struct MadtEntries<'table> {
    chain: Chain<'table>,
}

impl Iterator for MadtEntries<'_> {
    type Item = Result<MadtEntry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.chain.step_with(MadtEntry::read)
    }
}

/// A processor, whichever kind of entry lists it.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Processor {
    /// Its local APIC's identifier.
    pub id: u32,
    /// Its identifier in the ACPI name space.
    pub processor: u32,
    /// It is there and may be used.
    pub enabled: bool,
    /// It may come to be there while the machine runs.
    pub online_capable: bool,
}

/// The processors of a MADT; after an error there are none. Entries whose identifier is the broadcast one (255 or
/// 0xFFFF_FFFF) stand for no processor and are passed over. Firmware may list one identifier twice, also once by either kind of
/// entry: who starts processors must notice.
#[derive(Clone, Debug)]
pub struct Processors<'table> {
    entries: MadtEntries<'table>,
}

impl Iterator for Processors<'_> {
    type Item = Result<Processor, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entries.find_map(|entry| match entry {
            Ok(MadtEntry::LocalApic { processor, id, enabled, online_capable }) if id != u8::MAX => {
                let (id, processor) = (id as u32, processor as u32);
                Some(Ok(Processor { id, processor, enabled, online_capable }))
            }
            Ok(MadtEntry::LocalX2Apic { processor, id, enabled, online_capable }) if id != u32::MAX => {
                Some(Ok(Processor { id, processor, enabled, online_capable }))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }
}
