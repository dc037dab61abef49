//! Functions that users create: an expression over parameters, under a name.
//!
//! ```text
//! CREATE FUNCTION ─▶ checked ─▶ simplified ─▶ FunctionDefinition { parameters, returns, PhysicalExpr }
//! f(x, y)         ─▶ arguments cast to the parameters' types ─▶ its expression over them, row by row ─▶ cast to what it returns
//! ```
//! DataFusion meets a [`ScalarUDF`], so that a call means the same in a view, a dataflow and a query. Arguments are evaluated first, and
//! once. Another language would be another way to make the `expression`.

mod statement;

mod call;

use std::{collections::BTreeMap, fmt, sync::Arc};

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::{
    common::tree_node::{TreeNode, TreeNodeRecursion},
    execution::{FunctionRegistry, context::SessionState},
    logical_expr::{Expr, LogicalPlan, ScalarUDF},
    physical_expr::PhysicalExpr,
};

use crate::types::type_name;

use call::Call;

/// One function: what it takes, gives and computes.
pub struct FunctionDefinition {
    pub name: String,
    /// Its parameters in their order, each nullable.
    pub parameters: SchemaRef,
    pub returns: DataType,
    /// The expression as written.
    pub body: String,
    /// Functions that its expression calls.
    pub calls: Vec<Arc<FunctionDefinition>>,
    pub sql: String,
    /// How many parts it has with everything unfolded.
    pub parts: usize,
    /// The expression, cast to what it returns: for what the types say of it.
    logical: Expr,
    /// The same, over rows of arguments.
    expression: Arc<dyn PhysicalExpr>,
}

impl FunctionDefinition {
    /// `a DOUBLE, b INT`
    pub fn parameter_list(&self) -> String {
        let parameter = |field: &FieldRef| format!("{} {}", field.name(), type_name(field.data_type()));
        self.parameters
            .fields()
            .iter()
            .map(parameter)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl fmt::Debug for FunctionDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name, self.parameter_list())
    }
}

/// The functions of a catalog, in the order of creation: those that one calls stand before it.
#[derive(Clone, Debug, Default)]
pub struct Functions(Vec<Arc<FunctionDefinition>>);

impl Functions {
    pub fn get(&self, name: &str) -> Option<&Arc<FunctionDefinition>> {
        self.0.iter().find(|function| function.name == name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<FunctionDefinition>> {
        self.0.iter()
    }

    /// Makes them known to a session.
    pub fn register_in(&self, session: &mut SessionState) {
        for function in &self.0 {
            session
                .register_udf(Arc::new(ScalarUDF::from(Call::of(Arc::clone(function)))))
                .expect("a function is always taken");
        }
    }
}

/// The definitions that plans depend on, and those that these call, each once, by name.
pub fn functions_of<'a>(plans: impl IntoIterator<Item = &'a LogicalPlan>) -> Vec<Arc<FunctionDefinition>> {
    fn add(function: &Arc<FunctionDefinition>, found: &mut BTreeMap<String, Arc<FunctionDefinition>>) {
        if found.insert(function.name.clone(), Arc::clone(function)).is_none() {
            function.calls.iter().for_each(|called| add(called, found));
        }
    }
    let mut found = BTreeMap::new();
    for plan in plans {
        called_in_plan(plan)
            .iter()
            .for_each(|function| add(function, &mut found));
    }
    found.into_values().collect()
}

/// The definition behind a function that users created, and those of what it calls; none behind another.
pub(super) fn texts_behind(function: &ScalarUDF) -> Vec<String> {
    fn add(function: &FunctionDefinition, texts: &mut Vec<String>) {
        texts.push(function.sql.clone());
        function.calls.iter().for_each(|called| add(called, texts));
    }
    let mut texts = Vec::new();
    if let Some(call) = function.inner().downcast_ref::<Call>() {
        add(&call.definition, &mut texts);
    }
    texts
}

fn called_in_plan(plan: &LogicalPlan) -> Vec<Arc<FunctionDefinition>> {
    let mut found = Vec::new();
    let visited = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found.extend(called_in(expr));
            Ok(TreeNodeRecursion::Continue)
        })
    });
    debug_assert!(visited.is_ok(), "the visitor cannot fail");
    found
}

fn called_in(expr: &Expr) -> Vec<Arc<FunctionDefinition>> {
    let mut found: Vec<Arc<FunctionDefinition>> = Vec::new();
    let visited = expr.apply(|expr| {
        if let Expr::ScalarFunction(function) = expr
            && let Some(call) = function.func.inner().downcast_ref::<Call>()
            && !found.iter().any(|known| known.name == call.definition.name)
        {
            found.push(Arc::clone(&call.definition));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor cannot fail");
    found
}
