//! The records that go through Kafka, as JSON.

use serde::{Deserialize, Serialize};

/// How long an input record's value is.
pub(crate) const VALUE_BYTES: usize = 200;

/// An input record: 200 bytes, of which a job needs two fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payment {
    /// The account that pays.
    pub(crate) key: u64,
    /// How much; where latency is measured, when it was produced.
    pub(crate) amount: i64,
}

/// What is known of a key: the value of an output record, whose key is the key's number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Total {
    /// How many payments there were.
    pub(crate) count: u64,
    /// What they come to.
    pub(crate) sum: i64,
}

impl Payment {
    /// The value of its record.
    pub(crate) fn value(&self, into: &mut Vec<u8>) {
        use std::io::Write;
        into.clear();
        // Writing into memory does not fail.
        let _ = write!(into, r#"{{"key":{},"amount":{},"note":""#, self.key, self.amount);
        into.resize(VALUE_BYTES - 2, b'.');
        into.extend_from_slice(br#""}"#);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_value_is_json_of_200_bytes() {
        for payment in [Payment { key: 0, amount: 1 }, Payment { key: 999_999, amount: i64::MIN }] {
            let mut value = Vec::new();
            payment.value(&mut value);
            assert_eq!(value.len(), VALUE_BYTES);
            assert_eq!(serde_json::from_slice::<Payment>(&value).unwrap(), payment);
        }
    }
}
