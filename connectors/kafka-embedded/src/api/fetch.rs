//! Fetching, with long polls.
//!
//! A fetch that finds less than it asks for waits until one of its partitions has more, or its time is up. Fetch sessions
//! are never begun, which clients take as "ask for everything each time".

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse};

use super::Call;
use crate::state::log::{Isolation, Read};
use crate::state::topics::Named;
use crate::state::{LEADER_EPOCH, State};

/// From this version on, topics are named by their ids.
const FIRST_BY_ID: i16 = 13;

/// What one look at the logs gives.
struct Gathered {
    topics: Vec<Vec<Part>>,
    bytes: usize,
    failed: bool,
}

struct Part {
    result: Result<Read, ResponseError>,
    start: i64,
    end: i64,
    last_stable: i64,
}

/// Answers with what there is, as soon as it is enough.
pub(super) async fn fetch(call: &Call<'_>, request: FetchRequest) -> FetchResponse {
    if request.session_id != 0 {
        return FetchResponse::default().with_error_code(ResponseError::FetchSessionIdNotFound.code());
    }
    let deadline = call.now.instant + Duration::from_millis(request.max_wait_ms.max(0).unsigned_abs().into());
    let wanted = usize::try_from(request.min_bytes).unwrap_or(0);
    loop {
        let late = Instant::now() >= deadline;
        let gathered = gather(call, &request, wanted);
        if late || gathered.failed || gathered.bytes >= wanted {
            return respond(call, request, gathered);
        }
        // Woken or late, it looks again.
        let _ = tokio::time::timeout_at(deadline.into(), call.reader.notified()).await;
    }
}

fn named<'a>(call: &Call<'_>, topic: &'a FetchTopic) -> Named<'a> {
    if call.version >= FIRST_BY_ID { Named::Id(topic.topic_id) } else { Named::Name(&topic.topic) }
}

/// Looks at all partitions under one lock, and leaves word where to be woken if there is less than `wanted`.
fn gather(call: &Call<'_>, request: &FetchRequest, wanted: usize) -> Gathered {
    let isolation = Isolation::from(request.isolation_level);
    let mut room = usize::try_from(request.max_bytes).unwrap_or(0);
    let mut gathered = Gathered { topics: Vec::with_capacity(request.topics.len()), bytes: 0, failed: false };
    let mut state = call.shared.state();
    for topic in &request.topics {
        let named = named(call, topic);
        let mut parts = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let part = look(call, &state, named, asked, isolation, room, gathered.bytes == 0);
            match &part.result {
                Ok(read) => {
                    gathered.bytes += read.bytes;
                    room = room.saturating_sub(read.bytes);
                }
                Err(_) => gathered.failed = true,
            }
            parts.push(part);
        }
        gathered.topics.push(parts);
    }
    if gathered.bytes < wanted && !gathered.failed {
        for topic in &request.topics {
            let named = named(call, topic);
            for asked in &topic.partitions {
                if let Ok(partition) = state.topics.partition_mut(named, asked.partition) {
                    partition.waiters.add(call.reader, isolation);
                }
            }
        }
    }
    gathered
}

fn look(
    call: &Call<'_>,
    state: &State,
    topic: Named<'_>,
    asked: &FetchPartition,
    isolation: Isolation,
    room: usize,
    first: bool,
) -> Part {
    let failed = |error| Part { result: Err(error), start: -1, end: -1, last_stable: -1 };
    if let Err(error) = call.permit() {
        return failed(error);
    }
    let log = match state.topics.served(topic, asked.partition) {
        Ok(partition) => &partition.log,
        Err(error) => return failed(error),
    };
    let most = room.min(usize::try_from(asked.partition_max_bytes).unwrap_or(0));
    let result = match check_epoch(asked.current_leader_epoch) {
        Ok(()) => log.read(asked.fetch_offset, isolation, most, first),
        Err(error) => Err(error),
    };
    Part { result, start: log.start(), end: log.end(), last_stable: log.last_stable() }
}

/// Whether a client's idea of the leader is the broker's.
pub(super) fn check_epoch(epoch: i32) -> Result<(), ResponseError> {
    match epoch.cmp(&LEADER_EPOCH) {
        std::cmp::Ordering::Less if epoch >= 0 => Err(ResponseError::FencedLeaderEpoch),
        std::cmp::Ordering::Greater => Err(ResponseError::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

fn respond(call: &Call<'_>, request: FetchRequest, gathered: Gathered) -> FetchResponse {
    let committed = Isolation::from(request.isolation_level) == Isolation::Committed;
    let topics = request.topics.into_iter().zip(gathered.topics).map(|(topic, parts)| {
        let partitions = topic.partitions.iter().zip(parts).map(|(asked, part)| data(asked, part, committed)).collect();
        let response = FetchableTopicResponse::default().with_partitions(partitions);
        if call.version >= FIRST_BY_ID {
            response.with_topic_id(topic.topic_id)
        } else {
            response.with_topic(topic.topic)
        }
    });
    FetchResponse::default().with_responses(topics.collect())
}

fn data(asked: &FetchPartition, part: Part, committed: bool) -> PartitionData {
    let data = PartitionData::default()
        .with_partition_index(asked.partition)
        .with_high_watermark(part.end)
        .with_last_stable_offset(part.last_stable)
        .with_log_start_offset(part.start);
    let read = match part.result {
        Ok(read) => read,
        Err(error) => return data.with_error_code(error.code()).with_aborted_transactions(None),
    };
    let aborted = committed.then(|| {
        let each = read
            .aborted
            .iter()
            .map(|a| AbortedTransaction::default().with_producer_id(a.producer_id.into()).with_first_offset(a.first));
        each.collect()
    });
    data.with_aborted_transactions(aborted).with_records(Some(join(read)))
}

/// The batches in one piece; a single one is not copied.
fn join(read: Read) -> Bytes {
    let mut batches = read.batches;
    if batches.len() == 1 {
        return batches.swap_remove(0);
    }
    let mut joined = BytesMut::with_capacity(read.bytes);
    batches.iter().for_each(|batch| joined.extend_from_slice(batch));
    joined.freeze()
}
