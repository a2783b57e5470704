//! Producing.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};

use super::{Call, text};
use crate::state::topics::Named;
use crate::state::{batch, timestamps};

/// What Kafka says of a batch with records whose timestamps it refuses.
const UNTIMELY: &str = "One or more records have been rejected due to invalid timestamp";

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
            let mut untimely = Vec::new();
            let appended = checked.and_then(|header| {
                let mut state = call.shared.state();
                let settings = &state.topics.get(Named::Name(&topic.name))?.settings;
                untimely = timestamps::refused(settings, &header, &records, call.now.wall_ms)?;
                if !untimely.is_empty() {
                    return Err(ResponseError::InvalidTimestamp);
                }
                let offset = state.produce(Named::Name(&topic.name), data.index, &header, &records)?;
                let start = state.topics.partition(Named::Name(&topic.name), data.index)?.log.start();
                Ok((offset, start))
            });
            let response = PartitionProduceResponse::default().with_index(data.index).with_log_append_time_ms(-1);
            partitions.push(match appended {
                Ok((offset, start)) => response.with_base_offset(offset).with_log_start_offset(start),
                Err(error) => {
                    let full = error == ResponseError::PolicyViolation && call.forced.is_none();
                    let why = match error {
                        _ if full => call.shared.state().memory.advice(),
                        _ if !untimely.is_empty() => UNTIMELY.to_owned(),
                        error => error.to_string(),
                    };
                    let untimely = untimely.into_iter().map(|(place, why)| {
                        let of = BatchIndexAndErrorMessage::default().with_batch_index(place);
                        of.with_batch_index_error_message(Some(text(why)))
                    });
                    response
                        .with_error_code(error.code())
                        .with_base_offset(-1)
                        .with_log_start_offset(-1)
                        .with_record_errors(untimely.collect())
                        .with_error_message(Some(text(why)))
                }
            });
        }
        responses.push(TopicProduceResponse::default().with_name(topic.name).with_partition_responses(partitions));
    }
    ProduceResponse::default().with_responses(responses)
}
