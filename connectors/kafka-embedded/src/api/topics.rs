//! Making, growing and deleting topics, and deleting records.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    BrokerId, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteRecordsRequest, DeleteRecordsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
};
use uuid::Uuid;

use super::{Call, NODE, code, text};
use crate::Refusal;
use crate::state::State;
use crate::state::settings::{Change, Settings};
use crate::state::topics::Named;

/// Makes topics; each succeeds or fails by itself.
pub(super) fn create(call: &Call<'_>, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut state = call.shared.state();
    let results = request.topics.into_iter().map(|topic| {
        let made = create_one(call, &mut state, &topic, request.validate_only);
        let result = CreatableTopicResult::default().with_name(topic.name);
        match made {
            Ok((id, partitions)) => result.with_topic_id(id).with_num_partitions(partitions).with_replication_factor(1),
            Err(refusal) => {
                result.with_error_code(refusal.error.code()).with_error_message(Some(text(refusal.message)))
            }
        }
    });
    let results = results.collect();
    CreateTopicsResponse::default().with_topics(results)
}

fn create_one(
    call: &Call<'_>,
    state: &mut State,
    topic: &CreatableTopic,
    only_check: bool,
) -> Result<(Uuid, i32), Refusal> {
    call.permit()?;
    if !topic.assignments.iter().all(|a| only_here(&a.broker_ids)) {
        return Err(one_broker(ResponseError::InvalidReplicaAssignment));
    }
    if !matches!(topic.replication_factor, -1 | 1) {
        return Err(one_broker(ResponseError::InvalidReplicationFactor));
    }
    let partitions = match (topic.assignments.len(), topic.num_partitions) {
        (0, -1) => call.shared.config.default_partitions,
        (0, count) => count,
        (assigned, _) => i32::try_from(assigned).unwrap_or(i32::MAX),
    };
    let mut settings = Settings::default();
    for config in &topic.configs {
        settings.change(&config.name, Change::Set, config.value.as_deref())?;
    }
    if only_check {
        state.topics.check_new(&topic.name, partitions)?;
        return Ok((Uuid::nil(), partitions));
    }
    Ok((state.topics.create(&topic.name, partitions, settings)?, partitions))
}

fn only_here(replicas: &[BrokerId]) -> bool {
    replicas == [NODE]
}

fn one_broker(error: ResponseError) -> Refusal {
    Refusal::new(error, "The embedded broker is alone: replication factor 1 on broker 1.")
}

/// Deletes topics, named by name or, from version 6 on, by id.
pub(super) fn delete(call: &Call<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let mut state = call.shared.state();
    let by_name = request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil()));
    let asked: Vec<_> = by_name.chain(request.topics.into_iter().map(|t| (t.name, t.topic_id))).collect();
    let results = asked.into_iter().map(|(name, id)| {
        let named = name.as_ref().map_or(Named::Id(id), |name| Named::Name(name));
        let deleted = call.permit().and_then(|()| state.delete_topic(named));
        let result = DeletableTopicResult::default().with_error_code(code(&deleted));
        match deleted {
            Ok((gone, id)) => result.with_name(Some(super::topic_name(gone))).with_topic_id(id),
            Err(_) => result.with_name(name.clone()).with_topic_id(id),
        }
    });
    let results = results.collect();
    DeleteTopicsResponse::default().with_responses(results)
}

/// Gives topics more partitions.
pub(super) fn create_partitions(call: &Call<'_>, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut state = call.shared.state();
    let results = request.topics.into_iter().map(|topic| {
        let grown = grow(call, &mut state, &topic, request.validate_only);
        let result = CreatePartitionsTopicResult::default().with_name(topic.name);
        match grown {
            Ok(()) => result,
            Err(refusal) => {
                result.with_error_code(refusal.error.code()).with_error_message(Some(text(refusal.message)))
            }
        }
    });
    let results = results.collect();
    CreatePartitionsResponse::default().with_results(results)
}

fn grow(call: &Call<'_>, state: &mut State, topic: &CreatePartitionsTopic, only_check: bool) -> Result<(), Refusal> {
    call.permit()?;
    if !topic.assignments.iter().flatten().all(|a| only_here(&a.broker_ids)) {
        return Err(one_broker(ResponseError::InvalidReplicaAssignment));
    }
    state.topics.grow(&topic.name, topic.count, only_check)
}

/// Deletes the records before given offsets.
pub(super) fn delete_records(call: &Call<'_>, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut state = call.shared.state();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let start = call.permit().and_then(|()| state.delete_records(&topic.name, p.partition_index, p.offset));
            DeleteRecordsPartitionResult::default()
                .with_partition_index(p.partition_index)
                .with_error_code(code(&start))
                .with_low_watermark(start.unwrap_or(-1))
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions)
    });
    let topics = topics.collect();
    DeleteRecordsResponse::default().with_topics(topics)
}
