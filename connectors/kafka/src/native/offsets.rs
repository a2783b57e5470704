//! Where partitions begin and end, asked once for many of them.
//!
//! librdkafka sends one request to each leader that it knows, and waits for all of them. What it does not say: a
//! partition whose leader has not answered comes back without an error and without an offset.

#![allow(unsafe_code)]

use rdkafka::bindings as rd;

use super::admin::{Answers, Options};
use super::consumer::Partitions;
use super::{Client, Code};

/// Kafka's name for the first offset of a partition in this request.
const EARLIEST: i64 = -2;
/// Kafka's name for its end.
const LATEST: i64 = -1;

/// How many partitions are in one request. Several are sent at once: librdkafka looks for each partition of a request by
/// comparing it with all others.
const AT_ONCE: usize = 128;

/// What a partition's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// The last stable offset: transactions that are open lie after it.
    Committed,
    /// The high watermark.
    Uncommitted,
}

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// The first offset that it holds.
    pub(crate) earliest: u64,
    /// The offset after the last.
    pub(crate) end: u64,
}

impl Client {
    /// Asks the leaders of these partitions, all different, for their bounds. Each has a leader by what the cluster has
    /// just said.
    pub(super) fn bounds_once(
        &self,
        asked: &[(&str, u32)],
        isolation: Isolation,
        wait_ms: i32,
    ) -> Result<Vec<Result<Bounds, Code>>, Code> {
        let mut under_way = Vec::new();
        for some in asked.chunks(AT_ONCE) {
            let earliest = self.ask_offsets(some, EARLIEST, isolation, wait_ms);
            under_way.push((some.len(), earliest, self.ask_offsets(some, LATEST, isolation, wait_ms)));
        }
        let mut bounds = Vec::with_capacity(asked.len());
        for (count, earliest, latest) in under_way {
            let both = offsets(&earliest, count)?.into_iter().zip(offsets(&latest, count)?);
            bounds.extend(both.map(|(earliest, end)| Ok(Bounds { earliest: earliest?, end: end? })));
        }
        Ok(bounds)
    }

    fn ask_offsets(&self, asked: &[(&str, u32)], which: i64, isolation: Isolation, wait_ms: i32) -> Answers {
        let answers = Answers::new(self);
        let level = match isolation {
            Isolation::Committed => rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
            Isolation::Uncommitted => rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
        };
        let list = Partitions::with_offsets(asked.iter().map(|(topic, partition)| (*topic, *partition, which)));
        let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
        let options = Options::new(self, operation, wait_ms).isolation(level);
        // SAFETY: all handles are valid; librdkafka copies list and options.
        unsafe { rd::rd_kafka_ListOffsets(self.rk(), list.0, options.0, answers.0) };
        answers
    }
}

/// The answers for `count` partitions, in the order in which they were asked for.
fn offsets(answers: &Answers, count: usize) -> Result<Vec<Result<u64, Code>>, Code> {
    let event = answers.event();
    match event.error() {
        // None of them has a leader any more.
        Err(Code::NoEnt) => return Ok(vec![Err(Code::LeaderNotAvailable); count]),
        other => other?,
    }
    // SAFETY: the event is of this kind and has no error; what it holds lives as long as it.
    unsafe {
        let mut found = 0;
        let result = rd::rd_kafka_event_ListOffsets_result(event.0);
        let infos = rd::rd_kafka_ListOffsets_result_infos(result, &raw mut found);
        if found != count {
            return Err(Code::Fail);
        }
        let offset = |index| {
            let partition = &*rd::rd_kafka_ListOffsetsResultInfo_topic_partition(*infos.add(index));
            match partition.err.into() {
                Code::NoError => u64::try_from(partition.offset).map_err(|_| Code::LeaderNotAvailable),
                code => Err(code),
            }
        };
        Ok((0..count).map(offset).collect())
    }
}
