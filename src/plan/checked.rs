//! Arithmetic of integers and decimals, in the planner's operators, becomes ours: it fails where theirs wraps. Distinct floats have one zero.

use std::sync::Arc;

use datafusion::{
    common::{
        DFSchema, Result,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF, expr_rewriter::NamePreserver,
        utils::merge_schema,
    },
    optimizer::AnalyzerRule,
};

use crate::function::{Arithmetic, OneZero, Operation};

/// Runs behind the coercion of types. Columns keep their names, types and nulls; times, intervals and floats are left alone.
#[derive(Debug)]
pub struct CheckArithmetic;

impl AnalyzerRule for CheckArithmetic {
    fn name(&self) -> &str {
        "check_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let inputs = plan.inputs();
            let schema = match inputs.is_empty() {
                true => plan.schema().as_ref().clone(),
                false => merge_schema(&inputs),
            };
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                // Conditions and orders inside an aggregate show in its name.
                let name = names.save(&expr);
                let checked = expr.transform_up(|expr| checked(expr, &schema))?;
                Ok(checked.update_data(|expr| name.restore(expr)))
            })
        })
        .map(|transformed| transformed.data)
    }
}

/// The same for one expression whose types are coerced.
pub fn checked_expression(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    expr.transform_up(|expr| checked(expr, schema))
        .map(|transformed| transformed.data)
}

fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let (operation, arguments) = match &expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let operation = match op {
                Operator::Plus => Operation::Add,
                Operator::Minus => Operation::Subtract,
                Operator::Multiply => Operation::Multiply,
                Operator::Divide => Operation::Divide,
                Operator::Modulo => Operation::Remainder,
                _ => return Ok(Transformed::no(expr)),
            };
            (operation, vec![left, right])
        }
        Expr::Negative(argument) => (Operation::Negate, vec![argument]),
        _ => return with_one_zero(expr, schema),
    };
    for argument in &arguments {
        if !Arithmetic::takes(&argument.get_type(schema)?) {
            return Ok(Transformed::no(expr));
        }
    }
    let arguments = arguments
        .into_iter()
        .map(|argument| argument.as_ref().clone())
        .collect();
    let function = ScalarUDF::new_from_shared_impl(Arc::new(Arithmetic::new(operation)));
    Ok(Transformed::yes(function.call(arguments)))
}

/// What an aggregate takes as distinct has one zero.
fn with_one_zero(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::AggregateFunction(mut aggregate) = expr else {
        return Ok(Transformed::no(expr));
    };
    if !aggregate.params.distinct {
        return Ok(Transformed::no(Expr::AggregateFunction(aggregate)));
    }
    let mut is_changed = false;
    for argument in &mut aggregate.params.args {
        let is_done = matches!(argument, Expr::ScalarFunction(call) if call.func.inner().is::<OneZero>());
        if argument.get_type(schema)?.is_floating() && !is_done {
            let function = ScalarUDF::new_from_shared_impl(Arc::new(OneZero::default()));
            *argument = function.call(vec![std::mem::take(argument)]);
            is_changed = true;
        }
    }
    Ok(Transformed::new_transformed(
        Expr::AggregateFunction(aggregate),
        is_changed,
    ))
}
