//! The local APIC's timer (SDM Vol. 3A §11.5.4, APM Vol. 2 §16.4.1).
//!
//! Its input clock is the guest's time stamp counter: one tick of the clock per tick of the counter, before the divide
//! configuration register divides it. Time is absolute: the timer remembers at which tick the count reaches 0, and
//! computes what is left when it is asked.

use contracts::GuestTicks;
use core::num::NonZeroU64;

/// A periodic timer goes off at most once in so many ticks. A shorter period keeps its phase, and those of its
/// expirations that come sooner than this after another are merged with the next, as they would be in the request
/// register of hardware whose processor cannot keep up. So that a guest cannot buy an endless stream of host timer
/// interrupts with one register write: from 2 to 10 microseconds at 1 to 5 GHz.
pub const MINIMUM_PERIOD: NonZeroU64 = NonZeroU64::new(10_000).unwrap();

/// Bits 18 and 17 of the timer's vector table entry.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Counts down once.
    OneShot,
    /// Starts again when it reaches 0.
    Periodic,
    /// Goes off when the time stamp counter reaches IA32_TSC_DEADLINE.
    Deadline,
    /// The reserved encoding: the timer stands still.
    Reserved,
}

impl Mode {
    /// The mode in a vector table entry.
    pub const fn of(entry: u32) -> Self {
        match entry >> 17 & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            2 => Self::Deadline,
            _ => Self::Reserved,
        }
    }

    const fn counts(self) -> bool {
        matches!(self, Self::OneShot | Self::Periodic)
    }
}

/// The timer without its vector table entry, which says whether an expiration becomes an interrupt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timer {
    mode: Mode,
    armed: bool,
    /// The divide configuration register: bits 3, 1 and 0.
    divide: u32,
    /// The initial-count register.
    initial: u32,
    /// While armed: the tick at which it goes off; in the counting modes, where the count reaches 0.
    end: u64,
    /// Periodic: ticks between two expirations, a multiple of the period and at least [`MINIMUM_PERIOD`].
    interval: NonZeroU64,
}

impl Timer {
    /// The timer after reset.
    pub const fn new() -> Self {
        Self { mode: Mode::OneShot, armed: false, divide: 0, initial: 0, end: 0, interval: MINIMUM_PERIOD }
    }

    /// When it goes off, if it is armed.
    #[inline]
    pub const fn end(&self) -> Option<GuestTicks> {
        if self.armed { Some(GuestTicks(self.end)) } else { None }
    }

    /// The deadline register: 0 where the timer is in another mode or not armed.
    #[inline]
    pub const fn deadline(&self) -> u64 {
        if self.armed && matches!(self.mode, Mode::Deadline) { self.end } else { 0 }
    }

    /// Writes the deadline register; true: it goes off at once, or the old deadline had been reached before the write.
    /// Ignored in the other modes; 0 disarms.
    #[inline]
    pub const fn set_deadline(&mut self, value: u64, now: GuestTicks) -> bool {
        if !matches!(self.mode, Mode::Deadline) {
            return false;
        }
        let was_due = self.armed && self.end <= now.0;
        let is_due = value != 0 && value <= now.0;
        self.end = value;
        self.armed = value > now.0;
        was_due || is_due
    }

    /// Brings it up to `now`; true: it went off since. Disarms it unless it is periodic; then the next expiration keeps
    /// the phase and lies after `now`, and however many were missed count as one.
    #[inline]
    pub fn expire(&mut self, now: GuestTicks) -> bool {
        if !self.armed || now.0 < self.end {
            return false;
        }
        if matches!(self.mode, Mode::Periodic) {
            let missed = (now.0 - self.end) / self.interval;
            let ahead = self.interval.get().saturating_mul(missed.saturating_add(1));
            self.end = self.end.saturating_add(ahead);
            // At the end of time there is no later expiration.
            self.armed = self.end > now.0;
        } else {
            self.armed = false;
        }
        true
    }

    /// The initial-count register.
    pub const fn initial(&self) -> u32 {
        self.initial
    }

    /// Writes the initial-count register, which starts the count; 0 stops it. Ignored in TSC-deadline mode. The timer
    /// must be up to date.
    pub fn set_initial(&mut self, value: u32, now: GuestTicks) {
        if !self.mode.counts() {
            return;
        }
        self.initial = value;
        self.armed = value != 0;
        self.set_interval();
        let first = if matches!(self.mode, Mode::Periodic) { self.interval } else { self.period() };
        self.end = now.0.saturating_add(first.get());
    }

    /// The current-count register. The timer must be up to date.
    pub fn current(&self, now: GuestTicks) -> u32 {
        if !self.armed || !self.mode.counts() {
            return 0;
        }
        let mut left = self.end.saturating_sub(now.0);
        let period = self.period();
        // A short period fits several times into the interval.
        if left > period.get() {
            left = (left - 1) % period + 1;
        }
        // A count is shown until it is over: rounded up.
        (left.saturating_add((1 << self.shift()) - 1) >> self.shift()) as u32
    }

    /// The divide configuration register.
    pub const fn divide(&self) -> u32 {
        self.divide
    }

    /// Writes the divide configuration register; a count under way goes on at the new rate. The timer must be up to date.
    pub fn set_divide(&mut self, value: u32, now: GuestTicks) {
        let count = self.current(now);
        self.divide = value & 0b1011;
        self.resume(count, now);
    }

    /// Changes the mode. Into and out of TSC-deadline mode this disarms the timer (§11.5.4.1). Between one-shot and
    /// periodic the count goes on: the manual's sentence on disarming stands in the section on the deadline, processors
    /// without it only look at the mode when the count reaches 0, and guests rely on it by writing the count first (GNU
    /// Mach does). The timer must be up to date.
    pub fn set_mode(&mut self, mode: Mode, now: GuestTicks) {
        if self.mode as u8 == mode as u8 {
            return;
        }
        let goes_on = self.mode.counts() && mode.counts();
        let count = self.current(now);
        self.mode = mode;
        if goes_on {
            self.resume(count, now);
        } else {
            self.armed = false;
            self.initial = 0;
        }
    }

    fn resume(&mut self, count: u32, now: GuestTicks) {
        self.set_interval();
        if self.armed && self.mode.counts() {
            self.end = now.0.saturating_add((count as u64) << self.shift());
        }
    }

    /// log2 of the divisor: 000 divides by 2, 110 by 128, 111 by 1.
    const fn shift(&self) -> u32 {
        ((self.divide & 3 | self.divide >> 1 & 4) + 1) & 7
    }

    /// Ticks from the initial count to 0.
    fn period(&self) -> NonZeroU64 {
        NonZeroU64::new(u64::from(self.initial) << self.shift()).unwrap_or(NonZeroU64::MIN)
    }

    fn set_interval(&mut self) {
        let period = self.period();
        let merged = (MINIMUM_PERIOD.get() - 1) / period + 1;
        self.interval = period.saturating_mul(NonZeroU64::new(merged).unwrap_or(NonZeroU64::MIN));
    }
}
