//! The friendly guest: a bare-metal 64-bit program that behaves, and measures what its machine costs it.
//!
//! It prints `bench NAME MEDIAN` for each operation on the first serial port, in ticks of the time stamp counter between two
//! `lfence; rdtsc`, or `bench NAME absent` where the machine does not have what the operation needs; then `friendly done`,
//! and turns the machine off. README.md says what each name means.
#![no_std]
#![no_main]

mod console;
mod interrupts;
mod machine;
mod measure;

use console::{Console, print};

core::arch::global_asm!(include_str!("boot.s"));

/// Called by the boot code, once, with interrupts off, on its own stack.
#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    Console::start();
    print(format_args!("friendly begins\n"));
    machine::mask_legacy_interrupts();
    interrupts::load();
    if let Some(signature) = machine::hypervisor() {
        print(format_args!("hypervisor {}\n", core::str::from_utf8(&signature).unwrap_or("unreadable")));
    }
    measure::all();
    print(format_args!("friendly done\n"));
    machine::power_off()
}

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    print(format_args!("friendly failed: {info}\n"));
    machine::power_off()
}
