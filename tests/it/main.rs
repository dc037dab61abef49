//! One binary of all tests from outside: the wall, scripts, the engine, the real binary beside real services.
// A case of a table is a tuple, and its type is read where the table stands.
#![allow(clippy::type_complexity)]

mod architecture;
mod changes;
mod damage;
mod docs;
mod engine;
mod equivalence;
mod functions;
mod golden;
mod nexmark;
mod script;
mod slt;
mod temporal;
mod watermark;

mod oracle;
mod proxy;
mod services;
mod zeta;

mod browser;
mod cli;
mod e2e;
mod fault;
mod hdfs;
mod http;
mod kafka;
mod kept;
mod parquet_sink;
mod recovery;
mod remote_state;
mod sink;
mod soak;
mod state;
mod table;
mod traps;
mod ws;
