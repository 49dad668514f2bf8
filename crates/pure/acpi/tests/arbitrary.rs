//! Arbitrary bytes, and real tables with bits flipped: nothing panics, everything ends, errors lie inside the table.

#![allow(clippy::unwrap_used, clippy::panic)] // A test that cannot go on fails.

#[path = "support/build.rs"]
mod build;
#[path = "support/mod.rs"]
mod support;

use build::{seal, table};
use proptest::prelude::*;
use std::path::Path;

fn signature() -> impl Strategy<Value = [u8; 4]> {
    prop_oneof![
        Just(*b"APIC"),
        Just(*b"FACP"),
        Just(*b"MCFG"),
        Just(*b"HPET"),
        Just(*b"TPM2"),
        Just(*b"TCPA"),
        Just(*b"DMAR"),
        Just(*b"IVRS"),
        Just(*b"RSDT"),
        Just(*b"XSDT"),
    ]
}

/// Bytes that more often than chance are lengths and kinds which readers know.
fn lively_bytes(length: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u16>(), 0..length).prop_map(|numbers| {
        let lively = |number: u16| match number >> 14 {
            0 => number as u8,
            1 => [0x40, 0x42, 0x48, 0xf0, 8, 0][number as usize % 6],
            _ => number as u8 % 24,
        };
        numbers.into_iter().map(lively).collect()
    })
}

/// Some tables of real machines, where the collection stands beside the project.
fn real_tables() -> Vec<Vec<u8>> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../../shared/hardware/acpi"));
    let mut machines: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    machines.sort();
    let files = machines.iter().take(24).filter_map(|machine| std::fs::read_dir(machine).ok()).flatten();
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(bytes in lively_bytes(200)) {
        support::read_all(&bytes);
    }

    #[test]
    fn tables_with_arbitrary_bodies(signature in signature(), revision in 0..7u8, body in lively_bytes(160)) {
        support::read_all(&table(signature, revision, &body));
    }

    #[test]
    fn sleep_type_definitions_with_arbitrary_packages(package in lively_bytes(24)) {
        support::read_all(&[b"\x08_S5_\x12", &package[..]].concat());
    }
}

#[test]
fn real_tables_with_flipped_bits_and_cut_short() {
    let tables = real_tables();
    if tables.is_empty() {
        println!("skipped: no tables of real machines beside the project");
        return;
    }
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let case = (
        any::<prop::sample::Index>(),
        prop::collection::vec((any::<prop::sample::Index>(), 0..8u8), 1..6),
        any::<bool>(),
        any::<prop::sample::Index>(),
    );
    let mut damaged = 0u32;
    runner
        .run(&case, |(which, flips, cut, length)| {
            let mut bytes = which.get(&tables).clone();
            for (at, bit) in flips {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            if cut {
                bytes.truncate(length.index(bytes.len()));
            }
            support::read_all(&bytes);
            // Again with a checksum that hides the damage, so that it reaches the structures.
            if bytes.len() > 9 {
                seal(&mut bytes, 9);
            }
            support::read_all(&bytes);
            Ok(())
        })
        .unwrap();
    // That some damage reaches the structures is certain for this one: a MADT whose second entry has length 0.
    for bytes in tables.iter().filter(|bytes| bytes.starts_with(b"APIC")) {
        let mut bytes = bytes.clone();
        let second = 44 + bytes[45] as usize;
        bytes[second + 1] = 0;
        seal(&mut bytes, 9);
        assert_eq!(support::read_all(&bytes).impossible, [second]);
        damaged += 1;
    }
    assert!(damaged >= 20, "{damaged}");
}
