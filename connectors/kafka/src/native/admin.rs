//! What the questions of librdkafka's admin interface have in common: a request's options, and the event that answers it.

#![allow(unsafe_code)]

use std::ffi::c_char;

use rdkafka::bindings as rd;

use super::{Client, Code};

/// A queue for the answer to one request.
pub(super) struct Answers(pub(super) *mut rd::rd_kafka_queue_t);

// SAFETY: librdkafka's handles may be used from any thread.
unsafe impl Send for Answers {}

impl Answers {
    pub(super) fn new(client: &Client) -> Self {
        // SAFETY: the client is valid.
        Self(unsafe { rd::rd_kafka_queue_new(client.rk()) })
    }

    /// Waits for the event; its time-out is that of the request.
    pub(super) fn event(&self) -> Event {
        // SAFETY: the queue is valid; the event is ours.
        Event(unsafe { rd::rd_kafka_queue_poll(self.0, -1) })
    }

    /// The event, if it comes within so many milliseconds.
    pub(super) fn event_within(&self, wait_ms: i32) -> Option<Event> {
        // SAFETY: the queue is valid; the event is ours.
        let event = unsafe { rd::rd_kafka_queue_poll(self.0, wait_ms) };
        (!event.is_null()).then_some(Event(event))
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // SAFETY: the queue is ours.
        unsafe { rd::rd_kafka_queue_destroy(self.0) };
    }
}

/// The answer to one request.
pub(super) struct Event(pub(super) *mut rd::rd_kafka_event_t);

impl Event {
    pub(super) fn error(&self) -> Result<(), Code> {
        // SAFETY: the event is valid.
        match unsafe { rd::rd_kafka_event_error(self.0) }.into() {
            Code::NoError => Ok(()),
            code => Err(code),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is ours, or null, which is allowed.
        unsafe { rd::rd_kafka_event_destroy(self.0) };
    }
}

/// How one request is made.
pub(super) struct Options(pub(super) *mut rd::rd_kafka_AdminOptions_t);

impl Options {
    pub(super) fn new(client: &Client, operation: rd::rd_kafka_admin_op_t, wait_ms: i32) -> Self {
        let mut reason = [0 as c_char; 256];
        // SAFETY: the client is valid and the buffer has the size that is said. A refused time-out leaves the default.
        unsafe {
            let options = rd::rd_kafka_AdminOptions_new(client.rk(), operation);
            rd::rd_kafka_AdminOptions_set_request_timeout(options, wait_ms, reason.as_mut_ptr(), reason.len());
            Self(options)
        }
    }

    /// Sends the request to this broker. Without it librdkafka sends it to the controller that it knows, and waits for
    /// that one even where it is gone.
    pub(super) fn at(self, broker: i32) -> Self {
        let mut reason = [0 as c_char; 256];
        // SAFETY: the options are valid and the buffer has the size that is said. A refused broker leaves the default.
        unsafe { rd::rd_kafka_AdminOptions_set_broker(self.0, broker, reason.as_mut_ptr(), reason.len()) };
        self
    }

    /// Has the cluster check the request and do nothing.
    pub(super) fn only_check(self) -> Self {
        let mut reason = [0 as c_char; 256];
        // SAFETY: the options are valid and the buffer has the size that is said. An operation that cannot be checked so is
        // refused, and none such is made with this.
        unsafe { rd::rd_kafka_AdminOptions_set_validate_only(self.0, 1, reason.as_mut_ptr(), reason.len()) };
        self
    }

    /// Counts open transactions or not.
    pub(super) fn isolation(self, level: rd::rd_kafka_IsolationLevel_t) -> Self {
        // SAFETY: the options are valid, and an error is ours to destroy; null is allowed there.
        unsafe { rd::rd_kafka_error_destroy(rd::rd_kafka_AdminOptions_set_isolation_level(self.0, level)) };
        self
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: the options are ours.
        unsafe { rd::rd_kafka_AdminOptions_destroy(self.0) };
    }
}
