//! Jobs that are to end while their broker is unavailable, and stops with a savepoint.

use std::time::{Duration, Instant};

use fluvial_kafka_embedded::Fault;
use fluvial_tests::job::binary;
use fluvial_tests::stage::Stage;
use fluvial_tests::subject::Subject;

use crate::nodes::{Cluster, own_args};
use crate::savepoints::{of_orders, savepoints};

/// A job that may take so long to stop, and has read its input.
fn of_orders_that_stops_within(most: &str) -> (Cluster, Stage, String) {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    let name = stage.name().to_owned();
    stage.feed(0..200).unwrap();
    let mut args: Vec<std::ffi::OsString> = vec!["submit".into(), binary("orders").unwrap().into()];
    args.extend(["--name".into(), name.clone().into(), "--".into()]);
    args.extend(own_args(&stage));
    args.extend(["--stop-within".into(), most.into()]);
    let (succeeded, said) = cluster.ask(args);
    assert!(succeeded, "{said}\n{}", cluster.logs());
    cluster.wait_until_right(&stage);
    (cluster, stage, name)
}

/// Every request of the job's clients fails, from now on.
fn take_the_broker_away(stage: &Stage) {
    stage.broker().fault(Fault::drop(None).always().client(stage.name()));
    stage.broker().disconnect_all();
}

#[test]
fn a_job_whose_broker_is_unavailable_is_stopped_within_its_time_and_says_so() {
    let (cluster, stage, name) = of_orders_that_stops_within("12s");
    take_the_broker_away(&stage);
    stage.feed(200..400).unwrap();
    let begun = Instant::now();
    let (succeeded, said) = cluster.ask(["stop", &name]);
    assert!(succeeded && begun.elapsed() < Duration::from_secs(60), "{said}");
    for part in ["has not stopped yet", "--force", "gives up the last commit and checkpoint", "lost or written twice"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(cluster.status(&name)["state"], "stopped");
    let (succeeded, said) = cluster.ask(["stop", &name, "--savepoint", "last"]);
    assert!(!succeeded && said.contains("no savepoint was taken"), "{said}");
    stage.broker().clear_faults();
    cluster.tell(&format!("start {name}"));
    cluster.wait_until_right(&stage);
}

#[test]
fn a_stop_that_is_forced_ends_the_processes_at_once_and_nothing_is_lost() {
    let (cluster, stage, name) = of_orders_that_stops_within("10m");
    take_the_broker_away(&stage);
    stage.feed(200..400).unwrap();
    cluster.tell(&format!("stop {name} --detach"));
    cluster.wait_until("it is stopping", || cluster.status(&name)["state"] == "stopping");
    let begun = Instant::now();
    let said = cluster.tell(&format!("stop {name} --force"));
    assert!(begun.elapsed() < Duration::from_secs(20) && said.contains("as a user has asked"), "{said}");
    assert_eq!(cluster.status(&name)["state"], "stopped");
    stage.broker().clear_faults();
    cluster.tell(&format!("start {name}"));
    cluster.wait_until_right(&stage);
    // The same in one step.
    take_the_broker_away(&stage);
    stage.feed(400..600).unwrap();
    let attempt = || cluster.status(&name)["attempt"]["number"].as_u64();
    let before = attempt();
    cluster.tell(&format!("restart {name} --force"));
    cluster.wait_until("another attempt", || attempt() > before);
    stage.broker().clear_faults();
    cluster.wait_until_right(&stage);
}

#[test]
fn a_job_is_stopped_with_a_savepoint_of_its_last_state() {
    let (cluster, stage, name) = of_orders();
    let said = cluster.tell(&format!("stop {name} --savepoint last"));
    assert!(said.contains("last keeps") && said.contains("its last"), "{said}");
    assert_eq!(
        (cluster.status(&name)["state"].as_str(), savepoints(&cluster, &name)),
        (Some("stopped"), vec!["last".to_owned()])
    );
    // Its outputs have not moved on since, so that nothing has to be corrected.
    cluster.tell(&format!("start {name} --from last"));
    stage.feed(200..400).unwrap();
    cluster.wait_until_right(&stage);
}
