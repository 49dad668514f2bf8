//! Hardware part: the processor itself brings a guest back at a deadline (SDM Vol. 3C §26.5.1, "VMX-preemption timer").
//!
//! With it no interrupt of the host's local APIC ends a turn; without it that timer's does.
#![no_std]

use contracts::DeadlineTimer;

/// Pin-based control bit 6.
#[derive(Debug)]
pub struct PreemptionTimer;

impl DeadlineTimer for PreemptionTimer {
    const PRESENT: bool = true;
}
