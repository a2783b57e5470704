//! How bytes become values and values become bytes.

mod foreign;
pub mod json;
pub mod text;

use crate::{BoxError, Record};

/// Makes a value of a record. Any `Fn(&Record) -> Result<T, DecodeError>` is one.
pub trait Decode: Send + Sync + 'static {
    /// What a record holds.
    type Item: 'static;

    /// Decodes one record.
    ///
    /// # Errors
    /// The record is not what it should be; the job decides what happens then.
    fn decode(&self, record: &Record<'_>) -> Result<Self::Item, DecodeError>;
}

impl<T: 'static, F> Decode for F
where
    F: Fn(&Record<'_>) -> Result<T, DecodeError> + Send + Sync + 'static,
{
    type Item = T;

    fn decode(&self, record: &Record<'_>) -> Result<T, DecodeError> {
        self(record)
    }
}

/// Makes a message's key and value of a row. Equal keys must give equal bytes.
pub trait Encode<K, V>: Send + Sync + 'static {
    /// Appends the key's bytes.
    ///
    /// # Errors
    /// The key cannot be expressed.
    fn key(&self, key: &K, into: &mut Vec<u8>) -> Result<(), BoxError>;

    /// Appends the value's bytes.
    ///
    /// # Errors
    /// The value cannot be expressed.
    fn value(&self, value: &V, into: &mut Vec<u8>) -> Result<(), BoxError>;
}

/// A record that cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The record lacks a key or a value that the job needs.
    #[error("the record has no {0}")]
    Missing(&'static str),
    /// There are no bytes where JSON was expected.
    #[error(
        "the {0} is empty, which is no JSON (a record that deletes its key has no value, as kcat writes it with -Z, or the \
         JSON value null)"
    )]
    Empty(&'static str),
    /// The bytes do not hold what was expected.
    #[error("the {part} is not {expected}, it is {found}")]
    Malformed {
        /// `key` or `value`.
        part: &'static str,
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
    /// `bytes`, which are the record's key or value as `part` says, are not what was `expected`.
    pub fn malformed(
        part: &'static str,
        expected: impl Into<String>,
        bytes: &[u8],
        source: impl Into<BoxError>,
    ) -> Self {
        Self::Malformed { part, expected: expected.into(), found: foreign::describe(bytes), source: source.into() }
    }
}
