//! The end: a host fault, or a message that stops everything. It is a bug of ours, an NMI or a machine check, never a guest's
//! doing. Everything stops, and the report says where and why.

use crate::{block, serial};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use symbols::Symbols;

/// What the handlers of exceptions leave on the stack.
#[repr(C)]
#[derive(Debug)]
pub struct Frame {
    /// R15 down to R8, RBP, RDI, RSI, RDX, RCX, RBX, RAX.
    registers: [u64; 15],
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Nobody faults. Otherwise the number of the processor that reports, plus 1.
static REPORTING: AtomicU32 = AtomicU32::new(0);
/// The other processors are told by NMI to stop.
static STOPPING: AtomicBool = AtomicBool::new(false);
static TABLE: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
static TABLE_LENGTH: AtomicUsize = AtomicUsize::new(0);
/// What ends the machine: a `fn() -> !`, 0 if none is set.
static END: AtomicUsize = AtomicUsize::new(0);

/// Installs the symbol table that reports use: the format of crate `symbols`. A broken one is not used.
pub fn set_symbols(table: &'static [u8]) {
    TABLE_LENGTH.store(table.len(), Ordering::Relaxed);
    TABLE.store(table.as_ptr().cast_mut(), Ordering::Release);
}

/// Where the code is, so that reports tell return addresses from other words on the stack.
static CODE: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Says where the image's code begins and ends.
pub fn set_code((start, end): (u64, u64)) {
    CODE[0].store(start, Ordering::Relaxed);
    CODE[1].store(end, Ordering::Relaxed);
}

/// UD2 (0F 0B): what a panic ends in.
const BUG: u16 = 0x0b0f;

/// Stops everything because of a bug of ours, named by the place that calls this.
#[inline(always)]
pub fn bug() -> ! {
    // SAFETY: The instruction faults, and the fault ends in a report: nothing comes after it.
    unsafe { core::arch::asm!("ud2", options(noreturn, nomem, nostack)) }
}

/// Reports a machine check that came while a guest ran, and stops everything.
#[cold]
pub fn machine_check() -> ! {
    // SAFETY: The vector's handler takes what the processor pushes for INT as what it pushes for the exception; it ends in a report, so that
    // nothing comes after it.
    unsafe { core::arch::asm!("int 18", "int3", options(noreturn)) }
}

/// Whether the invalid opcode at `rip` is [`bug`]'s.
fn is_bug(rip: u64) -> bool {
    // SAFETY: The processor has just fetched that instruction, and what may be executed may be read.
    let instruction = unsafe { core::ptr::read_unaligned(rip as *const u16) };
    instruction == BUG
}

/// Callers that a report names at most.
const CALLERS: usize = 12;

/// Names those who called, as the stack from `rsp` on remembers them: words that point behind a near call in the code. Words of frames that
/// were left long ago may be among them.
fn callers(rsp: u64) {
    let [start, end] = [&CODE[0], &CODE[1]].map(|border| border.load(Ordering::Relaxed));
    let Some(top) = block::stack_above(rsp as usize) else { return };
    let words = (rsp as usize & !7..top).step_by(8);
    let returns = words.filter_map(|place| {
        // SAFETY: The place lies in a mapped stack, below its top, aligned.
        let word = unsafe { core::ptr::read(place as *const u64) };
        if word < start.saturating_add(5) || word >= end {
            return None;
        }
        // SAFETY: The place lies in the code, which is mapped readable for ever.
        let call = unsafe { core::ptr::read((word - 5) as *const u8) };
        (call == 0xe8).then_some(word)
    });
    for place in returns.take(CALLERS) {
        serial::line(format_args!("called from {}", Place(place)));
    }
}

/// Says what turns the machine off after a report. Without it the processor halts.
pub fn set_end(end: fn() -> !) {
    END.store(end as usize, Ordering::Release);
}

fn installed() -> Option<Symbols<'static>> {
    let table = TABLE.load(Ordering::Acquire);
    if table.is_null() {
        return None;
    }
    // SAFETY: `set_symbols` took both from a slice that lives for ever. It is called once at boot; the length was stored first.
    Symbols::parse(unsafe { core::slice::from_raw_parts(table, TABLE_LENGTH.load(Ordering::Relaxed)) })
}

/// A code address as `name+offset`, or as it is where no table knows it.
struct Place(u64);

impl core::fmt::Display for Place {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match installed().and_then(|symbols| symbols.find(self.0)) {
            Some((name, offset)) => write!(formatter, "{name}+{offset:#x}"),
            None => write!(formatter, "{:#x}", self.0),
        }
    }
}

const NAMES: [&str; 20] = [
    "divide error",
    "debug",
    "NMI",
    "breakpoint",
    "overflow",
    "bound range",
    "invalid opcode",
    "device not available",
    "double fault",
    "vector 9",
    "invalid TSS",
    "segment not present",
    "stack",
    "general protection",
    "page fault",
    "vector 15",
    "x87",
    "alignment check",
    "machine check",
    "SIMD",
];

fn name(vector: u64) -> &'static str {
    usize::try_from(vector).ok().and_then(|vector| NAMES.get(vector)).copied().unwrap_or("reserved exception")
}

/// Some of the general registers as [`Frame`] has them, the last first.
struct Registers<'frame> {
    registers: &'frame [u64; 15],
    row: core::ops::Range<usize>,
}

impl core::fmt::Display for Registers<'_> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        const NAMES: &str = "r15r14r13r12r11r10r9 r8 rbprdirsirdxrcxrbxrax";
        let mut between = "";
        for number in self.row.clone().rev() {
            let name = NAMES.get(3 * number..3 * number + 3).unwrap_or_default();
            let value = self.registers.get(number).copied().unwrap_or_default();
            write!(formatter, "{between}{name}={value:016x}")?;
            between = " ";
        }
        Ok(())
    }
}

/// Makes this processor the one that reports, and stops all others. Does not come back on a processor that is not the first.
fn seize() {
    let me = u32::from(block::current().0) + 1;
    match REPORTING.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            STOPPING.store(true, Ordering::Release);
            crate::apic::stop_others();
        }
        Err(other) if other == me => {
            // The report itself failed: say so with as little as possible.
            serial::write(b"\r\nringfence| host fault while reporting a fault\r\n");
            end();
        }
        Err(_) => crate::halt(),
    }
}

fn end() -> ! {
    let end = END.load(Ordering::Acquire);
    if end != 0 {
        // SAFETY: `set_end` stored a function of this type, and nobody else stores here.
        let end: fn() -> ! = unsafe { core::mem::transmute(end) };
        end();
    }
    crate::halt()
}

/// Reports a host exception and stops everything. Called by the exception stubs alone.
pub(crate) extern "C" fn report(frame: &Frame) -> ! {
    if frame.vector == 2 && STOPPING.load(Ordering::Acquire) {
        crate::halt();
    }
    seize();
    let cpu = block::current().0;
    let what = if frame.vector == 6 && is_bug(frame.rip) { "panic," } else { name(frame.vector) };
    serial::write(b"\r\n");
    serial::line(format_args!(
        "host fault: {what} error={:#x} at {} cpu {cpu}",
        frame.error,
        Place(frame.rip)
    ));
    let cr2 = x86_64::registers::control::Cr2::read_raw();
    if frame.vector == 8
        && let Some(owner) = block::owner(cr2 as usize)
    {
        serial::line(format_args!("the stack of cpu {} ran into its guard page at {cr2:#x}", owner.0));
    }
    serial::line(format_args!("rip={:016x} cs={:x} rflags={:x}", frame.rip, frame.cs, frame.rflags));
    serial::line(format_args!("rsp={:016x} ss={:x}", frame.rsp, frame.ss));
    for row in [11..15, 8..11, 4..8, 0..4] {
        serial::line(format_args!("{}", Registers { registers: &frame.registers, row }));
    }
    serial::line(format_args!("cr2={cr2:016x} cr3={:016x}", crate::control::page_tables()));
    callers(frame.rsp);
    if frame.vector == 18 {
        crate::machine_check::report();
    }
    serial::line(format_args!("everything is stopped"));
    end()
}

/// Says why and stops everything: for what can only be a bug of ours, panics included.
#[cold]
pub fn fatal(message: core::fmt::Arguments<'_>) -> ! {
    x86_64::instructions::interrupts::disable();
    seize();
    serial::write(b"\r\n");
    serial::line(format_args!("host fault: {message} cpu {}", block::current().0));
    serial::line(format_args!("everything is stopped"));
    end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exception_has_a_name() {
        assert_eq!(name(14), "page fault");
        assert_eq!(name(18), "machine check");
        assert_eq!(name(20), "reserved exception");
        assert_eq!(name(u64::MAX), "reserved exception");
    }

    #[test]
    fn the_frame_is_as_the_stubs_push_it() {
        assert_eq!(core::mem::offset_of!(Frame, vector), 15 * 8);
        assert_eq!(core::mem::offset_of!(Frame, rip), 17 * 8);
        assert_eq!(core::mem::size_of::<Frame>(), 22 * 8);
    }
}
