//! What the monitor asks of the machine it runs on.

use crate::{GuestMemory, HostTime};

/// A processor of the host, numbered from 0 in the order in which they were started.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct CpuIndex(pub u8);

/// The machine under the monitor. All methods may be called on every processor; those that speak of "this processor"
/// are called with interrupts masked, and return so.
pub trait Host: Sync {
    /// The time stamp counter, which all processors share.
    fn now(&self) -> HostTime;

    /// Ticks of the time stamp counter per millisecond.
    fn kilohertz(&self) -> u32;

    /// Wall clock at [`HostTime`] 0, in seconds since 1970-01-01 UTC.
    fn wall_clock(&self) -> u64;

    /// Lets this processor be interrupted at `deadline` (at once, if that is past), or not at all. One deadline a
    /// processor; the last word counts.
    fn arm(&self, deadline: Option<HostTime>);

    /// Interrupts another processor, so that it looks at its mailbox: it leaves its guest or its wait.
    fn kick(&self, cpu: CpuIndex);

    /// Takes the interrupts that are waiting for this processor.
    fn service(&self);

    /// Waits for the next interrupt of this processor and takes it. Returns at once if one is waiting already.
    fn wait(&self);

    /// A machine check came while a guest ran, and the processor has told the hypervisor instead (APM Vol. 2 §15.12): nobody else will hear
    /// of it. On a real machine this names it and stops everything.
    fn machine_check(&self);

    /// Writes to the hypervisor's console.
    fn console_write(&self, bytes: &[u8]);

    /// A byte from the hypervisor's console, if one is there.
    fn console_read(&self) -> Option<u8>;

    /// Turns the machine off.
    fn power_off(&self) -> !;
}

/// Where the private state of compartments lies: one `T` and one RAM each, mapped only while that compartment is served.
pub trait Vault<T>: Sync {
    /// The RAM of a compartment.
    type Memory: GuestMemory;

    /// Maps compartment `index`, and that one alone, lends its state, and unmaps it again. Must not be nested.
    ///
    /// `None` if there is no such compartment.
    fn enter<R>(&self, index: usize, serve: impl FnOnce(&T, &Self::Memory) -> R) -> Option<R>;
}
