//! The firmware's tables of a compartment: ACPI, the multiprocessor table, and the BIOS data area.
//!
//! They describe the devices that the image's parts model, and nothing else: local APICs, I/O APIC, PM timer and power switch,
//! PCI host bridge, COM1 and real-time clock. The numbers here are the devices' own (crates `acpi-power`, `io-apic`,
//! `local-apic`, `pci-host`, `rtc`, `uart`). All tables lie below 1 MiB, in memory that the memory map reserves.

use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::{Aml, aml};

/// Bytes of a mebibyte.
pub(crate) const MEBIBYTE: u64 = 1 << 20;
/// Where the extended BIOS data area begins, and free low memory ends.
pub(crate) const EBDA: u64 = 0x9_fc00;
/// Where the ACPI tables lie, the RSDP first: a paragraph of the area that is searched for it (ACPI 6.5 §5.2.5.1).
pub(crate) const ACPI_TABLES: u64 = 0xe_0000;
/// Where the multiprocessor table lies, its floating pointer first (MultiProcessor Specification 1.4 §4).
pub(crate) const MP_TABLE: u64 = 0xf_0000;
/// Where the ACPI tables must end.
const ACPI_TABLES_END: u64 = MP_TABLE;

const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;
const PM1_EVENT: u16 = 0x600;
const PM1_CONTROL: u16 = 0x604;
const PM_TIMER: u16 = 0x608;
const RESET_PORT: u16 = 0xcf9;
/// Written to [`RESET_PORT`]: full reset.
const RESET_VALUE: u8 = 6;
/// The SCI's IRQ: level-triggered, active high.
const SCI: u8 = 9;
const COM1: u16 = 0x3f8;
const COM1_IRQ: u8 = 4;
const RTC: u16 = 0x70;
const RTC_IRQ: u8 = 8;
/// Index of the century in the CMOS memory.
const CENTURY: u8 = 0x32;
/// The sleep type of power-off, in bits 12–10 of PM1 control.
const SLEEP_TYPE_OFF: u8 = 5;

const MAKER: [u8; 6] = *b"RNGFNC";
const MODEL: [u8; 8] = *b"COMPARTM";
const CREATOR: [u8; 4] = *b"RNGF";

/// The BIOS data area from 0x400 (256 bytes): what boot code and kernels still look up there.
pub(crate) fn bios_data() -> Vec<u8> {
    let mut area = vec![0; 0x100];
    // Port of COM1.
    area[0x00..0x02].copy_from_slice(&COM1.to_le_bytes());
    // Segment of the EBDA.
    area[0x0e..0x10].copy_from_slice(&((EBDA >> 4) as u16).to_le_bytes());
    // Equipment: one serial port.
    area[0x10..0x12].copy_from_slice(&(1_u16 << 9).to_le_bytes());
    // Kibibytes of memory below the EBDA.
    area[0x13..0x15].copy_from_slice(&((EBDA >> 10) as u16).to_le_bytes());
    area
}

/// The extended BIOS data area: its length in kibibytes, and nothing else.
pub(crate) fn extended_bios_data() -> Vec<u8> {
    vec![1]
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// A table with the common header (ACPI 6.5 §5.2.6) and a valid checksum.
fn table(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = Vec::with_capacity(36 + body.len());
    table.extend_from_slice(&signature);
    table.extend_from_slice(&(36 + body.len() as u32).to_le_bytes());
    table.extend_from_slice(&[revision, 0]);
    table.extend_from_slice(&MAKER);
    table.extend_from_slice(&MODEL);
    table.extend_from_slice(&1_u32.to_le_bytes());
    table.extend_from_slice(&CREATOR);
    table.extend_from_slice(&1_u32.to_le_bytes());
    table.extend_from_slice(body);
    table[9] = sum(&table).wrapping_neg();
    table
}

/// A table with its signature and its guest-physical address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// Four characters; `RSDP` for the root pointer.
    pub signature: String,
    /// Guest-physical address.
    pub address: u64,
    /// Its bytes, checksum included.
    pub bytes: Vec<u8>,
}

/// The ACPI tables of a compartment with `vcpus` vCPUs, the root pointer first, in ascending order of address.
pub fn tables(vcpus: u8) -> Vec<Table> {
    // The root pointer has to know where the roots lie, these where the tables lie: so lay out first, from the sizes.
    let facs = facs();
    let dsdt = dsdt();
    let madt = madt(vcpus);
    let fadt_length = acpi_tables::fadt::FADT::len();
    let mut next = ACPI_TABLES;
    let mut take = |length: usize| {
        let address = next;
        // The FACS needs 64 bytes (§5.2.10); it does no harm to the others.
        next = (next + length as u64).next_multiple_of(64);
        address
    };
    let rsdp_at = take(36);
    let rsdt_at = take(36 + 2 * 4);
    let xsdt_at = take(36 + 2 * 8);
    let facs_at = take(facs.len());
    let fadt_at = take(fadt_length);
    let madt_at = take(madt.len());
    let dsdt_at = take(dsdt.len());

    let roots = [fadt_at, madt_at];
    let rsdt: Vec<u8> = roots.iter().flat_map(|address| (*address as u32).to_le_bytes()).collect();
    let xsdt: Vec<u8> = roots.iter().flat_map(|address| address.to_le_bytes()).collect();
    let entry = |signature: &str, address, bytes| Table { signature: signature.to_owned(), address, bytes };
    vec![
        entry("RSDP", rsdp_at, rsdp(rsdt_at as u32, xsdt_at)),
        entry("RSDT", rsdt_at, table(*b"RSDT", 1, &rsdt)),
        entry("XSDT", xsdt_at, table(*b"XSDT", 1, &xsdt)),
        entry("FACS", facs_at, facs),
        entry("FACP", fadt_at, fadt(facs_at as u32, dsdt_at as u32)),
        entry("APIC", madt_at, madt),
        entry("DSDT", dsdt_at, dsdt),
    ]
}

/// The tables as they lie from [`ACPI_TABLES`] on.
pub(crate) fn acpi_tables(vcpus: u8) -> Vec<u8> {
    let mut area = Vec::new();
    for table in tables(vcpus) {
        area.resize((table.address - ACPI_TABLES) as usize, 0);
        area.extend_from_slice(&table.bytes);
    }
    debug_assert!(ACPI_TABLES + area.len() as u64 <= ACPI_TABLES_END, "255 vCPUs need 2 KiB");
    area
}

/// The root system description pointer (§5.2.5.3).
fn rsdp(rsdt: u32, xsdt: u64) -> Vec<u8> {
    let mut pointer = Vec::with_capacity(36);
    pointer.extend_from_slice(b"RSD PTR ");
    pointer.push(0);
    pointer.extend_from_slice(&MAKER);
    pointer.push(2);
    pointer.extend_from_slice(&rsdt.to_le_bytes());
    // The first checksum covers what ACPI 1.0 defined.
    pointer[8] = sum(&pointer).wrapping_neg();
    pointer.extend_from_slice(&36_u32.to_le_bytes());
    pointer.extend_from_slice(&xsdt.to_le_bytes());
    pointer.extend_from_slice(&[0; 4]);
    pointer[32] = sum(&pointer).wrapping_neg();
    pointer
}

/// The firmware ACPI control structure (§5.2.10): a global lock that nobody else wants.
fn facs() -> Vec<u8> {
    let mut structure = vec![0; 64];
    structure[..4].copy_from_slice(b"FACS");
    structure[4..8].copy_from_slice(&64_u32.to_le_bytes());
    structure[32] = 2;
    structure
}

/// The fixed ACPI description table (§5.2.9).
fn fadt(facs: u32, dsdt: u32) -> Vec<u8> {
    let register = |port: u16, bits: u8, access: AccessSize| {
        GAS::new(AddressSpace::SystemIo, bits, 0, access, u64::from(port))
    };
    let mut fadt = FADTBuilder::new(MAKER, MODEL, 1)
        .preferred_pm_profile(PmProfile::Desktop)
        .firmware_ctrl_32(facs)
        .dsdt_32(dsdt)
        // WBINVD works; the power and sleep buttons are no fixed hardware; the clock cannot wake from power-off; the PM timer
        // has 32 bits.
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    fadt.major_version = 6;
    fadt.fadt_minor_version = 3;
    fadt.creator_id = CREATOR;
    fadt.creator_revision = 1_u32.to_le_bytes();
    fadt.sci_int = u16::from(SCI).into();
    // No SMI command: the machine is in ACPI mode from the beginning.
    fadt.pm1a_evt_blk = u32::from(PM1_EVENT).into();
    fadt.pm1_evt_len = 4;
    fadt.pm1a_cnt_blk = u32::from(PM1_CONTROL).into();
    fadt.pm1_cnt_len = 2;
    fadt.pm_tmr_blk = u32::from(PM_TIMER).into();
    fadt.pm_tmr_len = 4;
    fadt.x_pm1a_evt_blk = register(PM1_EVENT, 32, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = register(PM1_CONTROL, 16, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = register(PM_TIMER, 32, AccessSize::DwordAccess);
    // No C2 and C3.
    fadt.p_lvl2_lat = 0xffff.into();
    fadt.p_lvl3_lat = 0xffff.into();
    fadt.century = CENTURY;
    // Devices on the ISA bus (COM1); no 8042; no VGA; a CMOS clock (bit 5 clear).
    fadt.iapc_boot_arch = (1 << 0 | 1 << 2).into();
    fadt.reset_reg = register(RESET_PORT, 8, AccessSize::ByteAccess);
    fadt.reset_value = RESET_VALUE;
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(*b"Ringfenc").into();
    let mut bytes = Vec::new();
    fadt.finalize().to_aml_bytes(&mut bytes);
    bytes
}

/// The multiple APIC description table (§5.2.12).
fn madt(vcpus: u8) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&LOCAL_APIC.to_le_bytes());
    // PCAT_COMPAT: there is a pair of 8259A as well.
    body.extend_from_slice(&1_u32.to_le_bytes());
    for processor in 0..vcpus {
        // Local APIC: UID, APIC id, enabled.
        body.extend_from_slice(&[0, 8, processor, processor]);
        body.extend_from_slice(&1_u32.to_le_bytes());
    }
    // I/O APIC, whose first pin is GSI 0.
    body.extend_from_slice(&[1, 12, vcpus, 0]);
    body.extend_from_slice(&IO_APIC.to_le_bytes());
    body.extend_from_slice(&0_u32.to_le_bytes());
    // IRQ 0 arrives at pin 2, edge-triggered and active high as ISA has it; the SCI is level-triggered, active high.
    for (irq, pin, flags) in [(0, 2_u32, 0_u16), (SCI, u32::from(SCI), 0b1101)] {
        body.extend_from_slice(&[2, 10, 0, irq]);
        body.extend_from_slice(&pin.to_le_bytes());
        body.extend_from_slice(&flags.to_le_bytes());
    }
    // NMI at LINT1 of every processor, polarity and trigger as the bus has them.
    body.extend_from_slice(&[4, 6, 0xff, 0, 0, 1]);
    table(*b"APIC", 4, &body)
}

/// The differentiated system description table: power-off, the PCI host bridge, COM1, and the clock.
fn dsdt() -> Vec<u8> {
    let off = u64::from(SLEEP_TYPE_OFF);
    let power_off =
        aml::Name::new("_S5_".into(), &aml::Package::new(vec![&off, &off, &aml::ZERO, &aml::ZERO]));

    // Bus 0; all ports but those of configuration; memory between the end of low RAM and the I/O APIC.
    let bus = aml::AddressSpace::new_bus_number(0_u16, 0_u16);
    let configuration = aml::IO::new(0xcf8, 0xcf8, 1, 8);
    let low_ports = aml::AddressSpace::new_io(0_u16, 0xcf7, None);
    let high_ports = aml::AddressSpace::new_io(0xd00_u16, 0xffff, None);
    let memory = aml::AddressSpace::new_memory(
        aml::AddressSpaceCacheable::NotCacheable,
        true,
        plan::LOW_MEMORY_LIMIT as u32,
        IO_APIC - 1,
        None,
    );
    let bridge_id = aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0A03"));
    let bridge_uid = aml::Name::new("_UID".into(), &aml::ZERO);
    let bridge_bus = aml::Name::new("_BBN".into(), &aml::ZERO);
    let bridge_resources = aml::Name::new(
        "_CRS".into(),
        &aml::ResourceTemplate::new(vec![&bus, &configuration, &low_ports, &high_ports, &memory]),
    );
    // No _PRT: nothing on the bus has an interrupt pin; devices there send messages.
    let bridge =
        aml::Device::new("PCI0".into(), vec![&bridge_id, &bridge_uid, &bridge_bus, &bridge_resources]);

    let console_id = aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0501"));
    let console_uid = aml::Name::new("_UID".into(), &aml::ONE);
    let console_ports = aml::IO::new(COM1, COM1, 1, 8);
    let console_line = aml::Interrupt::new(true, true, false, false, u32::from(COM1_IRQ));
    let console_resources =
        aml::Name::new("_CRS".into(), &aml::ResourceTemplate::new(vec![&console_ports, &console_line]));
    let console = aml::Device::new("COM1".into(), vec![&console_id, &console_uid, &console_resources]);

    let clock_id = aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0B00"));
    let clock_ports = aml::IO::new(RTC, RTC, 1, 2);
    let clock_line = aml::Interrupt::new(true, true, false, false, u32::from(RTC_IRQ));
    let clock_resources =
        aml::Name::new("_CRS".into(), &aml::ResourceTemplate::new(vec![&clock_ports, &clock_line]));
    let clock = aml::Device::new("RTC_".into(), vec![&clock_id, &clock_resources]);

    let bus = aml::Scope::new("_SB_".into(), vec![&bridge, &console, &clock]);
    let mut body = Vec::new();
    power_off.to_aml_bytes(&mut body);
    bus.to_aml_bytes(&mut body);
    table(*b"DSDT", 2, &body)
}

/// The multiprocessor table from [`MP_TABLE`] on: floating pointer and configuration (MultiProcessor Specification 1.4 §4),
/// for kernels that do not read ACPI.
pub(crate) fn mp_table(vcpus: u8) -> Vec<u8> {
    const ISA: u8 = 1;
    let mut entries = Vec::new();
    let mut count: u16 = 0;
    let mut add = |bytes: &[u8]| {
        entries.extend_from_slice(bytes);
        count += 1;
    };
    for processor in 0..vcpus {
        let mut entry = [0; 20];
        entry[1] = processor;
        entry[2] = 0x14;
        // Enabled; the first one is the bootstrap processor.
        entry[3] = 1 | u8::from(processor == 0) << 1;
        // Signature of a family 6 processor, and the features FPU and APIC: kernels ask CPUID anyway.
        entry[4..8].copy_from_slice(&0x600_u32.to_le_bytes());
        entry[8..12].copy_from_slice(&0x201_u32.to_le_bytes());
        add(&entry);
    }
    add(b"\x01\x00PCI   ");
    add(b"\x01\x01ISA   ");
    let mut io_apic = [2, vcpus, 0x11, 1, 0, 0, 0, 0];
    io_apic[4..].copy_from_slice(&IO_APIC.to_le_bytes());
    add(&io_apic);
    // I/O interrupts: IRQ 0 at pin 2, the SCI level-triggered and active high, the others at the pin of their number.
    for irq in (0..16_u8).filter(|irq| *irq != 2) {
        let flags: u8 = if irq == SCI { 0b1101 } else { 0 };
        let pin = if irq == 0 { 2 } else { irq };
        add(&[3, 0, flags, 0, ISA, irq, vcpus, pin]);
    }
    // Local interrupts of every processor: the PIC at LINT0, NMI at LINT1.
    add(&[4, 3, 0, 0, ISA, 0, 0xff, 0]);
    add(&[4, 1, 0, 0, ISA, 0, 0xff, 1]);

    let mut table = Vec::new();
    // The floating pointer, which says that the configuration follows; PIC mode is not there.
    table.extend_from_slice(b"_MP_");
    table.extend_from_slice(&(MP_TABLE as u32 + 16).to_le_bytes());
    table.extend_from_slice(&[1, 4, 0, 0, 0, 0, 0, 0]);
    table[10] = sum(&table).wrapping_neg();
    let mut configuration = Vec::new();
    configuration.extend_from_slice(b"PCMP");
    configuration.extend_from_slice(&(44 + entries.len() as u16).to_le_bytes());
    configuration.extend_from_slice(&[4, 0]);
    configuration.extend_from_slice(b"RNGFENCECOMPARTMENT ");
    configuration.extend_from_slice(&[0; 6]);
    configuration.extend_from_slice(&count.to_le_bytes());
    configuration.extend_from_slice(&LOCAL_APIC.to_le_bytes());
    configuration.extend_from_slice(&[0; 4]);
    configuration.extend_from_slice(&entries);
    configuration[7] = sum(&configuration).wrapping_neg();
    table.extend_from_slice(&configuration);
    table
}
