//! Answers as scripts show them: types by letter, and values as text.

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, SchemaRef},
    util::display::{ArrayFormatter, FormatOptions},
};
use sqllogictest::{DBOutput, DefaultColumnType};

use super::StageError;

pub fn done(_: ()) -> DBOutput<DefaultColumnType> {
    DBOutput::StatementComplete(0)
}

pub fn types(schema: &SchemaRef) -> Vec<DefaultColumnType> {
    let of = |data_type: &DataType| match data_type {
        data_type if data_type.is_integer() => DefaultColumnType::Integer,
        DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => DefaultColumnType::FloatingPoint,
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Timestamp(..) | DataType::Date32 => {
            DefaultColumnType::Text
        }
        _ => DefaultColumnType::Any,
    };
    schema.fields().iter().map(|field| of(field.data_type())).collect()
}

pub fn rows(batches: &[RecordBatch]) -> Result<Vec<Vec<String>>, StageError> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(StageError::of)?;
        for row in 0..batch.num_rows() {
            let texts = columns.iter().map(|column| match column.value(row).to_string() {
                empty if empty.is_empty() => "(empty)".into(),
                text => text,
            });
            rows.push(texts.collect());
        }
    }
    Ok(rows)
}
