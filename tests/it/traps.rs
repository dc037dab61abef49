//! What other streaming engines got wrong, one test each, where no script can show it. The others stand in `tests/slt`:
//!
//! | trap | where |
//! | --- | --- |
//! | rows on both sides of a session gap inside one batch | `window/a_session_is_cut_at_gaps_inside_one_batch` |
//! | a session over many epochs is one row | `window/a_session_over_many_epochs_is_one_row` |
//! | a late row makes no second row of a closed window | `late/late_rows_are_kept_and_counted` |
//! | the watermark never decreases, also over a restart | `watermark/it_never_goes_back` |
//! | group keys survive a checkpoint | `recovery/checkpoint_then_crash` |
//! | late is judged by the watermark before, closed by the one behind | `late/lateness_inside_one_epoch` |
//! | a finished or idle split neither stalls time nor ends it | `watermark/an_idle_split_does_not_hold_it`, `watermark/all_splits_idle` |
//! | results do not depend on batches and on how splits interleave | `equivalence.rs`, `window/the_same_rows_in_any_cut` |
//! | `first_value` without an order is refused | `window/first_and_last_by_event_time` |
//! | a read behind an answered write sees it | `table.rs` |
//! | unsupported syntax is an error, never passed over | `errors/syntax`, `src/sql/tests` |

use std::{path::Path, sync::Arc};

use arrow::{
    array::{AsArray, Int64Array, RecordBatch, TimestampNanosecondArray},
    datatypes::Int64Type,
    util::pretty::pretty_format_batches,
};
use zeta::{
    cli::{MemoryTopics, registry},
    runtime::{
        Bounds, Engine, EngineOptions, Mode, StepEnd, ViewReader,
        clock::{ManualClock, SystemClock},
        query_environment,
    },
    types::{EventTime, SplitId},
};

use super::engine::{block_on, engine, sql};

const SECOND: i64 = 1_000_000_000;
const SOURCE: &str =
    "CREATE SOURCE src (k BIGINT, ts TIMESTAMP, WATERMARK FOR ts) WITH (connector = 'memory', trigger = '1 hour')";

fn rows(rows: impl IntoIterator<Item = (i64, i64)>) -> RecordBatch {
    let (keys, times): (Vec<i64>, Vec<i64>) = rows.into_iter().unzip();
    RecordBatch::try_from_iter([
        ("k", Arc::new(Int64Array::from(keys)) as _),
        ("ts", Arc::new(TimestampNanosecondArray::from(times)) as _),
    ])
    .unwrap()
}

fn manual(topics: &MemoryTopics, state: &Path, view: &str) -> Engine {
    let clock = Arc::new(ManualClock::at(EventTime(1_000_000 * SECOND)));
    let engine = engine(topics, state, Mode::Manual, clock);
    block_on(async {
        sql(&engine, SOURCE).await;
        sql(&engine, view).await;
    });
    engine
}

fn state_bytes(engine: &Engine) -> i64 {
    engine
        .step(
            "src",
            StepEnd {
                checkpoint: true,
                ..StepEnd::default()
            },
        )
        .unwrap();
    engine.metrics().state_bytes.with_label_values(&["v"]).get()
}

#[test]
fn closed_sessions_leave_nothing_in_state() {
    let topics = MemoryTopics::default();
    let state = tempfile::tempdir().unwrap();
    let engine = manual(
        &topics,
        state.path(),
        "CREATE MATERIALIZED VIEW v AS SELECT k, window_start, count(*) AS n FROM SESSION(src, ts, INTERVAL '1 second', k) \
         GROUP BY k, window_start, window_end EMIT ON WINDOW CLOSE",
    );
    let mut measured = Vec::new();
    for round in 0..4 {
        // Ever new keys, each with a session of its own; the last row of each epoch closes those before it.
        for epoch in round * 200..(round + 1) * 200 {
            let of_epoch = (0..20).map(|row| (epoch * 20 + row, epoch * 10 * SECOND + row));
            topics.of("src").append(&SplitId::from(0), rows(of_epoch));
            engine.step("src", StepEnd::default()).unwrap();
        }
        measured.push(state_bytes(&engine));
    }
    let n = block_on(sql(&engine, "SELECT count(*) FROM v"));
    assert!(
        pretty_format_batches(&n).unwrap().to_string().contains("15980"),
        "all but the last epoch's are closed"
    );
    // What is open is the same each time; the view's own rows are not state of the operator but are counted with it.
    let per_round: Vec<i64> = measured.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let row_bytes = per_round[0] / 4_000;
    assert!(row_bytes < 200, "more than the rows of the view stays: {measured:?}");
}

#[test]
fn epochs_leave_nothing_behind() {
    let topics = MemoryTopics::default();
    let state = tempfile::tempdir().unwrap();
    let engine = manual(
        &topics,
        state.path(),
        "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS n, max(ts) AS last FROM src WHERE 0 <= k GROUP BY k",
    );
    let run = |epochs: std::ops::Range<i64>| {
        for epoch in epochs {
            topics
                .of("src")
                .append(&SplitId::from(0), rows([(epoch % 3, epoch * SECOND)]));
            engine.step("src", StepEnd::default()).unwrap();
        }
        state_bytes(&engine)
    };
    let early = run(0..500);
    let late = run(500..3_000);
    assert!(
        late <= 2 * early,
        "{early} bytes after 500 epochs, {late} after 3,000 of the same keys"
    );
}

#[test]
fn an_expression_has_one_value_in_a_view_and_in_a_query() {
    let topics = MemoryTopics::default();
    let state = tempfile::tempdir().unwrap();
    let expressions = [
        "k / 2",
        "k % 3",
        "-k",
        "k * 1.5",
        "CAST(k AS DOUBLE) / 3",
        "CAST(k AS VARCHAR) || 'x'",
        "k::TIMESTAMP",
        "to_timestamp(k)",
        "ts + INTERVAL '1 month'",
        "date_trunc('month', ts)",
        "extract(epoch FROM ts)",
        "CAST(ts AS VARCHAR)",
        "CAST(ts AS DATE)",
        "CASE WHEN k > 1 THEN ts END",
        "coalesce(nullif(k, 2), -1)",
        "round(k / 7.0, 2)",
        "k BETWEEN 1 AND 3",
        "k IN (1, 2, NULL)",
        "power(k, 2)",
        "sqrt(CAST(k AS DOUBLE) + 2)",
        "reverse(CAST(k AS VARCHAR))",
        "regexp_replace(CAST(k AS VARCHAR), '1', 'one')",
        "CAST(k AS DECIMAL(10, 3)) / 7",
        "lpad(CAST(k AS VARCHAR), 5, '0')",
        "k IS DISTINCT FROM 2",
        "1729595568::TIMESTAMP",
    ];
    let columns: Vec<String> = expressions
        .iter()
        .enumerate()
        .map(|(index, sql)| format!("{sql} AS c{index}"))
        .collect();
    let columns = columns.join(", ");
    let engine = manual(
        &topics,
        state.path(),
        &format!("CREATE MATERIALIZED VIEW v AS SELECT {columns} FROM src"),
    );
    block_on(sql(&engine, "CREATE MATERIALIZED VIEW raw AS SELECT * FROM src"));
    topics.of("src").append(
        &SplitId::from(0),
        rows([(1, 0), (2, -1), (3, 1_700_000_000 * SECOND), (0, 5)]),
    );
    engine.step("src", StepEnd::default()).unwrap();
    let shown = |text: &str| {
        pretty_format_batches(&block_on(sql(&engine, text)))
            .unwrap()
            .to_string()
    };
    for (index, expression) in expressions.iter().enumerate() {
        let (in_view, in_query) = (
            shown(&format!("SELECT c{index} FROM v ORDER BY 1")),
            shown(&format!("SELECT {} AS c{index} FROM raw ORDER BY 1", expression)),
        );
        assert_eq!(in_view, in_query, "{expression}");
    }
}

#[test]
fn throughput_is_not_bounded_by_the_trigger() {
    let topics = MemoryTopics::default();
    let state = tempfile::tempdir().unwrap();
    let options = EngineOptions {
        state: Some(state.path().into()),
        mode: Mode::Live,
        overrides: vec![],
    };
    // An epoch an hour, and no epoch of more than 1,000 rows: what is full starts at once.
    let bounds = Bounds {
        epoch_rows_max: 1_000,
        ..Bounds::default()
    };
    let engine = Engine::with_bounds(
        registry(topics.clone(), query_environment()),
        options,
        Arc::new(SystemClock::default()),
        bounds,
    );
    topics
        .of("src")
        .append(&SplitId::from(0), rows((0..10_500).map(|row| (row, row))));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        sql(&engine, SOURCE).await;
        sql(&engine, "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM src").await;
        let mut reader = engine.follow("v").unwrap();
        let counted = |reader: &ViewReader| {
            let rows = reader.published().rows.batches().unwrap();
            let of = |batch: &RecordBatch| batch.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>();
            rows.iter().map(of).sum::<i64>()
        };
        while counted(&reader) < 9_000 {
            assert!(reader.changed().await, "full epochs run without waiting for the hour");
        }
    });
    engine.stop();
}
