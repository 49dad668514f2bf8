//! What a processor learnt from one compartment must not steer it in another; and what guests may ask of it for themselves.

use crate::Features;
use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

const BARRIER: u8 = 1;
const BARRIER_CLEARS_RETURNS: u8 = 2;
/// Where the bits of SPEC_CTRL that exist begin.
const CONTROLS: u8 = 4;

/// What all processors have; those that differ are not started.
static CAPABILITIES: AtomicU8 = AtomicU8::new(0);

#[cold]
#[inline(never)]
pub(crate) fn learn(features: &Features) {
    let mut capabilities = 0;
    if features.ibpb {
        capabilities |= BARRIER;
    }
    if features.ibpb_returns {
        capabilities |= BARRIER_CLEARS_RETURNS;
    }
    capabilities |= features.speculation_control << CONTROLS;
    CAPABILITIES.store(capabilities, Ordering::Relaxed);
    // Whatever firmware left there is not the hypervisor's setting.
    restrict(0);
}

/// Sets SPEC_CTRL of this processor to those of `bits` that exist: IBRS, STIBP and SSBD, each of which forbids some speculation
/// (APM Vol. 2 §3.2.9). The hypervisor's own setting is 0. Nothing happens where the processor has no such register.
#[inline(never)]
pub fn restrict(bits: u32) {
    let there = CAPABILITIES.load(Ordering::Relaxed) >> CONTROLS;
    if there != 0 {
        // SAFETY: CPUID announces SPEC_CTRL and each bit that is set (`learn`; processors that differ are not started). The bits
        // take speculation away from whoever runs, the hypervisor too, and change nothing else.
        unsafe { crate::msr::write(x86::msr::SPEC_CTRL, (bits & u32::from(there)).into()) };
    }
}

/// IBPB: indirect branches after it are not predicted from anything before it (AMD, "Indirect Branch Control Extension"; SDM
/// Vol. 4, PRED_CMD). Nothing happens where the processor has none.
#[inline]
pub fn indirect_branch_barrier() {
    if CAPABILITIES.load(Ordering::Relaxed) & BARRIER != 0 {
        // SAFETY: CPUID announces PRED_CMD; bit 0 forgets predictions and does nothing else.
        unsafe { crate::msr::write(x86::msr::PRED_CMD, 1) };
    }
}

/// Fills the return-address predictor with 32 addresses of ours, so that no RET is predicted from what a guest called (AMD,
/// "Software techniques for managing speculation", mitigation V2-3). Nothing happens where the barrier does it.
#[inline]
pub fn fill_return_stack() {
    if CAPABILITIES.load(Ordering::Relaxed) & BARRIER_CLEARS_RETURNS != 0 {
        return;
    }
    // SAFETY: Sixteen rounds of two calls; each return address is taken off the stack at the end. A return that is predicted
    // from here runs into INT3 behind a pause, speculatively only.
    unsafe {
        asm!(
            "mov {rounds:e}, 16",
            "2:",
            "call 3f",
            "4: pause",
            "lfence",
            "jmp 4b",
            "3: call 5f",
            "6: pause",
            "lfence",
            "jmp 6b",
            "5: dec {rounds:e}",
            "jnz 2b",
            "add rsp, 256",
            rounds = out(reg) _,
        );
    }
}
