//! Aggregates that take their rows to come in the order of their ORDER BY, by ones that sort by themselves.

use std::sync::Arc;

use datafusion::{
    common::{
        Result,
        tree_node::{Transformed, TreeNode},
    },
    functions_aggregate::array_agg::array_agg_udaf,
    functions_nested::extract::array_element,
    logical_expr::{
        Aggregate, Expr, LogicalPlan, Projection,
        expr::{AggregateFunction, AggregateFunctionParams},
    },
};

/// `nth_value(x, n ORDER BY t)` as `array_element(array_agg(x ORDER BY t), n)`: what stock DataFusion makes true by a sort below the
/// aggregate, which a stream does not have.
pub(super) fn nth_values_from_lists(plan: LogicalPlan) -> Result<LogicalPlan> {
    plan.transform_up(|node| match node {
        LogicalPlan::Aggregate(aggregate) => from_lists(aggregate),
        other => Ok(Transformed::no(other)),
    })
    .map(|transformed| transformed.data)
}

fn from_lists(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let lists: Vec<Option<(Expr, Expr)>> = aggregate.aggr_expr.iter().map(list_and_place).collect();
    if lists.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let functions = lists
        .iter()
        .zip(&aggregate.aggr_expr)
        .enumerate()
        .map(|(index, (list, function))| match list {
            Some((list, _)) => list.clone().alias(format!("$list{index}")),
            None => function.clone(),
        })
        .collect();
    let below = Aggregate::try_new(Arc::clone(&aggregate.input), aggregate.group_expr.clone(), functions)?;
    let width = below.schema.fields().len() - lists.len();
    let columns = below.schema.columns().into_iter().enumerate().map(|(index, column)| {
        let value = Expr::Column(column);
        match index.checked_sub(width).and_then(|function| lists[function].as_ref()) {
            Some((_, place)) => array_element(value, place.clone()).alias(aggregate.schema.field(index).name()),
            None => value,
        }
    });
    let columns = columns.collect();
    Projection::try_new_with_schema(columns, Arc::new(LogicalPlan::Aggregate(below)), aggregate.schema)
        .map(|projection| Transformed::yes(LogicalPlan::Projection(projection)))
}

/// The list that an `nth_value` with an order is taken from, and the place in it.
fn list_and_place(function: &Expr) -> Option<(Expr, Expr)> {
    let function = match function {
        Expr::Alias(alias) => return list_and_place(&alias.expr),
        Expr::AggregateFunction(function) => function,
        _ => return None,
    };
    let [value, place] = function.params.args.as_slice() else {
        return None;
    };
    if function.func.name() != "nth_value" || function.params.order_by.is_empty() {
        return None;
    }
    let list = AggregateFunction {
        func: array_agg_udaf(),
        params: AggregateFunctionParams {
            args: vec![value.clone()],
            ..function.params.clone()
        },
    };
    Some((Expr::AggregateFunction(list), place.clone()))
}
