//! The witness: it checks its own memory, registers and time all along, and says how far it has come. What it finds changed, it says, and that ends
//! it. `witness ROUND NUMBER`: the number follows from the round, whatever runs beside it.

use crate::chain::{self, SAID, WORDS};
use crate::console::print;
use crate::engine;
use crate::interrupts;
use crate::machine::{self, now, port_in_double, read_msr, set_apic, write_msr};
use core::arch::asm;

/// Where its memory lies.
const MEMORY: u64 = 16 << 20;
/// The PM timer's port, and its ticks in a second (ACPI 6.5 section 4.8.3.3).
const PM_TIMER: u16 = 0x608;
const PM_RATE: u64 = 3_579_545;
/// Registers that a processor switches or a hypervisor has to: KERNEL_GS_BASE, STAR, LSTAR, CSTAR, SFMASK, SYSENTER_CS, _ESP, _EIP.
const REGISTERS: [u32; 8] =
    [0xc000_0102, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0x174, 0x175, 0x176];
/// The vector of its timer.
const TIMER: u8 = 0x40;

fn wrong(what: core::fmt::Arguments<'_>) -> ! {
    print(format_args!("witness FAILED: {what}\n"));
    machine::power_off()
}

/// Runs until it finds something wrong, or is ended.
pub fn run() -> ! {
    let halves = has_halves();
    print(format_args!("witness begins\nvectors {}\n", if halves { "with AVX" } else { "without AVX" }));
    engine::count(TIMER, true);
    // One shot by the bus clock, divided by 1.
    set_apic(0x3e0, 0xb);
    set_apic(0x320, TIMER.into());
    let (first_tick, mut last_tick) = (now(), now());
    let mut pm_last = port_in_double(PM_TIMER);
    let mut pm_total = 0u64;
    let mut rate = None;
    for round in 1u64.. {
        let number = chain::next(round);
        set_registers(number);
        let vectors = fill_vectors(number, halves);
        let fired = engine::counted(TIMER);
        set_apic(0x380, 100_000);
        // Memory: each word is written, and all are read again at the end.
        let mut value = number;
        let mut sum = 0u64;
        for word in 0..WORDS {
            value = chain::next(value);
            machine::write64(MEMORY + word as u64 * 8, value);
            sum = sum.rotate_left(1) ^ value;
        }
        interrupts::let_in(1);
        let mut value = number;
        for word in 0..WORDS {
            value = chain::next(value);
            let found = machine::read64(MEMORY + word as u64 * 8);
            if found != value {
                wrong(format_args!("word {word} is {found:x}, not {value:x}"));
            }
        }
        while engine::counted(TIMER) == fired {
            interrupts::let_in(10);
        }
        if engine::counted(TIMER) != fired + 1 {
            wrong(format_args!("one timer went off {} times", engine::counted(TIMER) - fired));
        }
        check_vectors(&vectors, halves);
        check_registers(number);
        // Time goes forward, and two clocks agree on how fast.
        let tick = now();
        if tick <= last_tick {
            wrong(format_args!("time went from {last_tick} to {tick}"));
        }
        let pm = port_in_double(PM_TIMER);
        pm_total += u64::from(pm.wrapping_sub(pm_last));
        (pm_last, last_tick) = (pm, tick);
        if pm_total > PM_RATE / 2 {
            let now_rate = (tick - first_tick) as u128 * 1_000_000 / u128::from(pm_total);
            let reference = *rate.get_or_insert(now_rate);
            if now_rate.abs_diff(reference) * 100 > reference {
                wrong(format_args!("the clocks' ratio went from {reference} to {now_rate}"));
            }
        }
        if round % SAID == 0 {
            print(format_args!("witness {round} {sum:016x}\n"));
        }
    }
    wrong(format_args!("the end of numbers"))
}

fn canonical(number: u64) -> u64 {
    number >> 17
}

/// Puts what follows from the number into debug registers and model-specific ones.
fn set_registers(number: u64) {
    machine::set_dr0(number);
    machine::set_dr1(chain::next(number));
    machine::set_dr2(!number);
    machine::set_dr3(number.rotate_left(9));
    machine::set_cr2(number);
    for (index, register) in REGISTERS.iter().enumerate() {
        write_msr(*register, canonical(number.rotate_left(index as u32)));
    }
}

fn check_registers(number: u64) {
    let found = [machine::dr0(), machine::dr1(), machine::dr2(), machine::dr3(), machine::cr2()];
    let expected = [number, chain::next(number), !number, number.rotate_left(9), number];
    if found != expected {
        wrong(format_args!("debug registers and CR2 are {found:x?}, not {expected:x?}"));
    }
    for (index, register) in REGISTERS.iter().enumerate() {
        let (found, expected) = (read_msr(*register), canonical(number.rotate_left(index as u32)));
        // SFMASK has 32 bits, SYSENTER_CS 16.
        let mask = match *register {
            0xc000_0084 => 0xffff_ffff,
            0x174 => 0xffff,
            _ => u64::MAX,
        };
        if found & mask != expected & mask {
            wrong(format_args!("register {register:x} is {found:x}, not {expected:x}"));
        }
    }
}

/// Vector registers in the form that XSAVE has (APM volume 2, section 11.5): what FXSAVE has, a header, the upper halves of YMM0 to YMM15.
#[repr(C, align(64))]
struct Vectors([u8; 832]);

/// XCR0 and XSAVE's masks: x87, SSE, AVX.
const STATES: u32 = 7;

/// Turns AVX on, if the processor has it (CPUID Fn0000_0001_ECX, bits 26 and 28); says whether.
fn has_halves() -> bool {
    let has = machine::cpuid(1, 0)[2] & (1 << 26 | 1 << 28) == 1 << 26 | 1 << 28;
    if has {
        machine::set_cr4(machine::cr4() | 1 << 18);
        // SAFETY: CR4.OSXSAVE is on, and the value is legal.
        unsafe {
            asm!("xsetbv", in("ecx") 0, in("eax") STATES, in("edx") 0, options(nomem, nostack, preserves_flags));
        }
    }
    has
}

/// Fills the x87, SSE and AVX registers; gives their image. This program uses none of them: it is compiled without.
fn fill_vectors(mut number: u64, halves: bool) -> Vectors {
    let mut image = Vectors([0; 832]);
    image.0[..2].copy_from_slice(&0x37f_u16.to_le_bytes());
    image.0[4] = 0xff;
    image.0[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
    image.0[512] = STATES as u8;
    for (index, piece) in image.0[32..416].chunks_mut(16).enumerate() {
        number = chain::next(number);
        piece[..8].copy_from_slice(&number.to_le_bytes());
        // Of an x87 register 80 bits count.
        let high = if index < 8 { number & 0x7fff } else { !number };
        piece[8..].copy_from_slice(&high.to_le_bytes());
    }
    for piece in image.0[576..].chunks_mut(8) {
        number = chain::next(number);
        piece.copy_from_slice(&number.to_le_bytes());
    }
    // SAFETY: the image is legal, and nothing else uses these registers.
    unsafe {
        if halves {
            asm!("xrstor64 [{}]", in(reg) &raw const image, in("eax") STATES, in("edx") 0, options(nostack));
        } else {
            asm!("fxrstor64 [{}]", in(reg) &raw const image, options(nostack));
        }
    }
    image
}

fn check_vectors(expected: &Vectors, halves: bool) {
    let mut found = Vectors([0; 832]);
    // SAFETY: the image has room for all that is saved.
    unsafe {
        if halves {
            asm!("xsave64 [{}]", in(reg) &raw mut found, in("eax") STATES, in("edx") 0, options(nostack));
        } else {
            asm!("fxsave64 [{}]", in(reg) &raw mut found, options(nostack));
        }
    }
    if found.0[32..416] != expected.0[32..416] || halves && found.0[576..] != expected.0[576..] {
        wrong(format_args!("vector registers have changed"));
    }
}
