//! Every reader on tables made by hand, field by field, and on the ways in which such tables can be wrong.

#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

#[path = "support/build.rs"]
mod build;

use acpi::{
    Dmar, DmarStructure, Error, EventLogArea, Fadt, Header, Hpet, IommuEntry, Ivrs, IvrsBlock, Madt,
    MadtEntry, Mcfg, MemoryScope, Polarity, RegisterSpace, Rsdp, ScopeKind, StartMethod, Table, Tcpa, Tpm2,
    TriggerMode, find_rsdp, root_entries, s5_sleep_types,
};
use build::{seal, table};

/// Puts bytes at an offset.
fn put(bytes: &mut [u8], offset: usize, what: &[u8]) {
    bytes[offset..offset + what.len()].copy_from_slice(what);
}

fn rsdp(revision: u8, rsdt: u32, xsdt: u64) -> Vec<u8> {
    let mut bytes = b"RSD PTR \0RINGFC".to_vec();
    bytes.push(revision);
    bytes.extend(rsdt.to_le_bytes());
    seal(&mut bytes, 8);
    if revision >= 2 {
        bytes.extend(36u32.to_le_bytes());
        bytes.extend(xsdt.to_le_bytes());
        bytes.extend([0; 4]);
        seal(&mut bytes, 32);
    }
    bytes
}

#[test]
fn root_pointer_of_either_revision() {
    let old = Rsdp::parse(&rsdp(0, 0x1234, 0)).unwrap();
    assert_eq!(old, Rsdp { revision: 0, oem_id: *b"RINGFC", rsdt: 0x1234, xsdt: None });
    let new = Rsdp::parse(&rsdp(2, 0x1234, 0x1_0000_5678)).unwrap();
    assert_eq!((new.rsdt, new.xsdt), (0x1234, Some(0x1_0000_5678)));
    assert_eq!(Rsdp::parse(&rsdp(2, 0x1234, 0)).unwrap().xsdt, None);
}

#[test]
fn root_pointer_is_refused_with_the_reason() {
    assert_eq!(Rsdp::parse(b"RSD PTR "), Err(Error::Truncated));
    assert_eq!(Rsdp::parse(&[0; 36]), Err(Error::Signature));
    let mut bytes = rsdp(0, 0x1234, 0);
    bytes[16] ^= 1;
    assert_eq!(Rsdp::parse(&bytes), Err(Error::Checksum));
    let whole = rsdp(2, 0x1234, 0x5678);
    assert_eq!(Rsdp::parse(&whole[..35]), Err(Error::Truncated));
    let mut extended = whole.clone();
    extended[24] ^= 1;
    assert_eq!(Rsdp::parse(&extended), Err(Error::Checksum));
    let mut short = whole;
    put(&mut short, 20, &20u32.to_le_bytes());
    assert_eq!(Rsdp::parse(&short), Err(Error::Length));
}

#[test]
fn root_pointer_is_found_only_where_it_may_lie_and_only_if_right() {
    let mut area = vec![0; 256];
    put(&mut area, 24, &rsdp(0, 1, 0));
    assert_eq!(find_rsdp(&area), None, "not at a multiple of 16");
    put(&mut area, 64, b"RSD PTR ");
    put(&mut area, 128, &rsdp(0, 2, 0));
    assert_eq!(find_rsdp(&area), Some(128), "the one before has a wrong checksum");
    assert_eq!(find_rsdp(&area[..130]), None, "cut off");
    assert_eq!(find_rsdp(&[]), None);
}

#[test]
fn header_and_table() {
    let bytes = table(*b"TEST", 7, &[1, 2, 3]);
    let header = Header::parse(&bytes[..36]).unwrap();
    assert_eq!((&header.signature, header.length, header.revision), (b"TEST", 39, 7));
    assert_eq!((&header.oem_id, &header.oem_table_id, header.oem_revision), (b"RINGFC", b"TESTTABL", 1));
    assert_eq!((&header.creator_id, header.creator_revision), (b"TEST", 1));
    let mut longer = bytes.clone();
    longer.extend([9; 5]);
    let read = Table::new(&longer).unwrap();
    assert_eq!((read.bytes(), read.body(), read.signature()), (&bytes[..], &[1u8, 2, 3][..], *b"TEST"));
}

#[test]
fn a_table_is_refused_with_the_reason() {
    let bytes = table(*b"TEST", 1, &[1, 2, 3]);
    assert_eq!(Header::parse(&bytes[..35]), Err(Error::Truncated));
    assert_eq!(Table::new(&bytes[..38]), Err(Error::Truncated));
    let mut wrong = bytes.clone();
    wrong[38] ^= 0x10;
    assert_eq!(Table::new(&wrong), Err(Error::Checksum));
    assert!(!Table::with_any_checksum(&wrong).unwrap().checksum_is_right());
    let mut short = bytes;
    put(&mut short, 4, &35u32.to_le_bytes());
    assert_eq!(Table::new(&short), Err(Error::Length));
    assert_eq!(Madt::parse(&table(*b"FACP", 1, &[0; 80])), Err(Error::Signature));
    assert_eq!(Madt::parse(&table(*b"APIC", 1, &[0; 7])), Err(Error::Length));
    assert_eq!(Fadt::parse(&table(*b"FACP", 1, &[0; 79])), Err(Error::Length));
}

#[test]
fn root_tables_list_addresses_of_their_width() {
    let body: Vec<u8> =
        [0x1000u32, 0, 0x2000, 1].iter().flat_map(|entry| entry.to_le_bytes()).chain([1, 2]).collect();
    let narrow = table(*b"RSDT", 1, &body);
    let entries: Vec<u64> = root_entries(&Table::new(&narrow).unwrap()).unwrap().collect();
    assert_eq!(entries, [0x1000, 0x2000, 1], "zeros and the cut-off one are passed over");
    let wide = table(*b"XSDT", 1, &body);
    let entries: Vec<u64> = root_entries(&Table::new(&wide).unwrap()).unwrap().collect();
    assert_eq!(entries, [0x1000, 0x1_0000_2000]);
    let other = table(*b"TEST", 1, &body);
    assert_eq!(root_entries(&Table::new(&other).unwrap()).err(), Some(Error::Signature));
}

fn madt(entries: &[&[u8]]) -> Vec<u8> {
    let mut body = vec![0, 0, 0xe0, 0xfe, 1, 0, 0, 0];
    body.extend(entries.concat());
    table(*b"APIC", 5, &body)
}

#[test]
fn madt_entries_of_every_kind() {
    let bytes = madt(&[
        &[0, 8, 1, 2, 1, 0, 0, 0],
        &[0, 8, 3, 4, 2, 0, 0, 0],
        &[1, 12, 9, 0, 0, 0, 0xc0, 0xfe, 24, 0, 0, 0],
        &[2, 10, 0, 9, 20, 0, 0, 0, 0b1101, 0],
        &[3, 8, 0b0111, 0, 5, 0, 0, 0],
        &[4, 6, 0xff, 0b0101, 0, 1],
        &[5, 12, 0, 0, 0, 0, 0, 0xfe, 1, 0, 0, 0],
        &[9, 16, 0, 0, 0, 1, 0, 0, 3, 0, 0, 0, 7, 0, 0, 0],
        &[10, 12, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0],
        &[10, 12, 2, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0],
        &[127, 3, 0],
    ]);
    let madt = Madt::parse(&bytes).unwrap();
    let entries: Vec<MadtEntry> = madt.entries().map(Result::unwrap).collect();
    let (polarity, trigger) = (Polarity::Bus, TriggerMode::Bus);
    assert_eq!(
        entries,
        [
            MadtEntry::LocalApic { processor: 1, id: 2, enabled: true, online_capable: false },
            MadtEntry::LocalApic { processor: 3, id: 4, enabled: false, online_capable: true },
            MadtEntry::IoApic { id: 9, address: 0xfec0_0000, gsi_base: 24 },
            MadtEntry::SourceOverride {
                source: 9,
                gsi: 20,
                polarity: Polarity::High,
                trigger: TriggerMode::Level
            },
            MadtEntry::NmiSource { gsi: 5, polarity: Polarity::Low, trigger: TriggerMode::Edge },
            MadtEntry::LocalApicNmi {
                processor: None,
                polarity: Polarity::High,
                trigger: TriggerMode::Edge,
                input: 1
            },
            MadtEntry::AddressOverride { address: 0x1_fe00_0000 },
            MadtEntry::LocalX2Apic { processor: 7, id: 0x100, enabled: true, online_capable: true },
            MadtEntry::LocalApicNmi { processor: Some(7), polarity, trigger, input: 0 },
            MadtEntry::LocalApicNmi { processor: None, polarity: Polarity::Reserved, trigger, input: 1 },
            MadtEntry::Other { kind: 127 },
        ]
    );
    assert_eq!(madt.local_apic_address(), 0x1_fe00_0000);
    assert!(madt.has_legacy_pic());
}

#[test]
fn madt_processors_of_both_kinds_without_the_broadcast_identifiers() {
    let bytes = madt(&[
        &[0, 8, 0, 0xff, 1, 0, 0, 0],
        &[0, 8, 1, 6, 1, 0, 0, 0],
        &[1, 12, 9, 0, 0, 0, 0xc0, 0xfe, 24, 0, 0, 0],
        &[9, 16, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 8, 0, 0, 0],
        &[9, 16, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0],
    ]);
    let madt = Madt::parse(&bytes).unwrap();
    let found: Vec<_> = madt.processors().map(Result::unwrap).map(|one| (one.id, one.enabled)).collect();
    assert_eq!(found, [(6, true), (0xff, false)]);
    assert_eq!(madt.local_apic_address(), 0xfee0_0000, "no override");
}

#[test]
fn a_structure_that_cannot_be_ends_the_list_where_it_lies() {
    let good: &[u8] = &[0, 8, 1, 2, 1, 0, 0, 0];
    let cases: [&[u8]; 6] =
        [&[0, 0, 1, 2, 1, 0, 0, 0], &[0, 1], &[0, 7, 1, 2, 1, 0, 0], &[99, 3, 0, 1], &[99], &[99, 1, 2]];
    for (case, bad) in cases.iter().enumerate() {
        let bytes = madt(&[good, bad]);
        let mut entries = Madt::parse(&bytes).unwrap().entries();
        assert!(matches!(entries.next(), Some(Ok(MadtEntry::LocalApic { .. }))), "{case}");
        // The fourth is a whole structure with one byte too many behind it.
        let at = if case == 3 { 52 + 3 } else { 52 };
        if case == 3 {
            assert_eq!(entries.next(), Some(Ok(MadtEntry::Other { kind: 99 })));
        }
        assert_eq!(entries.next(), Some(Err(Error::Structure { offset: at })), "{case}");
        assert_eq!(entries.next(), None, "{case}");
    }
}

#[test]
fn fadt_with_the_extended_fields() {
    let mut bytes = table(*b"FACP", 6, &[0; 240]);
    put(&mut bytes, 40, &0x1111u32.to_le_bytes());
    put(&mut bytes, 45, &[2]);
    put(&mut bytes, 46, &9u16.to_le_bytes());
    put(&mut bytes, 48, &0xb2u32.to_le_bytes());
    put(&mut bytes, 52, &[0xa0, 0xa1]);
    put(&mut bytes, 56, &0x600u32.to_le_bytes());
    put(&mut bytes, 64, &0x604u32.to_le_bytes());
    put(&mut bytes, 76, &0x608u32.to_le_bytes());
    put(&mut bytes, 88, &[4, 2, 0, 4]);
    put(&mut bytes, 108, &[0x32]);
    put(&mut bytes, 109, &0b10_0010u16.to_le_bytes());
    put(&mut bytes, 112, &(1u32 << 8 | 1 << 10).to_le_bytes());
    put(&mut bytes, 116, &[1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0, 6]);
    put(&mut bytes, 140, &0x1_0000_2222u64.to_le_bytes());
    put(&mut bytes, 172, &[1, 16, 0, 2, 4, 0x18, 0, 0, 0, 0, 0, 0]);
    put(&mut bytes, 268, b"KVMKVMKV");
    seal(&mut bytes, 9);
    let fadt = Fadt::parse(&bytes).unwrap();
    assert_eq!(fadt.dsdt(), 0x1_0000_2222);
    assert_eq!((fadt.preferred_profile(), fadt.sci_interrupt(), fadt.smi_command()), (2, 9, 0xb2));
    assert_eq!((fadt.acpi_enable(), fadt.acpi_disable(), fadt.century()), (0xa0, 0xa1, 0x32));
    let control = fadt.pm1a_control().unwrap();
    assert_eq!((control.port(), control.bit_width), (Some(0x1804), 16), "the 64-bit field goes first");
    let event = fadt.pm1a_event().unwrap();
    assert_eq!((event.port(), event.bit_width), (Some(0x600), 32), "the old field where the new one is zero");
    assert_eq!((fadt.pm1b_event(), fadt.pm1b_control()), (None, None));
    let timer = fadt.pm_timer().unwrap();
    assert_eq!((timer.register.port(), timer.is_32_bit), (Some(0x608), true));
    let (register, value) = fadt.reset().unwrap();
    assert_eq!((register.port(), value), (Some(0xcf9), 6));
    let flags = fadt.boot_flags().unwrap();
    assert!(flags.keyboard_controller() && flags.no_cmos_clock() && !flags.legacy_devices());
    assert!(!fadt.flags().hardware_reduced());
    assert_eq!(fadt.hypervisor(), Some(*b"KVMKVMKV"));
}

#[test]
fn fadt_of_acpi_1() {
    let mut bytes = table(*b"FACP", 1, &[0; 80]);
    put(&mut bytes, 40, &0x1111u32.to_le_bytes());
    put(&mut bytes, 64, &0x604u32.to_le_bytes());
    put(&mut bytes, 68, &0x704u32.to_le_bytes());
    put(&mut bytes, 72, &0x60cu32.to_le_bytes());
    put(&mut bytes, 76, &0x608u32.to_le_bytes());
    put(&mut bytes, 89, &[2, 0, 4]);
    // The reset flag without the reset register's fields.
    put(&mut bytes, 112, &(1u32 << 10).to_le_bytes());
    seal(&mut bytes, 9);
    let fadt = Fadt::parse(&bytes).unwrap();
    assert_eq!((fadt.dsdt(), fadt.reset(), fadt.hypervisor(), fadt.boot_flags()), (0x1111, None, None, None));
    assert_eq!(fadt.pm1a_control().unwrap().port(), Some(0x604));
    assert_eq!(fadt.pm1b_control().unwrap().port(), Some(0x704));
    assert!(fadt.pm2_control().is_none(), "an address, but no length");
    assert!(!fadt.pm_timer().unwrap().is_32_bit);
}

#[test]
fn a_register_outside_port_space_has_no_port() {
    let mut bytes = table(*b"FACP", 6, &[0; 240]);
    put(&mut bytes, 172, &[0, 16, 0, 2, 4, 0x18, 0, 0, 0, 0, 0, 0]);
    put(&mut bytes, 184, &[1, 16, 0, 2, 0, 0, 1, 0, 0, 0, 0, 0]);
    seal(&mut bytes, 9);
    let fadt = Fadt::parse(&bytes).unwrap();
    let (a, b) = (fadt.pm1a_control().unwrap(), fadt.pm1b_control().unwrap());
    assert_eq!((a.space, a.port()), (RegisterSpace::Memory, None));
    assert_eq!((b.space, b.port()), (RegisterSpace::Port, None), "port 0x10000 does not exist");
}

#[test]
fn configuration_windows() {
    let mut body = vec![0; 8];
    body.extend([0, 0, 0, 0xb0, 0, 0, 0, 0, 1, 0, 2, 0x3f, 0, 0, 0, 0]);
    let bytes = table(*b"MCFG", 1, &body);
    let mut windows = Mcfg::parse(&bytes).unwrap().allocations();
    let window = windows.next().unwrap().unwrap();
    assert_eq!((window.base, window.segment), (0xb000_0000, 1));
    assert_eq!(window.function(2, 31, 7), Some(0xb000_0000 + 0x2f_f000));
    for (bus, device, function) in [(1, 0, 0), (0x40, 0, 0), (2, 32, 0), (2, 0, 8)] {
        assert_eq!(window.function(bus, device, function), None);
    }
    assert!(windows.next().is_none());
    // A last bus below the first, and a window cut off.
    body[19] = 1;
    let bytes = table(*b"MCFG", 1, &body);
    let mut windows = Mcfg::parse(&bytes).unwrap().allocations();
    assert_eq!(windows.next(), Some(Err(Error::Structure { offset: 44 })));
    assert_eq!(windows.next(), None);
    let bytes = table(*b"MCFG", 1, &body[..23]);
    assert_eq!(Mcfg::parse(&bytes).unwrap().allocations().next(), Some(Err(Error::Structure { offset: 44 })));
}

#[test]
fn event_timer() {
    let body = [1, 0xa2, 0x86, 0x80, 0, 64, 0, 0, 0, 0, 0xd0, 0xfe, 0, 0, 0, 0, 3, 0x80, 0, 0];
    let hpet = Hpet::parse(&table(*b"HPET", 1, &body)).unwrap();
    assert_eq!((hpet.base.address, hpet.number, hpet.minimum_tick), (0xfed0_0000, 3, 0x80));
    assert_eq!((hpet.timers(), hpet.is_64_bit()), (3, true));
    assert_eq!(Hpet::parse(&table(*b"HPET", 1, &body[..19])), Err(Error::Length));
}

#[test]
fn trusted_platform_modules() {
    let mut body = vec![1, 0, 0, 0, 0x40, 0, 0xd4, 0xfe, 0, 0, 0, 0, 7, 0, 0, 0];
    let short = Tpm2::parse(&table(*b"TPM2", 3, &body)).unwrap();
    assert_eq!((short.control_area, short.start_method), (0xfed4_0040, StartMethod::CommandResponseBuffer));
    assert_eq!((short.platform_class, short.log_area), (1, None));
    body.extend([0; 12]);
    body.extend([0, 0, 1, 0, 0, 0x60, 0x8b, 0xca, 0, 0, 0, 0]);
    let log_area = Some(EventLogArea { address: 0xca8b_6000, length: 0x1_0000 });
    assert_eq!(Tpm2::parse(&table(*b"TPM2", 4, &body)).unwrap().log_area, log_area);
    body.splice(28..28, [0; 4]);
    assert_eq!(Tpm2::parse(&table(*b"TPM2", 5, &body)).unwrap().log_area, log_area);
    assert_eq!(Tpm2::parse(&table(*b"TPM2", 4, &body[..15])), Err(Error::Length));

    let client = [0, 0, 0, 0, 1, 0, 0, 0x60, 0x8b, 0xca, 0, 0, 0, 0];
    let tcpa = Tcpa::parse(&table(*b"TCPA", 2, &client)).unwrap();
    assert_eq!((tcpa.server, tcpa.log_area, tcpa.base), (false, log_area, None));
    let mut server = vec![0; 64];
    server[0] = 1;
    put(&mut server, 4, &0x1_0000u64.to_le_bytes());
    put(&mut server, 12, &0xca8b_6000u64.to_le_bytes());
    put(&mut server, 36, &0xfed4_0000u64.to_le_bytes());
    let tcpa = Tcpa::parse(&table(*b"TCPA", 2, &server)).unwrap();
    assert_eq!((tcpa.server, tcpa.log_area, tcpa.base), (true, log_area, Some(0xfed4_0000)));
    assert_eq!(Tcpa::parse(&table(*b"TCPA", 2, &server[..19])), Err(Error::Length));
}

fn dmar(structures: &[&[u8]]) -> Vec<u8> {
    let mut body = vec![38, 0b101, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    body.extend(structures.concat());
    table(*b"DMAR", 1, &body)
}

#[test]
fn intel_remapping_structures() {
    let bytes = dmar(&[
        &[0, 0, 26, 0, 1, 0, 2, 0, 0, 0, 0xd9, 0xfe, 0, 0, 0, 0, 1, 10, 0, 0, 5, 6, 0x1f, 7, 2, 1],
        &[1, 0, 24, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0xff, 0x1f, 0, 0, 0, 0, 0, 0],
        &[2, 0, 8, 0, 1, 0, 3, 0],
        &[3, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0xd9, 0xfe, 0, 0, 0, 0, 4, 0, 0, 0],
        &[4, 0, 12, 0, 0, 0, 0, 9, b'\\', b'A', 0, 0],
        &[5, 0, 8, 0, 1, 0, 6, 0],
        &[6, 0, 8, 0, 0, 0, 7, 0],
        &[77, 1, 4, 0],
    ]);
    let dmar = Dmar::parse(&bytes).unwrap();
    assert_eq!((dmar.address_bits(), dmar.interrupt_remapping(), dmar.x2apic_opt_out()), (39, true, false));
    assert!(dmar.dma_protection_opt_in());
    let found: Vec<_> = dmar.structures().map(Result::unwrap).collect();
    assert_eq!(found.len(), 8);
    let DmarStructure::Unit { segment: 2, base: 0xfed9_0000, all_others: true, scopes } = &found[0] else {
        panic!("{:?}", found[0]);
    };
    let scopes: Vec<_> = scopes.clone().map(Result::unwrap).collect();
    assert_eq!(scopes.len(), 1);
    assert_eq!((scopes[0].kind, scopes[0].enumeration, scopes[0].start_bus), (ScopeKind::Endpoint, 5, 6));
    assert_eq!(scopes[0].path.clone().collect::<Vec<_>>(), [(0x1f, 7), (2, 1)]);
    assert!(matches!(found[1], DmarStructure::ReservedMemory { base: 0x1000, last: 0x1fff, .. }));
    assert!(matches!(found[2], DmarStructure::RootPorts { segment: 3, all: true, .. }));
    assert!(matches!(found[3], DmarStructure::Affinity { base: 0xfed9_0000, domain: 4 }));
    assert!(matches!(found[4], DmarStructure::NameSpaceDevice { number: 9, name: b"\\A" }));
    assert!(matches!(found[5], DmarStructure::SocTranslation { segment: 6, required: true, .. }));
    assert!(matches!(found[6], DmarStructure::SocProperties { segment: 7, .. }));
    assert!(matches!(found[7], DmarStructure::Other { kind: 0x14d }));
}

#[test]
fn intel_structures_that_cannot_be() {
    let unit = |scope: &[u8]| {
        let mut bytes = vec![0, 0, 16 + scope.len() as u8, 0, 0, 0, 0, 0, 0, 0, 0xd9, 0xfe, 0, 0, 0, 0];
        bytes.extend(scope);
        dmar(&[&bytes])
    };
    // A scope without a path, with half a step, of length 0, beyond its structure.
    for scope in [&[1, 6, 0, 0, 0, 0][..], &[1, 7, 0, 0, 0, 0, 1], &[1, 0, 0, 0, 0, 0, 0, 0], &[1, 8, 0]] {
        let bytes = unit(scope);
        let Some(Ok(DmarStructure::Unit { mut scopes, .. })) =
            Dmar::parse(&bytes).unwrap().structures().next()
        else {
            panic!("{scope:?}")
        };
        assert_eq!(scopes.next(), Some(Err(Error::Structure { offset: 48 + 16 })), "{scope:?}");
        assert_eq!(scopes.next(), None);
    }
    // A structure of length 0, one too short for its kind, and memory that ends before it begins.
    let backwards = [1, 0, 24, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0xff, 0x0f, 0, 0, 0, 0, 0, 0];
    for structure in [&[0, 0, 0, 0][..], &[0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0], &backwards] {
        let bytes = dmar(&[structure]);
        let mut structures = Dmar::parse(&bytes).unwrap().structures();
        assert_eq!(structures.next().unwrap().err(), Some(Error::Structure { offset: 48 }));
        assert!(structures.next().is_none());
    }
}

fn ivrs(blocks: &[&[u8]]) -> Vec<u8> {
    let mut body = vec![0x42, 0x30, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    body.extend(blocks.concat());
    table(*b"IVRS", 2, &body)
}

/// An IOMMU's block of type 0x11 with the given device entries.
fn iommu(entries: &[u8]) -> Vec<u8> {
    let mut bytes =
        vec![0x11, 0xb0, 40 + entries.len() as u8, 0, 2, 0, 0x40, 0, 0, 0, 0x30, 0xfd, 0, 0, 0, 0];
    bytes.extend([1, 0, 2, 0, 0x6f, 0x8f, 4, 0x80]);
    bytes.extend(0x1234u64.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(entries);
    bytes
}

#[test]
fn amd_blocks_and_device_entries() {
    let entries = [
        &[0, 0, 0, 0][..],
        &[1, 0, 0, 0xd7],
        &[2, 0x10, 0, 1],
        &[3, 8, 0, 2],
        &[4, 0xff, 0xff, 0],
        &[66, 0x20, 1, 3, 0, 0x21, 2, 0],
        &[67, 0x22, 1, 4, 0, 0x23, 2, 0],
        &[70, 0x24, 1, 5, 0, 0, 0, 0x80],
        &[71, 0x26, 1, 6, 1, 0, 0, 0],
        &[72, 0, 0, 0xd7, 33, 0xa0, 0, 1],
        &[240, 0x28, 1, 7],
        b"AMDI0020\0\0\0\0\0\0\0\0",
        &[2, 3],
        b"abc",
        &[130, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let mut memory = vec![0x22, 8, 32, 0, 5, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    memory.extend(0x1000u64.to_le_bytes());
    memory.extend(0x2000u64.to_le_bytes());
    let bytes = ivrs(&[&iommu(&entries), &memory, &[0x51, 0, 4, 0]]);
    let ivrs = Ivrs::parse(&bytes).unwrap();
    assert_eq!((ivrs.physical_address_bits(), ivrs.virtual_address_bits(), ivrs.dma_remap()), (48, 64, true));
    let blocks: Vec<_> = ivrs.blocks().map(Result::unwrap).collect();
    assert_eq!(blocks.len(), 3);
    let IvrsBlock::Iommu(iommu) = &blocks[0] else { panic!("{:?}", blocks[0]) };
    assert_eq!((iommu.kind, iommu.flags, iommu.device, iommu.capability), (0x11, 0xb0, 2, 0x40));
    assert_eq!((iommu.base, iommu.segment, iommu.information), (0xfd30_0000, 1, 2));
    assert_eq!((iommu.features, iommu.extended_features), (0x8004_8f6f, Some(0x1234)));
    let entries: Vec<_> = iommu.entries.clone().map(Result::unwrap).collect();
    assert_eq!(
        entries,
        [
            IommuEntry::Padding,
            IommuEntry::All { settings: 0xd7 },
            IommuEntry::Device { device: 0x10, settings: 1, extended: 0 },
            IommuEntry::StartOfRange { device: 8, settings: 2, extended: 0 },
            IommuEntry::EndOfRange { device: 0xffff },
            IommuEntry::Alias { device: 0x120, settings: 3, source: 0x221 },
            IommuEntry::StartOfAliasRange { device: 0x122, settings: 4, source: 0x223 },
            IommuEntry::Device { device: 0x124, settings: 5, extended: 0x8000_0000 },
            IommuEntry::StartOfRange { device: 0x126, settings: 6, extended: 1 },
            IommuEntry::Special { handle: 33, settings: 0xd7, source: 0xa0, variety: 1 },
            IommuEntry::NameSpaceDevice {
                device: 0x128,
                settings: 7,
                hardware: *b"AMDI0020",
                unique: b"abc"
            },
            IommuEntry::Other { kind: 130 },
        ]
    );
    let IvrsBlock::Memory { scope, flags, start, length } = blocks[1] else { panic!("{:?}", blocks[1]) };
    assert_eq!((scope, flags, start, length), (MemoryScope::Range(5, 6), 8, 0x1000, 0x2000));
    assert!(matches!(blocks[2], IvrsBlock::Other { kind: 0x51 }));
}

#[test]
fn amd_structures_that_cannot_be() {
    // A name that reaches beyond the block, an entry cut off, and a name cut off before its length.
    for entry in [&[240; 22][..], &[66, 0, 0, 0], &[240, 0, 0, 0, 0, 0]] {
        let bytes = ivrs(&[&iommu(entry)]);
        let Some(Ok(IvrsBlock::Iommu(iommu))) = Ivrs::parse(&bytes).unwrap().blocks().next() else {
            panic!("{entry:?}")
        };
        let mut entries = iommu.entries;
        assert_eq!(entries.next(), Some(Err(Error::Structure { offset: 48 + 40 })), "{entry:?}");
        assert_eq!(entries.next(), None);
    }
    let mut wraps = vec![0x20, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    wraps.extend([0xff; 16]);
    for block in [&[0x10, 0, 0, 0][..], &[0x40, 0, 8, 0, 0, 0, 0, 0], &wraps] {
        let bytes = ivrs(&[block]);
        let mut blocks = Ivrs::parse(&bytes).unwrap().blocks();
        assert_eq!(blocks.next().unwrap().err(), Some(Error::Structure { offset: 48 }));
        assert!(blocks.next().is_none());
    }
}

#[test]
fn sleep_types_in_every_encoding() {
    let definition = |package: &[u8]| [b"....\x08_S5_\x12", package, b"...."].concat();
    // Zeros as QEMU's firmware has them; byte constants; One; a word, a double word and a quad word.
    assert_eq!(s5_sleep_types(&definition(&[6, 4, 0, 0, 0, 0])), Some((0, 0)));
    assert_eq!(s5_sleep_types(&definition(&[10, 4, 0x0a, 5, 0x0a, 7, 0, 0])), Some((5, 7)));
    assert_eq!(s5_sleep_types(&definition(&[4, 2, 1, 1])), Some((1, 1)));
    assert_eq!(s5_sleep_types(&definition(&[10, 2, 0x0b, 7, 0, 0x0c, 6, 0, 0, 0])), Some((7, 6)));
    assert_eq!(s5_sleep_types(&definition(&[12, 2, 0x0e, 3, 0, 0, 0, 0, 0, 0, 0, 1])), Some((3, 1)));
    // Both in one number, and a package whose length takes two bytes.
    assert_eq!(s5_sleep_types(&definition(&[5, 1, 0x0b, 5, 6])), Some((5, 6)));
    assert_eq!(s5_sleep_types(&definition(&[0x47, 0, 4, 0x0a, 5, 1, 0])), Some((5, 1)));
    let long = [&[0x41, 1, 4, 0x0a, 5, 1][..], &[0; 11]].concat();
    assert_eq!(s5_sleep_types(&definition(&long)), Some((5, 1)));
    assert_eq!(s5_sleep_types(&definition(&long)[..22]), None, "the package is cut off");
    // With a root character, and behind something that only looks like it.
    assert_eq!(s5_sleep_types(b"\x08_S5_\x12\x08\\_S5_\x12\x06\x04\x0a\x05\x00\x00"), Some((5, 0)));
}

#[test]
fn sleep_types_that_are_none() {
    let definition = |package: &[u8]| [b"\x08_S5_\x12", package].concat();
    let cases: [(&str, &[u8]); 10] = [
        ("nothing", &[]),
        ("no elements", &[2, 0]),
        ("more than three bits", &[5, 2, 0x0a, 8, 0]),
        ("more than three bits in the second", &[5, 2, 0, 0x0a, 8]),
        ("ones", &[4, 2, 0xff, 0]),
        ("a name", &[6, 2, b'A', b'B', b'C', b'D']),
        ("one of two elements missing", &[3, 2, 5]),
        ("an element that reaches beyond the package", &[4, 2, 0, 0x0a, 5]),
        ("a package that reaches beyond the table", &[0x20, 2, 0, 0]),
        ("a length cut off", &[0xc0]),
    ];
    for (name, package) in cases {
        assert_eq!(s5_sleep_types(&definition(package)), None, "{name}");
    }
    assert_eq!(s5_sleep_types(b"\x08_S4_\x12\x06\x04\x00\x00\x00\x00"), None);
    assert_eq!(s5_sleep_types(b"\x10_S5_\x12\x06\x04\x00\x00\x00\x00"), None, "no name operator");
}

#[test]
fn errors_are_sentences() {
    assert_eq!(Error::Structure { offset: 44 }.to_string(), "the structure at byte 44 is impossible");
    assert_eq!(Error::Checksum.to_string(), "the checksum is wrong");
}
