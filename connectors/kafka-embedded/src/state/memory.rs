//! The memory that records take, and its limit.

use kafka_protocol::ResponseError;

/// Counts the bytes of all logs. Says it aloud, once each time, when there is no room left.
#[derive(Debug)]
pub(crate) struct Memory {
    used: usize,
    limit: usize,
    full: bool,
}

impl Memory {
    /// Nothing used, of `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { used: 0, limit, full: false }
    }

    /// The bytes used.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// What to tell a producer that is refused.
    pub(crate) fn advice(&self) -> String {
        format!(
            "the embedded broker holds {} of at most {} bytes and keeps everything: delete records or topics, or raise its memory limit",
            self.used, self.limit
        )
    }

    /// Takes memory for records.
    ///
    /// # Errors
    ///
    /// `POLICY_VIOLATION`, which clients do not retry, when it would be more than the limit.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), ResponseError> {
        if self.used + bytes <= self.limit {
            self.used += bytes;
            return Ok(());
        }
        if !self.full {
            tracing::error!(used_bytes = self.used, limit_bytes = self.limit, "produce refused: {}", self.advice());
            self.full = true;
        }
        Err(ResponseError::PolicyViolation)
    }

    /// Takes memory that cannot be refused.
    pub(crate) fn force(&mut self, bytes: usize) {
        self.used += bytes;
    }

    /// Gives memory back.
    pub(crate) fn free(&mut self, bytes: usize) {
        self.used -= bytes;
        self.full &= bytes == 0;
    }
}
