//! Three clocks, three types: what the host counts, what a guest counts, and what a device model is told.

/// Ticks of the host's time stamp counter since reset.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct HostTime(pub u64);

/// Ticks of a guest's time stamp counter: the host's, plus the compartment's offset. Local APIC timers count these.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct GuestTicks(pub u64);

/// Nanoseconds since the compartment was first started, by its own clock, which can be paused. Device models see
/// no other time.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct GuestTime(pub u64);

impl GuestTime {
    /// The time `nanoseconds` later; stays at the end of time rather than wrapping.
    #[must_use]
    pub const fn after(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }

    /// Nanoseconds from `earlier` to here, 0 where `earlier` is the later one.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Rates of the time stamp counter that a [`Clock`] accepts, in kHz: 1 MHz to 100 GHz.
pub const RATE_LIMIT: core::ops::RangeInclusive<u32> = 1_000..=100_000_000;

/// Converts between a compartment's tick and nanosecond clocks. Fixed at start, so that no conversion divides.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Clock {
    kilohertz: u32,
    /// Nanoseconds per tick, 32 fractional bits.
    nanoseconds_per_tick: u64,
    /// Ticks per nanosecond, 32 fractional bits.
    ticks_per_nanosecond: u64,
}

impl Clock {
    /// A clock of `kilohertz`; `None` outside [`RATE_LIMIT`].
    pub const fn new(kilohertz: u32) -> Option<Self> {
        if kilohertz < *RATE_LIMIT.start() || kilohertz > *RATE_LIMIT.end() {
            return None;
        }
        Some(Self {
            kilohertz,
            nanoseconds_per_tick: (1_000_000u64 << 32) / kilohertz as u64,
            ticks_per_nanosecond: ((kilohertz as u64) << 32) / 1_000_000,
        })
    }

    /// The rate of the tick clock in kHz.
    pub const fn kilohertz(&self) -> u32 {
        self.kilohertz
    }

    /// Nanoseconds in so many ticks, rounded down.
    #[inline]
    pub const fn nanoseconds(&self, ticks: u64) -> u64 {
        ((ticks as u128 * self.nanoseconds_per_tick as u128) >> 32) as u64
    }

    /// Ticks that surely cover so many nanoseconds: rounded up, by at most two, so that a timer armed with it is
    /// never early.
    #[inline]
    pub const fn ticks_covering(&self, nanoseconds: u64) -> u64 {
        let ticks = (nanoseconds as u128 * self.ticks_per_nanosecond as u128) >> 32;
        if ticks >= (u64::MAX - 2) as u128 { u64::MAX } else { ticks as u64 + 2 }
    }

    /// The pair (multiplier with 32 fractional bits) that turns ticks into nanoseconds, for clocks that a guest
    /// evaluates itself.
    pub const fn nanoseconds_per_tick(&self) -> u64 {
        self.nanoseconds_per_tick
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_rates_are_refused() {
        assert!(Clock::new(0).is_none());
        assert!(Clock::new(999).is_none());
        assert!(Clock::new(100_000_001).is_none());
    }

    #[test]
    fn an_hour_is_an_hour_within_a_millionth() {
        for kilohertz in [1_000, 999_999, 1_000_000, 2_496_001, 4_700_000] {
            let clock = Clock::new(kilohertz).unwrap();
            let ticks = kilohertz as u64 * 1_000 * 3_600;
            let hour = 3_600_000_000_000u64;
            assert!(clock.nanoseconds(ticks).abs_diff(hour) < hour / 1_000_000, "{kilohertz}");
            assert!(clock.ticks_covering(hour).abs_diff(ticks) < ticks / 1_000_000, "{kilohertz}");
        }
    }
}
