//! The pair against the 8259A data sheet: accesses and lines in, vectors out. Headings in quotation marks are the
//! data sheet's own.

use super::*;
use contracts::{Effects, GuestTime, fake::Memory};
use proptest::prelude::*;

struct Board {
    pic: Pic,
    memory: Memory<1>,
}

impl Board {
    /// The pair at power-on.
    fn new() -> Self {
        Self { pic: Pic::new(&Platform::default()), memory: Memory::new() }
    }

    /// The pair as Linux sets it up: vectors 0x30 to 0x3f, normal end of interrupt, nothing masked.
    fn ready() -> Self {
        let mut board = Self::new();
        board.initialize(0x01, 0x01);
        board
    }

    fn initialize(&mut self, master_mode: u8, slave_mode: u8) {
        for (port, value) in [
            (0x20, 0x11),
            (0x21, 0x30),
            (0x21, 0x04),
            (0x21, master_mode),
            (0xa0, 0x11),
            (0xa1, 0x38),
            (0xa1, 0x02),
            (0xa1, slave_mode),
        ] {
            self.write(port, value);
        }
        self.write(0x21, 0);
        self.write(0xa1, 0);
    }

    fn write(&mut self, port: u16, value: u8) {
        let mut effects = Effects::new();
        let mut context = Context { now: GuestTime(0), effects: &mut effects, memory: &self.memory };
        self.pic.write_port(port, Width::Byte, value.into(), &mut context);
        assert!(effects.is_empty(), "the fabric asks for the output; the chip sends nothing");
    }

    fn read(&mut self, port: u16) -> u8 {
        let mut effects = Effects::new();
        let mut context = Context { now: GuestTime(0), effects: &mut effects, memory: &self.memory };
        self.pic.read_port(port, Width::Byte, &mut context) as u8
    }

    fn raise(&mut self, line: u8) {
        self.pic.set_line(line, true);
    }

    fn lower(&mut self, line: u8) {
        self.pic.set_line(line, false);
    }

    /// An edge that stays high until the acknowledge, as the data sheet asks for.
    fn edge(&mut self, line: u8) {
        self.lower(line);
        self.raise(line);
    }

    /// The vector that the processor gets, if INT asks for one.
    fn interrupt(&mut self) -> Option<u8> {
        self.pic.output().then(|| self.pic.acknowledge())
    }

    /// Request and in-service registers of a chip ("Reading the 8259A Status").
    fn status(&mut self, port: u16) -> (u8, u8) {
        self.write(port, 0x0a);
        let requests = self.read(port);
        self.write(port, 0x0b);
        (requests, self.read(port))
    }
}

#[test]
fn at_power_on_all_is_masked_and_the_vectors_are_those_of_firmware() {
    let mut board = Board::new();
    assert_eq!((board.read(0x21), board.read(0xa1)), (0xff, 0xff));
    board.edge(1);
    board.edge(12);
    assert_eq!(board.interrupt(), None);
    board.write(0x21, 0xf9);
    assert_eq!(board.interrupt(), Some(0x09));
    board.write(0x20, 0x20);
    board.write(0xa1, 0xef);
    assert_eq!(board.interrupt(), Some(0x74));
}

/// "Initialization Command Words 1 and 2 (ICW1, ICW2)": the edge sense is reset, the mask cleared, IR7 lowest, special
/// mask mode off, status read is the request register.
#[test]
fn icw1_resets_what_the_data_sheet_lists() {
    let mut board = Board::ready();
    board.write(0x21, 0xaa);
    board.write(0x20, 0xc3); // Set priority: IR3 lowest.
    board.write(0x20, 0x68); // Special mask mode.
    board.write(0x20, 0x0b);
    board.edge(0);
    board.initialize(0x01, 0x01);
    assert_eq!(board.read(0x21), 0);
    assert_eq!(board.read(0x20), 0, "the edge that waited is gone, though the line is still high");
    assert_eq!(board.interrupt(), None);
    board.edge(0);
    board.edge(4);
    assert_eq!(board.read(0x20), 0x11, "reads give the request register again");
    assert_eq!(board.interrupt(), Some(0x30), "IR0 is highest again");
    board.write(0x21, 0x01);
    assert_eq!(board.interrupt(), None, "and locks out IR4, though masked");
    // Rotation at each automatic end of interrupt does not outlast it either.
    board.write(0x20, 0x80);
    board.initialize(0x03, 0x01);
    board.edge(4);
    assert_eq!(board.interrupt(), Some(0x34));
    board.edge(4);
    board.edge(5);
    assert_eq!(board.interrupt(), Some(0x34));
}

/// "Initialization Sequence" (the figure): ICW3 only in cascade mode, ICW4 only if ICW1 announces it, then ready.
#[test]
fn the_sequence_has_the_steps_that_icw1_announces() {
    for (icw1, words) in [(0x10, 2), (0x11, 3), (0x12, 1), (0x13, 2)] {
        let mut board = Board::new();
        board.write(0x20, icw1);
        for _ in 0..words {
            board.write(0x21, 0x05);
            board.edge(0);
            assert!(!board.pic.output() || board.read(0x21) == 0);
        }
        board.write(0x21, 0x5a);
        assert_eq!(board.read(0x21), 0x5a, "after {words} words of {icw1:#x} the next one is OCW1");
    }
}

#[test]
fn no_interrupt_before_the_sequence_is_complete() {
    let mut board = Board::new();
    for (port, value) in [(0x20, 0x11), (0x21, 0x40), (0x21, 0x04)] {
        board.write(port, value);
        board.edge(1);
        assert_eq!(board.interrupt(), None);
    }
    board.write(0x21, 0x01);
    assert_eq!(board.interrupt(), Some(0x41));
}

/// ICW1 in the midst of a sequence starts the sequence over; OCW2 and OCW3 do not disturb it.
#[test]
fn words_out_of_order_do_not_derail_the_sequence() {
    let mut board = Board::ready();
    board.write(0x20, 0x11);
    board.write(0x21, 0x50);
    board.write(0x20, 0x11);
    board.write(0x20, 0x20);
    board.write(0x21, 0x60);
    board.write(0x20, 0x0b);
    board.write(0x21, 0x04);
    board.write(0x21, 0x01);
    board.edge(3);
    assert_eq!(board.interrupt(), Some(0x63));
}

/// "if IC4 = 0, then all functions selected in ICW4 are set to zero", MCS-80/85 mode among them; the second byte of its
/// CALL is what an x86 processor takes for a vector ("Content of Second Interrupt Vector Byte").
#[test]
fn without_icw4_the_vector_is_half_a_call_address() {
    let mut board = Board::ready();
    for (icw1, vector) in [(0xf6, 0xf4), (0xf2, 0xe8)] {
        board.write(0x20, icw1);
        board.write(0x21, 0x12);
        board.edge(5);
        assert_eq!(board.interrupt(), Some(vector));
        board.edge(5);
        assert_eq!(board.interrupt(), None, "no automatic end of interrupt");
    }
}

/// "Fully Nested Mode": IR0 to IR7; while one is in service, all of the same or lower priority are inhibited.
#[test]
fn fully_nested_priorities() {
    let mut board = Board::ready();
    board.edge(5);
    board.edge(3);
    assert_eq!(board.interrupt(), Some(0x33));
    assert_eq!(board.status(0x20), (0x20, 0x08));
    board.edge(3);
    assert_eq!(board.interrupt(), None);
    board.edge(1);
    assert_eq!(board.interrupt(), Some(0x31));
    assert_eq!(board.status(0x20).1, 0x0a);
    board.write(0x20, 0x20); // Non-specific EOI: IR1.
    assert_eq!(board.status(0x20).1, 0x08);
    board.write(0x20, 0x63); // Specific EOI: IR3.
    assert_eq!(board.interrupt(), Some(0x33));
    board.write(0x20, 0x20);
    assert_eq!(board.interrupt(), Some(0x35));
}

/// "Interrupt Mask Register": masking does not affect the request register.
#[test]
fn a_masked_edge_waits() {
    let mut board = Board::ready();
    board.write(0x21, 0x10);
    board.edge(4);
    assert_eq!(board.interrupt(), None);
    assert_eq!(board.status(0x20).0, 0x10);
    board.write(0x21, 0);
    assert_eq!(board.interrupt(), Some(0x34));
}

/// "Edge and Level Triggered Modes": one edge is one interrupt, however long the line stays high.
#[test]
fn an_edge_counts_once() {
    let mut board = Board::ready();
    board.edge(4);
    assert_eq!(board.interrupt(), Some(0x34));
    board.write(0x20, 0x20);
    board.raise(4);
    assert_eq!(board.interrupt(), None);
    board.edge(4);
    assert_eq!(board.interrupt(), Some(0x34));
}

/// 82371AB, ELCR1 and ELCR2: they make inputs level-triggered, all but 0, 1, 2, 8 and 13.
#[test]
fn level_inputs_ask_until_they_fall() {
    let mut board = Board::ready();
    board.write(0x4d0, 0xff);
    board.write(0x4d1, 0xff);
    assert_eq!((board.read(0x4d0), board.read(0x4d1)), (0xf8, 0xde));
    board.raise(10);
    board.raise(5);
    assert_eq!(board.interrupt(), Some(0x3a));
    board.write(0xa0, 0x20);
    board.write(0x20, 0x20);
    assert_eq!(board.interrupt(), Some(0x3a), "still high: asks again");
    board.lower(10);
    board.write(0xa0, 0x20);
    board.write(0x20, 0x20);
    assert_eq!(board.interrupt(), Some(0x35));
    board.write(0x20, 0x20);
    board.lower(5);
    assert_eq!(board.interrupt(), None);
}

/// "The IR inputs must remain high until after the falling edge of the first INTA. If the IR input goes low before this
/// time a DEFAULT IR7 will occur"; "if IR7 is needed for other purposes a default IR7 can still be detected by reading
/// the ISR".
#[test]
fn a_request_that_went_away_gives_the_default_seven() {
    let mut board = Board::ready();
    board.edge(4);
    board.lower(4);
    assert!(!board.pic.output());
    assert_eq!(board.pic.acknowledge(), 0x37);
    assert_eq!(board.status(0x20), (0, 0), "nothing is in service");
    // On the slave: its input falls between the master's acknowledge and its own.
    board.write(0x20, 0x20);
    board.edge(9);
    board.write(0x20, 0x0c);
    assert_eq!(board.read(0x20), 0x82, "the master has the slave's request in service");
    board.lower(9);
    board.write(0xa0, 0x0c);
    assert_eq!(board.read(0xa0), 7, "no request");
}

/// The slave's own default IR7: the master has seen its INT, and then it has nothing to say. No order of lines and
/// accesses brings this about here, since the wire follows at once; so the test pulls the wire.
#[test]
fn a_slave_without_a_request_gives_fifteen() {
    let mut board = Board::ready();
    board.pic.master.drive(CASCADE, true);
    assert_eq!(board.pic.acknowledge(), 0x3f);
    assert_eq!(board.status(0xa0).1, 0);
    assert_eq!(board.status(0x20).1, 0x04, "the master has its input 2 in service and needs an EOI");
}

/// "Cascade Mode": an EOI for each chip.
#[test]
fn the_slave_asks_through_input_two() {
    let mut board = Board::ready();
    board.edge(14);
    board.edge(8);
    board.edge(3);
    assert_eq!(board.interrupt(), Some(0x38));
    assert_eq!((board.status(0x20).1, board.status(0xa0).1), (0x04, 0x01));
    assert_eq!(board.interrupt(), None, "IR3 is lower than IR2");
    board.write(0xa0, 0x20);
    assert_eq!(board.interrupt(), None, "fully nested: the master still has IR2 in service");
    board.write(0x20, 0x20);
    assert_eq!(board.interrupt(), Some(0x3e));
    board.write(0xa0, 0x20);
    board.write(0x20, 0x20);
    assert_eq!(board.interrupt(), Some(0x33));
}

/// The wiring is the board's: a line for input 2 of the master does not exist, nor one beyond 15.
#[test]
fn lines_that_do_not_exist_do_nothing() {
    let mut board = Board::ready();
    for line in [2, 16, 23, 255] {
        board.edge(line);
        assert_eq!(board.interrupt(), None, "{line}");
    }
}

/// A master that was told of no slave answers for input 2 itself; a slave with another number leaves the bus alone.
#[test]
fn a_wrong_icw3_disconnects_the_slave() {
    let mut board = Board::ready();
    for (port, value) in [(0x20, 0x11), (0x21, 0x30), (0x21, 0x00), (0x21, 0x01)] {
        board.write(port, value);
    }
    board.edge(9);
    assert_eq!(board.interrupt(), Some(0x32));
    let mut board = Board::ready();
    for (port, value) in [(0xa0, 0x11), (0xa1, 0x38), (0xa1, 0x05), (0xa1, 0x01)] {
        board.write(port, value);
    }
    board.edge(9);
    assert_eq!(board.interrupt(), Some(0xff));
}

/// "The Special Fully Nested Mode": the slave in service is not locked out; lower inputs of the master are.
#[test]
fn special_fully_nested_mode() {
    let mut board = Board::ready();
    board.initialize(0x11, 0x01);
    board.edge(12);
    assert_eq!(board.interrupt(), Some(0x3c));
    board.edge(9);
    board.edge(3);
    assert_eq!(board.interrupt(), Some(0x39), "a higher input of the same slave");
    assert_eq!(board.interrupt(), None, "IR3 stays locked out");
    board.write(0xa0, 0x20);
    assert_eq!(board.status(0xa0).1, 0x10, "not the only one in service: no EOI for the master yet");
    board.write(0xa0, 0x20);
    board.write(0x20, 0x20);
    assert_eq!(board.interrupt(), Some(0x33));
    board.write(0x20, 0x20);
    board.edge(1);
    assert_eq!(board.interrupt(), Some(0x31));
    board.edge(10);
    assert_eq!(board.interrupt(), None, "a higher input of the master locks the slave out");
}

/// A slave that ends its interrupts by itself asks again at once: no request gets lost on the wire between the two.
#[test]
fn a_slave_with_two_requests_is_heard_twice() {
    let mut board = Board::ready();
    board.initialize(0x03, 0x03);
    board.edge(9);
    board.edge(12);
    assert_eq!(board.interrupt(), Some(0x39));
    assert_eq!(board.interrupt(), Some(0x3c));
    assert_eq!(board.interrupt(), None);
}

/// "Automatic End of Interrupt (AEOI) Mode" and "Automatic Rotation".
#[test]
fn automatic_end_and_rotation() {
    let mut board = Board::ready();
    board.initialize(0x03, 0x03);
    board.edge(4);
    assert_eq!(board.interrupt(), Some(0x34));
    assert_eq!(board.status(0x20).1, 0);
    board.write(0x20, 0x80); // Rotate in automatic EOI mode.
    for line in [4, 5] {
        board.edge(line);
    }
    assert_eq!(board.interrupt(), Some(0x34));
    board.edge(4);
    assert_eq!(board.interrupt(), Some(0x35), "IR4 is now lowest");
    assert_eq!(board.interrupt(), Some(0x34));
    board.write(0x20, 0x00); // No more.
    board.edge(1);
    assert_eq!(board.interrupt(), Some(0x31));
    board.edge(1);
    board.edge(5);
    assert_eq!(board.interrupt(), Some(0x35), "priorities stay: IR5 is highest since IR4 is lowest");
}

/// "Automatic Rotation": IR4 served and rotated with a non-specific EOI.
#[test]
fn rotation_on_end_of_interrupt() {
    let mut board = Board::ready();
    board.edge(4);
    board.edge(6);
    assert_eq!(board.interrupt(), Some(0x34));
    board.write(0x20, 0xa0);
    board.edge(4);
    assert_eq!(board.interrupt(), Some(0x36));
    board.write(0x20, 0xe6); // Rotate on specific EOI: IR6 lowest.
    board.edge(7);
    assert_eq!(board.interrupt(), Some(0x37));
    board.write(0x20, 0x20);
    assert_eq!(board.interrupt(), Some(0x34));
}

/// "Specific Rotation": "if IR5 is programmed as the bottom priority device, then IR6 will have the highest one".
#[test]
fn specific_rotation() {
    let mut board = Board::ready();
    board.write(0x20, 0xc5);
    board.edge(0);
    board.edge(5);
    board.edge(6);
    for vector in [0x36, 0x30, 0x35] {
        assert_eq!(board.interrupt(), Some(vector));
        board.write(0x20, 0x20);
    }
    board.write(0x20, 0x40); // No operation.
    board.edge(6);
    board.edge(0);
    assert_eq!(board.interrupt(), Some(0x36));
}

/// "Special Mask Mode": a masked input in service locks out nobody, and a non-specific EOI does not end it.
#[test]
fn special_mask_mode() {
    let mut board = Board::ready();
    board.edge(3);
    assert_eq!(board.interrupt(), Some(0x33));
    board.edge(5);
    board.write(0x21, 0x08);
    assert_eq!(board.interrupt(), None);
    board.write(0x20, 0x68);
    assert_eq!(board.interrupt(), Some(0x35));
    board.write(0x20, 0x20);
    assert_eq!(board.status(0x20).1, 0x08, "IR5 ended, masked IR3 did not");
    board.write(0x20, 0x20);
    assert_eq!(board.status(0x20).1, 0x08);
    board.write(0x20, 0x63);
    assert_eq!(board.status(0x20).1, 0);
    board.write(0x20, 0x48); // Off.
    board.write(0x21, 0);
    board.edge(3);
    assert_eq!(board.interrupt(), Some(0x33));
    board.write(0x21, 0x08);
    board.edge(5);
    assert_eq!(board.interrupt(), None);
}

/// "Poll Command": the next read is an acknowledge, bit 7 says whether there was a request.
#[test]
fn poll() {
    let mut board = Board::ready();
    board.write(0x20, 0x0c);
    assert_eq!(board.read(0x20) & 0x80, 0);
    board.edge(6);
    board.edge(1);
    board.write(0x20, 0x0c);
    assert_eq!(board.read(0x21), 0x81);
    assert_eq!(board.status(0x20), (0x40, 0x02));
    assert_eq!(board.read(0x21), 0, "only one read: this is the mask again");
    assert_eq!(board.interrupt(), None);
    board.write(0x20, 0x20);
    assert_eq!(board.interrupt(), Some(0x36));
}

/// What Linux's probe of the pair does: it writes masks and wants them back.
#[test]
fn the_mask_reads_back() {
    let mut board = Board::new();
    board.write(0xa1, 0xff);
    board.write(0x21, 0xfb);
    assert_eq!((board.read(0x21), board.read(0xa1)), (0xfb, 0xff));
}

/// An input that becomes edge-triggered while high has no edge; one that becomes level-triggered forgets its edge.
#[test]
fn a_change_of_trigger_asks_for_nothing_by_itself() {
    let mut board = Board::ready();
    board.write(0x4d0, 0x20);
    board.raise(5);
    board.write(0x4d0, 0x00);
    assert_eq!(board.interrupt(), None);
    board.edge(5);
    board.write(0x4d0, 0x20);
    board.lower(5);
    board.write(0x4d0, 0x00);
    assert_eq!(board.interrupt(), None);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u16, u8),
    Read(u16),
    Line(u8, bool),
    Acknowledge,
}

fn step() -> impl Strategy<Value = Step> {
    let port = prop::sample::select(&[0x20u16, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1][..]);
    prop_oneof![
        (port.clone(), any::<u8>()).prop_map(|(port, value)| Step::Write(port, value)),
        port.prop_map(Step::Read),
        (any::<u8>(), any::<bool>()).prop_map(|(line, level)| Step::Line(line & 0x1f, level)),
        Just(Step::Acknowledge),
    ]
}

proptest! {
    /// Whatever a guest and its devices do: INT is the truth about requests, acknowledges come to an end.
    #[test]
    fn any_sequence_is_served(steps in prop::collection::vec(step(), 0..200)) {
        let mut board = Board::new();
        for step in steps {
            match step {
                Step::Write(port, value) => board.write(port, value),
                Step::Read(port) => { board.read(port); }
                Step::Line(line, level) => board.pic.set_line(line, level),
                Step::Acknowledge => {
                    let asked = board.pic.output();
                    let master = board.pic.master;
                    let vector = board.pic.acknowledge();
                    if !asked {
                        prop_assert_eq!(vector, master.vector(7));
                        prop_assert_eq!(board.pic.master, master);
                    }
                }
            }
            prop_assert!(!board.pic.output() || board.pic.master.requests() != 0);
            let asks = board.pic.slave.winner().is_some();
            prop_assert!(asks || board.pic.master.requests() & 4 == 0, "the cascade wire follows the slave");
        }
        // Whatever state that left: the sequence that every system writes makes it whole.
        for line in 0..16 {
            board.lower(line);
        }
        board.initialize(0x01, 0x01);
        board.write(0x4d0, 0);
        board.write(0x4d1, 0);
        prop_assert_eq!(board.interrupt(), None);
        board.edge(15);
        prop_assert_eq!(board.interrupt(), Some(0x3f));
    }
}
