//! UNION ALL: the rows of all branches, as they come.
//!
//! ```text
//! branch 0 ─▶ … ─▶ columns as the union names them ─┐
//! branch 1 ─▶ … ─▶ columns as the union names them ─┴─▶ one segment with two feeds
//! ```
//! What a column stands for is known behind it only where it stands for the same in every branch.

use std::{collections::BTreeSet, sync::Arc};

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::logical_expr::Union;

use crate::{
    operator::{Feed, Step},
    types::type_name,
};

use super::build::{Builder, Built, Refusal, Role, arrow_schema};

impl Builder<'_> {
    pub(super) fn union(&self, union: &Union) -> Result<Built, Refusal> {
        let schema = arrow_schema(&union.schema);
        let mut branches = Vec::new();
        for input in &union.inputs {
            let mut branch = self.build(input)?;
            self.assign(&mut branch)?;
            branch.steps.push(Step::Select {
                columns: (0..schema.fields().len()).collect(),
                schema: Arc::clone(&schema),
            });
            branch.close_segment();
            branches.push(branch);
        }
        let mut branches = branches.into_iter();
        let mut all = branches.next().expect("a union has branches");
        for branch in branches {
            self.unite(&mut all, branch)?;
        }
        let sources: BTreeSet<&str> = all
            .inputs
            .iter()
            .filter_map(|input| self.catalog.source_below(&input.relation))
            .collect();
        if 1 < sources.len() {
            let names: Vec<&str> = sources.into_iter().collect();
            return Err(self.refuse(
                format!(
                    "`{}` go on each at its own pace: rows of both in one view are not supported yet",
                    names.join("` and `")
                ),
                "make a view of each, and unite them in the query that reads them",
            ));
        }
        all.key = None;
        Ok(all)
    }

    fn unite(&self, all: &mut Built, branch: Built) -> Result<(), Refusal> {
        let (inputs, nodes) = (all.inputs.len(), all.nodes.len());
        let moved = |feed: Feed| match feed {
            Feed::Input(input) => Feed::Input(inputs + input),
            Feed::Operator(operator) => Feed::Operator(nodes + operator),
        };
        all.inputs.extend(branch.inputs);
        all.nodes.extend(branch.nodes.into_iter().map(|mut node| {
            node.feeds = node.feeds.into_iter().map(moved).collect();
            node
        }));
        all.feeds.extend(branch.feeds.into_iter().map(moved));

        if all.cut != branch.cut {
            all.cut = None;
        }
        let are_same_windows = all.cut.is_some();
        for (role, other) in all.roles.iter_mut().zip(&branch.roles) {
            let is_of_rows = matches!(role, Role::RowWindowStart | Role::RowWindowEnd);
            if role != other || (is_of_rows && !are_same_windows) {
                *role = Role::Plain;
            }
        }
        for (grows, other) in all.grows.iter_mut().zip(&branch.grows) {
            *grows |= other;
        }
        if all.windows != branch.windows {
            all.windows = None;
        }
        all.is_of_tables &= branch.is_of_tables;
        all.is_append_only &= branch.is_append_only;
        all.has_watermark &= branch.has_watermark;
        all.is_on_close &= branch.is_on_close;
        all.late_rows = match (all.late_rows.take(), branch.late_rows) {
            (Some(some), Some(others)) => Some(self.late_rows_of_both(&some, &others)?),
            (some, others) => some.or(others),
        };
        Ok(())
    }

    /// The columns of late rows of either; what a row does not have is null.
    fn late_rows_of_both(&self, some: &SchemaRef, others: &SchemaRef) -> Result<SchemaRef, Refusal> {
        let mut fields: Vec<Field> = Vec::new();
        for field in some.fields().iter().chain(others.fields()) {
            let in_both = [some, others].map(|schema| schema.field_with_name(field.name()).ok());
            if let [Some(one), Some(other)] = in_both
                && one.data_type() != other.data_type()
            {
                return Err(self.refuse(
                    format!(
                        "late rows of the branches cannot stand in one table: `{}` is {} in one and {} in another",
                        field.name(),
                        type_name(one.data_type()),
                        type_name(other.data_type())
                    ),
                    "rename the column in one of the branches, or make a view of each",
                ));
            }
            if !fields.iter().any(|known| known.name() == field.name()) {
                let is_nullable = in_both.iter().any(|field| field.is_none_or(Field::is_nullable));
                fields.push(field.as_ref().clone().with_nullable(is_nullable));
            }
        }
        Ok(Arc::new(Schema::new(fields)))
    }
}
