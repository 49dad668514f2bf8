//! Broken page tables, descriptor tables and task-state segments, and exceptions that meet others.

use super::{Attempt, attempts, say};
use crate::code;
use crate::engine::{self, CODE, DATA, EMPTY, Mode, Pointer, State, Trap};
use crate::machine::{self, GDT, HOLE, cpuid, page_directory_pointers, window, window_entry, write64};
use core::arch::asm;

pub const ATTEMPTS: &[Attempt] = attempts![Any:
    walk_reserved_bits, walk_tables_that_loop, walk_tables_that_are_themselves, walk_large_page_that_is_not_aligned,
    load_segments_that_are_none, load_code_segment_beyond_the_table, load_busy_task, load_local_table_that_is_none, jump_to_task_gate,
    call_through_gate_to_nowhere, interrupt_through_gate_that_is_not_there, interrupt_through_data_gate, return_to_nowhere, return_to_ring_3_without_code,
    jump_beyond_canonical, deliver_on_stack_that_is_not_there, return_to_virtual_8086_in_long_mode,
    walk_two_levels, walk_three_levels,
];
pub const ENDS: &[Attempt] = attempts![End:
    switch_task_in_protected_mode, interrupt_through_task_gate, walk_entry_into_unmapped, fetch_code_through_tables_in_unmapped, load_empty_idt,
    switch_to_broken_task, decode_in_unmapped_memory, walk_two_levels_into_unmapped, walk_three_levels_into_unmapped,
];

fn read(at: u64) -> Trap {
    engine::run(Mode::Long, code!("mov rax, [rbx]"), State { rbx: at, ..EMPTY })
}

/// Writes entry `index` of the page-directory-pointer table, of which those up to 3 and 256 are this program's own.
pub fn set_pointer(index: usize, entry: u64) {
    assert!((4..256).contains(&index));
    // SAFETY: nothing of this program lies there.
    unsafe { (&raw mut page_directory_pointers).cast::<u64>().add(index).write_volatile(entry) };
    machine::set_cr3(machine::cr3());
}

/// Each bit of an entry of the lowest level that lies above physical addresses and below the ones that software has: which are refused, and NX,
/// which is reserved while EFER.NXE is 0.
fn walk_reserved_bits() {
    let width = cpuid(0x8000_0008, 0)[0] & 0xff;
    let mut taken = 0u64;
    for bit in (width..52).chain([63]) {
        let trap = read(window(0, DATA | 7 | 1 << bit));
        if trap.state.vector != 14 || trap.state.code & 8 == 0 {
            taken |= 1 << bit;
        }
    }
    say(format_args!("taken={taken:x}"));
}

/// A table whose entries lead to itself: 512 GiB of the same page, in the end the table.
fn walk_tables_that_loop() {
    let table = &raw const page_directory_pointers as u64;
    set_pointer(8, table | 7);
    // Levels 3, 2 and 1 are the same table: its entry 8 is the page.
    let at = 8 << 30 | 8 << 21 | 8 << 12;
    let trap = read(at);
    say(format_args!("{trap} itself={}", trap.state.rax == machine::read64(table)));
    set_pointer(8, 0);
}

/// The page table's own page is mapped by itself, writable: an entry that is changed through it takes effect.
fn walk_tables_that_are_themselves() {
    let table = window_entry(0);
    let own = window(20, table | 7);
    write64(DATA, 0x77);
    write64(own + 21 * 8, DATA | 7);
    let trap = read(window(22, 0) - 4096);
    say(format_args!("{trap} {:x}", trap.state.rax));
}

/// A page of 1 GiB whose address is not a multiple of that: reserved bits.
fn walk_large_page_that_is_not_aligned() {
    set_pointer(9, 0x87 | 1 << 20);
    let trap = read(9 << 30);
    set_pointer(9, 0);
    say(format_args!("{trap}"));
}

/// Whoever decodes a device access finds its code in a hole.
fn decode_in_unmapped_memory() {
    // The code lies in a page of the window; what is accessed is a hole; the entry of the code's page is changed under it into one that leads to a
    // hole, where all ones stand.
    let start = window(8, 0x2_0000 | 7);
    let code = code!("mov [rdx], rsi", "mov eax, [rbx]", "int 0x81");
    for (index, byte) in code.iter().enumerate() {
        // SAFETY: free low memory.
        unsafe { ((start + index as u64) as *mut u8).write_volatile(*byte) };
    }
    let registers = State { rbx: HOLE, rdx: window_entry(8), rsi: HOLE | 7, ..EMPTY };
    let trap = engine::start_at(Mode::Long, start, registers);
    say(format_args!("{trap}"));
}

/// Writes descriptor `index` of those that attempts may have, 0 to 7; gives its selector.
fn descriptor(index: usize, value: u64) -> u64 {
    assert!(index < 8);
    // SAFETY: entries from 12 on are for attempts.
    unsafe { (&raw mut GDT).cast::<u64>().add(12 + index).write_volatile(value) };
    (12 + index as u64) * 8
}

/// A segment that is not present, a system segment, code that cannot be read, one beyond the table, and a null one in SS of ring 3.
fn load_segments_that_are_none() {
    let code = code!("mov ds, eax");
    let absent = descriptor(0, 0x00cf_1300_0000_ffff);
    let system = descriptor(1, 0x0000_8900_0000_0067);
    let unreadable = descriptor(2, 0x00cf_9900_0000_ffff);
    for selector in [absent, system, unreadable, 0xfff8] {
        say(format_args!("{}", engine::run(Mode::Long, code, State { rax: selector, ..EMPTY })));
    }
    say(format_args!("{}", engine::run(Mode::LongUser, code!("xor eax, eax", "mov ss, eax"), EMPTY)));
}

fn load_code_segment_beyond_the_table() {
    let code = code!("push rax", "lea rcx, [rip]", "push rcx", "retfq");
    for selector in [0xfff8, 0x10, 0] {
        say(format_args!("{}", engine::run(Mode::Long, code, State { rax: selector, ..EMPTY })));
    }
}

/// LTR of the task that is loaded, which is busy, and of data. (A null selector earns #GP too; QEMU 7.2 takes it, and aborts at the next trap.)
fn load_busy_task() {
    for selector in [0x50, 0x10] {
        say(format_args!("{}", engine::run(Mode::Long, code!("ltr ax"), State { rax: selector, ..EMPTY })));
    }
}

fn load_local_table_that_is_none() {
    for selector in [0x10, 0xfff8, 0] {
        say(format_args!("{}", engine::run(Mode::Long, code!("lldt ax"), State { rax: selector, ..EMPTY })));
    }
}

/// There are no task gates in long mode.
fn jump_to_task_gate() {
    let gate = descriptor(3, 0x0000_8500_0050_0000);
    write64(DATA, gate << 32);
    let code = code!("jmp fword ptr [rbx]");
    say(format_args!("{}", engine::run(Mode::Long, code, State { rbx: DATA, ..EMPTY })));
}

/// A call gate of 16 bytes whose target is not canonical.
fn call_through_gate_to_nowhere() {
    let gate = descriptor(4, 0x0000_8c00_0008_0000);
    descriptor(5, 0x0001_0000);
    write64(DATA, gate << 32);
    say(format_args!(
        "{}",
        engine::run(Mode::Long, code!("call fword ptr [rbx]"), State { rbx: DATA, ..EMPTY })
    ));
}

/// Runs with an interrupt table of its own, whose gate 0x90 is `gate`.
fn with_gate(gate: [u64; 2], code: &[u8]) -> Trap {
    static mut COPY: [[u64; 2]; 256] = [[0; 2]; 256];
    let mut old = Pointer { limit: 0, base: 0 };
    // SAFETY: the copy has all gates of the table that is loaded, but one; the old table is put back.
    unsafe {
        asm!("sidt [{}]", in(reg) &raw mut old, options(nostack));
        let base = old.base;
        let copy = (&raw mut COPY).cast::<[u64; 2]>();
        core::ptr::copy_nonoverlapping(base as *const [u64; 2], copy, 256);
        copy.add(0x90).write(gate);
        let new = Pointer { limit: 0xfff, base: copy as u64 };
        asm!("lidt [{}]", in(reg) &raw const new, options(nostack));
        let trap = engine::run(Mode::Long, code, EMPTY);
        asm!("lidt [{}]", in(reg) &raw const old, options(nostack));
        trap
    }
}

fn interrupt_through_gate_that_is_not_there() {
    say(format_args!("{}", with_gate([0x0000_0e00_0008_0000, 0], code!("int 0x90"))));
}

/// A gate whose segment is data, and one whose type is none.
fn interrupt_through_data_gate() {
    say(format_args!("{}", with_gate([0x0000_8e00_0010_0000, 0], code!("int 0x90"))));
    say(format_args!("{}", with_gate([0x0000_8500_0008_0000, 0], code!("int 0x90"))));
}

/// IRET with a frame whose CS is none, or whose RIP is not canonical.
fn return_to_nowhere() {
    let code = code!("push 0x10", "push rsp", "push 2", "push rax", "push rbx", "iretq");
    for (cs, rip) in [(0, CODE), (0xfff8, CODE), (0x10, CODE), (8, 1 << 47)] {
        say(format_args!("{}", engine::run(Mode::Long, code, State { rax: cs, rbx: rip, ..EMPTY })));
    }
}

/// SYSRET and IRET to ring 3 at an address where nothing is mapped.
fn return_to_ring_3_without_code() {
    let code = code!("push 0x23", "push rsp", "push 2", "push 0x2b", "push rbx", "iretq");
    let trap = engine::run(Mode::Long, code, State { rbx: window(0, 0), ..EMPTY });
    say(format_args!("{trap}"));
}

fn jump_beyond_canonical() {
    say(format_args!("{}", engine::run(Mode::Long, code!("jmp rbx"), State { rbx: 1 << 47, ..EMPTY })));
}

/// INT with a stack in a page that is not there, by a gate without IST: a page fault, delivered on a stack that is.
fn deliver_on_stack_that_is_not_there() {
    let handler = machine::window(30, DATA | 7);
    let gate = [handler & 0xffff | 8 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48, handler >> 32];
    let gone = window(31, 0);
    let trap = with_gate(gate, {
        // mov rsp, imm64; int 0x90
        static mut BYTES: [u8; 12] = [0x48, 0xbc, 0, 0, 0, 0, 0, 0, 0, 0, 0xcd, 0x90];
        // SAFETY: nobody else uses them.
        unsafe {
            BYTES = [0x48, 0xbc, 0, 0, 0, 0, 0, 0, 0, 0, 0xcd, 0x90];
            for (index, byte) in (gone + 0x800).to_le_bytes().into_iter().enumerate() {
                (&raw mut BYTES).cast::<u8>().add(2 + index).write(byte);
            }
            core::slice::from_raw_parts((&raw const BYTES).cast::<u8>(), 12)
        }
    });
    say(format_args!("{trap}"));
}

/// RFLAGS.VM in a frame of IRETQ is ignored in long mode.
fn return_to_virtual_8086_in_long_mode() {
    let code = code!(
        "lea rbx, [rip + 2f]",
        "push 0x10",
        "push rax",
        "push 0x20002",
        "push 8",
        "push rbx",
        "iretq",
        "2:",
        "pushfq",
        "pop rcx"
    );
    let trap = engine::run(Mode::Long, code, State { rax: engine::STACK, ..EMPTY });
    say(format_args!("{trap} vm={}", trap.state.rcx >> 17 & 1));
}

/// Legacy mode has task switches by hardware: a far jump to a task-state segment.
fn switch_task_in_protected_mode() {
    let task = descriptor(6, 0x0000_8900_0000_0067 | (DATA & 0xff_ffff) << 16);
    write64(DATA + 8, task << 32);
    let trap = engine::run(Mode::Protected, code!(32: "ljmp [ebx]"), State { rbx: DATA + 8, ..EMPTY });
    say(format_args!("{trap}"));
}

/// The same to a task whose descriptor is no segment of 104 bytes.
fn switch_to_broken_task() {
    let task = descriptor(6, 0x0000_8900_0000_0020 | (HOLE & 0xff_ffff) << 16 | (HOLE >> 24) << 56);
    write64(DATA + 8, task << 32);
    let trap = engine::run(Mode::Protected, code!(32: "ljmp [ebx]"), State { rbx: DATA + 8, ..EMPTY });
    say(format_args!("{trap}"));
}

/// A task gate in the interrupt table of legacy mode.
fn interrupt_through_task_gate() {
    let task = descriptor(6, 0x0000_8900_0000_0067 | (DATA & 0xff_ffff) << 16);
    engine::set_legacy_gate(0x90, 0x0000_8500_0000_0000 | task << 16);
    let trap = engine::run(Mode::Protected, code!(32: "int 0x90"), EMPTY);
    say(format_args!("{trap}"));
}

/// A page-directory entry that leads into a hole.
fn walk_entry_into_unmapped() {
    set_pointer(10, HOLE | 7);
    say(format_args!("{}", read(10 << 30)));
}

/// All of the code's translation lies in a hole from the next instruction on.
fn fetch_code_through_tables_in_unmapped() {
    let registers = State { rax: HOLE, ..EMPTY };
    say(format_args!("{}", engine::run(Mode::Long, code!("mov cr3, rax", "cpuid"), registers)));
}

/// An interrupt table of limit 0 and base beyond what is canonical.
fn load_empty_idt() {
    let pointer = Pointer { limit: 0, base: 0xffff_8000_0000_0000 };
    // SAFETY: what follows ends this program.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(nostack)) };
    say(format_args!("{}", engine::run(Mode::Long, code!("int 0x90"), EMPTY)));
}

/// Tables for paging outside long mode, in free low memory: one for each level, and one that every mode reaches for what is read.
const TABLES: [u64; 4] = [0x3_0000, 0x3_1000, 0x3_2000, 0x3_3000];
/// CR4: PSE, PAE.
const LARGE_PAGES: u64 = 1 << 4;
const EXTENDED: u64 = 1 << 5;

/// Turns paging on outside long mode with the first of [`TABLES`] and reads at `at`.
fn read_by(control: u64, at: u64) -> Trap {
    let code = code!(32:
        "mov cr4, ecx", "mov cr3, ebx", "mov eax, cr0", "or eax, 0x80000000", "mov cr0, eax", "jmp 2f", "2:", "mov eax, [esi]"
    );
    let registers = State { rbx: TABLES[0], rcx: control, rsi: at, ..EMPTY };
    engine::run(Mode::Protected, code, registers)
}

fn clear_tables() {
    for at in (TABLES[0]..TABLES[3] + 0x1000).step_by(8) {
        write64(at, 0);
    }
}

/// Says how a read at each address ends, and what it finds where it ends well.
fn say_reads(control: u64, places: &[u64]) {
    for at in places {
        let trap = read_by(control, *at);
        if trap.is_done() {
            say(format_args!("{:x}", trap.state.rax));
        } else {
            say(format_args!("{trap}"));
        }
    }
}

/// 32-bit page tables: this program and the local APIC's registers in pages of 4 MiB, then a page of memory, one of the
/// same registers, one that is absent, a table that is the directory, a large page with a reserved bit.
fn make_two_levels() {
    clear_tables();
    let entry = |index: u64, value: u32| machine::write32(TABLES[0] + index * 4, value);
    entry(0, 0x83);
    entry(0x3fb, 0xfec0_009b);
    entry(1, TABLES[1] as u32 | 3);
    machine::write32(TABLES[1], DATA as u32 | 3);
    machine::write32(TABLES[1] + 4, 0xfee0_0013);
    machine::write32(TABLES[1] + 8, DATA as u32 | 2);
    entry(2, TABLES[0] as u32 | 3);
    entry(4, 0x83 | 1 << 21);
    machine::write32(DATA, 0x1234_5678);
}

fn walk_two_levels() {
    make_two_levels();
    let places = [0x40_0000, 0x40_1030, 0x40_2000, 0x80_2000, 0xc0_0000, 0x100_0000, 0xfee0_0030];
    say_reads(LARGE_PAGES, &places);
}

/// PAE's: four pointers, pages of 2 MiB, and in the lowest level an absent one, one with NX, which is reserved while EFER.NXE is 0, and one beyond
/// physical addresses; a large page that is not aligned.
fn make_three_levels() {
    clear_tables();
    write64(TABLES[0], TABLES[1] | 1);
    write64(TABLES[0] + 3 * 8, TABLES[2] | 1);
    write64(TABLES[1], 0x83);
    write64(TABLES[1] + 8, 0x20_0083);
    write64(TABLES[1] + 2 * 8, TABLES[3] | 3);
    write64(TABLES[1] + 3 * 8, 0x83 | 1 << 13);
    write64(TABLES[1] + 4 * 8, TABLES[1] | 3);
    write64(TABLES[2] + 0x1f7 * 8, 0xfee0_009b);
    write64(TABLES[3], DATA | 3);
    write64(TABLES[3] + 8, 0xfee0_0013);
    write64(TABLES[3] + 2 * 8, DATA | 2);
    write64(TABLES[3] + 3 * 8, DATA | 3 | 1 << 63);
    write64(TABLES[3] + 4 * 8, DATA | 3 | 1 << 51);
    machine::write32(DATA, 0x1234_5678);
}

fn walk_three_levels() {
    make_three_levels();
    let places = [
        0x40_0000,
        0x40_1030,
        0x40_2000,
        0x40_3000,
        0x40_4000,
        0x60_0000,
        0x80_4000,
        0x4000_0000,
        0xfee0_0030,
    ];
    say_reads(EXTENDED, &places);
}

/// A directory's entry leads into a hole.
fn walk_two_levels_into_unmapped() {
    make_two_levels();
    machine::write32(TABLES[0] + 3 * 4, HOLE as u32 | 3);
    say_reads(LARGE_PAGES, &[0xc0_0000]);
}

/// A pointer leads into a hole.
fn walk_three_levels_into_unmapped() {
    make_three_levels();
    write64(TABLES[0] + 8, HOLE | 1);
    say_reads(EXTENDED, &[0x4000_0000]);
}
