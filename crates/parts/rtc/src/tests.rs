//! The clock against the MC146818A data sheet: accesses and time in, registers and line 8 out. Headings in quotation
//! marks are the data sheet's own.

use super::*;
use clock::{
    DAY_OF_MONTH, DAY_OF_WEEK, HOURS, HOURS_ALARM, MINUTES, MINUTES_ALARM, MONTH, SECONDS_ALARM, YEAR,
};
use contracts::{Attached, Effect, Effects, fake::Memory};
use proptest::prelude::*;

/// Monday 2024-01-01 00:00:00.
const NEW_YEAR: u64 = 1_704_067_200;
const MILLISECOND: u64 = 1_000_000;

struct Board {
    rtc: Attached<Rtc>,
    memory: Memory<1>,
    now: u64,
    level: bool,
    rises: u64,
    expiries: u64,
}

impl Board {
    fn new() -> Self {
        Self::of(&Platform { memory: 256 << 20, vcpus: 1, wall_clock: NEW_YEAR })
    }

    fn of(platform: &Platform) -> Self {
        Self {
            rtc: Attached::new(platform),
            memory: Memory::new(),
            now: 0,
            level: false,
            rises: 0,
            expiries: 0,
        }
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Attached<Rtc>, &mut Context<'_>) -> R) -> R {
        let mut effects = Effects::new();
        let mut context = Context { now: GuestTime(self.now), effects: &mut effects, memory: &self.memory };
        let result = act(&mut self.rtc, &mut context);
        assert!(!effects.overflowed());
        for effect in effects.as_slice() {
            let Effect::Line { line: CLOCK, level } = *effect else { panic!("{effect:?}") };
            self.rises += u64::from(level && !self.level);
            self.level = level;
        }
        result
    }

    fn write_port(&mut self, port: u16, width: Width, value: u32) {
        assert!(self.with(|rtc, context| rtc.write_port(port, width, value, context)));
    }

    fn read_port(&mut self, port: u16) -> u8 {
        self.with(|rtc, context| rtc.read_port(port, Width::Byte, context)).unwrap() as u8
    }

    fn write(&mut self, index: u8, value: u8) {
        self.write_port(0x70, Width::Byte, index.into());
        self.write_port(0x71, Width::Byte, value.into());
    }

    fn read(&mut self, index: u8) -> u8 {
        self.write_port(0x70, Width::Byte, index.into());
        self.read_port(0x71)
    }

    /// Century, year, month, day of month, hours, minutes, seconds.
    fn time(&mut self) -> [u8; 7] {
        [CENTURY, YEAR, MONTH, DAY_OF_MONTH, HOURS, MINUTES, SECONDS].map(|index| self.read(index))
    }

    fn set_time(&mut self, time: [u8; 7]) {
        for (index, value) in
            [CENTURY, YEAR, MONTH, DAY_OF_MONTH, HOURS, MINUTES, SECONDS].into_iter().zip(time)
        {
            self.write(index, value);
        }
    }

    /// Turns the clock to `time`, letting the timer go off at its deadlines.
    fn run_to(&mut self, time: u64) {
        while let Some(deadline) = self.rtc.deadline()
            && deadline.0 <= time
        {
            self.now = deadline.0.max(self.now);
            self.expiries += 1;
            self.with(Attached::expire);
            assert!(self.rtc.deadline().is_none_or(|next| next.0 > self.now), "no deadline in the past");
        }
        self.now = time;
    }
}

#[test]
fn it_starts_with_the_wall_clock() {
    let mut board = Board::new();
    assert_eq!(board.time(), [0x20, 0x24, 0x01, 0x01, 0, 0, 0]);
    assert_eq!(board.read(DAY_OF_WEEK), 2, "a Monday");
    assert_eq!((board.read(0x0a), board.read(0x0b), board.read(0x0d)), (0x26, 0x02, 0x80));
    assert_eq!(board.rtc.deadline(), None, "nothing enabled, nothing to wake up for");
    board.now = 3_661 * SECOND;
    assert_eq!(board.time(), [0x20, 0x24, 0x01, 0x01, 0x01, 0x01, 0x01]);
    board.now = 59 * 86_400 * SECOND;
    assert_eq!(board.time(), [0x20, 0x24, 0x02, 0x29, 0, 0, 0], "2024 is a leap year");
    assert_eq!(board.read(DAY_OF_WEEK), 5, "a Thursday");
}

/// The time of a compartment that reset goes on, though the clock is made anew.
#[test]
fn a_new_clock_late_in_time_catches_up() {
    let mut board = Board::new();
    board.now = 366 * 86_400 * SECOND + SECOND / 4;
    assert_eq!(board.time(), [0x20, 0x25, 0x01, 0x01, 0, 0, 0]);
}

/// "Update Cycle": UIP warns 244 µs before the cycle; while it is zero, the registers stay as they are for that long.
#[test]
fn update_in_progress() {
    let mut board = Board::new();
    for (time, updating) in [
        (0, false),
        (SECOND - 2_228_001, false),
        (SECOND - 2_228_000, true),
        (SECOND - 1, true),
        (SECOND, false),
        (2 * SECOND - 244_000, true),
    ] {
        board.now = time;
        assert_eq!(board.read(0x0a) & 0x80 != 0, updating, "{time}");
    }
    assert_eq!(board.read(SECONDS), 1, "the update is not done before UIP falls");
    board.write(0x0b, 0x82);
    assert_eq!(board.read(0x0a) & 0x80, 0, "SET clears UIP");
}

/// "SET: When the SET bit is a one, any update cycle in progress is aborted and the program may initialize the time and
/// calendar bytes without an update occurring in the midst of initializing." It also clears UIE.
#[test]
fn setting_the_time() {
    let mut board = Board::new();
    board.write(0x0b, 0x12);
    board.now = SECOND / 2;
    board.write(0x0b, 0x92);
    assert_eq!(board.read(0x0b), 0x82);
    board.set_time([0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58]);
    board.write(DAY_OF_WEEK, 6);
    board.now = 10 * SECOND + SECOND / 2;
    assert_eq!(board.time(), [0x19, 0x99, 0x12, 0x31, 0x23, 0x59, 0x58], "time stands still");
    board.write(0x0b, 0x02);
    board.now = 11 * SECOND;
    assert_eq!(board.read(SECONDS), 0x59);
    board.now = 12 * SECOND;
    assert_eq!(board.time(), [0x20, 0, 0x01, 0x01, 0, 0, 0]);
    assert_eq!(board.read(DAY_OF_WEEK), 7);
}

/// What Linux's `mc146818_set_time` does: SET, divider reset, time, then both back. The first update comes half a
/// second after the divider was released from reset.
#[test]
fn setting_the_time_as_linux_does() {
    let mut board = Board::new();
    board.now = SECOND / 3;
    let (control, rate) = (board.read(0x0b), board.read(0x0a));
    board.write(0x0b, control | 0x80);
    board.write(0x0a, rate | 0x70);
    board.set_time([0x20, 0x26, 0x11, 0x05, 0x12, 0x34, 0x56]);
    board.now += 5 * SECOND;
    assert_eq!(board.read(0x0a), 0x76);
    board.write(0x0b, control);
    board.write(0x0a, rate);
    let start = board.now;
    board.now = start + SECOND / 2 - 1;
    assert_eq!(board.read(SECONDS), 0x56);
    board.now += 1;
    assert_eq!(board.read(SECONDS), 0x57);
    board.now += SECOND;
    assert_eq!(board.time(), [0x20, 0x26, 0x11, 0x05, 0x12, 0x34, 0x58]);
}

/// "DM", "24/12": the formats are what the program says, the registers are not converted.
#[test]
fn formats() {
    let mut board = Board::new();
    board.write(0x0b, 0x84);
    board.set_time([20, 26, 12, 31, 0x8b, 59, 59]);
    board.write(0x0b, 0x04);
    board.now = SECOND;
    assert_eq!(board.time(), [20, 27, 1, 1, 12, 0, 0], "midnight is 12 in the morning");
    board.now = 12 * 3_600 * SECOND + SECOND;
    assert_eq!(board.read(HOURS), 0x8c);
    board.write(0x0b, 0x02);
    assert_eq!(board.read(HOURS), 0x8c);
}

/// Illegal values are kept until the next update, which makes something legal of them.
#[test]
fn illegal_times() {
    let mut board = Board::new();
    board.set_time([0xff, 0xee, 0x13, 0x00, 0x99, 0x7f, 0xff]);
    assert_eq!(board.time(), [0xff, 0xee, 0x13, 0x00, 0x99, 0x7f, 0x7f], "bit 7 of the seconds is read only");
    board.now = SECOND;
    assert_eq!(board.time(), [0x99, 0x99, 0x12, 0x02, 0, 0, 0], "a second after 9999-12-01 23:59:59");
}

/// "AIE", "Alarm": hours, minutes and seconds agree. Register C tells, and its read clears.
#[test]
fn alarm() {
    let mut board = Board::new();
    board.write(HOURS_ALARM, 0x01);
    board.write(MINUTES_ALARM, 0x02);
    board.write(SECONDS_ALARM, 0x03);
    board.write(0x0b, 0x22);
    let at = (3_600 + 120 + 3) * SECOND;
    assert_eq!(board.rtc.deadline(), Some(GuestTime(at)));
    board.run_to(at - 1);
    assert!(!board.level);
    board.run_to(at);
    assert!(board.level);
    assert_eq!(board.rtc.deadline(), None, "nothing new until register C is read");
    assert_eq!(board.read(0x0c) & 0xb0, 0xb0);
    assert!(!board.level);
    assert_eq!(board.read(0x0c), 0);
    assert_eq!(board.rtc.deadline(), Some(GuestTime(at + 86_400 * SECOND)));
}

/// "Alarm": don't-care codes in hours, hours and minutes, or all: each hour, each minute, each second.
#[test]
fn alarms_with_dont_care_codes() {
    for (codes, period) in [([0xc0, 0, 0], 3_600), ([0xff, 0xff, 0], 60), ([0xc5, 0xff, 0xf0], 1)] {
        let mut board = Board::new();
        for (index, code) in [HOURS_ALARM, MINUTES_ALARM, SECONDS_ALARM].into_iter().zip(codes) {
            board.write(index, code);
        }
        board.write(0x0b, 0x22);
        for count in 1..4 {
            board.run_to(count * period * SECOND);
            assert_eq!(board.rises, count, "{codes:x?}");
            board.read(0x0c);
        }
    }
}

/// An alarm that cannot agree with any time wakes nobody.
#[test]
fn an_illegal_alarm_never_comes() {
    let mut board = Board::new();
    board.write(HOURS_ALARM, 0x24);
    board.write(0x0b, 0x22);
    assert_eq!(board.rtc.deadline(), None);
}

/// "UF", "UIE": after each update cycle; the flag comes without the enable too, and an enable finds it raised.
#[test]
fn update_ended_interrupt() {
    let mut board = Board::new();
    board.now = SECOND - 1;
    assert_eq!(board.read(0x0c) & 0x10, 0);
    board.now = SECOND;
    board.write(0x0b, 0x12);
    assert!(board.level, "IRQF is one when a flag and its enable are both one");
    assert_eq!(board.read(0x0c) & 0x90, 0x90);
    board.run_to(3 * SECOND + 5);
    assert_eq!(board.rises, 2, "one update was not seen, for register C was not read");
    board.read(0x0c);
    board.run_to(4 * SECOND);
    assert_eq!(board.rises, 3);
}

/// "Periodic Interrupt Selection": the rates with a time base of 32.768 kHz.
#[test]
fn periodic_rates() {
    for (rate, hertz) in [(0, 0), (1, 256), (2, 128), (3, 8_192), (4, 4_096), (6, 1_024), (10, 64), (15, 2)] {
        let mut board = Board::new();
        board.write(0x0a, 0x20 | rate);
        board.write(0x0b, 0x42);
        let mut count = 0;
        while let Some(deadline) = board.rtc.deadline()
            && deadline.0 <= 2 * SECOND
        {
            board.run_to(deadline.0);
            assert!(board.level);
            assert_eq!(board.read(0x0c) & 0xc0, 0xc0);
            count += 1;
            // The edges are where the crystal has them, to the nanosecond after.
            let exact = u128::from(SECOND) * count / hertz.max(1);
            assert!(u128::from(deadline.0) - exact <= 1, "{rate}: {count}");
        }
        assert_eq!(count, 2 * hertz, "rate {rate}");
    }
}

/// The rate is heard only as fast as the guest reads register C: a guest that does not look costs nothing.
#[test]
fn an_unread_request_is_no_storm() {
    let mut board = Board::new();
    board.write(0x0a, 0x23);
    board.write(0x0b, 0x72);
    board.run_to(1_000 * SECOND);
    assert_eq!((board.rises, board.expiries), (1, 1));
    board.read(0x0c);
    let due = board.rtc.deadline().unwrap().0;
    assert!((1..=122_071).contains(&(due - 1_000 * SECOND)), "and goes on in phase");
}

/// "PF": set at the rate's edges whether or not enabled; polled.
#[test]
fn periodic_flag_by_polling() {
    let mut board = Board::new();
    board.write(0x0a, 0x2f);
    board.read(0x0c);
    board.now = 499 * MILLISECOND;
    assert_eq!(board.read(0x0c) & 0x40, 0);
    board.now = 500 * MILLISECOND;
    assert_eq!(board.read(0x0c) & 0x40, 0x40);
    assert_eq!(board.read(0x0c) & 0x40, 0);
    assert!(!board.level);
}

/// A held divider stands still, whatever is enabled.
#[test]
fn a_held_divider_wakes_nobody() {
    let mut board = Board::new();
    board.write(0x0b, 0x72);
    for divider in [0x00, 0x10, 0x30, 0x60, 0x70] {
        board.write(0x0a, divider | 3);
        assert_eq!(board.rtc.deadline(), None);
        board.now += 100 * SECOND;
        assert_eq!(board.read(0x0c), 0);
    }
    assert_eq!(board.read(SECONDS), 0);
}

/// Registers C and D are read only; the 114 bytes of memory keep what they are given; bit 7 of the index is not part
/// of it, and is kept.
#[test]
fn memory_and_read_only_registers() {
    let mut board = Board::new();
    for index in 0x0e..0x80u8 {
        board.write(index, index ^ 0x5a);
    }
    board.write(0x0c, 0xff);
    board.write(0x0d, 0);
    assert_eq!((board.read(0x0c) & 0xb0, board.read(0x0d)), (0, 0x80));
    for index in 0x0e..0x80u8 {
        assert_eq!(board.read(0x80 | index), index ^ 0x5a);
        assert_eq!(board.read_port(0x70), 0x80 | index);
    }
    board.write_port(0x70, Width::Word, 0x7740);
    assert_eq!(board.read(0x40), 0x77, "a word writes index and data");
}

/// The sizes as old systems look for them.
#[test]
fn memory_sizes_by_kind() {
    let sizes = |memory: u64| {
        let mut board = Board::of(&Platform { memory, vcpus: 1, wall_clock: 0 });
        let mut word = |low: u8, high: u8| u16::from_le_bytes([board.read(low), board.read(high)]);
        let high = (word(0x5b, 0x5c), word(0x5d, 0x5e));
        (word(0x15, 0x16), word(0x17, 0x18), word(0x30, 0x31), word(0x34, 0x35), high)
    };
    assert_eq!(sizes(2 << 20), (640, 1_024, 1_024, 0, (0, 0)));
    assert_eq!(sizes(256 << 20), (640, 0xffff, 0xffff, 240 * 16, (0, 0)));
    assert_eq!(sizes(64 << 30), (640, 0xffff, 0xffff, 0xbf00, (0x4000, 0x000f)));
    assert_eq!(sizes(0), (0, 0, 0, 0, (0, 0)));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u8, u8),
    Read(u8),
    Wait(u64),
    WaitLate(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let index = prop_oneof![4 => 0..0x0eu8, 1 => Just(CENTURY), 1 => any::<u8>()];
    prop_oneof![
        3 => (index.clone(), any::<u8>()).prop_map(|(index, value)| Step::Write(index, value)),
        1 => any::<u8>().prop_map(|value| Step::Write(0x0a, 0x20 | value & 15)),
        1 => any::<u8>().prop_map(|value| Step::Write(0x0b, value & 0x7f)),
        2 => index.prop_map(Step::Read),
        2 => (0..3 * SECOND).prop_map(Step::Wait),
        1 => (0..u64::MAX >> 8).prop_map(Step::WaitLate),
    ]
}

proptest! {
    /// Whatever a guest does and whenever: no panic, deadlines lie ahead, and at most one wake-up between two accesses.
    #[test]
    fn any_sequence_is_served(steps in prop::collection::vec(step(), 0..100)) {
        let mut board = Board::new();
        for step in steps {
            let before = board.expiries;
            match step {
                Step::Write(index, value) => board.write(index, value),
                Step::Read(index) => {
                    board.read(index);
                }
                Step::Wait(time) => board.run_to(board.now + time),
                Step::WaitLate(time) => {
                    board.now += time;
                    board.run_to(board.now);
                }
            }
            prop_assert!(board.expiries - before <= 1);
            prop_assert!(board.rtc.deadline().is_none_or(|deadline| deadline.0 > board.now));
        }
    }

    /// An expiry does what it was asked for: the line is up after it.
    #[test]
    fn an_expiry_is_an_interrupt(
        rate in 0u8..16, enables in 1u8..8, alarm in prop::array::uniform3(any::<u8>()), start in 0..SECOND,
    ) {
        let mut board = Board::new();
        board.now = start;
        for (index, byte) in [HOURS_ALARM, MINUTES_ALARM, SECONDS_ALARM].into_iter().zip(alarm) {
            board.write(index, byte);
        }
        board.write(0x0a, 0x20 | rate);
        board.write(0x0b, enables << 4 | 0x02);
        for _ in 0..20 {
            board.read(0x0c);
            prop_assert!(!board.level);
            let Some(deadline) = board.rtc.deadline() else { return Ok(()) };
            board.run_to(deadline.0);
            prop_assert!(board.level);
        }
    }
}
