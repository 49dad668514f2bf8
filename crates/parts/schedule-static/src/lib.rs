//! Static scheduler: a vCPU owns its processor.
//!
//! There is no time slice, no queue and no lock where vCPUs run: a processor looks at its own slot, and who wakes a vCPU sets one
//! bit there. What one compartment does can take nothing from another. The lock is for admission only.
#![no_std]

use contracts::{CpuIndex, HostTime, Leave, Scheduler, Turn, VcpuName};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use spin::Mutex;

/// There is something for the vCPU to do: it is ready or, while it runs, will be when it leaves.
const WOKEN: u8 = 1;
/// Its processor runs it.
const RUNNING: u8 = 2;

/// No vCPU has the slot.
const VACANT: u32 = u32::MAX;
/// No slot belongs to the processor.
const NO_SLOT: u8 = u8::MAX;
/// The vCPU's timers want nothing.
const NEVER: u64 = u64::MAX;

/// A vCPU and the processor that it owns. Alone in its cache line: processors do not disturb each other.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    /// The vCPU's name as a number, or [`VACANT`].
    name: AtomicU32,
    /// [`WOKEN`] and [`RUNNING`]. No change takes [`WOKEN`] away but the one that begins a run, so a wake is never lost.
    state: AtomicU8,
    /// The processor.
    cpu: AtomicU8,
    /// While it waits: when its own timers want it, or [`NEVER`]. Only its processor touches it.
    wake_at: AtomicU64,
}

/// The scheduler of images where every vCPU has a processor for itself. `VCPUS` is how many there may be, at most 255.
#[derive(Debug)]
pub struct ScheduleStatic<const VCPUS: usize> {
    slots: [Slot; VCPUS],
    /// Which slot belongs to a processor, or [`NO_SLOT`].
    owner: [AtomicU8; 256],
    cpus: u8,
    /// Held while vCPUs come and go.
    admission: Mutex<()>,
}

const fn number(vcpu: VcpuName) -> u32 {
    (vcpu.compartment as u32) << 8 | vcpu.vcpu as u32
}

impl<const VCPUS: usize> ScheduleStatic<VCPUS> {
    const CAPACITY_FITS: () = assert!(VCPUS < NO_SLOT as usize, "a slot's index has to fit a byte");

    /// The slot that belongs to `cpu`.
    #[inline]
    fn of(&self, cpu: CpuIndex) -> Option<&Slot> {
        self.slots.get(usize::from(self.owner.get(usize::from(cpu.0))?.load(Ordering::Acquire)))
    }

    /// The slot of `vcpu`. A wake that meets the vCPU's retirement may find a slot that is another's by then: that one runs once
    /// for nothing.
    #[inline]
    fn find(&self, vcpu: VcpuName) -> Option<&Slot> {
        let number = number(vcpu);
        self.slots.iter().find(|slot| slot.name.load(Ordering::Acquire) == number)
    }
}

impl<const VCPUS: usize> Scheduler for ScheduleStatic<VCPUS> {
    fn new(cpus: u8) -> Self {
        let () = Self::CAPACITY_FITS;
        Self {
            slots: [const {
                Slot {
                    name: AtomicU32::new(VACANT),
                    state: AtomicU8::new(0),
                    cpu: AtomicU8::new(0),
                    wake_at: AtomicU64::new(NEVER),
                }
            }; VCPUS],
            owner: [const { AtomicU8::new(NO_SLOT) }; 256],
            cpus,
            admission: Mutex::new(()),
        }
    }

    /// Gives `vcpu` a processor of its own: `pinned`, or the lowest that nobody has. `weight` means nothing here. False if there
    /// is no such processor or it has an owner, if all are taken, or if the vCPU is there already.
    fn admit(&self, vcpu: VcpuName, weight: u32, pinned: Option<CpuIndex>) -> bool {
        let _ = weight;
        let _held = self.admission.lock();
        if self.find(vcpu).is_some() {
            return false;
        }
        let free = |cpu: &u8| {
            *cpu < self.cpus
                && self
                    .owner
                    .get(usize::from(*cpu))
                    .is_some_and(|owner| owner.load(Ordering::Relaxed) == NO_SLOT)
        };
        let cpu = match pinned {
            Some(cpu) => Some(cpu.0).filter(free),
            None => (0..self.cpus).find(free),
        };
        let vacant =
            self.slots.iter().enumerate().find(|(_, slot)| slot.name.load(Ordering::Relaxed) == VACANT);
        let (Some(cpu), Some((index, slot))) = (cpu, vacant) else { return false };
        let Some(owner) = self.owner.get(usize::from(cpu)) else { return false };
        slot.wake_at.store(NEVER, Ordering::Relaxed);
        slot.state.store(0, Ordering::Relaxed);
        slot.cpu.store(cpu, Ordering::Relaxed);
        // With this everything above is there for whoever finds the slot by either way.
        slot.name.store(number(vcpu), Ordering::Release);
        owner.store(index as u8, Ordering::Release);
        true
    }

    fn retire(&self, vcpu: VcpuName) {
        let _held = self.admission.lock();
        if let Some(slot) = self.find(vcpu) {
            if let Some(owner) = self.owner.get(usize::from(slot.cpu.load(Ordering::Relaxed))) {
                owner.store(NO_SLOT, Ordering::Release);
            }
            slot.name.store(VACANT, Ordering::Release);
        }
    }

    #[inline]
    fn next(&self, cpu: CpuIndex, now: HostTime) -> Turn {
        let Some(slot) = self.of(cpu) else { return Turn::Idle { until: None } };
        if slot.state.load(Ordering::Relaxed) & (WOKEN | RUNNING) == 0 {
            let wake_at = slot.wake_at.load(Ordering::Relaxed);
            if now.0 < wake_at {
                return Turn::Idle { until: (wake_at != NEVER).then_some(HostTime(wake_at)) };
            }
        }
        // A wake before this finds the vCPU about to look at its mailbox; one after it finds it running.
        slot.state.swap(RUNNING, Ordering::AcqRel);
        let name = slot.name.load(Ordering::Relaxed);
        Turn::Run { vcpu: VcpuName { compartment: (name >> 8) as u8, vcpu: name as u8 }, until: None }
    }

    #[inline]
    fn leave(&self, cpu: CpuIndex, vcpu: VcpuName, now: HostTime, why: Leave) {
        let _ = now;
        let Some(slot) = self.of(cpu).filter(|slot| slot.name.load(Ordering::Relaxed) == number(vcpu)) else {
            return;
        };
        match why {
            Leave::Halted { wake_at } => {
                slot.wake_at.store(wake_at.map_or(NEVER, |time| time.0), Ordering::Relaxed);
                // A wake that came while it ran stays, and makes it ready.
                slot.state.fetch_and(!RUNNING, Ordering::AcqRel);
            }
            Leave::Preempted | Leave::Yielded => slot.state.store(WOKEN, Ordering::Release),
        }
    }

    /// Always answers the vCPU's own processor, unless it is about to run the vCPU anyway.
    #[inline]
    fn wake(&self, vcpu: VcpuName, now: HostTime) -> Option<CpuIndex> {
        let _ = now;
        let slot = self.find(vcpu)?;
        // Whoever set the bit first told the processor, or is just about to.
        let before = slot.state.fetch_or(WOKEN, Ordering::AcqRel);
        (before != WOKEN).then(|| CpuIndex(slot.cpu.load(Ordering::Relaxed)))
    }

    /// Never: nobody else may have the processor.
    #[inline]
    fn contended(&self, cpu: CpuIndex) -> bool {
        let _ = cpu;
        false
    }
}
