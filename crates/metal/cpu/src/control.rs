//! Control registers of the hypervisor itself: what every processor of the host gets before it does any work.

use crate::Features;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};

/// EFER.AIBRSE: what less privileged code or a guest taught the branch predictors does not steer the hypervisor
/// (APM Vol. 2 §3.1.7).
const AUTOMATIC_IBRS: u64 = 1 << 21;
/// The page attribute table after reset (APM Vol. 2 §7.8.1): the page tables are written for it.
pub const PAGE_ATTRIBUTES: u64 = 0x0007_0406_0007_0406;

/// Sets CR0, CR4, DR7, EFER and PAT to the hypervisor's values, with everything on that protects it from itself and that the
/// processor has: WP, NXE, SMEP, SMAP, UMIP.
///
/// SSE stays usable for guests' vector state only: the hypervisor is compiled without it.
///
/// # Safety
///
/// The interrupt descriptor table is loaded, and `features` is what this processor says. Its page tables have reserved bits clear if it has no NX.
pub unsafe fn prepare(features: &Features) {
    // SAFETY: Long mode with paging is on and stays on. WP only makes writes fault that are a bug of ours; NXE only gives a
    // meaning to bit 63 of table entries; the CR4 bits are announced in CPUID, and guard nothing that the hypervisor does: it
    // maps no user pages and runs no user code. Task switching is off, so that vector instructions of the world switch do not fault.
    unsafe {
        if features.nx {
            Efer::update(|efer| *efer |= EferFlags::NO_EXECUTE_ENABLE);
        }
        if features.automatic_ibrs {
            let efer = crate::msr::read(x86::msr::EFER);
            crate::msr::write(x86::msr::EFER, efer | AUTOMATIC_IBRS);
        }
        let mut cr0 = Cr0::read();
        cr0 |= Cr0Flags::WRITE_PROTECT | Cr0Flags::NUMERIC_ERROR | Cr0Flags::MONITOR_COPROCESSOR;
        cr0 &= !(Cr0Flags::EMULATE_COPROCESSOR
            | Cr0Flags::TASK_SWITCHED
            | Cr0Flags::ALIGNMENT_MASK
            | Cr0Flags::NOT_WRITE_THROUGH
            | Cr0Flags::CACHE_DISABLE);
        Cr0::write(cr0);
        let mut cr4 = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION | Cr4Flags::PAGE_GLOBAL;
        cr4.set(Cr4Flags::MACHINE_CHECK_EXCEPTION, features.machine_check);
        cr4.set(Cr4Flags::OSFXSR, features.fxsr);
        cr4.set(Cr4Flags::OSXMMEXCPT_ENABLE, features.fxsr);
        cr4.set(Cr4Flags::OSXSAVE, features.xsave);
        cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, features.smep);
        cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, features.smap);
        cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, features.umip);
        // Every bit is named: whatever firmware left on (VMXE, PCIDE, FSGSBASE) is off now.
        Cr4::write_raw(cr4.bits());
        if features.pat {
            crate::msr::write(x86::msr::PAT, PAGE_ATTRIBUTES);
        }
        if features.xsave {
            crate::vector::set_xcr0(x86::Xcr0::X87.bits());
        }
    }
    // No breakpoint is on: firmware's are not ours, and a guest's addresses stay in DR0 to DR3 without effect.
    x86_64::registers::debug::Dr7::write_raw(0x400);
    crate::machine_check::prepare(features);
    crate::speculation::learn(features);
}

/// What a world switch has to bring back of the hypervisor's control registers.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// CR0.
    pub cr0: u64,
    /// CR3, with its flags.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
}

/// This processor's control registers now.
pub fn state() -> State {
    let (cr0, cr3, cr4): (u64, u64, u64);
    // SAFETY: Reads registers, changes nothing.
    unsafe {
        core::arch::asm!("mov {}, cr0", "mov {}, cr3", "mov {}, cr4", out(reg) cr0, out(reg) cr3, out(reg) cr4,
            options(nomem, nostack, preserves_flags));
    }
    State { cr0, cr3, cr4, efer: Efer::read_raw() }
}

/// Where the page tables in use begin: CR3 without its flags.
#[inline(always)]
pub fn page_tables() -> u64 {
    let value: u64;
    // SAFETY: Reads CR3, changes nothing.
    unsafe { core::arch::asm!("mov {}, cr3", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value & 0x000f_ffff_ffff_f000
}

/// Loads page tables.
///
/// # Safety
///
/// The tables at `root` map the code that runs, its stack, its data and its descriptor tables just as they are mapped now, and no
/// reference into what they leave out is used any more.
#[inline(always)]
pub unsafe fn set_page_tables(root: u64) {
    // SAFETY: The caller's promise. Memory is clobbered: what is mapped changes.
    unsafe { core::arch::asm!("mov cr3, {}", in(reg) root, options(nostack, preserves_flags)) };
}
