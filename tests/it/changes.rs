//! Edited pipelines: what becomes of each view, and that what goes on shows what it would show had it always been so.
//!
//! ```text
//! pipeline ── rows, epochs, a checkpoint here or there ─▶ state ─┐
//! edited pipeline ──────────────────────────────────────────────┴─▶ refused, or more rows ─▶ the same as without the edit before
//! ```

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use zeta::{
    cli::MemoryTopics,
    connector::kafka::KafkaProducer,
    plan::Verdict,
    runtime::{Engine, Rebuild, StepEnd, clock::ManualClock},
    types::{EventTime, Position, RecordsBuilder, SplitId},
};

use super::{
    engine::{block_on, defined, sql},
    services::Kafka,
    zeta::{Zeta, dataset, edited as edited_file, folder, until, written, zeta, zeta_with},
};

const MINUTE: i64 = 60_000_000_000;
/// 2023-11-14T20:00:00Z
const START: i64 = 1_699_992_000_000_000_000;

const PIPELINE: &str = "
CREATE FUNCTION double_of(x BIGINT) RETURNS BIGINT AS x * 2;
CREATE SOURCE s (k VARCHAR, v BIGINT, w BIGINT, spare VARCHAR, ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')
  WITH (connector = 'memory', format = 'json', trigger = '0');
CREATE TABLE names (k VARCHAR PRIMARY KEY, name VARCHAR);
CREATE MATERIALIZED VIEW plain AS SELECT k, v, ts FROM s WHERE 0 < v;
CREATE MATERIALIZED VIEW per_minute AS
  SELECT k, window_start, window_end, count(*) AS n, sum(v) AS total FROM TUMBLE(s, ts, INTERVAL '1 minute')
  WHERE v < 1000 AND 0 < w GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW closed AS
  SELECT k, window_end, count(*) AS n, max(v) AS high FROM HOP(s, ts, INTERVAL '1 minute', INTERVAL '2 minutes')
  GROUP BY k, window_end HAVING 1 < count(*) EMIT ON WINDOW CLOSE;
CREATE MATERIALIZED VIEW groups AS SELECT k, sum(v) AS total, min(w) AS low FROM s GROUP BY k HAVING 3 < count(*);
CREATE MATERIALIZED VIEW calm AS SELECT k, sum(double_of(v)) AS total FROM s GROUP BY k EMIT EVERY INTERVAL '1 minute';
CREATE MATERIALIZED VIEW visits AS
  SELECT k, window_start, window_end, count(*) AS n FROM SESSION(s, ts, INTERVAL '20 seconds', k) GROUP BY k, window_start, window_end;
CREATE MATERIALIZED VIEW recent AS SELECT k, v, ts FROM s WHERE now() - INTERVAL '5 minutes' < ts;
CREATE MATERIALIZED VIEW best AS SELECT k, max(total) AS best, count(*) AS windows FROM per_minute GROUP BY k;
CREATE MATERIALIZED VIEW named AS SELECT name, count(*) AS n FROM names GROUP BY name;";

const VIEWS: [&str; 10] = [
    "names",
    "plain",
    "per_minute",
    "closed",
    "groups",
    "calm",
    "visits",
    "recent",
    "best",
    "named",
];

/// What becomes of views that are not the same; another source for all of one.
enum Expected {
    Views(&'static [(&'static str, Verdict)]),
    OtherSource(&'static str),
}

struct Case {
    what: &'static str,
    edits: &'static [(&'static str, &'static str)],
    expected: Expected,
}

const fn case(
    what: &'static str,
    edits: &'static [(&'static str, &'static str)],
    expected: &'static [(&'static str, Verdict)],
) -> Case {
    Case {
        what,
        edits,
        expected: Expected::Views(expected),
    }
}

use Verdict::{Anew, Dropped, New, Rebuild as Again, Resumes};

const CASES: &[Case] = &[
    case("nothing", &[], &[]),
    case(
        "a comment",
        &[("CREATE TABLE names", "-- the names of keys\nCREATE TABLE names")],
        &[],
    ),
    case(
        "another way to write it",
        &[(
            "SELECT k, v, ts FROM s WHERE 0 < v",
            "select\n  k,\n  v, ts\nfrom s\nwhere (0 < v)",
        )],
        &[],
    ),
    case(
        "a column that is called by its own name",
        &[(
            "SELECT k, v, ts FROM s WHERE 0 < v",
            "SELECT k AS k, v, ts FROM s WHERE 0 < v",
        )],
        &[],
    ),
    case(
        "a table by an alias",
        &[(
            "SELECT k, v, ts FROM s WHERE 0 < v",
            "SELECT a.k, a.v, a.ts FROM s AS a WHERE 0 < a.v",
        )],
        &[],
    ),
    case(
        "a sub-query with names of its own",
        &[(
            "SELECT k, sum(v) AS total, min(w) AS low FROM s GROUP BY k HAVING",
            "SELECT x AS k, sum(y) AS total, min(z) AS low FROM (SELECT k AS x, v AS y, w AS z FROM s) GROUP BY x HAVING",
        )],
        &[],
    ),
    case(
        "another spelling of windows",
        &[(
            "FROM TUMBLE(s, ts, INTERVAL '1 minute')",
            "FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '60' SECOND))",
        )],
        &[],
    ),
    case(
        "conditions in another order",
        &[("WHERE v < 1000 AND 0 < w", "WHERE 0 < w AND v < 1000")],
        &[],
    ),
    case(
        "a view that moves behind another",
        &[
            (
                "CREATE MATERIALIZED VIEW plain AS SELECT k, v, ts FROM s WHERE 0 < v;",
                "",
            ),
            (
                "CREATE MATERIALIZED VIEW best",
                "CREATE MATERIALIZED VIEW plain AS SELECT k, v, ts FROM s WHERE 0 < v;\nCREATE MATERIALIZED VIEW best",
            ),
        ],
        &[],
    ),
    case(
        "options that say when rows come",
        &[("trigger = '0'", "trigger = '2 seconds', idle_timeout = '5 minutes'")],
        &[],
    ),
    case(
        "a plain view that nobody reads",
        &[(
            "CREATE TABLE names",
            "CREATE VIEW some AS SELECT k FROM s;\nCREATE TABLE names",
        )],
        &[],
    ),
    // Behind the state.
    case(
        "a renamed column",
        &[(
            "count(*) AS n, sum(v) AS total FROM TUMBLE",
            "count(*) AS trades, sum(v) AS total FROM TUMBLE",
        )],
        &[("per_minute", Resumes)],
    ),
    case(
        "a renamed column that a view reads",
        &[
            ("sum(v) AS total FROM TUMBLE", "sum(v) AS volume FROM TUMBLE"),
            ("max(total) AS best", "max(volume) AS best"),
        ],
        &[("per_minute", Resumes)],
    ),
    case(
        "a renamed column of a filter",
        &[(
            "SELECT k, v, ts FROM s WHERE 0 < v",
            "SELECT k AS key, v, ts FROM s WHERE 0 < v",
        )],
        &[("plain", Resumes)],
    ),
    case(
        "columns in another order",
        &[(
            "SELECT k, v, ts FROM s WHERE 0 < v",
            "SELECT ts, v, k FROM s WHERE 0 < v",
        )],
        &[("plain", Resumes)],
    ),
    case(
        "a column that is computed of others",
        &[(
            "SELECT k, v, ts FROM s WHERE 0 < v",
            "SELECT k, v, ts, v * 10 AS ten FROM s WHERE 0 < v",
        )],
        &[("plain", Resumes)],
    ),
    case(
        "a column that is computed of aggregates",
        &[(
            "sum(v) AS total FROM TUMBLE",
            "sum(v) AS total, sum(v) + count(*) AS both FROM TUMBLE",
        )],
        &[("per_minute", Resumes)],
    ),
    case(
        "a column that cannot always be computed",
        &[(
            "sum(v) AS total FROM TUMBLE",
            "sum(v) AS total, 100 / (count(*) - 1) AS part FROM TUMBLE",
        )],
        &[("per_minute", Resumes)],
    ),
    case(
        "a constant column",
        &[(
            "SELECT k, v, ts FROM s WHERE 0 < v",
            "SELECT k, v, ts, 'x' AS mark FROM s WHERE 0 < v",
        )],
        &[("plain", Resumes)],
    ),
    case(
        "a column less",
        &[("SELECT k, v, ts FROM s WHERE 0 < v", "SELECT k, v FROM s WHERE 0 < v")],
        &[("plain", Resumes)],
    ),
    case(
        "an aggregate less",
        &[(
            "count(*) AS n, sum(v) AS total FROM TUMBLE",
            "sum(v) AS total FROM TUMBLE",
        )],
        &[("per_minute", Resumes)],
    ),
    case(
        "an aggregate of panes less",
        &[(
            "SELECT k, window_end, count(*) AS n, max(v) AS high",
            "SELECT k, window_end, count(*) AS n",
        )],
        &[("closed", Resumes)],
    ),
    case(
        "aggregates in another order",
        &[(
            "count(*) AS n, sum(v) AS total FROM TUMBLE",
            "sum(v) AS total, count(*) AS n FROM TUMBLE",
        )],
        &[("per_minute", Resumes)],
    ),
    case(
        "a filter that lets less through",
        &[("FROM s WHERE 0 < v;", "FROM s WHERE 0 < v AND k <> 'b';")],
        &[("plain", Resumes)],
    ),
    case(
        "a filter over groups that is new",
        &[(
            "GROUP BY k, window_start, window_end;\nCREATE MATERIALIZED VIEW closed",
            "GROUP BY k, window_start, window_end HAVING 2 < count(*);\nCREATE MATERIALIZED VIEW closed",
        )],
        &[("per_minute", Resumes), ("best", Anew)],
    ),
    case(
        "a filter over groups that are all kept",
        &[("HAVING 3 < count(*)", "HAVING 1 < count(*)")],
        &[("groups", Resumes)],
    ),
    case(
        "no filter over groups that are all kept",
        &[("HAVING 3 < count(*)", "")],
        &[("groups", Resumes)],
    ),
    case(
        "what the filter counted as a column",
        &[(
            "min(w) AS low FROM s GROUP BY k HAVING 3 < count(*)",
            "min(w) AS low, count(*) AS n FROM s GROUP BY k HAVING 3 < count(*)",
        )],
        &[("groups", Resumes)],
    ),
    case(
        "rows that come less often",
        &[(
            "min(w) AS low FROM s GROUP BY k HAVING 3 < count(*)",
            "min(w) AS low FROM s GROUP BY k HAVING 3 < count(*) EMIT EVERY INTERVAL '1 minute'",
        )],
        &[("groups", Resumes)],
    ),
    case(
        "another interval",
        &[("EMIT EVERY INTERVAL '1 minute'", "EMIT EVERY INTERVAL '30 seconds'")],
        &[("calm", Resumes)],
    ),
    // Of another state.
    case(
        "a column that was not kept",
        &[(
            "SELECT k, v, ts FROM s WHERE 0 < v",
            "SELECT k, v, w, ts FROM s WHERE 0 < v",
        )],
        &[("plain", Again)],
    ),
    case(
        "a filter that lets more through",
        &[("FROM s WHERE 0 < v;", "FROM s WHERE 0 <= v;")],
        &[("plain", Again)],
    ),
    case(
        "no filter over windows",
        &[("HAVING 1 < count(*) EMIT ON", "EMIT ON")],
        &[("closed", Again)],
    ),
    case(
        "a filter below",
        &[("WHERE v < 1000 AND 0 < w", "WHERE v < 100 AND 0 < w")],
        &[("per_minute", Again), ("best", Anew)],
    ),
    case(
        "a new aggregate",
        &[(
            "sum(v) AS total FROM TUMBLE",
            "sum(v) AS total, min(v) AS low FROM TUMBLE",
        )],
        &[("per_minute", Again), ("best", Anew)],
    ),
    case(
        "an aggregate of something else",
        &[("sum(v) AS total, min(w)", "sum(w) AS total, min(w)")],
        &[("groups", Again)],
    ),
    case(
        "distinct values",
        &[(
            "VIEW groups AS SELECT k, sum(v) AS",
            "VIEW groups WITH (unbounded_state = 'allow') AS SELECT k, sum(DISTINCT v) AS",
        )],
        &[("groups", Again)],
    ),
    case(
        "another window",
        &[(
            "TUMBLE(s, ts, INTERVAL '1 minute')",
            "TUMBLE(s, ts, INTERVAL '2 minutes')",
        )],
        &[("per_minute", Again), ("best", Anew)],
    ),
    case(
        "another kind of window",
        &[(
            "TUMBLE(s, ts, INTERVAL '1 minute')",
            "CUMULATE(s, ts, INTERVAL '1 minute', INTERVAL '2 minutes')",
        )],
        &[("per_minute", Again), ("best", Anew)],
    ),
    case(
        "another slide",
        &[(
            "HOP(s, ts, INTERVAL '1 minute', INTERVAL '2 minutes')",
            "HOP(s, ts, INTERVAL '30 seconds', INTERVAL '2 minutes')",
        )],
        &[("closed", Again)],
    ),
    case(
        "another gap",
        &[("INTERVAL '20 seconds', k", "INTERVAL '10 seconds', k")],
        &[("visits", Again)],
    ),
    case(
        "another key",
        &[(
            "SELECT k, sum(v) AS total, min(w) AS low FROM s GROUP BY k HAVING",
            "SELECT w AS k, sum(v) AS total, min(w) AS low FROM s GROUP BY w HAVING",
        )],
        &[("groups", Again)],
    ),
    case(
        "a key more",
        &[(
            "SELECT k, sum(v) AS total, min(w) AS low FROM s GROUP BY k HAVING",
            "SELECT k, spare, sum(v) AS total, min(w) AS low FROM s GROUP BY k, spare HAVING",
        )],
        &[("groups", Again)],
    ),
    case(
        "no aggregate",
        &[(
            "SELECT k, sum(v) AS total, min(w) AS low FROM s GROUP BY k HAVING 3 < count(*)",
            "SELECT k, v AS total, w AS low FROM s",
        )],
        &[("groups", Again)],
    ),
    case(
        "rows as they change",
        &[("HAVING 1 < count(*) EMIT ON WINDOW CLOSE", "HAVING 1 < count(*)")],
        &[("closed", Again)],
    ),
    case(
        "rows once they are final",
        &[(
            "GROUP BY k, window_start, window_end;\nCREATE MATERIALIZED VIEW closed",
            "GROUP BY k, window_start, window_end EMIT ON WINDOW CLOSE;\nCREATE MATERIALIZED VIEW closed",
        )],
        &[("per_minute", Again), ("best", Anew)],
    ),
    case(
        "rows that do not wait any more",
        &[(" EMIT EVERY INTERVAL '1 minute'", "")],
        &[("calm", Again)],
    ),
    case(
        "rows that wait and are others",
        &[(
            "SELECT k, sum(double_of(v)) AS total FROM s",
            "SELECT k, sum(double_of(v)) + 1 AS total FROM s",
        )],
        &[("calm", Again)],
    ),
    case(
        "allowed lateness",
        &[(
            "VIEW per_minute AS",
            "VIEW per_minute WITH (allowed_lateness = '1 minute') AS",
        )],
        &[("per_minute", Again), ("best", Anew)],
    ),
    case(
        "another time to leave",
        &[("now() - INTERVAL '5 minutes'", "now() - INTERVAL '10 minutes'")],
        &[("recent", Again)],
    ),
    case(
        "a column of rows that leave",
        &[("VIEW recent AS SELECT k, v, ts", "VIEW recent AS SELECT k, ts")],
        &[("recent", Again)],
    ),
    case("another function", &[("AS x * 2", "AS x * 3")], &[("calm", Again)]),
    // Other views.
    case(
        "a view over a view",
        &[("max(total) AS best", "min(total) AS best")],
        &[("best", Anew)],
    ),
    case(
        "a new view over a view",
        &[(
            "CREATE MATERIALIZED VIEW named",
            "CREATE MATERIALIZED VIEW few AS SELECT k FROM best WHERE windows < 3;\nCREATE MATERIALIZED VIEW named",
        )],
        &[("few", Anew)],
    ),
    case(
        "a new view over a table",
        &[(
            "CREATE MATERIALIZED VIEW named",
            "CREATE MATERIALIZED VIEW count_of AS SELECT count(*) AS n FROM names;\nCREATE MATERIALIZED VIEW named",
        )],
        &[("count_of", Anew)],
    ),
    case(
        "a new view over the source",
        &[(
            "CREATE MATERIALIZED VIEW named",
            "CREATE MATERIALIZED VIEW all_of AS SELECT count(*) AS n FROM s;\nCREATE MATERIALIZED VIEW named",
        )],
        &[("all_of", New)],
    ),
    case(
        "a view less",
        &[(
            "CREATE MATERIALIZED VIEW best AS SELECT k, max(total) AS best, count(*) AS windows FROM per_minute GROUP BY k;",
            "",
        )],
        &[("best", Dropped)],
    ),
    case(
        "another name for a view",
        &[("VIEW visits", "VIEW sessions")],
        &[("sessions", New), ("visits", Dropped)],
    ),
    // The source.
    case(
        "a column that no view reads",
        &[("spare VARCHAR,", "spare VARCHAR, more BIGINT NOT NULL,")],
        &[],
    ),
    case("a column less that no view read", &[("spare VARCHAR, ts", "ts")], &[]),
    case(
        "another type of a column that no view reads",
        &[("spare VARCHAR", "spare BIGINT")],
        &[],
    ),
    case(
        "another type of a column",
        &[("w BIGINT", "w INT")],
        &[("per_minute", Again), ("groups", Again), ("best", Anew)],
    ),
    case(
        "no null in a column",
        &[("w BIGINT", "w BIGINT NOT NULL")],
        &[("per_minute", Again), ("groups", Again), ("best", Anew)],
    ),
    case(
        "another watermark",
        &[("INTERVAL '5 seconds'", "INTERVAL '40 seconds'")],
        &[
            ("per_minute", Again),
            ("closed", Again),
            ("visits", Again),
            ("best", Anew),
        ],
    ),
    case(
        "another reading of records",
        &[("format = 'json'", "format = 'json', timestamp_format = 'epoch_ms'")],
        &[
            ("plain", Again),
            ("per_minute", Again),
            ("closed", Again),
            ("groups", Again),
            ("calm", Again),
            ("visits", Again),
            ("recent", Again),
            ("best", Anew),
        ],
    ),
    Case {
        what: "another key of a table",
        edits: &[(
            "k VARCHAR PRIMARY KEY, name VARCHAR",
            "k VARCHAR, name VARCHAR PRIMARY KEY",
        )],
        expected: Expected::OtherSource("names"),
    },
];

fn edited(case: &Case) -> String {
    case.edits.iter().fold(PIPELINE.to_owned(), |text, (from, to)| {
        assert_eq!(
            text.matches(from).count(),
            1,
            "{}: `{from}` stands in the pipeline once",
            case.what
        );
        text.replacen(from, to, 1)
    })
}

fn verdicts(
    engine: &Engine,
    before: &Engine,
) -> BTreeMap<String, Result<BTreeMap<String, (Verdict, Vec<String>)>, Vec<String>>> {
    let changes = engine.changes_since(&before.shapes(), &Rebuild::default());
    let of = |changes: Vec<zeta::plan::Change>| {
        let of_view = |change: zeta::plan::Change| (change.view, (change.verdict, change.reasons));
        changes.into_iter().map(of_view).collect()
    };
    changes
        .into_iter()
        .map(|changes| (changes.source, changes.outcome.map(of)))
        .collect()
}

#[test]
fn an_edit_is_told_view_by_view() {
    let (folder, topics) = (tempfile::tempdir().unwrap(), MemoryTopics::default());
    let clock = Arc::new(ManualClock::at(EventTime(START)));
    let before = defined(PIPELINE, &topics, folder.path(), &clock);
    let mut wrong = Vec::new();
    for case in CASES {
        let found = verdicts(&defined(&edited(case), &topics, folder.path(), &clock), &before);
        for (source, outcome) in &found {
            match (outcome, &case.expected) {
                (Err(_), Expected::OtherSource(other)) if other == source => {}
                (Ok(_), Expected::OtherSource(other)) if other != source => {}
                (Ok(changes), Expected::Views(expected)) => {
                    for (view, (verdict, reasons)) in changes {
                        let wanted = expected.iter().find(|(name, _)| name == view);
                        let wanted = wanted.map_or(Verdict::Same, |(_, verdict)| *verdict);
                        if *verdict != wanted {
                            wrong.push(format!("{}: {view} is {verdict}, not {wanted}: {reasons:?}", case.what));
                        }
                        let says_why = !reasons.is_empty() || matches!(verdict, Verdict::Same | Dropped | New | Anew);
                        if !says_why {
                            wrong.push(format!("{}: {view} is {verdict} without a reason", case.what));
                        }
                    }
                }
                _ => wrong.push(format!("{}: {source}: {outcome:?}", case.what)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_difference_is_told_in_the_words_of_the_query() {
    let (folder, topics) = (tempfile::tempdir().unwrap(), MemoryTopics::default());
    let clock = Arc::new(ManualClock::at(EventTime(START)));
    let before = defined(PIPELINE, &topics, folder.path(), &clock);
    for (what, view, expected) in [
        (
            "another window",
            "per_minute",
            "window of `per_minute` was windows of 60 s, is windows of 120 s",
        ),
        (
            "another watermark",
            "closed",
            "watermark of `closed` was ts - INTERVAL '5 seconds', is ts - INTERVAL '40 seconds'",
        ),
        (
            "a new aggregate",
            "per_minute",
            "aggregate min(v) of `per_minute` is new",
        ),
        (
            "a new aggregate",
            "best",
            "`best` reads `per_minute`, which is computed anew",
        ),
        ("another key", "groups", "key of `groups` was k, is w"),
        (
            "a filter below",
            "per_minute",
            "filter of `per_minute` was v < 1000 AND w > 0, is v < 100 AND w > 0",
        ),
        (
            "allowed lateness",
            "per_minute",
            "allowed lateness of `per_minute` was 0 s, is 60 s",
        ),
        (
            "rows as they change",
            "closed",
            "emit of `closed` was on window close, is changes",
        ),
        (
            "a renamed column",
            "per_minute",
            "column `n` of `per_minute` is named `trades` now",
        ),
        (
            "another function",
            "calm",
            "aggregate sum(double_of(v)) of `calm` is called as before, but brackets, the type of a column or a function in it are others",
        ),
        (
            "a column that was not kept",
            "plain",
            "column `w` of `plain` is w now, which the rows that it keeps do not tell",
        ),
    ] {
        let case = CASES.iter().find(|case| case.what == what).expect("a case");
        let found = verdicts(&defined(&edited(case), &topics, folder.path(), &clock), &before);
        let (_, reasons) = &found["s"].as_ref().expect("the same source")[view];
        assert!(reasons.iter().any(|reason| reason == expected), "{what}: {reasons:#?}");
    }
}

#[test]
fn sinks_go_on_where_the_rows_are_the_same_and_else_it_is_said_that_all_are_published_again() {
    let (folder, topics) = (tempfile::tempdir().unwrap(), MemoryTopics::default());
    let clock = Arc::new(ManualClock::at(EventTime(START)));
    let text = format!(
        "CREATE SOURCE s (k VARCHAR, v BIGINT) WITH (connector = 'memory', format = 'json');
         CREATE MATERIALIZED VIEW few AS SELECT k, v FROM s WHERE 0 < v EMIT EVERY INTERVAL '1 minute';
         CREATE MATERIALIZED VIEW many AS SELECT k, v FROM s WHERE 0 < v;
         CREATE SINK files FROM few WITH (connector = 'parquet', path = '{}');
         CREATE MATERIALIZED VIEW totals AS SELECT k, sum(v) AS total FROM s GROUP BY k;
         CREATE SINK records FROM many WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'one:9092');
         CREATE SINK keyed FROM totals WITH (connector = 'kafka', topic = 'k', 'bootstrap.servers' = 'one:9092');",
        folder.path().join("out").display()
    );
    let before = defined(&text, &topics, folder.path(), &clock);
    for (from, to, expected) in [
        ("'1 minute'", "'30 seconds'", None),
        (
            "FROM s WHERE 0 < v EMIT",
            "FROM s WHERE 1 < v EMIT",
            Some(("few", "sink `files` takes no rows back")),
        ),
        (
            "VIEW many AS SELECT k, v FROM",
            "VIEW many AS SELECT k, v AS w FROM",
            Some(("many", "sink `records` publishes all rows again")),
        ),
        (
            "VIEW many AS SELECT k, v FROM",
            "VIEW many AS SELECT v, k FROM",
            Some(("many", "sink `records` publishes all rows again")),
        ),
        (
            "GROUP BY k",
            "GROUP BY k HAVING 10 < sum(v)",
            Some((
                "totals",
                "sink `keyed` publishes all rows again, and takes back none that are gone",
            )),
        ),
    ] {
        assert_eq!(text.matches(from).count(), 1, "`{from}` stands there once");
        let edited = defined(&text.replacen(from, to, 1), &topics, folder.path(), &clock);
        let found = verdicts(&edited, &before);
        for (view, (_, reasons)) in found["s"].as_ref().expect("the same source") {
            let told: Vec<&String> = reasons.iter().filter(|reason| reason.starts_with("sink ")).collect();
            match expected.filter(|(changed, _)| changed == view) {
                Some((_, sentence)) => assert!(told.len() == 1 && told[0].starts_with(sentence), "{to}: {told:?}"),
                None => assert!(told.is_empty(), "{to}: {told:?}"),
            }
        }
    }
}

#[test]
fn a_source_is_another_one_where_its_positions_mean_something_else() {
    let (folder, topics) = (tempfile::tempdir().unwrap(), MemoryTopics::default());
    let clock = Arc::new(ManualClock::at(EventTime(START)));
    let text = "CREATE SOURCE s (k BIGINT) WITH (connector = 'kafka', topic = 'a', 'bootstrap.servers' = 'one:9092', format = 'json');
        CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s;";
    let before = defined(text, &topics, folder.path(), &clock);
    for (from, to, expected) in [
        ("one:9092", "two:9092,three:9092", None),
        ("'one:9092'", "'one:9092', 'security.protocol' = 'PLAINTEXT'", None),
        (
            "topic = 'a'",
            "topic = 'b'",
            Some("topic of source `s` was `a`, is `b`"),
        ),
        (
            "connector = 'kafka', topic = 'a', 'bootstrap.servers' = 'one:9092', format = 'json'",
            "connector = 'memory'",
            Some("connector of source `s` was `kafka`, is `memory`"),
        ),
    ] {
        let found = verdicts(
            &defined(&text.replace(from, to), &topics, folder.path(), &clock),
            &before,
        );
        match (&found["s"], expected) {
            (Ok(changes), None) => assert_eq!(changes["v"].0, Verdict::Same, "{to}: {changes:?}"),
            (Err(differences), Some(expected)) => {
                assert!(
                    differences.iter().any(|difference| difference == expected),
                    "{to}: {differences:?}"
                );
            }
            (found, _) => panic!("{to}: {found:?}"),
        }
    }
}

#[test]
fn brackets_are_part_of_an_expression() {
    let (folder, topics) = (tempfile::tempdir().unwrap(), MemoryTopics::default());
    let clock = Arc::new(ManualClock::at(EventTime(START)));
    let of_query = |query: &str| {
        let text = format!(
            "CREATE SOURCE s (a DOUBLE, b DOUBLE, c DOUBLE, v BIGINT, w BIGINT, p BOOLEAN, q BOOLEAN)
               WITH (connector = 'memory', format = 'json');
             CREATE MATERIALIZED VIEW v AS {query};"
        );
        defined(&text, &topics, folder.path(), &clock)
    };
    for (was, is) in [
        ("SELECT a - (b - c) AS x FROM s", "SELECT a - b - c AS x FROM s"),
        ("SELECT a / (b * c) AS x FROM s", "SELECT a / b * c AS x FROM s"),
        ("SELECT v & (w | 1) AS x FROM s", "SELECT v & w | 1 AS x FROM s"),
        (
            "SELECT a FROM s WHERE (p OR q) IS NULL",
            "SELECT a FROM s WHERE p OR q IS NULL",
        ),
        (
            "SELECT sum(a - (b - c)) AS x FROM s",
            "SELECT sum(a - b - c) AS x FROM s",
        ),
    ] {
        let found = verdicts(&of_query(is), &of_query(was));
        let (verdict, reasons) = &found["s"].as_ref().expect("the same source")["v"];
        assert_eq!(*verdict, Again, "{was} and {is}: {reasons:?}");
        let same = verdicts(&of_query(was), &of_query(was));
        let (verdict, reasons) = &same["s"].as_ref().expect("the same source")["v"];
        assert_eq!(*verdict, Verdict::Same, "{was}: {reasons:?}");
    }
}

/// Where the state of before has its last checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Checkpoint,
    CheckpointAndJournal,
    Journal,
}

/// Rows of two splits, some of them late; `part` is what is written between two epochs.
fn write(topics: &MemoryTopics, part: u64) {
    for split in 0..2u64 {
        let topic = topics.of("s");
        let mut records = RecordsBuilder::default();
        for row in 0..12u64 {
            let number = part * 12 + row;
            let key = ["a", "b", "c"][(number * 7 % 3) as usize];
            let back = if number % 9 == 4 { 150 } else { number % 4 };
            let second = (number * 4 + split) as i64 - back as i64;
            let ts = EventTime(START + second * 1_000_000_000);
            let (v, w) = ((number * 37 % 90) as i64 - 9, (number % 5) as i64);
            let record = match number % 11 {
                3 => format!(r#"{{"k":"{key}","v":null,"w":{w},"ts":"{ts}"}}"#),
                5 => format!(r#"{{"k":"{key}","v":{v},"ts":"{ts}"}}"#),
                _ => format!(
                    r#"{{"k":"{key}","v":{v},"w":{w},"ts":"{ts}","spare":"x{}"}}"#,
                    number % 2
                ),
            };
            records.push(number, None, None, Some(record.as_bytes()));
        }
        topic.append_records(&SplitId::from(split as i32), records.finish());
    }
}

fn step(engine: &Engine, checkpoint: bool) {
    for source in ["s", "names"] {
        let end = StepEnd {
            checkpoint,
            ..StepEnd::default()
        };
        engine.step(source, end).expect("an epoch");
    }
}

/// What is done before the edit.
fn before(engine: &Engine, topics: &MemoryTopics, clock: &ManualClock, kept: Kept) {
    for part in 0..4 {
        write(topics, part);
        block_on(sql(
            engine,
            &format!("INSERT INTO names VALUES ('k{part}', 'n{}')", part % 2),
        ));
        clock.advance(Duration::from_secs(47));
        step(
            engine,
            kept == Kept::CheckpointAndJournal && part == 1 || kept == Kept::Checkpoint && part == 3,
        );
    }
}

/// And after it.
fn after(engine: &Engine, topics: &MemoryTopics, clock: &ManualClock) {
    for part in 4..7 {
        write(topics, part);
        block_on(sql(
            engine,
            &format!("INSERT INTO names VALUES ('k{}', 'n2')", part % 3),
        ));
        clock.advance(Duration::from_secs(47));
        step(engine, false);
    }
    // What waits for an interval comes.
    for _ in 0..3 {
        clock.advance(Duration::from_nanos(MINUTE as u64 + 1));
        step(engine, false);
    }
}

fn rows(engine: &Engine, view: &str) -> Vec<String> {
    let batches = block_on(sql(engine, &format!("SELECT * FROM {view}")));
    let text = arrow::util::pretty::pretty_format_batches(&batches)
        .expect("rows")
        .to_string();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

fn all_rows(engine: &Engine, views: &[String]) -> BTreeMap<String, Vec<String>> {
    views.iter().map(|view| (view.clone(), rows(engine, view))).collect()
}

#[test]
fn what_goes_on_shows_what_it_would_show_had_it_always_been_so() {
    // One kind of state each; all kinds with ZETA_CHANGES=all.
    for (number, case) in CASES.iter().enumerate() {
        let Expected::Views(expected) = case.expected else {
            continue;
        };
        let text = edited(case);
        let gone = |view: &&str| expected.contains(&(*view, Dropped));
        let added = expected
            .iter()
            .filter(|(view, _)| !VIEWS.contains(view))
            .map(|(view, _)| *view);
        let views: Vec<String> = VIEWS
            .iter()
            .copied()
            .filter(|view| !gone(view))
            .chain(added)
            .map(str::to_owned)
            .collect();
        let again: Vec<&str> = (expected.iter())
            .filter(|(_, verdict)| verdict.needs_rebuild())
            .map(|(view, _)| *view)
            .collect();

        let (folder, topics) = (tempfile::tempdir().unwrap(), MemoryTopics::default());
        let clock = Arc::new(ManualClock::at(EventTime(START)));
        let always = defined(&text, &topics, folder.path(), &clock);
        always.open().unwrap();
        before(&always, &topics, &clock, Kept::Journal);
        after(&always, &topics, &clock);
        let wanted = all_rows(&always, &views);
        if case.what == "nothing" {
            for (view, rows) in &wanted {
                assert!(5 < rows.len(), "{view} has rows: {rows:#?}");
            }
        }

        // A record that is bad from now on stays a row of those that do not read the column.
        let is_promised =
            |view: &str| case.what != "no null in a column" || expected.iter().any(|(changed, _)| *changed == view);
        let wanted: BTreeMap<_, _> = wanted.into_iter().filter(|(view, _)| is_promised(view)).collect();
        let all = [Kept::Checkpoint, Kept::CheckpointAndJournal, Kept::Journal];
        // From a journal alone all is made anew: it says nothing of what is taken up.
        let takes_up = expected.is_empty() || expected.iter().any(|(_, verdict)| *verdict == Resumes);
        let one_of = if takes_up { &all[..2] } else { &all[..] };
        let kept_as = match std::env::var_os("ZETA_CHANGES") {
            Some(_) => &all[..],
            None => &one_of[number % one_of.len()..][..1],
        };
        for kept in kept_as.iter().copied() {
            let (folder, topics) = (tempfile::tempdir().unwrap(), MemoryTopics::default());
            let clock = Arc::new(ManualClock::at(EventTime(START)));
            {
                let first = defined(PIPELINE, &topics, folder.path(), &clock);
                first.open().unwrap();
                before(&first, &topics, &clock, kept);
            }
            if !again.is_empty() {
                let refused = defined(&text, &topics, folder.path(), &clock)
                    .open()
                    .expect_err(case.what)
                    .to_string();
                assert!(
                    refused.contains("was made by another definition"),
                    "{}: {refused}",
                    case.what
                );
                for view in &again {
                    assert!(
                        refused.contains(&format!("--rebuild {view}")),
                        "{}: {refused}",
                        case.what
                    );
                }
            }
            let second = defined(&text, &topics, folder.path(), &clock);
            let rebuild = Rebuild {
                views: again.iter().map(|view| (*view).to_owned()).collect(),
                takes_what_is_left: false,
            };
            second.rebuild(rebuild).unwrap();
            second
                .open()
                .unwrap_or_else(|error| panic!("{}, {kept:?}: {error}", case.what));
            after(&second, &topics, &clock);
            compare(case.what, kept, &all_rows(&second, &views), &wanted);

            // What it keeps now is of the edited pipeline.
            drop(second);
            let third = defined(&text, &topics, folder.path(), &clock);
            third
                .open()
                .unwrap_or_else(|error| panic!("{}, {kept:?}, once more: {error}", case.what));
            compare(case.what, kept, &all_rows(&third, &views), &wanted);
        }
    }
}

fn compare(what: &str, kept: Kept, found: &BTreeMap<String, Vec<String>>, wanted: &BTreeMap<String, Vec<String>>) {
    for (view, rows) in wanted {
        let found = &found[view];
        let missing: Vec<_> = rows.iter().filter(|row| !found.contains(row)).collect();
        let more: Vec<_> = found.iter().filter(|row| !rows.contains(row)).collect();
        assert!(
            found == rows,
            "{what}, {kept:?}: {view} has {} lines, not {}\nmissing: {missing:#?}\nmore: {more:#?}",
            found.len(),
            rows.len()
        );
    }
}

/// Views some of whose rows could not be computed, over the rows that `write` gives.
const FAILING: &str = "
CREATE SOURCE s (k VARCHAR, v BIGINT, w BIGINT, spare VARCHAR, ts TIMESTAMP) WITH (connector = 'memory', format = 'json', trigger = '0');
CREATE TABLE names (k VARCHAR PRIMARY KEY, name VARCHAR);
CREATE MATERIALIZED VIEW divided AS SELECT k, v, ts, 10 / w AS q FROM s;
CREATE MATERIALIZED VIEW groups AS SELECT w AS g, 10 / sum(w) AS q, count(*) AS n, sum(w) AS t FROM s GROUP BY w HAVING sum(w) < 1000;
CREATE MATERIALIZED VIEW above AS SELECT count(*) AS n, sum(t) AS t FROM groups;
CREATE MATERIALIZED VIEW sums AS SELECT k, sum(CASE WHEN k = 'a' THEN v * 100000000000000000 ELSE v END) AS large, count(*) AS n
  FROM s GROUP BY k;
CREATE MATERIALIZED VIEW parts AS SELECT k, sum(10 / w) AS parts, count(*) AS n FROM s GROUP BY k;
CREATE MATERIALIZED VIEW good AS SELECT k, v, ts, v * 10 AS ten FROM s;";

#[test]
fn rows_that_could_not_be_computed_come_back_with_what_failed_in_them_or_the_edit_is_refused() {
    let views: Vec<String> = ["divided", "groups", "above", "sums", "parts", "good"]
        .map(str::to_owned)
        .into();
    for (what, from, to, refused) in [
        (
            "a column that failed",
            ", 10 / w AS q FROM s;",
            " FROM s;",
            Some("divided"),
        ),
        ("a column over groups that are all held", "10 / sum(w) AS q, ", "", None),
        (
            "a filter over groups that are all held",
            " HAVING sum(w) < 1000",
            "",
            None,
        ),
        (
            "an aggregate whose sum is too large",
            "sum(CASE WHEN k = 'a' THEN v * 100000000000000000 ELSE v END) AS large, ",
            "",
            Some("sums"),
        ),
        (
            "an aggregate whose argument failed",
            "sum(10 / w) AS parts, ",
            "",
            Some("parts"),
        ),
        ("a column that never failed", ", v * 10 AS ten", "", None),
    ] {
        assert_eq!(FAILING.matches(from).count(), 1, "{what}: `{from}` stands there once");
        let text = FAILING.replacen(from, to, 1);
        let always = fresh(&text);
        for kept in [Kept::Checkpoint, Kept::CheckpointAndJournal] {
            let (folder, topics) = (tempfile::tempdir().unwrap(), MemoryTopics::default());
            let clock = Arc::new(ManualClock::at(EventTime(START)));
            let first = defined(FAILING, &topics, folder.path(), &clock);
            first.open().unwrap();
            before(&first, &topics, &clock, kept);
            for view in ["divided", "groups", "sums", "parts"] {
                let errors = rows(&first, &format!("\"{view}$errors\""));
                assert!(4 < errors.len(), "{what}: {view} has rows that failed: {errors:#?}");
            }
            let told = rows(&first, "\"groups$errors\"");
            drop(first);
            if let Some(view) = refused {
                let again = engine_that_goes_on(&text, &topics, folder.path(), &clock, Rebuild::default());
                let refused = again.err().unwrap_or_else(|| panic!("{what}, {kept:?}: it goes on"));
                assert!(refused.contains(&format!("--rebuild {view}")), "{what}: {refused}");
                assert!(refused.contains("could not be computed"), "{what}: {refused}");
            }
            let rebuild = Rebuild {
                views: refused.into_iter().map(str::to_owned).collect(),
                takes_what_is_left: false,
            };
            let second = engine_that_goes_on(&text, &topics, folder.path(), &clock, rebuild)
                .unwrap_or_else(|error| panic!("{what}, {kept:?}: {error}"));
            compare(what, kept, &all_rows(&second, &views), &all_rows(&always, &views));
            if kept == Kept::Checkpoint {
                assert_eq!(rows(&second, "\"groups$errors\""), told, "{what}: told once");
            }
            // What comes next finds the rows that it takes back.
            after(&second, &topics, &clock);
            let (topics, clock) = (MemoryTopics::default(), Arc::new(ManualClock::at(EventTime(START))));
            let folder = tempfile::tempdir().unwrap();
            let always = defined(&text, &topics, folder.path(), &clock);
            always.open().unwrap();
            before(&always, &topics, &clock, Kept::Journal);
            after(&always, &topics, &clock);
            compare(what, kept, &all_rows(&second, &views), &all_rows(&always, &views));
        }
    }
}

#[test]
fn late_rows_stay_where_names_in_between_change_and_it_is_said_where_they_go() {
    let text = |key: &str, value: &str, more: &str| {
        let table = "CREATE TABLE names (k VARCHAR PRIMARY KEY, name VARCHAR);";
        let source = &PIPELINE[PIPELINE.find("CREATE SOURCE").unwrap()..PIPELINE.find("CREATE TABLE").unwrap()];
        format!(
            "{source}{table}
             CREATE MATERIALIZED VIEW counts AS SELECT {key} AS k, window_start, count(*) AS n{more}
             FROM (SELECT k AS {key}, v AS {value}, window_start, window_end FROM TUMBLE(s, ts, INTERVAL '1 minute'))
             GROUP BY {key}, window_start, window_end;"
        )
    };
    for (edited, verdict, keeps) in [
        (text("c", "d", ", sum(d) AS total"), Verdict::Same, true),
        (text("b", "a", ", sum(a) AS total"), Verdict::Same, true),
        (text("a", "b", ""), Resumes, false),
    ] {
        let (folder, topics) = (tempfile::tempdir().unwrap(), MemoryTopics::default());
        let clock = Arc::new(ManualClock::at(EventTime(START)));
        let first = defined(&text("a", "b", ", sum(b) AS total"), &topics, folder.path(), &clock);
        first.open().unwrap();
        before(&first, &topics, &clock, Kept::Checkpoint);
        let held = rows(&first, "\"counts$late\"").len();
        assert!(5 < held, "some rows are late");
        let found = verdicts(&defined(&edited, &topics, folder.path(), &clock), &first);
        let (found, reasons) = &found["s"].as_ref().expect("the same source")["counts"];
        assert_eq!(*found, verdict, "{edited}: {reasons:?}");
        let told = "late rows of `counts` have other columns now, and those that `counts$late` holds are not kept";
        assert_eq!(reasons.iter().any(|reason| reason == told), !keeps, "{reasons:?}");
        drop(first);
        let second = engine_that_goes_on(&edited, &topics, folder.path(), &clock, Rebuild::default()).unwrap();
        let left = rows(&second, "\"counts$late\"").len();
        match keeps {
            true => assert_eq!(left, held, "{edited}"),
            false => assert!(left <= 4, "a table without a row: {left} lines"),
        }
    }
}

#[test]
fn rows_that_are_gone_are_named_and_done_without_only_where_that_is_asked_for() {
    let (folder, topics) = (tempfile::tempdir().unwrap(), MemoryTopics::default());
    let clock = Arc::new(ManualClock::at(EventTime(START)));
    {
        let first = defined(PIPELINE, &topics, folder.path(), &clock);
        first.open().unwrap();
        before(&first, &topics, &clock, Kept::Checkpoint);
    }
    let whole = rows(
        &engine_that_goes_on(PIPELINE, &topics, folder.path(), &clock, Rebuild::default()).unwrap(),
        "plain",
    );
    topics.of("s").forget(&SplitId::from(0), Position(13));
    let text = PIPELINE.replace("min(w) AS low FROM s", "max(w) AS low FROM s");
    let rebuild = |takes_what_is_left| Rebuild {
        views: ["groups".to_owned()].into(),
        takes_what_is_left,
    };
    let refused = engine_that_goes_on(&text, &topics, folder.path(), &clock, rebuild(false))
        .err()
        .unwrap();
    assert!(
        refused.contains("rows 0 to 13 of split 0 are gone from source `s`: groups would be computed without them"),
        "{refused}"
    );
    assert!(refused.contains("--rebuild-partial"), "{refused}");
    // Nothing has changed.
    let again = engine_that_goes_on(PIPELINE, &topics, folder.path(), &clock, Rebuild::default()).unwrap();
    assert_eq!(rows(&again, "plain"), whole);
    drop(again);

    let second = engine_that_goes_on(&text, &topics, folder.path(), &clock, rebuild(true)).unwrap();
    assert!(5 < rows(&second, "groups").len(), "what is left is in it");
    assert_eq!(rows(&second, "plain"), whole, "the others keep what is gone");
    assert_ne!(
        rows(&second, "groups"),
        rows(&fresh(&text), "groups"),
        "what is gone is not in it"
    );
}

/// The pipeline over all rows of before.
fn fresh(text: &str) -> Engine {
    let (folder, topics) = (tempfile::tempdir().unwrap(), MemoryTopics::default());
    let clock = Arc::new(ManualClock::at(EventTime(START)));
    let engine = defined(text, &topics, folder.path(), &clock);
    engine.open().unwrap();
    before(&engine, &topics, &clock, Kept::Journal);
    engine
}

fn engine_that_goes_on(
    text: &str,
    topics: &MemoryTopics,
    state: &Path,
    clock: &Arc<ManualClock>,
    rebuild: Rebuild,
) -> Result<Engine, String> {
    let engine = defined(text, topics, state, clock);
    engine.rebuild(rebuild).unwrap();
    engine.open().map_err(|error| error.to_string())?;
    Ok(engine)
}

#[test]
fn a_view_that_is_computed_anew_as_it_is_shows_the_same_and_so_do_those_over_it() {
    let (folder, topics) = (tempfile::tempdir().unwrap(), MemoryTopics::default());
    let clock = Arc::new(ManualClock::at(EventTime(START)));
    let views: Vec<String> = VIEWS.iter().map(|view| (*view).to_owned()).collect();
    let first = defined(PIPELINE, &topics, folder.path(), &clock);
    first.open().unwrap();
    before(&first, &topics, &clock, Kept::CheckpointAndJournal);
    let held = all_rows(&first, &views);
    drop(first);
    let rebuild = Rebuild {
        views: ["per_minute", "closed", "visits", "plain", "groups", "recent"]
            .map(str::to_owned)
            .into(),
        takes_what_is_left: false,
    };
    let second = engine_that_goes_on(PIPELINE, &topics, folder.path(), &clock, rebuild).unwrap();
    compare(
        "computed anew",
        Kept::CheckpointAndJournal,
        &all_rows(&second, &views),
        &held,
    );

    let mistaken = defined(PIPELINE, &topics, folder.path(), &clock);
    let rebuild = Rebuild {
        views: ["per_minut".to_owned()].into(),
        takes_what_is_left: false,
    };
    let refused = mistaken.rebuild(rebuild).unwrap_err().to_string();
    assert_eq!(
        refused,
        "--rebuild per_minut: there is no such materialized view; did you mean per_minute?"
    );
}

#[test]
fn diff_says_beforehand_what_a_start_does() {
    let (old, state) = (written(PIPELINE), folder("state"));
    let text_of = |path: &Path| path.to_str().expect("a name").to_owned();
    let old = text_of(&old);
    let edited = |what: &str| {
        let case = CASES.iter().find(|case| case.what == what).expect("a case");
        text_of(&written(&edited(case)))
    };
    let goes_on = zeta(&["diff", &old, &edited("a renamed column")]).expect(0);
    let line = |out: &str, view: &str| out.lines().find(|line| line.starts_with(view)).expect(out).to_owned();
    let told = line(&goes_on.out, "per_minute");
    assert!(
        told.contains("resumes") && told.contains("column `n` of `per_minute` is named `trades` now"),
        "{told}"
    );
    assert!(line(&goes_on.out, "closed").contains("same"), "{}", goes_on.out);

    let refused = zeta(&["diff", &old, &edited("another window")]).expect(1);
    let told = line(&refused.out, "per_minute");
    assert!(
        told.contains("refused without --rebuild per_minute: window of `per_minute` was"),
        "{told}"
    );
    assert!(line(&refused.out, "best").contains("anew"), "{}", refused.out);
    let other = zeta(&["diff", &old, &edited("another key of a table")]).expect(1);
    assert!(line(&other.out, "names").contains("another source"), "{}", other.out);

    let json = zeta(&["diff", "--json", &old, &edited("another window")]).expect(1);
    let json: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    let of_view = json
        .as_array()
        .expect("a list")
        .iter()
        .find(|change| change["view"] == "per_minute");
    let of_view = of_view.expect("the view");
    assert_eq!(
        (&of_view["verdict"], &of_view["goes_on"]),
        (&"rebuild".into(), &false.into())
    );

    let source = "CREATE SOURCE t (k VARCHAR) WITH (connector = 'memory');";
    let view = "CREATE MATERIALIZED VIEW seen AS SELECT k FROM t;";
    let (alone, read) = (written(source), written(&format!("{source}\n{view}")));
    let begins = zeta(&["diff", &text_of(&alone), &text_of(&read)]).expect(0);
    assert!(begins.out.contains("begins with its source"), "{}", begins.out);

    zeta(&["diff", &old]).expect(1);
    zeta(&["diff", &old, &text_of(&written("CREATE NOTHING;"))]).expect(3);

    // Against a state.
    let started = Zeta::run(Path::new(&old)).state(&state).start();
    started.until_source("s", "an epoch", |source| source.state() == "running");
    let table = "INSERT INTO names VALUES ('a', 'b')";
    started.query(table);
    let made = "CREATE MATERIALIZED VIEW made AS SELECT count(*) AS n FROM names";
    started.post_sql(made, "application/json").expect(200);
    assert!(started.stop().success());
    // What another pipeline left in the folder is not looked at.
    let foreign = state.join("other/checkpoints/00000000000000000001");
    fs::create_dir_all(&foreign).expect("a folder");
    fs::write(foreign.join("MANIFEST"), "damaged").expect("a file");
    let state = text_of(&state);
    let same = zeta(&["diff", "--state", &state, &old]).expect(0);
    for view in ["per_minute", "named", "made"] {
        assert!(line(&same.out, view).contains("same"), "{}", same.out);
    }
    let refused = zeta(&["diff", "--state", &state, &edited("a new view over the source")]).expect(1);
    assert!(
        line(&refused.out, "all_of").contains("--rebuild all_of reads them again"),
        "{}",
        refused.out
    );
}

#[test]
fn a_start_is_refused_with_the_place_and_computes_anew_where_it_is_told_to() {
    let (dataset, state) = (dataset(2, 1, "2024-01-01"), folder("state"));
    let text = |path: &Path| path.to_str().expect("a name").to_owned();
    let old = edited_file("sql/candles.sql", &[]);
    let new = edited_file("sql/candles.sql", &[("max(high) AS high", "max(close) AS high")]);
    let replayed = |file: &Path| {
        let start = Zeta::run(file).env("HISTORY", text(&dataset));
        start.replay("candles", &dataset, ",speed=max").state(&state)
    };
    let finished = |zeta: &Zeta| zeta.until_source("candles", "the end", |source| source.state() == "finished");
    let zeta = replayed(&old).start();
    finished(&zeta);
    let before = zeta.rows("SELECT count(*), max(high) FROM candles_5m");
    assert!(zeta.stop().success());

    let (file, folder, source) = (
        text(&new),
        text(&state),
        format!("candles=connector=replay,path={},speed=max", text(&dataset)),
    );
    let arguments = [
        "run",
        &file,
        "--listen",
        "127.0.0.1:0",
        "--state",
        &folder,
        "--source",
        &source,
    ];
    let history = [("HISTORY", &*text(&dataset))];
    let refused = zeta_with(&history, &arguments).expect(1).err;
    for part in [
        "aggregate max(close) of `candles_5m` is new",
        "pipeline.sql:",
        "CREATE MATERIALIZED VIEW candles_5m",
        "--rebuild candles_5m",
        "--reset",
    ] {
        assert!(refused.contains(part), "{part} in {refused}");
    }

    let old_file = text(&old);
    let told = zeta_with(&history, &["diff", "--state", &folder, "--source", &source, &old_file])
        .expect(0)
        .out;
    assert!(told.contains("same") && !told.contains("another source"), "{told}");
    let told = zeta_with(&history, &["diff", "--state", &folder, &old_file])
        .expect(1)
        .out;
    assert!(
        told.contains("connector of source `candles` was `replay`, is `kafka`"),
        "{told}"
    );
    let unknown = source.replacen("candles=", "candels=", 1);
    let told = zeta_with(&history, &["diff", "--state", &folder, "--source", &unknown, &old_file]);
    assert!(
        told.err.contains("there is no such source; did you mean candles?"),
        "{}",
        told.err
    );

    let zeta = replayed(&new).arg("--rebuild").arg("candles_5m").start();
    finished(&zeta);
    let after = zeta.rows("SELECT count(*), max(high) FROM candles_5m");
    assert_eq!(after[0][0], before[0][0]);
    assert_ne!(after, before);
    let closes = zeta.rows("SELECT max(close) FROM history");
    assert_eq!(after[0][1], closes[0][0]);
    assert!(zeta.stop().success());
    // The state is of the new definition now.
    let zeta = replayed(&new).start();
    finished(&zeta);
    assert_eq!(zeta.rows("SELECT count(*), max(high) FROM candles_5m"), after);
    assert!(zeta.stop().success());
}

#[test]
fn rows_of_kafka_are_read_again_from_the_first_that_was_ever_read() {
    let (kafka, state) = (Kafka::shared(), folder("state"));
    let create = [
        "topics",
        "create",
        "rebuilt",
        "--partitions",
        "3",
        "--brokers",
        &kafka.brokers,
    ];
    zeta(&create).expect(0);
    let send = |numbers: std::ops::Range<u64>| {
        let mut producer = KafkaProducer::connect(&kafka.brokers, "rebuilt", &[]).expect("the topic is there");
        for number in numbers {
            let value = format!("{{\"n\":{number}}}");
            producer
                .send(value.as_bytes(), value.as_bytes(), 1_600_000_000_000)
                .expect("send");
        }
        producer.flush(Duration::from_secs(60)).expect("flush");
    };
    let pipeline = |aggregate: &str| {
        written(&format!(
            "CREATE SOURCE numbers (n BIGINT) WITH (connector = 'kafka', topic = 'rebuilt', bootstrap.servers = '{}', start = 'latest');\n\
             CREATE MATERIALIZED VIEW seen AS SELECT count(*) AS n FROM numbers;\n\
             CREATE MATERIALIZED VIEW odd AS SELECT n % 2 AS odd, {aggregate} AS value FROM numbers GROUP BY n % 2;",
            kafka.brokers
        ))
    };
    let shows = |zeta: &Zeta, sql: &str, expected: serde_json::Value| {
        until(sql, || match zeta.post_sql(sql, "application/json") {
            reply if reply.status == 200 && reply.json()["rows"] == expected => Ok(()),
            reply => Err(reply.text().to_owned()),
        });
    };
    // These are there before it begins, and never count.
    send(0..1_000);
    let started = Zeta::run(&pipeline("max(n)")).state(&state).start();
    started.until_source("numbers", "the end of the topic", |source| 0 < source.epoch());
    send(1_000..3_000);
    shows(&started, "SELECT n FROM seen", serde_json::json!([[2_000]]));
    assert!(started.stop().success());

    let rebuilt = Zeta::run(&pipeline("min(n)"))
        .state(&state)
        .arg("--rebuild")
        .arg("odd")
        .start();
    shows(
        &rebuilt,
        "SELECT odd, value FROM odd ORDER BY odd",
        serde_json::json!([[0, 1_000], [1, 1_001]]),
    );
    send(500..600);
    shows(
        &rebuilt,
        "SELECT odd, value FROM odd ORDER BY odd",
        serde_json::json!([[0, 500], [1, 501]]),
    );
    shows(&rebuilt, "SELECT n FROM seen", serde_json::json!([[2_100]]));
    // What was computed anew is kept.
    rebuilt.kill();
    let again = Zeta::run(&pipeline("min(n)")).state(&state).start();
    shows(
        &again,
        "SELECT odd, value FROM odd ORDER BY odd",
        serde_json::json!([[0, 500], [1, 501]]),
    );
    shows(&again, "SELECT n FROM seen", serde_json::json!([[2_100]]));
    assert!(again.stop().success());
}
