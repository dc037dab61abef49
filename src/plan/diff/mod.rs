//! What a pipeline is, operator by operator, and what of a kept state an edited one can go on with.
//!
//! ```text
//! text of before ─▶ Shapes, kept with the state ─┐
//!                                                ├─▶ compare ─▶ per view a verdict, why, and how its state is taken up
//! text of now ────▶ Outlines ────────────────────┘
//! ```
//! A shape tells what is computed and of what, not how it is written: names of columns in between, comments, formatting and the order
//! of views are not in it. Expressions stand in it as texts over what they are computed of, down to the columns of the source.

mod compare;
mod drawing;
mod meaning;
mod operators;
mod outline;

use std::{collections::BTreeMap, fmt};

use crate::types::{Error, Result};

pub use compare::{Change, OperatorTakeover, RowsFrom, Takeover, Verdict, changes_of};
pub use outline::{Outline, Outlines};

/// Goes up when shapes are written otherwise: those of another version cannot be compared.
const VERSION: u32 = 1;

/// A source and its views as a state keeps them.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Shapes {
    version: u32,
    pub source: SourceShape,
    /// The functions that views call, as text on one line.
    pub functions: BTreeMap<String, String>,
    /// In the order of creation.
    pub views: Vec<ViewShape>,
}

/// What decides which rows a source has.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SourceShape {
    pub name: String,
    /// What positions mean: the connector and those of its options that choose rows; for a table also what its rows are.
    pub identity: BTreeMap<String, String>,
    pub is_table: bool,
    pub watermark: Term,
    /// The columns, for people.
    pub columns: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ViewShape {
    pub name: String,
    /// On one line, for people.
    pub sql: String,
    pub reads_source: bool,
    /// The views below it.
    pub reads: Vec<String>,
    /// Those with state, in the order of the rows.
    pub operators: Vec<OperatorShape>,
    /// The node that holds rows back until an interval is over, with its interval.
    pub hold: Option<(usize, Term)>,
    /// What the rows are computed of behind the last operator with state.
    pub top: RowsShape,
    pub columns: Vec<ColumnShape>,
    /// Which columns name a row.
    pub key: Vec<String>,
    /// Another one where other rows are handed on; what the columns hold is not in it.
    pub rows: String,
    /// The columns of late rows: name and type.
    pub late: Vec<(String, String)>,
    /// Of those that are not about lateness: what they hold, and its type. Empty where that is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late_columns: Vec<String>,
}

/// A meaning, exactly and for people. Where names of columns are others it is the same, and shown otherwise.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Term {
    pub is: String,
    pub shown: String,
}

impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        self.is == other.is
    }
}

impl Eq for Term {}

/// Rows behind an operator or an input: filtered, and multiplied by windows or grouping sets.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RowsShape {
    /// What they come from.
    pub base: Term,
    /// All of them hold.
    pub filters: Vec<Term>,
    pub steps: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ColumnShape {
    pub name: String,
    pub data_type: String,
    pub meaning: Term,
    /// Rows that do not allow to compute it are set aside. Where that was not told yet, any column may be one.
    #[serde(default = "is_possible")]
    pub may_fail: bool,
}

fn is_possible() -> bool {
    true
}

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct OperatorShape {
    /// Its number in the dataflow: parts of checkpoints are named by it.
    pub node: usize,
    pub title: String,
    pub rows: RowsShape,
    /// What its state depends on beside its rows, by name.
    pub aspects: Vec<(String, Term)>,
    /// What it computes per group, and how many columns of its state each takes.
    pub aggregates: Vec<(Term, usize)>,
    /// Columns of its state in front of those of the aggregates; `None` where their order cannot be changed.
    pub columns_before: Option<usize>,
}

impl Shapes {
    pub fn view(&self, name: &str) -> Option<&ViewShape> {
        self.views.iter().find(|view| view.name == name)
    }

    /// The same source, and nothing computed of it.
    pub fn without_views(&self) -> Self {
        Self {
            views: Vec::new(),
            ..self.clone()
        }
    }

    /// As it is kept.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("a shape is names and texts")
    }

    /// # Errors
    /// Where the text is that of another version.
    pub fn of_text(text: &str) -> Result<Self> {
        #[derive(serde::Deserialize)]
        struct Versioned {
            version: u32,
        }
        let version = serde_json::from_str::<Versioned>(text).ok().map(|read| read.version);
        let shapes = (version == Some(VERSION)).then(|| serde_json::from_str(text).ok());
        shapes.flatten().ok_or_else(|| {
            Error::state(
                "what it is a state of was written by another version of zeta, and cannot be compared with the text of now; \
                 start that version, or start over with --reset",
            )
        })
    }
}

/// As people wrote it.
impl fmt::Display for Shapes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SourceShape {
            name,
            identity,
            is_table,
            watermark,
            columns,
        } = &self.source;
        writeln!(f, "{} {name}", if *is_table { "table" } else { "source" })?;
        for column in columns {
            writeln!(f, "  {column}")?;
        }
        for (name, value) in identity.iter().filter(|(name, _)| *name != "columns") {
            writeln!(f, "  {name} = {value}")?;
        }
        write!(f, "  watermark {}", watermark.shown)?;
        for (name, sql) in &self.functions {
            write!(f, "\nfunction {name}: {sql}")?;
        }
        for view in &self.views {
            write!(f, "\nview {}: {}", view.name, view.sql)?;
        }
        Ok(())
    }
}

impl RowsShape {
    /// All of it as one text.
    pub fn text(&self) -> String {
        let of = |terms: &[Term]| {
            terms
                .iter()
                .map(|term| term.is.as_str())
                .collect::<Vec<_>>()
                .join(" and ")
        };
        format!(
            "{} where [{}] by [{}]",
            self.base.is,
            of(&self.filters),
            of(&self.steps)
        )
    }
}

impl OperatorShape {
    /// What decides which rows it hands on.
    pub fn text(&self) -> String {
        let aspects = self.aspects.iter().map(|(name, term)| format!("{name}: {}", term.is));
        let aspects = aspects.collect::<Vec<_>>().join("; ");
        format!("{} ({aspects}) of {}", self.title, self.rows.text())
    }
}

/// A short name of a long text: FNV-1a, which is the same in every version and on every machine.
pub(super) fn digest(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}
