//! Sharing scheduler: weighted time slices, for more vCPUs than processors.
//!
//! # How it decides
//! Each vCPU has a **virtual time** that advances while it runs, the slower the greater its weight. A processor takes the ready
//! vCPU whose virtual time is least, so that over time each gets its weight's share of what it competes for. Where
//! nobody else wants the processor a turn has no end; else it ends after a slice of 6 ms.
//!
//! Three rules keep every vCPU's wait finite, whatever the others do:
//!
//! - **Nobody saves up.** A vCPU that becomes ready is put at most half a slice behind the one that is furthest behind of those who
//!   compete with it.
//! - **Nobody lags behind.** Who is chosen is put at most two slices, as the other's weight counts them, behind each one that has
//!   to wait for it. (A vCPU whose weight asks for more than a whole processor would fall back for ever, and so would those who
//!   share a processor with many pinned ones; they would keep others out when the load changes. For the same reason nobody pays
//!   for having had a processor alone.)
//! - **Nobody starts anew.** A retired vCPU's virtual time stays in its slot, so a compartment that restarts in a storm
//!   gains nothing.
//!
//! A turn that ends by the vCPU's own will (a halt, a yield) counts as 1/256 of a slice at least: about what it
//! costs the machine, and so a cost that its own compartment bears.
//!
//! # Who has to look where
//! One lock is held for one walk over those that are ready and over the processors: a few hundred instructions. A
//! halted vCPU's timer is looked after by the processor that it left, which arms for it. Whenever somebody is ready who does not run,
//! every processor that could run it has an end of its turn ahead, or was told ([`Scheduler::wake`], [`Scheduler::hand_over`]).
#![no_std]

mod bits;

use bits::{Bits, CAPACITY, Ones};
use contracts::{CpuIndex, HostTime, Leave, Scheduler, Turn, VcpuName};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use spin::Mutex;

/// Most processors that it serves: a set of them is one word.
pub const PROCESSORS: usize = 64;
/// A slice, in milliseconds.
const SLICE_MILLISECONDS: u64 = 6;
/// The rate of the clock until [`Scheduler::calibrate`] says better, in kHz: 1 GHz.
const USUAL_KILOHERTZ: u32 = 1_000_000;
/// The weight at which virtual time goes as fast as the clock.
const USUAL_WEIGHT: u64 = 100;
/// Weights are from 1 to this.
const WEIGHT_LIMIT: u32 = 10_000;
/// Fractional bits of a vCPU's pace.
const FRACTION: u32 = 20;

/// No slot, no processor.
const NOBODY: u16 = u16::MAX;
const NO_PROCESSOR: u8 = u8::MAX;
/// No timer.
const NEVER: u64 = u64::MAX;

/// What a vCPU is doing.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Status {
    /// Not admitted, or retired.
    Gone,
    /// It waits for a wake, and for its timer if it is among the sleepers.
    Halted,
    /// It waits for a processor.
    Ready,
    /// It runs on this processor.
    Running(u8),
}

/// A vCPU. In a cache line of its own: to find one by its number takes a shift.
#[derive(Copy, Clone, Debug)]
#[repr(align(64))]
struct Entry {
    status: Status,
    /// A wake came while it ran: its next halt is none.
    woken: bool,
    /// The processor where it ran last, which looks after its timer.
    last: u8,
    /// Virtual ticks in a tick, [`FRACTION`] fractional bits.
    pace: u64,
    /// How far it has come; never goes back. Wraps; only differences mean anything.
    virtual_time: u64,
    /// How far it may be ahead of one that is chosen while it waits: two slices, in its own virtual time.
    reach: u64,
    /// The processors where it may run, a bit each.
    allowed: u64,
    /// When its timer goes off; means nothing but among the sleepers.
    wake_at: u64,
}

impl Entry {
    const NONE: Self = Self {
        status: Status::Gone,
        woken: false,
        last: 0,
        pace: 0,
        virtual_time: 0,
        reach: 0,
        allowed: 0,
        wake_at: 0,
    };

    /// How much virtual time so many ticks are.
    #[inline]
    const fn virtual_ticks(&self, ticks: u64) -> u64 {
        virtual_ticks(self.pace, ticks)
    }
}

/// How much virtual time so many ticks are at a pace.
#[inline]
const fn virtual_ticks(pace: u64, ticks: u64) -> u64 {
    ((ticks as u128 * pace as u128) >> FRACTION) as u64
}

/// How far `one` is ahead of `other` in virtual time.
#[inline]
const fn ahead(one: u64, other: u64) -> i64 {
    one.wrapping_sub(other).cast_signed()
}

/// What a processor is doing.
#[derive(Copy, Clone, Debug)]
struct Processor {
    /// The slot that it runs, or [`NOBODY`].
    running: u16,
    /// The slot that yielded it, or [`NOBODY`]: others first.
    yielded: u16,
    /// Since when it runs it.
    since: u64,
}

#[derive(Debug)]
struct State<const VCPUS: usize> {
    /// Ticks.
    slice: u64,
    /// The processors that there are, a bit each.
    processors_present: u64,
    /// Those that wait.
    idle: u64,
    /// Those whose turn has no end because nobody else was ready.
    endless: u64,
    /// A virtual time that was chosen lately. Others are compared by how far they are from it.
    reference: u64,
    /// Those that run somebody.
    busy: u64,
    /// The slots that are ready.
    ready: Bits,
    /// The halted slots that have a timer.
    sleepers: Bits,
    /// Slots that were ever used.
    used: usize,
    /// Whose the slots are; kept when a vCPU is retired.
    names: [u16; VCPUS],
    entries: [Entry; VCPUS],
    processors: [Processor; PROCESSORS],
}

/// The scheduler of images where vCPUs share processors. `VCPUS` is how many vCPUs there may be in total, at most 256; processors
/// beyond the first [`PROCESSORS`] get nothing to do.
#[derive(Debug)]
pub struct ScheduleShared<const VCPUS: usize> {
    state: Mutex<State<VCPUS>>,
    /// The processors that shall ask again, a bit each.
    asked: AtomicU64,
    /// By processor: whom it shall kick, or [`NO_PROCESSOR`].
    summons: [AtomicU8; PROCESSORS],
}

const fn number(vcpu: VcpuName) -> u16 {
    (vcpu.compartment as u16) << 8 | vcpu.vcpu as u16
}

const fn name(number: u16) -> VcpuName {
    VcpuName { compartment: (number >> 8) as u8, vcpu: number as u8 }
}

/// Whom a processor runs, and what becomes of the others that are ready.
#[derive(Copy, Clone, Debug)]
struct Choice {
    /// Whom it runs; no slot's index if there is nobody.
    slot: usize,
    /// Nobody else waits for this processor.
    alone: bool,
    /// The least virtual time that the chosen one may have.
    floor: u64,
    /// The other processors that those who wait could run on.
    wanted: u64,
}

/// How those stand who compete with a vCPU, relative to [`State::reference`].
#[derive(Copy, Clone, Debug)]
struct Field {
    /// The least virtual time among them, ready ones included; the greatest number if there is nobody.
    least: i64,
    /// The virtual time of the running one that is furthest ahead; the least number if there is nobody.
    most: i64,
    /// Where that one runs.
    cpu: usize,
}

impl<const VCPUS: usize> State<VCPUS> {
    fn find(&self, vcpu: VcpuName) -> Option<usize> {
        let number = number(vcpu);
        self.names.iter().take(self.used).position(|name| *name == number)
    }

    /// How those stand who compete with a vCPU that may run on `allowed`.
    fn field(&self, allowed: u64, now: HostTime) -> Field {
        let mut field = Field { least: i64::MAX, most: i64::MIN, cpu: 0 };
        for cpu in Ones(self.busy) {
            let Some(processor) = self.processors.get(cpu) else { continue };
            let Some(entry) = self.entries.get(usize::from(processor.running)) else { continue };
            // This turn included.
            let ran = entry.virtual_ticks(now.0.saturating_sub(processor.since));
            let time = ahead(entry.virtual_time.wrapping_add(ran), self.reference);
            if entry.allowed & allowed != 0 {
                field.least = field.least.min(time);
            }
            if allowed & 1 << cpu != 0 && time > field.most {
                (field.most, field.cpu) = (time, cpu);
            }
        }
        self.ready.for_each::<VCPUS>(|slot| {
            if let Some(entry) = self.entries.get(slot)
                && entry.allowed & allowed != 0
            {
                field.least = field.least.min(ahead(entry.virtual_time, self.reference));
            }
        });
        field
    }

    /// Makes a halted vCPU ready, and puts it where it has not saved up. Answers its virtual time, relative to the reference.
    #[inline]
    fn make_ready(&mut self, slot: usize, field: &Field) -> i64 {
        self.sleepers.remove(slot);
        let Some(entry) = self.entries.get_mut(slot) else { return i64::MAX };
        let mut time = ahead(entry.virtual_time, self.reference);
        if field.least != i64::MAX {
            let lowest = field.least.wrapping_sub(entry.virtual_ticks(self.slice / 2).cast_signed());
            time = time.max(lowest);
            entry.virtual_time = self.reference.wrapping_add_signed(time);
        }
        entry.status = Status::Ready;
        self.ready.insert(slot);
        time
    }

    /// Takes what `cpu` runs off it and charges it for its turn.
    fn release(&mut self, cpu: usize, now: HostTime, why: Leave) {
        let Some(processor) = self.processors.get_mut(cpu) else { return };
        let slot = usize::from(processor.running);
        let ran = now.0.saturating_sub(processor.since);
        processor.running = NOBODY;
        self.endless &= !(1 << cpu);
        self.busy &= !(1 << cpu);
        let Some(entry) = self.entries.get_mut(slot) else { return };
        if entry.status != Status::Running(cpu as u8) {
            // It was retired while it ran.
            return;
        }
        let ran = if why == Leave::Preempted { ran } else { ran.max(self.slice / 256) };
        entry.virtual_time = entry.virtual_time.wrapping_add(entry.virtual_ticks(ran));
        match why {
            Leave::Halted { wake_at } if !entry.woken => {
                entry.status = Status::Halted;
                if let Some(time) = wake_at {
                    entry.wake_at = time.0;
                    self.sleepers.insert(slot);
                }
                return;
            }
            Leave::Yielded => processor.yielded = slot as u16,
            Leave::Halted { .. } | Leave::Preempted => {}
        }
        entry.status = Status::Ready;
        self.ready.insert(slot);
    }

    /// Makes the sleepers ready that may run on `cpu` and whose time has come. Answers when the next of those goes off that `cpu`
    /// looks after, or [`NEVER`].
    #[inline]
    fn expire(&mut self, cpu: usize, now: HostTime) -> u64 {
        let mut until = NEVER;
        let sleepers = self.sleepers;
        sleepers.for_each::<VCPUS>(|slot| {
            let Some(entry) = self.entries.get(slot) else { return };
            let allowed = entry.allowed;
            if entry.wake_at > now.0 {
                if usize::from(entry.last) == cpu {
                    until = until.min(entry.wake_at);
                }
            } else if allowed & 1 << cpu != 0 {
                let field = self.field(allowed, now);
                self.make_ready(slot, &field);
            }
        });
        until
    }

    /// Chooses whom `cpu` runs. The loop has hardly a branch: it is the longest walk there is.
    #[inline]
    fn choose(&self, cpu: usize, yielded: u16) -> Choice {
        let here = 1u64 << cpu;
        // To come to another processor costs a vCPU its caches and translations: it has to be behind by more than this.
        let stay = (self.slice / 16).cast_signed();
        let mut best = (i64::MAX, usize::MAX, 0);
        let mut floor = i64::MIN;
        // The processors that at least one, and that at least two of those who are ready could run on.
        let (mut once, mut twice) = (0, 0);
        self.ready.for_each::<VCPUS>(|slot| {
            let Some(entry) = self.entries.get(slot) else { return };
            let allowed = entry.allowed;
            twice |= once & allowed;
            once |= allowed;
            if allowed & here == 0 {
                return;
            }
            let time = ahead(entry.virtual_time, self.reference);
            // The chosen one's own floor is below it, and lifts nothing.
            floor = floor.max(time.wrapping_sub(entry.reach.cast_signed()));
            let bias = if usize::from(entry.last) == cpu { 0 } else { stay };
            // Whoever yielded is the last resort.
            let key = if slot == usize::from(yielded) { i64::MAX - 1 } else { time.wrapping_add(bias) };
            if key < best.0 {
                best = (key, slot, allowed);
            }
        });
        Choice {
            slot: best.1,
            alone: twice & here == 0,
            floor: self.reference.wrapping_add_signed(floor),
            // What two want, one of the others wants; what one wants, it is one of the others if the chosen one does not.
            wanted: (twice | once & !best.2) & !here,
        }
    }

    /// Finds a processor among `wanted` that has no reason of its own to ask again soon, and takes note that it is told. Answers
    /// also whether it runs somebody.
    fn summon(&mut self, wanted: u64, preferred: u8) -> Option<(usize, bool)> {
        let idle = self.idle & wanted;
        if idle != 0 {
            let favourite = 1u64.checked_shl(u32::from(preferred)).unwrap_or(0) & idle;
            let cpu = if favourite == 0 { idle.trailing_zeros() } else { favourite.trailing_zeros() };
            self.idle &= !(1 << cpu);
            return Some((cpu as usize, false));
        }
        let endless = self.endless & wanted;
        if endless == 0 {
            return None;
        }
        let cpu = endless.trailing_zeros();
        self.endless &= !(1 << cpu);
        Some((cpu as usize, true))
    }

    fn admit(&mut self, vcpu: VcpuName, weight: u32, allowed: u64) -> bool {
        let slice = self.slice;
        let slot = match self.find(vcpu) {
            Some(slot) => Some(slot),
            None if self.used < VCPUS => Some(self.used),
            None => self.entries.iter().position(|entry| entry.status == Status::Gone),
        };
        let Some((slot, entry)) = slot.and_then(|slot| Some((slot, self.entries.get_mut(slot)?))) else {
            return false;
        };
        let Some(name) = self.names.get_mut(slot) else { return false };
        if entry.status != Status::Gone {
            return false;
        }
        let pace = (USUAL_WEIGHT << FRACTION) / u64::from(weight.clamp(1, WEIGHT_LIMIT));
        *name = number(vcpu);
        *entry = Entry {
            status: Status::Halted,
            pace,
            reach: virtual_ticks(pace, slice.saturating_mul(2)),
            last: allowed.trailing_zeros() as u8,
            allowed,
            // Its time before it was retired, or its predecessor's.
            virtual_time: entry.virtual_time,
            ..Entry::NONE
        };
        self.used = self.used.max(slot.saturating_add(1));
        true
    }
}

impl<const VCPUS: usize> ScheduleShared<VCPUS> {
    const CAPACITY_FITS: () =
        assert!(VCPUS <= CAPACITY, "there are too many vCPUs for the set of ready ones");

    #[inline]
    fn ask(&self, cpu: usize) {
        self.asked.fetch_or(1 << cpu, Ordering::Release);
    }
}

impl<const VCPUS: usize> Scheduler for ScheduleShared<VCPUS> {
    fn new(cpus: u8) -> Self {
        let () = Self::CAPACITY_FITS;
        let cpus = usize::from(cpus).min(PROCESSORS);
        Self {
            state: Mutex::new(State {
                slice: u64::from(USUAL_KILOHERTZ) * SLICE_MILLISECONDS,
                processors_present: if cpus == 0 { 0 } else { u64::MAX >> (PROCESSORS - cpus) },
                idle: 0,
                endless: 0,
                reference: 0,
                busy: 0,
                ready: Bits::default(),
                sleepers: Bits::default(),
                used: 0,
                names: [0; VCPUS],
                entries: [Entry::NONE; VCPUS],
                processors: [Processor { running: NOBODY, yielded: NOBODY, since: 0 }; PROCESSORS],
            }),
            asked: AtomicU64::new(0),
            summons: [const { AtomicU8::new(NO_PROCESSOR) }; PROCESSORS],
        }
    }

    /// A slice is 6 ms from now on. A rate of 0 is nobody's: it changes nothing.
    fn calibrate(&self, kilohertz: u32) {
        if kilohertz != 0 {
            self.state.lock().slice = u64::from(kilohertz).saturating_mul(SLICE_MILLISECONDS);
        }
    }

    /// Weights outside 1 to 10000 count as the nearest of these. False if all slots are taken, if the vCPU is there already, or
    /// if there is no processor `pinned`.
    fn admit(&self, vcpu: VcpuName, weight: u32, pinned: Option<CpuIndex>) -> bool {
        let mut state = self.state.lock();
        let allowed = match pinned {
            None => state.processors_present,
            Some(cpu) => state.processors_present & 1u64.checked_shl(u32::from(cpu.0)).unwrap_or(0),
        };
        allowed != 0 && state.admit(vcpu, weight, allowed)
    }

    fn retire(&self, vcpu: VcpuName) {
        let mut state = self.state.lock();
        if let Some(slot) = state.find(vcpu) {
            state.ready.remove(slot);
            state.sleepers.remove(slot);
            if let Some(entry) = state.entries.get_mut(slot) {
                entry.status = Status::Gone;
            }
        }
    }

    fn next(&self, cpu: CpuIndex, now: HostTime) -> Turn {
        let cpu = usize::from(cpu.0);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if cpu >= PROCESSORS || state.processors_present & 1 << cpu == 0 {
            return Turn::Idle { until: None };
        }
        let bit = 1 << cpu;
        state.idle &= !bit;
        if self.asked.load(Ordering::Relaxed) & bit != 0 {
            self.asked.fetch_and(!bit, Ordering::Relaxed);
        }
        if state.busy & bit != 0 {
            // Its caller should have said so; the vCPU must not be lost.
            state.release(cpu, now, Leave::Preempted);
        }
        let mut until = state.expire(cpu, now);
        let Some(processor) = state.processors.get_mut(cpu) else { return Turn::Idle { until: None } };
        let yielded = core::mem::replace(&mut processor.yielded, NOBODY);
        let Choice { slot, alone, floor, wanted } = state.choose(cpu, yielded);
        let (Some(entry), Some(processor)) = (state.entries.get_mut(slot), state.processors.get_mut(cpu))
        else {
            state.idle |= bit;
            return Turn::Idle { until: (until != NEVER).then_some(HostTime(until)) };
        };
        state.ready.remove(slot);
        processor.running = slot as u16;
        processor.since = now.0;
        entry.status = Status::Running(cpu as u8);
        entry.woken = false;
        entry.last = cpu as u8;
        if ahead(entry.virtual_time, floor) < 0 {
            entry.virtual_time = floor;
        }
        state.reference = entry.virtual_time;
        state.busy |= bit;
        if alone {
            state.endless |= bit;
        } else {
            until = until.min(now.0.saturating_add(state.slice));
        }
        if wanted != 0
            && let Some((other, runs)) = state.summon(wanted, NO_PROCESSOR)
        {
            if runs {
                self.ask(other);
            }
            if let Some(summons) = self.summons.get(cpu) {
                summons.store(other as u8, Ordering::Relaxed);
            }
        }
        let vcpu = name(state.names.get(slot).copied().unwrap_or(NOBODY));
        Turn::Run { vcpu, until: (until != NEVER).then_some(HostTime(until)) }
    }

    fn leave(&self, cpu: CpuIndex, vcpu: VcpuName, now: HostTime, why: Leave) {
        let cpu = usize::from(cpu.0);
        let mut state = self.state.lock();
        let running = state.processors.get(cpu).map(|processor| usize::from(processor.running));
        if running.and_then(|slot| state.names.get(slot)).is_some_and(|name| *name == number(vcpu)) {
            state.release(cpu, now, why);
        }
    }

    /// A wake of a vCPU that runs makes its next halt none: it runs once more, at worst for nothing, and no wake is lost between its
    /// last look at its mailbox and the halt. A vCPU that is ready already was announced before: `None`.
    fn wake(&self, vcpu: VcpuName, now: HostTime) -> Option<CpuIndex> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let slot = state.find(vcpu)?;
        let entry = state.entries.get_mut(slot)?;
        match entry.status {
            Status::Gone | Status::Ready => return None,
            Status::Running(cpu) => {
                entry.woken = true;
                return Some(CpuIndex(cpu));
            }
            Status::Halted => {}
        }
        let (allowed, last) = (entry.allowed, entry.last);
        // By less it is not worth a preemption.
        let margin = entry.virtual_ticks(state.slice / 8).cast_signed();
        let field = state.field(allowed, now);
        let time = state.make_ready(slot, &field);
        if state.idle & allowed == 0 && field.most > time.saturating_add(margin) {
            let cpu = field.cpu;
            state.endless &= !(1 << cpu);
            self.ask(cpu);
            return Some(CpuIndex(cpu as u8));
        }
        let (cpu, runs) = state.summon(allowed, last)?;
        if runs {
            self.ask(cpu);
        }
        Some(CpuIndex(cpu as u8))
    }

    #[inline]
    fn contended(&self, cpu: CpuIndex) -> bool {
        self.asked.load(Ordering::Acquire).checked_shr(u32::from(cpu.0)).unwrap_or(0) & 1 != 0
    }

    #[inline]
    fn hand_over(&self, cpu: CpuIndex) -> Option<CpuIndex> {
        let summons = self.summons.get(usize::from(cpu.0))?;
        // Only this processor reads and writes it.
        let other = summons.load(Ordering::Relaxed);
        if other == NO_PROCESSOR {
            return None;
        }
        summons.store(NO_PROCESSOR, Ordering::Relaxed);
        Some(CpuIndex(other))
    }
}
