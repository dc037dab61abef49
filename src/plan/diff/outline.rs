//! A source and its views as they are planned now: their shapes, and the expressions that shapes tell of.

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::SchemaRef;

use crate::{
    plan::{MaterializedDefinition, SourceDefinition, functions_of},
    sql::on_one_line,
};

use super::{
    Shapes, SourceShape, VERSION,
    drawing::{Drawing, key_names, watermark},
    meaning::{Leaves, Meaning},
};

/// Options of connectors that decide which rows there are, and so what a position means. Others say where and when they come.
#[rustfmt::skip] // one line each would fill the page
const SELECTING: [&str; 12] = [
    "topic", "path", "from", "to", "limit",
    "table", "events", "events_per_second", "out_of_order", "base_time", "splits", "seed",
];

/// A source and its views.
pub struct Outlines {
    pub shapes: Shapes,
    /// By view.
    outlines: BTreeMap<String, Outline>,
}

/// What a view computes behind its last operator with state, as expressions over that.
#[derive(Clone)]
pub struct Outline {
    pub schema: SchemaRef,
    pub columns: Vec<Meaning>,
    pub filters: Vec<Meaning>,
    /// The last operator with state holds all that it ever handed on.
    pub is_held_by_state: bool,
}

impl Outlines {
    pub fn of(source: &SourceDefinition, views: &[Arc<MaterializedDefinition>]) -> Self {
        let mut shapes = Shapes {
            version: VERSION,
            source: source_shape(source, views),
            functions: (functions_of(views.iter().map(|view| &view.plan)).into_iter())
                .map(|function| (function.name.clone(), on_one_line(&function.sql)))
                .collect(),
            views: Vec::new(),
        };
        let mut outlines = BTreeMap::new();
        for view in views {
            let mut drawing = Drawing::of(source, &shapes.views);
            let top = drawing.view(&view.stream);
            let shape = drawing.shape(view, &top);
            outlines.insert(
                view.name.clone(),
                Outline {
                    schema: Arc::clone(&view.stream.schema),
                    columns: top.columns,
                    filters: top.filters,
                    is_held_by_state: top.is_held_by_state,
                },
            );
            shapes.views.push(shape);
        }
        Self { shapes, outlines }
    }

    pub fn outline(&self, view: &str) -> &Outline {
        &self.outlines[view]
    }
}

fn source_shape(source: &SourceDefinition, views: &[Arc<MaterializedDefinition>]) -> SourceShape {
    let columns: Vec<String> = (source.schema.fields().iter())
        .map(|field| {
            let null = if field.is_nullable() { "" } else { " not null" };
            format!("{} {}{null}", field.name(), field.data_type())
        })
        .collect();
    let mut identity = BTreeMap::from([("connector".to_owned(), source.connector.clone())]);
    for name in SELECTING {
        let value = source.connector_options.get(name);
        identity.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }
    if source.is_table() {
        // Its log holds whole rows, and what a row replaces depends on the key.
        identity.insert("columns".to_owned(), columns.join(", "));
        let table = views.iter().find(|view| view.stream.is_table());
        identity.extend(table.map(|table| ("key".to_owned(), key_names(&table.stream).join(", "))));
        let is_append_only = table.is_some_and(|table| table.stream.is_append_only);
        identity.insert("rows are only inserted".to_owned(), is_append_only.to_string());
    }
    SourceShape {
        name: source.name.clone(),
        identity,
        is_table: source.is_table(),
        watermark: watermark(source, &mut Leaves::default()),
        columns,
    }
}
