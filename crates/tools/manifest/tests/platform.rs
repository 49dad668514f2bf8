//! The firmware's tables, judged by their own rules and by ACPICA's disassembler.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use manifest::platform::{Table, tables};
use std::process::Command;

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

fn find<'t>(tables: &'t [Table], signature: &str) -> &'t Table {
    tables.iter().find(|table| table.signature == signature).expect("the table is there")
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn every_table_has_its_length_and_a_valid_checksum() {
    for vcpus in [1, 2, 16, 255] {
        for table in tables(vcpus) {
            match table.signature.as_str() {
                "RSDP" => {
                    assert_eq!(sum(&table.bytes[..20]), 0);
                    assert_eq!(sum(&table.bytes), 0);
                    assert_eq!(word(&table.bytes, 20), 36);
                }
                // ACPI 6.5 §5.2.10: the FACS has no checksum, and is aligned to 64 bytes.
                "FACS" => assert_eq!((word(&table.bytes, 4), table.address % 64), (64, 0)),
                _ => {
                    assert_eq!(sum(&table.bytes), 0, "{}", table.signature);
                    assert_eq!(word(&table.bytes, 4), table.bytes.len() as u64);
                    assert_eq!(table.bytes[..4], *table.signature.as_bytes());
                }
            }
        }
    }
}

#[test]
fn the_root_pointer_leads_to_all_tables_and_none_overlap() {
    let tables = tables(4);
    let pointer = find(&tables, "RSDP");
    // §5.2.5.1: on a 16-byte boundary between 0xe0000 and 0xfffff.
    assert_eq!(pointer.address, 0xe_0000);
    let rsdt = find(&tables, "RSDT");
    let xsdt = find(&tables, "XSDT");
    assert_eq!(word(&pointer.bytes, 16), rsdt.address);
    assert_eq!(long(&pointer.bytes, 24), xsdt.address);
    for (slot, signature) in ["FACP", "APIC"].iter().enumerate() {
        let address = find(&tables, signature).address;
        assert_eq!(word(&rsdt.bytes, 36 + slot * 4), address);
        assert_eq!(long(&xsdt.bytes, 36 + slot * 8), address);
    }
    let fixed = find(&tables, "FACP");
    assert_eq!(word(&fixed.bytes, 36), find(&tables, "FACS").address);
    assert_eq!(word(&fixed.bytes, 40), find(&tables, "DSDT").address);
    for pair in tables.windows(2) {
        assert!(pair[0].address + pair[0].bytes.len() as u64 <= pair[1].address);
    }
    let last = tables.last().unwrap();
    assert!(last.address + last.bytes.len() as u64 <= 0xf_0000);
}

/// Byte offsets of ACPI 6.5 §5.2.9.
#[test]
fn the_fixed_table_names_the_ports_of_the_power_hardware() {
    let tables = tables(1);
    let fixed = &find(&tables, "FACP").bytes;
    assert_eq!(u16::from_le_bytes([fixed[46], fixed[47]]), 9, "SCI_INT");
    assert_eq!(word(fixed, 48), 0, "SMI_CMD: in ACPI mode for good");
    assert_eq!((word(fixed, 56), fixed[88]), (0x600, 4), "PM1a_EVT");
    assert_eq!((word(fixed, 64), fixed[89]), (0x604, 2), "PM1a_CNT");
    assert_eq!((word(fixed, 76), fixed[91]), (0x608, 4), "PM_TMR");
    assert_eq!(fixed[108], 0x32, "CENTURY");
    assert_eq!(u16::from_le_bytes([fixed[109], fixed[110]]), 0b101, "IAPC_BOOT_ARCH");
    // WBINVD, PROC_C1, PWR_BUTTON, SLP_BUTTON, FIX_RTC, TMR_VAL_EXT, RESET_REG_SUP.
    assert_eq!(word(fixed, 112), 1 << 0 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 10, "flags");
    assert_eq!((fixed[116], long(fixed, 120), fixed[128]), (1, 0xcf9, 6), "RESET_REG and its value");
    // The extended addresses agree with the old ones, in system I/O space.
    assert_eq!((fixed[148], long(fixed, 152)), (1, 0x600));
    assert_eq!((fixed[172], long(fixed, 176)), (1, 0x604));
    assert_eq!((fixed[208], long(fixed, 212)), (1, 0x608));
}

#[test]
fn the_apic_table_has_an_entry_for_each_vcpu_and_the_interrupt_wiring() {
    let tables = tables(3);
    let table = &find(&tables, "APIC").bytes;
    assert_eq!((word(table, 36), word(table, 40)), (0xfee0_0000, 1));
    let mut entries = Vec::new();
    let mut rest = &table[44..];
    while !rest.is_empty() {
        let (entry, next) = rest.split_at(usize::from(rest[1]));
        entries.push(entry.to_vec());
        rest = next;
    }
    let expected: [&[u8]; 7] = [
        &[0, 8, 0, 0, 1, 0, 0, 0],
        &[0, 8, 1, 1, 1, 0, 0, 0],
        &[0, 8, 2, 2, 1, 0, 0, 0],
        &[1, 12, 3, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
        &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
        &[2, 10, 0, 9, 9, 0, 0, 0, 0b1101, 0],
        &[4, 6, 0xff, 0, 0, 1],
    ];
    assert_eq!(entries, expected);
}

#[test]
fn iasl_disassembles_every_table_and_compiles_the_result_without_a_complaint() {
    if Command::new("iasl").arg("-v").output().is_err() {
        eprintln!("skipped: iasl is not installed (package acpica-tools)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for vcpus in [1, 4] {
        // It does not read the root pointer from a file: that one is judged above.
        for table in tables(vcpus).into_iter().filter(|table| table.signature != "RSDP") {
            let name = format!("{}.dat", table.signature.to_lowercase());
            std::fs::write(folder.path().join(&name), &table.bytes).unwrap();
            let iasl = |arguments: &[&str]| {
                let output =
                    Command::new("iasl").args(arguments).current_dir(folder.path()).output().unwrap();
                let text = [output.stdout, output.stderr].concat();
                let text = String::from_utf8_lossy(&text).into_owned();
                assert!(output.status.success(), "{}: {text}", table.signature);
                text
            };
            let text = iasl(&["-d", &name]);
            for complaint in ["Warning", "Error", "ERROR", "Invalid", "nvalid checksum", "Incorrect"] {
                assert!(!text.contains(complaint), "{}: {text}", table.signature);
            }
            let source = format!("{}.dsl", table.signature.to_lowercase());
            let listing = std::fs::read_to_string(folder.path().join(&source)).unwrap();
            assert!(!listing.contains("Invalid") && !listing.contains("Warning"), "{listing}");
            // Data tables are not compiled again: the compiler would fill in its own name and checksum.
            if table.signature == "DSDT" {
                let text = iasl(&["-we", "-p", "again", &source]);
                assert!(text.contains("0 Errors, 0 Warnings, 0 Remarks"), "{text}");
            }
        }
    }
}
