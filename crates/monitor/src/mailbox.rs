//! How everybody reaches a vCPU that another processor owns: atomic request bits, and posted interrupt vectors.
//!
//! Nothing of a compartment's private state is here, so mailboxes may be written while that compartment is not mapped.

use contracts::Trigger;
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Requests that a mailbox holds. Each is a bit; taking them is one exchange.
pub mod request {
    /// Vectors were posted.
    pub const INTERRUPT: u32 = 1 << 0;
    /// NMI.
    pub const NON_MASKABLE: u32 = 1 << 1;
    /// INIT.
    pub const INIT: u32 = 1 << 2;
    /// Start-up; the vector is in [`super::Mailbox::start_vector`].
    pub const START_UP: u32 = 1 << 3;
    /// The PIC's output changed, or an I/O APIC has an external interrupt.
    pub const EXTERNAL: u32 = 1 << 4;
    /// The platform's earliest timer changed.
    pub const TIMERS: u32 = 1 << 5;
    /// The compartment is ending or resetting: park.
    pub const PARK: u32 = 1 << 6;
}

/// The mailbox of one vCPU.
#[derive(Debug)]
pub struct Mailbox {
    requests: AtomicU32,
    vectors: [AtomicU32; 8],
    levels: [AtomicU32; 8],
    start_vector: AtomicU8,
}

impl Mailbox {
    /// Empty.
    pub const fn new() -> Self {
        Self {
            requests: AtomicU32::new(0),
            vectors: [const { AtomicU32::new(0) }; 8],
            levels: [const { AtomicU32::new(0) }; 8],
            start_vector: AtomicU8::new(0),
        }
    }

    /// Whether there is anything in it.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.requests.load(Ordering::Acquire) == 0
    }

    /// Puts a request in; answers whether the owner must be told (it was not there yet).
    #[inline]
    pub fn put(&self, request: u32) -> bool {
        self.requests.fetch_or(request, Ordering::Release) & request == 0
    }

    /// Posts an interrupt; answers whether the owner must be told.
    #[inline]
    pub fn post(&self, vector: u8, trigger: Trigger) -> bool {
        let (word, bit) = (usize::from(vector >> 5), 1 << (vector & 31));
        // `vector >> 5` is below 8: both lookups succeed.
        if let (Some(vectors), Some(levels)) = (self.vectors.get(word), self.levels.get(word)) {
            match trigger {
                Trigger::Level => levels.fetch_or(bit, Ordering::Relaxed),
                Trigger::Edge => levels.fetch_and(!bit, Ordering::Relaxed),
            };
            vectors.fetch_or(bit, Ordering::Relaxed);
        }
        self.put(request::INTERRUPT)
    }

    /// Puts a start-up request in; answers whether the owner must be told.
    pub fn start_up(&self, vector: u8) -> bool {
        self.start_vector.store(vector, Ordering::Relaxed);
        self.put(request::START_UP)
    }

    /// Takes all requests out.
    #[inline]
    pub fn take(&self) -> u32 {
        self.requests.swap(0, Ordering::AcqRel)
    }

    /// Takes posted vectors out, one call each.
    pub fn take_vectors(&self, mut each: impl FnMut(u8, Trigger)) {
        for (number, (vectors, levels)) in self.vectors.iter().zip(&self.levels).enumerate() {
            if vectors.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = vectors.swap(0, Ordering::Acquire);
            let levels = levels.load(Ordering::Relaxed);
            while bits != 0 {
                let bit = bits.trailing_zeros();
                bits &= bits - 1;
                let trigger = if levels >> bit & 1 == 1 { Trigger::Level } else { Trigger::Edge };
                each((number as u8) << 5 | bit as u8, trigger);
            }
        }
    }

    /// The page number of the last start-up request.
    pub fn start_vector(&self) -> u8 {
        self.start_vector.load(Ordering::Relaxed)
    }

    /// Empties it, as a reset does.
    pub fn clear(&self) {
        self.requests.store(0, Ordering::Relaxed);
        for word in &self.vectors {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// A wire to a vCPU: its level, and whether that changed since the vCPU last looked, so that a pulse is not lost. Whoever drives it holds
/// the platform's lock.
#[derive(Debug)]
pub struct Wire(AtomicU8);

impl Wire {
    const HIGH: u8 = 1 << 0;
    const CHANGED: u8 = 1 << 1;

    /// Low, and unchanged.
    pub const fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// Whether it is high.
    #[inline]
    pub fn is_high(&self) -> bool {
        self.0.load(Ordering::Relaxed) & Self::HIGH != 0
    }

    /// Drives it; answers whether that changed it, so that the vCPU must be told.
    #[inline]
    pub fn drive(&self, high: bool) -> bool {
        let changed = self.is_high() != high;
        if changed {
            // A change that is taken between the look and this is one before it: this one is still to be taken.
            self.0.store(u8::from(high) | Self::CHANGED, Ordering::Relaxed);
        }
        changed
    }

    /// Sets its level where the vCPU knows it already.
    #[inline]
    pub fn settle(&self, high: bool) {
        self.0.store(u8::from(high), Ordering::Relaxed);
    }

    /// Its level, if it changed since this was last asked.
    pub fn take_change(&self) -> Option<bool> {
        let state = self.0.fetch_and(!Self::CHANGED, Ordering::Relaxed);
        (state & Self::CHANGED != 0).then_some(state & Self::HIGH != 0)
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for Mailbox {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn vectors_come_out_once_with_their_trigger() {
        let mailbox = Mailbox::new();
        assert!(mailbox.post(0x31, Trigger::Edge));
        assert!(!mailbox.post(0xff, Trigger::Level), "the owner was told already");
        mailbox.post(0x31, Trigger::Edge);
        assert_eq!(mailbox.take(), request::INTERRUPT);
        let mut seen = Vec::new();
        mailbox.take_vectors(|vector, trigger| seen.push((vector, trigger)));
        assert_eq!(seen, [(0x31, Trigger::Edge), (0xff, Trigger::Level)]);
        mailbox.take_vectors(|vector, _| panic!("{vector} came twice"));
        assert!(mailbox.is_empty());
    }

    #[test]
    fn a_wire_remembers_that_it_changed() {
        let wire = Wire::new();
        assert!(!wire.drive(false) && wire.take_change().is_none());
        assert!(wire.drive(true) && !wire.drive(true));
        assert_eq!((wire.is_high(), wire.take_change(), wire.take_change()), (true, Some(true), None));
        // A pulse leaves the level that it found.
        assert!(wire.drive(false) && wire.drive(true));
        assert_eq!((wire.is_high(), wire.take_change()), (true, Some(true)));
        assert!(wire.drive(false));
        wire.settle(false);
        assert_eq!((wire.is_high(), wire.take_change()), (false, None));
    }

    #[test]
    fn a_clear_forgets_everything() {
        let mailbox = Mailbox::new();
        mailbox.post(0x40, Trigger::Edge);
        mailbox.start_up(0x9a);
        mailbox.clear();
        assert!(mailbox.is_empty());
        mailbox.take_vectors(|vector, _| panic!("{vector} is left"));
    }
}
