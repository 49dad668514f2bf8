//! Single steps and debug registers across exits.

use super::{Attempt, CR4, attempts, say};
use crate::code;
use crate::engine::{self, CODE, DATA, Mode, State};
use crate::machine::{self, HOLE};

pub const ATTEMPTS: &[Attempt] = attempts![Any:
    step_over_every_exit, step_over_every_exit_in_every_mode, step_over_repeated_port_access, step_over_fault, step_over_stack_segment_load,
    step_behind_popf, break_on_execution_of_exit, resume_over_break_on_execution, break_on_data, break_on_unmapped_data, break_on_port,
    detect_debug_register_access, keep_debug_registers_across_exits,
];

const TRAP: u64 = 1 << 8;
const STEPPED: u64 = 1 << 14;

/// Instructions that exit, with a name: RBX points to a hole, DX to a port that nobody claims, ECX to the APIC base.
const EXITS: [(&str, &[u8]); 9] = [
    ("cpuid", &[0x0f, 0xa2]),
    ("in", &[0xec]),
    ("out", &[0xee]),
    ("rdmsr", &[0x0f, 0x32]),
    ("load", &[0x8b, 0x03]),
    ("store", &[0x89, 0x03]),
    ("lmsw", &[0x0f, 0x01, 0xf0]),
    ("wbinvd", &[0x0f, 0x09]),
    ("clts", &[0x0f, 0x06]),
];

fn prepared(flags: u64) -> State {
    State { rax: 0x8000_0033, rbx: HOLE, rcx: 0x1b, rdx: 0x2f0, flags, ..State::default() }
}

fn step_over_every_exit() {
    for (name, code) in EXITS {
        machine::set_dr6(0);
        let trap = engine::run(Mode::Long, code, prepared(TRAP));
        say(format_args!("{name}={trap}{}", if trap.dr6 & STEPPED == 0 { "?" } else { "" }));
    }
}

/// What ends otherwise than by #DB behind the instruction, DR6.BS set.
fn step_over_every_exit_in_every_mode() {
    let mut other = 0;
    for mode in [Mode::Compatible, Mode::Compatible16, Mode::Protected, Mode::Protected16, Mode::Real] {
        for (name, code) in EXITS {
            // The hole lies beyond 64 KiB; LMSW with PE would leave real mode.
            if !mode.is_tried() {
                continue;
            }
            let short = matches!(mode, Mode::Compatible16 | Mode::Protected16 | Mode::Real);
            if short && matches!(name, "load" | "store") || mode == Mode::Real && name == "lmsw" {
                continue;
            }
            machine::set_dr6(0);
            let trap = engine::run(mode, code, prepared(TRAP));
            let behind = trap.state.rip.wrapping_sub(CODE) == code.len() as u64;
            if trap.state.vector != 1 || !behind || trap.dr6 & STEPPED == 0 {
                other += 1;
                say(format_args!("{}:{name}={trap}", mode.name()));
            }
        }
    }
    say(format_args!("other={other}"));
}

/// A repeated instruction is stepped element by element (APM volume 2, section 13.1.4).
fn step_over_repeated_port_access() {
    let registers = State { rdi: DATA, rcx: 3, rdx: 0x2f0, flags: TRAP, ..State::default() };
    let first = engine::run(Mode::Long, code!("rep insb"), registers);
    let last = engine::run(Mode::Long, code!("rep insb"), State { rcx: 1, ..registers });
    say(format_args!("{first} rcx={} {last} rcx={}", first.state.rcx, last.state.rcx));
}

/// An instruction that faults is not stepped over.
fn step_over_fault() {
    say(format_args!("{}", engine::run(Mode::Long, code!("vmmcall"), prepared(TRAP))));
    let unknown = State { rcx: 0x1ffe, ..prepared(TRAP) };
    say(format_args!("{}", engine::run(Mode::Long, code!("rdmsr"), unknown)));
}

/// MOV to SS holds the trap back until the instruction behind it is done, which exits.
fn step_over_stack_segment_load() {
    let code = code!("mov ss, esi", "cpuid", "nop");
    say(format_args!("{}", engine::run(Mode::Long, code, State { rsi: 0x10, ..prepared(TRAP) })));
}

/// POPF that sets TF: the first trap comes behind the instruction that follows.
fn step_behind_popf() {
    let code = code!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "cpuid", "nop");
    say(format_args!("{}", engine::run(Mode::Long, code, prepared(0))));
}

/// An instruction breakpoint on CPUID: a fault, before the exit.
fn break_on_execution_of_exit() {
    machine::set_dr0(CODE);
    machine::set_dr6(0);
    machine::set_dr7(0x402);
    let trap = engine::run(Mode::Long, code!("cpuid"), prepared(0));
    machine::set_dr7(0x400);
    say(format_args!("{trap} dr6={:x}", trap.dr6 & 0xf));
}

/// RF lets it pass once, across the exit.
fn resume_over_break_on_execution() {
    machine::set_dr0(CODE);
    machine::set_dr7(0x402);
    let trap = engine::run(Mode::Long, code!("cpuid"), prepared(1 << 16));
    machine::set_dr7(0x400);
    say(format_args!("{trap}"));
}

fn on_data(address: u64, code: &[u8]) {
    machine::set_dr1(address);
    machine::set_dr6(0);
    // Breakpoint 1: reads and writes of four bytes.
    machine::set_dr7(0x400 | 1 << 3 | 0xf << 20);
    let trap = engine::run(Mode::Long, code, State { rbx: address, ..prepared(0) });
    machine::set_dr7(0x400);
    say(format_args!("{trap} dr6={:x}", trap.dr6 & 0xf));
}

fn break_on_data() {
    on_data(DATA, code!("mov eax, [rbx]", "nop"));
}

fn break_on_unmapped_data() {
    on_data(HOLE, code!("mov eax, [rbx]", "nop"));
}

/// CR4.DE and a breakpoint on a port.
fn break_on_port() {
    machine::set_cr4(CR4 | 8);
    machine::set_dr2(0x2f0);
    machine::set_dr6(0);
    machine::set_dr7(0x400 | 1 << 5 | 2 << 24);
    let trap = engine::run(Mode::Long, code!("in al, dx", "nop"), prepared(0));
    machine::set_dr7(0x400);
    say(format_args!("{trap} dr6={:x}", trap.dr6 & 0xf));
}

/// DR7.GD: the next access is a fault, DR6.BD says so, and GD is gone in the handler.
fn detect_debug_register_access() {
    machine::set_dr6(0);
    machine::set_dr7(0x2400);
    let trap = engine::run(Mode::Long, code!("mov rax, dr0"), prepared(0));
    let left = machine::dr7();
    say(format_args!("{trap} dr6={:x} dr7={left:x}", trap.dr6 & 0x2000));
    machine::set_dr6(0xffff_0ff0);
}

fn keep_debug_registers_across_exits() {
    let mut other = 0;
    for round in 1..200u64 {
        let [first, second, third, fourth] =
            [1, 2, 3, 4].map(|place| round.wrapping_mul(0x0123_4567_89ab_cdef) ^ place);
        machine::set_dr0(first);
        machine::set_dr1(second);
        machine::set_dr2(third);
        machine::set_dr3(fourth);
        machine::cpuid(0, 0);
        machine::port_in(0x2f0);
        let found = [machine::dr0(), machine::dr1(), machine::dr2(), machine::dr3()];
        other += u32::from(found != [first, second, third, fourth]);
    }
    say(format_args!("other={other}"));
}
