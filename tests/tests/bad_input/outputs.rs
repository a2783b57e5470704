//! Outputs that are not, or not only, this job's: recreated while it runs, written by somebody else, kept for a time only.

use std::ffi::OsString;
use std::time::Duration;

use fluvial_kafka_embedded::Config;
use fluvial_tests::apache::{ApacheKafka, OLDEST, Options};
use fluvial_tests::client::{Endpoint, Isolation, Message};
use fluvial_tests::stage::{Finished, MOST, OUTPUT_PARTITIONS, Stage};
use fluvial_tests::subject::Subject;

use super::topics::recreate;
use super::{SOON, args_with, assert_refused, assert_right, completed, faulty};

/// How long after an output was recreated that is known by the latest.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

/// A stage on Apache Kafka.
fn on_apache() -> Stage {
    let endpoint = Endpoint::new(ApacheKafka::shared().bootstrap());
    Stage::on(&endpoint, endpoint.bootstrap(), Subject::Orders, 2).unwrap()
}

fn output(stage: &Stage) -> String {
    stage.outputs().swap_remove(0)
}

fn progress(stage: &Stage) -> String {
    format!("{}.fluvial-progress", stage.name())
}

/// Records that are no row of the job, in each partition of the output.
fn write_others(stage: &Stage, records: usize) {
    let (topic, keys) = (output(stage), (0..records).map(|n| format!("other-{n}")).collect::<Vec<_>>());
    let all = (0..OUTPUT_PARTITIONS).flat_map(|p| keys.iter().map(move |key| (p, key)));
    let all: Vec<_> = all.map(|(partition, key)| Message::text(&topic, partition, key, "1")).collect();
    stage.endpoint().writer(&[]).unwrap().write(&all).unwrap();
}

/// What is said of an output that was recreated, and what can be done.
#[track_caller]
fn assert_recreated(stage: &Stage, ended: &Finished) {
    let named = format!("output '{}' was deleted and recreated (it has the id ", output(stage));
    assert_refused(ended, 11, &[&named, " and had ", "`run --reconcile` writes the whole table to it again"]);
}

/// Neither start writes anything, the one that a person asks for writes all of the table, and the job goes on.
fn is_restored_by_reconciling(stage: &Stage) {
    let before = stage.visible().unwrap();
    assert_recreated(stage, &stage.start("--stop-at-end --workers 2").unwrap().finish(MOST).unwrap());
    assert_eq!(stage.visible().unwrap(), before, "a run that was refused has written something");
    stage.complete("--reconcile --stop-at-end").unwrap();
    assert_right(stage);
    stage.feed(500..600).unwrap();
    stage.complete("--stop-at-end --workers 2").unwrap();
    assert_right(stage);
}

/// The job wrote on into the other topic: rows were lost without a word. It wrote to each partition before, so that what
/// it writes to the other topic has a smaller offset and is not committed, even before the id has been looked at.
fn recreated_while_it_is_idle(stage: &Stage) {
    let job = stage.start("--workers 2 --processes 2").unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    let before = stage.endpoint().read(&output(stage), Isolation::Committed).unwrap();
    assert!((0..OUTPUT_PARTITIONS).all(|partition| before.iter().any(|record| record.partition == partition)));
    recreate(stage, &output(stage), OUTPUT_PARTITIONS);
    stage.feed(100..110).unwrap();
    let ended = job.finish(KNOWN_WITHIN + SOON).unwrap();
    assert_recreated(stage, &ended);
    let held = stage.endpoint().lines(&output(stage), Isolation::Committed).unwrap();
    assert!(held.is_empty(), "the job has written to the other topic: {held:?}");
    is_restored_by_reconciling(stage);
}

#[test]
fn an_output_that_is_recreated_under_an_idle_job_ends_it_before_it_writes_there() {
    recreated_while_it_is_idle(&Stage::new(Subject::Orders, 2).unwrap());
}

#[test]
fn an_output_that_is_recreated_under_an_idle_job_on_apache_kafka_ends_it_before_it_writes_there() {
    recreated_while_it_is_idle(&on_apache());
}

#[test]
fn an_output_that_is_recreated_under_an_idle_job_on_the_oldest_kafka_ends_it_before_it_writes_there() {
    let kafka = ApacheKafka::start(&Options { version: OLDEST.to_owned(), ..Options::default() }).unwrap();
    let endpoint = Endpoint::new(kafka.bootstrap());
    recreated_while_it_is_idle(&Stage::on(&endpoint, endpoint.bootstrap(), Subject::Orders, 2).unwrap());
}

/// Only its end tells that it is another one: it holds less than what the job has committed to it.
#[test]
fn an_output_that_is_recreated_on_a_broker_without_topic_ids_is_known_by_its_end() {
    let without_ids = Config { topic_ids: false, ..Config::default() };
    let stage = Stage::on_embedded(without_ids, Subject::Orders, 2).unwrap();
    let job = stage.start("--workers 2").unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    recreate(&stage, &output(&stage), OUTPUT_PARTITIONS);
    stage.feed(100..110).unwrap();
    let named = format!("output {}/", output(&stage));
    let shorter: &[&str] = &[&named, "deleted and recreated", "`run --reconcile` writes the whole table to it again"];
    // A producer that asks for the topic while it does not exist waits for it up to half a minute.
    assert_refused(&job.finish(KNOWN_WITHIN + MOST).unwrap(), 11, shorter);
    assert_refused(&stage.start("--stop-at-end").unwrap().finish(MOST).unwrap(), 11, shorter);
    let held = stage.endpoint().lines(&output(&stage), Isolation::Committed).unwrap();
    assert!(held.is_empty(), "the job has written to the other topic: {held:?}");
    stage.complete("--reconcile --stop-at-end").unwrap();
    assert_right(&stage);
}

#[test]
fn an_output_that_is_recreated_while_it_is_written_on_apache_kafka_ends_the_job() {
    let stage = on_apache();
    let job = stage.start("").unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    std::thread::scope(|scope| {
        let feeding = scope.spawn(|| (1..40).try_for_each(|part| stage.feed(part * 10 + 90..part * 10 + 100)));
        recreate(&stage, &output(&stage), OUTPUT_PARTITIONS);
        feeding.join().unwrap().unwrap();
    });
    assert_recreated(&stage, &job.finish(KNOWN_WITHIN + SOON).unwrap());
    is_restored_by_reconciling(&stage);
}

/// Nothing but its id tells that it is another one: its offsets go on, and the job has committed to it.
#[test]
fn an_output_that_is_recreated_and_filled_again_is_known_by_its_id() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let job = stage.start("").unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    recreate(&stage, &output(&stage), OUTPUT_PARTITIONS);
    write_others(&stage, 500);
    let before = stage.visible().unwrap();
    stage.feed(100..110).unwrap();
    stage.wait_for_more_than(before, &job).unwrap();
    assert_recreated(&stage, &job.finish(KNOWN_WITHIN + SOON).unwrap());
    is_restored_by_reconciling(&stage);
}

#[test]
fn an_append_output_that_is_recreated_goes_on_without_what_it_held_where_a_person_asks() {
    let stage = faulty(Stage::new(Subject::Orders, 2).unwrap());
    stage.feed(0..100).unwrap();
    stage.complete("--append --stop-at-end").unwrap();
    let seen = || stage.endpoint().read(&output(&stage), Isolation::Committed).unwrap().len();
    assert!(seen() > 0);
    recreate(&stage, &output(&stage), OUTPUT_PARTITIONS);
    let id = format!("output '{}' was deleted and recreated (it has the id ", output(&stage));
    let way_out = "`run --reconcile --leave-append-outputs` goes on with the records to come";
    for options in ["", "--reconcile"] {
        let refused = stage.start(&format!("--append --stop-at-end {options}")).unwrap().finish(MOST).unwrap();
        assert_refused(&refused, 11, &[&id, way_out]);
    }
    stage.complete("--append --stop-at-end --reconcile --leave-append-outputs").unwrap();
    assert_eq!(seen(), 0, "what it held cannot be written again");
    stage.feed(100..150).unwrap();
    stage.complete("--append --stop-at-end").unwrap();
    let after = seen();
    assert!(after > 0);
    stage.complete("--append --stop-at-end").unwrap();
    assert_eq!(seen(), after);
}

/// No operator keeps the rows, so nothing may delete those that are there, and what is lost is named.
#[test]
fn an_upsert_output_that_is_written_from_a_stream_keeps_its_rows_whatever_a_person_asks_for() {
    let stage = faulty(Stage::new(Subject::Orders, 2).unwrap());
    stage.endpoint().create_topic(&output(&stage), OUTPUT_PARTITIONS, &[]).unwrap();
    write_others(&stage, 1);
    stage.feed(0..100).unwrap();
    let stateless = "--stateless --stop-at-end";
    stage.complete(stateless).unwrap();
    let rows = || stage.table_of_topic(&output(&stage)).unwrap();
    let before = rows();
    assert!(before.contains_key("other-0") && before.len() > 10, "{before:?}");

    let named = format!("output '{}' is written from a stream, of which the job keeps no table", output(&stage));
    let refused = stage.start(&format!("{stateless} --reconcile")).unwrap().finish(MOST).unwrap();
    assert_refused(&refused, 2, &[&named, "--leave-append-outputs"]);
    let left = format!("the stream-written output '{}' is not corrected: what it holds stays as it is", output(&stage));
    let reconciled = stage.complete(&format!("{stateless} --reconcile --leave-append-outputs")).unwrap();
    assert!(reconciled.said.contains(&left), "{}", reconciled.said);
    assert_eq!(rows(), before);

    // An upgrade: other logic, of which nothing can be compared, and which goes on without a correction.
    let other = "--stateless --logic doubled";
    let hash = stage.ask("check", &format!("{other} --json")).unwrap();
    let hash: serde_json::Value = serde_json::from_str(&hash).unwrap();
    let hash = hash["version"].as_str().unwrap_or_else(|| panic!("check names no version: {hash}")).to_owned();
    let approved = format!("{other} --stop-at-end --upgrade {hash} --leave-append-outputs");
    let upgraded = stage.complete(&approved).unwrap();
    assert!(upgraded.said.contains(&left), "{}", upgraded.said);
    assert_eq!(rows(), before);

    recreate(&stage, &output(&stage), OUTPUT_PARTITIONS);
    let id = format!("output '{}' was deleted and recreated (it has the id ", output(&stage));
    let way_out =
        "keeps no table from which they could be written again; `run --reconcile --leave-append-outputs` goes on";
    for options in ["", "--reconcile"] {
        let refused = stage.start(&format!("{other} --stop-at-end {options}")).unwrap().finish(MOST).unwrap();
        assert_refused(&refused, 11, &[&id, way_out]);
    }
    let accepted = stage.complete(&format!("{other} --stop-at-end --reconcile --leave-append-outputs")).unwrap();
    assert!(
        accepted.said.contains("was recreated, and what it held before cannot be written again"),
        "{}",
        accepted.said
    );
    assert!(rows().is_empty());
    stage.feed(100..150).unwrap();
    stage.complete(&format!("{other} --stop-at-end")).unwrap();
    assert!(!rows().is_empty());
}

#[test]
fn a_progress_topic_that_is_recreated_under_a_running_job_ends_it() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let job = stage.start("").unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    recreate(&stage, &progress(&stage), 4);
    let parts = [
        &*format!("the progress topic '{}'", progress(&stage)),
        "has the id ",
        "deleted and recreated",
        "another --name",
    ];
    assert_refused(&job.finish(KNOWN_WITHIN + SOON).unwrap(), 11, &parts);
    for options in ["", "--reconcile"] {
        let refused = stage.start(&format!("--stop-at-end {options}")).unwrap().finish(MOST).unwrap();
        assert_refused(&refused, 11, &parts);
    }
    // The way out: a new job takes the output over.
    let args = args_with(&stage, "--name", &format!("{}-again", stage.name()), "--reconcile --stop-at-end");
    assert_eq!(stage.start_with(args).unwrap().finish(MOST).unwrap().code, Some(0));
    assert_right(&stage);
}

/// A copy of a job's deployment, with another name and store.
fn copy(stage: &Stage, more: &str) -> Vec<OsString> {
    let elsewhere = stage.folder().join("elsewhere");
    let mut args = args_with(stage, "--name", &format!("{}-copy", stage.name()), more);
    let at = args.iter().position(|arg| arg == "--store").unwrap();
    args[at + 1] = elsewhere.into();
    args
}

#[test]
fn a_job_does_not_begin_in_the_output_of_another_unless_it_is_to_take_it_over() {
    let stage = completed(100);
    let (before, rows) = (stage.visible().unwrap(), stage.table().unwrap().len());
    for _ in 0..2 {
        let refused = stage.start_with(copy(&stage, "--stop-at-end")).unwrap().finish(MOST).unwrap();
        let holds = format!("output '{}' holds {rows} rows that this job has not written", output(&stage));
        let who = format!("(job '{}' writes to it too, last at tick ", stage.name());
        assert_refused(&refused, 2, &[&holds, &who, "run --reconcile", "deletes"]);
    }
    assert_eq!(stage.visible().unwrap(), before, "a run that was refused has written something");
    write_others(&stage, 3);
    let ended = stage.start_with(copy(&stage, "--stop-at-end --reconcile")).unwrap().finish(MOST).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert_right(&stage);
}

/// Two jobs mix their rows.
fn another_writer_is_told(stage: &Stage) {
    let job = stage.start("").unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    // Own transactions and their markers are nobody else's.
    for part in 1..20 {
        let before = stage.visible().unwrap();
        stage.feed(part * 100..part * 100 + 100).unwrap();
        stage.wait_for_more_than(before, &job).unwrap();
    }
    write_others(stage, 3);
    let args = copy(stage, "--stop-at-end --reconcile");
    assert_eq!(stage.start_with(args).unwrap().finish(MOST).unwrap().code, Some(0));
    stage.feed(2_000..2_100).unwrap();
    job.process().wait_for_line("that this job has not written", MOST).unwrap();
    job.process().wait_for_line("foreign_records=", MOST).unwrap();
    stage.feed(2_100..2_200).unwrap();
    let said = job.terminate(MOST).unwrap().said;
    let warned = |line: &&str| line.contains("WARN") && line.contains("that this job has not written");
    let warnings: Vec<&str> = said.lines().filter(warned).collect();
    let who = format!("job '{}-copy' writes to it too", stage.name());
    assert!(warnings.len() == 1 && warnings[0].contains(&who) && warnings[0].contains(&output(stage)), "{said}");
    let first = said.lines().position(|line| line.contains("foreign_records=")).unwrap();
    let warning = said.lines().position(|line| warned(&line)).unwrap();
    assert!(warning < first, "{said}");
}

#[test]
fn records_of_another_writer_between_a_jobs_own_are_told_once_and_counted() {
    another_writer_is_told(&Stage::new(Subject::Orders, 2).unwrap());
}

#[test]
fn records_of_another_writer_on_apache_kafka_are_told_once_and_counted() {
    another_writer_is_told(&on_apache());
}

#[test]
fn topics_that_lose_what_is_kept_in_them_are_warned_of_and_those_that_are_created_are_not() {
    let stage = Stage::new(Subject::Orders, 1).unwrap();
    let run = || {
        let job = stage.start("").unwrap();
        job.process().wait_for_line("running", MOST).unwrap();
        job.terminate(SOON).unwrap().said
    };
    stage.feed(0..10).unwrap();
    let said = run();
    assert!(!said.contains("kafka-configs.sh"), "{said}");
    for topic in [output(&stage), progress(&stage)] {
        let settings = [("cleanup.policy", "delete"), ("retention.ms", "86400000")];
        assert_eq!(stage.endpoint().alter_topic(&topic, &settings).unwrap(), "ok");
    }
    let said = run();
    for (what, topic) in [("the upsert output", output(&stage)), ("the progress topic", progress(&stage))] {
        let warning =
            format!("{what} '{topic}' is subject to retention (cleanup.policy=delete, retention.ms=86400000)");
        let line = said.lines().find(|line| line.contains(&warning)).unwrap_or_else(|| panic!("{said}"));
        let command = format!("--entity-type topics --entity-name {topic} --add-config cleanup.policy=compact`");
        assert!(line.contains("WARN") && line.contains(&command), "{line}");
    }
}
