//! Input that is not what it was: the run is refused with its name, and `--reconcile` goes on from the input as it is.

use std::collections::BTreeSet;

use fluvial_tests::apache::{ApacheKafka, Options};
use fluvial_tests::client::{Endpoint, Isolation};
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;
use rdkafka::Offset;

use super::{KEPT, assert_refused, assert_right, completed, faulty};

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
    // Of each partition as many records are left, so that it does not matter which of them is looked at first.
    let mut ends = Vec::new();
    for partition in 0..2 {
        let end = stage.broker().end_offsets(&stage.input())[partition as usize];
        stage.endpoint().delete_records(&stage.input(), partition, Offset::Offset(end - 3)).unwrap();
        ends.push(format!("partition {partition} begins at offset {} now: the records at offset", end - 3));
    }
    let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 11, &[&stage.input(), "have to be read again", "run --reconcile"]);
    assert!(ends.iter().any(|end| refused.said.contains(end)), "{}", refused.said);
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
pub(super) fn goes_on_normally(stage: &Stage) {
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

#[test]
fn input_that_is_lost_before_it_was_ever_read_is_named() {
    let stage = completed(100);
    let read = stage.broker().end_offsets(&stage.input())[1];
    stage.feed(100..200).unwrap();
    let begins = stage.broker().end_offsets(&stage.input())[1] - 5;
    stage.endpoint().delete_records(&stage.input(), 1, Offset::Offset(begins)).unwrap();
    let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
    let lost = format!("partition 1 begins at offset {begins} now, and has been read up to {read}");
    assert_refused(&refused, 11, &[&stage.input(), &lost, "run --reconcile"]);
    stage.complete("--reconcile --stop-at-end").unwrap();
    stage.complete("--stop-at-end --workers 2").unwrap();
}

/// A stage on an Apache Kafka that looks often for what is to be removed.
pub(super) fn on_eager(partitions: i32) -> Stage {
    static EAGER: std::sync::OnceLock<ApacheKafka> = std::sync::OnceLock::new();
    let kafka = EAGER.get_or_init(|| {
        let properties = [
            ("log.retention.check.interval.ms", "300"),
            ("log.initial.task.delay.ms", "100"),
            ("log.cleaner.backoff.ms", "300"),
        ];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        ApacheKafka::start(&Options { properties, heap_mib: 512, ..Options::default() }).unwrap()
    });
    Stage::on(&Endpoint::new(kafka.bootstrap()), kafka.bootstrap(), Subject::Orders, partitions).unwrap()
}

/// Waits until the broker has removed something.
pub(super) fn wait_for(stage: &Stage, what: &str, removed: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !removed() {
        assert!(start.elapsed() < MOST, "{what} has not come to {} after {MOST:?}", stage.input());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn input_that_retention_has_removed_on_apache_kafka_is_named_and_reconciled() {
    let stage = on_eager(2);
    killed_before_its_first_checkpoint(&stage);
    assert_eq!(stage.endpoint().alter_topic(&stage.input(), &[("retention.ms", "1")]).unwrap(), "ok");
    let first = |partition| stage.endpoint().watermarks(&stage.input(), partition, Isolation::Committed).unwrap().0;
    wait_for(&stage, "retention", || first(0) > 0 && first(1) > 0);
    assert_eq!(stage.endpoint().alter_topic(&stage.input(), &[("retention.ms", "-1")]).unwrap(), "ok");
    let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 11, &[&stage.input(), "partition ", "begins at offset ", "the records at offset"]);
    let gone = [0, 1].map(|partition| format!("begins at offset {} now", first(partition)));
    assert!(gone.iter().any(|gone| refused.said.contains(gone)), "{gone:?}: {}", refused.said);
    assert!(!stage.table().unwrap().is_empty());
    // Nothing is left of the input, so nothing may be left of the output.
    stage.complete("--reconcile --stop-at-end").unwrap();
    assert!(stage.table().unwrap().is_empty());
    goes_on_normally(&stage);
}

#[test]
fn an_append_output_is_not_reconciled_unless_it_may_be_left_as_it_is() {
    let stage = faulty(Stage::new(Subject::Orders, 2).unwrap());
    let output = stage.outputs().swap_remove(0);
    let written = || stage.endpoint().read(&output, Isolation::Committed).unwrap();
    let append = format!("{KEPT} --append --checkpoint-every 1h");
    let job = stage.start(&format!("{append} --wrong random")).unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until(&job, "a hundred rows", || Ok(stage.visible()? > 0 && written().len() == 100)).unwrap();
    job.job().kill_all().unwrap();
    let before = written();
    let right = format!("{append} --stop-at-end");
    for _ in 0..2 {
        let diverged = stage.start(&right).unwrap().finish(MOST).unwrap();
        assert_refused(&diverged, 1, &[&output, "not deterministic", "run --reconcile"]);
        // This is refused before it leaves a trace in the journal: the next run says again what is wrong.
        let refused = stage.start(&format!("{right} --reconcile")).unwrap().finish(MOST).unwrap();
        assert_refused(&refused, 2, &[&output, "append output", "--leave-append-outputs"]);
    }
    stage.feed(100..150).unwrap();
    stage.complete(&format!("{right} --reconcile --leave-append-outputs --workers 3")).unwrap();
    stage.feed(150..200).unwrap();
    stage.complete(&right).unwrap();
    stage.complete(&format!("{right} --workers 2")).unwrap();
    // What was there stays, and each record that came later is there once.
    let after = written();
    assert!(before.iter().all(|record| after.contains(record)));
    let mut keys: Vec<_> = after.iter().map(|record| record.key.clone().unwrap()).collect();
    let input = stage.endpoint().read(&stage.input(), Isolation::Committed).unwrap();
    let mut expected: Vec<_> = input.iter().map(|record| serde_json::to_vec(&text(&record.key)).unwrap()).collect();
    keys.sort();
    expected.sort();
    assert_eq!(keys, expected);
}

fn text(bytes: &Option<Vec<u8>>) -> String {
    String::from_utf8(bytes.clone().unwrap_or_default()).unwrap()
}
