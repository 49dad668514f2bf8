//! Enabling, disabling, the change to x2APIC mode, INIT (SDM §11.4.3, §11.4.7, §11.12.5; APM §16.3.1).

use crate::{Bench, EXTENDED};
use contracts::{ApicDestination, ApicEffects, LocalApic as _, Trigger};
use local_apic::LocalApic;
use x86::interrupts::Place;

const DISABLED: u64 = 0xfee0_0000;
const ENABLED: u64 = 0xfee0_0800;
const INVALID: u64 = 0xfee0_0400;

fn change(apic: &mut LocalApic, base: u64) -> bool {
    let mut effects = ApicEffects::default();
    let done = apic.write_base(base, &mut effects);
    assert_eq!(effects.destination_changed, done);
    done
}

/// Figure 11-27, every arrow: from the row to the column.
#[test]
fn transitions() {
    let states = [DISABLED, ENABLED, EXTENDED];
    let legal = [
        // To disabled, xAPIC, x2APIC, invalid.
        [true, true, false, false],
        [true, true, true, false],
        [true, false, true, false],
    ];
    for (from, row) in states.into_iter().zip(legal) {
        for (to, legal) in [DISABLED, ENABLED, EXTENDED, INVALID].into_iter().zip(row) {
            let mut apic = LocalApic::new(1, false);
            assert!(from == DISABLED || change(&mut apic, ENABLED));
            assert!(change(&mut apic, from));
            let before = apic.clone();
            assert_eq!(change(&mut apic, to), legal, "{from:#x} to {to:#x}");
            assert_eq!(apic.base(), if legal { to } else { from });
            assert!(legal || apic == before);
        }
    }
}

/// APM §16.3.1: bits 63–52, 9 and 7–0 must be zero.
#[test]
fn reserved_bits_of_the_base() {
    for bit in (0..8).chain([9]).chain(52..64) {
        assert!(!change(&mut LocalApic::new(0, true), ENABLED | 1 << bit), "{bit}");
    }
    let mut apic = LocalApic::new(0, true);
    assert!(change(&mut apic, 0x000f_ffff_ffff_f800));
    assert_eq!(apic.page(), Some(0x000f_ffff_ffff_f000));
}

/// APM §16.3.1: the bootstrap flag is read-only.
#[test]
fn nobody_becomes_the_bootstrap_processor_by_writing() {
    let mut first = LocalApic::new(0, true);
    assert!(change(&mut first, ENABLED));
    assert_eq!(first.base(), ENABLED | 0x100);
    let mut other = LocalApic::new(1, false);
    assert!(change(&mut other, ENABLED | 0x100));
    assert_eq!(other.base(), ENABLED);
}

/// §11.12.5.1: registers are preserved from xAPIC to x2APIC mode but for the logical destination and the high half of
/// the command register.
#[test]
fn what_the_change_to_extended_mode_keeps() {
    let mut bench = Bench::bootstrap();
    bench.write(0x80, 0x20);
    bench.write(0xd0, 0x0100_0000);
    bench.write(0x310, 0x0300_0000);
    bench.write(0x300, 0x40fb);
    bench.write(0x370, 0xfe);
    bench.accept(0x41);
    assert!(change(&mut bench.apic, EXTENDED));
    assert_eq!(bench.rdmsr(0x808), Some(0x20));
    assert_eq!(bench.rdmsr(0x837), Some(0xfe));
    assert_eq!(bench.rdmsr(0x80d), Some(1));
    assert_eq!(bench.rdmsr(0x830), Some(0x40fb));
    assert_eq!(bench.apic.pending(), Some(0x41));
}

/// §11.4.3: a disabled APIC forgets; §11.12.5.1: but not its id.
#[test]
fn disabling_forgets() {
    let mut bench = Bench::extended(5);
    bench.accept(0x41);
    assert!(change(&mut bench.apic, DISABLED));
    assert_eq!((bench.apic.pending(), bench.apic.page()), (None, None));
    bench.accept(0x41);
    assert!(change(&mut bench.apic, ENABLED));
    assert_eq!(bench.apic, LocalApic::new(5, false));
}

/// §11.4.3: without the APIC, no message finds it.
#[test]
fn a_disabled_apic_takes_no_messages() {
    let mut apic = LocalApic::new(0, true);
    assert!(change(&mut apic, DISABLED));
    assert!(!apic.destination().enabled);
}

/// §11.4.7.3 and §11.12.5.1: INIT resets all but the id, and the mode stays.
#[test]
fn init_keeps_id_and_mode() {
    for base in [DISABLED, ENABLED, EXTENDED] {
        let mut bench = Bench::reset(7);
        bench.write(0xf0, 0x1ff);
        bench.write(0x80, 0x70);
        bench.write(0x320, 0x40);
        bench.write(0x380, 1000);
        bench.accept(0x81);
        assert!(change(&mut bench.apic, base));
        bench.apic.init();
        assert_eq!(bench.apic.base(), base);
        assert_eq!((bench.apic.pending(), bench.apic.deadline()), (None, None));
        assert_eq!((bench.apic.destination().id, bench.apic.destination().enabled), (7, false));
        assert_eq!(bench.apic.task_priority(), 0);
    }
    let mut bootstrap = LocalApic::new(0, true);
    bootstrap.init();
    assert_eq!(bootstrap.base(), 0xfee0_0900);
}

/// §11.6.2.2: logical destination and destination format in xAPIC mode; §11.12.10.2 in x2APIC mode.
#[test]
fn what_messages_have_to_match() {
    let mut bench = Bench::bootstrap();
    assert!(bench.write(0xd0, 0x1234_5678).destination_changed);
    let flat = ApicDestination { id: 0, logical: 0x12, flat: true, wide: false, enabled: true };
    assert_eq!(bench.apic.destination(), flat);
    assert!(bench.write(0xe0, 0).destination_changed);
    assert_eq!(bench.apic.destination(), ApicDestination { flat: false, ..flat });
    assert!(bench.write(0xf0, 0xff).destination_changed);
    assert!(!bench.apic.destination().enabled);

    let wide = ApicDestination { id: 0x31, logical: 3 << 16 | 2, flat: false, wide: true, enabled: true };
    assert_eq!(Bench::extended(0x31).apic.destination(), wide);
}

/// §11.4.7.2: what is requested or in service stays and can be handled; nothing new is taken; entries are masked, and
/// stay so while it lasts and after.
#[test]
fn software_disabled() {
    let mut bench = Bench::bootstrap();
    bench.write(0x370, 0xfe);
    bench.apic.accept(0x51, Trigger::Level);
    bench.accept(0x61);
    assert_eq!(bench.apic.acknowledge(), Some(0x61));
    bench.write(0xf0, 0x0ff);
    bench.accept(0x71);
    assert!((0x320..=0x370).step_by(16).all(|offset| bench.read(offset) & 0x1_0000 != 0));
    bench.write(0x350, 0x700);
    assert_eq!(bench.read(0x350), 0x1_0700);
    assert_eq!(bench.end(), None);
    assert_eq!(bench.apic.acknowledge(), Some(0x51));
    assert_eq!(bench.end(), Some(0x51));
    assert_eq!(bench.apic.pending(), None);
    bench.write(0xf0, 0x1ff);
    assert_eq!(bench.read(0x370), 0x1_00fe);
    bench.accept(0x71);
    assert_eq!(bench.apic.pending(), Some(0x71));
}

/// What a processor may hold while the guest runs: in x2APIC mode, enabled by software. What is requested then joins what comes back.
#[test]
fn only_an_enabled_x2apic_can_be_lent() {
    let mut bench = Bench::bootstrap();
    assert_eq!(bench.apic.lendable(), None, "in xAPIC mode");
    assert!(bench.apic.write_base(EXTENDED, &mut ApicEffects::default()));
    assert!(bench.wrmsr(0x80f, 0xff));
    assert_eq!(bench.apic.lendable(), None, "disabled by software");
    assert!(bench.wrmsr(0x80f, 0x1ff) && bench.wrmsr(0x808, 0x35));
    bench.apic.accept(0x41, Trigger::Level);
    let held = std::mem::take(bench.apic.lendable().unwrap());
    assert_eq!((held.task_priority, held.requested.highest()), (0x35, Some(Place::of(0x41))));
    assert_eq!(bench.apic.pending(), None, "all of it is elsewhere");
    bench.apic.accept(0x20, Trigger::Edge);
    assert_eq!(bench.apic.pending(), Some(0x20), "whatever the priority");
}

/// An end that the processor carried out: the I/O APIC hears of levels alone.
#[test]
fn an_end_elsewhere_counts_by_level() {
    let mut bench = Bench::extended(1);
    bench.apic.accept(0x41, Trigger::Level);
    bench.apic.accept(0x42, Trigger::Edge);
    assert_eq!([0x41, 0x42, 0x43].map(|vector| bench.apic.ended_level(vector)), [true, false, false]);
    bench.apic.accept(0x41, Trigger::Edge);
    assert!(!bench.apic.ended_level(0x41), "its last trigger counts");
}
