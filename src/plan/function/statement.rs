//! CREATE FUNCTION and DROP FUNCTION: checked, bound, and refused with what is wrong.

use std::sync::Arc;

use arrow::{
    compute::can_cast_types,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{
    common::{
        DFSchema, DataFusionError, Result, ScalarValue,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, ExprSchemable, Volatility, cast, lit, simplify::SimplifyContext},
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::PhysicalExpr,
    sql::sqlparser::ast,
};

use crate::{
    plan::{
        binder::{Binder, Bound},
        catalog::{Catalog, Relation},
        checked::checked_expression,
        columns::value_type,
        function_call::{Body, check_body},
        mistakes::Mistakes,
        unfolded::{parts_of_body, too_many},
    },
    sql::{CreateFunction, Diagnostic, Span, Spanned, SqlState, Statement, suggest},
    types::type_name,
};

use super::{FunctionDefinition, called_in, called_in_plan};

impl Binder<'_> {
    pub(in crate::plan) fn create_function(
        &self,
        create: &CreateFunction,
        statement: &Statement,
        catalog: &mut Catalog,
    ) -> Result<Bound, Mistakes> {
        let name = &create.name.value;
        if let Some(existing) = catalog.functions.get(name) {
            if create.if_not_exists {
                return Ok(Bound::Nothing);
            }
            let message = format!("`{name}` exists already: {name}({})", existing.parameter_list());
            return Err(vec![
                Diagnostic::error(SqlState::Duplicate, message, create.name.span)
                    .help("choose another name, or add IF NOT EXISTS"),
            ]);
        }
        let mut mistakes = Vec::new();
        if self.is_built_in(name) {
            let message = format!("`{name}` is a built-in function");
            mistakes
                .push(Diagnostic::error(SqlState::Duplicate, message, create.name.span).help("choose another name"));
        }
        let mut fields: Vec<Field> = Vec::new();
        let mut are_types_known = true;
        for parameter in &create.parameters {
            if fields.iter().any(|field| *field.name() == parameter.name.value) {
                let message = format!("two parameters are named `{}`", parameter.name.value);
                mistakes.push(
                    Diagnostic::error(SqlState::Duplicate, message, parameter.name.span).help("rename one of them"),
                );
                continue;
            }
            let data_type = value_type(&parameter.data_type, "parameters").unwrap_or_else(|mistake| {
                mistakes.push(*mistake);
                are_types_known = false;
                DataType::Null
            });
            fields.push(Field::new(&parameter.name.value, data_type, true));
        }
        let returns = value_type(&create.returns, "results")
            .map_err(|mistake| mistakes.push(*mistake))
            .ok();
        let parameters: SchemaRef = Arc::new(Schema::new(fields));

        let in_body = check_body(&Body {
            function: name,
            expression: &create.body.value,
            parameters: &parameters,
            session: self.base,
            functions: &catalog.functions,
            places: self.places,
            span: create.body.span,
        });
        let parts = parts_of_body(&create.body.value, &catalog.functions);
        let in_body: Mistakes = in_body.into_iter().chain(too_many(parts, create.body.span)).collect();
        let is_body_right = in_body.is_empty();
        mistakes.extend(in_body);
        // With an unknown type nothing can be said of the expression.
        let bound = match &returns {
            Some(returns) if is_body_right && are_types_known => self
                .bound_body(create, &parameters, returns, catalog)
                .map_err(|more| mistakes.extend(more))
                .ok(),
            _ => None,
        };
        // Where something is wrong, calls of it are still checked against its parameters.
        let returns = returns.unwrap_or(DataType::Null);
        let (logical, expression) = match bound {
            Some(bound) => bound,
            None => self
                .null(&returns)
                .map_err(|e| self.mistakes(&e, create.body.span, &[]))?,
        };
        let definition = Arc::new(FunctionDefinition {
            name: name.clone(),
            parameters,
            returns,
            body: create.body_text.clone(),
            calls: called_in(&logical),
            sql: statement.text.clone(),
            parts,
            logical,
            expression,
        });
        catalog.functions.0.push(Arc::clone(&definition));
        match mistakes.is_empty() {
            true => Ok(Bound::CreateFunction(definition)),
            false => Err(mistakes),
        }
    }

    pub(in crate::plan) fn drop_function(
        &self,
        name: &Spanned<String>,
        if_exists: bool,
        catalog: &mut Catalog,
    ) -> Result<Bound, Mistakes> {
        if catalog.functions.get(&name.value).is_none() {
            if if_exists {
                return Ok(Bound::Nothing);
            }
            if self.is_built_in(&name.value) {
                let message = format!("`{}` is a built-in function", name.value);
                return Err(vec![
                    Diagnostic::error(SqlState::Invalid, message, name.span)
                        .help("only created functions can be dropped"),
                ]);
            }
            let message = format!("no function named `{}`", name.value);
            let mistake = Diagnostic::error(SqlState::UnknownFunction, message, name.span);
            let names: Vec<&str> = catalog
                .functions
                .iter()
                .map(|function| function.name.as_str())
                .collect();
            return Err(vec![match suggest::nearest(&name.value, names.iter().copied()) {
                Some(near) => mistake.help(format!("did you mean `{near}`?")),
                None if names.is_empty() => mistake.help("no function is created yet"),
                None => mistake.help(format!("there are: {}", names.join(", "))),
            }]);
        }
        let uses = |called: Vec<Arc<FunctionDefinition>>| called.iter().any(|function| function.name == name.value);
        let relations = catalog.iter().filter_map(|relation| {
            let plan = match relation {
                Relation::View(view) => &view.plan,
                Relation::Materialized(view) => &view.plan,
                _ => return None,
            };
            uses(called_in_plan(plan)).then(|| relation.name())
        });
        let functions = catalog.functions.iter().filter(|other| uses(other.calls.clone()));
        let users: Vec<&str> = relations
            .chain(functions.map(|function| function.name.as_str()))
            .collect();
        if !users.is_empty() {
            let message = format!("`{}` is called by {}", name.value, users.join(", "));
            return Err(vec![
                Diagnostic::error(SqlState::Invalid, message, name.span).help("drop those first"),
            ]);
        }
        catalog.functions.0.retain(|function| function.name != name.value);
        Ok(Bound::DropFunction(name.value.clone()))
    }

    /// Also what looks like a function and is a piece of grammar.
    fn is_built_in(&self, name: &str) -> bool {
        const GRAMMAR: [&str; 14] = [
            "array", "case", "cast", "convert", "cumulate", "exists", "extract", "grouping", "hop", "interval",
            "session", "try_cast", "tumble", "unnest",
        ];
        GRAMMAR.contains(&name)
            || self.base.scalar_functions().contains_key(name)
            || self.base.aggregate_functions().contains_key(name)
            || self.base.window_functions().contains_key(name)
            || self.base.higher_order_functions().contains_key(name)
            || self.base.table_functions().contains_key(name)
    }

    /// The expression over the parameters, with all that can be known of it before the first row done.
    fn bound_body(
        &self,
        create: &CreateFunction,
        parameters: &Schema,
        returns: &DataType,
        catalog: &Catalog,
    ) -> Result<(Expr, Arc<dyn PhysicalExpr>), Mistakes> {
        let span = create.body.span;
        let mistakes = |error: DataFusionError| self.mistakes(&error, span, &[]);
        let mut session = self.base.clone();
        catalog.functions.register_in(&mut session);
        let schema = DFSchema::try_from(parameters.clone()).map_err(mistakes)?;
        let aliased = ast::ExprWithAlias {
            expr: create.body.value.clone(),
            alias: None,
        };
        let expr = session
            .create_logical_expr_from_sql_expr(aliased, &schema)
            .map_err(mistakes)?;
        refuse(&expr, span)?;
        let simplifier = ExprSimplifier::new(
            SimplifyContext::builder()
                .with_schema(Arc::new(schema.clone()))
                .with_config_options(Arc::clone(session.config_options()))
                .build(),
        );
        let expr = simplifier.coerce(expr, &schema).map_err(mistakes)?;
        let expr = checked_expression(expr, &schema).map_err(mistakes)?;
        let found = expr.get_type(&schema).map_err(mistakes)?;
        if !can_cast_types(&found, returns) {
            let message = format!(
                "`{}` returns {}, but its expression is {}",
                create.name.value,
                type_name(returns),
                type_name(&found)
            );
            return Err(vec![
                Diagnostic::error(SqlState::TypeMismatch, message, create.returns.span)
                    .label(format!("expected {}", type_name(&found))),
            ]);
        }
        let expr = if found == *returns {
            expr
        } else {
            cast(expr, returns.clone())
        };
        // Some functions are only names of other expressions, which simplifying puts in their place.
        let expr = simplifier.simplify(expr).map_err(mistakes)?;
        let physical = session.create_physical_expr(expr.clone(), &schema).map_err(mistakes)?;
        Ok((expr, physical))
    }

    fn null(&self, data_type: &DataType) -> Result<(Expr, Arc<dyn PhysicalExpr>)> {
        let null = lit(ScalarValue::try_from(data_type)?);
        let physical = self.base.create_physical_expr(null.clone(), &DFSchema::empty())?;
        Ok((null, physical))
    }
}

/// What the words of the body did not show already.
fn refuse(expr: &Expr, span: Span) -> Result<(), Mistakes> {
    let mut refused = None;
    let visited = expr.apply(|expr| {
        refused = match expr {
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) | Expr::GroupingSet(_) => Some("an aggregate or OVER"),
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_) => {
                Some("a sub-query")
            }
            Expr::Unnest(_) => Some("UNNEST"),
            Expr::Placeholder(_) | Expr::ScalarVariable(..) | Expr::OuterReferenceColumn(..) => Some("a variable"),
            Expr::ScalarFunction(function) if function.func.signature().volatility != Volatility::Immutable => {
                Some("a function that gives another value each time")
            }
            _ => None,
        };
        Ok(match refused {
            Some(_) => TreeNodeRecursion::Stop,
            None => TreeNodeRecursion::Continue,
        })
    });
    debug_assert!(visited.is_ok(), "the visitor cannot fail");
    match refused {
        None => Ok(()),
        Some(what) => Err(vec![
            Diagnostic::error(
                SqlState::Unsupported,
                format!("{what} is not supported in a function"),
                span,
            )
            .help("a function computes with its parameters, other functions and literals"),
        ]),
    }
}
