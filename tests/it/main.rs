//! One binary of all tests from outside: the wall, scripts, the engine, the real binary beside real services.

mod architecture;
mod docs;
mod engine;
mod slt;

mod oracle;
mod services;
mod zeta;

mod browser;
mod cli;
mod e2e;
mod hdfs;
mod http;
mod kafka;
mod ws;
