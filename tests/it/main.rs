//! Tests against real services.

mod docs;

mod services;

mod kafka;
