//! Whether anything of the hypervisor or of a neighbour can be found: `mode=search` looks for their canaries in everything that a guest can
//! read, and `mode=canary` is the neighbour that fills all it has with its own, and starts again and again.

use crate::chain;
use crate::code;
use crate::console::print;
use crate::engine::{self, Mode, State};
use crate::interrupts;
use crate::machine::{
    self, APIC, GDT, HOLE, apic, port_in, port_in_double, port_in_word, port_out, set_apic,
};
use crate::words;
use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// The complements of the canaries' halves, the hypervisor's (part `isolation-check`) and the neighbour's: what searches must not hold what
/// it looks for.
static COMPLEMENTS: [u32; 6] =
    [!0xa7e9_4db6, !0x7d1b_96f2, !0xc85e_3fa9, !0x93d1_8ea5, !0x6e94_b7d3, !0xd25a_1cf8];
/// The complements of the neighbour's canary; the first number is canonical.
static NEIGHBOUR: [u64; 2] = [!0x0000_2b6f_93d1_8ea5, !0x6e94_b7d3_d25a_1cf8];
/// The neighbour's canary in one byte, for registers that have no more.
const BYTE: u8 = 0xa5;

/// Where the second processor starts.
const SECOND_PAGE: u64 = 0xa000;
/// The vector of the timer that ends a HLT.
const TIMER: u8 = 0x40;
/// How often the neighbour fills everything before it resets.
const LIFE: u64 = 40;
/// How often each kind of exit is made.
const ROUNDS: u64 = 300;

/// How much of memory is said at most in one search.
const MOST_IN_MEMORY: u32 = 4;

#[unsafe(no_mangle)]
static mut FIRST_REGISTERS: [u64; 16] = [0; 16];
#[unsafe(no_mangle)]
static mut SECOND_REGISTERS: [u64; 16] = [0; 16];
static mut SECOND_FOUND: Registers = Registers::NONE;
static SECOND_CAME: AtomicBool = AtomicBool::new(false);
static HITS: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" {
    safe static image_start: u8;
    safe static image_end: u8;
    safe static second_trampoline: u8;
    safe static second_trampoline_end: u8;
}

fn complement(index: usize) -> u32 {
    // SAFETY: a constant; the compiler must not compute with it.
    unsafe { (&raw const COMPLEMENTS).cast::<u32>().add(index).read_volatile() }
}

fn is_canary(word: u32) -> bool {
    (0..6).any(|index| word ^ complement(index) == u32::MAX)
}

/// The neighbour's canary, `index` words on.
fn canary(index: usize) -> u64 {
    // SAFETY: as in `complement`.
    !unsafe { (&raw const NEIGHBOUR).cast::<u64>().add(index & 1).read_volatile() }
}

fn hit(what: fmt::Arguments<'_>) {
    if HITS.fetch_add(1, Ordering::Relaxed) < 24 {
        print(format_args!("leak {what}\n"));
    }
}

/// Says where a canary's half stands in `value`, at whatever byte.
fn look(what: fmt::Arguments<'_>, value: u64) {
    if (0..5).any(|byte| is_canary((value >> (8 * byte)) as u32)) {
        hit(format_args!("{what}: {value:x}"));
    }
}

fn look32(what: fmt::Arguments<'_>, value: u32) {
    if is_canary(value) {
        hit(format_args!("{what}: {value:x}"));
    }
}

/// Room for x87, SSE and AVX state in the form of XSAVE (APM volume 2, section 11.5.2).
#[derive(Copy, Clone)]
#[repr(C, align(64))]
struct Area([u64; 104]);

/// Components of the state: x87, SSE, AVX.
const COMPONENTS: u32 = 7;

/// Turns XSAVE and AVX on.
fn vectors_on() -> bool {
    let has = machine::cpuid(1, 0)[2];
    if has >> 26 & 1 == 0 || has >> 28 & 1 == 0 {
        return false;
    }
    machine::set_cr4(machine::cr4() | 1 << 18);
    // SAFETY: the processor has both.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") COMPONENTS, in("edx") 0, options(nostack, preserves_flags))
    };
    true
}

impl Area {
    fn save() -> Self {
        let mut area = Self([0; 104]);
        // SAFETY: the area has room for all; without XSAVE, FXSAVE takes the first 512 bytes.
        unsafe {
            if machine::cr4() >> 18 & 1 == 1 {
                asm!("xsave64 [{}]", in(reg) &raw mut area, in("eax") COMPONENTS, in("edx") 0, options(nostack));
            } else {
                asm!("fxsave64 [{}]", in(reg) &raw mut area, options(nostack));
            }
        }
        area
    }

    /// Registers that hold what `value` gives by index; of an x87 register 80 bits count.
    fn filled(mut value: impl FnMut(usize) -> u64) -> Self {
        let mut area = Self([0; 104]);
        for index in (4..52).chain(72..104) {
            area.0[index] = value(index);
        }
        for index in (5..20).step_by(2) {
            area.0[index] &= 0xffff;
        }
        // Control word; all x87 registers in use; MXCSR; XSTATE_BV.
        (area.0[0], area.0[3], area.0[64]) = (0xff << 32 | 0x37f, 0x1f80, COMPONENTS.into());
        area
    }

    fn load(&self) {
        // SAFETY: a legal area, and this program uses none of these registers.
        unsafe {
            if machine::cr4() >> 18 & 1 == 1 {
                asm!("xrstor64 [{}]", in(reg) self, in("eax") COMPONENTS, in("edx") 0, options(nostack));
            } else {
                asm!("fxrstor64 [{}]", in(reg) self, options(nostack));
            }
        }
    }

    /// Words of registers that differ: index and both values.
    fn difference(&self, other: &Self) -> Option<(usize, u64, u64)> {
        let counts = if machine::cr4() >> 18 & 1 == 1 { 104 } else { 52 };
        (4..counts)
            .filter(|index| !(52..72).contains(index))
            .map(|index| (index, self.0[index], other.0[index]))
            .find(|(_, one, other)| one != other)
    }
}

/// Model-specific registers that hold what a guest puts there: FS, GS and KERNEL_GS_BASE, STAR, LSTAR, CSTAR, SFMASK, SYSENTER_CS, _ESP,
/// _EIP, TSC_AUX.
const HOLDING: [u32; 11] = [
    0xc000_0100,
    0xc000_0101,
    0xc000_0102,
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0x174,
    0x175,
    0x176,
    0xc000_0103,
];

/// What a processor holds besides its general registers.
#[derive(Copy, Clone)]
pub struct Registers {
    vectors: Area,
    debug: [u64; 6],
    holding: [u64; HOLDING.len()],
    cr2: u64,
}

impl Registers {
    const NONE: Self = Self { vectors: Area([0; 104]), debug: [0; 6], holding: [0; HOLDING.len()], cr2: 0 };

    /// What they hold now.
    pub fn now() -> Self {
        let debug =
            [machine::dr0(), machine::dr1(), machine::dr2(), machine::dr3(), machine::dr6(), machine::dr7()];
        vectors_on();
        Self { vectors: Area::save(), debug, holding: HOLDING.map(machine::read_msr), cr2: machine::cr2() }
    }

    /// Says what is not as after reset (APM volume 2, section 14.1.3).
    fn look_at_reset(&self, who: &str) {
        for (index, value) in self.vectors.0.iter().enumerate() {
            let expected = match index {
                0 => 0x37f,
                // MXCSR, and the mask of its bits.
                3 => value & 0xffff_ffff_0000_0000 | 0x1f80,
                // XSTATE_BV: which components are not as at first.
                64 => *value,
                _ => 0,
            };
            if *value != expected {
                hit(format_args!("{who}: word {index} of the vector state is {value:x}"));
            }
        }
        if self.debug != [0, 0, 0, 0, 0xffff_0ff0, 0x400] {
            hit(format_args!("{who}: debug registers are {:x?}", self.debug));
        }
        for (number, value) in HOLDING.iter().zip(self.holding).filter(|(_, value)| *value != 0) {
            hit(format_args!("{who}: register {number:x} is {value:x}"));
        }
        if self.cr2 != 0 {
            hit(format_args!("{who}: CR2 is {:x}", self.cr2));
        }
    }
}

/// Bytes of RAM, from the command line.
fn ram_end() -> u64 {
    words::value("memory").and_then(|mebibytes| mebibytes.parse::<u64>().ok()).unwrap_or(32) << 20
}

fn is_image(at: u64) -> bool {
    (&raw const image_start as u64..&raw const image_end as u64).contains(&at)
}

/// Before anything else was written: RAM is zero but for what the loader puts there, and registers are as after reset.
pub fn first(registers: &Registers) {
    registers.look_at_reset("first processor");
    // SAFETY: written once, before.
    let general = unsafe { FIRST_REGISTERS };
    // EAX and EBX are the loader's words, ESP its stack.
    for (number, value) in general.iter().enumerate() {
        let passed = matches!(number, 0 | 3 | 4 | 6);
        look(format_args!("first register {number}"), *value);
        if !passed && *value != 0 {
            hit(format_args!("first processor: general register {number} is {value:x}"));
        }
    }
    print(format_args!("loaded"));
    let mut begin = None;
    for page in (0..=ram_end()).step_by(4096) {
        let used = page < ram_end()
            && !is_image(page)
            && (page.max(8)..page + 4096).step_by(8).any(|at| machine::read64(at) != 0);
        match (used, begin) {
            (true, None) => begin = Some(page),
            (false, Some(first)) => {
                print(format_args!(" {first:x}-{page:x}"));
                begin = None;
            }
            _ => {}
        }
    }
    print(format_args!("\n"));
    search_memory("at first");
}

/// Looks at every byte of RAM, until so much was found that it is clear what.
fn search_memory(when: &str) {
    let mut before = 0u64;
    let mut left = MOST_IN_MEMORY;
    for at in (8..ram_end()).step_by(8) {
        let quad = machine::read64(at);
        if quad | before != 0 {
            let both = u128::from(quad) << 64 | u128::from(before);
            for byte in 0..8 {
                if left > 0 && is_canary((both >> (8 * byte)) as u32) {
                    left -= 1;
                    hit(format_args!("memory {when} at {:x}: {before:x} {quad:x}", at - 8 + byte));
                }
            }
        }
        before = quad;
    }
}

/// A kind of exit: its name, the code, what RBX, RCX and RDX hold before, and which general registers, by number, it answers in.
type Kind = (&'static str, &'static [u8], [u64; 3], u16);

/// Numbers of general registers as bits.
const RAX: u16 = 1;
const RCX: u16 = 2;
const RDX: u16 = 4;
const RBX: u16 = 8;

fn kinds() -> [Kind; 25] {
    let none = [0; 3];
    [
        ("in", code!("in al, dx"), [0, 0, 0x80], RAX),
        ("in16", code!("in ax, dx"), [0, 0, 0x40], RAX),
        ("in32", code!("in eax, dx"), [0, 0, 0x608], RAX),
        ("out", code!("out dx, al"), [0, 0, 0x80], 0),
        ("ins", code!("mov edi, 0x5000", "insd"), [0, 0, 0x80], 1 << 7),
        ("outs", code!("mov esi, 0x5000", "outsb"), [0, 0, 0x80], 1 << 6),
        ("cpuid", code!("xor eax, eax", "cpuid"), none, RAX | RBX | RCX | RDX),
        ("rdmsr", code!("rdmsr"), [0, 0xc000_0080, 0], RAX | RDX),
        // TSC_AUX of the processor itself: RDMSR of it is answered by software.
        ("rdtscp", code!("rdtscp"), none, RAX | RCX | RDX),
        ("rdmsr-none", code!("rdmsr"), [0, 0xc001_0200, 0], 0),
        ("wrmsr-none", code!("wrmsr"), [0, 0xc001_0200, 0], 0),
        ("read", code!("mov rax, [rbx]"), [HOLE, 0, 0], RAX),
        ("write", code!("mov [rbx], rcx"), [HOLE, 0, 0], 0),
        ("read-apic", code!("mov eax, [rbx]"), [APIC + 0x20, 0, 0], RAX),
        ("read-io-apic", code!("mov eax, [rbx]"), [0xfec0_0010, 0, 0], RAX),
        ("vmmcall", code!("vmmcall"), none, 0),
        ("vmrun", code!("vmrun rax"), none, 0),
        ("vmsave", code!("vmsave rax"), none, 0),
        ("page-fault", code!("mov rax, [rbx]"), [300 << 30, 0, 0], 0),
        ("undefined", code!("ud2"), none, 0),
        ("breakpoint", code!("int3"), none, 0),
        ("cr0", code!("mov rax, cr0", "mov cr0, rax"), none, RAX),
        ("cr4", code!("mov rax, cr4", "mov cr4, rax"), none, RAX),
        ("cr8", code!("mov rax, cr8", "mov cr8, rax"), none, RAX),
        ("wbinvd", code!("wbinvd", "pause", "monitor"), none, 0),
    ]
}

/// Holds numbers of its own in every register, makes exits of each kind, and sees that nothing but the answers changes.
fn search_registers() {
    for round in 0..ROUNDS {
        let number = |index: usize| chain::next(round << 8 | index as u64);
        let mine = Area::filled(number);
        for (kind, code, [rbx, rcx, rdx], answers) in kinds() {
            mine.load();
            let debug: [u64; 4] = core::array::from_fn(|index| number(200 + index) >> 17);
            machine::set_dr0(debug[0]);
            machine::set_dr1(debug[1]);
            machine::set_dr2(debug[2]);
            machine::set_dr3(debug[3]);
            let given = |value: u64, index: usize| if value == 0 { number(index) } else { value };
            let before = State {
                rax: number(220),
                rbx: given(rbx, 221),
                rcx: given(rcx, 222),
                rdx: given(rdx, 223),
                rsi: number(224),
                rdi: number(225),
                rbp: number(226),
                high: core::array::from_fn(|index| number(230 + index)),
                ..State::default()
            };
            let after = engine::run(Mode::Long, code, before).state;
            let found = [machine::dr0(), machine::dr1(), machine::dr2(), machine::dr3()];
            let vectors = Area::save();
            let general = |state: &State| {
                let State { rax, rcx, rdx, rbx, rbp, rsi, rdi, high, .. } = *state;
                let mut all = [rax, rcx, rdx, rbx, 0, rbp, rsi, rdi, 0, 0, 0, 0, 0, 0, 0, 0];
                all[8..].copy_from_slice(&high);
                all
            };
            for (index, (after, before)) in general(&after).into_iter().zip(general(&before)).enumerate() {
                look(format_args!("{kind}: general register {index}"), after);
                if after != before && answers >> index & 1 == 0 {
                    hit(format_args!("{kind}: general register {index} is {after:x}, not {before:x}"));
                }
            }
            look(format_args!("{kind}: CR2"), machine::cr2());
            if found != debug {
                hit(format_args!("{kind}: debug registers are {found:x?}, not {debug:x?}"));
            }
            if let Some((index, mine, found)) = mine.difference(&vectors) {
                hit(format_args!("{kind}: word {index} of the vector state is {found:x}, not {mine:x}"));
            }
        }
        // Off the processor and on again.
        mine.load();
        sleep();
        if let Some((index, mine, found)) = mine.difference(&Area::save()) {
            hit(format_args!("hlt: word {index} of the vector state is {found:x}, not {mine:x}"));
        }
    }
}

/// HLT until the timer goes off.
fn sleep() {
    engine::count(TIMER, true);
    set_apic(0x3e0, 0xb);
    set_apic(0x320, TIMER.into());
    set_apic(0x380, 100_000);
    while engine::counted(TIMER) == 0 {
        // SAFETY: the timer's handler is the engine's.
        unsafe { asm!("sti", "hlt", "cli", options(nostack)) };
    }
}

/// What all ports answer, in every width; bytes of four ports that follow each other make a word too.
fn search_ports() {
    let mut bytes = 0u32;
    for port in 0..=u16::MAX {
        // The receiver's byte of the serial port and the keyboard's are nobody's secret, but reading them costs nothing either.
        bytes = bytes >> 8 | u32::from(port_in(port)) << 24;
        look32(format_args!("four ports up to {port:x}"), bytes);
        look32(format_args!("port {port:x}"), port_in_double(port));
        let word = port_in_word(port);
        look32(format_args!("port {port:x}, twice"), u32::from(port_in_word(port)) << 16 | u32::from(word));
    }
    // The real-time clock's memory, 128 bytes.
    for index in 0..0x80 {
        port_out(0x70, index);
        bytes = bytes >> 8 | u32::from(port_in(0x71)) << 24;
        look32(format_args!("clock memory up to {index:x}"), bytes);
    }
    if port_in(0x3ff) == BYTE {
        hit(format_args!("the serial port's scratch register holds the neighbour's"));
    }
}

/// All model-specific registers that do not fault.
fn search_msrs() {
    engine::place(code!("rdmsr"));
    for number in
        [0..0x2000_u32, 0x4000_0000..0x4000_0200, 0xc000_0000..0xc000_2000, 0xc001_0000..0xc001_2000]
            .into_iter()
            .flatten()
    {
        let registers = State { rcx: u64::from(number), ..State::default() };
        let trap = engine::start_at(Mode::Long, engine::CODE, registers);
        if trap.is_done() {
            look(format_args!("register {number:x}"), trap.state.rdx << 32 | trap.state.rax);
        }
    }
}

/// Device windows and memory that is none.
fn search_memory_mapped() {
    let windows = [APIC..APIC + 0x1000, 0xfec0_0000..0xfec0_1000, 0xfed0_0000..0xfed0_1000];
    for at in windows.into_iter().flat_map(|window| window.step_by(4)) {
        look32(format_args!("address {at:x}"), machine::read32(at));
    }
    for index in 0..0x40 {
        machine::write32(0xfec0_0000, index);
        look32(format_args!("I/O APIC register {index:x}"), machine::read32(0xfec0_0010));
    }
    for at in (ram_end()..4 << 30).step_by(1 << 18).chain(HOLE..HOLE + 64) {
        look(format_args!("address {at:x}"), machine::read64(at));
    }
}

fn search_cpuid() {
    for leaf in (0..0x40).chain(0x4000_0000..0x4000_0100).chain(0x8000_0000..0x8000_0040).chain([u32::MAX]) {
        for subleaf in 0..4 {
            for (index, value) in machine::cpuid(leaf, subleaf).into_iter().enumerate() {
                look32(format_args!("CPUID {leaf:x}.{subleaf} register {index}"), value);
            }
        }
    }
}

/// Called by the second processor, on its own stack, interrupts off.
#[unsafe(no_mangle)]
extern "C" fn second() -> ! {
    // SAFETY: nobody reads it before the flag is set.
    unsafe { SECOND_FOUND = Registers::now() };
    SECOND_CAME.store(true, Ordering::SeqCst);
    loop {
        // SAFETY: nothing is left to do.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

/// Starts the second processor and looks at what it held at first.
fn search_second() {
    let (start, end) = (&raw const second_trampoline as u64, &raw const second_trampoline_end as u64);
    assert!(end - start <= 256);
    for offset in 0..end - start {
        // SAFETY: the page is free, and the source is this program's own.
        unsafe {
            ((SECOND_PAGE + offset) as *mut u8)
                .write_volatile(((start + offset) as *const u8).read_volatile());
        }
    }
    // GDTR: 16 bits of limit, and of the base as many as real mode loads.
    machine::write64(SECOND_PAGE + 384, (&raw const GDT as u64) << 16 | 0x9f);
    machine::write64(SECOND_PAGE + 392, machine::cr3());
    set_apic(0x310, 1 << 24);
    set_apic(0x300, 0x4500);
    set_apic(0x310, 1 << 24);
    set_apic(0x300, 0x4600 | (SECOND_PAGE >> 12) as u32);
    while !SECOND_CAME.load(Ordering::SeqCst) {
        interrupts::wait(10);
    }
    // SAFETY: the second processor has written both, and writes no more.
    let (found, mut general) = unsafe { (SECOND_FOUND, SECOND_REGISTERS) };
    for (number, value) in general.iter_mut().enumerate().take(8) {
        *value = machine::read32(SECOND_PAGE + 256 + 8 * number as u64).into();
    }
    found.look_at_reset("second processor");
    for (number, value) in general.iter().enumerate() {
        // EDX holds the processor's signature (APM volume 2, table 14-1).
        let expected = if number == 2 { machine::cpuid(1, 0)[0] } else { 0 };
        if *value != u64::from(expected) {
            hit(format_args!("second processor: general register {number} is {value:x}"));
        }
    }
    print(format_args!("second processor came\n"));
}

/// Searches everything, and says how much it found.
pub fn search() {
    let steps: [(&str, fn()); 6] = [
        ("second processor", search_second),
        ("registers", search_registers),
        ("CPUID", search_cpuid),
        ("MSRs", search_msrs),
        ("memory-mapped registers", search_memory_mapped),
        ("ports", search_ports),
    ];
    for (name, step) in steps {
        step();
        print(format_args!("searched {name}\n"));
    }
    search_memory("at last");
    print(format_args!("search done, leaks {}\n", HITS.load(Ordering::Relaxed)));
}

/// Fills everything that it has with its canary, again and again, and resets, until something is typed.
pub fn neighbour() -> ! {
    print(format_args!("canary begins, leaks {}\n", HITS.load(Ordering::Relaxed)));
    // All RAM from 2 MiB on: below lies this program.
    for at in (2 << 20..ram_end()).step_by(8) {
        machine::write64(at, canary((at >> 3) as usize));
    }
    let vectors = Area::filled(canary);
    for _ in 0..LIFE {
        vectors.load();
        machine::set_dr0(canary(0));
        machine::set_dr1(canary(1));
        machine::set_dr2(canary(0));
        machine::set_dr3(canary(1));
        machine::set_cr2(canary(0));
        for (index, number) in HOLDING.iter().enumerate() {
            let value = if matches!(*number, 0xc000_0081) { canary(1) } else { canary(0) };
            // Nothing of this program stands at the bases of FS and GS.
            let value = if *number == 0x174 || index == 10 { value & 0xffff_ffff } else { value };
            machine::write_msr(*number, value);
        }
        fill_devices();
        let all = State {
            rax: canary(0),
            rbx: canary(1),
            rcx: canary(0),
            rdx: canary(1),
            rsi: canary(0),
            rdi: canary(1),
            rbp: canary(0),
            high: core::array::from_fn(canary),
            ..State::default()
        };
        for (_, code, [rbx, rcx, rdx], _) in kinds() {
            let given = |value: u64, other: u64| if value == 0 { other } else { value };
            engine::run(
                Mode::Long,
                code,
                State { rbx: given(rbx, all.rbx), rcx: given(rcx, all.rcx), rdx: given(rdx, all.rdx), ..all },
            );
        }
        sleep();
        // Whatever is typed ends it.
        if port_in(0x3fd) & 1 == 1 {
            print(format_args!("canary ends\n"));
            machine::power_off();
        }
    }
    crate::console::Console::finish();
    // A full reset (port 0xcf9).
    port_out(0xcf9, 2);
    port_out(0xcf9, 6);
    loop {
        interrupts::wait(10);
    }
}

/// What registers of devices hold: the serial port's scratch register, a counter of the interval timer, the clock's memory, the PCI bus's
/// address, the local and the I/O APIC, memory type ranges.
fn fill_devices() {
    port_out(0x3ff, BYTE);
    port_out(0x43, 0xb4);
    port_out(0x42, canary(0) as u8);
    port_out(0x42, (canary(0) >> 8) as u8);
    for index in 0x0eu8..0x80 {
        port_out(0x70, index);
        port_out(0x71, (canary(usize::from(index) / 8) >> (index % 8 * 8)) as u8);
    }
    machine::port_out_double(0xcf8, canary(1) as u32 | 1 << 31);
    // Logical destination, the high half of the command, an entry that is masked.
    set_apic(0xd0, canary(1) as u32);
    set_apic(0x310, canary(1) as u32);
    set_apic(0x380, canary(1) as u32);
    set_apic(0x380, 0);
    assert_eq!(apic(0x380), 0);
    for index in 0..24 {
        machine::write32(0xfec0_0000, 0x11 + 2 * index);
        machine::write32(0xfec0_0010, canary(1) as u32);
    }
    engine::place(code!("wrmsr"));
    for number in 0x200..0x210u64 {
        let value = canary(0) & !0xfff | 6;
        let registers = State { rcx: number, rax: value & 0xffff_ffff, rdx: value >> 32, ..State::default() };
        engine::start_at(Mode::Long, engine::CODE, registers);
    }
}
