//! Vector and debug registers: loaded for a guest, stored after it. The hypervisor itself uses neither.

use core::arch::asm;

/// Alignment of the area that XSAVE and FXSAVE write, in bytes.
pub const AREA_ALIGNMENT: usize = 64;

/// Stores the components of `mask` (as in XCR0) by XSAVE.
///
/// # Safety
///
/// `area` is aligned to 64 bytes and has room for every component of `mask` and XCR0; the processor has XSAVE, and
/// [`crate::control::prepare`] was called.
#[inline(always)]
pub unsafe fn xsave(area: *mut u8, mask: u64) {
    // SAFETY: The caller's promise about `area`; XSAVE writes nothing else.
    unsafe {
        asm!("xsave64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") (mask >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

/// Loads the components of `mask` by XRSTOR; those that the area's header has not get their initial values.
///
/// # Safety
///
/// As [`xsave`]; the area is zeroed, or was written by [`xsave`] alone: XRSTOR faults on reserved bits.
#[inline(always)]
pub unsafe fn xrstor(area: *const u8, mask: u64) {
    // SAFETY: The caller's promise. The hypervisor is compiled without vector instructions: nothing of its own is lost.
    unsafe {
        asm!("xrstor64 [{}]", in(reg) area, in("eax") mask as u32, in("edx") (mask >> 32) as u32,
            options(nostack, preserves_flags, readonly));
    }
}

/// Stores x87 and SSE state by FXSAVE.
///
/// # Safety
///
/// `area` is aligned to 16 bytes and has 512 bytes; [`crate::control::prepare`] was called.
#[inline(always)]
pub unsafe fn fxsave(area: *mut u8) {
    // SAFETY: The caller's promise about `area`; FXSAVE writes 512 bytes and nothing else.
    unsafe { asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags)) };
}

/// Loads x87 and SSE state by FXRSTOR.
///
/// # Safety
///
/// As [`fxsave`]; the area was written by it, or holds a legal MXCSR.
#[inline(always)]
pub unsafe fn fxrstor(area: *const u8) {
    // SAFETY: The caller's promise. The hypervisor is compiled without vector instructions: nothing of its own is lost.
    unsafe { asm!("fxrstor64 [{}]", in(reg) area, options(nostack, preserves_flags, readonly)) };
}

/// Loads XCR0.
///
/// # Safety
///
/// The processor has XSAVE and every component of `value`, bit 0 is set, AVX comes with SSE (APM Vol. 2 §11.5.2), and
/// [`crate::control::prepare`] turned CR4.OSXSAVE on.
#[inline(always)]
pub unsafe fn set_xcr0(value: u64) {
    // SAFETY: The caller's promise; without it #GP or #UD, which stops the machine.
    unsafe {
        asm!("xsetbv", in("ecx") 0u32, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nomem, nostack, preserves_flags));
    }
}

/// XCR0.
///
/// # Safety
///
/// The processor has XSAVE, and [`crate::control::prepare`] turned CR4.OSXSAVE on.
#[inline(always)]
pub unsafe fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: XGETBV reads a register.
    unsafe {
        asm!("xgetbv", in("ecx") 0u32, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// DR6, where it is not in the control block of a guest.
#[inline(always)]
pub fn debug_status() -> u64 {
    let value: u64;
    // SAFETY: Reads a register. DR7.GD is never set in the host, so that no #DB comes.
    unsafe { asm!("mov {}, dr6", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Sets DR6; its upper half stays zero, as the processor asks for.
#[inline(always)]
pub fn set_debug_status(value: u64) {
    // SAFETY: DR6 tells what was met, and has no effect.
    unsafe { asm!("mov dr6, {}", in(reg) value & 0xffff_ffff, options(nomem, nostack, preserves_flags)) };
}

/// DR0 to DR3. DR7 is in the control block of a guest, and where that has it DR6.
#[inline(always)]
pub fn debug_addresses() -> [u64; 4] {
    let (zero, one, two, three): (u64, u64, u64, u64);
    // SAFETY: Reads registers. DR7.GD is never set in the host, so that no #DB comes.
    unsafe {
        asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3",
            out(reg) zero, out(reg) one, out(reg) two, out(reg) three,
            options(nomem, nostack, preserves_flags));
    }
    [zero, one, two, three]
}

/// Sets DR0 to DR3. They break nothing while DR7 enables none, which holds in the host always: every exit resets DR7
/// (APM Vol. 2 §15.6).
#[inline(always)]
pub fn set_debug_addresses(values: [u64; 4]) {
    // SAFETY: Any 64-bit value may be written; without an enable bit in DR7 it has no effect on the host.
    unsafe {
        asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
            in(reg) values[0], in(reg) values[1], in(reg) values[2], in(reg) values[3],
            options(nomem, nostack, preserves_flags));
    }
}
