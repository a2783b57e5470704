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
    |record: &Record<'_>| parse("value", record.value.ok_or(DecodeError::Missing("value"))?)
}

/// Decodes key and value of a changelog. A record without a value is a deletion, and so is one whose value is the JSON
/// `null`: Kafka Connect's JsonConverter writes deletions so, and Flink's and Jackson's decoders read them so.
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

/// The value of a record of a changelog, as JSON: `None`, which is a deletion, for a record without a value and for the
/// JSON `null`.
///
/// # Errors
/// It is malformed. An empty value is, too: it is neither.
pub fn decode_value<V: DeserializeOwned>(record: &Record<'_>) -> Result<Option<V>, DecodeError> {
    match record.value.map(<[u8]>::trim_ascii) {
        None | Some(b"null") => Ok(None),
        Some(bytes) => parse("value", bytes).map(Some),
    }
}

fn parse<T: DeserializeOwned>(part: &'static str, bytes: &[u8]) -> Result<T, DecodeError> {
    serde_json::from_slice(bytes).map_err(|source| match bytes {
        [] => DecodeError::Empty(part),
        bytes => DecodeError::malformed(part, format!("json of {}", std::any::type_name::<T>()), bytes, source),
    })
}

/// Encodes keys and values as JSON, fields in the order of their declaration.
///
/// Give a key as well as a value named fields: what reads a topic as a table (Flink, Kafka Connect, ksqlDB) finds columns
/// by their names, and a bare number or text has none. Where a key is one text, [`text::Key`](super::text::Key) writes it
/// as it stands.
///
/// Kafka compares keys by their bytes. JSON can write one text in several ways (`"\u00e9"` and `"é"`), so two writers of one
/// topic that escape differently have two keys, in different partitions. This one escapes only what it must: quotation
/// marks, backslashes and control characters.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Offset;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Row {
        a: i64,
    }

    fn record(value: Option<&'static str>) -> Record<'static> {
        Record { offset: Offset(0), key: Some(b"7"), value: value.map(str::as_bytes), timestamp_ms: None }
    }

    #[test]
    fn a_json_null_deletes_as_a_record_without_a_value_does() {
        let check = |value: Option<&'static str>, expected: Option<i64>| {
            let decoded = keyed::<u64, Row>().decode(&record(value)).unwrap();
            assert_eq!(decoded, (7, expected.map(|a| Row { a })), "{value:?}");
        };
        check(None, None);
        check(Some("null"), None);
        check(Some(" null\n"), None);
        check(Some(r#"{"a":1}"#), Some(1));
        // Where nothing is deleted, null is a value like any other.
        assert_eq!(value::<Option<i64>>().decode(&record(Some("null"))).unwrap(), None);
        assert!(value::<Row>().decode(&record(Some("null"))).unwrap_err().to_string().contains("it is \"null\""));
    }

    #[test]
    fn an_empty_value_is_an_error_that_says_what_deletes() {
        for empty in ["", " "] {
            let error = decode_value::<Row>(&record(Some(empty))).unwrap_err().to_string();
            assert!(error.contains("the value is empty") && error.contains("-Z"), "{error}");
        }
        let error = value::<Row>().decode(&record(Some(""))).unwrap_err().to_string();
        assert!(error.contains("the value is empty"), "{error}");
    }
}
