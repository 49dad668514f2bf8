//! Nanoseconds to ticks of the 1.193182 MHz clock and back, by multiplication.

/// The clock input CLK of all three counters, in Hz: a twelfth of the PC's 14.31818 MHz.
pub(crate) const HERTZ: u64 = 1_193_182;

/// Ticks per nanosecond with 64 fractional bits, rounded up: a deadline computed by [`nanoseconds`] then never lies
/// before its tick, which is what keeps an expired timer from expiring again at once.
const TICKS_PER_NANOSECOND: u64 = ((HERTZ as u128) << 64).div_ceil(1_000_000_000) as u64;

/// Ticks between two memory refreshes of a PC/AT, which counter 1 asks for.
const REFRESH: u64 = 18;
const REFRESHES_PER_NANOSECOND: u64 = TICKS_PER_NANOSECOND / REFRESH;

const FRACTION: u32 = 54;
/// Nanoseconds per tick with 54 fractional bits, rounded up: the most that fit 64 bits, since a tick is 838 ns long.
const NANOSECONDS_PER_TICK: u64 = (1_000_000_000u128 << FRACTION).div_ceil(HERTZ as u128) as u64;

/// Whole ticks in `nanoseconds`.
#[inline]
pub(crate) const fn ticks(nanoseconds: u64) -> u64 {
    ((nanoseconds as u128 * TICKS_PER_NANOSECOND as u128) >> 64) as u64
}

/// Whole refreshes in `nanoseconds`.
#[inline]
pub(crate) const fn refreshes(nanoseconds: u64) -> u64 {
    ((nanoseconds as u128 * REFRESHES_PER_NANOSECOND as u128) >> 64) as u64
}

/// A number of nanoseconds that contains `ticks`: the least such, or one or two more.
#[inline]
pub(crate) const fn nanoseconds(ticks: u64) -> u64 {
    let wide = (ticks as u128 * NANOSECONDS_PER_TICK as u128 + ((1 << FRACTION) - 1)) >> FRACTION;
    if wide > u64::MAX as u128 { u64::MAX } else { wide as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_second_has_as_many_ticks_as_the_crystal_says() {
        assert_eq!(ticks(1_000_000_000), HERTZ);
        assert_eq!(ticks(999_999_999), HERTZ - 1);
        assert!(nanoseconds(HERTZ) - 1_000_000_000 <= 1);
        assert_eq!((nanoseconds(1), ticks(838), ticks(839)), (839, 0, 1));
    }

    proptest! {
        #[test]
        fn a_deadline_is_never_early(tick in 0..u64::MAX >> 11) {
            prop_assert!(ticks(nanoseconds(tick)) >= tick);
        }

        #[test]
        fn a_deadline_is_two_nanoseconds_late_at_most(tick in 1..1u64 << 40) {
            prop_assert!(ticks(nanoseconds(tick) - 2) < tick);
        }

        #[test]
        fn ticks_agree_with_long_division(time in any::<u64>()) {
            let exact = (u128::from(time) * u128::from(HERTZ) / 1_000_000_000) as u64;
            prop_assert!(ticks(time) == exact || ticks(time) == exact + 1);
        }
    }
}
