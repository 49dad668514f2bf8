//! The local APIC, as far as attempts need it.

use crate::engine;
use crate::machine::{apic, set_apic};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};

/// Whether the handlers of counted interrupts signal their end.
pub static ENDED: AtomicBool = AtomicBool::new(true);

/// The end of an interrupt.
pub fn end() {
    if ENDED.load(Ordering::Relaxed) {
        set_apic(0xb0, 0);
    }
}

/// Turns the local APIC on, with everything masked and nothing pending: software enable, spurious vector 0xff.
pub fn quiet() {
    set_apic(0xf0, 0x1ff);
    for entry in [0x320, 0x330, 0x340, 0x350, 0x360, 0x370] {
        set_apic(entry, 0x1_0000);
    }
    set_apic(0x380, 0);
    set_apic(0x80, 0);
    // What was requested comes, and what was in service ends.
    end_all();
    for vector in 32..=255 {
        engine::count(vector, vector != engine::DONE);
    }
    let_in(50);
    for vector in 32..=255 {
        engine::count(vector, false);
    }
    set_apic(0x280, 0);
}

fn end_all() {
    for _ in 0..16 {
        let busy = (0..8).any(|index| apic(0x100 + index * 0x10) != 0);
        if !busy {
            break;
        }
        set_apic(0xb0, 0);
    }
}

/// Lets interrupts come for some instructions.
pub fn let_in(rounds: u32) {
    // SAFETY: every vector has its handler.
    unsafe {
        asm!("sti", "2: pause", "dec {0:e}", "jnz 2b", "cli", inout(reg) rounds => _, options(nostack));
    }
}

/// Lets some instructions pass, interrupts as they are.
pub fn wait(rounds: u32) {
    // SAFETY: counts.
    unsafe { asm!("2: pause", "dec {0:e}", "jnz 2b", inout(reg) rounds => _, options(nomem, nostack)) };
}
