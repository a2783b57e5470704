//! User code that does what it must not, and records that it cannot read: caught, named, and nothing wrong becomes
//! visible.

use std::collections::BTreeMap;

use fluvial_tests::client::{Isolation, Message};
use fluvial_tests::history::compare;
use fluvial_tests::stage::{Finished, MOST, Stage};
use fluvial_tests::subject::Subject;
use serde_json::Value;

use super::{KEPT, SOON, assert_refused, faulty};

/// An order that comes to so much.
fn order(cents: u32) -> String {
    format!(r#"{{"order_id":7,"customer":"c","region":"eu","product":"p","quantity":1,"price_cents":{cents},"at":0}}"#)
}

fn stage() -> Stage {
    faulty(Stage::new(Subject::Orders, 2).unwrap())
}

/// The rows that the job `faulty` should have for the input as it is, and those that its output shows. What is no order
/// has none.
pub(super) fn rows(stage: &Stage) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let text = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8(bytes).unwrap());
    let mut expected = BTreeMap::new();
    for record in stage.endpoint().read(&stage.input(), Isolation::Committed).unwrap() {
        let key = serde_json::to_string(&text(record.key).unwrap()).unwrap();
        match text(record.value) {
            Some(value) => {
                let Ok(order) = serde_json::from_str::<Value>(&value) else { continue };
                let (quantity, price) = (order["quantity"].as_i64(), order["price_cents"].as_i64());
                let Some(revenue) = quantity.zip(price).map(|(quantity, price)| quantity * price) else { continue };
                expected.insert(key, revenue.to_string());
            }
            None => drop(expected.remove(&key)),
        }
    }
    let seen = stage.table().unwrap().into_iter().map(|((_, key), value)| (key, value)).collect();
    (expected, seen)
}

#[test]
fn code_that_is_not_deterministic_is_caught_at_the_first_restart_and_reconciled() {
    let stage = stage();
    let random = format!("{KEPT} --wrong random --checkpoint-every 1h");
    let job = stage.start(&format!("{random} --processes 2")).unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_for_more_than(0, &job).unwrap();
    job.job().kill_all().unwrap();
    let output = stage.outputs().swap_remove(0);
    let is_refused = || {
        let ended = stage.start(&format!("{random} --stop-at-end")).unwrap().finish(MOST).unwrap();
        assert_refused(&ended, 1, &[&output, "tick", "not deterministic", "run --reconcile"]);
        stage.endpoint().lines(&output, Isolation::Committed).unwrap()
    };
    // The first of the two also ends the transactions that were open when the job was killed.
    let before = is_refused();
    assert_eq!(is_refused(), before, "a run that was refused has written something");
    // The code is put right, and the output with it.
    let right = format!("{KEPT} --stop-at-end");
    stage.complete(&format!("{right} --reconcile --workers 3")).unwrap();
    let (expected, seen) = rows(&stage);
    assert_eq!(expected, seen);
    // From then on it is a job like any other.
    stage.feed(100..150).unwrap();
    stage.complete(&right).unwrap();
    stage.complete(&right).unwrap();
    let (expected, seen) = rows(&stage);
    assert_eq!(expected, seen);
}

#[test]
fn a_panic_of_user_code_ends_the_run_and_commits_nothing_half() {
    let stage = stage();
    let panics = format!("{KEPT} --wrong panics --processes 2 --workers 4");
    let job = stage.start(&panics).unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_for_more_than(0, &job).unwrap();
    let input = stage.input();
    let (fine, nothing) = (order(5), order(0));
    let messages = [("new-1", &fine), ("new-2", &fine), ("poison", &nothing), ("new-3", &fine)];
    let messages = messages.map(|(key, value)| Message::text(&input, 0, key, value));
    let poison = stage.broker().end_offsets(&input)[0] + 2;
    stage.endpoint().writer(&[]).unwrap().write(&messages).unwrap();
    let ended = job.finish(MOST).unwrap();
    let record = format!("on the record at offset {poison} of kafka topic '{input}' ");
    assert_refused(&ended, 10, &["operator 'map' on worker ", &record, "in tick 1", "order poison comes to nothing"]);
    assert!(job.job().peers().is_empty());
    // A restart would do the same again, so there was none; and the same happens when a person tries.
    assert_eq!(stage.journal().unwrap().generations, 1);
    let again = stage.start(&panics).unwrap().finish(MOST).unwrap();
    assert_refused(&again, 10, &[&record, "order poison comes to nothing"]);
    // What is visible is what the ticks before the poisoned one give, whole.
    let before = stage.seen().unwrap();
    let all = stage.replay("").unwrap();
    let last = before.iter().map(|record| record.tick).max().unwrap();
    let whole: Vec<_> = all.iter().filter(|record| record.tick <= last).cloned().collect();
    let verdict = compare(&whole, &before);
    assert!(verdict.is_clean(), "{verdict}");
    assert!(!before.iter().any(|record| record.key.contains("poison")));
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    let verdict = compare(&stage.replay("--workers 2").unwrap(), &stage.seen().unwrap());
    assert!(verdict.is_clean(), "{verdict}");
    let (expected, seen) = rows(&stage);
    assert_eq!(expected, seen);
    let why = format!("{:#}", stage.ask("replay", "--wrong panics").unwrap_err());
    assert!(why.contains("exit status: 10") && why.contains("error: operator 'map' on worker 0 panicked"), "{why}");
}

#[test]
fn a_record_that_cannot_be_decoded_is_named() {
    let stage = stage();
    let job = stage.start(KEPT).unwrap();
    stage.feed(0..20).unwrap();
    stage.wait_for_more_than(0, &job).unwrap();
    let input = stage.input();
    let offset = stage.broker().end_offsets(&input)[1];
    let bad = Message::text(&input, 1, "bad", "{\"quantity\":");
    stage.endpoint().writer(&[]).unwrap().write(&[bad]).unwrap();
    let ended = job.finish(SOON).unwrap();
    assert_refused(&ended, 1, &[&format!("offset {offset}"), &input, "partition 1", "EOF while parsing"]);
    // A restart meets it again, and commits no more than before.
    let before = stage.table().unwrap();
    assert_refused(&stage.start(KEPT).unwrap().finish(SOON).unwrap(), 1, &[&format!("offset {offset}")]);
    assert_eq!(stage.table().unwrap(), before);
    // It is no part of a replay, which ends where the journal does.
    let (seen, all) = (stage.seen().unwrap(), stage.replay("").unwrap());
    let last = seen.iter().map(|record| record.tick).max().unwrap();
    let through: Vec<_> = all.into_iter().filter(|record| record.tick <= last).collect();
    let verdict = compare(&through, &seen);
    assert!(verdict.is_clean(), "{verdict}");
}

#[test]
fn a_record_that_cannot_be_decoded_is_skipped_and_counted_where_the_job_says_so() {
    let stage = stage();
    let skips = format!("{KEPT} --skip-malformed --checkpoint-every 1h");
    let job = stage.start(&skips).unwrap();
    stage.feed(0..20).unwrap();
    let input = stage.input();
    let bad = [Message::text(&input, 0, "bad", "no order"), Message::text(&input, 1, "bad", "{}")];
    stage.endpoint().writer(&[]).unwrap().write(&bad).unwrap();
    stage.feed(20..40).unwrap();
    let caught_up = || Ok(!stage.table()?.is_empty() && rows(&stage).0 == rows(&stage).1);
    stage.wait_for_more_than(0, &job).unwrap();
    stage.wait_until(&job, "all rows", caught_up).unwrap();
    let log = std::fs::read_to_string(job.process().log()).unwrap();
    for (partition, record) in [(0, "expected"), (1, "missing field")] {
        let line =
            log.lines().find(|line| line.contains("skipped") && line.contains(&format!("partition {partition}")));
        let line = line.unwrap_or_else(|| panic!("nothing is said of partition {partition}:\n{log}"));
        assert!(line.contains(&input) && line.contains("offset") && line.contains(record), "{line}");
    }
    assert!(log.contains("skipped=2") && !log.contains("skipped=3"), "{log}");
    // They are skipped again at a replay, which is otherwise what it was.
    job.job().kill_all().unwrap();
    stage.complete(&format!("{skips} --stop-at-end")).unwrap();
    assert_eq!(rows(&stage).0, rows(&stage).1);
}

#[test]
fn the_jobs_leave_out_what_they_cannot_decode_where_they_are_told_to() {
    for subject in [Subject::Orders, Subject::Bank] {
        let stage = Stage::new(subject, 2).unwrap();
        stage.feed(0..40).unwrap();
        let expected = stage.table_of_input().unwrap();
        let (input, offset) = (stage.input(), stage.broker().end_offsets(&stage.input())[1]);
        let bad = Message::text(&input, 1, "bad", "no JSON");
        stage.endpoint().writer(&[]).unwrap().write(&[bad]).unwrap();
        let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
        assert_refused(&refused, 1, &[&format!("offset {offset}"), &input, "partition 1"]);
        let said = stage.complete("--stop-at-end --on-malformed skip").unwrap().said;
        assert!(said.lines().any(|line| line.contains("skipped=1") && line.contains(&input)), "{said}");
        assert_eq!(stage.table().unwrap(), expected);
    }
}

/// What other programs write is recognised where it cannot be read, with the partition as Kafka calls it.
#[test]
fn foreign_bytes_are_named() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let change = format!(r#"{{"before":null,"after":{},"source":{{"db":"shop"}},"op":"c"}}"#, order(5));
    let confluent = b"\0\0\0\0\x2a\x0e";
    for (value, parts) in [
        (&confluent[..], ["00 00 00 00 2a 0e (looks like Avro, Protobuf or JSON Schema", "schema id 42"]),
        (change.as_bytes(), [r#""{\"before\":null"#, "looks like a change event of Debezium"]),
        (b"", ["the value is empty, which is no JSON", "a record that deletes its key has no value"]),
    ] {
        let offset = stage.broker().end_offsets(&stage.input())[1];
        let input = stage.input();
        let message = Message { value: Some(value), ..Message::text(&input, 1, "7", "") };
        stage.endpoint().writer(&[]).unwrap().write(&[message]).unwrap();
        let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
        let at = format!("the record at offset {offset} of kafka topic '{}' partition 1 (", stage.input());
        assert_refused(&refused, 1, &[&[&*at][..], &parts].concat());
        stage.complete("--stop-at-end --on-malformed skip").unwrap();
    }
}

/// As Kafka Connect's JsonConverter without schemas writes a deletion.
#[test]
fn a_json_null_cancels_an_order() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let input = stage.input();
    let write = |key: &str, value: &str| {
        stage.endpoint().writer(&[]).unwrap().write(&[Message::text(&input, 0, key, value)]).unwrap();
        stage.complete("--stop-at-end").unwrap();
        stage.table().unwrap().len()
    };
    assert_eq!(write("7", &order(5)), 1);
    assert_eq!(write("7", "null"), 0);
}

#[test]
fn a_revenue_that_does_not_fit_ends_the_run_with_operator_and_key() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let input = stage.input();
    let order = order(5).replace(r#""price_cents":5"#, &format!(r#""price_cents":{}"#, i64::MAX));
    let orders = ["1", "2"].map(|key| Message::text(&input, 0, key, &order));
    stage.endpoint().writer(&[]).unwrap().write(&orders).unwrap();
    let ended = stage.start("--stop-at-end --workers 2 --processes 2").unwrap().finish(MOST).unwrap();
    let parts = [
        "operator 'revenue' cannot go on at tick ",
        "key Group { region: \"eu\", product: \"p\" }",
        "does not fit i64",
    ];
    assert_refused(&ended, 1, &parts);
    assert!(stage.table().unwrap().is_empty());
}

/// Feeds a job that has this fault an order that comes to nothing, and waits for its end.
fn fed_with_nothing(stage: &Stage, fault: &str) -> (Finished, i64) {
    let job = stage.start(&format!("{KEPT} --workers 2 --processes 2 --wrong {fault}")).unwrap();
    stage.feed(0..50).unwrap();
    stage.wait_for_more_than(0, &job).unwrap();
    let (input, nothing) = (stage.input(), order(0));
    let poison = stage.broker().end_offsets(&input)[0];
    stage.endpoint().writer(&[]).unwrap().write(&[Message::text(&input, 0, "poison", &nothing)]).unwrap();
    let ended = job.finish(MOST).unwrap();
    assert!(!stage.seen().unwrap().iter().any(|record| record.key.contains("poison")));
    (ended, poison)
}

#[test]
fn two_rows_for_one_key_in_an_upsert_output_are_named() {
    let stage = stage();
    let (ended, _) = fed_with_nothing(&stage, "two-rows");
    let output = stage.outputs().swap_remove(0);
    assert_refused(&ended, 1, &[&output, "two rows for the key \"poison\" at tick", "aggregate by the key"]);
    // Put right, it goes on.
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    assert_eq!(rows(&stage).0, rows(&stage).1);
}

#[test]
fn a_panic_in_an_aggregate_names_the_operator() {
    let stage = stage();
    let (ended, poison) = fed_with_nothing(&stage, "panics-in-aggregate");
    let record = format!("on the record at offset {poison} of kafka topic '{}' ", stage.input());
    assert_refused(&ended, 10, &["operator 'rows' on worker ", "faulty.rs", &record, "an order comes to nothing"]);
}

#[test]
fn a_panic_in_an_operator_of_differential_dataflow_names_it() {
    let stage = stage();
    let (ended, poison) = fed_with_nothing(&stage, "panics-in-reduce");
    let range = format!(" {poison}: an order comes to nothing");
    let parts = ["operator 'reduce' on worker ", "in tick ", &stage.input(), " partition ", " offset", &range];
    assert_refused(&ended, 10, &parts);
}

/// A process that was still letting go of its state was killed half a second after the first had ended, and the run
/// counted as one that had lost a process.
#[test]
fn a_process_that_ends_later_than_the_first_is_done_all_the_same() {
    let stage = stage();
    stage.feed(0..50).unwrap();
    let options = format!("{KEPT} --wrong lingers --processes 2 --stop-at-end --no-restart");
    let said = stage.complete(&options).unwrap().said;
    assert!(said.contains("the second process lingers"), "{said}");
    assert_eq!(stage.journal().unwrap().generations, 1);
    let (expected, seen) = rows(&stage);
    assert_eq!(expected, seen);
}
