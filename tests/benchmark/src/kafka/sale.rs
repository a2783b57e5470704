//! The records that most topics have: JSON with a text as the key and fields that a job does not need.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::payment::VALUE_BYTES;

/// What a job needs of an input record: two of its six fields. The account has 7 or 36 bytes, as a short number and a UUID
/// have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sale {
    /// The account that buys.
    pub(crate) account: CompactString,
    /// How much.
    pub(crate) amount: i64,
}

/// Writes the value of a record: six fields in 200 bytes.
pub(crate) fn value(key: u64, key_bytes: usize, amount: i64, into: &mut Vec<u8>) {
    use std::io::Write;
    into.clear();
    let account = account(key, key_bytes);
    // Writing into memory does not fail.
    let _ = write!(
        into,
        r#"{{"account":"{account}","amount":{amount},"currency":"EUR","country":"DE","at":1790000000000,"note":""#
    );
    into.resize(VALUE_BYTES - 2, b'.');
    into.extend_from_slice(br#""}"#);
}

/// The account of a number: `k` and six digits, or a UUID in text.
pub(crate) fn account(key: u64, bytes: usize) -> String {
    if bytes == 7 {
        return format!("k{key:06}");
    }
    let bits = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{key:012x}",
        bits >> 32,
        bits >> 16 & 0xffff,
        bits & 0xfff,
        bits >> 4 & 0xfff
    )
}

/// The number of an account.
pub(crate) fn number(account: &str) -> Option<u64> {
    match account.strip_prefix('k') {
        Some(digits) => digits.parse().ok(),
        None => u64::from_str_radix(account.rsplit('-').next()?, 16).ok(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_value_is_json_of_200_bytes_whose_account_is_as_long_as_said() {
        for (key, bytes) in [(0, 7), (999_999, 7), (0, 36), (999_999, 36)] {
            let mut text = Vec::new();
            value(key, bytes, -5, &mut text);
            assert_eq!(text.len(), VALUE_BYTES);
            let sale: Sale = serde_json::from_slice(&text).unwrap();
            assert_eq!((sale.account.len(), sale.amount), (bytes, -5));
            assert_eq!(number(&sale.account), Some(key));
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&text).unwrap().as_object().unwrap().len(), 6);
        }
    }
}
