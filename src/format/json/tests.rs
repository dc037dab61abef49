//! The manual of the JSON format: which records become which rows, and why the others do not.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int64Array,
        RecordBatch, StringArray, StringViewArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt16Array,
    },
    datatypes::{DataType, Field, Float32Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType},
};
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    format::Encoder,
    types::{Records, RecordsBuilder, limits::JSON_DEPTH_MAX},
};

const TIME: DataType = DataType::Timestamp(TimeUnit::Nanosecond, None);

fn records<T: AsRef<[u8]>>(values: impl IntoIterator<Item = T>) -> Records {
    let mut builder = RecordsBuilder::default();
    for (position, value) in values.into_iter().enumerate() {
        builder.push(position as u64, None, None, Some(value.as_ref()));
    }
    builder.finish()
}

fn schema(columns: &[(&str, DataType, bool)]) -> SchemaRef {
    let fields = columns
        .iter()
        .map(|(name, data_type, is_nullable)| Field::new(*name, data_type.clone(), *is_nullable));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

fn decoder(columns: &[(&str, DataType, bool)], timestamp_format: &str) -> JsonDecoder {
    let options = Options::resolve(OPTIONS, [("timestamp_format".to_owned(), timestamp_format.to_owned())]);
    JsonDecoder::new(schema(columns), &options).expect("supported types")
}

fn candle_columns() -> Vec<(&'static str, DataType, bool)> {
    vec![
        ("symbol", DataType::Utf8View, false),
        ("open_time", TIME, false),
        ("open", DataType::Float32, true),
        ("close", DataType::Float64, true),
        ("number_of_trades", DataType::Int32, true),
    ]
}

/// Candles as `zeta replay` writes them, `n` of them from a fixed seed.
pub fn sample_candles(n: usize) -> Records {
    use rand::{Rng, SeedableRng};
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let symbols = StringViewArray::from_iter_values(
        (0..n).map(|row| ["ADA-USDT", "BTC-USDT", "ETH-USDT", "1000SHIB-USDT"][row % 4]),
    );
    let times = TimestampNanosecondArray::from_iter_values(
        (0..n as i64).map(|row| 1_704_067_200_000_000_000 + row / 4 * 60_000_000_000),
    );
    let mut columns: Vec<(&str, ArrayRef)> = vec![("symbol", Arc::new(symbols)), ("open_time", Arc::new(times))];
    for name in [
        "open",
        "high",
        "low",
        "close",
        "volume",
        "quote_asset_volume",
        "taker_buy_base_asset_volume",
        "taker_buy_quote_asset_volume",
    ] {
        columns.push((
            name,
            Arc::new(Float32Array::from_iter_values(
                (0..n).map(|_| random.random::<f32>() * 1000.0),
            )),
        ));
    }
    columns.push((
        "number_of_trades",
        Arc::new(UInt16Array::from_iter_values((0..n).map(|_| random.random::<u16>()))),
    ));
    let rows = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    JsonEncoder::new(rows.schema())
        .expect("supported types")
        .encode(&rows, &mut bytes, &mut ends);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    records(starts.zip(&ends).map(|(start, end)| &bytes[start..*end]))
}

#[test]
fn a_record_is_a_row_or_says_why_not() {
    let deep = format!(
        r#"{{"s":"a","t":"2024-01-01T00:00:00Z","n":1,"x":{}1{}}}"#,
        "[".repeat(JSON_DEPTH_MAX - 1),
        "]".repeat(JSON_DEPTH_MAX - 1)
    );
    let too_deep = format!(
        r#"{{"s":"a","t":"2024-01-01T00:00:00Z","n":1,"x":{}1{}}}"#,
        "[".repeat(JSON_DEPTH_MAX),
        "]".repeat(JSON_DEPTH_MAX)
    );
    let much_too_deep = format!(r#"{{"x":{}"#, "[".repeat(100_000));
    let large = format!(r#"{{"s":"{}"}}"#, "a".repeat(RECORD_BYTES_MAX));
    const GOOD: &str = r#""s":"a","t":"2024-01-01T00:00:00Z","n":1"#;
    let with = |more: &str| format!("{{{GOOD},{more}}}").into_bytes();
    let cases: Vec<(Vec<u8>, Result<&str, &str>)> = vec![
        // What is a row.
        (format!("{{{GOOD}}}").into_bytes(), Ok("a 1")),
        (
            b" \t\r\n{ \"n\" : 2 , \"t\":\"2024-01-01 00:00:00\",\n\"s\":\"b\" } ".to_vec(),
            Ok("b 2"),
        ),
        (
            br#"{"s":"\u0061\n\ud83d\ude00\"\/","t":"2024-01-01T00:00:00Z","n":3}"#.to_vec(),
            Ok("a\n😀\"/ 3"),
        ),
        (
            br#"{"\u0073":"key with an escape","t":"2024-01-01T00:00:00Z","n":-0}"#.to_vec(),
            Ok("key with an escape 0"),
        ),
        (
            br#"{"s":"a","t":"2024-01-01T00:00:00\u005a","n":9}"#.to_vec(),
            Ok("a 9"),
        ),
        (
            r#"{"s":"twelve bytes and more: é","t":"2024-01-01T00:00:00Z","n":127}"#.into(),
            Ok("twelve bytes and more: é 127"),
        ),
        (br#"{"s":"","t":"2024-01-01T00:00:00Z","n":-128}"#.to_vec(), Ok(" -128")),
        (
            with(r#""f":1e2,"x":{"a":[1,{"b":null}],"a":2},"y":[],"z":{}"#),
            Ok("a 1"),
        ),
        (with(r#""f":null"#), Ok("a 1")),
        (deep.into_bytes(), Ok("a 1")),
        // Columns.
        (
            br#"{"t":"2024-01-01T00:00:00Z","n":1}"#.to_vec(),
            Err("column s: missing"),
        ),
        (
            br#"{"s":null,"t":"2024-01-01T00:00:00Z","n":1}"#.to_vec(),
            Err("column s: null in a NOT NULL column"),
        ),
        (
            br#"{"S":"a","t":"2024-01-01T00:00:00Z","n":1}"#.to_vec(),
            Err("column s: missing"),
        ),
        (b"{}".to_vec(), Err("column s: missing")),
        (br#"{"n":1.5}"#.to_vec(), Err("column n: 1.5 is not an integer")),
        (br#"{"n":1.0}"#.to_vec(), Err("column n: 1.0 is not an integer")),
        (br#"{"n":1e2}"#.to_vec(), Err("column n: 1e2 is not an integer")),
        (br#"{"n":128}"#.to_vec(), Err("column n: 128 is out of range")),
        (br#"{"n":-129}"#.to_vec(), Err("column n: -129 is out of range")),
        (
            br#"{"n":1234567890123456789012345678901234567890123456789}"#.to_vec(),
            Err("column n: 1234567890123456789012345678901234567890… is out of range"),
        ),
        (
            br#"{"n":"1"}"#.to_vec(),
            Err("column n: expected an integer, found text"),
        ),
        (
            br#"{"n":true}"#.to_vec(),
            Err("column n: expected an integer, found true or false"),
        ),
        (
            br#"{"n":{}}"#.to_vec(),
            Err("column n: expected an integer, found an object"),
        ),
        (
            br#"{"n":[1]}"#.to_vec(),
            Err("column n: expected an integer, found an array"),
        ),
        (br#"{"s":1}"#.to_vec(), Err("column s: expected text, found a number")),
        (
            br#"{"s":false}"#.to_vec(),
            Err("column s: expected text, found true or false"),
        ),
        (br#"{"f":"1"}"#.to_vec(), Err("column f: expected a number, found text")),
        (br#"{"f":1e39}"#.to_vec(), Err("column f: 1e39 is out of range")),
        (br#"{"f":1e400}"#.to_vec(), Err("the number at byte 5 is out of range")),
        (br#"{"x":1e400}"#.to_vec(), Err("the number at byte 5 is out of range")),
        (
            br#"{"t":1704067200}"#.to_vec(),
            Err("column t: expected a time as text, found a number"),
        ),
        (
            br#"{"t":"yesterday"}"#.to_vec(),
            Err("column t: 'yesterday' is not a time"),
        ),
        (
            br#"{"t":"2024-02-30T00:00:00Z"}"#.to_vec(),
            Err("column t: '2024-02-30T00:00:00Z' is not a time"),
        ),
        (
            br#"{"t":"2400-01-01T00:00:00Z"}"#.to_vec(),
            Err("column t: 2400-01-01T00:00:00Z is out of range"),
        ),
        // Keys.
        (with(r#""n":1"#), Err("key n stands twice")),
        (with(r#""\u006e":1"#), Err(r"key \u006e stands twice")),
        (with(r#""x":1,"x":2"#), Err("a key stands twice")),
        (
            br#"{n:1}"#.to_vec(),
            Err("not JSON: expected a key in quotes at byte 1"),
        ),
        (br#"{"n" 1}"#.to_vec(), Err("not JSON: expected `:` at byte 5")),
        // Syntax, also where nobody needs the value.
        (b"".to_vec(), Err("empty")),
        (b" \n".to_vec(), Err("empty")),
        (b"{".to_vec(), Err("not JSON: it ends in the middle of a value")),
        (br#"{"n":1"#.to_vec(), Err("not JSON: it ends in the middle of a value")),
        (
            br#"{"n":1,}"#.to_vec(),
            Err("not JSON: expected a key in quotes at byte 7"),
        ),
        (
            br#"{"n":1;"s":"a"}"#.to_vec(),
            Err("not JSON: expected `,` or `}` at byte 6"),
        ),
        (
            br#"{"n":01}"#.to_vec(),
            Err("not JSON: a number with a leading zero at byte 5"),
        ),
        (br#"{"n":-}"#.to_vec(), Err("not JSON: expected a digit at byte 6")),
        (br#"{"x":1.}"#.to_vec(), Err("not JSON: expected a digit at byte 7")),
        (br#"{"x":1e+}"#.to_vec(), Err("not JSON: expected a digit at byte 8")),
        (br#"{"x":.5}"#.to_vec(), Err("not JSON: expected a value at byte 5")),
        (br#"{"x":+1}"#.to_vec(), Err("not JSON: expected a value at byte 5")),
        (br#"{"f":NaN}"#.to_vec(), Err("not JSON: expected a value at byte 5")),
        (
            br#"{"x":-Infinity}"#.to_vec(),
            Err("not JSON: expected a digit at byte 6"),
        ),
        (br#"{"x":nul}"#.to_vec(), Err("not JSON: expected null at byte 5")),
        (br#"{"x":[1,]}"#.to_vec(), Err("not JSON: expected a value at byte 8")),
        (
            br#"{"x":[1 2]}"#.to_vec(),
            Err("not JSON: expected `,` or `]` at byte 8"),
        ),
        (
            b"{\"x\":\"a\nb\"}".to_vec(),
            Err("not JSON: a control character in text at byte 7"),
        ),
        (br#"{"x":"\q"}"#.to_vec(), Err("not JSON: an unknown escape at byte 6")),
        (
            br#"{"x":"\u12g4"}"#.to_vec(),
            Err("not JSON: an unknown escape at byte 6"),
        ),
        (br#"{"x":"\ud800"}"#.to_vec(), Err("half of a surrogate pair at byte 6")),
        (br#"{"s":"\udc00"}"#.to_vec(), Err("half of a surrogate pair at byte 6")),
        (
            br#"{"x":"\ud800\u0041"}"#.to_vec(),
            Err("half of a surrogate pair at byte 6"),
        ),
        (b"{\"x\":\"\xff\"}".to_vec(), Err("not UTF-8 at byte 6")),
        (b"{\"s\":\"\xed\xa0\x80\"}".to_vec(), Err("not UTF-8 at byte 6")),
        (too_deep.into_bytes(), Err("nested deeper than 128 levels")),
        (much_too_deep.into_bytes(), Err("nested deeper than 128 levels")),
        // Not one object.
        (
            format!("{{{GOOD}}}x").into_bytes(),
            Err("something follows the JSON object"),
        ),
        (
            format!("{{{GOOD}}}{{{GOOD}}}").into_bytes(),
            Err("something follows the JSON object"),
        ),
        (
            format!("{{{GOOD}}}\0").into_bytes(),
            Err("something follows the JSON object"),
        ),
        (b"[{}]".to_vec(), Err("expected a JSON object, found an array")),
        (b"null".to_vec(), Err("expected a JSON object, found null")),
        (b"1".to_vec(), Err("expected a JSON object, found a bare value")),
        (b"'a'".to_vec(), Err("not JSON: expected a JSON object at byte 0")),
        (
            format!("\u{feff}{{{GOOD}}}").into_bytes(),
            Err("it begins with a byte order mark"),
        ),
        (large.into_bytes(), Err("larger than 1048576 bytes")),
    ];
    assert!(60 <= cases.len());

    let columns = [
        ("s", DataType::Utf8View, false),
        ("t", TIME, false),
        ("n", DataType::Int8, false),
        ("f", DataType::Float32, true),
    ];
    let show = |decoded: &Decoded| {
        let text = decoded.rows.column(0).as_string_view();
        let number = decoded.rows.column(2).as_primitive::<arrow::datatypes::Int8Type>();
        (0..decoded.rows.num_rows())
            .map(|row| format!("{} {}", text.value(row), number.value(row)))
            .collect::<Vec<_>>()
    };
    for (record, expected) in &cases {
        let decoded = decoder(&columns, "rfc3339").decode(&records([record]));
        let shown = String::from_utf8_lossy(&record[..record.len().min(100)]).into_owned();
        match expected {
            Ok(row) => {
                assert!(
                    decoded.bad.is_empty() && decoded.record_of_row.is_none(),
                    "{shown}: {:?}",
                    decoded.bad
                );
                assert_eq!(show(&decoded), [*row], "{shown}");
            }
            Err(reason) => {
                assert_eq!(decoded.rows.num_rows(), 0, "{shown}");
                assert_eq!(decoded.record_of_row, Some(vec![]), "{shown}");
                assert_eq!(decoded.bad[0].reason, *reason, "{shown}");
                assert_eq!(
                    decoded.bad[0].first_bytes,
                    record[..record.len().min(BAD_RECORD_BYTES_KEPT)],
                    "{shown}"
                );
            }
        }
    }

    // All at once, and each after a good one: the bad ones leave nothing behind in the columns.
    let good = format!("{{{GOOD}}}").into_bytes();
    let all = cases.iter().flat_map(|(record, _)| [record, &good]);
    let decoded = decoder(&columns, "rfc3339").decode(&records(all));
    let rows: Vec<&str> = cases
        .iter()
        .flat_map(|(_, expected)| expected.iter().copied().chain(["a 1"]))
        .collect();
    let reasons: Vec<&str> = cases.iter().filter_map(|(_, expected)| expected.err()).collect();
    assert_eq!(show(&decoded), rows);
    assert_eq!(
        decoded.bad.iter().map(|bad| bad.reason.as_str()).collect::<Vec<_>>(),
        reasons
    );
    let record_of_row = decoded.record_of_row.unwrap();
    assert!(
        record_of_row
            .iter()
            .all(|record| record % 2 == 1 || cases[*record as usize / 2].1.is_ok())
    );
    assert!(
        decoded
            .bad
            .iter()
            .all(|bad| cases[bad.position.0 as usize / 2].1.is_err())
    );
}

#[test]
fn a_tombstone_is_no_row_and_an_empty_value_is_something_else() {
    let mut builder = RecordsBuilder::default();
    builder.push(3, None, Some(b"key"), None);
    builder.push(7, None, Some(b"key"), Some(b""));
    let decoded = decoder(&[("n", DataType::Int32, true)], "rfc3339").decode(&builder.finish());
    let bad: Vec<_> = decoded
        .bad
        .iter()
        .map(|bad| (bad.position.0, bad.reason.as_str()))
        .collect();
    assert_eq!(bad, [(3, "no value (tombstone)"), (7, "empty")]);
}

#[test]
fn one_column_also_takes_bare_values() {
    let mut numbers = decoder(&[("n", DataType::Int64, true)], "rfc3339");
    let decoded = numbers.decode(&records(["42", " -7 ", r#"{"n":1}"#, r#"{"n":null}"#, "{}"]));
    assert_eq!(
        decoded.rows.column(0).as_ref(),
        &Int64Array::from(vec![Some(42), Some(-7), Some(1), None, None]) as &dyn Array
    );
    for (record, reason) in [
        ("1.5", "column n: 1.5 is not an integer"),
        ("\"1\"", "column n: expected an integer, found text"),
        ("1 2", "something follows the JSON value"),
        ("1x", "something follows the JSON value"),
        ("null", "expected a JSON object, found null"),
        ("[1]", "expected a JSON object, found an array"),
        ("-", "not JSON: it ends in the middle of a value"),
        ("tru", "not JSON: expected true at byte 0"),
    ] {
        assert_eq!(numbers.decode(&records([record])).bad[0].reason, reason, "{record}");
    }

    let mut texts = decoder(&[("s", DataType::Utf8, false)], "rfc3339");
    let decoded = texts.decode(&records([r#""a\tb""#, r#""c""#]));
    assert_eq!(
        decoded.rows.column(0).as_ref(),
        &StringArray::from(vec!["a\tb", "c"]) as &dyn Array
    );
}

#[test]
fn one_needed_column_of_many_does_not_make_bare_values_rows() {
    let mut one_of_many = decoder(&[("n", DataType::Int64, false)], "rfc3339").accept_bare(false);
    assert_eq!(
        one_of_many.decode(&records(["42"])).bad[0].reason,
        "expected a JSON object, found a bare value"
    );
    let mut none_of_one = decoder(&[], "rfc3339").accept_bare(true);
    assert_eq!(none_of_one.decode(&records(["42", "{}"])).rows.num_rows(), 2);
    let mut two = decoder(&candle_columns(), "rfc3339").accept_bare(true);
    assert_eq!(two.decode(&records(["42"])).bad.len(), 1);
}

#[test]
fn records_are_counted_even_if_no_column_is_needed() {
    let decoded = decoder(&[], "rfc3339").decode(&records([r#"{"a":1}"#, "{", "{}", "1"]));
    assert_eq!(decoded.rows.num_rows(), 2);
    assert_eq!(decoded.record_of_row, Some(vec![0, 2]));
}

#[test]
fn each_type_takes_its_whole_range_and_no_more() {
    use DataType::*;
    for (data_type, good, bad) in [
        (Int8, vec!["-128", "127"], vec!["128", "-129"]),
        (Int16, vec!["-32768", "32767"], vec!["32768"]),
        (Int32, vec!["-2147483648", "2147483647"], vec!["2147483648"]),
        (
            Int64,
            vec!["-9223372036854775808", "9223372036854775807"],
            vec!["9223372036854775808", "-9223372036854775809"],
        ),
        (UInt8, vec!["0", "255", "-0"], vec!["-1", "256"]),
        (UInt16, vec!["65535"], vec!["65536"]),
        (UInt32, vec!["4294967295"], vec!["4294967296"]),
        (UInt64, vec!["18446744073709551615"], vec!["18446744073709551616", "-1"]),
        (
            Float32,
            vec!["3.4028235e38", "1e-45", "1e-999"],
            vec!["3.5e38", "-1e39"],
        ),
        (
            Float64,
            vec!["1.7976931348623157e308", "5e-324", "-1e-999"],
            vec!["1e309", "\"NaN\""],
        ),
        (Boolean, vec!["true", "false"], vec!["0", "\"true\"", "True"]),
        (
            Date32,
            vec!["\"0000-01-01\"", "\"9999-12-31\"", "\"2024-02-29\""],
            vec!["\"2024-02-30\"", "\"2024-1-1\"", "19000", "\"\""],
        ),
        (
            Decimal128(5, 2),
            vec![
                "999.99",
                "-999.99",
                "1",
                "1.50000000000000000000000000000000000000000000",
                "1e2",
                "12345e-2",
                "0e99",
            ],
            vec![
                "1000",
                "0.001",
                "1e3",
                "1e99",
                "\"1\"",
                "123456789012345678901234567890123456789012345",
            ],
        ),
        (
            Decimal128(38, 0),
            vec!["99999999999999999999999999999999999999"],
            vec!["100000000000000000000000000000000000000"],
        ),
        (
            Timestamp(TimeUnit::Second, None),
            vec!["\"2024-01-01T00:00:00Z\""],
            vec!["\"2024-01-01T00:00:00.5Z\""],
        ),
        (
            Timestamp(TimeUnit::Millisecond, None),
            vec!["\"2024-01-01T00:00:00.123Z\""],
            vec!["\"2024-01-01T00:00:00.1234Z\""],
        ),
        (Utf8, vec!["\"\""], vec!["1", "true"]),
    ] {
        let mut decoder = decoder(&[("x", data_type.clone(), false)], "rfc3339");
        let wrap = |value: &&str| format!("{{\"x\":{value}}}");
        let decoded = decoder.decode(&records(good.iter().map(wrap)));
        assert!(decoded.bad.is_empty(), "{data_type}: {:?}", decoded.bad);
        let decoded = decoder.decode(&records(bad.iter().map(wrap)));
        assert_eq!(decoded.rows.num_rows(), 0, "{data_type}: {bad:?}");
    }
}

#[test]
fn decimals_and_days_keep_their_value() {
    let columns = [
        ("d", DataType::Decimal128(10, 3), true),
        ("day", DataType::Date32, true),
    ];
    let decoded = decoder(&columns, "rfc3339").decode(&records([
        r#"{"d":-12.5,"day":"1970-01-02"}"#,
        r#"{"d":0.001e3,"day":"1969-12-31"}"#,
        r#"{"d":1200}"#,
        r#"{"d":10.050}"#,
    ]));
    let decimals = Decimal128Array::from(vec![-12_500, 1_000, 1_200_000, 10_050])
        .with_precision_and_scale(10, 3)
        .unwrap();
    assert_eq!(decoded.rows.column(0).as_ref(), &decimals as &dyn Array);
    assert_eq!(
        decoded.rows.column(1).as_ref(),
        &Date32Array::from(vec![Some(1), Some(-1), None, None]) as &dyn Array
    );
}

#[test]
fn times_are_numbers_where_the_option_says_so() {
    for (format, record, expected) in [
        ("epoch_s", "-1", Ok(-1_000_000_000)),
        ("epoch_ms", "1704067200000", Ok(1_704_067_200_000_000_000)),
        ("epoch_us", "1", Ok(1_000)),
        ("epoch_ns", "9223372036854775807", Ok(i64::MAX)),
        (
            "epoch_ms",
            "9223372036854775807",
            Err("column t: 9223372036854775807 is out of range"),
        ),
        ("epoch_ms", "1.5", Err("column t: 1.5 is not an integer")),
        (
            "epoch_ms",
            "\"2024-01-01T00:00:00Z\"",
            Err("column t: expected a time as an integer, found text"),
        ),
    ] {
        let decoded = decoder(&[("t", TIME, false)], format).decode(&records([format!("{{\"t\":{record}}}")]));
        match expected {
            Ok(nanos) => assert_eq!(
                decoded
                    .rows
                    .column(0)
                    .as_primitive::<TimestampNanosecondType>()
                    .value(0),
                nanos
            ),
            Err(reason) => assert_eq!(decoded.bad[0].reason, reason),
        }
    }
}

#[test]
fn floats_are_read_at_their_own_width() {
    let decoded = decoder(&[("x", DataType::Float32, false)], "rfc3339")
        .decode(&records([r#"{"x":1.00000017881393432617187499}"#]));
    assert_eq!(
        decoded.rows.column(0).as_primitive::<Float32Type>().value(0),
        1.000_000_1_f32,
        "by way of a double it would be 1.0000002"
    );
}

#[test]
fn a_type_that_json_cannot_hold_is_refused_at_once() {
    let result = JsonDecoder::new(schema(&[("b", DataType::Binary, true)]), &Options::default());
    assert_eq!(
        result.err().unwrap().to_string(),
        "column b: Binary cannot be read from JSON"
    );
    assert!(JsonEncoder::new(schema(&[("b", DataType::Binary, true)])).is_err());
    assert!(
        JsonEncoder::bare(schema(&candle_columns())).is_err(),
        "bare is for one column"
    );
}

#[test]
fn many_keys_are_compared_in_good_time() {
    let keys: Vec<String> = (0..50_000).map(|key| format!("\"k{key}\":1")).collect();
    let good = format!("{{{}}}", keys.join(","));
    let twice = format!("{{{},\"k7\":1}}", keys.join(","));
    let decoded = decoder(&[], "rfc3339").decode(&records([good, twice]));
    assert_eq!(
        (decoded.rows.num_rows(), decoded.bad[0].reason.as_str()),
        (1, "a key stands twice")
    );
}

#[test]
fn rows_are_written_compactly_in_column_order() {
    let rows = RecordBatch::try_from_iter([
        (
            "s",
            Arc::new(StringArray::from(vec![Some("a\"\\\n\u{1}é"), None])) as ArrayRef,
        ),
        ("f", Arc::new(Float32Array::from(vec![0.1, f32::NAN])) as ArrayRef),
        (
            "d",
            Arc::new(Float64Array::from(vec![0.1f32 as f64, f64::INFINITY])) as ArrayRef,
        ),
        ("n", Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX])) as ArrayRef),
        ("u", Arc::new(UInt16Array::from(vec![65_535, 0])) as ArrayRef),
        ("b", Arc::new(BooleanArray::from(vec![true, false])) as ArrayRef),
        (
            "t",
            Arc::new(TimestampMillisecondArray::from(vec![1_704_067_200_000, -1]).with_timezone("+01:00")) as ArrayRef,
        ),
        ("day", Arc::new(Date32Array::from(vec![0, 19_723])) as ArrayRef),
        (
            "m",
            Arc::new(
                Decimal128Array::from(vec![-1_250, 5])
                    .with_precision_and_scale(10, 3)
                    .unwrap(),
            ) as ArrayRef,
        ),
    ])
    .unwrap();
    let (mut out, mut ends) = (b"before".to_vec(), Vec::new());
    JsonEncoder::new(rows.schema())
        .unwrap()
        .encode(&rows, &mut out, &mut ends);
    let first = r#"{"s":"a\"\\\n\u0001é","f":0.1,"d":0.10000000149011612,"n":-9223372036854775808,"u":65535,"b":true,"t":"2024-01-01T00:00:00Z","day":"1970-01-01","m":-1.250}"#;
    let second = r#"{"s":null,"f":null,"d":null,"n":9223372036854775807,"u":0,"b":false,"t":"1969-12-31T23:59:59.999Z","day":"2024-01-01","m":0.005}"#;
    assert_eq!(std::str::from_utf8(&out[6..ends[0]]).unwrap(), first);
    assert_eq!(std::str::from_utf8(&out[ends[0]..]).unwrap(), second);
    assert_eq!(ends[1], out.len());
}

#[test]
fn a_bare_encoder_writes_values_alone() {
    let rows = RecordBatch::try_from_iter([(
        "n",
        Arc::new(UInt16Array::from(vec![Some(7), None, Some(0)])) as ArrayRef,
    )])
    .unwrap();
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    JsonEncoder::bare(rows.schema())
        .unwrap()
        .encode(&rows, &mut out, &mut ends);
    assert_eq!((out.as_slice(), ends), (b"7null0".as_slice(), vec![1, 5, 6]));
}

#[test]
fn what_was_written_is_read_back_the_same() {
    let candles = sample_candles(1_000);
    let columns: Vec<_> = candle_columns();
    let decoded = decoder(&columns, "rfc3339").decode(&candles);
    assert!(decoded.bad.is_empty(), "{:?}", decoded.bad.first());
    let text: Value = serde_json::from_slice(candles.value(999).unwrap()).unwrap();
    assert_eq!(decoded.rows.column(0).as_string_view().value(999), text["symbol"]);
    assert_eq!(
        decoded.rows.column(2).as_primitive::<Float32Type>().value(999),
        text["open"].as_f64().unwrap() as f32
    );
}

/// JSON near what the decoder expects: values of all kinds under known and unknown keys, laid out in several ways.
fn json_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f32>()
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("finite", |number| number.is_finite())
            .prop_map(|number| format!("{number:e}")),
        any::<i64>().prop_map(|nanos| format!("\"{}\"", crate::types::format_event_time(nanos))),
        any::<String>().prop_map(|text| Value::from(text).to_string()),
        "[a-z\\\\u0-9]{0,6}".prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            proptest::collection::vec(("[a-c]", inner), 0..4).prop_map(|items| {
                let items: Vec<String> = items.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
                format!("{{{}}}", items.join(","))
            }),
        ]
    })
}

fn json_record() -> impl Strategy<Value = Vec<u8>> {
    let candle = (any::<u8>(), any::<f32>(), any::<f64>(), any::<i32>(), any::<i64>(), 0..5usize).prop_map(
        |(symbol, open, close, trades, nanos, layout)| {
            let time = crate::types::format_event_time(nanos);
            let open = if open.is_finite() { open.to_string() } else { "null".into() };
            let close = if close.is_finite() { close.to_string() } else { "null".into() };
            match layout {
                0 | 1 => format!(r#"{{"symbol":"S{symbol}","open_time":"{time}","open":{open},"close":{close},"number_of_trades":{trades}}}"#),
                2 => format!(r#"{{"symbol": "S{symbol}", "open_time": "{time}", "x": [{trades}], "open": {open}}}"#),
                3 => format!(r#"{{"open_time":"{time}","symbol":"S{symbol}"}}"#),
                _ => format!(r#"{{"open_time":"{time}","x":"{symbol}","symbol":"S{symbol}","y":{close}}}"#),
            }
        },
    );
    let any_object = proptest::collection::vec(
        (
            prop_oneof![
                Just("symbol"),
                Just("open_time"),
                Just("open"),
                Just("close"),
                Just("number_of_trades"),
                Just("x")
            ],
            json_value(),
        ),
        0..7,
    )
    .prop_map(|items| {
        let items: Vec<String> = items.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        format!("{{{}}}", items.join(","))
    });
    let good = prop_oneof![4 => candle, 1 => any_object, 1 => json_value()].prop_map(String::into_bytes);
    (
        good,
        proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..6u8), 0..2),
        0..4u8,
    )
        .prop_map(|(mut record, mutations, spared)| {
            for (place, byte, kind) in mutations.into_iter().filter(|_| spared == 0) {
                let place = place.index(record.len().max(1)).min(record.len().saturating_sub(1));
                match kind {
                    _ if record.is_empty() => {}
                    0 => record[place] = byte,
                    1 => record.insert(place, byte),
                    2 => record.truncate(place),
                    3 => record[place] = b"{}[]\",:\\ 0-.eu"[usize::from(byte) % 14],
                    4 => {
                        record.remove(place);
                    }
                    _ => record.insert(place, b"{}[]\",:\\ 0-.eu"[usize::from(byte) % 14]),
                }
            }
            record
        })
}

fn general_alone(columns: &[(&str, DataType, bool)], records: &Records) -> (Vec<RecordBatch>, Vec<BadRecord>) {
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    for index in 0..records.len() {
        let mut one = RecordsBuilder::default();
        one.push(records.positions()[index], None, None, records.value(index));
        // A new decoder has no layout, so its first record is always read by the general reader.
        let decoded = decoder(columns, "rfc3339").decode(&one.finish());
        rows.push(decoded.rows);
        bad.extend(decoded.bad);
    }
    (rows, bad)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn prediction_changes_nothing(values in proptest::collection::vec(json_record(), 1..12)) {
        let records = records(&values);
        for columns in [candle_columns(), candle_columns()[1..2].to_vec(), vec![]] {
            let (rows, bad) = general_alone(&columns, &records);
            let decoded = decoder(&columns, "rfc3339").decode(&records);
            let schema = schema(&columns);
            let expected: Vec<_> = rows.iter().filter(|rows| rows.num_rows() == 1).collect();
            if !columns.is_empty() {
                prop_assert_eq!(&decoded.rows, &arrow::compute::concat_batches(&schema, expected.iter().copied()).unwrap());
            }
            prop_assert_eq!(decoded.rows.num_rows(), expected.len());
            prop_assert_eq!(&decoded.bad, &bad);

            // A decoder that has read all of it before gives the same once more.
            let mut used = decoder(&columns, "rfc3339");
            used.decode(&records);
            let again = used.decode(&records);
            prop_assert_eq!(again.rows, decoded.rows);
            prop_assert_eq!(again.bad, decoded.bad);
            prop_assert_eq!(again.record_of_row, decoded.record_of_row);
        }
    }

    #[test]
    fn what_is_json_is_what_serde_json_takes(record in json_record()) {
        // No column is needed, so only the syntax decides; beyond it, keys may not stand twice and an object must stand there.
        let decoded = decoder(&[], "rfc3339").decode(&records([&record]));
        match serde_json::from_slice::<Value>(&record) {
            Ok(Value::Object(_)) => {
                let is_strict = decoded.bad.first().is_none_or(|bad| bad.reason == "a key stands twice");
                prop_assert!(is_strict, "{:?}", decoded.bad);
            }
            _ => prop_assert_eq!(decoded.bad.len(), 1),
        }
    }

    #[test]
    fn text_comes_back_as_it_was(texts: Vec<String>) {
        let column: ArrayRef = Arc::new(StringViewArray::from_iter_values(&texts));
        let rows = RecordBatch::try_from_iter([("s", column)]).unwrap();
        let (mut out, mut ends) = (Vec::new(), Vec::new());
        JsonEncoder::new(rows.schema()).unwrap().encode(&rows, &mut out, &mut ends);
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let records = records(starts.zip(&ends).map(|(start, end)| &out[start..*end]));
        let decoded = decoder(&[("s", DataType::Utf8View, false)], "rfc3339").decode(&records);
        prop_assert_eq!(decoded.rows.column(0), rows.column(0));
    }
}
