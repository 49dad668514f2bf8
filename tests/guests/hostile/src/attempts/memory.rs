//! Guest-physical memory that is not the compartment's: holes, and where the hypervisor's or a neighbour's memory lies in the host.

use super::{Attempt, attempts, say, try_in_modes};
use crate::code;
use crate::engine::{self, Mode, State};
use crate::machine::{self, HOLE, read64, window, write64};

pub const ATTEMPTS: &[Attempt] = attempts![Any:
    read_unmapped, write_unmapped, add_to_unmapped, read_unmapped_in_every_width, read_above_everything,
    copy_from_unmapped,
];
pub const BELOW: &[Attempt] = attempts![Guest:
    execute_unmapped, read_memory_beyond, write_memory_beyond, execute_memory_beyond, read_hypervisor_and_neighbour_memory,
    write_hypervisor_and_neighbour_memory,
];

/// Modes that reach 4 GiB, with a MOV from RBX of four bytes.
const WIDE: [Mode; 5] = [Mode::Long, Mode::LongUser, Mode::Compatible, Mode::CompatibleUser, Mode::Protected];

fn at(rbx: u64) -> State {
    State { rbx, ..State::default() }
}

/// Says the value of RAX in each mode, if it ran to its end.
fn values(code: &[u8], registers: State, expected: u64) {
    let mut others = 0;
    for mode in WIDE {
        let trap = engine::run(mode, code, registers);
        others += u32::from(!trap.is_done() || trap.state.rax & 0xffff_ffff != expected);
    }
    say(format_args!("{expected:x}={} other={others}", WIDE.len() as u32 - others));
}

/// Reads of a hole give all ones, as on a bus where nobody answers.
fn read_unmapped() {
    values(&[0x8b, 0x03], at(HOLE), 0xffff_ffff);
}

/// A write goes nowhere: what is read afterwards is all ones.
fn write_unmapped() {
    values(&[0xc7, 0x03, 0x78, 0x56, 0x34, 0x12, 0x8b, 0x03], at(HOLE), 0xffff_ffff);
}

/// ADD reads and writes: all ones plus 1 is 0, with carry, and nothing stays.
fn add_to_unmapped() {
    // add dword ptr [rbx], 1; sbb eax, eax
    values(&[0x83, 0x03, 0x01, 0x19, 0xc0], at(HOLE), 0xffff_ffff);
}

/// A fetch reads all ones, and FF FF is no instruction.
fn execute_unmapped() {
    try_in_modes(&WIDE, |mode| engine::start_at(mode, HOLE, State::default()));
}

/// MOV and MOVZX of 1, 2, 4 and 8 bytes.
fn read_unmapped_in_every_width() {
    for code in [
        code!("mov al, [rbx]"),
        code!("mov ax, [rbx]"),
        code!("mov eax, [rbx]"),
        code!("mov rax, [rbx]"),
        code!("movzx eax, word ptr [rbx + 1]"),
    ] {
        let trap = engine::run(Mode::Long, code, at(HOLE));
        if trap.is_done() { say(format_args!("{:x}", trap.state.rax)) } else { say(format_args!("{trap}")) }
    }
}

/// The last page that physical addresses reach, of as many bits as CPUID says, and one beyond: a reserved bit of the page table (APM volume 2,
/// section 5.4).
fn read_above_everything() {
    let bits = machine::cpuid(0x8000_0008, 0)[0] as u8;
    let last = (1u64 << bits) - 4096;
    for entry in [last | 7, 1 << bits | 7] {
        let linear = window(0, entry);
        let trap = engine::run(Mode::Long, code!("mov rax, [rbx]"), at(linear));
        if trap.is_done() { say(format_args!("{:x}", trap.state.rax)) } else { say(format_args!("{trap}")) }
    }
}

/// REP MOVSB from a hole to RAM, and to a hole.
fn copy_from_unmapped() {
    write64(engine::DATA, 0);
    let copy = code!("rep movsb");
    let from =
        engine::run(Mode::Long, copy, State { rsi: HOLE, rdi: engine::DATA, rcx: 8, ..State::default() });
    let to =
        engine::run(Mode::Long, copy, State { rsi: engine::DATA, rdi: HOLE, rcx: 8, ..State::default() });
    say(format_args!("{from} {:x} rcx={} {to} rcx={}", read64(engine::DATA), from.state.rcx, to.state.rcx));
}

/// Where this compartment's RAM ends.
const RAM_END: u64 = 64 << 20;
/// The first byte, and every page, behind RAM; and each 64 KiB up to 2 GiB, which is more than the host has.
fn beyond() -> impl Iterator<Item = u64> {
    [RAM_END, RAM_END + 4096, RAM_END + 0x1f_f000].into_iter().chain((RAM_END..2 << 30).step_by(1 << 16))
}

/// Reads all of it: all ones.
fn read_memory_beyond() {
    let other = beyond().filter(|at| read64(*at) != u64::MAX).count();
    say(format_args!("other={other}"));
}

/// Writes to all of it: nothing stays.
fn write_memory_beyond() {
    let mut other = 0;
    for at in beyond() {
        write64(at, 0x5555_aaaa_5555_aaaa);
        other += u32::from(read64(at) != u64::MAX);
    }
    say(format_args!("other={other}"));
}

/// Executes it, page by page of 16 MiB.
fn execute_memory_beyond() {
    let mut other = 0;
    for at in (RAM_END..1 << 30).step_by(1 << 24) {
        let trap = engine::start_at(Mode::Long, at, State::default());
        other += u32::from(trap.state.vector != 6 || trap.state.rip != at);
    }
    say(format_args!("other={other}"));
}

/// Guest-physical addresses as the host has them: from 1 MiB on lies the hypervisor. In this compartment that is its own RAM: what it reads is its
/// own. Above its RAM, with addresses of 40 bits and more, is nothing.
fn read_hypervisor_and_neighbour_memory() {
    let bits = machine::cpuid(0x8000_0008, 0)[0] as u8;
    let mut other = 0;
    for bit in 32..bits {
        for host in (0..1u64 << 30).step_by(1 << 24) {
            other += u32::from(read64(window(1, 1 << bit | host | 7)) != u64::MAX);
        }
    }
    say(format_args!("other={other}"));
}

/// The same, written.
fn write_hypervisor_and_neighbour_memory() {
    let bits = machine::cpuid(0x8000_0008, 0)[0] as u8;
    let mut other = 0;
    for bit in 32..bits {
        for host in (0..1u64 << 30).step_by(1 << 24) {
            let at = window(1, 1 << bit | host | 7);
            write64(at, 0);
            other += u32::from(read64(at) != u64::MAX);
        }
    }
    say(format_args!("other={other}"));
}
