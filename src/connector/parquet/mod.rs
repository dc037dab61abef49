//! Parquet files: a directory with one file per trading pair, read as one stream, or made up.

pub mod generate;
pub mod merged;
