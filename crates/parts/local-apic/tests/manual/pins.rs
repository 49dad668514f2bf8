//! The local interrupt pins LINT0 and LINT1 (SDM §11.5.1, "Local Vector Table"; APM §16.4.2).

use crate::{Bench, EXTENDED};
use contracts::{ApicEffects, DeliveryMode, LocalApic as _, LocalPin};

const PINS: [(LocalPin, u16); 2] = [(LocalPin::Lint0, 0x350), (LocalPin::Lint1, 0x360)];

const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const REMOTE_IRR: u32 = 1 << 14;
const ACTIVE_LOW: u32 = 1 << 13;
const SEND_PENDING: u32 = 1 << 12;
const SMI: u32 = 2 << 8;
const NMI: u32 = 4 << 8;
const INIT: u32 = 5 << 8;
const EXTINT: u32 = 7 << 8;

const RECEIVE_ILLEGAL: u32 = 1 << 6;

/// A bench with `entry` at each pin in turn: bench, pin, the entry's register.
fn each(entry: u32, test: impl Fn(Bench, LocalPin, u16)) {
    for (pin, register) in PINS {
        let mut bench = Bench::bootstrap();
        bench.write(register, entry);
        test(bench, pin, register);
    }
}

/// "000 (Fixed): Delivers the interrupt specified in the vector field." Edge-sensitive: each rise counts, and nothing else.
#[test]
fn fixed_and_edge_sensitive() {
    each(0x41, |mut bench, pin, register| {
        for _ in 0..3 {
            assert_eq!(bench.pin(pin, true), None);
            assert_eq!((bench.apic.acknowledge(), bench.end()), (Some(0x41), None));
            assert_eq!((bench.read(register), bench.serve()), (0x41, None));
            assert_eq!((bench.pin(pin, false), bench.serve()), (None, None));
        }
        // No acknowledge cycle is asked for.
        bench.pin(pin, true);
        assert!(!bench.external());
        assert_eq!(bench.read(0x220), 1 << 1);
    });
}

/// What rises and falls between two looks, or falls and rises, is an edge all the same, and one.
#[test]
fn a_pulse_is_an_edge() {
    each(0x41, |mut bench, pin, _| {
        let expected = [(false, true), (true, true), (true, true), (false, false), (false, true)];
        for (level, edge) in expected {
            assert_eq!(bench.pin(pin, level), None);
            assert_eq!((bench.serve(), bench.serve()), (edge.then_some(0x41), None));
        }
    });
}

/// "Remote IRR: For fixed mode, level-triggered interrupts; this flag is set when the local APIC accepts the interrupt for
/// servicing and is reset when an EOI command is received from the processor." The pin is then looked at again.
#[test]
fn fixed_and_level_sensitive() {
    each(LEVEL | 0x41, |mut bench, pin, register| {
        assert_eq!((bench.pin(pin, true), bench.read(register)), (None, LEVEL | REMOTE_IRR | 0x41));
        assert!(!bench.external());
        // The trigger mode register says level, so that the I/O APIC hears of the end as well (SDM §11.8.4, §11.8.5).
        assert_eq!((bench.read(0x1a0), bench.read(0x220)), (1 << 1, 1 << 1));
        for _ in 0..3 {
            assert_eq!(bench.apic.acknowledge(), Some(0x41));
            assert_eq!((bench.read(0x220), bench.read(register)), (0, LEVEL | REMOTE_IRR | 0x41));
            assert_eq!(bench.end(), Some(0x41));
            assert_eq!((bench.read(0x220), bench.read(register)), (1 << 1, LEVEL | REMOTE_IRR | 0x41));
        }
        assert_eq!(bench.apic.acknowledge(), Some(0x41));
        bench.pin(pin, false);
        assert_eq!(bench.read(register), LEVEL | REMOTE_IRR | 0x41);
        assert_eq!((bench.end(), bench.read(register), bench.serve()), (Some(0x41), LEVEL | 0x41, None));
    });
}

/// APM §16.4.2: "When the flag is set, no additional local interrupt requests are sent to the local APIC, and they remain
/// pending."
#[test]
fn while_remote_irr_is_set_requests_remain_pending() {
    each(LEVEL | 0x41, |mut bench, pin, register| {
        bench.pin(pin, true);
        assert_eq!(bench.apic.acknowledge(), Some(0x41));
        for level in [false, true] {
            bench.pin(pin, level);
            bench.write(register, LEVEL | 0x41);
            assert_eq!((bench.read(0x220), bench.read(register)), (0, LEVEL | REMOTE_IRR | 0x41));
        }
        assert_eq!((bench.end(), bench.serve()), (Some(0x41), Some(0x41)));
    });
}

/// The end of another interrupt, by level or by edge, is not the end of the pin's.
#[test]
fn the_end_of_another_interrupt_leaves_remote_irr() {
    each(LEVEL | 0x41, |mut bench, pin, register| {
        bench.pin(pin, true);
        bench.apic.acknowledge();
        for trigger in [contracts::Trigger::Level, contracts::Trigger::Edge] {
            bench.apic.accept(0x81, trigger);
            assert_eq!(bench.serve(), Some(0x81));
            assert_eq!((bench.read(0x220), bench.read(register)), (0, LEVEL | REMOTE_IRR | 0x41));
        }
        assert_eq!((bench.end(), bench.serve()), (Some(0x41), Some(0x41)));
    });
}

/// "The meaning of this flag is undefined for edge-triggered interrupts and other delivery modes": here it is then 0, and
/// software that changes the entry to one of them and back starts anew.
#[test]
fn remote_irr_goes_with_the_level() {
    each(LEVEL | 0x41, |mut bench, pin, register| {
        for other in [0x41, LEVEL | NMI, LEVEL | EXTINT | MASKED] {
            bench.pin(pin, true);
            assert_eq!(bench.read(register), LEVEL | REMOTE_IRR | 0x41);
            bench.write(register, other);
            assert_eq!(bench.read(register), other);
            assert_eq!(bench.serve(), Some(0x41));
            bench.pin(pin, false);
            bench.write(register, LEVEL | 0x41);
            assert_eq!((bench.read(register), bench.serve()), (LEVEL | 0x41, None));
        }
    });
}

/// "Interrupt Input Pin Polarity: Specifies the polarity of the corresponding interrupt pin: (0) active high or (1) active low."
#[test]
fn active_low() {
    each(ACTIVE_LOW | 0x41, |mut bench, pin, register| {
        // That a write of the entry changes what is asserted is no edge.
        assert_eq!(bench.serve(), None);
        assert_eq!((bench.pin(pin, true), bench.serve()), (None, None));
        assert_eq!((bench.pin(pin, false), bench.serve()), (None, Some(0x41)));
        bench.write(register, ACTIVE_LOW | NMI);
        assert_eq!(bench.pin(pin, true), None);
        assert_eq!(bench.pin(pin, false), Some(DeliveryMode::NonMaskable));
        bench.write(register, ACTIVE_LOW | LEVEL | 0x41);
        assert_eq!(bench.read(register), ACTIVE_LOW | LEVEL | REMOTE_IRR | 0x41);
        bench.pin(pin, true);
        assert_eq!((bench.serve(), bench.serve()), (Some(0x41), None));
        bench.write(register, ACTIVE_LOW | EXTINT);
        assert_eq!(bench.read(register), ACTIVE_LOW | EXTINT);
        assert!(!bench.external());
        bench.pin(pin, false);
        assert_eq!(bench.read(register), ACTIVE_LOW | EXTINT | SEND_PENDING);
        assert_eq!(bench.external(), pin == LocalPin::Lint0);
    });
}

/// "When the delivery mode is NMI, SMI, or INIT, the trigger mode is always edge sensitive." Their vector is ignored.
#[test]
fn nmi_smi_and_init_are_always_edge_sensitive() {
    let modes =
        [(NMI, DeliveryMode::NonMaskable), (SMI, DeliveryMode::SystemManagement), (INIT, DeliveryMode::Init)];
    for (bits, mode) in modes {
        for more in [0, LEVEL, 0x05, LEVEL | 0x41] {
            each(bits | more, |mut bench, pin, register| {
                for _ in 0..2 {
                    assert_eq!(bench.pin(pin, true), Some(mode));
                    bench.write(register, bits | more);
                    assert_eq!(bench.read(register), bits | more);
                    assert_eq!(bench.pin(pin, false), None);
                }
                // A pulse is one edge.
                assert_eq!(bench.pin(pin, false), Some(mode));
                assert_eq!((bench.serve(), bench.status()), (None, 0));
                assert!(!bench.external());
            });
        }
    }
}

/// "When the delivery mode is ExtINT, the trigger mode is always level sensitive." The processor is to acknowledge for as long as
/// the pin is asserted, and the delivery status is "send pending" for as long: "has been delivered to the processor core but has
/// not yet been accepted".
#[test]
fn external_interrupts_are_always_level_sensitive() {
    for more in [0, LEVEL, 0x41] {
        each(EXTINT | more, |mut bench, pin, register| {
            for level in [true, false, true] {
                assert_eq!(bench.pin(pin, level), None);
                // LINT1 is not where a PIC is.
                assert_eq!(bench.external(), level && pin == LocalPin::Lint0);
                let status = if level { SEND_PENDING } else { 0 };
                assert_eq!(bench.read(register), EXTINT | more | status);
            }
            bench.write(register, MASKED | EXTINT);
            assert_eq!((bench.external(), bench.read(register)), (false, MASKED | EXTINT));
            bench.write(register, EXTINT);
            assert_eq!(bench.external(), pin == LocalPin::Lint0);
            assert_eq!((bench.serve(), bench.status()), (None, 0));
        });
    }
}

/// "Mask: (1) inhibits reception of the interrupt". An edge that comes meanwhile is lost, a level is found.
#[test]
fn masked() {
    for bits in [0x41, LEVEL | 0x41, NMI, SMI, INIT, EXTINT] {
        each(MASKED | bits, |mut bench, pin, register| {
            for level in [true, true, false, true] {
                assert_eq!((bench.pin(pin, level), bench.serve()), (None, None));
                assert_eq!((bench.external(), bench.read(register)), (false, MASKED | bits));
            }
            bench.write(register, bits);
            assert_eq!(bench.serve(), (bits == LEVEL | 0x41).then_some(0x41));
            assert_eq!(bench.external(), bits == EXTINT && pin == LocalPin::Lint0);
        });
    }
}

/// Figure 11-8: "All other combinations are reserved".
#[test]
fn reserved_delivery_modes() {
    for mode in [1, 3, 6] {
        for more in [0, LEVEL] {
            each(mode << 8 | more | 0x41, |mut bench, pin, register| {
                for level in [true, true, false] {
                    assert_eq!((bench.pin(pin, level), bench.serve(), bench.status()), (None, None, 0));
                    assert!(!bench.external());
                    assert_eq!(bench.read(register), mode << 8 | more | 0x41);
                }
            });
        }
    }
}

/// SDM §11.5.3, "Received Illegal Vector": "in an interrupt generated locally from the local vector table". Nothing is accepted,
/// so remote IRR stays 0.
#[test]
fn vectors_below_16_set_the_error_status() {
    for vector in 0..16 {
        for trigger in [0, LEVEL] {
            each(trigger | vector, |mut bench, pin, register| {
                assert_eq!(bench.status(), 0);
                bench.pin(pin, true);
                assert_eq!((bench.status(), bench.status()), (RECEIVE_ILLEGAL, 0));
                assert_eq!((bench.serve(), bench.read(0x200)), (None, 0));
                assert_eq!(bench.read(register), trigger | vector);
                bench.pin(pin, false);
                assert_eq!(bench.status(), 0);
            });
        }
    }
    // The lowest legal vector.
    each(LEVEL | 0x10, |mut bench, pin, _| {
        bench.pin(pin, true);
        assert_eq!((bench.serve(), bench.status()), (Some(0x10), 0));
    });
}

/// SDM §11.4.3: disabled, "LINT0 and LINT1 pins" are the processor's INTR and NMI. What drives them does not hear of it: levels
/// outlast the change of mode.
#[test]
fn without_the_apic_the_pins_are_intr_and_nmi() {
    let mut bench = Bench::bootstrap();
    bench.write(0x350, MASKED);
    bench.write(0x360, MASKED);
    bench.pin(LocalPin::Lint0, true);
    let mut effects = ApicEffects::default();
    assert!(!bench.external() && bench.apic.write_base(0xfee0_0000, &mut effects));
    assert!(bench.external());
    assert_eq!((bench.pin(LocalPin::Lint0, false), bench.external()), (None, false));
    assert_eq!((bench.pin(LocalPin::Lint0, true), bench.external()), (None, true));
    for _ in 0..2 {
        assert_eq!(bench.pin(LocalPin::Lint1, true), Some(DeliveryMode::NonMaskable));
        assert_eq!(bench.pin(LocalPin::Lint1, false), None);
    }
    // INIT changes nothing of that.
    bench.apic.init();
    assert!(bench.external());
    // Enabled again, both are masked, as after reset.
    assert!(bench.apic.write_base(0xfee0_0800, &mut effects) && !bench.external());
    assert_eq!((bench.read(0x350), bench.read(0x360)), (MASKED, MASKED));
    assert_eq!(bench.pin(LocalPin::Lint1, true), None);
    // But the pin is still high.
    bench.write(0xf0, 0x1ff);
    bench.write(0x350, LEVEL | 0x41);
    assert_eq!(bench.serve(), Some(0x41));
}

/// SDM §11.4.7.2: the mask bits are set while the APIC is software-disabled. What was accepted from a pin stays and can be ended.
#[test]
fn software_disabled_pins_are_masked() {
    each(LEVEL | 0x41, |mut bench, pin, register| {
        bench.pin(pin, true);
        bench.write(0xf0, 0x0ff);
        assert_eq!(bench.read(register), MASKED | LEVEL | REMOTE_IRR | 0x41);
        assert_eq!((bench.serve(), bench.serve()), (Some(0x41), None));
        assert_eq!(bench.read(register), MASKED | LEVEL | 0x41);
        bench.write(0xf0, 0x1ff);
        bench.write(register, LEVEL | 0x41);
        assert_eq!(bench.serve(), Some(0x41));
    });
    each(EXTINT, |mut bench, pin, _| {
        bench.pin(pin, true);
        bench.write(0xf0, 0x0ff);
        assert!(!bench.external());
    });
}

/// INIT masks the entries (SDM §11.4.7.3); the levels stay.
#[test]
fn init_leaves_the_levels() {
    each(LEVEL | 0x41, |mut bench, pin, register| {
        bench.pin(pin, true);
        bench.apic.init();
        assert_eq!((bench.read(register), bench.serve()), (MASKED, None));
        bench.write(0xf0, 0x1ff);
        bench.write(register, LEVEL | 0x41);
        assert_eq!(bench.serve(), Some(0x41));
    });
}

/// The entries are the same in x2APIC mode (SDM table 11-6), and delivery status and remote IRR are read-only there too.
#[test]
fn pins_in_extended_mode() {
    let mut bench = Bench::bootstrap();
    assert!(bench.apic.write_base(EXTENDED, &mut ApicEffects::default()));
    for (pin, register) in PINS {
        let msr = 0x800 + u32::from(register >> 4);
        bench.pin(pin, true);
        assert!(bench.wrmsr(msr, u64::from(LEVEL | REMOTE_IRR | SEND_PENDING | MASKED | 0x41)));
        assert_eq!(bench.rdmsr(msr), Some(u64::from(LEVEL | MASKED | 0x41)));
        assert!(bench.wrmsr(msr, u64::from(LEVEL | 0x41)));
        assert_eq!(bench.rdmsr(msr), Some(u64::from(LEVEL | REMOTE_IRR | 0x41)));
        assert_eq!((bench.apic.acknowledge(), bench.apic.end_of_interrupt()), (Some(0x41), Some(0x41)));
        assert_eq!(bench.serve(), Some(0x41));
        bench.pin(pin, false);
        assert_eq!((bench.serve(), bench.serve()), (Some(0x41), None));
        assert!(bench.wrmsr(msr, u64::from(EXTINT)));
        bench.pin(pin, true);
        assert_eq!(bench.rdmsr(msr), Some(u64::from(EXTINT | SEND_PENDING)));
        assert!(bench.wrmsr(msr, u64::from(MASKED)));
    }
}
