//! UTF-8 text as it stands.

use super::DecodeError;
use crate::Record;

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

fn text(part: &'static str, bytes: &[u8]) -> Result<String, DecodeError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(source) => Err(DecodeError::Malformed { part, expected: "utf-8 text".to_owned(), source: source.into() }),
    }
}
