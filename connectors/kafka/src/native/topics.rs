//! Making topics, and asking for their ids and settings.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::c_char;
use std::time::Instant;

use fluvial_connector::{Error, ErrorKind};
use rdkafka::bindings as rd;

use super::{Client, Code, c_string, text};
use crate::failure;

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

/// A queue for the answer to one request.
struct Answers(*mut rd::rd_kafka_queue_t);

impl Answers {
    fn new(client: &Client) -> Self {
        // SAFETY: the client is valid.
        Self(unsafe { rd::rd_kafka_queue_new(client.rk()) })
    }

    /// Waits for the event; its time-out is that of the request.
    fn event(&self) -> Event {
        // SAFETY: the queue is valid; the event is ours.
        Event(unsafe { rd::rd_kafka_queue_poll(self.0, -1) })
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        // SAFETY: the queue is ours.
        unsafe { rd::rd_kafka_queue_destroy(self.0) };
    }
}

struct Event(*mut rd::rd_kafka_event_t);

impl Event {
    fn error(&self) -> Result<(), Code> {
        // SAFETY: the event is valid.
        match unsafe { rd::rd_kafka_event_error(self.0) }.into() {
            Code::NoError => Ok(()),
            code => Err(code),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: the event is ours, or null, which is allowed.
        unsafe { rd::rd_kafka_event_destroy(self.0) };
    }
}

struct Options(*mut rd::rd_kafka_AdminOptions_t);

impl Options {
    fn new(client: &Client, operation: rd::rd_kafka_admin_op_t, wait_ms: i32) -> Self {
        let mut reason = [0 as c_char; 256];
        // SAFETY: the client is valid and the buffer has the size that is said. A refused time-out leaves the default.
        unsafe {
            let options = rd::rd_kafka_AdminOptions_new(client.rk(), operation);
            rd::rd_kafka_AdminOptions_set_request_timeout(options, wait_ms, reason.as_mut_ptr(), reason.len());
            Self(options)
        }
    }
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: the options are ours.
        unsafe { rd::rd_kafka_AdminOptions_destroy(self.0) };
    }
}

impl Client {
    /// Makes a topic. One that exists is taken as it is.
    pub(crate) fn create_topic(&self, topic: &NewTopic, deadline: Instant) -> Result<(), Error> {
        let what = format!("make topic '{}' with {} partitions", topic.name, topic.partitions);
        let mut said = String::new();
        let result = self.until(deadline, &what, |wait_ms| match self.create_once(topic, wait_ms) {
            Ok(()) => Ok(()),
            Err((Code::TopicAlreadyExists, _)) => Ok(()),
            Err((code, reason)) => {
                said = reason;
                Err(code)
            }
        });
        result.map_err(|error| match error.kind {
            ErrorKind::Retry => error,
            kind if said.is_empty() => Error::caused(kind, what, error),
            kind => Error::new(kind, format!("{what}: {said}")),
        })
    }

    fn create_once(&self, topic: &NewTopic, wait_ms: i32) -> Result<(), (Code, String)> {
        let name = c_string(&topic.name);
        let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
        let replicas = topic.replication_factor.map_or(-1, i32::from);
        let mut reason = [0 as c_char; 512];
        // SAFETY: strings end with a zero byte, the buffer has the size that is said, and each handle is freed once
        // after its last use.
        unsafe {
            let mut new =
                rd::rd_kafka_NewTopic_new(name.as_ptr(), partitions, replicas, reason.as_mut_ptr(), reason.len());
            if new.is_null() {
                return Err((Code::InvalidTopic, text(reason.as_ptr())));
            }
            for (name, value) in &topic.settings {
                let (name, value) = (c_string(name), c_string(value));
                rd::rd_kafka_NewTopic_set_config(new, name.as_ptr(), value.as_ptr());
            }
            let answers = Answers::new(self);
            let options = Options::new(self, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS, wait_ms);
            rd::rd_kafka_CreateTopics(self.rk(), &raw mut new, 1, options.0, answers.0);
            rd::rd_kafka_NewTopic_destroy(new);
            let event = answers.event();
            event.error().map_err(|code| (code, String::new()))?;
            let mut count = 0;
            let results = rd::rd_kafka_CreateTopics_result_topics(
                rd::rd_kafka_event_CreateTopics_result(event.0),
                &raw mut count,
            );
            if results.is_null() || count == 0 {
                return Err((Code::Fail, "the cluster did not answer for the topic".to_owned()));
            }
            let result = *results;
            match rd::rd_kafka_topic_result_error(result).into() {
                Code::NoError => Ok(()),
                code => Err((code, text(rd::rd_kafka_topic_result_error_string(result)))),
            }
        }
    }

    /// The topic's id, which changes when it is made anew; empty where the broker knows none.
    pub(crate) fn topic_id(&self, topic: &str, deadline: Instant) -> Result<String, Error> {
        let what = format!("ask kafka for the id of topic '{topic}'");
        let result = self.until(deadline, &what, |wait_ms| {
            // The question goes to the controller as the client knows it, which may be gone: what any broker says of the
            // topic names the one that there is. Whether it says so is seen by the question.
            let _ = self.partitions_once(topic, wait_ms);
            match self.topic_id_once(topic, wait_ms) {
                Err(Code::UnsupportedFeature | Code::UnsupportedVersion | Code::InvalidRequest) => Ok(String::new()),
                // An old broker may let the describing of topics be forbidden where their metadata is not.
                Err(Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed) => Ok(String::new()),
                other => other,
            }
        });
        result.map_err(|error| if failure::is_retry(&error) { error } else { Error::caused(error.kind, what, error) })
    }

    fn topic_id_once(&self, topic: &str, wait_ms: i32) -> Result<String, Code> {
        let name = c_string(topic);
        let mut names = [name.as_ptr()];
        // SAFETY: as in `create_once`.
        unsafe {
            let topics = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            let answers = Answers::new(self);
            let options = Options::new(self, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, wait_ms);
            rd::rd_kafka_DescribeTopics(self.rk(), topics, options.0, answers.0);
            rd::rd_kafka_TopicCollection_destroy(topics);
            let event = answers.event();
            event.error()?;
            let mut count = 0;
            let found = rd::rd_kafka_DescribeTopics_result_topics(
                rd::rd_kafka_event_DescribeTopics_result(event.0),
                &raw mut count,
            );
            if found.is_null() || count == 0 {
                return Ok(String::new());
            }
            let error = rd::rd_kafka_TopicDescription_error(*found);
            if !error.is_null() {
                match rd::rd_kafka_error_code(error).into() {
                    Code::NoError => {}
                    code => return Err(code),
                }
            }
            let id = rd::rd_kafka_TopicDescription_topic_id(*found);
            if id.is_null() {
                return Ok(String::new());
            }
            let bits = (rd::rd_kafka_Uuid_most_significant_bits(id), rd::rd_kafka_Uuid_least_significant_bits(id));
            Ok(if bits == (0, 0) { String::new() } else { format!("{:016x}{:016x}", bits.0, bits.1) })
        }
    }

    /// The topic's settings, those that are the cluster's defaults included.
    pub(crate) fn topic_settings(&self, topic: &str, deadline: Instant) -> Result<BTreeMap<String, String>, Error> {
        let what = format!("ask kafka for the settings of topic '{topic}'");
        self.until(deadline, &what, |wait_ms| self.topic_settings_once(topic, wait_ms))
    }

    fn topic_settings_once(&self, topic: &str, wait_ms: i32) -> Result<BTreeMap<String, String>, Code> {
        let name = c_string(topic);
        // SAFETY: as in `create_once`; what an event holds lives as long as the event.
        unsafe {
            let mut resource =
                rd::rd_kafka_ConfigResource_new(rd::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, name.as_ptr());
            let answers = Answers::new(self);
            let options = Options::new(self, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, wait_ms);
            rd::rd_kafka_DescribeConfigs(self.rk(), &raw mut resource, 1, options.0, answers.0);
            rd::rd_kafka_ConfigResource_destroy(resource);
            let event = answers.event();
            event.error()?;
            let mut count = 0;
            let found = rd::rd_kafka_DescribeConfigs_result_resources(
                rd::rd_kafka_event_DescribeConfigs_result(event.0),
                &raw mut count,
            );
            if found.is_null() || count == 0 {
                return Err(Code::Fail);
            }
            match rd::rd_kafka_ConfigResource_error(*found).into() {
                Code::NoError => {}
                code => return Err(code),
            }
            let entries = rd::rd_kafka_ConfigResource_configs(*found, &raw mut count);
            let entry = |index| {
                let entry = *entries.add(index);
                (text(rd::rd_kafka_ConfigEntry_name(entry)), text(rd::rd_kafka_ConfigEntry_value(entry)))
            };
            Ok((0..count).map(entry).collect())
        }
    }

    /// Commits offsets under the client's group, without waiting. Only for monitoring.
    pub(crate) fn commit_offsets(&self, topic: &str, offsets: &[(u32, u64)]) -> Result<(), Code> {
        let list = super::consumer::Partitions::new(offsets.iter().map(|(p, o)| (topic, *p, *o)));
        // SAFETY: client and list are valid; librdkafka copies the list.
        match unsafe { rd::rd_kafka_commit(self.rk(), list.0, 1) }.into() {
            Code::NoError => Ok(()),
            code => Err(code),
        }
    }
}
