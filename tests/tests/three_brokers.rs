//! Three brokers, as people run them: they restart one after the other, and one of them is down for long.
#![allow(clippy::unwrap_used)]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fluvial_tests::apache::{ApacheKafka, Options, SURVIVES_A_KILL};
use fluvial_tests::campaign::{Blow, Ground, Pauses, Plan, Siege};
use fluvial_tests::client::Endpoint;
use fluvial_tests::stage::{MOST, Stage, Started};
use fluvial_tests::subject::Subject;

/// Six servers at once would take more of a machine than two cores have.
fn one_cluster_at_a_time() -> MutexGuard<'static, ()> {
    static CLUSTER: Mutex<()> = Mutex::new(());
    CLUSTER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The longest pause of the output that a broker's restart may make. The aim is ten seconds; a busy machine is given twice
/// that.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// How much longer it may be than that of the input, where whoever writes that was held up for longer still.
const AFTER_THE_INPUT: Duration = Duration::from_secs(10);

/// The most ordinary maintenance there is ended the run: a partition without a leader was taken for one that does not exist.
///
/// `cargo run --release -p fluvial-tests --bin campaign -- --rolling 5` is the same at length.
#[test]
fn brokers_that_restart_one_after_the_other_interrupt_the_output_for_seconds() {
    let _alone = one_cluster_at_a_time();
    let ground = Ground::of_three(SURVIVES_A_KILL).unwrap();
    for (subject, blow, times) in [(Subject::Orders, Blow::RestartBroker, 3), (Subject::Bank, Blow::KillBroker, 2)] {
        let siege = Siege::new(&ground, subject, Plan::rolling(3, blow, times)).unwrap();
        let report = siege.run().unwrap_or_else(|error| panic!("{error:#}"));
        println!("{report}");
        assert!(report.is_clean(), "{report}");
        let pauses: Vec<Pauses> = report.struck.iter().filter_map(|struck| struck.pauses).collect();
        assert_eq!(pauses.len(), times, "{report}");
        for Pauses { output, input } in pauses {
            assert!(output <= LONGEST_PAUSE.max(input + AFTER_THE_INPUT), "{output:?}, the input {input:?}: {report}");
        }
        // One for each of the two runs, and no more than one for each time that a broker was taken down.
        assert!((2..=2 + times).contains(&report.generations), "{report}");
    }
}

const OPTIONS: &str = "--workers 2 --processes 1 --keep-journal --tick-header";

/// Waits until so many records of the input have been bound to ticks.
fn wait_for_records(stage: &Stage, job: &Started, records: u64) {
    stage.wait_for_journal(job, &format!("{records} records"), |journal| journal.records() == records).unwrap();
}

/// Nothing flowed, and a start ended after fifteen seconds with an error that blamed the address of the brokers.
#[test]
fn partitions_of_the_input_whose_broker_is_down_hold_up_nothing_but_a_replay_of_them() {
    let _alone = one_cluster_at_a_time();
    let mut kafka = ApacheKafka::start(&Options { brokers: 3, heap_mib: 512, ..Options::default() }).unwrap();
    let endpoint = Endpoint::new(kafka.bootstrap());
    let stage = Stage::without_input(&endpoint, kafka.bootstrap(), Subject::Orders).unwrap();
    let stage = stage.with_launcher(["env", "RUST_LOG=info,fluvial::stages=debug"]);
    endpoint.create_topic_on(&stage.input(), &[&[1], &[2], &[3]]).unwrap();
    let job = stage.start(&format!("{OPTIONS} --checkpoint-every 1s")).unwrap();
    stage.feed(0..300).unwrap();
    stage.wait_until_caught_up(&job).unwrap();

    kafka.stop_server(1).unwrap();
    let is_down = format!("kafka topic '{}' partition 1 is unavailable: it has no leader", stage.input());
    job.process().wait_for_line(&is_down, MOST).unwrap();
    let before = (stage.visible().unwrap(), stage.journal().unwrap().checkpoints);
    // Each time a checkpoint follows. The second that is complete from here on began after the first, and holds what was
    // read of that partition.
    for (records, checkpoints) in [(300..350, 1), (350..400, 2)] {
        let read = records.end;
        stage.feed_into(&[0, 2], records).unwrap();
        wait_for_records(&stage, &job, read);
        let complete = format!("{checkpoints} more checkpoints");
        stage.wait_for_journal(&job, &complete, |journal| journal.checkpoints >= before.1 + checkpoints).unwrap();
    }
    stage.wait_for_more_than(before.0, &job).unwrap();
    assert!(job.job().stop(MOST).unwrap().success());

    // Nothing of that partition has to be read again, and nothing is covered by a checkpoint from here on.
    let job = stage.start(&format!("{OPTIONS} --checkpoint-every 1h")).unwrap();
    job.process().wait_for_line("the job is open", MOST).unwrap();
    stage.feed_into(&[0, 2], 400..500).unwrap();
    wait_for_records(&stage, &job, 500);
    kafka.start_server(1).unwrap();
    stage.feed_into(&[0, 1, 2], 500..600).unwrap();
    wait_for_records(&stage, &job, 600);
    kafka.stop_server(1).unwrap();
    job.job().kill_all().unwrap();

    let job = stage.start(OPTIONS).unwrap();
    let waits = format!("the start waits for kafka topic '{}' partition 1, whose offset", stage.input());
    job.process().wait_for_line(&waits, MOST).unwrap();
    // All that a start does but the replay is done by then.
    job.process().wait_for_line("input flows", MOST).unwrap();
    assert!(!job.process().log_holds("the job is open"), "{}", job.process().log_end());
    kafka.start_server(1).unwrap();
    job.process().wait_for_line("the job is open", MOST).unwrap();
    stage.feed(600..700).unwrap();
    wait_for_records(&stage, &job, 700);
    assert!(job.job().stop(MOST).unwrap().success());
    stage.check().unwrap();
}
