//! The clock page: what a guest computes with it is the time.

use crate::tape::Tape;
use contracts::Clock;
use contracts::absent::ClockPageChoice;
use kvm_clock::KvmClock;

/// Makes a page of what the bytes say, and reads the clock with it as a guest does.
pub fn run(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let (version, kilohertz, ticks, nanoseconds, later) =
        (tape.double(), tape.double(), tape.value(), tape.value(), tape.value());
    for leaf in [0, 1, tape.double()] {
        KvmClock::leaf(leaf);
    }
    KvmClock::register(tape.double());
    KvmClock::wall_page(version, tape.value());
    let rate = Clock::new(kilohertz).map_or(tape.value(), |clock| clock.nanoseconds_per_tick());
    let page = KvmClock::time_page(version, ticks, nanoseconds, rate);
    assert_eq!(page[..4], version.to_le_bytes());
    assert_eq!(page[8..24], [ticks.to_le_bytes(), nanoseconds.to_le_bytes()].concat());
    let Some(clock) = Clock::new(kilohertz) else { return };
    // A day at most: guests are given a new page when they ask, and Linux asks no more often than that.
    let later = later % (u64::from(kilohertz) * 86_400_000);
    let (multiplier, shift) = (u32::from_le_bytes([page[24], page[25], page[26], page[27]]), page[28] as i8);
    let ticks = u128::from(later);
    let shifted = if shift < 0 { ticks >> -shift } else { ticks << shift };
    let read = (shifted * u128::from(multiplier)) >> 32;
    let right = u128::from(clock.nanoseconds(later));
    let error = read.abs_diff(right);
    assert!(
        error <= 2 + right / 1_000_000,
        "{later} ticks of {kilohertz} kHz are {right} ns, and a guest reads {read}"
    );
}

/// Rates of real machines.
pub fn seeds() -> Vec<Vec<u8>> {
    [1_000_000_u32, 2_496_001, 4_700_000, 1000, 100_000_000]
        .map(|kilohertz| [&[2, 0, 0, 0][..], &kilohertz.to_le_bytes(), &[2; 40]].concat())
        .to_vec()
}
