#![allow(clippy::unwrap_used)]
mod model;

use std::time::Duration;

use super::batch::samples::{batch, plain};
use super::group::Committed;
use super::log::Isolation;
use super::settings::Settings;
use super::*;

const TOPIC: Named<'static> = Named::Name("t");

fn broker(limit: usize) -> (State, Uuid) {
    let mut state = State::new(limit);
    let id = state.topics.create("t", 1, Settings::default()).unwrap();
    (state, id)
}

fn begin(state: &mut State, topic: Uuid, now: Now) -> Producer {
    let (producer, ending) = state.transactions.init("x", Duration::from_secs(1), None).unwrap();
    if let Some(ending) = ending {
        state.finish(&ending, now);
    }
    state.transactions.add_partitions("x", producer, [(topic, 0)], now.instant).unwrap();
    producer
}

fn produce(state: &mut State, producer: Producer, sequence: i32) -> Result<i64, ResponseError> {
    let (header, bytes) = batch((producer.id, producer.epoch), sequence, 1, true);
    state.produce(TOPIC, 0, &header, &bytes)
}

#[test]
fn a_full_broker_refuses_records_but_not_the_end_of_a_transaction() {
    let (header, bytes) = plain(1);
    let (mut state, id) = broker(2 * log::Log::cost(bytes.len()));
    let now = Now::read();
    let producer = begin(&mut state, id, now);
    produce(&mut state, producer, 0).unwrap();
    state.produce(TOPIC, 0, &header, &bytes).unwrap();
    assert_eq!(state.produce(TOPIC, 0, &header, &bytes), Err(ResponseError::PolicyViolation));
    let ending = state.transactions.end("x", producer, true).unwrap().unwrap();
    state.finish(&ending, now);
    assert_eq!(state.delete_records("t", 0, -1), Ok(3));
    assert_eq!(state.memory.used(), 0);
    assert_eq!(state.produce(TOPIC, 0, &header, &bytes), Ok(3));
}

#[test]
fn a_transaction_that_times_out_is_aborted_where_it_wrote() {
    let (mut state, id) = broker(1 << 20);
    let now = Now::read();
    let producer = begin(&mut state, id, now);
    state.transactions.add_group("x", producer, "g", now.instant).unwrap();
    let held = Committed { offset: 5, leader_epoch: -1, metadata: None };
    state.groups.or_new("g").offsets.hold(producer.id, "t", 0, held);
    produce(&mut state, producer, 0).unwrap();
    let next = state.expire(now).unwrap();
    assert_eq!(state.expire(Now { instant: next, ..now }), None);
    let read = state.topics.partition(TOPIC, 0).unwrap().log.read(0, Isolation::Committed, 1 << 20, true).unwrap();
    assert_eq!((read.batches.len(), read.aborted.len()), (2, 1));
    assert!(state.groups.get("g").unwrap().offsets.get("t", 0).is_none());
    assert_eq!(produce(&mut state, producer, 1), Err(ResponseError::InvalidProducerEpoch));
}

#[test]
fn a_zombie_writes_nothing_after_its_successor_has_come() {
    let (mut state, id) = broker(1 << 20);
    let now = Now::read();
    let old = begin(&mut state, id, now);
    let new = begin(&mut state, id, now);
    assert_eq!(produce(&mut state, old, 0), Err(ResponseError::InvalidProducerEpoch));
    produce(&mut state, new, 0).unwrap();
}

#[test]
fn a_batch_outside_its_transaction_is_refused() {
    let (mut state, _) = broker(1 << 20);
    let (producer, _) = state.transactions.init("x", Duration::from_secs(1), None).unwrap();
    assert_eq!(produce(&mut state, producer, 0), Err(ResponseError::InvalidTxnState));
}

#[test]
fn a_transaction_outlives_a_topic_deleted_under_it() {
    let (mut state, id) = broker(1 << 20);
    let now = Now::read();
    let producer = begin(&mut state, id, now);
    produce(&mut state, producer, 0).unwrap();
    state.delete_topic(TOPIC).unwrap();
    state.topics.create("t", 1, Settings::default()).unwrap();
    let ending = state.transactions.end("x", producer, true).unwrap().unwrap();
    state.finish(&ending, now);
    let log = &state.topics.partition(TOPIC, 0).unwrap().log;
    assert_eq!((log.end(), state.memory.used()), (0, 0), "the new topic has no marker of the old one's transaction");
}

#[test]
fn the_alarm_rings_for_the_nearest_deadline_only() {
    let mut alarm = Alarm::default();
    let now = Instant::now();
    alarm.set(now + Duration::from_secs(2));
    alarm.set(now + Duration::from_secs(3));
    assert_eq!(alarm.at, Some(now + Duration::from_secs(2)));
    alarm.set(now + Duration::from_secs(1));
    assert_eq!(alarm.at, Some(now + Duration::from_secs(1)));
}
