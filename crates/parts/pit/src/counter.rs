//! One counter of the 8254. Nothing here counts: what a counter shows follows from when it was loaded.
//!
//! The data sheet loads a count with the CLK pulse that follows the write or the trigger. Here that pulse comes at
//! once, so that a counter's ticks are counted from its own loading: N ticks are N times 838.1 ns, and a guest that
//! looks at OUT right after a trigger sees the one-shot running.

use crate::clock::{nanoseconds, ticks};
use contracts::GuestTime;

/// Ticks of about 20 µs. Rising edges that follow faster than this are merged: no guest needs them, and each costs a
/// wake-up.
const LEAST_PERIOD: u64 = 24;

/// A count that was written while the counter runs in mode 2 or 3 and waits for the end of the cycle.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Reload {
    /// When the cycle (mode 3: the half-cycle) ends.
    at: GuestTime,
    /// Mode 3: what begins then is a low half.
    low_half: bool,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Counter {
    // As programmed.
    /// Bits 5–0 of the control word: access, mode, BCD.
    control: u8,
    /// 0 to 5.
    mode: u8,
    /// Count register: 1 to 65536 (BCD: 10000); 0: nothing written since the control word.
    count: u32,
    /// Input GATE.
    gate: bool,

    // Counting element.
    /// What it was loaded with; 0: not since the control word.
    loaded: u32,
    /// It had counted `offset` ticks at `origin`, and goes on from there if `running`.
    origin: GuestTime,
    offset: u64,
    running: bool,
    /// What it shows while not loaded.
    rest: u16,
    /// NULL COUNT: the count register was written, but not yet loaded.
    null: bool,
    reload: Option<Reload>,

    // Access through the port.
    /// The first byte of two.
    first_byte: Option<u8>,
    /// The next read gives the second byte of two.
    reads_high: bool,
    /// Latched count, and how many reads it has still to serve.
    latched: Option<(u16, u8)>,
    latched_status: Option<u8>,
}

impl Counter {
    /// A counter with a control word but no count: OUT is high (but in mode 0), nothing counts.
    pub(crate) const fn new(control: u8) -> Self {
        // The codes 6 and 7 are modes 2 and 3 ("M2 = X").
        let mode = (control >> 1) & 7;
        Self {
            control: control & 0x3f,
            mode: if mode > 5 { mode & 3 } else { mode },
            count: 0,
            gate: true,
            loaded: 0,
            origin: GuestTime(0),
            offset: 0,
            running: false,
            rest: 0,
            null: true,
            reload: None,
            first_byte: None,
            reads_high: false,
            latched: None,
            latched_status: None,
        }
    }

    /// BCD: "four decades" instead of 16 bits.
    #[inline]
    const fn is_decimal(&self) -> bool {
        self.control & 1 != 0
    }

    const fn two_bytes(&self) -> bool {
        self.control & 0x30 == 0x30
    }

    /// The number of values that the counting element has.
    const fn modulus(&self) -> u32 {
        if self.is_decimal() { 10_000 } else { 0x1_0000 }
    }

    /// Ticks since it was loaded.
    #[inline(always)]
    const fn elapsed(&self, now: GuestTime) -> u64 {
        if self.running { self.offset.wrapping_add(ticks(now.since(self.origin))) } else { self.offset }
    }

    /// When it will have counted `tick` ticks.
    const fn when(&self, tick: u64) -> GuestTime {
        self.origin.after(nanoseconds(tick.saturating_sub(self.offset)))
    }

    /// The length of a cycle in modes 2 and 3; not 0 where anything is loaded.
    #[inline]
    const fn period(&self) -> u64 {
        self.loaded as u64
    }

    /// What the count register loads: in modes 2 and 3 "a count of 1 is illegal", and counts as 2 here.
    fn next_load(&self) -> u32 {
        if matches!(self.mode, 2 | 3) { self.count.max(2) } else { self.count }
    }

    /// The ticks of a cycle during which OUT is high in mode 3: "(N + 1)/2 counts".
    #[inline]
    const fn high_half(period: u64) -> u64 {
        period.div_ceil(2)
    }

    /// Lets a new count that waited for the end of a cycle take effect.
    #[inline(always)]
    fn settle(&mut self, now: GuestTime) {
        if let Some(reload) = self.reload {
            self.settle_reload(reload, now);
        }
    }

    #[inline(never)]
    fn settle_reload(&mut self, reload: Reload, now: GuestTime) {
        if reload.at <= now {
            self.load(reload.at);
            if reload.low_half {
                self.offset = Self::high_half(self.period());
            }
        }
    }

    /// Loads the counting element from the count register.
    fn load(&mut self, now: GuestTime) {
        self.loaded = self.next_load();
        self.origin = now;
        self.offset = 0;
        // In modes 1 and 5 GATE only triggers, and is high when it does.
        self.running = self.gate;
        self.null = false;
        self.reload = None;
    }

    /// Stops the counting element where it is and forgets what it was loaded with.
    fn unload(&mut self, now: GuestTime) {
        self.rest = self.wrapped(self.value(now));
        self.loaded = 0;
        self.running = false;
        self.reload = None;
    }

    /// Output OUT.
    #[inline]
    pub(crate) fn output(&mut self, now: GuestTime) -> bool {
        self.settle(now);
        let (elapsed, loaded) = (self.elapsed(now), u64::from(self.loaded));
        if loaded == 0 {
            return self.mode != 0;
        }
        match self.mode {
            0 | 1 => elapsed >= loaded,
            2 => !self.running || elapsed % self.period() != self.period() - 1,
            3 => !self.running || elapsed % self.period() < Self::high_half(self.period()),
            _ => !self.running || elapsed != loaded,
        }
    }

    /// What the counting element holds of a number.
    const fn wrapped(&self, value: u64) -> u16 {
        if self.is_decimal() { (value % 10_000) as u16 } else { value as u16 }
    }

    /// What the counting element holds, in binary, before it is [wrapped](Self::wrapped).
    #[inline]
    fn value(&self, now: GuestTime) -> u64 {
        if self.loaded == 0 {
            return self.rest.into();
        }
        let elapsed = self.elapsed(now);
        match self.mode {
            2 => self.period() - elapsed % self.period(),
            3 => {
                // Loaded with N, or with N − 1 if N is odd, and "decremented by two on succeeding CLK pulses".
                let (period, place) = (self.period(), elapsed % self.period());
                let high = Self::high_half(period);
                let place = if place < high { place } else { place - high };
                (period & !1) - 2 * place
            }
            // "The counter wraps around to the highest count and continues counting."
            _ if self.is_decimal() => u64::from(self.loaded) + 10_000 - elapsed % 10_000,
            _ => u64::from(self.loaded).wrapping_sub(elapsed),
        }
    }

    /// The counting element as the port shows it.
    #[inline]
    fn shown(&mut self, now: GuestTime) -> u16 {
        self.settle(now);
        let value = self.value(now);
        if self.is_decimal() { to_bcd(self.wrapped(value)) } else { value as u16 }
    }

    /// A control word that selects this counter, bits 5–0; bits 5 and 4 zero are the counter latch command.
    pub(crate) fn command(&mut self, word: u8, now: GuestTime) {
        if word & 0x30 == 0 {
            self.latch_count(now);
            return;
        }
        self.settle(now);
        self.unload(now);
        *self = Self { rest: self.rest, gate: self.gate, ..Self::new(word) };
    }

    /// Latches the count; a count latched already stays "until it is read by the CPU".
    pub(crate) fn latch_count(&mut self, now: GuestTime) {
        if self.latched.is_none() {
            let reads = if self.two_bytes() { 2 } else { 1 };
            self.latched = Some((self.shown(now), reads));
        }
    }

    /// Latches the status byte; one latched already stays.
    pub(crate) fn latch_status(&mut self, now: GuestTime) {
        if self.latched_status.is_none() {
            let output = u8::from(self.output(now)) << 7;
            self.latched_status = Some(output | u8::from(self.null) << 6 | self.control);
        }
    }

    /// Reads the counter's port: latched status, else latched count, else the count as it is.
    #[inline]
    pub(crate) fn read(&mut self, now: GuestTime) -> u8 {
        if let Some(status) = self.latched_status {
            self.latched_status = None;
            return status;
        }
        let value = match self.latched {
            Some((value, reads)) => {
                self.latched = (reads > 1).then_some((value, 1));
                value
            }
            None => self.shown(now),
        };
        let high = if self.two_bytes() {
            self.reads_high = !self.reads_high;
            !self.reads_high
        } else {
            self.control & 0x20 != 0
        };
        if high { (value >> 8) as u8 } else { value as u8 }
    }

    /// Writes the counter's port.
    pub(crate) fn write(&mut self, byte: u8, now: GuestTime) {
        self.settle(now);
        let register = match (self.control & 0x30, self.first_byte.take()) {
            (0x10, _) => u16::from(byte),
            (0x20, _) => u16::from(byte) << 8,
            (_, None) => {
                self.first_byte = Some(byte);
                if self.mode == 0 {
                    // "Writing the first byte disables counting. OUT is set low immediately."
                    self.unload(now);
                }
                return;
            }
            (_, Some(low)) => u16::from_le_bytes([low, byte]),
        };
        let count = if self.is_decimal() { from_bcd(register) } else { u32::from(register) };
        self.count = if count == 0 { self.modulus() } else { count };
        self.null = true;
        match self.mode {
            0 | 4 => self.load(now),
            2 | 3 if self.loaded == 0 => self.load(now),
            2 | 3 if self.running && self.reload.is_none() => self.reload = self.end_of_cycle(now),
            // Modes 1 and 5, and modes 2 and 3 with GATE low: the trigger loads it.
            _ => {}
        }
    }

    fn end_of_cycle(&self, now: GuestTime) -> Option<Reload> {
        let (period, elapsed) = (self.period(), self.elapsed(now));
        let place = elapsed.checked_rem(period)?;
        let high = Self::high_half(period);
        let (end, low_half) = if self.mode == 3 && place < high { (high, true) } else { (period, false) };
        Some(Reload { at: self.when((elapsed - place).saturating_add(end)), low_half })
    }

    /// Drives GATE.
    pub(crate) fn set_gate(&mut self, high: bool, now: GuestTime) {
        if self.gate == high {
            return;
        }
        self.settle(now);
        self.gate = high;
        match (self.mode, high) {
            (1 | 2 | 3 | 5, true) => {
                // A trigger.
                if self.count != 0 {
                    self.load(now);
                }
            }
            (1 | 5, false) => {}
            (_, true) => {
                self.origin = now;
                self.running = self.loaded != 0;
            }
            (_, false) => {
                self.offset = self.elapsed(now);
                self.running = false;
                // The trigger that lets it run again loads the new count.
                self.reload = None;
            }
        }
    }

    /// When OUT next rises by counting, after `now`; rises less than 20 µs apart are merged into one.
    pub(crate) fn next_rise(&mut self, now: GuestTime) -> Option<GuestTime> {
        self.settle(now);
        if !self.running || self.loaded == 0 {
            return None;
        }
        let (elapsed, loaded) = (self.elapsed(now), u64::from(self.loaded));
        match self.mode {
            0 => (elapsed < loaded).then(|| self.when(loaded)),
            // The strobe is one tick long.
            4 => (elapsed <= loaded).then(|| self.when(loaded.saturating_add(1))),
            2 | 3 => match self.reload {
                Some(Reload { at, low_half: true }) => {
                    let period = u64::from(self.next_load());
                    Some(at.after(nanoseconds(period - Self::high_half(period))))
                }
                Some(Reload { at, low_half: false }) => Some(at),
                None => {
                    // A multiple of the period, and so in phase: the least that is long enough.
                    let stride = self.period() * LEAST_PERIOD.div_ceil(self.period());
                    let passed = elapsed.checked_div(stride)?;
                    Some(self.when(passed.saturating_add(1).saturating_mul(stride)))
                }
            },
            // GATE of counter 0, the one whose edges count, never triggers.
            _ => None,
        }
    }

    /// Whether OUT is low by itself until the count runs out (mode 0), rather than for an instant.
    pub(crate) const fn waits_low(&self) -> bool {
        self.mode == 0
    }
}

/// The four decimal digits of `register`; a digit above nine counts what its bits say.
fn from_bcd(register: u16) -> u32 {
    let digit = |place: u32| u32::from((register >> (4 * place)) & 15);
    digit(0) + 10 * digit(1) + 100 * digit(2) + 1_000 * digit(3)
}

/// `value` below 10000 as four decimal digits.
fn to_bcd(value: u16) -> u16 {
    let digit = |weight: u16, place: u32| (value / weight % 10) << (4 * place);
    digit(1, 0) | digit(10, 1) | digit(100, 2) | digit(1_000, 3)
}
