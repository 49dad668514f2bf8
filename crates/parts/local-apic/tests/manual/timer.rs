//! The timer (SDM §11.5.4; APM §16.4.1). Its clock is the time stamp counter.

use crate::Bench;
use contracts::{GuestTicks, LocalApic as _};
use local_apic::MINIMUM_PERIOD;

const ONE_SHOT: u32 = 0x40;
const PERIODIC: u32 = 0x2_0040;
const DEADLINE: u32 = 0x4_0040;
const MASKED: u32 = 0x1_0000;

fn timer(entry: u32, divide: u32) -> Bench {
    let mut bench = Bench::bootstrap();
    bench.write(0x320, entry);
    bench.write(0x3e0, divide);
    bench
}

/// Figure 11-10: what divides by what.
#[test]
fn divisors() {
    for (code, divisor) in [
        (0b0000, 2),
        (0b0001, 4),
        (0b0010, 8),
        (0b0011, 16),
        (0b1000, 32),
        (0b1001, 64),
        (0b1010, 128),
        (0b1011, 1),
    ] {
        let mut bench = timer(ONE_SHOT, code);
        bench.write(0x380, 1000);
        assert_eq!(bench.apic.deadline(), Some(GuestTicks(bench.now + 1000 * divisor)));
        bench.pass(400 * divisor);
        assert_eq!(bench.read(0x390), 600, "{code:#b}");
        bench.pass(600 * divisor - 1);
        assert_eq!((bench.serve(), bench.read(0x390)), (None, 1));
        bench.pass(1);
        assert_eq!((bench.serve(), bench.read(0x390)), (Some(0x40), 0));
    }
}

/// "In one-shot mode … the timer remains at its 0 value until reprogrammed."
#[test]
fn one_shot_goes_off_once() {
    let mut bench = timer(ONE_SHOT, 0b1011);
    bench.write(0x380, 5000);
    bench.pass(1_000_000);
    assert_eq!((bench.serve(), bench.serve(), bench.apic.deadline()), (Some(0x40), None, None));
    assert_eq!((bench.read(0x380), bench.read(0x390)), (5000, 0));
}

/// "In periodic mode, the current-count register is automatically reloaded from the initial-count register".
#[test]
fn periodic_goes_on() {
    let mut bench = timer(PERIODIC, 0b1011);
    bench.write(0x380, 50_000);
    for _ in 0..5 {
        bench.pass(49_999);
        assert_eq!((bench.serve(), bench.read(0x390)), (None, 1));
        bench.pass(1);
        assert_eq!((bench.serve(), bench.read(0x390)), (Some(0x40), 50_000));
    }
    // "A write of 0 to the initial-count register effectively stops the local APIC timer, in both modes."
    bench.write(0x380, 0);
    assert_eq!((bench.apic.deadline(), bench.read(0x390)), (None, 0));
}

/// A vCPU that was away finds one interrupt, and the next at its old place.
#[test]
fn missed_periods_count_once_and_the_phase_stays() {
    let mut bench = timer(PERIODIC, 0b1011);
    let start = bench.now;
    bench.write(0x380, 50_000);
    bench.now += 1_000_000_007 * 50_000 + 20_000;
    bench.apic.expire(GuestTicks(bench.now));
    assert_eq!((bench.serve(), bench.serve()), (Some(0x40), None));
    assert_eq!(bench.apic.deadline(), Some(GuestTicks(start + 1_000_000_008 * 50_000)));
    assert_eq!(bench.read(0x390), 30_000);
}

/// A period of a few ticks would make the host do nothing else: its expirations come in bundles, in phase.
#[test]
fn short_periods_are_bundled() {
    for count in [1, 3, 9_999, 10_000, 10_001] {
        let mut bench = timer(PERIODIC, 0b1011);
        let start = bench.now;
        bench.write(0x380, count);
        let mut last = start;
        for _ in 0..100 {
            let Some(GuestTicks(next)) = bench.apic.deadline() else { panic!("{count} stopped") };
            assert!(
                next - last >= MINIMUM_PERIOD.get() && next - last < MINIMUM_PERIOD.get() + u64::from(count)
            );
            assert_eq!((next - start) % u64::from(count), 0);
            bench.apic.expire(GuestTicks(next));
            last = next;
        }
        bench.now = last + 1;
        assert_eq!(bench.read(0x390), count - 1 + u32::from(count == 1));
    }
}

/// "The mask flag in the LVT timer register can be used to mask the timer interrupt": the count runs all the same.
#[test]
fn masked_it_counts_but_does_not_interrupt() {
    let mut bench = timer(PERIODIC | MASKED, 0b1011);
    bench.write(0x380, 50_000);
    assert_eq!(bench.apic.deadline(), None);
    bench.pass(20_000);
    assert_eq!(bench.read(0x390), 30_000);
    bench.pass(130_001);
    assert_eq!((bench.read(0x390), bench.serve()), (49_999, None));
    // Unmasked, it does not make up for what was missed.
    bench.write(0x320, PERIODIC);
    assert_eq!(bench.serve(), None);
    bench.pass(49_999);
    assert_eq!(bench.serve(), Some(0x40));

    let mut bench = timer(ONE_SHOT | MASKED, 0b1011);
    bench.write(0x380, 50_000);
    bench.pass(60_000);
    bench.write(0x320, ONE_SHOT);
    bench.pass(60_000);
    assert_eq!((bench.serve(), bench.read(0x390)), (None, 0));
}

/// "If the initial-count register is set during the process, counting will restart, using the new value."
#[test]
fn a_new_count_restarts() {
    let mut bench = timer(ONE_SHOT, 0b1011);
    bench.write(0x380, 50_000);
    bench.pass(20_000);
    bench.write(0x380, 70_000);
    assert_eq!(bench.apic.deadline(), Some(GuestTicks(bench.now + 70_000)));
}

/// A change of the divisor while it counts: what is left goes on at the new rate.
#[test]
fn a_new_divisor_counts_from_here() {
    for entry in [ONE_SHOT, PERIODIC] {
        let mut bench = timer(entry, 0b1011);
        bench.write(0x380, 50_000);
        bench.pass(20_000);
        bench.write(0x3e0, 0b0000);
        assert_eq!(bench.read(0x390), 30_000);
        assert_eq!(bench.apic.deadline(), Some(GuestTicks(bench.now + 60_000)));
    }
}

/// The count may be written before the mode, as GNU Mach does: it goes on, in the new mode.
#[test]
fn between_one_shot_and_periodic_the_count_goes_on() {
    let mut bench = timer(ONE_SHOT | MASKED, 0b1011);
    bench.write(0x380, 50_000);
    bench.pass(100);
    bench.write(0x320, PERIODIC);
    bench.pass(49_900);
    assert_eq!(bench.serve(), Some(0x40));
    bench.pass(50_000);
    assert_eq!(bench.serve(), Some(0x40));
    bench.write(0x320, ONE_SHOT);
    bench.pass(500_000);
    assert_eq!((bench.serve(), bench.serve(), bench.apic.deadline()), (Some(0x40), None, None));
}

/// An expiration that the host has not yet delivered when the guest touches the timer is not lost.
#[test]
fn what_was_due_is_not_lost() {
    let due = || {
        let mut bench = timer(ONE_SHOT, 0b1011);
        bench.write(0x380, 50_000);
        bench.now += 50_000;
        bench
    };
    for (offset, value) in
        [(0x380, 0), (0x3e0, 0), (0x320, DEADLINE), (0x320, ONE_SHOT | MASKED), (0xf0, 0xff)]
    {
        let mut bench = due();
        bench.write(offset, value);
        assert_eq!(bench.serve(), Some(0x40), "{offset:#x} {value:#x}");
    }
    let mut bench = due();
    assert_eq!((bench.read(0x390), bench.serve()), (0, Some(0x40)));
    let mut bench = timer(DEADLINE, 0);
    bench.deadline(bench.now + 100);
    bench.now += 100;
    bench.deadline(0);
    assert_eq!((bench.serve(), bench.apic.deadline()), (Some(0x40), None));
}

/// §11.5.4.1: "each write to the MSR generates at most one timer interrupt", and it reads 0 after.
#[test]
fn a_deadline_goes_off_once() {
    let mut bench = timer(DEADLINE, 0);
    let at = bench.now + 12_345;
    bench.deadline(at);
    assert_eq!((bench.apic.tsc_deadline(), bench.apic.deadline()), (at, Some(GuestTicks(at))));
    bench.apic.expire(GuestTicks(at - 1));
    assert_eq!(bench.serve(), None);
    bench.pass(12_345);
    assert_eq!((bench.serve(), bench.apic.tsc_deadline(), bench.apic.deadline()), (Some(0x40), 0, None));
    bench.pass(100_000);
    assert_eq!(bench.serve(), None);
}

/// "An interrupt is generated when the time-stamp counter equals or exceeds the target value": at once, if it does.
#[test]
fn a_deadline_in_the_past_goes_off_at_once() {
    for ago in [0, 1, 999_999] {
        let mut bench = timer(DEADLINE, 0);
        bench.deadline(bench.now - ago);
        assert_eq!((bench.apic.tsc_deadline(), bench.apic.deadline()), (0, None));
        assert_eq!((bench.serve(), bench.serve()), (Some(0x40), None));
    }
}

/// "Writing 0 disarms"; a later write replaces an earlier one; the end of time is a deadline like others.
#[test]
fn a_deadline_can_be_changed() {
    let mut bench = timer(DEADLINE, 0);
    bench.deadline(u64::MAX);
    assert_eq!(bench.apic.deadline(), Some(GuestTicks(u64::MAX)));
    bench.deadline(bench.now + 10);
    assert_eq!(bench.apic.tsc_deadline(), bench.now + 10);
    bench.deadline(0);
    bench.pass(100);
    assert_eq!((bench.serve(), bench.apic.tsc_deadline()), (None, 0));
}

/// "In other timer modes, the IA32_TSC_DEADLINE MSR reads zero and writes are ignored"; in this one "writes to the
/// initial-count register are ignored; and current-count register always reads 0".
#[test]
fn the_modes_exclude_each_other() {
    for entry in [ONE_SHOT, PERIODIC, 0x6_0040] {
        let mut bench = timer(entry, 0);
        bench.deadline(bench.now - 1);
        bench.deadline(bench.now + 100);
        assert_eq!((bench.apic.tsc_deadline(), bench.apic.deadline(), bench.serve()), (0, None, None));
    }
    for entry in [DEADLINE, 0x6_0040] {
        let mut bench = timer(entry, 0);
        bench.write(0x380, 1000);
        assert_eq!((bench.read(0x380), bench.read(0x390), bench.apic.deadline()), (0, 0, None));
    }
}

/// §11.5.4.1: into and out of the deadline mode, the timer is disarmed.
#[test]
fn a_change_to_or_from_the_deadline_mode_disarms() {
    let mut bench = timer(DEADLINE, 0);
    bench.deadline(bench.now + 100);
    bench.write(0x320, DEADLINE | MASKED);
    bench.write(0x320, DEADLINE);
    // Nor does the divisor matter.
    bench.write(0x3e0, 0xb);
    assert_eq!(bench.apic.tsc_deadline(), bench.now + 100);
    bench.write(0x320, PERIODIC);
    bench.write(0x320, DEADLINE);
    assert_eq!((bench.apic.tsc_deadline(), bench.apic.deadline()), (0, None));

    let mut bench = timer(PERIODIC, 0);
    bench.write(0x380, 1000);
    bench.write(0x320, DEADLINE);
    bench.write(0x320, PERIODIC);
    assert_eq!((bench.apic.deadline(), bench.read(0x380), bench.read(0x390)), (None, 0, 0));
}

/// The counter near its end, and a counter that goes back.
#[test]
fn the_ends_of_time() {
    for entry in [ONE_SHOT, PERIODIC] {
        let mut bench = timer(entry, 0b1010);
        bench.now = u64::MAX - 10;
        bench.write(0x380, u32::MAX);
        // What is left of the time there is, in units of 128 ticks.
        assert_eq!(bench.read(0x390), 1);
        bench.apic.expire(GuestTicks(u64::MAX));
        assert_eq!((bench.serve(), bench.apic.deadline()), (Some(0x40), None));
        let mut bench = timer(entry, 0b1010);
        bench.write(0x380, 77);
        bench.now = 0;
        assert!(bench.read(0x390) <= 77);
    }
}
