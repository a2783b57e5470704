//! Producers' ids and transactions.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse,
};
use uuid::Uuid;

use super::{Call, code};
use crate::state::State;
use crate::state::topics::Named;
use crate::state::transactions::Producer;

/// `PRODUCER_FENCED` as clients of this version know it.
fn known_since(call: &Call<'_>, version: i16, error: ResponseError) -> ResponseError {
    match error {
        ResponseError::ProducerFenced if call.version < version => ResponseError::InvalidProducerEpoch,
        other => other,
    }
}

/// Gives a producer its id and epoch; for a transactional one, after whatever its predecessor left open was aborted.
pub(super) fn init_producer_id(call: &Call<'_>, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let mut state = call.shared.state();
    match call.permit().and_then(|()| init(call, &mut state, &request)) {
        Ok(producer) => {
            InitProducerIdResponse::default().with_producer_id(producer.id.into()).with_producer_epoch(producer.epoch)
        }
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(known_since(call, 4, error).code())
            .with_producer_id((-1).into())
            .with_producer_epoch(-1),
    }
}

fn init(call: &Call<'_>, state: &mut State, request: &InitProducerIdRequest) -> Result<Producer, ResponseError> {
    let Some(id) = &request.transactional_id else { return Ok(state.transactions.new_producer()) };
    if id.is_empty() {
        return Err(ResponseError::InvalidRequest);
    }
    let timeout = u64::try_from(request.transaction_timeout_ms).map_or(Duration::ZERO, Duration::from_millis);
    if timeout.is_zero() || timeout > call.shared.config.max_transaction_timeout {
        return Err(ResponseError::InvalidTransactionTimeout);
    }
    let believed = Producer { id: *request.producer_id, epoch: request.producer_epoch };
    let expected = (believed.id >= 0).then_some(believed);
    let (producer, ending) = state.transactions.init(id, timeout, expected)?;
    if let Some(ending) = ending {
        state.finish(&ending, call.now);
    }
    Ok(producer)
}

/// Adds partitions to a transaction: all of them, or none.
pub(super) fn add_partitions(call: &Call<'_>, request: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
    let mut state = call.shared.state();
    let producer = Producer { id: *request.v3_and_below_producer_id, epoch: request.v3_and_below_producer_epoch };
    let topics = request.v3_and_below_topics;
    let ids: Vec<(Result<Uuid, ResponseError>, &str, i32)> = topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|p| (&*topic.name, *p)))
        .map(|(topic, partition)| {
            let found = state.topics.partition(Named::Name(topic), partition);
            (found.and_then(|_| Ok(state.topics.get(Named::Name(topic))?.id)), &**topic, partition)
        })
        .collect();
    let all: Result<Vec<(Uuid, i32)>, ResponseError> =
        ids.iter().map(|(id, _, partition)| Ok((id.as_ref().copied().map_err(|e| *e)?, *partition))).collect();
    let some_missing = call.forced.is_none() && all.is_err();
    let added = call.permit().and(all).and_then(|partitions| {
        let id = &request.v3_and_below_transactional_id;
        state.transactions.add_partitions(id, producer, partitions, call.now.instant)
    });
    if let Ok(deadline) = added {
        state.alarm.set(deadline);
    }
    let result = added.map_err(|error| known_since(call, 2, error));
    let results = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let exists = state.topics.partition(Named::Name(&topic.name), *partition);
            let code = match (some_missing, exists) {
                (true, Ok(_)) => ResponseError::OperationNotAttempted.code(),
                (true, Err(error)) => error.code(),
                (false, _) => code(&result),
            };
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*partition)
                .with_partition_error_code(code)
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(partitions.collect())
    });
    let results = results.collect();
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results)
}

/// Adds a consumer group to a transaction.
pub(super) fn add_offsets(call: &Call<'_>, request: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let mut state = call.shared.state();
    let producer = Producer { id: *request.producer_id, epoch: request.producer_epoch };
    let added = call.permit().and_then(|()| {
        let now = call.now.instant;
        state.transactions.add_group(&request.transactional_id, producer, &request.group_id, now)
    });
    if let Ok(deadline) = added {
        state.alarm.set(deadline);
    }
    let result = added.map_err(|error| known_since(call, 2, error));
    AddOffsetsToTxnResponse::default().with_error_code(code(&result))
}

/// Commits or aborts a transaction.
pub(super) fn end(call: &Call<'_>, request: EndTxnRequest) -> EndTxnResponse {
    let mut state = call.shared.state();
    let producer = Producer { id: *request.producer_id, epoch: request.producer_epoch };
    let ended = call.permit().and_then(|()| {
        let ending = state.transactions.end(&request.transactional_id, producer, request.committed)?;
        if let Some(ending) = ending {
            state.finish(&ending, call.now);
        }
        Ok(())
    });
    let result = ended.map_err(|error| known_since(call, 2, error));
    EndTxnResponse::default().with_error_code(code(&result))
}
