//! The clauses that a query may have: what the planner below would pass over in silence is refused here.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::{
    ast::{
        self, CteAsMaterialized, Expr, GroupByExpr, Join, JoinOperator, LimitClause, OrderBy, OrderByExpr, OrderByKind,
        Query, Select, SelectFlavor, SelectItem, SetExpr, Spanned as _, TableAlias, TableFactor, TableVersion,
        TableWithJoins, Visit, Visitor, WildcardAdditionalOptions,
    },
    tokenizer::Span as AstSpan,
};

use super::{Diagnostic, SourceText, SqlState, byte_span, grouping_sets};

/// Clauses of one query that are reported.
const FOUND_MAX: usize = 20;

/// What a query has in place of FETCH FIRST.
pub(super) const FETCH_HELP: &str = "write LIMIT n";

/// Everything in a query, and in the queries inside it, that is not supported; empty where all is.
///
/// `text` is the original text that the query was parsed from. A clause that knows no place is found by its first words, behind the
/// SELECT or table it belongs to.
pub fn check_query(text: &SourceText, query: &Query) -> Vec<Diagnostic> {
    check(text, query)
}

/// As [`check_query`], for an expression that stands alone.
pub fn check_expression(text: &SourceText, expression: &Expr) -> Vec<Diagnostic> {
    check(text, expression)
}

fn check(text: &SourceText, tree: &impl Visit) -> Vec<Diagnostic> {
    let mut checker = Checker {
        text,
        found: Vec::new(),
        too_large: Vec::new(),
    };
    let ControlFlow::Continue(()) = tree.visit(&mut checker);
    let found = checker.found.into_iter().map(|found| found.diagnostic(text));
    found.chain(checker.too_large).take(FOUND_MAX).collect()
}

struct Found {
    clause: &'static str,
    /// Where the clause or what it belongs to stands.
    near: AstSpan,
    help: &'static str,
    /// `clause` is written in the text, behind `near`.
    is_written: bool,
}

impl Found {
    fn diagnostic(self, text: &SourceText) -> Diagnostic {
        let near = byte_span(text, self.near);
        let written = || {
            let start = near.map_or(0, |near| near.start);
            let words: Vec<&str> = self.clause.split(' ').collect();
            super::token::find_words(text, start, &words)
        };
        let span = if self.is_written { written().or(near) } else { near };
        let is_description = self.clause.chars().any(char::is_lowercase);
        let name = if is_description {
            self.clause.to_owned()
        } else {
            format!("`{}`", self.clause)
        };
        let mistake = Diagnostic::error(SqlState::Unsupported, format!("{name} is not supported"), span);
        if self.help.is_empty() {
            mistake
        } else {
            mistake.help(self.help)
        }
    }
}

struct Checker<'a> {
    text: &'a SourceText,
    found: Vec<Found>,
    /// Clauses that ask for more than is taken.
    too_large: Vec<Diagnostic>,
}

impl Checker<'_> {
    /// `clause` is what was written, word by word.
    fn refuse(&mut self, is_there: bool, clause: &'static str, near: AstSpan, help: &'static str) {
        if is_there {
            self.found.push(Found {
                clause,
                near,
                help,
                is_written: true,
            });
        }
    }

    /// `name` describes what was written at `at`.
    fn refuse_at(&mut self, is_there: bool, name: &'static str, at: AstSpan, help: &'static str) {
        if is_there {
            self.found.push(Found {
                clause: name,
                near: at,
                help,
                is_written: false,
            });
        }
    }

    fn order_by(&mut self, order_by: &OrderBy) {
        let OrderBy { kind, interpolate } = order_by;
        let near = order_by.span();
        self.refuse(interpolate.is_some(), "INTERPOLATE", near, "");
        match kind {
            OrderByKind::All(_) => {}
            OrderByKind::Expressions(list) => list.iter().for_each(|expression| self.order_by_expression(expression)),
        }
    }

    fn order_by_expression(&mut self, expression: &OrderByExpr) {
        self.refuse(expression.with_fill.is_some(), "WITH FILL", expression.expr.span(), "");
    }

    fn alias(&mut self, alias: Option<&TableAlias>) {
        let Some(TableAlias {
            explicit: _,
            name,
            columns,
            at,
        }) = alias
        else {
            return;
        };
        self.refuse(at.is_some(), "AT", name.span, "");
        let typed = columns.iter().find(|column| column.data_type.is_some());
        self.refuse_at(
            typed.is_some(),
            "a type in a list of aliases",
            typed.map_or(name.span, |typed| typed.name.span),
            "cast in SELECT",
        );
    }

    fn tables(&mut self, tables: &TableWithJoins) {
        let mut near = tables.relation.span();
        for Join {
            relation,
            global,
            join_operator,
        } in &tables.joins
        {
            self.refuse(*global, "GLOBAL", near, "leave it out");
            let refused = match join_operator {
                JoinOperator::Join(_)
                | JoinOperator::Inner(_)
                | JoinOperator::Left(_)
                | JoinOperator::LeftOuter(_)
                | JoinOperator::Right(_)
                | JoinOperator::RightOuter(_)
                | JoinOperator::FullOuter(_)
                | JoinOperator::CrossJoin(_)
                | JoinOperator::LeftSemi(_)
                | JoinOperator::RightSemi(_)
                | JoinOperator::LeftAnti(_)
                | JoinOperator::RightAnti(_) => None,
                JoinOperator::Semi(_) => Some(("SEMI JOIN", "write LEFT SEMI JOIN")),
                JoinOperator::Anti(_) => Some(("ANTI JOIN", "write LEFT ANTI JOIN")),
                JoinOperator::CrossApply => Some(("CROSS APPLY", "write CROSS JOIN LATERAL (…)")),
                JoinOperator::OuterApply => Some(("OUTER APPLY", "write LEFT JOIN LATERAL (…) ON TRUE")),
                JoinOperator::AsOf { .. } => Some(("ASOF JOIN", "")),
                JoinOperator::StraightJoin(_) => Some(("STRAIGHT_JOIN", "write JOIN")),
                JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => {
                    Some(("ARRAY JOIN", "write CROSS JOIN UNNEST(…)"))
                }
            };
            if let Some((name, help)) = refused {
                self.refuse(true, name, near, help);
            }
            near = relation.span();
        }
    }

    fn wildcard(&mut self, options: &WildcardAdditionalOptions) {
        let WildcardAdditionalOptions {
            wildcard_token,
            opt_ilike: _,
            opt_exclude: _,
            opt_except: _,
            opt_replace: _,
            opt_rename,
            opt_alias,
        } = options;
        let near = wildcard_token.0.span;
        self.refuse(opt_rename.is_some(), "RENAME", near, "list the columns with AS");
        self.refuse_at(opt_alias.is_some(), "an alias of *", near, "");
    }
}

impl Visitor for Checker<'_> {
    type Break = std::convert::Infallible;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        // Named one by one, so that a clause that is new in sqlparser does not compile until someone has thought about it.
        let Query {
            with,
            body,
            order_by,
            limit_clause,
            fetch,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        let near = query.span();
        for cte in with.iter().flat_map(|with| &with.cte_tables) {
            self.alias(Some(&cte.alias));
            let is_hinted = matches!(
                cte.materialized,
                Some(CteAsMaterialized::Materialized | CteAsMaterialized::NotMaterialized)
            );
            self.refuse_at(
                is_hinted,
                "MATERIALIZED",
                cte.alias.name.span,
                "leave it out, or create a MATERIALIZED VIEW",
            );
            self.refuse_at(
                cte.from.is_some(),
                "FROM after a common table expression",
                cte.alias.name.span,
                "",
            );
        }
        match body.as_ref() {
            SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::SetOperation { .. } | SetExpr::Values(_) => {}
            SetExpr::Insert(_) => self.refuse_at(
                true,
                "INSERT inside a query",
                near,
                "write INSERT INTO … WITH … SELECT …",
            ),
            SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => {
                self.refuse_at(true, "changing rows inside a query", near, "")
            }
            SetExpr::Table(_) => self.refuse_at(true, "TABLE", near, "write SELECT * FROM …"),
        }
        if let Some(order_by) = order_by {
            self.order_by(order_by);
        }
        if let Some(LimitClause::LimitOffset {
            limit,
            offset: _,
            limit_by,
        }) = limit_clause
        {
            let near = limit.as_ref().map_or(near, |limit| limit.span());
            self.refuse_at(
                !limit_by.is_empty(),
                "LIMIT … BY",
                near,
                "number the rows: QUALIFY row_number() OVER (PARTITION BY …) <= n",
            );
        }
        self.refuse(fetch.is_some(), "FETCH", near, FETCH_HELP);
        self.refuse(
            locks.iter().any(|lock| matches!(lock.lock_type, ast::LockType::Update)),
            "FOR UPDATE",
            near,
            "reading never waits here",
        );
        self.refuse(
            locks.iter().any(|lock| matches!(lock.lock_type, ast::LockType::Share)),
            "FOR SHARE",
            near,
            "reading never waits here",
        );
        self.refuse(
            for_clause.is_some(),
            "FOR",
            near,
            "the format of an answer is chosen by the request",
        );
        self.refuse(settings.is_some(), "SETTINGS", near, "");
        self.refuse(
            format_clause.is_some(),
            "FORMAT",
            near,
            "the format of an answer is chosen by the request",
        );
        self.refuse(!pipe_operators.is_empty(), "|>", near, "write SELECT … FROM (SELECT …)");
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        let Select {
            select_token,
            optimizer_hints: _, // a comment
            distinct: _,
            select_modifiers,
            top,
            top_before_distinct: _,
            projection,
            exclude,
            into,
            from,
            lateral_views,
            prewhere,
            selection: _,
            connect_by,
            group_by,
            cluster_by,
            distribute_by,
            sort_by,
            having: _,
            named_window: _,
            qualify: _,
            window_before_qualify: _,
            value_table_mode,
            flavor,
        } = select;
        let near = select_token.0.span;
        for item in projection {
            match item {
                SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. } => {}
                SelectItem::ExprWithAliases { expr, .. } => {
                    self.refuse_at(true, "several names for one column", expr.span(), "")
                }
                SelectItem::QualifiedWildcard(_, options) | SelectItem::Wildcard(options) => self.wildcard(options),
            }
        }
        for tables in from {
            self.tables(tables);
        }
        match group_by {
            GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) => {
                let help = "write GROUP BY ROLLUP (…), CUBE (…) or GROUPING SETS (…)";
                self.refuse_at(!modifiers.is_empty(), "WITH after GROUP BY", group_by.span(), help);
            }
        }
        self.too_large.extend(grouping_sets::check(self.text, group_by));
        self.refuse_at(select_modifiers.is_some(), "a modifier of SELECT", near, "");
        self.refuse(top.is_some(), "TOP", near, "write LIMIT n at the end");
        self.refuse(exclude.is_some(), "EXCLUDE", near, "write SELECT * EXCLUDE (…)");
        self.refuse(
            into.is_some(),
            "INTO",
            near,
            "write CREATE MATERIALIZED VIEW name AS SELECT …",
        );
        self.refuse(
            !lateral_views.is_empty(),
            "LATERAL VIEW",
            near,
            "write CROSS JOIN UNNEST(…)",
        );
        self.refuse(prewhere.is_some(), "PREWHERE", near, "write WHERE");
        self.refuse(!connect_by.is_empty(), "CONNECT BY", near, "write WITH RECURSIVE");
        self.refuse(!cluster_by.is_empty(), "CLUSTER BY", near, "write ORDER BY");
        self.refuse(!distribute_by.is_empty(), "DISTRIBUTE BY", near, "leave it out");
        self.refuse(!sort_by.is_empty(), "SORT BY", near, "write ORDER BY");
        self.refuse(value_table_mode.is_some(), "AS", near, "");
        self.refuse_at(
            !matches!(flavor, SelectFlavor::Standard),
            "FROM before SELECT",
            near,
            "write SELECT … FROM …",
        );
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<Self::Break> {
        let near = table.span();
        match table {
            TableFactor::Table {
                name,
                alias,
                args,
                with_hints,
                version,
                with_ordinality,
                partitions,
                json_path,
                sample,
                index_hints,
            } => {
                let near = name.span();
                self.alias(alias.as_ref());
                self.refuse(
                    args.as_ref().is_some_and(|args| args.settings.is_some()),
                    "SETTINGS",
                    near,
                    "",
                );
                let hint = with_hints.first().map_or(near, |hint| hint.span());
                self.refuse_at(!with_hints.is_empty(), "a table hint", hint, "leave WITH (…) out");
                let help = "a table is read as it is now, a view at its last committed epoch";
                match version {
                    None => {}
                    Some(TableVersion::ForSystemTimeAsOf(_)) => self.refuse(true, "FOR SYSTEM_TIME AS OF", near, help),
                    Some(_) => self.refuse_at(true, "a version of a table", near, help),
                }
                self.refuse(*with_ordinality, "WITH ORDINALITY", near, "use row_number() OVER ()");
                self.refuse(!partitions.is_empty(), "PARTITION", near, "write WHERE");
                self.refuse_at(json_path.is_some(), "a path into a table", near, "");
                self.refuse(
                    sample.is_some(),
                    "TABLESAMPLE",
                    near,
                    "write WHERE random() < 0.1, or LIMIT",
                );
                self.refuse_at(!index_hints.is_empty(), "an index hint", near, "leave it out");
            }
            TableFactor::Derived {
                lateral: _,
                subquery: _,
                alias,
                sample,
            } => {
                self.alias(alias.as_ref());
                self.refuse(
                    sample.is_some(),
                    "TABLESAMPLE",
                    near,
                    "write WHERE random() < 0.1, or LIMIT",
                );
            }
            TableFactor::TableFunction { expr, alias } => {
                self.alias(alias.as_ref());
                self.refuse_at(
                    true,
                    "TABLE(…) around a function",
                    expr.span(),
                    "write the function without TABLE( )",
                );
            }
            TableFactor::Function {
                lateral: _,
                name,
                args: _,
                with_ordinality,
                alias,
            } => {
                self.alias(alias.as_ref());
                self.refuse(
                    *with_ordinality,
                    "WITH ORDINALITY",
                    name.span(),
                    "use row_number() OVER ()",
                );
            }
            TableFactor::UNNEST {
                alias,
                array_exprs,
                with_offset,
                with_offset_alias: _,
                with_ordinality,
            } => {
                let near = array_exprs.first().map_or(near, |array| array.span());
                self.alias(alias.as_ref());
                self.refuse(*with_offset, "WITH OFFSET", near, "");
                self.refuse(*with_ordinality, "WITH ORDINALITY", near, "");
            }
            TableFactor::NestedJoin {
                table_with_joins,
                alias,
            } => {
                self.tables(table_with_joins);
                self.alias(alias.as_ref());
            }
            TableFactor::JsonTable { .. } => self.refuse_at(true, "JSON_TABLE", near, ""),
            TableFactor::OpenJsonTable { .. } => self.refuse_at(true, "OPENJSON", near, ""),
            TableFactor::XmlTable { .. } => self.refuse_at(true, "XMLTABLE", near, ""),
            TableFactor::SemanticView { .. } => self.refuse_at(true, "SEMANTIC_VIEW", near, ""),
            TableFactor::Pivot { table, .. } => {
                self.refuse(
                    true,
                    "PIVOT",
                    table.span(),
                    "write one aggregate with FILTER (WHERE …) for each column",
                );
            }
            TableFactor::Unpivot { table, .. } => self.refuse(true, "UNPIVOT", table.span(), "write UNION ALL"),
            TableFactor::MatchRecognize { table, .. } => self.refuse(true, "MATCH_RECOGNIZE", table.span(), ""),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        match expr {
            Expr::Cast {
                expr, format, array, ..
            } => {
                self.refuse(
                    format.is_some(),
                    "FORMAT",
                    expr.span(),
                    "use to_timestamp(text, format)",
                );
                self.refuse(*array, "ARRAY", expr.span(), "");
            }
            Expr::Function(function) => {
                let near = function.name.span();
                let has_parameters = !matches!(function.parameters, ast::FunctionArguments::None);
                self.refuse_at(has_parameters, "a second list of arguments", near, "");
                self.refuse_at(
                    function.uses_odbc_syntax,
                    "{fn …}",
                    near,
                    "write the function without braces",
                );
                function
                    .within_group
                    .iter()
                    .for_each(|expression| self.order_by_expression(expression));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
