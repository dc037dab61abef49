//! One binary of all tests from outside: the wall, scripts, the engine, real services.

mod architecture;
mod engine;
mod slt;

mod services;

mod kafka;
