//! Committed offsets of a consumer group, for tools that watch lag.

#![allow(unsafe_code)]

use std::sync::PoisonError;

use rdkafka::bindings as rd;

use super::admin::{Answers, Options};
use super::consumer::Partitions;
use super::{Client, Code, c_string};

/// How long librdkafka waits for the answer to a report: the longest that it allows. It aborts the process if the coordinator of a
/// group can be reached again after a request to that coordinator has timed out: the request is then failed a second time, in
/// `rd_kafka_coord_req_fsm` of version 2.12. So it is this client that stops waiting, and not librdkafka.
const ANSWERED_WITHIN_MS: i32 = 3_600_000;

impl Client {
    /// Commits offsets of a topic's partitions under a group that has no members, waiting no longer than so many
    /// milliseconds. There must be some. As long as there is no answer, which may come later, nothing else is committed.
    pub(crate) fn commit_offsets(
        &self,
        group: &str,
        topic: &str,
        offsets: &[(u32, u64)],
        wait_ms: i32,
    ) -> Result<(), Code> {
        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        if unanswered.as_ref().is_some_and(|earlier| earlier.event_within(0).is_none()) {
            return Err(Code::OperationTimedOut);
        }
        *unanswered = None;
        let list = Partitions::new(offsets.iter().map(|(partition, offset)| (topic, *partition, *offset)));
        let group = c_string(group);
        let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS;
        let options = Options::new(self, operation, ANSWERED_WITHIN_MS);
        let answers = Answers::new(self);
        // SAFETY: client, list, options and queue are valid, the name ends with a zero byte, the request is freed once after
        // its last use, and what an event holds lives as long as the event.
        unsafe {
            let mut request = rd::rd_kafka_AlterConsumerGroupOffsets_new(group.as_ptr(), list.0);
            rd::rd_kafka_AlterConsumerGroupOffsets(self.rk(), &raw mut request, 1, options.0, answers.0);
            rd::rd_kafka_AlterConsumerGroupOffsets_destroy(request);
            let Some(event) = answers.event_within(wait_ms) else {
                *unanswered = Some(answers);
                return Err(Code::OperationTimedOut);
            };
            event.error()?;
            let mut count = 0;
            let groups = rd::rd_kafka_AlterConsumerGroupOffsets_result_groups(
                rd::rd_kafka_event_AlterConsumerGroupOffsets_result(event.0),
                &raw mut count,
            );
            if groups.is_null() || count == 0 {
                return Err(Code::Fail);
            }
            let error = rd::rd_kafka_group_result_error(*groups);
            if !error.is_null() {
                return Err(rd::rd_kafka_error_code(error).into());
            }
            let partitions = rd::rd_kafka_group_result_partitions(*groups);
            if partitions.is_null() {
                return Ok(());
            }
            let length = usize::try_from((*partitions).cnt).unwrap_or(0);
            let failed = (0..length).map(|index| Code::from((*(*partitions).elems.add(index)).err));
            failed.into_iter().find(|code| *code != Code::NoError).map_or(Ok(()), Err)
        }
    }
}
