//! Hardware part: the processor holds requests, services and the priority of a guest's local APIC while the guest runs, and delivers its
//! interrupts by itself (SDM Vol. 3C chapter 30, "APIC virtualization and virtual interrupts").
//!
//! With it CR8, TPR, EOI and the interrupt to itself of a guest in x2APIC mode cause no exits, nor does an interrupt that has to wait until the guest
//! takes it; without it they all do.
#![no_std]

use contracts::InterruptDelivery;

/// Primary processor-based control bit 21, secondary ones 4 and 9.
#[derive(Debug)]
pub struct ApicVirtualization;

impl InterruptDelivery for ApicVirtualization {
    const HELD: bool = true;
}
