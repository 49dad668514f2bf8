//! Runs code in a mode of the processor until a trap of any kind ends it, and says which. The assembly is in engine.s.

use crate::console::print;
use crate::machine::{self, GDT, read64, write64};
use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Where the code of attempts lies: in a page that every mode reaches.
pub const CODE: u64 = 0x4000;
/// A page for what attempts read and write.
pub const DATA: u64 = 0x5000;
/// Where what runs in real mode lies; behind it, at [`REAL_ENTRY`] and [`REAL_TRAP`], what goes in and comes out.
const REAL: u64 = 0x6000;
const REAL_ENTRY: u64 = 0x7000;
const REAL_TRAP: u64 = 0x7100;
/// The stack of attempts ends here.
pub const STACK: u64 = 0x9000;
/// INT of this vector ends what runs to its end.
pub const DONE: u8 = 0x81;

/// A mode of the processor.
#[derive(Copy, Clone, PartialEq, Eq)]
pub enum Mode {
    /// 64-bit code, ring 0.
    Long,
    /// 64-bit code, ring 3.
    LongUser,
    /// 32-bit code under long mode, ring 0.
    Compatible,
    /// 32-bit code under long mode, ring 3.
    CompatibleUser,
    /// 16-bit code under long mode, ring 0.
    Compatible16,
    /// 32-bit protected mode without paging, ring 0.
    Protected,
    /// 32-bit protected mode without paging, ring 3.
    ProtectedUser,
    /// 16-bit protected mode without paging, ring 0.
    Protected16,
    /// Virtual-8086 mode without paging, IOPL 3 unless the registers say something else.
    Virtual8086,
    /// Real mode.
    Real,
}

impl Mode {
    /// All, in the order in which they are reported.
    pub const ALL: [Self; 10] = [
        Self::Long,
        Self::LongUser,
        Self::Compatible,
        Self::CompatibleUser,
        Self::Compatible16,
        Self::Protected,
        Self::ProtectedUser,
        Self::Protected16,
        Self::Virtual8086,
        Self::Real,
    ];

    /// Whether it is tried here. Without unrestricted guests real mode ends a compartment, and `without=real-mode` says so.
    pub fn is_tried(self) -> bool {
        self != Self::Real || crate::words::value("without") != Some("real-mode")
    }

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Long => "64",
            Self::LongUser => "64-ring3",
            Self::Compatible => "compat32",
            Self::CompatibleUser => "compat32-ring3",
            Self::Compatible16 => "compat16",
            Self::Protected => "protected32",
            Self::ProtectedUser => "protected32-ring3",
            Self::Protected16 => "protected16",
            Self::Virtual8086 => "virtual8086",
            Self::Real => "real",
        }
    }

    /// CS and SS.
    const fn selectors(self) -> (u64, u64) {
        match self {
            Self::Long => (0x08, 0x10),
            Self::LongUser => (0x2b, 0x23),
            Self::Compatible | Self::Protected => (0x18, 0x10),
            Self::CompatibleUser | Self::ProtectedUser => (0x33, 0x23),
            Self::Compatible16 | Self::Protected16 => (0x38, 0x10),
            Self::Real | Self::Virtual8086 => (0, 0),
        }
    }

    /// How engine.s enters it, where it lies outside long mode.
    const fn legacy_way(self) -> Option<u32> {
        match self {
            Self::Protected | Self::Protected16 => Some(0),
            Self::Real => Some(1),
            Self::ProtectedUser | Self::Virtual8086 => Some(2),
            _ => None,
        }
    }
}

/// What a processor holds: general registers in the order of engine.s, then the frame of a trap.
#[derive(Copy, Clone, PartialEq, Eq, Default)]
#[repr(C)]
pub struct State {
    /// RAX.
    pub rax: u64,
    /// RBX.
    pub rbx: u64,
    /// RCX.
    pub rcx: u64,
    /// RDX.
    pub rdx: u64,
    /// RSI.
    pub rsi: u64,
    /// RDI.
    pub rdi: u64,
    /// RBP.
    pub rbp: u64,
    /// R8 to R15.
    pub high: [u64; 8],
    /// Of a trap: the vector.
    pub vector: u64,
    /// Of a trap: the error code, 0 where there is none.
    pub code: u64,
    /// RIP.
    pub rip: u64,
    /// CS.
    pub cs: u64,
    /// RFLAGS.
    pub flags: u64,
    /// RSP.
    pub rsp: u64,
    /// SS.
    pub ss: u64,
}

/// How code ended.
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct Trap {
    /// What the processor held.
    pub state: State,
    /// CR2.
    pub cr2: u64,
    /// DR6.
    pub dr6: u64,
}

impl Trap {
    /// Whether the code ran to its end.
    pub const fn is_done(&self) -> bool {
        self.state.vector == DONE as u64
    }

    /// Whether it ended as the other one did, whatever registers hold.
    pub fn ended_as(&self, other: &Self) -> bool {
        let end = |trap: &Self| {
            let page = if trap.state.vector == 14 { trap.cr2 } else { 0 };
            let at = if trap.is_done() { 0 } else { trap.state.rip };
            (trap.state.vector, trap.state.code, page, at)
        };
        end(self) == end(other)
    }
}

/// `done`; or the exception's mnemonic with its error code, a page fault's address, and, unless that is 0, how far into the code it came.
impl fmt::Display for Trap {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 22] = [
            "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "9", "#TS", "#NP", "#SS", "#GP",
            "#PF", "15", "#MF", "#AC", "#MC", "#XF", "20", "#CP",
        ];
        let State { vector, code, rip, .. } = self.state;
        match (vector, NAMES.get(vector as usize)) {
            (81.., None) if self.is_done() => return write!(to, "done"),
            (8 | 10..=13 | 17 | 21, Some(name)) => write!(to, "{name}({code:x})")?,
            (14, _) => write!(to, "#PF({code:x})@{:x}", self.cr2)?,
            (_, Some(name)) => write!(to, "{name}")?,
            (29 | 30, None) => write!(to, "{vector}({code:x})")?,
            (_, None) => write!(to, "{vector}")?,
        }
        match rip.wrapping_sub(CODE) {
            0 => Ok(()),
            offset @ 1..0x1000 => write!(to, "+{offset}"),
            _ => write!(to, "+elsewhere"),
        }
    }
}

/// RSP of whoever waits for a trap; 0: nobody.
#[unsafe(no_mangle)]
static ENGINE_STACK: AtomicU64 = AtomicU64::new(0);
#[unsafe(no_mangle)]
static LEGACY_ENTRY: AtomicU32 = AtomicU32::new(0);
#[unsafe(no_mangle)]
static LEGACY_WAY: AtomicU32 = AtomicU32::new(0);
#[unsafe(no_mangle)]
static mut LEGACY_TRAP: State = EMPTY;
#[unsafe(no_mangle)]
static mut IDT_POINTER: Pointer = Pointer { limit: 0, base: 0 };
#[unsafe(no_mangle)]
static mut LEGACY_IDT_POINTER: Pointer = Pointer { limit: 0, base: 0 };

/// All zeros, to name the registers of an attempt that are not.
pub const EMPTY: State = State {
    rax: 0,
    rbx: 0,
    rcx: 0,
    rdx: 0,
    rsi: 0,
    rdi: 0,
    rbp: 0,
    high: [0; 8],
    vector: 0,
    code: 0,
    rip: 0,
    cs: 0,
    flags: 0,
    rsp: 0,
    ss: 0,
};

static mut TRAP: Trap = Trap { state: EMPTY, cr2: 0, dr6: 0 };

/// The vectors that are counted, and end nothing.
static COUNTED: [AtomicBool; 256] = [const { AtomicBool::new(false) }; 256];
static COUNTS: [AtomicU32; 256] = [const { AtomicU32::new(0) }; 256];

unsafe extern "C" {
    fn engage(entry: *const State);
    fn engage_legacy(entry: *const State, way: u32);
    safe static vectors: [[u8; 16]; 256];
    safe static legacy_vectors: [[u8; 16]; 256];
    safe static real_begin: u8;
    safe static real_vectors: [[u8; 6]; 256];
    safe static real_end: u8;
    safe static trap_stack_end: u8;
}

/// GDTR or IDTR in memory.
#[derive(Copy, Clone)]
#[repr(C, packed)]
pub struct Pointer {
    /// Last byte.
    pub limit: u16,
    /// Linear address.
    pub base: u64,
}

static mut IDT: [[u64; 2]; 256] = [[0; 2]; 256];
static mut LEGACY_IDT: [u64; 256] = [0; 256];
/// The task-state segment (APM volume 2, sections 12.2.4 and 12.2.5): all that counts are ESP0 and SS0, IST1 and the offset of the I/O map,
/// beyond its end. Below that are 32 bytes of ones: with CR4.VME, no INT of virtual-8086 mode goes to real mode's table.
static mut TSS: [u32; 34] = [0; 34];

/// Makes the tables and loads them.
pub fn start() {
    let stack = &raw const trap_stack_end as u64;
    // SAFETY: this runs once, before any attempt; the tables live as long as the program, and each gate leads to a handler.
    unsafe {
        let idt = (&raw mut IDT).cast::<[u64; 2]>();
        let legacy = (&raw mut LEGACY_IDT).cast::<u64>();
        for vector in 0..256 {
            let handler = &raw const vectors[vector] as u64;
            // An interrupt gate that ring 3 may use, on the stack IST1 (APM volume 2, section 4.8.4).
            let low = handler & 0xffff | 0x08 << 16 | 0xee01 << 32 | (handler >> 16 & 0xffff) << 48;
            idt.add(vector).write([low, handler >> 32]);
            let handler = &raw const legacy_vectors[vector] as u64;
            let gate = handler & 0xffff | 0x18 << 16 | 0xee00 << 32 | (handler >> 16 & 0xffff) << 48;
            legacy.add(vector).write(gate);
        }
        IDT_POINTER = Pointer { limit: 0xfff, base: idt as u64 };
        LEGACY_IDT_POINTER = Pointer { limit: 0x7ff, base: legacy as u64 };
        let tss = (&raw mut TSS).cast::<u32>();
        // Outside long mode the same is a 32-bit segment, with ESP0 and SS0 here; in long mode every gate has IST1.
        tss.add(1).write(stack as u32);
        tss.add(2).write(0x10);
        tss.add(9).write(stack as u32);
        tss.add(25).write(136 << 16);
        for word in 26..34 {
            tss.add(word).write(u32::MAX);
        }
        load_task();
        asm!("lidt [{}]", in(reg) &raw const IDT_POINTER, options(readonly, nostack, preserves_flags));
    }
    let (begin, end) = (&raw const real_begin as u64, &raw const real_end as u64);
    assert!(end - begin <= REAL_ENTRY - REAL);
    for offset in 0..end - begin {
        // SAFETY: low memory is free, and the source is this program's own.
        unsafe {
            ((REAL + offset) as *mut u8).write_volatile(((begin + offset) as *const u8).read_volatile())
        };
    }
    fill_real_vectors();
}

/// Real mode's table lies at address 0, where attempts may have written.
pub fn fill_real_vectors() {
    let begin = &raw const real_begin as u64;
    for vector in 0..256 {
        let handler = REAL + (&raw const real_vectors[vector] as u64 - begin);
        machine::write32(vector as u64 * 4, handler as u32);
    }
}

/// Makes the task-state segment's descriptor anew, since loading marks it busy, and loads TR.
pub fn load_task() {
    let base = &raw const TSS as u64;
    // SAFETY: the descriptor is of that segment, which lives as long as the program.
    unsafe {
        let gdt = (&raw mut GDT).cast::<u64>();
        gdt.add(10).write_volatile(135 | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56);
        gdt.add(11).write_volatile(base >> 32);
        asm!("ltr {:x}", in(reg) 0x50, options(nostack, preserves_flags));
    }
}

/// Called for every trap: whether it ends what runs.
#[unsafe(no_mangle)]
extern "C" fn trap_taken(state: &State) -> bool {
    let vector = state.vector as usize & 0xff;
    if COUNTED[vector].load(Ordering::Relaxed) {
        COUNTS[vector].fetch_add(1, Ordering::Relaxed);
        if vector >= 32 {
            crate::interrupts::end();
        }
        return false;
    }
    let trap = Trap { state: *state, cr2: machine::cr2(), dr6: machine::dr6() };
    if ENGINE_STACK.load(Ordering::Relaxed) == 0 {
        print(format_args!(
            "\nhostile failed: {trap} at {:x}:{:x}, rsp {:x}\n",
            state.cs, state.rip, state.rsp
        ));
        machine::power_off();
    }
    // SAFETY: nobody else uses it while a trap is taken.
    unsafe { TRAP = trap };
    true
}

/// Whether the vector is counted from now on; what was counted is 0.
pub fn count(vector: u8, counted: bool) {
    COUNTED[usize::from(vector)].store(counted, Ordering::Relaxed);
    COUNTS[usize::from(vector)].store(0, Ordering::Relaxed);
}

/// How often the vector came.
pub fn counted(vector: u8) -> u32 {
    COUNTS[usize::from(vector)].load(Ordering::Relaxed)
}

/// Puts code where attempts have theirs, with what ends it behind it.
pub fn place(code: &[u8]) {
    assert!(code.len() + 2 <= 0x1000);
    for (offset, byte) in code.iter().copied().chain([0xcd, DONE]).enumerate() {
        // SAFETY: the page is for this alone.
        unsafe { ((CODE + offset as u64) as *mut u8).write_volatile(byte) };
    }
}

/// Runs `code` in `mode` with these registers; RIP, CS, SS and, where it is 0, RSP are set here.
pub fn run(mode: Mode, code: &[u8], registers: State) -> Trap {
    place(code);
    start_at(mode, CODE, registers)
}

/// Runs what lies at `rip`.
pub fn start_at(mode: Mode, rip: u64, registers: State) -> Trap {
    let (cs, ss) = mode.selectors();
    let rsp = if registers.rsp == 0 { STACK } else { registers.rsp };
    let mut flags = registers.flags | 2;
    if mode == Mode::Virtual8086 {
        flags |= if registers.flags == 0 { VIRTUAL_8086 | PRIVILEGE_3 } else { VIRTUAL_8086 };
    }
    enter(mode.legacy_way(), State { rip, cs, ss, rsp, flags, ..registers })
}

/// RFLAGS.VM, and IOPL 3.
const VIRTUAL_8086: u64 = 1 << 17;
pub const PRIVILEGE_3: u64 = 3 << 12;

/// Runs what the state says.
fn enter(legacy: Option<u32>, entry: State) -> Trap {
    // SAFETY: the engine comes back whatever runs, with the registers that the calling convention preserves; what runs is made for it, and
    // touches nothing of this program but what the attempt puts back.
    unsafe {
        let Some(way) = legacy else {
            engage(&raw const entry);
            return TRAP;
        };
        let real = way == 1;
        // Paging is off there: this program lies where it lies.
        static mut ENTRY: State = EMPTY;
        ENTRY = entry;
        for (offset, word) in
            (&raw const entry).cast::<[u64; size_of::<State>() / 8]>().read().iter().enumerate()
        {
            write64(REAL_ENTRY + offset as u64 * 8, *word);
            write64(REAL_TRAP + offset as u64 * 8, 0);
        }
        LEGACY_TRAP = EMPTY;
        engage_legacy(&raw const ENTRY, way);
        let state = if real {
            let words: [u64; size_of::<State>() / 8] =
                core::array::from_fn(|index| read64(REAL_TRAP + index as u64 * 8));
            (&raw const words).cast::<State>().read()
        } else {
            LEGACY_TRAP
        };
        Trap { state, cr2: machine::cr2(), dr6: machine::dr6() }
    }
}

/// The machine code of instructions, in 64-bit mode unless another size is named. It is copied before it is executed: it must not refer to where
/// it lies.
#[macro_export]
macro_rules! code {
    (16: $($line:literal),+ $(,)?) => { $crate::code!(@ ".code16", $($line),+) };
    (32: $($line:literal),+ $(,)?) => { $crate::code!(@ ".code32", $($line),+) };
    (@ $size:literal, $($line:literal),+) => {{
        let (begin, end): (u64, u64);
        // SAFETY: jumps over the code and gives its place.
        unsafe {
            core::arch::asm!(
                "lea {begin}, [rip + 2f]", "lea {end}, [rip + 3f]", "jmp 3f", $size, "2:", $($line,)+ ".code64", "3:",
                begin = out(reg) begin, end = out(reg) end, options(nomem, nostack, preserves_flags)
            );
            core::slice::from_raw_parts(begin as *const u8, (end - begin) as usize)
        }
    }};
    ($($line:literal),+ $(,)?) => { $crate::code!(@ ".code64", $($line),+) };
}

/// Changes a gate of the interrupt table of legacy mode.
pub fn set_legacy_gate(vector: u8, gate: u64) {
    // SAFETY: whoever changes a gate says what is to happen through it.
    unsafe { (&raw mut LEGACY_IDT).cast::<u64>().add(vector.into()).write(gate) };
}
