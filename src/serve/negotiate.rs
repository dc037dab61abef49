//! Which format an answer has: `?format=` first, then `Accept` with its q-values, then JSON.

use axum::http::{HeaderMap, header};
use headers_accept::Accept;

use super::problem::Refusal;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Ndjson,
    Csv,
    Arrow,
}

/// In the order in which we would rather send them.
const OFFER: [(&str, Format); 5] = [
    ("application/json", Format::Json),
    ("application/x-ndjson", Format::Ndjson),
    ("application/jsonl", Format::Ndjson),
    ("text/csv", Format::Csv),
    ("application/vnd.apache.arrow.stream", Format::Arrow),
];

impl Format {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// Sent batch by batch, so that neither side has to hold all rows.
    pub fn is_streamed(self) -> bool {
        self != Self::Json
    }
}

/// # Errors
/// 400 for a format that does not exist, 406 where none of ours is acceptable.
pub fn negotiate(headers: &HeaderMap, format: Option<&str>) -> Result<Format, Refusal> {
    match format {
        Some("json") => return Ok(Format::Json),
        Some("ndjson") => return Ok(Format::Ndjson),
        Some("csv") => return Ok(Format::Csv),
        Some("arrow") => return Ok(Format::Arrow),
        Some(other) => {
            return Err(
                Refusal::parameter(format!("no format named {other}")).help("formats: json, ndjson, csv, arrow")
            );
        }
        None => {}
    }
    let mut accepted = String::new();
    for value in headers.get_all(header::ACCEPT) {
        let value = value
            .to_str()
            .map_err(|_| not_acceptable("an Accept header that is not text"))?;
        if !accepted.is_empty() {
            accepted.push(',');
        }
        accepted.push_str(value);
    }
    if accepted.trim().is_empty() {
        return Ok(Format::Json);
    }
    let accept: Accept = accepted.parse().map_err(|_| not_acceptable(&accepted))?;
    let offer: Accept = OFFER
        .map(|(name, _)| name)
        .join(",")
        .parse()
        .expect("our own types are well formed");
    let types: Vec<_> = offer.media_types().map(|media_type| media_type.to_ref()).collect();
    let chosen = accept
        .negotiate(types.iter())
        .ok_or_else(|| not_acceptable(&accepted))?
        .to_string();
    let (_, format) = OFFER
        .iter()
        .find(|(name, _)| *name == chosen)
        .expect("chosen from the offer");
    Ok(*format)
}

fn not_acceptable(accepted: &str) -> Refusal {
    Refusal::not_acceptable(format!("no format of ours is acceptable: {accepted}"))
        .help(format!("formats: {}", OFFER.map(|(name, _)| name).join(", ")))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(accept: Option<&str>, format: Option<&str>) -> Result<Format, u16> {
        let mut headers = HeaderMap::new();
        if let Some(accept) = accept {
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
        }
        negotiate(&headers, format).map_err(|refusal| refusal.status())
    }

    #[test]
    fn the_most_wanted_format_is_chosen() {
        for (accept, expected, why) in [
            (None, Ok(Format::Json), "nothing said"),
            (Some(""), Ok(Format::Json), "an empty header says nothing"),
            (Some("*/*"), Ok(Format::Json), "anything is our first"),
            (Some("application/*"), Ok(Format::Json), "our first of that kind"),
            (Some("text/*"), Ok(Format::Csv), "the only text"),
            (Some("application/jsonl"), Ok(Format::Ndjson), "another name of it"),
            (
                Some("text/csv;q=0.5, application/x-ndjson;q=0.9"),
                Ok(Format::Ndjson),
                "the greater q wins, not the first",
            ),
            (
                Some("text/csv, application/json"),
                Ok(Format::Csv),
                "of equals the reader's first",
            ),
            (
                Some("application/json;q=0, */*;q=0.1"),
                Ok(Format::Ndjson),
                "q=0 forbids",
            ),
            (
                Some("text/html, application/xhtml+xml, */*;q=0.8"),
                Ok(Format::Json),
                "a browser's address bar",
            ),
            (
                Some("application/vnd.apache.arrow.stream"),
                Ok(Format::Arrow),
                "by its full name",
            ),
            (Some("text/html"), Err(406), "not ours"),
            (Some("application/json;q=0"), Err(406), "only a refusal"),
            (Some("application"), Err(406), "not a media type"),
        ] {
            assert_eq!(of(accept, None), expected, "{why}");
        }
    }

    #[test]
    fn a_parameter_overrides_the_header() {
        assert_eq!(of(Some("text/html"), Some("csv")), Ok(Format::Csv));
        assert_eq!(of(Some("text/csv"), Some("arrow")), Ok(Format::Arrow));
        assert_eq!(of(None, Some("xml")), Err(400));
    }
}
