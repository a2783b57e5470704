//! Every fail point is really passed, and a process that is killed there leaves nothing half done.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fluvial::FailPoint;
use fluvial_tests::campaign::{Subject, Witness};
use fluvial_tests::client::{Isolation, Seen};
use fluvial_tests::stage::{MOST, OUTPUT_PARTITIONS, Stage, Started};
use rustix::process::Signal;

/// Two processes; checkpoints and deletions soon, so that there are merges, and objects that nothing names any more.
const OPTIONS: &str =
    "--processes 2 --workers 4 --keep-journal --tick-header --checkpoint-every 100ms --deletion-grace 2s";

/// Writes input bit by bit until the job has ended.
fn feed_until_it_ends(stage: &Stage, job: &Started, next: &mut u64) {
    let start = Instant::now();
    while job.process().status().is_none() && start.elapsed() < MOST {
        stage.feed(*next..*next + 20).unwrap();
        *next += 20;
        // Returns early when the job ends.
        let _ = job.process().wait(Duration::from_millis(20));
    }
}

#[test]
fn every_fail_point_is_reached_and_the_output_is_right_after_all_of_them() {
    let stage = Stage::new(Subject::Orders, 3).unwrap();
    let mut next = 100;
    let witness = Witness::of(stage.store().join(stage.name()));
    stage.feed(0..100).unwrap();
    stage.complete(&format!("{OPTIONS} --stop-at-end")).unwrap();
    for &point in FailPoint::ALL {
        let name = point.name();
        let job = stage.start(&format!("{OPTIONS} --no-restart --fail-point {name}=kill")).unwrap();
        feed_until_it_ends(&stage, &job, &mut next);
        let finished = job.finish(Duration::ZERO).unwrap_or_else(|error| panic!("{name} is never reached: {error:#}"));
        assert!(finished.said.contains(&format!("fail point {name} reached")), "{name}: {}", finished.said);
        // SIGKILL, as the supervisor saw it.
        finished.failed_with(4, &["signal: 9"]).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
    stage.complete(&format!("{OPTIONS} --stop-at-end")).unwrap();
    stage.check().unwrap();
    let seen = witness.asked();
    assert!(seen.merges > 0 && seen.deletions > 0, "{seen:?}");
}

#[test]
fn a_fail_point_is_for_the_first_generation_alone() {
    let stage = Stage::new(Subject::Bank, 2).unwrap();
    stage.feed(0..100).unwrap();
    let finished = stage.complete(&format!("{OPTIONS} --stop-at-end --fail-point after-claiming=kill")).unwrap();
    assert_eq!(finished.said.matches("fail point after-claiming reached").count(), 1, "{}", finished.said);
    stage.check().unwrap();
}

/// A key and a value.
type Pair = (Vec<u8>, Vec<u8>);

/// The key of a record, and what the job without state writes for it: the revenue of the order, or `null` if it is cancelled,
/// with the partition and the offset of the record.
fn mapped(record: &Seen) -> Pair {
    let key = record.key.clone().unwrap_or_default();
    let revenue = record.value.as_ref().map(|value| {
        let order: serde_json::Value = serde_json::from_slice(value).unwrap();
        order["quantity"].as_i64().unwrap() * order["price_cents"].as_i64().unwrap()
    });
    let revenue = revenue.map_or("null".to_owned(), |revenue| revenue.to_string());
    (key, format!("[{revenue},{},{}]", record.partition, record.offset).into_bytes())
}

/// The records by two partitions, in their order: that of the input in which their keys lie, and their own.
fn by_partitions(
    records: &[Seen],
    of_input: &BTreeMap<Vec<u8>, i32>,
    of_output: impl Fn(&Seen) -> i32,
    record: impl Fn(&Seen) -> Pair,
) -> BTreeMap<(i32, i32), Vec<Pair>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for seen in records {
        let (key, value) = record(seen);
        all.entry((of_input[&key], of_output(seen))).or_default().push((key, value));
    }
    all
}

#[test]
fn a_job_without_state_that_is_killed_in_the_middle_writes_the_map_of_its_input_in_order_and_once() {
    let stage = Stage::new(Subject::Orders, 3).unwrap().with_program(env!("CARGO_BIN_EXE_faulty"));
    let options = "--stateless --append --processes 2 --workers 4 --checkpoint-every 300ms";
    stage.endpoint().create_topic(&stage.outputs()[0], OUTPUT_PARTITIONS, &[]).unwrap();
    let mut next = 2000;
    stage.feed(0..next).unwrap();
    for blow in 0..6 {
        let job = stage.start(options).unwrap();
        let before = stage.visible().unwrap();
        for _ in 0..5 {
            stage.feed(next..next + 200).unwrap();
            next += 200;
        }
        stage.wait_for_more_than(before, &job).unwrap();
        // One process, after which the run starts the next generation; then all of them.
        job.signal_peer(blow % 2, Signal::KILL).unwrap();
        stage.feed(next..next + 500).unwrap();
        next += 500;
        let before = stage.visible().unwrap();
        stage.wait_for_more_than(before, &job).unwrap();
        drop(job);
    }
    stage.complete(&format!("{options} --stop-at-end")).unwrap();
    let input = stage.endpoint().read(&stage.input(), Isolation::Committed).unwrap();
    assert_eq!(input.len() as u64, next);
    let output = stage.endpoint().read(&stage.outputs()[0], Isolation::Committed).unwrap();
    let of_input = input.iter().map(|record| (record.key.clone().unwrap_or_default(), record.partition)).collect();
    let of_output: BTreeMap<_, _> = output.iter().map(|record| (record.key.clone(), record.partition)).collect();
    assert!((0..OUTPUT_PARTITIONS).all(|partition| of_output.values().any(|of| *of == partition)));
    let expected = by_partitions(&input, &of_input, |record| of_output[&record.key], mapped);
    let plain = |record: &Seen| (record.key.clone().unwrap_or_default(), record.value.clone().unwrap_or_default());
    let written = by_partitions(&output, &of_input, |record| record.partition, plain);
    assert_eq!(written, expected);
}
