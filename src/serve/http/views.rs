//! `/api/v1/views`: what can be read, and a page of its rows.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};

use crate::{
    runtime::{Answer, Engine, PageRequest, RelationInfo, RelationKind, clock::Stopwatch, stream_of},
    serve::{
        App, dto, filter::Filter, negotiate::negotiate, panel::panel, params::Params, problem::Refusal, token::Token,
    },
    sql::Emit,
    types::{Error, format_event_time, limits},
};

use super::answer::Rendering;

pub async fn list(State(app): State<Arc<App>>) -> impl IntoResponse {
    let views = app.engine.relations().iter().map(view).collect();
    ([(header::CACHE_CONTROL, "no-store")], Json(dto::Views { views }))
}

pub async fn one(State(app): State<Arc<App>>, name: Result<Path<String>, PathRejection>) -> Result<Response, Refusal> {
    let relation = find(&app.engine, name)?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(view(&relation))).into_response())
}

pub async fn rows(
    State(app): State<Arc<App>>,
    name: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let watch = Stopwatch::start();
    let relation = find(&app.engine, name)?;
    let mut params = Params::parse(query.as_deref());
    let format = negotiate(&headers, params.take("format")?.as_deref())?;
    let rendering = Rendering {
        format,
        shape: params.take_shape(format)?,
        time: params.take_time_format(format)?,
    };
    let columns = params.take("columns")?;
    let request = page_request(&relation, params)?;
    // Before the page is read: a token may be older than its rows, but never of a later run.
    let generation = app.engine.follow(&relation.name).ok().map(|reader| reader.generation());
    let page = app.engine.page(request).await?;

    let (schema, rows) = match columns {
        None => (page.schema, page.rows),
        Some(names) => {
            let known = || page.schema.fields().iter().map(|field| field.name().as_str());
            let index = |name: &str| {
                page.schema
                    .index_of(name)
                    .map_err(|_| Refusal::unknown_column(name, known().collect::<Vec<_>>()))
            };
            let indices = names
                .split(',')
                .map(|name| index(name.trim()))
                .collect::<Result<Vec<_>, _>>()?;
            let rows = page
                .rows
                .iter()
                .map(|rows| rows.project(&indices))
                .collect::<Result<Vec<_>, _>>()
                .map_err(Error::of_arrow)?;
            (Arc::new(page.schema.project(&indices).map_err(Error::of_arrow)?), rows)
        }
    };
    let answer = Answer {
        query_id: page.query_id,
        rows: stream_of(Arc::clone(&schema), rows),
        schema,
    };
    let mut response = rendering.respond(answer, None, watch).await?;
    let headers = response.headers_mut();
    headers.insert(
        "zeta-has-more",
        HeaderValue::from_static(if page.has_more { "true" } else { "false" }),
    );
    if let Some(before) = page.next_before {
        headers.insert(
            "zeta-next-before",
            HeaderValue::try_from(format_event_time(before)).expect("digits and signs"),
        );
    }
    if let Some(generation) = generation {
        let token = Token {
            view: relation.name,
            generation,
            epoch: page.epoch,
        }
        .to_string();
        headers.insert("zeta-as-of", HeaderValue::try_from(token).expect("base64url"));
    }
    Ok(response)
}

/// What is asked of the engine; every parameter that is not ours names a column.
fn page_request(relation: &RelationInfo, mut params: Params) -> Result<PageRequest, Refusal> {
    let (before, after) = (params.take_time("before")?, params.take_time("after")?);
    let limit = params.take_number("limit")?.unwrap_or(limits::PAGE_ROWS_DEFAULT);
    if !(1..=limits::PAGE_ROWS_MAX).contains(&limit) {
        return Err(Refusal::parameter(format!(
            "limit is from 1 to {}",
            limits::PAGE_ROWS_MAX
        )));
    }
    let equals = params.rest();
    let mut by_column = BTreeMap::<&str, Vec<String>>::new();
    for (column, value) in &equals {
        by_column.entry(column).or_default().push(value.clone());
    }
    // The engine compares; here a mistake is told in the words of the address.
    Filter::new(&relation.schema, by_column)?;
    Ok(PageRequest {
        view: relation.name.clone(),
        equals,
        before,
        after,
        limit,
    })
}

fn find(engine: &Engine, name: Result<Path<String>, PathRejection>) -> Result<RelationInfo, Refusal> {
    let Path(name) = name.map_err(|_| Refusal::not_found("the name of the view is not UTF-8"))?;
    engine.relation(&name).ok_or_else(|| {
        let relations = engine.relations();
        Refusal::unknown_view(&name, relations.iter().map(|relation| relation.name.as_str()))
    })
}

fn view(relation: &RelationInfo) -> dto::View {
    let made_by_epochs = relation.source.is_some() || relation.kind == RelationKind::Source;
    dto::View {
        name: relation.name.clone(),
        kind: relation.kind.to_string(),
        source: relation.source.clone(),
        columns: dto::Column::all_of(&relation.schema),
        key: relation.key.clone(),
        append_only: matches!(
            relation.kind,
            RelationKind::MaterializedView | RelationKind::Table | RelationKind::SideOutput
        )
        .then_some(relation.is_append_only),
        time: relation.time.clone(),
        panel: panel(relation),
        panel_title: relation.options.get("panel.title").map(str::to_owned),
        panel_unit: relation.options.get("panel.unit").map(str::to_owned),
        emit: relation.emit.as_ref().map(|emit| match emit {
            Emit::Changes => "changes".into(),
            Emit::OnWindowClose => "on window close".into(),
            Emit::Every(interval) => format!("every {interval:?}"),
        }),
        rows: relation.rows,
        epoch: made_by_epochs.then_some(relation.epoch.0),
        watermark: relation.watermark.time().map(|time| time.to_string()),
        history: relation.history.clone(),
        window_ms: relation.window_ns.map(|nanos| nanos / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

    use crate::types::{Epoch, Options, Watermark};

    use super::*;

    fn candles() -> RelationInfo {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
        RelationInfo {
            name: "candles_5m".into(),
            kind: RelationKind::MaterializedView,
            source: Some("candles".into()),
            schema: Arc::new(Schema::new(vec![
                Field::new("symbol", DataType::Utf8View, false),
                Field::new("window_start", time, false),
                Field::new("volume", DataType::Float64, true),
            ])),
            key: vec!["symbol".into(), "window_start".into()],
            is_append_only: false,
            time: Some("window_start".into()),
            window_end: None,
            window_ns: Some(300_000_000_000),
            emit: Some(Emit::Changes),
            rows: Some(812),
            epoch: Epoch(95),
            watermark: Watermark(1_704_237_055_000_000_000),
            history: Some("history".into()),
            options: Options::default(),
            sql: String::new(),
        }
    }

    #[test]
    fn a_view_is_described_as_the_manual_says() {
        let shown = serde_json::to_value(view(&candles())).unwrap();
        assert_eq!(
            shown,
            serde_json::json!({
                "name": "candles_5m", "kind": "materialized view", "source": "candles",
                "columns": [{"name": "symbol", "type": "VARCHAR", "nullable": false},
                            {"name": "window_start", "type": "TIMESTAMP", "nullable": false},
                            {"name": "volume", "type": "DOUBLE", "nullable": true}],
                "key": ["symbol", "window_start"], "append_only": false, "time": "window_start", "panel": "series",
                "panel_title": null, "panel_unit": null, "emit": "changes", "rows": 812, "epoch": 95, "watermark": "2024-01-02T23:10:55Z",
                "history": "history", "window_ms": 300_000,
            })
        );
    }

    #[test]
    fn what_its_options_say_of_the_panel_is_handed_out() {
        let options = [("panel", "table"), ("panel.title", "Turnover"), ("panel.unit", "USDT")];
        let drawn = RelationInfo {
            options: Options::resolve(&[], options.map(|(name, value)| (name.into(), value.into()))),
            ..candles()
        };
        let shown = serde_json::to_value(view(&drawn)).unwrap();
        assert_eq!(shown["panel"], "table");
        assert_eq!(shown["panel_title"], "Turnover");
        assert_eq!(shown["panel_unit"], "USDT");
    }

    #[test]
    fn what_does_not_apply_is_null() {
        let table = RelationInfo {
            kind: RelationKind::ExternalTable,
            source: None,
            time: None,
            emit: Some(Emit::Every(Duration::from_secs(10))),
            rows: None,
            watermark: Watermark::START,
            history: None,
            window_ns: None,
            ..candles()
        };
        let shown = serde_json::to_value(view(&table)).unwrap();
        for field in [
            "source",
            "append_only",
            "time",
            "rows",
            "epoch",
            "watermark",
            "history",
            "window_ms",
        ] {
            assert!(shown[field].is_null(), "{field}");
        }
        assert_eq!(shown["emit"], "every 10s");
        assert_eq!(shown["panel"], "table");
    }

    #[test]
    fn what_is_not_ours_names_a_column() {
        let request = page_request(
            &candles(),
            Params::parse(Some("symbol=ADA&before=1000&symbol=BTC&limit=7")),
        )
        .unwrap();
        assert_eq!(
            request.equals,
            [("symbol".into(), "ADA".into()), ("symbol".into(), "BTC".into())]
        );
        assert_eq!(
            (request.before, request.after, request.limit),
            (Some(1_000_000_000), None, 7)
        );
        for query in [
            "limit=0",
            "limit=20001",
            "before=soon",
            "volume=much",
            "window_start=soon",
        ] {
            assert_eq!(
                page_request(&candles(), Params::parse(Some(query)))
                    .unwrap_err()
                    .status(),
                400,
                "{query}"
            );
        }
    }
}
