//! How large a batch each topic takes, so that none is made that is larger.
//!
//! A broker refuses a batch of records that is larger than the topic's `max.message.bytes` (or than a segment of its log),
//! however small the records are. librdkafka has one bound for all topics of a client, so a producer's batches are kept
//! below the smallest limit of the topics that it writes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fluvial_connector::OutputRecordRef;

use crate::kafka::Kafka;

/// How long one topic's settings are asked for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The settings of a topic that bound a batch.
const SETTINGS: [&str; 2] = ["max.message.bytes", "segment.bytes"];

/// The most bytes of one batch of a topic, and the setting that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) bytes: usize,
    pub(crate) setting: &'static str,
}

/// The limits of the topics that a session writes, as far as they are known.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    /// As the topics' settings say.
    said: Mutex<BTreeMap<String, Limit>>,
    /// A bound that was found by trying, where the settings may not be read.
    found: Mutex<Option<usize>>,
}

impl Limits {
    /// Asks for the limits of these topics. What cannot be read is not known.
    pub(crate) fn read(&self, kafka: &Kafka, topics: &[&str]) {
        let asked = kafka.questions().and_then(|client| client.settings(topics, Instant::now() + PATIENCE));
        let settings = match asked {
            Ok(settings) => settings,
            Err(error) => return tracing::debug!(%error, "the settings of the outputs cannot be read"),
        };
        for (topic, settings) in topics.iter().zip(settings) {
            match settings {
                Ok(settings) => {
                    let limit = |setting| Some(Limit { bytes: settings.get(setting)?.parse().ok()?, setting });
                    if let Some(limit) = SETTINGS.into_iter().filter_map(limit).min_by_key(|limit| limit.bytes) {
                        lock(&self.said).insert((*topic).to_owned(), limit);
                    }
                }
                Err(code) => tracing::debug!(?code, "the settings of topic '{topic}' cannot be read"),
            }
        }
    }

    /// The limit of a topic, if it is known.
    pub(crate) fn of(&self, topic: &str) -> Option<Limit> {
        lock(&self.said).get(topic).copied()
    }

    /// A batch of up to `bytes` was refused for its size by a topic whose limit is not known: the next ones are half as
    /// large.
    pub(crate) fn halve(&self, bytes: usize) {
        let mut found = lock(&self.found);
        let half = (bytes / 2).max(1);
        *found = Some(found.map_or(half, |known| known.min(half)));
    }

    /// The most bytes of a batch that every topic takes, where that is less than `bytes`.
    pub(crate) fn smallest(&self, bytes: usize) -> usize {
        let said = lock(&self.said).values().map(|limit| limit.bytes).min().unwrap_or(bytes);
        let found = lock(&self.found).unwrap_or(bytes);
        bytes.min(said).min(found).max(1)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bytes of an uncompressed batch that holds this one record and these bytes of headers: Kafka's record format 2.
pub(crate) fn batch_of_one(record: OutputRecordRef<'_>, headers: usize) -> usize {
    const BATCH: usize = 61;
    let part = |bytes: Option<&[u8]>| match bytes {
        Some(bytes) => varint(bytes.len()) + bytes.len(),
        None => 1,
    };
    // Attributes, time and offset relative to the batch, and the number of headers, one byte each.
    let body = 4 + part(Some(record.key)) + part(record.value) + headers;
    BATCH + varint(body) + body
}

/// The bytes of a length as a zigzag varint.
fn varint(length: usize) -> usize {
    let bits = usize::BITS - (length << 1).leading_zeros();
    (bits.max(1) as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_one_record_has_the_bytes_of_the_format() {
        let bytes = vec![b'x'; 8192];
        let size = |key: usize, value: Option<usize>| {
            batch_of_one(OutputRecordRef { key: &bytes[..key], value: value.map(|value| &bytes[..value]) }, 0)
        };
        // 61 bytes of batch; length, attributes, time, offset, key length, value length, headers: one byte each.
        assert_eq!(size(0, Some(0)), 61 + 7);
        assert_eq!(size(1, None), 61 + 8);
        // Lengths from 64 on take two bytes, from 8192 on three.
        assert_eq!(size(1, Some(64)), 61 + 2 + 4 + 2 + 2 + 64);
        assert_eq!(size(1, Some(8192)), 61 + 3 + 4 + 2 + 3 + 8192);
    }

    #[test]
    fn batches_stay_below_the_smallest_limit_that_is_known() {
        let limits = Limits::default();
        assert_eq!(limits.smallest(1_000_000), 1_000_000);
        let limit = |bytes| Limit { bytes, setting: SETTINGS[0] };
        lock(&limits.said).extend([("a".to_owned(), limit(2_000_000)), ("b".to_owned(), limit(20_000))]);
        assert_eq!(limits.smallest(1_000_000), 20_000);
        limits.halve(20_000);
        assert_eq!(limits.smallest(1_000_000), 10_000);
        limits.halve(1);
        assert_eq!(limits.smallest(1_000_000), 1);
    }
}
