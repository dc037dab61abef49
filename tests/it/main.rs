//! Tests against the real binary and real services.

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
