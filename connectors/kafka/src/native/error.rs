//! Errors that librdkafka hands over as objects.

#![allow(unsafe_code)]

use fluvial_connector::Error;
use rdkafka::bindings as rd;

use super::{Code, text};
use crate::failure;

/// What librdkafka says of a failed call of the transaction interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TransactionError {
    /// What happened.
    pub(crate) code: Code,
    /// In words.
    pub(crate) reason: String,
    /// The client is of no further use.
    pub(crate) fatal: bool,
    /// The call is to be made again to go on with the same operation.
    pub(crate) retriable: bool,
}

/// Takes an error over and frees it; none at all is success.
pub(super) fn take(error: *mut rd::rd_kafka_error_t) -> Result<(), TransactionError> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the error is ours and is freed once, after its last use.
    unsafe {
        let taken = TransactionError {
            code: rd::rd_kafka_error_code(error).into(),
            reason: text(rd::rd_kafka_error_string(error)),
            fatal: rd::rd_kafka_error_is_fatal(error) != 0,
            retriable: rd::rd_kafka_error_is_retriable(error) != 0,
        };
        rd::rd_kafka_error_destroy(error);
        Err(taken)
    }
}

/// As [`take`], for calls whose error is told as it is; `what` names operation and object.
pub(super) fn call(error: *mut rd::rd_kafka_error_t, what: impl FnOnce() -> String) -> Result<(), Error> {
    take(error).map_err(|error| failure::error(error.code, format!("{}: {}", what(), error.reason)))
}
