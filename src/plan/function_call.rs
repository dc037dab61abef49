//! Created functions as they are written: what their bodies may hold, and whether calls fit them.
//!
//! ```text
//! syntax tree ─▶ every call ─▶ number of arguments, no clause around it       (before planning, with places)
//! planner     ─▶ WrongArgument { function, index } ─▶ the call and argument that it is about
//! ```

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Schema};
use datafusion::{
    common::DataFusionError,
    execution::context::SessionState,
    logical_expr::Volatility,
    sql::sqlparser::{
        ast::{
            self, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query, Spanned as _, Value,
            Visit, Visitor, VisitorMut,
        },
        tokenizer::Span as AstSpan,
    },
};

use crate::{
    sql::{Diagnostic, Span, SqlState, suggest},
    types::type_name,
};

use super::{
    function::{FunctionDefinition, Functions},
    mistakes::{Mistakes, Places},
};

/// The body of a function that is being created.
pub struct Body<'a> {
    pub function: &'a str,
    pub expression: &'a Expr,
    pub parameters: &'a Schema,
    pub session: &'a SessionState,
    /// Those that were created before.
    pub functions: &'a Functions,
    pub places: Places<'a>,
    /// Where the body stands.
    pub span: Span,
}

/// What in a body is no parameter, no scalar function and no literal.
pub fn check_body(body: &Body<'_>) -> Mistakes {
    let mut reader = BodyReader {
        body,
        queries: 0,
        mistakes: Vec::new(),
    };
    let ControlFlow::Continue(()) = body.expression.visit(&mut reader);
    reader.mistakes
}

struct BodyReader<'a> {
    body: &'a Body<'a>,
    /// Queries around what is read: of these only the outermost is told.
    queries: usize,
    mistakes: Mistakes,
}

impl BodyReader<'_> {
    fn tell(&mut self, state: SqlState, message: String, place: AstSpan, help: String) {
        let span = (self.body.places)(place).unwrap_or(self.body.span);
        self.mistakes.push(Diagnostic::error(state, message, span).help(help));
    }

    fn name(&mut self, ident: &Ident) {
        let name = folded(ident);
        let names: Vec<&str> = self
            .body
            .parameters
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .collect();
        if names.contains(&name.as_str()) {
            return;
        }
        let help = match suggest::nearest(&name, names.iter().copied()) {
            Some(near) => format!("did you mean parameter `{near}`?"),
            None if names.is_empty() => format!("`{}` has no parameters", self.body.function),
            None => format!("parameters: {}", names.join(", ")),
        };
        let message = format!("no parameter named `{name}`");
        self.tell(SqlState::UnknownColumn, message, ident.span, help);
    }

    fn function(&mut self, function: &Function) {
        let Some(name) = called_name(function) else { return };
        let place = function.name.span();
        let own = self.body.function;
        let session = self.body.session;
        if name == own {
            let help = "a function calls only functions that were created before it";
            let message = format!("`{own}` calls itself");
            return self.tell(SqlState::Unsupported, message, place, help.into());
        }
        if function.over.is_some() || (session.window_functions().contains_key(&name) && !is_scalar(session, &name)) {
            let help = "use it in the query around the call";
            let message = format!("OVER is not supported in a function: `{name}`");
            return self.tell(SqlState::Unsupported, message, place, help.into());
        }
        if session.aggregate_functions().contains_key(&name) && !is_scalar(session, &name) {
            let help = format!("aggregate around the call: {name}({own}(…))");
            let message = format!("`{name}` is an aggregate, and a function computes with the values of one row");
            return self.tell(SqlState::Unsupported, message, place, help);
        }
        if let Some(called) = session.scalar_functions().get(&name)
            && called.signature().volatility != Volatility::Immutable
        {
            let help = "make it a parameter: the query around the call decides";
            let message = format!("`{name}` gives another value each time, and a function must not");
            return self.tell(SqlState::Unsupported, message, place, help.into());
        }
        if let Some(called) = self.body.functions.get(&name) {
            self.mistakes
                .extend(mistake_of_call(function, called, self.body.places));
        }
    }
}

fn is_scalar(session: &SessionState, name: &str) -> bool {
    session.scalar_functions().contains_key(name)
}

impl Visitor for BodyReader<'_> {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        if self.queries == 0 {
            let help = "join in the query around the call, and give what is needed as an argument";
            let message = "a sub-query is not supported in a function".to_owned();
            self.tell(SqlState::Unsupported, message, query.span(), help.into());
        }
        self.queries += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<Self::Break> {
        self.queries -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        if 0 < self.queries {
            return ControlFlow::Continue(());
        }
        match expr {
            Expr::Identifier(ident) => self.name(ident),
            Expr::CompoundIdentifier(parts) => {
                let help = "a function has parameters, and no tables";
                let message = format!("no parameter named `{expr}`");
                let place = parts
                    .first()
                    .map_or(AstSpan::empty(), |first| first.span.union(&expr.span()));
                self.tell(SqlState::UnknownColumn, message, place, help.into());
            }
            Expr::Value(value) if matches!(value.value, Value::Placeholder(_)) => {
                let help = "write the name of the parameter";
                let message = format!("no parameter named `{expr}`");
                self.tell(SqlState::UnknownColumn, message, value.span, help.into());
            }
            Expr::Function(function) => self.function(function),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Calls in a query that do not fit, as far as the words show it.
pub fn check_calls(query: &Query, functions: &Functions, places: Places) -> Mistakes {
    let mut mistakes = Vec::new();
    let mut read = |function: &Function| {
        if let Some(called) = called_name(function).and_then(|name| functions.get(&name)) {
            mistakes.extend(mistake_of_call(function, called, places));
        }
    };
    let ControlFlow::<std::convert::Infallible>::Continue(()) = ast::visit_expressions(query, |expr| {
        if let Expr::Function(function) = expr {
            read(function);
        }
        ControlFlow::Continue(())
    });
    mistakes
}

fn mistake_of_call(call: &Function, called: &FunctionDefinition, places: Places) -> Option<Diagnostic> {
    let name = &called.name;
    let place = places(call.name.span());
    let unsupported = |what: &str, help: &str| {
        let message = format!("`{name}` is not an aggregate: {what} is not supported");
        Some(Diagnostic::error(SqlState::Unsupported, message, place).help(help))
    };
    if call.over.is_some() {
        return unsupported("OVER", "put OVER behind the aggregate around it");
    }
    if call.filter.is_some() {
        return unsupported(
            "FILTER",
            "put FILTER behind the aggregate around it, or write CASE WHEN …",
        );
    }
    if call.null_treatment.is_some() || !call.within_group.is_empty() {
        return unsupported("a clause behind it", "leave it out");
    }
    let arguments: &[FunctionArg] = match &call.args {
        FunctionArguments::None => &[],
        FunctionArguments::Subquery(_) => return unsupported("a query as argument", "put it into parentheses"),
        FunctionArguments::List(list) if list.duplicate_treatment.is_some() || !list.clauses.is_empty() => {
            return unsupported("a word inside its brackets", "leave DISTINCT, ALL and ORDER BY out");
        }
        FunctionArguments::List(list) => &list.args,
    };
    let is_value = |argument: &FunctionArg| matches!(argument, FunctionArg::Unnamed(FunctionArgExpr::Expr(_)));
    if let Some(other) = arguments.iter().find(|argument| !is_value(argument)) {
        let message = format!("an argument of `{name}` is a value, not `{other}`");
        let place = places(other.span()).or(place);
        let help = format!("it takes ({})", called.parameter_list());
        return Some(Diagnostic::error(SqlState::Unsupported, message, place).help(help));
    }
    let wanted = called.parameters.fields().len();
    (arguments.len() != wanted).then(|| {
        let message = arity_message(name, wanted, arguments.len());
        Diagnostic::error(SqlState::TypeMismatch, message, place)
            .help(format!("write {name}({})", called.parameter_list()))
    })
}

fn arity_message(name: &str, wanted: usize, given: usize) -> String {
    let arguments = match wanted {
        0 => "no arguments".to_owned(),
        1 => "1 argument".to_owned(),
        more => format!("{more} arguments"),
    };
    format!("`{name}` takes {arguments}, and {given} are given")
}

pub fn called_name(function: &Function) -> Option<String> {
    match function.name.0.as_slice() {
        [only] => only.as_ident().map(folded),
        _ => None,
    }
}

/// As the planner reads it: lower case unless it is quoted.
pub fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// An argument that does not fit its parameter, found while a call was planned.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct WrongArgument {
    function: String,
    /// Which argument; `None` where their number is wrong.
    index: Option<usize>,
    message: String,
    help: Option<String>,
}

impl WrongArgument {
    /// Whether values of these types can be handed to the parameters of a function.
    pub fn check(function: &str, parameters: &Schema, given: &[&DataType]) -> Result<(), DataFusionError> {
        let wrong = |index, message, help| {
            Err(DataFusionError::External(Box::new(Self {
                function: function.to_owned(),
                index,
                message,
                help,
            })))
        };
        let wanted = parameters.fields();
        if wanted.len() != given.len() {
            return wrong(None, arity_message(function, wanted.len(), given.len()), None);
        }
        for (index, (parameter, found)) in wanted.iter().zip(given).enumerate() {
            if !takes(parameter.data_type(), found) {
                let (wanted, found) = (type_name(parameter.data_type()), type_name(found));
                let name = parameter.name();
                let message = format!("`{function}` takes {wanted} as `{name}`, and this is {found}");
                return wrong(Some(index), message, Some(format!("write CAST(… AS {wanted})")));
            }
        }
        Ok(())
    }

    /// The one that an error is about.
    pub fn of(error: &DataFusionError) -> Option<&Self> {
        match error.find_root() {
            DataFusionError::External(inner) => inner.downcast_ref(),
            _ => None,
        }
    }

    pub fn diagnostic(&self) -> Diagnostic {
        let mistake = Diagnostic::error(SqlState::TypeMismatch, self.message.clone(), None);
        match &self.help {
            Some(help) => mistake.help(help.clone()),
            None => mistake,
        }
    }

    /// Where the argument stands in its call.
    pub fn place(&self, call: &Function) -> AstSpan {
        let argument = match (&call.args, self.index) {
            (FunctionArguments::List(list), Some(index)) => list.args.get(index).map(|argument| argument.span()),
            _ => None,
        };
        argument.unwrap_or_else(|| call.name.span())
    }

    pub fn is_about(&self, call: &Function) -> bool {
        called_name(call).is_some_and(|name| name == self.function)
    }
}

/// What is cast for a parameter without being asked: text stays text, and a number with a fraction does not become an integer.
fn takes(parameter: &DataType, given: &DataType) -> bool {
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    parameter == given
        || given.is_null()
        || match parameter {
            _ if parameter.is_integer() => given.is_integer(),
            _ if parameter.is_numeric() => given.is_numeric(),
            DataType::Utf8View => is_text(given),
            DataType::Date32 => is_text(given) || matches!(given, DataType::Date64),
            DataType::Timestamp(..) => {
                is_text(given) || matches!(given, DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)
            }
            _ => false,
        }
}

/// The query in which the calls of created functions behind the first `real` are null, and the last of the real ones.
///
/// What is wrong with the first n calls, and not with n - 1 of them, is wrong with the last of these.
pub fn with_calls(query: &Query, functions: &Functions, real: usize) -> Option<(Query, Function)> {
    struct Calls<'a> {
        functions: &'a Functions,
        seen: usize,
        real: usize,
        last: Option<Function>,
    }
    impl VisitorMut for Calls<'_> {
        type Break = std::convert::Infallible;

        // Behind what is inside it: arguments come before the call that takes them.
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
            if let Expr::Function(function) = expr
                && called_name(function).is_some_and(|name| self.functions.get(&name).is_some())
            {
                self.seen += 1;
                match self.seen <= self.real {
                    true => self.last = (self.seen == self.real).then(|| function.clone()),
                    false => *expr = Expr::Value(Value::Null.into()),
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut query = query.clone();
    let mut calls = Calls {
        functions,
        seen: 0,
        real,
        last: None,
    };
    let ControlFlow::Continue(()) = ast::VisitMut::visit(&mut query, &mut calls);
    let last = calls.last?;
    Some((query, last))
}
