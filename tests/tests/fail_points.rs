//! Every fail point is really passed, and a process that is killed there leaves nothing half done.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use fluvial::FailPoint;
use fluvial_tests::campaign::{Subject, Witness};
use fluvial_tests::stage::{MOST, Stage, Started};

/// Two processes; checkpoints and deletions soon, so that there are merges, and objects that nothing names any more.
const OPTIONS: &str =
    "--processes 2 --workers 4 --keep-journal --tick-header --checkpoint-every 100ms --deletion-grace 2s";

/// Writes input bit by bit until the job has ended.
fn feed_until_it_ends(stage: &Stage, job: &Started, next: &mut u64) {
    let start = Instant::now();
    while job.process().status().is_none() && start.elapsed() < MOST {
        stage.feed(*next..*next + 20).unwrap();
        *next += 20;
        // Returns early when the job ends.
        let _ = job.process().wait(Duration::from_millis(20));
    }
}

#[test]
fn every_fail_point_is_reached_and_the_output_is_right_after_all_of_them() {
    let stage = Stage::new(Subject::Orders, 3).unwrap();
    let mut next = 100;
    let witness = Witness::of(stage.store().join(stage.name()));
    stage.feed(0..100).unwrap();
    stage.complete(&format!("{OPTIONS} --stop-at-end")).unwrap();
    for &point in FailPoint::ALL {
        let name = point.name();
        let job = stage.start(&format!("{OPTIONS} --no-restart --fail-point {name}=kill")).unwrap();
        feed_until_it_ends(&stage, &job, &mut next);
        let finished = job.finish(Duration::ZERO).unwrap_or_else(|error| panic!("{name} is never reached: {error:#}"));
        assert!(finished.said.contains(&format!("fail point {name} reached")), "{name}: {}", finished.said);
        // SIGKILL, as the supervisor saw it.
        finished.failed_with(4, &["signal: 9"]).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
    stage.complete(&format!("{OPTIONS} --stop-at-end")).unwrap();
    stage.check().unwrap();
    let seen = witness.asked();
    assert!(seen.merges > 0 && seen.deletions > 0, "{seen:?}");
}

#[test]
fn a_fail_point_is_for_the_first_generation_alone() {
    let stage = Stage::new(Subject::Bank, 2).unwrap();
    stage.feed(0..100).unwrap();
    let finished = stage.complete(&format!("{OPTIONS} --stop-at-end --fail-point after-claiming=kill")).unwrap();
    assert_eq!(finished.said.matches("fail point after-claiming reached").count(), 1, "{}", finished.said);
    stage.check().unwrap();
}
