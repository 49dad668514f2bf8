//! Whatever a guest and the fabric do, in whatever order: nothing panics, and what must always hold holds.

use contracts::{ApicEffects, DeliveryMode, GuestTicks, LocalApic as _, LocalPin, Trigger};
use local_apic::LocalApic;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Read(u16),
    Write(u16, u32),
    ReadMsr(u32),
    WriteMsr(u32, u64),
    Base(u64),
    Accept(u8, bool),
    Pin(bool, bool),
    Acknowledge,
    End,
    Priority(u8),
    Deadline(u64),
    Pass(u64),
    Expire,
    Init,
}

/// Values that mean something somewhere, and any others.
fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        any::<u32>().prop_map(u64::from),
        any::<u8>().prop_map(u64::from),
        (any::<u8>(), 0u64..8, any::<bool>())
            .prop_map(|(vector, mode, masked)| { u64::from(vector) | mode << 17 | u64::from(masked) << 16 }),
        Just(0),
        Just(0x1ff),
    ]
}

fn base() -> impl Strategy<Value = u64> {
    prop_oneof![(0u64..4).prop_map(|mode| 0xfee0_0000 | mode << 10), any::<u64>()]
}

fn step() -> impl Strategy<Value = Step> {
    let register = prop_oneof![3 => 0u16..0x40, 1 => any::<u16>()];
    prop_oneof![
        1 => register.clone().prop_map(|register| Step::Read(register.wrapping_mul(16))),
        1 => any::<u16>().prop_map(Step::Read),
        4 => (register.clone(), value()).prop_map(|(register, value)| Step::Write(register.wrapping_mul(16), value as u32)),
        1 => register.clone().prop_map(|register| Step::ReadMsr(0x800 + u32::from(register))),
        1 => any::<u32>().prop_map(Step::ReadMsr),
        4 => (register, value()).prop_map(|(register, value)| Step::WriteMsr(0x800 + u32::from(register), value)),
        1 => base().prop_map(Step::Base),
        6 => (any::<u8>(), any::<bool>()).prop_map(|(vector, level)| Step::Accept(vector, level)),
        4 => any::<(bool, bool)>().prop_map(|(second, level)| Step::Pin(second, level)),
        6 => Just(Step::Acknowledge),
        4 => Just(Step::End),
        1 => (0u8..16).prop_map(Step::Priority),
        2 => value().prop_map(Step::Deadline),
        2 => prop_oneof![0u64..100_000, any::<u64>()].prop_map(Step::Pass),
        2 => Just(Step::Expire),
        1 => Just(Step::Init),
    ]
}

/// What the registers say, read by a copy so that reading changes nothing.
fn vectors(apic: &LocalApic, first: u16, now: GuestTicks) -> Vec<u8> {
    let mut copy = apic.clone();
    let mut found = Vec::new();
    for word in 0..8u16 {
        let bits = match copy.page() {
            Some(_) => copy.read(first + 16 * word, now),
            None => copy.read_msr(0x800 + u32::from(first / 16 + word), now).unwrap_or(0) as u32,
        };
        found.extend((0..32).filter(|bit| bits >> bit & 1 != 0).map(|bit| (32 * word + bit) as u8));
    }
    found
}

/// The entry of LINT0 or, as `second` says, LINT1; of a disabled APIC, what its pins then are.
fn entry(apic: &LocalApic, second: bool, now: GuestTicks) -> u32 {
    let offset = if second { 0x360 } else { 0x350 };
    let mut copy = apic.clone();
    match copy.page() {
        Some(_) => copy.read(offset, now),
        None => match copy.read_msr(0x800 + u32::from(offset >> 4), now) {
            Some(value) => value as u32,
            None if second => 0x400,
            None => 0x700,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_happens(id in 0u8..255, bootstrap: bool, extended: bool, steps in prop::collection::vec(step(), 0..120)) {
        let mut apic = LocalApic::new(id, bootstrap);
        if extended {
            apic.write_base(super::EXTENDED, &mut ApicEffects::default());
        }
        let mut now = GuestTicks(1 << 40);
        let mut levels = [false; 2];
        for step in steps {
            let mut effects = ApicEffects::default();
            let before = vectors(&apic, 0x100, now);
            match step.clone() {
                Step::Read(offset) => {
                    apic.read(offset, now);
                }
                Step::Write(offset, value) => apic.write(offset, value, now, &mut effects),
                Step::ReadMsr(msr) => {
                    apic.read_msr(msr, now);
                }
                Step::WriteMsr(msr, value) => {
                    let copy = apic.clone();
                    if !apic.write_msr(msr, value, now, &mut effects) {
                        // Refused means untouched.
                        prop_assert_eq!(&apic, &copy);
                        prop_assert_eq!(effects, ApicEffects::default());
                    }
                }
                Step::Base(value) => {
                    let copy = apic.clone();
                    if !apic.write_base(value, &mut effects) {
                        prop_assert_eq!(&apic, &copy);
                    }
                }
                Step::Accept(vector, level) => {
                    apic.accept(vector, if level { Trigger::Level } else { Trigger::Edge });
                }
                Step::Pin(second, level) => {
                    let pin = if second { LocalPin::Lint1 } else { LocalPin::Lint0 };
                    let (entry, pulse) = (entry(&apic, second, now), levels[usize::from(second)] == level);
                    levels[usize::from(second)] = level;
                    let sent = apic.set_pin(pin, level);
                    // One of three, and only by an unmasked entry of that mode, for an edge.
                    let edge = entry >> 16 & 1 == 0 && (pulse || level == (entry >> 13 & 1 == 0));
                    let expected = match entry >> 8 & 7 {
                        2 if edge => Some(DeliveryMode::SystemManagement),
                        4 if edge => Some(DeliveryMode::NonMaskable),
                        5 if edge => Some(DeliveryMode::Init),
                        _ => None,
                    };
                    prop_assert_eq!(sent, expected, "{:?} {:#x}", step, entry);
                }
                Step::Acknowledge => {
                    let promised = apic.pending();
                    let taken = apic.acknowledge();
                    prop_assert_eq!(promised, taken);
                    if let Some(vector) = taken {
                        // Service is nested: what interrupts is of a higher class than all that it interrupts.
                        prop_assert!(before.iter().all(|serviced| serviced >> 4 < vector >> 4));
                        let mut after = before.clone();
                        after.push(vector);
                        prop_assert_eq!(vectors(&apic, 0x100, now), after);
                    }
                }
                Step::End => {
                    apic.write(0xb0, 0, now, &mut effects);
                    apic.write_msr(0x80b, 0, now, &mut effects);
                    if let Some(vector) = effects.level_end {
                        prop_assert_eq!(before.last(), Some(&vector));
                    }
                }
                Step::Priority(priority) => apic.set_task_priority(priority),
                Step::Deadline(value) => apic.set_tsc_deadline(value, now),
                Step::Pass(ticks) => now = GuestTicks(now.0.saturating_add(ticks)),
                Step::Expire => {
                    apic.expire(now);
                    // Time goes on: the timer is never due again in the same tick, so that nobody loops on it.
                    prop_assert!(apic.deadline().is_none_or(|next| next > now));
                }
                Step::Init => apic.init(),
            }
            // The base is always one of the three legal states.
            prop_assert!(apic.base() >> 10 & 3 != 1);
            if let Some(command) = effects.command {
                let fixed = matches!(
                    command.message.mode,
                    contracts::DeliveryMode::Fixed | contracts::DeliveryMode::LowestPriority
                );
                prop_assert!(!fixed || command.message.vector >= 16, "{:?}", step);
            }
            for (second, level) in [false, true].into_iter().zip(levels) {
                let entry = entry(&apic, second, now);
                let asserted = level == (entry >> 13 & 1 == 0);
                let external = entry & 0x1_0700 == 0x700 && asserted;
                if !second {
                    prop_assert_eq!(apic.takes_external(level), external, "{:?} {:#x}", step, entry);
                }
                if apic.base() & 0x800 != 0 {
                    prop_assert_eq!(entry >> 12 & 1 != 0, external);
                }
                // Remote IRR is of levels only, and no asserted level is forgotten.
                let fixed = entry & 0x8700 == 0x8000;
                prop_assert!(entry & 0x4000 == 0 || fixed);
                prop_assert!(!(fixed && asserted && entry & 0x1_4000 == 0 && entry & 0xff >= 16), "{:?} {:#x}", step, entry);
            }
            // What the registers show decides what is pending, and nothing else.
            if apic.base() & 0x800 != 0 {
                let (requested, serviced) = (vectors(&apic, 0x200, now), vectors(&apic, 0x100, now));
                prop_assert!(requested.iter().chain(&serviced).all(|vector| *vector >= 16));
                let class = (serviced.last().map_or(0, |vector| vector >> 4)).max(apic.task_priority());
                let expected = requested.last().copied().filter(|vector| vector >> 4 > class);
                prop_assert_eq!(apic.pending(), expected, "{:?}", step);
            } else {
                prop_assert_eq!(apic.pending(), None);
            }
        }
    }
}
