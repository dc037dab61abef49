//! Arithmetic of integers and decimals, in the planner's operators, becomes ours: it fails where theirs wraps.

use std::sync::Arc;

use datafusion::{
    common::{
        DFSchema, Result,
        config::ConfigOptions,
        tree_node::{Transformed, TreeNode},
    },
    logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, ScalarUDF, utils::merge_schema},
    optimizer::AnalyzerRule,
};

use crate::function::{Arithmetic, Operation};

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
            plan.map_expressions(|expr| expr.transform_up(|expr| checked(expr, &schema)))
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
        _ => return Ok(Transformed::no(expr)),
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
