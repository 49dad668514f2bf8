//! The soak guest: computes with two processors, storms and resets at random, and says what it did, in numbers that can be checked.
//!
//! README.md says what it prints and how each number follows from the salt of a life.
#![no_std]
#![no_main]

mod compute;
#[path = "../../friendly/src/console.rs"]
#[allow(dead_code, reason = "the friendly guest's, of which this one needs a part")]
mod console;
#[path = "../../friendly/src/interrupts.rs"]
#[allow(dead_code, reason = "the friendly guest's, of which this one needs a part")]
mod interrupts;
mod local_apic;
mod machine;
mod random;
mod storm;
mod words;

use compute::{Chain, Memory};
use console::{Console, print};
use core::fmt::Write;
use machine::{CPUIDS, MEMORY, MSR_READS, MSR_WRITES, PORTS, STRINGS};
use random::Random;
use storm::Tally;
use words::{Line, Settings};

core::arch::global_asm!(include_str!("../../friendly/src/boot.s"));
core::arch::global_asm!(include_str!("second.s"));

/// Leaf of CPUID in which the hypervisor says how many thousand ticks the time stamp counter makes a second.
const TIMING_LEAF: u32 = 0x4000_0001;

/// Called by the boot code, once a life, with interrupts off, on its own stack; EBX is still the loader's.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn main() -> ! {
    core::arch::naked_asm!("mov edi, ebx", "jmp {begin}", begin = sym begin)
}

/// One life. `information` is the address of PVH's start information.
extern "C" fn begin(information: u64) -> ! {
    // What the boot code did: EFER read and written.
    MSR_READS.add(1);
    MSR_WRITES.add(1);
    Console::start();
    machine::port_out(0x21, 0xff);
    machine::port_out(0xa1, 0xff);
    interrupts::load();
    let settings = Settings::read(information);
    let kilohertz = u64::from(machine::cpuid(TIMING_LEAF)).max(1);
    let milliseconds = || machine::now() / kilohertz;
    let salt = random::mix(settings.seed ^ random::mix(machine::now()));
    print(format_args!("begins salt={salt:016x} at={}\n", milliseconds()));

    local_apic::start();
    storm::prepare();
    compute::enable_vectors();
    let mut random = Random::new(salt);
    let mut chain = Chain::begin(salt);
    let mut memory = Memory::begin(salt);
    let mut tally = Tally::default();
    compute::start_second(salt);

    let end = settings.seconds.saturating_mul(1000);
    let units = 8 + random.below(56);
    for _ in 0..units {
        if milliseconds() >= end {
            break;
        }
        match random.below(16) {
            0..6 => chain.advance(1 + random.below(1 << 16)),
            6 => memory.pass(),
            7..9 => storm::ports(&mut random, &mut tally),
            9 => storm::registers(&mut random, &mut tally),
            10 => storm::memory(&mut random, &mut tally),
            11 => storm::refused(&mut random, &mut tally),
            12..14 => storm::processors(&mut random),
            14 => storm::timer(&mut random, &mut chain),
            _ => storm::sleep(&mut random),
        }
    }
    let (second, second_lanes) = compute::stop_second();
    let lanes = compute::lanes();
    let over = milliseconds() >= end;
    print(format_args!(
        "result salt={salt:016x} first={:x}:{:016x}:{lanes:016x} second={:x}:{:016x}:{second_lanes:016x} \
         memory={:x}:{:016x}\n",
        chain.steps,
        chain.value,
        second.steps,
        second.value,
        memory.passes,
        memory.sum()
    ));
    print(format_args!(
        "heard timer={:x} other={:x}\n",
        storm::timer_interrupts(),
        storm::processor_interrupts()
    ));
    let handlers = storm::timer_interrupts() + storm::processor_interrupts();
    let count = |ports: u64| {
        let mut line = Line::new();
        // There is room.
        let _ = writeln!(
            line,
            "count salt={salt:016x} unknown={:x} denied={:x} malformed={:x} port={ports:08x} port-string={:x} \
             msr-read={:x} msr-write={:x} memory={:x} cpuid={:x} hypercall={:x} over={}",
            tally.unknown,
            tally.denied,
            tally.malformed,
            STRINGS.get(),
            MSR_READS.get(),
            MSR_WRITES.get() + handlers,
            MEMORY.get(),
            CPUIDS.get(),
            tally.hypercalls,
            u8::from(over),
        );
        line
    };
    // Two accesses for each byte that is printed, one for the wait until all have left, and the one that ends this life.
    let ports = PORTS.get() + 2 * count(0).bytes().len() as u64 + 2;
    Console::write(count(ports).bytes());
    if over {
        machine::power_off();
    }
    Console::finish();
    storm::reset(&mut random)
}

#[panic_handler]
fn panicked(info: &core::panic::PanicInfo<'_>) -> ! {
    print(format_args!("soak failed: {info}\n"));
    machine::power_off()
}
