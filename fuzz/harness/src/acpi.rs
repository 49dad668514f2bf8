//! ACPI tables, as firmware gave them: any bytes, by every reader.

#[allow(dead_code)] // The crate's own tests make whole tables with it too.
#[path = "../../../crates/pure/acpi/tests/support/build.rs"]
mod build;
#[path = "../../../crates/pure/acpi/tests/support/mod.rs"]
mod support;

/// Reads the bytes by every reader; then with the checksum made right, so that what is inside the table is reached.
pub fn run(bytes: &[u8]) {
    support::read_all(bytes);
    let mut sealed = bytes.to_vec();
    if sealed.len() >= 36 {
        let length = (sealed.len() as u32).to_le_bytes();
        sealed[4..8].copy_from_slice(&length);
        build::seal(&mut sealed, 9);
        support::read_all(&sealed);
    }
}

/// One table of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    // MADT: a local APIC, an I/O APIC, an override, an x2APIC; SRAT's neighbours of it in DMAR and IVRS are headers and lengths.
    let madt = [
        &[0, 0, 0xe0, 0xfe, 1, 0, 0, 0][..],
        &[0, 8, 0, 0, 1, 0, 0, 0],
        &[1, 12, 2, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0],
        &[2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
        &[9, 16, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0],
    ]
    .concat();
    let dmar = [
        &[38, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[0, 0, 24, 0, 1, 0, 0, 0, 0, 0, 0xd9, 0xfe, 0, 0, 0, 0],
        &[1, 8, 0, 0, 0, 0, 2, 0],
    ]
    .concat();
    let ivrs = [
        &[0x42, 0x20, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[0x10, 0, 28, 0, 2, 0, 0x40, 0, 0, 0, 0xb8, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[3, 8, 0, 0],
    ]
    .concat();
    let mut root = b"RSD PTR \0RINGF\x02\0\0\0\0\x24\0\0\0".to_vec();
    root.resize(36, 0);
    build::seal(&mut root[..20], 8);
    build::seal(&mut root, 32);
    let sleep = b"\x08_S5_\x12\x06\x04\x0a\x05\x0a\x05\x00\x00";
    vec![
        root,
        build::table(*b"APIC", 4, &madt),
        build::table(*b"FACP", 6, &[0; 240]),
        build::table(
            *b"MCFG",
            1,
            &[&[0; 8][..], &[0, 0, 0, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0]].concat(),
        ),
        build::table(*b"HPET", 1, &[0; 20]),
        build::table(*b"TPM2", 4, &[0; 16]),
        build::table(*b"TCPA", 2, &[0; 64]),
        build::table(*b"DMAR", 1, &dmar),
        build::table(*b"IVRS", 2, &ivrs),
        build::table(*b"DSDT", 2, sleep),
        build::table(*b"XSDT", 1, &[0; 32]),
        build::table(*b"RSDT", 1, &[0; 16]),
    ]
}
