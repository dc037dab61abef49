//! GROUPING SETS, CUBE and ROLLUP as plain groups over rows that stand once for each set.
//!
//! ```text
//! GROUP BY GROUPING SETS ((a, w), (w))     a row ─▶ (a, w, id 0), (null, w, id 1)     GROUP BY $group0, w, $grouping_id
//! ```
//! What every set holds stays as it is, so windows are told as without sets.

use std::{cmp::Ordering, fmt, sync::Arc};

use arrow::datatypes::{DataType, Field};
use datafusion::{
    common::{
        Column, DFSchema, DFSchemaRef, DataFusionError, Result,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        Aggregate, Expr, ExprSchemable, Extension, GroupingSet, LogicalPlan, Projection, UserDefinedLogicalNodeCore,
        ident, utils::grouping_set_to_exprlist,
    },
};

/// The columns of its input, those of the sets, and the id of the set: a row for each set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct EachSet {
    pub input: LogicalPlan,
    /// Some set does not hold them.
    pub columns: Vec<Expr>,
    /// Per set, which of `columns` are null, and its id.
    pub sets: Vec<(Vec<bool>, u64)>,
    pub id_type: DataType,
    schema: DFSchemaRef,
}

impl PartialOrd for EachSet {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.columns.partial_cmp(&other.columns)
    }
}

const GROUPING_ID: &str = "$grouping_id";
const GROUP: &str = "$group";

fn group_name(index: usize) -> String {
    format!("{GROUP}{index}")
}

pub(super) fn unfold(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up(|node| match node {
        LogicalPlan::Aggregate(aggregate) => match aggregate.group_expr.as_slice() {
            [Expr::GroupingSet(set)] => {
                let sets = sets_of(set);
                unfold_aggregate(&aggregate, &sets).map(Transformed::yes)
            }
            _ => Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))),
        },
        other => Ok(Transformed::no(other)),
    })
    .map(|transformed| transformed.data)
}

fn sets_of(set: &GroupingSet) -> Vec<Vec<Expr>> {
    match set {
        GroupingSet::GroupingSets(sets) => sets.clone(),
        GroupingSet::Rollup(columns) => (0..=columns.len())
            .rev()
            .map(|count| columns[..count].to_vec())
            .collect(),
        GroupingSet::Cube(columns) => (0..1u64 << columns.len().min(63))
            .map(|left_out| {
                let is_in = |index: &usize| left_out >> index & 1 == 0;
                (0..columns.len())
                    .filter(is_in)
                    .map(|index| columns[index].clone())
                    .collect()
            })
            .collect(),
    }
}

fn unfold_aggregate(aggregate: &Aggregate, sets: &[Vec<Expr>]) -> Result<LogicalPlan> {
    let groups: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?
        .into_iter()
        .cloned()
        .collect();
    let is_always: Vec<bool> = groups
        .iter()
        .map(|group| sets.iter().all(|set| set.contains(group)))
        .collect();
    let columns: Vec<Expr> = groups
        .iter()
        .zip(&is_always)
        .filter(|(_, is_always)| !**is_always)
        .map(|(group, _)| group.clone())
        .collect();
    let mut seen: Vec<u64> = Vec::new();
    let numbered = sets
        .iter()
        .map(|set| {
            // As DataFusion numbers them: a bit for each column that is left out, and how often the same set came before.
            let bits = groups
                .iter()
                .fold(0u64, |bits, group| bits << 1 | u64::from(!set.contains(group)));
            let ordinal = seen.iter().filter(|other| **other == bits).count() as u64;
            seen.push(bits);
            let nulls = columns.iter().map(|column| !set.contains(column)).collect();
            // Of more columns DataFusion makes no sets.
            (nulls, bits | ordinal.checked_shl(groups.len() as u32).unwrap_or(0))
        })
        .collect();
    let id_field = aggregate.schema.field(groups.len());
    let node = EachSet::try_new(
        aggregate.input.as_ref().clone(),
        columns,
        numbered,
        id_field.data_type().clone(),
    )?;
    let mut next = 0;
    let mut group_expr: Vec<Expr> = groups
        .iter()
        .zip(&is_always)
        .map(|(group, is_always)| match is_always {
            true => group.clone(),
            false => {
                next += 1;
                ident(group_name(next - 1))
            }
        })
        .collect();
    group_expr.push(ident(GROUPING_ID));
    let input = LogicalPlan::Extension(Extension { node: Arc::new(node) });
    let above = Aggregate::try_new(Arc::new(input), group_expr, aggregate.aggr_expr.clone())?;
    let named = above
        .schema
        .columns()
        .into_iter()
        .zip(aggregate.schema.iter())
        .map(|(column, (qualifier, field))| Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()))
        .collect();
    Projection::try_new(named, Arc::new(LogicalPlan::Aggregate(above))).map(LogicalPlan::Projection)
}

/// What the user calls a column of the sets below `plan`, or computes it from.
pub(super) fn left_out(column: &Column, plan: &LogicalPlan) -> Option<String> {
    let index: usize = column.name.strip_prefix(GROUP)?.parse().ok()?;
    match plan {
        LogicalPlan::Extension(Extension { node }) => {
            let sets = node.as_any().downcast_ref::<EachSet>()?;
            let named = sets.columns.get(index)?;
            Some(named.column_refs().into_iter().next()?.name.clone())
        }
        LogicalPlan::Projection(projection) => left_out(column, &projection.input),
        _ => None,
    }
}

impl EachSet {
    fn try_new(input: LogicalPlan, columns: Vec<Expr>, sets: Vec<(Vec<bool>, u64)>, id_type: DataType) -> Result<Self> {
        let own = columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let data_type = column.get_type(input.schema().as_ref())?;
                Ok((None, Arc::new(Field::new(group_name(index), data_type, true))))
            })
            .collect::<Result<Vec<_>>>()?;
        let id = (None, Arc::new(Field::new(GROUPING_ID, id_type.clone(), false)));
        let fields = input
            .schema()
            .iter()
            .map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)))
            .chain(own)
            .chain([id])
            .collect();
        let schema = DFSchema::new_with_metadata(fields, input.schema().metadata().clone())?;
        Ok(Self {
            input,
            columns,
            sets,
            id_type,
            schema: Arc::new(schema),
        })
    }
}

impl UserDefinedLogicalNodeCore for EachSet {
    fn name(&self) -> &str {
        "EachSet"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.columns.clone()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "EachSet: {} sets", self.sets.len())
    }

    fn with_exprs_and_inputs(&self, columns: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let input = inputs
            .pop()
            .ok_or_else(|| DataFusionError::Internal("grouping sets have one input".into()))?;
        Self::try_new(input, columns, self.sets.clone(), self.id_type.clone())
    }
}
