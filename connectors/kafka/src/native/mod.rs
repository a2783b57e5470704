//! The only place that speaks to librdkafka, and the only one with `unsafe` in it.
//!
//! librdkafka's C interface is used directly, for what the safe wrapper cannot do cheaply: batches of borrowed
//! records, batches of produced ones, delivery reports as events, commits that return when they are done, a wake-up
//! when records have come, topic ids, and the fate of each single request. The types here own their handles; nothing
//! of the C interface leaves this folder.

mod admin;
mod client;
mod connections;
mod consumer;
mod error;
mod groups;
mod metadata;
mod offsets;
mod producer;
mod questions;
mod socket;
mod token;
mod topics;
mod waiting;
mod watch;

pub(crate) use client::{Client, Role, check_settings, knows_setting};
pub(crate) use consumer::{Arrival, Consumer};
pub(crate) use metadata::TopicMetadata;
pub(crate) use offsets::{Bounds, Isolation};
pub(crate) use producer::{Message, Producer, Report, TransactionError};
pub(crate) use questions::{Survey, Unavailable};
pub(crate) use rdkafka::types::RDKafkaErrorCode as Code;
pub(crate) use topics::{NewTopic, TopicSettings};
pub(crate) use waiting::Failed;
pub(crate) use watch::{Watch, Words};

use std::ffi::{CStr, CString, c_char};
use std::time::{Duration, Instant};

/// A text of librdkafka's, copied.
///
/// # Safety
/// `text` is null or points to a string that ends with a zero byte and lives through the call.
#[allow(unsafe_code)]
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().trim().to_owned()
}

/// A name for the C interface. No topic and no setting has a zero byte; one that has is cut there, and not found.
fn c_string(text: &str) -> CString {
    let bytes: Vec<u8> = text.bytes().take_while(|b| *b != 0).collect();
    CString::new(bytes).expect("there is no zero byte in it")
}

/// What remains until `deadline` in librdkafka's unit, at most `slice`.
fn remaining_ms(deadline: Instant, slice: Duration) -> i32 {
    let left = deadline.saturating_duration_since(Instant::now()).min(slice);
    i32::try_from(left.as_millis()).unwrap_or(i32::MAX)
}
