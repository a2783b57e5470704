//! A job whose store is a bucket on S3's protocol: it does what it does on a folder, and outlives what happens to such
//! stores. Lists come in pages of seven objects, each page in the reverse order.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use fluvial_tests::s3::{Fault, Message};
use fluvial_tests::stage::{MOST, Stage, Started};
use fluvial_tests::subject::Subject;

/// How soon a run ends that has nothing to wait for.
const SOON: Duration = Duration::from_secs(20);
/// What a run needs whose output is compared record by record.
const KEPT: &str = "--keep-journal --tick-header";
/// So many requests are as good as all.
const ALL: usize = usize::MAX;

fn stage() -> Stage {
    Stage::on_s3(Subject::Orders, 2).unwrap()
}

fn any(_: &Message) -> bool {
    true
}

/// A job that has caught up with 100 records, and takes a checkpoint each second.
fn running(stage: &Stage, options: &str) -> Started {
    let job = stage.start(&format!("{KEPT} --checkpoint-every 1s {options}")).unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    job
}

/// The rest of the input goes through, the job ends well, and each record of the output is there once.
fn goes_on(stage: &Stage, job: &Started) {
    stage.feed(200..300).unwrap();
    stage.wait_until_caught_up(job).unwrap();
    let ended = job.terminate(SOON).unwrap();
    assert_eq!(ended.code, Some(0), "{}", ended.said);
    stage.check().unwrap();
}

#[test]
fn a_job_is_killed_and_goes_on_and_can_be_replayed_and_looked_at() {
    let stage = stage();
    let job = running(&stage, "--workers 2 --processes 2");
    stage.feed(100..150).unwrap();
    job.job().kill_peer(1).unwrap();
    job.process().wait_for_line("starting the next", MOST).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    stage.feed(150..200).unwrap();
    job.job().kill_all().unwrap();
    // Another number of workers restores the state from the bucket.
    let job = stage.start(&format!("{KEPT} --checkpoint-every 1s --workers 3")).unwrap();
    goes_on(&stage, &job);
    let of_store = ["--store".into(), stage.store_url(), "--name".into(), stage.name().into()];
    let listed = stage.ask_with("state", of_store.into(), "--sql orders").unwrap();
    assert!(listed.contains("'s3://bucket"), "{listed}");
    assert!(!job.process().log_holds("TheSecretOfTheTest"));
}

#[test]
fn a_job_says_what_it_will_ask_of_the_store_and_an_idle_one_asks_little() {
    let stage = stage();
    let job = stage.start(KEPT).unwrap();
    stage.feed(0..100).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    job.process()
        .wait_for_line("will get about 192 requests an hour while the job is idle ($0.70 a month", SOON)
        .unwrap();
    // The records that the job has just read, and the checkpoint after them, are done by then.
    let first = stage.front().requests();
    std::thread::sleep(Duration::from_secs(16));
    let then = stage.front().requests();
    // Heartbeats 1, 2, 4 and 8 s after the first, and one checkpoint: its tick, its state files, its manifest, its record.
    let (writes, reads) = (then.writes - first.writes, then.reads - first.reads);
    assert!(writes <= 12 && reads <= 2, "{first:?} {then:?}");
    assert_eq!(job.terminate(SOON).unwrap().code, Some(0));
}

#[test]
fn a_store_that_is_unavailable_for_some_seconds_holds_a_job_up_and_no_longer() {
    for fault in [Fault::Close, Fault::Refuse(503, "SlowDown"), Fault::Refuse(500, "InternalError"), Fault::Hang] {
        println!("{fault:?}");
        let stage = stage();
        let job = running(&stage, "--patience 60s");
        stage.front().arm(any, fault, ALL);
        stage.feed(100..200).unwrap();
        let before = stage.visible().unwrap();
        // Many tries of one request, or the time that a request may take.
        stage.front().wait_until_met(if fault == Fault::Hang { 1 } else { 8 }, MOST).unwrap();
        if fault == Fault::Hang {
            job.process().wait_for_line("no answer within 10s", MOST).unwrap();
        }
        assert_eq!(stage.visible().unwrap(), before, "something is visible that the journal does not hold");
        stage.front().calm();
        goes_on(&stage, &job);
        assert!(!job.process().log_holds("starting the next"), "{}", job.process().log_end());
    }
}

#[test]
fn creates_whose_outcome_is_unclear_are_looked_at_before_they_are_judged() {
    for fault in [Fault::Refuse(409, "ConditionalRequestConflict"), Fault::LoseAnswer] {
        println!("{fault:?}");
        let stage = stage();
        let job = running(&stage, "");
        for number in 0..4 {
            stage.front().arm(Message::creates, fault, 3);
            stage.feed(100 + 25 * number..125 + 25 * number).unwrap();
            stage.front().wait_until_met(3, MOST).unwrap();
        }
        stage.front().calm();
        goes_on(&stage, &job);
        assert!(!job.process().log_holds("starting the next"), "{}", job.process().log_end());
    }
}

#[test]
fn a_slow_store_makes_a_job_slow_and_nothing_else() {
    let stage = stage();
    stage.front().arm(any, Fault::Delay(Duration::from_millis(150)), ALL);
    let job = running(&stage, "");
    goes_on(&stage, &job);
}

#[test]
fn a_store_is_refused_by_name_if_it_ignores_conditions_or_cannot_be_used() {
    let url = |stage: &Stage| stage.store_url().into_string().unwrap();
    let refused = |stage: &Stage, parts: &[&str]| {
        let start = Instant::now();
        let ended = stage.start("").unwrap().finish(SOON).unwrap();
        ended.failed_with(2, &[&[url(stage).as_str()], parts].concat()).unwrap();
        assert!(!ended.said.contains("TheSecretOfTheTest"), "{}", ended.said);
        // Nobody waits for what only a person can change.
        assert!(start.elapsed() < SOON);
    };
    let lying = stage();
    lying.front().arm(Message::creates, Fault::Unconditional, ALL);
    refused(&lying, &["ignores the condition of a conditional create", "use another store"]);
    assert_eq!(lying.visible().unwrap_or(0), 0);

    let without = stage().without_its_bucket();
    refused(&without, &["404 NoSuchBucket", "the bucket does not exist: create it, or correct --store"]);

    for (status, code) in [(403, "InvalidAccessKeyId"), (401, "Unauthorized")] {
        let denied = stage();
        denied.front().arm(any, Fault::Refuse(status, code), ALL);
        refused(&denied, &[code, "refuses the job's credentials"]);
    }
    let lacking = stage();
    lacking.front().arm(Message::creates, Fault::Refuse(501, "NotImplemented"), ALL);
    refused(&lacking, &["501 NotImplemented", "lacks a function that a job needs"]);
}

#[test]
fn a_store_whose_credentials_are_withdrawn_ends_the_run_at_once() {
    let stage = stage();
    let job = running(&stage, "");
    let before = stage.visible().unwrap();
    stage.front().arm(any, Fault::Refuse(403, "AccessDenied"), ALL);
    stage.feed(100..200).unwrap();
    job.finish(SOON)
        .unwrap()
        .failed_with(2, &["s3://bucket", "403 AccessDenied", "refuses the job's credentials"])
        .unwrap();
    assert_eq!(stage.visible().unwrap(), before, "something is visible that the journal does not hold");
    stage.front().calm();
    goes_on(&stage, &stage.start(KEPT).unwrap());
}

#[test]
fn a_store_that_stays_unavailable_ends_the_run_after_the_patience() {
    let stage = stage();
    stage.front().arm(any, Fault::Close, ALL);
    let ended = stage.start("--patience 2s").unwrap().finish(SOON).unwrap();
    ended.failed_with(7, &["cannot create 's3://bucket", "/probe/"]).unwrap();
}
