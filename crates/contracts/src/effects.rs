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
    timers_changed: bool,
    overflowed: bool,
    touched: bool,
}

impl Effects {
    /// No wishes yet.
    #[inline]
    pub const fn new() -> Self {
        Self {
            list: Vec::new(),
            timer: Timer::Unchanged,
            timers_changed: false,
            overflowed: false,
            touched: false,
        }
    }

    /// Adds a wish. One that does not fit is dropped and remembered as overflow: a fault of the device model, which
    /// the monitor reports.
    #[inline]
    pub fn push(&mut self, effect: Effect) {
        self.touched = true;
        if self.list.push(effect).is_err() {
            self.overflowed = true;
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
        self.timers_changed = true;
    }

    /// Whether anything was ever wished: the one question to ask after most accesses, which wish nothing.
    #[inline(always)]
    pub fn touched(&self) -> bool {
        self.touched
    }

    /// Whether any timer was set since this was last asked.
    #[inline]
    pub fn take_timers_changed(&mut self) -> bool {
        core::mem::take(&mut self.timers_changed)
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
        self.overflowed
    }
}
