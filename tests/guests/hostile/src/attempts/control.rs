//! Control registers, EFER and XCR0: reserved bits, illegal combinations, and changes of mode in every order.

use super::{Attempt, CR4, attempts, in_modes, say, try_in_modes};
use crate::code;
use crate::engine::{self, CODE, DATA, EMPTY, Mode, State, Trap};
use crate::machine::{self, EFER, cpuid, read_msr, read64, window, write_msr, write64};

pub const ATTEMPTS: &[Attempt] = attempts![Any:
    set_every_bit_of_cr0, set_every_bit_of_efer, set_not_writethrough_alone,
    set_long_mode_without_pae, toggle_lme_under_paging, set_lma,

    set_cr8, use_control_registers_that_are_none, use_debug_registers_that_are_none, set_reserved_dr6_and_dr7, load_machine_status_word,
    set_xcr0, set_other_extended_register, save_supervisor_state, change_modes_in_every_order, execute_user_page_under_smep, read_user_page_under_smap,
    store_tables_under_umip, read_time_under_tsd, use_x87_under_ts, use_sse_under_em, wait_under_ts_and_mp, write_read_only_page_under_wp,
    check_alignment, execute_no_execute_page, set_nxe_and_clear_it, use_vector_state_that_is_off,
];
pub const BELOW: &[Attempt] = attempts![Guest: set_every_bit_of_cr4, set_paging_without_protection, clear_paging_in_64_bit_code, clear_pae_in_long_mode];
pub const ENDS: &[Attempt] = attempts![End: set_reserved_cr3];

/// The kernel modes in which a MOV to a control register takes 32 bits, and the one in which it takes 64.
const KERNEL: [Mode; 6] =
    [Mode::Long, Mode::Compatible, Mode::Compatible16, Mode::Protected, Mode::Protected16, Mode::Real];

fn long(code: &[u8], rax: u64) -> Trap {
    engine::run(Mode::Long, code, State { rax, ..EMPTY })
}

/// Which bits of a register can be set, one at a time, beside what it holds; and how the first that cannot be set ended.
fn bits(code: &[u8], base: u64, put_back: impl Fn()) {
    let mut taken = 0u64;
    let mut refused = None;
    for bit in 0..64 {
        let trap = long(code, base | 1 << bit);
        put_back();
        if trap.is_done() {
            taken |= 1 << bit;
        } else {
            refused.get_or_insert(trap);
        }
    }
    say(format_args!("taken={taken:x}"));
    if let Some(trap) = refused {
        say(format_args!("others={trap}"));
    }
}

/// CD and NW aside: NW alone is an attempt of its own.
fn set_every_bit_of_cr0() {
    let old = machine::cr0();
    bits(code!("mov cr0, rax"), old | 1 << 30, || machine::set_cr0(old));
    let trap = engine::run(
        Mode::Long,
        code!("mov cr0, rax", "mov rax, cr0"),
        State { rax: old | 0x1ffa_ffc0, ..EMPTY },
    );
    machine::set_cr0(old);
    // What is reserved in the low half reads as zero, AM aside.
    say(format_args!("{trap} kept={:x}", trap.state.rax ^ old));
}

/// Which bits exist is a matter of CPUID: what differs from that is said.
fn set_every_bit_of_cr4() {
    let (one, seven) = (cpuid(1, 0), cpuid(7, 0));
    let mut exist = 0u64;
    // Bit of CR4, register of the leaf and bit there (APM volume 2, section 3.1.3).
    for (bit, word, from) in [
        (0, one[3], 1),
        (1, one[3], 1),
        (2, one[3], 4),
        (3, one[3], 2),
        (4, one[3], 3),
        (5, one[3], 6),
        (7, one[3], 13),
        (9, one[3], 24),
        (10, one[3], 25),
        (11, seven[2], 2),
        (12, seven[2], 16),
        (16, seven[1], 0),
        (17, one[2], 17),
        (18, one[2], 26),
        (20, seven[1], 7),
        (21, seven[1], 20),
        (22, seven[2], 3),
        (23, seven[2], 7),
    ] {
        exist |= u64::from(word >> from & 1) << bit;
    }
    let mut wrong = 0u64;
    // SMEP and SMAP, under which this program could not run on, are attempts of their own.
    for bit in (0..64).filter(|bit| !matches!(bit, 20 | 21)) {
        let trap = long(code!("mov cr4, rax; mov rax, cr4"), CR4 | 1 << bit);
        machine::set_cr4(CR4);
        // MCE and PCE are the supervisor's business whatever CPUID says.
        let due = exist >> bit & 1 == 1 || matches!(bit, 6 | 8);
        let fits =
            if due { trap.is_done() && trap.state.rax == CR4 | 1 << bit } else { trap.state.vector == 13 };
        wrong |= u64::from(!fits) << bit;
    }
    say(format_args!("wrong={wrong:x}"));
}

fn set_every_bit_of_efer() {
    let old = read_msr(EFER);
    let mut taken = 0u64;
    let mut other = 0;
    for bit in 0..64 {
        let value = old ^ 1 << bit;
        let registers = State { rax: value & 0xffff_ffff, rdx: value >> 32, rcx: EFER.into(), ..EMPTY };
        let trap = engine::run(Mode::Long, code!("wrmsr"), registers);
        write_msr(EFER, old);
        taken |= u64::from(trap.is_done()) << bit;
        other += u32::from(!trap.is_done() && trap.state.vector != 13);
    }
    say(format_args!("taken={taken:x} other={other}"));
}

fn set_paging_without_protection() {
    // mov eax, cr0; or eax, 0x80000000; and eax, ~1; mov cr0, eax
    let code = [0x0f, 0x20, 0xc0, 0x0d, 0, 0, 0, 0x80, 0x83, 0xe0, 0xfe, 0x0f, 0x22, 0xc0];
    in_modes(&[Mode::Long, Mode::Compatible, Mode::Protected], &code, EMPTY);
    let code = code!(16: "mov eax, cr0", "or eax, 0x80000000", "and eax, 0xfffffffe", "mov cr0, eax");
    in_modes(&[Mode::Real], code, EMPTY);
}

fn set_not_writethrough_alone() {
    let code = code!("mov rax, cr0", "or eax, 0x20000000", "mov cr0, rax");
    in_modes(&[Mode::Long], code, EMPTY);
    let code = code!(32: "mov eax, cr0", "or eax, 0x20000000", "mov cr0, eax");
    in_modes(&[Mode::Compatible, Mode::Protected], code, EMPTY);
}

fn clear_paging_in_64_bit_code() {
    in_modes(&[Mode::Long], code!("mov rax, cr0", "btr eax, 31", "mov cr0, rax"), EMPTY);
}

fn clear_pae_in_long_mode() {
    // mov eax, cr4; and eax, ~0x20; mov cr4, eax
    let code = [0x0f, 0x20, 0xe0, 0x83, 0xe0, 0xdf, 0x0f, 0x22, 0xe0];
    in_modes(&[Mode::Long, Mode::Compatible], &code, EMPTY);
}

/// LME, then paging without PAE; EFER is put back on the way back.
fn set_long_mode_without_pae() {
    let code = code!(32:
        "mov eax, cr4", "and eax, 0xffffffdf", "mov cr4, eax",
        "mov ecx, 0xc0000080", "rdmsr", "or eax, 0x100", "wrmsr",
        "mov eax, cr0", "or eax, 0x80000000", "mov cr0, eax");
    in_modes(&[Mode::Protected], code, EMPTY);
}

fn toggle_lme_under_paging() {
    let code = code!(32: "mov ecx, 0xc0000080", "rdmsr", "xor eax, 0x100", "wrmsr");
    in_modes(&[Mode::Long, Mode::Compatible], code, EMPTY);
}

/// LMA follows from LME and PG: a write of it alone changes nothing.
fn set_lma() {
    let code = code!(32: "mov ecx, 0xc0000080", "rdmsr", "or eax, 0x400", "wrmsr", "rdmsr");
    let trap = engine::run(Mode::Protected, code, EMPTY);
    say(format_args!("{trap} lma={}", trap.state.rax >> 10 & 1));
}

/// Bits of CR3 beyond the width of physical addresses.
fn set_reserved_cr3() {
    let width = cpuid(0x8000_0008, 0)[0] & 0xff;
    let old = machine::cr3();
    for bit in [width, 63] {
        let trap = engine::run(Mode::Long, code!("mov cr3, rax"), State { rax: old | 1 << bit, ..EMPTY });
        machine::set_cr3(old);
        say(format_args!("{trap}"));
    }
}

fn set_cr8() {
    let code = code!("mov cr8, rax", "mov rbx, cr8");
    for value in [0, 15, 16, u64::MAX] {
        let trap = long(code, value);
        if trap.is_done() { say(format_args!("{}", trap.state.rbx)) } else { say(format_args!("{trap}")) }
    }
    long(code, 0);
}

/// MOV to and from CR1, CR5 to CR7 and CR9 to CR15.
fn use_control_registers_that_are_none() {
    let mut other = 0;
    for number in [1u8, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15] {
        for opcode in [0x20, 0x22] {
            let trap = long(&[0x40 | number >> 3 << 2, 0x0f, opcode, 0xc0 | (number & 7) << 3], 0);
            other += u32::from(trap.state.vector != 6);
        }
    }
    say(format_args!("other={other}"));
}

/// DR8 to DR15; DR4 and DR5 are DR6 and DR7, but not under CR4.DE.
fn use_debug_registers_that_are_none() {
    let mut other = 0;
    for number in 8..16u8 {
        for opcode in [0x21, 0x23] {
            let trap = long(&[0x44, 0x0f, opcode, 0xc0 | (number & 7) << 3], 0);
            other += u32::from(trap.state.vector != 6);
        }
    }
    say(format_args!("other={other}"));
    let read = [0x0f, 0x21, 0xe8];
    let alias = long(&read, 0);
    machine::set_cr4(CR4 | 8);
    let none = long(&read, 0);
    machine::set_cr4(CR4);
    say(format_args!("{alias}={:x} {none}", alias.state.rax));
}

fn set_reserved_dr6_and_dr7() {
    for code in [code!("mov dr6, rax"), code!("mov dr7, rax")] {
        say(format_args!("{}", long(code, 1 << 32)));
        say(format_args!("{}", long(code, u64::MAX)));
    }
    let trap = long(code!("mov dr7, rax", "mov rbx, dr7"), 0xffff_0000 & 0xdfff);
    say(format_args!("{trap}={:x}", trap.state.rbx));
    machine::set_dr7(0x400);
    machine::set_dr6(0xffff_0ff0);
}

/// LMSW sets PE, MP, EM and TS, and clears all but PE; SMSW reads.
fn load_machine_status_word() {
    // lmsw ax; smsw bx
    let old = machine::cr0();
    for mode in KERNEL.into_iter().filter(|mode| mode.is_tried()) {
        let trap = engine::run(mode, &[0x0f, 0x01, 0xf0, 0x0f, 0x01, 0xe3], State { rax: 0xfffa, ..EMPTY });
        machine::set_cr0(old);
        if trap.is_done() {
            say(format_args!("{:x}", trap.state.rbx & 0xf))
        } else {
            say(format_args!("{trap}"))
        }
    }
}

/// Turns CR4.OSXSAVE on where the processor has XSAVE (CPUID Fn0000_0001_ECX, bit 26), and says where it has not.
fn allow_xsetbv() -> bool {
    let exists = cpuid(1, 0)[2] >> 26 & 1 == 1;
    if exists {
        machine::set_cr4(CR4 | 1 << 18);
    } else {
        say(format_args!("absent"));
    }
    exists
}

fn xsetbv(number: u64, value: u64) -> Trap {
    let registers = State { rax: value & 0xffff_ffff, rdx: value >> 32, rcx: number, ..EMPTY };
    engine::run(Mode::Long, code!("xsetbv"), registers)
}

/// Each combination of the first three bits, and each other bit beside x87.
fn set_xcr0() {
    if !allow_xsetbv() {
        return;
    }
    let mut taken = 0u64;
    let mut other = 0;
    for value in (0..8).chain((3..64).map(|bit| 1 << bit | 1)) {
        let trap = xsetbv(0, value);
        if trap.is_done() {
            taken |= if value < 8 { 1 << value } else { value & !1 << 8 };
        } else {
            other += u32::from(trap.state.vector != 13);
        }
    }
    xsetbv(0, 1);
    let ring_3 = engine::run(Mode::LongUser, code!("xsetbv"), State { rax: 1, ..EMPTY });
    say(format_args!("taken={taken:x} other={other} ring3={ring_3}"));
}

fn set_other_extended_register() {
    if !allow_xsetbv() {
        return;
    }
    say(format_args!("{} {}", xsetbv(1, 1), xsetbv(u64::MAX & 0xffff_ffff, 1)));
}

/// XSAVES and XRSTORS of everything, in ring 0 and ring 3, and of an area that is not compacted; and IA32_XSS, with nothing and with each bit.
fn save_supervisor_state() {
    // xsaves64 [rbx]; xrstors64 [rbx]
    const SAVE: [u8; 4] = [0x48, 0x0f, 0xc7, 0x2b];
    const RESTORE: [u8; 4] = [0x48, 0x0f, 0xc7, 0x1b];
    /// IA32_XSS.
    const SUPERVISOR_STATE: u64 = 0xda0;
    /// Where an area says which components lie in it, and that it is compacted.
    const FORM: u64 = DATA + 520;
    if cpuid(1, 0)[2] >> 26 & 1 == 1 {
        machine::set_cr4(CR4 | 1 << 18);
    }
    (DATA..DATA + 0x1000).step_by(8).for_each(|at| write64(at, 0));
    let all = State { rax: 0xffff_ffff, rdx: 0xffff_ffff, rbx: DATA, ..EMPTY };
    say(format_args!("xsaves={} form={:x}", engine::run(Mode::Long, &SAVE, all), read64(FORM)));
    say(format_args!("xrstors={}", engine::run(Mode::Long, &RESTORE, all)));
    write64(FORM, 0);
    say(format_args!("standard={}", engine::run(Mode::Long, &RESTORE, all)));
    let [save, restore] = [SAVE, RESTORE].map(|code| engine::run(Mode::LongUser, &code, all));
    say(format_args!("ring3={save},{restore}"));
    let trap = engine::run(Mode::Long, code!("rdmsr"), State { rcx: SUPERVISOR_STATE, ..EMPTY });
    say(format_args!("read={trap}:{:x}", trap.state.rdx << 32 | trap.state.rax));
    let write = |value: u64| {
        let registers = State { rax: value & 0xffff_ffff, rdx: value >> 32, rcx: SUPERVISOR_STATE, ..EMPTY };
        engine::run(Mode::Long, code!("wrmsr"), registers)
    };
    let zero = write(0);
    let (mut taken, mut other) = (0, 0);
    for bit in 0..64 {
        let trap = write(1 << bit);
        taken += u32::from(trap.is_done());
        other += u32::from(!trap.is_done() && (trap.state.vector, trap.state.code) != (13, 0));
    }
    write(0);
    say(format_args!("zero={zero} taken={taken} other={other}"));
}

/// From each mode into each other, through real mode and paging and back, with an instruction that exits in each.
fn change_modes_in_every_order() {
    let mut other = 0;
    let modes = || Mode::ALL.into_iter().filter(|mode| mode.is_tried());
    for from in modes() {
        for to in modes() {
            for mode in [from, to] {
                let trap = engine::run(mode, &[0x0f, 0xa2], State { rax: 0x8000_0000, ..EMPTY });
                other += u32::from(!trap.is_done() || trap.state.rax < 0x8000_0000);
            }
        }
    }
    say(format_args!("other={other}"));
}

/// Ring 0 must not execute a page that ring 3 may: this program's own pages are made ring 0's alone meanwhile.
fn execute_user_page_under_smep() {
    as_supervisor(1 << 20, || engine::start_at(Mode::Long, window(0, DATA | 7), EMPTY));
}

/// Nor read it, unless AC says so.
fn read_user_page_under_smap() {
    let code = code!("mov rax, [rbx]");
    engine::place(code);
    as_supervisor(1 << 21, || {
        engine::start_at(Mode::Long, CODE, State { rbx: window(0, DATA | 7), ..EMPTY })
    });
    engine::place(code);
    let allowed = State { flags: 1 << 18, ..EMPTY };
    as_supervisor(1 << 21, || {
        engine::start_at(Mode::Long, CODE, State { rbx: window(0, DATA | 7), ..allowed })
    });
}

/// Runs with bits of CR4 set, and the first directory's pages for ring 0 alone.
fn as_supervisor(bits: u64, run: impl FnOnce() -> Trap) {
    let exists = bits >> 20 & 1 == 1 && cpuid(7, 0)[1] >> 7 & 1 == 1
        || bits >> 21 & 1 == 1 && cpuid(7, 0)[1] >> 20 & 1 == 1;
    if !exists {
        say(format_args!("absent"));
        return;
    }
    let user = |on: bool| {
        for index in 0..512 {
            // SAFETY: what is mapped stays mapped as it is for ring 0.
            unsafe {
                let entry = (&raw mut machine::page_directories).cast::<u64>().add(index);
                let old = entry.read_volatile();
                entry.write_volatile(if on { old | 4 } else { old & !4 });
            }
        }
        machine::set_cr3(machine::cr3());
    };
    user(false);
    machine::set_cr4(CR4 | bits);
    let trap = run();
    machine::set_cr4(CR4);
    user(true);
    say(format_args!("{trap}"));
}

/// SGDT, SIDT, SLDT, STR and SMSW in ring 3.
fn store_tables_under_umip() {
    if cpuid(7, 0)[2] >> 2 & 1 == 0 {
        say(format_args!("absent"));
        return;
    }
    machine::set_cr4(CR4 | 1 << 11);
    for code in
        [[0x0f, 0x01, 0x03], [0x0f, 0x01, 0x0b], [0x0f, 0x00, 0xc0], [0x0f, 0x00, 0xc8], [0x0f, 0x01, 0xe0]]
    {
        in_modes(&[Mode::LongUser, Mode::CompatibleUser], &code, State { rbx: DATA, ..EMPTY });
    }
}

fn read_time_under_tsd() {
    // The engine puts CR4 back when it returns from legacy mode.
    let under = |modes: &[Mode], code: &[u8]| {
        try_in_modes(modes, |mode| {
            machine::set_cr4(CR4 | 4);
            engine::run(mode, code, EMPTY)
        });
    };
    under(&Mode::ALL, &[0x0f, 0x31]);
    if cpuid(0x8000_0001, 0)[3] >> 27 & 1 == 1 {
        under(&[Mode::Long, Mode::LongUser], &[0x0f, 0x01, 0xf9]);
    }
}

fn with_cr0(set: u64, code: &[u8]) {
    let old = machine::cr0();
    for mode in [Mode::Long, Mode::LongUser] {
        machine::set_cr0(old | set);
        let trap = engine::run(mode, code, EMPTY);
        machine::set_cr0(old);
        say(format_args!("{trap}"));
    }
}

/// FLD1.
fn use_x87_under_ts() {
    with_cr0(8, &[0xd9, 0xe8]);
}

/// MOVAPS XMM0, XMM0.
fn use_sse_under_em() {
    with_cr0(4, &[0x0f, 0x28, 0xc0]);
}

/// WAIT.
fn wait_under_ts_and_mp() {
    with_cr0(0xa, &[0x9b]);
}

fn write_read_only_page_under_wp() {
    let page = window(0, DATA | 5);
    let old = machine::cr0();
    let code = code!("mov [rbx], rax");
    let registers = State { rbx: page, ..EMPTY };
    let free = engine::run(Mode::Long, code, registers);
    machine::set_cr0(old | 1 << 16);
    machine::flush(page);
    let held = engine::run(Mode::Long, code, registers);
    machine::set_cr0(old);
    let ring_3 = engine::run(Mode::LongUser, code, registers);
    say(format_args!("{free} {held} {ring_3}"));
}

/// AM in CR0, AC in RFLAGS, an odd address in ring 3, and in ring 0.
fn check_alignment() {
    let old = machine::cr0();
    machine::set_cr0(old | 1 << 18);
    write64(DATA, 0);
    for mode in [Mode::LongUser, Mode::Long] {
        let registers = State { rbx: DATA + 1, flags: 1 << 18, ..EMPTY };
        say(format_args!("{}", engine::run(mode, code!("mov eax, [rbx]"), registers)));
    }
    machine::set_cr0(old);
}

fn execute_no_execute_page() {
    let old = read_msr(EFER);
    write_msr(EFER, old | 1 << 11);
    let page = window(0, DATA | 7 | 1 << 63);
    say(format_args!("{}", engine::start_at(Mode::Long, page, EMPTY)));
    write_msr(EFER, old);
    machine::flush(page);
    say(format_args!("{}", engine::start_at(Mode::Long, page, EMPTY)));
    window(0, 0);
}

/// NXE many times on and off, with a page that is read each time.
fn set_nxe_and_clear_it() {
    let old = read_msr(EFER);
    let page = window(0, DATA | 7);
    write64(DATA, 0x1234);
    let mut other = 0;
    for round in 0..200 {
        write_msr(EFER, if round % 2 == 0 { old | 1 << 11 } else { old });
        other += u32::from(machine::read64(page) != 0x1234);
    }
    write_msr(EFER, old);
    say(format_args!("other={other}"));
}

/// XCR0 without AVX: VZEROUPPER is #UD; without OSXSAVE too.
fn use_vector_state_that_is_off() {
    let code = [0xc5, 0xf8, 0x77];
    let without = long(&code, 0);
    if !allow_xsetbv() {
        return;
    }
    xsetbv(0, 1);
    let off = long(&code, 0);
    say(format_args!("{without} {off}"));
}
