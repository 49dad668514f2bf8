//! The local APIC: both register interfaces, the base register, pins, interrupts and time.

use crate::tape::Tape;
use contracts::{ApicEffects, GuestTicks, LocalApic, LocalPin, Trigger};

/// Does to a local APIC what the bytes say.
pub fn run(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let start = tape.byte();
    let mut apic = ::local_apic::LocalApic::new(start & 15, start & 128 == 0);
    let mut now = GuestTicks(0);
    while !tape.is_over() {
        let mut effects = ApicEffects::default();
        match tape.byte() {
            operation @ 0..=95 => {
                // Registers lie 16 bytes apart (APM Vol. 2 table 16-2); some accesses fall between.
                let offset =
                    u16::from(operation & 63) << 4 | if operation & 64 == 0 { 0 } else { tape.word() & 0xc };
                if tape.flag() {
                    apic.write(offset, tape.double(), now, &mut effects);
                } else {
                    apic.read(offset, now);
                }
            }
            operation @ 96..=159 => {
                let register = 0x800 | u32::from(operation & 63) | if tape.flag() { 0x80 } else { 0 };
                match tape.byte() {
                    choice @ 0..=127 => {
                        let value = if choice & 1 == 0 { tape.double().into() } else { tape.value() };
                        let (base, priority) = (apic.base(), apic.task_priority());
                        if !apic.write_msr(register, value, now, &mut effects) {
                            assert_eq!((base, priority), (apic.base(), apic.task_priority()));
                            assert_eq!(effects, ApicEffects::default(), "a refused write has an effect");
                        }
                    }
                    _ => {
                        apic.read_msr(register, now);
                    }
                }
            }
            160..=175 => {
                let value = match tape.byte() {
                    choice @ 0..=127 => (u64::from(choice) << 8 & 0xd00) | 0xfee0_0000,
                    _ => tape.value(),
                };
                let base = apic.base();
                if !apic.write_base(value, &mut effects) {
                    assert_eq!(base, apic.base(), "a refused write has an effect");
                }
            }
            176..=191 => apic.accept(tape.byte(), tape.one_of(&[Trigger::Edge, Trigger::Level])),
            192..=207 => {
                let (pin, level) = (tape.one_of(&[LocalPin::Lint0, LocalPin::Lint1]), tape.flag());
                apic.set_pin(pin, level);
                apic.takes_external(level);
            }
            208..=223 => {
                let later = match tape.byte() {
                    0 => apic.deadline().map_or(0, |deadline| deadline.0.saturating_sub(now.0)),
                    1 => tape.value(),
                    short => u64::from(short) << (short & 31),
                };
                // A counter of 64 bits does not run over within a machine's life.
                now = GuestTicks(now.0.saturating_add(later).min(1 << 62));
                apic.expire(now);
                let left = apic.deadline();
                assert!(
                    left.is_none_or(|left| left > now),
                    "a timer that goes off for ever: {left:?} at {now:?}"
                );
            }
            224..=231 => {
                let expected = apic.pending();
                assert_eq!(apic.acknowledge(), expected);
                assert!(expected.is_none_or(|vector| vector >= 16), "an illegal vector: {expected:?}");
                // What is in service holds back what is not above it (APM Vol. 2 §16.6.4).
                let next = apic.pending();
                assert!(
                    expected.is_none()
                        || next.is_none_or(|next| Some(next >> 4) > expected.map(|first| first >> 4))
                );
            }
            232..=239 => {
                apic.end_of_interrupt();
            }
            240..=245 => apic.set_task_priority(tape.byte() & 15),
            246..=251 => apic.set_tsc_deadline(tape.value(), now),
            _ => apic.init(),
        }
        assert!(apic.task_priority() < 16);
        assert!(apic.page().is_none_or(|page| page & 0xfff == 0));
        assert!(apic.page().is_none() || !apic.is_extended(), "the page answers in x2APIC mode");
        let destination = apic.destination();
        assert!(destination.wide == apic.is_extended() && (destination.wide || destination.id <= 0xff));
    }
}

/// Every operation, in both modes.
pub fn seeds() -> Vec<Vec<u8>> {
    let each = |mode: &[u8]| {
        let mut bytes = vec![0];
        bytes.extend(mode);
        for operation in 0..=251 {
            bytes.extend([operation, 1, operation, 0x31, 2, 0, 0]);
        }
        bytes
    };
    // The base register: x2APIC mode, enabled.
    vec![each(&[]), each(&[160, 0x0c])]
}
