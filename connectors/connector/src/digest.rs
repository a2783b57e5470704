//! Digests of records: wrapping 128-bit sums of a fixed hash, so that order within a sum does not matter and pairs do
//! not cancel, as they would under xor.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128, xxh3_128_with_seed};

use crate::{Offset, Tick};

/// A 128-bit digest. Stored as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub u128);

impl Digest {
    /// Adds another digest; the order of additions does not matter.
    pub fn add(&mut self, other: Digest) {
        self.0 = self.0.wrapping_add(other.0);
    }

    /// The running digest after `tick`, whose records sum to `records`, follows `self`.
    ///
    /// Ticks without records are not chained: how many empty ticks lie between two others must not matter.
    #[must_use]
    pub fn chain(self, tick: Tick, records: Digest) -> Self {
        let mut bytes = [0u8; 40];
        bytes[..16].copy_from_slice(&self.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&tick.0.to_le_bytes());
        bytes[24..].copy_from_slice(&records.0.to_le_bytes());
        Self(xxh3_128(&bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        u128::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// The digest of one record as it was read at `offset` of its split.
#[must_use]
pub fn source_digest(offset: Offset, key: Option<&[u8]>, value: Option<&[u8]>) -> Digest {
    keyed(offset.0.wrapping_mul(0x9e37_79b9_7f4a_7c15), key, value)
}

/// The digest of one record of an output.
#[must_use]
pub fn output_digest(key: Option<&[u8]>, value: Option<&[u8]>) -> Digest {
    keyed(0x0066_6c75_7669_616c, key, value)
}

fn keyed(seed: u64, key: Option<&[u8]>, value: Option<&[u8]>) -> Digest {
    // An absent key or value must differ from an empty one.
    let seed = match key {
        Some(key) => xxh3_64_with_seed(key, seed),
        None => seed ^ 0xa5a5_a5a5_5a5a_5a5a,
    };
    match value {
        Some(value) => Digest(xxh3_128_with_seed(value, seed)),
        None => Digest(xxh3_128(&(!seed).to_le_bytes()) ^ u128::from(seed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_empty_differ() {
        let digests = [
            source_digest(Offset(1), None, None),
            source_digest(Offset(1), Some(b""), None),
            source_digest(Offset(1), None, Some(b"")),
            source_digest(Offset(1), Some(b""), Some(b"")),
            source_digest(Offset(2), None, None),
        ];
        for (i, a) in digests.iter().enumerate() {
            for b in &digests[i + 1..] {
                assert_ne!(a, b);
            }
        }
    }

    #[test]
    fn a_digest_survives_json() {
        let digest = output_digest(Some(b"k"), Some(b"v"));
        let json = serde_json::to_string(&digest).expect("a digest is a string");
        assert_eq!(json.len(), 34);
        assert_eq!(serde_json::from_str::<Digest>(&json).expect("it was just written"), digest);
    }

    #[test]
    fn a_pair_of_equal_records_does_not_cancel() {
        let one = output_digest(Some(b"k"), Some(b"v"));
        let mut sum = Digest::default();
        sum.add(one);
        sum.add(one);
        assert_ne!(sum, Digest::default());
    }

    /// Digests are stored: a job that goes on with another binary must find the same ones.
    #[test]
    fn digests_stay_what_they_are() {
        let sum = output_digest(Some(b"k"), Some(b"v"));
        let chained = Digest::default().chain(Tick(5), sum);
        let digests =
            [source_digest(Offset(7), Some(b"k"), Some(b"v")), source_digest(Offset(7), None, None), sum, chained];
        let expected = [
            "cbf99dcb45f1b11eb4423678be688f22",
            "24ce94121d7dd493fdc6c7667200efca",
            "15c7bfae19fb72ccc7c80552278207a5",
            "160783e0a9f16916d0fd78bb880e179b",
        ];
        assert_eq!(digests.map(|digest| digest.to_string()), expected);
    }

    #[test]
    fn a_chain_tells_ticks_and_their_order_apart() {
        let (a, b) = (output_digest(Some(b"a"), None), output_digest(Some(b"b"), None));
        let none = Digest::default();
        let one = none.chain(Tick(1), a).chain(Tick(2), b);
        assert_ne!(one, none.chain(Tick(1), b).chain(Tick(2), a));
        assert_ne!(one, none.chain(Tick(1), a).chain(Tick(3), b));
        let mut both = a;
        both.add(b);
        assert_ne!(one, none.chain(Tick(2), both));
    }
}
