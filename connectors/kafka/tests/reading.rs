//! A source over outages, new partitions and a topic that is deleted.
#![allow(clippy::unwrap_used)]

mod subject;

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use fluvial_connector::conformance::{SourceSubject, TestRecord};
use fluvial_connector::{ErrorKind, Offset, Slot, Source, SplitId, SplitReader, Waker};
use fluvial_kafka::KafkaOptions;
use fluvial_kafka_embedded::{ApiKey, Broker, Config, Fault, ResponseError};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, Producer as _};
use subject::{Admin, Input};

/// A reader and what wakes it.
struct Reader {
    reader: Box<dyn SplitReader>,
    woken: Arc<(Mutex<bool>, Condvar)>,
}

impl Reader {
    fn of(source: &dyn Source) -> Self {
        let woken = Arc::new((Mutex::new(false), Condvar::new()));
        let sets = woken.clone();
        let waker = Waker::new(move || {
            *sets.0.lock().unwrap() = true;
            sets.1.notify_all();
        });
        Self { reader: source.reader(waker).unwrap(), woken }
    }

    fn start(&mut self, split: u32) {
        self.reader.start(Slot(split), &SplitId(split.to_string()), Offset(0)).unwrap();
    }

    /// The keys of the next `count` records.
    fn take(&mut self, count: usize) -> Vec<String> {
        let begun = Instant::now();
        let mut keys = Vec::new();
        while keys.len() < count {
            let got = self.reader.poll(100, &mut |_, record| {
                keys.push(String::from_utf8(record.key.unwrap().to_vec()).unwrap());
            });
            if got.unwrap() == 0 {
                assert!(begun.elapsed() < subject::PATIENCE, "records come in time: {keys:?}");
                self.wait(begun);
            }
        }
        keys
    }

    /// Waits for a wake-up, no longer than until the patience has passed since `begun`.
    fn wait(&self, begun: Instant) {
        let left = subject::PATIENCE.saturating_sub(begun.elapsed());
        let woken = self.woken.0.lock().unwrap();
        *self.woken.1.wait_timeout_while(woken, left, |woken| !*woken).unwrap().0 = false;
    }
}

fn record(key: &str) -> Vec<TestRecord> {
    vec![(Some(key.as_bytes().to_vec()), Some(b"v".to_vec()))]
}

fn start() -> (Broker, Input) {
    let broker = Broker::start(Config::default()).unwrap();
    let input = Input::new(&broker.bootstrap());
    (broker, input)
}

/// What a record holds beside its offset, key and value: timestamp and headers.
type Beside = (Option<i64>, Vec<(String, Option<Vec<u8>>)>);

#[test]
fn headers_and_timestamps_come_with_their_records() {
    let (broker, input) = start();
    let writer = subject::writer(&broker.bootstrap(), None);
    let header = |name: &'static str, value: Option<&'static str>| (name, value.map(str::as_bytes));
    let sent = [
        vec![header("trace", Some("7")), header("empty", Some("")), header("trace", Some("8")), header("none", None)],
        vec![],
        vec![header("é", Some("x"))],
    ];
    for (number, headers) in (0..).zip(&sent) {
        let mut all = OwnedHeaders::new();
        for (key, value) in headers {
            all = all.insert(rdkafka::message::Header { key, value: *value });
        }
        let record = BaseRecord::to(&input.topic).partition(0).key("k").payload("v").timestamp(1000 + number);
        writer.send(record.headers(all)).map_err(|(error, _)| error).unwrap();
    }
    writer.flush(subject::PATIENCE).unwrap();
    let mut reader = Reader::of(&*input.source());
    reader.start(0);
    let mut seen: Vec<Beside> = Vec::new();
    let begun = Instant::now();
    while seen.len() < sent.len() && begun.elapsed() < subject::PATIENCE {
        let polled = reader.reader.poll(100, &mut |_, record| {
            let headers = record.headers.iter();
            let headers = headers.map(|header| (header.name.to_owned(), header.value.map(<[u8]>::to_vec)));
            seen.push((record.timestamp_ms, headers.collect()));
            if seen.len() == 1 {
                assert_eq!(record.headers.last("trace").unwrap().value, Some(&b"8"[..]));
            }
        });
        if polled.unwrap() == 0 {
            reader.wait(begun);
        }
    }
    let of = |headers: &Vec<(&str, Option<&[u8]>)>| {
        headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec))).collect()
    };
    let expected: Vec<Beside> = (0..).zip(&sent).map(|(number, headers)| (Some(1000 + number), of(headers))).collect();
    assert_eq!(seen, expected);
}

#[test]
fn lost_connections_and_passing_errors_are_healed() {
    let (broker, mut input) = start();
    let mut reader = Reader::of(&*input.source());
    reader.start(0);
    reader.start(1);
    input.append(0, &record("a"));
    assert_eq!(reader.take(1), ["a"]);
    broker.disconnect_all();
    input.append(1, &record("b"));
    assert_eq!(reader.take(1), ["b"]);
    for fault in [
        Fault::drop(ApiKey::Fetch),
        Fault::fail(ApiKey::Fetch, ResponseError::NotLeaderOrFollower),
        Fault::fail(ApiKey::Fetch, ResponseError::FencedLeaderEpoch),
        Fault::fail(ApiKey::Fetch, ResponseError::UnknownTopicOrPartition),
        Fault::fail(ApiKey::Fetch, ResponseError::KafkaStorageError),
    ] {
        broker.fault(fault.clone());
        // The fetch that waits at the broker comes before the fault: this record ends it.
        input.append(0, &record("before"));
        assert_eq!(reader.take(1), ["before"], "{fault:?}");
        input.append(0, &record("after"));
        assert_eq!(reader.take(1), ["after"], "{fault:?}");
    }
}

#[test]
fn partitions_that_are_added_can_be_read_by_the_same_reader() {
    let (broker, mut input) = start();
    let mut reader = Reader::of(&*input.source());
    reader.start(0);
    input.append(0, &record("a"));
    assert_eq!(reader.take(1), ["a"]);
    Admin::of(&broker.bootstrap()).create_partitions(&input.topic, 3);
    assert_eq!(input.source().splits(subject::PATIENCE).unwrap().len(), 3);
    reader.start(2);
    let writer = subject::writer(&broker.bootstrap(), None);
    subject::send(&writer, &input.topic, 2, &record("new"));
    assert_eq!(reader.take(1), ["new"]);
}

#[test]
fn a_topic_that_may_not_be_read_is_a_configuration_error() {
    let (broker, input) = start();
    broker.fault(Fault::fail(ApiKey::Fetch, ResponseError::TopicAuthorizationFailed).always());
    let mut reader = Reader::of(&*input.source());
    reader.start(0);
    let begun = Instant::now();
    let error = loop {
        match reader.reader.poll(10, &mut |_, _| ()) {
            Ok(_) => {
                assert!(begun.elapsed() < subject::PATIENCE, "an error comes in time");
                let woken = reader.woken.0.lock().unwrap();
                *reader.woken.1.wait_timeout_while(woken, Duration::from_secs(1), |woken| !*woken).unwrap().0 = false;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, ErrorKind::Configuration);
    assert!(error.to_string().contains(&input.topic), "{error}");
}

#[test]
fn committed_positions_are_shown_under_the_group_which_is_the_jobs_if_none_is_named() {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    let (broker, mut input) = start();
    input.append(1, &record("a"));
    for (option, expected) in [(Some("monitoring"), Some("monitoring")), (None, Some("job")), (Some(""), None)] {
        let group = option.map(str::to_owned);
        let options = KafkaOptions { group, ..KafkaOptions::new(broker.bootstrap()) };
        let source = options.connect().unwrap().source(&input.topic);
        source.report_committed("job", &[(SplitId("1".to_owned()), Offset(1))]).unwrap();
        let Some(group) = expected else { continue };
        let consumer: BaseConsumer = rdkafka::ClientConfig::new()
            .set("bootstrap.servers", broker.bootstrap())
            .set("group.id", group)
            .create()
            .unwrap();
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition(&input.topic, 1);
        let committed = consumer.committed_offsets(list, subject::PATIENCE).unwrap();
        assert_eq!(committed.elements()[0].offset(), rdkafka::Offset::Offset(1), "{group}");
    }
}

#[test]
fn a_reader_that_is_dropped_is_gone_at_once_and_wakes_nobody() {
    let (_broker, mut input) = start();
    let mut reader = Reader::of(&*input.source());
    reader.start(0);
    input.append(0, &record("a"));
    reader.take(1);
    let Reader { reader, woken } = reader;
    let begun = Instant::now();
    drop(reader);
    assert!(begun.elapsed() < Duration::from_secs(1), "it took {:?}", begun.elapsed());
    // What tells of the topic's id may be waking it at this very moment, on a thread of its own; after that nobody can.
    while Arc::strong_count(&woken) > 1 {
        assert!(begun.elapsed() < Duration::from_secs(5), "the waker is not dropped with the reader");
        std::thread::yield_now();
    }
}

/// librdkafka 2.12 aborts the process when a coordinator comes back to which a request has timed out.
#[test]
fn a_report_that_is_not_answered_in_time_does_no_harm_when_the_broker_comes_back() {
    let (broker, input) = start();
    let at = broker.bootstrap();
    let source = KafkaOptions::new(&at).connect().unwrap().source(&input.topic);
    let report = || source.report_committed("job", &[(SplitId("1".to_owned()), Offset(1))]);
    report().unwrap();
    drop(broker);
    // The second one is not even sent.
    for _ in 0..2 {
        assert_eq!(report().unwrap_err().kind, ErrorKind::Retry);
    }
    let config = Config { listen: at.parse().unwrap(), ..Config::default() };
    let broker = Broker::start(config).unwrap();
    Admin::of(&at).create_topic(&input.topic, 2);
    let begun = Instant::now();
    while let Err(error) = report() {
        assert!(begun.elapsed() < subject::PATIENCE, "{error}");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(broker);
}
