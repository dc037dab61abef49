//! How a relation is drawn: as its options say, or as follows from its columns.

use crate::runtime::{RelationInfo, RelationKind};

use super::dto::Panel;

/// What its options say. Else a time and `open, high, low, close` make candles, a time and any measured number a series, one row a stat, all else a table.
///
/// Rows kept aside are a table whatever their columns: nobody wants candles of what came too late.
pub fn panel(relation: &RelationInfo) -> Panel {
    match relation.options.get("panel") {
        Some("candlestick") => return Panel::Candlestick,
        Some("series") => return Panel::Series,
        Some("stat") => return Panel::Stat,
        Some("table") => return Panel::Table,
        // The binder lets no other word through.
        _ => {}
    }
    if relation.kind == RelationKind::SideOutput {
        return Panel::Table;
    }
    let numeric = |name: &str| {
        relation
            .schema
            .field_with_name(name)
            .is_ok_and(|field| field.data_type().is_numeric())
    };
    if relation.time.is_some() {
        if ["open", "high", "low", "close"].into_iter().all(numeric) {
            return Panel::Candlestick;
        }
        // A number that names a row is not measured.
        let mut names = relation.schema.fields().iter().map(|field| field.name());
        if names.any(|name| numeric(name) && !relation.key.contains(name)) {
            return Panel::Series;
        }
    }
    // One row of a log is only its first.
    let is_one_row = relation.kind == RelationKind::MaterializedView
        && relation.key.is_empty()
        && !relation.is_append_only
        && relation.rows == Some(1);
    if relation.time.is_none() && is_one_row {
        Panel::Stat
    } else {
        Panel::Table
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

    use crate::types::{Epoch, Options, Watermark};

    use super::*;

    fn relation(
        kind: RelationKind,
        columns: &[(&str, DataType)],
        key: &[&str],
        time: Option<&str>,
        rows: usize,
    ) -> RelationInfo {
        let fields: Vec<_> = columns
            .iter()
            .map(|(name, data_type)| Field::new(*name, data_type.clone(), true))
            .collect();
        RelationInfo {
            name: "v".into(),
            kind,
            source: None,
            schema: Arc::new(Schema::new(fields)),
            key: key.iter().map(|name| (*name).to_owned()).collect(),
            is_append_only: false,
            time: time.map(str::to_owned),
            window_end: None,
            window_ns: None,
            emit: None,
            rows: Some(rows),
            epoch: Epoch(0),
            watermark: Watermark::START,
            history: None,
            options: Options::default(),
            sql: String::new(),
        }
    }

    #[test]
    fn what_the_options_say_wins_over_the_columns() {
        use crate::plan::VIEW_OPTIONS;
        let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let columns = [("t", time), ("v", DataType::Float64)];
        for (word, expected) in [
            ("candlestick", Panel::Candlestick),
            ("series", Panel::Series),
            ("stat", Panel::Stat),
            ("table", Panel::Table),
        ] {
            assert!(VIEW_OPTIONS[0].check(word).is_ok(), "the binder takes {word}");
            let relation = RelationInfo {
                options: Options::resolve(VIEW_OPTIONS, [("panel".into(), word.into())]),
                ..relation(RelationKind::MaterializedView, &columns, &["t"], Some("t"), 9)
            };
            assert_eq!(panel(&relation), expected);
        }
    }

    #[test]
    fn the_panel_follows_from_the_columns() {
        use DataType::{Float32 as Real, Float64 as Double, Int64 as Bigint, Utf8 as Text};
        let time = || DataType::Timestamp(TimeUnit::Nanosecond, None);
        let candle = |price: DataType| {
            [
                ("symbol", Text),
                ("t", time()),
                ("open", Real),
                ("high", Real),
                ("low", Real),
                ("close", price),
            ]
        };
        let view = RelationKind::MaterializedView;
        for (relation, expected, why) in [
            (
                relation(view, &candle(Real), &["symbol", "t"], Some("t"), 9),
                Panel::Candlestick,
                "a time and four prices",
            ),
            (
                relation(RelationKind::Source, &candle(Real), &[], Some("t"), 9),
                Panel::Candlestick,
                "of a source too",
            ),
            (
                relation(view, &candle(Text), &["symbol", "t"], Some("t"), 9),
                Panel::Series,
                "a price that is text is none",
            ),
            (
                relation(view, &candle(Real), &[], None, 9),
                Panel::Table,
                "without a time nothing runs",
            ),
            (
                relation(RelationKind::SideOutput, &candle(Real), &[], Some("t"), 9),
                Panel::Table,
                "late candles are not candles",
            ),
            (
                relation(view, &[("t", time()), ("v", Double)], &["t"], Some("t"), 9),
                Panel::Series,
                "a time and a number",
            ),
            (
                relation(view, &[("t", time()), ("id", Bigint)], &["id"], Some("t"), 9),
                Panel::Table,
                "an id is not measured",
            ),
            (
                relation(view, &[("total", Bigint)], &[], None, 1),
                Panel::Stat,
                "one row without a key",
            ),
            (
                relation(view, &[("s", Text), ("total", Bigint)], &["s"], None, 1),
                Panel::Table,
                "one row so far, more to come",
            ),
            (relation(view, &[("s", Text)], &[], None, 2), Panel::Table, "two rows"),
            (
                RelationInfo {
                    is_append_only: true,
                    ..relation(view, &[("n", Bigint)], &[], None, 1)
                },
                Panel::Table,
                "the first row of many",
            ),
        ] {
            assert_eq!(panel(&relation), expected, "{why}");
        }
    }
}
