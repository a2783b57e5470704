//! Nodes that are drained, where jobs are placed, and jobs that fail again and again.

use std::time::{Duration, Instant};

use fluvial_tests::child::{Process, Spec};
use fluvial_tests::client::Message;
use fluvial_tests::job::binary;
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;
use serde_json::Value;

use crate::nodes::{Cluster, fluvial};

/// How long it takes until it is sure that a job has failed: ten attempts and the pauses between them.
const FAILS_WITHIN: Duration = Duration::from_secs(240);

impl Cluster {
    /// What is known of a node.
    fn node(&self, node: usize) -> Value {
        let (address, _) = self.addresses.borrow()[&node].clone();
        let nodes: Value = serde_json::from_str(&self.tell("nodes --json")).unwrap();
        nodes.as_array().unwrap().iter().find(|found| found["node"] == *address).cloned().unwrap_or_default()
    }

    fn address(&self, node: usize) -> String {
        self.addresses.borrow()[&node].0.clone()
    }

    /// Begins to drain a node, by a command that waits until that is done.
    fn begin_drain(&self, node: usize) -> Process {
        let key = ["--cluster-key-file".into(), self.path("key").into(), "drain".into()];
        let args = ["--addr".into(), self.addresses.borrow()[&node].1.clone().into()].into_iter().chain(key);
        let args = args.chain([self.address(node).into()]).collect();
        let log = self.path(&format!("drain-{node}"));
        Process::start(Spec { name: "fluvial drain".to_owned(), program: fluvial(), args, env: Vec::new(), log })
            .unwrap()
    }

    fn generation(&self, job: &str) -> Option<u64> {
        let status = self.status(job);
        status["attempt"]["generation"].as_u64().filter(|_| status["state"] == "running")
    }
}

/// Jobs that run with one worker each.
fn run(cluster: &Cluster, jobs: usize) -> Vec<Stage> {
    let stages: Vec<_> = (0..jobs).map(|_| Stage::new(Subject::Orders, 2).unwrap()).collect();
    for stage in &stages {
        stage.feed(0..200).unwrap();
        let (succeeded, said) = cluster.submit(stage, 1, &binary("orders").unwrap());
        assert!(succeeded, "{said}\n{}", cluster.logs());
    }
    stages.iter().for_each(|stage| cluster.wait_until_right(stage));
    stages
}

#[test]
fn a_drained_node_gives_its_jobs_to_the_others_while_records_flow_and_each_is_interrupted_once() {
    let cluster = Cluster::start(3);
    let stages = run(&cluster, 3);
    let before: Vec<_> = stages.iter().map(|stage| cluster.generation(stage.name()).unwrap()).collect();
    let host = cluster.nodes_of(stages[0].name())[0];
    let moves: Vec<_> = stages.iter().map(|stage| cluster.nodes_of(stage.name()) == [host]).collect();
    let drain = cluster.begin_drain(host);
    for round in 1..6_u64 {
        stages.iter().for_each(|stage| stage.feed(round * 200..(round + 1) * 200).unwrap());
        stages.iter().for_each(|stage| cluster.wait_until_right(stage));
    }
    assert_eq!(drain.wait(MOST).unwrap().code(), Some(0), "{}", cluster.logs());
    let said = std::fs::read_to_string(drain.log()).unwrap();
    assert!(said.contains("is drained: no processes run there"), "{said}");
    cluster.wait_until("all run", || stages.iter().all(|stage| cluster.generation(stage.name()).is_some()));
    for ((stage, before), moves) in stages.iter().zip(before).zip(moves) {
        assert_ne!(cluster.nodes_of(stage.name()), [host], "{}", stage.name());
        assert_eq!(cluster.generation(stage.name()), Some(before + u64::from(moves)), "{}", stage.name());
    }
    let node = cluster.node(host);
    assert_eq!((&node["state"], &node["drain"]["done"]), (&"drained".into(), &true.into()), "{node}");
    assert!(cluster.tell("nodes").contains("drained"));
    cluster.tell(&format!("undrain {}", cluster.address(host)));
    assert_eq!(cluster.node(host)["state"], "ready");
    let (succeeded, said) = cluster.ask(["drain", "no-such-node:1"]);
    assert!(!succeeded && said.contains("there is no node 'no-such-node:1'"), "{said}");
}

#[test]
fn a_drain_without_room_elsewhere_says_what_it_waits_for_and_goes_on_once_there_is_some() {
    let cluster = Cluster::start(1);
    let stages = run(&cluster, 1);
    let (stage, before) = (&stages[0], cluster.generation(stages[0].name()));
    let drain = cluster.begin_drain(0);
    let waits = format!("waiting for {}: it cannot move: it needs 1 slots, and no node could run it now", stage.name());
    cluster.wait_until("the drain says what it waits for", || {
        std::fs::read_to_string(drain.log()).unwrap().contains(&waits)
    });
    // The job runs on, and what is submitted meanwhile waits and says why.
    stage.feed(200..400).unwrap();
    cluster.wait_until_right(stage);
    assert_eq!(cluster.generation(stage.name()), before);
    let second = Stage::new(Subject::Orders, 2).unwrap();
    let (succeeded, said) = cluster.submit(&second, 1, &binary("orders").unwrap());
    assert!(!succeeded && said.contains(&format!("{} is drained", cluster.address(0))), "{said}");
    assert_eq!(cluster.node(0)["state"], "draining");
    cluster.start_node(1);
    assert_eq!(drain.wait(MOST).unwrap().code(), Some(0), "{}", cluster.logs());
    stage.feed(400..600).unwrap();
    cluster.wait_until_right(stage);
    assert_eq!(cluster.nodes_of(stage.name()), [1]);
    cluster.wait_until("the second job", || cluster.generation(second.name()).is_some());
    assert_eq!(cluster.nodes_of(second.name()), [1]);
}

#[test]
fn a_drain_goes_on_when_the_coordinator_is_killed() {
    let cluster = Cluster::start(3);
    let mut stages = run(&cluster, 2);
    let coordinator = (0..3).find(|node| cluster.node(*node)["coordinates"] == true).unwrap();
    let on = |stage: &Stage| cluster.nodes_of(stage.name())[0];
    if stages.iter().all(|stage| on(stage) == coordinator) {
        // It was ready for both programs before the other nodes. It has no room for another job.
        stages.extend(run(&cluster, 1));
        cluster.tell(&format!("stop {}", stages.remove(0).name()));
    }
    let host = stages.iter().map(on).find(|node| *node != coordinator).unwrap();
    cluster.tell(&format!("drain {} --detach", cluster.address(host)));
    cluster.kill(coordinator);
    for round in 1..4_u64 {
        stages.iter().for_each(|stage| stage.feed(round * 200..(round + 1) * 200).unwrap());
        stages.iter().for_each(|stage| cluster.wait_until_right(stage));
    }
    cluster.wait_until("it is drained", || cluster.node(host)["drain"]["done"] == true);
    cluster.wait_until("both run", || stages.iter().all(|stage| cluster.generation(stage.name()).is_some()));
    assert!(stages.iter().all(|stage| on(stage) != host));
    cluster.start_node(coordinator);
    stages.iter().for_each(|stage| stage.feed(800..1000).unwrap());
    stages.iter().for_each(|stage| cluster.wait_until_right(stage));
}

#[test]
fn a_job_goes_to_the_nodes_with_the_labels_that_it_requires() {
    let cluster = Cluster::start(1);
    cluster.start_node_with(1, &["--label", "disk=ssd", "--label", "zone=b"]);
    let table = cluster.tell("nodes");
    assert!(table.contains("disk=ssd,zone=b"), "{table}");
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    stage.feed(0..200).unwrap();
    let submit = |required: &str, name: &str| {
        let mut args = vec!["submit".into(), binary("orders").unwrap().into_os_string(), "--name".into(), name.into()];
        args.extend(["--require".into(), required.into(), "--".into()]);
        args.extend(crate::nodes::own_args(&stage));
        cluster.ask(args)
    };
    let (succeeded, said) = submit("disk=tape", "elsewhere");
    assert!(!succeeded && said.contains("has not the labels disk=tape"), "{said}");
    assert_eq!(cluster.status("elsewhere")["state"], "waiting");
    let (succeeded, said) = submit("disk=ssd", stage.name());
    assert!(succeeded, "{said}\n{}", cluster.logs());
    assert_eq!(cluster.nodes_of(stage.name()), [1]);
    cluster.wait_until_right(&stage);
}

#[test]
fn a_job_that_fails_at_once_again_and_again_ends_failed_and_says_why() {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    let stage = stage.with_options(["--wrong", "aborts"]);
    let input = stage.input();
    let order = Message::text(&input, 1, "1", r#"{"quantity": 0, "price_cents": 1}"#);
    stage.endpoint().writer(&[]).unwrap().write(&[order]).unwrap();
    let mut args = vec!["submit".into(), binary("faulty").unwrap().into_os_string(), "--name".into()];
    args.extend([stage.name().into(), "--detach".into(), "--".into()]);
    args.extend(crate::nodes::own_args(&stage));
    let (succeeded, said) = cluster.ask(args);
    assert!(succeeded, "{said}");
    let begun = Instant::now();
    while cluster.status(stage.name())["state"] != "failed" {
        assert!(begun.elapsed() < FAILS_WITHIN, "{}\n{}", cluster.status(stage.name()), cluster.logs());
        std::thread::sleep(Duration::from_millis(500));
    }
    let status = cluster.status(stage.name());
    let why = status["why"].as_str().unwrap();
    assert!(why.contains("signal: 6") || why.contains("signal 6") || why.contains("SIGABRT"), "{why}");
    assert!(why.contains("the job has failed 10 times in a row within "), "{why}");
    assert!(cluster.tell("jobs").contains("failed"));
}
