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

/// A read, a write or a fetch, and of what, in one word: the kind in the lowest bits, above them which one it was. The reasons for
/// which compartments are stopped carry it: a tag and a word travel in registers, and anything larger would cost every exit.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Access(u64);

impl Access {
    /// Bits below the number of a register, a port or a page.
    const SHIFT: u32 = 12;
    /// The kinds.
    const MSR_READ: u64 = 0;
    const MSR_WRITE: u64 = 1;
    const PORT_READ: u64 = 2;
    const PORT_WRITE: u64 = 3;
    const MEMORY_READ: u64 = 4;
    const MEMORY_WRITE: u64 = 5;
    const MEMORY_FETCH: u64 = 6;

    #[inline(always)]
    const fn new(kind: u64, number: u64) -> Self {
        Self(number << Self::SHIFT | kind)
    }

    /// RDMSR of that register.
    #[inline(always)]
    pub fn msr_read(number: u32) -> Self {
        Self::new(Self::MSR_READ, number.into())
    }

    /// WRMSR of that register.
    #[inline(always)]
    pub fn msr_write(number: u32) -> Self {
        Self::new(Self::MSR_WRITE, number.into())
    }

    /// IN from that port.
    #[inline(always)]
    pub fn port_read(port: u16) -> Self {
        Self::new(Self::PORT_READ, port.into())
    }

    /// OUT to that port.
    #[inline(always)]
    pub fn port_write(port: u16) -> Self {
        Self::new(Self::PORT_WRITE, port.into())
    }

    /// A read of the page of guest-physical memory in which that address lies.
    #[inline(always)]
    pub const fn memory_read(at: u64) -> Self {
        Self::new(Self::MEMORY_READ, at >> Self::SHIFT)
    }

    /// A write to the page of guest-physical memory in which that address lies.
    #[inline(always)]
    pub const fn memory_write(at: u64) -> Self {
        Self::new(Self::MEMORY_WRITE, at >> Self::SHIFT)
    }

    /// A fetch from the page of guest-physical memory in which that address lies.
    #[inline(always)]
    pub const fn memory_fetch(at: u64) -> Self {
        Self::new(Self::MEMORY_FETCH, at >> Self::SHIFT)
    }
}

impl core::fmt::Display for Access {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (page, number) = (self.0 >> Self::SHIFT << Self::SHIFT, self.0 >> Self::SHIFT);
        let (what, which) = match self.0 - page {
            Self::MSR_READ => ("read of MSR", number),
            Self::MSR_WRITE => ("write of MSR", number),
            Self::PORT_READ => ("read of port", number),
            Self::PORT_WRITE => ("write of port", number),
            Self::MEMORY_READ => ("read of memory page", page),
            Self::MEMORY_WRITE => ("write of memory page", page),
            _ => ("fetch from memory page", page),
        };
        write!(formatter, "{what} {which:#x}")
    }
}

/// What was tried.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A register, a port or a page of memory.
    Access(Access),
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
            Self::Access(access) => access.fmt(formatter),
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
                    contracts::Unsupported::ProcessorRegisters => "performance registers",
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
            audit.note(Kind::Unknown, Subject::Access(Access::msr_read(0x1234)), || GuestTime(round));
            audit.note(Kind::Denied, Subject::Access(Access::msr_read(0x1234)), || GuestTime(round));
        }
        assert_eq!(audit.entries().len(), 2);
        assert_eq!((audit.entries()[0].count, audit.entries()[0].first), (100, GuestTime(0)));
        assert_eq!(
            (audit.count(Kind::Unknown), audit.count(Kind::Denied), audit.count(Kind::Malformed)),
            (100, 100, 0)
        );
    }

    #[test]
    fn accesses_say_what_they_were() {
        extern crate std;
        use std::string::ToString;
        for (access, words) in [
            (Access::msr_read(0), "read of MSR 0x0"),
            (Access::msr_write(u32::MAX), "write of MSR 0xffffffff"),
            (Access::port_read(0), "read of port 0x0"),
            (Access::port_write(u16::MAX), "write of port 0xffff"),
            (Access::memory_read(0), "read of memory page 0x0"),
            (Access::memory_write(u64::MAX), "write of memory page 0xfffffffffffff000"),
            (Access::memory_fetch(0xfee0_1234), "fetch from memory page 0xfee01000"),
        ] {
            assert_eq!(access.to_string(), words);
            assert_eq!(Subject::Access(access).to_string(), words);
        }
        assert_eq!(Access::memory_read(0x1fff), Access::memory_read(0x1000), "the page counts, not the byte");
        assert_ne!(Access::memory_read(0x2000), Access::memory_read(0x1000));
        assert_ne!(Access::port_read(7), Access::msr_read(7));
    }

    #[test]
    fn a_storm_of_different_things_overflows_into_a_counter() {
        let mut audit = Audit::new();
        for port in 0..1000 {
            audit.note(Kind::Unknown, Subject::Access(Access::port_read(port)), GuestTime::default);
        }
        assert_eq!(audit.entries().len(), ENTRIES);
        assert_eq!(audit.unlisted() as usize, 1000 - ENTRIES);
        assert_eq!(audit.count(Kind::Unknown), 1000);
    }
}
