//! docs/api.md by example: what each address answers, over an engine with a finished live part and two days of history.

use std::{path::PathBuf, sync::OnceLock};

use arrow::array::RecordBatch;
use serde_json::{Value, json};

use crate::{
    oracle::{Cell, Table, nanos},
    zeta::{ARROW, Reply, Zeta, dataset, folder, text, written},
};

const JSON: &str = "application/json";
const LIVE_START: &str = "2024-01-03T00:00:00Z";
const PAIRS: usize = 3;
const CANDLES_PER_DAY: usize = 288;
const COLUMNS: &str = "symbol, window_start, window_end, open, high, low, close, volume";

/// One engine for all tests that only read: two days are history, the third came live.
fn zeta() -> &'static Zeta {
    static ZETA: OnceLock<Zeta> = OnceLock::new();
    ZETA.get_or_init(|| {
        let history: PathBuf = dataset(PAIRS as u32, 2, "2024-01-01");
        let live = dataset(PAIRS as u32, 3, "2024-01-01");
        let zeta = Zeta::run("sql/candles.sql".as_ref())
            .env("HISTORY", text(&history))
            .replay("candles", &live, &format!(",speed=max,from={LIVE_START}"))
            .state(&folder("state"))
            .start();
        zeta.until_source("candles", "the end of the live part", |source| {
            source.state() == "finished"
        });
        zeta
    })
}

fn sql(body: &str) -> Reply {
    zeta().post_sql(body, JSON)
}

/// A refusal as the manual describes it.
#[track_caller]
fn problem(reply: &Reply, status: u16, slug: &str) -> Value {
    let problem = reply.json();
    assert_eq!(
        (reply.status, &problem["type"]),
        (status, &json!(format!("/problems/{slug}"))),
        "{problem}"
    );
    assert_eq!(reply.header("content-type"), "application/problem+json");
    assert_eq!(problem["status"], json!(status));
    for field in ["title", "detail"] {
        assert!(
            problem[field].as_str().is_some_and(|text| !text.is_empty()),
            "no {field}: {problem}"
        );
    }
    assert!(problem["help"].is_array(), "{problem}");
    problem
}

#[test]
fn the_same_rows_come_in_the_format_that_is_asked_for() {
    let zeta = zeta();
    let query = "SELECT symbol, window_start, close, volume FROM candles_5m ORDER BY symbol, window_start LIMIT 4";
    let answer = sql(query).expect(200);
    assert_eq!(answer.header("content-type"), JSON);
    let answer = answer.json();
    let columns = json!([
        {"name": "symbol", "type": "VARCHAR", "nullable": false}, {"name": "window_start", "type": "TIMESTAMP", "nullable": false},
        {"name": "close", "type": "REAL", "nullable": true}, {"name": "volume", "type": "DOUBLE", "nullable": true}
    ]);
    assert_eq!(answer["columns"], columns);
    assert_eq!((&answer["row_count"], &answer["truncated"]), (&json!(4), &json!(false)));
    assert!(
        answer["elapsed_ms"].is_u64() && answer["query_id"].as_str().is_some_and(|id| id.starts_with("q-")),
        "{answer}"
    );
    let rows = answer["rows"].as_array().expect("rows");
    assert_eq!((&rows[0][0], &rows[0][1]), (&json!("ADA-USDT"), &json!(LIVE_START)));

    let with = |parameters: &str, accept: &str| {
        let headers = [("Content-Type", "application/sql"), ("Accept", accept)];
        zeta.request("POST", &format!("/api/v1/sql{parameters}"), &headers, query.as_bytes())
            .expect(200)
    };
    let names = ["symbol", "window_start", "close", "volume"];
    let object = |row: &Value| {
        Value::Object(
            names
                .iter()
                .enumerate()
                .map(|(at, name)| ((*name).to_owned(), row[at].clone()))
                .collect(),
        )
    };
    let objects: Vec<Value> = rows.iter().map(object).collect();
    assert_eq!(with("?shape=objects", JSON).json()["rows"], json!(objects));
    let by_column = with("?shape=columns", JSON).json();
    let column = |at: usize| rows.iter().map(|row| row[at].clone()).collect::<Vec<_>>();
    assert_eq!(
        (&by_column["data"], by_column.get("rows")),
        (&json!([column(0), column(1), column(2), column(3)]), None)
    );
    assert_eq!(
        with("?time=ms", JSON).json()["rows"][0][1],
        json!(nanos(LIVE_START) / 1_000_000)
    );

    for (parameters, accept) in [
        ("", "application/x-ndjson"),
        ("", "application/jsonl"),
        ("?format=ndjson", "text/html"),
        ("", "text/csv;q=0.5, application/x-ndjson;q=0.9, text/html"),
    ] {
        let reply = with(parameters, accept);
        assert_eq!(reply.header("content-type"), "application/x-ndjson");
        let lines: Vec<Value> = reply
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).expect("an object per line"))
            .collect();
        assert_eq!(lines, objects, "{parameters} {accept}");
    }

    let csv = with("", "text/csv");
    assert!(csv.header("content-type").starts_with("text/csv"));
    let mut lines = csv.text().lines();
    assert_eq!(lines.next(), Some("symbol,window_start,close,volume"));
    let cells: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!(cells.len(), 4);
    for (cells, row) in cells.iter().zip(rows) {
        assert_eq!(
            (cells[0], cells[1]),
            (row[0].as_str().expect("text"), row[1].as_str().expect("text"))
        );
        let numbers = (cells[2].parse::<f64>().ok(), cells[3].parse::<f64>().ok());
        assert_eq!(numbers, (row[2].as_f64(), row[3].as_f64()));
    }

    let arrow = Table::of(&with("", ARROW).arrow());
    assert_eq!(arrow.columns, names);
    for (cells, row) in arrow.rows.iter().zip(rows) {
        let [
            Cell::Text(symbol),
            Cell::Time(start),
            Cell::Float(close),
            Cell::Float(volume),
        ] = cells.as_slice()
        else {
            panic!("{cells:?}")
        };
        assert_eq!(
            (symbol.as_str(), *start),
            (row[0].as_str().expect("text"), nanos(row[1].as_str().expect("text")))
        );
        assert!(
            (*close as f32 == row[2].as_f64().expect("a number") as f32) && Some(*volume) == row[3].as_f64(),
            "{cells:?} {row}"
        );
    }
    assert_eq!(arrow.rows.len(), 4);
}

#[test]
fn what_no_format_can_give_is_refused() {
    let refusal = problem(&zeta().post_sql("SELECT 1", "text/html"), 406, "not-acceptable");
    assert!(
        refusal["help"].to_string().contains("text/csv"),
        "it says what there is: {refusal}"
    );
    let with = |parameters: &str| zeta().request("POST", &format!("/api/v1/sql?{parameters}"), &[], b"SELECT 1");
    for parameters in [
        "format=xml",
        "shape=rows",
        "time=s",
        "limit=-1",
        "limit=many",
        "limt=1",
        "timeout_ms=0",
        "format=csv&shape=columns",
        "limit=1&limit=2",
    ] {
        problem(&with(parameters), 400, "invalid-parameter");
    }
    problem(
        &zeta().request("POST", "/api/v1/sql", &[("Content-Type", "text/html")], b"SELECT 1"),
        415,
        "unsupported-media-type",
    );
    let json = |body: &str| zeta().request("POST", "/api/v1/sql", &[("Content-Type", JSON)], body.as_bytes());
    for body in [
        "SELECT 1",
        r#"{"sql": 1}"#,
        r#"{"sql": "SELECT 1", "limits": 1}"#,
        "{}",
        "",
    ] {
        problem(&json(body), 400, "invalid-parameter");
    }
    json(r#"{"sql": "SELECT 1", "limit": 5, "timeout_ms": 5000}"#).expect(200);
    problem(&sql(""), 400, "invalid-parameter");
}

#[test]
fn values_that_json_cannot_hold_keep_their_meaning() {
    let answer = sql(
        "SELECT 9007199254740993 AS big, 9007199254740991 AS exact, CAST(1.5 AS DECIMAL(10, 2)) AS price, CAST('NaN' AS DOUBLE) AS nan,
            CAST('inf' AS DOUBLE) AS endless, CAST('2024-01-02T03:04:05.5' AS TIMESTAMP) AS at, CAST('zeta' AS BYTEA) AS bytes, NULL AS nothing,
            'a \"b\" \u{e9}' AS words",
    );
    let rows = answer.expect(200).json()["rows"].clone();
    let expected = json!([[
        "9007199254740993",
        9_007_199_254_740_991_i64,
        "1.50",
        null,
        null,
        "2024-01-02T03:04:05.5Z",
        "emV0YQ==",
        null,
        "a \"b\" \u{e9}"
    ]]);
    assert_eq!(rows, expected);
}

#[test]
fn a_long_answer_is_cut_and_says_so_a_streamed_one_is_whole() {
    let long = "SELECT open_time FROM history UNION ALL SELECT open_time FROM history";
    let all = 2 * 2 * 1_440 * PAIRS;
    let answer = sql(long).expect(200);
    assert_eq!(answer.header("zeta-truncated"), "true");
    let answer = answer.json();
    assert_eq!(
        (&answer["row_count"], &answer["truncated"]),
        (&json!(10_000), &json!(true))
    );
    assert_eq!(answer["rows"].as_array().map(Vec::len), Some(10_000));
    for (format, head_lines) in [("ndjson", 0), ("csv", 1)] {
        let path = |limit: &str| format!("/api/v1/sql?format={format}{limit}");
        let lines = |limit: &str| {
            zeta()
                .request("POST", &path(limit), &[], long.as_bytes())
                .expect(200)
                .text()
                .lines()
                .count()
        };
        assert_eq!(
            (lines("") - head_lines, lines("&limit=7") - head_lines),
            (all, 7),
            "{format}"
        );
    }
    let batches = zeta().query(long);
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), all);
    for (limit, truncated) in [(all - 1, true), (all, false), (all + 1, false), (0, true)] {
        let answer = zeta()
            .request("POST", &format!("/api/v1/sql?limit={limit}"), &[], long.as_bytes())
            .expect(200)
            .json();
        assert_eq!(
            (&answer["row_count"], &answer["truncated"]),
            (&json!(limit.min(all)), &json!(truncated)),
            "limit {limit}"
        );
    }
}

#[test]
fn a_mistake_in_sql_is_shown_at_its_place() {
    let of = |text: &str| problem(&sql(text), 400, "unknown-column");
    let found = of("SELECT nope FROM candles_5m");
    assert_eq!(
        found["position"],
        json!({"line": 1, "column": 8, "offset": 7, "end_line": 1, "end_column": 12}),
        "as in the manual"
    );
    assert_eq!(
        (&found["sqlstate"], &found["title"], &found["detail"]),
        (
            &json!("42703"),
            &json!("unknown column"),
            &json!("no column named `nope`")
        )
    );
    assert!(
        found["help"].to_string().contains("symbol"),
        "it says what there is: {found}"
    );
    assert!(
        found["query_id"].as_str().is_some_and(|id| id.starts_with("q-")),
        "{found}"
    );

    let found = of("SELECT symbol, -- \u{e9}\n  'ü', symbl\nFROM candles_5m");
    assert_eq!(
        found["position"],
        json!({"line": 2, "column": 8, "offset": 29, "end_line": 2, "end_column": 13}),
        "columns are characters, offsets bytes"
    );
    assert!(found["help"].to_string().contains("did you mean `symbol`?"), "{found}");

    let found = problem(&sql("SELECT * FROM candels_5m"), 400, "unknown-table");
    assert_eq!(
        (&found["position"]["column"], &found["sqlstate"]),
        (&json!(15), &json!("42P01"))
    );
    assert!(found["help"].to_string().contains("candles_5m"), "{found}");

    for (text, column) in [
        ("SELEC 1", 1),
        ("SELECT 1 FRM candles_5m", 10),
        ("SELECT (1", 8),
        ("SELECT 'open", 8),
        ("SELECT * FROM", 14),
    ] {
        let found = problem(&sql(text), 400, "syntax");
        assert_eq!(
            (&found["position"]["line"], &found["position"]["column"]),
            (&json!(1), &json!(column)),
            "{text}: {found}"
        );
        assert_eq!(found["sqlstate"], "42601");
    }
    let found = problem(&sql("SELECT 1; SELECT 2"), 400, "syntax");
    assert!(found["position"].is_object(), "one statement at a time: {found}");
}

#[test]
fn a_query_that_fails_or_takes_too_long_is_blamed_on_itself() {
    let failed = problem(&sql("SELECT CAST(symbol AS INTEGER) FROM candles_5m"), 422, "execution");
    assert!(
        failed["detail"].as_str().expect("text").contains("ADA-USDT")
            || failed["detail"].as_str().expect("text").contains("BTC-USDT"),
        "{failed}"
    );
    let slow = "SELECT count(*) FROM history a, history b, history c WHERE a.open + b.open + c.open > 0";
    let slow = zeta().request("POST", "/api/v1/sql?timeout_ms=200", &[], slow.as_bytes());
    problem(&slow, 504, "timeout");
    sql("SELECT 1").expect(200);
}

#[test]
fn what_is_too_large_is_refused() {
    let body = vec![b'x'; (1 << 20) + 1];
    problem(&zeta().request("POST", "/api/v1/sql", &[], &body), 413, "too-large");
    let long = format!("SELECT 1 -- {}", "x".repeat(64 << 10));
    problem(&sql(&long), 413, "too-large");
    let deep = format!("SELECT {}1{}", "(".repeat(1_000), ")".repeat(1_000));
    assert_eq!(sql(&deep).status, 400);
    let chained = format!("SELECT 1{}", " + 1".repeat(5_000));
    assert_eq!(sql(&chained).status, 400);
}

#[test]
fn an_address_only_reads_and_a_foreign_page_does_nothing() {
    let get =
        |query: &str, origin: &[(&str, &str)]| zeta().request("GET", &format!("/api/v1/sql?q={query}"), origin, b"");
    assert_eq!(
        get("SELECT%201%20AS%20one", &[]).expect(200).json()["rows"],
        json!([[1]])
    );
    for query in [
        "DROP%20MATERIALIZED%20VIEW%20candles_5m",
        "CREATE%20VIEW%20v%20AS%20SELECT%201",
        "INSERT%20INTO%20candles%20VALUES%20(1)",
    ] {
        let reply = get(query, &[]);
        assert_eq!(reply.header("allow"), "POST", "{query}");
        problem(&reply, 405, "method-not-allowed");
    }
    problem(&zeta().get("/api/v1/sql"), 400, "invalid-parameter");
    let foreign = [("Origin", "https://evil.example"), ("Content-Type", "text/plain")];
    problem(
        &zeta().request("POST", "/api/v1/sql", &foreign, b"DROP MATERIALIZED VIEW candles_5m"),
        403,
        "foreign-origin",
    );
    let own = [("Origin", zeta().url.as_str()), ("Content-Type", "text/plain")];
    zeta().request("POST", "/api/v1/sql", &own, b"SELECT 1").expect(200);
    zeta().get("/api/v1/views/candles_5m").expect(200);
    problem(
        &zeta().request("DELETE", "/api/v1/views/candles_5m", &[], b""),
        405,
        "method-not-allowed",
    );
    problem(&zeta().get("/api/v2/sql"), 404, "not-found");
}

#[test]
fn statements_work_over_http_as_in_a_file() {
    let statement = |text: &str| zeta().request("POST", "/api/v1/sql", &[], text.as_bytes());
    statement("CREATE VIEW ups AS SELECT symbol, window_start FROM candles_5m WHERE open < close").expect(200);
    assert_eq!(zeta().get("/api/v1/views/ups").expect(200).json()["kind"], "view");
    let ups = zeta().rows("SELECT count(*) FROM ups")[0][0]
        .as_u64()
        .expect("a number");
    assert!(0 < ups && ups < (PAIRS * CANDLES_PER_DAY) as u64, "{ups}");
    assert_eq!(
        problem(&statement("CREATE VIEW ups AS SELECT 1 AS one"), 400, "duplicate")["position"]["column"],
        json!(13)
    );
    let shown = zeta().rows("SHOW VIEWS");
    assert!(shown.iter().any(|row| row.to_string().contains("ups")), "{shown:?}");
    let described = zeta().rows("DESCRIBE candles_5m");
    assert!(described.iter().any(|row| row[0] == "window_end"), "{described:?}");
    let explained = json!(zeta().rows("EXPLAIN SELECT * FROM ups")).to_string();
    assert!(explained.contains("candles_5m"), "{explained}");
    statement("DROP VIEW ups").expect(200);
    problem(&zeta().get("/api/v1/views/ups"), 404, "not-found");
    assert_eq!(statement("DROP VIEW ups").status, 400);
}

#[test]
fn views_are_listed_with_what_charts_need() {
    let views = zeta().get("/api/v1/views").expect(200).json();
    let views = views["views"].as_array().expect("views");
    let kind = |name: &str| {
        views
            .iter()
            .find(|view| view["name"] == name)
            .map(|view| view["kind"].clone())
    };
    for (name, expected) in [
        ("candles", "source"),
        ("candles$bad", "side output"),
        ("history", "external table"),
        ("candles_5m", "materialized view"),
        ("candles_5m$late", "side output"),
    ] {
        assert_eq!(kind(name), Some(json!(expected)), "{name}");
    }
    let mut view = zeta().get("/api/v1/views/candles_5m").expect(200).json();
    assert!(0 < view["epoch"].as_u64().expect("a number"));
    let columns = view["columns"].take();
    assert_eq!(
        columns[1],
        json!({"name": "window_start", "type": "TIMESTAMP", "nullable": false})
    );
    assert_eq!(columns.as_array().map(Vec::len), Some(8));
    for (field, expected) in [
        ("source", json!("candles")),
        ("key", json!(["symbol", "window_start"])),
        ("time", json!("window_start")),
        ("panel", json!("candlestick")),
        ("emit", json!("changes")),
        ("rows", json!(PAIRS * CANDLES_PER_DAY)),
        ("history", json!("history")),
        ("window_ms", json!(300_000)),
    ] {
        assert_eq!(view[field], expected, "{field}");
    }
    let refusal = problem(&zeta().get("/api/v1/views/candels_5m"), 404, "not-found");
    assert!(
        refusal["help"].to_string().contains("did you mean `candles_5m`?"),
        "{refusal}"
    );
}

#[test]
fn the_options_of_a_view_say_how_it_is_drawn() {
    let file = written(
        "CREATE SOURCE trades (price DOUBLE, ts TIMESTAMP, WATERMARK FOR ts) WITH (connector = 'memory');
         CREATE MATERIALIZED VIEW prices WITH (panel = 'table', 'panel.title' = 'Last prices', 'PANEL.unit' = 'USDT') AS
         SELECT ts, price FROM trades;
         CREATE MATERIALIZED VIEW plain AS SELECT ts, price FROM trades;",
    );
    let zeta = Zeta::run(&file).arg("--no-state").start();
    for (name, panel, title, unit) in [
        ("prices", "table", json!("Last prices"), json!("USDT")),
        ("plain", "series", Value::Null, Value::Null),
    ] {
        let view = zeta.get(&format!("/api/v1/views/{name}")).expect(200).json();
        assert_eq!(
            (&view["panel"], &view["panel_title"], &view["panel_unit"]),
            (&json!(panel), &title, &unit),
            "{name}"
        );
    }
}

#[test]
fn without_a_key_a_log_and_a_total_are_told_apart() {
    let file = written(
        "CREATE SOURCE trades (symbol VARCHAR, price DOUBLE, ts TIMESTAMP, WATERMARK FOR ts) WITH (connector = 'memory');
         CREATE MATERIALIZED VIEW log AS SELECT symbol, price FROM trades;
         CREATE MATERIALIZED VIEW total AS SELECT count(*) AS trades FROM trades;
         CREATE MATERIALIZED VIEW latest AS SELECT symbol, max(price) AS price FROM trades GROUP BY symbol;
         CREATE MATERIALIZED VIEW prices AS SELECT price FROM latest;
         CREATE VIEW cheap AS SELECT * FROM latest WHERE price < 1;",
    );
    let zeta = Zeta::run(&file).arg("--no-state").start();
    for (name, key, append_only) in [
        ("log", json!([]), json!(true)),
        ("total", json!([]), json!(false)),
        ("latest", json!(["symbol"]), json!(false)),
        ("prices", json!([]), json!(false)),
        ("trades$bad", json!([]), json!(true)),
        ("cheap", json!([]), Value::Null),
        ("trades", json!([]), Value::Null),
    ] {
        let path = format!("/api/v1/views/{}", name.replace('$', "%24"));
        let view = zeta.get(&path).expect(200).json();
        assert_eq!((&view["key"], &view["append_only"]), (&key, &append_only), "{name}");
    }
}

/// All pages from the newest to the end of history, put together oldest first.
fn walk(parameters: &str, limit: usize) -> (Vec<RecordBatch>, usize) {
    let mut pages: Vec<RecordBatch> = Vec::new();
    let mut before = String::new();
    for page in 1.. {
        let path = format!("/api/v1/views/candles_5m/rows?format=arrow&limit={limit}{parameters}{before}");
        let reply = zeta().get(&path).expect(200);
        let batches = reply.arrow();
        assert!(
            batches.iter().map(RecordBatch::num_rows).sum::<usize>() <= limit,
            "a page has at most as many rows as asked for"
        );
        pages.splice(0..0, batches);
        match reply.header("zeta-has-more") {
            "true" => before = format!("&before={}", reply.header("zeta-next-before")),
            "false" => return (pages, page),
            other => panic!("zeta-has-more is {other}"),
        }
        assert!(page < 1_000, "pages come to an end");
    }
    unreachable!("the loop returns")
}

/// The view and the same SELECT over what came before it, in one query.
fn whole(condition: &str, order: &str) -> Vec<RecordBatch> {
    zeta().query(&format!(
        "SELECT {COLUMNS} FROM candles_5m WHERE {condition}
         UNION ALL
         SELECT * FROM (SELECT symbol, window_start, window_end, first_value(open ORDER BY open_time) AS open, max(high) AS high, min(low) AS low,
            last_value(close ORDER BY open_time) AS close, sum(volume) AS volume
         FROM TUMBLE(history, open_time, INTERVAL '5 minutes') WHERE open_time < '{LIVE_START}'
         GROUP BY symbol, window_start, window_end) AS past WHERE {condition}
         ORDER BY {order}"
    ))
}

#[test]
fn pages_of_one_pair_walk_back_through_the_seam_to_the_end_of_history() {
    let expected = Table::of(&whole("symbol = 'ADA-USDT'", "window_start"));
    assert_eq!(expected.rows.len(), 3 * CANDLES_PER_DAY);
    for limit in [1_000, 100, 288, 77] {
        let (pages, count) = walk("&symbol=ADA-USDT", limit);
        Table::of(&pages).assert_same(&expected);
        assert_eq!(count, (3 * CANDLES_PER_DAY).div_ceil(limit));
    }
}

#[test]
fn pages_of_all_pairs_lose_no_row_where_a_page_ends_between_rows_of_one_time() {
    let expected = Table::of(&whole("true", "window_start, symbol"));
    assert_eq!(expected.rows.len(), 3 * CANDLES_PER_DAY * PAIRS);
    for limit in [10_000, 99, 100] {
        let (pages, _) = walk("", limit);
        let mut found = Table::of(&pages);
        let by = |row: &Vec<Cell>| match (&row[0], &row[1]) {
            (Cell::Text(symbol), Cell::Time(time)) => (*time, symbol.clone()),
            other => panic!("{other:?}"),
        };
        assert!(found.rows.is_sorted_by_key(|row| by(row).0), "oldest first");
        found.rows.sort_by_key(by);
        found.assert_same(&expected);
    }
}

#[test]
fn a_page_is_bounded_by_times_and_filtered_by_columns() {
    let rows = |parameters: &str| {
        let reply = zeta()
            .get(&format!("/api/v1/views/candles_5m/rows?{parameters}"))
            .expect(200);
        (
            reply.json()["rows"].as_array().expect("rows").clone(),
            reply.header("zeta-has-more").to_owned(),
        )
    };
    let (newest, has_more) = rows("symbol=ADA-USDT&limit=2");
    assert_eq!(
        newest.iter().map(|row| &row[1]).collect::<Vec<_>>(),
        ["2024-01-03T23:50:00Z", "2024-01-03T23:55:00Z"],
        "the newest, oldest first"
    );
    assert_eq!(has_more, "true");
    let (between, has_more) = rows("symbol=ADA-USDT&after=2024-01-02T23:55:00Z&before=2024-01-03T00:10:00Z");
    let times: Vec<&Value> = between.iter().map(|row| &row[1]).collect();
    assert_eq!(
        times,
        ["2024-01-02T23:55:00Z", "2024-01-03T00:00:00Z", "2024-01-03T00:05:00Z"],
        "across the seam; `before` itself is out, `after` in"
    );
    assert_eq!(has_more, "false");
    let in_ms = rows(&format!(
        "symbol=ADA-USDT&after={}&limit=500",
        nanos("2024-01-03T23:55:00Z") / 1_000_000
    ));
    assert_eq!(in_ms.0, newest[1..]);
    assert_eq!(rows("limit=20000").0.len(), 3 * CANDLES_PER_DAY * PAIRS);
    assert_eq!(rows("symbol=ADA-USDT").0.len(), 500, "the default");
    assert_eq!(
        rows("").0.len(),
        500 / PAIRS * PAIRS,
        "rows of one time are not torn apart"
    );
    assert_eq!(rows("symbol=NOPE-USDT"), (vec![], "false".into()));
    assert_eq!(
        rows("symbol=ADA-USDT&window_start=2024-01-01T00:05:00Z").0.len(),
        1,
        "in history alone"
    );

    let objects = zeta()
        .get("/api/v1/views/candles_5m/rows?symbol=ADA-USDT&limit=1&shape=objects&time=ms")
        .expect(200);
    assert_eq!(
        objects.json()["rows"][0]["window_start"],
        json!(nanos("2024-01-03T23:55:00Z") / 1_000_000)
    );
    assert!(!objects.header("zeta-as-of").is_empty(), "a token to subscribe with");

    let refused = |parameters: &str| zeta().get(&format!("/api/v1/views/candles_5m/rows?{parameters}"));
    for parameters in [
        "limit=0",
        "limit=20001",
        "limit=all",
        "before=soon",
        "after=2024-01-01",
        "before=1&before=2",
        "volume=much",
        "window_start=soon",
        "shape=cube",
    ] {
        problem(&refused(parameters), 400, "invalid-parameter");
    }
    let unknown = problem(&refused("symbl=ADA-USDT"), 400, "unknown-column");
    assert!(
        unknown["help"].to_string().contains("did you mean `symbol`?"),
        "{unknown}"
    );
    problem(&zeta().get("/api/v1/views/nope/rows"), 404, "not-found");
}

#[test]
fn sources_readiness_and_numbers_say_how_it_stands() {
    assert_eq!(zeta().get("/livez").expect(200).text(), "ok");
    let ready = zeta().get("/readyz").expect(200).json();
    assert_eq!(
        ready,
        json!({"ready": true, "checks": [{"name": "source candles", "ok": true, "detail": "finished"}]})
    );

    let source = zeta().source("candles");
    let rows = PAIRS * 1_440;
    for (field, expected) in [
        ("connector", json!("replay")),
        ("state", json!("finished")),
        ("reason", Value::Null),
        ("rows", json!(rows)),
        ("bad_rows", json!(0)),
        ("late_rows", json!(0)),
    ] {
        assert_eq!(source.0[field], expected, "{field}");
    }
    let splits = source.0["splits"].as_array().expect("splits");
    let split = json!({"split": "0", "position": rows, "end": rows, "lag": 0, "watermark": null, "idle": false});
    assert_eq!(splits, &[split]);

    let metrics = zeta().get("/metrics").expect(200);
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    let of = |name: &str| {
        metrics
            .text()
            .lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    for (name, least) in [
        ("zeta_epochs_total", 1.0),
        ("zeta_source_rows_total", rows as f64),
        ("zeta_view_rows", 1.0),
    ] {
        assert!(
            of(name).is_some_and(|value| least <= value),
            "{name}: {}",
            metrics.text()
        );
    }
}
