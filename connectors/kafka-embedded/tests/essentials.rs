//! What a client of the broker relies on; the broad suite, against Apache Kafka as well, is in the `tests` crate.
#![allow(clippy::unwrap_used)]

mod client;

use std::time::{Duration, Instant};

use client::{PATIENCE, Writer, assign, config, consumer, read};
use fluvial_kafka_embedded::{ApiKey, Broker, Config};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;

/// A long poll whose end cannot be taken for a wake-up. A client's end waits for the last one.
const LONG_POLL: (&str, &str) = ("fetch.wait.max.ms", "2500");

/// What a wake-up takes at most.
const SHORTER: Duration = Duration::from_secs(2);

fn broker(topic: &str, partitions: i32) -> Broker {
    let broker = Broker::start(Config::default()).unwrap();
    broker.create_topic(topic, partitions).unwrap();
    broker
}

/// The value of the next record. A poll also ends, with nothing, when the group has been rebalanced.
fn next(member: &BaseConsumer) -> Vec<u8> {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "no record has come");
        if let Some(message) = member.poll(Duration::from_secs(1)) {
            return message.unwrap().payload().unwrap().to_vec();
        }
    }
}

#[test]
fn many_small_batches_in_flight_arrive_once_and_in_order() {
    let broker = broker("t", 1);
    let writer = Writer::new(&broker, &[("batch.num.messages", "20")]);
    let values: Vec<String> = (0..5_000).map(|n| n.to_string()).collect();
    values.iter().for_each(|value| writer.send("t", 0, value));
    let delivered = writer.flush();
    assert!(delivered.iter().enumerate().all(|(at, d)| *d == Ok(at as i64)), "offsets are given in order");
    assert_eq!(read(&broker, "t", "read_committed"), values);
}

#[test]
fn committed_records_are_seen_and_aborted_ones_are_not() {
    let broker = broker("t", 2);
    let writer = Writer::transactional(&broker, "x", &[]);
    for (value, commit) in [("a", true), ("b", false), ("c", true), ("d", false)] {
        writer.begin();
        (0..2).for_each(|partition| writer.send("t", partition, value));
        if commit { writer.commit().unwrap() } else { writer.abort() }
    }
    writer.begin();
    writer.send("t", 0, "open");
    writer.flush();
    let mut seen = read(&broker, "t", "read_committed");
    seen.sort();
    assert_eq!(seen, ["a", "a", "c", "c"]);
    assert_eq!(broker.end_offsets("t"), [9, 8], "each marker takes an offset");
}

#[test]
fn a_second_writer_of_one_id_fences_the_first() {
    let broker = broker("t", 1);
    let old = Writer::transactional(&broker, "x", &[]);
    old.begin();
    old.send("t", 0, "old");
    old.flush();
    let new = Writer::transactional(&broker, "x", &[]);
    let KafkaError::Transaction(fenced) = old.commit().unwrap_err() else { panic!("not a transaction's error") };
    assert!(fenced.is_fatal());
    assert_eq!(fenced.code(), RDKafkaErrorCode::Fenced);
    new.begin();
    new.send("t", 0, "new");
    new.commit().unwrap();
    assert_eq!(read(&broker, "t", "read_committed"), ["new"]);
}

#[test]
fn a_waiting_reader_gets_a_record_when_it_comes() {
    let broker = broker("t", 1);
    let reader = consumer(&broker, &[LONG_POLL]);
    assign(&reader, "t", 1);
    assert!(matches!(reader.poll(PATIENCE), Some(Err(KafkaError::PartitionEOF(0)))));
    let writer = Writer::new(&broker, &[]);
    let mut slowest = Duration::ZERO;
    for n in 0..20 {
        let start = Instant::now();
        writer.send("t", 0, &n.to_string());
        writer.flush();
        let got = std::iter::repeat_with(|| reader.poll(PATIENCE).unwrap()).find_map(Result::ok).unwrap();
        assert_eq!(got.offset(), n);
        slowest = slowest.max(start.elapsed());
    }
    assert!(slowest < SHORTER, "{slowest:?}");
}

#[test]
fn a_waiting_committed_reader_is_woken_by_the_commit() {
    let broker = broker("t", 1);
    let reader = consumer(&broker, &[LONG_POLL, ("isolation.level", "read_committed")]);
    assign(&reader, "t", 1);
    assert!(matches!(reader.poll(PATIENCE), Some(Err(KafkaError::PartitionEOF(0)))));
    let writer = Writer::transactional(&broker, "x", &[]);
    writer.begin();
    writer.send("t", 0, "v");
    writer.flush();
    assert!(reader.poll(Duration::from_millis(100)).is_none(), "not while the transaction is open");
    let start = Instant::now();
    writer.commit().unwrap();
    let got = reader.poll(PATIENCE).unwrap().unwrap();
    assert_eq!(got.offset(), 0);
    assert!(start.elapsed() < SHORTER);
}

#[test]
fn a_full_broker_says_so_and_takes_records_again_when_there_is_room() {
    let broker = Broker::start(Config { memory_limit_bytes: 10_000, ..Config::default() }).unwrap();
    broker.create_topic("t", 1).unwrap();
    let writer = Writer::new(&broker, &[]);
    let value = "v".repeat(4_000);
    let deliver = || {
        writer.send("t", 0, &value);
        writer.flush().pop().unwrap()
    };
    assert_eq!(deliver(), Ok(0));
    assert_eq!(deliver(), Ok(1));
    let plain = Writer::new(&broker, &[("enable.idempotence", "false")]);
    plain.send("t", 0, &value);
    let start = Instant::now();
    assert_eq!(plain.flush(), [Err(RDKafkaErrorCode::PolicyViolation)]);
    assert!(start.elapsed() < Duration::from_secs(5), "the client did not try again and again");
    assert!(broker.memory_bytes() <= 10_000);
    let admin: rdkafka::admin::AdminClient<_> = config(&broker, &[]).create().unwrap();
    let mut all = rdkafka::TopicPartitionList::new();
    all.add_partition_offset("t", 0, rdkafka::Offset::End).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(admin.delete_records(&all, &rdkafka::admin::AdminOptions::new())).unwrap();
    assert_eq!(deliver(), Ok(2));
}

#[test]
fn a_topic_comes_into_being_only_where_that_is_allowed() {
    for auto_create in [true, false] {
        let config = Config { auto_create, default_partitions: 3, ..Config::default() };
        let broker = Broker::start(config).unwrap();
        let writer =
            Writer::new(&broker, &[("topic.metadata.propagation.max.ms", "200"), ("message.timeout.ms", "2000")]);
        writer.send("t", -1, "v");
        assert_eq!(writer.flush()[0].is_ok(), auto_create);
        assert_eq!(broker.topics().get("t"), auto_create.then_some(&3));
    }
}

#[test]
fn a_group_goes_on_where_its_members_have_committed() {
    let broker = broker("t", 4);
    let writer = Writer::new(&broker, &[]);
    (0..40).for_each(|n| writer.send("t", n % 4, &n.to_string()));
    writer.flush();
    let settings = [("group.id", "g"), ("auto.offset.reset", "earliest"), ("enable.auto.commit", "false")];
    let mut seen = 0;
    for _ in 0..2 {
        let member: BaseConsumer = config(&broker, &settings).create().unwrap();
        member.subscribe(&["t"]).unwrap();
        for _ in 0..20 {
            next(&member);
            seen += 1;
        }
        member.commit_consumer_state(rdkafka::consumer::CommitMode::Sync).unwrap();
    }
    let member: BaseConsumer = config(&broker, &settings).create().unwrap();
    member.subscribe(&["t"]).unwrap();
    writer.send("t", 0, "last");
    writer.flush();
    assert_eq!((seen, next(&member)), (40, b"last".to_vec()));
}

#[test]
fn a_broker_that_is_dropped_frees_its_port_and_its_clients() {
    let config = Config::default();
    let broker = Broker::start(config.clone()).unwrap();
    let listen = broker.address();
    let writer = Writer::new(&broker, &[("socket.timeout.ms", "1000")]);
    assert!(writer.flush().is_empty());
    drop(broker);
    assert!(std::net::TcpStream::connect(listen).is_err());
    Broker::start(Config { listen, ..config }).unwrap();
}

#[test]
fn an_idle_reader_asks_no_more_often_than_it_says() {
    let broker = broker("t", 1);
    let reader = consumer(&broker, &[LONG_POLL]);
    assign(&reader, "t", 1);
    assert!(matches!(reader.poll(PATIENCE), Some(Err(KafkaError::PartitionEOF(0)))));
    assert!(reader.poll(Duration::from_secs(1)).is_none());
    assert!(broker.requests(ApiKey::Fetch) <= 3, "{} fetches", broker.requests(ApiKey::Fetch));
}
