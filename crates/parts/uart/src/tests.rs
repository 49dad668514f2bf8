//! The port against the PC16550D data sheet: accesses, bytes and time in, bytes and line 4 out. Names in
//! quotation marks are the data sheet's headings and tables.

use super::*;
use contracts::{Attached, Effects, fake::Memory};
use heapless::Vec;
use proptest::prelude::*;

struct Board {
    uart: Attached<Uart>,
    memory: Memory<1>,
    now: u64,
    console: Vec<u8, 1024>,
    /// Every level that line 4 was driven to.
    line: Vec<bool, 1024>,
}

impl Board {
    fn new() -> Self {
        Self {
            uart: Attached::new(&Platform::default()),
            memory: Memory::new(),
            now: 0,
            console: Vec::new(),
            line: Vec::new(),
        }
    }

    /// FIFOs on, trigger at 8, 8N1 at 115200, DTR, RTS and OUT2 on: as Linux opens it.
    fn open() -> Self {
        let mut board = Self::new();
        for (register, value) in [(3, 0x83), (0, 1), (1, 0), (3, 0x03), (2, 0x87), (4, 0x0b)] {
            board.write(register, value);
        }
        board
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Attached<Uart>, &mut Context<'_>) -> R) -> R {
        let mut effects = Effects::new();
        let mut context = Context { now: GuestTime(self.now), effects: &mut effects, memory: &self.memory };
        let result = act(&mut self.uart, &mut context);
        assert!(!effects.overflowed());
        for effect in effects.as_slice() {
            match *effect {
                Effect::Line { line: INTERRUPT, level } => {
                    let _ = self.line.push(level);
                }
                Effect::Console(byte) => {
                    let _ = self.console.push(byte);
                }
                other => panic!("{other:?}"),
            }
        }
        result
    }

    fn write(&mut self, register: u16, value: u8) {
        let port = FIRST + register;
        assert!(self.with(|uart, context| uart.write_port(port, Width::Byte, value.into(), context)));
    }

    fn read(&mut self, register: u16) -> u8 {
        let port = FIRST + register;
        self.with(|uart, context| uart.read_port(port, Width::Byte, context)).unwrap() as u8
    }

    fn receive(&mut self, byte: u8) -> bool {
        self.with(|uart, context| uart.with(context, |uart, context| uart.receive(byte, context)))
    }

    fn level(&self) -> bool {
        self.uart.device.level
    }

    fn run_to(&mut self, time: u64) -> u64 {
        let mut expiries = 0;
        while let Some(deadline) = self.uart.deadline()
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

/// "UART Reset Configuration".
#[test]
fn reset_values() {
    let mut board = Board::new();
    for (register, value) in [(1, 0x00), (2, 0x01), (3, 0x00), (4, 0x00), (5, 0x60), (6, 0xb0)] {
        assert_eq!(board.read(register), value, "register {register}");
    }
    assert!(!board.level());
}

#[test]
fn bytes_go_out_in_order_and_at_once() {
    let mut board = Board::open();
    for byte in *b"hello\r\n" {
        assert_eq!(
            board.read(5) & 0x60,
            0x60,
            "\"Line Status Register\": holding register and transmitter are empty"
        );
        board.write(0, byte);
    }
    assert_eq!(board.console.as_slice(), b"hello\r\n");
    assert!(board.line.is_empty());
}

/// "Summary of Registers": DLAB selects the divisor latch; IER, MCR and IIR have bits that are always 0; the scratch register keeps.
#[test]
fn registers_keep_what_they_have_bits_for() {
    let mut board = Board::new();
    board.write(3, 0x80);
    board.write(0, 0x34);
    board.write(1, 0x12);
    assert_eq!((board.read(0), board.read(1)), (0x34, 0x12));
    board.write(3, 0x1b);
    assert_eq!((board.read(1), board.read(3)), (0, 0x1b));
    board.write(1, 0xff);
    board.write(4, 0xef);
    board.write(7, 0xa5);
    assert_eq!((board.read(1), board.read(4), board.read(7)), (0x0f, 0x0f, 0xa5));
    assert!(board.console.is_empty());
}

/// "FIFO Interrupt Mode Operation": with FIFOs, the interrupt comes at the trigger level and goes as the FIFO drops below it.
#[test]
fn receive_trigger_levels() {
    for (code, level) in [(0x01, 1), (0x41, 4), (0x81, 8), (0xc1, 14)] {
        let mut board = Board::open();
        board.write(2, code);
        board.write(1, 0x01);
        for count in 0..level {
            assert!(!board.level(), "{level}: {count}");
            assert!(board.receive(count));
        }
        assert!(board.level());
        assert_eq!(board.uart.deadline(), None, "no time-out is needed any more");
        assert_eq!(board.read(2), 0xc4);
        assert_eq!(board.read(0), 0);
        assert!(!board.level());
        for count in 1..level {
            assert_eq!(board.read(5) & 1, 1);
            assert_eq!(board.read(0), count);
        }
        assert_eq!(board.read(5) & 1, 0);
    }
}

/// "FIFO Interrupt Mode Operation", time-out: at least one character in the FIFO, and none received or read for four character
/// times.
#[test]
fn receive_time_out() {
    let mut board = Board::open();
    board.write(1, 0x01);
    board.receive(b'a');
    let character = 86_805;
    board.run_to(3 * character);
    board.receive(b'b');
    board.run_to(7 * character - 50);
    assert!(!board.level(), "the second byte started the time anew");
    board.run_to(7 * character + 50);
    assert!(board.level());
    assert_eq!(board.read(2), 0xcc);
    assert_eq!(board.read(0), b'a');
    assert!(!board.level(), "a read clears it");
    board.run_to(12 * character);
    assert!(board.level(), "and comes again for the rest");
    assert_eq!(board.read(0), b'b');
    assert_eq!(board.uart.deadline(), None);
    // Slower: 5 bits, parity and two stop bits at divisor 0x1000.
    board.write(3, 0x8c);
    board.write(1, 0x10);
    board.write(0, 0x00);
    board.write(3, 0x0c);
    let start = board.now;
    board.receive(b'c');
    assert_eq!(board.uart.deadline(), Some(GuestTime(start + 4 * 9 * 4_096 * 78_125 / 9)));
}

/// A byte that waited before its interrupt was enabled is told of all the same.
#[test]
fn enabling_the_receive_interrupt_finds_what_is_there() {
    let mut board = Board::open();
    board.receive(b'a');
    assert_eq!(board.uart.deadline(), None, "a guest that polls is not woken");
    board.write(1, 0x01);
    board.run_to(1_000_000);
    assert!(board.level());
}

/// Without FIFOs the port is a 16450: one byte.
#[test]
fn character_mode() {
    let mut board = Board::new();
    board.write(4, 0x08);
    board.write(1, 0x01);
    assert!(board.receive(b'a'));
    assert_eq!(board.read(2), 0x04);
    assert!(board.level());
    assert!(!board.receive(b'b'), "refused, not lost");
    assert_eq!(board.read(0), b'a');
    assert!(board.receive(b'b'));
}

#[test]
fn a_full_fifo_refuses() {
    let mut board = Board::open();
    for byte in 0..16 {
        assert!(board.receive(byte));
    }
    assert!(!board.receive(16));
    assert_eq!(board.read(5) & 2, 0, "no overrun: the byte stays with the host");
    for byte in 0..16 {
        assert_eq!(board.read(0), byte);
    }
    assert_eq!(board.read(5) & 1, 0);
}

/// "Interrupt Control Functions": the transmitter's interrupt goes by "reading the IIR register (if source of interrupt) or writing into the
/// transmitter holding register".
#[test]
fn transmitter_interrupt() {
    let mut board = Board::open();
    board.write(1, 0x02);
    assert!(board.level(), "enabling it with an empty transmitter raises it");
    assert_eq!(board.read(2), 0xc2);
    assert!(!board.level());
    assert_eq!(board.read(2), 0xc1);
    board.write(1, 0x02);
    assert_eq!(board.read(2), 0xc1, "enabled already");
    board.line.clear();
    board.write(0, b'x');
    board.write(0, b'y');
    assert_eq!(board.line.as_slice(), [true, false, true], "each byte makes an edge of its own");
    assert_eq!(board.read(2), 0xc2);
    // Not the source: a received byte has priority, and the read does not take the transmitter's interrupt away.
    board.write(0, b'z');
    board.write(2, 0x01);
    board.write(1, 0x03);
    board.receive(b'a');
    assert_eq!(board.read(2), 0xc4);
    board.read(0);
    assert_eq!(board.read(2), 0xc2);
}

/// "Interrupt Control Functions": line status, received data, transmitter, modem status, in this order.
#[test]
fn priorities() {
    let mut board = Board::open();
    board.write(2, 0x01);
    board.write(4, 0x1a);
    for byte in 0..17 {
        board.write(0, byte);
    }
    board.write(1, 0x0f);
    assert_eq!(board.read(2), 0xc6);
    assert_eq!(board.read(5), 0x63);
    assert_eq!(board.read(2), 0xc4);
    board.write(2, 0x03);
    assert_eq!(board.read(2), 0xc2);
    assert_eq!(board.read(2), 0xc0);
    assert_ne!(board.read(6) & 0x0f, 0);
    assert_eq!(board.read(2), 0xc1);
}

/// "FIFO Control Register": enabling or disabling FIFOs clears them; other bits count only with bit 0.
#[test]
fn fifo_control() {
    let mut board = Board::open();
    board.receive(b'a');
    board.write(2, 0x02);
    assert_eq!(board.read(2), 0x01);
    assert_eq!(board.read(5) & 1, 0);
    board.receive(b'b');
    board.write(2, 0xc2);
    assert_eq!(board.read(5) & 1, 1, "without bit 0 nothing is reset");
    board.write(2, 0xc1);
    assert_eq!(board.read(5) & 1, 0);
    board.receive(b'c');
    board.write(2, 0xc1);
    assert_eq!(board.read(5) & 1, 1, "no change, no reset");
    board.write(2, 0xc3);
    assert_eq!(board.read(5) & 1, 0);
}

/// "Modem Control Register", loopback: transmitter to receiver, modem control outputs to modem status inputs; nothing leaves or enters.
#[test]
fn loopback() {
    let mut board = Board::open();
    // Linux: `(MSR & 0xf0) == 0x90` for LOOP, OUT2 and RTS.
    board.write(4, 0x1a);
    assert_eq!(board.read(6) & 0xf0, 0x90);
    for (control, status) in [(0x11, 0x20), (0x12, 0x10), (0x14, 0x40), (0x18, 0x80), (0x10, 0x00)] {
        board.write(4, control);
        assert_eq!(board.read(6) & 0xf0, status);
    }
    board.console.clear();
    board.write(0, 0x5a);
    assert_eq!(board.read(5) & 1, 1);
    assert_eq!(board.read(0), 0x5a);
    assert!(board.console.is_empty());
    assert!(!board.receive(b'a'));
    board.write(4, 0x0b);
    assert_eq!(board.read(6) & 0xf0, 0xb0);
    assert!(board.receive(b'a'));
}

/// "Modem Status Register": DCTS, DDSR, DDCD for any change, TERI for the trailing edge of RI only; a read clears them.
#[test]
fn modem_status_changes() {
    let mut board = Board::new();
    board.write(4, 0x10);
    assert_eq!(board.read(6), 0x0b, "the far end went away");
    assert_eq!(board.read(6), 0);
    board.write(4, 0x14);
    assert_eq!(board.read(6), 0x40, "RI's leading edge does not count");
    board.write(4, 0x10);
    assert_eq!(board.read(6), 0x04);
}

/// Loopback overruns: with FIFOs the seventeenth byte is lost, without them the first.
#[test]
fn overrun() {
    let mut board = Board::open();
    board.write(4, 0x10);
    for byte in 0..17 {
        board.write(0, byte);
    }
    assert_eq!(board.read(5) & 3, 3);
    assert_eq!(board.read(5) & 3, 1, "the read clears it");
    for byte in 0..16 {
        assert_eq!(board.read(0), byte);
    }
    assert_eq!(board.read(5) & 1, 0);
    board.write(2, 0);
    board.write(0, 1);
    board.write(0, 2);
    assert_eq!(board.read(5) & 3, 3);
    assert_eq!(board.read(0), 2);
}

/// OUT2 opens the way to the interrupt controller; loop mode closes it.
#[test]
fn out_2_gates_the_line() {
    let mut board = Board::open();
    board.write(1, 0x02);
    assert!(board.level());
    board.write(4, 0x03);
    assert!(!board.level());
    board.write(4, 0x1b);
    assert!(!board.level());
    assert_eq!(board.read(2), 0xc2, "though it is pending");
    board.write(1, 0x00);
    board.write(1, 0x02);
    board.write(4, 0x0b);
    assert!(board.level());
}

/// Linux's autoconfig of a 16550A: interrupt enables keep, no extended registers at 2 with LCR 0xbf, no 64-byte FIFO bit,
/// sixteen bytes by loopback.
#[test]
fn linux_finds_a_16550a() {
    let mut board = Board::new();
    board.write(1, 0x00);
    assert_eq!(board.read(1), 0x00);
    board.write(1, 0x0f);
    assert_eq!(board.read(1), 0x0f);
    board.write(1, 0x00);
    board.write(3, 0xbf);
    board.write(2, 0x00);
    board.write(3, 0x00);
    board.write(2, 0x01);
    assert_eq!(board.read(2) >> 6, 3, "a 16550A");
    board.write(3, 0x80);
    assert_ne!(board.read(2), 0, "no EFR");
    board.write(3, 0xbf);
    assert_ne!(board.read(2), 0, "no EFR behind 0xbf");
    board.write(3, 0xe0);
    assert_eq!((board.read(4) ^ board.read(2)) & 0x10, 0, "no SuperIO bank 2");
    for (line_control, expected) in [(0x00, 6), (0x80, 6)] {
        board.write(3, line_control);
        board.write(2, 0x21);
        assert_eq!(board.read(2) >> 5, expected, "no TI16750");
        board.write(2, 0x01);
    }
    board.write(3, 0x00);
    board.write(1, 0x40);
    assert_eq!(board.read(1) & 0x40, 0, "no XScale");
    board.write(2, 0x07);
    board.write(4, 0x10);
    for byte in 0..=255 {
        board.write(0, byte);
    }
    let mut count = 0;
    while board.read(5) & 1 != 0 && count < 256 {
        board.read(0);
        count += 1;
    }
    assert_eq!(count, 16);
}

/// Linux's start-up tests: the transmitter's interrupt is raised again by enabling it again (else UART_BUG_THRE), and
/// with it enabled and the line empty it is pending (else UART_BUG_TXEN).
#[test]
fn linux_finds_no_transmitter_bug() {
    let mut board = Board::open();
    board.write(1, 0x02);
    assert_eq!(board.read(2) & 1, 0);
    board.write(1, 0x00);
    board.write(1, 0x02);
    assert_eq!(board.read(2) & 1, 0);
    board.write(1, 0x00);
    board.write(1, 0x02);
    assert_eq!((board.read(5) & 0x40, board.read(2) & 1), (0x40, 0));
    board.write(1, 0x00);
    assert!(!board.level());
}

/// GNU Mach's probe: the two halves of register 1 are apart, every value of the scratch register keeps.
#[test]
fn mach_finds_a_16550() {
    let mut board = Board::new();
    board.write(1, 0);
    assert_eq!(board.read(1), 0);
    board.write(3, 0x80);
    board.write(1, 0xff);
    assert_eq!(board.read(1), 0xff);
    board.write(3, 0);
    assert_eq!(board.read(1), 0);
    for value in 0..=255 {
        board.write(7, value);
        assert_eq!(board.read(7), value);
    }
    board.write(2, 0xc1);
    assert_eq!(board.read(2) & 0xc0, 0xc0);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u16, u8),
    Read(u16),
    Receive(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..8u16, any::<u8>()).prop_map(|(register, value)| Step::Write(register, value)),
        2 => (0..8u16).prop_map(Step::Read),
        2 => any::<u8>().prop_map(Step::Receive),
        1 => (0..100_000_000u64).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever a guest does: no panic, one wake-up at most between two events, and the line says whether an interrupt
    /// is pending behind an open OUT2.
    #[test]
    fn any_sequence_is_served(steps in prop::collection::vec(step(), 0..200)) {
        let mut board = Board::new();
        for step in steps {
            match step {
                Step::Write(register, value) => board.write(register, value),
                Step::Read(register) => {
                    board.read(register);
                }
                Step::Receive(byte) => {
                    board.receive(byte);
                }
                Step::Wait(time) => {
                    let expiries = board.run_to(board.now + time);
                    prop_assert!(expiries <= 1);
                }
            }
            let uart = &board.uart.device;
            let pending = uart.pending() != NONE_PENDING;
            prop_assert_eq!(uart.level, pending && uart.modem_control & 0x18 == 0x08);
            prop_assert!(uart.received.count() <= 16);
            prop_assert!(board.uart.deadline().is_none_or(|deadline| deadline.0 > board.now));
        }
    }

    /// What is received is read, in order, as long as nobody resets the FIFO: no byte is lost or doubled.
    #[test]
    fn no_byte_is_lost(chunks in prop::collection::vec((0usize..20, 0usize..20), 0..50)) {
        let mut board = Board::open();
        let (mut sent, mut read) = (0u8, 0u8);
        for (sends, reads) in chunks {
            for _ in 0..sends {
                if board.receive(sent) {
                    sent = sent.wrapping_add(1);
                }
            }
            for _ in 0..reads {
                if board.read(5) & 1 != 0 {
                    prop_assert_eq!(board.read(0), read);
                    read = read.wrapping_add(1);
                }
            }
        }
        prop_assert_eq!(sent.wrapping_sub(read), board.uart.device.received.count());
    }
}
