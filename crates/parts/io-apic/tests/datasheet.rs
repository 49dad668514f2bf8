//! The I/O APIC against the 82093AA datasheet's words, and what guests do with it.

use contracts::{
    Context, DeliveryMode, Device, Effect, Effects, GuestTime, InterruptMessage, IoApic as _, MemoryRange,
    Platform, Trigger, fake,
};
use io_apic::{ADDRESS, IoApic, PINS};
use proptest::prelude::*;
use x86::Width;

const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const REMOTE_REQUEST: u32 = 1 << 14;
const LOW_ACTIVE: u32 = 1 << 13;
const LOGICAL: u32 = 1 << 11;

struct Bench {
    device: IoApic,
    memory: fake::Memory<0>,
}

impl Bench {
    fn new() -> Self {
        Self { device: IoApic::new(&Platform::default()), memory: fake::Memory::new() }
    }

    fn access<R>(
        &mut self,
        access: impl FnOnce(&mut IoApic, &mut Context<'_>) -> R,
    ) -> (R, Vec<InterruptMessage>) {
        let mut effects = Effects::new();
        let mut context = Context { now: GuestTime(0), effects: &mut effects, memory: &self.memory };
        let result = access(&mut self.device, &mut context);
        assert!(!effects.overflowed());
        let messages: Vec<_> = (effects.as_slice().iter())
            .filter_map(|effect| if let Effect::Message(message) = effect { Some(*message) } else { None })
            .collect();
        assert_eq!(messages.len(), effects.as_slice().len(), "it wants nothing but messages");
        (result, messages)
    }

    fn load(&mut self, offset: u64, width: Width) -> u64 {
        let (value, messages) =
            self.access(|device, context| device.read_memory(ADDRESS + offset, width, context));
        assert_eq!(messages, []);
        value
    }

    fn store(&mut self, offset: u64, width: Width, value: u64) -> Vec<InterruptMessage> {
        self.access(|device, context| device.write_memory(ADDRESS + offset, width, value, context)).1
    }

    fn read(&mut self, index: u8) -> u32 {
        self.store(0, Width::Double, index.into());
        self.load(0x10, Width::Double) as u32
    }

    fn write(&mut self, index: u8, value: u32) -> Vec<InterruptMessage> {
        self.store(0, Width::Double, index.into());
        self.store(0x10, Width::Double, value.into())
    }

    /// Destination first and masked, as guests do it.
    fn program(&mut self, pin: u8, destination: u8, low: u32) -> Vec<InterruptMessage> {
        assert_eq!(self.write(0x11 + 2 * pin, u32::from(destination) << 24), []);
        self.write(0x10 + 2 * pin, low)
    }

    fn line(&mut self, pin: u8, level: bool) -> Vec<InterruptMessage> {
        self.access(|device, context| device.set_line(pin, level, context.effects)).1
    }

    fn end(&mut self, vector: u8) -> Vec<InterruptMessage> {
        self.access(|device, context| device.end_of_interrupt(vector, context.effects)).1
    }
}

fn message(destination: u32, vector: u8, trigger: Trigger) -> InterruptMessage {
    InterruptMessage { destination, logical: false, mode: DeliveryMode::Fixed, vector, trigger }
}

/// §3.2.1 to §3.2.4: identification, version, arbitration, and a table whose entries are masked. ICH10 §13.5.6: version
/// 0x20.
#[test]
fn registers_after_reset() {
    assert_eq!(IoApic::MEMORY, [MemoryRange { start: 0xfec0_0000, length: 0x1000 }]);
    assert!(IoApic::PORTS.is_empty());
    let mut bench = Bench::new();
    assert_eq!((bench.read(0), bench.read(1), bench.read(2)), (0, 0x0017_0020, 0));
    for pin in 0..PINS as u8 {
        assert_eq!((bench.read(0x10 + 2 * pin), bench.read(0x11 + 2 * pin)), (MASKED, 0));
    }
}

/// §3.1.1: bits 7–0 of the select register can be written; bits 31–8 are reserved.
#[test]
fn select_register() {
    let mut bench = Bench::new();
    bench.store(0, Width::Double, 0xffff_ff3f);
    assert_eq!(bench.load(0, Width::Double), 0x3f);
}

/// §3.2.1: the id has four bits, 27–24; §3.2.3: the arbitration id is loaded with it.
#[test]
fn identification() {
    let mut bench = Bench::new();
    bench.write(0, 0xffff_ffff);
    assert_eq!((bench.read(0), bench.read(2)), (0x0f00_0000, 0x0f00_0000));
    bench.write(2, 0);
    bench.write(1, 0);
    assert_eq!((bench.read(1), bench.read(2)), (0x0017_0020, 0x0f00_0000));
    bench.write(0, 0x0500_0000);
    assert_eq!(bench.read(0), 0x0500_0000);
}

/// §3.2.4: which bits of an entry can be written. Delivery status (12) and remote IRR (14) are read-only.
#[test]
fn entries_keep_what_can_be_written() {
    let mut bench = Bench::new();
    for pin in 0..PINS as u8 {
        bench.program(pin, 0xa5, 0xffff_ffff);
        assert_eq!((bench.read(0x10 + 2 * pin), bench.read(0x11 + 2 * pin)), (0x1_afff, 0xa500_0000));
    }
}

/// Indices without a register read as 0 and keep nothing.
#[test]
fn reserved_indices() {
    let mut bench = Bench::new();
    let before = bench.device.clone();
    for index in (3..0x10).chain(0x40..=0xff) {
        assert_eq!(bench.write(index, u32::MAX), []);
        assert_eq!(bench.read(index), 0, "{index:#x}");
    }
    bench.store(0, Width::Double, 0);
    assert_eq!(bench.device, before);
}

/// §3.1: the registers are accessed with 32 bits. All else finds nobody.
#[test]
fn other_accesses_are_ignored() {
    let mut bench = Bench::new();
    bench.store(0, Width::Double, 0x10);
    let before = bench.device.clone();
    for offset in 0..0x1000 {
        for width in [Width::Byte, Width::Word, Width::Double, Width::Quad] {
            if width == Width::Double && [0, 0x10, 0x40].contains(&offset) {
                continue;
            }
            assert_eq!(bench.load(offset, width), width.mask(), "{offset:#x}");
            assert_eq!(bench.store(offset, width, 0x1234 & width.mask()), []);
        }
    }
    assert_eq!(bench.load(0x40, Width::Double), 0xffff_ffff);
    assert_eq!(bench.device, before);
}

/// "An edge or level on an interrupt pin that is not masked results in the delivery of the interrupt".
#[test]
fn an_edge_is_sent_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.program(4, 2, 0x34), []);
    assert_eq!(bench.line(4, true), [message(2, 0x34, Trigger::Edge)]);
    assert_eq!(bench.line(4, true), []);
    assert_eq!(bench.line(4, false), []);
    assert_eq!(bench.read(0x18), 0x34);
    assert_eq!(bench.line(4, true), [message(2, 0x34, Trigger::Edge)]);
    // No end is needed, nor does one matter.
    assert_eq!(bench.end(0x34), []);
}

/// Bit 16: "Edge-sensitive interrupts signaled on a masked interrupt pin are ignored (i.e., not delivered or held
/// pending)."
#[test]
fn an_edge_on_a_masked_pin_is_lost() {
    let mut bench = Bench::new();
    bench.program(4, 0, MASKED | 0x34);
    assert_eq!(bench.line(4, true), []);
    assert_eq!(bench.program(4, 0, 0x34), []);
    bench.line(4, false);
    assert_eq!(bench.line(4, true).len(), 1);
}

/// Bit 14: set "when local APIC(s) accept the level interrupt", cleared "when an EOI message with a matching interrupt
/// vector is received"; a line that is still asserted is then sent again.
#[test]
fn a_level_is_sent_until_it_is_gone() {
    let mut bench = Bench::new();
    let expected = [message(1, 0x51, Trigger::Level)];
    bench.program(9, 1, LEVEL | 0x51);
    assert_eq!(bench.line(9, true), expected);
    assert_eq!(bench.read(0x22), LEVEL | REMOTE_REQUEST | 0x51);
    assert_eq!(bench.line(9, false), []);
    assert_eq!(bench.line(9, true), []);
    assert_eq!(bench.end(0x52), []);
    assert_eq!(bench.end(0x51), expected);
    bench.line(9, false);
    assert_eq!(bench.end(0x51), []);
    assert_eq!(bench.read(0x22), LEVEL | 0x51);
    assert_eq!(bench.line(9, true), expected);
}

/// Bit 16: "Level-asserts or negates occurring on a masked level-sensitive pin are also ignored"; a level that is there
/// when the mask goes is delivered.
#[test]
fn a_level_on_a_masked_pin_waits() {
    let mut bench = Bench::new();
    bench.program(9, 1, MASKED | LEVEL | 0x51);
    assert_eq!(bench.line(9, true), []);
    assert_eq!(bench.program(9, 1, LEVEL | 0x51).len(), 1);
    // Masked before its end: not sent again, but the end counts.
    bench.program(9, 1, MASKED | LEVEL | 0x51);
    assert_eq!(bench.end(0x51), []);
    assert_eq!(bench.read(0x22), MASKED | LEVEL | 0x51);
    bench.line(9, false);
    assert_eq!(bench.program(9, 1, LEVEL | 0x51), []);
}

/// Bit 14 is read-only: a write of the entry neither ends the interrupt nor sends it again.
#[test]
fn a_level_in_progress_stays_so() {
    let mut bench = Bench::new();
    bench.program(9, 1, LEVEL | 0x51);
    bench.line(9, true);
    assert_eq!(bench.program(9, 2, LEVEL | 0x51), []);
    assert_eq!(bench.read(0x22), LEVEL | REMOTE_REQUEST | 0x51);
    assert_eq!(bench.end(0x51), [message(2, 0x51, Trigger::Level)]);
}

/// Pins that share a vector end together; the widest case still fits one access.
#[test]
fn pins_that_share_a_vector() {
    let mut bench = Bench::new();
    for pin in 0..PINS as u8 {
        bench.program(pin, pin, LEVEL | 0x51);
        assert_eq!(bench.line(pin, true).len(), 1);
    }
    let sent = bench.end(0x51);
    assert!(sent.iter().map(|message| message.destination).eq(0..24));
}

/// ICH10 §13.5.3: the EOI register ends as the broadcast does.
#[test]
fn end_of_interrupt_register() {
    let mut bench = Bench::new();
    bench.program(9, 1, LEVEL | 0x51);
    bench.line(9, true);
    assert_eq!(bench.store(0x40, Width::Double, 0x52), []);
    assert_eq!(bench.store(0x40, Width::Double, 0x51).len(), 1);
    bench.line(9, false);
    assert_eq!(bench.store(0x40, Width::Double, 0x51), []);
    assert_eq!(bench.read(0x22), LEVEL | 0x51);
}

/// Bits 10–8: modes that are edges whatever the trigger bit says, and those that no message carries. Bits 11 and 63–56.
#[test]
fn delivery_modes() {
    for (bits, mode) in [
        (1, DeliveryMode::LowestPriority),
        (2, DeliveryMode::SystemManagement),
        (4, DeliveryMode::NonMaskable),
        (5, DeliveryMode::Init),
        (7, DeliveryMode::External),
    ] {
        let mut bench = Bench::new();
        bench.program(3, 0x3c, LOGICAL | LEVEL | bits << 8 | 0x44);
        let trigger = if bits == 1 { Trigger::Level } else { Trigger::Edge };
        let expected = InterruptMessage { destination: 0x3c, logical: true, mode, vector: 0x44, trigger };
        assert_eq!(bench.line(3, true), [expected]);
        assert_eq!(bench.read(0x16) & REMOTE_REQUEST != 0, bits == 1);
    }
    for bits in [3, 6] {
        let mut bench = Bench::new();
        bench.program(3, 0, bits << 8 | 0x44);
        assert_eq!(bench.line(3, true), []);
    }
}

/// Bits 7–0: "Vector values range from 10h to FEh". Others are not sent where the vector counts; modes that have no
/// vector do not care.
#[test]
fn reserved_vectors() {
    for vector in 0..16 {
        for trigger in [0, LEVEL] {
            for mode in [0, 1] {
                let mut bench = Bench::new();
                bench.program(3, 0, trigger | mode << 8 | vector);
                assert_eq!(bench.line(3, true), []);
                assert_eq!(bench.read(0x16) & REMOTE_REQUEST, 0);
                // Given a legal vector, a level that is still there is sent.
                assert_eq!(bench.program(3, 0, trigger | mode << 8 | 0x30).len(), usize::from(trigger != 0));
            }
        }
        let mut bench = Bench::new();
        bench.program(3, 0, 4 << 8 | vector);
        assert_eq!(bench.line(3, true).len(), 1);
    }
    for vector in [0x10, 0xff] {
        let mut bench = Bench::new();
        bench.program(3, 0, vector);
        assert_eq!(bench.line(3, true).len(), 1);
    }
}

/// Lines say asserted or not, whatever their wiring: the polarity bit is kept and changes nothing.
#[test]
fn polarity() {
    let mut bench = Bench::new();
    assert_eq!(bench.program(9, 1, LOW_ACTIVE | LEVEL | 0x51), []);
    assert_eq!(bench.line(9, true).len(), 1);
    assert_eq!(bench.read(0x22), LOW_ACTIVE | LEVEL | REMOTE_REQUEST | 0x51);
}

/// Lines that there are not.
#[test]
fn pins_beyond_the_last() {
    let mut bench = Bench::new();
    let before = bench.device.clone();
    for pin in PINS as u8..=u8::MAX {
        assert_eq!(bench.line(pin, true), []);
    }
    assert_eq!(bench.device, before);
}

/// Linux 6.1: `clear_IO_APIC`, `setup_IO_APIC_irqs`, then `check_timer` with the timer on pin 2, whose edges come again
/// and again: those that were lost while it was masked do not matter.
#[test]
fn linux_finds_the_timer_on_pin_2() {
    let mut bench = Bench::new();
    assert_eq!((bench.read(1) >> 16 & 0xff) + 1, 24);
    for pin in 0..PINS as u8 {
        // `clear_IO_APIC_pin`.
        let low = bench.read(0x10 + 2 * pin);
        bench.write(0x10 + 2 * pin, low | MASKED);
        bench.program(pin, 0, MASKED);
        assert_eq!(bench.read(0x10 + 2 * pin), MASKED);
    }
    bench.line(2, true);
    bench.line(2, false);
    assert_eq!(bench.program(2, 0, MASKED | 0x30), []);
    assert_eq!(bench.write(0x14, 0x30), []);
    let mut ticks = 0;
    for _ in 0..10 {
        ticks += bench.line(2, true).len();
        bench.line(2, false);
    }
    assert_eq!(ticks, 10);
}

/// Linux, `__eoi_ioapic_pin` and older systems on version 0x11: a stuck level is cleared by making the entry an edge and
/// a level again, masked.
#[test]
fn a_stuck_level_is_cleared_by_the_trigger_bit() {
    let mut bench = Bench::new();
    bench.program(9, 1, LEVEL | 0x51);
    bench.line(9, true);
    bench.line(9, false);
    bench.write(0x22, MASKED | 0x51);
    assert_eq!(bench.read(0x22), MASKED | 0x51);
    bench.write(0x22, MASKED | LEVEL | 0x51);
    assert_eq!(bench.read(0x22), MASKED | LEVEL | 0x51);
}

#[derive(Clone, Debug)]
enum Step {
    Load(u64, u8),
    Store(u64, u8, u64),
    Select(u8),
    Window(u32),
    Line(u8, bool),
    End(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..0x1000, 0u8..4).prop_map(|(offset, width)| Step::Load(offset, width)),
        (any::<u64>(), 0u8..4, any::<u64>())
            .prop_map(|(offset, width, value)| Step::Store(offset, width, value)),
        (0u8..0x44).prop_map(Step::Select),
        prop_oneof![
            any::<u32>(),
            (any::<u8>(), any::<bool>())
                .prop_map(|(vector, level)| { u32::from(vector) | u32::from(level) << 15 })
        ]
        .prop_map(Step::Window),
        (0u8..26, any::<bool>()).prop_map(|(pin, level)| Step::Line(pin, level)),
        any::<u8>().prop_map(Step::End),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever happens: no panic, no message that a local APIC cannot take, and never a second one of a level before the
    /// end of the first.
    #[test]
    fn whatever_happens(steps in prop::collection::vec(step(), 0..200)) {
        let mut bench = Bench::new();
        let widths = [Width::Byte, Width::Word, Width::Double, Width::Quad];
        for step in steps {
            let waiting: Vec<u32> = {
                let mut copy = Bench { device: bench.device.clone(), memory: fake::Memory::new() };
                (0..24).map(|pin| copy.read(0x10 + 2 * pin) & REMOTE_REQUEST).collect()
            };
            let is_line = matches!(step, Step::Line(..));
            let (messages, pin) = match step {
                Step::Load(offset, width) => {
                    let width = widths[usize::from(width)];
                    prop_assert_eq!(bench.load(offset, width) & !width.mask(), 0);
                    (Vec::new(), 0)
                }
                Step::Store(offset, width, value) => {
                    let width = widths[usize::from(width)];
                    let address = ADDRESS.wrapping_add(offset);
                    let access = bench.access(|device, context| {
                        device.write_memory(address, width, value & width.mask(), context);
                    });
                    (access.1, 0)
                }
                Step::Select(index) => (bench.store(0, Width::Double, index.into()), 0),
                Step::Window(value) => (bench.store(0x10, Width::Double, value.into()), 0),
                Step::Line(pin, level) => (bench.line(pin, level), pin),
                Step::End(vector) => (bench.end(vector), 0),
            };
            for message in messages {
                let vectored = matches!(message.mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
                prop_assert!(!vectored || message.vector >= 16);
                prop_assert!(message.mode != DeliveryMode::StartUp);
                prop_assert!(vectored || message.trigger == Trigger::Edge);
                if is_line && message.trigger == Trigger::Level {
                    prop_assert_eq!(waiting[usize::from(pin)], 0);
                }
            }
        }
    }
}
