//! The life of jobs in a cluster.

use std::io::{Read as _, Write as _};

use fluvial_tests::client::Message;
use fluvial_tests::http;
use fluvial_tests::job::{binary, build_again};
use fluvial_tests::stage::Stage;
use fluvial_tests::subject::Subject;
use serde_json::Value;

use crate::nodes::{Cluster, fluvial};

#[test]
fn a_job_is_submitted_rescaled_upgraded_stopped_started_and_deleted() {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    let name = stage.name().to_owned();
    stage.feed(0..200).unwrap();
    let (succeeded, said) = cluster.submit(&stage, 1, &binary("orders").unwrap());
    assert!(succeeded && said.contains(&format!("{name} runs")), "{said}\n{}", cluster.logs());
    cluster.wait_until_right(&stage);
    cluster.tell(&format!("rescale {name} --workers 2"));
    cluster.wait_until("two workers", || {
        let status = cluster.status(&name);
        status["state"] == "running" && status["attempt"]["workers"] == 2
    });
    stage.feed(200..400).unwrap();
    cluster.wait_until_right(&stage);
    let generation = cluster.status(&name)["attempt"]["generation"].as_u64().unwrap();
    let again = cluster.path("built-again");
    build_again(&binary("orders").unwrap(), &again).unwrap();
    cluster.tell(&format!("upgrade {name} {} --yes", again.display()));
    cluster.wait_until("the other build", || {
        let status = cluster.status(&name);
        status["state"] == "running" && status["attempt"]["generation"].as_u64() > Some(generation)
    });
    stage.feed(400..600).unwrap();
    cluster.wait_until_right(&stage);
    cluster.tell(&format!("stop {name}"));
    assert_eq!(cluster.status(&name)["state"], "stopped");
    let (succeeded, said) = cluster.ask(["delete", "no-such-job"]);
    assert!(succeeded, "{said}");
    // Nothing reads it meanwhile.
    let before = stage.table().unwrap();
    stage.feed(600..800).unwrap();
    assert_eq!(stage.table().unwrap(), before);
    cluster.tell(&format!("start {name}"));
    cluster.wait_until_right(&stage);
    // A node that leaves takes a checkpoint of its jobs, and the cluster goes on with them when a node comes back.
    assert_eq!(cluster.terminate(0), Some(0), "{}", cluster.logs());
    stage.feed(800..1000).unwrap();
    cluster.start_node(0);
    cluster.wait_until_right(&stage);
    let (succeeded, said) = cluster.ask(["delete", &name, "--yes"]);
    assert!(!succeeded && said.contains("stop it first"), "{said}");
    cluster.tell(&format!("stop {name}"));
    cluster.tell(&format!("delete {name} --yes"));
    assert_eq!(cluster.tell("jobs --json").trim(), "[]");
}

#[test]
fn jobs_go_on_without_the_node_that_is_killed() {
    let cluster = Cluster::start(3);
    let stages = [Stage::new(Subject::Orders, 2).unwrap(), Stage::new(Subject::Orders, 2).unwrap()];
    for stage in &stages {
        stage.feed(0..200).unwrap();
        let (succeeded, said) = cluster.submit(stage, 2, &binary("orders").unwrap());
        assert!(succeeded, "{said}\n{}", cluster.logs());
    }
    let nodes = || stages.each_ref().map(|stage| cluster.nodes_of(stage.name()));
    assert!(nodes()[0] != nodes()[1], "both jobs are on one node: {:?}", nodes());
    // The coordinator is killed in one of these, whoever it is.
    for round in 0..3_u64 {
        let attempt = |stage: &Stage| cluster.status(stage.name())["attempt"]["number"].as_u64();
        let before = stages.each_ref().map(attempt);
        cluster.kill(round as usize);
        for stage in &stages {
            stage.feed((round + 1) * 200..(round + 2) * 200).unwrap();
        }
        stages.iter().for_each(|stage| cluster.wait_until_right(stage));
        let moved = nodes().into_iter().flatten().all(|node| node != round as usize);
        assert!(moved, "node {round} is dead, and runs a job: {:?}", nodes());
        let after = stages.each_ref().map(attempt);
        let interrupted = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!(interrupted <= 1, "one node ran one job, and both were interrupted: {before:?} {after:?}");
        cluster.start_node(round as usize);
        cluster.wait_until("three nodes", || {
            let nodes: Value = serde_json::from_str(&cluster.tell("nodes --json")).unwrap();
            nodes.as_array().unwrap().iter().filter(|node| node["state"] == "ready").count() == 3
        });
    }
    // All of them at once.
    (0..3).for_each(|node| cluster.kill(node));
    (0..3).for_each(|node| cluster.start_node(node));
    for stage in &stages {
        stage.feed(800..1000).unwrap();
        cluster.wait_until_right(stage);
    }
}

#[test]
fn what_cannot_run_is_refused_with_the_reason() {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    let orders = binary("orders").unwrap();
    let script = cluster.path("script");
    std::fs::write(&script, "#!/bin/sh\n").unwrap();
    let (succeeded, said) = cluster.submit(&stage, 1, &script);
    assert!(!succeeded && said.contains("no Linux program"), "{said}");
    // This command reads the mark of a job, and is none itself.
    let (succeeded, said) = cluster.submit(&stage, 1, &fluvial());
    assert!(!succeeded && said.contains("no job of Fluvial"), "{said}");
    let submit = |name: &str, options: &str| {
        let words = format!("submit {} --name {name} -- {options}", orders.display());
        let (succeeded, said) = cluster.ask(words.split(' '));
        assert!(!succeeded, "{words}: {said}");
        said
    };
    assert!(submit("a", "--no-such-option").contains("--no-such-option"));
    let nobody = http::free_address().unwrap();
    assert!(submit("b", &format!("--brokers {nobody} --input a --output b")).contains("waiting"));
    assert!(submit(".c", "--input a").contains("does not begin with '.'"));
    // Beside them, a job that can run does.
    let (succeeded, said) = cluster.submit(&stage, 1, &orders);
    assert!(succeeded, "{said}\n{}", cluster.logs());
    let (succeeded, said) = cluster.submit(&stage, 2, &orders);
    assert!(!succeeded && said.contains("there is a job"), "{said}");
    let (succeeded, said) = cluster.ask(["status", "no-such-job"]);
    assert!(!succeeded && said.contains("there is no job 'no-such-job'"), "{said}");
    // Another number of workers than there are slots leaves the job as it is.
    cluster.tell(&format!("rescale {} --workers 9", stage.name()));
    stage.feed(0..200).unwrap();
    cluster.wait_until_right(&stage);
    assert_eq!(cluster.status(stage.name())["attempt"]["workers"], 1);
    // A record that cannot be decoded ends the job, whose status says which. It keeps the node from nothing, also not from leaving.
    let input = stage.input();
    let bad = Message::text(&input, 1, "bad", "no JSON");
    stage.endpoint().writer(&[]).unwrap().write(&[bad]).unwrap();
    cluster.wait_until("the end of the job", || cluster.status(stage.name())["state"] == "failed");
    let status = cluster.status(stage.name());
    let named = format!("of kafka topic '{input}' partition 1");
    assert!(status["why"].as_str().unwrap().contains(&named), "{status}");
    assert_eq!(cluster.terminate(0), Some(0), "{}", cluster.logs());
}

/// A browser on this host reaches the API. No page of another origin may change anything by it, or read anything.
#[test]
fn a_web_page_of_another_origin_reaches_nothing() {
    let cluster = Cluster::without_key(1);
    let api = cluster.api();
    let answer = |method: &str, path: &str, headers: &str| {
        let mut connection = std::net::TcpStream::connect(&api).unwrap();
        write!(connection, "{method} {path} HTTP/1.0\r\n{headers}Content-Length: 0\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    let own = format!("Host: {api}\r\n");
    // A node on a busy machine may say for a moment that it is to be asked again.
    cluster.wait_until("an answer", || answer("GET", "/v1/jobs", &own) == 200);
    assert_eq!(answer("GET", "/v1/jobs", "Host: evil.example:7400\r\n"), 403);
    assert_eq!(answer("GET", "/v1/jobs", ""), 403, "it names no host");
    assert_eq!(answer("POST", "/v1/jobs/a/stop", &own), 403);
    assert_eq!(answer("POST", "/v1/jobs/a/stop", &format!("{own}fluvial-client: 1\r\n")), 404);
}
