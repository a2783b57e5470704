//! The logs of jobs, which outlive their processes and nodes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;
use fluvial_tests::client::Message;
use fluvial_tests::job::binary;
use fluvial_tests::stage::Stage;
use fluvial_tests::subject::Subject;
use serde_json::Value;

use crate::nodes::{Cluster, fluvial};

/// A job that prints a line of so many bytes for each order, and panics at one that comes to nothing.
fn talkative(bytes: usize) -> Stage {
    let stage = Stage::new(Subject::Orders, 4).unwrap();
    stage.with_options(["--prints", &bytes.to_string(), "--wrong", "panics"])
}

fn submit(cluster: &Cluster, stage: &Stage, workers: u32) {
    let (succeeded, said) = cluster.submit(stage, workers, &binary("faulty").unwrap());
    assert!(succeeded, "{said}\n{}", cluster.logs());
}

/// Ends the job by a panic.
pub(crate) fn poison(stage: &Stage) {
    let order = r#"{"order_id":7,"customer":"c","region":"eu","product":"p","quantity":1,"price_cents":0,"at":0}"#;
    let input = stage.input();
    let poison = Message::text(&input, 1, "poison", order);
    stage.endpoint().writer(&[]).unwrap().write(&[poison]).unwrap();
}

/// The lines that `fluvial logs --json` prints.
fn lines(cluster: &Cluster, words: &str) -> Vec<Value> {
    let printed = cluster.tell(&format!("logs {words} --json"));
    let json = printed.lines().filter(|line| line.starts_with('{'));
    json.map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text(line: &Value) -> &str {
    line["text"].as_str().unwrap()
}

/// The lines of a process as they are in the store; none, if there is no such object.
fn in_store(file: &Path) -> Vec<Value> {
    let Ok(file) = File::open(file) else { return Vec::new() };
    let json = BufReader::new(GzDecoder::new(file)).lines().skip(1);
    json.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

/// How many orders the lines are about.
fn orders(lines: &[Value]) -> usize {
    lines.iter().filter(|line| text(line).starts_with("order ")).count()
}

#[test]
fn the_lines_of_all_processes_are_merged_and_followed_until_the_job_ends() {
    let (cluster, stage) = (Cluster::start(2), talkative(20));
    let name = stage.name().to_owned();
    // No node has room for all of its workers.
    submit(&cluster, &stage, 4);
    stage.feed(0..200).unwrap();
    cluster.wait_until("a line for each order", || orders(&lines(&cluster, &name)) == 200);
    let all = lines(&cluster, &name);
    let of = |field: &str| all.iter().map(|line| line[field].to_string()).collect::<BTreeSet<_>>();
    assert_eq!(of("process"), ["0", "1"].map(str::to_owned).into());
    assert_eq!(of("node").len(), 2, "{:?}", of("node"));
    assert_eq!(of("stream"), ["\"stderr\"", "\"stdout\""].map(str::to_owned).into());
    assert!(all.is_sorted_by_key(|line| line["time_ms"].as_u64().unwrap()));
    assert!(all.iter().any(|line| text(line).contains("INFO")), "the log of the job is there, too");
    // Neither is in the logs of the nodes.
    let of_nodes = cluster.logs();
    assert!(!of_nodes.contains("order ") && of_nodes.contains("starting processes of the job"), "{of_nodes}");
    let tail = cluster.tell(&format!("logs {name} --tail 3"));
    assert_eq!(tail.lines().filter(|line| line.contains("| ")).count(), 3, "{tail}");
    assert!(lines(&cluster, &format!("{name} --since 0s")).is_empty());
    let mut follower = Command::new(fluvial());
    follower.arg("--cluster-key-file").arg(cluster.path("key"));
    follower.args(["--addr", &cluster.addresses.borrow()[&0].1, "logs", &name, "-f", "--tail", "1", "--json"]);
    let mut follower = follower.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut printed, mut out) = (BufReader::new(follower.stdout.take().unwrap()), String::new());
    assert!(printed.read_line(&mut out).unwrap() > 0, "it follows from here on");
    stage.feed(200..400).unwrap();
    cluster.wait_until("a line for each order", || orders(&lines(&cluster, &name)) == 400);
    poison(&stage);
    printed.read_to_string(&mut out).unwrap();
    let followed = follower.wait_with_output().unwrap();
    let err = String::from_utf8_lossy(&followed.stderr);
    assert!(followed.status.success(), "{err}");
    assert!(out.contains("order poison") && out.contains("order poison comes to nothing"), "{out}\n{err}");
    assert!(err.contains(&format!("{name} is failed: ")), "{err}");
    let status = cluster.tell(&format!("status {name}"));
    assert!(status.contains(&format!("see `fluvial logs {name}`")), "{status}");
    // What was followed has each line once.
    let followed: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names = |line: &Value| (line["process"].to_string(), line["number"].as_u64());
    assert_eq!(followed.iter().map(names).collect::<BTreeSet<_>>().len(), followed.len());
    assert!((201..400).contains(&orders(&followed)), "{} orders", orders(&followed));
}

#[test]
fn the_last_words_of_a_job_outlive_its_nodes_and_those_of_earlier_attempts_are_kept() {
    let (cluster, stage) = (Cluster::start(2), talkative(20));
    let name = stage.name().to_owned();
    submit(&cluster, &stage, 4);
    stage.feed(0..100).unwrap();
    cluster.wait_until("a line for each order", || orders(&lines(&cluster, &name)) == 100);
    let first = cluster.status(&name)["attempt"]["number"].as_u64().unwrap();
    let stored = |attempt: u64, process: u32| {
        cluster.path("store").join(format!(".cluster/logs/{name}/{attempt:020}/{process:05}.jsonl.gz"))
    };
    // The lines are written while the processes run.
    cluster.wait_until("all lines in the store", || {
        (0..2).map(|process| orders(&in_store(&stored(first, process)))).sum::<usize>() == 100
    });
    (0..2).for_each(|node| cluster.kill(node));
    (0..2).for_each(|node| cluster.start_node(node));
    cluster.wait_until("the next attempt", || {
        let status = cluster.status(&name);
        status["state"] == "running" && status["attempt"]["number"].as_u64() > Some(first)
    });
    let after = lines(&cluster, &format!("{name} --attempt {first}"));
    assert_eq!(orders(&after), 100, "{} lines", after.len());
    poison(&stage);
    cluster.wait_until("the end of the job", || cluster.status(&name)["state"] == "failed");
    let last = cluster.status(&name)["attempt"]["number"].as_u64().unwrap();
    let said = |cluster: &Cluster| {
        let lines = lines(cluster, &format!("{name} --attempt {last}"));
        lines.iter().any(|line| text(line).contains("order poison comes to nothing"))
    };
    assert!(said(&cluster));
    let last_words = |process| in_store(&stored(last, process)).iter().any(|line| text(line).contains("to nothing"));
    cluster.wait_until("the end in the store", || (0..2).any(last_words));
    (0..2).for_each(|node| cluster.kill(node));
    (0..2).for_each(|node| cluster.start_node(node));
    assert!(said(&cluster), "{}", cluster.tell(&format!("logs {name}")));
    // Of all attempts the lines come in one answer.
    let of_all: BTreeSet<_> = lines(&cluster, &name).iter().filter_map(|line| line["attempt"].as_u64()).collect();
    assert!(of_all.contains(&first) && of_all.contains(&last), "{of_all:?}");
    let (succeeded, said) = cluster.ask(format!("logs {name} --attempt 999999").split(' '));
    assert!(!succeeded && said.contains("nothing is kept of attempt 999999"), "{said}");
    let (succeeded, said) = cluster.ask(["logs", "no-such-job"]);
    assert!(!succeeded && said.contains("there is no job"), "{said}");
    // One who follows a job that has ended sees its last lines, and how it ended.
    let followed = cluster.tell(&format!("logs {name} -f"));
    assert!(followed.contains("order poison comes to nothing") && followed.contains("is failed"), "{followed}");
    cluster.tell(&format!("delete {name} --yes"));
    assert!(!stored(first, 0).exists() && !stored(last, 0).exists());
}

#[test]
fn a_job_that_prints_much_takes_a_bounded_amount_of_its_node_and_of_the_store() {
    let (cluster, stage) = (Cluster::start(1), talkative(5000));
    let name = stage.name().to_owned();
    submit(&cluster, &stage, 1);
    stage.feed(0..2000).unwrap();
    let printed = || lines(&cluster, &format!("{name} --tail 10000"));
    let numbers = |lines: &[Value]| lines.iter().filter_map(|line| line["number"].as_u64()).max();
    cluster.wait_until("a line for each order", || numbers(&printed()) >= Some(2000));
    let all = printed();
    let bytes: usize = all.iter().map(|line| text(line).len()).sum();
    assert!(bytes > 900_000 && bytes <= 1 << 20, "{bytes} bytes of 10 MB");
    assert!(all.iter().any(|line| line["number"].as_u64() > Some(1900)), "the newest are kept");
    cluster.tell(&format!("stop {name}"));
    assert_eq!(cluster.terminate(0), Some(0));
    let folder = cluster.path("store").join(format!(".cluster/logs/{name}"));
    let attempts: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(attempts.len(), 1);
    let size = std::fs::metadata(attempts[0].join("00000.jsonl.gz")).unwrap().len();
    assert!(size > 100 && size < 2 << 20, "{size}");
    // It is there for a node that comes later.
    cluster.start_node(0);
    cluster.tell("jobs");
    let again = lines(&cluster, &format!("{name} --tail 10000"));
    assert!(again.iter().any(|line| text(line).contains("INFO")) && orders(&again) > 100, "{}", again.len());
}
