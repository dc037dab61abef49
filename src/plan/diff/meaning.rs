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
        }
    }

    /// An expression over columns that are known.
    pub fn over(&mut self, expr: &Arc<dyn PhysicalExpr>, columns: &[Meaning]) -> Meaning {
        let mut nodes = 0;
        let replaced = Arc::clone(expr).transform_up(|node| {
            nodes += 1;
            let Some(column) = node.downcast_ref::<Column>() else {
                return Ok(Transformed::no(node));
            };
            let meaning = &columns[column.index()];
            nodes += meaning.nodes - 1;
            Ok(Transformed::yes(Arc::clone(&meaning.expr)))
        });
        match replaced {
            Ok(replaced) if nodes <= NODES_MAX => Meaning {
                expr: replaced.data,
                nodes,
            },
            Ok(replaced) => self.leaf(format!("expression {}", digest(&exact(&replaced.data))), expr.to_string()),
            // It takes no other operands: then its text and theirs stand for it.
            Err(_) => {
                let of = columns.iter().map(|column| exact(&column.expr)).collect::<Vec<_>>();
                let text = format!("{} over {}", exact(expr), of.join(", "));
                self.leaf(format!("expression {}", digest(&text)), expr.to_string())
            }
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
            let Some(shown) = node.downcast_ref::<Column>().and_then(|column| self.0.get(column.name())) else {
                return Ok(Transformed::no(node));
            };
            Ok(Transformed::yes(Arc::new(Column::new(shown, 0)) as Arc<dyn PhysicalExpr>))
        });
        let text = named.map_or_else(|_| expr.to_string(), |named| named.data.to_string());
        text.replace("@0", "")
    }
}

/// The same for the same expression, and another one for any other.
pub fn exact(expr: &Arc<dyn PhysicalExpr>) -> String {
    // What stands in a text may look like a number, and a function is no more than its name.
    let (mut literals, mut functions) = (Vec::new(), Vec::new());
    let visited = expr.apply(|node| {
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
    for (what, parts) in [("literals", literals), ("functions", functions)] {
        if !parts.is_empty() {
            text.push_str(&format!(" {what} [{}]", parts.join(", ")));
        }
    }
    text
}
