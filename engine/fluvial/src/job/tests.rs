//! Outputs that are written from streams, compared with naive recomputation.

#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::sync::Arc;

use fluvial_connector::format::{Encode, Format, Json, Text};
use fluvial_connector::{BoxError, Output};
use fluvial_memory::Memory;
use proptest::prelude::*;

use super::Job;
use crate::harness::JobTest;
use crate::runtime::plan::plan;

/// A record that is fed: its key, and its value or deletion.
type Fed = (String, Option<i64>);
/// A message: partition, key and value.
type Message = (u32, String, Option<String>);

/// Writes each record, and copies of it beside, to an append and an upsert output, and keeps the newest value of each key.
fn copies(job: &mut Job<'_>) -> anyhow::Result<()> {
    let memory = Memory::new();
    let rows = job.source("rows", memory.source("rows")).format((Text, Json)).keyed::<String, i64>();
    let copied = rows.clone().flat_map(|(key, value)| {
        let copies = value.unwrap_or(0);
        (0..copies).map(move |copy| (format!("{key}{copy}"), value.map(|value| 10 * value + copy))).collect::<Vec<_>>()
    });
    let all = rows.clone().filter(|(key, _)| key != "a").union(copied);
    job.output(memory.upsert("changelog", 4)).format((Text, Json)).write_changelog(all.clone());
    let negated = all.map(|(key, value)| (key, -value.unwrap_or(1000)));
    job.output(memory.append_to("log", 4)).format((Text, Json)).write_stream(negated);
    job.output(memory.upsert("kept", 4)).format((Text, Json)).write(rows.latest("kept"));
    Ok(())
}

/// What `copies` should write to its append output for the records of a tick, of which the `before` first were fed earlier; and
/// to its upsert output.
fn expected(records: &[Fed], before: usize) -> (Vec<Message>, Vec<Message>) {
    let mut all: Vec<(String, Option<i64>)> = Vec::new();
    // The harness deals records to four splits.
    for split in 0..4 {
        for (_, (key, value)) in records.iter().enumerate().filter(|(at, _)| (before + at) % 4 == split) {
            if key != "a" {
                all.push((key.clone(), *value));
            }
            for copy in 0..value.unwrap_or(0) {
                all.push((format!("{key}{copy}"), Some(10 * value.unwrap() + copy)));
            }
        }
    }
    let partition_of = Memory::new().upsert("any", 4).spec().partition_of;
    let message = |(key, value): &(String, Option<i64>)| {
        (partition_of(key.as_bytes(), 4), key.clone(), value.map(|value| value.to_string()))
    };
    let mut log: Vec<Message> =
        all.iter().map(|(key, value)| message(&(key.clone(), Some(-value.unwrap_or(1000))))).collect();
    log.sort_by_key(|(partition, ..)| *partition);
    let mut newest: BTreeMap<&String, usize> = BTreeMap::new();
    newest.extend(all.iter().enumerate().map(|(at, (key, _))| (key, at)));
    let is_newest = |(at, record): (usize, &(String, Option<i64>))| (newest[&record.0] == at).then(|| message(record));
    let mut changelog: Vec<Message> = all.iter().enumerate().filter_map(is_newest).collect();
    changelog.sort_by_key(|(partition, ..)| *partition);
    (log, changelog)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn a_stream_is_written_in_the_order_of_its_input_with_any_number_of_workers_and_after_any_restart(
        ticks in proptest::collection::vec(
            proptest::collection::vec(("[abc]{1,2}", proptest::option::of(0..4_i64)), 0..30), 1..6),
        workers in 1..4_usize,
        restart in proptest::option::of((1..6_u64, 1..4_usize)),
    ) {
        let mut test = JobTest::new(workers, copies);
        let last = ticks.len() as u64;
        for (tick, records) in (1..).zip(&ticks) {
            let text = |(key, value): &Fed| (Some(key.clone()), value.map(|value| value.to_string()));
            test.feed("rows", tick, records.iter().map(text));
        }
        (1..=last).for_each(|tick| test.advance_past(tick));
        if let Some((tick, workers)) = restart {
            // The messages after the checkpoint are compared with those of the first time; what is restored becomes none.
            test.restart_at(tick.min(last), workers);
        }
        let mut before = 0;
        for (tick, records) in (1..).zip(&ticks) {
            let (log, changelog) = expected(records, before);
            prop_assert_eq!(test.messages_at("log", tick), log);
            prop_assert_eq!(test.messages_at("changelog", tick), changelog);
            before += records.len();
        }
    }
}

#[test]
fn each_record_goes_to_the_topic_that_its_value_names_and_keeps_its_place_there() {
    let mut test = JobTest::new(3, |job| {
        let memory = Memory::new();
        let numbers = job.source("numbers", memory.source("numbers")).format(Json).stream::<u64>();
        let numbers = numbers.map(|number| ("n", number));
        for (topic, rest) in [("threes", 0), ("ones", 1)] {
            let routed = numbers.clone().filter(move |(_, number)| number % 3 == rest);
            job.output(memory.append_to(topic, 4)).format((Text, Json)).write_stream(routed);
        }
        Ok(())
    });
    test.feed("numbers", 1, (0..30).map(|number: u64| (None, Some(number.to_string()))));
    test.advance_past(1);
    let of_topic = |topic| -> Vec<u64> {
        test.messages_at(topic, 1).into_iter().filter_map(|(_, _, value)| value?.parse().ok()).collect()
    };
    for (topic, rest) in [("threes", 0), ("ones", 1)] {
        // The harness deals records to four splits, which follow each other in the order of a tick.
        let expected: Vec<u64> =
            (0..4).flat_map(|split| (0..30).filter(move |n| n % 4 == split && n % 3 == rest)).collect();
        assert_eq!(of_topic(topic), expected, "{topic}");
    }
}

/// Writes even numbers, and no others.
struct Even;

impl Format for Even {}

impl Encode<u32> for Even {
    fn encode(&self, number: &u32, into: &mut Vec<u8>) -> Result<(), BoxError> {
        into.extend_from_slice(number.to_string().as_bytes());
        if number.is_multiple_of(2) { Ok(()) } else { Err("it is odd".into()) }
    }
}

#[test]
fn a_record_that_cannot_be_written_ends_the_job_and_nothing_of_its_tick_is_complete() {
    for workers in [1, 3] {
        let mut test = JobTest::new(workers, |job| {
            let memory = Memory::new();
            let numbers = job.source("numbers", memory.source("numbers")).format(Json).stream::<u32>();
            job.output(memory.append_to("out", 4)).format(Even).write_stream(numbers.map(|n| (2, n)));
            Ok(())
        });
        test.feed("numbers", 1, [(None, Some("2")), (None, Some("4"))]);
        test.advance_past(1);
        test.feed("numbers", 2, [(None, Some("6")), (None, Some("7")), (None, Some("8"))]);
        let error = test.try_advance_past(2).unwrap_err();
        let parts =
            ["a row of output 'out' cannot be encoded (on the record at offset 0 of split number 3", "it is odd"];
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert_eq!(test.messages_at("out", 2), []);
    }
}

#[test]
fn an_append_output_takes_no_deletions() {
    let mut test = JobTest::new(1, |job| {
        let memory = Memory::new();
        let rows = job.source("rows", memory.source("rows")).format(Json).keyed::<u32, i64>();
        job.output(memory.append_to("log", 1)).format(Json).write_changelog(rows);
        Ok(())
    });
    let error = test.try_advance_past(1).unwrap_err();
    let expected = "output 'log' is an append output, and `write_changelog` writes what replaces earlier records";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn the_plan_of_a_job_names_the_outputs_of_streams_by_their_kinds() {
    let build: crate::runtime::Build = Arc::new(|job: &mut Job<'_>| {
        let memory = Memory::new();
        let rows = job.source("rows", memory.source("rows")).format(Json).keyed::<u32, i64>();
        job.output(memory.upsert("copy", 1)).format(Json).write_changelog(rows.clone());
        job.output(memory.append_to("log", 1)).format(Json).write_stream(rows.map(|(key, _)| (key, key)));
        Ok(())
    });
    let topology = plan(&build).unwrap();
    let kinds: Vec<String> =
        topology.outputs.iter().map(|output| format!("{} {}", output.name, output.envelope)).collect();
    assert_eq!(kinds, ["copy stream-written", "log append"]);
    let about = |name: &str| {
        topology
            .graph
            .nodes
            .iter()
            .find(|node| node.name == name)
            .and_then(|node| node.about.clone())
            .unwrap_or_default()
    };
    assert!(
        about("copy").starts_with("StreamWritten, ") && about("log").starts_with("Append, "),
        "{:?}",
        topology.graph
    );
    assert!(topology.operators.is_empty());
}
