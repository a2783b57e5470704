//! What the cluster says of topics: their partitions, and where those begin and end.

#![allow(unsafe_code)]

use std::ptr;
use std::time::Instant;

use fluvial_connector::Error;
use rdkafka::bindings as rd;

use super::client::Topic;
use super::{Client, Code, c_string};

impl Client {
    /// The number of partitions of a topic, all of which have a leader, as the cluster says now.
    pub(crate) fn partitions(&self, topic: &str, deadline: Instant) -> Result<u32, Error> {
        let what = format!("ask kafka about topic '{topic}'");
        self.until(deadline, &what, |wait_ms| self.partitions_once(topic, wait_ms))
    }

    /// As [`Client::partitions`], asked once.
    pub(crate) fn partitions_once(&self, topic: &str, wait_ms: i32) -> Result<u32, Code> {
        let handle = Topic::new(self, topic)?;
        let mut metadata: *const rd::rd_kafka_metadata = ptr::null();
        // SAFETY: client and topic are valid; on success the metadata is ours to free, and its arrays have the lengths
        // that it says.
        unsafe {
            let code: Code = rd::rd_kafka_metadata(self.rk(), 0, handle.0, &raw mut metadata, wait_ms).into();
            if code != Code::NoError {
                return Err(code);
            }
            let of = &*metadata;
            let result = if of.topic_cnt == 1 {
                let topic = &*of.topics;
                let code: Code = topic.err.into();
                let count = usize::try_from(topic.partition_cnt).unwrap_or(0);
                if code != Code::NoError {
                    Err(code)
                } else if count == 0 {
                    Err(Code::UnknownTopicOrPartition)
                } else if std::slice::from_raw_parts(topic.partitions, count).iter().any(|p| p.leader < 0) {
                    Err(Code::LeaderNotAvailable)
                } else {
                    Ok(u32::try_from(count).unwrap_or(u32::MAX))
                }
            } else {
                Err(Code::UnknownTopicOrPartition)
            };
            rd::rd_kafka_metadata_destroy(metadata);
            result
        }
    }

    /// The first offset of a partition and its end: the last stable offset for a client that reads committed records,
    /// else the high watermark.
    pub(crate) fn watermarks(&self, topic: &str, partition: u32, deadline: Instant) -> Result<(u64, u64), Error> {
        let what = format!("ask kafka for the offsets of topic '{topic}' partition {partition}");
        let name = c_string(topic);
        self.until(deadline, &what, |wait_ms| {
            let (mut low, mut high) = (-1i64, -1i64);
            // SAFETY: the name ends with a zero byte, and the numbers outlive the call.
            let code: Code = unsafe {
                rd::rd_kafka_query_watermark_offsets(
                    self.rk(),
                    name.as_ptr(),
                    i32::try_from(partition).unwrap_or(i32::MAX),
                    &raw mut low,
                    &raw mut high,
                    wait_ms,
                )
            }
            .into();
            match (code, u64::try_from(low), u64::try_from(high)) {
                (Code::NoError, Ok(low), Ok(high)) => Ok((low, high)),
                (Code::NoError, _, _) => Err(Code::LeaderNotAvailable),
                (code, _, _) => Err(code),
            }
        })
    }
}
