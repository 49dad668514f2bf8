//! Instructions of unusual form: long ones, ones that cross pages, that change while they execute, and that reach device memory in odd ways.

use super::{Attempt, attempts, everywhere, in_modes, say};
use crate::code;
use crate::engine::{self, CODE, DATA, DONE, EMPTY, Mode, State};
use crate::machine::{self, HOLE, window, write64};

pub const ATTEMPTS: &[Attempt] = attempts![Any:
    execute_15_bytes, execute_16_bytes, access_memory_by_15_bytes, lock_cpuid, lock_load_from_unmapped, lock_in, lock_mov_from_cr0, cross_pages_in_an_exit,
    cross_into_a_page_that_is_not_there, end_at_the_end_of_memory_that_is_mapped, modify_the_next_instruction, access_across_a_page_of_registers,
    access_registers_through_wrapped_address, write_beyond_a_segment,
];
pub const BELOW: &[Attempt] = attempts![Guest:
    move_from_unmapped, compute_with_unmapped, repeat_on_unmapped, cross_pages_in_an_access, change_the_page_under_an_access, compare_and_exchange_unmapped,
];
pub const ENDS: &[Attempt] =
    attempts![End: load_vector_from_unmapped, load_x87_from_unmapped, call_through_unmapped, shift_unmapped];

/// CPUID behind as many segment prefixes as fit: 15 bytes are the most.
fn execute_15_bytes() {
    let mut code = [0x2e; 15];
    code[13..].copy_from_slice(&[0x0f, 0xa2]);
    everywhere(&code, EMPTY);
}

fn execute_16_bytes() {
    let mut code = [0x2e; 16];
    code[14..].copy_from_slice(&[0x0f, 0xa2]);
    everywhere(&code, EMPTY);
}

/// MOV of EAX from a hole behind 13 prefixes, then behind 14.
fn access_memory_by_15_bytes() {
    let mut code = [0x2e; 16];
    code[14..].copy_from_slice(&[0x8b, 0x03]);
    for skip in [1, 0] {
        in_modes(
            &[Mode::Long, Mode::Compatible, Mode::Protected],
            &code[skip..],
            State { rbx: HOLE, ..EMPTY },
        );
    }
}

/// LOCK in front of what it does not go with: #UD, whatever the instruction would have done.
fn lock_cpuid() {
    everywhere(&[0xf0, 0x0f, 0xa2], EMPTY);
}

fn lock_load_from_unmapped() {
    in_modes(
        &[Mode::Long, Mode::LongUser, Mode::Compatible, Mode::Protected],
        &[0xf0, 0x8b, 0x03],
        State { rbx: HOLE, ..EMPTY },
    );
}

fn lock_in() {
    in_modes(
        &[Mode::Long, Mode::Compatible, Mode::Protected, Mode::Real],
        &[0xf0, 0xec],
        State { rdx: 0x2f0, ..EMPTY },
    );
}

/// In 32-bit code this is another name of CR8, where CPUID shows AltMovCr8.
fn lock_mov_from_cr0() {
    in_modes(&[Mode::Long, Mode::Compatible, Mode::Protected, Mode::Real], &[0xf0, 0x0f, 0x20, 0xc0], EMPTY);
}

/// Two pages of the window, of frames that do not lie side by side, with `code` across their border at `offset`, what ends it behind it.
fn across(code: &[u8], offset: u64) -> u64 {
    let start = window(8, 0x2_0000 | 7);
    window(9, 0x2_8000 | 7);
    for (index, byte) in code.iter().copied().chain([0xcd, DONE]).enumerate() {
        // SAFETY: the frames are free low memory, and mapped.
        unsafe { ((start + offset + index as u64) as *mut u8).write_volatile(byte) };
    }
    start + offset
}

/// CPUID, RDMSR, WRMSR, MOV of CR4 and of CR8, each at every offset across the border.
fn cross_pages_in_an_exit() {
    let mut other = 0;
    let codes = [
        code!("cpuid"),
        code!("rdmsr"),
        code!("in al, dx"),
        code!("mov rax, cr4"),
        code!("mov rax, cr8"),
        code!("wbinvd"),
        code!("rep insb"),
        code!("smsw eax"),
    ];
    for code in codes {
        for before in 0..=code.len() as u64 {
            let start = across(code, 4096 - before);
            let registers = State { rcx: 0x1b, rdx: 0x2f0, rdi: DATA, ..EMPTY };
            let trap = engine::start_at(Mode::Long, start, registers);
            other += u32::from(!trap.is_done() || trap.state.rip != start + code.len() as u64 + 2);
        }
    }
    say(format_args!("other={other}"));
}

/// Accesses to a hole, each at every offset across the border.
fn cross_pages_in_an_access() {
    let mut other = 0;
    for code in [
        code!("mov eax, [rbx]"),
        code!("mov rax, [rbx + rcx * 8 + 0x12345]"),
        code!("movzx eax, byte ptr [rbx]"),
        code!("mov dword ptr [rbx], 0x12345678"),
        code!("add dword ptr [rbx], 0x7f"),
        code!("rep stosd"),
        code!("mov eax, fs:[rbx]"),
    ] {
        for before in 0..=code.len() as u64 {
            let start = across(code, 4096 - before);
            let trap = engine::start_at(Mode::Long, start, State { rbx: HOLE, rdi: HOLE, rcx: 1, ..EMPTY });
            other += u32::from(!trap.is_done() || trap.state.rip != start + code.len() as u64 + 2);
        }
    }
    say(format_args!("other={other}"));
}

/// The second half lies in a page that is not there.
fn cross_into_a_page_that_is_not_there() {
    for code in [code!("cpuid"), code!("mov eax, [rbx]")] {
        let start = across(code, 4095);
        window(9, 0);
        say(format_args!("{}", engine::start_at(Mode::Long, start, State { rbx: HOLE, ..EMPTY })));
    }
}

/// The last bytes of a page, and nothing behind it: what is fetched to decode them must not be looked for there.
fn end_at_the_end_of_memory_that_is_mapped() {
    for code in [code!("cpuid"), code!("mov eax, [rbx]"), code!("rdmsr")] {
        let start = across(code, 4096 - code.len() as u64);
        window(9, 0);
        let trap = engine::start_at(Mode::Long, start, State { rbx: HOLE, rcx: 0x1b, ..EMPTY });
        say(format_args!("{trap}"));
    }
}

/// A store changes the instruction behind it, which exits, into another that exits: the new one is executed (APM volume 2, section 7.6.1).
fn modify_the_next_instruction() {
    // mov word ptr [rbx], 0x320f; 2: cpuid becomes rdmsr
    let code = [0x66, 0xc7, 0x03, 0x0f, 0x32, 0x0f, 0xa2];
    let trap = engine::run(Mode::Long, &code, State { rbx: CODE + 5, rcx: 0x277, ..EMPTY });
    say(format_args!("{trap} {:x}", trap.state.rdx << 32 | trap.state.rax));
}

/// Four bytes of which two lie in the local APIC's page and two behind it.
fn access_across_a_page_of_registers() {
    let trap = engine::run(Mode::Long, code!("mov eax, [rbx]"), State { rbx: 0xfee0_0ffe, ..EMPTY });
    say(format_args!("{trap}"));
}

/// Addresses that wrap at 4 GiB in 32-bit code, and at 2^64 beyond what is canonical.
fn access_registers_through_wrapped_address() {
    let code = [0x8b, 0x84, 0x0b, 0x30, 0, 0, 0];
    let trap = engine::run(Mode::Compatible, &code, State { rbx: 0xfee0_0000, rcx: 0, ..EMPTY });
    let wrapped = engine::run(Mode::Compatible, &code, State { rbx: 0xffff_fff0, rcx: 0xfee0_0010, ..EMPTY });
    say(format_args!("{trap} {wrapped} alike={}", trap.state.rax == wrapped.state.rax));
    let beyond = engine::run(Mode::Long, code!("mov eax, [rbx]"), State { rbx: 1 << 47, ..EMPTY });
    let stack = engine::run(Mode::Long, code!("mov eax, [rbp]"), State { rbp: 1 << 47, ..EMPTY });
    say(format_args!("{beyond} {stack}"));
}

/// 16-bit code with a limit of 64 KiB: OUTS from behind it.
fn write_beyond_a_segment() {
    let code = code!(16: "mov ax, 0x48", "mov ds, ax", "mov esi, 0x10000", "mov dx, 0x2f0", ".byte 0x67, 0x6e", "nop");
    in_modes(&[Mode::Compatible16, Mode::Protected16], code, EMPTY);
}

/// Says what instructions on a hole leave in RAX.
fn forms(forms: &[(&str, &[u8])]) {
    for (name, code) in forms {
        let registers = State { rax: 0x1234_5678, rbx: HOLE, rsi: HOLE, rdi: HOLE, rcx: 4, ..EMPTY };
        let trap = engine::run(Mode::Long, code, registers);
        if trap.is_done() {
            say(format_args!("{name}={:x}", trap.state.rax));
        } else {
            say(format_args!("{name}={trap}"));
        }
    }
}

fn move_from_unmapped() {
    forms(&[
        ("mov", code!("mov eax, [rbx]")),
        ("movsx", code!("movsx eax, byte ptr [rbx]")),
        ("movsxd", code!("movsxd rax, dword ptr [rbx]")),
        ("xchg", code!("xchg [rbx], eax")),
        ("xadd", code!("lock xadd [rbx], eax")),
        ("moffs", &[0x48, 0xa1, 0, 0, 0, 0xd0, 0, 0, 0, 0]),
    ]);
}

fn compute_with_unmapped() {
    forms(&[
        ("and", code!("and eax, [rbx]")),
        ("sub", code!("sub eax, [rbx]")),
        ("cmp", code!("cmp [rbx], eax", "setb al")),
        ("test", code!("test dword ptr [rbx], 1", "setnz al")),
        ("inc", code!("lock inc dword ptr [rbx]", "setz al")),
        ("not", code!("not byte ptr [rbx]", "mov al, [rbx]")),
        ("bts", code!("lock bts dword ptr [rbx], 3", "setc al")),
    ]);
}

fn repeat_on_unmapped() {
    forms(&[
        ("lods", code!("lodsb")),
        ("scas", code!("repe scasb", "mov al, cl")),
        ("stos", code!("rep stosb", "mov al, cl")),
        ("cmps", code!("repe cmpsb", "mov al, cl")),
        ("movs", code!("rep movsb", "mov al, cl")),
        ("push-pop", code!("push qword ptr [rbx]", "pop rax")),
    ]);
}

fn compare_and_exchange_unmapped() {
    let equal = engine::run(
        Mode::Long,
        code!("lock cmpxchg [rbx], ecx", "setz al"),
        State { rax: 0xffff_ffff, rbx: HOLE, ..EMPTY },
    );
    let other =
        engine::run(Mode::Long, code!("lock cmpxchg [rbx], ecx"), State { rax: 7, rbx: HOLE, ..EMPTY });
    say(format_args!("{equal} {:x} {other} {:x}", equal.state.rax & 0xff, other.state.rax));
}

/// The page table changes under an access to a hole, without INVLPG: the processor may have fetched the old bytes, whoever decodes them sees
/// the new ones. Either is right; nothing else is.
fn change_the_page_under_an_access() {
    let access = code!("mov [rdx], rsi", "mov eax, [rbx]");
    let start = across(access, 0);
    let other = 0x3_0000u64;
    // At the same place of the other frame stands an access of another kind: add ecx, [rbx].
    let there = window(10, other | 7);
    for (index, byte) in [0x48, 0x89, 0x32, 0x03, 0x0b, 0xcd, DONE].into_iter().enumerate() {
        // SAFETY: the frame is free low memory, and mapped.
        unsafe { ((there + index as u64) as *mut u8).write_volatile(byte) };
    }
    let registers =
        State { rbx: HOLE, rdx: machine::window_entry(8), rsi: other | 7, rax: 1, rcx: 1, ..EMPTY };
    let trap = engine::start_at(Mode::Long, start, registers);
    let (old, new) = (trap.state.rax & 0xffff_ffff == 0xffff_ffff, trap.state.rcx & 0xffff_ffff == 0);
    say(format_args!("{trap} {}", if old != new { "one" } else { "neither" }));
}

fn load_vector_from_unmapped() {
    say(format_args!(
        "{}",
        engine::run(Mode::Long, code!("movups xmm0, [rbx]"), State { rbx: HOLE, ..EMPTY })
    ));
}

fn load_x87_from_unmapped() {
    say(format_args!(
        "{}",
        engine::run(Mode::Long, code!("fld qword ptr [rbx]"), State { rbx: HOLE, ..EMPTY })
    ));
}

fn call_through_unmapped() {
    write64(DATA, 0);
    say(format_args!(
        "{}",
        engine::run(Mode::Long, code!("call qword ptr [rbx]"), State { rbx: HOLE, ..EMPTY })
    ));
}

fn shift_unmapped() {
    say(format_args!(
        "{}",
        engine::run(Mode::Long, code!("shl dword ptr [rbx], 3"), State { rbx: HOLE, ..EMPTY })
    ));
}
