//! Event time and watermarks, in nanoseconds since 1970-01-01T00:00:00Z.
//!
//! Time is data here: nothing in this room reads a clock.

use std::time::Duration;

/// When something happened, in nanoseconds since 1970 UTC; negative before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct EventTime(pub i64);

impl EventTime {
    pub fn from_millis(millis: i64) -> Option<Self> {
        millis.checked_mul(1_000_000).map(Self)
    }

    pub fn millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    pub fn plus(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)),
        )
    }
}

impl std::fmt::Display for EventTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&format_event_time(self.0))
    }
}

/// Input is taken as complete below this event time. Never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Watermark(pub i64);

impl Watermark {
    /// Nothing is known to be complete.
    pub const START: Self = Self(i64::MIN);
    /// Everything is complete: a bounded input has ended.
    pub const END: Self = Self(i64::MAX);

    /// So much earlier; START and END stay.
    pub fn less(self, nanos: i64) -> Self {
        match self {
            Self::START | Self::END => self,
            Self(time) => Self(time.saturating_sub(nanos)),
        }
    }

    /// So much later; START and END stay, and no other becomes END.
    pub fn plus(self, nanos: i64) -> Self {
        match self {
            Self::START | Self::END => self,
            Self(time) => Self(time.saturating_add(nanos).min(i64::MAX - 1)),
        }
    }

    /// The event time, or `None` at START and END, which stand for no time.
    pub fn time(self) -> Option<EventTime> {
        (self != Self::START && self != Self::END).then_some(EventTime(self.0))
    }
}

impl std::fmt::Display for Watermark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::START => f.write_str("start"),
            Self::END => f.write_str("end"),
            Self(nanos) => f.write_str(&format_event_time(nanos)),
        }
    }
}

/// RFC 3339 in UTC with as many fractional digits as needed, e.g. `2024-01-02T03:04:05.5Z`.
pub fn format_event_time(nanos: i64) -> String {
    let time = chrono::DateTime::from_timestamp_nanos(nanos);
    let text = time.format("%Y-%m-%dT%H:%M:%S").to_string();
    match nanos.rem_euclid(1_000_000_000) {
        0 => format!("{text}Z"),
        fraction => format!("{text}.{}Z", format!("{fraction:09}").trim_end_matches('0')),
    }
}

/// Reads `30 seconds`, `5m`, `100 ms`, `1 hour 30 minutes`, `0`.
///
/// # Errors
/// A sentence about what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a duration such as '30 seconds', '5m' or '100 ms'";
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(EXPECTED.into());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..digits]
            .parse()
            .map_err(|_| format!("`{text}` is not a duration: {EXPECTED}"))?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let seconds = match rest[..letters].to_ascii_lowercase().as_str() {
            "ms" | "millisecond" | "milliseconds" => 0.001,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86_400.0,
            _ => return Err(format!("`{text}` is not a duration: {EXPECTED}")),
        };
        total += number * seconds;
        rest = rest[letters..].trim_start();
    }
    // A limit far below Duration's own, so that sums with event times stay representable.
    if !(0.0..=3.2e9).contains(&total) {
        return Err(format!("`{text}` is too long: at most 100 years"));
    }
    Ok(Duration::from_nanos((total * 1e9).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, millis) in [
            ("30 seconds", 30_000),
            ("5m", 300_000),
            ("100 ms", 100),
            ("1 hour 30 minutes", 5_400_000),
            ("0", 0),
            ("1.5s", 1_500),
        ] {
            assert_eq!(parse_duration(text).unwrap().as_millis(), millis, "{text}");
        }
        for text in ["", "seconds", "5 parsecs", "-1s", "5", "1e99 d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(format_event_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(format_event_time(-500_000_000), "1969-12-31T23:59:59.5Z");
    }
}
