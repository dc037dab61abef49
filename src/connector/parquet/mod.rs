//! Parquet files: the table that queries read.

mod table;

pub use table::ParquetTable;
