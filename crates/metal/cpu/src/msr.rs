//! Model-specific registers. Numbers are in the crate `x86`.

use core::arch::{asm, global_asm};

// RDMSR that may fault: the handler of #GP knows its address and goes on at the other label.
global_asm!(
    r#"
    .pushsection .text.ringfence_read_checked, "ax", @progbits
    .global ringfence_read_checked
    ringfence_read_checked:
    mov ecx, edi
    .global ringfence_read_checked_fault
    ringfence_read_checked_fault:
    rdmsr
    shl rdx, 32
    or rax, rdx
    mov qword ptr [rsi], rax
    mov eax, 1
    ret
    .global ringfence_read_checked_resume
    ringfence_read_checked_resume:
    xor eax, eax
    ret
    .popsection
    "#
);

unsafe extern "C" {
    fn ringfence_read_checked(number: u32, value: *mut u64) -> u32;
}

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

/// Reads an MSR that may not be there although CPUID announces it, as on emulators; `None` if it is not.
///
/// # Safety
///
/// Reading it has no effect. The interrupt descriptor table of [`crate::interrupt`] is loaded.
pub unsafe fn read_checked(number: u32) -> Option<u64> {
    let mut value = 0;
    // SAFETY: The function follows the C ABI, writes eight bytes to the pointer or nothing, and its fault is mended by the handler.
    let there = unsafe { ringfence_read_checked(number, &raw mut value) };
    (there != 0).then_some(value)
}
