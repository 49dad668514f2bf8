//! The hypervisor's canary: numbers that stand nowhere but where they are laid out here, and that no guest may find. In free memory
//! before anything is carved from it, in the image's data, in a private page of each compartment, on the stacks, and in every register
//! that an exit or an attach has to replace.

use address::PAGE_4K;
use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};
use cpu::Features;
use memory::{BOOT_REACH, BOOT_WINDOW, Frames};
use x86::msr;

/// The canary. Its halves are improbable as anything else; as the base of a segment it is canonical.
const CANARY: [u64; 2] = [0x0000_51c3_a7e9_4db6, 0x7d1b_96f2_c85e_3fa9];

/// In the image's data: the compiler must not know what is in it.
static IN_DATA: [AtomicU64; 64] = {
    let mut words = [const { AtomicU64::new(CANARY[0]) }; 64];
    let mut index = 1;
    while index < words.len() {
        words[index] = AtomicU64::new(CANARY[1]);
        index += 2;
    }
    words
};

/// An area for XRSTOR with the canary in all vector registers, aligned as it wants.
#[repr(C, align(64))]
struct Vectors([u64; AREA / 8]);

/// Bytes of the area of x87, SSE and AVX state (APM Vol. 2 §11.5.2).
const AREA: usize = 832;
/// The state components that hold it: x87, SSE, AVX.
const COMPONENTS: u64 = 7;

static VECTORS: Vectors = {
    let mut words = [0; AREA / 8];
    let mut index = 4;
    while index < AREA / 8 {
        // Registers from 32 to 416, the upper halves of AVX behind the header of 64 bytes at 512.
        if index < 52 || index >= 72 {
            words[index] = CANARY[index & 1];
        }
        index += 1;
    }
    // Control word; all x87 registers in use; MXCSR; XSTATE_BV.
    words[0] = 0xff << 32 | 0x37f;
    words[3] = 0x1f80;
    words[64] = COMPONENTS;
    Vectors(words)
};

/// What of [`COMPONENTS`] this machine's XSAVE has; 0 where there is only FXSAVE.
static SUPPORTED: AtomicU64 = AtomicU64::new(0);
/// Whether TSC_AUX exists.
static HAS_TICKS_AUX: AtomicU64 = AtomicU64::new(0);

/// Fills memory.
///
/// # Safety
/// `length` bytes at `at` are mapped, and nobody's; both are multiples of 4096.
pub unsafe fn fill(at: usize, length: usize) {
    let page = at as *mut [u64; 2];
    for index in 0..(PAGE_4K as usize).min(length) / 16 {
        // SAFETY: this function's contract; inside the first page.
        unsafe { page.add(index).write_volatile(black_box(CANARY)) };
    }
    for offset in (PAGE_4K as usize..length).step_by(PAGE_4K as usize) {
        // SAFETY: as before; the first page, and another one.
        unsafe {
            core::ptr::copy_nonoverlapping(page.cast::<u8>(), (at + offset) as *mut u8, PAGE_4K as usize)
        };
    }
}

/// Fills all memory that is free and that boot can reach. Answers how many bytes that were.
pub fn fill_free(frames: &Frames, features: &Features) -> u64 {
    let usable = if features.xsave { features.xcr0.bits() & COMPONENTS } else { 0 };
    SUPPORTED.store(usable, Ordering::Relaxed);
    HAS_TICKS_AUX.store(features.rdtscp.into(), Ordering::Relaxed);
    let mut filled = 0;
    for piece in frames.pieces() {
        let (start, end) = (piece.start().get(), piece.end().get().min(BOOT_REACH));
        if start < end {
            // SAFETY: free pages belong to nobody, and the boot window, which is mapped (`Watch::begin`), shows them.
            unsafe { fill(BOOT_WINDOW + start as usize, (end - start) as usize) };
            filled += end - start;
        }
    }
    filled
}

/// Lays it on the stack, where the next calls leave most of it.
#[inline(never)]
pub fn on_stack() {
    let words: [u64; 64] = core::array::from_fn(|index| IN_DATA[index].load(Ordering::Relaxed));
    black_box(&words);
}

/// Into the registers that VMLOAD replaces, before the host's half of them is stored.
pub fn in_system_call_registers() {
    let [low, high] = CANARY;
    // SAFETY: the hypervisor executes neither SYSCALL nor SYSENTER nor SWAPGS, so that nothing depends on these; addresses are canonical.
    unsafe {
        for number in [msr::LSTAR, msr::CSTAR, msr::KERNEL_GS_BASE, msr::SYSENTER_ESP, msr::SYSENTER_EIP] {
            cpu::msr::write(number, low);
        }
        cpu::msr::write(msr::STAR, high);
        cpu::msr::write(msr::SFMASK, high & 0xffff_ffff);
        cpu::msr::write(msr::SYSENTER_CS, high & 0xffff);
    }
}

/// Into the registers that an attach replaces: vectors, x87, DR0 to DR3, TSC_AUX.
pub fn in_switched_registers() {
    let [low, high] = CANARY;
    cpu::vector::set_debug_addresses([low, high, !low, low.rotate_left(32)]);
    let supported = SUPPORTED.load(Ordering::Relaxed);
    // SAFETY: no virtual processor is loaded in this one, and the hypervisor uses none of these registers. The area is aligned, constant,
    // and a legal one: MXCSR has no reserved bits, and XSTATE_BV none but those of XCR0. TSC_AUX exists if it is written.
    unsafe {
        if supported == COMPONENTS {
            cpu::vector::set_xcr0(supported);
            cpu::vector::xrstor((&raw const VECTORS).cast(), supported);
        } else {
            cpu::vector::fxrstor((&raw const VECTORS).cast());
        }
        if HAS_TICKS_AUX.load(Ordering::Relaxed) == 1 {
            cpu::msr::write(msr::TSC_AUX, high & 0xffff_ffff);
        }
    }
}
