//! What a column holds, as an expression over what rows come from: names in between are gone.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::{
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    physical_expr::{
        PhysicalExpr, ScalarFunctionExpr,
        expressions::{Column, Literal},
    },
};

use crate::{plan::function::texts_behind, sql::normalized};

use super::{Term, digest};

/// A larger expression is taken as one thing: put into itself again and again it would grow without end.
const NODES_MAX: usize = 400;

/// A longer name of a leaf is told by its digest: names stand in names.
const LEAF_BYTES_MAX: usize = 300;

/// An expression whose columns are leaves: each is named by what it is.
#[derive(Clone, Debug)]
pub struct Meaning {
    pub expr: Arc<dyn PhysicalExpr>,
    nodes: usize,
    /// Behind the last operator that sets rows aside it is computed of something that some rows may not allow.
    pub may_fail: bool,
}

/// What people call leaves.
#[derive(Default)]
pub struct Leaves(BTreeMap<String, String>);

impl Leaves {
    /// What is not computed any further.
    pub fn leaf(&mut self, is: String, shown: impl Into<String>) -> Meaning {
        let is = match is.len() {
            0..=LEAF_BYTES_MAX => is,
            _ => format!("something {}", digest(&is)),
        };
        self.0.insert(is.clone(), shown.into());
        Meaning {
            expr: Arc::new(Column::new(&is, 0)),
            nodes: 1,
            may_fail: false,
        }
    }

    /// An expression over columns that are known.
    pub fn over(&mut self, expr: &Arc<dyn PhysicalExpr>, columns: &[Meaning]) -> Meaning {
        let (mut nodes, mut may_fail) = (0, false);
        let replaced = Arc::clone(expr).transform_up(|node| {
            nodes += 1;
            let Some(column) = node.downcast_ref::<Column>() else {
                may_fail |= !node.is::<Literal>();
                return Ok(Transformed::no(node));
            };
            let meaning = &columns[column.index()];
            nodes += meaning.nodes - 1;
            may_fail |= meaning.may_fail;
            Ok(Transformed::yes(Arc::clone(&meaning.expr)))
        });
        let meaning = match replaced {
            Ok(replaced) if nodes <= NODES_MAX => Meaning {
                expr: replaced.data,
                nodes,
                may_fail,
            },
            Ok(replaced) => self.leaf(
                format!("expression {}", digest(&exact(&replaced.data))),
                expr.to_string(),
            ),
            // It takes no other operands: then its text and theirs stand for it.
            Err(_) => {
                let of = columns.iter().map(|column| exact(&column.expr)).collect::<Vec<_>>();
                let text = format!("{} over {}", exact(expr), of.join(", "));
                self.leaf(format!("expression {}", digest(&text)), expr.to_string())
            }
        };
        Meaning { may_fail, ..meaning }
    }

    /// What is not computed any further here, and was in the operators before.
    pub fn leaf_of(&mut self, is: String, shown: &str, may_fail: bool) -> Meaning {
        Meaning {
            may_fail,
            ..self.leaf(is, shown)
        }
    }

    pub fn term(&self, meaning: &Meaning) -> Term {
        Term {
            is: exact(&meaning.expr),
            shown: self.shown(&meaning.expr),
        }
    }

    fn shown(&self, expr: &Arc<dyn PhysicalExpr>) -> String {
        let named = Arc::clone(expr).transform_up(|node| {
            let Some(shown) = node
                .downcast_ref::<Column>()
                .and_then(|column| self.0.get(column.name()))
            else {
                return Ok(Transformed::no(node));
            };
            Ok(Transformed::yes(
                Arc::new(Column::new(shown, 0)) as Arc<dyn PhysicalExpr>
            ))
        });
        let text = named.map_or_else(|_| expr.to_string(), |named| named.data.to_string());
        text.replace("@0", "")
    }
}

/// The same for the same expression, and another one for any other.
pub fn exact(expr: &Arc<dyn PhysicalExpr>) -> String {
    // What stands in a text may look like a number, a function is no more than its name, and brackets are left out.
    let (mut literals, mut functions, mut shape) = (Vec::new(), Vec::new(), Vec::new());
    let is_nested = expr.children().iter().any(|child| !child.children().is_empty());
    let visited = expr.apply(|node| {
        if is_nested {
            // Arity tells `a - (b - c)` from `a - b - c`, and length `NOT (a IS NULL)` from `(NOT a) IS NULL`.
            shape.push(format!("{}:{}", node.children().len(), node.to_string().len()));
        }
        if let Some(literal) = node.downcast_ref::<Literal>() {
            literals.push(format!("{:?}", literal.value()));
        }
        if let Some(call) = node.downcast_ref::<ScalarFunctionExpr>() {
            functions.extend(texts_behind(call.fun()).iter().map(|text| normalized(text)));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor cannot fail");
    let mut text = expr.to_string();
    for (what, parts) in [("literals", literals), ("functions", functions), ("shape", shape)] {
        if !parts.is_empty() {
            text.push_str(&format!(" {what} [{}]", parts.join(", ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use datafusion::{
        logical_expr::Operator,
        physical_expr::expressions::{BinaryExpr, IsNullExpr, NotExpr, lit},
    };

    use super::*;

    fn column(index: usize) -> Arc<dyn PhysicalExpr> {
        Arc::new(Column::new("any", index))
    }

    fn sum(left: Arc<dyn PhysicalExpr>, right: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
        Arc::new(BinaryExpr::new(left, Operator::Plus, right))
    }

    #[test]
    fn an_expression_is_told_by_what_it_is_computed_of_and_not_by_names_or_places() {
        let mut leaves = Leaves::default();
        let (a, b) = (leaves.leaf("s.a".into(), "a"), leaves.leaf("s.b".into(), "b"));
        let one = leaves.over(&sum(column(0), column(1)), &[a.clone(), b.clone()]);
        let moved = leaves.over(&sum(column(1), column(0)), &[b.clone(), a.clone()]);
        assert_eq!(leaves.term(&one), leaves.term(&moved));
        assert_eq!(leaves.term(&one).shown, "a + b");
        let other = leaves.over(&sum(column(0), column(1)), &[b, a]);
        assert_ne!(leaves.term(&one).is, leaves.term(&other).is);
    }

    #[test]
    fn what_is_computed_may_fail_and_so_may_what_is_computed_of_it() {
        let mut leaves = Leaves::default();
        let a = leaves.leaf("s.a".into(), "a");
        for (expr, expected, why) in [
            (column(0), false, "a column"),
            (lit(1_i64), false, "a literal"),
            (sum(column(0), lit(1_i64)), true, "a sum"),
        ] {
            let meaning = leaves.over(&expr, std::slice::from_ref(&a));
            assert_eq!(meaning.may_fail, expected, "{why}");
            let again = leaves.over(&column(0), std::slice::from_ref(&meaning));
            assert_eq!(again.may_fail, expected, "{why}, by another name");
        }
    }

    #[test]
    fn brackets_that_are_not_written_are_told_apart() {
        use Operator::{BitwiseAnd, BitwiseOr, Divide, Minus, Multiply, Or};

        let of = |left: &Arc<dyn PhysicalExpr>, operator, right: &Arc<dyn PhysicalExpr>| {
            Arc::new(BinaryExpr::new(Arc::clone(left), operator, Arc::clone(right))) as Arc<dyn PhysicalExpr>
        };
        let is_null = |of: &Arc<dyn PhysicalExpr>| Arc::new(IsNullExpr::new(Arc::clone(of))) as Arc<dyn PhysicalExpr>;
        let not = |of: &Arc<dyn PhysicalExpr>| Arc::new(NotExpr::new(Arc::clone(of))) as Arc<dyn PhysicalExpr>;
        let (a, b, c) = (column(0), column(1), column(2));
        for (one, other, why) in [
            (
                of(&a, Minus, &of(&b, Minus, &c)),
                of(&of(&a, Minus, &b), Minus, &c),
                "a - (b - c), a - b - c",
            ),
            (
                of(&a, Divide, &of(&b, Multiply, &c)),
                of(&of(&a, Divide, &b), Multiply, &c),
                "a / (b * c), a / b * c",
            ),
            (
                of(&a, BitwiseAnd, &of(&b, BitwiseOr, &c)),
                of(&of(&a, BitwiseAnd, &b), BitwiseOr, &c),
                "a & (b | c), a & b | c",
            ),
            (
                is_null(&of(&a, Or, &b)),
                of(&a, Or, &is_null(&b)),
                "(a OR b) IS NULL, a OR b IS NULL",
            ),
            (not(&is_null(&a)), is_null(&not(&a)), "NOT (a IS NULL), (NOT a) IS NULL"),
        ] {
            assert_ne!(exact(&one), exact(&other), "{why}");
        }
    }

    #[test]
    fn literals_that_look_alike_are_told_apart() {
        let exact_of = |literal: Arc<dyn PhysicalExpr>| exact(&sum(column(0), literal));
        let all = [lit(1_i64), lit(1_i32), lit("1"), lit("2")].map(exact_of);
        for (index, text) in all.iter().enumerate() {
            assert!(!all[..index].contains(text), "{text}");
        }
    }

    #[test]
    fn what_is_put_into_itself_again_and_again_stays_small() {
        let mut leaves = Leaves::default();
        let mut columns = vec![leaves.leaf("s.a".into(), "a")];
        let double = sum(column(0), column(0));
        let mut seen = Vec::new();
        for _ in 0..200 {
            columns = vec![leaves.over(&double, &columns)];
            let term = leaves.term(&columns[0]);
            assert!(term.is.len() < 100 * NODES_MAX, "{} bytes", term.is.len());
            assert!(!seen.contains(&term.is), "each is another one");
            seen.push(term.is);
        }
    }
}
