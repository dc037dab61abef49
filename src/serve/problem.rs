//! Why a request is refused, as `application/problem+json`. What is our own fault goes to the log, not to the reader.

use std::fmt::Display;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use datafusion::common::DataFusionError;

use crate::{
    runtime::{Problem, ProblemKind},
    sql::{Diagnostic, SourceText, Span, SqlState, suggest::nearest},
    types::Error,
};

use super::dto;

/// After how long something outside that does not answer may be tried again.
const RETRY_AFTER_S: u32 = 5;

/// A problem on its way out.
#[derive(Clone, Debug)]
pub struct Refusal {
    problem: Box<dto::Problem>,
    /// Seconds after which asking again may help.
    retry_after: Option<u32>,
}

impl Refusal {
    fn new(status: StatusCode, slug: &str, sqlstate: Option<&'static str>, detail: impl Into<String>) -> Self {
        let problem = dto::Problem {
            kind: format!("/problems/{slug}"),
            title: slug.replace('-', " "),
            status: status.as_u16(),
            sqlstate,
            detail: detail.into(),
            position: None,
            help: Vec::new(),
            query_id: None,
        };
        Self {
            problem: Box::new(problem),
            retry_after: None,
        }
    }

    pub fn parameter(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-parameter", Some("22023"), detail)
    }

    /// A name that is none of `known`.
    pub fn unknown<'a>(what: &str, name: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Self {
        let refusal = Self::parameter(format!("no {what} named {name}"));
        refusal
            .nearest(name, known.clone())
            .help(format!("{what}s: {}", known.into_iter().collect::<Vec<_>>().join(", ")))
    }

    pub fn unknown_column<'a>(name: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Self {
        let mut refusal = Self::unknown("column", name, known);
        let problem = &mut refusal.problem;
        (problem.kind, problem.title, problem.sqlstate) = (
            "/problems/unknown-column".into(),
            "unknown column".into(),
            Some("42703"),
        );
        refusal
    }

    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", None, detail)
    }

    pub fn unknown_view<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let refusal = Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            Some("42P01"),
            format!("no view named {name}"),
        );
        refusal
            .nearest(name, known)
            .help("GET /api/v1/views lists what can be read")
    }

    pub fn not_acceptable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", None, detail)
    }

    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            None,
            detail,
        )
    }

    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", Some("54000"), detail)
    }

    pub fn body_timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow-request",
            None,
            "the body of the request took too long to arrive",
        )
    }

    pub fn body_unreadable() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "unreadable-body",
            None,
            "the body of the request ended early",
        )
    }

    pub fn method_not_allowed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", None, detail)
    }

    pub fn foreign_origin(origin: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "foreign-origin",
            Some("42501"),
            format!("pages from {origin} may not use this server"),
        )
        .help("name the origin when the server is started, or open the dashboard from the server itself")
    }

    pub fn busy(detail: impl Into<String>) -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", Some("53300"), detail)
        }
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.problem.help.push(help.into());
        self
    }

    fn nearest<'a>(self, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(name, known) {
            Some(meant) => self.help(format!("did you mean `{meant}`?")),
            None => self,
        }
    }

    pub fn problem(&self) -> &dto::Problem {
        &self.problem
    }

    #[cfg(test)]
    pub fn status(&self) -> u16 {
        self.problem.status
    }

    fn of_text(text: &SourceText, diagnostics: &[Diagnostic]) -> Self {
        let mut errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
        let Some(first) = errors.next().or(diagnostics.first()) else {
            return Self::parameter("the text is wrong");
        };
        // What is not the text's fault may be asked for again.
        let (status, retry_after) = match first.code {
            SqlState::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Some(RETRY_AFTER_S)),
            _ => (StatusCode::BAD_REQUEST, None),
        };
        let mut refusal = Self {
            retry_after,
            ..Self::new(status, first.code.slug(), Some(first.code.code()), &first.message)
        };
        refusal.problem.position = first.span.map(|span| position(text, span));
        refusal
            .problem
            .help
            .extend(first.label.iter().chain(&first.help).cloned());
        for further in errors {
            let place = further.span.map(|span| text.line_column(span.start));
            let place = place
                .map(|place| format!("line {}, column {}: ", place.line, place.column))
                .unwrap_or_default();
            refusal = refusal.help(format!("also {place}{}", further.message));
        }
        refusal
    }

    fn internal(error: &dyn Display, query_id: Option<&str>) -> Self {
        tracing::error!(%error, query_id, "request failed");
        let refusal = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            Some("XX000"),
            "the server failed; its log says more",
        );
        refusal.help("please report it")
    }

    fn of_kind(kind: ProblemKind, query_id: Option<&str>) -> Self {
        match kind {
            ProblemKind::Text { text, diagnostics } => Self::of_text(&text, &diagnostics),
            ProblemKind::NotFound { detail, help } => {
                let mut refusal = Self::not_found(detail);
                refusal.problem.sqlstate = Some("42P01");
                refusal.problem.help = help;
                refusal
            }
            ProblemKind::Parameter(detail) => Self::parameter(detail),
            ProblemKind::Timeout(limit) => {
                let detail = format!("the query ran longer than {} ms", limit.as_millis());
                Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", Some("57014"), detail)
            }
            ProblemKind::Busy => Self::busy("too many queries run at once"),
            ProblemKind::Execution(detail) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "execution", Some("22000"), detail)
            }
            ProblemKind::Unavailable(detail) => Self {
                retry_after: Some(RETRY_AFTER_S),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", Some("58030"), detail)
            },
            ProblemKind::Internal(error) => Self::internal(&error, query_id),
        }
    }

    /// A query that failed while its rows were read.
    pub fn of_stream(error: DataFusionError, query_id: &str) -> Self {
        Problem::of_query(crate::runtime::problem_of(error), query_id).into()
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let mut refusal = Self::of_kind(problem.kind, problem.query_id.as_deref());
        refusal.problem.query_id = problem.query_id;
        refusal
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Problem::from(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).expect("made from a status");
        let body = serde_json::to_vec(&self.problem).expect("a problem is plain data");
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(Ok(query_id)) = self.problem.query_id.as_deref().map(HeaderValue::from_str) {
            headers.insert("zeta-query-id", query_id);
        }
        response
    }
}

fn position(text: &SourceText, span: Span) -> dto::TextPosition {
    let (start, end) = (text.line_column(span.start), text.line_column(span.end));
    dto::TextPosition {
        line: start.line,
        column: start.column,
        offset: span.start,
        end_line: end.line,
        end_column: end.column,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::error::ArrowError;

    use super::*;

    #[test]
    fn a_wrong_text_is_shown_with_its_place() {
        let text = SourceText::new("query", "SELECT nope\nFROM candles");
        let diagnostics = vec![
            Diagnostic::warning(SqlState::Invalid, "unusual", None),
            Diagnostic::error(SqlState::UnknownColumn, "no column named nope", Span::new(7, 11))
                .help("columns: symbol, open"),
            Diagnostic::error(SqlState::UnknownTable, "no table named candles", Span::new(17, 24)),
        ];
        let problem = Problem::of_query(ProblemKind::Text { text, diagnostics }, "q-000002");
        let shown = serde_json::to_value(Refusal::from(problem).problem()).unwrap();
        assert_eq!(
            shown,
            serde_json::json!({
                "type": "/problems/unknown-column", "title": "unknown column", "status": 400, "sqlstate": "42703",
                "detail": "no column named nope",
                "position": {"line": 1, "column": 8, "offset": 7, "end_line": 1, "end_column": 12},
                "help": ["columns: symbol, open", "also line 2, column 6: no table named candles"],
                "query_id": "q-000002",
            })
        );
    }

    #[test]
    fn each_kind_has_its_status() {
        for (kind, status, sqlstate) in [
            (
                ProblemKind::NotFound {
                    detail: "no view named v".into(),
                    help: vec![],
                },
                404,
                Some("42P01"),
            ),
            (ProblemKind::Parameter("limit".into()), 400, Some("22023")),
            (ProblemKind::Timeout(Duration::from_secs(1)), 504, Some("57014")),
            (ProblemKind::Busy, 503, Some("53300")),
            (ProblemKind::Execution("cast".into()), 422, Some("22000")),
            (ProblemKind::Unavailable("broker".into()), 503, Some("58030")),
            (ProblemKind::Internal(Error::bug("secret")), 500, Some("XX000")),
            (
                ProblemKind::Text {
                    text: SourceText::new("query", "CREATE"),
                    diagnostics: vec![Diagnostic::error(SqlState::Unavailable, "no answer", None)],
                },
                503,
                Some("58030"),
            ),
            (
                ProblemKind::Text {
                    text: SourceText::new("query", ""),
                    diagnostics: vec![],
                },
                400,
                Some("22023"),
            ),
        ] {
            let refusal = Refusal::from(Problem::new(kind));
            assert_eq!((refusal.problem.status, refusal.problem.sqlstate), (status, sqlstate));
        }
    }

    #[test]
    fn our_own_failures_keep_their_detail_to_the_log() {
        let refusal = Refusal::from(Problem::new(ProblemKind::Internal(Error::bug("secret path /srv"))));
        assert!(!serde_json::to_string(refusal.problem()).unwrap().contains("secret"));
        let unexpected = DataFusionError::Internal("secret plan".into());
        let refusal = Refusal::of_stream(unexpected, "q-1");
        assert!(!serde_json::to_string(refusal.problem()).unwrap().contains("secret"));
        assert_eq!(refusal.problem.query_id.as_deref(), Some("q-1"));
    }

    #[test]
    fn a_query_that_fails_on_its_data_says_on_what() {
        let cast = DataFusionError::ArrowError(Box::new(ArrowError::DivideByZero), None);
        for (error, status) in [
            (cast.context("while reading"), 422),
            (DataFusionError::ResourcesExhausted("pool".into()), 422),
            (
                DataFusionError::External(Box::new(Error::external("the name node is away"))),
                503,
            ),
            (DataFusionError::External(Box::new(Error::user("bad value"))), 422),
        ] {
            assert_eq!(Refusal::of_stream(error, "q-1").problem.status, status);
        }
    }

    #[test]
    fn who_may_come_back_is_told_when() {
        let response = Refusal::from(Problem::of_query(ProblemKind::Busy, "q-7")).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        assert_eq!(response.headers()["zeta-query-id"], "q-7");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
