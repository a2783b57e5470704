//! A job's life as a person sees it: starts, stops, exit codes, and the one line that says why.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use fluvial_kafka_embedded::{ApiKey, Fault, ResponseError};
use fluvial_tests::apache::ApacheKafka;
use fluvial_tests::campaign::Subject;
use fluvial_tests::client::{Endpoint, Isolation};
use fluvial_tests::stage::{Finished, MOST, Stage};
use rustix::process::Signal;

/// How soon a run ends that has nothing to wait for.
const SOON: Duration = Duration::from_secs(20);
const KEPT: &str = "--keep-journal --tick-header";

/// Runs with options until something is visible, feeding a part of the input meanwhile, then stops it with `stop`.
fn run_and_stop(
    stage: &Stage,
    options: &str,
    numbers: std::ops::Range<u64>,
    stop: impl FnOnce(&fluvial_tests::stage::Started) -> anyhow::Result<Finished>,
) {
    let before = stage.visible().unwrap();
    let job = stage.start(&format!("{KEPT} {options}")).unwrap();
    stage.feed(numbers).unwrap();
    stage.wait_for_more_than(before, &job).unwrap();
    let ended = stop(&job).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    assert!(job.job().peers().is_empty());
    assert_committed_and_checkpointed(stage);
}

/// All that was bound is in the last checkpoint, and so committed.
fn assert_committed_and_checkpointed(stage: &Stage) {
    let journal = stage.journal().unwrap();
    assert!(journal.is_checkpointed(), "{:?} does not hold {:?}", journal.checkpoint, journal.ticks.last());
}

#[test]
fn a_stopped_job_goes_on_where_it_was_with_other_workers_and_processes() {
    for subject in [Subject::Orders, Subject::Bank] {
        let stage = Stage::new(subject, 3).unwrap();
        run_and_stop(&stage, "--workers 4 --processes 2", 0..500, |job| job.terminate(SOON));
        run_and_stop(&stage, "--workers 3 --processes 3", 500..900, |job| job.interrupt(SOON));
        run_and_stop(&stage, "--workers 1", 900..1000, |job| job.interrupt(SOON));
        stage.complete(&format!("{KEPT} --workers 4 --processes 4 --stop-at-end")).unwrap();
        stage.check().unwrap();
        assert_eq!(stage.journal().unwrap().generations, 4);
    }
}

#[test]
fn stop_at_end_passes_markers_aborted_records_and_empty_partitions() {
    // More partitions than records.
    let stage = Stage::new(Subject::Bank, 12).unwrap();
    stage.feed(0..4).unwrap();
    stage.feed_in_a_transaction(4..7, true).unwrap();
    // Every partition that this touches ends in aborted records and a marker.
    stage.feed_in_a_transaction(7..60, false).unwrap();
    stage.complete(&format!("{KEPT} --workers 2 --stop-at-end")).unwrap();
    stage.check().unwrap();
    // Again, with nothing new, and then with nothing but aborted records.
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    stage.feed_in_a_transaction(60..90, false).unwrap();
    stage.complete(&format!("{KEPT} --processes 2 --stop-at-end")).unwrap();
    stage.check().unwrap();
}

#[test]
fn stop_at_end_ends_on_an_empty_topic_and_goes_on_from_it() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let ended = stage.complete(&format!("{KEPT} --workers 2 --processes 2 --stop-at-end")).unwrap();
    assert!(ended.took < SOON);
    assert!(stage.table().unwrap().is_empty());
    stage.feed(0..50).unwrap();
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    stage.check().unwrap();
}

#[test]
fn stop_at_end_waits_for_no_open_transaction() {
    let stage = Stage::new(Subject::Bank, 1).unwrap();
    stage.feed(0..20).unwrap();
    let open = stage.endpoint().transactional("a-slow-writer", &[]).unwrap();
    open.begin().unwrap();
    let input = stage.input();
    let value = r#"{"id":20,"from":1,"to":2,"amount":5}"#;
    open.write(&[fluvial_tests::client::Message::text(&input, 0, "20", value)]).unwrap();
    stage.feed(21..30).unwrap();
    // The last stable offset lies before the open transaction, and that is the input's end.
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    assert_eq!(stage.journal().unwrap().records(), 20);
    open.commit().unwrap();
    stage.endpoint().settle(&input).unwrap();
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    assert_eq!(stage.journal().unwrap().records(), 30);
    stage.check().unwrap();
}

/// It went on waiting for the broker as long as its patience lasted.
#[test]
fn a_job_that_still_looks_for_its_broker_ends_at_once_when_it_is_told_to() {
    let mut stage = Stage::new(Subject::Bank, 2).unwrap();
    stage.end_the_broker();
    let job = stage.start("--patience 1h --stop-within 1h").unwrap();
    stage.wait_until(&job, "a process", || Ok(!job.job().peers().is_empty())).unwrap();
    let ended = job.terminate(MOST).unwrap();
    ended.failed_with(8, &["stopped before the job was open"]).unwrap();
}

#[test]
fn every_process_of_a_job_is_told_how_to_use_memory_and_what_the_user_says_comes_last() {
    let stage = Stage::new(Subject::Bank, 2).unwrap();
    stage.feed(0..20).unwrap();
    let theirs = "glibc.malloc.arena_max=2";
    let stage = stage.with_launcher(["env", &format!("GLIBC_TUNABLES={theirs}")]);
    let job = stage.start("--processes 2").unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    let peers = job.job().peers();
    assert_eq!(peers.len(), 2);
    for peer in peers {
        let environment = std::fs::read(format!("/proc/{peer}/environ")).unwrap();
        // The C library ends each setting where it stands, so that they look like variables of their own.
        let told = String::from_utf8_lossy(&environment).replace('\0', ":");
        let expected = "GLIBC_TUNABLES=glibc.malloc.mmap_threshold=";
        let told = told.split_once(expected).map(|(_, told)| told);
        assert!(told.is_some_and(|told| told.contains(&format!(":{theirs}:"))), "{environment:?}");
    }
    job.terminate(MOST).unwrap();
}

/// What had been read ahead before the workers knew where to stop was counted into a range that ended before it, or
/// went beyond the end.
#[test]
fn stop_at_end_takes_nothing_that_came_after_the_start() {
    let stage = Stage::new(Subject::Bank, 2).unwrap();
    stage.feed(0..20).unwrap();
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    stage.feed(20..30).unwrap();
    // The earlier writers are fenced only after the workers have read ahead.
    let not_yet = ResponseError::CoordinatorLoadInProgress;
    stage.broker().fault(Fault::fail(ApiKey::InitProducerId, not_yet).always());
    let job = stage.start(&format!("{KEPT} --workers 2 --stop-at-end")).unwrap();
    stage.wait_for_journal(&job, "second generation", |journal| journal.generations == 2).unwrap();
    let fetches = || stage.broker().requests(ApiKey::Fetch);
    let before = fetches();
    stage.feed(30..90).unwrap();
    // The next request but one is sent when the records have come.
    stage.wait_until(&job, "more of the input", || Ok(fetches() >= before + 2)).unwrap();
    stage.broker().clear_faults();
    assert_eq!(job.finish(MOST).unwrap().code, Some(0));
    assert_eq!(stage.journal().unwrap().records(), 30);
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    stage.check().unwrap();
}

#[test]
fn wrong_values_exit_2_and_say_why() {
    let stage = Stage::new(Subject::Orders, 1).unwrap();
    stage.feed(0..5).unwrap();
    for (options, reason) in [
        ("--workers 3 --processes 2", "multiple of --processes"),
        ("--workers 0", "--workers"),
        ("--workers two", "--workers"),
        ("--in-flight 10", "--in-flight"),
        ("--in-flight 64Moo", "'Moo' is not a unit of size"),
        ("--checkpoint-every 1ms", "--checkpoint-every"),
        ("--checkpoint-every soon", "--checkpoint-every"),
        ("-X no.such.setting=1", "librdkafka has no setting 'no.such.setting'"),
        ("-X fetch.min.bytes=much", "fetch.min.bytes"),
        ("-X fetch.min.bytes", "-X takes key=value"),
        ("--no-such-option", "--no-such-option"),
    ] {
        let ended = stage.start(options).unwrap().finish(SOON).unwrap();
        ended.failed_with(2, &[]).unwrap_or_else(|error| panic!("{options}: {error}"));
        assert!(ended.said.contains(reason), "{options}: {}", ended.said);
    }
    assert!(!stage.store().join(stage.name()).exists(), "nothing is made for a run that cannot be");
}

#[test]
fn a_killed_process_ends_the_run_where_no_restart_is_wanted() {
    let stage = Stage::new(Subject::Bank, 2).unwrap();
    let job = stage.start(&format!("{KEPT} --processes 2 --no-restart")).unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_for_more_than(0, &job).unwrap();
    assert!(job.job().kill_peer(1).unwrap());
    job.finish(SOON).unwrap().failed_with(4, &["process 1 of the job died"]).unwrap();
    assert!(job.job().peers().is_empty());
}

#[test]
fn a_killed_process_is_followed_by_a_new_generation_at_once() {
    let stage = Stage::new(Subject::Bank, 2).unwrap();
    let job = stage.start(&format!("{KEPT} --processes 2")).unwrap();
    for round in 0..2 {
        let before = stage.visible().unwrap();
        stage.feed(round * 100..round * 100 + 100).unwrap();
        stage.wait_for_more_than(before, &job).unwrap();
        assert!(job.job().kill_peer(round as usize).unwrap());
    }
    stage.feed(200..300).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    assert_eq!(job.terminate(SOON).unwrap().code, Some(0));
    assert_eq!(stage.journal().unwrap().generations, 3);
    stage.check().unwrap();
}

#[test]
fn no_process_outlives_the_first_not_even_a_stopped_one() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let job = stage.start(&format!("{KEPT} --processes 3")).unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_for_more_than(0, &job).unwrap();
    assert_eq!(job.job().peers().len(), 3);
    job.signal_peer(1, Signal::STOP).unwrap();
    job.job().kill_first(Duration::from_secs(5)).unwrap();
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    stage.check().unwrap();
}

#[test]
fn the_newer_of_two_copies_fences_the_older() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let older = stage.start(&format!("{KEPT} --processes 2")).unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_for_more_than(0, &older).unwrap();
    let newer = stage.start(&format!("{KEPT} --workers 3")).unwrap();
    let input = std::thread::scope(|scope| {
        let feeding = scope.spawn(|| (1..20).try_for_each(|part| stage.feed(part * 100..part * 100 + 100)));
        older.finish(MOST).unwrap().failed_with(3, &["superseded by generation 2 of this job"]).unwrap();
        feeding.join().unwrap()
    });
    input.unwrap();
    stage.wait_until_caught_up(&newer).unwrap();
    assert_eq!(newer.terminate(SOON).unwrap().code, Some(0));
    assert_eq!(stage.journal().unwrap().generations, 2);
    stage.check().unwrap();
}

/// A writer of a process that the next generation does not have. Its id begins with the job's name.
#[test]
fn a_smaller_generation_fences_the_writers_of_a_larger_one() {
    let stage = Stage::new(Subject::Bank, 2).unwrap();
    stage.feed(0..50).unwrap();
    stage.complete(&format!("{KEPT} --workers 4 --processes 4 --stop-at-end")).unwrap();
    let opened = std::fs::read_to_string(stage.store().join(stage.name()).join("journal/00000000000000000000.json"));
    let opened: serde_json::Value = serde_json::from_str(opened.unwrap().split_once('\n').unwrap().1).unwrap();
    let zombie = format!("{}-{}-3-1", stage.name(), opened["incarnation"].as_str().unwrap());
    let zombie = stage.endpoint().transactional(&zombie, &[]).unwrap();
    zombie.begin().unwrap();
    let total = format!("{}.total", stage.name());
    zombie.write(&[fluvial_tests::client::Message::text(&total, 0, "{}", "{\"total\":7}")]).unwrap();
    stage.complete(&format!("{KEPT} --workers 1 --stop-at-end")).unwrap();
    zombie.commit().unwrap_err();
    stage.check().unwrap();
}

#[test]
fn a_stop_without_a_broker_is_bounded_and_says_what_was_not_done() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let job = stage.start(&format!("{KEPT} --workers 2 --processes 2 --stop-within 3s")).unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_for_more_than(0, &job).unwrap();
    // What is read from now on cannot be committed.
    let bound = |stage: &Stage| stage.journal().unwrap().ticks.len();
    let before = bound(&stage);
    let value = r#"{"order_id":1,"customer":"c","region":"eu","product":"p","quantity":1,"price_cents":1,"at":0}"#;
    stage.broker().fault(Fault::delay(ApiKey::EndTxn, Duration::from_secs(3600)).always());
    let input = stage.input();
    let message = fluvial_tests::client::Message::text(&input, 0, "1", value);
    stage.endpoint().writer(&[]).unwrap().write(&[message]).unwrap();
    stage.wait_until(&job, "another tick", || Ok(bound(&stage) > before)).unwrap();
    stage.broker().fault(Fault::drop(None).always());
    let ended = job.terminate(SOON).unwrap();
    ended.failed_with(8, &["not all output could be committed"]).unwrap();
    assert!(ended.took < Duration::from_secs(8), "{:?}", ended.took);
    stage.broker().clear_faults();
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    stage.check().unwrap();
}

/// One record in a committed transaction, and then nothing but an aborted one, was a lag of records for ever.
#[test]
fn control_records_and_aborted_records_are_no_lag() {
    let kafka = Endpoint::new(ApacheKafka::shared().bootstrap());
    for stage in [Stage::new(Subject::Bank, 1), Stage::on(&kafka, kafka.bootstrap(), Subject::Bank, 1)] {
        let stage = stage.unwrap();
        let group = format!("{}-readers", stage.name());
        stage.feed_in_a_transaction(0..1, true).unwrap();
        let job = stage.start(&format!("--log-format json --group {group}")).unwrap();
        stage.wait_for_more_than(0, &job).unwrap();
        stage.feed_in_a_transaction(1..5, false).unwrap();
        let (input, endpoint) = (stage.input(), stage.endpoint());
        let end = endpoint.watermarks(&input, 0, Isolation::Uncommitted).unwrap().1;
        assert!(end > 2, "one record, its marker, four records, their marker: {end}");
        let lag = || {
            let log = std::fs::read_to_string(job.process().log())?;
            let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let status = lines.map(|line| line["fields"].clone()).rfind(|fields| fields["message"] == "running");
            anyhow::Ok(status.and_then(|status| status["lag_records"].as_u64()))
        };
        stage.wait_until(&job, "a lag of 0", || Ok(lag()? == Some(0))).unwrap();
        let in_group = || endpoint.committed(&group, &input, 0);
        stage.wait_until(&job, "committed offsets at the end", || Ok(in_group()? == Some(end))).unwrap();
        // What comes then is read from where it was.
        stage.feed_in_a_transaction(5..6, true).unwrap();
        stage.wait_until_caught_up(&job).unwrap();
        assert_eq!(job.terminate(SOON).unwrap().code, Some(0));
        stage.complete("--stop-at-end").unwrap();
        assert_eq!(stage.table().unwrap(), stage.table_of_input().unwrap());
    }
}
