//! Random rows: a stream of them by split, and as batches and text.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, RecordBatch,
        StringViewArray, TimestampNanosecondArray,
    },
    datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit},
    util::display::{ArrayFormatter, FormatOptions},
};
use proptest::prelude::*;

pub const SECOND: i64 = 1_000_000_000;
pub const DISORDER: i64 = 5 * SECOND;

pub const SOURCE: &str = "CREATE SOURCE src (k INT, s VARCHAR, i BIGINT, e BIGINT, f DOUBLE, d DECIMAL(18, 4), b BOOLEAN, u BIGINT, \
    ts TIMESTAMP, WATERMARK FOR ts AS ts - INTERVAL '5 seconds') WITH (connector = 'memory', trigger = '0')";

#[derive(Clone, Debug)]
pub struct Row {
    pub k: Option<i32>,
    pub s: Option<u8>,
    pub i: Option<i64>,
    pub e: Option<i64>,
    pub f: Option<f64>,
    pub d: Option<i128>,
    pub b: Option<bool>,
    /// Unique, in the order of time: what a function orders by.
    pub u: i64,
    pub ts: i64,
}

pub fn rows() -> impl Strategy<Value = Vec<Vec<Row>>> {
    let optional = |strategy: BoxedStrategy<i64>| proptest::option::weighted(0.85, strategy);
    let extremes = prop_oneof![3 => -5i64..5, 1 => Just(i64::MIN), 1 => Just(i64::MAX), 1 => any::<i64>()].boxed();
    let floats = prop_oneof![
        6 => (-80i64..80).prop_map(|quarters| quarters as f64 / 4.0),
        1 => Just(f64::NAN), 1 => Just(-0.0), 1 => Just(f64::INFINITY), 1 => Just(f64::MIN_POSITIVE),
    ];
    let row = (
        // How far event time goes on, in seconds; back is disorder within the watermark's delay and beyond.
        prop_oneof![4 => 0i64..6, 2 => -4i64..1, 1 => -90i64..-4, 1 => 15i64..70],
        (
            optional((0i64..3).boxed()),
            optional((0i64..3).boxed()),
            optional((-9i64..10).boxed()),
            optional(extremes),
            optional((-99_999i64..99_999).boxed()),
        ),
        proptest::option::weighted(0.85, floats),
        proptest::option::weighted(0.85, any::<bool>()),
    );
    let split = proptest::collection::vec(row, 0..30);
    (1usize..4, -200i64..200).prop_flat_map(move |(splits, start)| {
        proptest::collection::vec(split.clone(), splits).prop_map(move |splits| {
            let mut unique = 0;
            splits
                .into_iter()
                .map(|split| {
                    let mut now = start * SECOND;
                    split
                        .into_iter()
                        .map(|(step, (k, s, i, e, d), f, b)| {
                            let ts = now + step * SECOND;
                            now = now.max(ts);
                            unique += 1;
                            // Whole seconds are edges of windows: most rows stand a little behind them, some on them.
                            let ts = ts + if unique % 4 == 0 { 0 } else { unique * 1_000 };
                            Row {
                                k: k.map(|k| k as i32),
                                s: s.map(|s| s as u8),
                                i,
                                e,
                                f,
                                d: d.map(i128::from),
                                b,
                                u: unique,
                                ts,
                            }
                        })
                        .collect()
                })
                .collect()
        })
    })
}

pub fn batch(rows: &[Row]) -> RecordBatch {
    RecordBatch::try_new(schema(), columns(rows)).unwrap()
}

pub fn schema() -> SchemaRef {
    let fields = [
        ("k", DataType::Int32),
        ("s", DataType::Utf8View),
        ("i", DataType::Int64),
        ("e", DataType::Int64),
        ("f", DataType::Float64),
        ("d", DataType::Decimal128(18, 4)),
        ("b", DataType::Boolean),
        ("u", DataType::Int64),
        ("ts", DataType::Timestamp(TimeUnit::Nanosecond, None)),
    ];
    Arc::new(Schema::new(
        fields
            .map(|(name, data_type)| Field::new(name, data_type, true))
            .to_vec(),
    ))
}

pub fn columns(rows: &[Row]) -> Vec<ArrayRef> {
    vec![
        Arc::new(rows.iter().map(|row| row.k).collect::<Int32Array>()),
        Arc::new(
            rows.iter()
                .map(|row| row.s.map(|s| format!("s{s}")))
                .collect::<StringViewArray>(),
        ),
        Arc::new(rows.iter().map(|row| row.i).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.e).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.f).collect::<Float64Array>()),
        Arc::new(
            rows.iter()
                .map(|row| row.d)
                .collect::<Decimal128Array>()
                .with_precision_and_scale(18, 4)
                .unwrap(),
        ),
        Arc::new(rows.iter().map(|row| row.b).collect::<BooleanArray>()),
        Arc::new(rows.iter().map(|row| Some(row.u)).collect::<Int64Array>()),
        Arc::new(TimestampNanosecondArray::from_iter_values(
            rows.iter().map(|row| row.ts),
        )),
    ]
}

/// Rows as text in any order, columns by name; floating numbers as far as they must agree.
pub fn shown(batches: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let mut rows = Vec::new();
    for batch in batches {
        let by_name: BTreeMap<&str, &ArrayRef> = batch
            .schema_ref()
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .zip(batch.columns())
            .collect();
        for row in 0..batch.num_rows() {
            let cells = by_name.iter().map(|(name, column)| {
                let text = ArrayFormatter::try_new(column.as_ref(), &options)
                    .unwrap()
                    .value(row)
                    .to_string();
                match (column.data_type(), text.parse::<f64>()) {
                    (DataType::Float64, Ok(number)) if number.abs() < 1e-6 => format!("{name}=0"),
                    // Away from where rounding may go either way.
                    (DataType::Float64, Ok(number)) => format!("{name}={:.7e}", number * (1.0 + 3e-10)),
                    _ => format!("{name}={text}"),
                }
            });
            rows.push(cells.collect::<Vec<_>>().join(" "));
        }
    }
    rows.sort();
    rows
}
