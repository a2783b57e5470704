//! Input that the broker has compacted: what a checkpoint holds needs none of it; where it has to be read again, a job
//! goes on that makes nothing of it but tables of the newest record of each key, and every other one is refused.

use std::collections::BTreeSet;

use fluvial_tests::client::{Isolation, Message};
use fluvial_tests::job::binary;
use fluvial_tests::stage::{Finished, MOST, Stage};
use serde_json::Value;

use super::code::rows;
use super::replay::{goes_on_normally, on_eager, wait_for};
use super::{assert_refused, assert_right, built_again, faulty};

/// The orders that all records are about.
const KEYS: [&str; 3] = ["1", "2", "3"];

/// Orders from this number on are written only to close segments.
const FILLERS: i64 = 1_000_000;

/// Holds compaction off, so that the job reads every record.
const LATER: (&str, &str) = ("min.compaction.lag.ms", "3600000");

/// A stage whose input has one partition, which is compacted as soon as its segments close, with these settings besides.
fn compacted(settings: &[(&str, &str)]) -> Stage {
    let stage = on_eager(1);
    compacts(&stage, settings);
    stage
}

/// From now on the input is compacted as soon as its segments close, with these settings besides and no others.
fn compacts(stage: &Stage, settings: &[(&str, &str)]) {
    let compacts = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.01"), ("segment.ms", "100")];
    let settings: Vec<_> = compacts.iter().chain(settings).copied().collect();
    assert_eq!(stage.endpoint().alter_topic(&stage.input(), &settings).unwrap(), "ok");
}

/// An order of the product, of so many pieces.
fn order(order: &str, product: &str, quantity: u64) -> String {
    format!(
        r#"{{"order_id":{order},"customer":"c","region":"eu","product":"{product}","quantity":{quantity},"price_cents":100,"at":0}}"#
    )
}

/// Writes records of each order, of so many pieces each. Each order has a product of its own.
fn write(stage: &Stage, orders: &[&str], quantities: std::ops::Range<u64>) {
    let topic = stage.input();
    let writer = stage.endpoint().writer(&[]).unwrap();
    for quantity in quantities {
        let values: Vec<String> = orders.iter().map(|id| order(id, &format!("p{id}"), quantity)).collect();
        let messages = orders.iter().zip(&values).map(|(order, value)| Message::text(&topic, 0, order, value));
        writer.write(&messages.collect::<Vec<_>>()).unwrap();
    }
}

/// Makes an order one of another product.
fn move_to(stage: &Stage, id: &str, product: &str) {
    let (topic, value) = (stage.input(), order(id, product, 1));
    stage.endpoint().writer(&[]).unwrap().write(&[Message::text(&topic, 0, id, &value)]).unwrap();
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

/// Amends each of these orders once, which supersedes what is there, and waits until the broker has removed all of their
/// records between the two offsets.
fn compact(stage: &Stage, orders: &[&str], from: i64, to: i64) {
    write(stage, orders, 500..501);
    wait_for_compaction(stage, orders, from, to);
}

/// Waits until the broker has removed all records of these orders between the two offsets, which later ones supersede.
/// Segments are closed meanwhile by records of other orders, each of which comes once: so no later record is removed.
fn wait_for_compaction(stage: &Stage, orders: &[&str], from: i64, to: i64) {
    wait_for(stage, "compaction", || {
        write(stage, &[&(FILLERS + end(stage)).to_string()], 1..2);
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
    assert_eq!(lines(&said, "cannot be verified"), 1, "{said}");
    assert_right(&stage);
    goes_on_normally(&stage);
}

/// It is no matter of who reads the input, and of what is written.
#[test]
fn a_job_of_any_kind_needs_nothing_that_its_checkpoint_holds() {
    let stage = faulty(compacted(&[LATER]));
    write(&stage, &KEYS, 1..40);
    stage.complete("--append --stop-at-end").unwrap();
    let (read, before) = (end(&stage), appended(&stage));
    assert_eq!((before.len(), &before), (39 * KEYS.len(), &made_of(&stage, "--append", 0)));
    compacts(&stage, &[]);
    compact(&stage, &KEYS, 0, read);
    let said = stage.complete("--append --stop-at-end").unwrap().said;
    assert_eq!(lines(&said, "cannot be verified"), 1, "{said}");
    // What was there, and what is new, each once.
    assert_eq!(appended(&stage), sorted(before, made_of(&stage, "--append", read)));
}

/// A row of an append output.
type Row = (String, String);

/// The committed rows of the job's output, each as often as it is there.
fn appended(stage: &Stage) -> Vec<Row> {
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default()).unwrap();
    let records = stage.endpoint().read(&stage.outputs()[0], Isolation::Committed).unwrap();
    sorted(records.into_iter().map(|record| (text(record.key), text(record.value))).collect(), Vec::new())
}

/// What the job `faulty` appends with these options to an output that has nothing, for the input from this offset on as
/// it is now: the revenue of each amendment, or as a changelog that there is this order.
fn made_of(stage: &Stage, options: &str, from: i64) -> Vec<Row> {
    let input = stage.endpoint().read(&stage.input(), Isolation::Committed).unwrap();
    let revenues = input.into_iter().filter(|record| record.offset >= from).map(|record| {
        let key = String::from_utf8(record.key.unwrap()).unwrap();
        let order: Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
        let revenue = order["quantity"].as_u64().unwrap() * order["price_cents"].as_u64().unwrap();
        (serde_json::to_string(&key).unwrap(), revenue.to_string())
    });
    if options.contains("--changelog") {
        let orders: BTreeSet<String> = revenues.map(|(order, _)| order).collect();
        return orders.into_iter().map(|order| (order, "1".to_owned())).collect();
    }
    sorted(revenues.collect(), Vec::new())
}

fn sorted(mut rows: Vec<Row>, more: Vec<Row>) -> Vec<Row> {
    rows.extend(more);
    rows.sort();
    rows
}

/// The rows that the checkpoint holds included: one is amended after it, one is cancelled, one stays. One order moves from
/// product A to B after it, and to C before it is read again: no input is left that says that there was a row for B.
#[test]
fn a_changelog_that_is_compacted_before_it_is_read_again_is_gone_on_with_and_its_outputs_are_corrected() {
    let stage = compacted(&[]);
    // Whether there are rows for A, B and C.
    let products = || {
        let table = stage.table().unwrap();
        let key = |product| (stage.outputs().swap_remove(0), format!(r#"{{"region":"eu","product":"{product}"}}"#));
        ["A", "B", "C"].map(|product| table.contains_key(&key(product)))
    };
    write(&stage, &["1", "2", "3", "4"], 1..20);
    move_to(&stage, "6", "A");
    completes(&stage);
    assert_eq!(products(), [true, false, false]);
    let checkpoint = end(&stage);
    runs_and_is_killed(&stage, || {
        write(&stage, &["1", "2", "5"], 20..40);
        cancel(&stage, "2");
        cancel(&stage, "5");
        move_to(&stage, "6", "B");
    });
    assert_eq!(products(), [false, true, false]);
    let read = end(&stage);
    move_to(&stage, "6", "C");
    write(&stage, &["1"], 500..501);
    wait_for_compaction(&stage, &["1", "6"], checkpoint, read);
    let said = completes(&stage).said;
    assert_eq!(lines(&said, "the outputs are being corrected"), 1, "{said}");
    assert_eq!(lines(&said, "the next generation goes on with what is left"), 1, "{said}");
    assert_eq!(products(), [false, false, true]);
    assert_right(&stage);
    goes_on_normally(&stage);
}

#[test]
fn another_binary_does_not_correct_what_was_compacted_nor_go_on_with_a_correction_that_was_begun() {
    let mut stage = compacted(&[]);
    let same = binary("orders").unwrap();
    let other = built_again(&stage, &same);
    runs_and_is_killed(&stage, || write(&stage, &KEYS, 1..40));
    let read = end(&stage);
    compact(&stage, &KEYS, 0, read);
    let before = stage.table().unwrap();
    let refused = |stage: &Stage| {
        let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
        assert_refused(&refused, 11, &["compacted", "this binary with these options (hash ", "run --reconcile"]);
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
    assert_refused(&refused, 11, &["compacted", "this binary with these options (hash ", "run --reconcile"]);
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
        let stage = faulty(compacted(&[LATER]));
        let appends = options.contains("--append");
        let job = stage.start(&format!("--checkpoint-every 1h {options}")).unwrap();
        write(&stage, &KEYS, 1..40);
        let read = end(&stage);
        stage.wait_for_journal(&job, "the whole input", |journal| journal.records() == read as u64).unwrap();
        let expected = made_of(&stage, options, 0);
        let is_right = || {
            let (expected, seen) = rows(&stage);
            expected == seen
        };
        let all_is_out = || if appends { appended(&stage) == expected } else { is_right() };
        stage.wait_until(&job, "all output", || Ok(all_is_out())).unwrap();
        job.job().kill_all().unwrap();
        // Nothing is left of one order, not even its deletion: only the output itself shows that it has a row there.
        compacts(&stage, &[("delete.retention.ms", "0")]);
        cancel(&stage, KEYS[2]);
        compact(&stage, &KEYS[..2], 0, read);
        wait_for_compaction(&stage, &KEYS[2..], 0, i64::MAX);
        let records = || stage.endpoint().lines(&stage.outputs()[0], Isolation::Committed).unwrap();
        let before = records();
        let refused = stage.start(&format!("--stop-at-end {options}")).unwrap().finish(MOST).unwrap();
        let parts = [
            &*stage.input(),
            "partition 0 no longer holds what was read at offset",
            "which has to be read again after the newest checkpoint",
            "it is compacted; the job cannot go on without them",
            why,
            "`run --reconcile` goes on from the input as it is",
            "min.compaction.lag.ms of topic",
        ];
        assert_refused(&refused, 11, &parts);
        assert_eq!(records(), before, "a run that was refused has written something");
        stage.complete(&format!("--stop-at-end --reconcile --leave-append-outputs {options}")).unwrap();
        if appends {
            // What was there stays. The state has lost what it was made of, so each order that is left counts as new.
            assert_eq!(appended(&stage), sorted(expected, made_of(&stage, options, read)), "{options}");
        } else {
            assert!(is_right(), "{:?}", rows(&stage));
        }
        let reconciled = records();
        stage.complete(&format!("--stop-at-end {options}")).unwrap();
        assert_eq!(records(), reconciled, "{options}");
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
    assert_refused(&refused, 11, &["it is compacted", "deletions", "delete.retention.ms", "run --reconcile"]);
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
    assert_refused(&refused, 11, &[&stage.input(), "begins at offset ", "have to be read again", "run --reconcile"]);
}
