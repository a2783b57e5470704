//! Creating topics, and asking for their settings.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::c_char;
use std::time::Instant;

use fluvial_connector::{Error, ErrorKind};
use rdkafka::bindings as rd;

use super::admin::{Answers, Options};
use super::waiting::Failed;
use super::{Client, Code, c_string, text};
use crate::permission::is_denied;

/// A topic's settings by their names, those that are the cluster's defaults included; or why they cannot be seen.
pub(crate) type TopicSettings = Result<BTreeMap<String, String>, Code>;

/// What became of one topic that was to be made: an error comes with the cluster's words, if it said any.
type Creation = Result<(), (Code, String)>;

/// A topic to be made.
#[derive(Clone, Debug)]
pub(crate) struct NewTopic {
    /// Its name.
    pub(crate) name: String,
    /// How many partitions it gets.
    pub(crate) partitions: u32,
    /// How many replicas; the cluster's default where nothing is said.
    pub(crate) replication_factor: Option<u16>,
    /// Settings of the topic.
    pub(crate) settings: Vec<(String, String)>,
}

impl Client {
    /// Makes topics, in one request: a broker that has heard of a topic makes all of its partitions before it learns of
    /// the next request's. One that exists is taken as it is. An error comes with the topic that it is about.
    pub(crate) fn create_topics(&self, topics: &[&NewTopic], deadline: Instant) -> Result<(), (String, Error)> {
        self.create_or_check(topics, false, deadline)
    }

    /// Has the cluster say whether it would make these topics, and makes none. An error comes with the topic that it is
    /// about.
    pub(crate) fn check_new_topics(&self, topics: &[&NewTopic], deadline: Instant) -> Result<(), (String, Error)> {
        self.create_or_check(topics, true, deadline)
    }

    fn create_or_check(
        &self,
        topics: &[&NewTopic],
        only_check: bool,
        deadline: Instant,
    ) -> Result<(), (String, Error)> {
        let of = |topic: &NewTopic| format!("create topic '{}' with {} partitions", topic.name, topic.partitions);
        let what = topics.iter().map(|topic| of(topic)).collect::<Vec<_>>().join(", ");
        let mut left = topics.to_vec();
        let mut last: Option<(&NewTopic, Code, String)> = None;
        let result = self.until(deadline, &what, &[], |wait_ms| {
            let mut failed = Vec::new();
            for (topic, result) in left.iter().zip(self.create_once(&left, only_check, wait_ms)?) {
                match result {
                    Ok(()) | Err((Code::TopicAlreadyExists, _)) => {}
                    Err((code, reason)) => failed.push((*topic, code, reason)),
                }
            }
            left = failed.iter().map(|(topic, ..)| *topic).collect();
            last = failed.into_iter().next();
            last.as_ref().map_or(Ok(()), |(_, code, _)| Err(Failed::Code(*code)))
        });
        result.map_err(|error| {
            let about = last.as_ref().map(|(topic, ..)| *topic).or(topics.first().copied());
            let (name, what) = about.map(|topic| (topic.name.clone(), of(topic))).unwrap_or_default();
            let error = match (error.kind, last) {
                (ErrorKind::Retry, _) => error,
                // Who asked knows who was not authorized.
                (_, Some((_, code, _))) if is_denied(code) => error,
                (kind, Some((_, _, reason))) if !reason.is_empty() => Error::new(kind, format!("{what}: {reason}")),
                (kind, _) => Error::caused(kind, what, error),
            };
            (name, error)
        })
    }

    /// Asks once for topics to be made, or only whether they would be. Returns what became of each, in their order.
    fn create_once(&self, topics: &[&NewTopic], only_check: bool, wait_ms: i32) -> Result<Vec<Creation>, Code> {
        let mut reason = [0 as c_char; 512];
        // SAFETY: strings end with a zero byte, the buffer has the size that is said, each handle is freed once after its
        // last use, and what an event holds lives as long as the event.
        unsafe {
            let make = |topic: &&NewTopic| {
                let name = c_string(&topic.name);
                let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
                let replicas = topic.replication_factor.map_or(-1, i32::from);
                let new =
                    rd::rd_kafka_NewTopic_new(name.as_ptr(), partitions, replicas, reason.as_mut_ptr(), reason.len());
                if !new.is_null() {
                    for (name, value) in &topic.settings {
                        let (name, value) = (c_string(name), c_string(value));
                        rd::rd_kafka_NewTopic_set_config(new, name.as_ptr(), value.as_ptr());
                    }
                }
                new
            };
            let made: Vec<_> = topics.iter().map(make).collect();
            let mut valid: Vec<_> = made.iter().copied().filter(|new| !new.is_null()).collect();
            if valid.len() < made.len() {
                rd::rd_kafka_NewTopic_destroy_array(valid.as_mut_ptr(), valid.len());
                let invalid = |new: &*mut rd::rd_kafka_NewTopic_t| {
                    if new.is_null() { Err((Code::InvalidTopic, text(reason.as_ptr()))) } else { Ok(()) }
                };
                return Ok(made.iter().map(invalid).collect());
            }
            let answers = Answers::new(self);
            let options = Options::new(self, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS, wait_ms);
            let options = if only_check { options.only_check() } else { options };
            rd::rd_kafka_CreateTopics(self.rk(), valid.as_mut_ptr(), valid.len(), options.0, answers.0);
            rd::rd_kafka_NewTopic_destroy_array(valid.as_mut_ptr(), valid.len());
            let event = answers.event();
            event.error()?;
            let mut count = 0;
            let results = rd::rd_kafka_CreateTopics_result_topics(
                rd::rd_kafka_event_CreateTopics_result(event.0),
                &raw mut count,
            );
            if results.is_null() || count != topics.len() {
                return Err(Code::Fail);
            }
            let result = |index| {
                let result = *results.add(index);
                match rd::rd_kafka_topic_result_error(result).into() {
                    Code::NoError => Ok(()),
                    code => Err((code, text(rd::rd_kafka_topic_result_error_string(result)))),
                }
            };
            Ok((0..count).map(result).collect())
        }
    }

    /// The settings of these topics, asked once of any broker.
    pub(super) fn settings_once(&self, topics: &[&str], wait_ms: i32) -> Result<Vec<TopicSettings>, Code> {
        let Some(first) = topics.first() else { return Ok(Vec::new()) };
        let (broker, _) = self.metadata_once(first, wait_ms)?;
        // SAFETY: as in `create_once`; what an event holds lives as long as the event.
        unsafe {
            let resource = |topic: &&str| {
                let name = c_string(topic);
                rd::rd_kafka_ConfigResource_new(rd::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, name.as_ptr())
            };
            let mut resources: Vec<_> = topics.iter().map(resource).collect();
            let answers = Answers::new(self);
            let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
            let options = Options::new(self, operation, wait_ms).at(broker);
            rd::rd_kafka_DescribeConfigs(self.rk(), resources.as_mut_ptr(), resources.len(), options.0, answers.0);
            rd::rd_kafka_ConfigResource_destroy_array(resources.as_mut_ptr(), resources.len());
            let event = answers.event();
            event.error()?;
            let mut count = 0;
            let found = rd::rd_kafka_DescribeConfigs_result_resources(
                rd::rd_kafka_event_DescribeConfigs_result(event.0),
                &raw mut count,
            );
            let mut settings = BTreeMap::new();
            for index in 0..if found.is_null() { 0 } else { count } {
                let resource = *found.add(index);
                let name = text(rd::rd_kafka_ConfigResource_name(resource));
                match rd::rd_kafka_ConfigResource_error(resource).into() {
                    Code::NoError => {}
                    code => {
                        settings.insert(name, Err(code));
                        continue;
                    }
                }
                let mut count = 0;
                let entries = rd::rd_kafka_ConfigResource_configs(resource, &raw mut count);
                let entry = |index| {
                    let entry = *entries.add(index);
                    (text(rd::rd_kafka_ConfigEntry_name(entry)), text(rd::rd_kafka_ConfigEntry_value(entry)))
                };
                settings.insert(name, Ok((0..count).map(entry).collect()));
            }
            Ok(topics.iter().map(|topic| settings.remove(*topic).unwrap_or(Err(Code::Fail))).collect())
        }
    }
}
