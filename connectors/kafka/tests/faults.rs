//! What requests that go wrong do to a transaction, and what a person is told.
#![allow(clippy::unwrap_used)]

mod subject;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_connector::{
    CommitError, Error, ErrorKind, Generation, Incarnation, Offset, Output, OutputPartition, OutputRecord,
    PartitionWrite, Progress, SinkContext, SinkSession, Source, Tick, TickCount, Transaction, Transactor, WriterId,
};
use fluvial_kafka::{KafkaOptions, KafkaOutput, Setting};
use fluvial_kafka_embedded::{ApiKey, Broker, Config, Fault, ResponseError};

const OUTPUT: &str = "output";

struct Job {
    broker: Broker,
    session: Arc<dyn SinkSession>,
    incarnation: Incarnation,
    tick: u64,
}

impl Job {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(settings: &[(&str, &str)]) -> Self {
        Self::on(Broker::start(Config::default()).unwrap(), settings)
    }

    fn on(broker: Broker, settings: &[(&str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| Setting::new(*name, *value)).collect();
        let options = KafkaOptions { settings, ..KafkaOptions::new(broker.bootstrap()) };
        let output: KafkaOutput = options.connect().unwrap().upsert(OUTPUT);
        let context = SinkContext::new("job", subject::PATIENCE);
        let session = output.sink().connect(&context, &[output.spec()]).unwrap();
        Self { broker, session, incarnation: Incarnation(uuid::Uuid::new_v4()), tick: 0 }
    }

    fn fence(&self) -> Box<dyn Transactor> {
        self.session.fence(&WriterId { incarnation: self.incarnation, slot: 0, turn: 0 }).unwrap()
    }

    fn at() -> OutputPartition {
        OutputPartition { output: OUTPUT.to_owned(), partition: 0 }
    }

    fn transaction(&mut self, value: &[u8]) -> Transaction {
        self.tick += 1;
        let record = OutputRecord { key: b"k".to_vec(), value: Some(value.to_vec()) };
        let write = PartitionWrite {
            at: Self::at(),
            records: vec![record].into(),
            ticks: vec![TickCount { tick: Tick(self.tick), records: 1 }],
            progress: Progress::complete(self.incarnation, Generation(1), Tick(self.tick), Offset(0)),
        };
        Transaction { slot: 0, writes: vec![write] }
    }

    fn committed(&self) -> usize {
        let mut count = 0;
        self.session.read_committed(&Self::at(), Offset(0), &mut |_| count += 1).unwrap();
        count
    }

    /// A transaction with a fault in it, after one without.
    fn run(&mut self, fault: Fault) -> Result<(), CommitError> {
        let mut writer = self.fence();
        let first = self.transaction(b"first");
        writer.prepare(&first).unwrap();
        writer.commit().unwrap();
        self.broker.fault(fault);
        let second = self.transaction(b"second");
        let result = writer.prepare(&second).and_then(|_| writer.commit());
        self.broker.clear_faults();
        result
    }
}

/// Whichever request it was, and whether or not it was carried out.
#[test]
fn a_lost_request_leaves_the_transaction_unknown_also_if_librdkafka_heals_it() {
    for api in [ApiKey::Produce, ApiKey::AddPartitionsToTxn, ApiKey::EndTxn] {
        for fault in [Fault::drop(api), Fault::lose(api)] {
            let mut job = Job::new();
            let begun = Instant::now();
            let result = job.run(fault.clone());
            assert!(matches!(result, Err(CommitError::Unknown(_))), "{fault:?} gave {result:?}");
            assert!(begun.elapsed() < Duration::from_secs(5), "{fault:?} took {:?}", begun.elapsed());
            // The next writer can go on, and progress tells what became of it.
            let mut writer = job.fence();
            let known = job.session.progress().unwrap()[&Job::at()].tick;
            assert_eq!(job.committed() as u64, known.0, "records and progress agree");
            let third = job.transaction(b"third");
            writer.prepare(&third).unwrap();
            writer.commit().unwrap();
        }
    }
}

#[test]
fn a_commit_that_is_answered_too_late_is_unknown() {
    let mut job = Job::with(&[("socket.timeout.ms", "1000")]);
    let result = job.run(Fault::delay(ApiKey::EndTxn, Duration::from_secs(3)));
    assert!(matches!(result, Err(CommitError::Unknown(_))), "it was {result:?}");
}

#[test]
fn what_the_broker_answers_and_takes_back_is_healed() {
    let healed = [
        (ApiKey::EndTxn, ResponseError::ConcurrentTransactions),
        (ApiKey::AddPartitionsToTxn, ResponseError::ConcurrentTransactions),
        (ApiKey::Produce, ResponseError::NotLeaderOrFollower),
    ];
    for (api, error) in healed {
        let mut job = Job::new();
        job.run(Fault::fail(api, error)).unwrap();
        assert_eq!(job.committed(), 2, "{api:?} {error:?}");
    }
}

#[test]
fn each_error_says_what_to_do() {
    type Is = fn(&CommitError) -> bool;
    let (fenced, refused): (Is, Is) =
        (|e| matches!(e, CommitError::Fenced(_)), |e| matches!(e, CommitError::Refused(_)));
    let cases = [
        (ApiKey::EndTxn, ResponseError::ProducerFenced, fenced),
        (ApiKey::EndTxn, ResponseError::InvalidProducerEpoch, fenced),
        (ApiKey::EndTxn, ResponseError::InvalidProducerIdMapping, fenced),
        (ApiKey::AddPartitionsToTxn, ResponseError::InvalidProducerIdMapping, fenced),
        (ApiKey::Produce, ResponseError::InvalidProducerEpoch, fenced),
        (ApiKey::Produce, ResponseError::TopicAuthorizationFailed, refused),
        (ApiKey::Produce, ResponseError::MessageTooLarge, refused),
        (ApiKey::EndTxn, ResponseError::TransactionalIdAuthorizationFailed, refused),
    ];
    for (api, error, expected) in cases {
        let result = Job::new().run(Fault::fail(api, error).always()).unwrap_err();
        assert!(expected(&result), "{api:?} {error:?} gave {result:?}");
    }
}

/// Once a transaction has failed librdkafka takes nothing more for it, and says of that only that its state is erroneous. So
/// a producer id that the cluster had given up looked like an outage, and a missing permission like one, again and again.
#[test]
fn a_transaction_that_fails_while_it_is_filled_says_of_what() {
    type Is = fn(&CommitError) -> bool;
    let (fenced, refused): (Is, Is) =
        (|e| matches!(e, CommitError::Fenced(_)), |e| matches!(e, CommitError::Refused(_)));
    for (api, error, expected) in [
        (ApiKey::AddPartitionsToTxn, ResponseError::InvalidProducerIdMapping, fenced),
        (ApiKey::Produce, ResponseError::TopicAuthorizationFailed, refused),
    ] {
        let mut job = Job::new();
        let mut writer = job.fence();
        job.broker.fault(Fault::fail(api, error).always());
        // Enough that the answer comes while they are handed over.
        let mut transaction = job.transaction(b"v");
        let write = &mut transaction.writes[0];
        let record = write.records.iter().next().unwrap().to_record();
        (write.records, write.ticks[0].records) = (vec![record; 300_000].into(), 300_000);
        let failed = writer.prepare(&transaction).unwrap_err();
        assert!(expected(&failed), "{api:?} {error:?} gave {failed:?}");
        assert!(!format!("{failed:?}").contains("Erroneous state"), "{failed:?}");
    }
}

/// The refusal of a record, with what caused it.
fn refused(result: Result<(), CommitError>) -> String {
    match result {
        Err(CommitError::Refused(error)) => cause(&error),
        other => panic!("it was {other:?}"),
    }
}

#[test]
fn a_clock_that_differs_from_the_brokers_is_told_with_the_difference() {
    let hours = |hours: i64| hours * 3_600_000;
    for (broker_ahead_ms, difference, setting) in [
        (
            hours(-3),
            ["this host's clock is 3h ahead of", "this host's clock is 3h 1s ahead of"],
            "after.max.ms=3600000",
        ),
        (hours(25), ["this host's clock is 1day 1h behind", "59s behind"], "before.max.ms=86400000"),
    ] {
        for records in [1, 3] {
            let broker = Broker::start(Config::default()).unwrap();
            let strict = [("message.timestamp.before.max.ms", "86400000")];
            broker.create_topic_with(OUTPUT, 1, strict).unwrap();
            let any_time = [("message.timestamp.after.max.ms", "9223372036854775807")];
            broker.create_topic_with(&fluvial_kafka::progress_topic("job"), 1, any_time).unwrap();
            let mut job = Job::on(broker, &[]);
            let mut writer = job.fence();
            job.broker.set_clock_ahead_ms(broker_ahead_ms);
            let mut transaction = job.transaction(b"v");
            let write = &mut transaction.writes[0];
            let record = write.records.iter().next().unwrap().to_record();
            (write.records, write.ticks[0].records) = (vec![record; records].into(), records);
            let said = refused(writer.prepare(&transaction).map(drop));
            assert!(difference.iter().any(|difference| said.contains(difference)), "{said}");
            assert!(
                said.contains(&format!("set the clocks, or raise the topic's message.timestamp.{setting}")),
                "{said}"
            );
            assert!(said.contains("topic 'output' partition 0 refuses a record for its timestamp, 20"), "{said}");
            assert!(said.contains("; the broker says: Timestamp "), "{said}");
        }
    }
}

#[test]
fn a_record_that_the_broker_finds_invalid_is_refused_in_its_words() {
    let said = refused(Job::new().run(Fault::fail(ApiKey::Produce, ResponseError::InvalidRecord).always()));
    assert!(said.contains("refuses a record as invalid; the broker says: "), "{said}");
    assert!(!said.contains("clock"), "{said}");
}

#[test]
fn how_large_a_record_may_be_is_for_the_topic_to_say() {
    let mut job = Job::new();
    let mut writer = job.fence();
    let transaction = job.transaction(&vec![b'v'; 2_000_000]);
    let error = writer.prepare(&transaction).unwrap_err();
    let CommitError::Refused(error) = error else { panic!("it was {error:?}") };
    assert!(error.to_string().contains("topic 'output' partition 0"), "{error}");

    let wide = Broker::start(Config::default()).unwrap();
    wide.create_topic_with(OUTPUT, 1, [("max.message.bytes", "5000000")]).unwrap();
    let mut job = Job::on(wide, &[]);
    let mut writer = job.fence();
    let transaction = job.transaction(&vec![b'v'; 2_000_000]);
    writer.prepare(&transaction).unwrap();
    writer.commit().unwrap();
    assert_eq!(job.committed(), 1);
}

#[test]
fn a_transaction_that_outlives_its_time_is_given_up_by_the_broker() {
    let mut job = Job::with(&[("transaction.timeout.ms", "1000")]);
    let mut writer = job.fence();
    let transaction = job.transaction(b"slow");
    writer.prepare(&transaction).unwrap();
    // The broker's own clock ends it: what waits for open transactions returns then.
    let begun = Instant::now();
    assert_eq!(job.committed(), 0);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(matches!(writer.commit(), Err(CommitError::Fenced(_))));
}

#[test]
fn ticks_are_headers_and_timestamps_on_request() {
    use rdkafka::Message;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::Headers;

    let broker = Broker::start(Config::default()).unwrap();
    let options = KafkaOptions { tick_header: true, output_partitions: 1, ..KafkaOptions::new(broker.bootstrap()) };
    let output = options.connect().unwrap().append(OUTPUT);
    let context = SinkContext::new("job", subject::PATIENCE);
    let session = output.sink().connect(&context, &[output.spec()]).unwrap();
    let mut job = Job { broker, session, incarnation: Incarnation(uuid::Uuid::new_v4()), tick: 0 };
    let mut transaction = job.transaction(b"v");
    let write = &mut transaction.writes[0];
    let record = write.records.iter().next().unwrap().to_record();
    write.records = vec![record; 3].into();
    write.ticks = [(7, 1), (9, 3)].map(|(tick, records)| TickCount { tick: Tick(tick), records }).to_vec();
    write.progress.tick = Tick(9);
    let mut writer = job.fence();
    let ends = writer.prepare(&transaction).unwrap();
    writer.commit().unwrap();
    assert_eq!(ends, [Offset(3)]);

    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", job.broker.bootstrap())
        .set("group.id", "test")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(OUTPUT, 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut ticks = Vec::new();
    while ticks.len() < 3 {
        let message = consumer.poll(subject::PATIENCE).expect("records come in time").unwrap();
        let header = message.headers().unwrap().get(0);
        assert_eq!(header.key, "fluvial-tick");
        let tick = std::str::from_utf8(header.value.unwrap()).unwrap().parse().unwrap();
        assert_eq!(message.timestamp(), rdkafka::Timestamp::CreateTime(tick));
        ticks.push(String::from_utf8(header.value.unwrap().to_vec()).unwrap());
    }
    assert_eq!(ticks, ["7", "9", "9"]);
}

fn cause(error: &Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

#[test]
fn a_broker_that_is_away_is_named_after_a_bounded_wait() {
    // A port that nobody listens on: it was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let brokers = format!("127.0.0.1:{port}");
    let kafka = KafkaOptions::new(&brokers).connect().unwrap();
    let begun = Instant::now();
    let error = kafka.source("orders").splits(Duration::from_secs(2)).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(6), "it took {:?}", begun.elapsed());
    assert_eq!(error.kind, ErrorKind::Retry);
    assert!(error.to_string().contains(&brokers), "{}", cause(&error));
}

#[test]
fn an_unknown_topic_is_named() {
    let broker = Broker::start(Config::default()).unwrap();
    let kafka = subject::kafka(&broker.bootstrap());
    let begun = Instant::now();
    let error = kafka.source("ordres").splits(subject::PATIENCE).unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(6), "it took {:?}", begun.elapsed());
    assert_eq!(error.kind, ErrorKind::Configuration);
    assert!(error.to_string().contains("'ordres'"), "{error}");
    assert!(broker.topics().is_empty(), "asking for a topic does not make it");
}

#[test]
fn topics_are_made_as_asked_and_existing_ones_are_taken_as_they_are() {
    let broker = Broker::start(Config::default()).unwrap();
    broker.create_topic("there", 3).unwrap();
    let options = KafkaOptions {
        output_partitions: 5,
        topic_config: vec![("retention.ms".to_owned(), "1000".to_owned())],
        ..KafkaOptions::new(broker.bootstrap())
    };
    let kafka = options.connect().unwrap();
    let outputs = [kafka.upsert("there"), kafka.append("made")];
    let context = SinkContext::new("job", subject::PATIENCE);
    let specs = outputs.each_ref().map(Output::spec);
    let session = outputs[0].sink().connect(&context, &specs).unwrap();
    let outputs = session.status().unwrap().outputs;
    let partitions: Vec<_> = outputs.into_iter().map(|(name, output)| (name, output.partitions)).collect();
    assert_eq!(partitions, [("made".to_owned(), 5), ("there".to_owned(), 3)]);
    assert!(broker.topics().contains_key(&fluvial_kafka::progress_topic("job")));
}
