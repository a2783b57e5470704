//! Faults on request, as a client meets them.
#![allow(clippy::unwrap_used)]

mod client;

use std::time::{Duration, Instant};

use client::{PATIENCE, Writer, read};
use fluvial_kafka_embedded::{ApiKey, Broker, Config, Fault, ResponseError};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;

fn broker() -> Broker {
    let broker = Broker::start(Config::default()).unwrap();
    broker.create_topic("t", 1).unwrap();
    broker
}

/// Retries fast, so that the tests are.
const HASTY: [(&str, &str); 3] =
    [("retry.backoff.ms", "10"), ("reconnect.backoff.ms", "10"), ("reconnect.backoff.max.ms", "50")];

#[test]
fn a_dropped_or_lost_produce_is_repeated_and_written_once() {
    for fault in [Fault::drop(ApiKey::Produce), Fault::lose(ApiKey::Produce)] {
        let broker = broker();
        broker.fault(fault.nth(2));
        let writer = Writer::new(&broker, &HASTY);
        for n in 0..5 {
            writer.send("t", 0, &n.to_string());
            assert_eq!(writer.flush(), [Ok(n)]);
        }
        assert_eq!(broker.requests(ApiKey::Produce), 6);
        assert_eq!(read(&broker, "t", "read_committed"), ["0", "1", "2", "3", "4"]);
    }
}

#[test]
fn a_commit_whose_answer_is_lost_has_happened_once() {
    let broker = broker();
    let writer = Writer::transactional(&broker, "x", &HASTY);
    broker.fault(Fault::lose(ApiKey::EndTxn));
    writer.begin();
    writer.send("t", 0, "v");
    writer.commit().unwrap();
    assert_eq!(read(&broker, "t", "read_committed"), ["v"]);
    assert_eq!(broker.end_offsets("t"), [2], "one marker");
    assert_eq!(broker.requests(ApiKey::EndTxn), 2);
}

#[test]
fn a_delayed_request_is_carried_out_late() {
    let broker = broker();
    let writer = Writer::new(&broker, &[]);
    writer.send("t", 0, "0");
    writer.flush();
    broker.fault(Fault::delay(ApiKey::Produce, Duration::from_millis(400)));
    let start = Instant::now();
    writer.send("t", 0, "1");
    assert_eq!(writer.flush(), [Ok(1)]);
    assert!(start.elapsed() >= Duration::from_millis(400));
}

#[test]
fn a_failed_request_does_nothing_and_says_why() {
    let broker = broker();
    broker.fault(Fault::fail(ApiKey::Produce, ResponseError::TopicAuthorizationFailed).client("meant"));
    let plain = [("enable.idempotence", "false")];
    let spared = Writer::new(&broker, &[plain[0], ("client.id", "spared")]);
    spared.send("t", 0, "v");
    assert_eq!(spared.flush(), [Ok(0)]);
    let meant = Writer::new(&broker, &[plain[0], ("client.id", "meant")]);
    meant.send("t", 0, "v");
    assert_eq!(meant.flush(), [Err(RDKafkaErrorCode::TopicAuthorizationFailed)]);
    assert_eq!(broker.end_offsets("t"), [1]);
}

#[test]
fn every_step_of_a_transaction_can_fail_for_good() {
    let steps = [ApiKey::InitProducerId, ApiKey::AddPartitionsToTxn, ApiKey::EndTxn];
    for api in steps {
        let broker = broker();
        broker.fault(Fault::fail(api, ResponseError::TransactionalIdAuthorizationFailed));
        let writer = Writer::new(&broker, &[("transactional.id", "x")]);
        let ended = writer.producer.init_transactions(PATIENCE).and_then(|()| {
            writer.begin();
            writer.send("t", 0, "v");
            writer.commit()
        });
        let Err(KafkaError::Transaction(error)) = ended else { panic!("{api:?}: {ended:?}") };
        assert!(error.is_fatal(), "{api:?}: {error}");
        assert_eq!(read(&broker, "t", "read_uncommitted").len(), usize::from(api == ApiKey::EndTxn), "{api:?}");
    }
}

#[test]
fn clients_outlive_the_loss_of_all_connections() {
    let broker = broker();
    let writer = Writer::new(&broker, &HASTY);
    for n in 0..10 {
        writer.send("t", 0, &n.to_string());
        if n % 3 == 0 {
            broker.disconnect_all();
        }
    }
    assert_eq!(writer.flush().into_iter().collect::<Result<Vec<_>, _>>().unwrap(), (0..10).collect::<Vec<_>>());
    broker.fault(Fault::fail(ApiKey::Produce, ResponseError::TopicAuthorizationFailed).always());
    broker.clear_faults();
    writer.send("t", 0, "10");
    assert_eq!(writer.flush(), [Ok(10)]);
}

#[test]
fn a_commit_that_comes_late_tears_the_next_transaction_as_in_kafka() {
    let broker = broker();
    // The client gives a request up after a second, and asks again on another connection.
    let settings = [HASTY[0], HASTY[1], HASTY[2], ("socket.timeout.ms", "1000"), ("transaction.timeout.ms", "20000")];
    let writer = Writer::transactional(&broker, "x", &[&settings[..], &[("message.timeout.ms", "20000")]].concat());
    broker.fault(Fault::delay(ApiKey::EndTxn, Duration::from_secs(3)));
    let start = Instant::now();
    writer.begin();
    writer.send("t", 0, "first");
    writer.commit().unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "the second request was answered while the first was under way");
    writer.begin();
    writer.send("t", 0, "torn");
    assert_eq!(writer.flush(), [Ok(2)]);
    assert_eq!(read(&broker, "t", "read_committed"), ["first"]);
    while broker.end_offsets("t") == [3] {
        assert!(start.elapsed() < PATIENCE, "the late request did nothing");
        writer.producer.poll(Duration::from_millis(10));
    }
    assert_eq!(read(&broker, "t", "read_committed"), ["first", "torn"], "nobody has asked for this commit");
}

#[test]
fn a_broker_that_drops_every_request_is_as_good_as_away() {
    let broker = broker();
    broker.fault(Fault::drop(None).always());
    let writer = Writer::new(&broker, &[HASTY[0], HASTY[1], HASTY[2], ("message.timeout.ms", "20000")]);
    writer.send("t", 0, "v");
    let start = Instant::now();
    // The client sends a second request only after it has noticed that the first was dropped.
    while broker.requests(ApiKey::ApiVersions) < 2 {
        assert!(start.elapsed() < PATIENCE, "the client does not ask again");
        writer.producer.poll(Duration::from_millis(10));
    }
    assert_eq!(broker.end_offsets("t"), [0]);
    broker.clear_faults();
    assert_eq!(writer.flush(), [Ok(0)]);
}
