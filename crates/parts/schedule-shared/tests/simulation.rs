//! Random loads on the machine in small: who gets how much, and how long anybody waits.

// A test that cannot go on fails; and ticks are few enough for shares to be reckoned in floating point.
#![allow(clippy::unwrap_used, clippy::cast_precision_loss, clippy::cast_sign_loss)]

mod support;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use support::{Guest, Life, MILLISECOND, Machine, SLICE};

/// What each of some vCPUs that only compute should get of `cpus` processors: its weight's share, but a whole processor at most; what
/// it cannot use goes to the others by their weights.
fn shares(weights: &[u32], cpus: usize) -> Vec<f64> {
    let mut shares = vec![0.0; weights.len()];
    let mut open: Vec<usize> = (0..weights.len()).collect();
    let mut left = cpus as f64;
    loop {
        let total: f64 = open.iter().map(|index| f64::from(weights[*index])).sum();
        let full: Vec<usize> = open
            .iter()
            .copied()
            .filter(|index| f64::from(weights[*index]) * left >= total * 0.999_999)
            .collect();
        if full.is_empty() || open.is_empty() {
            for index in open {
                shares[index] = f64::from(weights[index]) * left / total;
            }
            return shares;
        }
        for index in full {
            shares[index] = 1.0;
            left -= 1.0;
            open.retain(|other| *other != index);
        }
        if open.is_empty() {
            return shares;
        }
    }
}

fn computing(weight: u32) -> Guest {
    Guest { weight, pinned: None, life: Life::Compute }
}

/// Lets guests compute and compares what they got with what they should get.
fn assert_fair(weights: &[u32], cpus: u8, seed: u64) {
    let mut machine = Machine::<16>::new(cpus, 0, seed);
    for weight in weights {
        machine.add(computing(*weight));
    }
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let least = u64::from(*weights.iter().min().unwrap());
    // So long that even the smallest gets fifty slices.
    machine.run(SLICE * 50 * total.div_ceil(least));
    for (vcpu, share) in machine.vcpus.iter().zip(shares(weights, usize::from(cpus))) {
        let got = vcpu.ran as f64 / machine.now as f64;
        assert!((got / share - 1.0).abs() < 0.05, "{weights:?} on {cpus}: {got} of {share}");
    }
}

#[test]
fn water_filling() {
    assert_eq!(shares(&[1, 1, 2], 1), [0.25, 0.25, 0.5]);
    assert_eq!(shares(&[10, 1, 1], 2), [1.0, 0.5, 0.5]);
    assert_eq!(shares(&[1, 1], 4), [1.0, 1.0]);
}

#[test]
fn shares_follow_weights() {
    for cpus in [1, 2] {
        assert_fair(&[100, 100], cpus, 1);
        assert_fair(&[100, 100, 100], cpus, 2);
        assert_fair(&[300, 100, 100, 50], cpus, 3);
        assert_fair(&[1000, 10, 10], cpus, 4);
        assert_fair(&[1, 1, 1, 1, 1], cpus, 5);
        assert_fair(&[10_000, 9_999, 5_000], cpus, 6);
    }
    assert_fair(&[700, 100, 200, 100, 400, 50, 50], 4, 7);
}

fn life() -> impl Strategy<Value = Life> {
    let ticks = || (3u32..25).prop_flat_map(|bits| (1u64 << bits)..(2u64 << bits));
    prop_oneof![
        3 => Just(Life::Compute),
        2 => (ticks(), ticks()).prop_map(|(run, sleep)| Life::Sleep(run, sleep.max(100_000))),
        2 => (ticks(), ticks()).prop_map(|(run, period)| Life::Mail(run, period.max(100_000))),
        1 => ticks().prop_map(|run| Life::Yield(run.max(50_000))),
    ]
}

fn guests(cpus: u8) -> impl Strategy<Value = Vec<Guest>> {
    let weight = prop_oneof![Just(100u32), 50..400u32];
    let pinned = prop_oneof![2 => Just(None), 1 => (0..cpus).prop_map(Some)];
    let guest = (weight, pinned, life()).prop_map(|(weight, pinned, life)| Guest { weight, pinned, life });
    prop::collection::vec(guest, 1..10)
}

/// How long a vCPU may have to wait here. It may be ahead of a competitor by a slice of its own, twice that if it just woke;
/// the competitor may be behind by half a slice, and may have just begun one.
fn longest(guests: &[Guest], index: usize) -> u64 {
    let own = f64::from(guests[index].weight);
    let competes = |guest: &Guest| {
        guest.pinned.is_none() || guests[index].pinned.is_none() || guest.pinned == guests[index].pinned
    };
    let slices: f64 = guests
        .iter()
        .enumerate()
        .filter(|(other, guest)| *other != index && competes(guest))
        .map(|(_, guest)| 2.0 * f64::from(guest.weight) / own + 1.5)
        .sum();
    (slices * SLICE as f64) as u64
}

proptest! {
    // The same loads every time: a simulation that fails once in a hundred runs helps nobody.
    #![proptest_config(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(2009),
        ..ProptestConfig::default()
    })]

    #[test]
    fn shares_follow_any_weights(weights in prop::collection::vec(20..400u32, 2..7), cpus in 1..3u8, seed: u64) {
        assert_fair(&weights, cpus, seed);
    }

    /// The machine asserts what must hold at every moment; here are the limits on waiting.
    #[test]
    fn nobody_starves_and_no_wake_is_lost(
        (cpus, guests) in (1..9u8).prop_flat_map(|cpus| (Just(cpus), guests(cpus))),
        latency in prop_oneof![Just(0), 1..50_000u64],
        seed: u64,
    ) {
        let mut machine = Machine::<16>::new(cpus, latency, seed);
        for guest in &guests {
            machine.add(*guest);
        }
        machine.run(600 * MILLISECOND);
        for (index, vcpu) in machine.vcpus.iter().enumerate() {
            let limit = longest(&guests, index) + 4 * latency;
            prop_assert!(vcpu.longest_wait <= limit, "{index} waited {} of {limit}", vcpu.longest_wait);
            prop_assert!(vcpu.longest_mail <= limit, "{index}'s mail lay {} of {limit}", vcpu.longest_mail);
        }
    }
}

/// Lets a victim compute beside an attacker of the same weight on one processor, and answers the victim's share.
fn victims_share(attackers: &[Life], restart: bool) -> f64 {
    let mut machine = Machine::<16>::new(1, 0, 9);
    let victim = machine.add(computing(100));
    for life in attackers {
        machine.add(Guest { weight: 100 / attackers.len() as u32, pinned: None, life: *life });
    }
    for _ in 0..3000 {
        machine.run(MILLISECOND);
        if restart {
            for index in 1..=attackers.len() {
                machine.restart(index);
            }
        }
    }
    machine.vcpus[victim].ran as f64 / machine.now as f64
}

#[test]
fn storms_take_no_more_than_their_share() {
    let storms: [&[Life]; 6] = [
        &[Life::Compute],
        &[Life::Yield(2_000)],
        &[Life::Sleep(5_000_000, 10_000)],
        &[Life::Sleep(50_000, 1_000)],
        &[Life::Mail(3_000_000, 3_100_000)],
        &[Life::Mail(30_000, 20_000), Life::Sleep(300_000, 1_000), Life::Yield(50_000), Life::Compute],
    ];
    for storm in storms {
        for restart in [false, true] {
            let share = victims_share(storm, restart);
            assert!(share > 0.475, "{storm:?} restart={restart}: {share}");
        }
    }
}

#[test]
fn a_turn_that_ends_by_the_guests_will_costs_it_what_it_costs_the_machine() {
    // Woken as often as it halts, it runs for nearly nothing each time; each of its turns ends one of the victim's.
    let mut machine = Machine::<16>::new(1, 0, 9);
    machine.add(computing(100));
    machine.add(Guest { weight: 100, pinned: None, life: Life::Mail(10, 2_000) });
    machine.run(1000 * MILLISECOND);
    // At a slice's 1/256 a turn, half of the time is some 21,000 turns for it and as many for the victim.
    assert!(machine.turns < 45_000, "{} turns in a second", machine.turns);
}

#[test]
fn a_sleeper_does_not_save_up() {
    let mut machine = Machine::<16>::new(1, 0, 3);
    let busy = machine.add(computing(100));
    let sleeper = machine.add(Guest { weight: 100, pinned: None, life: Life::Mail(1, 20_000 * MILLISECOND) });
    machine.run(5_000 * MILLISECOND);
    // After five seconds of sleep it computes: from now on both get half.
    machine.vcpus[sleeper].ran = 0;
    machine.vcpus[busy].ran = 0;
    let third = machine.add(computing(100));
    machine.run(300 * MILLISECOND);
    let (old, new) = (machine.vcpus[busy].ran as f64, machine.vcpus[third].ran as f64);
    assert!((old / new - 1.0).abs() < 0.1, "{old} and {new}");
}

#[test]
fn who_had_a_processor_alone_owes_nothing_for_it() {
    let mut machine = Machine::<16>::new(1, 0, 3);
    let old = machine.add(computing(1));
    machine.run(20_000 * MILLISECOND);
    let new = machine.add(computing(1));
    machine.vcpus[old].ran = 0;
    machine.run(600 * MILLISECOND);
    let (old, new) = (machine.vcpus[old].ran as f64, machine.vcpus[new].ran as f64);
    assert!((old / new - 1.0).abs() < 0.1, "{old} and {new}");
}

#[test]
fn who_asks_for_more_than_a_processor_does_not_keep_it_from_the_others_later() {
    let mut machine = Machine::<16>::new(2, 0, 3);
    let greedy = machine.add(Guest { weight: 10_000, pinned: None, life: Life::Compute });
    machine.add(computing(100));
    machine.add(computing(100));
    // It is entitled to more than the one processor that it can use, all the time.
    machine.run(20_000 * MILLISECOND);
    // Now others come that are as heavy.
    for _ in 0..3 {
        machine.add(Guest { weight: 10_000, pinned: None, life: Life::Compute });
    }
    for vcpu in &mut machine.vcpus {
        vcpu.ran = 0;
    }
    machine.run(600 * MILLISECOND);
    let got = machine.vcpus[greedy].ran as f64 / (600.0 * MILLISECOND as f64);
    assert!((0.4..0.65).contains(&got), "{got}, and should be about half");
}

#[test]
fn who_comes_from_a_crowded_processor_does_not_shut_out_the_pinned_of_another() {
    let mut machine = Machine::<16>::new(2, 0, 3);
    let others = [0; 3].map(|_| machine.admit(computing(100)));
    let pinned = |cpu| Guest { weight: 100, pinned: Some(cpu), life: Life::Compute };
    for _ in 0..6 {
        machine.add(pinned(0));
    }
    // Alone on its processor it goes ahead six times as fast as those on the other.
    let alone = machine.add(pinned(1));
    machine.run(20_000 * MILLISECOND);
    machine.vcpus[alone].longest_wait = 0;
    for other in others {
        machine.post(other);
    }
    machine.run(2_000 * MILLISECOND);
    let waited = machine.vcpus[alone].longest_wait;
    assert!(waited <= 11 * SLICE, "{waited}");
}

#[test]
fn all_processors_are_used() {
    for cpus in [2, 4, 8] {
        let mut machine = Machine::<16>::new(cpus, 20_000, 11);
        for _ in 0..cpus {
            machine.add(Guest { weight: 100, pinned: None, life: Life::Sleep(3_000_000, 500_000) });
        }
        machine.run(1000 * MILLISECOND);
        for vcpu in &machine.vcpus {
            // Each has work for six sevenths of the time, and a processor to do it on.
            assert!(vcpu.ran > 800 * MILLISECOND, "{} of {}", vcpu.ran, machine.now);
        }
    }
}
