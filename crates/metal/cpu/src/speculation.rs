//! What a processor learnt from one compartment must not steer it in another; and what guests may ask of it for themselves.

use crate::Features;
use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

const BARRIER: u8 = 1 << 0;
const BARRIER_CLEARS_RETURNS: u8 = 1 << 1;
/// Where the bits of SPEC_CTRL that exist begin: three.
const CONTROLS: u8 = 2;
/// IBRS is the hypervisor's own setting, once and for all.
const RESTRICTED: u8 = 1 << 5;
const BUFFERS: u8 = 1 << 6;
const DATA_CACHE: u8 = 1 << 7;

/// What all processors have; those that differ are not started.
static CAPABILITIES: AtomicU8 = AtomicU8::new(0);

/// Bits of ARCH_CAPABILITIES (SDM Vol. 4, table 2-2).
mod immunity {
    /// RDCL_NO: nothing leaks from the first-level data cache past a page that is not present.
    pub const DATA_CACHE: u64 = 1 << 0;
    /// IBRS_ALL: IBRS may stay on, and costs little.
    pub const RESTRICTED_ALWAYS: u64 = 1 << 1;
    /// SKIP_L1DFL_VMENTRY: somebody below empties the cache.
    pub const DATA_CACHE_EMPTIED: u64 = 1 << 3;
    /// MDS_NO: buffers inside the processor leak nothing.
    pub const BUFFERS: u64 = 1 << 5;
}

/// What is done on a processor with these features that is immune to `immunities`.
const fn capabilities(features: &Features, immunities: u64) -> u8 {
    let mut capabilities = features.speculation_control << CONTROLS;
    if features.ibpb {
        capabilities |= BARRIER;
    }
    if features.ibpb_returns {
        capabilities |= BARRIER_CLEARS_RETURNS;
    }
    if immunities & immunity::RESTRICTED_ALWAYS != 0 && features.speculation_control & 1 != 0 {
        capabilities |= RESTRICTED;
    }
    if features.buffer_clear && immunities & immunity::BUFFERS == 0 {
        capabilities |= BUFFERS;
    }
    if features.data_cache_flush && immunities & (immunity::DATA_CACHE | immunity::DATA_CACHE_EMPTIED) == 0 {
        capabilities |= DATA_CACHE;
    }
    capabilities
}

#[cold]
#[inline(never)]
pub(crate) fn learn(features: &Features) {
    CAPABILITIES.store(capabilities(features, features.immunities()), Ordering::Relaxed);
    // Whatever firmware left there is not the hypervisor's setting.
    restrict(0);
}

/// Sets SPEC_CTRL of this processor to those of `bits` that exist: IBRS, STIBP and SSBD, each of which forbids some speculation
/// (APM Vol. 2 §3.2.9). The hypervisor's own setting is 0, or IBRS where the processor wants it on for good. Nothing happens where the
/// processor has no such register.
#[inline(never)]
pub fn restrict(bits: u32) {
    let capabilities = CAPABILITIES.load(Ordering::Relaxed);
    let there = capabilities >> CONTROLS & 7;
    if there != 0 {
        let own = u32::from(capabilities & RESTRICTED != 0);
        // SAFETY: CPUID announces SPEC_CTRL and each bit that is set (`learn`; processors that differ are not started). The bits
        // take speculation away from whoever runs, the hypervisor too, and change nothing else.
        unsafe { crate::msr::write(x86::msr::SPEC_CTRL, ((bits | own) & u32::from(there)).into()) };
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

/// Empties the first-level data cache, which a guest can read past its own page tables on processors with that flaw ("L1 Terminal Fault",
/// CVE-2018-3646). While one compartment is served no other's memory is mapped, so the cache holds another's data only where
/// another was served before: then, and not at each entry, it is emptied. Nothing happens where the processor has no such flaw.
#[inline]
pub fn empty_data_cache() {
    if CAPABILITIES.load(Ordering::Relaxed) & DATA_CACHE != 0 {
        // SAFETY: CPUID announces FLUSH_CMD; bit 0 writes the cache back and empties it.
        unsafe { crate::msr::write(x86::msr::FLUSH_CMD, 1) };
    }
}

/// Clears what buffers inside the processor still hold of the hypervisor's work, right before a guest is entered ("Microarchitectural
/// Data Sampling", CVE-2018-12130 and its kin). Nothing happens where the processor has no such flaw.
#[inline(always)]
pub fn clear_buffers() {
    if CAPABILITIES.load(Ordering::Relaxed) & BUFFERS != 0 {
        static SELECTOR: u16 = crate::block::DATA_SELECTOR;
        // SAFETY: VERW reads a selector from memory, and its descriptor, and changes ZF. With a selector of writable data the processor
        // clears the buffers too.
        unsafe { asm!("verw word ptr [rip + {}]", sym SELECTOR, options(nostack)) };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_defence_is_there_where_it_is_needed_and_possible() {
        let none = Features::default();
        let all = Features { buffer_clear: true, data_cache_flush: true, speculation_control: 7, ..none };
        let needed = |features, immunities| {
            let found = capabilities(&features, immunities);
            [BUFFERS, DATA_CACHE, RESTRICTED].map(|bit| found & bit != 0)
        };
        assert_eq!(needed(none, u64::MAX), [false; 3]);
        assert_eq!(needed(all, 0), [true, true, false]);
        assert_eq!(needed(all, 1 << 5), [false, true, false]);
        assert_eq!(needed(all, 1), [true, false, false]);
        assert_eq!(needed(all, 1 << 3), [true, false, false]);
        assert_eq!(needed(all, 1 << 1), [true, true, true]);
        assert_eq!(needed(Features { speculation_control: 6, ..all }, 1 << 1), [true, true, false]);
        let controls =
            |speculation_control| capabilities(&Features { speculation_control, ..none }, 0) >> CONTROLS & 7;
        assert_eq!([controls(0), controls(5), controls(7)], [0, 5, 7]);
    }
}
