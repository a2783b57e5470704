//! Producing.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};

use super::{Call, text};
use crate::state::batch;
use crate::state::topics::Named;

/// Appends a batch to each partition; each succeeds or fails by itself.
pub(super) fn produce(call: &Call<'_>, request: ProduceRequest) -> ProduceResponse {
    let acks = if matches!(request.acks, -1..=1) { Ok(()) } else { Err(ResponseError::InvalidRequiredAcks) };
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let records = data.records.unwrap_or_default();
            // The checksum is taken outside the lock.
            let checked = call.permit().and(acks).and_then(|()| batch::check(&records));
            let appended = checked.and_then(|header| {
                let mut state = call.shared.state();
                let offset = state.produce(Named::Name(&topic.name), data.index, &header, &records)?;
                let start = state.topics.partition(Named::Name(&topic.name), data.index)?.log.start();
                Ok((offset, start))
            });
            let response = PartitionProduceResponse::default().with_index(data.index).with_log_append_time_ms(-1);
            partitions.push(match appended {
                Ok((offset, start)) => response.with_base_offset(offset).with_log_start_offset(start),
                Err(error) => {
                    let full = error == ResponseError::PolicyViolation && call.forced.is_none();
                    let why = if full { call.shared.state().memory.advice() } else { error.to_string() };
                    response
                        .with_error_code(error.code())
                        .with_base_offset(-1)
                        .with_log_start_offset(-1)
                        .with_error_message(Some(text(why)))
                }
            });
        }
        responses.push(TopicProduceResponse::default().with_name(topic.name).with_partition_responses(partitions));
    }
    ProduceResponse::default().with_responses(responses)
}
