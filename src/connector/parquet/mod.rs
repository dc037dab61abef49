//! Parquet files: the table that queries read, and a folder of trading pairs read in the order of time, or made up.

pub mod generate;
pub mod merged;
mod table;

pub use table::ParquetTable;
