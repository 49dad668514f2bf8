//! Instructions that a guest must not execute, or that must do no harm.

use super::{Attempt, attempts, everywhere, in_modes, say};
use crate::code;
use crate::engine::{self, DATA, EMPTY, Mode, State};

pub const ATTEMPTS: &[Attempt] = attempts![Any:
    execute_vmrun, execute_vmload, execute_vmsave, execute_clgi, execute_stgi, execute_skinit, execute_invlpga,
    execute_vmmcall, execute_vmgexit, execute_vmcall, execute_vmxon, execute_monitor, execute_monitorx, execute_mwaitx, execute_wbinvd, execute_wbnoinvd, execute_invd, execute_rsm,
    execute_xsetbv_without_osxsave, execute_xgetbv_without_osxsave, execute_hlt_in_ring_3, execute_rdpmc, execute_rdpru, execute_icebp,
    execute_int3, execute_into, execute_ud2, execute_ud1, execute_getsec, execute_encls, execute_invpcid, execute_invlpgb,
    execute_tlbsync, execute_pvalidate, execute_rdfsbase_without_fsgsbase, execute_swapgs, execute_syscall_without_sce,
    execute_sysenter_without_target, execute_sysret_without_sce, execute_sysexit, execute_cli_in_ring_3, execute_sti_in_ring_3,
    execute_clts_in_ring_3, execute_lmsw_in_ring_3, execute_invlpg_in_ring_3, execute_lgdt_in_ring_3, execute_lidt_in_ring_3,
    execute_ltr_in_ring_3, execute_lldt_in_ring_3, execute_rdmsr_in_ring_3, execute_wrmsr_in_ring_3, execute_in_in_ring_3,
    execute_out_in_ring_3, execute_ins_in_ring_3, execute_mov_to_cr_in_ring_3, execute_mov_to_dr_in_ring_3, execute_int_of_every_vector,
    execute_pause_and_fences, ask_cpuid_everything, execute_in_virtual_8086_mode, execute_in_virtual_8086_mode_with_extensions, execute_vmmcall_with_every_number,
    execute_vmcall_with_every_number, execute_vmlaunch, execute_vmresume, execute_vmxoff, execute_vmfunc, execute_vmread, execute_vmwrite,
    execute_vmptrld, execute_vmptrst, execute_vmclear, execute_invept, execute_invvpid,
    execute_vmread_of_every_field, execute_vmwrite_of_every_field, execute_vmfunc_of_every_number, execute_invept_of_every_type,
    execute_invvpid_of_every_type, execute_getsec_of_every_leaf, execute_rdpmc_of_every_counter,
];

pub const BELOW: &[Attempt] = attempts![Guest: execute_mwait];

const USER: [Mode; 4] = [Mode::LongUser, Mode::CompatibleUser, Mode::ProtectedUser, Mode::Virtual8086];

/// RAX points to a page that looks like nothing.
const WILD: State = State { rax: DATA, rcx: 7, rdx: 0, ..EMPTY };

/// Functions that execute the same bytes in all modes.
macro_rules! everywhere {
    ($($name:ident: $bytes:expr;)+) => { $(fn $name() { everywhere(&$bytes, WILD) })+ };
}
everywhere! {
    execute_vmrun: [0x0f, 0x01, 0xd8];
    execute_vmmcall: [0x0f, 0x01, 0xd9];
    execute_vmload: [0x0f, 0x01, 0xda];
    execute_vmsave: [0x0f, 0x01, 0xdb];
    execute_stgi: [0x0f, 0x01, 0xdc];
    execute_clgi: [0x0f, 0x01, 0xdd];
    execute_skinit: [0x0f, 0x01, 0xde];
    execute_invlpga: [0x0f, 0x01, 0xdf];
    execute_vmgexit: [0xf3, 0x0f, 0x01, 0xd9];
    execute_vmcall: [0x0f, 0x01, 0xc1];
    execute_vmxon: [0xf3, 0x0f, 0xc7, 0x30];
    execute_vmlaunch: [0x0f, 0x01, 0xc2];
    execute_vmresume: [0x0f, 0x01, 0xc3];
    execute_vmxoff: [0x0f, 0x01, 0xc4];
    execute_vmfunc: [0x0f, 0x01, 0xd4];
    execute_vmread: [0x0f, 0x78, 0xc8];
    execute_vmwrite: [0x0f, 0x79, 0xc8];
    execute_vmptrld: [0x0f, 0xc7, 0x30];
    execute_vmptrst: [0x0f, 0xc7, 0x38];
    execute_vmclear: [0x66, 0x0f, 0xc7, 0x30];
    execute_invept: [0x66, 0x0f, 0x38, 0x80, 0x08];
    execute_invvpid: [0x66, 0x0f, 0x38, 0x81, 0x08];
    execute_monitorx: [0x0f, 0x01, 0xfa];
    execute_mwaitx: [0x0f, 0x01, 0xfb];
    execute_wbinvd: [0x0f, 0x09];
    execute_wbnoinvd: [0xf3, 0x0f, 0x09];
    execute_invd: [0x0f, 0x08];
    execute_rsm: [0x0f, 0xaa];
    execute_xsetbv_without_osxsave: [0x0f, 0x01, 0xd1];
    execute_xgetbv_without_osxsave: [0x0f, 0x01, 0xd0];
    execute_rdpmc: [0x0f, 0x33];
    execute_rdpru: [0x0f, 0x01, 0xfd];
    execute_icebp: [0xf1];
    execute_int3: [0xcc];
    execute_into: [0xce];
    execute_ud2: [0x0f, 0x0b];
    execute_ud1: [0x0f, 0xb9, 0xc0];
    execute_getsec: [0x0f, 0x37];
    execute_encls: [0x0f, 0x01, 0xcf];
    execute_invpcid: [0x66, 0x0f, 0x38, 0x82, 0x08];
    execute_invlpgb: [0x0f, 0x01, 0xfe];
    execute_tlbsync: [0x0f, 0x01, 0xff];
    execute_pvalidate: [0xf2, 0x0f, 0x01, 0xff];
    execute_rdfsbase_without_fsgsbase: [0xf3, 0x0f, 0xae, 0xc0];
    execute_syscall_without_sce: [0x0f, 0x05];
    execute_sysenter_without_target: [0x0f, 0x34];
    execute_sysret_without_sce: [0x0f, 0x07];
}

/// Functions that execute the same bytes in ring 3.
macro_rules! in_ring_3 {
    ($($name:ident: $bytes:expr;)+) => { $(fn $name() { in_modes(&USER, &$bytes, WILD) })+ };
}
in_ring_3! {
    execute_hlt_in_ring_3: [0xf4];
    execute_swapgs: [0x0f, 0x01, 0xf8];
    execute_sysexit: [0x0f, 0x35];
    execute_cli_in_ring_3: [0xfa];
    execute_sti_in_ring_3: [0xfb];
    execute_clts_in_ring_3: [0x0f, 0x06];
    execute_lmsw_in_ring_3: [0x0f, 0x01, 0xf0];
    execute_invlpg_in_ring_3: [0x0f, 0x01, 0x38];
    execute_lgdt_in_ring_3: [0x0f, 0x01, 0x10];
    execute_lidt_in_ring_3: [0x0f, 0x01, 0x18];
    execute_ltr_in_ring_3: [0x0f, 0x00, 0xd8];
    execute_lldt_in_ring_3: [0x0f, 0x00, 0xd0];
    execute_rdmsr_in_ring_3: [0x0f, 0x32];
    execute_wrmsr_in_ring_3: [0x0f, 0x30];
    execute_in_in_ring_3: [0xec];
    execute_out_in_ring_3: [0xee];
    execute_ins_in_ring_3: [0x6c];
    execute_mov_to_cr_in_ring_3: [0x0f, 0x22, 0xd8];
    execute_mov_to_dr_in_ring_3: [0x0f, 0x23, 0xf8];
    execute_pause_and_fences: [0xf3, 0x90, 0x0f, 0xae, 0xe8, 0x0f, 0xae, 0xf0, 0x0f, 0xae, 0xf8];
}

/// Without extensions in ECX: what a processor says of those comes before anything else.
fn execute_monitor() {
    everywhere(&[0x0f, 0x01, 0xc8], State { rcx: 0, ..WILD });
}

/// As MONITOR.
fn execute_mwait() {
    everywhere(&[0x0f, 0x01, 0xc9], State { rcx: 0, ..WILD });
}

/// VMMCALL with every number of 16 bits, with what lies at the ends of 32 and 64 bits, with single bits and numbers at random, and with arguments
/// that point anywhere: no hypercall exists.
fn execute_vmmcall_with_every_number() {
    with_every_number(code!("vmmcall"));
}

/// The same with Intel's VMCALL.
fn execute_vmcall_with_every_number() {
    with_every_number(code!("vmcall"));
}

fn with_every_number(code: &[u8]) {
    let ends = [0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX];
    let numbers = (0..0x1_0000u64)
        .chain((16..64).map(|bit| 1 << bit))
        .chain(ends)
        .chain((0..64).map(crate::chain::next));
    engine::place(code);
    let mut others = 0u32;
    let mut tried = 0u32;
    for number in numbers {
        let wild = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let registers = State {
            rax: number,
            rbx: wild,
            rcx: !wild,
            rdx: wild << 7,
            rsi: u64::MAX,
            rdi: 0x10_0000,
            ..EMPTY
        };
        let trap = engine::start_at(Mode::Long, engine::CODE, registers);
        tried += 1;
        others += u32::from(trap.state.vector != 6 || trap.state.rax != number || trap.state.rbx != wild);
    }
    say(format_args!("#UD={} other={others}", tried - others));
}

/// Executes code with wild operands: each number in RAX and RCX, RBX and RDX pointing anywhere. Says how often it ended by this exception, with the
/// error code 0 if there is one, at its first byte, and with nothing changed.
fn with_wild_operands(code: &[u8], vector: u64, word: &str) {
    let ends = [0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX];
    let numbers =
        (0..0x100u64).chain((8..64).map(|bit| 1 << bit)).chain((0..64).map(crate::chain::next)).chain(ends);
    engine::place(code);
    let (mut due, mut others) = (0u32, 0u32);
    for number in numbers {
        let wild = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let registers = State { rax: number, rbx: wild, rcx: number, rdx: !wild, ..EMPTY };
        let State { rax, rbx, rcx, rdx, vector: found, code, rip, .. } =
            engine::start_at(Mode::Long, engine::CODE, registers).state;
        let unchanged = (rax, rbx, rcx, rdx, code, rip) == (number, wild, number, !wild, 0, engine::CODE);
        if found == vector && unchanged { due += 1 } else { others += 1 }
    }
    say(format_args!("{word}={due} other={others}"));
}

/// Functions that execute code with wild operands, and the exception that is due.
macro_rules! with_wild_operands {
    ($($name:ident: $bytes:expr, $vector:literal, $word:literal;)+) => {
        $(fn $name() { with_wild_operands(&$bytes, $vector, $word) })+
    };
}
with_wild_operands! {
    // vmread rbx, rcx; vmwrite rcx, rbx; vmfunc; invept and invvpid rcx, [rax]; getsec; rdpmc
    execute_vmread_of_every_field: [0x0f, 0x78, 0xcb], 6, "#UD";
    execute_vmwrite_of_every_field: [0x0f, 0x79, 0xcb], 6, "#UD";
    execute_vmfunc_of_every_number: [0x0f, 0x01, 0xd4], 6, "#UD";
    execute_invept_of_every_type: [0x66, 0x0f, 0x38, 0x80, 0x08], 6, "#UD";
    execute_invvpid_of_every_type: [0x66, 0x0f, 0x38, 0x81, 0x08], 6, "#UD";
    execute_getsec_of_every_leaf: [0x0f, 0x37], 6, "#UD";
    execute_rdpmc_of_every_counter: [0x0f, 0x33], 13, "#GP(0)";
}

/// INT of every vector from ring 3, whose gates allow it: each arrives as what it is, without an error code.
fn execute_int_of_every_vector() {
    let mut wrong = 0;
    for vector in 0..=255u8 {
        let trap = engine::run(Mode::LongUser, &[0xcd, vector], EMPTY);
        let state = trap.state;
        // Handlers of vectors with an error code take one word too many from the frame: RIP stands where the code is looked for.
        let expected = if matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30) {
            (state.code, 0x2b)
        } else {
            (state.rip, 0x2b)
        };
        let found = if matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30) {
            (engine::CODE + 2, state.rip)
        } else {
            (engine::CODE + 2, state.cs)
        };
        wrong += u32::from(state.vector != u64::from(vector) || expected != found);
    }
    say(format_args!("wrong={wrong}"));
}

/// CPUID of every leaf in the ranges that mean something, and of leaves that mean nothing: nothing ends it, and what is beyond the last leaf is
/// zero (APM volume 3, appendix E.3).
fn ask_cpuid_everything() {
    let mut ends = 0u32;
    let mut beyond = 0u32;
    let ranges = [
        0..0x40,
        0x4000_0000..0x4000_0120,
        0x8000_0000..0x8000_0040,
        0xc000_0000..0xc000_0010,
        0xffff_fff0..0xffff_ffff,
    ];
    for leaf in ranges.into_iter().flatten() {
        for subleaf in [0, 1, 2, 3, 63, u32::MAX] {
            let trap =
                engine::run(Mode::Long, &[0x0f, 0xa2], State { rax: leaf, rcx: subleaf.into(), ..EMPTY });
            ends += u32::from(!trap.is_done());
            let State { rax, rbx, rcx, rdx, .. } = trap.state;
            let last = crate::machine::cpuid(leaf as u32 & 0xc000_0000, 0)[0];
            let exists = leaf as u32 <= last && last & 0xc000_0000 == leaf as u32 & 0xc000_0000;
            let clock = (0x4000_0100..=0x4000_0101).contains(&leaf);
            beyond += u32::from(!exists && !clock && rax | rbx | rcx | rdx != 0);
        }
    }
    say(format_args!("ends={ends} beyond={beyond}"));
}

/// What virtual-8086 mode does by IOPL, 0 and 3, with these bits of CR4 on.
fn in_virtual_8086_mode(extensions: u64) {
    let codes: [(&str, &[u8]); 8] = [
        ("cli", &[0xfa]),
        ("sti", &[0xfb]),
        ("pushf", &[0x9c]),
        ("popf", &[0x6a, 0x02, 0x9d]),
        ("int", &[0xcd, 0x90]),
        ("in", &[0xec]),
        ("hlt", &[0xf4]),
        ("mov-cr0", &[0x0f, 0x20, 0xc0]),
    ];
    for (name, code) in codes {
        let traps = [1u64, engine::PRIVILEGE_3].map(|flags| {
            crate::machine::set_cr4(super::CR4 | extensions);
            engine::run(Mode::Virtual8086, code, State { rdx: 0x81, flags, ..EMPTY })
        });
        say(format_args!("{name}={},{}", traps[0], traps[1]));
    }
}

fn execute_in_virtual_8086_mode() {
    in_virtual_8086_mode(0);
}

/// With CR4.VME, which gives CLI, STI, PUSHF, POPF and INT other ways, where CPUID shows it.
fn execute_in_virtual_8086_mode_with_extensions() {
    if crate::machine::cpuid(1, 0)[3] >> 1 & 1 == 1 {
        in_virtual_8086_mode(1);
    } else {
        say(format_args!("absent"));
    }
}
