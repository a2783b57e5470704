//! Partitions of the input that exist and have no leader, and a broker that knows of no broker.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use fluvial_kafka_embedded::{ApiKey, Fault};
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

/// After the restart of a broker one process had no connection any more, and the run ended when its patience did: the broker
/// had said that the cluster has topics and no broker, and librdkafka had removed the only one it knew.
#[test]
fn a_run_whose_broker_has_not_heard_of_any_broker_goes_on_within_seconds() {
    let stage = Stage::new(Subject::Bank, 3).unwrap();
    let job = stage.start("--workers 2 --processes 2 --keep-journal --tick-header").unwrap();
    stage.feed(0..200).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    let (broker, since) = (stage.broker(), Instant::now());
    broker.fault(Fault::no_brokers().always().client(stage.name()));
    let asked = broker.requests(ApiKey::Metadata);
    broker.disconnect_all();
    // As many as there are readers at least, which ask for their topics once they are connected again.
    stage.wait_until(&job, "metadata requests", || Ok(broker.requests(ApiKey::Metadata) >= asked + 6)).unwrap();
    broker.clear_faults();
    stage.feed(200..400).unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    let after = since.elapsed();
    assert!(after < Duration::from_secs(20), "{after:?}; the log ends with\n{}", job.process().log_end());
    assert!(job.job().stop(MOST).unwrap().success());
    stage.check().unwrap();
}
