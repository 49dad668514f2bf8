//! The clock's registers as bytes: formats, advancing, alarm. Names are those of the MC146818A data sheet.

use crate::calendar::{DAY, DateTime, SECONDS_1970, date_time, seconds, weekday};

pub(crate) const SECONDS: u8 = 0x00;
pub(crate) const SECONDS_ALARM: u8 = 0x01;
pub(crate) const MINUTES: u8 = 0x02;
pub(crate) const MINUTES_ALARM: u8 = 0x03;
pub(crate) const HOURS: u8 = 0x04;
pub(crate) const HOURS_ALARM: u8 = 0x05;
pub(crate) const DAY_OF_WEEK: u8 = 0x06;
pub(crate) const DAY_OF_MONTH: u8 = 0x07;
pub(crate) const MONTH: u8 = 0x08;
pub(crate) const YEAR: u8 = 0x09;
/// Where a PC keeps the century; the FADT says so too. To the chip itself it is plain memory.
pub(crate) const CENTURY: u8 = 0x32;

/// The 128 bytes behind the two ports. Registers C and D hold what does not show here.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Bytes([u8; 128]);

/// Register B's format bits.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct Format {
    /// DM: binary, not BCD.
    pub(crate) binary: bool,
    /// 24/12: 0 to 23, not 1 to 12 with bit 7 for the afternoon.
    pub(crate) hours_24: bool,
}

impl Format {
    fn encode(self, value: u8) -> u8 {
        if self.binary { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(self, byte: u8) -> u8 {
        if self.binary { byte } else { (byte >> 4) * 10 + (byte & 15) }
    }

    fn encode_hour(self, hour: u8) -> u8 {
        if self.hours_24 {
            return self.encode(hour);
        }
        let twelve = match hour % 12 {
            0 => 12,
            other => other,
        };
        self.encode(twelve) | if hour >= 12 { 0x80 } else { 0 }
    }

    fn decode_hour(self, byte: u8) -> u8 {
        if self.hours_24 {
            return self.decode(byte);
        }
        self.decode(byte & 0x7f) % 12 + if byte & 0x80 == 0 { 0 } else { 12 }
    }
}

/// What an alarm byte compares with.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Match {
    /// A don't-care code: C0 to FF.
    Any,
    At(u8),
}

impl Match {
    /// The least value that matches from `from` up to `limit`, exclusive.
    fn from(self, from: u8, limit: u8) -> Option<u8> {
        let value = match self {
            Self::Any => from,
            Self::At(value) if value >= from => value,
            Self::At(_) => return None,
        };
        (value < limit).then_some(value)
    }
}

impl Bytes {
    pub(crate) const fn new() -> Self {
        Self([0; 128])
    }

    #[inline]
    pub(crate) const fn get(&self, index: u8) -> u8 {
        self.0[(index & 0x7f) as usize]
    }

    #[inline]
    pub(crate) const fn set(&mut self, index: u8, value: u8) {
        self.0[(index & 0x7f) as usize] = value;
    }

    /// Date and time as the registers say. The data sheet asks programs for legal values; what is none counts as the
    /// nearest legal one.
    fn time(&self, format: Format) -> DateTime {
        let field = |index: u8| format.decode(self.get(index));
        DateTime {
            year: u64::from(field(CENTURY).min(99)) * 100 + u64::from(field(YEAR).min(99)),
            month: field(MONTH).clamp(1, 12),
            day: field(DAY_OF_MONTH).clamp(1, 31),
            hour: format.decode_hour(self.get(HOURS)).min(23),
            minute: field(MINUTES).min(59),
            second: field(SECONDS).min(59),
        }
    }

    fn set_time(&mut self, time: &DateTime, format: Format) {
        let century = (time.year / 100 % 100) as u8;
        for (index, value) in [
            (SECONDS, time.second),
            (MINUTES, time.minute),
            (DAY_OF_MONTH, time.day),
            (MONTH, time.month),
            (YEAR, (time.year % 100) as u8),
            (CENTURY, century),
        ] {
            self.set(index, format.encode(value));
        }
        self.set(HOURS, format.encode_hour(time.hour));
    }

    /// Sets date and time from seconds since 1970-01-01.
    pub(crate) fn set_seconds(&mut self, since_1970: u64, format: Format) {
        let time = SECONDS_1970 + since_1970;
        self.set_time(&date_time(time), format);
        self.set(DAY_OF_WEEK, weekday(time));
    }

    /// As many update cycles as there were.
    pub(crate) fn advance(&mut self, cycles: u64, format: Format) {
        let before = seconds(&self.time(format));
        let after = before.saturating_add(cycles);
        self.set_time(&date_time(after), format);
        // The day of the week is a counter of its own.
        let days = (after / DAY - before / DAY) % 7;
        let weekday = u64::from(format.decode(self.get(DAY_OF_WEEK)));
        self.set(DAY_OF_WEEK, ((weekday + 6 + days) % 7 + 1) as u8);
    }

    /// The number of update cycles after which time and alarm agree next, 1 to 86400; `None`: never.
    pub(crate) fn cycles_to_alarm(&self, format: Format) -> Option<u64> {
        let legal = |byte: u8, value: u8, again: u8| (again == byte).then_some(Match::At(value));
        let field = |index: u8| {
            let byte = self.get(index);
            let value = format.decode(byte);
            if byte >= 0xc0 { Some(Match::Any) } else { legal(byte, value, format.encode(value)) }
        };
        let hour = {
            let byte = self.get(HOURS_ALARM);
            let value = format.decode_hour(byte);
            if byte >= 0xc0 { Match::Any } else { legal(byte, value, format.encode_hour(value))? }
        };
        let (minute, second) = (field(MINUTES_ALARM)?, field(SECONDS_ALARM)?);
        let now = self.time(format);
        let in_hour = |from: u8| Some((minute.from(from, 60)?, second.from(0, 60)?));
        let this_hour = || {
            if hour.from(now.hour, 24) != Some(now.hour) {
                return None;
            }
            let this_minute = || {
                let second = second.from(now.second + 1, 60)?;
                (minute.from(now.minute, 60) == Some(now.minute)).then_some((now.minute, second))
            };
            let (minute, second) = this_minute().or_else(|| in_hour(now.minute + 1))?;
            Some((0, now.hour, minute, second))
        };
        let later = |days: u64, from: u8| {
            let (minute, second) = in_hour(0)?;
            Some((days, hour.from(from, 24)?, minute, second))
        };
        let (days, hour, minute, second) =
            this_hour().or_else(|| later(0, now.hour + 1)).or_else(|| later(1, 0))?;
        let then = seconds(&DateTime { hour, minute, second, ..now }) + days * DAY;
        then.checked_sub(seconds(&now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FORMATS: [Format; 4] = [
        Format { binary: false, hours_24: true },
        Format { binary: false, hours_24: false },
        Format { binary: true, hours_24: true },
        Format { binary: true, hours_24: false },
    ];

    /// MC146818A, "Time, Calendar, and Alarm Data Modes": ranges of each format.
    #[test]
    fn formats() {
        let hours = |format: Format| [0, 1, 11, 12, 13, 23].map(|hour| format.encode_hour(hour));
        assert_eq!(hours(FORMATS[0]), [0x00, 0x01, 0x11, 0x12, 0x13, 0x23]);
        assert_eq!(hours(FORMATS[1]), [0x12, 0x01, 0x11, 0x92, 0x81, 0x91]);
        assert_eq!(hours(FORMATS[2]), [0x00, 0x01, 0x0b, 0x0c, 0x0d, 0x17]);
        assert_eq!(hours(FORMATS[3]), [0x0c, 0x01, 0x0b, 0x8c, 0x81, 0x8b]);
        for format in FORMATS {
            for hour in 0..24 {
                assert_eq!(format.decode_hour(format.encode_hour(hour)), hour);
            }
        }
    }

    fn format() -> impl Strategy<Value = Format> {
        prop::sample::select(&FORMATS[..])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn advancing_is_addition(
            start in 0..4_000_000_000u64, cycles in 0..1_000_000_000u64, format in format(),
        ) {
            let mut bytes = Bytes::new();
            bytes.set_seconds(start, format);
            bytes.advance(cycles, format);
            let mut expected = Bytes::new();
            expected.set_seconds(start + cycles, format);
            prop_assert_eq!(bytes, expected);
        }

        /// The alarm found by search is the one found by trying every second of a day.
        #[test]
        fn the_alarm_is_the_first_match(
            start in 0..DAY, alarm in prop::array::uniform3(any::<u8>()), format in format(),
            (hour, minute, second) in (0u8..30, 0u8..70, 0u8..70), any_hour: bool, any_minute: bool, legal: bool,
        ) {
            let mut bytes = Bytes::new();
            bytes.set_seconds(start, format);
            let alarm = if legal {
                [
                    format.encode(second),
                    if any_minute { 0xff } else { format.encode(minute) },
                    if any_hour { 0xc0 } else { format.encode_hour(hour % 24) },
                ]
            } else {
                alarm
            };
            for (index, byte) in [SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM].into_iter().zip(alarm) {
                bytes.set(index, byte);
            }
            let agrees = |index: u8, value: u8| bytes.get(index) >= 0xc0 || bytes.get(index) == value;
            let tried = (1..=DAY).find(|cycles| {
                let time = date_time(SECONDS_1970 + start + cycles);
                agrees(SECONDS_ALARM, format.encode(time.second))
                    && agrees(MINUTES_ALARM, format.encode(time.minute))
                    && agrees(HOURS_ALARM, format.encode_hour(time.hour))
            });
            prop_assert_eq!(bytes.cycles_to_alarm(format), tried);
        }

        /// Registers full of nonsense still advance, into something legal.
        #[test]
        fn nonsense_advances(registers in prop::collection::vec(any::<u8>(), 128), cycles: u64, format in format()) {
            let mut bytes = Bytes::new();
            for (index, byte) in registers.iter().enumerate() {
                bytes.set(index as u8, *byte);
            }
            bytes.advance(cycles >> 20, format);
            let once = bytes;
            bytes.advance(0, format);
            prop_assert_eq!(once, bytes);
            bytes.cycles_to_alarm(format);
        }
    }
}
