//! The instruction decoder: any bytes, as code of any size; nothing impossible in the answers, and agreement with iced-x86.

#[path = "../../../crates/pure/decode/tests/oracle/mod.rs"]
#[allow(dead_code)] // Shared with the differential tests, which use more of it.
mod oracle;

use decode::Intercepted;
use x86::{CodeSize, Rflags};

/// Decodes the bytes behind the first, which says the size of the code.
pub fn run(bytes: &[u8]) {
    let Some((selector, bytes)) = bytes.split_first() else { return };
    let code = [CodeSize::Bits64, CodeSize::Bits32, CodeSize::Bits16][usize::from(selector % 3)];
    let within = |length: u8| assert!((1..=15).contains(&length) && usize::from(length) <= bytes.len());
    for expected in Intercepted::ALL {
        if let Ok(length) = decode::length(bytes, code, expected) {
            within(length);
        }
    }
    if let Ok(instruction) = decode::control(bytes, code) {
        within(instruction.length);
    }
    if let Ok(instruction) = decode::string_port(bytes, code) {
        within(instruction.length);
    }
    if let Ok(instruction) = decode::memory(bytes, code) {
        within(instruction.length);
        let seed = u64::from(*selector).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let general = |register: x86::General| seed.rotate_left(register as u32);
        let offset = instruction.offset(general, seed);
        assert_eq!(offset & !instruction.address.size.mask(), 0);
        if let Some(effect) = instruction.effect(seed, general, Rflags::from_bits_retain(seed)) {
            assert_eq!(effect.store.is_some(), instruction.writes());
            assert_eq!(effect.store.unwrap_or(0) & !instruction.width.mask(), 0);
        }
    }
    if let Some(window) = bytes.first_chunk() {
        let mut tally = oracle::Tally::default();
        tally.compare(window, code);
        assert_eq!(tally.disagreed, 0, "{:?}", tally.disagreements);
    }
}

/// Instructions as the differential test generates them.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut random = oracle::Generator::new(1);
    (0..256)
        .map(|_| {
            let (bytes, code) = random.instruction();
            let selector = match code {
                CodeSize::Bits64 => 0,
                CodeSize::Bits32 => 1,
                CodeSize::Bits16 => 2,
            };
            [&[selector][..], &bytes].concat()
        })
        .collect()
}
