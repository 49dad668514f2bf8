//! What a host processor needs before it can run guests: SVM switched on, a page for VMRUN's own saves, and a page with the
//! host's half of what VMLOAD and VMSAVE switch. The processor alone reads and writes them, by their physical addresses: they are
//! mapped nowhere.

use crate::permissions;
use address::{HostPhysical, PAGE_4K};
use contracts::CpuIndex;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use cpu::Features;
use memory::Frames;
use x86::{Efer, msr};

/// Pages of one processor: VMRUN's saves, then the registers.
const PAGES: u64 = 2;

/// The first page of processor 0; 0 before [`prepare`].
static BASE: AtomicU64 = AtomicU64::new(0);
/// How many processors there are pages for.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static ENABLED: [AtomicBool; cpu::block::PROCESSORS] =
    [const { AtomicBool::new(false) }; cpu::block::PROCESSORS];

/// What keeps this back end from running on a processor, without changing anything.
pub fn missing(features: &Features) -> Option<&'static str> {
    if !features.svm {
        return Some("this processor has no AMD-V (SVM), which part svm needs");
    }
    if features.svm_locked_off() {
        return Some("AMD-V (SVM) is off and locked by the firmware: turn it on in the firmware's set-up");
    }
    if features.asids < 2 {
        return Some("this processor has fewer than two address space identifiers, which part svm needs");
    }
    (!features.nx).then_some("this processor has no no-execute pages, which part svm needs")
}

/// Carves the pages of `cpus` processors and fills the permission maps. Called once, by the bootstrap processor.
pub fn prepare(frames: &mut Frames, cpus: usize) -> Result<(), u64> {
    if BASE.load(Ordering::Relaxed) != 0 {
        return Ok(());
    }
    let cpus = cpus.min(ENABLED.len());
    let needed = cpus as u64 * PAGES * PAGE_4K;
    let range = frames.carve(needed, PAGE_4K).ok_or(needed)?;
    // SAFETY: the base is still 0, so this is the first call, on the bootstrap processor, before another processor or a guest
    // runs.
    unsafe { permissions::fill() };
    COUNT.store(cpus, Ordering::Relaxed);
    BASE.store(range.start().get(), Ordering::Release);
    Ok(())
}

/// The pages of a processor: saves and registers.
fn pages(cpu: CpuIndex) -> Option<(u64, u64)> {
    let base = BASE.load(Ordering::Acquire);
    let index = usize::from(cpu.0);
    if base == 0 || index >= COUNT.load(Ordering::Relaxed) {
        return None;
    }
    let saves = base + index as u64 * PAGES * PAGE_4K;
    Some((saves, saves + PAGE_4K))
}

/// Switches SVM on for this processor, which is number `cpu` and has loaded its TR, FS and GS.
pub fn enable(cpu: CpuIndex, features: &Features) -> bool {
    if missing(features).is_some() {
        return false;
    }
    let (Some((saves, registers)), Some(enabled)) = (pages(cpu), ENABLED.get(usize::from(cpu.0))) else {
        return false;
    };
    // SAFETY: `missing` found SVM there and not locked off, so EFER.SVME may be set (APM Vol. 2 §15.4) and VM_HSAVE_PA exists. The
    // pages were carved for this processor alone (`prepare`) and are 4 KiB aligned; VMSAVE writes the second.
    unsafe {
        let efer = cpu::msr::read(msr::EFER);
        cpu::msr::write(msr::EFER, efer | Efer::SECURE_VIRTUAL_MACHINE.bits());
        cpu::msr::write(msr::VM_HSAVE_PA, saves);
        asm!("vmsave rax", in("rax") registers, options(nostack, preserves_flags));
    }
    // SVM can neither take XSAVES away from guests nor switch the register: theirs would save what firmware left in it.
    cpu::clear_supervisor_state(features);
    enabled.store(true, Ordering::Release);
    true
}

/// The page that VMLOAD takes the host's registers from; `None` if that processor is not enabled.
pub fn registers(cpu: CpuIndex) -> Option<HostPhysical> {
    let enabled = ENABLED.get(usize::from(cpu.0))?.load(Ordering::Acquire);
    let (_, registers) = pages(cpu)?;
    enabled.then(|| HostPhysical::new(registers))
}
