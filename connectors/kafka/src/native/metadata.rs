//! What the cluster's metadata says: which topics there are, and what some of them are, asked once.

#![allow(unsafe_code)]

use std::ffi::c_char;
use std::ptr;
use std::time::Instant;

use fluvial_connector::Error;
use rdkafka::bindings as rd;

use super::admin::{Answers, Options};
use super::client::Topic;
use super::waiting::Failed;
use super::{Client, Code, c_string, text};

/// A topic that exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicMetadata {
    /// Its id, which is another one after it was deleted and recreated; empty where it was not asked for, or where the
    /// brokers know none.
    pub(crate) id: String,
    /// By partition: whether a broker leads it, or why none does.
    pub(crate) leaders: Vec<Result<(), Code>>,
}

impl TopicMetadata {
    /// How many partitions it has.
    pub(crate) fn partitions(&self) -> u32 {
        u32::try_from(self.leaders.len()).unwrap_or(u32::MAX)
    }

    fn set_leader(&mut self, partition: i32, leader: Result<(), Code>) {
        let Ok(partition) = usize::try_from(partition) else { return };
        if self.leaders.len() <= partition {
            self.leaders.resize(partition + 1, Err(Code::LeaderNotAvailable));
        }
        self.leaders[partition] = leader;
    }
}

/// What the cluster says of one topic: a topic that exists, or the error that stands in its place.
pub(crate) type Described = Result<TopicMetadata, Code>;

impl Client {
    /// The names of all topics that this client may see.
    pub(crate) fn topics(&self, deadline: Instant) -> Result<Vec<String>, Error> {
        self.until(deadline, "ask kafka for its topics", &[], |wait_ms| {
            let mut metadata: *const rd::rd_kafka_metadata = ptr::null();
            // SAFETY: the client is valid; on success the metadata is ours to free, and its array has the length that
            // it says.
            unsafe {
                let code: Code =
                    rd::rd_kafka_metadata(self.rk(), 1, ptr::null_mut(), &raw mut metadata, wait_ms).into();
                if code != Code::NoError {
                    return Err(Failed::Code(code));
                }
                let count = usize::try_from((*metadata).topic_cnt).unwrap_or(0);
                let topic = |index| text((*(*metadata).topics.add(index)).topic);
                let names = (0..count).map(topic).collect();
                rd::rd_kafka_metadata_destroy(metadata);
                Ok(names)
            }
        })
    }

    /// What the cluster says now of these topics, in their order, with their ids if `ids` says so.
    ///
    /// The first topic is asked for at any broker that answers; that one is then asked for all of them at once.
    pub(super) fn describe_once(&self, topics: &[&str], ids: bool, wait_ms: i32) -> Result<Vec<Described>, Code> {
        let Some(first) = topics.first() else { return Ok(Vec::new()) };
        let (broker, described) = self.metadata_once(first, wait_ms)?;
        match topics.len() {
            1 if !ids => Ok(vec![described]),
            _ => self.describe_at(broker, topics, wait_ms),
        }
    }

    /// What any broker says of a topic, and which broker that is.
    pub(super) fn metadata_once(&self, topic: &str, wait_ms: i32) -> Result<(i32, Described), Code> {
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
            // A broker that is known by its address alone has no number yet: any other will do.
            let broker = match of.orig_broker_id {
                -1 if of.broker_cnt > 0 => (*of.brokers).id,
                broker => broker,
            };
            let described = if of.topic_cnt == 1 { described(&*of.topics) } else { Err(Code::UnknownTopicOrPartition) };
            rd::rd_kafka_metadata_destroy(metadata);
            Ok((broker, described))
        }
    }

    /// What the broker says of these topics.
    fn describe_at(&self, broker: i32, topics: &[&str], wait_ms: i32) -> Result<Vec<Described>, Code> {
        let names: Vec<_> = topics.iter().map(|topic| c_string(topic)).collect();
        let mut names: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the names end with a zero byte and live through the call, each handle is freed once after its last use,
        // and what an event holds lives as long as the event.
        unsafe {
            let collection = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            let answers = Answers::new(self);
            let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
            let options = Options::new(self, operation, wait_ms).at(broker);
            rd::rd_kafka_DescribeTopics(self.rk(), collection, options.0, answers.0);
            rd::rd_kafka_TopicCollection_destroy(collection);
            let event = answers.event();
            event.error()?;
            let mut count = 0;
            let found = rd::rd_kafka_DescribeTopics_result_topics(
                rd::rd_kafka_event_DescribeTopics_result(event.0),
                &raw mut count,
            );
            if found.is_null() || count != topics.len() {
                return Err(Code::Fail);
            }
            Ok((0..count).map(|index| description(*found.add(index))).collect())
        }
    }
}

/// # Safety
/// The arrays have the lengths that the topic says.
unsafe fn described(topic: &rd::rd_kafka_metadata_topic) -> Described {
    match topic.err.into() {
        Code::NoError => {}
        code => return Err(code),
    }
    let mut found = TopicMetadata::default();
    for index in 0..usize::try_from(topic.partition_cnt).unwrap_or(0) {
        // SAFETY: the caller's promise.
        let partition = unsafe { &*topic.partitions.add(index) };
        let leader = match partition.err.into() {
            _ if partition.leader >= 0 => Ok(()),
            Code::NoError => Err(Code::LeaderNotAvailable),
            code => Err(code),
        };
        found.set_leader(partition.id, leader);
    }
    // A topic that is being created may be known before its partitions are.
    if found.leaders.is_empty() { Err(Code::LeaderNotAvailable) } else { Ok(found) }
}

/// # Safety
/// The description is null, or valid.
unsafe fn description(topic: *const rd::rd_kafka_TopicDescription_t) -> Described {
    if topic.is_null() {
        return Err(Code::UnknownTopicOrPartition);
    }
    // SAFETY: the caller's promise; what a description holds lives as long as it, and its arrays have the lengths that
    // it says.
    unsafe {
        let error = rd::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            match rd::rd_kafka_error_code(error).into() {
                Code::NoError => {}
                code => return Err(code),
            }
        }
        let mut found = TopicMetadata::default();
        let mut count = 0;
        let partitions = rd::rd_kafka_TopicDescription_partitions(topic, &raw mut count);
        for index in 0..count {
            let partition = *partitions.add(index);
            let leader = rd::rd_kafka_TopicPartitionInfo_leader(partition);
            let is_led = !leader.is_null() && rd::rd_kafka_Node_id(leader) >= 0;
            let leader = if is_led { Ok(()) } else { Err(Code::LeaderNotAvailable) };
            found.set_leader(rd::rd_kafka_TopicPartitionInfo_partition(partition), leader);
        }
        let id = rd::rd_kafka_TopicDescription_topic_id(topic);
        if !id.is_null() {
            let bits = (rd::rd_kafka_Uuid_most_significant_bits(id), rd::rd_kafka_Uuid_least_significant_bits(id));
            if bits != (0, 0) {
                found.id = format!("{:016x}{:016x}", bits.0, bits.1);
            }
        }
        if found.leaders.is_empty() { Err(Code::LeaderNotAvailable) } else { Ok(found) }
    }
}
