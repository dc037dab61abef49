//! Times as text: RFC 3339 in both directions, days as `2024-01-02`.
//!
//! Years are those of the proleptic Gregorian calendar, days begin at 00:00 UTC, and a leap second is no time.

const SECOND_NS: i128 = 1_000_000_000;

/// Why a text is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTime {
    Form,
    OutOfRange,
}

/// Nanoseconds since 1970 of `2024-01-02T03:04:05Z`, with or without a fraction of up to nine digits, with `Z`, an
/// offset such as `+01:00`, or nothing, which stands for UTC; a space may stand for the `T`.
///
/// # Errors
/// Another form, a date that does not exist, or a time beyond what nanoseconds in 64 bits reach (1677 to 2262).
#[inline(always)]
pub fn parse_timestamp(text: &[u8]) -> Result<i64, NoTime> {
    // 2024-01-02T03:04:05
    let Some((fixed, mut rest)) = text.split_first_chunk::<19>() else {
        return Err(NoTime::Form);
    };
    if !matches!(fixed[10], b'T' | b't' | b' ') || fixed[13] != b':' || fixed[16] != b':' {
        return Err(NoTime::Form);
    }
    let days = parse_days(&fixed[..10])?;
    let (hour, minute, second) = (two_digits(fixed, 11)?, two_digits(fixed, 14)?, two_digits(fixed, 17)?);
    if 23 < hour || 59 < minute || 59 < second {
        return Err(NoTime::Form);
    }

    let mut nanos = 0;
    if let [b'.', after @ ..] = rest {
        let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (fraction, after) = after.split_at(digits);
        if digits == 0 || fraction.iter().skip(9).any(|digit| *digit != b'0') {
            return Err(NoTime::Form);
        }
        for place in 0..9 {
            nanos = nanos * 10 + fraction.get(place).map_or(0, |digit| i64::from(digit - b'0'));
        }
        rest = after;
    }
    let offset_minutes = match rest {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (two_digits(rest, 1)?, two_digits(rest, 4)?);
            if 23 < hours || 59 < minutes {
                return Err(NoTime::Form);
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return Err(NoTime::Form),
    };
    let seconds = days * 86_400 + hour * 3_600 + (minute - offset_minutes) * 60 + second;
    i64::try_from(i128::from(seconds) * SECOND_NS + i128::from(nanos)).map_err(|_| NoTime::OutOfRange)
}

/// Days since 1970 of `2024-01-02`.
///
/// # Errors
/// Another form, or a day that does not exist.
#[inline(always)]
pub fn parse_days(text: &[u8]) -> Result<i64, NoTime> {
    if text.len() != 10 || text[4] != b'-' || text[7] != b'-' {
        return Err(NoTime::Form);
    }
    let year = two_digits(text, 0)? * 100 + two_digits(text, 2)?;
    let (month, day) = (two_digits(text, 5)?, two_digits(text, 8)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of_month = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return Err(NoTime::Form),
    };
    if day < 1 || days_of_month < day {
        return Err(NoTime::Form);
    }
    // Years begin in March here, so that the leap day stands last (Hinnant, "chrono-compatible low-level date algorithms").
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Ok(era * 146_097 + day_of_era - 719_468)
}

#[inline(always)]
fn two_digits(text: &[u8], at: usize) -> Result<i64, NoTime> {
    let (tens, ones) = (text[at].wrapping_sub(b'0'), text[at + 1].wrapping_sub(b'0'));
    if 9 < tens || 9 < ones {
        return Err(NoTime::Form);
    }
    Ok(i64::from(tens * 10 + ones))
}

/// Appends a time as RFC 3339 in UTC, with only as many fraction digits as needed. `per_second` ticks make a second.
pub fn write_timestamp(ticks: i64, per_second: i64, out: &mut Vec<u8>) {
    let (seconds, fraction) = (ticks.div_euclid(per_second), ticks.rem_euclid(per_second));
    write_days(seconds.div_euclid(86_400), out);
    let second = seconds.rem_euclid(86_400);
    let ([h, hh], [m, mm], [s, ss]) = (two(second / 3_600), two(second / 60 % 60), two(second % 60));
    out.extend_from_slice(&[b'T', h, hh, b':', m, mm, b':', s, ss]);
    if fraction != 0 {
        out.push(b'.');
        let mut unit = per_second;
        let mut rest = fraction;
        while rest != 0 {
            unit /= 10;
            out.push(b'0' + (rest / unit) as u8);
            rest %= unit;
        }
    }
    out.push(b'Z');
}

/// Appends a day as `2024-01-02`; years outside 0 to 9999 get a sign, as ISO 8601 has it.
pub fn write_days(days: i64, out: &mut Vec<u8>) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let ([m, mm], [d, dd]) = (two(month), two(day));
    if let 0..=9999 = year {
        let ([y, yy], [yyy, yyyy]) = (two(year / 100), two(year % 100));
        out.extend_from_slice(&[y, yy, yyy, yyyy, b'-', m, mm, b'-', d, dd]);
    } else {
        out.extend_from_slice(format!("{year:+06}").as_bytes());
        out.extend_from_slice(&[b'-', m, mm, b'-', d, dd]);
    }
}

/// A number below 100 in two digits.
#[inline(always)]
fn two(number: i64) -> [u8; 2] {
    [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::format_event_time;

    #[test]
    fn times_are_read_as_rfc_3339_says() {
        for (text, expected, why) in [
            ("1970-01-01T00:00:00Z", Ok(0), "the beginning"),
            (
                "1969-12-31T23:59:59.5Z",
                Ok(-500_000_000),
                "before it, fractions still point forward",
            ),
            ("2024-02-29T00:00:00Z", Ok(1_709_164_800_000_000_000), "a leap day"),
            (
                "2024-01-02T03:04:05+02:30",
                Ok(1_704_155_645_000_000_000),
                "ahead of UTC is earlier in UTC",
            ),
            (
                "2024-01-01T00:00:00-00:01",
                Ok(1_704_067_260_000_000_000),
                "behind UTC is later in UTC",
            ),
            (
                "2024-01-01 00:00:00.123456789",
                Ok(1_704_067_200_123_456_789),
                "a space, no zone: UTC",
            ),
            ("2024-01-01t00:00:00z", Ok(1_704_067_200_000_000_000), "small letters"),
            (
                "2024-01-01T00:00:00.1000000000Z",
                Ok(1_704_067_200_100_000_000),
                "zeros beyond nanoseconds change nothing",
            ),
            ("2262-04-11T23:47:16.854775807Z", Ok(i64::MAX), "the last nanosecond"),
            ("2262-04-11T23:47:16.854775808Z", Err(NoTime::OutOfRange), "one more"),
            ("1677-09-21T00:12:43.145224192Z", Ok(i64::MIN), "the first nanosecond"),
            ("9999-12-31T23:59:59Z", Err(NoTime::OutOfRange), "far beyond"),
            ("2023-02-29T00:00:00Z", Err(NoTime::Form), "no leap year"),
            ("1900-02-29T00:00:00Z", Err(NoTime::Form), "centuries have no leap day"),
            ("2024-01-01T24:00:00Z", Err(NoTime::Form), "the day ends before 24"),
            ("2016-12-31T23:59:60Z", Err(NoTime::Form), "a leap second"),
            ("2024-01-01T00:00:00.Z", Err(NoTime::Form), "a point without a fraction"),
            (
                "2024-01-01T00:00:00.1234567891Z",
                Err(NoTime::Form),
                "finer than a nanosecond",
            ),
            ("2024-01-01T00:00Z", Err(NoTime::Form), "no seconds"),
            (
                "2024-01-01T00:00:00+0100",
                Err(NoTime::Form),
                "an offset without its colon",
            ),
            ("2024-01-01T00:00:00+24:00", Err(NoTime::Form), "an offset of a day"),
            ("2024-01-01T00:00:00Zx", Err(NoTime::Form), "something behind"),
            ("2024-01-01", Err(NoTime::Form), "a day is no time"),
            ("2024-1-1T00:00:00Z", Err(NoTime::Form), "one digit"),
            ("２024-01-01T00:00:0", Err(NoTime::Form), "other digits"),
            ("", Err(NoTime::Form), "nothing"),
        ] {
            assert_eq!(parse_timestamp(text.as_bytes()), expected, "{text}: {why}");
        }
    }

    #[test]
    fn years_beyond_four_digits_get_a_sign() {
        let mut out = Vec::new();
        write_timestamp(253_402_300_800, 1, &mut out);
        assert_eq!(out, b"+10000-01-01T00:00:00Z");
    }

    proptest! {
        #[test]
        fn every_time_comes_back(nanos: i64) {
            let mut out = Vec::new();
            write_timestamp(nanos, 1_000_000_000, &mut out);
            prop_assert_eq!(std::str::from_utf8(&out).unwrap(), format_event_time(nanos));
            prop_assert_eq!(parse_timestamp(&out), Ok(nanos));
        }
    }
}
