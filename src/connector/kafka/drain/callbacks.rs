//! What librdkafka tells by itself: errors and logs while it is served, requests and answers from its own threads.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    ptr,
};

use rdkafka::{config::RDKafkaLogLevel, types::RDKafkaRespErr};
use rdkafka_sys as sys;

use super::{code, text};
use crate::connector::kafka::connection::Connection;

/// Before a client is made of it: what it tells goes to the [`Connection`] that its opaque pointer is.
///
/// # Safety
/// The configuration is alive.
pub(super) unsafe fn register(config: *mut sys::rd_kafka_conf_t) {
    // SAFETY: the caller's; names are copied.
    unsafe {
        sys::rd_kafka_conf_set_error_cb(config, Some(on_error));
        sys::rd_kafka_conf_set_log_cb(config, Some(on_log));
        // Fails only where one of the name was added before.
        sys::rd_kafka_conf_interceptor_add_on_new(config, INTERCEPTOR.as_ptr(), Some(on_new), ptr::null_mut());
    }
}

/// What our callbacks are called by inside the client.
const INTERCEPTOR: &CStr = c"zeta";

/// Called once, while the client is made.
unsafe extern "C" fn on_new(
    client: *mut sys::rd_kafka_t,
    _: *const sys::rd_kafka_conf_t,
    _: *mut c_void,
    _: *mut c_char,
    _: usize,
) -> RDKafkaRespErr {
    // SAFETY: the client is alive, and so is the name.
    unsafe {
        sys::rd_kafka_interceptor_add_on_request_sent(client, INTERCEPTOR.as_ptr(), Some(on_request), ptr::null_mut());
        sys::rd_kafka_interceptor_add_on_response_received(
            client,
            INTERCEPTOR.as_ptr(),
            Some(on_answer),
            ptr::null_mut(),
        );
    }
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// The context of a client: its opaque pointer is that of its configuration.
///
/// # Safety
/// The client was made by [`Drain::connect`] and is alive.
unsafe fn connection_of<'a>(client: *const sys::rd_kafka_t) -> Option<&'a Connection> {
    // SAFETY: the caller's; the context lives as long as its client.
    unsafe { sys::rd_kafka_opaque(client).cast::<Connection>().as_ref() }
}

/// Called from librdkafka's threads.
unsafe extern "C" fn on_request(
    client: *mut sys::rd_kafka_t,
    _: c_int,
    _: *const c_char,
    broker: i32,
    api: i16,
    _: i16,
    _: i32,
    _: usize,
    _: *mut c_void,
) -> RDKafkaRespErr {
    // SAFETY: librdkafka calls it with the client that it was added to.
    if let Some(connection) = unsafe { connection_of(client) } {
        connection.pulse().note_request(broker, api);
    }
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// Called from librdkafka's threads.
unsafe extern "C" fn on_answer(
    client: *mut sys::rd_kafka_t,
    _: c_int,
    _: *const c_char,
    broker: i32,
    api: i16,
    _: i16,
    _: i32,
    _: usize,
    _: i64,
    error: RDKafkaRespErr,
    _: *mut c_void,
) -> RDKafkaRespErr {
    // SAFETY: as above.
    if let Some(connection) = unsafe { connection_of(client) } {
        let is_good = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        connection.pulse().note_answer(broker, api, is_good);
    }
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// Called while [`Drain::serve`] runs.
unsafe extern "C" fn on_error(_: *mut sys::rd_kafka_t, error: c_int, reason: *const c_char, connection: *mut c_void) {
    // SAFETY: the opaque pointer is that of the client's context (see `connect`); the reason is a text of librdkafka.
    let (connection, reason) = unsafe { (&*connection.cast::<Connection>(), text(reason)) };
    connection.note_error(code(error), &reason);
}

/// Called while [`Drain::serve`] runs.
unsafe extern "C" fn on_log(client: *const sys::rd_kafka_t, level: c_int, kind: *const c_char, line: *const c_char) {
    if client.is_null() {
        return;
    }
    // SAFETY: as in `on_error`; a client's opaque pointer is that of its configuration.
    let (connection, kind, line) = unsafe {
        (
            &*sys::rd_kafka_opaque(client).cast::<Connection>(),
            text(kind),
            text(line),
        )
    };
    let level = match level {
        0..=2 => RDKafkaLogLevel::Critical,
        3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        _ => RDKafkaLogLevel::Debug,
    };
    connection.note_log(level, &kind, &line);
}
