//! Clients that a broker tells of topics and of no broker, after which librdkafka has none left.
#![allow(clippy::unwrap_used)]

mod subject;

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use fluvial_connector::{
    CommitError, Generation, Incarnation, Offset, Output, OutputPartition, OutputRecord, PartitionWrite, Progress,
    SinkContext, SinkSession, Slot, Source, SplitId, Tick, TickCount, Transaction, Transactor, Waker, WriterId,
};
use fluvial_kafka::{KafkaOptions, Setting};
use fluvial_kafka_embedded::{ApiKey, Broker, Config, Fault, ResponseError};
use subject::PATIENCE;

/// A client is told its brokers again after two seconds, and librdkafka connects within another. A busy machine is given
/// several times that, and less than the patience.
const SOON: Duration = Duration::from_secs(15);

/// A broker with so many topics that librdkafka is still reading its answer when the last of its brokers goes: then it
/// forgets to bootstrap again. After a shorter answer it may remember.
fn broker_with(topic: &str) -> Broker {
    let broker = Broker::start(Config::default()).unwrap();
    broker.create_topic(topic, 2000).unwrap();
    broker
}

#[test]
fn questions_are_answered_again() {
    let broker = broker_with("orders");
    let source = subject::kafka(&broker.bootstrap()).source("orders");
    assert_eq!(source.splits(PATIENCE).unwrap().len(), 2000);
    for round in 0..2 {
        broker.fault(Fault::no_brokers().client("questions"));
        let begun = Instant::now();
        assert_eq!(source.splits(PATIENCE).unwrap().len(), 2000);
        assert!(begun.elapsed() < SOON, "round {round} took {:?}", begun.elapsed());
    }
}

#[test]
fn a_reader_reads_on() {
    let broker = broker_with("orders");
    let source = subject::kafka(&broker.bootstrap()).source("orders");
    let writer = subject::writer(&broker.bootstrap(), None);
    let (wake, woken) = channel();
    // Nobody reads any more at the end of the test.
    let waker = Waker::new(move || wake.send(()).unwrap_or_default());
    let mut reader = source.reader(waker).unwrap();
    reader.start(Slot(0), &SplitId("0".to_owned()), Offset(0)).unwrap();
    for round in 0..4_u64 {
        if round > 0 {
            // The answer to this fetch makes the client ask for the topic's leaders.
            broker.fault(Fault::no_brokers().client("reader"));
            broker.fault(Fault::fail(ApiKey::Fetch, ResponseError::NotLeaderOrFollower).client("reader"));
        }
        subject::send(&writer, "orders", 0, &[(None, Some(b"v".to_vec()))]);
        let begun = Instant::now();
        while reader.position(Slot(0)) <= Offset(round) {
            reader.poll(100, &mut |_, _| ()).unwrap();
            assert!(begun.elapsed() < SOON, "nothing is read in round {round}");
            // As the engine, which polls a reader that nobody wakes each second.
            let _ = woken.recv_timeout(Duration::from_secs(1));
        }
    }
}

struct Writing {
    broker: Broker,
    session: Arc<dyn SinkSession>,
    incarnation: Incarnation,
    tick: u64,
}

impl Writing {
    fn new() -> Self {
        let broker = broker_with("table");
        let settings = vec![Setting::new("topic.metadata.refresh.interval.ms", "200")];
        let options = KafkaOptions { settings, output_partitions: 2, ..KafkaOptions::new(broker.bootstrap()) };
        let output = options.connect().unwrap().upsert("table");
        let session = output.sink().connect(&SinkContext::new("job", PATIENCE), &[output.spec()]).unwrap();
        Self { broker, session, incarnation: Incarnation(uuid::Uuid::new_v4()), tick: 0 }
    }

    fn fence(&self) -> Box<dyn Transactor> {
        self.session.fence(&WriterId { incarnation: self.incarnation, slot: 0, turn: 0 }).unwrap()
    }

    fn commit(&mut self, writer: &mut dyn Transactor) -> Result<(), CommitError> {
        self.tick += 1;
        let record = OutputRecord { key: b"k".to_vec(), value: Some(b"v".to_vec()) };
        let write = PartitionWrite {
            at: OutputPartition { output: "table".to_owned(), partition: 0 },
            records: vec![record].into(),
            ticks: vec![TickCount { tick: Tick(self.tick), records: 1 }],
            progress: Progress::complete(self.incarnation, Generation(1), Tick(self.tick), Offset(0)),
        };
        writer.prepare(&Transaction { slot: 0, writes: vec![write] }).and_then(|_| writer.commit())
    }
}

#[test]
fn a_producer_that_begins_takes_its_id() {
    let mut writing = Writing::new();
    // A producer asks for the output, and then for the progress topic; in between it has learned the broker.
    writing.broker.fault(Fault::no_brokers().client("writer").nth(2));
    let begun = Instant::now();
    let mut writer = writing.fence();
    writing.commit(&mut *writer).unwrap();
    assert!(begun.elapsed() < SOON, "it took {:?}", begun.elapsed());
}

#[test]
fn a_producer_that_is_idle_meanwhile_writes_on() {
    let mut writing = Writing::new();
    let mut writer = writing.fence();
    writing.commit(&mut *writer).unwrap();
    for round in 0..3 {
        let begun = Instant::now();
        let asked = writing.broker.requests(ApiKey::Metadata);
        writing.broker.fault(Fault::no_brokers().client("writer"));
        // This producer and the client for questions ask in turn.
        while writing.broker.requests(ApiKey::Metadata) < asked + 6 {
            assert!(begun.elapsed() < SOON, "the producer does not ask for its topics");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        match writing.commit(&mut *writer) {
            // The answer came late, and took the transaction's own connection: another producer goes on.
            Err(CommitError::Unknown(_)) => writer = writing.fence(),
            ended => ended.unwrap(),
        }
        assert!(begun.elapsed() < SOON, "round {round} took {:?}", begun.elapsed());
    }
}
