//! Partitions of the input that exist and have no leader.
#![allow(clippy::unwrap_used)]

use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;

#[test]
fn a_new_job_begins_with_the_partitions_that_can_be_read() {
    let stage = Stage::new(Subject::Orders, 3).unwrap();
    stage.feed(0..90).unwrap();
    stage.broker().set_leader(&stage.input(), 1, false);
    let job = stage.start("--workers 2 --processes 1 --keep-journal --tick-header").unwrap();
    job.process().wait_for_line("partition 1 is unavailable: it has no leader; the other splits go on", MOST).unwrap();
    job.process().wait_for_line("the job is open", MOST).unwrap();
    stage.wait_for_more_than(0, &job).unwrap();
    stage.broker().set_leader(&stage.input(), 1, true);
    stage.wait_until_caught_up(&job).unwrap();
    assert!(job.job().stop(MOST).unwrap().success());
    stage.check().unwrap();
}

#[test]
fn a_job_that_stops_at_the_end_waits_for_the_partitions_whose_end_is_not_known() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    stage.feed(0..90).unwrap();
    stage.broker().set_leader(&stage.input(), 1, false);
    let job = stage.start("--workers 2 --processes 1 --keep-journal --tick-header --stop-at-end").unwrap();
    job.process().wait_for_line("partition 1 is unavailable: it has no leader; --stop-at-end", MOST).unwrap();
    stage.broker().set_leader(&stage.input(), 1, true);
    let finished = job.finish(MOST).unwrap();
    assert_eq!(finished.code, Some(0), "{}", finished.said);
    stage.check().unwrap();
}
