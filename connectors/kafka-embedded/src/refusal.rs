//! The refusal of a request, with a message for the user of the client.

use kafka_protocol::ResponseError;

/// Kafka's error code and why.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) error: ResponseError,
    pub(crate) message: String,
}

impl Refusal {
    /// A refusal that explains itself.
    pub(crate) fn new(error: ResponseError, message: impl Into<String>) -> Self {
        Self { error, message: message.into() }
    }
}

impl From<ResponseError> for Refusal {
    fn from(error: ResponseError) -> Self {
        Self { error, message: error.to_string() }
    }
}
