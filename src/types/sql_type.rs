//! What SQL calls the types of columns, in mistakes, DESCRIBE and the API alike.

use arrow::datatypes::DataType;

/// The SQL name of a type, or Arrow's own where SQL has none.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INTEGER".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::UInt8 => "TINYINT UNSIGNED".into(),
        DataType::UInt16 => "SMALLINT UNSIGNED".into(),
        DataType::UInt32 => "INTEGER UNSIGNED".into(),
        DataType::UInt64 => "BIGINT UNSIGNED".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR".into(),
        // Times are UTC here, whether or not the type says so.
        DataType::Timestamp(..) => "TIMESTAMP".into(),
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Dictionary(_, values) => type_name(values),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn types_have_the_names_that_sql_gives_them() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        for (data_type, expected) in [
            (DataType::Utf8View, "VARCHAR"),
            (dictionary, "VARCHAR"),
            (DataType::Int64, "BIGINT"),
            (DataType::Int32, "INTEGER"),
            (DataType::Int16, "SMALLINT"),
            (DataType::UInt32, "INTEGER UNSIGNED"),
            (DataType::Float32, "REAL"),
            (DataType::Float64, "DOUBLE"),
            (
                DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
                "TIMESTAMP",
            ),
            (DataType::Boolean, "BOOLEAN"),
            (DataType::Decimal128(18, 4), "DECIMAL(18, 4)"),
            (DataType::Date32, "DATE"),
            (DataType::Binary, "Binary"),
        ] {
            assert_eq!(type_name(&data_type), expected);
        }
    }
}
