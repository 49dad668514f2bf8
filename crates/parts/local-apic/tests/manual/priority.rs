//! Interrupt acceptance, priorities and their end (SDM §11.8; APM §16.6).

use crate::Bench;
use contracts::{LocalApic as _, Trigger};

/// §11.8.4: an accepted interrupt sets its IRR bit; dispensed, it moves to ISR; the end clears ISR.
#[test]
fn the_life_of_an_interrupt() {
    let mut bench = Bench::bootstrap();
    bench.accept(0x45);
    assert_eq!((bench.read(0x220), bench.read(0x120)), (1 << 5, 0));
    assert_eq!(bench.apic.pending(), Some(0x45));
    assert_eq!(bench.apic.acknowledge(), Some(0x45));
    assert_eq!((bench.read(0x220), bench.read(0x120)), (0, 1 << 5));
    assert_eq!((bench.apic.pending(), bench.apic.acknowledge()), (None, None));
    assert_eq!(bench.end(), None);
    assert_eq!(bench.read(0x120), 0);
}

/// §11.8.4: one more can wait while one is in service, and no third.
#[test]
fn two_of_a_vector_at_most() {
    let mut bench = Bench::bootstrap();
    for _ in 0..3 {
        bench.accept(0x45);
        bench.apic.acknowledge();
    }
    assert_eq!(bench.apic.pending(), None);
    bench.end();
    assert_eq!(bench.serve(), Some(0x45));
    assert_eq!(bench.serve(), None);
}

/// §11.8.3: the class is bits 7–4; a class interrupts only lower ones.
#[test]
fn only_a_higher_class_interrupts() {
    let mut bench = Bench::bootstrap();
    bench.accept(0x41);
    assert_eq!(bench.apic.acknowledge(), Some(0x41));
    bench.accept(0x4f);
    assert_eq!(bench.apic.pending(), None);
    bench.accept(0x50);
    assert_eq!(bench.apic.acknowledge(), Some(0x50));
    assert_eq!(bench.read(0x120), 1 << 1 | 1 << 16);
    // §11.8.5: the end is that of the highest in service.
    bench.end();
    assert_eq!((bench.read(0x120), bench.read(0x220)), (1 << 1, 1 << 15));
    assert_eq!(bench.apic.pending(), None);
    bench.end();
    assert_eq!(bench.apic.pending(), Some(0x4f));
}

/// §11.8.3.1: TPR holds back its class and all lower ones; 0 nothing, 15 everything.
#[test]
fn task_priority_holds_back() {
    let mut bench = Bench::bootstrap();
    for priority in 0..16 {
        bench.apic.set_task_priority(priority);
        assert_eq!((bench.apic.task_priority(), bench.read(0x80)), (priority, u32::from(priority) << 4));
        for class in 1..16 {
            bench.accept(class << 4 | 3);
            assert_eq!(bench.serve(), (class > priority).then_some(class << 4 | 3));
            bench.apic.set_task_priority(0);
            while bench.serve().is_some() {}
            bench.apic.set_task_priority(priority);
        }
    }
}

/// §11.8.3.1: PPR is TPR where its class is the higher or equal one, otherwise the class in service; §11.6.2.4: APR
/// looks at what is requested too.
#[test]
fn processor_and_arbitration_priority() {
    let mut bench = Bench::bootstrap();
    bench.write(0x80, 0x35);
    assert_eq!((bench.read(0xa0), bench.read(0x90)), (0x35, 0x35));
    bench.accept(0x6b);
    assert_eq!((bench.read(0xa0), bench.read(0x90)), (0x35, 0x60));
    bench.apic.acknowledge();
    assert_eq!((bench.read(0xa0), bench.read(0x90)), (0x60, 0x60));
    bench.write(0x80, 0x5f);
    assert_eq!((bench.read(0xa0), bench.read(0x90)), (0x60, 0x60));
    bench.write(0x80, 0x6f);
    assert_eq!((bench.read(0xa0), bench.read(0x90)), (0x6f, 0x6f));
}

/// §11.8.5: the end of a level-triggered interrupt, as TMR says, goes to the I/O APICs; that of an edge does not.
#[test]
fn only_levels_are_told_to_the_io_apic() {
    let mut bench = Bench::bootstrap();
    bench.apic.accept(0x93, Trigger::Level);
    assert_eq!(bench.read(0x1c0), 1 << 19);
    bench.apic.acknowledge();
    assert_eq!(bench.end(), Some(0x93));
    // §11.8.4: TMR is cleared when an edge of that vector is accepted.
    bench.accept(0x93);
    assert_eq!(bench.read(0x1c0), 0);
    bench.apic.acknowledge();
    assert_eq!(bench.end(), None);
    // An end with nothing in service.
    assert_eq!(bench.end(), None);
}

/// The lowest and the highest vector that there is, in both modes.
#[test]
fn first_and_last_vector() {
    for mut bench in [Bench::bootstrap(), Bench::extended(1)] {
        bench.accept(0x10);
        assert_eq!(bench.serve(), Some(0x10));
        bench.apic.accept(0xff, Trigger::Level);
        assert_eq!(bench.apic.acknowledge(), Some(0xff));
        assert_eq!(bench.end(), Some(0xff));
    }
}
