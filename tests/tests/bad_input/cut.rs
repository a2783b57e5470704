//! Input whose tail is lost, as an unclean leader election loses it: never a silent jump, never an endless wait.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use fluvial_tests::apache::{ApacheKafka, Options};
use fluvial_tests::client::{Endpoint, Isolation};
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;

use super::replay::goes_on_normally;
use super::{args_with, assert_refused, assert_right};

/// The partition that loses its tail.
const CUT: i32 = 1;

/// An Apache Kafka that one test at a time breaks.
fn cuttable() -> MutexGuard<'static, ApacheKafka> {
    static CUTTABLE: OnceLock<Mutex<ApacheKafka>> = OnceLock::new();
    let start = || Mutex::new(ApacheKafka::start(&Options { heap_mib: 512, ..Options::default() }).unwrap());
    CUTTABLE.get_or_init(start).lock().unwrap_or_else(PoisonError::into_inner)
}

fn on(kafka: &ApacheKafka) -> Stage {
    Stage::on(&Endpoint::new(kafka.bootstrap()), kafka.bootstrap(), Subject::Orders, 2).unwrap()
}

fn end(stage: &Stage) -> u64 {
    u64::try_from(stage.endpoint().watermarks(&stage.input(), CUT, Isolation::Committed).unwrap().1).unwrap()
}

/// Removes what the input has from `to` on. Gives its end before that.
fn cut(kafka: &mut ApacheKafka, stage: &Stage, to: u64) -> u64 {
    let before = end(stage);
    kafka.lose_the_tail(&stage.input(), CUT, to).unwrap();
    let start = Instant::now();
    // The partition has no leader at first, and nothing tells when it has.
    while stage.endpoint().watermarks(&stage.input(), CUT, Isolation::Committed).is_err() {
        assert!(start.elapsed() < MOST, "the partition has no leader again");
    }
    assert!(end(stage) == to && to < before, "the partition has not been truncated at {to}");
    before
}

/// Feeds in two parts, and gives the end of the first. Each has a writer of its own: one that the broker knows only the
/// first records of, by then, could not go on.
fn feed_in_two_parts(stage: &Stage) -> u64 {
    stage.feed_in_a_transaction(0..200, true).unwrap();
    let first = end(stage);
    stage.feed_in_a_transaction(200..300, true).unwrap();
    first
}

/// Runs the job until it has read both parts, and kills it. Gives the end of the first.
fn reads_two_parts_and_is_killed(stage: &Stage, options: &str) -> u64 {
    let job = stage.start(options).unwrap();
    let first = feed_in_two_parts(stage);
    stage.wait_until_caught_up(&job).unwrap();
    job.job().kill_all().unwrap();
    first
}

/// Whether it is said that the log ends here, and was read to its end before. Whether the last marker was read before the
/// kill, who knows.
fn is_named(said: &str, end: u64, before: u64) -> bool {
    let named = |read| format!("partition {CUT} ends at offset {end} now, and has been read up to {read}:");
    (before - 1..=before).any(|read| said.contains(&named(read)))
}

#[test]
fn a_tail_that_is_lost_is_named_and_reconciled() {
    let mut kafka = cuttable();
    let stage = on(&kafka);
    let first = reads_two_parts_and_is_killed(&stage, "--checkpoint-every 1h --processes 2");
    let before = stage.table().unwrap();
    let read = cut(&mut kafka, &stage, first);
    for options in ["", "--stop-at-end --workers 2"] {
        let refused = stage.start(options).unwrap().finish(MOST).unwrap();
        assert_refused(&refused, 11, &[&stage.input(), "run --reconcile"]);
        let why = refused.error().unwrap();
        assert!(is_named(why, first, read), "{why}");
    }
    let why = format!("{:#}", stage.replay("").unwrap_err());
    assert!(is_named(&why, first, read), "{why}");
    assert_eq!(stage.table().unwrap(), before, "a run that was refused has written something");
    stage.complete("--reconcile --stop-at-end --workers 3").unwrap();
    assert_right(&stage);
    goes_on_normally(&stage);
}

#[test]
fn a_generation_that_reconciles_a_lost_tail_may_be_killed_before_its_checkpoint() {
    let mut kafka = cuttable();
    let stage = on(&kafka);
    let first = reads_two_parts_and_is_killed(&stage, "--checkpoint-every 1h");
    cut(&mut kafka, &stage, first);
    // Its checkpoint comes at its first tick: it dies before that is complete.
    let dies = "--reconcile --no-restart --fail-point after-manifest=kill";
    assert_eq!(stage.start(dies).unwrap().finish(MOST).unwrap().code, Some(4), "it has not been killed");
    stage.feed(1_000..1_300).unwrap();
    stage.complete("--stop-at-end --processes 2").unwrap();
    assert_right(&stage);
    goes_on_normally(&stage);
}

#[test]
fn a_run_takes_the_input_as_it_is_until_it_has_a_checkpoint() {
    let mut kafka = cuttable();
    let stage = on(&kafka);
    let first = reads_two_parts_and_is_killed(&stage, "--checkpoint-every 1h");
    cut(&mut kafka, &stage, first);
    let job = stage.start("--reconcile --keep-journal --fail-point after-manifest=kill").unwrap();
    // The first of its generations has no checkpoint, the second has. (Where one opens, the journal has holes.)
    stage.wait_for_journal(&job, "a checkpoint", |journal| journal.checkpoints > 0).unwrap();
    assert!(job.job().kill_peer(0).unwrap());
    stage.wait_for_journal(&job, "a generation", |journal| journal.generations == 4).unwrap();
    stage.feed(1_000..1_300).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    assert_eq!(job.terminate(MOST).unwrap().code, Some(0));
    assert_eq!(stage.journal().unwrap().reconciliations, 2);
    assert_right(&stage);
    goes_on_normally(&stage);
}

#[test]
fn other_records_in_place_of_a_lost_tail_are_named_and_reconciled() {
    let mut kafka = cuttable();
    let stage = on(&kafka);
    let first = reads_two_parts_and_is_killed(&stage, "--checkpoint-every 1h --processes 2");
    let read = end(&stage);
    cut(&mut kafka, &stage, first);
    stage.feed(1_000..1_300).unwrap();
    assert!(end(&stage) > read);
    let refused = stage.start("--stop-at-end").unwrap().finish(MOST).unwrap();
    let parts =
        [&*stage.input(), &format!("partition {CUT} no longer holds what was read at offset"), "run --reconcile"];
    assert_refused(&refused, 11, &parts);
    stage.complete("--reconcile --stop-at-end").unwrap();
    assert_right(&stage);
    goes_on_normally(&stage);
}

#[test]
fn a_lost_tail_that_lies_behind_the_checkpoint_is_named_and_gone_on_from() {
    for written_since in [false, true] {
        let mut kafka = cuttable();
        let stage = on(&kafka);
        let job = stage.start("").unwrap();
        let first = feed_in_two_parts(&stage);
        stage.wait_until_caught_up(&job).unwrap();
        assert_eq!(job.terminate(MOST).unwrap().code, Some(0));
        let before = stage.table().unwrap();
        let read = cut(&mut kafka, &stage, first);
        if written_since {
            stage.feed(1_000..1_300).unwrap();
        }
        let differs = format!("partition {CUT} no longer holds what was read at offset");
        for options in ["", "--stop-at-end"] {
            let refused = stage.start(options).unwrap().finish(MOST).unwrap();
            assert_refused(&refused, 11, &[&stage.input(), "run --reconcile"]);
            let why = refused.error().unwrap();
            assert!(if written_since { why.contains(&differs) } else { is_named(why, first, read) }, "{why}");
        }
        assert_eq!(stage.table().unwrap(), before, "a run that was refused has written something");
        // The state of a checkpoint cannot forget: that is said, and what comes is read.
        let said = stage.complete("--reconcile --stop-at-end").unwrap().said;
        let warned = said.lines().any(|line| line.contains("WARN") && line.contains("state keeps the"));
        assert!(warned, "{said}");
        let kept = stage.table().unwrap();
        assert_eq!(kept == before, !written_since);
        stage.feed(2_000..2_100).unwrap();
        stage.complete("--stop-at-end --workers 2").unwrap();
        assert_ne!(stage.table().unwrap(), kept, "what was written since is not read");
        // What the warning advises.
        let again = format!("{}-again", stage.name());
        let args = args_with(&stage, "--name", &again, "--reconcile --stop-at-end");
        assert_eq!(stage.start_with(args).unwrap().finish(MOST).unwrap().code, Some(0));
        assert_right(&stage);
    }
}

#[test]
fn a_tail_that_is_lost_under_a_running_job_ends_it() {
    let mut kafka = cuttable();
    let stage = on(&kafka);
    let job = stage.start("").unwrap();
    let first = feed_in_two_parts(&stage);
    stage.wait_until_caught_up(&job).unwrap();
    let read = end(&stage);
    cut(&mut kafka, &stage, first);
    let ended = job.finish(MOST).unwrap();
    // Both the reader, which fetches at an offset that is gone, and the leader, which asks where the input ends, notice it.
    let of_the_reader = [format!("partition {CUT} at offset {read}"), format!("holds offsets 0 to {}", first - 1)];
    let of_the_leader = [format!("partition {CUT} ends at offset {first} now"), "has been read up to".to_owned()];
    let parts = if ended.said.contains("holds offsets") { of_the_reader } else { of_the_leader };
    assert_refused(&ended, 11, &[&*stage.input(), &parts[0], &parts[1]]);
    stage.complete("--reconcile --stop-at-end").unwrap();
}

#[test]
fn other_records_in_place_of_a_lost_tail_under_a_running_job_end_it() {
    let mut kafka = cuttable();
    let stage = on(&kafka);
    let job = stage.start("").unwrap();
    let first = feed_in_two_parts(&stage);
    stage.wait_until_caught_up(&job).unwrap();
    let read = end(&stage);
    // It looks only when there is something at its offset again.
    job.job().pause().unwrap();
    cut(&mut kafka, &stage, first);
    stage.feed(1_000..1_300).unwrap();
    assert!(end(&stage) > read);
    job.job().resume().unwrap();
    let ended = job.finish(MOST).unwrap();
    assert_refused(&ended, 11, &[&stage.input(), &format!("partition {CUT} at offset {read}"), "truncated"]);
    stage.complete("--reconcile --stop-at-end").unwrap();
}
