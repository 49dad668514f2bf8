//! The configuration ports against PCI 3.0 §3.2.2.3.2, the bridge against §6.2: accesses in, values out.

use super::*;
use contracts::{Attached, Effects, GuestTime, fake::Memory};
use proptest::prelude::*;

struct Board {
    host: Attached<PciHost>,
    memory: Memory<1>,
}

impl Board {
    fn new() -> Self {
        Self { host: Attached::new(&Platform::default()), memory: Memory::new() }
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Attached<PciHost>, &mut Context<'_>) -> R) -> R {
        let mut effects = Effects::new();
        let mut context = Context { now: GuestTime(0), effects: &mut effects, memory: &self.memory };
        let result = act(&mut self.host, &mut context);
        assert!(effects.is_empty() && effects.take_timer() == contracts::Timer::Unchanged);
        result
    }

    fn write(&mut self, port: u16, width: Width, value: u32) -> bool {
        self.with(|host, context| host.write_port(port, width, value, context))
    }

    fn read(&mut self, port: u16, width: Width) -> u32 {
        let value = self.with(|host, context| host.read_port(port, width, context)).unwrap();
        value & width.mask() as u32
    }

    fn select(&mut self, bus: u8, device: u8, function: u8, register: u8) {
        let address = u32::from_le_bytes([register & 0xfc, device << 3 | function, bus, 0x80]);
        assert!(self.write(0xcf8, Width::Double, address));
    }

    fn configuration(&mut self, device: u8, function: u8, register: u8) -> u32 {
        self.select(0, device, function, register);
        self.read(0xcfc, Width::Double)
    }
}

/// §6.1, §6.2: a host bridge, one function, no base addresses, no capabilities, no interrupt.
#[test]
fn the_host_bridge() {
    let mut board = Board::new();
    let header: [u32; 64] = core::array::from_fn(|register| board.configuration(0, 0, register as u8 * 4));
    assert_eq!(header[0], 0x0001_5246);
    assert_eq!(header[1], 0x0000_0006, "no capabilities, no errors");
    assert_eq!(header[2] >> 16, 0x0600, "bridge, host");
    assert_eq!(header[3] >> 16 & 0xff, 0, "one function, header type 0");
    assert_eq!(header[11], header[0]);
    for (index, register) in header.iter().enumerate() {
        assert!(matches!(index, 0..=2 | 11) || *register == 0, "{index}");
    }
}

/// The bridge's registers are read only: sizing of its base addresses finds none.
#[test]
fn writes_change_nothing() {
    let mut board = Board::new();
    for register in (0..=0xfcu8).step_by(4) {
        let before = board.configuration(0, 0, register);
        board.write(0xcfc, Width::Double, u32::MAX);
        board.write(0xcfd, Width::Word, 0x5555);
        assert_eq!(board.read(0xcfc, Width::Double), before, "{register:#x}");
    }
}

/// §6.1: reads of functions that do not exist give all ones.
#[test]
fn everything_else_is_absent() {
    let mut board = Board::new();
    for bus in [0, 1, 0x7f, 0xff] {
        for device in 0..32 {
            for function in 0..8 {
                if (bus, device, function) == (0, 0, 0) {
                    continue;
                }
                board.select(bus, device, function, 0);
                assert_eq!(board.read(0xcfc, Width::Double), u32::MAX, "{bus} {device} {function}");
                board.write(0xcfc, Width::Double, 0);
            }
        }
    }
}

/// CONFIG_ADDRESS: bit 31 enables; bits 30 to 24 and 1 to 0 are zero.
#[test]
fn the_address_register() {
    let mut board = Board::new();
    assert_eq!(board.read(0xcf8, Width::Double), 0);
    board.write(0xcf8, Width::Double, u32::MAX);
    assert_eq!(board.read(0xcf8, Width::Double), 0x80ff_fffc);
    board.write(0xcf8, Width::Double, 0);
    assert_eq!(board.read(0xcfc, Width::Double), u32::MAX, "not enabled: no configuration access");
}

/// "Any other types of accesses to this address (non-DWORD) have no effect on CONFIG_ADDRESS."
#[test]
fn narrow_accesses_to_the_address_do_nothing() {
    let mut board = Board::new();
    board.select(0, 0, 0, 8);
    for (port, width) in [
        (0xcf8, Width::Byte),
        (0xcf8, Width::Word),
        (0xcfa, Width::Byte),
        (0xcfa, Width::Word),
        (0xcfb, Width::Byte),
    ] {
        board.write(port, width, 0);
        assert_eq!(board.read(port, width), width.mask() as u32);
    }
    assert_eq!(board.read(0xcf8, Width::Double), 0x8000_0008);
}

/// The reset register at 0xcf9 belongs to another part.
#[test]
fn the_reset_register_is_not_claimed() {
    let mut board = Board::new();
    for port in [0xcf7, 0xcf9, 0xd00] {
        assert!(!board.write(port, Width::Byte, 0), "{port:#x}");
    }
}

/// Bytes and words of the data register are bytes and words of the register selected.
#[test]
fn narrow_data() {
    let mut board = Board::new();
    board.select(0, 0, 0, 0);
    assert_eq!(board.read(0xcfc, Width::Word), 0x5246);
    assert_eq!(board.read(0xcfe, Width::Word), 0x0001);
    assert_eq!(board.read(0xcfd, Width::Byte), 0x52);
    assert_eq!(board.read(0xcfd, Width::Word), 0x0152);
    assert_eq!(board.read(0xcff, Width::Double), 0xffff_ff00, "nothing beyond");
    assert_eq!(board.read(0xcfb, Width::Double), 0x0152_46ff, "and nothing below");
    assert_eq!(board.read(0xcfa, Width::Double), 0x5246_ffff);
}

/// How Linux, GNU Mach and memtest86+ look for mechanism #1: a byte to 0xcfb, then the address must keep its bit 31, and a
/// host bridge must be found.
#[test]
fn mechanism_1_is_found() {
    let mut board = Board::new();
    board.write(0xcfb, Width::Byte, 0x01);
    let before = board.read(0xcf8, Width::Double);
    board.write(0xcf8, Width::Double, 0x8000_0000);
    assert_eq!(board.read(0xcf8, Width::Double), 0x8000_0000);
    board.write(0xcf8, Width::Double, before);
    assert!((0..32).any(|device| board.configuration(device, 0, 8) >> 16 == 0x0600));
    // Mechanism #2 is not there.
    for port in [0xcfb, 0xcf8, 0xcfa] {
        board.write(port, Width::Byte, 0);
    }
    assert_ne!(board.read(0xcf8, Width::Byte), 0);
}

/// A function that records, to see which bits reach one.
#[derive(Debug, Default)]
struct Recorder {
    value: u32,
}

impl Function for Recorder {
    fn read(&self, _: Register) -> u32 {
        self.value
    }

    fn write(&mut self, register: Register, value: u32, mask: u32) {
        assert_eq!(register.offset() & 3, 0);
        assert_eq!(value & !mask, 0, "no bits beyond the mask");
        self.value = self.value & !mask | value;
    }
}

proptest! {
    /// Whatever a guest does: no panic, and only aligned registers of enabled bytes reach a function.
    #[test]
    fn any_sequence_is_served(
        steps in prop::collection::vec(
            (
                0xcf7u16..0xd01,
                prop::sample::select(&[Width::Byte, Width::Word, Width::Double][..]),
                any::<u32>(),
                any::<bool>(),
            ),
            0..64,
        ),
    ) {
        let mut board = Board::new();
        for (port, width, value, write) in steps {
            let value = value & width.mask() as u32;
            let claimed = if write {
                board.write(port, width, value)
            } else {
                board.with(|host, context| host.read_port(port, width, context)).is_some()
            };
            prop_assert_eq!(claimed, !matches!(port, 0xcf7 | 0xcf9 | 0xd00));
            prop_assert_eq!(board.host.device.address & !ADDRESS_MASK, 0);
        }
    }

    /// A write of any width and place puts its bytes where reads of bytes find them.
    #[test]
    fn writes_reach_the_bytes_they_name(
        port in 0xcfau16..0xd00,
        width in prop::sample::select(&[Width::Byte, Width::Word, Width::Double][..]),
        before: u32,
        value: u32,
    ) {
        let mut recorder = Recorder { value: before };
        let value = value & width.mask() as u32;
        let mask = reaching(port, width.mask() as u32);
        recorder.write(Register::containing(0x43), reaching(port, value), mask);
        let after = recorder.read(Register::containing(0x40));
        for byte in 0..4u16 {
            let written = (0..u16::from(width.bytes())).find(|index| port + index == 0xcfc + byte);
            let expected = match written {
                Some(index) => value >> (8 * index) & 0xff,
                None => before >> (8 * byte) & 0xff,
            };
            prop_assert_eq!(after >> (8 * byte) & 0xff, expected);
        }
    }
}
