//! The hostile guest: a bare-metal program that tries everything that it may not, and prints for each attempt what came of it.
//!
//! README.md says what it prints and how it is told what to do; `attempts.toml` beside it what is expected, and why.
#![no_std]
#![no_main]

#[path = "../../friendly/src/console.rs"]
#[allow(dead_code, reason = "the friendly guest's own, which uses all of it")]
mod console;

mod attempts;
mod chain;
mod engine;
mod interrupts;
mod leaks;
mod machine;
mod witness;
mod words;

use console::{Console, print};

core::arch::global_asm!(include_str!("boot.s"));
core::arch::global_asm!(include_str!("engine.s"));

/// Called by the boot code, once, with interrupts off, on its own stack, with the address of what the loader passes along.
#[unsafe(no_mangle)]
extern "C" fn main(information: u32) -> ! {
    words::keep(information);
    let searches = matches!(words::value("mode"), Some("search" | "canary"));
    let first = searches.then(leaks::Registers::now);
    Console::start();
    if let Some(first) = &first {
        leaks::first(first);
    }
    print(format_args!("hostile begins\n"));
    machine::mask_legacy_interrupts();
    engine::start();
    interrupts::quiet();
    print(format_args!("below {}\n", if machine::is_below_ringfence() { "Ringfence" } else { "nobody" }));
    match words::value("mode") {
        Some("witness") => witness::run(),
        Some("search") => leaks::search(),
        Some("canary") => leaks::neighbour(),
        Some(name) => attempts::one(name),
        None => attempts::all(),
    }
    print(format_args!("hostile done\n"));
    machine::power_off()
}

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    print(format_args!("\nhostile failed: {info}\n"));
    machine::power_off()
}
