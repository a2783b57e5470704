//! Input that is not what it was: the run is refused with its name, and `--reconcile` goes on from the input as it is.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use fluvial_tests::campaign::Subject;
use fluvial_tests::stage::{MOST, Stage};
use rdkafka::Offset;

/// What the output holds is what the input gives, as it is now.
fn assert_right(stage: &Stage) {
    assert_eq!(stage.table().unwrap(), stage.table_of_input().unwrap());
}

/// A job that has made output, has no checkpoint, and whose processes are all dead.
fn killed_before_its_first_checkpoint(stage: &Stage) {
    let job = stage.start("--checkpoint-every 1h --processes 2").unwrap();
    stage.feed(0..300).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    job.job().kill_all().unwrap();
}

#[test]
fn deleted_input_is_named_and_reconciled() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    killed_before_its_first_checkpoint(&stage);
    let before = stage.table().unwrap();
    // Of each partition a few records are left.
    for partition in 0..2 {
        let end = stage.broker().end_offsets(&stage.input())[partition as usize];
        stage.endpoint().delete_records(&stage.input(), partition, Offset::Offset(end - 3)).unwrap();
    }
    let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
    refused.failed_with(1, &[&stage.input(), "offset 0"]).unwrap();
    assert_eq!(stage.table().unwrap(), before, "a run that was refused has written something");
    stage.complete("--reconcile --stop-at-end --workers 3").unwrap();
    assert_right(&stage);
    let keys = |table: &std::collections::BTreeMap<(String, String), String>| -> BTreeSet<_> {
        table.keys().cloned().collect()
    };
    assert!(keys(&stage.table().unwrap()).len() < keys(&before).len(), "no group had to be deleted");
    goes_on_normally(&stage);
}

/// Later runs need no option, and are right.
fn goes_on_normally(stage: &Stage) {
    stage.feed(1_000..1_100).unwrap();
    stage.complete("--stop-at-end --processes 2").unwrap();
    assert_right(stage);
    let job = stage.start("").unwrap();
    stage.feed(1_100..1_150).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    job.job().kill_all().unwrap();
    stage.complete("--stop-at-end").unwrap();
    assert_right(stage);
}

#[test]
fn a_topic_that_was_made_anew_is_named() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    stage.feed(0..100).unwrap();
    // There is nothing to replay after this.
    stage.complete("--stop-at-end").unwrap();
    let before = stage.table().unwrap();
    assert_eq!(stage.endpoint().delete_topic(&stage.input()).unwrap(), "ok");
    stage.endpoint().create_topic(&stage.input(), 2, &[]).unwrap();
    // Longer than before, so that every offset is there.
    stage.feed(5_000..5_300).unwrap();
    let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
    assert!(matches!(refused.code, Some(1 | 2)), "{:?}: {}", refused.code, refused.said);
    let line = refused.error().unwrap();
    assert!(line.contains("made anew") && line.contains("split"), "{line}");
    assert_eq!(stage.table().unwrap(), before, "a run that was refused has written something");
}

#[test]
fn reconciling_a_job_that_is_right_changes_nothing() {
    let stage = Stage::new(Subject::Bank, 2).unwrap();
    stage.feed(0..200).unwrap();
    stage.complete("--stop-at-end").unwrap();
    let before: Vec<_> = stage.outputs().iter().map(|output| records(&stage, output)).collect();
    stage.complete("--stop-at-end --reconcile --workers 2").unwrap();
    let after: Vec<_> = stage.outputs().iter().map(|output| records(&stage, output)).collect();
    assert_eq!(before, after);
    stage.feed(200..300).unwrap();
    stage.complete("--stop-at-end").unwrap();
    assert_right(&stage);
}

fn records(stage: &Stage, output: &str) -> Vec<String> {
    stage.endpoint().lines(output, fluvial_tests::client::Isolation::Committed).unwrap()
}

#[test]
fn an_output_that_someone_else_wrote_to_is_reconciled() {
    let stage = Stage::new(Subject::Bank, 2).unwrap();
    stage.feed(0..200).unwrap();
    stage.complete("--stop-at-end").unwrap();
    let total = format!("{}.total", stage.name());
    let lost = fluvial_tests::client::Message::text(&total, 0, "{\"no\":1}", "{\"total\":7}");
    stage.endpoint().writer(&[]).unwrap().write(&[lost]).unwrap();
    stage.complete("--stop-at-end --reconcile").unwrap();
    assert_right(&stage);
}
