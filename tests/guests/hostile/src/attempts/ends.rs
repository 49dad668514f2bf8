//! What ends the machine or hangs it: each in a boot of its own. The verdict is what becomes of the compartment.

use super::{Attempt, attempts, say};
use crate::code;
use crate::engine::{self, DATA, Mode, Pointer, State};
use crate::machine::{self, HOLE, set_apic};
use core::arch::asm;

pub const ATTEMPTS: &[Attempt] = attempts![End:
    triple_fault, triple_fault_in_real_mode, halt_with_interrupts_off, push_to_unmapped, walk_page_tables_in_unmapped,
    deliver_through_unmapped_idt, deliver_fault_of_a_store_through_unmapped_idt, load_segment_from_unmapped_gdt, reset_by_port, init_to_itself,
    start_up_to_itself, execute_unmapped_compare, power_off_twice,
];

fn load_idt(limit: u16, base: u64) {
    let pointer = Pointer { limit, base };
    // SAFETY: what follows ends this program.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack)) };
}

/// No gate for the exception, none for #GP, none for #DF: shutdown.
fn triple_fault() {
    load_idt(0, 0);
    let trap = engine::run(Mode::Long, code!("ud2"), State::default());
    say(format_args!("{trap}"));
}

/// The same in real mode: an IDT limit that no vector fits in.
fn triple_fault_in_real_mode() {
    let code = code!(16: "push 0", "push 0", "push 0", "mov bp, sp", "lidt [bp]", "int3");
    let trap = engine::run(Mode::Real, code, State::default());
    say(format_args!("{trap}"));
}

/// Nothing but an NMI could wake it.
fn halt_with_interrupts_off() {
    // SAFETY: that is the attempt.
    unsafe { asm!("cli", "hlt") };
    say(format_args!("awake"));
}

/// PUSH to a hole: an operand that the instruction does not name.
fn push_to_unmapped() {
    let registers = State { rax: 5, rsp: HOLE + 0x100, ..State::default() };
    let trap = engine::run(Mode::Long, code!("push rax", "pop rbx"), registers);
    say(format_args!("{trap} rbx={:x} rsp={:x}", trap.state.rbx, trap.state.rsp));
}

/// CR3 points into a hole: the walk itself leaves memory.
fn walk_page_tables_in_unmapped() {
    machine::set_cr3(HOLE);
    say(format_args!("went on"));
}

/// The gate for an INT3 lies in a hole.
fn deliver_through_unmapped_idt() {
    load_idt(0xfff, HOLE);
    let trap = engine::run(Mode::Long, code!("int3"), State::default());
    say(format_args!("{trap}"));
}

/// The gate for the page fault of a store lies in a hole: what stands at RIP is not what touches it.
fn deliver_fault_of_a_store_through_unmapped_idt() {
    let nowhere = machine::window(0, 0);
    load_idt(0xfff, HOLE);
    let registers = State { rbx: nowhere, rax: 0x1234, ..State::default() };
    let trap = engine::run(Mode::Long, code!("mov [rbx], rax"), registers);
    say(format_args!("{trap}"));
}

/// The descriptor of a segment that is loaded lies in a hole.
fn load_segment_from_unmapped_gdt() {
    // The pointer to the table: limit, base.
    machine::write64(DATA, HOLE << 16 | 0xfff);
    machine::write64(DATA + 8, HOLE >> 48);
    let code = code!("lgdt [rbx]", "mov eax, 0x10", "mov ds, eax");
    let trap = engine::run(Mode::Long, code, State { rbx: DATA, ..State::default() });
    say(format_args!("{trap}"));
}

/// Full reset at port 0xcf9.
fn reset_by_port() {
    machine::port_out(0xcf9, 2);
    machine::port_out(0xcf9, 6);
    crate::interrupts::wait(1_000_000);
    say(format_args!("went on"));
}

/// INIT to itself: it waits for a start-up interrupt that nobody sends.
fn init_to_itself() {
    set_apic(0x310, 0);
    set_apic(0x300, 0x4500);
    crate::interrupts::wait(1_000_000);
    say(format_args!("went on"));
}

/// A start-up interrupt to a processor that runs is dropped; then all others, itself included by the shorthand, get one too.
fn start_up_to_itself() {
    set_apic(0x310, 0);
    set_apic(0x300, 0x4605);
    set_apic(0x300, 0x8_4605);
    crate::interrupts::wait(100_000);
    say(format_args!("went on"));
}

/// CMPXCHG16B on a hole: no device has registers of 16 bytes.
fn execute_unmapped_compare() {
    let registers = State { rbx: HOLE, ..State::default() };
    let trap = engine::run(Mode::Long, code!("lock cmpxchg16b [rbx]"), registers);
    say(format_args!("{trap}"));
}

/// The power is off when the second order comes, or the machine runs on between them; nothing else.
fn power_off_twice() {
    machine::port_out_word(0x604, 5 << 10 | 1 << 13);
    machine::port_out_word(0x604, 5 << 10 | 1 << 13);
    machine::power_off();
}
