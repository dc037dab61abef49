//! What queries are bound over: every relation as a table, by name.
//!
//! ```text
//! Catalog ───▶ definitions: schemas without rows ─▶ what is kept (CREATE)
//!    └─ snapshots of views at one epoch ──────────▶ what is run (SELECT)
//! ```

use std::{collections::BTreeMap, sync::Arc};

use arrow::datatypes::SchemaRef;
use datafusion::{
    catalog::{TableProvider, view::ViewTable},
    common::tree_node::{Transformed, TreeNodeRecursion},
    datasource::provider_as_source,
    logical_expr::{LogicalPlan, TableScan},
};

use super::{
    catalog::{Catalog, Relation, bad_schema, errors_schema, late_schema},
    session::StreamRelation,
};

/// Tables by name.
pub type Tables = BTreeMap<String, Arc<dyn TableProvider>>;

/// What the names of side outputs end in.
pub const SIDE_SUFFIXES: [&str; 3] = ["$bad", "$late", "$errors"];

/// Every relation by its definition, without rows: for queries that are kept.
pub fn definitions(catalog: &Catalog) -> Tables {
    tables(catalog, &Tables::new())
}

/// Side outputs too, which only plain views may name.
pub fn definitions_and_sides(catalog: &Catalog) -> Tables {
    let mut tables = definitions(catalog);
    tables.extend(side_outputs(catalog));
    tables
}

/// Every relation with the rows of now, where `snapshots` has it, and by its definition where not: for queries that are run.
pub fn rows_of_now(catalog: &Catalog, snapshots: &Tables) -> Tables {
    let mut tables = tables(catalog, snapshots);
    tables.extend(snapshots.iter().map(|(name, table)| (name.clone(), Arc::clone(table))));
    tables
}

/// Sources and materialized views without rows, plain views over `snapshots`.
fn tables(catalog: &Catalog, snapshots: &Tables) -> Tables {
    catalog
        .iter()
        .filter_map(|relation| {
            let table: Arc<dyn TableProvider> = match relation {
                // Its rows are elsewhere.
                Relation::Sink(_) => return None,
                Relation::Source(source) => {
                    let views: Vec<&str> = catalog.readers_of(&source.name);
                    let refusal = match views.as_slice() {
                        [] => format!(
                            "`{}` is a source and keeps no rows: make a materialized view of it",
                            source.name
                        ),
                        views => format!(
                            "`{}` is a source and keeps no rows: query {}",
                            source.name,
                            views.join(" or ")
                        ),
                    };
                    Arc::new(StreamRelation::new(&source.name, Arc::clone(&source.schema), refusal))
                }
                Relation::Materialized(_) | Relation::Table(_) => {
                    let refusal = format!("`{}` has not started yet", relation.name());
                    Arc::new(StreamRelation::new(relation.name(), relation.schema(), refusal))
                }
                Relation::External(table) => Arc::clone(&table.table),
                Relation::View(view) => {
                    let plan = over_snapshots(&view.plan, snapshots);
                    Arc::new(ViewTable::new(plan, Some(view.sql.clone())))
                }
            };
            Some((relation.name().to_owned(), table))
        })
        .collect()
}

/// The plan of a plain view over the rows of now.
fn over_snapshots(plan: &LogicalPlan, snapshots: &Tables) -> LogicalPlan {
    let bound = plan.clone().transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = &node else {
            return Ok(Transformed::no(node));
        };
        let Some(table) = snapshots.get(scan.table_name.table()) else {
            return Ok(Transformed::no(node));
        };
        let scan = TableScan {
            source: provider_as_source(Arc::clone(table)),
            ..scan.clone()
        };
        Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
    });
    bound.expect("the function cannot fail").data
}

/// `<source>$bad`, `<view>$late` and `<view>$errors`, without rows.
fn side_outputs(catalog: &Catalog) -> Tables {
    let table = |name: String, schema: SchemaRef| {
        let refusal = format!("`{name}` has not started yet");
        let table: Arc<dyn TableProvider> = Arc::new(StreamRelation::new(&name, schema, refusal));
        (name, table)
    };
    let of = |relation: &Relation| match relation {
        Relation::Source(source) => vec![table(format!("{}$bad", source.name), bad_schema())],
        Relation::Materialized(view) => {
            let late = view.stream.late_rows.as_ref().map(late_schema);
            let late = late.map(|schema| table(format!("{}$late", view.name), schema));
            late.into_iter()
                .chain([table(format!("{}$errors", view.name), errors_schema())])
                .collect()
        }
        Relation::External(_) | Relation::View(_) | Relation::Table(_) | Relation::Sink(_) => Vec::new(),
    };
    catalog.iter().flat_map(of).collect()
}

/// Names of the relations that a plan scans, views unfolded or not.
pub fn scanned(plan: &LogicalPlan) -> Vec<String> {
    let mut names = Vec::new();
    let visited = plan.apply_with_subqueries(|node| {
        let name = match node {
            LogicalPlan::TableScan(scan) => Some(scan.table_name.table()),
            // A plain view stands in a plan as its query under its name.
            LogicalPlan::SubqueryAlias(alias) => Some(alias.alias.table()),
            _ => None,
        };
        // Who reads a side output reads what it belongs to.
        let name = name.map(|name| {
            SIDE_SUFFIXES
                .iter()
                .find_map(|suffix| name.strip_suffix(*suffix))
                .unwrap_or(name)
        });
        if let Some(name) = name
            && !names.iter().any(|known| known == name)
        {
            names.push(name.to_owned());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor cannot fail");
    names
}
