//! What is asked of a cluster that does not answer all of it now, or for ever.
#![allow(clippy::unwrap_used)]

mod subject;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fluvial_connector::{Error, ErrorKind, Offset, Output, OutputPartition, SinkContext, SinkSession, Source};
use fluvial_kafka_embedded::{ApiKey, Broker, Config, Fault, ResponseError};

/// What this process logs, each line with its time. One subscriber for all tests: what a line is of, its topic says.
static LOG: Mutex<Vec<(Instant, String)>> = Mutex::new(Vec::new());

struct Line(Vec<u8>);

impl std::io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        LOG.lock().unwrap().push((Instant::now(), String::from_utf8_lossy(&self.0).into_owned()));
    }
}

/// What `call` returns, and the lines that are logged meanwhile, each with how long after the call's begin it came.
fn logged<T>(call: impl FnOnce() -> T) -> (T, Vec<(Duration, String)>) {
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::INFO);
    // Another test may have set it already.
    let _ = tracing::subscriber::set_global_default(subscriber.with_writer(|| Line(Vec::new())).finish());
    let begun = Instant::now();
    let result = call();
    let lines = LOG.lock().unwrap();
    let since = lines.iter().filter_map(|(at, line)| Some((at.checked_duration_since(begun)?, line.clone())));
    (result, since.collect())
}

fn broker_with(topic: &str, partitions: i32) -> Broker {
    let broker = Broker::start(Config::default()).unwrap();
    broker.create_topic(topic, partitions).unwrap();
    broker
}

fn session(broker: &Broker) -> Arc<dyn SinkSession> {
    let output = subject::kafka(&broker.bootstrap()).upsert("table");
    output.sink().connect(&SinkContext::new("job", subject::PATIENCE), &[output.spec()]).unwrap()
}

/// Removes a partition's leader until a line says that it has none.
fn without_leader<T>(broker: &Broker, topic: &str, partition: i32, call: impl FnOnce() -> T) -> T {
    broker.set_leader(topic, partition, false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (begun, line) = (Instant::now(), format!("topic '{topic}' partition {partition} has no leader"));
            let is_told = || LOG.lock().unwrap().iter().any(|(at, said)| *at >= begun && said.contains(&line));
            while !is_told() && begun.elapsed() < subject::PATIENCE {
                std::thread::park_timeout(Duration::from_millis(10));
            }
            broker.set_leader(topic, partition, true);
        });
        call()
    })
}

/// The WARN that names this, within seconds, and the line that says that it is over.
fn check_told(lines: &[(Duration, String)], named: &[&str]) {
    let warning = lines.iter().find(|(_, line)| line.contains("WARN") && named.iter().all(|name| line.contains(name)));
    let (at, _) = warning.unwrap_or_else(|| panic!("a WARN names {named:?}: {lines:#?}"));
    assert!(*at < Duration::from_secs(4), "it came after {at:?}");
    assert!(lines.iter().any(|(_, line)| line.contains("no longer waiting")), "{lines:#?}");
}

#[test]
fn an_input_partition_without_a_leader_is_unavailable_and_the_others_are_not() {
    let broker = broker_with("orders", 4);
    let source = subject::kafka(&broker.bootstrap()).source("orders");
    broker.set_leader("orders", 2, false);
    let splits = source.splits(subject::PATIENCE).unwrap();
    let why: Vec<_> = splits.iter().map(|split| split.availability.why_not()).collect();
    assert_eq!(why, [None, None, Some("it has no leader"), None]);
    broker.set_leader("orders", 2, true);
    assert!(source.splits(subject::PATIENCE).unwrap().iter().all(|split| split.availability.end() == Some(Offset(0))));
}

#[test]
fn an_input_partition_without_a_leader_for_a_moment_is_waited_for() {
    let broker = broker_with("orders", 4);
    let source = subject::kafka(&broker.bootstrap()).source("orders");
    broker.fault(Fault::fail(ApiKey::ListOffsets, ResponseError::NotLeaderOrFollower).times(2));
    let splits = source.splits(subject::PATIENCE).unwrap();
    assert!(splits.iter().all(|split| split.availability.why_not().is_none()), "{splits:?}");
}

#[test]
fn a_progress_partition_without_a_leader_is_waited_for_and_named() {
    let broker = broker_with("table", 1);
    let session = session(&broker);
    let progress = fluvial_kafka::progress_topic("job");
    let (read, lines) = without_leader(&broker, &progress, 1, || logged(|| session.progress()));
    assert!(read.unwrap().is_empty());
    check_told(&lines, &["topic 'job.fluvial-progress' partition 1 has no leader"]);
}

#[test]
fn a_partition_that_stays_without_a_leader_is_no_cluster_that_cannot_be_reached() {
    let broker = broker_with("table", 2);
    let output = subject::kafka(&broker.bootstrap()).upsert("table");
    let session = output.sink().connect(&SinkContext::new("job", Duration::from_secs(3)), &[output.spec()]).unwrap();
    broker.set_leader("table", 1, false);
    let at = |partition| OutputPartition { output: "table".to_owned(), partition };
    let error = session.read_all_committed(&[(at(0), Offset(0)), (at(1), Offset(0))], &mut |_, _| ()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Retry);
    let said = error.to_string();
    assert!(said.contains("topic 'table' partition 1 has no leader"), "{said}");
    assert!(!said.contains("--brokers"), "{said}");
}

fn refused(error: &Error, topic: &str) {
    assert_eq!(error.kind, ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains(&format!("topic '{topic}' does not exist")), "{error}");
}

#[test]
fn a_topic_that_was_deleted_does_not_exist_whatever_is_asked() {
    let broker = broker_with("orders", 1);
    let source = subject::kafka(&broker.bootstrap()).source("orders");
    let session = session(&broker);
    source.splits(subject::PATIENCE).unwrap();
    let admin = subject::Admin::of(&broker.bootstrap());
    admin.delete_topic("orders");
    let error = source.splits(subject::PATIENCE).unwrap_err();
    refused(&error, "orders");
    // To create it again is no way out.
    assert!(error.to_string().contains("another --name") && !error.to_string().contains("create it"), "{error}");
    refused(&source.warnings(Duration::ZERO, subject::PATIENCE).unwrap_err(), "orders");
    admin.delete_topic(&fluvial_kafka::progress_topic("job"));
    refused(&session.progress().unwrap_err(), &fluvial_kafka::progress_topic("job"));
    admin.delete_topic("table");
    let at = OutputPartition { output: "table".to_owned(), partition: 0 };
    refused(&session.end(&at).unwrap_err(), "table");
    refused(&session.status().unwrap_err(), "table");
}

#[test]
fn that_a_topic_does_not_exist_is_not_believed_of_one_answer_nor_of_two() {
    let broker = broker_with("orders", 1);
    let source = subject::kafka(&broker.bootstrap()).source("orders");
    for api in [ApiKey::Metadata, ApiKey::ListOffsets] {
        broker.fault(Fault::fail(api, ResponseError::UnknownTopicOrPartition).times(2));
        assert_eq!(source.splits(subject::PATIENCE).unwrap().len(), 1, "{api:?}");
        broker.clear_faults();
    }
}

#[test]
fn many_partitions_take_few_requests() {
    let broker = broker_with("orders", 500);
    let source = subject::kafka(&broker.bootstrap()).source("orders");
    assert_eq!(source.splits(subject::PATIENCE).unwrap().len(), 500);
    assert!(broker.requests(ApiKey::ListOffsets) <= 8, "{}", broker.requests(ApiKey::ListOffsets));
}

/// Ten records, and a session that reads them back.
fn ten_committed() -> (Broker, Arc<dyn SinkSession>, OutputPartition) {
    let broker = broker_with("table", 1);
    let session = session(&broker);
    let records: Vec<_> = (0..10).map(|n| (Some(format!("k{n}").into_bytes()), Some(b"v".to_vec()))).collect();
    subject::send(&subject::writer(&broker.bootstrap(), None), "table", 0, &records);
    (broker, session, OutputPartition { output: "table".to_owned(), partition: 0 })
}

/// A broker that was no leader any more ended a job for good, as if its output had lost records.
#[test]
fn an_end_before_what_is_committed_is_asked_for_again_and_told() {
    let (broker, session, at) = ten_committed();
    // The beginning and the end are two requests. The pauses between twenty answers take about two seconds.
    broker.fault(Fault::old_end(3).times(40).client("questions"));
    let (end, lines) = logged(|| session.read_committed(&at, Offset(10), &mut |record| panic!("{record:?}")));
    assert_eq!(end.unwrap(), Offset(10));
    check_told(&lines, &["topic 'table' partition 0 ends at offset 3", "written up to 10"]);
}

#[test]
fn an_end_that_stays_before_what_is_committed_is_believed() {
    let (broker, session, at) = ten_committed();
    broker.fault(Fault::old_end(3).always().client("questions"));
    let begun = Instant::now();
    let mut read = 0;
    assert_eq!(session.read_committed(&at, Offset(10), &mut |_| read += 1).unwrap(), Offset(3));
    let took = begun.elapsed();
    assert!(read == 0 && Duration::from_secs(3) <= took && took < Duration::from_secs(8), "{read} records in {took:?}");
    // Who asks for the end alone knows of nothing that contradicts it.
    let begun = Instant::now();
    assert_eq!(session.end(&at).unwrap(), Offset(3));
    assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
}
