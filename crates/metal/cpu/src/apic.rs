//! The local APIC of the host's processors: x2APIC mode where there is one, else the registers in memory
//! (SDM Vol. 3A chapter 11; APM Vol. 2 chapter 16).

use crate::{Features, clock, interrupt, msr};
use core::sync::atomic::{AtomicU8, Ordering};

/// Where the registers are mapped in xAPIC mode: the first page of the device window.
pub const ADDRESS: usize = 0x48_0000_0000;
/// Offset of the end-of-interrupt register.
pub const END_OF_INTERRUPT: usize = 0xb0;

const IDENTIFIER: usize = 0x20;
const TASK_PRIORITY: usize = 0x80;
const SPURIOUS: usize = 0xf0;
const IN_SERVICE: usize = 0x100;
const COMMAND: usize = 0x300;
const COMMAND_HIGH: usize = 0x310;
const TIMER: usize = 0x320;
const THERMAL: usize = 0x330;
const PERFORMANCE: usize = 0x340;
const LINE_0: usize = 0x350;
const LINE_1: usize = 0x360;
const ERROR: usize = 0x370;
const INITIAL_COUNT: usize = 0x380;
const CURRENT_COUNT: usize = 0x390;
const DIVIDE: usize = 0x3e0;

const MASKED: u32 = 1 << 16;
const DEADLINE_MODE: u32 = 2 << 17;
const NON_MASKABLE: u32 = 4 << 8;
const INIT: u32 = 5 << 8;
const START_UP: u32 = 6 << 8;
const ASSERT: u32 = 1 << 14;
const OTHERS: u32 = 3 << 18;
const PENDING: u32 = 1 << 12;

const NONE: u8 = 0;
const MEMORY: u8 = 1;
const X2APIC: u8 = 2;

/// How the registers are reached; the same on all processors.
static MODE: AtomicU8 = AtomicU8::new(NONE);
/// Whether the timer is armed by TSC deadline.
static DEADLINE: AtomicU8 = AtomicU8::new(0);

fn mode() -> u8 {
    MODE.load(Ordering::Relaxed)
}

#[inline(always)]
fn read(register: usize) -> u32 {
    match mode() {
        // SAFETY: In x2APIC mode each register that this module names is the MSR 800h + offset/16.
        X2APIC => unsafe { msr::read(x86::msr::X2APIC_FIRST + (register >> 4) as u32) as u32 },
        // SAFETY: `prepare` was called: the page is mapped uncached for ever and belongs to this module.
        MEMORY => unsafe { core::ptr::read_volatile((ADDRESS + register) as *const u32) },
        _ => 0,
    }
}

#[inline(always)]
fn write(register: usize, value: u32) {
    match mode() {
        // SAFETY: As in `read`; the values written by this module are legal for their registers.
        X2APIC => unsafe { msr::write(x86::msr::X2APIC_FIRST + (register >> 4) as u32, u64::from(value)) },
        // SAFETY: As in `read`.
        MEMORY => unsafe { core::ptr::write_volatile((ADDRESS + register) as *mut u32, value) },
        _ => {}
    }
}

/// Where the registers are in physical memory, by the processor's own word.
///
/// # Safety
///
/// The processor has a local APIC, which every x86-64 processor has.
pub unsafe fn physical_address() -> u64 {
    // SAFETY: APIC_BASE exists with every local APIC.
    unsafe { msr::read(x86::msr::APIC_BASE) & 0x000f_ffff_ffff_f000 }
}

/// Turns this processor's local APIC on, with everything masked but what is sent on purpose.
///
/// # Safety
///
/// In xAPIC mode its page is mapped uncached at [`ADDRESS`]. The interrupt descriptor table is loaded. Interrupts are masked.
pub unsafe fn prepare(features: &Features) {
    // SAFETY: APIC_BASE exists; bits 11 and 10 turn on what CPUID announces, in an order that the manual allows
    // (SDM Vol. 3A figure 11-27).
    unsafe {
        let base = msr::read(x86::msr::APIC_BASE) | 1 << 11;
        msr::write(x86::msr::APIC_BASE, base);
        if features.x2apic {
            msr::write(x86::msr::APIC_BASE, base | 1 << 10);
        }
    }
    MODE.store(if features.x2apic { X2APIC } else { MEMORY }, Ordering::Relaxed);
    DEADLINE.store(u8::from(features.tsc_deadline), Ordering::Relaxed);
    write(SPURIOUS, 1 << 8 | u32::from(interrupt::SPURIOUS));
    write(TASK_PRIORITY, 0);
    write(LINE_0, MASKED);
    // LINT1 carries NMIs from the chip set: a named stop is better than a silent one.
    write(LINE_1, NON_MASKABLE);
    write(ERROR, MASKED);
    // Not every local APIC has these two; the version register says how many entries there are.
    let entries = (read(0x30) >> 16 & 0xff) + 1;
    if entries > 4 {
        write(PERFORMANCE, MASKED);
    }
    if entries > 5 {
        write(THERMAL, MASKED);
    }
    write(DIVIDE, 0b1011);
    write(INITIAL_COUNT, 0);
    write(TIMER, timer_entry());
    // Acknowledge what firmware left in service.
    for _ in 0..256 {
        if in_service().is_none() {
            break;
        }
        end_of_interrupt();
    }
}

/// The timer's entry in the local vector table as it works: one shot, by count or by deadline.
fn timer_entry() -> u32 {
    u32::from(interrupt::TIMER) | if has_deadline() { DEADLINE_MODE } else { 0 }
}

/// This processor's identifier.
pub fn identifier() -> u32 {
    match mode() {
        X2APIC => read(IDENTIFIER),
        _ => read(IDENTIFIER) >> 24,
    }
}

/// Acknowledges the interrupt in service.
#[inline(always)]
pub fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// The highest vector in service, if any.
pub fn in_service() -> Option<u8> {
    (0..8).rev().find_map(|word| {
        let bits = read(IN_SERVICE + word * 0x10);
        (bits != 0).then(|| (word * 32) as u8 + (31 - bits.leading_zeros()) as u8)
    })
}

fn command(target: u32, low: u32) {
    match mode() {
        // SAFETY: The ICR takes target and command in one write; it orders nothing, so that a fence makes the mailbox visible
        // before the interrupt (SDM Vol. 3A §11.12.3).
        X2APIC => unsafe {
            core::arch::x86_64::_mm_mfence();
            core::arch::x86_64::_mm_lfence();
            msr::write(
                x86::msr::X2APIC_FIRST + (COMMAND >> 4) as u32,
                u64::from(target) << 32 | u64::from(low),
            );
        },
        MEMORY => {
            // Bounded: a local APIC that never delivers must not hang its processor.
            for _ in 0..100_000 {
                if read(COMMAND) & PENDING == 0 {
                    break;
                }
                core::hint::spin_loop();
            }
            write(COMMAND_HIGH, target << 24);
            write(COMMAND, low);
        }
        _ => {}
    }
}

/// Interrupts the processor with that identifier at [`interrupt::KICK`].
pub fn send_kick(identifier: u32) {
    command(identifier, ASSERT | u32::from(interrupt::KICK));
}

/// Resets another processor: it waits for [`send_start_up`].
///
/// # Safety
///
/// Nothing that the processor did is still needed.
pub unsafe fn send_init(identifier: u32) {
    command(identifier, ASSERT | INIT);
}

/// Starts a processor that waits after INIT, in real mode at the page `page` (address / 4096).
///
/// # Safety
///
/// The page holds code for it.
pub unsafe fn send_start_up(identifier: u32, page: u8) {
    command(identifier, ASSERT | START_UP | u32::from(page));
}

/// Sends an NMI to all other processors, which then stop: for faults only.
pub(crate) fn stop_others() {
    command(0, OTHERS | ASSERT | NON_MASKABLE);
}

/// Whether deadlines go to the APIC as TSC values.
#[inline(always)]
pub fn has_deadline() -> bool {
    DEADLINE.load(Ordering::Relaxed) != 0
}

/// Arms this processor's timer for the TSC value `deadline`, at once if that is past. A deadline that the timer cannot count to
/// gives an earlier interrupt.
#[inline]
pub fn arm(deadline: u64) {
    if has_deadline() {
        // SAFETY: CPUID announces TSC_DEADLINE and the timer is in that mode. 0 would disarm, so it is avoided.
        unsafe { msr::write(x86::msr::TSC_DEADLINE, deadline.max(1)) };
    } else {
        let left = deadline.saturating_sub(crate::ticks());
        write(INITIAL_COUNT, clock::timer_ticks(left).clamp(1, u64::from(u32::MAX)) as u32);
    }
}

/// Disarms this processor's timer.
#[inline]
pub fn disarm() {
    if has_deadline() {
        // SAFETY: As in `arm`; 0 disarms.
        unsafe { msr::write(x86::msr::TSC_DEADLINE, 0) };
    } else {
        write(INITIAL_COUNT, 0);
    }
}

/// Lets the timer count down from its largest value with its interrupt masked, to measure its rate.
pub(crate) fn start_measuring() {
    write(TIMER, MASKED | u32::from(interrupt::TIMER));
    write(INITIAL_COUNT, u32::MAX);
}

/// Timer ticks since [`start_measuring`].
pub(crate) fn measured() -> u64 {
    u64::from(u32::MAX - read(CURRENT_COUNT))
}

/// Stops what [`start_measuring`] started.
pub(crate) fn stop_measuring() {
    write(INITIAL_COUNT, 0);
    write(TIMER, timer_entry());
}
