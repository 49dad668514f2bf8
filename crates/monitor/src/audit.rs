//! The audit log of a compartment: what it tried that it may not, what it did that makes no sense, what became of it.
//!
//! Entries that repeat are counted, not listed again, so that a storm fills nothing but a counter. Denied, malformed and
//! unknown are three different answers, counted apart.

use contracts::GuestTime;
use heapless::Vec;

/// What kind of thing was noted.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Something that exists, but that this compartment may not use.
    Denied,
    /// Something that exists, used in a way that means nothing.
    Malformed,
    /// Something that does not exist on this platform.
    Unknown,
}

impl Kind {
    /// All kinds, in the order of their counters.
    pub const ALL: [Self; 3] = [Self::Denied, Self::Malformed, Self::Unknown];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
        }
    }
}

/// What was tried.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// RDMSR of that register.
    MsrRead(u32),
    /// WRMSR of that register.
    MsrWrite(u32),
    /// IN from that port.
    PortRead(u16),
    /// OUT to that port.
    PortWrite(u16),
    /// A read of that page of guest-physical memory.
    MemoryRead(u64),
    /// A write to that page of guest-physical memory.
    MemoryWrite(u64),
    /// A fetch from that page of guest-physical memory.
    MemoryFetch(u64),
    /// An illegal value for that control register; 0xef for EFER, 0xc0 for XCR0.
    Control(u8),
    /// An instruction that the virtual processor does not have.
    Instruction(contracts::Unsupported),
    /// A hypercall of that number.
    Hypercall(u64),
    /// A task switch through a gate.
    TaskSwitch,
    /// An interrupt command that makes no sense.
    InterruptCommand,
}

impl core::fmt::Display for Subject {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::MsrRead(number) => write!(formatter, "read of MSR {number:#x}"),
            Self::MsrWrite(number) => write!(formatter, "write of MSR {number:#x}"),
            Self::PortRead(port) => write!(formatter, "read of port {port:#x}"),
            Self::PortWrite(port) => write!(formatter, "write of port {port:#x}"),
            Self::MemoryRead(page) => write!(formatter, "read of memory page {page:#x}"),
            Self::MemoryWrite(page) => write!(formatter, "write of memory page {page:#x}"),
            Self::MemoryFetch(page) => write!(formatter, "fetch from memory page {page:#x}"),
            Self::Control(0xef) => write!(formatter, "illegal value for EFER"),
            Self::Control(0xc0) => write!(formatter, "illegal value for XCR0"),
            Self::Control(number) => write!(formatter, "illegal value for CR{number}"),
            Self::Instruction(what) => write!(
                formatter,
                "instruction for {}",
                match what {
                    contracts::Unsupported::Virtualization => "virtualization",
                    contracts::Unsupported::MonitorWait => "MONITOR/MWAIT",
                    contracts::Unsupported::Launch => "a secure launch",
                    contracts::Unsupported::ResumeFromManagement => "system management mode",
                }
            ),
            Self::Hypercall(number) => write!(formatter, "hypercall {number:#x}"),
            Self::TaskSwitch => write!(formatter, "hardware task switch"),
            Self::InterruptCommand => write!(formatter, "interrupt command"),
        }
    }
}

/// One line of the log.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// What kind.
    pub kind: Kind,
    /// What.
    pub subject: Subject,
    /// When first.
    pub first: GuestTime,
    /// How often.
    pub count: u32,
}

/// Distinct entries that a log holds; further ones are only counted.
const ENTRIES: usize = 48;

/// The log of one compartment.
#[derive(Debug, Default)]
pub struct Audit {
    entries: Vec<Entry, ENTRIES>,
    counts: [u32; Kind::ALL.len()],
    unlisted: u32,
    /// Where the last note stands: what is tried once is mostly tried again.
    last: usize,
}

impl Audit {
    /// An empty log.
    pub const fn new() -> Self {
        Self { entries: Vec::new(), counts: [0; Kind::ALL.len()], unlisted: 0, last: 0 }
    }

    /// Notes something; `now` is asked only where it is new.
    pub fn note(&mut self, kind: Kind, subject: Subject, now: impl FnOnce() -> GuestTime) {
        if let Some(count) = self.counts.get_mut(kind as usize) {
            *count = count.saturating_add(1);
        }
        if let Some(entry) = self.entries.get_mut(self.last)
            && entry.subject == subject
            && entry.kind == kind
        {
            entry.count = entry.count.saturating_add(1);
            return;
        }
        match self.entries.iter().position(|entry| entry.kind == kind && entry.subject == subject) {
            Some(index) => {
                self.last = index;
                if let Some(entry) = self.entries.get_mut(index) {
                    entry.count = entry.count.saturating_add(1);
                }
            }
            None if self.entries.is_full() => self.unlisted = self.unlisted.saturating_add(1),
            None => {
                self.last = self.entries.len();
                // There is room.
                let _ = self.entries.push(Entry { kind, subject, first: now(), count: 1 });
            }
        }
    }

    /// The distinct entries, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many of a kind were noted in all.
    pub fn count(&self, kind: Kind) -> u32 {
        self.counts.get(kind as usize).copied().unwrap_or(0)
    }

    /// How many notes found no place in the list.
    pub fn unlisted(&self) -> u32 {
        self.unlisted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_counted_and_kinds_kept_apart() {
        let mut audit = Audit::new();
        for round in 0..100 {
            audit.note(Kind::Unknown, Subject::MsrRead(0x1234), || GuestTime(round));
            audit.note(Kind::Denied, Subject::MsrRead(0x1234), || GuestTime(round));
        }
        assert_eq!(audit.entries().len(), 2);
        assert_eq!((audit.entries()[0].count, audit.entries()[0].first), (100, GuestTime(0)));
        assert_eq!(
            (audit.count(Kind::Unknown), audit.count(Kind::Denied), audit.count(Kind::Malformed)),
            (100, 100, 0)
        );
    }

    #[test]
    fn a_storm_of_different_things_overflows_into_a_counter() {
        let mut audit = Audit::new();
        for port in 0..1000 {
            audit.note(Kind::Unknown, Subject::PortRead(port), GuestTime::default);
        }
        assert_eq!(audit.entries().len(), ENTRIES);
        assert_eq!(audit.unlisted() as usize, 1000 - ENTRIES);
        assert_eq!(audit.count(Kind::Unknown), 1000);
    }
}
