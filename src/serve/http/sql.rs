//! `/api/v1/sql`: one statement in, its rows out in the format that was asked for.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};

use crate::{
    runtime::{SqlRequest, clock::Stopwatch},
    serve::{App, dto::SqlBody, negotiate::negotiate, origin, params::Params, problem::Refusal},
    sql::{self, Effect, SourceText},
    types::limits,
};

use super::{answer::Rendering, read_body};

const PARAMETERS: [&str; 6] = ["q", "format", "limit", "shape", "time", "timeout_ms"];

/// Takes any statement, as JSON or as bare text.
pub async fn run(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    // A form of any page may post text/plain to us: a statement can change things, so we look where it comes from.
    origin::check(&headers, &app.allowed_origins)?;
    let body = read_body(&headers, body).await?;
    let body = statement(&headers, &body)?;
    answer(&app, &headers, Params::parse(query.as_deref()), body).await
}

/// Takes `q`, which may only read: an address is followed by anyone.
pub async fn read(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let mut params = Params::parse(query.as_deref());
    let sql = params.take("q").map_err(IntoResponse::into_response)?;
    let sql = sql.ok_or_else(|| {
        Refusal::parameter("q is missing")
            .help("GET /api/v1/sql?q=SELECT …")
            .into_response()
    })?;
    if !only_reads(&sql) {
        let refusal = Refusal::method_not_allowed("GET only reads").help("send the statement with POST");
        return Err(([(header::ALLOW, "POST")], refusal).into_response());
    }
    let body = SqlBody {
        sql,
        ..SqlBody::default()
    };
    answer(&app, &headers, params, body)
        .await
        .map_err(IntoResponse::into_response)
}

async fn answer(app: &App, headers: &HeaderMap, mut params: Params, body: SqlBody) -> Result<Response, Refusal> {
    let watch = Stopwatch::start();
    let format = negotiate(headers, params.take("format")?.as_deref())?;
    let rendering = Rendering {
        format,
        shape: params.take_shape(format)?,
        time: params.take_time_format(format)?,
    };
    let limit = params.take_number("limit")?.or(body.limit);
    let timeout_ms = params.take_number("timeout_ms")?.or(body.timeout_ms);
    params.finish(&PARAMETERS)?;
    if timeout_ms == Some(0) {
        return Err(Refusal::parameter("timeout_ms is at least 1"));
    }
    let timeout = timeout_ms
        .map_or(limits::QUERY_TIMEOUT, Duration::from_millis)
        .min(limits::QUERY_TIMEOUT);
    if limits::SQL_BYTES_MAX < body.sql.len() {
        return Err(Refusal::too_large(format!(
            "a statement has at most {} bytes",
            limits::SQL_BYTES_MAX
        )));
    }
    if body.sql.trim().is_empty() {
        return Err(Refusal::parameter("there is no statement in the request"));
    }
    let limit = if format.is_streamed() {
        limit
    } else {
        Some(limit.unwrap_or(limits::JSON_ROWS_DEFAULT))
    };
    // One row more than is shown tells whether there are more.
    let rows_max = if format.is_streamed() {
        limit
    } else {
        limit.map(|limit| limit.saturating_add(1))
    };
    let answer = app
        .engine
        .execute(SqlRequest {
            sql: body.sql,
            timeout,
            rows_max,
        })
        .await?;
    rendering.respond(answer, limit, watch).await
}

/// Reads the statement out of a body, by its content type.
fn statement(headers: &HeaderMap, body: &[u8]) -> Result<SqlBody, Refusal> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .map(|value| value.to_str().unwrap_or("unreadable"));
    let essence = content_type
        .unwrap_or("application/sql")
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => serde_json::from_slice(body).map_err(|error| {
            Refusal::parameter(format!("the body is not a request: {error}"))
                .help(r#"{"sql": "SELECT …", "limit": 1000, "timeout_ms": 5000}"#)
        }),
        "application/sql" | "text/plain" => {
            let sql = std::str::from_utf8(body).map_err(|_| Refusal::parameter("the statement is not UTF-8"))?;
            Ok(SqlBody {
                sql: sql.to_owned(),
                ..SqlBody::default()
            })
        }
        other => Err(
            Refusal::unsupported_media_type(format!("a statement is not sent as {other}"))
                .help("content types: application/json, application/sql, text/plain")
                .help("with curl: --header 'Content-Type: application/sql' --data-binary 'SELECT …'"),
        ),
    }
}

/// Whether no statement of the text changes anything; what cannot be parsed changes nothing.
fn only_reads(text: &str) -> bool {
    let parsed = sql::parse(&SourceText::new("query", text));
    let mut statements = parsed.statements.iter();
    statements.all(|statement| statement.kind.effect() == Effect::Reads)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(content_type: Option<&str>, body: &str) -> Result<SqlBody, u16> {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        }
        statement(&headers, body.as_bytes()).map_err(|refusal| refusal.status())
    }

    #[test]
    fn a_statement_comes_as_json_or_as_text() {
        let body = of(Some("application/json"), r#"{"sql": "SELECT 1", "limit": 5}"#).unwrap();
        assert_eq!(
            (body.sql.as_str(), body.limit, body.timeout_ms),
            ("SELECT 1", Some(5), None)
        );
        for content_type in [
            Some("application/sql"),
            Some("text/plain; charset=utf-8"),
            Some("TEXT/PLAIN"),
            None,
        ] {
            assert_eq!(of(content_type, "SELECT 1").unwrap().sql, "SELECT 1");
        }
    }

    #[test]
    fn a_body_that_is_no_request_is_refused() {
        for (content_type, body, status) in [
            ("application/json", "SELECT 1", 400),
            ("application/json", r#"{"sql": "SELECT 1", "limits": 5}"#, 400),
            ("application/json", r#"{"limit": 5}"#, 400),
            ("application/json", r#"{"sql": "SELECT 1", "limit": -5}"#, 400),
            ("application/x-www-form-urlencoded", "SELECT 1", 415),
        ] {
            assert_eq!(of(Some(content_type), body).unwrap_err(), status, "{body}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "text/plain".parse().unwrap());
        assert_eq!(statement(&headers, b"\xff").unwrap_err().status(), 400);
    }
}
