//! JSON by serde.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Decode, DecodeError, Encode, Format, Part};
use crate::BoxError;

/// JSON by serde, fields in the order of their declaration.
///
/// ```
/// use fluvial_connector::format::{Decode, Encode, Json, Part};
///
/// #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
/// struct Row { word: String, count: u64 }
///
/// let (row, mut bytes) = (Row { word: "to".to_owned(), count: 2 }, Vec::new());
/// Json.encode(&row, &mut bytes)?;
/// assert_eq!(bytes, br#"{"word":"to","count":2}"#);
/// let read: Row = Json.decode(Part::Value, &bytes)?;
/// assert_eq!(read, row);
/// # Ok::<_, fluvial_connector::BoxError>(())
/// ```
///
/// In a changelog, the JSON `null` deletes its key, as a record without a value does, because Kafka Connect's JsonConverter
/// writes deletions that way, and Flink's and Jackson's decoders read them that way. An empty value is an error.
///
/// Give a key as well as a value named fields: what reads a topic as a table (Flink, Kafka Connect, ksqlDB) finds columns
/// by their names, and a bare number or text has none. Use [`Text`](super::Text) for keys that are a single text.
///
/// Kafka compares keys by their bytes. JSON can write one text in several ways (`"\u00e9"` and `"é"`), so two writers of one
/// topic that escape differently have two keys, in different partitions. This one escapes only what it must: quotation
/// marks, backslashes and control characters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl Format for Json {
    fn is_deletion(&self, value: &[u8]) -> bool {
        value.trim_ascii() == b"null"
    }
}

impl<T: DeserializeOwned> Decode<T> for Json {
    fn decode(&self, part: Part, bytes: &[u8]) -> Result<T, DecodeError> {
        serde_json::from_slice(bytes).map_err(|source| match bytes.trim_ascii() {
            [] => DecodeError::Empty(part),
            _ => DecodeError::malformed(part, format!("json of {}", std::any::type_name::<T>()), bytes, source),
        })
    }
}

impl<T: Serialize> Encode<T> for Json {
    fn encode(&self, value: &T, into: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(serde_json::to_writer(into, value)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{Offset, Record};

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Row {
        a: i64,
    }

    fn record(value: Option<&'static str>) -> Record<'static> {
        Record { offset: Offset(0), key: Some(b"7"), value: value.map(str::as_bytes), ..Record::default() }
    }

    #[test]
    fn a_json_null_deletes_as_a_record_without_a_value_does() {
        let check = |value: Option<&'static str>, expected: Option<i64>| {
            let decoded = record(value).decode_change::<Row>(&Json).unwrap();
            assert_eq!(decoded, expected.map(|a| Row { a }), "{value:?}");
        };
        check(None, None);
        check(Some("null"), None);
        check(Some(" null\n"), None);
        check(Some(r#"{"a":1}"#), Some(1));
        // Where nothing is deleted, null is a value like any other.
        assert_eq!(record(Some("null")).decode_value::<Option<i64>>(&Json).unwrap(), None);
        let error = record(Some("null")).decode_value::<Row>(&Json).unwrap_err();
        assert!(error.to_string().contains("it is \"null\""), "{error}");
    }

    #[test]
    fn an_empty_value_is_an_error_that_says_what_deletes() {
        for empty in ["", " "] {
            let error = record(Some(empty)).decode_change::<Row>(&Json).unwrap_err().to_string();
            assert!(error.contains("the value is empty") && error.contains("-Z"), "{error}");
        }
        let error = record(Some("")).decode_value::<Row>(&Json).unwrap_err().to_string();
        assert!(error.contains("the value is empty"), "{error}");
    }
}
