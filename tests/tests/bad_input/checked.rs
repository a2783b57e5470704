//! `check` says what would end a run, with the run's exit code, and changes nothing, neither in the store nor on the brokers.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use fluvial_kafka_embedded::{ApiKey, Fault};
use fluvial_tests::stage::{Finished, MOST, Stage};
use fluvial_tests::subject::Subject;
use serde_json::Value;

use super::{KEPT, SOON, assert_refused, completed, faulty, objects};

/// What a check may take if something does not answer.
const BOUND: Duration = Duration::from_secs(45);

/// The requests by which a client changes something at a broker.
const CHANGES: [ApiKey; 7] = [
    ApiKey::Produce,
    ApiKey::InitProducerId,
    ApiKey::AddPartitionsToTxn,
    ApiKey::EndTxn,
    ApiKey::OffsetCommit,
    ApiKey::JoinGroup,
    ApiKey::DeleteTopics,
];

/// All that a check could change: the files of the store, and the topics with their ends.
#[derive(Debug, PartialEq, Eq)]
struct World {
    files: BTreeMap<PathBuf, Vec<u8>>,
    exists: bool,
    topics: BTreeMap<String, Vec<i64>>,
    changes: Vec<u64>,
}

impl World {
    fn of(stage: &Stage) -> Self {
        let exists = stage.store().join(stage.name()).exists();
        let files = if exists { objects(stage, ".") } else { Vec::new() };
        let files = files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap()));
        let topics = stage.broker().topics().into_keys();
        Self {
            files: files.collect(),
            exists: stage.store().exists(),
            topics: topics.map(|topic| (topic.clone(), stage.broker().end_offsets(&topic))).collect(),
            changes: CHANGES.map(|api| stage.broker().requests(api)).to_vec(),
        }
    }
}

/// The arguments of a check, with some of the job's options changed.
fn args_of(stage: &Stage, changed: &[(&str, &str)], more: &str) -> Vec<OsString> {
    let mut args = vec!["check".into()];
    args.extend(stage.common_args());
    for (option, value) in changed {
        let at = args.iter().position(|arg| arg == option).unwrap();
        args[at + 1] = value.into();
    }
    args.extend(more.split_whitespace().map(OsString::from));
    args
}

fn check(stage: &Stage, more: &str) -> Finished {
    stage.start_with(args_of(stage, &[], more)).unwrap().finish(BOUND).unwrap()
}

/// Checks that a check has ended with this code and with these problems, one line each, and that it changed nothing.
#[track_caller]
fn assert_unready(stage: &Stage, args: Vec<OsString>, code: i32, problems: &[&[&str]]) {
    let before = World::of(stage);
    let checked = stage.start_with(args).unwrap().finish(BOUND).unwrap();
    assert_eq!(World::of(stage), before, "a check has changed something");
    let said = &checked.said;
    assert_eq!(checked.code, Some(code), "{said}");
    let after_version = said.lines().skip_while(|line| !line.starts_with("version "));
    let lines: Vec<_> = after_version.skip(1).filter(|line| !line.starts_with("warning: ")).collect();
    assert_eq!(lines.len(), problems.len(), "{said}");
    for (line, parts) in lines.iter().zip(problems) {
        assert!(parts.iter().all(|part| line.contains(part)), "{parts:?} is not in: {line}");
    }
}

#[track_caller]
fn assert_ready(stage: &Stage, more: &str) {
    let before = World::of(stage);
    let checked = check(stage, more);
    assert_eq!(World::of(stage), before, "a check has changed something");
    assert_eq!((checked.code, checked.said.lines().last()), (Some(0), Some("ready")), "{}", checked.said);
}

#[test]
fn a_job_that_could_run_is_ready_before_its_first_start_after_its_end_and_after_a_kill() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    stage.feed(0..100).unwrap();
    assert_ready(&stage, KEPT);
    assert!(!World::of(&stage).exists, "the store was created");
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    assert_ready(&stage, KEPT);
    let job = stage.start(&format!("{KEPT} --checkpoint-every 1h")).unwrap();
    stage.feed(100..200).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    job.job().kill_all().unwrap();
    assert_ready(&stage, KEPT);
    assert_ready(&stage, &format!("{KEPT} --reconcile"));
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    stage.check().unwrap();
}

#[test]
fn a_job_that_runs_is_not_disturbed_and_ready() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let job = stage.start(&format!("{KEPT} --checkpoint-every 200ms --processes 2 --workers 2"));
    let job = job.unwrap();
    for round in 0..5 {
        let checked = std::thread::scope(|threads| {
            let checked = threads.spawn(|| check(&stage, KEPT));
            for part in 0..10 {
                let from = round * 100 + part * 10;
                stage.feed(from..from + 10).unwrap();
            }
            checked.join().unwrap()
        });
        assert_eq!((checked.code, checked.said.lines().last()), (Some(0), Some("ready")), "{}", checked.said);
    }
    stage.wait_until_caught_up(&job).unwrap();
    assert_eq!(job.terminate(MOST).unwrap().code, Some(0));
    assert_eq!(stage.journal().unwrap().generations, 1, "the job was started again");
    stage.check().unwrap();
}

#[test]
fn durable_operators_that_do_not_fit_are_named_each() {
    let stage = faulty(Stage::new(Subject::Orders, 2).unwrap());
    stage.feed(0..100).unwrap();
    stage.complete("--stop-at-end").unwrap();
    assert_ready(&stage, "");
    let gone: &[_] = &["state: ", "durable operator 'rows'", "this binary does not have"];
    let new: &[_] = &["state: ", "the durable operator 'lines' is new"];
    assert_unready(&stage, args_of(&stage, &[], "--wrong renamed"), 2, &[gone, new]);
    let retyped: &[_] = &["durable operator 'rows' is latest", "in the checkpoint and latest", "another --name"];
    assert_unready(&stage, args_of(&stage, &[], "--wrong retyped"), 2, &[retyped]);
    let other: &[_] = &["durable operator 'rows' is latest", "in the checkpoint and aggregate"];
    assert_unready(&stage, args_of(&stage, &[], "--wrong panics-in-aggregate"), 2, &[other]);
    let new: &[_] = &["output 'another' is new", "run --reconcile", "run --upgrade "];
    assert_unready(&stage, args_of(&stage, &[], "--copy another"), 2, &[new]);
    assert_ready(&stage, "--copy another --reconcile");
}

#[test]
fn inputs_outputs_and_brokers_that_are_not_there_are_named_all_at_once() {
    let stage = completed(100);
    let missing: &[_] = &["source 'orders': ", "'no-such-topic'", "create it, or check its name"];
    assert_unready(&stage, args_of(&stage, &[("--input", "no-such-topic")], ""), 2, &[missing]);
    let removed: &[_] = &["the job writes the output", "which this binary lacks"];
    assert_unready(&stage, args_of(&stage, &[("--output", "another")], ""), 2, &[removed]);
    // A port where nobody listens.
    let closed = args_of(&stage, &[("--brokers", "127.0.0.1:1")], "--patience 2s");
    let (source, sink): (&[_], &[_]) = (&["source 'orders': ", "127.0.0.1:1"], &["sink: ", "127.0.0.1:1"]);
    assert_unready(&stage, closed, 6, &[source, sink]);
    stage.endpoint().delete_topic(&stage.outputs()[0]).unwrap();
    let gone: &[_] = &["was deleted and recreated (it has the id none yet", "run --reconcile"];
    assert_unready(&stage, args_of(&stage, &[], ""), 11, &[gone]);
}

#[test]
fn a_broker_that_does_not_answer_is_named_in_bounded_time() {
    let stage = completed(50);
    stage.broker().fault(Fault::delay(ApiKey::ListOffsets, Duration::from_secs(3600)).always());
    let before = std::time::Instant::now();
    let checked = stage.start_with(args_of(&stage, &[], "--patience 15s")).unwrap().finish(BOUND).unwrap();
    assert!(before.elapsed() < BOUND);
    assert_eq!(checked.code, Some(5), "{}", checked.said);
    // The source is content with topics and partitions; the sink wants to know how far the outputs are. A question about a topic that
    // is asked on the same connection after that one gets no answer either, and is then the one that is named.
    let says = |line: &str| {
        let of_sink = line.starts_with("sink: the sink (kafka ") && line.contains("does not answer");
        of_sink || (line.starts_with("sink: ask kafka about topic") && line.contains("Timed out"))
    };
    assert!(checked.said.lines().any(says), "{}", checked.said);
    stage.broker().clear_faults();
    stage.broker().disconnect_all();
    assert_ready(&stage, KEPT);
}

#[test]
fn a_store_that_is_damaged_or_of_another_job_is_named() {
    let stage = completed(100);
    for folder in ["journal", "checkpoints", "state"] {
        let object = objects(&stage, folder).pop().unwrap();
        let whole = std::fs::read(&object).unwrap();
        std::fs::write(&object, &whole[..whole.len() / 2]).unwrap();
        let file: &[_] = &[object.file_name().unwrap().to_str().unwrap()];
        assert_unready(&stage, args_of(&stage, &[], ""), 11, &[file]);
        std::fs::write(&object, &whole).unwrap();
    }
    let manifest = objects(&stage, "checkpoints").pop().unwrap();
    let whole = std::fs::read(&manifest).unwrap();
    std::fs::remove_file(&manifest).unwrap();
    assert_unready(&stage, args_of(&stage, &[], ""), 11, &[&["store: ", "the manifest", "is missing"]]);
    std::fs::write(&manifest, whole).unwrap();
    let other = stage.folder().join("another-store");
    let elsewhere = args_of(&stage, &[("--store", other.to_str().unwrap())], "");
    let of_another: &[_] =
        &["job: ", "the progress of output", "a job of the same name has written it from another store"];
    assert_unready(&stage, elsewhere, 11, &[of_another]);
    assert!(!other.exists());
    let file = stage.folder().join("file");
    std::fs::write(&file, "").unwrap();
    let no_folder = args_of(&stage, &[("--store", file.to_str().unwrap())], "");
    assert_unready(&stage, no_folder, 2, &[&["store: ", file.to_str().unwrap()]]);
    assert_ready(&stage, KEPT);
}

#[test]
fn an_output_that_holds_rows_of_others_is_named_before_the_first_start() {
    let stage = completed(100);
    let held: &[_] = &["job: ", "holds", "rows that this job has not written", "run --reconcile"];
    assert_unready(&stage, args_of(&stage, &[("--name", "another")], ""), 2, &[held]);
}

#[test]
fn wrong_options_and_json() {
    let stage = completed(50);
    let wrong = stage.start_with(args_of(&stage, &[], "--workers 3 --processes 2")).unwrap().finish(SOON).unwrap();
    assert_refused(&wrong, 2, &["3 workers cannot be shared evenly by 2 processes"]);
    let json = |args| {
        let said = stage.start_with(args).unwrap().finish(BOUND).unwrap().said;
        let verdict = said.lines().last().unwrap();
        serde_json::from_str::<Value>(verdict).expect(&said)
    };
    let ready = json(args_of(&stage, &[], "--json"));
    assert_eq!((&ready["ready"], ready["problems"].as_array().unwrap().len()), (&Value::Bool(true), 0), "{ready}");
    assert_eq!(ready["version"].as_str().unwrap().len(), 32);
    let unready = json(args_of(&stage, &[("--input", "no-such-topic")], "--json"));
    assert_eq!(unready["ready"], Value::Bool(false));
    assert_eq!(
        (&unready["problems"][0]["part"], &unready["problems"][0]["code"]),
        (&"source 'orders'".into(), &2.into())
    );
}
