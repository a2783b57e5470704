//! A job whose store is a bucket on S3's protocol: it does what it does on a folder, and outlives what happens to such
//! stores. Lists come in pages of seven objects, each page in the reverse order.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use fluvial_tests::s3::{Fault, Message, Requests};
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

/// What the requests of each hour cost in a month, at the list prices of S3 Standard.
fn dollars_a_month(writes: f64, reads: f64) -> f64 {
    (writes * 0.005 + reads * 0.0004) / 1000.0 * 730.0
}

/// The requests that a front gets meanwhile: those that write or list, and those that read.
fn meanwhile(stage: &Stage, run: impl FnOnce()) -> (f64, f64) {
    let before = stage.front().requests();
    run();
    let after = stage.front().requests();
    ((after.writes - before.writes) as f64, (after.reads - before.reads) as f64)
}

/// The figures are printed: `--nocapture` shows them. The window holds heartbeats at their slowest pace, 30 s, a checkpoint
/// without input, which comes each 150 s, and looks of the coordinator. Each copy checks besides each half hour whether it
/// could run the job: the window is too short for that, so one check is counted by itself.
#[test]
fn an_idle_job_and_an_idle_group_of_ten_copies_cost_less_than_a_dollar_a_month() {
    const WINDOW: Duration = Duration::from_secs(150);
    let (alone, group) = (stage(), stage());
    let job = alone.start("").unwrap();
    let copies: Vec<_> =
        (0..10).map(|_| group.start("--join --listen 127.0.0.1:0 --slots 1 --workers auto").unwrap()).collect();
    let all = [(&alone, &job), (&group, &copies[0])];
    for (stage, job) in all {
        stage.feed(0..100).unwrap();
        stage.wait_until_caught_up(job).unwrap();
    }
    // The first check of each copy, the move to all copies, the checkpoint after the input, and 1, 2, 4, 8 and 16 s between
    // two heartbeats.
    std::thread::sleep(Duration::from_secs(60));
    let mut counted = Vec::new();
    std::thread::scope(|threads| {
        let counting = all.map(|(stage, _)| threads.spawn(move || meanwhile(stage, || std::thread::sleep(WINDOW))));
        counted.extend(counting.map(|counting| counting.join().unwrap()));
    });
    let (check_writes, check_reads) = meanwhile(&group, || drop(group.ask("check", "").unwrap()));
    let windows = 3600.0 / WINDOW.as_secs_f64();
    for ((name, checking), (writes, reads)) in [("job", 0.0), ("group of 10 copies", 10.0)].into_iter().zip(counted) {
        let checks = checking * 2.0;
        let (writes, reads) = (writes * windows + checks * check_writes, reads * windows + checks * check_reads);
        let dollars = dollars_a_month(writes, reads);
        println!("an idle {name}: {writes} PUT and LIST and {reads} GET an hour, ${dollars:.2} a month");
        assert!(writes > 100.0, "the heartbeats are not counted");
        assert!(
            dollars < 1.0,
            "an idle {name} costs ${dollars:.2}: {writes} {reads}; a check: {check_writes} {check_reads}"
        );
    }
    for (name, (stage, job)) in ["job", "group of 10 copies"].into_iter().zip(all) {
        let (begun, mut fed) = (Instant::now(), 100);
        let (writes, reads) = meanwhile(stage, || {
            while begun.elapsed() < Duration::from_secs(20) {
                stage.feed(fed..fed + 10).unwrap();
                fed += 10;
            }
        });
        let an_hour = 3600.0 / begun.elapsed().as_secs_f64();
        let (writes, reads) = (writes * an_hour, reads * an_hour);
        let dollars = dollars_a_month(writes, reads);
        println!("a busy {name}: {writes:.0} PUT and LIST and {reads:.0} GET an hour, ${dollars:.2} a month");
        stage.wait_until_caught_up(job).unwrap();
    }
    // What `status` adds up is all that the bucket is asked for, but for the checks, which are processes of their own.
    let args = vec!["--store".into(), group.store_url(), "--name".into(), group.name().into()];
    let counted = || {
        let status: serde_json::Value =
            serde_json::from_str(&group.ask_with("status", args.clone(), "--json").unwrap()).unwrap();
        let members = status["members"].as_array().unwrap();
        members.iter().map(|member| member["store_requests"].as_u64().unwrap()).sum::<u64>()
    };
    let all = || {
        let Requests { writes, reads, deletes } = group.front().requests();
        writes + reads + deletes
    };
    let (counted, all) = (counted(), all());
    println!("`status` counts {counted} of {all} requests");
    // Each copy has checked once at the least, and this test once.
    let of_checks = 11.0 * (check_writes + check_reads);
    let explained = counted as f64 + of_checks;
    assert!(
        counted <= all && explained >= 0.9 * all as f64,
        "`status` counts {counted} of {all} requests, {of_checks}"
    );
    assert_eq!(job.terminate(MOST).unwrap().code, Some(0));
    copies.iter().for_each(|copy| copy.process().signal(rustix::process::Signal::TERM).unwrap());
    copies.iter().for_each(|copy| assert!(copy.process().wait(MOST).unwrap().success()));
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
fn objects_that_were_damaged_or_deleted_are_refused_by_name() {
    let stage = stage();
    stage.feed(0..100).unwrap();
    let run = format!("{KEPT} --stop-at-end");
    stage.complete(&run).unwrap();
    // Without its newest record, the journal is an older one.
    for (folder, may_be_deleted) in [("journal", false), ("checkpoints", true), ("state", true)] {
        let (name, kept) = stage.objects_in_bucket(folder).unwrap().into_iter().max().unwrap();
        // Of a small object another digit, which is as good JSON as before; of a state file a byte in its middle.
        let mut changed = kept.clone();
        let digit = changed.iter().rposition(u8::is_ascii_digit).unwrap();
        let at = if folder == "state" { changed.len() / 2 } else { digit };
        changed[at] ^= 1;
        for bytes in [Some(&b"damaged"[..]), Some(&changed), None] {
            if bytes.is_none() && !may_be_deleted {
                continue;
            }
            stage.set_object(&name, bytes).unwrap();
            stage.start(&run).unwrap().finish(SOON).unwrap().failed_with(11, &[&name]).unwrap();
        }
        stage.set_object(&name, Some(&kept)).unwrap();
    }
    stage.feed(100..150).unwrap();
    stage.complete(&run).unwrap();
    stage.check().unwrap();
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
