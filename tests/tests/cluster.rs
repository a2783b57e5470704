//! A cluster: nodes of the command `fluvial`, to which jobs are submitted.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fluvial_tests::child::{Folder, Process, Spec};
use fluvial_tests::client::Message;
use fluvial_tests::http;
use fluvial_tests::job::{binary, build_again};
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;
use rustix::process::Signal;
use serde_json::Value;

/// The nodes of a cluster, on the loopback interface.
struct Cluster {
    folder: Folder,
    nodes: RefCell<BTreeMap<usize, Process>>,
    /// By node: the address by which the others reach it, and that of its API.
    addresses: RefCell<BTreeMap<usize, (String, String)>>,
}

impl Cluster {
    /// A cluster of nodes with two slots each.
    fn start(nodes: usize) -> Self {
        let cluster = Self {
            folder: Folder::new("fluvial-cluster-").unwrap(),
            nodes: RefCell::default(),
            addresses: RefCell::default(),
        };
        let key = Command::new(fluvial()).args(["cluster-key", "new"]).output().unwrap().stdout;
        std::fs::write(cluster.path("key"), key).unwrap();
        std::fs::set_permissions(cluster.path("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        (0..nodes).for_each(|node| cluster.start_node(node));
        cluster.tell("jobs");
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start_node(&self, node: usize) {
        let mut args: Vec<OsString> = ["node", "--slots", "2", "--store"].map(Into::into).into();
        args.push(self.path("store").into());
        args.extend(["--cluster-key-file".into(), self.path("key").into(), "--cache".into()]);
        args.push(self.path(&format!("cache-{node}")).into());
        args.extend(["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"].map(OsString::from));
        let log = self.path(&format!("log-{node}"));
        // What it said when it was started before must not be taken for what it says now.
        std::fs::write(&log, "").unwrap();
        let spec = Spec { name: format!("node {node}"), program: fluvial(), args, env: Vec::new(), log };
        let process = Process::start(spec).unwrap();
        process.wait_for_line("the node starts", MOST).unwrap();
        let said = std::fs::read_to_string(process.log()).unwrap();
        let after = |name: &str| {
            let (_, rest) = said.split_once(name).unwrap();
            rest.split([' ', '\n']).next().unwrap().trim_matches('"').to_owned()
        };
        self.addresses.borrow_mut().insert(node, (after(" node="), after(" api=")));
        self.nodes.borrow_mut().insert(node, process);
    }

    /// Ends a node at once, and with it all of its processes.
    fn kill(&self, node: usize) {
        self.nodes.borrow_mut().remove(&node).unwrap().kill().unwrap();
    }

    /// Has a node leave.
    fn terminate(&self, node: usize) -> Option<i32> {
        let process = self.nodes.borrow_mut().remove(&node).unwrap();
        process.signal(Signal::TERM).unwrap();
        process.wait(MOST).unwrap().code()
    }

    /// Runs a command against a node that lives. Returns whether it succeeded, and what it printed.
    fn ask<I: Into<OsString>>(&self, args: impl IntoIterator<Item = I>) -> (bool, String) {
        let node = *self.nodes.borrow().keys().next_back().unwrap();
        let mut command = Command::new(fluvial());
        command.arg("--addr").arg(&self.addresses.borrow()[&node].1).args(args.into_iter().map(Into::into));
        let output = command.output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(printed).unwrap())
    }

    /// The same for a command of words that must succeed. A change that meets the end of a coordinator is asked for again, as
    /// its refusal says.
    #[track_caller]
    fn tell(&self, words: &str) -> String {
        let begun = Instant::now();
        loop {
            let (succeeded, printed) = self.ask(words.split(' '));
            if succeeded {
                return printed;
            }
            let again = printed.contains("ask again") || printed.contains("no node answers");
            assert!(again && begun.elapsed() < MOST, "{words}: {printed}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Submits the job of a stage.
    fn submit(&self, stage: &Stage, workers: u32, program: &Path) -> (bool, String) {
        let mut args: Vec<OsString> = vec!["submit".into(), program.into(), "--name".into(), stage.name().into()];
        args.extend(["--workers".into(), workers.to_string().into(), "--".into()]);
        args.extend(own_args(stage));
        self.ask(args)
    }

    fn status(&self, job: &str) -> Value {
        serde_json::from_str(&self.tell(&format!("status {job} --json"))).unwrap()
    }

    /// The nodes that run processes of a job.
    fn nodes_of(&self, job: &str) -> Vec<usize> {
        let status = self.status(job);
        let processes = status["attempt"]["processes"].as_array().cloned().unwrap_or_default();
        let node = |process: &Value| {
            let addresses = self.addresses.borrow();
            let of_process = process["node"].as_str().unwrap();
            *addresses.iter().find(|(_, (listens, _))| listens == of_process).unwrap().0
        };
        processes.iter().map(node).collect()
    }

    #[track_caller]
    fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < MOST, "{what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the output is what the input says.
    #[track_caller]
    fn wait_until_right(&self, stage: &Stage) {
        let expected = stage.table_of_input().unwrap();
        self.wait_until(&format!("the output of {}", stage.name()), || stage.table().unwrap() == expected);
    }

    fn logs(&self) -> String {
        let log = |node: usize| std::fs::read_to_string(self.path(&format!("log-{node}"))).unwrap_or_default();
        self.addresses.borrow().keys().map(|node| format!("--- node {node}\n{}", log(*node))).collect()
    }
}

fn fluvial() -> PathBuf {
    binary("fluvial").unwrap()
}

/// The options of a stage's job that a user gives: the cluster says where the store is and how the job is named.
fn own_args(stage: &Stage) -> Vec<OsString> {
    let mut args = stage.common_args();
    for option in ["--store", "--name"] {
        let at = args.iter().position(|arg| arg == option).unwrap();
        args.drain(at..at + 2);
    }
    args.extend(["--checkpoint-every", "1s"].map(OsString::from));
    args
}

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
    cluster.tell(&format!("upgrade {name} {}", again.display()));
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
    let (succeeded, said) = cluster.ask(["delete", &name]);
    assert!(!succeeded && said.contains("stop it first"), "{said}");
    cluster.tell(&format!("stop {name}"));
    cluster.tell(&format!("delete {name}"));
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
    cluster.wait_until("the end of the job", || cluster.status(stage.name())["state"] == "ended");
    let status = cluster.status(stage.name());
    let named = format!("of kafka topic '{input}' partition 1");
    assert!(status["why"].as_str().unwrap().contains(&named), "{status}");
    assert_eq!(cluster.terminate(0), Some(0), "{}", cluster.logs());
}

/// A browser on this host reaches the API. No page of another origin may change anything by it, or read anything.
#[test]
fn a_web_page_of_another_origin_reaches_nothing() {
    let cluster = Cluster::start(1);
    cluster.tell("jobs");
    let api = cluster.addresses.borrow()[&0].1.clone();
    let answer = |method: &str, path: &str, headers: &str| {
        let mut connection = std::net::TcpStream::connect(&api).unwrap();
        write!(connection, "{method} {path} HTTP/1.0\r\n{headers}Content-Length: 0\r\n\r\n").unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    let own = format!("Host: {api}\r\n");
    assert_eq!(answer("GET", "/v1/jobs", &own), 200);
    assert_eq!(answer("GET", "/v1/jobs", "Host: evil.example:7400\r\n"), 403);
    assert_eq!(answer("GET", "/v1/jobs", ""), 403, "it names no host");
    assert_eq!(answer("POST", "/v1/jobs/a/stop", &own), 403);
    assert_eq!(answer("POST", "/v1/jobs/a/stop", &format!("{own}fluvial-client: 1\r\n")), 404);
}
