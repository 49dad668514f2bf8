//! The interrupt descriptor table; the handlers are in boot.s.

use crate::console::print;
use crate::machine;
use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering};

/// The vector of interrupts that are counted.
pub const COUNTED: u8 = 0x40;
/// The vector of spurious interrupts of the local APIC.
pub const SPURIOUS: u8 = 0xff;

/// Counts interrupts of vector [`COUNTED`]; its handler adds one.
#[unsafe(no_mangle)]
pub static INTERRUPTS: AtomicU32 = AtomicU32::new(0);

/// Not 0 while #UD and #GP are expected: their handlers then go on at R9.
#[unsafe(no_mangle)]
static EXPECTED: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" {
    /// Handlers of the vectors 0 to 31, then the one of all others.
    safe static handlers: [u64; 33];
    safe fn counted_interrupt();
    safe fn spurious_interrupt();
}

/// An interrupt gate of ring 0 (APM volume 2, section 4.8.4).
#[derive(Copy, Clone)]
#[repr(C)]
struct Gate {
    low: u64,
    high: u64,
}

impl Gate {
    const fn to(handler: u64) -> Self {
        const CODE: u64 = 0x08;
        const PRESENT_INTERRUPT: u64 = 0x8e00;
        Self {
            low: handler & 0xffff | CODE << 16 | PRESENT_INTERRUPT << 32 | (handler >> 16 & 0xffff) << 48,
            high: handler >> 32,
        }
    }
}

static mut TABLE: [Gate; 256] = [Gate { low: 0, high: 0 }; 256];

/// Fills the table and loads it.
pub fn load() {
    #[repr(C, packed)]
    struct Pointer {
        limit: u16,
        base: u64,
    }
    let gates = &raw mut TABLE;
    for vector in 0..256 {
        let handler = match vector as u8 {
            COUNTED => counted_interrupt as *const () as u64,
            SPURIOUS => spurious_interrupt as *const () as u64,
            _ => handlers[vector.min(32)],
        };
        // SAFETY: `vector` is below 256; nobody else uses the table, which is not loaded yet.
        unsafe { (*gates)[vector] = Gate::to(handler) };
    }
    let pointer = Pointer { limit: 256 * 16 - 1, base: gates as u64 };
    // SAFETY: the table lives as long as the program, and each of its gates leads to a handler.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(readonly, nostack, preserves_flags)) };
}

/// Runs `operation` while #UD and #GP are expected.
pub fn expecting<R>(operation: impl FnOnce() -> R) -> R {
    EXPECTED.store(1, Ordering::SeqCst);
    let result = operation();
    EXPECTED.store(0, Ordering::SeqCst);
    result
}

/// Called by the handlers of everything that nobody expects. Vector 32 stands for every interrupt.
#[unsafe(no_mangle)]
extern "C" fn report_fatal(vector: u64, code: u64, instruction: u64, address: u64) -> ! {
    print(format_args!(
        "friendly failed: vector {vector}, error code {code:#x}, at {instruction:#x}, CR2 {address:#x}\n"
    ));
    machine::power_off()
}
