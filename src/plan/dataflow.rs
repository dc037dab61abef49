//! A dataflow as people read it: EXPLAIN.

use crate::{
    operator::{Emission, Feed, Figures, IntervalEnd, Step, TimeBound},
    sql::Emit,
};

use super::{
    catalog::{Catalog, MaterializedDefinition, Relation, TableDefinition, Trigger},
    stream::{Stage, StreamPlan},
    window::Cut,
};

/// The dataflow of a view, or the definition of another relation.
pub fn explain(catalog: &Catalog, relation: &Relation, is_verbose: bool) -> String {
    match relation {
        Relation::Materialized(view) => view_text(catalog, view, is_verbose, &[]),
        Relation::Table(table) => table_text(table),
        Relation::View(view) => format!(
            "view {}: computed when it is read\n{}",
            view.name,
            view.plan.display_indent()
        ),
        Relation::Sink(sink) => format!(
            "sink {}: the changes of {} to {} as {}, epoch by epoch",
            sink.name, sink.view.name, sink.connector, sink.format
        ),
        Relation::External(table) => format!("external table {}: Parquet files in {}", table.name, table.location),
        Relation::Source(source) => {
            let trigger = match source.trigger {
                Trigger::EachRow => "as soon as a row is there".to_owned(),
                Trigger::AtMostEvery(interval) => format!("as soon as rows are there, at most every {interval:?}"),
                Trigger::Interval(interval) => format!("every {interval:?}"),
            };
            let watermark = match &source.watermark {
                Some(watermark) => {
                    let column = source.schema.field(watermark.column).name();
                    let idle = source.idle_timeout;
                    let close = (source.close_after).map_or_else(String::new, |after| {
                        format!("; after {after:?} without a row every window is closed")
                    });
                    format!("{} of {column}, per split; idle after {idle:?}{close}", watermark.text)
                }
                None => "none".to_owned(),
            };
            format!(
                "source {}: {} as {}, an epoch {trigger}\nwatermark: {watermark}\n",
                source.name, source.connector, source.format
            )
        }
    }
}

/// The dataflow of a view, with what each operator did since the start and holds; `figures` are empty before the first epoch.
pub fn analyze(catalog: &Catalog, view: &MaterializedDefinition, figures: &[Figures]) -> String {
    view_text(catalog, view, false, figures)
}

fn table_text(table: &TableDefinition) -> String {
    let mut lines = vec![format!("table {}: rows are kept in the state folder", table.name)];
    let stream = &table.view.stream;
    let key: Vec<&str> = stream
        .key
        .iter()
        .map(|column| stream.schema.field(*column).name().as_str())
        .collect();
    lines.push(match (key.is_empty(), table.is_append_only) {
        (false, _) => format!(
            "key: {}; a row that is inserted replaces the one of its key",
            key.join(", ")
        ),
        (true, true) => "key: none, rows are only inserted".into(),
        (true, false) => "key: none, equal rows may stand side by side".into(),
    });
    lines.extend(
        table
            .source
            .watermark
            .as_ref()
            .map(|watermark| format!("watermark: {}", watermark.text)),
    );
    lines.join("\n")
}

fn view_text(catalog: &Catalog, view: &MaterializedDefinition, is_verbose: bool, figures: &[Figures]) -> String {
    let stream = &view.stream;
    let mut lines = vec![format!("materialized view {}", view.name)];
    let names = |columns: &[usize]| {
        columns
            .iter()
            .map(|column| stream.schema.field(*column).name().as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    lines.push(match &view.emit {
        Emit::Changes => "emit: changes, at each epoch".into(),
        Emit::OnWindowClose => "emit: each window once, when it is closed".into(),
        Emit::Every(interval) => format!("emit: changes, at most every {interval:?}"),
    });
    lines.push(match (stream.key.is_empty(), stream.is_append_only) {
        (false, _) => format!("key: {}", names(&stream.key)),
        (true, true) => "key: none, rows are only appended".into(),
        (true, false) => "key: none, a row is named by all its columns".into(),
    });
    if let Some(history) = catalog.history_of(view) {
        lines.push(format!("history: {}", history.name));
    }
    lines.push("dataflow:".into());
    let last = match stream.nodes.len() {
        0 => Feed::Input(0),
        nodes => Feed::Operator(nodes - 1),
    };
    lines.extend(
        branch(catalog, stream, last, is_verbose, figures)
            .into_iter()
            .map(indented),
    );
    lines.join("\n")
}

/// What feeds an operator, from its inputs on.
fn branch(catalog: &Catalog, stream: &StreamPlan, feed: Feed, is_verbose: bool, figures: &[Figures]) -> Vec<String> {
    match feed {
        Feed::Input(input) => {
            let input = &stream.inputs[input];
            let relation = catalog.get(&input.relation).expect("what a view reads is there");
            let schema = relation.schema();
            let columns = input.columns.iter().map(|column| schema.field(*column).name().as_str());
            vec![format!(
                "read {} {}: {}",
                relation.kind(),
                input.relation,
                columns.collect::<Vec<_>>().join(", ")
            )]
        }
        Feed::Operator(index) => {
            let node = &stream.nodes[index];
            let mut lines = Vec::new();
            match node.feeds.as_slice() {
                [feed] => lines.extend(branch(catalog, stream, *feed, is_verbose, figures)),
                feeds => {
                    for feed in feeds {
                        lines.push("branch".to_owned());
                        lines.extend(
                            branch(catalog, stream, *feed, is_verbose, figures)
                                .into_iter()
                                .map(indented),
                        );
                    }
                    lines.push("union of the branches".to_owned());
                }
            }
            lines.extend(stage_lines(&node.stage, is_verbose));
            // Columns that are only renamed to what they are called already.
            lines.dedup();
            lines.extend(figures.get(index).map(|figures| {
                let state = match figures.state_bytes {
                    0 => String::new(),
                    bytes => format!("; state: {bytes} bytes"),
                };
                format!(
                    "  so far: {} rows in, {} rows out{state}",
                    figures.rows_in, figures.rows_out
                )
            }));
            lines
        }
    }
}

fn indented(line: String) -> String {
    format!("  {line}")
}

fn stage_lines(stage: &Stage, is_verbose: bool) -> Vec<String> {
    let mut lines = Vec::new();
    match stage {
        Stage::Segment(steps) => lines.extend(steps.iter().map(|step| match step {
            Step::Filter(predicate) => format!("filter {predicate}"),
            Step::Project { schema, columns } if is_verbose => {
                let columns = schema
                    .fields()
                    .iter()
                    .zip(columns)
                    .map(|(field, column)| format!("{} = {column}", field.name()));
                format!("project {}", columns.collect::<Vec<_>>().join(", "))
            }
            Step::Project { schema, .. } | Step::Select { schema, .. } => {
                format!("project {}", field_names(schema))
            }
            Step::Weigh { .. } => "rows that are added and retracted".into(),
            Step::Windows { windows, .. } => format!("a row for each window: {}", Cut::Aligned(*windows)),
            Step::EachSet { sets, .. } => format!("a row for each of {} grouping sets", sets.len()),
            Step::CarryTime { .. } => "windows, told by the event time".into(),
        })),
        Stage::TemporalFilter { bounds, .. } => {
            let bounds: Vec<String> = bounds.iter().map(time_bound).collect();
            lines.push(format!("rows while {}", bounds.join(" and ")));
            lines.push("  state: rows that wait or will leave; gone when they leave".into());
        }
        Stage::WindowAggregate { windows, result, .. } => {
            let shared = match result.emission {
                Emission::OnWindowClose if !windows.is_tumbling() => "pane of an open window",
                _ => "open window",
            };
            lines.push(format!("aggregate per window and key: {}", field_names(&result.schema)));
            lines.push(format!(
                "  state: a group per key of every {shared} ({}); gone when the watermark reaches its end{}",
                Cut::Aligned(*windows),
                lateness(result.lateness_ns)
            ));
            lines.push(handed_on(result.emission));
        }
        Stage::SessionAggregate { gap_ns, result, .. } => {
            let cut = Cut::Sessions {
                gap_ns: *gap_ns,
                key: Vec::new(),
            };
            lines.push(format!("aggregate per session: {}", field_names(&result.schema)));
            lines.push(format!(
                "  state: a group per open session ({cut}); gone when the watermark reaches its end{}",
                lateness(result.lateness_ns)
            ));
            lines.push(handed_on(result.emission));
        }
        Stage::RecomputeAggregate {
            closed_by,
            emission,
            schema,
            ..
        } => {
            lines.push(format!("aggregate rows that change: {}", field_names(schema)));
            lines.push(match closed_by {
                Some(_) => "  state: all rows of every open window; gone when it is closed".into(),
                None => "  state: all rows, as long as they are in the view below".into(),
            });
            lines.push(handed_on(*emission));
        }
        Stage::MapWatermark(_) => lines.push("the watermark of the column that windows are over".into()),
        Stage::GroupAggregate { aggregation, schema } => {
            lines.push(format!("aggregate per key: {}", field_names(schema)));
            let groups = match aggregation.group_count() {
                0 => "one group",
                _ => "a group per key, for ever",
            };
            lines.push(match aggregation.collecting() {
                None => format!("  state: {groups}"),
                Some(function) => format!("  state: {groups}; {function} keeps all values of each"),
            });
        }
        Stage::Upsert { schema, .. } => {
            lines.push(format!("a row replaces the one of its key: {}", field_names(schema)));
            lines.push("  state: every row, until it is deleted".into());
        }
        Stage::EmitEvery(interval) => lines.push(format!("hold back until the next {interval:?} of epoch time")),
        Stage::WindowCloseGate { .. } => lines.push("hold back until the window is closed".into()),
    }
    lines
}

fn time_bound(bound: &TimeBound) -> String {
    let shift = |nanos: i64| match nanos {
        0 => String::new(),
        nanos => format!(
            " {} {} s",
            if nanos < 0 { '-' } else { '+' },
            nanos.unsigned_abs() as f64 / 1e9
        ),
    };
    let now = format!("now(){}", shift(bound.minus_ns));
    let now = match bound.step_ns {
        1 => now,
        step => format!("{now} truncated to {} s", step as f64 / 1e9),
    };
    let sign = match (bound.end, bound.is_after) {
        (IntervalEnd::From, true) => ">",
        (IntervalEnd::From, false) => ">=",
        (IntervalEnd::Until, true) => "<=",
        (IntervalEnd::Until, false) => "<",
    };
    format!("{now} {sign} {}{}", bound.time, shift(bound.plus_ns))
}

fn handed_on(emission: Emission) -> String {
    match emission {
        Emission::Changes => "  hands on: what an epoch changed, and the final rows".into(),
        Emission::OnWindowClose => "  hands on: final rows only".into(),
    }
}

fn lateness(nanos: i64) -> String {
    match nanos {
        0 => String::new(),
        nanos => format!(" and {} s more", nanos as f64 / 1e9),
    }
}

fn field_names(schema: &arrow::datatypes::SchemaRef) -> String {
    schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect::<Vec<_>>()
        .join(", ")
}
