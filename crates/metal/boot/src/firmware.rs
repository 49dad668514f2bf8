//! What firmware says through ACPI tables: processors, interrupt controllers, timers, power-off. The tables are read by the
//! bounded readers of the crate `acpi`; a table that is broken is named and taken as absent.

use crate::information::{Physical, RootPointer};
use acpi::{Fadt, Header, Hpet, Madt, MadtEntry, Polarity, Rsdp, Table, TriggerMode};
use heapless::Vec;

/// Most processors that are noted.
pub const PROCESSORS: usize = 256;
/// Largest table that is read, in bytes.
const LARGEST: u64 = 1 << 24;
/// Most tables that a root table's list is followed to.
const TABLES: usize = 64;

/// An I/O APIC.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct IoApicFact {
    /// Physical address of its registers.
    pub address: u64,
    /// Its first global interrupt.
    pub first: u32,
}

/// Where an ISA interrupt arrives.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct InterruptFact {
    /// Global interrupt.
    pub interrupt: u32,
    /// Whether it is low-active.
    pub low_active: bool,
    /// Whether it is level-triggered.
    pub level: bool,
}

/// How the machine is turned off (ACPI 6.5 §4.8.3.2.1).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct PowerFact {
    /// Port and sleep type of PM1a control.
    pub first: (u16, u8),
    /// Port and sleep type of PM1b control, where there is one.
    pub second: Option<(u16, u8)>,
    /// Port and value that turn ACPI mode on, where it must be.
    pub enable: Option<(u16, u8)>,
}

/// A table that is broken, by signature.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Complaint {
    /// The signature.
    pub table: [u8; 4],
    /// What is wrong with it.
    pub error: acpi::Error,
}

/// Facts from ACPI.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Firmware {
    /// Local APIC identifiers of the processors that may be used, in firmware's order.
    pub processors: Vec<u32, PROCESSORS>,
    /// I/O APICs.
    pub io_apics: Vec<IoApicFact, { cpu::io_apic::MOST }>,
    /// Where ISA interrupt 4 arrives, that of the first serial port.
    pub serial: Option<InterruptFact>,
    /// Port of the power-management timer, and whether it has 32 bits.
    pub timer: Option<(u16, bool)>,
    /// Physical address of the HPET's registers.
    pub high_precision: Option<u64>,
    /// CMOS register of the century; 0 if there is none.
    pub century: u8,
    /// How to turn the machine off.
    pub power: Option<PowerFact>,
    /// What is broken.
    pub complaints: Vec<Complaint, 8>,
}

fn whole(memory: &impl Physical, address: u64) -> Option<&[u8]> {
    let header = Header::parse(memory.bytes(address, acpi::HEADER_LENGTH as u64)?).ok()?;
    let length = u64::from(header.length);
    if length > LARGEST { None } else { memory.bytes(address, length) }
}

impl Firmware {
    /// Reads all tables that matter. What is not there stays empty.
    #[inline(never)]
    pub fn read(memory: &impl Physical, root: &RootPointer) -> Self {
        let mut this = Self { serial: Some(ISA_4), ..Self::default() };
        let Some(rsdp) = find_root(memory, root) else { return this };
        let address = rsdp.xsdt.unwrap_or(u64::from(rsdp.rsdt));
        let Some(table) = whole(memory, address) else {
            this.complain(*b"XSDT", acpi::Error::Truncated);
            return this;
        };
        let table = match Table::new(table) {
            Ok(table) => table,
            Err(error) => {
                this.complain(*b"XSDT", error);
                return this;
            }
        };
        let entries = match acpi::root_entries(&table) {
            Ok(entries) => entries,
            Err(error) => {
                this.complain(*b"XSDT", error);
                return this;
            }
        };
        for address in entries.take(TABLES) {
            let Some(bytes) = whole(memory, address) else { continue };
            let Some(signature) = bytes.get(..4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()) else {
                continue;
            };
            let outcome = match &signature {
                b"APIC" => this.read_madt(bytes),
                b"FACP" => this.read_fadt(memory, bytes),
                b"HPET" => this.read_hpet(bytes),
                _ => Ok(()),
            };
            if let Err(error) = outcome {
                this.complain(signature, error);
            }
        }
        this
    }

    fn complain(&mut self, table: [u8; 4], error: acpi::Error) {
        // Eight complaints say enough.
        let _ = self.complaints.push(Complaint { table, error });
    }

    #[inline(never)]
    fn read_madt(&mut self, bytes: &[u8]) -> Result<(), acpi::Error> {
        let madt = Madt::parse(bytes)?;
        for processor in madt.processors() {
            let processor = processor?;
            if processor.enabled && !self.processors.contains(&processor.id) {
                // More than there is room for are more than can be started.
                let _ = self.processors.push(processor.id);
            }
        }
        for entry in madt.entries() {
            match entry? {
                MadtEntry::IoApic { address, gsi_base, .. } => {
                    let _ = self.io_apics.push(IoApicFact { address: u64::from(address), first: gsi_base });
                }
                MadtEntry::SourceOverride { source: 4, gsi, polarity, trigger } => {
                    // "Bus" means what ISA does: high-active, edge (§5.2.12.5).
                    self.serial = Some(InterruptFact {
                        interrupt: gsi,
                        low_active: polarity == Polarity::Low,
                        level: trigger == TriggerMode::Level,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn read_fadt(&mut self, memory: &impl Physical, bytes: &[u8]) -> Result<(), acpi::Error> {
        let fadt = Fadt::parse(bytes)?;
        if let Some(timer) = fadt.pm_timer() {
            self.timer = timer.register.port().map(|port| (port, timer.is_32_bit));
        }
        self.century = fadt.century();
        let Some(first) = fadt.pm1a_control().and_then(|register| register.port()) else { return Ok(()) };
        let Some(description) = whole(memory, fadt.dsdt()) else {
            self.complain(*b"DSDT", acpi::Error::Truncated);
            return Ok(());
        };
        let description = match Table::new(description) {
            Ok(table) => table,
            Err(error) => {
                self.complain(*b"DSDT", error);
                return Ok(());
            }
        };
        if let Some((type_first, type_second)) = acpi::s5_sleep_types(description.body()) {
            let enable = match u16::try_from(fadt.smi_command()) {
                Ok(port) if port != 0 && fadt.acpi_enable() != 0 => Some((port, fadt.acpi_enable())),
                _ => None,
            };
            self.power = Some(PowerFact {
                first: (first, type_first),
                second: fadt
                    .pm1b_control()
                    .and_then(|register| register.port())
                    .map(|port| (port, type_second)),
                enable,
            });
        }
        Ok(())
    }

    fn read_hpet(&mut self, bytes: &[u8]) -> Result<(), acpi::Error> {
        let hpet = Hpet::parse(bytes)?;
        if hpet.base.space == acpi::RegisterSpace::Memory {
            self.high_precision = Some(hpet.base.address);
        }
        Ok(())
    }
}

/// ISA interrupt 4 where no override moves it.
const ISA_4: InterruptFact = InterruptFact { interrupt: 4, low_active: false, level: false };

/// The root pointer: the loader's, else the one in the first KiB of the extended BIOS data area or in the BIOS (ACPI 6.5 §5.2.5.1).
#[inline(never)]
fn find_root(memory: &impl Physical, root: &RootPointer) -> Option<Rsdp> {
    match root {
        RootPointer::Copied(bytes) => {
            if let Ok(rsdp) = Rsdp::parse(bytes) {
                return Some(rsdp);
            }
        }
        RootPointer::At(address) => {
            let bytes = memory.bytes(*address, 36).or_else(|| memory.bytes(*address, 20));
            if let Some(rsdp) = bytes.and_then(|bytes| Rsdp::parse(bytes).ok()) {
                return Some(rsdp);
            }
        }
        RootPointer::Unknown => {}
    }
    // The segment of the extended BIOS data area stands at 40Eh.
    let segment = memory.bytes(0x40e, 2).and_then(|bytes| Some(u16::from_le_bytes(bytes.try_into().ok()?)));
    let extended = segment.map(|segment| u64::from(segment) << 4).filter(|address| *address >= 0x400);
    for (address, length) in
        [extended.map(|address| (address, 0x400)), Some((0xe_0000, 0x2_0000))].into_iter().flatten()
    {
        if let Some(area) = memory.bytes(address, length)
            && let Some(offset) = acpi::find_rsdp(area)
            && let Some(rsdp) = area.get(offset..).and_then(|bytes| Rsdp::parse(bytes).ok())
        {
            return Some(rsdp);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(std::vec::Vec<u8>);

    impl Physical for Fake {
        fn bytes(&self, address: u64, length: u64) -> Option<&[u8]> {
            let start = usize::try_from(address).ok()?;
            self.0.get(start..start.checked_add(usize::try_from(length).ok()?)?)
        }
    }

    fn sum_to_zero(bytes: &mut [u8], at: usize) {
        bytes[at] = 0;
        bytes[at] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
    }

    fn table(signature: &[u8; 4], length: usize, fill: impl FnOnce(&mut [u8])) -> std::vec::Vec<u8> {
        let mut bytes = vec![0; length];
        bytes[..4].copy_from_slice(signature);
        bytes[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        bytes[8] = 1;
        fill(&mut bytes);
        sum_to_zero(&mut bytes, 9);
        bytes
    }

    const RSDT: usize = 0x1000;
    const MADT: usize = 0x2000;
    const FADT: usize = 0x3000;
    const DSDT: usize = 0x4000;
    const HPET: usize = 0x5000;

    fn machine() -> Fake {
        let mut memory = vec![0u8; 0x10_0000];
        let mut put = |at: usize, bytes: &[u8]| memory[at..at + bytes.len()].copy_from_slice(bytes);
        let mut root = *b"RSD PTR \0BENCH \0\0\0\0\0";
        root[16..20].copy_from_slice(&(RSDT as u32).to_le_bytes());
        sum_to_zero(&mut root, 8);
        put(0xf_5a40, &root);
        put(
            RSDT,
            &table(b"RSDT", 36 + 12, |bytes| {
                for (index, address) in [MADT, FADT, HPET].into_iter().enumerate() {
                    bytes[36 + 4 * index..][..4].copy_from_slice(&(address as u32).to_le_bytes());
                }
            }),
        );
        let entries: &[&[u8]] = &[
            &[0, 8, 0, 0, 1, 0, 0, 0],
            &[0, 8, 1, 1, 1, 0, 0, 0],
            &[0, 8, 2, 2, 0, 0, 0, 0],
            &[0, 8, 3, 1, 1, 0, 0, 0],
            &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
            &[2, 10, 0, 4, 20, 0, 0, 0, 0x0f, 0],
        ];
        let entries = entries.concat();
        put(MADT, &table(b"APIC", 44 + entries.len(), |bytes| bytes[44..].copy_from_slice(&entries)));
        put(
            FADT,
            &table(b"FACP", 116, |bytes| {
                bytes[40..44].copy_from_slice(&(DSDT as u32).to_le_bytes());
                bytes[48..52].copy_from_slice(&0xb2u32.to_le_bytes());
                bytes[52] = 2;
                bytes[64..68].copy_from_slice(&0x604u32.to_le_bytes());
                bytes[76..80].copy_from_slice(&0x608u32.to_le_bytes());
                bytes[89] = 2;
                bytes[91] = 4;
                bytes[108] = 0x32;
            }),
        );
        // Name (_S5, Package (4) { 5, 0, 0, 0 })
        let s5 = [0x08, b'_', b'S', b'5', b'_', 0x12, 0x07, 4, 0x0a, 5, 0, 0, 0];
        put(DSDT, &table(b"DSDT", 36 + s5.len(), |bytes| bytes[36..].copy_from_slice(&s5)));
        put(
            HPET,
            &table(b"HPET", 56, |bytes| {
                bytes[44..52].copy_from_slice(&0xfed0_0000u64.to_le_bytes());
            }),
        );
        Fake(memory)
    }

    #[test]
    fn the_tables_of_a_pc_are_read() {
        for root in [RootPointer::Unknown, RootPointer::At(0xf_5a40), RootPointer::At(0x8_0000)] {
            let firmware = Firmware::read(&machine(), &root);
            assert_eq!(firmware.processors[..], [0, 1], "disabled and repeated ones do not count");
            assert_eq!(firmware.io_apics[..], [IoApicFact { address: 0xfec0_0000, first: 0 }]);
            assert_eq!(firmware.serial, Some(InterruptFact { interrupt: 20, low_active: true, level: true }));
            assert_eq!(firmware.timer, Some((0x608, false)));
            assert_eq!(firmware.high_precision, Some(0xfed0_0000));
            assert_eq!(firmware.century, 0x32);
            let power = PowerFact { first: (0x604, 5), second: None, enable: Some((0xb2, 2)) };
            assert_eq!(firmware.power, Some(power));
            assert_eq!(firmware.complaints, []);
        }
    }

    #[test]
    fn a_broken_table_is_named_and_absent() {
        let mut memory = machine();
        memory.0[MADT + 20] ^= 1;
        let firmware = Firmware::read(&memory, &RootPointer::Unknown);
        assert_eq!(firmware.complaints[..], [Complaint { table: *b"APIC", error: acpi::Error::Checksum }]);
        assert!(firmware.processors.is_empty() && firmware.timer.is_some());
    }

    #[test]
    fn a_machine_without_tables_has_no_facts() {
        let firmware = Firmware::read(&Fake(vec![0; 0x10_0000]), &RootPointer::Unknown);
        assert_eq!(firmware, Firmware { serial: Some(ISA_4), ..Firmware::default() });
    }

    #[test]
    fn no_flipped_byte_makes_it_panic() {
        let memory = machine();
        for start in [RSDT, MADT, FADT, DSDT, HPET, 0xf_5a40] {
            for offset in 0..130 {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut broken = Fake(memory.0.clone());
                    broken.0[start + offset] = value;
                    let _ = Firmware::read(&broken, &RootPointer::At(0xf_5a40));
                }
            }
        }
    }
}
