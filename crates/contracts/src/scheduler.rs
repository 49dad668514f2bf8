//! Who runs where, and until when.

use crate::{CpuIndex, HostTime};

/// A vCPU: which compartment's, and which of its vCPUs.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct VcpuName {
    /// Index of the compartment.
    pub compartment: u8,
    /// Index of the vCPU in its compartment.
    pub vcpu: u8,
}

/// What a host processor should do now.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Run that vCPU, and ask again at `until` (never, if `None`) or when kicked.
    Run {
        /// Whom.
        vcpu: VcpuName,
        /// Until when.
        until: Option<HostTime>,
    },
    /// Nobody is ready: wait until `until` (or a kick), then ask again.
    Idle {
        /// Until when.
        until: Option<HostTime>,
    },
}

/// Why a vCPU leaves its processor.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Leave {
    /// It waits for an interrupt; its own timers want it at `wake_at`.
    Halted {
        /// When its earliest timer goes off.
        wake_at: Option<HostTime>,
    },
    /// Its turn is over, or somebody asked for the processor; it could go on.
    Preempted,
    /// It is spinning: others first.
    Yielded,
}

/// The scheduler (parts `schedule-static`, `schedule-shared`). Every method may be called on every processor at once;
/// none waits for longer than a few instructions of another's.
pub trait Scheduler: Sync {
    /// A scheduler for the processors 0 to `cpus` - 1, with nobody in it.
    fn new(cpus: u8) -> Self;

    /// Adds a vCPU, not ready. `weight` is its share relative to others (1 to 10000); `pinned` binds it to one processor.
    /// False if there is no room, or no processor for it.
    fn admit(&self, vcpu: VcpuName, weight: u32, pinned: Option<CpuIndex>) -> bool;

    /// Takes a vCPU out. It must not be running.
    fn retire(&self, vcpu: VcpuName);

    /// What `cpu` should do now. Whatever it ran before must have left with [`Scheduler::leave`].
    fn next(&self, cpu: CpuIndex, now: HostTime) -> Turn;

    /// The vCPU that `cpu` ran leaves it.
    fn leave(&self, cpu: CpuIndex, vcpu: VcpuName, now: HostTime, why: Leave);

    /// There is something in the vCPU's mailbox. If it waited, it is ready now. Answers which processor must be kicked
    /// for it to notice: the one that runs it, or one that should now run it; `None` where none need be.
    fn wake(&self, vcpu: VcpuName, now: HostTime) -> Option<CpuIndex>;

    /// Whether somebody became ready since the last [`Scheduler::next`] of `cpu` who should run there before that turn's end: the
    /// processor asks again. To be looked at whenever the processor was kicked or interrupted, whatever its `until`, and by one
    /// whose vCPU halts but could be woken on the spot.
    fn contended(&self, cpu: CpuIndex) -> bool;

    /// Called after each [`Scheduler::next`] of `cpu`: another processor that must be kicked, because somebody whom that turn left
    /// ready should run there. Answers each only once.
    #[inline]
    fn hand_over(&self, cpu: CpuIndex) -> Option<CpuIndex> {
        let _ = cpu;
        None
    }

    /// Says how fast [`HostTime`] counts, in ticks per millisecond; before anybody is admitted. A scheduler without
    /// time slices need not know.
    #[inline]
    fn calibrate(&self, kilohertz: u32) {
        let _ = kilohertz;
    }
}
