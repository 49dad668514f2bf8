//! Model-specific registers. Numbers are in the crate `x86`.

use core::arch::asm;

/// Reads an MSR.
///
/// # Safety
///
/// The processor has that MSR: CPUID announces it. Otherwise #GP stops the machine.
#[inline(always)]
pub unsafe fn read(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: RDMSR changes no memory; that the MSR exists is the caller's promise.
    unsafe {
        asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes an MSR.
///
/// # Safety
///
/// The processor has that MSR, accepts the value, and the hypervisor's own assumptions survive it.
#[inline(always)]
pub unsafe fn write(number: u32, value: u64) {
    // SAFETY: The caller's promise. Memory is clobbered, as an MSR may change how memory is seen.
    unsafe {
        asm!("wrmsr", in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}
