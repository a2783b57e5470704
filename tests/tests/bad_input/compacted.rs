//! Input that the broker has compacted: what a checkpoint holds needs none of it; where it has to be read again, a job
//! goes on that makes nothing of it but tables of the newest record of each key, and every other one is refused.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use fluvial_tests::client::{Isolation, Message};
use fluvial_tests::job::binary;
use fluvial_tests::stage::{Finished, MOST, Stage};

use super::replay::{goes_on_normally, on_eager, wait_for};
use super::{assert_refused, assert_right, faulty};

/// The orders that all records are about.
const KEYS: [&str; 3] = ["1", "2", "3"];

/// A stage whose input has one partition, which is compacted as soon as its segments close, with these settings besides.
fn compacted(settings: &[(&str, &str)]) -> Stage {
    let stage = on_eager(1);
    let compacts = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.01"), ("segment.ms", "100")];
    let settings: Vec<_> = compacts.iter().chain(settings).copied().collect();
    assert_eq!(stage.endpoint().alter_topic(&stage.input(), &settings).unwrap(), "ok");
    stage
}

/// Writes records of each order, of so many pieces each.
fn write(stage: &Stage, orders: &[&str], quantities: std::ops::Range<u64>) {
    let topic = stage.input();
    let writer = stage.endpoint().writer(&[]).unwrap();
    for quantity in quantities {
        let value = |order: &str| {
            format!(
                r#"{{"order_id":{order},"customer":"c","region":"eu","product":"p{order}","quantity":{quantity},"price_cents":100,"at":0}}"#
            )
        };
        let values: Vec<String> = orders.iter().map(|order| value(order)).collect();
        let messages = orders.iter().zip(&values).map(|(order, value)| Message::text(&topic, 0, order, value));
        writer.write(&messages.collect::<Vec<_>>()).unwrap();
    }
}

/// Cancels an order.
fn cancel(stage: &Stage, order: &str) {
    let topic = stage.input();
    let message = Message { topic: &topic, partition: Some(0), key: Some(order.as_bytes()), ..Message::default() };
    stage.endpoint().writer(&[]).unwrap().write(&[message]).unwrap();
}

fn end(stage: &Stage) -> i64 {
    stage.endpoint().watermarks(&stage.input(), 0, Isolation::Committed).unwrap().1
}

/// Writes to these orders again and again, which closes segments and supersedes what is there, until the broker has
/// removed all of their records between the two offsets.
fn compact(stage: &Stage, orders: &[&str], from: i64, to: i64) {
    wait_for(stage, "compaction", || {
        write(stage, orders, 500..501);
        let records = stage.endpoint().read(&stage.input(), Isolation::Committed).unwrap();
        let is_gone = |key: &[u8]| orders.iter().any(|order| order.as_bytes() == key);
        !records.iter().any(|r| (from..to).contains(&r.offset) && is_gone(r.key.as_deref().unwrap_or_default()))
    });
}

/// Runs to the end of the input, which must do well.
fn completes(stage: &Stage) -> Finished {
    stage.complete("--stop-at-end").unwrap()
}

/// How many lines say this.
fn lines(said: &str, part: &str) -> usize {
    said.lines().filter(|line| line.contains(part)).count()
}

/// Runs until the output holds what the input gives, and then kills all processes, without a checkpoint.
fn runs_and_is_killed(stage: &Stage, more: impl FnOnce()) {
    let job = stage.start("--checkpoint-every 1h").unwrap();
    more();
    stage.wait_until_caught_up(&job).unwrap();
    job.job().kill_all().unwrap();
}

#[test]
fn a_job_that_stopped_well_needs_nothing_that_is_compacted_while_it_stands_still() {
    let stage = compacted(&[]);
    write(&stage, &KEYS, 1..40);
    completes(&stage);
    let read = end(&stage);
    compact(&stage, &KEYS, 0, read);
    let said = completes(&stage).said;
    assert_eq!(lines(&said, "could not be verified"), 1, "{said}");
    assert_right(&stage);
    goes_on_normally(&stage);
}

/// It is no matter of who reads the input, and of what is written.
#[test]
fn a_job_of_any_kind_needs_nothing_that_its_checkpoint_holds() {
    let stage = faulty(compacted(&[]));
    write(&stage, &KEYS, 1..40);
    stage.complete("--append --stop-at-end").unwrap();
    let read = end(&stage);
    compact(&stage, &KEYS, 0, read);
    let said = stage.complete("--append --stop-at-end").unwrap().said;
    assert_eq!(lines(&said, "could not be verified"), 1, "{said}");
}

/// The rows that the checkpoint holds included: one is amended after it, one is cancelled, one stays.
#[test]
fn a_changelog_that_is_compacted_before_it_is_read_again_is_gone_on_with_and_its_outputs_are_corrected() {
    let stage = compacted(&[]);
    write(&stage, &["1", "2", "3", "4"], 1..20);
    completes(&stage);
    let checkpoint = end(&stage);
    runs_and_is_killed(&stage, || {
        write(&stage, &["1", "2", "5"], 20..40);
        cancel(&stage, "2");
        cancel(&stage, "5");
    });
    let read = end(&stage);
    compact(&stage, &["1"], checkpoint, read);
    let said = completes(&stage).said;
    assert_eq!(lines(&said, "the outputs are corrected"), 1, "{said}");
    assert_eq!(lines(&said, "the next generation goes on with what is left"), 1, "{said}");
    assert_right(&stage);
    goes_on_normally(&stage);
}

/// The binary of the stage's job with another content hash.
fn another_binary(stage: &Stage) -> PathBuf {
    let copy = stage.folder().join("orders");
    let mut bytes = std::fs::read(binary("orders").unwrap()).unwrap();
    bytes.push(0);
    std::fs::write(&copy, bytes).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

#[test]
fn another_binary_does_not_correct_what_was_compacted_nor_go_on_with_a_correction_that_was_begun() {
    let mut stage = compacted(&[]);
    let (same, other) = (binary("orders").unwrap(), another_binary(&stage));
    runs_and_is_killed(&stage, || write(&stage, &KEYS, 1..40));
    let read = end(&stage);
    compact(&stage, &KEYS, 0, read);
    let before = stage.table().unwrap();
    let refused = |stage: &Stage| {
        let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
        assert_refused(&refused, 1, &["compacted", "this binary (content hash ", "run --reconcile"]);
        assert_eq!(stage.table().unwrap(), before, "a run that was refused has written something");
    };
    stage = stage.with_program(&other);
    refused(&stage);
    stage = stage.with_program(&same);
    // The one that meets the loss ends once the journal has it.
    let met = stage.start("--no-restart").unwrap().finish(MOST).unwrap();
    assert_refused(&met, 6, &["is compacted", "the next generation goes on with what is left"]);
    // The next one has corrected the outputs, and dies before a checkpoint covers that.
    let dies = "--no-restart --fail-point after-manifest=kill";
    assert_eq!(stage.start(dies).unwrap().finish(MOST).unwrap().code, Some(4), "it has not been killed");
    let before = stage.table().unwrap();
    stage = stage.with_program(&other);
    let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 1, &["compacted", "this binary (content hash ", "run --reconcile"]);
    assert_eq!(stage.table().unwrap(), before, "a run that was refused has written something");
    stage = stage.with_program(&same);
    compact(&stage, &KEYS, 0, end(&stage));
    completes(&stage);
    assert_right(&stage);
    goes_on_normally(&stage);
    // With a checkpoint that covers the correction, another binary may come as ever.
    stage = stage.with_program(&other);
    completes(&stage);
}

#[test]
fn a_job_that_reads_more_than_the_newest_record_of_a_key_is_refused_and_reconciled() {
    for (options, why) in [
        ("", "the job does not read the source 'orders' as a changelog"),
        ("--append", "the job does not read the source 'orders' as a changelog"),
        ("--changelog --append", "is an append output, which cannot be corrected"),
    ] {
        let stage = faulty(compacted(&[]));
        let job = stage.start(&format!("--checkpoint-every 1h {options}")).unwrap();
        write(&stage, &KEYS, 1..40);
        let read = end(&stage);
        stage.wait_for_journal(&job, "the whole input", |journal| journal.records() == read as u64).unwrap();
        job.job().kill_all().unwrap();
        compact(&stage, &KEYS, 0, read);
        let refused = stage.start(&format!("--stop-at-end {options}")).unwrap().finish(MOST).unwrap();
        let parts = [
            &*stage.input(),
            "partition 0 no longer holds what was read from offset 0 to ",
            "which has to be read again after the newest checkpoint",
            "it is compacted; the job cannot go on without them",
            why,
            "`run --reconcile` goes on from the input as it is",
            "min.compaction.lag.ms of topic",
        ];
        assert_refused(&refused, 1, &parts);
        stage.complete(&format!("--stop-at-end --reconcile --leave-append-outputs {options}")).unwrap();
    }
}

/// The row that the checkpoint holds would come back.
#[test]
fn a_changelog_whose_deletions_may_be_gone_as_well_is_refused() {
    let stage = compacted(&[("delete.retention.ms", "0")]);
    write(&stage, &KEYS, 1..20);
    completes(&stage);
    // Even a deletion that was written while the job stood still may be gone by now.
    let said = completes(&stage).said;
    assert_eq!(lines(&said, "deletions that it has not read since may be gone"), 1, "{said}");
    let checkpoint = end(&stage);
    runs_and_is_killed(&stage, || {
        write(&stage, &["1"], 20..40);
        cancel(&stage, "2");
    });
    let (read, before) = (end(&stage), stage.table().unwrap());
    compact(&stage, &["1"], checkpoint, read);
    wait_for(&stage, "the removal of a deletion", || {
        write(&stage, &["1"], 500..501);
        let records = stage.endpoint().read(&stage.input(), Isolation::Committed).unwrap();
        !records.iter().any(|record| record.key.as_deref() == Some(b"2"))
    });
    let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 1, &["it is compacted", "deletions", "delete.retention.ms", "run --reconcile"]);
    assert_eq!(stage.table().unwrap(), before, "a run that was refused has written something");
}

#[test]
fn a_changelog_whose_records_retention_removes_before_they_are_read_again_is_refused() {
    let stage = compacted(&[]);
    runs_and_is_killed(&stage, || write(&stage, &KEYS, 1..40));
    let removes = [("cleanup.policy", "compact,delete"), ("retention.ms", "1")];
    assert_eq!(stage.endpoint().alter_topic(&stage.input(), &removes).unwrap(), "ok");
    let first = || stage.endpoint().watermarks(&stage.input(), 0, Isolation::Committed).unwrap().0;
    wait_for(&stage, "retention", || first() > 0);
    let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 1, &[&stage.input(), "begins at offset ", "have to be read again", "run --reconcile"]);
}
