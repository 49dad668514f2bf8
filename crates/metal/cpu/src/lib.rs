//! Processors of the host: control registers, interrupts, local APIC, clocks, speculation controls.
//!
//! Row 3 (metal). What the hypervisor itself needs of a processor is set up here once and never touched by a guest's fate:
//! descriptor tables, handlers that name every fault of the host, timers, and the registers that the world switches use.
#![cfg_attr(not(test), no_std)]

pub mod apic;
pub mod block;
pub mod clock;
pub mod control;
pub mod fault;
pub mod features;
pub mod interrupt;
pub mod io_apic;
mod machine_check;
pub mod msr;
pub mod port;
pub mod requirement;
pub mod rtc;
pub mod serial;
pub mod speculation;
pub mod vector;
mod vector_state;
pub mod vmx;

pub use block::current;
pub use fault::fatal;
pub use features::Features;
pub use requirement::{Requirement, Requirements};
pub use vector_state::{VectorState, clear_supervisor_state, has_xsaves};

use core::arch::asm;

/// The time stamp counter, read after all earlier loads (APM Vol. 3, RDTSC and LFENCE).
#[inline(always)]
pub fn ticks() -> u64 {
    let (high, low): (u64, u64);
    // SAFETY: RDTSC reads a counter and has no other effect; CR4.TSD concerns user mode only.
    unsafe {
        asm!("lfence", "rdtsc", out("rdx") high, out("rax") low, options(nomem, nostack, preserves_flags));
    }
    high << 32 | low
}

/// Masks interrupts and stops this processor for good; only INIT or a machine reset ends it.
pub fn halt() -> ! {
    loop {
        // SAFETY: Nothing runs here any more; memory and stack stay as they are.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Waits for the next interrupt and takes it: STI holds interrupts off for one instruction, so that one that is waiting
/// ends the HLT (APM Vol. 3, STI). Interrupts are masked again on return.
///
/// # Safety
///
/// The interrupt descriptor table of [`interrupt`] is loaded.
#[inline(always)]
pub unsafe fn wait_for_interrupt() {
    // SAFETY: The handlers keep every register and run on this stack, which has no red zone on this target.
    unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
}

/// Takes the interrupts that are waiting. Interrupts are masked again on return.
///
/// # Safety
///
/// The interrupt descriptor table of [`interrupt`] is loaded.
#[inline(always)]
pub unsafe fn take_interrupts() {
    // SAFETY: As in `wait_for_interrupt`. The NOP ends the shadow of STI, so that waiting interrupts are taken there.
    unsafe { asm!("sti", "nop", "cli", options(nostack)) };
}

/// What CPUID answers here for that leaf and subleaf: EAX, EBX, ECX, EDX.
#[inline(never)]
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let answer = raw_cpuid::cpuid!(leaf, subleaf);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}
