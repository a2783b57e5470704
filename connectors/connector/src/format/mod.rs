//! How bytes become values and values become bytes.
//!
//! A [`Format`] is for one *part* of a record, its key or its value. It is used the same way for keys and values, and for
//! sources and outputs. Where a whole record is read or written, a single format applies to both parts, and a pair has one for
//! each: `(Text, Json)` means a key as plain text and a value as JSON.
//!
//! | format | types | the serializer of Kafka's own clients that writes the same bytes |
//! | --- | --- | --- |
//! | [`Json`] | all that serde reads and writes | |
//! | [`Text`] | strings, numbers, `Uuid`, and all that can be parsed and displayed | `StringSerializer`, `UUIDSerializer` |
//! | [`Bytes`] | `Vec<u8>` | `ByteArraySerializer`, `ByteBufferSerializer`, `BytesSerializer` |
//! | [`Long`], [`Integer`], [`Short`] | `i64`, `i32`, `i16` | `LongSerializer`, `IntegerSerializer`, `ShortSerializer` |
//! | [`Double`], [`Float`] | `f64`, `f32`; not what a collection holds, because these types have no order | `DoubleSerializer`, `FloatSerializer` |
//! | [`Boolean`] | `bool` | `BooleanSerializer` |
//!
//! `VoidSerializer` writes no bytes at all, so it needs no format: a source whose keys are absent or do not matter is read by its
//! values alone.
//!
//! ```
//! use fluvial_connector::format::{Json, Text};
//! use fluvial_connector::{Offset, Record};
//!
//! #[derive(Debug, PartialEq, serde::Deserialize)]
//! struct Price { cents: i64 }
//!
//! let value = br#"{"cents":250}"#;
//! let record = Record { offset: Offset(0), key: Some(b"tea"), value: Some(value), ..Record::default() };
//! assert_eq!(record.decode_key::<String>(&Text)?, "tea");
//! assert_eq!(record.decode_value::<Price>(&Json)?, Price { cents: 250 });
//! // A record without a value, and one with JSON's null, delete their key.
//! let record = Record { value: Some(b"null"), ..record };
//! assert_eq!(record.decode_change::<Price>(&Json)?, None);
//! # Ok::<_, fluvial_connector::format::DecodeError>(())
//! ```
//!
//! A custom format implements [`Format`], which defines what a deletion looks like, [`Decode`] for the types that it reads,
//! and [`Encode`] for the types that it writes:
//!
//! ```
//! use fluvial_connector::BoxError;
//! use fluvial_connector::format::{Decode, DecodeError, Encode, Format, Part};
//!
//! /// Eight bytes, the first the least significant.
//! struct LittleEndian;
//!
//! impl Format for LittleEndian {}
//!
//! impl Decode<i64> for LittleEndian {
//!     fn decode(&self, part: Part, bytes: &[u8]) -> Result<i64, DecodeError> {
//!         let whole = bytes.try_into().map_err(|error| DecodeError::malformed(part, "an eight-byte integer", bytes, error));
//!         Ok(i64::from_le_bytes(whole?))
//!     }
//! }
//!
//! impl Encode<i64> for LittleEndian {
//!     fn encode(&self, value: &i64, into: &mut Vec<u8>) -> Result<(), BoxError> {
//!         into.extend_from_slice(&value.to_le_bytes());
//!         Ok(())
//!     }
//! }
//!
//! let mut bytes = Vec::new();
//! LittleEndian.encode(&-2, &mut bytes).unwrap();
//! assert_eq!(LittleEndian.decode(Part::Value, &bytes).unwrap(), -2);
//! let error = LittleEndian.decode(Part::Key, b"two").unwrap_err();
//! assert_eq!(error.to_string(), "the key is not an eight-byte integer, it is \"two\"");
//! ```

mod bytes;
mod foreign;
mod json;
mod numbers;
mod text;

use std::fmt;

pub use bytes::Bytes;
pub use json::Json;
pub use numbers::{Boolean, Double, Float, Integer, Long, Short};
pub use text::Text;

use crate::{BoxError, Record};

/// A format for one part of a record, its key or its value. [`Decode`] and [`Encode`] define the types that it reads and
/// writes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a format of keys and values",
    note = "formats are `Json`, `Text`, `Bytes`, `Long` and other numbers, types of your own that implement `Format`, and pairs `(key, value)` of them",
    note = "set the format of a source or an output with `.format(…)`"
)]
pub trait Format: Send + Sync + 'static {
    /// Whether a value of these bytes deletes the record's key, as a record without a value does. By default none does.
    fn is_deletion(&self, value: &[u8]) -> bool {
        let _ = value;
        false
    }
}

/// A format that reads values of type `T`.
#[diagnostic::on_unimplemented(message = "the format `{Self}` cannot read `{T}`")]
pub trait Decode<T>: Format {
    /// Decodes `bytes`, which are the record's key or value, as `part` says.
    ///
    /// # Errors
    /// The bytes are malformed. The error names the part; the job decides what follows ([`DecodeError::malformed`]).
    fn decode(&self, part: Part, bytes: &[u8]) -> Result<T, DecodeError>;
}

/// A format that writes values of type `T`.
///
/// Equal values must give equal bytes, because the system that is written to compares keys by their bytes, and because a
/// replay must produce the same bytes again.
#[diagnostic::on_unimplemented(message = "the format `{Self}` cannot write `{T}`")]
pub trait Encode<T>: Format {
    /// Appends the value's bytes.
    ///
    /// # Errors
    /// The value cannot be expressed.
    fn encode(&self, value: &T, into: &mut Vec<u8>) -> Result<(), BoxError>;
}

/// The formats of a record's key and value: one [`Format`] for both, or a pair of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a format of keys and values",
    note = "formats are `Json`, `Text`, `Bytes`, `Long` and other numbers, types of your own that implement `Format`, and pairs `(key, value)` of them",
    note = "set the format of a source or an output with `.format(…)`"
)]
pub trait Formats: Send + Sync + 'static {
    /// The format of keys.
    type Key: Format;
    /// The format of values.
    type Value: Format;

    /// The format of the key.
    fn key(&self) -> &Self::Key;

    /// The format of the value.
    fn value(&self) -> &Self::Value;
}

impl<F: Format> Formats for F {
    type Key = F;
    type Value = F;

    fn key(&self) -> &F {
        self
    }

    fn value(&self) -> &F {
        self
    }
}

impl<K: Format, V: Format> Formats for (K, V) {
    type Key = K;
    type Value = V;

    fn key(&self) -> &K {
        &self.0
    }

    fn value(&self) -> &V {
        &self.1
    }
}

/// A part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The key.
    Key,
    /// The value.
    Value,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key => "key",
            Self::Value => "value",
        })
    }
}

impl Record<'_> {
    /// Decodes the key.
    ///
    /// # Errors
    /// The record has no key, or the key is malformed.
    pub fn decode_key<K>(&self, format: &impl Decode<K>) -> Result<K, DecodeError> {
        format.decode(Part::Key, self.key.ok_or(DecodeError::Missing(Part::Key))?)
    }

    /// Decodes the value of a record that cannot be a deletion. JSON's `null` is a value like any other here.
    ///
    /// # Errors
    /// The record has no value, or the value is malformed.
    pub fn decode_value<V>(&self, format: &impl Decode<V>) -> Result<V, DecodeError> {
        format.decode(Part::Value, self.value.ok_or(DecodeError::Missing(Part::Value))?)
    }

    /// Decodes the value of a record that may delete its key: `None` if the record has no value, or one that is a deletion
    /// in this format ([`Format::is_deletion`]).
    ///
    /// # Errors
    /// The value is malformed.
    pub fn decode_change<V>(&self, format: &impl Decode<V>) -> Result<Option<V>, DecodeError> {
        let value = self.value.filter(|value| !format.is_deletion(value));
        value.map(|value| format.decode(Part::Value, value)).transpose()
    }
}

/// A record that cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The record lacks a key or a value that the job needs.
    #[error("the record has no {0}")]
    Missing(Part),
    /// There are no bytes where JSON was expected.
    #[error(
        "the {0} is empty, which is no JSON (a record that deletes its key has no value, as kcat writes it with -Z, or the \
         JSON value null)"
    )]
    Empty(Part),
    /// The bytes do not hold what was expected.
    #[error("the {part} is not {expected}, it is {found}")]
    Malformed {
        /// The part of the record that holds the bytes.
        part: Part,
        /// What was expected: `json of orders::Order`.
        expected: String,
        /// How the bytes begin, and what they look like.
        found: String,
        /// What the decoder said.
        #[source]
        source: BoxError,
    },
}

impl DecodeError {
    /// The error for `bytes` in the record's `part` that are not what was `expected`.
    pub fn malformed(part: Part, expected: impl Into<String>, bytes: &[u8], source: impl Into<BoxError>) -> Self {
        Self::Malformed { part, expected: expected.into(), found: foreign::describe(bytes), source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Offset;

    /// Writes a key and a value, and reads them again.
    fn there_and_back<F, K, V>(formats: &F, key: &K, value: &V) -> (Vec<u8>, Vec<u8>, K, V)
    where
        F: Formats<Key: Encode<K> + Decode<K>, Value: Encode<V> + Decode<V>>,
    {
        let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
        formats.key().encode(key, &mut key_bytes).unwrap();
        formats.value().encode(value, &mut value_bytes).unwrap();
        let record =
            Record { offset: Offset(0), key: Some(&key_bytes), value: Some(&value_bytes), ..Record::default() };
        let key = record.decode_key(formats.key()).unwrap();
        let value = record.decode_value(formats.value()).unwrap();
        (key_bytes, value_bytes, key, value)
    }

    #[test]
    fn a_format_is_that_of_key_and_value_and_a_pair_has_one_for_each() {
        let text = |text: &str| text.to_owned();
        let (key, value, ..) = there_and_back(&Json, &text("é\n"), &7u64);
        assert_eq!((key, value), (r#""é\n""#.into(), "7".into()));
        let (key, value, ..) = there_and_back(&(Text, Json), &text("tea, 2"), &text("é"));
        assert_eq!((key, value), ("tea, 2".into(), r#""é""#.into()));
        let (key, value, read, _) = there_and_back(&(Text, Bytes), &-7i64, &vec![0u8, 0xff]);
        assert_eq!((key, value, read), ("-7".into(), vec![0, 0xff], -7));
    }

    #[test]
    fn what_cannot_be_read_is_named_by_part_expectation_and_bytes() {
        let record = Record { offset: Offset(0), key: Some(b"\xff\x01"), value: Some(b"x7"), ..Record::default() };
        let check = |error: DecodeError, expected: &str| assert_eq!(error.to_string(), expected);
        check(record.decode_key::<String>(&Text).unwrap_err(), "the key is not utf-8 text, it is ff 01");
        check(record.decode_value::<u64>(&Text).unwrap_err(), r#"the value is not text of u64, it is "x7""#);
        check(record.decode_value::<u64>(&Json).unwrap_err(), r#"the value is not json of u64, it is "x7""#);
        let none = Record { key: None, value: None, ..record };
        check(none.decode_key::<Vec<u8>>(&Bytes).unwrap_err(), "the record has no key");
        check(none.decode_value::<String>(&Text).unwrap_err(), "the record has no value");
    }

    #[test]
    fn what_deletes_a_key_is_for_the_format_to_say() {
        let record = |value: Option<&'static str>| Record {
            offset: Offset(0),
            key: None,
            value: value.map(str::as_bytes),
            ..Record::default()
        };
        assert_eq!(record(None).decode_change::<String>(&Text).unwrap(), None);
        assert_eq!(record(Some("null")).decode_change::<String>(&Text).unwrap(), Some("null".to_owned()));
        assert_eq!(record(Some("")).decode_change::<Vec<u8>>(&Bytes).unwrap(), Some(Vec::new()));
        assert_eq!(record(Some("null")).decode_change::<String>(&Json).unwrap(), None);
    }
}
