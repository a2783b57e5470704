//! A record that a test feeds to a source, with all that a topic holds of it.

use fluvial_connector::{Headers, Offset, Record};

/// A record of a source under test: key, value, headers and timestamp.
/// [`SourceBuilder::stream_with`](crate::SourceBuilder::stream_with) has an example.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InputRecord {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp_ms: Option<i64>,
}

impl InputRecord {
    /// Creates a record of this key and this value, without headers and without a timestamp.
    pub fn new<B: AsRef<[u8]> + ?Sized>(key: Option<&B>, value: Option<&B>) -> Self {
        let bytes = |part: Option<&B>| part.map(|part| part.as_ref().to_vec());
        Self { key: bytes(key), value: bytes(value), ..Self::default() }
    }

    /// Adds a header at the end.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), Some(value.as_ref().to_vec())));
        self
    }

    /// Sets the timestamp, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn with_timestamp_ms(self, timestamp_ms: i64) -> Self {
        Self { timestamp_ms: Some(timestamp_ms), ..self }
    }

    /// The record as a reader delivers it.
    pub(super) fn at(&self, offset: Offset) -> Record<'_> {
        Record {
            offset,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            timestamp_ms: self.timestamp_ms,
            headers: Headers::of(&self.headers),
            split: None,
        }
    }
}
