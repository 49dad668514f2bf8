//! Any bytes, by every reader; then with the checksum made right, so that what is inside the table is reached.
#![no_main]

#[allow(dead_code)] // The tests make whole tables with it too.
#[path = "../../tests/support/build.rs"]
mod build;
#[path = "../../tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    support::read_all(bytes);
    let mut sealed = bytes.to_vec();
    if sealed.len() >= 36 {
        let length = (sealed.len() as u32).to_le_bytes();
        sealed[4..8].copy_from_slice(&length);
        build::seal(&mut sealed, 9);
        support::read_all(&sealed);
    }
});
