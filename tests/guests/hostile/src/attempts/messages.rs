//! Interrupts: to itself, to nobody, too many, with vectors that are none; the local APIC's registers and modes.

use super::{Attempt, attempts, say};
use crate::code;
use crate::engine::{self, Mode, State};
use crate::interrupts::{ENDED, let_in, quiet, wait};
use crate::machine::{APIC, apic, read_msr, set_apic, write_msr};
use core::sync::atomic::Ordering;

pub const ATTEMPTS: &[Attempt] = attempts![Any:
    send_nmi_to_itself, send_nmi_in_nmi, send_interrupt_to_itself, send_every_vector_to_itself, storm_of_interrupts_to_itself,
    storm_of_interrupts_without_end, storm_to_absent_processors, storm_to_everybody, send_reserved_delivery_modes,
    raise_task_priority, end_interrupts_that_are_none, write_read_only_apic_registers, read_reserved_apic_registers,
];
pub const BELOW: &[Attempt] = attempts![Guest:
    send_illegal_vectors,
    storm_of_timers, timer_with_illegal_vector,
    write_every_apic_register, access_apic_in_every_width, change_apic_modes_in_every_order, read_every_x2apic_register, move_apic_page,
    deadline_storm, start_up_absent_processors, init_absent_processors,
];
pub const ENDS: &[Attempt] = attempts![End: send_init_to_everybody, halt_with_masked_timer];

const VECTOR: u8 = 0x50;

/// Lets NMIs come, counted.
fn counting<R>(vector: u8, run: impl FnOnce() -> R) -> (R, u32) {
    engine::count(vector, true);
    let result = run();
    let count = engine::counted(vector);
    engine::count(vector, false);
    (result, count)
}

fn send(low: u32, high: u32) {
    set_apic(0x310, high);
    set_apic(0x300, low);
}

/// One by the destination, two by the shorthand.
fn send_nmi_to_itself() {
    let ((), count) = counting(2, || {
        for _ in 0..3 {
            send(0x4400, 0);
            wait(1000);
        }
    });
    say(format_args!("count={count}"));
}

/// A second one waits until the handler of the first returns; a third is lost in the second.
fn send_nmi_in_nmi() {
    // The engine's own handler of a trap that is not counted leaves by IRET: three in a row are at most two that come.
    let code = code!(
        "mov dword ptr [rbx], 0x4400",
        "mov dword ptr [rbx], 0x4400",
        "mov dword ptr [rbx], 0x4400",
        "nop"
    );
    let registers = State { rbx: APIC + 0x300, ..State::default() };
    set_apic(0x310, 0);
    let (trap, count) = counting(2, || engine::run(Mode::Long, code, registers));
    say(format_args!("{trap} {}", if (1..=3).contains(&count) { "came" } else { "none" }));
}

fn send_interrupt_to_itself() {
    let ((), count) = counting(VECTOR, || {
        send(0x4000 | u32::from(VECTOR), 0);
        let_in(100);
        set_apic(0x300, 0x4_4000 | u32::from(VECTOR));
        let_in(100);
    });
    say(format_args!("count={count}"));
}

/// From 16 on, by the shorthand: each comes once. Those below are an error (SDM 3A section 11.5.3).
fn send_every_vector_to_itself() {
    let mut other = 0;
    for vector in 32..=255u8 {
        let ((), count) = counting(vector, || {
            set_apic(0x300, 0x4_4000 | u32::from(vector));
            let_in(20);
        });
        other += u32::from(count != 1);
    }
    say(format_args!("other={other}"));
}

fn send_illegal_vectors() {
    let mut errors = 0;
    for vector in 0..16 {
        set_apic(0x280, 0);
        set_apic(0x300, 0x4_4000 | vector);
        set_apic(0x280, 0);
        errors += u32::from(apic(0x280) & 1 << 5 != 0);
    }
    let_in(20);
    say(format_args!("errors={errors}"));
}

/// Many at once, of all priorities, while interrupts are off: each vector comes once.
fn storm_of_interrupts_to_itself() {
    for vector in 0x30..=0xfe {
        engine::count(vector, true);
    }
    for _ in 0..50 {
        for vector in 0x30..=0xfeu32 {
            set_apic(0x300, 0x4_4000 | vector);
        }
    }
    let_in(3000);
    let mut other = 0;
    for vector in 0x30..=0xfe {
        other += u32::from(engine::counted(vector) != 1);
        engine::count(vector, false);
    }
    say(format_args!("other={other}"));
}

/// Handlers that end nothing: one of each class of priority nests into the one before, and then nothing more comes.
fn storm_of_interrupts_without_end() {
    ENDED.store(false, Ordering::Relaxed);
    let ((), count) = counting(VECTOR, || {
        for _ in 0..1000 {
            set_apic(0x300, 0x4_4000 | u32::from(VECTOR));
            let_in(2);
        }
    });
    ENDED.store(true, Ordering::Relaxed);
    let in_service = apic(0x100 + 0x10 * (u64::from(VECTOR) / 32)) >> (VECTOR % 32) & 1;
    quiet();
    say(format_args!("count={count} in-service={in_service}"));
}

/// Fixed, NMI, INIT and start-up to every id that nobody has, physical and logical.
fn storm_to_absent_processors() {
    for round in 0..4 {
        for id in 1..=0xfeu32 {
            for mode in [0x4050, 0x4450, 0x4650] {
                send(mode, id << 24);
                if round == 0 {
                    send(mode | 0x800, id << 24 & 0xfe00_0000);
                }
            }
        }
    }
    let_in(100);
    say(format_args!("pending={}", pending()));
}

/// Whether a command is still on its way: bit 12 of the interrupt command register.
fn pending() -> u32 {
    apic(0x300) >> 12 & 1
}

/// All but itself: nobody. Fixed and NMI.
fn storm_to_everybody() {
    let ((), count) = counting(VECTOR, || {
        for _ in 0..1000 {
            set_apic(0x300, 0xc_4000 | u32::from(VECTOR));
            set_apic(0x300, 0xc_4400);
            set_apic(0x300, 0xc_4600);
        }
        let_in(100);
    });
    say(format_args!("count={count}"));
}

/// Delivery modes 3 and 7, and lowest priority with the shorthand; SMI.
fn send_reserved_delivery_modes() {
    let ((), count) = counting(VECTOR, || {
        for mode in [0x300, 0x700, 0x200] {
            for shorthand in [0, 0xc_0000] {
                send(0x4000 | mode | shorthand | u32::from(VECTOR), 0xff00_0000 & !0xff00_0000);
            }
        }
        let_in(50);
    });
    say(format_args!("count={count}"));
}

/// Periodic, count 1, divided by 1: as fast as it goes. It goes on, and so does the code.
fn storm_of_timers() {
    let ((), count) = counting(VECTOR, || {
        set_apic(0x3e0, 0xb);
        set_apic(0x320, 1 << 17 | u32::from(VECTOR));
        set_apic(0x380, 1);
        let mut rounds = 0;
        while engine::counted(VECTOR) < 100 && rounds < 100_000 {
            let_in(100);
            rounds += 1;
        }
        set_apic(0x320, 0x1_0000);
        set_apic(0x380, 0);
        let_in(50);
    });
    say(format_args!("{}", if count >= 100 { "came" } else { "too-few" }));
}

/// A timer entry with a vector below 16: an error when it goes off, and no interrupt.
fn timer_with_illegal_vector() {
    set_apic(0x280, 0);
    set_apic(0x280, 0);
    set_apic(0x3e0, 0xb);
    set_apic(0x320, 7);
    set_apic(0x380, 10);
    wait(100_000);
    set_apic(0x380, 0);
    set_apic(0x280, 0);
    say(format_args!("errors={:x}", apic(0x280)));
}

/// An interrupt below the task's priority waits; one above comes.
fn raise_task_priority() {
    engine::count(0x90, true);
    let ((), below) = counting(VECTOR, || {
        set_apic(0x80, 0x80);
        set_apic(0x300, 0x4_4000 | u32::from(VECTOR));
        set_apic(0x300, 0x4_4090);
        let_in(100);
    });
    let above = engine::counted(0x90);
    let ((), later) = counting(VECTOR, || {
        set_apic(0x80, 0);
        let_in(100);
    });
    engine::count(0x90, false);
    say(format_args!("below={below} above={above} later={later}"));
}

/// The end of an interrupt when none is in service: nothing.
fn end_interrupts_that_are_none() {
    for value in [0, 1, u32::MAX] {
        for _ in 0..100 {
            set_apic(0xb0, value);
        }
    }
    let left = (0..8).fold(0, |all, index| all | apic(0x100 + index * 0x10) | apic(0x200 + index * 0x10));
    say(format_args!("left={left:x}"));
}

fn write_read_only_apic_registers() {
    let mut changed = 0;
    for offset in [0x30, 0xa0, 0x100, 0x180, 0x200, 0x390] {
        let old = apic(offset);
        set_apic(offset, !old);
        changed += u32::from(apic(offset) != old);
    }
    say(format_args!("changed={changed}"));
}

/// Registers that are reserved read as zero, and are an error.
fn read_reserved_apic_registers() {
    set_apic(0x280, 0);
    set_apic(0x280, 0);
    let mut other = 0;
    for offset in [0x00, 0x10, 0x40, 0x50, 0x60, 0x70, 0x3a0, 0x3b0, 0x3c0, 0x3d0] {
        other += u32::from(apic(offset) != 0);
    }
    set_apic(0x280, 0);
    say(format_args!("other={other} errors={:x}", apic(0x280)));
}

/// All ones, zeros and a pattern into each of the 64 registers but the command, then back to what they are here.
fn write_every_apic_register() {
    for offset in (0..0x1000).step_by(16).filter(|offset| !matches!(offset, 0x300 | 0x310)) {
        for value in [u32::MAX, 0, 0x5555_5555] {
            set_apic(offset, value);
        }
    }
    set_apic(0x20, 0);
    set_apic(0xd0, 0);
    set_apic(0xe0, u32::MAX);
    quiet();
    say(format_args!("{:x} {:x}", apic(0x30), apic(0xf0)));
}

/// Only aligned accesses of four bytes are defined (SDM 3A section 11.4.1): others write nothing.
fn access_apic_in_every_width() {
    let mut other = 0;
    let codes = [
        code!("mov [rbx], al"),
        code!("mov [rbx], ax"),
        code!("mov [rbx], rax"),
        code!("mov [rbx + 2], eax"),
        code!("mov [rbx + 4], eax"),
    ];
    for code in codes {
        let trap =
            engine::run(Mode::Long, code, State { rax: u64::MAX, rbx: APIC + 0x80, ..State::default() });
        other += u32::from(!trap.is_done() || apic(0x80) != 0);
    }
    say(format_args!("other={other}"));
}

/// Off, xAPIC, x2APIC and what lies between: which changes of the base register are #GP (SDM 3A section 11.12.5).
fn change_apic_modes_in_every_order() {
    let base = read_msr(0x1b);
    let modes = [0u64, 1 << 11, 1 << 10, 3 << 10];
    for from in modes {
        for to in modes {
            write_msr(0x1b, base & !(3 << 10));
            let reached = write_mode(base, 1 << 11)
                && (from != 3 << 10 || write_mode(base, from))
                && (from != 0 || write_mode(base, 0));
            let taken = reached && from != 1 << 10 && write_mode(base, to);
            if from != 1 << 10 {
                crate::console::print(format_args!("{}", if taken { " yes" } else { " no" }));
            }
        }
    }
    write_msr(0x1b, base & !(3 << 10));
    write_msr(0x1b, base);
    quiet();
}

fn write_mode(base: u64, mode: u64) -> bool {
    let value = base & !(3 << 10) | mode;
    let registers = State { rcx: 0x1b, rax: value & 0xffff_ffff, rdx: value >> 32, ..State::default() };
    engine::run(Mode::Long, code!("wrmsr"), registers).is_done()
}

/// In x2APIC mode: which of 0x800 to 0x8ff can be read; and the page is gone.
fn read_every_x2apic_register() {
    let base = read_msr(0x1b);
    write_msr(0x1b, base | 3 << 10);
    let mut readable = [0u32; 8];
    engine::place(code!("rdmsr"));
    for number in 0..256u32 {
        let trap = engine::start_at(
            Mode::Long,
            engine::CODE,
            State { rcx: u64::from(0x800 + number), ..State::default() },
        );
        readable[number as usize / 32] |= u32::from(trap.is_done()) << (number % 32);
    }
    let page = crate::machine::read32(APIC + 0x30);
    write_msr(0x1b, base & !(3 << 10));
    write_msr(0x1b, base);
    quiet();
    say(format_args!(
        "{:08x} {:08x} others={:x} page={page:x}",
        readable[0],
        readable[1],
        readable[2..].iter().fold(0, |all, word| all | word)
    ));
}

/// The page is moved over this compartment's RAM, into a hole, and beyond physical addresses.
fn move_apic_page() {
    let base = read_msr(0x1b);
    let flags = base & 0xfff;
    for place in [0x60_0000, 0xd000_0000, 1 << 40, 1 << 51] {
        let value = place | flags;
        let registers = State { rcx: 0x1b, rax: value & 0xffff_ffff, rdx: value >> 32, ..State::default() };
        let trap = engine::run(Mode::Long, code!("wrmsr"), registers);
        if trap.is_done() {
            let there = if place < 1 << 32 { crate::machine::read32(place + 0x30) } else { 0 };
            say(format_args!("{there:x}"));
        } else {
            say(format_args!("{trap}"));
        }
        write_msr(0x1b, base);
    }
    quiet();
}

/// The deadline always in the past.
fn deadline_storm() {
    let ((), count) = counting(VECTOR, || {
        set_apic(0x320, 2 << 17 | u32::from(VECTOR));
        for deadline in [1, u64::MAX, 1 << 63, 2] {
            for _ in 0..200 {
                write_msr(0x6e0, deadline);
                let_in(3);
            }
        }
        set_apic(0x320, 0x1_0000);
        write_msr(0x6e0, 0);
    });
    say(format_args!("count={count}"));
}

/// Start-up to ids that nobody has, and with every vector.
fn start_up_absent_processors() {
    for vector in 0..256u32 {
        send(0x4600 | vector, (1 + vector % 0xfe) << 24);
    }
    say(format_args!("pending={}", pending()));
}

fn init_absent_processors() {
    for id in 1..=0xfeu32 {
        send(0x4500, id << 24);
        send(0x8500, id << 24);
    }
    say(format_args!("pending={}", pending()));
}

/// INIT to all, itself included.
fn send_init_to_everybody() {
    set_apic(0x300, 0x8_4500);
    wait(1_000_000);
    say(format_args!("went on"));
}

/// HLT with interrupts on and every source masked: it waits for good, and nobody else is held up.
fn halt_with_masked_timer() {
    set_apic(0x300, 0xc_4500);
    // SAFETY: that is the attempt.
    unsafe { core::arch::asm!("cli", "hlt") };
    say(format_args!("awake"));
}
