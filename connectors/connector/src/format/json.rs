//! JSON by serde.
//!
//! ```
//! use fluvial_connector::{Offset, Record, format::{Decode, json}};
//!
//! let record = Record { offset: Offset(0), key: Some(b"7"), value: Some(br#"{"a":1}"#), timestamp_ms: None };
//! #[derive(serde::Deserialize)]
//! struct Row { a: i64 }
//! let row: Row = json::value::<Row>().decode(&record).unwrap();
//! assert_eq!(row.a, 1);
//! ```

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Decode, DecodeError, Encode};
use crate::{BoxError, Record};

/// Decodes the value; a record without one is an error.
pub fn value<V: DeserializeOwned + 'static>() -> impl Decode<Item = V> {
    |record: &Record<'_>| decode_value(record)?.ok_or(DecodeError::Missing("value"))
}

/// Decodes key and value of a changelog; a null value is a deletion.
pub fn keyed<K: DeserializeOwned + 'static, V: DeserializeOwned + 'static>() -> impl Decode<Item = (K, Option<V>)> {
    |record: &Record<'_>| Ok((decode_key(record)?, decode_value(record)?))
}

/// The key of a record, as JSON.
///
/// # Errors
/// There is none, or it is malformed.
pub fn decode_key<K: DeserializeOwned>(record: &Record<'_>) -> Result<K, DecodeError> {
    parse("key", record.key.ok_or(DecodeError::Missing("key"))?)
}

/// The value of a record, as JSON; `None` for a null value.
///
/// # Errors
/// It is malformed.
pub fn decode_value<V: DeserializeOwned>(record: &Record<'_>) -> Result<Option<V>, DecodeError> {
    record.value.map(|bytes| parse("value", bytes)).transpose()
}

fn parse<T: DeserializeOwned>(part: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(bytes).map_err(|source| DecodeError::Malformed {
        part,
        expected: format!("json of {}", std::any::type_name::<T>()),
        source: source.into(),
    })
}

/// Encodes keys and values as JSON.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<K: Serialize, V: Serialize> Encode<K, V> for Json {
    fn key(&self, key: &K, into: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(serde_json::to_writer(into, key)?)
    }

    fn value(&self, value: &V, into: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(serde_json::to_writer(into, value)?)
    }
}
