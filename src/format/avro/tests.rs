//! What is written is read back by the decoder of the library, and says which schema it is of.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array,
        DurationNanosecondArray, Float32Array, Float64Array, Int8Array, Int16Array, Int32Array, Int64Array,
        LargeStringArray, ListArray, RecordBatch, StringArray, StringViewArray, StructArray, Time64MicrosecondArray,
        TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt8Array, UInt16Array,
        UInt32Array,
    },
    buffer::NullBuffer,
    compute::cast,
    datatypes::{DataType, Field, Fields, Int64Type, IntervalUnit, Schema, SchemaRef, TimeUnit, i256},
};
use arrow_avro::{
    reader::ReaderBuilder,
    schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore},
};

use super::{schema::record_schema, *};
use crate::format::Encoder;

const NO_IDS: [(&str, &str); 0] = [];

fn options<const N: usize>(given: [(&str, &str); N]) -> Options {
    Options::resolve(OPTIONS, given.map(|(name, value)| (name.to_owned(), value.to_owned())))
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Utf8View, false),
        Field::new("n", DataType::Int64, true),
    ]))
}

fn rows(of: &[(&str, Option<i64>)]) -> RecordBatch {
    let keys = StringViewArray::from_iter_values(of.iter().map(|(key, _)| *key));
    let numbers: Int64Array = of.iter().map(|(_, number)| *number).collect();
    RecordBatch::try_new(schema(), vec![Arc::new(keys), Arc::new(numbers)]).unwrap()
}

/// What another reader makes of records that lie one behind the other.
fn read(store: SchemaStore, bytes: &[u8]) -> RecordBatch {
    let mut decoder = ReaderBuilder::new()
        .with_writer_schema_store(store)
        .build_decoder()
        .unwrap();
    assert_eq!(decoder.decode(bytes).unwrap(), bytes.len(), "all is read");
    decoder.flush().unwrap().expect("records")
}

fn by_fingerprint(text: &str) -> SchemaStore {
    let mut store = SchemaStore::new();
    store.register(AvroSchema::new(text.to_owned())).unwrap();
    store
}

fn by_id(id: u32, text: &str) -> SchemaStore {
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store
        .set(Fingerprint::Id(id), AvroSchema::new(text.to_owned()))
        .unwrap();
    store
}

fn texts(column: &ArrayRef) -> Vec<String> {
    let texts = cast(column, &DataType::Utf8).unwrap();
    let texts = texts.as_any().downcast_ref::<StringArray>().unwrap();
    texts.iter().map(|text| text.unwrap_or("null").to_owned()).collect()
}

fn of(column: impl Array + 'static) -> ArrayRef {
    Arc::new(column)
}

/// A column of each type that is let in, each with a value, a null and another value.
fn every_type() -> RecordBatch {
    let numbers = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
        Some(vec![Some(1), None, Some(i64::MIN)]),
        None,
        Some(vec![]),
    ]);
    let parts = Fields::from(vec![
        Field::new("a", DataType::Int32, true),
        Field::new("b", DataType::Utf8, true),
    ]);
    let pair = StructArray::new(
        parts,
        vec![
            Arc::new(Int32Array::from(vec![Some(1), None, None])),
            Arc::new(StringArray::from(vec![Some("x"), None, Some("y")])),
        ],
        Some(NullBuffer::from(vec![true, false, true])),
    );
    let price = Decimal128Array::from(vec![Some(1_234_567), None, Some(-1)]);
    let huge = Decimal256Array::from(vec![Some(i256::from_i128(i128::MAX)), None, Some(i256::from_i128(-7))]);
    let zoned = TimestampNanosecondArray::from(vec![Some(1), None, Some(i64::MIN)]).with_timezone("UTC");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("is", of(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("i8", of(Int8Array::from(vec![Some(i8::MIN), None, Some(i8::MAX)]))),
        ("i16", of(Int16Array::from(vec![Some(i16::MIN), None, Some(-1)]))),
        ("i32", of(Int32Array::from(vec![Some(i32::MIN), None, Some(0)]))),
        ("i64", of(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)]))),
        ("u8", of(UInt8Array::from(vec![Some(0), None, Some(u8::MAX)]))),
        ("u16", of(UInt16Array::from(vec![Some(1), None, Some(u16::MAX)]))),
        ("u32", of(UInt32Array::from(vec![Some(2), None, Some(u32::MAX)]))),
        (
            "f32",
            of(Float32Array::from(vec![Some(0.1), None, Some(f32::INFINITY)])),
        ),
        ("f64", of(Float64Array::from(vec![Some(f64::MIN), None, Some(-0.0)]))),
        (
            "view",
            of(StringViewArray::from(vec![Some("Öl, und mehr davon"), None, Some("")])),
        ),
        ("text", of(StringArray::from(vec![Some("a\"\\"), None, Some("\u{0}")]))),
        ("long", of(LargeStringArray::from(vec![Some("b"), None, Some("c")]))),
        (
            "bytes",
            of(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), None, Some(&b""[..])])),
        ),
        ("day", of(Date32Array::from(vec![Some(19_724), None, Some(-1)]))),
        (
            "time",
            of(Time64MicrosecondArray::from(vec![Some(0), None, Some(86_399_999_999)])),
        ),
        (
            "at",
            of(TimestampNanosecondArray::from(vec![Some(i64::MAX), None, Some(-1)])),
        ),
        ("zoned", of(zoned)),
        (
            "micros",
            of(TimestampMicrosecondArray::from(vec![Some(1), None, Some(-1)])),
        ),
        (
            "millis",
            of(TimestampMillisecondArray::from(vec![Some(1), None, Some(-1)])),
        ),
        ("price", of(price.with_precision_and_scale(10, 2).unwrap())),
        ("huge", of(huge.with_precision_and_scale(60, 3).unwrap())),
        ("took", of(DurationNanosecondArray::from(vec![Some(1), None, Some(-1)]))),
        ("numbers", of(numbers)),
        ("pair", of(pair)),
    ];
    let columns = columns.into_iter().map(|(name, column)| (name, column, true));
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn encoded(encoder: &mut AvroEncoder, rows: &RecordBatch) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    encoder.encode(rows, &mut bytes, &mut ends);
    (bytes, ends)
}

#[test]
fn values_and_nulls_of_every_type_are_read_back_as_they_were() {
    let rows = every_type();
    let mut encoder = AvroEncoder::new("r", &rows.schema(), FingerprintStrategy::Rabin).unwrap();
    let (bytes, ends) = encoded(&mut encoder, &rows);
    assert_eq!(ends.len(), 3);
    let read = read(by_fingerprint(encoder.schema_text()), &bytes);
    for (column, field) in rows.columns().iter().zip(rows.schema().fields()) {
        // Avro has fewer types: a TINYINT is an `int`.
        let found = read.column_by_name(field.name()).expect("all columns are there");
        let found = cast(found, field.data_type()).unwrap();
        assert_eq!(found.as_ref(), column.as_ref(), "{}", field.name());
    }
}

#[test]
fn the_bytes_of_a_row_depend_on_the_row_alone() {
    let rows = every_type();
    let mut encoder = AvroEncoder::new("r", &rows.schema(), FingerprintStrategy::Rabin).unwrap();
    let (bytes, ends) = encoded(&mut encoder, &rows);
    let mut start = 0;
    for (row, end) in ends.into_iter().enumerate() {
        let (alone, _) = encoded(&mut encoder, &rows.slice(row, 1));
        assert_eq!(alone, bytes[start..end], "row {row} alone and among others");
        start = end;
    }
    assert_eq!(start, bytes.len());
}

#[test]
fn rows_come_behind_what_is_there_already() {
    let mut encoder = AvroEncoder::new("r", &schema(), FingerprintStrategy::Id(1)).unwrap();
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    encoder.encode(&rows(&[]), &mut bytes, &mut ends);
    assert!(bytes.is_empty() && ends.is_empty(), "no rows, no bytes");
    encoder.encode(&rows(&[("a", None)]), &mut bytes, &mut ends);
    encoder.encode(&rows(&[("b", Some(-1))]), &mut bytes, &mut ends);
    assert_eq!(bytes, [0, 0, 0, 0, 1, 2, b'a', 0, 0, 0, 0, 0, 1, 2, b'b', 2, 1]);
    assert_eq!(ends, [8, 17]);
}

#[test]
fn the_schema_names_each_column_and_its_type() {
    let fields = |of: &[(&str, DataType)]| -> Vec<Field> {
        of.iter()
            .map(|(name, data_type)| Field::new(*name, data_type.clone(), false))
            .collect()
    };
    let pair = DataType::Struct(Fields::from(fields(&[("a", DataType::Int32)])));
    let mut columns = fields(&[
        ("symbol", DataType::Utf8View),
        ("at", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        ("day", DataType::Date32),
        ("price", DataType::Decimal128(10, 2)),
        ("took", DataType::Duration(TimeUnit::Nanosecond)),
        ("pair", pair.clone()),
        ("pairs", DataType::List(Arc::new(Field::new("item", pair, true)))),
    ]);
    columns.push(Field::new("n", DataType::Int64, true));
    let expected = [
        r#"{"type":"record","name":"out","fields":["#,
        r#"{"name":"symbol","type":"string"},"#,
        r#"{"name":"at","type":{"type":"long","logicalType":"timestamp-nanos"}},"#,
        r#"{"name":"day","type":{"type":"int","logicalType":"date"}},"#,
        r#"{"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}},"#,
        r#"{"name":"took","type":{"type":"long","unit":"nanosecond"}},"#,
        r#"{"name":"pair","type":{"type":"record","name":"out_pair","fields":[{"name":"a","type":"int"}]}},"#,
        r#"{"name":"pairs","type":{"type":"array","items":["null","#,
        r#"{"type":"record","name":"out_pairs","fields":[{"name":"a","type":"int"}]}]}},"#,
        r#"{"name":"n","type":["null","long"],"default":null}]}"#,
    ];
    assert_eq!(record_schema("out", &Schema::new(columns)).unwrap(), expected.concat());
}

#[test]
fn no_two_records_of_a_schema_have_one_name() {
    let pair = |name: &str| {
        let inner = Fields::from(vec![Field::new(name, DataType::Int32, false)]);
        DataType::Struct(inner)
    };
    let around = DataType::Struct(Fields::from(vec![Field::new("b_c", pair("x"), false)]));
    let columns = vec![Field::new("a", around, false), Field::new("a_b_c", pair("y"), false)];
    let text = record_schema("out", &Schema::new(columns)).unwrap();
    for name in [r#""out""#, r#""out_a""#, r#""out_a_b_c""#, r#""out_a_b_c_""#] {
        assert_eq!(
            text.matches(&format!(r#""name":{name},"fields""#)).count(),
            1,
            "{name} in {text}"
        );
    }
}

#[test]
fn a_key_that_went_is_a_record_without_a_value() {
    for ids in [None, Some((7, 8))] {
        let options = match ids {
            None => options(NO_IDS),
            Some(_) => options([("value_schema_id", "7"), ("key_schema_id", "8")]),
        };
        let mut changes = AvroChanges::new("totals out", &schema(), &[0], &options).unwrap();
        let [of_key, of_value]: [RecordSchema; 2] = changes.schemas().try_into().unwrap();
        assert_eq!((of_key.part, of_value.part), ("key", "value"));
        assert_eq!(
            of_key.text,
            r#"{"type":"record","name":"totals_out_key","fields":[{"name":"k","type":"string"}]}"#
        );
        let records = changes
            .records(
                &rows(&[("a", Some(2)), ("c", None)]),
                &rows(&[("a", Some(1)), ("b", Some(5))]),
            )
            .unwrap();
        assert_eq!(records.value(0), None, "what goes leaves first");
        let keys: Vec<u8> = (0..3)
            .flat_map(|record| records.key(record).unwrap().to_vec())
            .collect();
        let values: Vec<u8> = (1..3)
            .flat_map(|record| records.value(record).unwrap().to_vec())
            .collect();
        let (keys, values) = match ids {
            None => (
                read(by_fingerprint(&of_key.text), &keys),
                read(by_fingerprint(&of_value.text), &values),
            ),
            Some((value, key)) => (
                read(by_id(key, &of_key.text), &keys),
                read(by_id(value, &of_value.text), &values),
            ),
        };
        assert_eq!(texts(keys.column(0)), ["b", "a", "c"]);
        assert_eq!(texts(values.column(0)), ["a", "c"]);
        assert_eq!(texts(values.column(1)), ["2", "null"]);
    }
}

#[test]
fn rows_without_a_key_have_records_without_one() {
    let mut changes = AvroChanges::new("out", &schema(), &[], &options([("value_schema_id", "7")])).unwrap();
    assert_eq!(changes.schemas().len(), 1);
    let records = changes.records(&rows(&[("a", Some(2))]), &rows(&[])).unwrap();
    assert_eq!((records.len(), records.key(0)), (1, None));
    assert_eq!(records.value(0), Some([0, 0, 0, 0, 7, 2, b'a', 2, 4].as_slice()));
}

#[test]
fn a_record_begins_with_what_says_which_schema_it_has() {
    let mut changes = AvroChanges::new("out", &schema(), &[], &options(NO_IDS)).unwrap();
    let text = changes.schemas()[0].text.clone();
    let Fingerprint::Rabin(fingerprint) = AvroSchema::new(text).fingerprint(FingerprintAlgorithm::Rabin).unwrap()
    else {
        panic!("a fingerprint by Rabin");
    };
    let records = changes.records(&rows(&[("a", None)]), &rows(&[])).unwrap();
    let expected = [&[0xc3, 0x01][..], &fingerprint.to_le_bytes(), &[2, b'a', 0]].concat();
    assert_eq!(records.value(0), Some(expected.as_slice()));
}

#[test]
fn numbers_of_schemas_are_those_of_a_registry_and_of_what_there_is() {
    let both = "give both `key_schema_id` and `value_schema_id`, or neither";
    let (keyed, keyless): (&[usize], &[usize]) = (&[0], &[]);
    for (key, given, expected) in [
        (keyed, vec![("value_schema_id", "7")], both),
        (keyed, vec![("key_schema_id", "7")], both),
        (keyless, vec![("key_schema_id", "7")], "rows of this sink have no key"),
        (
            keyless,
            vec![("key_schema_id", "7"), ("value_schema_id", "8")],
            "rows of this sink have no key",
        ),
        (keyless, vec![("value_schema_id", "0")], "from 1 to 2147483647, not 0"),
        (keyless, vec![("value_schema_id", "-1")], "from 1 to 2147483647, not -1"),
        (keyless, vec![("value_schema_id", "2147483648")], "not 2147483648"),
    ] {
        let given = given
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let options = Options::resolve(OPTIONS, given);
        let error = AvroChanges::new("out", &schema(), key, &options)
            .err()
            .expect("refused");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let largest = options([("value_schema_id", "2147483647")]);
    assert!(AvroChanges::new("out", &schema(), &[], &largest).is_ok());
}

#[test]
fn what_avro_has_no_form_for_is_refused_by_name_with_a_way_out() {
    let list = |items: DataType| DataType::List(Arc::new(Field::new("item", items, true)));
    let inner = |name: &str, data_type| DataType::Struct(Fields::from(vec![Field::new(name, data_type, true)]));
    for (name, data_type, expected) in [
        (
            "n",
            DataType::UInt64,
            "column n: BIGINT UNSIGNED cannot be written as Avro; write CAST(n AS DECIMAL(20, 0)) AS n",
        ),
        ("n", DataType::Null, "write CAST(n AS VARCHAR) AS n"),
        (
            "N",
            DataType::Null,
            "column N: Null cannot be written as Avro; write CAST(\"N\" AS VARCHAR) AS \"N\"",
        ),
        (
            "at",
            DataType::Timestamp(TimeUnit::Second, None),
            "column at: TIMESTAMP(0) cannot be written as Avro; write CAST(at AS TIMESTAMP) AS at",
        ),
        (
            "t",
            DataType::Time64(TimeUnit::Nanosecond),
            "write CAST(t AS VARCHAR) AS t",
        ),
        (
            "i",
            DataType::Interval(IntervalUnit::MonthDayNano),
            "write CAST(i AS VARCHAR) AS i",
        ),
        (
            "d",
            DataType::Decimal128(10, -2),
            "write CAST(d AS DECIMAL(38, 0)) AS d",
        ),
        ("l", list(DataType::Boolean), "column l: "),
        (
            "s",
            inner("u", DataType::UInt64),
            "column s.u: BIGINT UNSIGNED cannot be written as Avro; take what is needed of it as columns of their own",
        ),
        ("s", inner("a b", DataType::Int64), "column s.a b: names in Avro"),
        (
            "a b",
            DataType::Int64,
            "give it another name in the query: \"a b\" AS a_b",
        ),
        ("1st", DataType::Int64, "\"1st\" AS _1st"),
        ("größe", DataType::Int64, "\"größe\" AS gr__e"),
        ("", DataType::Int64, "\"\" AS _"),
    ] {
        let schema = Schema::new(vec![Field::new(name, data_type, true)]);
        let error = record_schema("out", &schema).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
