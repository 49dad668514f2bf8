//! What a device wants done, as data. A device calls nobody; the monitor applies these after the access.

use crate::{GuestTime, InterruptMessage, Line};
use heapless::Vec;

/// What a guest asked of its power switch.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Power {
    /// Off: the compartment shuts down.
    Off,
    /// Reset: the compartment starts again, or stays down, as its manifest says.
    Reset,
}

/// One wish of a device.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// The device drives its interrupt line to `level`.
    Line {
        /// Which line.
        line: Line,
        /// High or low. Setting the level it has already is harmless.
        level: bool,
    },
    /// An interrupt message: from an I/O APIC pin or, later, an MSI.
    Message(InterruptMessage),
    /// A byte for the compartment's console.
    Console(u8),
    /// The power switch.
    Power(Power),
}

/// What an access said of the device's timer.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Timer {
    /// Nothing: it stays as it is.
    #[default]
    Unchanged,
    /// It goes off then, or never.
    Set(Option<GuestTime>),
}

/// At most this many wishes fit one access; a device that wants more says so through [`Effects::overflowed`].
const CAPACITY: usize = 24;

/// The wishes of one access, in order.
#[derive(Debug, Default)]
pub struct Effects {
    list: Vec<Effect, CAPACITY>,
    timer: Timer,
    /// [`TOUCHED`], [`TIMERS_CHANGED`], [`OVERFLOWED`]: one byte, because it is cleared at every access.
    said: u8,
}

/// Anything was wished.
const TOUCHED: u8 = 1 << 0;
/// A timer was set.
const TIMERS_CHANGED: u8 = 1 << 1;
/// A wish did not fit.
const OVERFLOWED: u8 = 1 << 2;

impl Effects {
    /// No wishes yet.
    #[inline]
    pub const fn new() -> Self {
        Self { list: Vec::new(), timer: Timer::Unchanged, said: 0 }
    }

    /// Adds a wish. One that does not fit is dropped and remembered as overflow: a fault of the device model, which
    /// the monitor reports.
    #[inline]
    pub fn push(&mut self, effect: Effect) {
        self.said |= TOUCHED;
        if self.list.push(effect).is_err() {
            self.said |= OVERFLOWED;
        }
    }

    /// Drives a line.
    #[inline]
    pub fn line(&mut self, line: Line, level: bool) {
        self.push(Effect::Line { line, level });
    }

    /// Sets the device's one timer to go off at `deadline`, or never. The last word of an access counts.
    #[inline]
    pub fn timer(&mut self, deadline: Option<GuestTime>) {
        self.timer = Timer::Set(deadline);
        self.said |= TOUCHED | TIMERS_CHANGED;
    }

    /// Whether anything was ever wished: the one question to ask after most accesses, which wish nothing.
    #[inline(always)]
    pub fn touched(&self) -> bool {
        self.said != 0
    }

    /// Whether any timer was set since this was last asked.
    #[inline]
    pub fn take_timers_changed(&mut self) -> bool {
        let changed = self.said & TIMERS_CHANGED != 0;
        self.said &= !TIMERS_CHANGED;
        changed
    }

    /// Takes what was said about the timer, if anything.
    #[inline]
    pub fn take_timer(&mut self) -> Timer {
        core::mem::take(&mut self.timer)
    }

    /// Whether there is nothing in the list.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Takes the first wish out of the list.
    pub fn pop_first(&mut self) -> Option<Effect> {
        if self.list.is_empty() { None } else { Some(self.list.remove(0)) }
    }

    /// The wishes so far.
    pub fn as_slice(&self) -> &[Effect] {
        &self.list
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.list.clear();
        self.timer = Timer::Unchanged;
    }

    /// Whether a wish was ever dropped.
    pub fn overflowed(&self) -> bool {
        self.said & OVERFLOWED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wish_is_noticed_by_the_one_question() {
        let mut effects = Effects::new();
        assert!(!effects.touched());
        effects.timer(None);
        assert!(effects.touched() && effects.is_empty());
        assert!(effects.take_timers_changed() && !effects.take_timers_changed());
        assert!(effects.touched(), "what was wished once stays wished");
        assert_eq!(effects.take_timer(), Timer::Set(None));
        for wish in
            [Effect::Console(1), Effect::Power(Power::Off), Effect::Line { line: Line(1), level: true }]
        {
            let mut effects = Effects::new();
            effects.push(wish);
            assert!(effects.touched() && !effects.take_timers_changed() && !effects.overflowed());
        }
    }

    #[test]
    fn the_wish_too_many_is_remembered() {
        let mut effects = Effects::new();
        for _ in 0..CAPACITY {
            effects.push(Effect::Console(0));
        }
        assert!(!effects.overflowed());
        effects.push(Effect::Console(0));
        assert!(effects.overflowed());
    }
}
