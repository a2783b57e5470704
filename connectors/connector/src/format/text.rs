//! UTF-8 text as it stands.

use super::{DecodeError, Encode};
use crate::{BoxError, Record};

/// The key of a record, as text.
///
/// # Errors
/// There is none, or it is not UTF-8.
pub fn decode_key(record: &Record<'_>) -> Result<String, DecodeError> {
    text("key", record.key.ok_or(DecodeError::Missing("key"))?)
}

/// The value of a record, as text; `None` for a null value.
///
/// # Errors
/// It is not UTF-8.
pub fn decode_value(record: &Record<'_>) -> Result<Option<String>, DecodeError> {
    record.value.map(|bytes| text("value", bytes)).transpose()
}

/// The value of a record that must have one, as text: a decoder for a source of lines.
///
/// # Errors
/// There is none, or it is not UTF-8.
pub fn value(record: &Record<'_>) -> Result<String, DecodeError> {
    decode_value(record)?.ok_or(DecodeError::Missing("value"))
}

/// Writes a text key as it stands, and the value as another format does: `text::Key(json::Json)`.
///
/// ```
/// use fluvial_connector::format::{Encode, json, text};
///
/// #[derive(serde::Serialize)]
/// struct WordCount { word: String, count: u64 }
/// let (mut key, mut value) = (Vec::new(), Vec::new());
/// let row = WordCount { word: "to".to_owned(), count: 2 };
/// Encode::<String, WordCount>::key(&text::Key(json::Json), &row.word, &mut key).unwrap();
/// Encode::<String, WordCount>::value(&text::Key(json::Json), &row, &mut value).unwrap();
/// assert_eq!((key, value), (b"to".to_vec(), br#"{"word":"to","count":2}"#.to_vec()));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Key<E>(pub E);

impl<K: AsRef<str>, V, E: Encode<K, V>> Encode<K, V> for Key<E> {
    fn key(&self, key: &K, into: &mut Vec<u8>) -> Result<(), BoxError> {
        into.extend_from_slice(key.as_ref().as_bytes());
        Ok(())
    }

    fn value(&self, value: &V, into: &mut Vec<u8>) -> Result<(), BoxError> {
        self.0.value(value, into)
    }
}

fn text(part: &'static str, bytes: &[u8]) -> Result<String, DecodeError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(source) => Err(DecodeError::malformed(part, "utf-8 text", bytes, source)),
    }
}
