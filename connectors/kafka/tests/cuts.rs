//! Cuts over several outputs, written by workers that commit apart.
#![allow(clippy::unwrap_used)]

mod subject;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_connector::{
    Generation, Incarnation, Offset, OutputPartition, OutputRecord, PartitionWrite, Progress, Sink, SinkContext,
    SinkSession, Tick, TickCount, Transaction, Transactor, WriterId,
};
use fluvial_kafka::{Cut, CutReader, Kafka};
use fluvial_kafka_embedded::{ApiKey, Broker, Config};

const OUTPUTS: [&str; 2] = ["left", "right"];

/// A job whose workers each own some of the four output partitions.
struct Job {
    session: Arc<dyn SinkSession>,
    incarnation: Incarnation,
    generation: u64,
    ends: BTreeMap<OutputPartition, Offset>,
    workers: Vec<Box<dyn Transactor>>,
}

impl Job {
    fn new(kafka: &Kafka) -> Self {
        let outputs = OUTPUTS.map(|name| kafka.upsert(name));
        let specs = outputs.each_ref().map(fluvial_connector::Output::spec);
        let sink: Arc<dyn Sink> = fluvial_connector::Output::sink(&outputs[0]);
        let context = SinkContext::new("job", subject::PATIENCE);
        let session = sink.connect(&context, &specs).unwrap();
        let (incarnation, ends) = (Incarnation(uuid::Uuid::new_v4()), BTreeMap::new());
        Self { session, incarnation, generation: 0, ends, workers: Vec::new() }
    }

    fn open(&mut self, workers: u32) {
        self.generation += 1;
        let fence = |slot| self.session.fence(&WriterId { incarnation: self.incarnation, slot, turn: 0 }).unwrap();
        self.workers = (0..workers).map(fence).collect();
    }

    fn partitions(&self, worker: usize) -> Vec<OutputPartition> {
        let all = OUTPUTS.iter().flat_map(|output| (0..2).map(move |partition| (*output, partition)));
        let own = all.enumerate().filter(|(number, _)| number % self.workers.len() == worker);
        own.map(|(_, (output, partition))| OutputPartition { output: output.to_owned(), partition }).collect()
    }

    /// Commits one worker's partitions through a tick that has no records.
    fn heartbeat(&mut self, worker: usize, tick: u64) {
        self.commit_through(worker, &[], tick);
    }

    /// Commits one worker's partitions: each tick of `ticks` has one record in each partition.
    fn commit(&mut self, worker: usize, ticks: std::ops::RangeInclusive<u64>) {
        let ticks: Vec<u64> = ticks.collect();
        self.commit_through(worker, &ticks, ticks[ticks.len() - 1]);
    }

    fn commit_through(&mut self, worker: usize, ticks: &[u64], last: u64) {
        let writes: Vec<_> = self
            .partitions(worker)
            .into_iter()
            .map(|at| {
                let end = self.ends.get(&at).copied().unwrap_or_default();
                let records: Vec<_> = ticks
                    .iter()
                    .map(|tick| OutputRecord { key: b"k".to_vec(), value: Some(tick.to_string().into_bytes()) })
                    .collect();
                let count = |(records, tick): (usize, &u64)| TickCount { tick: Tick(*tick), records };
                PartitionWrite {
                    at,
                    records: records.into(),
                    ticks: (1..).zip(ticks).map(count).collect(),
                    progress: Progress::complete(self.incarnation, Generation(self.generation), Tick(last), end),
                }
            })
            .collect();
        let transaction = Transaction { slot: u32::try_from(worker).unwrap(), writes };
        let ends = self.workers[worker].prepare(&transaction).unwrap();
        self.workers[worker].commit().unwrap();
        self.ends.extend(transaction.writes.into_iter().map(|write| write.at).zip(ends));
    }
}

fn next(cuts: &mut CutReader) -> Cut {
    cuts.next_cut(subject::PATIENCE).unwrap().expect("a cut comes in time")
}

/// Whether a cut holds exactly what the job writes at its tick.
fn check(cut: &Cut, tick: u64) {
    assert_eq!(cut.tick, Tick(tick));
    let mut partitions: Vec<_> = cut.records.iter().map(|record| (&*record.topic, record.partition)).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, [("left", 0), ("left", 1), ("right", 0), ("right", 1)], "at tick {tick}");
    for record in &cut.records {
        assert_eq!(record.value.as_deref(), Some(tick.to_string().as_bytes()));
        assert_eq!(record.tick, Tick(tick));
    }
}

fn start() -> (Broker, Kafka) {
    let broker = Broker::start(Config::default()).unwrap();
    let kafka = subject::kafka(&broker.bootstrap());
    (broker, kafka)
}

#[test]
fn every_tick_has_a_cut_of_its_own_whoever_commits_first() {
    let (_broker, kafka) = start();
    let mut job = Job::new(&kafka);
    job.open(3);
    job.commit(1, 1..=4);
    let mut cuts = kafka.cuts("job", OUTPUTS, subject::PATIENCE).unwrap();
    job.commit(0, 1..=1);
    job.commit(2, 1..=3);
    check(&next(&mut cuts), 1);
    let begun = Instant::now();
    assert_eq!(cuts.next_cut(Duration::from_millis(300)).unwrap(), None, "one worker is behind");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(cuts.tick(), Some(Tick(1)));
    job.commit(0, 2..=4);
    check(&next(&mut cuts), 2);
    check(&next(&mut cuts), 3);
    job.commit(2, 4..=4);
    check(&next(&mut cuts), 4);

    // Another number of workers: progress of a partition goes on in another place.
    job.open(2);
    job.commit(1, 5..=9);
    job.commit(0, 5..=6);
    job.open(4);
    job.commit(0, 7..=9);
    job.commit(2, 7..=9);
    for tick in 5..=9 {
        check(&next(&mut cuts), tick);
    }
    assert_eq!(cuts.tick(), Some(Tick(9)));

    let mut again = kafka.cuts("job", OUTPUTS, subject::PATIENCE).unwrap();
    for tick in 1..=9 {
        check(&next(&mut again), tick);
    }
    while !again.caught_up() {
        assert_eq!(again.next_cut(Duration::from_millis(100)).unwrap(), None);
    }
}

#[test]
fn a_partition_that_is_far_ahead_rests_and_loses_nothing() {
    let (_broker, kafka) = start();
    let mut job = Job::new(&kafka);
    job.open(2);
    for part in 0..13u64 {
        job.commit(0, part * 10_000 + 1..=part * 10_000 + 10_000);
    }
    let mut cuts = kafka.cuts("job", OUTPUTS, subject::PATIENCE).unwrap();
    // The other worker has said nothing yet.
    assert_eq!(cuts.next_cut(Duration::from_millis(1500)).unwrap(), None);
    for part in 0..13u64 {
        job.commit(1, part * 10_000 + 1..=part * 10_000 + 10_000);
    }
    for tick in 1..=130_000 {
        check(&next(&mut cuts), tick);
    }
}

#[test]
fn records_that_no_progress_covers_are_not_handed_out() {
    let (broker, kafka) = start();
    let mut job = Job::new(&kafka);
    job.open(1);
    job.commit(0, 1..=2);
    let other_writer = subject::writer(&broker.bootstrap(), None);
    subject::send(&other_writer, "left", 0, &[(Some(b"other".to_vec()), Some(b"3".to_vec()))]);
    let mut cuts = kafka.cuts("job", OUTPUTS, subject::PATIENCE).unwrap();
    check(&next(&mut cuts), 1);
    check(&next(&mut cuts), 2);
    // When the client sends the second request from now on, it has received the answers to all earlier ones, and the other
    // writer's record in one of them.
    let (begun, before) = (Instant::now(), broker.requests(ApiKey::Fetch));
    while broker.requests(ApiKey::Fetch) < before + 2 {
        assert!(begun.elapsed() < subject::PATIENCE, "the reader asks no more");
        assert_eq!(cuts.next_cut(Duration::from_millis(50)).unwrap(), None);
    }
}

#[test]
fn ticks_pass_also_where_nothing_is_written() {
    let (_broker, kafka) = start();
    let mut job = Job::new(&kafka);
    job.open(2);
    let mut cuts = kafka.cuts("job", OUTPUTS, subject::PATIENCE).unwrap();
    assert_eq!((cuts.next_cut(Duration::ZERO).unwrap(), cuts.tick()), (None, None));
    job.heartbeat(0, 7);
    job.heartbeat(1, 9);
    let begun = Instant::now();
    while !(cuts.caught_up() && cuts.tick() == Some(Tick(7))) {
        assert!(begun.elapsed() < subject::PATIENCE, "the tick passes in time; it is {:?}", cuts.tick());
        assert_eq!(cuts.next_cut(Duration::from_millis(50)).unwrap(), None);
    }
}

#[test]
fn records_older_than_the_oldest_progress_are_in_the_first_cut() {
    let (broker, kafka) = start();
    let mut job = Job::new(&kafka);
    job.open(1);
    for tick in 1..=4 {
        job.commit(0, tick..=tick);
    }
    // A commit takes six offsets there: a touch, four partitions, a marker.
    let topic = fluvial_kafka::progress_topic("job");
    subject::Admin::of(&broker.bootstrap()).delete_records(&topic, 0, Offset(12));
    let mut cuts = kafka.cuts("job", OUTPUTS, subject::PATIENCE).unwrap();
    let first = next(&mut cuts);
    assert_eq!((first.tick, first.records.len()), (Tick(3), 12));
    check(&next(&mut cuts), 4);
}
