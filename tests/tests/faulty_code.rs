//! User code that does what it must not: it is caught, named, and nothing wrong becomes visible.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use fluvial_tests::campaign::Subject;
use fluvial_tests::client::{Isolation, Message};
use fluvial_tests::history::compare;
use fluvial_tests::stage::{MOST, Stage};
use serde_json::Value;

const KEPT: &str = "--keep-journal --tick-header";

/// A stage for the job `faulty` of this package.
fn stage() -> Stage {
    Stage::new(Subject::Orders, 2).unwrap().with_program(env!("CARGO_BIN_EXE_faulty"))
}

/// The rows that the job should have for the input as it is, and those that its output shows.
fn rows(stage: &Stage) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
    let text = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8(bytes).unwrap());
    let mut expected = BTreeMap::new();
    for record in stage.endpoint().read(&stage.input(), Isolation::Committed).unwrap() {
        let key = serde_json::to_string(&text(record.key).unwrap()).unwrap();
        match text(record.value) {
            Some(value) => {
                let order: Value = serde_json::from_str(&value).unwrap();
                let revenue = order["quantity"].as_i64().unwrap() * order["price_cents"].as_i64().unwrap();
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
    let ended = stage.start(&format!("{random} --stop-at-end")).unwrap().finish(MOST).unwrap();
    ended.failed_with(1, &[&output, "tick", "not deterministic", "run --reconcile"]).unwrap();
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
    let order = |price: u32| {
        format!(
            r#"{{"order_id":7,"customer":"c","region":"eu","product":"p","quantity":1,"price_cents":{price},"at":0}}"#
        )
    };
    let (fine, nothing) = (order(5), order(0));
    let messages = [("new-1", &fine), ("new-2", &fine), ("poison", &nothing), ("new-3", &fine)];
    let messages = messages.map(|(key, value)| Message::text(&input, 0, key, value));
    stage.endpoint().writer(&[]).unwrap().write(&messages).unwrap();
    let ended = job.finish(MOST).unwrap();
    ended.failed_with(10, &["operator 'map' on worker ", "order poison comes to nothing"]).unwrap();
    assert!(job.job().peers().is_empty());
    // A restart would do the same again, so there was none; and the same happens when a person tries.
    assert_eq!(stage.journal().unwrap().generations, 1);
    let again = stage.start(&panics).unwrap().finish(MOST).unwrap();
    again.failed_with(10, &["order poison comes to nothing"]).unwrap();
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
    let ended = job.finish(Duration::from_secs(20)).unwrap();
    ended.failed_with(1, &[&format!("offset {offset}"), &input, "split 1"]).unwrap();
}
