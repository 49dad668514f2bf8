//! What the witness computes: a chain of numbers, each from the one before. The test on the host computes the same.

/// The next number of the chain (the finalizer of SplitMix64).
pub const fn next(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Words of memory that a round fills.
pub const WORDS: usize = 1 << 16;

#[allow(dead_code, reason = "for the witness; the test on the host takes what it says")]
/// Every so many rounds the witness says how far it has come.
pub const SAID: u64 = 64;

/// What the witness says of a round: the chain that begins behind the round's number, joined into one number.
#[allow(dead_code, reason = "for the test on the host, which has no memory to fill")]
pub fn said(round: u64) -> u64 {
    let mut number = next(round);
    (0..WORDS).fold(0u64, |sum, _| {
        number = next(number);
        sum.rotate_left(1) ^ number
    })
}
