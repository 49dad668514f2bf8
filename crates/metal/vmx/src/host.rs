//! What a host processor needs before it can run guests: VMX operation, and a page for it. The processor alone uses the page, by
//! its physical address: it is mapped nowhere.

use crate::permissions;
use address::{HostPhysical, PAGE_4K};
use contracts::CpuIndex;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use cpu::Features;
use cpu::vmx::{Capabilities, feature_control};
use memory::{BOOT_REACH, BOOT_WINDOW, Frames};
use x86::{Cr4, msr};

/// The page of processor 0; 0 before [`prepare`].
static BASE: AtomicU64 = AtomicU64::new(0);
/// How many processors there are pages for.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static ENABLED: [AtomicBool; cpu::block::PROCESSORS] =
    [const { AtomicBool::new(false) }; cpu::block::PROCESSORS];
/// Which processors have a structure loaded.
static OCCUPIED: [AtomicBool; cpu::block::PROCESSORS] =
    [const { AtomicBool::new(false) }; cpu::block::PROCESSORS];

/// What keeps this back end from running on a processor, but for its controls.
pub fn missing(features: &Features, capabilities: &Capabilities) -> Option<&'static str> {
    if !features.vmx {
        return Some("this processor has no VT-x (VMX), which part vmx needs");
    }
    let switches = capabilities.feature_control;
    if switches & feature_control::LOCKED != 0 && switches & feature_control::VMX == 0 {
        return Some("VT-x (VMX) is off and locked by the firmware: turn it on in the firmware's set-up");
    }
    // Bits 53 to 50: 6 is write-back. Bit 48: the structures' addresses have 32 bits only.
    let basic = capabilities.basic;
    if basic >> 50 & 0xf != 6 || basic >> 48 & 1 == 1 || basic >> 32 & 0x1fff > PAGE_4K {
        return Some(
            "this processor's VT-x keeps its structures in an unusual way, which part vmx does not know",
        );
    }
    if !features.pat {
        return Some("this processor has no page attribute table, which part vmx needs");
    }
    (!features.nx).then_some("this processor has no no-execute pages, which part vmx needs")
}

/// The revision that a VMCS and the page for VMX operation begin with.
pub fn revision(capabilities: &Capabilities) -> u32 {
    capabilities.basic as u32 & 0x7fff_ffff
}

/// Carves the pages of `cpus` processors, and fills the MSR bitmap. Called once, by the bootstrap processor, while the boot window is mapped.
pub fn prepare(frames: &mut Frames, cpus: usize, held: bool) -> Result<(), u64> {
    if BASE.load(Ordering::Relaxed) != 0 {
        return Ok(());
    }
    let cpus = cpus.min(ENABLED.len());
    let needed = cpus as u64 * PAGE_4K;
    let range =
        frames.carve(needed, PAGE_4K).filter(|range| range.end().get() <= BOOT_REACH).ok_or(needed)?;
    let revision = revision(&Capabilities::of(&Features::probe()));
    for cpu in 0..cpus {
        let page = BOOT_WINDOW + range.start().get() as usize + cpu * PAGE_4K as usize;
        // SAFETY: the page was carved a moment ago, so it is nobody else's; the boot window shows it at that address until the processors run
        // (`boot::Boot::enter`), which is after this call.
        unsafe { (page as *mut u32).write(revision) };
    }
    // SAFETY: the base is still 0, so this is the first call, on the bootstrap processor, before another processor or a guest
    // runs.
    unsafe { permissions::fill(held) };
    COUNT.store(cpus, Ordering::Relaxed);
    BASE.store(range.start().get(), Ordering::Release);
    Ok(())
}

/// The page of a processor.
fn page(cpu: CpuIndex) -> Option<u64> {
    let base = BASE.load(Ordering::Acquire);
    let index = usize::from(cpu.0);
    (base != 0 && index < COUNT.load(Ordering::Relaxed)).then(|| base + index as u64 * PAGE_4K)
}

/// Enters VMX operation on this processor, which is number `cpu` and has loaded its descriptor tables.
pub fn enable(cpu: CpuIndex, features: &Features) -> bool {
    let capabilities = Capabilities::of(features);
    if missing(features, &capabilities).is_some() {
        return false;
    }
    let (Some(page), Some(enabled)) = (page(cpu), ENABLED.get(usize::from(cpu.0))) else { return false };
    let switches = capabilities.feature_control;
    if switches & feature_control::LOCKED == 0 {
        // Firmware has left it open: what is needed is switched on, and locked, as the manual asks for (SDM Vol. 3C §24.7).
        // SAFETY: the register exists where VT-x does, and is not locked.
        unsafe {
            cpu::msr::write(msr::FEATURE_CONTROL, switches | feature_control::LOCKED | feature_control::VMX);
        }
    }
    let failed: u8;
    // SAFETY: `missing` found VMX there and not locked off. CR0 and CR4 get the bits that VMX operation asks for: of those that it asks for,
    // all but CR4.VMXE are set in long mode anyway, and CR0.NE by `cpu::control::prepare`. The page was carved for this processor alone, is
    // 4 KiB aligned and begins with the revision (`prepare`). INVEPT takes a type and a descriptor of 16 bytes, here zeros.
    unsafe {
        asm!(
            "mov {scratch}, cr4",
            "or {scratch}, {vmxe}",
            "mov cr4, {scratch}",
            "push {page}",
            "vmxon [rsp]",
            "setbe {failed}",
            "pop {page}",
            scratch = out(reg) _,
            vmxe = const Cr4::VIRTUAL_MACHINE.bits(),
            page = in(reg) page,
            failed = out(reg_byte) failed,
        );
        if failed != 0 {
            return false;
        }
        // Firmware's or a loader's translations are not the compartments'.
        let nothing = [0u64; 2];
        asm!("invept {kind}, [{nothing}]", kind = in(reg) 2u64, nothing = in(reg) &raw const nothing,
            options(nostack));
    }
    enabled.store(true, Ordering::Release);
    true
}

/// Takes this processor for a structure: it is in VMX operation, and has none loaded. False: it is not so.
pub fn occupy() -> bool {
    let cpu = usize::from(cpu::current().0);
    match (ENABLED.get(cpu), OCCUPIED.get(cpu)) {
        (Some(enabled), Some(occupied)) => {
            enabled.load(Ordering::Acquire) && !occupied.swap(true, Ordering::Relaxed)
        }
        _ => false,
    }
}

/// This processor has no structure loaded any more.
pub fn vacate() {
    if let Some(occupied) = OCCUPIED.get(usize::from(cpu::current().0)) {
        occupied.store(false, Ordering::Relaxed);
    }
}

/// The base address of the extended page tables at `root`, with their properties (SDM Vol. 3C table 25-9): write-back, four levels.
pub fn ept_pointer(root: HostPhysical) -> u64 {
    root.get() | 3 << 3 | 6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controls::tests::everything;

    #[test]
    fn a_processor_that_cannot_carry_it_is_told_why() {
        let features = Features { vmx: true, nx: true, pat: true, ..Features::default() };
        let named = |features, capabilities, what: &str| {
            missing(&features, &capabilities).is_some_and(|missing| missing.contains(what))
        };
        assert_eq!(missing(&features, &everything()), None);
        assert!(named(Features { vmx: false, ..features }, Capabilities::default(), "no VT-x"));
        for (switches, locked_off) in [(0, false), (1, true), (3, true), (4, false), (5, false)] {
            let capabilities = Capabilities { feature_control: switches, ..everything() };
            assert_eq!(named(features, capabilities, "locked by the firmware"), locked_off, "{switches}");
        }
        let uncached = Capabilities { basic: 0x0000_1000_0000_0012, ..everything() };
        assert!(named(features, uncached, "unusual"));
        assert!(named(Features { nx: false, ..features }, everything(), "no-execute"));
    }

    #[test]
    fn the_pointer_to_the_tables_names_their_form() {
        assert_eq!(ept_pointer(HostPhysical::new(0x1234_5000)), 0x1234_501e);
        assert_eq!(revision(&everything()), 0x12);
    }
}
