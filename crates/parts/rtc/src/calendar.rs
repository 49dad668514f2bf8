//! Seconds to calendar and back: the Gregorian calendar for the years that the clock can show, 0 to 9999 and some more.
//!
//! Days and seconds are counted from 1 March of the year −400: a whole cycle of the calendar before year 0, so that
//! nothing is negative, and with the leap day as the last day of a year.

/// A day and a time of day.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(crate) struct DateTime {
    /// 0 and later; the clock shows it modulo 10000.
    pub(crate) year: u64,
    /// 1 to 12.
    pub(crate) month: u8,
    /// 1 to 31.
    pub(crate) day: u8,
    /// 0 to 23.
    pub(crate) hour: u8,
    /// 0 to 59.
    pub(crate) minute: u8,
    /// 0 to 59.
    pub(crate) second: u8,
}

pub(crate) const DAY: u64 = 86_400;
/// 1970-01-01 00:00.
pub(crate) const SECONDS_1970: u64 = 865_565 * DAY;

/// Days before each month, from March on.
const DAYS_BEFORE: [u64; 12] = [0, 31, 61, 92, 122, 153, 184, 214, 245, 275, 306, 337];
const FOUR_CENTURIES: u64 = 146_097;
const CENTURY: u64 = 36_524;
const FOUR_YEARS: u64 = 1_461;

fn days_before(month: u64) -> u64 {
    DAYS_BEFORE.get(month as usize).copied().unwrap_or(0)
}

/// Seconds of a date and time. A day that its month lacks is one of the next month's.
pub(crate) fn seconds(time: &DateTime) -> u64 {
    // January and February belong to the year that began in the March before.
    let months = u64::from(time.month) + 9;
    let (year, month) = (time.year + 399 + months / 12, months % 12);
    let days = year * 365 + year / 4 - year / 100 + year / 400 + days_before(month) + u64::from(time.day) - 1;
    days * DAY + u64::from(time.hour) * 3_600 + u64::from(time.minute) * 60 + u64::from(time.second)
}

/// The calendar at so many seconds.
pub(crate) fn date_time(seconds: u64) -> DateTime {
    let (days, second) = (seconds / DAY, seconds % DAY);
    let (cycles, days) = (days / FOUR_CENTURIES, days % FOUR_CENTURIES);
    // The last day of four centuries, of four years, is the fourth one's leap day: it must not begin a fifth.
    let centuries = (days / CENTURY).min(3);
    let days = days - centuries * CENTURY;
    let (fours, days) = (days / FOUR_YEARS, days % FOUR_YEARS);
    let years = (days / 365).min(3);
    let days = days - years * 365;
    let month = DAYS_BEFORE.iter().rposition(|before| *before <= days).unwrap_or(0) as u64;
    let year = cycles * 400 + centuries * 100 + fours * 4 + years + u64::from(month >= 10);
    DateTime {
        year: year.saturating_sub(400),
        month: (if month < 10 { month + 3 } else { month - 9 }) as u8,
        day: (days - days_before(month) + 1) as u8,
        hour: (second / 3_600) as u8,
        minute: (second / 60 % 60) as u8,
        second: (second % 60) as u8,
    }
}

/// 1 (Sunday) to 7 (Saturday).
pub(crate) fn weekday(seconds: u64) -> u8 {
    // 1 March of the year −400 was a Wednesday.
    ((seconds / DAY + 3) % 7 + 1) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(year: u64, month: u8, day: u8) -> u64 {
        seconds(&DateTime { year, month, day, hour: 0, minute: 0, second: 0 })
    }

    #[test]
    fn known_days() {
        assert_eq!(at(1970, 1, 1), SECONDS_1970);
        assert_eq!(at(2000, 2, 29) - SECONDS_1970, 951_782_400);
        assert_eq!(at(2024, 1, 1) - SECONDS_1970, 1_704_067_200);
        assert_eq!(at(2038, 1, 19) - SECONDS_1970, 2_147_472_000);
        assert_eq!(at(1900, 3, 1) - at(1900, 2, 28), DAY, "1900 was no leap year");
        assert_eq!(at(2000, 3, 1) - at(2000, 2, 28), 2 * DAY, "2000 was one");
        assert_eq!(weekday(at(2026, 11, 1)), 1, "a Sunday");
        assert_eq!(weekday(at(1969, 12, 31)), 4, "a Wednesday");
    }

    #[test]
    fn every_day_of_a_cycle_follows_the_one_before() {
        let mut day = at(1899, 12, 31);
        let leap =
            |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let mut before = date_time(day);
        while before.year < 2_301 {
            day += DAY;
            let next = date_time(day);
            let month_length = match before.month {
                4 | 6 | 9 | 11 => 30,
                2 if leap(before.year) => 29,
                2 => 28,
                _ => 31,
            };
            let expected = if before.day < month_length {
                (before.year, before.month, before.day + 1)
            } else if before.month < 12 {
                (before.year, before.month + 1, 1)
            } else {
                (before.year + 1, 1, 1)
            };
            assert_eq!((next.year, next.month, next.day), expected);
            assert_eq!(seconds(&next), day);
            before = next;
        }
    }

    proptest! {
        #[test]
        fn there_and_back(time in at(0, 1, 1)..at(12_000, 1, 1)) {
            prop_assert_eq!(seconds(&date_time(time)), time);
        }
    }
}
