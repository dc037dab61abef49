//! Columns of a source: those that it declares, and those that it includes.

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::sql::sqlparser::ast::{self, ExactNumberInfo};

use crate::sql::{Column, Diagnostic, Include, Spanned, SqlState, suggest};

use super::{mistakes::Mistakes, registry::ConnectorSpec};

/// The columns that a record gives, and whether all of them could be understood.
pub fn declared(columns: &[Column], mistakes: &mut Mistakes) -> (Vec<Field>, bool) {
    let mut fields: Vec<Field> = Vec::new();
    let mut are_known = true;
    for column in columns {
        if fields.iter().any(|field| *field.name() == column.name.value) {
            mistakes.push(named_twice(&column.name).help("rename one of them"));
            continue;
        }
        match value_type(&column.data_type, "columns") {
            Ok(data_type) => fields.push(Field::new(&column.name.value, data_type, column.is_nullable)),
            Err(mistake) => {
                mistakes.push(*mistake);
                are_known = false;
            }
        }
    }
    (fields, are_known)
}

/// The field of the connector that a clause of INCLUDE names, as a column beside `fields`.
pub fn included(
    include: &Include,
    connector: &ConnectorSpec,
    fields: &[Field],
    mistakes: &mut Mistakes,
) -> Option<Field> {
    let Some(spec) = connector.fields.iter().find(|field| field.name == include.field.value) else {
        let names: Vec<&str> = connector.fields.iter().map(|field| field.name).collect();
        let message = format!("{} has no field `{}` to include", connector.name, include.field.value);
        let mut mistake = Diagnostic::error(SqlState::UnknownColumn, message, include.field.span);
        if let Some(near) = suggest::nearest(&include.field.value, names.iter().copied()) {
            mistake = mistake.help(format!("did you mean `{near}`?"));
        }
        mistakes.push(match names.is_empty() {
            true => mistake.help(format!("connector '{}' has no such fields", connector.name)),
            false => mistake.help(format!("fields: {}", names.join(", "))),
        });
        return None;
    };
    if fields.iter().any(|field| *field.name() == include.name.value) {
        mistakes.push(named_twice(&include.name).help("give the field another name with AS"));
        return None;
    }
    Some(Field::new(
        &include.name.value,
        spec.data_type.clone(),
        spec.is_nullable,
    ))
}

fn named_twice(name: &Spanned<String>) -> Diagnostic {
    let message = format!("two columns are named `{}`", name.value);
    Diagnostic::error(SqlState::Duplicate, message, name.span)
}

/// The Arrow type of a declared column, or of other values that `of` names.
pub fn value_type(written: &Spanned<ast::DataType>, of: &str) -> Result<DataType, Box<Diagnostic>> {
    use ast::DataType as Sql;
    let data_type = match &written.value {
        Sql::Boolean | Sql::Bool => DataType::Boolean,
        Sql::TinyInt(_) => DataType::Int8,
        Sql::SmallInt(_) | Sql::Int2(_) => DataType::Int16,
        Sql::Int(_) | Sql::Integer(_) | Sql::Int4(_) => DataType::Int32,
        Sql::BigInt(_) | Sql::Int8(_) => DataType::Int64,
        Sql::TinyIntUnsigned(_) => DataType::UInt8,
        Sql::SmallIntUnsigned(_) => DataType::UInt16,
        Sql::IntUnsigned(_) | Sql::IntegerUnsigned(_) => DataType::UInt32,
        Sql::BigIntUnsigned(_) => DataType::UInt64,
        Sql::Real | Sql::Float4 | Sql::Float(_) => DataType::Float32,
        Sql::Double(_) | Sql::DoublePrecision | Sql::Float8 => DataType::Float64,
        Sql::Varchar(_)
        | Sql::Text
        | Sql::String(_)
        | Sql::Char(_)
        | Sql::CharVarying(_)
        | Sql::CharacterVarying(_) => DataType::Utf8View,
        Sql::Timestamp(_, ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone) | Sql::Datetime(_) => {
            DataType::Timestamp(TimeUnit::Nanosecond, None)
        }
        // An instant in UTC is what TIMESTAMP holds here; an offset in the text is taken into account.
        Sql::Timestamp(..) => DataType::Timestamp(TimeUnit::Nanosecond, None),
        Sql::Date => DataType::Date32,
        Sql::Decimal(info) | Sql::Numeric(info) => match info {
            ExactNumberInfo::None => DataType::Decimal128(38, 10),
            ExactNumberInfo::Precision(precision) if (1..=38).contains(precision) => {
                DataType::Decimal128(*precision as u8, 0)
            }
            ExactNumberInfo::PrecisionAndScale(precision, scale)
                if (1..=38).contains(precision) && 0 <= *scale && *scale as u64 <= *precision =>
            {
                DataType::Decimal128(*precision as u8, *scale as i8)
            }
            _ => {
                return Err(Box::new(
                    Diagnostic::error(SqlState::TypeMismatch, "a DECIMAL has 1 to 38 digits", written.span)
                        .help("e.g. DECIMAL(18, 4)"),
                ));
            }
        },
        other => {
            let message = format!("{of} of type {other} are not supported");
            let names = [
                "BOOLEAN",
                "SMALLINT",
                "INT",
                "BIGINT",
                "REAL",
                "DOUBLE",
                "DECIMAL(18, 4)",
                "VARCHAR",
                "DATE",
                "TIMESTAMP",
            ];
            let mistake = Diagnostic::error(SqlState::TypeMismatch, message, written.span);
            return Err(Box::new(
                match suggest::nearest(&other.to_string().to_uppercase(), names) {
                    Some(near) => mistake.help(format!("did you mean {near}?")),
                    None => mistake.help(format!("types: {}", names.join(", "))),
                },
            ));
        }
    };
    Ok(data_type)
}

/// `columns` are all that there are.
pub fn unknown_column<'a>(name: &Spanned<String>, columns: impl Iterator<Item = &'a str>) -> Diagnostic {
    let columns: Vec<&str> = columns.collect();
    let mistake = Diagnostic::error(
        SqlState::UnknownColumn,
        format!("no column named `{}`", name.value),
        name.span,
    );
    let mistake = match suggest::nearest(&name.value, columns.iter().copied()) {
        Some(near) => mistake.help(format!("did you mean `{near}`?")),
        None => mistake,
    };
    mistake.help(format!("columns: {}", columns.join(", ")))
}

/// What can be an event time.
pub fn is_time(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(TimeUnit::Nanosecond, None))
}
