//! The timer against the 8254 data sheet: accesses and time in, counts, OUT and line 0 out. Headings in quotation marks
//! are the data sheet's own.

use super::*;
use clock::nanoseconds;
use contracts::{Attached, Effect, Effects, fake::Memory};
use heapless::Vec;
use proptest::prelude::*;

struct Board {
    pit: Attached<Pit>,
    memory: Memory<1>,
    now: u64,
    /// What line 0 did, and when.
    line: Vec<(u64, bool), 512>,
    expiries: u64,
}

impl Board {
    fn new() -> Self {
        Self {
            pit: Attached::new(&Platform::default()),
            memory: Memory::new(),
            now: 1_000_000,
            line: Vec::new(),
            expiries: 0,
        }
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Attached<Pit>, &mut Context<'_>) -> R) -> R {
        let mut effects = Effects::new();
        let mut context = Context { now: GuestTime(self.now), effects: &mut effects, memory: &self.memory };
        let result = act(&mut self.pit, &mut context);
        assert!(!effects.overflowed());
        for effect in effects.as_slice() {
            let Effect::Line { line: TIMER, level } = *effect else { panic!("{effect:?}") };
            let _ = self.line.push((self.now, level));
        }
        result
    }

    fn write(&mut self, port: u16, value: u8) {
        assert!(self.with(|pit, context| pit.write_port(port, Width::Byte, value.into(), context)));
    }

    fn read(&mut self, port: u16) -> u8 {
        self.with(|pit, context| pit.read_port(port, Width::Byte, context)).unwrap() as u8
    }

    fn read_two(&mut self, port: u16) -> u16 {
        u16::from_le_bytes([self.read(port), self.read(port)])
    }

    /// Programs a counter: control word, then both bytes of the count.
    fn program(&mut self, counter: u8, mode: u8, count: u16) {
        self.write(0x43, counter << 6 | 0x30 | mode << 1);
        for byte in count.to_le_bytes() {
            self.write(0x40 + u16::from(counter), byte);
        }
    }

    /// Programs counter 2 with its gate high, and returns when it was loaded.
    fn start(&mut self, mode: u8, count: u16) -> u64 {
        self.write(0x61, 1);
        self.program(2, mode, count);
        self.now
    }

    /// Status by the read-back command.
    fn status(&mut self, counter: u8) -> u8 {
        self.write(0x43, 0xe0 | 2 << counter);
        self.read(0x40 + u16::from(counter))
    }

    fn output(&mut self) -> bool {
        self.read(0x61) & 0x20 != 0
    }

    /// The count of counter 2, read the way drivers read it: latched, low byte, high byte.
    fn count(&mut self) -> u16 {
        self.write(0x43, 0x80);
        self.read_two(0x42)
    }

    /// Turns the clock to `time`, letting the timer go off at its deadlines.
    fn run_to(&mut self, time: u64) {
        while let Some(deadline) = self.pit.deadline()
            && deadline.0 <= time
        {
            self.now = deadline.0.max(self.now);
            self.expiries += 1;
            self.with(Attached::expire);
            assert!(self.pit.deadline().is_none_or(|next| next.0 > self.now), "no deadline in the past");
        }
        self.now = time;
    }

    /// When line 0 rose.
    fn rises(&self) -> Vec<u64, 512> {
        self.line.iter().filter(|(_, level)| *level).map(|(time, _)| *time).collect()
    }
}

/// A reload begins a new phase on a whole nanosecond: up to this many late.
const SLACK: u64 = 2;

fn assert_rises<const COUNT: usize>(board: &Board, expected: [u64; COUNT]) {
    let rises = board.rises();
    assert_eq!(rises.len(), COUNT);
    for (rise, expected) in rises.iter().zip(expected) {
        assert!((expected..=expected + SLACK).contains(rise), "{rise} {expected}");
    }
}

#[test]
fn nothing_ticks_before_it_is_programmed() {
    let mut board = Board::new();
    assert_eq!(board.pit.deadline(), None);
    board.run_to(10_000_000_000);
    assert!(board.line.is_empty());
    assert_eq!(board.status(0), 0xf6, "OUT high, null count, both bytes, square wave");
}

/// "Mode 0: Interrupt on Terminal Count": OUT low until the count is out, then high until a new count or control word;
/// the counter wraps around and goes on.
#[test]
fn mode_0_counts_once() {
    let mut board = Board::new();
    let start = board.start(0, 100);
    assert!(!board.output());
    assert_eq!(board.count(), 100);
    board.now = start + nanoseconds(40);
    assert_eq!(board.count(), 60);
    board.now = start + nanoseconds(100) - 1;
    assert!(!board.output());
    assert_eq!(board.count(), 1);
    board.now += 1;
    assert!(board.output());
    assert_eq!(board.count(), 0);
    board.now = start + nanoseconds(103);
    assert_eq!(board.count(), 0xfffd);
    board.now = start + nanoseconds(0x3_0000);
    assert!(board.output());
    board.write(0x43, 0xb0);
    assert!(!board.output(), "a control word sets OUT low");
}

/// "GATE = 1 enables counting; GATE = 0 disables counting. GATE has no effect on OUT." "If an initial count is written
/// while GATE = 0, it will still be loaded."
#[test]
fn mode_0_stands_still_while_the_gate_is_low() {
    let mut board = Board::new();
    let start = board.start(0, 100);
    board.now = start + nanoseconds(30);
    board.write(0x61, 0);
    board.now += nanoseconds(1_000);
    assert_eq!(board.count(), 70);
    assert!(!board.output());
    board.write(0x61, 1);
    board.now += nanoseconds(69);
    assert!(!board.output());
    board.now += nanoseconds(1);
    assert!(board.output());
    board.write(0x61, 0);
    board.program(2, 0, 0x1234);
    assert_eq!(board.status(2) & 0x40, 0, "not null: loaded, as Xen's probe of the timer waits for");
    assert_eq!(board.read_two(0x42), 0x1234);
}

/// Mode 0: "Writing the first byte disables counting. OUT is set low immediately. Writing the second byte allows the new
/// count to be loaded."
#[test]
fn mode_0_takes_a_new_count_at_its_second_byte() {
    let mut board = Board::new();
    let start = board.start(0, 10);
    board.now = start + nanoseconds(20);
    assert!(board.output());
    board.write(0x42, 5);
    assert!(!board.output());
    board.now += nanoseconds(500);
    let stopped = board.count();
    board.now += nanoseconds(7);
    assert_eq!(board.count(), stopped);
    board.write(0x42, 0);
    board.now += nanoseconds(4);
    assert!(!board.output());
    board.now += nanoseconds(1);
    assert!(board.output());
}

/// "Mode 1: Hardware Retriggerable One-Shot": a rising gate starts the pulse, another one starts it anew; a new count
/// waits for the next trigger. Counts here are GNU Mach's way to sleep.
#[test]
fn mode_1_is_a_one_shot() {
    let mut board = Board::new();
    board.start(1, 100);
    assert!(board.output(), "high until the trigger");
    assert_eq!(board.status(2) & 0xc0, 0xc0, "the count is not loaded yet");
    board.write(0x61, 0);
    board.write(0x61, 1);
    let start = board.now;
    assert!(!board.output(), "low at once");
    board.now = start + nanoseconds(60);
    board.write(0x61, 0);
    assert_eq!(board.count(), 40, "GATE low does not stop it");
    board.write(0x61, 1);
    let start = board.now;
    board.write(0x42, 7);
    board.write(0x42, 0);
    board.now = start + nanoseconds(99);
    assert!(!board.output(), "retriggered, with the old count");
    board.now = start + nanoseconds(100);
    assert!(board.output());
    board.write(0x61, 0);
    board.write(0x61, 1);
    board.now += nanoseconds(7);
    assert!(board.output(), "the new count");
}

/// "Mode 2: Rate Generator": OUT is low for the last CLK pulse of N. A new count is loaded at the end of the cycle.
#[test]
fn mode_2_divides_by_n() {
    let mut board = Board::new();
    let start = board.start(2, 10);
    for tick in 0..35 {
        board.now = start + nanoseconds(tick);
        assert_eq!(board.count(), 10 - (tick % 10) as u16, "{tick}");
        assert_eq!(board.output(), tick % 10 != 9, "{tick}");
    }
    board.write(0x42, 4);
    board.write(0x42, 0);
    assert_eq!(board.status(2) & 0x40, 0x40, "null until the cycle ends");
    for tick in 34..60 {
        board.now = start + nanoseconds(tick) + SLACK;
        let expected = if tick < 40 { 10 - (tick % 10) as u16 } else { 4 - (tick % 4) as u16 };
        assert_eq!(board.count(), expected, "{tick}");
    }
    assert_eq!(board.status(2) & 0x40, 0);
}

/// Mode 2: "GATE = 0 disables counting. If GATE goes low during an output pulse, OUT is set high immediately. A trigger
/// reloads the Counter with the initial count."
#[test]
fn mode_2_is_synchronized_by_the_gate() {
    let mut board = Board::new();
    let start = board.start(2, 10);
    board.now = start + nanoseconds(9);
    assert!(!board.output());
    board.write(0x61, 0);
    assert!(board.output());
    board.now += nanoseconds(5);
    assert_eq!(board.count(), 1);
    board.write(0x42, 20);
    board.write(0x42, 0);
    board.now += nanoseconds(50);
    assert_eq!(board.count(), 1, "no cycle ends while it stands still");
    board.write(0x61, 1);
    assert_eq!(board.count(), 20);
    // The same when the new count came before the gate fell.
    board.write(0x42, 30);
    board.write(0x42, 0);
    board.now += nanoseconds(15);
    board.write(0x61, 0);
    board.now += nanoseconds(50);
    assert_eq!(board.count(), 5);
    board.write(0x61, 1);
    assert_eq!(board.count(), 30);
}

/// "Mode 3: Square Wave Mode", even count: half of it high, half low, counted by twos.
#[test]
fn mode_3_even() {
    let mut board = Board::new();
    let start = board.start(3, 6);
    for tick in 0..20 {
        board.now = start + nanoseconds(tick);
        assert_eq!(board.output(), tick % 6 < 3, "{tick}");
        assert_eq!(board.count(), 6 - 2 * (tick % 3) as u16, "{tick}");
    }
}

/// Mode 3, odd count: "OUT will be high for (N + 1)/2 counts and low for (N − 1)/2 counts", from N − 1 by twos.
#[test]
fn mode_3_odd() {
    let mut board = Board::new();
    let start = board.start(3, 5);
    for tick in 0..20 {
        board.now = start + nanoseconds(tick);
        assert_eq!(board.output(), tick % 5 < 3, "{tick}");
        assert_eq!(board.count(), [4, 2, 0, 4, 2][tick as usize % 5], "{tick}");
    }
}

/// Mode 3: a new count "will be loaded at the end of the current half-cycle".
#[test]
fn mode_3_changes_at_the_half_cycle() {
    let mut board = Board::new();
    let start = board.start(3, 100);
    board.now = start + nanoseconds(20);
    board.write(0x42, 10);
    board.write(0x42, 0);
    for (tick, output) in [(49, true), (50, false), (54, false), (55, true), (59, true), (60, false)] {
        board.now = start + nanoseconds(tick);
        assert_eq!(board.output(), output, "{tick}");
    }
}

/// "Mode 4: Software Triggered Strobe": OUT strobes low for one CLK pulse when the count is out.
#[test]
fn mode_4_strobes_after_a_write() {
    let mut board = Board::new();
    let start = board.start(4, 10);
    for tick in 0..200 {
        board.now = start + nanoseconds(tick);
        assert_eq!(board.output(), tick != 10, "{tick}");
    }
    board.write(0x42, 3);
    board.write(0x42, 0);
    board.now += nanoseconds(3);
    assert!(!board.output(), "a new count triggers it again");
}

/// "Mode 5: Hardware Triggered Strobe (Retriggerable)".
#[test]
fn mode_5_strobes_after_a_trigger() {
    let mut board = Board::new();
    let start = board.start(5, 10);
    board.now = start + nanoseconds(10);
    assert!(board.output());
    for _ in 0..2 {
        board.write(0x61, 0);
        board.write(0x61, 1);
        let start = board.now;
        for tick in 0..15 {
            board.now = start + nanoseconds(tick);
            assert_eq!(board.output(), tick != 10, "{tick}");
        }
    }
}

/// "Minimum and Maximum Initial Counts": 0 is 65536, or 10000 in BCD; 1 is illegal in modes 2 and 3, and counts as 2.
#[test]
fn extreme_counts() {
    let mut board = Board::new();
    let start = board.start(0, 0);
    board.now = start + nanoseconds(0xffff);
    assert!(!board.output());
    board.now = start + nanoseconds(0x1_0000);
    assert!(board.output());
    board.write(0x43, 0xb1);
    board.write(0x42, 0);
    board.write(0x42, 0);
    let start = board.now;
    assert_eq!(board.count(), 0);
    board.now = start + nanoseconds(1);
    assert_eq!(board.count(), 0x9999);
    board.now = start + nanoseconds(10_000);
    assert!(board.output());
    for mode in [2, 3] {
        let start = board.start(mode, 1);
        board.now = start + nanoseconds(1);
        assert!(!board.output());
        board.now = start + nanoseconds(2);
        assert!(board.output());
    }
}

/// BCD: four decimades.
#[test]
fn decimal_counting() {
    let mut board = Board::new();
    board.write(0x61, 1);
    board.write(0x43, 0xb1);
    board.write(0x42, 0x00);
    board.write(0x42, 0x12);
    let start = board.now;
    board.now = start + nanoseconds(1);
    assert_eq!(board.count(), 0x1199);
    board.now = start + nanoseconds(1_200);
    assert!(board.output());
}

/// "Read/Write least significant byte only", "most significant byte only".
#[test]
fn one_byte_counts() {
    let mut board = Board::new();
    board.write(0x61, 1);
    board.write(0x43, 0x90);
    board.write(0x42, 0x40);
    assert_eq!((board.read(0x42), board.read(0x42)), (0x40, 0x40));
    board.write(0x43, 0xa0);
    board.write(0x42, 0x40);
    assert_eq!((board.read(0x42), board.read(0x42)), (0x40, 0x40));
    board.now += nanoseconds(0x100);
    assert_eq!(board.read(0x42), 0x3f);
    board.write(0x43, 0x80);
    assert_eq!(board.read(0x42), 0x3f, "one read serves the latch");
    board.now += nanoseconds(0x100);
    assert_eq!(board.read(0x42), 0x3e);
}

/// "Counter Latch Command": held until read or reprogrammed; a second latch before the read is ignored.
#[test]
fn counter_latch() {
    let mut board = Board::new();
    let start = board.start(0, 1_000);
    board.write(0x43, 0x80);
    board.now = start + nanoseconds(100);
    board.write(0x43, 0x80);
    assert_eq!(board.read_two(0x42), 1_000);
    assert_eq!(board.read_two(0x42), 900);
    board.write(0x43, 0x80);
    board.program(2, 0, 50);
    assert_eq!(board.read_two(0x42), 50, "reprogramming lets go of the latch");
}

/// "Read-Back Command": several counters at once; with both latched, "the first read operation will return the latched
/// status, regardless of which was latched first".
#[test]
fn read_back() {
    let mut board = Board::new();
    let start = board.start(3, 0x1000);
    board.program(1, 2, 0x2000);
    board.now = start + nanoseconds(0x10);
    board.write(0x43, 0xdc); // Count of counters 1 and 2.
    board.now = start + nanoseconds(0x100);
    board.write(0x43, 0xc8); // Count and status of counter 2: the count is held already.
    assert_eq!(board.read(0x42), 0xb6, "OUT high, loaded, both bytes, square wave");
    assert_eq!(board.read_two(0x42), 0x1000 - 0x20);
    assert_eq!(board.read_two(0x41), 0x2000 - 0x10);
    assert_eq!(board.read_two(0x42), 0x1000 - 0x200);
    board.write(0x43, 0xe8);
    board.now = start + nanoseconds(0x900);
    board.write(0x43, 0xe8);
    assert_eq!(board.read(0x42) & 0x80, 0x80, "a latched status stays");
    assert_eq!(board.status(2) & 0x80, 0);
    board.write(0x43, 0xfe); // Neither count nor status.
    assert_eq!(board.read_two(0x42), board.read_two(0x42));
}

/// The mode field "X10", "X11": what was written reads back, and works as modes 2 and 3.
#[test]
fn dont_care_bits_of_the_mode() {
    let mut board = Board::new();
    let start = board.start(6, 10);
    board.now = start + nanoseconds(19);
    assert!(!board.output());
    assert_eq!(board.status(2) & 0x3f, 0x3c);
    let start = board.start(7, 10);
    board.now = start + nanoseconds(15);
    assert!(!board.output());
}

/// The control word register cannot be read.
#[test]
fn the_control_port_reads_as_a_floating_bus() {
    assert_eq!(Board::new().read(0x43), 0xff);
}

/// 82371AB §4.2.4.1, NMISC: port 0x61, bits 3–0 as written, bit 4 toggles with each refresh (15 µs), bit 5 OUT of counter 2, bits
/// 6 and 7 no error.
#[test]
fn port_b() {
    let mut board = Board::new();
    board.write(0x61, 0xff);
    assert_eq!(board.read(0x61) & 0xcf, 0x0f);
    let mut toggles = 0;
    let mut before = board.read(0x61) & 0x10;
    for _ in 0..1_000 {
        board.now += 1_000;
        let bit = board.read(0x61) & 0x10;
        toggles += u32::from(bit != before);
        before = bit;
    }
    assert!((65..=67).contains(&toggles), "a millisecond has 66 refreshes, not {toggles}");
}

/// A system tick as Linux (rate generator, 100 to 1000 Hz) and GNU Mach (square wave, 100 Hz) program it: one rising edge
/// of line 0 per period, none early, and no drift over a minute.
#[test]
fn periodic_ticks_keep_their_phase() {
    for mode in [2, 3] {
        let mut board = Board::new();
        let start = board.now;
        board.program(0, mode, 11_932);
        board.line.clear();
        board.run_to(start + 1_000_000_000);
        let rises = board.rises();
        assert_eq!(rises.len(), 99);
        for (index, rise) in rises.iter().enumerate() {
            assert_eq!(*rise, start + nanoseconds(11_932 * (index as u64 + 1)));
        }
        let levels: Vec<bool, 512> = board.line.iter().map(|(_, level)| *level).collect();
        assert!(levels.chunks(2).all(|pair| pair == [false, true]), "each rise has its fall before it");
        board.run_to(start + 60_000_000_000);
        let deadline = board.pit.deadline().unwrap().0;
        assert_eq!(deadline, start + nanoseconds(11_932 * 6_000), "the 6000th one, on time");
    }
}

/// A host that comes late merges what it missed into one edge, and the next one is where it always was.
#[test]
fn late_ticks_are_merged_and_do_not_shift_the_next() {
    let mut board = Board::new();
    let start = board.now;
    board.program(0, 2, 1_193);
    board.line.clear();
    board.now = start + nanoseconds(1_193 * 1_000) + 5;
    board.with(Attached::expire);
    assert_eq!(board.rises().len(), 1);
    assert_eq!(board.pit.deadline(), Some(GuestTime(start + nanoseconds(1_193 * 1_001))));
}

/// A guest that reprograms the counter just before a late tick is delivered still gets the tick.
#[test]
fn a_tick_that_is_due_comes_before_the_write() {
    let mut board = Board::new();
    let start = board.now;
    board.program(0, 2, 1_193);
    board.line.clear();
    board.now = start + nanoseconds(1_193) + 5;
    board.write(0x43, 0x34);
    assert_eq!(board.rises().len(), 1);
    assert_eq!(board.pit.deadline(), None, "no count, no tick");
}

/// One-shots as Linux's clock event driver programs them: mode 4, and mode 0 with the largest count to shut it down.
#[test]
fn one_shots_rise_once() {
    for (mode, count, ticks) in [(4, 500, 501), (0, 500, 500), (0, 0, 0x1_0000)] {
        let mut board = Board::new();
        let start = board.now;
        board.program(0, mode, count);
        assert_eq!(board.line.last().is_none_or(|(_, level)| *level), mode == 4, "low only in mode 0");
        board.line.clear();
        board.run_to(start + 1_000_000_000);
        assert_eq!(board.rises().as_slice(), [start + nanoseconds(ticks)]);
        assert_eq!(board.pit.deadline(), None);
    }
}

/// Modes 1 and 5 need a trigger, and counter 0's gate is tied high.
#[test]
fn counter_0_never_triggers() {
    for mode in [1, 5] {
        let mut board = Board::new();
        board.program(0, mode, 10);
        board.run_to(1_000_000_000);
        assert!(board.rises().is_empty());
        assert_eq!(board.pit.deadline(), None);
    }
}

/// A new count for a running tick takes effect at the end of the period, on the line as well.
#[test]
fn a_new_rate_begins_with_the_next_period() {
    let mut board = Board::new();
    let start = board.now;
    board.program(0, 2, 1_000);
    board.line.clear();
    board.run_to(start + nanoseconds(300));
    board.write(0x40, 100);
    board.write(0x40, 0);
    board.run_to(start + nanoseconds(1_200) + SLACK);
    assert_rises(&board, [1_000, 1_100, 1_200].map(|tick| start + nanoseconds(tick)));
    // Mode 3 changes in the midst of its cycle: 50 ticks of the new count are the low half.
    let mut board = Board::new();
    let start = board.now;
    board.program(0, 3, 1_000);
    board.line.clear();
    board.run_to(start + nanoseconds(300));
    board.write(0x40, 100);
    board.write(0x40, 0);
    board.run_to(start + nanoseconds(650) + SLACK);
    assert_rises(&board, [550, 650].map(|tick| start + nanoseconds(tick)));
}

/// The shortest periods do not become a storm: at most 50,000 wake-ups a second, and the phase stays.
#[test]
fn no_storm() {
    for mode in [2, 3] {
        for count in 1..40 {
            let mut board = Board::new();
            let start = board.now;
            board.program(0, mode, count);
            board.run_to(start + 10_000_000);
            assert!(board.expiries <= 500, "{mode} {count}: {}", board.expiries);
            assert!(board.expiries >= 225, "{mode} {count}: {}", board.expiries);
        }
    }
}

/// Linux's quick calibration: counter 2 in mode 0 from 0xffff, low and high byte read in turn until the high byte changes.
#[test]
fn linux_quick_calibration() {
    let mut board = Board::new();
    let port_b = board.read(0x61);
    board.write(0x61, port_b & !0x02 | 0x01);
    board.write(0x43, 0xb0);
    board.write(0x42, 0xff);
    board.write(0x42, 0xff);
    let start = board.now;
    for expected in (0xf8..=0xffu8).rev() {
        let mut reads = 0;
        while {
            board.now += 500;
            board.read(0x42);
            board.read(0x42) == expected
        } {
            reads += 1;
        }
        assert!(reads > 50, "{expected:#x} was seen {reads} times");
    }
    let elapsed = board.now - start;
    assert!(elapsed.abs_diff(nanoseconds(0x800)) < 2_000, "{elapsed}");
}

/// Xen, memtest86+ and Linux's slow calibration: 50 ms on counter 2, polled through bit 5 of port 0x61.
#[test]
fn calibration_by_output_2() {
    let mut board = Board::new();
    let port_b = board.read(0x61);
    board.write(0x61, port_b & !0x02 | 0x01);
    board.program(2, 0, 59_659);
    let start = board.now;
    while !board.output() {
        board.now += 1_000;
    }
    assert!((board.now - start).abs_diff(50_000_000) < 2_000);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u16, u8),
    Read(u16),
    Wait(u64),
    WaitLate(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let port = prop::sample::select(&[0x40u16, 0x41, 0x42, 0x43, 0x61][..]);
    prop_oneof![
        3 => (port.clone(), any::<u8>()).prop_map(|(port, value)| Step::Write(port, value)),
        2 => port.prop_map(Step::Read),
        2 => (0..300_000u64).prop_map(Step::Wait),
        1 => (0..u64::MAX >> 8).prop_map(Step::WaitLate),
    ]
}

proptest! {
    /// Whatever a guest does and whenever: no panic, each deadline lies ahead, and time costs a bounded number of
    /// wake-ups (50,000 a second, and two for each write).
    #[test]
    fn any_sequence_is_served(steps in prop::collection::vec(step(), 0..100)) {
        let mut board = Board::new();
        let (mut waited, mut writes) = (0, 0);
        for step in steps {
            board.line.clear();
            match step {
                Step::Write(port, value) => {
                    writes += 1;
                    board.write(port, value);
                }
                Step::Read(port) => {
                    board.read(port);
                }
                Step::Wait(time) => {
                    waited += time;
                    board.run_to(board.now + time);
                }
                Step::WaitLate(time) => {
                    board.now += time;
                    let before = board.expiries;
                    board.run_to(board.now);
                    prop_assert!(board.expiries - before <= 1, "missed periods are not made up for");
                    writes += 1;
                }
            }
            if let Some(deadline) = board.pit.deadline() {
                prop_assert!(deadline.0 > board.now);
            }
        }
        prop_assert!(board.expiries <= waited / 20_000 + 2 * writes, "{} {waited} {writes}", board.expiries);
    }

    /// The count of a running counter is what long division says, at any time.
    #[test]
    fn counts_agree_with_long_division(mode in 0u8..6, count in any::<u16>(), time in 0..1u64 << 50) {
        let mut board = Board::new();
        let start = board.start(mode, count);
        let start = if matches!(mode, 1 | 5) {
            board.write(0x61, 0);
            board.write(0x61, 1);
            board.now
        } else {
            start
        };
        board.now = start + time;
        let elapsed = u128::from(time) * 1_193_182 / 1_000_000_000;
        let loaded = if count == 0 { 0x1_0000 } else { u128::from(count) };
        let expected = match mode {
            2 => loaded.max(2) - elapsed % loaded.max(2),
            3 => return Ok(()),
            _ => (loaded + 0x1_0000 - elapsed % 0x1_0000) % 0x1_0000,
        };
        prop_assert_eq!(u128::from(board.count()), expected % 0x1_0000);
    }
}
