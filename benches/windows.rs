//! Rows per second and core that a view's operators take, from Arrow batches in memory.
//!
//! ```text
//! SQL ─▶ Binder ─┬─▶ StreamPlan ─▶ Chain    epochs of made rows, in slices as a timeline cuts them ─▶ rows/s (CPU of this thread)
//!                └─▶ the same query over the same rows: DataFusion's batch plan, one partition     ─▶ rows/s, the ratio's other side
//! ```
//! Made rows are the same in every run. What is not here: decoding, the journal, the rows of the view.

use std::{cell::RefCell, collections::BTreeMap, fs, sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampNanosecondArray},
    datatypes::TimestampNanosecondType,
};
use datafusion::{
    catalog::TableProvider,
    datasource::MemTable,
    execution::{context::SessionState, runtime_env::RuntimeEnv},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use zeta::{
    cli::{MemoryTopics, registry},
    operator::{Flow, Output, SplitWatermarks},
    plan::{Binder, Bound, Catalog, Registry, StreamPlan, base_session, session_over},
    runtime::clock::Stopwatch,
    sql::{self, SourceText, render},
    types::{Delta, EventTime, SplitId, limits},
};

const SYMBOLS: usize = 1_000;
/// The rows repeat with other times.
const PERIOD: usize = 1_000_000;
/// Rows that are made at once, outside the measured time.
const BLOCK: usize = 4_000_000;
const DELAY_NS: i64 = 5_000_000_000;
const DISORDER_NS: i64 = 50_000_000;
const MICROSECOND: i64 = 1_000;
const START_NS: i64 = 1_700_000_000_000_000_000;

const SOURCE: &str = "CREATE SOURCE candles (symbol VARCHAR NOT NULL, account VARCHAR NOT NULL, t TIMESTAMP NOT NULL, open DOUBLE, \
    high DOUBLE, low DOUBLE, close DOUBLE, volume DOUBLE, WATERMARK FOR t AS t - INTERVAL '5 seconds') WITH (connector = 'memory')";

const OHLCV: &str = "first_value(open ORDER BY t) AS open, max(high) AS high, min(low) AS low, \
    last_value(close ORDER BY t) AS close, sum(volume) AS volume";

struct Workload {
    name: &'static str,
    query: String,
    emit: &'static str,
    options: &'static str,
    /// Millions of rows per second and core.
    goal: Option<f64>,
    /// Event time from one row to the next.
    step_ns: i64,
    rows: usize,
    /// What DataFusion is asked, where it can answer in reasonable time.
    batch: Option<String>,
}

fn workloads() -> Vec<Workload> {
    let windowed = |window: &str, key: &str| {
        format!(
            "SELECT {key}, window_start, window_end, {OHLCV} FROM {window} GROUP BY {key}, window_start, window_end"
        )
    };
    let of = |name, query: String, emit, goal| Workload {
        name,
        batch: Some(query.clone()),
        query,
        emit,
        options: "",
        goal,
        step_ns: 100 * MICROSECOND,
        rows: BLOCK,
    };
    let hop = windowed("HOP(candles, t, INTERVAL '2 seconds', INTERVAL '10 seconds')", "symbol");
    let sessions = windowed("SESSION(candles, t, INTERVAL '2 seconds', account)", "account");
    let updating = "SELECT symbol, count(*) AS n, sum(volume) AS volume, max(high) AS high, min(low) AS low FROM candles GROUP BY symbol";
    vec![
        of(
            "filter, projection",
            "SELECT symbol, t, close * volume AS notional, high - low AS range FROM candles WHERE volume > 10".into(),
            "CHANGES",
            Some(20.0),
        ),
        of(
            "tumble 1 min",
            windowed("TUMBLE(candles, t, INTERVAL '1 minute')", "symbol"),
            "CHANGES",
            Some(12.0),
        ),
        of(
            "tumble 1 min",
            windowed("TUMBLE(candles, t, INTERVAL '1 minute')", "symbol"),
            "ON WINDOW CLOSE",
            Some(12.0),
        ),
        of("hop 10 s / 2 s", hop.clone(), "CHANGES", Some(8.0)),
        of("hop 10 s / 2 s", hop, "ON WINDOW CLOSE", Some(8.0)),
        Workload {
            // As many rows in a pane as of the hop above; long enough that every pane is pushed, turned and dropped.
            step_ns: 3_000 * MICROSECOND,
            rows: 60_000_000,
            batch: None,
            ..of(
                "hop 24 h / 1 min",
                windowed("HOP(candles, t, INTERVAL '1 minute', INTERVAL '24 hours')", "symbol"),
                "ON WINDOW CLOSE",
                None,
            )
        },
        of("session 2 s", sessions.clone(), "CHANGES", Some(3.0)),
        of("session 2 s", sessions, "ON WINDOW CLOSE", Some(3.0)),
        Workload {
            options: "WITH (unbounded_state = 'allow')",
            ..of("no window", updating.into(), "CHANGES", Some(5.0))
        },
    ]
}

fn main() {
    // `cargo bench` says so; anything else is a filter, as in `cargo bench -- hop`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let runs = std::env::var("ZETA_RUNS").map_or(5usize, |text| text.parse().expect("ZETA_RUNS is a number"));
    let bench = Bench::new();
    println!(
        "{:<20} {:<16} {:>7} {:>8} {:>15} {:>7} {:>9} {:>11} {:>6}",
        "view", "emit", "epoch", "M rows/s", "least to most", "goal", "rows out", "DataFusion", "ratio"
    );
    for workload in workloads() {
        if !words.is_empty() && !words.iter().any(|word| workload.name.contains(word.as_str())) {
            continue;
        }
        let stream = bench.plan(&workload);
        let epochs = epochs(&workload);
        let (mut batch, mut ours) = (Vec::new(), vec![Vec::new(); epochs.len()]);
        let mut rows_out = vec![0; epochs.len()];
        // A long run is its own average.
        let runs = if workload.rows == BLOCK { runs.max(1) } else { 1 };
        // In turn, so that the ratio holds where the speed of the machine drifts.
        for _ in 0..runs {
            batch.extend(workload.batch.as_ref().map(|query| bench.batch_rate(query, &workload)));
            for (at, epoch) in epochs.iter().enumerate() {
                let (rate, rows) = bench.stream_rate(&stream, &workload, *epoch);
                ours[at].push(rate);
                rows_out[at] = rows;
            }
        }
        for ((epoch, rates), rows_out) in epochs.into_iter().zip(ours).zip(rows_out) {
            let ratios: Vec<f64> = rates.iter().zip(&batch).map(|(ours, batch)| ours / batch).collect();
            let rates = Spread::of(rates).expect("at least one run");
            let median =
                |rates: Vec<f64>| Spread::of(rates).map_or(String::new(), |rates| format!("{:.2}", rates.median));
            println!(
                "{:<20} {:<16} {:>7} {:>8.2} {:>15} {:>7} {:>9} {:>11} {:>6}",
                workload.name,
                workload.emit,
                epoch,
                rates.median,
                format!("{:.2} to {:.2}", rates.least, rates.most),
                workload.goal.map_or(String::new(), |goal| format!("{goal:.0}")),
                rows_out,
                median(batch.clone()),
                median(ratios),
            );
        }
    }
}

fn epochs(workload: &Workload) -> Vec<usize> {
    match workload.rows {
        BLOCK => vec![100_000, limits::CHUNK_ROWS],
        _ => vec![100_000],
    }
}

/// Millions of rows per second.
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(mut rates: Vec<f64>) -> Option<Self> {
        rates.sort_by(f64::total_cmp);
        Some(Self {
            least: *rates.first()?,
            median: rates[rates.len() / 2],
            most: *rates.last()?,
        })
    }
}

struct Bench {
    registry: Registry,
    base: SessionState,
    /// All columns but the time, which is null: `PERIOD` rows.
    rows: RecordBatch,
    /// By how much the rows of a period are out of order.
    jitter: Vec<i64>,
    runtime: tokio::runtime::Runtime,
    /// The rows that DataFusion reads, by their step.
    block: RefCell<Option<(i64, Vec<RecordBatch>)>>,
}

impl Bench {
    fn new() -> Self {
        // Without the bounds of queries: the batch side may take what it needs.
        let environment = Arc::new(RuntimeEnv::default());
        let mut base = base_session(Arc::clone(&environment));
        base.config_mut().options_mut().execution.target_partitions = 1;
        let registry = registry(MemoryTopics::default(), environment);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime without threads");
        let mut bench = Self {
            rows: RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty())),
            jitter: Vec::new(),
            registry,
            base,
            runtime,
            block: RefCell::new(None),
        };
        let (catalog, _) = bench.bind(SOURCE, BTreeMap::new());
        let schema = &catalog.source("candles").expect("defined by the statement").schema;
        (bench.rows, bench.jitter) = made_rows(schema);
        bench
    }

    fn bind(&self, text: &str, snapshots: BTreeMap<String, Arc<dyn TableProvider>>) -> (Catalog, Option<Bound>) {
        let text = SourceText::new("bench", text);
        let parsed = sql::parse(&text);
        let places = |span| sql::byte_span(&text, span);
        let mut catalog = Catalog::default();
        let mut last = None;
        let refused = |diagnostics: &[sql::Diagnostic]| -> ! {
            panic!("{}", render(&text, diagnostics, sql::Color::Never));
        };
        if parsed.has_errors() {
            refused(&parsed.diagnostics);
        }
        for statement in &parsed.statements {
            let binder = Binder {
                registry: &self.registry,
                base: &self.base,
                text: &text.text,
                places: &places,
                snapshots: snapshots.clone(),
            };
            match self.runtime.block_on(binder.bind(statement, &mut catalog)) {
                Ok(bound) => last = Some(bound),
                Err(mistakes) => refused(&mistakes),
            }
        }
        (catalog, last)
    }

    fn plan(&self, workload: &Workload) -> StreamPlan {
        let Workload {
            query, emit, options, ..
        } = workload;
        let text = format!("{SOURCE};\nCREATE MATERIALIZED VIEW bench {options} AS {query} EMIT {emit}");
        let (catalog, _) = self.bind(&text, BTreeMap::new());
        let view = catalog.materialized("bench").expect("defined by the statement");
        view.stream.clone()
    }

    /// Rows from `first` on, in batches of an epoch.
    fn block(&self, first: usize, step_ns: i64, epoch: usize) -> Vec<RecordBatch> {
        let mut batches = Vec::new();
        for from in (first..first + BLOCK).step_by(epoch) {
            let count = epoch.min(first + BLOCK - from);
            // The end of a period may lie inside a batch.
            let at = from % PERIOD;
            let head = count.min(PERIOD - at);
            let payload = match head == count {
                true => self.rows.slice(at, count),
                false => arrow::compute::concat_batches(
                    &self.rows.schema(),
                    &[self.rows.slice(at, head), self.rows.slice(0, count - head)],
                )
                .expect("slices of one batch"),
            };
            let times = (from..from + count)
                .map(|row| START_NS + row as i64 * step_ns + self.jitter[row % PERIOD])
                .collect::<Vec<_>>();
            let mut columns = payload.columns().to_vec();
            columns[2] = Arc::new(TimestampNanosecondArray::from(times));
            batches.push(RecordBatch::try_new(payload.schema(), columns).expect("the source's columns"));
        }
        batches
    }

    /// Millions of rows per second of this thread, and how many rows came out.
    fn stream_rate(&self, stream: &StreamPlan, workload: &Workload, epoch: usize) -> (f64, usize) {
        let mut dataflow = stream.operators().expect("the plan was made for it");
        let mut watermarks = SplitWatermarks::default();
        let split = SplitId::new("0");
        let (mut busy, mut rows_out) = (Duration::ZERO, 0);
        for first in (0..workload.rows).step_by(BLOCK) {
            let batches = self.block(first, workload.step_ns, epoch);
            let busy_before = thread_cpu();
            for rows in &batches {
                let mut out = Output::default();
                let times = rows.column(2).as_primitive::<TimestampNanosecondType>();
                let mut met: Vec<i64> = times
                    .values()
                    .iter()
                    .map(|time| time.saturating_sub(DELAY_NS))
                    .collect();
                watermarks.observe(&split, &mut met);
                let met = Int64Array::from(met);
                for from in (0..rows.num_rows()).step_by(limits::CHUNK_ROWS) {
                    let length = limits::CHUNK_ROWS.min(rows.num_rows() - from);
                    let slice = rows.slice(from, length).project(&stream.inputs[0].columns);
                    let flow = Flow {
                        delta: Delta::append(slice.expect("columns of the source")),
                        row_watermarks: Some(met.slice(from, length)),
                    };
                    dataflow.on_delta(0, flow, &mut out).expect("made rows fit");
                }
                let watermark = watermarks.end_epoch(&Default::default(), false);
                dataflow
                    .on_epoch_end(&[watermark], EventTime(START_NS), &mut out)
                    .expect("made rows fit");
                rows_out += out.flows.iter().map(|flow| flow.delta.rows.num_rows()).sum::<usize>();
                assert!(out.late.is_empty(), "made rows are in time");
            }
            busy += thread_cpu() - busy_before;
        }
        (workload.rows as f64 / 1e6 / busy.as_secs_f64(), rows_out)
    }

    /// As [`stream_rate`](Self::stream_rate), of DataFusion's plan over the first block.
    fn batch_rate(&self, query: &str, workload: &Workload) -> f64 {
        let mut kept = self.block.borrow_mut();
        if !matches!(&*kept, Some((step_ns, _)) if *step_ns == workload.step_ns) {
            *kept = Some((workload.step_ns, self.block(0, workload.step_ns, limits::CHUNK_ROWS)));
        }
        let (_, batches) = kept.as_ref().expect("made above");
        let table = MemTable::try_new(self.rows.schema(), vec![batches.clone()]).expect("batches of one schema");
        let tables: BTreeMap<String, Arc<dyn TableProvider>> =
            BTreeMap::from([("candles".to_owned(), Arc::new(table) as _)]);
        let (_, bound) = self.bind(&format!("{SOURCE};\n{query}"), tables.clone());
        let Some(Bound::Query(plan)) = bound else {
            panic!("a SELECT is bound as a query");
        };
        let session = session_over(&self.base, tables);
        let busy_before = thread_cpu();
        let rows = self.runtime.block_on(async {
            let physical = datafusion_entry::physical_plan(&session, plan).await?;
            datafusion_entry::collect(physical, session.task_ctx()).await
        });
        let busy = thread_cpu() - busy_before;
        assert!(rows.is_ok(), "{:?}", rows.err());
        BLOCK as f64 / 1e6 / busy.as_secs_f64()
    }
}

/// 1,000 symbols, any of them at any time; 1,000 accounts, each of them busy for five seconds in twenty at 10,000 rows a second.
fn made_rows(schema: &arrow::datatypes::SchemaRef) -> (RecordBatch, Vec<i64>) {
    let mut random = StdRng::seed_from_u64(1);
    let symbols: Vec<String> = (0..SYMBOLS).map(|symbol| format!("P{symbol:04}USDT")).collect();
    let accounts: Vec<String> = (0..SYMBOLS).map(|account| format!("account{account:04}")).collect();
    let symbol: StringViewArray = (0..PERIOD)
        .map(|_| Some(&symbols[random.random_range(0..SYMBOLS)]))
        .collect();
    let account: StringViewArray = (0..PERIOD)
        .map(|row| {
            let quarter = row / 50_000 % 4;
            Some(&accounts[quarter * SYMBOLS / 4 + random.random_range(0..SYMBOLS / 4)])
        })
        .collect();
    let mut number = |from: f64, to: f64| -> ArrayRef {
        let values: Float64Array = (0..PERIOD).map(|_| Some(random.random_range(from..to))).collect();
        Arc::new(values)
    };
    let (open, high, low, close, volume) = (
        number(95.0, 105.0),
        number(105.0, 110.0),
        number(90.0, 95.0),
        number(95.0, 105.0),
        number(0.0, 20.0),
    );
    let no_times = TimestampNanosecondArray::from(vec![0; PERIOD]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(symbol),
        Arc::new(account),
        Arc::new(no_times),
        open,
        high,
        low,
        close,
        volume,
    ];
    let jitter = (0..PERIOD).map(|_| random.random_range(0..DISORDER_NS)).collect();
    (
        RecordBatch::try_new(Arc::clone(schema), columns).expect("the source's columns"),
        jitter,
    )
}

/// CPU time of this thread; by the wall where the system does not tell.
fn thread_cpu() -> Duration {
    thread_local!(static STARTED: Stopwatch = Stopwatch::start());
    fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .map_or_else(|| STARTED.with(Stopwatch::elapsed), Duration::from_nanos)
}
