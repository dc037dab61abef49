//! Parquet files: the table that queries read, the sink that writes them, and a folder of trading pairs read in the order of time, or made up.

pub mod generate;
pub mod merged;
mod sink;
mod table;

pub use sink::{Destination, LocalStore, ParquetSink, SINK_OPTIONS, Store};
pub use table::ParquetTable;
