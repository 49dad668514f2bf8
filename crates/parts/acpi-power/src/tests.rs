//! The fixed hardware against ACPI 6.5 §4.8 and the chip sets' data sheets: accesses and time in, power, line 9 out.

use super::*;
use contracts::{Attached, Effects, fake::Memory};
use heapless::Vec;
use proptest::prelude::*;

struct Board {
    power: Attached<AcpiPower>,
    memory: Memory<1>,
    now: u64,
    switched: Vec<Power, 64>,
}

impl Board {
    fn new() -> Self {
        Self {
            power: Attached::new(&Platform::default()),
            memory: Memory::new(),
            now: 0,
            switched: Vec::new(),
        }
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Attached<AcpiPower>, &mut Context<'_>) -> R) -> R {
        let mut effects = Effects::new();
        let mut context = Context { now: GuestTime(self.now), effects: &mut effects, memory: &self.memory };
        let result = act(&mut self.power, &mut context);
        assert!(!effects.overflowed());
        for effect in effects.as_slice() {
            match *effect {
                Effect::Power(power) => {
                    let _ = self.switched.push(power);
                }
                Effect::Line { line: SCI, level } => assert_eq!(level, self.level()),
                other => panic!("{other:?}"),
            }
        }
        result
    }

    fn write(&mut self, port: u16, width: Width, value: u32) -> bool {
        self.with(|power, context| power.write_port(port, width, value, context))
    }

    fn read(&mut self, port: u16, width: Width) -> u32 {
        let value = self.with(|power, context| power.read_port(port, width, context)).unwrap();
        value & width.mask() as u32
    }

    fn level(&self) -> bool {
        self.power.device.level
    }

    fn run_to(&mut self, time: u64) -> u64 {
        let mut expiries = 0;
        while let Some(deadline) = self.power.deadline()
            && deadline.0 <= time
        {
            self.now = deadline.0.max(self.now);
            expiries += 1;
            self.with(Attached::expire);
        }
        self.now = time;
        expiries
    }
}

/// §4.8.3.3: a 32-bit counter of 3.579545 MHz that runs freely and is read only.
#[test]
fn power_management_timer() {
    let mut board = Board::new();
    for (seconds, ticks) in [(0, 0u32), (1, 3_579_545), (1_199, 4_291_874_455), (1_200, 486_704)] {
        board.now = seconds * 1_000_000_000;
        assert_eq!(board.read(0x608, Width::Double), ticks, "{seconds} s");
        board.write(0x608, Width::Double, 0);
    }
}

/// Narrow and crooked reads show one instant.
#[test]
fn the_timer_in_pieces() {
    let mut board = Board::new();
    board.now = 1_000_000_000_000;
    let whole = board.read(0x608, Width::Double);
    assert_eq!(board.read(0x608, Width::Word), whole & 0xffff);
    assert_eq!(board.read(0x60a, Width::Word), whole >> 16);
    for byte in 0..4 {
        assert_eq!(board.read(0x608 + byte, Width::Byte), whole >> (8 * byte) & 0xff);
    }
    assert_eq!(board.read(0x607, Width::Double), whole << 8);
    assert_eq!(board.read(0x60a, Width::Double), whole >> 16 | 0xffff_0000, "nothing beyond the block");
}

/// §4.8.3.2.1: SCI_EN is one, and cannot be cleared; SLP_EN is write only and reads as zero.
#[test]
fn control_register() {
    let mut board = Board::new();
    assert_eq!(board.read(0x604, Width::Word), 0x0001);
    board.write(0x604, Width::Word, 0x1402);
    assert_eq!(board.read(0x604, Width::Word), 0x1403);
    board.write(0x604, Width::Word, 0xe3fc);
    assert_eq!(board.read(0x604, Width::Word), 0x0001);
    assert!(board.switched.is_empty(), "sleep types 0 and 7 do nothing");
}

/// §7.4.2.5, §16.1.5: SLP_TYP of `_S5`, then SLP_EN, is soft off. Linux writes the type first, then both.
#[test]
fn power_off() {
    let mut board = Board::new();
    board.write(0x604, Width::Word, 0x1401);
    assert!(board.switched.is_empty());
    board.write(0x604, Width::Word, 0x3401);
    assert_eq!(board.switched.as_slice(), [Power::Off]);
    for kind in [0, 1, 2, 3, 4, 6, 7] {
        board.write(0x604, Width::Word, 0x2000 | kind << 10);
    }
    assert_eq!(board.switched.len(), 1);
    // By the high byte alone, and by an access that begins before the register.
    board.write(0x605, Width::Byte, 0x34);
    board.write(0x602, Width::Double, 0x3400_0000);
    assert_eq!(board.switched.as_slice(), [Power::Off; 3]);
}

/// §4.8.3.1.1: TMR_STS is set when the timer's most significant bit changes, and cleared by writing a one.
#[test]
fn timer_carry_status() {
    let mut board = Board::new();
    let carry = clock::nanoseconds(1 << 31);
    board.now = carry - 2;
    assert_eq!(board.read(0x600, Width::Word), 0);
    for count in 1..4 {
        board.now = count * carry;
        assert_eq!(board.read(0x600, Width::Word), 1, "{count}");
        board.write(0x600, Width::Word, 0xfffe);
        assert_eq!(board.read(0x600, Width::Word), 1, "zeros clear nothing");
        board.write(0x601, Width::Byte, 0xff);
        assert_eq!(board.read(0x600, Width::Word), 1, "another byte's ones neither");
        board.write(0x600, Width::Word, 1);
        assert_eq!(board.read(0x600, Width::Word), 0);
    }
    assert_eq!(board.power.deadline(), None);
}

/// §4.8.3.1.2: status and enable both set raise SCI, a level that lasts until the status is cleared or disabled.
#[test]
fn system_control_interrupt() {
    let mut board = Board::new();
    let carry = clock::nanoseconds(1 << 31);
    board.write(0x602, Width::Word, 1);
    assert_eq!(board.power.deadline(), Some(GuestTime(carry)));
    assert_eq!(board.run_to(carry), 1);
    assert!(board.level());
    assert_eq!(board.power.deadline(), None);
    board.write(0x600, Width::Double, 0x0001_0001);
    assert!(!board.level());
    assert_eq!(board.run_to(5 * carry), 1, "one for all that were missed");
    assert!(board.level());
    board.write(0x602, Width::Word, 0);
    assert!(!board.level());
}

/// What ACPICA does with fixed events: it sets an enable bit and wants it back.
#[test]
fn enable_bits_keep() {
    let mut board = Board::new();
    board.write(0x602, Width::Word, 0xffff);
    assert_eq!(board.read(0x602, Width::Word), 0x0721);
    board.write(0x603, Width::Byte, 0);
    assert_eq!(board.read(0x602, Width::Word), 0x0021);
    assert!(!board.level());
}

/// 82371AB, reset control register: bit 2 resets as it rises; bit 1 says which kind. Linux and Xen write 2 then 6, the FADT's value is 6.
#[test]
fn reset_register() {
    let mut board = Board::new();
    assert_eq!(board.read(0xcf9, Width::Byte), 0);
    board.write(0xcf9, Width::Byte, 0x02);
    assert!(board.switched.is_empty());
    assert_eq!(board.read(0xcf9, Width::Byte), 0x02);
    board.write(0xcf9, Width::Byte, ports::RESET_VALUE.into());
    assert_eq!(board.switched.as_slice(), [Power::Reset]);
    board.write(0xcf9, Width::Byte, 0x04);
    board.write(0xcf9, Width::Double, 0xffff_ff0e);
    assert_eq!(board.switched.as_slice(), [Power::Reset; 3]);
}

/// The keyboard controller's reset, and a status that neither keeps anybody waiting nor promises a keyboard.
#[test]
fn keyboard_controller() {
    let mut board = Board::new();
    let status = board.read(0x64, Width::Byte);
    assert_eq!(status & 0x02, 0, "input buffer empty: GNU Mach and Linux wait for it before they reset");
    assert_eq!(status & 0x01, 1, "output buffer full for ever: Linux's driver gives up after 16 reads");
    assert_eq!(status & 0x20, 0, "not from a mouse: GNU Mach would read on for ever");
    assert_eq!(board.read(0x60, Width::Byte), 0xff, "no key of memtest86+'s");
    for command in 0..=0xff {
        board.switched.clear();
        board.write(0x64, Width::Byte, command);
        let resets = command >= 0xf0 && command & 1 == 0;
        assert_eq!(board.switched.as_slice() == [Power::Reset], resets, "{command:#x}");
    }
    board.switched.clear();
    board.write(0x60, Width::Byte, 0xfe);
    assert!(board.switched.is_empty());
}

/// Port 0x92: A20 always on, bit 0 resets. Linux's boot code reads, sets bit 1, clears bit 0 and writes back.
#[test]
fn system_control_port_a() {
    let mut board = Board::new();
    assert_eq!(board.read(0x92, Width::Byte), 0x02);
    board.write(0x92, Width::Byte, 0x00);
    assert_eq!(board.read(0x92, Width::Byte), 0x02);
    assert!(board.switched.is_empty());
    board.write(0x92, Width::Byte, 0x03);
    assert_eq!(board.switched.as_slice(), [Power::Reset]);
}

/// The configuration address port next door is somebody else's.
#[test]
fn only_its_own_ports() {
    let mut board = Board::new();
    for port in [0x5ff, 0x60c, 0xcf8, 0xcfa, 0x61, 0x63, 0x65, 0x91, 0x93] {
        assert!(!board.write(port, Width::Byte, 0xff), "{port:#x}");
    }
}

proptest! {
    /// Whatever a guest does: no panic, values fit their width, at most one wake-up between two accesses.
    #[test]
    fn any_sequence_is_served(
        steps in prop::collection::vec(
            (
                prop_oneof![0x5feu16..0x610, Just(0xcf9), Just(0x60), Just(0x64), Just(0x92)],
                prop::sample::select(&[Width::Byte, Width::Word, Width::Double][..]),
                any::<u32>(),
                any::<bool>(),
                prop_oneof![0..1u64 << 42, 0..1u64 << 58],
            ),
            0..64,
        ),
    ) {
        let mut board = Board::new();
        for (port, width, value, write, wait) in steps {
            board.switched.clear();
            let value = value & width.mask() as u32;
            let claimed = if write {
                board.write(port, width, value)
            } else {
                board.with(|power, context| power.read_port(port, width, context)).is_some()
            };
            prop_assert_eq!(claimed, !matches!(port, 0x5fe..0x600 | 0x60c..0x610));
            prop_assert!(board.switched.len() <= 1);
            let raised = board.power.device.status(GuestTime(board.now)) & board.power.device.enable != 0;
            prop_assert!(!write || !claimed || !in_block(port) || board.level() == raised);
            prop_assert!(board.power.deadline().is_none_or(|deadline| deadline.0 > board.now));
            let until = board.now + wait;
            prop_assert!(board.run_to(until) <= 1);
        }
    }

    /// An access of any width and place is the same as its bytes, at one instant.
    #[test]
    fn wide_reads_are_their_bytes(
        offset in 0u16..12, width in prop::sample::select(&[Width::Word, Width::Double][..]), now in any::<u64>(),
    ) {
        let mut board = Board::new();
        board.write(0x602, Width::Word, 0x0520);
        board.write(0x604, Width::Word, 0x1c02);
        board.now = now;
        let mut expected = 0;
        for byte in 0..u16::from(width.bytes()) {
            let port = 0x600 + offset + byte;
            let part = if port < 0x60c { board.read(port, Width::Byte) } else { 0xff };
            expected |= part << (8 * byte);
        }
        prop_assert_eq!(board.read(0x600 + offset, width), expected);
    }
}
