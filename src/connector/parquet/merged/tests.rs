//! Files with gaps, of other shapes and damaged, against a sort of everything.

use std::collections::BTreeMap;

use arrow::{
    array::{Float32Array, TimestampMicrosecondArray, TimestampMillisecondArray, UInt16Array},
    datatypes::{Float32Type, UInt16Type},
};
use parquet::{
    arrow::ArrowWriter,
    file::{metadata::KeyValue, properties::WriterProperties},
};

use super::*;

const MINUTE_NS: i64 = 60_000_000_000;

fn write(directory: &Path, symbol: &str, columns: Vec<(&str, ArrayRef)>, group_rows: usize, pandas: Option<&str>) {
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group_rows))
        .set_key_value_metadata(pandas.map(|text| vec![KeyValue::new("pandas".to_owned(), text.to_owned())]))
        .build();
    let file = File::create(directory.join(format!("{symbol}.parquet"))).unwrap();
    let mut writer = ArrowWriter::try_new(file, rows.schema(), Some(properties)).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
}

/// The row with event time `t` has close `t` minutes and as many trades, modulo 1,000.
fn pair(directory: &Path, symbol: &str, minutes: &[i64], group_rows: usize) {
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "close",
            Arc::new(Float32Array::from_iter_values(
                minutes.iter().map(|minute| *minute as f32),
            )),
        ),
        (
            "trades",
            Arc::new(UInt16Array::from_iter_values(
                minutes.iter().map(|minute| minute.rem_euclid(1_000) as u16),
            )),
        ),
        (
            "open_time",
            Arc::new(TimestampNanosecondArray::from_iter_values(
                minutes.iter().map(|minute| minute * MINUTE_NS),
            )),
        ),
    ];
    write(directory, symbol, columns, group_rows, None);
}

/// Files with gaps, different lengths and starts, ties, and one without rows.
fn directory() -> (tempfile::TempDir, Vec<(i64, String)>) {
    let directory = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for (symbol, minutes, group_rows) in [
        ("BTC-USDT", (-5..3_000).collect::<Vec<i64>>(), 700),
        (
            "ADA-USDT",
            (0..9_000).filter(|minute| !(100..5_000).contains(minute)).collect(),
            256,
        ),
        ("SOL-USDT", (8_999..9_010).collect(), 4),
        (
            "ETH-USDT",
            (0..1_000).flat_map(|minute| [minute * 7; 2]).collect(),
            1_000_000,
        ),
        ("ZIL-USDT", vec![], 10),
        ("ETH-BTC", vec![4], 10),
    ] {
        pair(directory.path(), symbol, &minutes, group_rows);
        all.extend(minutes.iter().map(|minute| (*minute, symbol.to_owned())));
    }
    std::fs::write(directory.path().join("notes.txt"), "no Parquet").unwrap();
    std::fs::write(directory.path().join(".ADA-USDT.parquet"), "hidden").unwrap();
    all.sort();
    (directory, all)
}

fn read_all(reader: &mut MergedReader, rows_max: usize) -> Vec<(i64, String)> {
    let mut all = Vec::new();
    while let Some(merged) = reader.next_rows(rows_max).unwrap() {
        assert!((1..=rows_max).contains(&merged.rows.num_rows()));
        assert_eq!(merged.rows.schema(), reader.schema());
        let symbols = merged.rows.column_by_name("symbol").unwrap().as_string_view();
        let times = merged
            .rows
            .column_by_name("open_time")
            .unwrap()
            .as_primitive::<TimestampNanosecondType>();
        let closes = merged
            .rows
            .column_by_name("close")
            .unwrap()
            .as_primitive::<Float32Type>();
        assert_eq!(times.values().to_vec(), merged.event_times);
        for row in 0..merged.rows.num_rows() {
            let minute = times.value(row) / MINUTE_NS;
            assert_eq!(closes.value(row), minute as f32, "the columns of a row stay together");
            assert_eq!(symbols.value(row), reader.symbol(merged.files[row]));
            all.push((minute, symbols.value(row).to_owned()));
        }
    }
    all
}

#[test]
fn the_merged_order_is_that_of_a_sort_of_everything() {
    let (directory, sorted) = directory();
    for rows_max in [1, 7, 1_000, 1_000_000] {
        let mut reader = MergedReader::open(directory.path(), &MergeOptions::default()).unwrap();
        assert_eq!(reader.rows_at_most(), sorted.len() as u64);
        assert_eq!(read_all(&mut reader, rows_max), sorted, "{rows_max} rows at once");
        assert_eq!(reader.rows_at_most(), 0);
        assert!(reader.next_rows(1).unwrap().is_none(), "the end stays the end");
    }
}

#[test]
fn readers_that_open_again_give_the_same_rows() {
    let (directory, sorted) = directory();
    let mut reader = MergedReader::open(directory.path(), &MergeOptions::default()).unwrap();
    for file in &mut reader.files {
        file.stays_open = false;
        file.read_rows = 300;
    }
    assert_eq!(read_all(&mut reader, 1_000), sorted);
    assert!(reader.files.iter().all(|file| file.reader.is_none()));
}

#[test]
fn a_time_range_holds_its_start_and_not_its_end() {
    let (directory, sorted) = directory();
    for (from, to) in [
        (Some(0), Some(1)),
        (Some(255), Some(5_001)),
        (None, Some(-4)),
        (Some(8_999), None),
        (Some(20_000), None),
        (Some(5), Some(5)),
    ] {
        let options = MergeOptions {
            from_ns: from.map(|minute: i64| minute * MINUTE_NS),
            to_ns: to.map(|minute: i64| minute * MINUTE_NS),
            ..MergeOptions::default()
        };
        let is_inside = |minute: i64| from.is_none_or(|from| from <= minute) && to.is_none_or(|to| minute < to);
        let expected: Vec<_> = sorted
            .iter()
            .filter(|(minute, _)| is_inside(*minute))
            .cloned()
            .collect();
        let mut reader = MergedReader::open(directory.path(), &options).unwrap();
        assert!(expected.len() as u64 <= reader.rows_at_most());
        assert_eq!(read_all(&mut reader, 500), expected, "{from:?} to {to:?}");
    }
}

#[test]
fn row_groups_outside_the_range_are_not_read() {
    let (directory, _) = directory();
    let options = MergeOptions {
        from_ns: Some(1_500 * MINUTE_NS),
        to_ns: Some(1_501 * MINUTE_NS),
        ..MergeOptions::default()
    };
    let reader = MergedReader::open(directory.path(), &options).unwrap();
    let groups: BTreeMap<&str, usize> = reader
        .files
        .iter()
        .map(|file| (file.symbol.as_str(), file.row_groups.len()))
        .collect();
    assert_eq!(groups["BTC-USDT"], 1);
    assert_eq!(groups["SOL-USDT"], 0);
}

#[test]
fn skipped_rows_are_those_that_would_have_come() {
    let (directory, sorted) = directory();
    for skipped in [0, 1, 999, 5_000, sorted.len() as u64 + 3] {
        let mut reader = MergedReader::open(directory.path(), &MergeOptions::default()).unwrap();
        let there = skipped.min(sorted.len() as u64);
        assert_eq!(reader.skip_rows(skipped).unwrap(), there);
        assert_eq!(read_all(&mut reader, 512), sorted[there as usize..]);
    }
    let mut limited = MergedReader::open(
        directory.path(),
        &MergeOptions {
            limit: Some(10),
            ..MergeOptions::default()
        },
    )
    .unwrap();
    assert_eq!(limited.skip_rows(4).unwrap(), 4);
    assert_eq!(
        read_all(&mut limited, 4),
        sorted[4..10],
        "the limit counts skipped rows"
    );
}

#[test]
fn columns_come_in_the_order_asked_for() {
    let (directory, _) = directory();
    let names = |options: &MergeOptions| {
        let reader = MergedReader::open(directory.path(), options).unwrap();
        reader
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&MergeOptions::default()),
        ["symbol", "open_time", "close", "trades"]
    );
    let chosen = MergeOptions {
        columns: Some(vec!["trades".into(), "symbol".into(), "close".into()]),
        ..MergeOptions::default()
    };
    assert_eq!(names(&chosen), ["symbol", "trades", "close"]);
    let bare = MergeOptions {
        columns: Some(vec!["trades".into()]),
        with_symbol: false,
        ..MergeOptions::default()
    };
    assert_eq!(names(&bare), ["trades"]);
    let mut reader = MergedReader::open(directory.path(), &bare).unwrap();
    let rows = reader.next_rows(3).unwrap().unwrap();
    assert_eq!(
        rows.rows.column(0).as_primitive::<UInt16Type>().values().to_vec(),
        [995, 996, 997]
    );
    assert_eq!(rows.event_times, [-5 * MINUTE_NS, -4 * MINUTE_NS, -3 * MINUTE_NS]);

    let wrong = MergeOptions {
        columns: Some(vec!["clsoe".into()]),
        ..MergeOptions::default()
    };
    let message = MergedReader::open(directory.path(), &wrong).err().unwrap().to_string();
    assert!(
        message.contains("ADA-USDT.parquet has no column clsoe; it has open_time, close, trades"),
        "{message}"
    );
}

#[test]
fn event_time_may_be_a_pandas_index_of_any_unit_and_zone() {
    let directory = tempfile::tempdir().unwrap();
    let close = || ("close", Arc::new(Float32Array::from(vec![0.0, 1.0])) as ArrayRef);
    let millis: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![0, 60_000]));
    let micros: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from(vec![0, 60_000_000]).with_timezone("Europe/Berlin"));
    let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![0, MINUTE_NS]));
    let named =
        r#"{"index_columns":["__index_level_0__"],"columns":[{"name":"open_time","field_name":"__index_level_0__"}]}"#;
    let unnamed =
        r#"{"index_columns":["__index_level_0__"],"columns":[{"name":null,"field_name":"__index_level_0__"}]}"#;
    write(
        directory.path(),
        "A",
        vec![close(), ("__index_level_0__", millis.clone())],
        10,
        Some(named),
    );
    write(
        directory.path(),
        "B",
        vec![("__index_level_0__", micros), close()],
        10,
        Some(unnamed),
    );
    write(
        directory.path(),
        "C",
        vec![close(), ("open_time", nanos)],
        10,
        Some(r#"{"index_columns":["open_time"]}"#),
    );
    let mut reader = MergedReader::open(directory.path(), &MergeOptions::default()).unwrap();
    let expected = [(0, "A"), (0, "B"), (0, "C"), (1, "A"), (1, "B"), (1, "C")]
        .map(|(minute, symbol)| (minute, symbol.to_owned()));
    assert_eq!(read_all(&mut reader, 10), expected);

    let other = r#"{"columns":[{"name":"close_time","field_name":"__index_level_0__"}]}"#;
    write(
        directory.path(),
        "D",
        vec![close(), ("__index_level_0__", millis)],
        10,
        Some(other),
    );
    let message = MergedReader::open(directory.path(), &MergeOptions::default())
        .err()
        .unwrap()
        .to_string();
    assert!(
        message.ends_with("D.parquet has no column open_time of a timestamp type"),
        "{message}"
    );
}

#[test]
fn a_damaged_file_is_named() {
    let (directory, _) = directory();
    let path = directory.path().join("BTC-USDT.parquet");
    let whole = std::fs::read(&path).unwrap();

    for (bytes, why) in [
        (&whole[..0], "nothing"),
        (&whole[..whole.len() / 2], "a half"),
        (&whole[..whole.len() - 1], "one byte short"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let message = MergedReader::open(directory.path(), &MergeOptions::default())
            .err()
            .expect(why)
            .to_string();
        assert!(
            message.contains("BTC-USDT.parquet cannot be read as Parquet"),
            "{why}: {message}"
        );
    }

    // The footer is whole, the rows are not.
    let mut damaged = whole.clone();
    damaged[4..whole.len() / 2].fill(0xff);
    std::fs::write(&path, &damaged).unwrap();
    let mut reader = MergedReader::open(directory.path(), &MergeOptions::default()).unwrap();
    let message = reader
        .next_rows(100)
        .expect_err("the first rows are damaged")
        .to_string();
    assert!(message.contains("BTC-USDT.parquet"), "{message}");
}

#[test]
fn rows_out_of_order_are_an_error_that_names_the_row() {
    let directory = tempfile::tempdir().unwrap();
    pair(directory.path(), "A", &[1, 2, 3, 2, 5], 10);
    let mut reader = MergedReader::open(directory.path(), &MergeOptions::default()).unwrap();
    let message = reader.next_rows(10).expect_err("row 3 goes back").to_string();
    assert_eq!(reader.skip_rows(1).expect_err("it stays broken").to_string(), message);
    assert!(
        message.ends_with("A.parquet: rows are not in the order of open_time (at row 3)"),
        "{message}"
    );
}

#[test]
fn files_may_differ_in_types_that_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let time = || {
        (
            "open_time",
            Arc::new(TimestampNanosecondArray::from(vec![0])) as ArrayRef,
        )
    };
    write(
        directory.path(),
        "A",
        vec![("trades", Arc::new(UInt16Array::from(vec![1])) as ArrayRef), time()],
        1,
        None,
    );
    write(
        directory.path(),
        "B",
        vec![time(), ("trades", Arc::new(Int64Array::from(vec![65_535])) as ArrayRef)],
        1,
        None,
    );
    let mut reader = MergedReader::open(directory.path(), &MergeOptions::default()).unwrap();
    let rows = reader.next_rows(10).unwrap().unwrap().rows;
    assert_eq!(
        rows.column_by_name("trades")
            .unwrap()
            .as_primitive::<UInt16Type>()
            .values()
            .to_vec(),
        [1, 65_535]
    );

    write(
        directory.path(),
        "C",
        vec![time(), ("trades", Arc::new(Int64Array::from(vec![65_536])) as ArrayRef)],
        1,
        None,
    );
    let mut reader = MergedReader::open(directory.path(), &MergeOptions::default()).unwrap();
    let message = reader.next_rows(10).expect_err("does not fit").to_string();
    assert!(message.contains("C.parquet: column trades"), "{message}");
}

#[test]
fn a_place_without_files_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let message = MergedReader::open(directory.path(), &MergeOptions::default())
        .err()
        .unwrap()
        .to_string();
    assert!(message.starts_with("no .parquet files in"), "{message}");
    let message = MergedReader::open(&directory.path().join("absent"), &MergeOptions::default())
        .err()
        .unwrap()
        .to_string();
    assert!(message.starts_with("cannot read the directory"), "{message}");
}
