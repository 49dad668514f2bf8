//! A vCPU owns its processor: who is admitted where, who runs when, and that no wake is lost.

use contracts::{CpuIndex, HostTime, Leave, Scheduler, Turn, VcpuName};
use proptest::prelude::*;
use schedule_static::ScheduleStatic;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const fn vcpu(compartment: u8, vcpu: u8) -> VcpuName {
    VcpuName { compartment, vcpu }
}

const fn run(vcpu: VcpuName) -> Turn {
    Turn::Run { vcpu, until: None }
}

const fn idle(until: Option<u64>) -> Turn {
    Turn::Idle {
        until: match until {
            Some(time) => Some(HostTime(time)),
            None => None,
        },
    }
}

const fn halted(wake_at: Option<u64>) -> Leave {
    Leave::Halted {
        wake_at: match wake_at {
            Some(time) => Some(HostTime(time)),
            None => None,
        },
    }
}

const START: HostTime = HostTime(0);
const CPU_0: CpuIndex = CpuIndex(0);
const CPU_1: CpuIndex = CpuIndex(1);

#[test]
fn each_gets_a_processor_of_its_own() {
    let scheduler = ScheduleStatic::<4>::new(3);
    assert!(scheduler.admit(vcpu(0, 0), 100, Some(CPU_1)));
    assert!(!scheduler.admit(vcpu(0, 1), 100, Some(CPU_1)), "a second vCPU on a processor");
    assert!(!scheduler.admit(vcpu(0, 1), 100, Some(CpuIndex(3))), "a processor that is not there");
    assert!(!scheduler.admit(vcpu(0, 1), 100, Some(CpuIndex(255))), "a processor that cannot be");
    assert!(!scheduler.admit(vcpu(0, 0), 100, None), "the same vCPU again");
    assert!(scheduler.admit(vcpu(0, 1), 100, None));
    assert!(scheduler.admit(vcpu(7, 0), 100, None));
    assert!(!scheduler.admit(vcpu(7, 1), 100, None), "no processor is left");
    for (name, cpu) in [(vcpu(0, 0), 1), (vcpu(0, 1), 0), (vcpu(7, 0), 2)] {
        assert_eq!(scheduler.next(CpuIndex(cpu), START), idle(None), "admitted, but not ready");
        assert_eq!(scheduler.wake(name, START), Some(CpuIndex(cpu)));
        assert_eq!(scheduler.next(CpuIndex(cpu), START), run(name));
    }
    assert_eq!(scheduler.wake(vcpu(7, 1), START), None, "nobody");
}

#[test]
fn capacity_is_kept() {
    let scheduler = ScheduleStatic::<2>::new(8);
    assert!(scheduler.admit(vcpu(0, 0), 1, Some(CpuIndex(7))));
    assert!(scheduler.admit(vcpu(0, 1), 1, None));
    assert!(!scheduler.admit(vcpu(0, 2), 1, None));
}

#[test]
fn a_halted_one_waits_for_its_timer_or_a_wake() {
    let scheduler = ScheduleStatic::<1>::new(1);
    let name = vcpu(3, 2);
    assert!(scheduler.admit(name, 1, None));
    scheduler.wake(name, START);
    assert_eq!(scheduler.next(CPU_0, START), run(name));
    scheduler.leave(CPU_0, name, START, halted(Some(100)));
    assert_eq!(scheduler.next(CPU_0, HostTime(99)), idle(Some(100)));
    assert_eq!(scheduler.next(CPU_0, HostTime(100)), run(name));
    scheduler.leave(CPU_0, name, START, halted(Some(200)));
    assert_eq!(scheduler.wake(name, HostTime(150)), Some(CPU_0));
    assert_eq!(scheduler.next(CPU_0, HostTime(150)), run(name));
    // The old timer means nothing any more.
    scheduler.leave(CPU_0, name, START, halted(None));
    assert_eq!(scheduler.next(CPU_0, HostTime(300)), idle(None));
}

#[test]
fn preempted_or_yielding_it_goes_on() {
    let scheduler = ScheduleStatic::<1>::new(1);
    let name = vcpu(0, 0);
    assert!(scheduler.admit(name, 1, None));
    scheduler.wake(name, START);
    for why in [Leave::Preempted, Leave::Yielded, Leave::Preempted] {
        assert_eq!(scheduler.next(CPU_0, START), run(name));
        assert!(!scheduler.contended(CPU_0));
        scheduler.leave(CPU_0, name, START, why);
    }
    assert_eq!(scheduler.wake(name, START), None, "it is ready already");
}

#[test]
fn a_wake_while_it_runs_reaches_its_processor_and_outlives_the_halt() {
    let scheduler = ScheduleStatic::<1>::new(1);
    let name = vcpu(0, 0);
    assert!(scheduler.admit(name, 1, None));
    scheduler.wake(name, START);
    assert_eq!(scheduler.next(CPU_0, START), run(name));
    assert_eq!(scheduler.wake(name, START), Some(CPU_0));
    assert_eq!(scheduler.wake(name, START), Some(CPU_0), "each may carry something new");
    scheduler.leave(CPU_0, name, START, halted(None));
    assert_eq!(scheduler.next(CPU_0, START), run(name), "once more, to look at its mailbox");
    scheduler.leave(CPU_0, name, START, halted(None));
    assert_eq!(scheduler.next(CPU_0, START), idle(None), "but not for ever");
}

#[test]
fn a_retired_one_leaves_its_processor_to_others() {
    let scheduler = ScheduleStatic::<1>::new(1);
    assert!(scheduler.admit(vcpu(0, 0), 1, None));
    scheduler.wake(vcpu(0, 0), START);
    scheduler.retire(vcpu(0, 0));
    scheduler.retire(vcpu(0, 0));
    assert_eq!(scheduler.next(CPU_0, START), idle(None));
    assert_eq!(scheduler.wake(vcpu(0, 0), START), None);
    assert!(scheduler.admit(vcpu(1, 0), 1, Some(CPU_0)));
    assert_eq!(scheduler.next(CPU_0, START), idle(None), "it begins not ready, whatever its predecessor was");
    assert_eq!(scheduler.wake(vcpu(1, 0), START), Some(CPU_0));
    assert_eq!(scheduler.next(CPU_0, START), run(vcpu(1, 0)));
}

#[test]
fn a_stranger_cannot_leave_for_the_owner() {
    let scheduler = ScheduleStatic::<2>::new(2);
    assert!(scheduler.admit(vcpu(0, 0), 1, Some(CPU_0)) && scheduler.admit(vcpu(1, 0), 1, Some(CPU_1)));
    scheduler.wake(vcpu(0, 0), START);
    assert_eq!(scheduler.next(CPU_0, START), run(vcpu(0, 0)));
    scheduler.leave(CPU_0, vcpu(1, 0), START, Leave::Preempted);
    assert_eq!(scheduler.wake(vcpu(0, 0), START), Some(CPU_0), "it runs still");
    scheduler.leave(CpuIndex(9), vcpu(0, 0), START, halted(None));
    assert_eq!(scheduler.next(CpuIndex(9), START), idle(None));
}

/// What a test may do to one of three vCPUs on three processors.
#[derive(Copy, Clone, Debug)]
enum Step {
    Admit(u8, Option<u8>),
    Retire(u8),
    Next(u8),
    Leave(u8, Leave),
    Wake(u8),
    Wait(u64),
}

/// The same in plain words: a vCPU has a processor, is ready or not, runs or not.
#[derive(Copy, Clone, Debug, Default)]
struct Model {
    cpu: Option<u8>,
    ready: bool,
    running: bool,
    woken: bool,
    wake_at: Option<u64>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_behaves_as_the_model(steps in prop::collection::vec(step(), 1..200)) {
        let scheduler = ScheduleStatic::<4>::new(3);
        let mut model = [Model::default(); 4];
        let mut now = 0;
        for step in steps {
            match step {
                Step::Wait(ticks) => now += ticks,
                Step::Admit(which, pinned) => {
                    let free = |cpu: u8| cpu < 3 && model.iter().all(|one| one.cpu != Some(cpu));
                    let cpu = match pinned {
                        Some(cpu) => Some(cpu).filter(|cpu| free(*cpu)),
                        None => (0..3).find(|cpu| free(*cpu)),
                    };
                    let cpu = cpu.filter(|_| model[which as usize].cpu.is_none());
                    prop_assert_eq!(scheduler.admit(vcpu(0, which), 1, pinned.map(CpuIndex)), cpu.is_some());
                    if cpu.is_some() {
                        model[which as usize] = Model { cpu, ..Model::default() };
                    }
                }
                Step::Retire(which) => {
                    if !model[which as usize].running {
                        scheduler.retire(vcpu(0, which));
                        model[which as usize] = Model::default();
                    }
                }
                Step::Next(cpu) => {
                    let owner = model.iter().position(|one| one.cpu == Some(cpu));
                    if owner.is_some_and(|which| model[which].running) {
                        continue;
                    }
                    let turn = scheduler.next(CpuIndex(cpu), HostTime(now));
                    let Some(which) = owner else {
                        prop_assert_eq!(turn, idle(None));
                        continue;
                    };
                    let one = &mut model[which];
                    if one.ready || one.wake_at.is_some_and(|time| time <= now) {
                        prop_assert_eq!(turn, run(vcpu(0, which as u8)));
                        *one = Model { cpu: one.cpu, running: true, ..Model::default() };
                    } else {
                        prop_assert_eq!(turn, idle(one.wake_at));
                    }
                }
                Step::Leave(which, why) => {
                    let one = &mut model[which as usize];
                    if let (Some(cpu), true) = (one.cpu, one.running) {
                        scheduler.leave(CpuIndex(cpu), vcpu(0, which), HostTime(now), why);
                        one.running = false;
                        match why {
                            Leave::Halted { wake_at } => {
                                one.ready = one.woken;
                                one.wake_at = wake_at.map(|time| time.0);
                            }
                            Leave::Preempted | Leave::Yielded => one.ready = true,
                        }
                        one.woken = false;
                    }
                }
                Step::Wake(which) => {
                    let one = &mut model[which as usize];
                    let answer = scheduler.wake(vcpu(0, which), HostTime(now));
                    prop_assert_eq!(answer, one.cpu.filter(|_| !one.ready).map(CpuIndex));
                    if one.running {
                        one.woken = true;
                    } else {
                        one.ready = one.cpu.is_some();
                    }
                }
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let time = prop::option::of((0..2000u64).prop_map(HostTime));
    let why = prop_oneof![
        time.prop_map(|wake_at| Leave::Halted { wake_at }),
        Just(Leave::Preempted),
        Just(Leave::Yielded)
    ];
    prop_oneof![
        2 => (0..4u8, prop::option::of(0..4u8)).prop_map(|(which, cpu)| Step::Admit(which, cpu)),
        1 => (0..4u8).prop_map(Step::Retire),
        6 => (0..4u8).prop_map(Step::Next),
        6 => (0..4u8, why).prop_map(|(which, why)| Step::Leave(which, why)),
        6 => (0..4u8).prop_map(Step::Wake),
        2 => (0..200u64).prop_map(Step::Wait),
    ]
}

/// Two processors that halt as soon as they find no mail, and a sender that posts and wakes as the contract says. Were a wake
/// lost, a processor would wait for ever with mail in its box.
#[test]
fn no_wake_is_lost_between_threads() {
    const LETTERS: u64 = 20_000;
    let scheduler = ScheduleStatic::<2>::new(2);
    let kicks = [const { AtomicBool::new(false) }; 2];
    let boxes = [const { AtomicU64::new(0) }; 2];
    for which in 0..2 {
        assert!(scheduler.admit(vcpu(0, which), 1, Some(CpuIndex(which))));
    }
    std::thread::scope(|scope| {
        for cpu in 0..2 {
            let (scheduler, kicks, boxes) = (&scheduler, &kicks, &boxes);
            scope.spawn(move || {
                let mut read = 0;
                while read < LETTERS {
                    match scheduler.next(CpuIndex(cpu as u8), START) {
                        Turn::Run { vcpu, .. } => {
                            read += boxes[cpu].swap(0, Ordering::AcqRel);
                            scheduler.leave(CpuIndex(cpu as u8), vcpu, START, halted(None));
                        }
                        Turn::Idle { .. } => {
                            let since = Instant::now();
                            while !kicks[cpu].swap(false, Ordering::AcqRel) {
                                assert!(since.elapsed() < Duration::from_secs(20), "a wake was lost");
                                std::thread::yield_now();
                            }
                        }
                    }
                }
            });
        }
        for letter in 0..2 * LETTERS {
            let which = (letter % 2) as usize;
            if boxes[which].fetch_add(1, Ordering::AcqRel) == 0
                && let Some(cpu) = scheduler.wake(vcpu(0, which as u8), START)
            {
                kicks[usize::from(cpu.0)].store(true, Ordering::Release);
            }
        }
    });
}
