//! Which topics a cluster has.

#![allow(unsafe_code)]

use std::ptr;
use std::time::Instant;

use fluvial_connector::Error;
use rdkafka::bindings as rd;

use super::waiting::Failed;
use super::{Client, Code, text};

impl Client {
    /// The names of all topics that this client may see.
    pub(crate) fn topics(&self, deadline: Instant) -> Result<Vec<String>, Error> {
        self.until(deadline, "ask kafka for its topics", &[], |wait_ms| {
            let mut metadata: *const rd::rd_kafka_metadata = ptr::null();
            // SAFETY: the client is valid; on success the metadata is ours to free, and its array has the length that it
            // says.
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
}
