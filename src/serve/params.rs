//! The query part of an address: every parameter is used or refused, none is overlooked.

use url::form_urlencoded;

use crate::types::EventTime;

use super::{json_rows::TimeFormat, negotiate::Format, problem::Refusal};

/// Names and values in the order of the address.
pub struct Params(Vec<(String, String)>);

/// How the rows of a JSON answer are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    #[default]
    Arrays,
    Objects,
    /// An array per column, under `data`.
    Columns,
}

impl Params {
    pub fn parse(query: Option<&str>) -> Self {
        Self(
            form_urlencoded::parse(query.unwrap_or_default().as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// Takes a parameter out.
    ///
    /// # Errors
    /// Where it is there twice.
    pub fn take(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        let mut found = self.0.extract_if(.., |(key, _)| key == name);
        let first = found.next().map(|(_, value)| value);
        match found.next() {
            Some(_) => Err(Refusal::parameter(format!("{name} is given twice"))),
            None => Ok(first),
        }
    }

    pub fn take_number<N: std::str::FromStr>(&mut self, name: &str) -> Result<Option<N>, Refusal> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| Refusal::parameter(format!("{name} is not a number: {text}")))
    }

    /// RFC 3339, or milliseconds since 1970; in nanoseconds.
    pub fn take_time(&mut self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        let help = "write 2024-01-02T03:04:05Z, or milliseconds since 1970";
        parse_time(&text)
            .map(Some)
            .ok_or_else(|| Refusal::parameter(format!("{name} is not a time: {text}")).help(help))
    }

    pub fn take_shape(&mut self, format: Format) -> Result<Shape, Refusal> {
        let shape = match self.take("shape")?.as_deref() {
            None => return Ok(Shape::default()),
            Some("arrays") => Shape::Arrays,
            Some("objects") => Shape::Objects,
            Some("columns") => Shape::Columns,
            Some(other) => return Err(Refusal::unknown("shape", other, ["arrays", "objects", "columns"])),
        };
        match format {
            Format::Json => Ok(shape),
            _ => Err(Refusal::parameter("shape is for application/json only")),
        }
    }

    pub fn take_time_format(&mut self, format: Format) -> Result<TimeFormat, Refusal> {
        let time = match self.take("time")?.as_deref() {
            None => return Ok(TimeFormat::default()),
            Some("rfc3339") => TimeFormat::Rfc3339,
            Some("ms") => TimeFormat::Millis,
            Some(other) => return Err(Refusal::unknown("time format", other, ["rfc3339", "ms"])),
        };
        match format {
            Format::Arrow => Err(Refusal::parameter(
                "time is for text only: an Arrow stream has typed times",
            )),
            _ => Ok(time),
        }
    }

    /// What nobody took.
    pub fn rest(self) -> Vec<(String, String)> {
        self.0
    }

    /// # Errors
    /// Where something is left.
    pub fn finish(self, known: &[&str]) -> Result<(), Refusal> {
        match self.0.first() {
            Some((name, _)) => Err(Refusal::unknown("parameter", name, known.iter().copied())),
            None => Ok(()),
        }
    }
}

/// Nanoseconds since 1970 of RFC 3339 or of milliseconds.
pub fn parse_time(text: &str) -> Option<i64> {
    if let Ok(millis) = text.parse() {
        return EventTime::from_millis(millis).map(|time| time.0);
    }
    chrono::DateTime::parse_from_rfc3339(text).ok()?.timestamp_nanos_opt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        for (text, expected, why) in [
            ("0", Some(0), "milliseconds"),
            ("-1", Some(-1_000_000), "before 1970"),
            ("1970-01-01T00:00:01.5Z", Some(1_500_000_000), "a fraction"),
            ("1970-01-01T01:00:00+01:00", Some(0), "an offset"),
            ("9223372036854775807", None, "beyond what nanoseconds hold"),
            ("3000-01-01T00:00:00Z", None, "beyond what nanoseconds hold"),
            ("1970-01-01", None, "a day is not an instant"),
            ("", None, "nothing"),
        ] {
            assert_eq!(parse_time(text), expected, "{why}");
        }
    }

    #[test]
    fn parameters_are_taken_once_and_decoded() {
        let mut params = Params::parse(Some("limit=5&symbol=A%26B&symbol=C+D&format=json&format=csv"));
        assert_eq!(params.take_number::<usize>("limit").unwrap(), Some(5));
        assert_eq!(params.take_number::<usize>("limit").unwrap(), None, "it was taken");
        assert!(params.take("format").is_err(), "which of the two?");
        assert_eq!(
            params.rest(),
            [("symbol".into(), "A&B".into()), ("symbol".into(), "C D".into())]
        );
        assert!(Params::parse(Some("limit=-1")).take_number::<usize>("limit").is_err());
    }

    #[test]
    fn what_a_format_cannot_follow_is_refused() {
        assert_eq!(
            Params::parse(Some("shape=columns")).take_shape(Format::Json).unwrap(),
            Shape::Columns
        );
        assert!(Params::parse(Some("shape=columns")).take_shape(Format::Csv).is_err());
        assert_eq!(
            Params::parse(Some("time=ms")).take_time_format(Format::Csv).unwrap(),
            TimeFormat::Millis
        );
        assert!(Params::parse(Some("time=ms")).take_time_format(Format::Arrow).is_err());
    }
}
