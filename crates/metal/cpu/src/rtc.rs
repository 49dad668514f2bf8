//! The wall clock of the machine, read once at boot (Motorola MC146818A data sheet).

use crate::port;

fn register(index: u8) -> u8 {
    // SAFETY: The index port takes the register's number, with bit 7 (NMI mask) clear; reading the data port has no effect but
    // on register C, which is not read here.
    unsafe {
        port::write_u8(0x70, index);
        port::read_u8(0x71)
    }
}

fn sample(century: u8) -> [u8; 7] {
    [
        register(0),
        register(2),
        register(4),
        register(7),
        register(8),
        register(9),
        if century == 0 { 0 } else { register(century & 0x7f) },
    ]
}

/// Seconds since 1970-01-01 UTC by the machine's clock, taken as UTC; 0 where it shows no time. `century` is the register of the
/// century, 0 if there is none (FADT, ACPI 6.5 §5.2.9).
#[inline(never)]
pub fn read(century: u8) -> u64 {
    // Two readings that agree were not torn by an update, which is announced 244 microseconds ahead.
    for _ in 0..64 {
        let mut patience = 10_000;
        while register(0x0a) & 0x80 != 0 && patience > 0 {
            patience -= 1;
        }
        let first = sample(century);
        if first == sample(century) {
            return decode(first, register(0x0b)).unwrap_or(0);
        }
    }
    0
}

/// Turns seconds, minutes, hours, day, month, year and century as the clock holds them into seconds since 1970. `format` is its
/// register B: bit 2 binary, bit 1 24 hours.
fn decode(time: [u8; 7], format: u8) -> Option<u64> {
    let (binary, half_days) = (format & 4 != 0, format & 2 == 0);
    let mut numbers = time.map(u64::from);
    let [_, _, hour, ..] = &mut numbers;
    let afternoon = half_days && *hour & 0x80 != 0;
    if half_days {
        *hour &= 0x7f;
    }
    if !binary {
        for number in &mut numbers {
            let (tens, ones) = (*number >> 4, *number & 0xf);
            if tens > 9 || ones > 9 {
                return None;
            }
            *number = tens * 10 + ones;
        }
    }
    let [second, minute, hour, day, month, year, century] = numbers;
    let hour = if half_days { hour % 12 + if afternoon { 12 } else { 0 } } else { hour };
    let year = match (century, year) {
        (19..=21, _) => century * 100 + year,
        // No century: two digits, of which those below 70 are this century's.
        (_, 0..70) => 2000 + year,
        _ => 1900 + year,
    };
    if second > 59
        || minute > 59
        || hour > 23
        || !(1..=31).contains(&day)
        || !(1..=12).contains(&month)
        || year < 1970
    {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, by counting years from March.
const fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    // 719468 days from 0000-03-01 to 1970-01-01.
    year * 365 + year / 4 - year / 100 + year / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        // 2024-02-29 12:34:56, BCD, 24 hours, century register.
        assert_eq!(decode([0x56, 0x34, 0x12, 0x29, 0x02, 0x24, 0x20], 2), Some(1_709_210_096));
        // The same in binary with 12 hours, without century.
        assert_eq!(decode([56, 34, 12 | 0x80, 29, 2, 24, 0], 4), Some(1_709_210_096));
        // 1970-01-01 00:00:00; midnight is 12 AM on a 12-hour clock.
        assert_eq!(decode([0, 0, 0x12, 1, 1, 0x70, 0], 0), Some(0));
        assert_eq!(decode([0, 0, 0, 1, 1, 0, 0x20], 2), Some(946_684_800));
    }

    #[test]
    fn nonsense_is_no_time() {
        assert_eq!(decode([0x60, 0, 0, 1, 1, 0x24, 0x20], 2), None);
        assert_eq!(decode([0xff; 7], 2), None);
        assert_eq!(decode([0, 0, 0, 0, 1, 0x24, 0x20], 2), None);
    }
}
