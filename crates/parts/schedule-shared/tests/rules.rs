//! Each rule of the scheduler alone, call by call.

use contracts::{CpuIndex, HostTime, Leave, Scheduler, Turn, VcpuName};
use schedule_shared::{PROCESSORS, ScheduleShared};

type Shared = ScheduleShared<8>;

/// Ticks in a slice.
const SLICE: u64 = 6_000_000;
const START: HostTime = HostTime(0);
const CPU_0: CpuIndex = CpuIndex(0);
const CPU_1: CpuIndex = CpuIndex(1);
const CPU_2: CpuIndex = CpuIndex(2);
const A: VcpuName = VcpuName { compartment: 0, vcpu: 0 };
const B: VcpuName = VcpuName { compartment: 0, vcpu: 1 };
const C: VcpuName = VcpuName { compartment: 1, vcpu: 0 };
const D: VcpuName = VcpuName { compartment: 3, vcpu: 9 };

fn at(time: u64) -> HostTime {
    HostTime(time)
}

fn run(vcpu: VcpuName, until: Option<u64>) -> Turn {
    Turn::Run { vcpu, until: until.map(HostTime) }
}

fn idle(until: Option<u64>) -> Turn {
    Turn::Idle { until: until.map(HostTime) }
}

fn halted(wake_at: Option<u64>) -> Leave {
    Leave::Halted { wake_at: wake_at.map(HostTime) }
}

/// A scheduler with some vCPUs of the usual weight, pinned or not.
fn scheduler(cpus: u8, vcpus: &[(VcpuName, Option<u8>)]) -> Shared {
    let scheduler = Shared::new(cpus);
    scheduler.calibrate(1_000_000);
    for (vcpu, pinned) in vcpus {
        assert!(scheduler.admit(*vcpu, 100, pinned.map(CpuIndex)));
    }
    scheduler
}

#[test]
fn admission_has_limits() {
    let scheduler = ScheduleShared::<2>::new(2);
    assert!(!scheduler.admit(A, 100, Some(CPU_2)), "a processor that is not there");
    assert!(!scheduler.admit(A, 100, Some(CpuIndex(255))), "a processor that cannot be");
    assert!(scheduler.admit(A, 100, Some(CPU_1)));
    assert!(!scheduler.admit(A, 100, None), "twice");
    assert!(scheduler.admit(B, 0, None), "the least weight");
    assert!(!scheduler.admit(C, 100, None), "no room");
    scheduler.retire(A);
    scheduler.retire(C);
    assert!(scheduler.admit(C, u32::MAX, None), "a slot is free again");
    assert!(!scheduler.admit(A, 100, None));
    assert_eq!(scheduler.next(CPU_0, START), idle(None), "admitted, but not ready");
    assert_eq!(scheduler.wake(A, START), None, "retired");
    assert!(!ScheduleShared::<2>::new(0).admit(A, 100, None), "no processor at all");
}

#[test]
fn processors_that_are_not_there_get_nothing() {
    let scheduler = ScheduleShared::<2>::new(255);
    assert!(scheduler.admit(A, 100, None));
    assert!(!scheduler.admit(B, 100, Some(CpuIndex(PROCESSORS as u8))));
    scheduler.wake(A, START);
    for cpu in [PROCESSORS as u8, 200, 255] {
        let cpu = CpuIndex(cpu);
        assert_eq!(scheduler.next(cpu, START), idle(None));
        scheduler.leave(cpu, A, START, halted(None));
        assert!(!scheduler.contended(cpu));
        assert_eq!(scheduler.hand_over(cpu), None);
    }
    assert_eq!(scheduler.next(CpuIndex(PROCESSORS as u8 - 1), START), run(A, None));
}

#[test]
fn alone_it_runs_without_end_and_sleeps_till_its_timer() {
    let scheduler = scheduler(1, &[(A, None)]);
    assert_eq!(scheduler.wake(A, START), None, "no processor waits for work yet");
    assert_eq!(scheduler.next(CPU_0, START), run(A, None));
    scheduler.leave(CPU_0, A, at(10), halted(Some(100)));
    assert_eq!(scheduler.next(CPU_0, at(10)), idle(Some(100)));
    assert_eq!(scheduler.next(CPU_0, at(99)), idle(Some(100)));
    assert_eq!(scheduler.next(CPU_0, at(100)), run(A, None));
    scheduler.leave(CPU_0, A, at(110), halted(None));
    assert_eq!(scheduler.next(CPU_0, at(110)), idle(None), "the old timer means nothing");
    assert_eq!(scheduler.wake(A, at(120)), Some(CPU_0));
    assert_eq!(scheduler.wake(A, at(120)), None, "announced already");
    assert_eq!(scheduler.next(CPU_0, at(120)), run(A, None));
}

#[test]
fn two_that_compute_take_turns() {
    let scheduler = scheduler(1, &[(A, None), (B, None)]);
    scheduler.wake(A, START);
    scheduler.wake(B, START);
    assert_eq!(scheduler.next(CPU_0, START), run(A, Some(SLICE)));
    scheduler.leave(CPU_0, A, at(SLICE), Leave::Preempted);
    assert_eq!(scheduler.next(CPU_0, at(SLICE)), run(B, Some(2 * SLICE)));
    scheduler.leave(CPU_0, B, at(2 * SLICE), Leave::Preempted);
    assert_eq!(scheduler.next(CPU_0, at(2 * SLICE)), run(A, Some(3 * SLICE)));
}

#[test]
fn a_slice_is_six_milliseconds_of_the_clock() {
    let scheduler = Shared::new(1);
    scheduler.calibrate(2_400_000);
    scheduler.calibrate(0);
    assert!(scheduler.admit(A, 100, None) && scheduler.admit(B, 100, None));
    scheduler.wake(A, START);
    scheduler.wake(B, START);
    assert_eq!(scheduler.next(CPU_0, at(5)), run(A, Some(5 + 14_400_000)));
}

#[test]
fn a_turn_ends_when_a_sleeper_of_its_processor_wakes() {
    let scheduler = scheduler(2, &[(A, Some(0)), (B, Some(0)), (C, Some(1))]);
    scheduler.wake(A, START);
    assert_eq!(scheduler.next(CPU_0, START), run(A, None));
    scheduler.leave(CPU_0, A, START, halted(Some(1000)));
    scheduler.wake(B, START);
    scheduler.wake(C, START);
    assert_eq!(scheduler.next(CPU_0, START), run(B, Some(1000)));
    assert_eq!(scheduler.next(CPU_1, START), run(C, None), "it is not this one's sleeper");
    scheduler.leave(CPU_0, B, at(1000), Leave::Preempted);
    // Both are ready now, and the one that slept did not run as much.
    assert_eq!(
        scheduler.next(CPU_0, at(1000)),
        run(B, Some(1000 + SLICE)),
        "a halt counts as 1/256 of a slice"
    );
    scheduler.leave(CPU_0, B, at(50_000), Leave::Preempted);
    assert_eq!(scheduler.next(CPU_0, at(50_000)), run(A, Some(50_000 + SLICE)));
}

#[test]
fn a_sleeper_ends_a_slice_too() {
    let scheduler = scheduler(1, &[(A, None), (B, None), (C, None)]);
    scheduler.wake(A, START);
    assert_eq!(scheduler.next(CPU_0, START), run(A, None));
    scheduler.leave(CPU_0, A, START, halted(Some(1000)));
    scheduler.wake(B, START);
    scheduler.wake(C, START);
    assert_eq!(scheduler.next(CPU_0, START), run(B, Some(1000)));
}

#[test]
fn a_sleeper_is_left_to_the_processor_it_is_pinned_to() {
    let scheduler = scheduler(2, &[(A, Some(1)), (B, Some(0))]);
    scheduler.wake(A, START);
    assert_eq!(scheduler.next(CPU_1, START), run(A, None));
    scheduler.leave(CPU_1, A, START, halted(Some(1000)));
    assert_eq!(scheduler.next(CPU_1, START), idle(Some(1000)));
    scheduler.wake(B, START);
    assert_eq!(scheduler.next(CPU_0, at(1000)), run(B, None));
    assert_eq!(scheduler.hand_over(CPU_0), None, "its own processor wakes by itself");
    assert_eq!(scheduler.next(CPU_1, at(1000)), run(A, None));
}

#[test]
fn a_wake_while_it_runs_makes_its_next_halt_none() {
    let scheduler = scheduler(2, &[(A, None)]);
    scheduler.wake(A, START);
    assert_eq!(scheduler.next(CPU_1, START), run(A, None));
    assert_eq!(scheduler.wake(A, START), Some(CPU_1));
    assert_eq!(scheduler.wake(A, START), Some(CPU_1), "each may carry something new");
    assert!(!scheduler.contended(CPU_1), "it is itself whom the kick is for");
    scheduler.leave(CPU_1, A, at(10), halted(None));
    assert_eq!(scheduler.next(CPU_1, at(10)), run(A, None));
    scheduler.leave(CPU_1, A, at(20), halted(None));
    assert_eq!(scheduler.next(CPU_1, at(20)), idle(None), "but not for ever");
}

#[test]
fn an_idle_processor_is_woken_its_last_one_first() {
    let scheduler = scheduler(3, &[(A, None), (B, None), (C, None), (D, None)]);
    scheduler.wake(A, START);
    assert_eq!(scheduler.next(CPU_1, START), run(A, None));
    scheduler.leave(CPU_1, A, START, halted(None));
    for cpu in 0..3 {
        assert_eq!(scheduler.next(CpuIndex(cpu), START), idle(None));
    }
    assert_eq!(scheduler.wake(A, START), Some(CPU_1));
    assert_eq!(scheduler.wake(B, START), Some(CPU_0), "the other one is on its way already");
    assert_eq!(scheduler.wake(C, START), Some(CPU_2));
    assert_eq!(scheduler.wake(D, START), None, "all are on their way");
}

#[test]
fn an_idle_processor_goes_before_preempting() {
    let scheduler = scheduler(2, &[(A, None), (B, None)]);
    scheduler.wake(A, START);
    assert_eq!(scheduler.next(CPU_0, START), run(A, None));
    assert_eq!(scheduler.next(CPU_1, START), idle(None));
    assert_eq!(scheduler.wake(B, at(100 * SLICE)), Some(CPU_1));
    assert!(!scheduler.contended(CPU_0));
}

#[test]
fn it_goes_on_where_it_ran_last_unless_others_wait_long() {
    let scheduler = scheduler(2, &[(A, None), (B, None)]);
    scheduler.wake(A, START);
    assert_eq!(scheduler.next(CPU_1, START), run(A, None));
    scheduler.leave(CPU_1, A, at(SLICE / 32), Leave::Preempted);
    scheduler.wake(B, at(SLICE / 32));
    // B is behind, but by less than a move costs.
    assert!(matches!(scheduler.next(CPU_1, at(SLICE / 32)), Turn::Run { vcpu: A, .. }));
    assert!(matches!(scheduler.next(CPU_0, at(SLICE / 32)), Turn::Run { vcpu: B, .. }));
}

#[test]
fn pinned_ones_stay_where_they_are() {
    let scheduler = scheduler(2, &[(A, Some(1)), (B, Some(1))]);
    assert_eq!(scheduler.next(CPU_0, START), idle(None));
    assert_eq!(scheduler.next(CPU_1, START), idle(None));
    assert_eq!(scheduler.wake(A, START), Some(CPU_1));
    assert_eq!(scheduler.wake(B, START), None, "its processor is on its way");
    assert_eq!(scheduler.next(CPU_0, START), idle(None));
    assert_eq!(scheduler.next(CPU_1, START), run(A, Some(SLICE)));
    assert_eq!(scheduler.hand_over(CPU_1), None, "the idle one may not help");
}

#[test]
fn a_newcomer_ends_a_turn_that_had_no_end() {
    let scheduler = scheduler(1, &[(A, None), (B, None)]);
    scheduler.wake(A, START);
    assert_eq!(scheduler.next(CPU_0, START), run(A, None));
    assert!(!scheduler.contended(CPU_0));
    // After as little time nobody has to be preempted, but the turn needs an end.
    assert_eq!(scheduler.wake(B, at(10)), Some(CPU_0));
    assert!(scheduler.contended(CPU_0));
    scheduler.leave(CPU_0, A, at(20), Leave::Preempted);
    assert!(matches!(scheduler.next(CPU_0, at(20)), Turn::Run { until: Some(HostTime(6_000_020)), .. }));
    assert!(!scheduler.contended(CPU_0));
}

#[test]
fn a_sleeper_preempts_the_one_that_is_furthest_ahead() {
    let scheduler = scheduler(2, &[(A, None), (B, None), (C, None), (D, None)]);
    scheduler.wake(A, START);
    assert_eq!(scheduler.next(CPU_0, START), run(A, None));
    scheduler.wake(B, START);
    assert_eq!(scheduler.next(CPU_1, at(100_000)), run(B, None));
    let later = 3 * SLICE / 4;
    assert_eq!(scheduler.wake(C, at(later)), Some(CPU_0), "A ran longer");
    assert!(scheduler.contended(CPU_0) && !scheduler.contended(CPU_1));
    scheduler.leave(CPU_0, A, at(later), Leave::Preempted);
    assert_eq!(scheduler.next(CPU_0, at(later)), run(C, Some(later + SLICE)));
    assert_eq!(scheduler.hand_over(CPU_0), Some(CPU_1), "A could run there: its turn needs an end");
    assert_eq!(scheduler.hand_over(CPU_0), None, "once");
    assert!(scheduler.contended(CPU_1));
    // C has just begun; that D wakes now does not end its turn.
    scheduler.leave(CPU_1, B, at(later), Leave::Preempted);
    assert!(matches!(scheduler.next(CPU_1, at(later)), Turn::Run { until: Some(_), .. }));
    let soon = later + 1000;
    assert_eq!(scheduler.wake(D, at(soon)), Some(CPU_1), "there is one that is ahead");
}

#[test]
fn a_wake_that_can_wait_kicks_nobody_if_all_turns_have_ends() {
    let scheduler = scheduler(1, &[(A, None), (B, None), (C, None)]);
    scheduler.wake(A, START);
    scheduler.wake(B, START);
    assert_eq!(scheduler.next(CPU_0, START), run(A, Some(SLICE)));
    assert_eq!(scheduler.wake(C, at(100)), None);
    assert!(!scheduler.contended(CPU_0));
}

#[test]
fn an_idle_processor_is_handed_what_a_turn_leaves_ready() {
    let scheduler = scheduler(2, &[(A, None), (B, None)]);
    scheduler.wake(A, START);
    assert_eq!(scheduler.next(CPU_0, START), run(A, None));
    scheduler.leave(CPU_0, A, START, halted(Some(1000)));
    scheduler.wake(B, START);
    assert_eq!(scheduler.next(CPU_0, START), run(B, Some(1000)));
    assert_eq!(scheduler.next(CPU_1, START), idle(None));
    // A's timer goes off on the processor that looks after it, and both are ready: the idle one has to learn of it.
    scheduler.leave(CPU_0, B, at(1000), Leave::Preempted);
    assert!(matches!(scheduler.next(CPU_0, at(1000)), Turn::Run { .. }));
    assert_eq!(scheduler.hand_over(CPU_0), Some(CPU_1));
    assert!(matches!(scheduler.next(CPU_1, at(1000)), Turn::Run { until: None, .. }));
    assert_eq!(scheduler.hand_over(CPU_1), None);
}

#[test]
fn who_yields_lets_others_go_first() {
    let scheduler = scheduler(1, &[(A, None), (B, None)]);
    scheduler.wake(B, START);
    assert_eq!(scheduler.next(CPU_0, START), run(B, None));
    scheduler.leave(CPU_0, B, at(SLICE), Leave::Preempted);
    scheduler.wake(A, at(SLICE));
    // A is behind by half a slice, but what it waits for is not its turn.
    assert_eq!(scheduler.next(CPU_0, at(SLICE)), run(A, Some(2 * SLICE)));
    scheduler.leave(CPU_0, A, at(SLICE), Leave::Yielded);
    assert_eq!(scheduler.next(CPU_0, at(SLICE)), run(B, Some(2 * SLICE)));
    scheduler.leave(CPU_0, B, at(SLICE), halted(None));
    assert_eq!(scheduler.next(CPU_0, at(SLICE)), run(A, None));
    scheduler.leave(CPU_0, A, at(SLICE), Leave::Yielded);
    assert_eq!(scheduler.next(CPU_0, at(SLICE)), run(A, None), "alone it goes on");
}

#[test]
fn credit_is_reckoned_against_competitors_only() {
    let scheduler = scheduler(2, &[(A, Some(0)), (B, Some(1)), (C, Some(1))]);
    scheduler.wake(C, START);
    assert_eq!(scheduler.next(CPU_1, START), run(C, None));
    // A runs where nobody ever did: it is far behind, but competes with nobody.
    let now = 100 * SLICE;
    scheduler.wake(A, at(now));
    assert_eq!(scheduler.next(CPU_0, at(now)), run(A, None));
    assert_eq!(scheduler.wake(B, at(now)), Some(CPU_1));
    scheduler.leave(CPU_1, C, at(now), Leave::Preempted);
    // Half a slice of credit is worth one slice; then it is C's turn.
    assert_eq!(scheduler.next(CPU_1, at(now)), run(B, Some(now + SLICE)));
    scheduler.leave(CPU_1, B, at(now + SLICE), Leave::Preempted);
    assert_eq!(scheduler.next(CPU_1, at(now + SLICE)), run(C, Some(now + 2 * SLICE)));
}

#[test]
fn virtual_time_may_wrap() {
    let scheduler = Shared::new(1);
    scheduler.calibrate(1_000_000);
    assert!(scheduler.admit(A, 1, None) && scheduler.admit(B, 1, None));
    scheduler.wake(A, START);
    assert_eq!(scheduler.next(CPU_0, START), run(A, None));
    // Three years alone with the least weight: a hundred times as much virtual time, which is about to change its sign.
    let mut now = (1 << 63) / 100;
    scheduler.leave(CPU_0, A, at(now), Leave::Preempted);
    scheduler.wake(B, at(now));
    for turn in [B, A, B, A, B, A] {
        assert_eq!(scheduler.next(CPU_0, at(now)), run(turn, Some(now + SLICE)));
        now += SLICE;
        scheduler.leave(CPU_0, turn, at(now), Leave::Preempted);
    }
}

#[test]
fn a_retired_one_is_gone_whatever_it_did() {
    let scheduler = scheduler(1, &[(A, None), (B, None), (C, None)]);
    scheduler.wake(A, START);
    assert_eq!(scheduler.next(CPU_0, START), run(A, None));
    scheduler.leave(CPU_0, A, START, halted(Some(10)));
    scheduler.retire(A);
    assert_eq!(scheduler.next(CPU_0, at(20)), idle(None), "its timer is gone");
    scheduler.wake(B, at(20));
    scheduler.retire(B);
    assert_eq!(scheduler.next(CPU_0, at(20)), idle(None));
    // One that runs should not be retired; if it is, it does not come back.
    scheduler.wake(C, at(20));
    assert_eq!(scheduler.next(CPU_0, at(20)), run(C, None));
    scheduler.retire(C);
    scheduler.leave(CPU_0, C, at(30), Leave::Preempted);
    assert_eq!(scheduler.next(CPU_0, at(30)), idle(None));
    assert!(scheduler.admit(C, 100, None));
    assert_eq!(scheduler.next(CPU_0, at(40)), idle(None), "admitted again, but not ready");
    assert_eq!(scheduler.wake(C, at(40)), Some(CPU_0));
    assert_eq!(scheduler.next(CPU_0, at(40)), run(C, None));
}

#[test]
fn callers_that_forget_something_lose_nobody() {
    let scheduler = scheduler(2, &[(A, None), (B, None)]);
    scheduler.wake(A, START);
    assert_eq!(scheduler.next(CPU_0, START), run(A, None));
    scheduler.leave(CPU_0, B, START, halted(None));
    scheduler.leave(CPU_1, A, START, halted(None));
    assert_eq!(scheduler.next(CPU_1, START), idle(None), "neither of these was so: A runs still");
    assert_eq!(scheduler.next(CPU_0, START), run(A, None), "without leaving, as if preempted");
    // Clocks of processors may differ by a little.
    scheduler.leave(CPU_0, A, at(5), Leave::Preempted);
    assert_eq!(scheduler.next(CPU_0, at(3)), run(A, None));
    scheduler.leave(CPU_0, A, at(2), Leave::Preempted);
    assert_eq!(scheduler.next(CPU_0, at(u64::MAX)), run(A, None));
}

#[test]
fn many_processors_at_once() {
    // Real threads, real locks: each letter has to be read, by whichever processor runs its receiver.
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::time::{Duration, Instant};
    const LETTERS: u64 = 20_000;
    const RECEIVERS: usize = 6;
    const LIMIT: Duration = Duration::from_secs(30);
    let scheduler = Shared::new(4);
    let kicks = [const { AtomicBool::new(false) }; 4];
    let boxes = [const { AtomicU64::new(0) }; RECEIVERS];
    let busy = [const { AtomicBool::new(false) }; RECEIVERS];
    let read = AtomicU64::new(0);
    let name = |which: usize| VcpuName { compartment: 2, vcpu: which as u8 };
    for which in 0..RECEIVERS {
        assert!(scheduler.admit(name(which), 100, (which == 0).then_some(CPU_2)));
    }
    let clock = Instant::now();
    let now = || HostTime(clock.elapsed().as_nanos() as u64);
    std::thread::scope(|scope| {
        for cpu in 0..4 {
            let (scheduler, kicks, boxes, busy, read, now) = (&scheduler, &kicks, &boxes, &busy, &read, &now);
            scope.spawn(move || {
                let index = CpuIndex(cpu as u8);
                while read.load(Ordering::Acquire) < LETTERS && clock.elapsed() < LIMIT {
                    let turn = scheduler.next(index, now());
                    if let Some(other) = scheduler.hand_over(index) {
                        kicks[usize::from(other.0)].store(true, Ordering::Release);
                    }
                    match turn {
                        Turn::Run { vcpu, .. } => {
                            let which = usize::from(vcpu.vcpu);
                            assert!(!busy[which].swap(true, Ordering::AcqRel), "it runs twice");
                            read.fetch_add(boxes[which].swap(0, Ordering::AcqRel), Ordering::AcqRel);
                            busy[which].store(false, Ordering::Release);
                            let why =
                                if which % 2 == 0 { halted(None) } else { halted(Some(now().0 + 2000)) };
                            scheduler.leave(index, vcpu, now(), why);
                        }
                        Turn::Idle { until } => {
                            while !kicks[cpu].swap(false, Ordering::AcqRel)
                                && until.is_none_or(|until| now() < until)
                                && read.load(Ordering::Acquire) < LETTERS
                            {
                                if clock.elapsed() > LIMIT {
                                    break;
                                }
                                std::thread::yield_now();
                            }
                        }
                    }
                }
            });
        }
        for letter in 0..LETTERS {
            let which = letter as usize % RECEIVERS;
            boxes[which].fetch_add(1, Ordering::AcqRel);
            if let Some(cpu) = scheduler.wake(name(which), now()) {
                kicks[usize::from(cpu.0)].store(true, Ordering::Release);
            }
        }
    });
    assert_eq!(read.load(Ordering::Acquire), LETTERS, "a wake was lost");
}
