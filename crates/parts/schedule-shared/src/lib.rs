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

use bits::{Bits, CAPACITY};
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

/// A vCPU.
#[derive(Copy, Clone, Debug)]
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
        allowed: 0,
        wake_at: 0,
    };

    /// How much virtual time so many ticks are.
    #[inline]
    const fn virtual_ticks(&self, ticks: u64) -> u64 {
        ((ticks as u128 * self.pace as u128) >> FRACTION) as u64
    }
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

/// The processors in a set, lowest first.
#[inline]
fn processors(mut set: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        if set == 0 {
            return None;
        }
        let cpu = set.trailing_zeros() as usize;
        set &= set.wrapping_sub(1);
        Some(cpu)
    })
}

/// Whom a processor runs, and what becomes of the others that are ready.
#[derive(Copy, Clone, Debug)]
struct Choice {
    /// Whom it runs.
    slot: Option<usize>,
    /// The least virtual time that the chosen one may have; `None` if nobody waits for this processor.
    floor: Option<u64>,
    /// The processors that those who wait could run on.
    wanted: u64,
}

/// How the running competitors of a vCPU stand.
#[derive(Copy, Clone, Debug)]
struct Field {
    /// The one furthest ahead, and where it runs.
    foremost: Option<(u64, usize)>,
    /// The least virtual time among all competitors, ready ones included.
    least: Option<u64>,
}

impl<const VCPUS: usize> State<VCPUS> {
    fn find(&self, vcpu: VcpuName) -> Option<usize> {
        let number = number(vcpu);
        self.names.iter().take(self.used).position(|name| *name == number)
    }

    /// The virtual time of what `cpu` runs, this turn included.
    #[inline]
    fn progress(&self, cpu: usize, now: HostTime) -> Option<(u64, &Entry)> {
        let processor = self.processors.get(cpu)?;
        let entry = self.entries.get(usize::from(processor.running))?;
        let ran = entry.virtual_ticks(now.0.saturating_sub(processor.since));
        Some((entry.virtual_time.wrapping_add(ran), entry))
    }

    /// How those stand who compete with a vCPU that may run on `allowed`.
    fn field(&self, allowed: u64, now: HostTime) -> Field {
        let mut field = Field { foremost: None, least: None };
        let lower = |least: Option<u64>, time| least.filter(|least| ahead(time, *least) >= 0).or(Some(time));
        for cpu in processors(self.processors_present & !self.idle) {
            let Some((time, entry)) = self.progress(cpu, now) else { continue };
            if entry.allowed & allowed != 0 {
                field.least = lower(field.least, time);
            }
            if allowed & 1 << cpu != 0 && field.foremost.is_none_or(|(most, _)| ahead(time, most) > 0) {
                field.foremost = Some((time, cpu));
            }
        }
        for slot in self.ready.iter::<VCPUS>() {
            if let Some(entry) = self.entries.get(slot)
                && entry.allowed & allowed != 0
            {
                field.least = lower(field.least, entry.virtual_time);
            }
        }
        field
    }

    /// Makes a halted vCPU ready, and puts it where it has not saved up.
    fn make_ready(&mut self, slot: usize, field: &Field) {
        let slice = self.slice;
        self.sleepers.remove(slot);
        let Some(entry) = self.entries.get_mut(slot) else { return };
        if let Some(least) = field.least {
            let lowest = least.wrapping_sub(entry.virtual_ticks(slice / 2));
            if ahead(entry.virtual_time, lowest) < 0 {
                entry.virtual_time = lowest;
            }
        }
        entry.status = Status::Ready;
        self.ready.insert(slot);
    }

    /// Takes what `cpu` runs off it and charges it for its turn.
    fn release(&mut self, cpu: usize, now: HostTime, why: Leave) {
        let Some(processor) = self.processors.get_mut(cpu) else { return };
        let slot = usize::from(processor.running);
        let ran = now.0.saturating_sub(processor.since);
        processor.running = NOBODY;
        self.endless &= !(1 << cpu);
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
    /// looks after.
    fn expire(&mut self, cpu: usize, now: HostTime) -> Option<u64> {
        let mut until = None;
        for slot in self.sleepers.iter::<VCPUS>() {
            let Some(entry) = self.entries.get(slot) else { continue };
            let allowed = entry.allowed;
            if allowed & 1 << cpu == 0 {
                continue;
            }
            if entry.wake_at <= now.0 {
                let field = self.field(allowed, now);
                self.make_ready(slot, &field);
            } else if usize::from(entry.last) == cpu && until.is_none_or(|time| entry.wake_at < time) {
                until = Some(entry.wake_at);
            }
        }
        until
    }

    /// Chooses whom `cpu` runs.
    fn choose(&self, cpu: usize, yielded: u16) -> Choice {
        // To come to another processor costs a vCPU its caches and translations: it has to be behind by more than this.
        let stay = self.slice / 16;
        let reach = self.slice.saturating_mul(2);
        let mut choice = Choice { slot: None, floor: None, wanted: 0 };
        let mut best: Option<(u64, usize, &Entry)> = None;
        let mut last_resort = None;
        let mut pass = |entry: &Entry, competes: bool| {
            choice.wanted |= entry.allowed;
            let floor = entry.virtual_time.wrapping_sub(entry.virtual_ticks(reach));
            if competes && choice.floor.is_none_or(|highest| ahead(floor, highest) > 0) {
                choice.floor = Some(floor);
            }
        };
        for slot in self.ready.iter::<VCPUS>() {
            let Some(entry) = self.entries.get(slot) else { continue };
            if entry.allowed & 1 << cpu == 0 {
                pass(entry, false);
                continue;
            }
            if slot == usize::from(yielded) {
                last_resort = Some((slot, entry));
                continue;
            }
            let bias = if usize::from(entry.last) == cpu { 0 } else { stay };
            let time = entry.virtual_time.wrapping_add(bias);
            match best {
                Some((least, ..)) if ahead(time, least) >= 0 => pass(entry, true),
                before => {
                    if let Some((_, _, entry)) = before {
                        pass(entry, true);
                    }
                    best = Some((time, slot, entry));
                }
            }
        }
        match (best, last_resort) {
            (Some((_, slot, _)), Some((_, yielded))) => {
                pass(yielded, true);
                choice.slot = Some(slot);
            }
            (Some((_, slot, _)), None) | (None, Some((slot, _))) => choice.slot = Some(slot),
            (None, None) => {}
        }
        choice
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
        *name = number(vcpu);
        *entry = Entry {
            status: Status::Halted,
            pace: (USUAL_WEIGHT << FRACTION) / u64::from(weight.clamp(1, WEIGHT_LIMIT)),
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
        if state.processors.get(cpu).is_some_and(|processor| processor.running != NOBODY) {
            // Its caller should have said so; the vCPU must not be lost.
            state.release(cpu, now, Leave::Preempted);
        }
        let until = state.expire(cpu, now);
        let Some(processor) = state.processors.get_mut(cpu) else { return Turn::Idle { until: None } };
        let yielded = core::mem::replace(&mut processor.yielded, NOBODY);
        let Choice { slot, floor, wanted } = state.choose(cpu, yielded);
        let Some(slot) = slot else {
            state.idle |= bit;
            return Turn::Idle { until: until.map(HostTime) };
        };
        state.ready.remove(slot);
        let slice_end = now.0.saturating_add(state.slice);
        if floor.is_none() {
            state.endless |= bit;
        }
        if let Some(processor) = state.processors.get_mut(cpu) {
            processor.running = slot as u16;
            processor.since = now.0;
        }
        if let Some(entry) = state.entries.get_mut(slot) {
            entry.status = Status::Running(cpu as u8);
            entry.woken = false;
            entry.last = cpu as u8;
            if let Some(floor) = floor
                && ahead(entry.virtual_time, floor) < 0
            {
                entry.virtual_time = floor;
            }
        }
        if wanted != 0
            && let Some((other, runs)) = state.summon(wanted & !bit, NO_PROCESSOR)
        {
            if runs {
                self.ask(other);
            }
            if let Some(summons) = self.summons.get(cpu) {
                summons.store(other as u8, Ordering::Relaxed);
            }
        }
        let vcpu = name(state.names.get(slot).copied().unwrap_or(NOBODY));
        let until = match (until, floor) {
            (None, None) => None,
            (Some(time), None) => Some(time),
            (time, Some(_)) => Some(time.map_or(slice_end, |time| time.min(slice_end))),
        };
        Turn::Run { vcpu, until: until.map(HostTime) }
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
        let field = state.field(allowed, now);
        state.make_ready(slot, &field);
        if state.idle & allowed == 0
            && let Some((time, cpu)) = field.foremost
            && let Some(entry) = state.entries.get(slot)
            && ahead(time, entry.virtual_time.wrapping_add(entry.virtual_ticks(state.slice / 8))) > 0
        {
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
