//! Tests against real services.

mod services;

mod kafka;
