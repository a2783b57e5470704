//! Offsets: where logs begin and end, and what groups have committed.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    GroupId, ListOffsetsRequest, ListOffsetsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
    OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse, OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse, TopicName, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::fetch::check_epoch;
use super::{Call, code, text, topic_name};
use crate::state::group::{Committed, Group};
use crate::state::log::{Found, Isolation};
use crate::state::topics::Named;
use crate::state::transactions::Producer;
use crate::state::{LEADER_EPOCH, State};

/// The longest text that a client may store with an offset, as in Kafka.
const MOST_METADATA_BYTES: usize = 4096;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const GREATEST_TIMESTAMP: i64 = -3;

/// Finds the start, the end, or a record by its time.
pub(super) fn list_offsets(call: &Call<'_>, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let isolation = Isolation::from(request.isolation_level);
    let state = call.shared.state();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let found = call.permit().and(check_epoch(asked.current_leader_epoch)).and_then(|()| {
                let log = &state.topics.served(Named::Name(&topic.name), asked.partition_index)?.log;
                let at = |offset| Some(Found { offset, timestamp: -1 });
                Ok(match asked.timestamp {
                    LATEST => at(call.old_end.map_or(i64::MAX, |old| old.max(log.start())).min(log.limit(isolation))),
                    EARLIEST => at(log.start()),
                    GREATEST_TIMESTAMP => log.newest(),
                    timestamp => log.find(timestamp, isolation),
                })
            });
            let response = ListOffsetsPartitionResponse::default()
                .with_partition_index(asked.partition_index)
                .with_error_code(code(&found));
            match found.ok().flatten() {
                Some(Found { offset, timestamp }) => {
                    let response = response.with_offset(offset).with_timestamp(timestamp);
                    if call.version >= 4 { response.with_leader_epoch(LEADER_EPOCH) } else { response }
                }
                None => response.with_offset(-1).with_timestamp(-1),
            }
        });
        ListOffsetsTopicResponse::default().with_partitions(partitions.collect()).with_name(topic.name.clone())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

/// Where a leader's epoch ends: there has been one epoch only.
pub(super) fn offset_for_leader_epoch(
    call: &Call<'_>,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let state = call.shared.state();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let end = call
                .permit()
                .and(check_epoch(asked.current_leader_epoch))
                .and_then(|()| Ok(state.topics.served(Named::Name(&topic.topic), asked.partition)?.log.end()));
            let response = EpochEndOffset::default().with_partition(asked.partition).with_error_code(code(&end));
            match end {
                Ok(end) if asked.leader_epoch == LEADER_EPOCH => {
                    response.with_leader_epoch(LEADER_EPOCH).with_end_offset(end)
                }
                _ => response.with_leader_epoch(-1).with_end_offset(-1),
            }
        });
        OffsetForLeaderTopicResult::default().with_partitions(partitions.collect()).with_topic(topic.topic.clone())
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

/// Checks one offset that is to be committed.
fn offset(
    state: &State,
    topic: &str,
    partition: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: Option<&StrBytes>,
) -> Result<Committed, ResponseError> {
    state.topics.partition(Named::Name(topic), partition)?;
    if metadata.is_some_and(|m| m.len() > MOST_METADATA_BYTES) {
        return Err(ResponseError::OffsetMetadataTooLarge);
    }
    Ok(Committed { offset, leader_epoch, metadata: metadata.map(|m| m.to_string()) })
}

/// Commits offsets of a group.
pub(super) fn commit(call: &Call<'_>, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let mut state = call.shared.state();
    let (member, instance) = (&*request.member_id, request.group_instance_id.as_deref());
    let generation = request.generation_id_or_member_epoch;
    let allowed = call.permit().and_then(|()| {
        check_group(&mut state, &request.group_id, member, instance, generation, false)?;
        state.groups.or_new(&request.group_id).heard_from(member, call.now.instant);
        Ok(())
    });
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let (index, metadata) = (p.partition_index, p.committed_metadata.as_ref());
            let done = allowed
                .and_then(|()| {
                    offset(&state, &topic.name, index, p.committed_offset, p.committed_leader_epoch, metadata)
                })
                .map(|offset| state.groups.or_new(&request.group_id).offsets.commit(&topic.name, index, offset));
            OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code(&done))
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    let topics = topics.collect();
    OffsetCommitResponse::default().with_topics(topics)
}

/// Holds offsets of a group until the producer's transaction ends.
pub(super) fn commit_in_transaction(call: &Call<'_>, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let mut state = call.shared.state();
    let producer = Producer { id: *request.producer_id, epoch: request.producer_epoch };
    let (member, instance) = (&*request.member_id, request.group_instance_id.as_deref());
    let allowed = call.permit().and_then(|()| {
        state.transactions.check_offsets(producer, &request.group_id)?;
        check_group(&mut state, &request.group_id, member, instance, request.generation_id, true)
    });
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            let (index, metadata) = (p.partition_index, p.committed_metadata.as_ref());
            let done = allowed
                .and_then(|()| {
                    offset(&state, &topic.name, index, p.committed_offset, p.committed_leader_epoch, metadata)
                })
                .map(|offset| {
                    state.groups.or_new(&request.group_id).offsets.hold(producer.id, &topic.name, index, offset);
                });
            TxnOffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code(&done))
        });
        let partitions = partitions.collect();
        TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    let topics = topics.collect();
    TxnOffsetCommitResponse::default().with_topics(topics)
}

fn check_group(
    state: &mut State,
    group: &str,
    member: &str,
    instance: Option<&str>,
    generation: i32,
    transactional: bool,
) -> Result<(), ResponseError> {
    match state.groups.get(group) {
        Some(group) => group.check_commit(member, instance, generation, transactional),
        // Kafka knows neither the group nor, hence, its generation.
        None if generation >= 0 => Err(ResponseError::IllegalGeneration),
        None if group.is_empty() => Err(ResponseError::InvalidGroupId),
        None => Ok(()),
    }
}

/// A partition's committed offset, if it has one.
type Fetched = (i32, Result<Option<Committed>, ResponseError>);

/// The committed offsets of one group: of the topics asked for, or of all.
fn committed(
    group: Option<&Group>,
    asked: Option<Vec<(TopicName, Vec<i32>)>>,
    stable: bool,
) -> Vec<(TopicName, Vec<Fetched>)> {
    let asked = asked.unwrap_or_else(|| {
        let mut all: Vec<(TopicName, Vec<i32>)> = Vec::new();
        for (topic, partition) in group.into_iter().flat_map(|g| g.offsets.partitions()) {
            match all.last_mut() {
                Some((name, partitions)) if ***name == *topic => partitions.push(partition),
                _ => all.push((topic_name(topic), vec![partition])),
            }
        }
        all
    });
    let fetched = |topic: &TopicName, partition: i32| {
        let Some(group) = group else { return Ok(None) };
        if stable && group.offsets.is_pending(topic, partition) {
            return Err(ResponseError::UnstableOffsetCommit);
        }
        Ok(group.offsets.get(topic, partition).cloned())
    };
    let each = asked.into_iter().map(|(topic, partitions)| {
        let offsets = partitions.into_iter().map(|p| (p, fetched(&topic, p))).collect();
        (topic, offsets)
    });
    each.collect()
}

/// Gives the committed offsets of one group, or of several from version 8 on.
pub(super) fn fetch(call: &Call<'_>, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let state = call.shared.state();
    let stable = request.require_stable;
    let answer = |group: GroupId, topics: Option<Vec<(TopicName, Vec<i32>)>>| {
        let found = call.permit().map(|()| committed(state.groups.get(&group), topics, stable));
        let error = code(&found);
        let topics = found.unwrap_or_default().into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|(index, fetched)| {
                let (error, offset) = flat(fetched);
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(index)
                    .with_error_code(error)
                    .with_committed_offset(offset.offset)
                    .with_committed_leader_epoch(offset.leader_epoch)
                    .with_metadata(Some(text(offset.metadata.unwrap_or_default())))
            });
            OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.collect())
        });
        let topics = topics.collect();
        OffsetFetchResponseGroup::default().with_group_id(group).with_error_code(error).with_topics(topics)
    };
    if call.version >= 8 {
        let groups = request.groups.into_iter().map(|asked| {
            let topics = asked.topics.map(|t| t.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
            answer(asked.group_id, topics)
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let topics = request.topics.map(|t| t.into_iter().map(|t| (t.name, t.partition_indexes)).collect());
    let one = answer(request.group_id, topics);
    let topics = one.topics.into_iter().map(of_one_group).collect();
    OffsetFetchResponse::default().with_error_code(one.error_code).with_topics(topics)
}

/// A topic's offsets as versions before 8 have them, which answer for one group without naming it.
fn of_one_group(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|p| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(p.partition_index)
            .with_error_code(p.error_code)
            .with_committed_offset(p.committed_offset)
            .with_committed_leader_epoch(p.committed_leader_epoch)
            .with_metadata(p.metadata)
    });
    OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
}

fn flat(fetched: Result<Option<Committed>, ResponseError>) -> (i16, Committed) {
    let none = Committed { offset: -1, leader_epoch: -1, metadata: None };
    (code(&fetched), fetched.ok().flatten().unwrap_or(none))
}

/// Forgets offsets of a group.
pub(super) fn delete(call: &Call<'_>, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let mut state = call.shared.state();
    let allowed = call.permit().and_then(|()| match state.groups.get(&request.group_id) {
        None => Err(ResponseError::GroupIdNotFound),
        Some(group) if !group.is_empty() => Err(ResponseError::NonEmptyGroup),
        Some(_) => Ok(()),
    });
    if let Err(error) = allowed {
        return OffsetDeleteResponse::default().with_error_code(error.code());
    }
    let offsets = &mut state.groups.or_new(&request.group_id).offsets;
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|p| {
            offsets.forget(&topic.name, p.partition_index);
            OffsetDeleteResponsePartition::default().with_partition_index(p.partition_index)
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    let topics = topics.collect();
    OffsetDeleteResponse::default().with_topics(topics)
}
