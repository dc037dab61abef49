//! Functions of ours in DataFusion's place: those whose numbers would wrap.
//!
//! ```text
//! a + b, a - b, a * b, a / b, a % b, -a  of integers and decimals ─▶ Arithmetic: the exact number, or a sentence
//! sum(a), sum(DISTINCT a)                of integers and decimals ─▶ ExactSum: the exact total, or a sentence
//! ```
//! Queries and operators compute with the same ones, so both mean the same.

mod arithmetic;
mod sum;

pub use arithmetic::{Arithmetic, Operation};
pub use sum::ExactSum;
