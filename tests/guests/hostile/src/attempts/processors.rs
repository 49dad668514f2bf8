//! Two processors, both hostile: the second one, in real mode, changes under the first one's exits what the hypervisor looks at, or storms it with
//! interrupts while it is stormed.

use super::tables::set_pointer;
use super::{Attempt, attempts, say};
use crate::code;
use crate::engine::{self, CODE, Mode, State};
use crate::interrupts::{let_in, wait};
use crate::machine::{APIC, flush, read32, set_apic, write32, write64};

pub const ENDS: &[Attempt] = attempts![End:
    rewrite_code_under_an_exit, rewrite_operands_under_an_exit, remap_code_under_an_exit, storm_between_processors,
];

/// Where the second processor starts: page 0x10; behind its code, its handler.
const SECOND: u64 = 0x1_0000;
const SECOND_HANDLER: u64 = 0x200;
/// How often its loop went round, and how often its handler ran.
const ROUNDS: u64 = 0x5ff8;
const HANDLED: u64 = 0x5ff4;
/// The local APIC's version register, and what it holds.
const VERSION: u64 = APIC + 0x30;
const IS: u64 = 0x5_0014;
const TRIES: u32 = 2000;

fn second(low: u32) {
    set_apic(0x310, 1 << 24);
    set_apic(0x300, low);
}

/// Starts the second processor with that code, and waits until it goes round (SDM 3A, Multiple-Processor Initialization).
fn start(code: &[u8]) {
    assert!(code.len() as u64 <= SECOND_HANDLER);
    copy(SECOND, code);
    write32(ROUNDS, 0);
    write32(HANDLED, 0);
    second(0x4500);
    wait(10_000);
    second(0x4600 | (SECOND >> 12) as u32);
    while read32(ROUNDS) == 0 {
        wait(100);
    }
}

/// INIT: it stands still.
fn stop() {
    second(0x4500);
    wait(10_000);
}

fn copy(to: u64, bytes: &[u8]) {
    for (offset, byte) in bytes.iter().enumerate() {
        // SAFETY: low memory that nobody else uses.
        unsafe { ((to + offset as u64) as *mut u8).write_volatile(*byte) };
    }
}

/// Executes what lies at `at` many times, each time from the beginning, and counts what is neither of two legal ends.
fn count_others(at: u64, is_legal: impl Fn(&engine::Trap) -> bool) -> u32 {
    let mut others = 0;
    for _ in 0..TRIES {
        flush(at);
        let trap = engine::start_at(Mode::Long, at, State { rbx: VERSION, ..State::default() });
        others += u32::from(!is_legal(&trap));
    }
    others
}

/// MOV EAX, [RBX] becomes MOV ECX, [RBX] and back: one of both registers is loaded, never both, never none.
fn rewrite_code_under_an_exit() {
    engine::place(&[0x8b, 0x03]);
    start(code!(16:
        "xor ax, ax", "mov ds, ax",
        "2:", "mov byte ptr [0x4001], 0x0b", "inc dword ptr [0x5ff8]", "mov byte ptr [0x4001], 0x03", "jmp 2b"
    ));
    let others = count_others(CODE, |trap| {
        trap.is_done() && matches!((trap.state.rax, trap.state.rcx), (IS, 0) | (0, IS))
    });
    stop();
    say(format_args!("other={others}"));
}

/// MOV EAX, [RBX] becomes MOV EAX, EBX, which touches no memory, and an instruction that does not exist.
fn rewrite_operands_under_an_exit() {
    engine::place(&[0x8b, 0x03]);
    start(code!(16:
        "xor ax, ax", "mov ds, ax",
        "2:", "mov word ptr [0x4000], 0xc38b", "inc dword ptr [0x5ff8]", "mov word ptr [0x4000], 0x038b",
        "mov word ptr [0x4000], 0x0b0f", "mov word ptr [0x4000], 0x038b", "jmp 2b"
    ));
    let others = count_others(CODE, |trap| match trap.state.vector {
        6 => trap.state.rax == 0,
        _ => trap.is_done() && matches!(trap.state.rax, IS | VERSION),
    });
    stop();
    say(format_args!("other={others}"));
}

/// The page that the code lies in is another one, with another instruction, or none.
fn remap_code_under_an_exit() {
    const TABLES: [u64; 2] = [0x3_0000, 0x3_1000];
    const PAGES: [u64; 2] = [0x1_2000, 0x1_3000];
    for at in (TABLES[0]..TABLES[1] + 0x1000).step_by(8) {
        write64(at, 0);
    }
    copy(PAGES[0], &[0x8b, 0x03, 0xcd, engine::DONE]);
    copy(PAGES[1], &[0x8b, 0x0b, 0xcd, engine::DONE]);
    write64(TABLES[1], PAGES[0] | 7);
    write64(TABLES[0], TABLES[1] | 7);
    set_pointer(11, TABLES[0] | 7);
    start(code!(16:
        "xor ax, ax", "mov ds, ax", "mov ax, 0x3000", "mov es, ax",
        "2:", "mov dword ptr es:[0x1000], 0x13007", "inc dword ptr [0x5ff8]", "mov dword ptr es:[0x1000], 0x12007",
        "mov dword ptr es:[0x1000], 0", "mov dword ptr es:[0x1000], 0x12007", "jmp 2b"
    ));
    let others = count_others(11 << 30, |trap| match trap.state.vector {
        14 => (trap.state.rax, trap.state.rcx) == (0, 0) || trap.cr2 >> 12 == 11 << 18,
        _ => trap.is_done() && matches!((trap.state.rax, trap.state.rcx), (IS, 0) | (0, IS)),
    });
    stop();
    set_pointer(11, 0);
    say(format_args!("other={others}"));
}

/// Each sends the other one interrupts as fast as it can, the second one in x2APIC mode. Both go on, and both get them. The second one rests
/// between its bursts: interrupts that come faster than their handler ends leave no time for anything else, on any processor.
fn storm_between_processors() {
    const ENOUGH: u32 = 500;
    copy(
        SECOND + SECOND_HANDLER,
        code!(16:
            "push eax", "push ecx", "push edx", "mov ecx, 0x80b", "xor eax, eax", "xor edx, edx", "wrmsr", "inc dword ptr [0x5ff4]",
            "pop edx", "pop ecx", "pop eax", "iret"
        ),
    );
    write32(0x51 * 4, (SECOND as u32) << 12 | SECOND_HANDLER as u32);
    engine::count(0x50, true);
    start(code!(16:
        "xor ax, ax", "mov ds, ax", "mov ax, 0x1000", "mov ss, ax", "mov sp, 0x1000",
        "mov ecx, 0x1b", "rdmsr", "or eax, 0xc00", "wrmsr", "mov ecx, 0x80f", "mov eax, 0x1ff", "xor edx, edx", "wrmsr", "sti",
        "2:", "mov si, 64",
        "4:", "mov ecx, 0x830", "mov eax, 0x4050", "xor edx, edx", "wrmsr", "inc dword ptr [0x5ff8]", "dec si", "jnz 4b",
        "mov cx, 4000", "5:", "pause", "loop 5b", "jmp 2b"
    ));
    let mut rounds = 0;
    while (engine::counted(0x50) < ENOUGH || read32(HANDLED) < ENOUGH) && rounds < 1_000_000 {
        second(0x4051);
        let_in(10);
        rounds += 1;
    }
    let came = [engine::counted(0x50), read32(HANDLED)].map(|count| count >= ENOUGH);
    stop();
    say(format_args!("first={} second={}", came[0], came[1]));
}
