//! Start of the other processors (SDM Vol. 3A §8.4.4; APM Vol. 2 §16.5).
//!
//! One after the other: each gets its block, is woken, checks that it is like the first, compares its time stamp counter, and waits,
//! with the neutral tables loaded, until the image lets everybody go.

use crate::machine::MACHINE;
use contracts::CpuIndex;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use cpu::{Features, apic, block, clock, interrupt};
use heapless::Vec;

/// Bits that a starting processor sets in EFER. Read by assembly.
pub(crate) static EFER: AtomicU32 = AtomicU32::new(0);
/// Page tables that a starting processor loads. Read by assembly.
pub(crate) static ROOT: AtomicU64 = AtomicU64::new(0);
/// Top of the stack of a starting processor. Read by assembly.
pub(crate) static STACK_TOP: AtomicUsize = AtomicUsize::new(0);

/// What everybody does once the image lets them go: a `fn(CpuIndex) -> !`; 0 until then.
static WORK: AtomicUsize = AtomicUsize::new(0);
/// What the first processor says of itself, for the others to compare; null while none is started.
static FIRST: AtomicPtr<Features> = AtomicPtr::new(core::ptr::null_mut());
/// How the processor that is being started comes along.
static STAGE: AtomicU32 = AtomicU32::new(ABSENT);
/// What it differs in.
static DIFFERENCE: spin::Mutex<Option<&'static str>> = spin::Mutex::new(None);
/// The latest time that any processor saw, and how far another was behind it.
static TIME: spin::Mutex<(u64, u64)> = spin::Mutex::new((0, 0));

const ABSENT: u32 = 0;
const ARRIVED: u32 = 1;
const DIFFERENT: u32 = 2;
const COMPARING: u32 = 3;
const COMPARED: u32 = 4;

/// Rounds of comparing two time stamp counters.
const ROUNDS: u32 = 500;
/// Milliseconds until a processor that does not come is left out. An emulator's thread may be away for long.
const PATIENCE: u64 = 1_000;

/// What was seen so far, with another reading: the latest time, and the most that one was behind it.
fn later(seen: (u64, u64), now: u64) -> (u64, u64) {
    (seen.0.max(now), seen.1.max(seen.0.saturating_sub(now)))
}

/// Both processors do this at the same time: whoever reads an earlier time than the other has already read is behind.
fn compare_time(rounds: u32) {
    for _ in 0..rounds {
        let mut seen = TIME.lock();
        let now = cpu::ticks();
        *seen = later(*seen, now);
    }
}

/// Waits until the stage is `wanted`; false if that does not come to pass.
fn reached(wanted: u32) -> bool {
    let begin = cpu::ticks();
    loop {
        if STAGE.load(Ordering::Acquire) == wanted {
            return true;
        }
        if passed(begin, PATIENCE * 1_000) {
            return false;
        }
        core::hint::spin_loop();
    }
}

fn passed(start: u64, microseconds: u64) -> bool {
    cpu::ticks().wrapping_sub(start) >= u64::from(clock::rate()) * microseconds / 1_000
}

fn pause(microseconds: u64) {
    let start = cpu::ticks();
    while !passed(start, microseconds) {
        core::hint::spin_loop();
    }
}

/// Where a started processor comes to: on its own stack, with the neutral tables, interrupts masked.
pub(crate) extern "C" fn arrive() -> ! {
    let cpu = block::current();
    // From here on a fault is named.
    // SAFETY: The block is mapped, zeroed and this processor's own; the interrupt descriptor table was filled with stacks.
    unsafe {
        block::load(cpu);
        interrupt::load();
    }
    let features = Features::probe();
    let first = FIRST.load(Ordering::Acquire);
    // SAFETY: The first processor stored a pointer to what lives until every processor that is being started has answered.
    let difference = match unsafe { first.as_ref() } {
        Some(first) => first.difference(&features),
        None => Some("time of arrival"),
    };
    if difference.is_some() {
        *DIFFERENCE.lock() = difference;
        STAGE.store(DIFFERENT, Ordering::Release);
        cpu::halt();
    }
    // SAFETY: The features are this processor's; the local APIC's page is mapped if it is used.
    unsafe {
        cpu::control::prepare(&features);
        apic::prepare(&features);
    }
    STAGE.store(ARRIVED, Ordering::Release);
    if reached(COMPARING) {
        compare_time(ROUNDS);
        STAGE.store(COMPARED, Ordering::Release);
    }
    loop {
        let work = WORK.load(Ordering::Acquire);
        if work != 0 {
            // SAFETY: `release` stored a function of this type, and nobody else stores here.
            let work: fn(CpuIndex) -> ! = unsafe { core::mem::transmute(work) };
            work(cpu);
        }
        // SAFETY: The table is loaded. A kick that comes between the look and the wait ends the wait.
        unsafe { cpu::wait_for_interrupt() };
    }
}

/// Lets all processors that were started do `work`.
pub(crate) fn release(started: u8, work: fn(CpuIndex) -> !) {
    WORK.store(work as usize, Ordering::Release);
    for index in 1..started {
        contracts::Host::kick(&MACHINE, CpuIndex(index));
    }
}

/// Processors to start, and how many are not because they are second threads of a core.
pub(crate) fn choose(all: &[u32], first: &Features) -> (Vec<u32, { block::PROCESSORS }>, usize) {
    let mut chosen = Vec::new();
    let mut siblings = 0;
    for identifier in all.iter().copied().filter(|identifier| *identifier != first.apic_id) {
        let shift = u32::from(first.thread_bits).min(31);
        // The first processor's own core is taken, whichever of its threads it is.
        let same_core = identifier >> shift == first.apic_id >> shift;
        if same_core || !first.first_thread(identifier) {
            siblings += 1;
        } else if chosen.push(identifier).is_err() {
            break;
        }
    }
    (chosen, siblings)
}

/// Starts one processor, which will be number `cpu`. False, and it is left out, if it does not come or differs.
///
/// # Safety
///
/// `page` names the page below 1 MiB that holds the trampoline; `root` tables that map the block of `cpu`; `features` are this
/// processor's and stay where they are until this returns. One processor is started at a time.
#[inline(never)]
pub(crate) unsafe fn start(cpu: CpuIndex, identifier: u32, page: u8, root: u64, features: &Features) -> bool {
    EFER.store(if features.nx { 1 << 11 } else { 0 }, Ordering::Relaxed);
    ROOT.store(root, Ordering::Relaxed);
    STACK_TOP.store(block::stack_top(cpu), Ordering::Relaxed);
    FIRST.store(core::ptr::from_ref(features).cast_mut(), Ordering::Relaxed);
    *TIME.lock() = (0, 0);
    STAGE.store(ABSENT, Ordering::SeqCst);
    // SAFETY: The processor waits in firmware's care; nothing of it is needed. The trampoline is in place.
    unsafe {
        apic::send_init(identifier);
        pause(10_000);
        apic::send_start_up(identifier, page);
        let first = cpu::ticks();
        while STAGE.load(Ordering::Acquire) == ABSENT && !passed(first, 1_000) {
            core::hint::spin_loop();
        }
        if STAGE.load(Ordering::Acquire) == ABSENT {
            apic::send_start_up(identifier, page);
        }
    }
    let begin = cpu::ticks();
    while STAGE.load(Ordering::Acquire) == ABSENT && !passed(begin, PATIENCE * 1_000) {
        core::hint::spin_loop();
    }
    let stage = STAGE.load(Ordering::Acquire);
    if stage == ABSENT || stage == DIFFERENT {
        // SAFETY: It is left out: INIT puts it back to where it waits for a start, so that it cannot come late.
        unsafe { apic::send_init(identifier) };
        match *DIFFERENCE.lock() {
            Some(difference) if stage == DIFFERENT => {
                crate::say(format_args!(
                    "processor {identifier:#x} differs from the first in {difference}: left out"
                ));
            }
            _ => crate::say(format_args!("processor {identifier:#x} did not start: left out")),
        }
        FIRST.store(core::ptr::null_mut(), Ordering::Release);
        return false;
    }
    FIRST.store(core::ptr::null_mut(), Ordering::Release);
    // A reading of this processor's comes first and another last, so that either may be found behind.
    compare_time(1);
    STAGE.store(COMPARING, Ordering::Release);
    compare_time(ROUNDS);
    if !reached(COMPARED) {
        crate::say(format_args!("processor {identifier:#x} did not compare its time"));
    }
    compare_time(1);
    let behind = TIME.lock().1;
    if behind != 0 {
        crate::say(format_args!(
            "the time stamp counter of processor {identifier:#x} is out of step by {behind} ticks"
        ));
    }
    MACHINE.set_identifier(cpu, identifier);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_behind_is_noticed_by_how_much() {
        let seen = [100, 101, 101, 90, 150, 149].into_iter().fold((0, 0), later);
        assert_eq!(seen, (150, 11));
        assert_eq!([1, 2, 3, 3].into_iter().fold((0, 0), later).1, 0);
    }

    #[test]
    fn one_thread_of_each_core_is_chosen() {
        let first = Features { apic_id: 0, thread_bits: 1, ..Features::default() };
        let (chosen, siblings) = choose(&[0, 1, 2, 3, 4, 5], &first);
        assert_eq!((&chosen[..], siblings), (&[2, 4][..], 3));
        // The first processor may be a second thread itself.
        let first = Features { apic_id: 3, thread_bits: 1, ..Features::default() };
        let (chosen, siblings) = choose(&[0, 1, 2, 3], &first);
        assert_eq!((&chosen[..], siblings), (&[0][..], 2));
        let first = Features { apic_id: 0, ..Features::default() };
        assert_eq!(choose(&[0, 1, 2], &first).0[..], [1, 2]);
    }
}
