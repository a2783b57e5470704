//! The progress topic and the journal belong together: one without the other, or with another, is refused. A transaction
//! that somebody has left open in it, or in an output, is named.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use fluvial_kafka_embedded::{ApiKey, Fault};
use fluvial_tests::client::{Isolation, Message};
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;

use super::{KEPT, SOON, args_with, assert_refused, assert_right, completed, written_after};

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn progress(stage: &Stage) -> String {
    format!("{}.fluvial-progress", stage.name())
}

/// A refused run has written nothing, and the job goes on as if it had not been.
fn goes_on(stage: &Stage) {
    stage.feed(100..150).unwrap();
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    stage.check().unwrap();
}

#[test]
fn a_lost_progress_topic_is_refused() {
    let stage = completed(100);
    let before = stage.visible().unwrap();
    assert_eq!(stage.endpoint().delete_topic(&progress(&stage)).unwrap(), "ok");
    let name = progress(&stage);
    for options in ["", "--reconcile"] {
        let refused = stage.start(&format!("--stop-at-end {options}")).unwrap().finish(MOST).unwrap();
        let parts =
            [&*format!("the progress topic '{name}'"), "has the id ", "deleted and recreated", "another --name"];
        assert_refused(&refused, 11, &parts);
        assert_eq!(stage.visible().unwrap(), before, "a run that was refused has written something");
    }
    // The way out: the new job corrects what the old one has left.
    let args = args_with(&stage, "--name", &format!("{}-again", stage.name()), "--reconcile --stop-at-end");
    let ended = stage.start_with(args).unwrap().finish(MOST).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_right(&stage);
}

#[test]
fn the_progress_of_a_job_of_the_same_name_with_another_store_is_refused() {
    let stage = completed(100);
    let before = stage.visible().unwrap();
    let elsewhere = stage.folder().join("elsewhere");
    for _ in 0..2 {
        let args = args_with(&stage, "--store", elsewhere.to_str().unwrap(), "--stop-at-end");
        let refused = stage.start_with(args).unwrap().finish(MOST).unwrap();
        assert_refused(
            &refused,
            11,
            &["is of incarnation", "a job of the same name has written it from another store", "--name"],
        );
    }
    assert_eq!(stage.visible().unwrap(), before);
    goes_on(&stage);
}

#[test]
fn a_store_that_was_put_back_to_an_older_state_is_refused() {
    let stage = completed(50);
    let (older, newer) = (stage.folder().join("older"), stage.folder().join("newer"));
    copy(&stage.store(), &older);
    stage.feed(50..100).unwrap();
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    let before = stage.visible().unwrap();
    std::fs::rename(stage.store(), &newer).unwrap();
    std::fs::rename(&older, stage.store()).unwrap();
    let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 11, &["is committed through tick", "the journal is sealed only through", "older state"]);
    assert_eq!(stage.visible().unwrap(), before);
    std::fs::remove_dir_all(stage.store()).unwrap();
    std::fs::rename(&newer, stage.store()).unwrap();
    goes_on(&stage);
}

#[test]
fn a_copy_of_a_store_under_another_name_is_refused() {
    let stage = completed(100);
    let name = format!("{}-copy", stage.name());
    copy(&stage.store().join(stage.name()), &stage.store().join(&name));
    let before = stage.visible().unwrap();
    let refused = stage.start_with(args_with(&stage, "--name", &name, "--stop-at-end")).unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 11, &["the progress topic ", "is not the one", "the store is a copy of another job's"]);
    assert_eq!(stage.visible().unwrap(), before);
    goes_on(&stage);
}

/// Where the first partition ends, open transactions included.
fn end(stage: &Stage, topic: &str) -> i64 {
    stage.endpoint().watermarks(topic, 0, Isolation::Uncommitted).unwrap().1
}

/// As while a broker restarts: the partition exists, and nobody serves it. librdkafka calls it unknown.
#[test]
fn a_progress_partition_without_a_leader_is_waited_for_and_named() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let job = stage.start("").unwrap();
    stage.feed(0..50).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    let progress = progress(&stage);
    stage.broker().set_leader(&progress, 1, false);
    // The outcome of a transaction is unknown, so that progress is read again.
    stage.broker().fault(Fault::lose(ApiKey::EndTxn));
    stage.feed(50..100).unwrap();
    let log = || std::fs::read_to_string(job.process().log()).unwrap();
    let warning = format!("topic '{progress}' partition 1 has no leader");
    stage.wait_until(&job, "a warning", || Ok(log().contains(&warning))).unwrap();
    stage.broker().set_leader(&progress, 1, true);
    stage.wait_until_caught_up(&job).unwrap();
    assert!(!log().contains("starting the next"), "{}", log());
    assert_eq!(job.terminate(SOON).unwrap().code, Some(0));
    assert_right(&stage);
}

/// Kafka can lose the marker that ends a committed transaction (KAFKA-20734): readers wait for it for ever, and aborting it
/// takes back what was committed.
#[test]
fn a_transaction_whose_marker_is_lost_is_told_within_seconds_and_reconciled_after_it_was_aborted() {
    let stage = completed(50);
    let output = stage.outputs().swap_remove(0);
    let ends = stage.broker().end_offsets(&output);
    stage.broker().withhold_markers(&output);
    let job = stage.start(KEPT).unwrap();
    stage.feed(50..80).unwrap();
    stage.wait_for_journal(&job, "all input in the journal", |journal| journal.records() == 80).unwrap();
    // It commits what is left, and knows nothing of the markers.
    assert_eq!(job.terminate(MOST).unwrap().code, Some(0));

    let since = SystemTime::now();
    let job = stage.start(KEPT).unwrap();
    let log = || std::fs::read_to_string(job.process().log()).unwrap();
    stage.wait_until(&job, "a warning", || Ok(log().contains("nothing has been committed"))).unwrap();
    let said = log();
    let line = said.lines().find(|line| line.contains("nothing has been committed")).unwrap();
    // Ten seconds, and what a start takes on a busy machine.
    let after = written_after(since, line);
    assert!(after < Duration::from_secs(25), "{after:?}: {line}");
    let held = (0..)
        .zip(&ends)
        .find(|(partition, end)| line.contains(&format!("--partition {partition} --start-offset {end}`")));
    assert!(held.is_some(), "no partition with its first offset is named: {line}");
    for part in ["the partition has an open transaction", "abort --topic", &output, "start the job with --reconcile"] {
        assert!(line.contains(part), "the warning does not say {part:?}: {line}");
    }
    // Whoever waits for it notices that it was aborted, and so does whoever comes later.
    stage.broker().abort_withheld();
    let ended = job.finish(MOST).unwrap();
    assert_refused(&ended, 11, &[&output, "which this job had committed, was aborted", "run --reconcile"]);
    let refused = stage.start(&format!("{KEPT} --stop-at-end")).unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 11, &[&output, "which this job had committed, was aborted", "run --reconcile"]);
    stage.complete(&format!("{KEPT} --stop-at-end --reconcile")).unwrap();
    assert_right(&stage);
}

/// The tick that each partition of the output is committed through, as the progress topic says.
fn committed_through(stage: &Stage) -> BTreeMap<Vec<u8>, u64> {
    let mut through = BTreeMap::new();
    for record in stage.endpoint().read(&progress(stage), Isolation::Committed).unwrap() {
        let (Some(key), Some(value)) = (record.key, record.value) else { continue };
        let value: serde_json::Value = serde_json::from_slice(&value).unwrap();
        let tick = through.entry(key).or_default();
        *tick = value["tick"].as_u64().unwrap().max(*tick);
    }
    through
}

/// It was a WARN, and the job went on without the rows.
#[test]
fn a_job_whose_committed_records_are_aborted_while_it_runs_ends_at_the_next_recovery() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let output = stage.outputs().swap_remove(0);
    let job = stage.start(KEPT).unwrap();
    stage.feed(0..50).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    stage.broker().withhold_markers(&output);
    stage.feed(50..80).unwrap();
    stage.wait_for_journal(&job, "all input in the journal", |journal| journal.records() == 80).unwrap();
    let last = stage.journal().unwrap().ticks.iter().rfind(|tick| !tick.ranges.is_empty()).unwrap().tick;
    let all_committed = || Ok(committed_through(&stage).values().all(|tick| *tick >= last));
    stage.wait_until(&job, "progress through the last tick", all_committed).unwrap();
    stage.broker().abort_withheld();

    // The outcome of the next transaction is unknown. It writes one row, so that the other partitions end as before.
    stage.broker().fault(Fault::lose(ApiKey::EndTxn));
    let order = r#"{"order_id":9001,"customer":"c","region":"new","product":"p","quantity":1,"price_cents":1,"at":0}"#;
    stage.endpoint().writer(&[]).unwrap().write(&[Message::text(&stage.input(), 0, "9001", order)]).unwrap();
    let ended = job.finish(MOST).unwrap();
    assert_refused(&ended, 11, &[&output, "which this job had committed, was aborted", "run --reconcile"]);
    stage.complete(&format!("{KEPT} --stop-at-end --reconcile")).unwrap();
    assert_right(&stage);
}

/// A job waits for transactions that are open; one that the cluster has forgotten would have it wait for ever.
#[test]
fn what_an_open_transaction_holds_up_is_named_with_the_way_to_end_it() {
    let stage = completed(50);
    for topic in [progress(&stage), stage.outputs().swap_remove(0)] {
        let begins = end(&stage, &topic);
        let open = stage.endpoint().transactional("forgotten", &[]).unwrap();
        open.begin().unwrap();
        open.write(&[Message::text(&topic, 0, "forgotten", "")]).unwrap();
        let refused = stage.start("--stop-at-end --patience 2s").unwrap().finish(MOST).unwrap();
        let abort = format!("kafka-transactions.sh abort --topic {topic} --partition 0 --start-offset {begins}`");
        assert_refused(&refused, 5, &["an open transaction holds it up", "find-hanging", &abort]);
        open.abort().unwrap();
    }
    goes_on(&stage);
}

#[test]
fn a_transaction_that_may_hold_committed_records_is_not_to_be_aborted() {
    let stage = completed(50);
    let output = stage.outputs().swap_remove(0);
    let job = stage.start(KEPT).unwrap();
    // It is past its opening, which would wait for the transaction.
    stage.feed(50..60).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    let open = stage.endpoint().transactional("forgotten", &[]).unwrap();
    open.begin().unwrap();
    let begins = end(&stage, &output);
    open.write(&[Message::text(&output, 0, "forgotten", "")]).unwrap();
    stage.feed(60..100).unwrap();
    stage.wait_for_journal(&job, "all input in the journal", |journal| journal.records() == 100).unwrap();
    assert_eq!(job.terminate(MOST).unwrap().code, Some(0));
    let refused = stage.start("--stop-at-end --patience 2s").unwrap().finish(MOST).unwrap();
    // The way to end it is not told without what would be lost by it.
    let abort = format!("--partition 0 --start-offset {begins}`; if the transaction is this job's own");
    let lost = format!("records that the job has committed at offsets {begins} to ");
    assert_refused(&refused, 5, &["an open transaction holds it up", &abort, &lost, "start the job with --reconcile"]);
    open.abort().unwrap();
    goes_on(&stage);
}
