//! Functions of ours in DataFusion's place: those whose numbers would be wrong.
//!
//! ```text
//! a + b, a - b, a * b, a / b, a % b, -a  of integers and decimals ─▶ Arithmetic: the exact number, or a sentence
//! sum(a), sum(DISTINCT a)                of integers and decimals ─▶ ExactSum: the exact total, or a sentence
//! min(a), max(a)                         of floats                ─▶ Extreme: infinities and NaN have their place
//! bit_xor(DISTINCT a)                    of integers             ─▶ Xor: each value once
//! f(DISTINCT a)                          of floats                ─▶ OneZero: −0.0 and 0.0 are one value
//! ```
//! Queries and operators compute with the same ones, so both mean the same.

mod arithmetic;
mod extreme;
mod sum;
mod xor;
mod zero;

pub use arithmetic::{Arithmetic, Operation};
pub use extreme::Extreme;
pub use sum::ExactSum;
pub use xor::Xor;
pub use zero::OneZero;
