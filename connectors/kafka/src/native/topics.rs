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
    /// Makes a topic. One that exists is taken as it is.
    pub(crate) fn create_topic(&self, topic: &NewTopic, deadline: Instant) -> Result<(), Error> {
        let what = format!("make topic '{}' with {} partitions", topic.name, topic.partitions);
        let mut said = String::new();
        let mut is_forbidden = false;
        let result = self.until(deadline, &what, &[], |wait_ms| match self.create_once(topic, wait_ms) {
            Ok(()) => Ok(()),
            Err((Code::TopicAlreadyExists, _)) => Ok(()),
            Err((code, reason)) => {
                (said, is_forbidden) = (reason, is_denied(code));
                Err(Failed::Code(code))
            }
        });
        result.map_err(|error| match error.kind {
            ErrorKind::Retry => error,
            // Who asked knows who was not authorized.
            _ if is_forbidden => error,
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
