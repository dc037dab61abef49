//! Days and months of a time zone, counted in steps: they are as long as the calendar and the clocks there make them.
//!
//! ```text
//! Europe/Berlin, 1 day    │ 2024-03-30 │ 2024-03-31 │ 2024-04-01 │
//!                             24 h          23 h         24 h
//! ```

use chrono::{DateTime, Datelike, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone};
use chrono_tz::Tz;

/// What the calendar counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CalendarUnit {
    Days,
    Months,
}

/// Steps of whole days or months by the clocks of a zone. Step 0 begins with January 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Calendar {
    pub unit: CalendarUnit,
    /// Units in a step, more than 0.
    pub count: i32,
    /// Steps begin later by so much on the clocks of the zone.
    pub offset_ns: i64,
    pub zone: Tz,
}

/// No zone was ever further than this from UTC.
const FURTHEST_FROM_UTC: i64 = 26 * 3_600_000_000_000;

impl Calendar {
    /// The step that contains `time`.
    pub fn index(self, time: i64) -> i64 {
        let local = time.saturating_add(self.offset_from_utc(time));
        let date = DateTime::from_timestamp_nanos(local.saturating_sub(self.offset_ns)).date_naive();
        let number = match self.unit {
            CalendarUnit::Days => {
                i64::from(date.num_days_from_ce()) - i64::from(NaiveDate::default().num_days_from_ce())
            }
            CalendarUnit::Months => (i64::from(date.year()) - 1970) * 12 + i64::from(date.month0()),
        };
        let index = number.div_euclid(i64::from(self.count));
        if self.zone == Tz::UTC {
            return index;
        }
        // Where clocks are put back over midnight, a date comes twice: the step that has begun goes on.
        match self.start(index + 1) {
            next if next <= time && next != i64::MAX => index + 1,
            _ if time < self.start(index) => index - 1,
            _ => index,
        }
    }

    /// When step `index` begins: the first instant at which the clocks of the zone show its beginning or later.
    pub fn start(self, index: i64) -> i64 {
        let edge = if index < 0 { i64::MIN } else { i64::MAX };
        let local = self.first_date(index.saturating_mul(i64::from(self.count)));
        let local = local.and_then(|date| {
            let midnight = date.and_time(NaiveTime::MIN);
            midnight.checked_add_signed(TimeDelta::nanoseconds(self.offset_ns))
        });
        local.and_then(|local| self.first_instant(local)).unwrap_or(edge)
    }

    fn first_date(self, number: i64) -> Option<NaiveDate> {
        match self.unit {
            CalendarUnit::Days => NaiveDate::default().checked_add_signed(TimeDelta::try_days(number)?),
            CalendarUnit::Months => {
                let year = i32::try_from(1970 + number.div_euclid(12)).ok()?;
                NaiveDate::from_ymd_opt(year, number.rem_euclid(12) as u32 + 1, 1)
            }
        }
    }

    /// `None` beyond all time.
    fn first_instant(self, local: NaiveDateTime) -> Option<i64> {
        if self.zone == Tz::UTC {
            return local.and_utc().timestamp_nanos_opt();
        }
        match self.zone.from_local_datetime(&local) {
            MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(at, _) => at.timestamp_nanos_opt(),
            // The clocks were put forward over it: when was that?
            MappedLocalTime::None => {
                let wanted = local.and_utc().timestamp_nanos_opt()?;
                let shows_later = |at: i64| wanted <= at.saturating_add(self.offset_from_utc(at));
                let mut before = wanted.checked_sub(FURTHEST_FROM_UTC)?;
                let mut after = wanted.checked_add(FURTHEST_FROM_UTC)?;
                while before + 1 < after {
                    let middle = before + (after - before) / 2;
                    match shows_later(middle) {
                        true => after = middle,
                        false => before = middle,
                    }
                }
                Some(after)
            }
        }
    }

    /// How far the clocks of the zone are ahead of UTC at an instant.
    fn offset_from_utc(self, time: i64) -> i64 {
        if self.zone == Tz::UTC {
            return 0;
        }
        let utc = DateTime::from_timestamp_nanos(time).naive_utc();
        let offset = self.zone.offset_from_utc_datetime(&utc);
        i64::from(offset.fix().local_minus_utc()) * 1_000_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000_000;

    fn at(text: &str) -> i64 {
        text.parse::<DateTime<chrono::Utc>>()
            .unwrap()
            .timestamp_nanos_opt()
            .unwrap()
    }

    fn days(count: i32, zone: Tz) -> Calendar {
        Calendar {
            unit: CalendarUnit::Days,
            count,
            offset_ns: 0,
            zone,
        }
    }

    fn months(count: i32, offset_ns: i64, zone: Tz) -> Calendar {
        Calendar {
            unit: CalendarUnit::Months,
            count,
            offset_ns,
            zone,
        }
    }

    #[test]
    fn a_day_begins_at_midnight_of_the_zone_however_long_it_is() {
        for (zone, date, start, hours, why) in [
            (
                Tz::Europe__Berlin,
                "2024-03-30T12:00:00Z",
                "2024-03-29T23:00:00Z",
                24,
                "winter",
            ),
            (
                Tz::Europe__Berlin,
                "2024-03-31T12:00:00Z",
                "2024-03-30T23:00:00Z",
                23,
                "clocks go forward",
            ),
            (
                Tz::Europe__Berlin,
                "2024-10-27T12:00:00Z",
                "2024-10-26T22:00:00Z",
                25,
                "clocks go back",
            ),
            (
                Tz::America__Sao_Paulo,
                "2018-11-04T12:00:00Z",
                "2018-11-04T03:00:00Z",
                23,
                "there is no midnight",
            ),
            (
                Tz::America__Havana,
                "2024-11-03T12:00:00Z",
                "2024-11-03T04:00:00Z",
                25,
                "midnight comes twice",
            ),
            (
                Tz::Asia__Kathmandu,
                "2024-01-01T12:00:00Z",
                "2023-12-31T18:15:00Z",
                24,
                "no whole hours from UTC",
            ),
            (
                Tz::UTC,
                "1969-12-31T12:00:00Z",
                "1969-12-31T00:00:00Z",
                24,
                "before 1970",
            ),
        ] {
            let calendar = days(1, zone);
            let index = calendar.index(at(date));
            assert_eq!(calendar.start(index), at(start), "{zone}: {why}");
            assert_eq!(
                calendar.start(index + 1) - calendar.start(index),
                hours * HOUR,
                "{zone}: {why}"
            );
        }
    }

    #[test]
    fn months_begin_on_their_first_day_whatever_their_length() {
        let day = 24 * HOUR;
        let quarter = months(3, 0, Tz::UTC);
        assert_eq!(quarter.start(1), 90 * day, "1970-04-01");
        assert_eq!(quarter.index(90 * day - 1), 0);
        assert_eq!(quarter.index(-1), -1, "1969 is before");
        let month = months(1, day, Tz::UTC);
        assert_eq!(month.index(0), -1, "months that begin on the second day");
        assert_eq!(month.start(1), 32 * day);
        let tokyo = months(1, 0, Tz::Asia__Tokyo);
        assert_eq!(
            tokyo.start(tokyo.index(at("2024-02-29T15:00:00Z"))),
            at("2024-02-29T15:00:00Z")
        );
    }

    #[test]
    fn every_instant_is_in_the_step_that_has_begun_last() {
        let mut zones: Vec<Tz> = chrono_tz::TZ_VARIANTS.iter().copied().step_by(7).collect();
        zones.extend([
            Tz::Pacific__Apia,
            Tz::America__Sao_Paulo,
            Tz::America__Havana,
            Tz::Africa__Cairo,
        ]);
        for zone in zones {
            for calendar in [
                days(1, zone),
                Calendar {
                    offset_ns: 9 * HOUR,
                    ..days(7, zone)
                },
                months(1, -HOUR, zone),
            ] {
                // Irregular steps over 1950 to 2040.
                for time in (at("1950-01-01T00:00:00Z")..at("2040-01-01T00:00:00Z")).step_by(4_001 * HOUR as usize / 3)
                {
                    let index = calendar.index(time);
                    let (start, next) = (calendar.start(index), calendar.start(index + 1));
                    assert!(
                        start <= time && time < next,
                        "{zone} {calendar:?}: {time} in {start} to {next}"
                    );
                    assert_eq!(
                        calendar.start(calendar.index(start)),
                        start,
                        "{zone}: the first instant is inside"
                    );
                    assert_eq!(calendar.index(next - 1), index, "{zone}: the last instant is inside");
                }
            }
        }
    }

    #[test]
    fn the_ends_of_time_are_in_a_step_too() {
        for zone in [Tz::UTC, Tz::Asia__Tokyo, Tz::America__New_York] {
            for calendar in [days(1, zone), months(5, HOUR, zone)] {
                for time in [i64::MIN, i64::MAX] {
                    assert!(calendar.start(calendar.index(time)) <= time, "{calendar:?}");
                }
            }
        }
    }
}
