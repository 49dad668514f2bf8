//! What the hypervisor knows of a compartment while it is not mapped: its name, how it stands, its mailboxes, its counters.

use crate::audit::{Access, Audit, Kind, Subject};
use crate::mailbox::{Mailbox, Wire};
use contracts::{EntryFailure, Exit, GuestTime};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use heapless::{String, Vec};
use spin::Mutex;

/// Why Ringfence stopped a compartment.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Triple fault.
    TripleFault,
    /// All its processors halted with interrupts off.
    Dead,
    /// The processor refused its state.
    EntryFailed(EntryFailure),
    /// An exit that nobody knows, with the vendor's code.
    UnknownExit(u64),
    /// Its page tables or its code lie outside its memory, at that address.
    OutsideMemory(u64),
    /// An instruction on a device's registers that the hypervisor does not carry out, at that address.
    Instruction(u64),
    /// It used what is not there, and its manifest says that this is its end.
    Unclaimed(Access),
    /// A device of ours wanted more than fits: a fault of Ringfence.
    DeviceOverflow,
    /// Its boot module could not be loaded.
    Load,
}

impl core::fmt::Display for Reason {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TripleFault => write!(formatter, "triple fault"),
            Self::Dead => write!(formatter, "all processors halted with interrupts off"),
            Self::EntryFailed(EntryFailure { code, rule }) => {
                write!(formatter, "the processor refused the guest's state ({code:#x})")?;
                rule.map_or(Ok(()), |rule| write!(formatter, ": {rule}"))
            }
            Self::UnknownExit(code) => write!(formatter, "unknown exit {code:#x}"),
            Self::OutsideMemory(at) => {
                write!(formatter, "page tables, descriptors or code outside its memory at {at:#x}")
            }
            Self::Instruction(at) => {
                write!(formatter, "an instruction on device registers that is not supported, at {at:#x}")
            }
            Self::Unclaimed(access) => write!(formatter, "unclaimed access: {access}"),
            Self::DeviceOverflow => write!(formatter, "a device model of Ringfence asked for too much"),
            Self::Load => write!(formatter, "its boot module could not be loaded"),
        }
    }
}

/// How a compartment ends a life.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// It switched itself off.
    Off,
    /// It reset itself.
    Reset,
    /// Ringfence stopped it.
    Stopped(Reason),
}

/// How a compartment stands.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum State {
    /// No compartment.
    Vacant = 0,
    /// It is to be started, or started again, by whoever serves its first vCPU next.
    Starting = 1,
    /// It runs.
    Running = 2,
    /// It ends: its vCPUs park.
    Ending = 3,
    /// It switched itself off.
    ShutDown = 4,
    /// It reset itself and stays down.
    Reset = 5,
    /// Ringfence stopped it.
    Stopped = 6,
    /// It has ended; its memory is being zeroed by whoever serves its first vCPU.
    Clearing = 7,
}

impl State {
    const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Starting,
            2 => Self::Running,
            3 => Self::Ending,
            4 => Self::ShutDown,
            5 => Self::Reset,
            6 => Self::Stopped,
            7 => Self::Clearing,
            _ => Self::Vacant,
        }
    }

    /// Whether it will run no more.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::ShutDown | Self::Reset | Self::Stopped)
    }

    /// The word that reports use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vacant => "vacant",
            Self::Starting | Self::Running | Self::Ending | Self::Clearing => "running",
            Self::ShutDown => "shut-down",
            Self::Reset => "reset",
            Self::Stopped => "stopped",
        }
    }
}

/// One in the counter of [`Slot::lively`], which lies above a bit for each vCPU.
const LIVELY_AGAIN: u32 = 1 << plan::VCPUS;

/// A compartment's name.
pub type Name = String<{ plan::NAME_LIMIT }>;

/// One compartment as the others see it.
#[derive(Debug)]
pub struct Slot<const VCPUS: usize> {
    name: Mutex<Name>,
    state: AtomicU8,
    /// At most one. None is all zeros, unlike an `Option`'s: vacant slots take no bytes of an image's file.
    ending: Mutex<Vec<Ending, 1>>,
    /// Mailboxes of its vCPUs.
    pub mailboxes: [Mailbox; VCPUS],
    /// vCPUs that it has.
    vcpus: AtomicU8,
    /// vCPUs that have parked since it began to end.
    parked: AtomicU8,
    /// Bytes of its memory that were zeroed since it ended.
    cleared: AtomicU64,
    /// vCPUs that go on, or that an interrupt can wake, one bit each; above them, how often one became so again.
    lively: AtomicU32,
    /// The PIC's output, which is LINT0 of the first vCPU.
    pub external: Wire,
    /// How often it was started again.
    restarts: AtomicU32,
    audit: Mutex<Audit>,
    exits: [AtomicU64; Exit::KINDS],
}

impl<const VCPUS: usize> Slot<VCPUS> {
    /// Vacant.
    pub const fn new() -> Self {
        Self {
            name: Mutex::new(Name::new()),
            state: AtomicU8::new(State::Vacant as u8),
            ending: Mutex::new(Vec::new()),
            mailboxes: [const { Mailbox::new() }; VCPUS],
            vcpus: AtomicU8::new(0),
            parked: AtomicU8::new(0),
            cleared: AtomicU64::new(0),
            lively: AtomicU32::new(0),
            external: Wire::new(),
            restarts: AtomicU32::new(0),
            audit: Mutex::new(Audit::new()),
            exits: [const { AtomicU64::new(0) }; Exit::KINDS],
        }
    }

    /// Takes the slot for a compartment.
    pub fn occupy(&self, name: &str, vcpus: u8) {
        *self.name.lock() = Name::try_from(name).unwrap_or_default();
        self.vcpus.store(vcpus, Ordering::Relaxed);
        self.parked.store(vcpus, Ordering::Relaxed);
        self.set_state(State::Starting);
    }

    /// Its name.
    #[inline(never)]
    pub fn name(&self) -> Name {
        self.name.lock().clone()
    }

    /// How it stands.
    #[inline]
    pub fn state(&self) -> State {
        State::from_number(self.state.load(Ordering::Acquire))
    }

    /// Sets how it stands.
    pub fn set_state(&self, state: State) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Number of its vCPUs.
    pub fn vcpus(&self) -> u8 {
        self.vcpus.load(Ordering::Relaxed)
    }

    /// Begins to end this life of the compartment; the first to say so is believed. Answers whether it was the first.
    pub fn end(&self, ending: Ending) -> bool {
        let mut current = self.ending.lock();
        if self.state() != State::Running || current.push(ending).is_err() {
            return false;
        }
        self.parked.store(0, Ordering::Relaxed);
        self.set_state(State::Ending);
        true
    }

    /// How it ended, if it did.
    pub fn ending(&self) -> Option<Ending> {
        self.ending.lock().first().copied()
    }

    /// One more vCPU has parked; answers whether it was the last.
    pub fn park(&self) -> bool {
        self.parked.fetch_add(1, Ordering::AcqRel) + 1 == self.vcpus()
    }

    /// Its vCPUs have parked: its memory is to be zeroed.
    pub fn begin_clearing(&self) {
        self.cleared.store(0, Ordering::Relaxed);
        self.set_state(State::Clearing);
    }

    /// Zeroes the next piece of its memory with `clear`, which is told where the piece starts and answers how long it was. False: that
    /// was all.
    pub fn clear_piece(&self, clear: impl FnOnce(u64) -> u64) -> bool {
        let length = clear(self.cleared.load(Ordering::Relaxed));
        self.cleared.fetch_add(length, Ordering::Relaxed);
        length > 0
    }

    /// Makes everything ready for another life.
    pub fn renew(&self) {
        for mailbox in &self.mailboxes {
            mailbox.clear();
        }
        self.ending.lock().clear();
        self.lively.store(1, Ordering::Relaxed);
        self.external.settle(false);
    }

    /// Counts a restart.
    pub fn count_restart(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it was started again.
    pub fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// vCPU `number` goes on, or may: it says so before it takes mail out that could wake or start it.
    pub fn revive(&self, number: u8) {
        let bit = 1 << (number & 15);
        if self.lively.load(Ordering::Relaxed) & bit == 0 {
            self.lively.fetch_add(LIVELY_AGAIN | bit, Ordering::AcqRel);
        }
    }

    /// Nothing but NMI, INIT or a start-up can make vCPU `number` go on. Answers whether nobody is left to send it one: no vCPU is lively,
    /// none has mail, and none became lively while that was looked at.
    pub fn lapse(&self, number: u8) -> bool {
        let bit = 1 << (number & 15);
        let now = self.lively.fetch_and(!bit, Ordering::AcqRel) & !bit;
        now.is_multiple_of(LIVELY_AGAIN)
            && self.mailboxes.iter().all(Mailbox::is_empty)
            && self.lively.load(Ordering::Acquire) == now
    }

    /// Notes something in its audit log.
    pub fn note(&self, kind: Kind, subject: Subject, now: impl FnOnce() -> GuestTime) {
        self.audit.lock().note(kind, subject, now);
    }

    /// Looks at its audit log.
    pub fn with_audit<R>(&self, look: impl FnOnce(&Audit) -> R) -> R {
        look(&self.audit.lock())
    }

    /// Adds a vCPU's counters.
    pub fn add_exits(&self, exits: &[u64; Exit::KINDS]) {
        for (sum, count) in self.exits.iter().zip(exits) {
            sum.fetch_add(*count, Ordering::Relaxed);
        }
    }

    /// The counters, with their names.
    pub fn exits(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Exit::KIND_NAMES.iter().copied().zip(self.exits.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

impl<const VCPUS: usize> Default for Slot<VCPUS> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::request;

    fn slot() -> Slot<2> {
        let slot = Slot::new();
        slot.occupy("office", 2);
        slot.renew();
        slot
    }

    #[test]
    fn who_is_left_alone_is_dead() {
        let slot = slot();
        // The second was never started.
        assert!(slot.lapse(0));
        slot.revive(1);
        assert!(!slot.lapse(0), "the other may send it NMI");
        assert!(slot.lapse(1));
    }

    #[test]
    fn nobody_is_dead_who_has_mail() {
        let slot = slot();
        slot.revive(1);
        assert!(!slot.lapse(0));
        // The other sends NMI and halts before the first has looked.
        slot.mailboxes[0].put(request::NON_MASKABLE);
        assert!(!slot.lapse(1));
        // It wakes, and halts again: now nobody is left.
        slot.revive(0);
        assert_eq!(slot.mailboxes[0].take(), request::NON_MASKABLE);
        assert!(!slot.lapse(1));
        assert!(slot.lapse(0));
    }

    #[test]
    fn another_life_begins_with_the_first() {
        let slot = slot();
        slot.revive(1);
        slot.renew();
        assert!(slot.lapse(0));
    }
}
