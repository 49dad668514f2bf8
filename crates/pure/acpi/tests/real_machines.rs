//! The tables of 400 real machines. The totals come from a second reader, written apart from this crate.

#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

#[path = "support/mod.rs"]
mod support;

use acpi::{
    Dmar, DmarStructure, Fadt, Hpet, IommuEntry, Ivrs, IvrsBlock, Madt, MadtEntry, Mcfg, Polarity,
    RegisterSpace, ScopeKind, StartMethod, Table, Tcpa, Tpm2, TriggerMode,
};
use std::collections::BTreeMap;
use std::path::Path;

/// All tables of one kind with the machine's name.
fn tables(kind: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../../shared/hardware/acpi"));
    let Ok(machines) = std::fs::read_dir(folder) else {
        println!("skipped: no tables of real machines beside the project");
        return Vec::new();
    };
    let mut found: Vec<_> = machines
        .filter_map(|machine| {
            let path = machine.unwrap().path();
            let bytes = std::fs::read(path.join(kind)).ok()?;
            Some((path.file_name().unwrap().to_string_lossy().into_owned(), bytes))
        })
        .collect();
    found.sort();
    found
}

type Totals = BTreeMap<&'static str, usize>;

fn count(totals: &mut Totals, what: &'static str) {
    *totals.entry(what).or_default() += 1;
}

#[test]
fn every_table_is_whole_and_every_structure_is_read() {
    for kind in ["APIC", "FACP", "MCFG", "HPET", "DMAR", "IVRS", "TPM2", "TCPA"] {
        for (machine, bytes) in tables(&format!("{kind}.bin")) {
            let table = Table::new(&bytes).unwrap_or_else(|error| panic!("{machine} {kind}: {error}"));
            assert_eq!(table.signature(), *kind.as_bytes());
            assert_eq!(support::read_all(&bytes).impossible, [], "{machine} {kind}");
        }
    }
}

#[test]
fn processors_and_interrupt_controllers() {
    let mut totals = Totals::new();
    for (machine, bytes) in tables("APIC.bin") {
        let madt = Madt::parse(&bytes).unwrap();
        assert_eq!(madt.local_apic_address(), 0xfee0_0000, "{machine}");
        let usable = madt.processors().filter(|one| one.is_ok_and(|one| one.enabled)).count();
        assert!((1..=512).contains(&usable), "{machine}: {usable} processors");
        for entry in madt.entries() {
            count(
                &mut totals,
                match entry.unwrap() {
                    MadtEntry::LocalApic { enabled: true, .. } => "local APIC, enabled",
                    MadtEntry::LocalApic { .. } => "local APIC, not enabled",
                    MadtEntry::LocalX2Apic { .. } => "local x2APIC",
                    MadtEntry::IoApic { .. } => "I/O APIC",
                    MadtEntry::SourceOverride {
                        polarity: Polarity::High,
                        trigger: TriggerMode::Level,
                        ..
                    } => "override, high, level",
                    MadtEntry::SourceOverride { .. } => "override, other",
                    MadtEntry::LocalApicNmi { .. } => "local APIC NMI",
                    MadtEntry::Other { .. } => "other",
                    MadtEntry::NmiSource { .. } | MadtEntry::AddressOverride { .. } => "unexpected",
                },
            );
        }
    }
    if !totals.is_empty() {
        let expected = [
            ("I/O APIC", 533),
            ("local APIC NMI", 3172 + 9),
            ("local APIC, enabled", 3816),
            ("local APIC, not enabled", 2303),
            ("local x2APIC", 368),
            ("other", 85),
            ("override, high, level", 277),
            ("override, other", 815 - 277),
        ];
        assert_eq!(totals, Totals::from(expected));
    }
}

#[test]
fn fixed_hardware() {
    let mut reduced = 0;
    let tables = tables("FACP.bin");
    for (machine, bytes) in &tables {
        let fadt = Fadt::parse(bytes).unwrap();
        assert_ne!(fadt.dsdt(), 0, "{machine}");
        if fadt.flags().hardware_reduced() {
            reduced += 1;
            continue;
        }
        let control = fadt.pm1a_control().unwrap();
        assert!(control.port().is_some_and(|port| port >= 0x400), "{machine}: {control:?}");
        let timer = fadt.pm_timer().unwrap().register;
        assert_eq!(timer.space, RegisterSpace::Port, "{machine}");
        if let Some((register, _)) = fadt.reset() {
            assert_ne!(register.address, 0, "{machine}");
        }
    }
    if !tables.is_empty() {
        assert_eq!(reduced, 4);
    }
}

#[test]
fn windows_and_timers() {
    for (machine, bytes) in tables("MCFG.bin") {
        let windows: Vec<_> = Mcfg::parse(&bytes).unwrap().allocations().map(Result::unwrap).collect();
        assert!(!windows.is_empty(), "{machine}");
        assert!(windows.iter().all(|window| window.base != 0), "{machine}");
        assert!(windows.iter().any(|window| window.function(0, 0, 0) == Some(window.base)), "{machine}");
    }
    for (machine, bytes) in tables("HPET.bin") {
        let hpet = Hpet::parse(&bytes).unwrap();
        assert_eq!((hpet.base.space, hpet.base.address & 0xfff), (RegisterSpace::Memory, 0), "{machine}");
    }
}

#[test]
fn trusted_platform_modules() {
    let mut methods = BTreeMap::new();
    for (_, bytes) in tables("TPM2.bin") {
        let tpm = Tpm2::parse(&bytes).unwrap();
        *methods.entry(format!("{:?}", tpm.start_method)).or_insert(0) += 1;
        if tpm.start_method == StartMethod::CommandResponseBuffer {
            assert_ne!(tpm.control_area, 0);
        }
    }
    if !methods.is_empty() {
        let expected = [("AcpiMethod", 70), ("CommandResponseBuffer", 78), ("Fifo", 58), ("Pluton", 3)];
        assert_eq!(methods, expected.map(|(name, count)| (name.to_owned(), count)).into());
    }
    for (machine, bytes) in tables("TCPA.bin") {
        assert!(!Tcpa::parse(&bytes).unwrap().server, "{machine}");
    }
}

#[test]
fn intel_iommus() {
    let mut totals = Totals::new();
    for (machine, bytes) in tables("DMAR.bin") {
        let dmar = Dmar::parse(&bytes).unwrap();
        assert!((36..=57).contains(&dmar.address_bits()), "{machine}: {}", dmar.address_bits());
        for structure in dmar.structures() {
            let (name, scopes) = match structure.unwrap() {
                DmarStructure::Unit { base, scopes, .. } => {
                    assert_eq!(base & 0xfff, 0, "{machine}");
                    ("unit", Some(scopes))
                }
                DmarStructure::ReservedMemory { scopes, .. } => ("reserved memory", Some(scopes)),
                DmarStructure::RootPorts { scopes, .. } => ("root ports", Some(scopes)),
                DmarStructure::Affinity { .. } => ("affinity", None),
                DmarStructure::NameSpaceDevice { name, .. } => {
                    assert!(name.starts_with(b"\\"), "{machine}");
                    ("name space device", None)
                }
                DmarStructure::SocTranslation { .. } => ("SoC translation", None),
                DmarStructure::SocProperties { .. } => ("SoC properties", None),
                DmarStructure::Other { .. } => ("other", None),
            };
            count(&mut totals, name);
            for scope in scopes.into_iter().flatten() {
                count(
                    &mut totals,
                    match scope.unwrap().kind {
                        ScopeKind::Endpoint => "scope endpoint",
                        ScopeKind::Bridge => "scope bridge",
                        ScopeKind::IoApic => "scope I/O APIC",
                        ScopeKind::Hpet => "scope HPET",
                        ScopeKind::NameSpaceDevice => "scope name space device",
                        ScopeKind::Other(_) => "scope other",
                    },
                );
            }
        }
    }
    if !totals.is_empty() {
        let expected = [
            ("unit", 408),
            ("reserved memory", 307),
            ("root ports", 8),
            ("affinity", 5),
            ("name space device", 50),
            ("SoC translation", 5),
            ("SoC properties", 5),
            ("scope endpoint", 591),
            ("scope bridge", 52),
            ("scope I/O APIC", 206),
            ("scope HPET", 211),
            ("scope name space device", 50),
        ];
        assert_eq!(totals, Totals::from(expected));
    }
}

#[test]
fn amd_iommus() {
    let mut totals = Totals::new();
    for (machine, bytes) in tables("IVRS.bin") {
        for block in Ivrs::parse(&bytes).unwrap().blocks() {
            let iommu = match block.unwrap() {
                IvrsBlock::Iommu(iommu) => iommu,
                IvrsBlock::Memory { .. } => {
                    count(&mut totals, "memory");
                    continue;
                }
                IvrsBlock::Other { .. } => {
                    count(&mut totals, "other");
                    continue;
                }
            };
            assert_ne!(iommu.base, 0, "{machine}");
            count(&mut totals, "IOMMU block");
            for entry in iommu.entries {
                count(
                    &mut totals,
                    match entry.unwrap() {
                        IommuEntry::Special { .. } => "special",
                        IommuEntry::NameSpaceDevice { .. } => "name space device",
                        IommuEntry::StartOfRange { .. } => "start of range",
                        IommuEntry::StartOfAliasRange { .. } => "start of alias range",
                        IommuEntry::EndOfRange { .. } => "end of range",
                        IommuEntry::Device { .. } => "device",
                        IommuEntry::Padding => "padding",
                        IommuEntry::All { .. } | IommuEntry::Alias { .. } | IommuEntry::Other { .. } => {
                            "unexpected"
                        }
                    },
                );
            }
        }
    }
    if !totals.is_empty() {
        let expected = [
            ("IOMMU block", 99 + 94 + 49),
            ("memory", 2),
            ("other", 2),
            ("special", 702),
            ("name space device", 176 + 5),
            ("start of range", 257),
            ("start of alias range", 231),
            ("end of range", 488),
            ("device", 79),
            ("padding", 207),
        ];
        assert_eq!(totals, Totals::from(expected));
    }
}
