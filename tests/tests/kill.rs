//! Kill tests: the bank, struck by every kind of fault on real Kafka, and orders, by every one but `kill -9` of the broker,
//! say what an undisturbed replay says. A recursive job, on the embedded broker, says what the input says.
//!
//! The plans are those of fixed seeds, which are printed; `cargo run --release -p fluvial-tests --bin campaign` goes on for
//! as long as it is told.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::{Duration, Instant};

use fluvial_kafka_embedded::{Broker, Config};
use fluvial_tests::apache::{SURVIVES_A_KILL, VERSION};
use fluvial_tests::campaign::{Ground, Plan, Siege, Subject};
use fluvial_tests::child::Folder;
use fluvial_tests::client::{Endpoint, Isolation, Message};
use fluvial_tests::job::Job;
use fluvial_tests::stage::MOST;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const ROUNDS: usize = 3;

fn survives(subject: Subject, seed: u64, version: &str) {
    println!("seed {seed}");
    let ground = Ground::new(version).unwrap();
    let plan = ground.fit(Plan::new(seed, ROUNDS));
    let report = match Siege::new(&ground, subject, plan).and_then(|siege| siege.run()) {
        Ok(report) => report,
        Err(error) => panic!("{error:#}"),
    };
    println!("{report}");
    assert!(report.is_clean(), "seed {seed}: {report}");
}

#[test]
fn orders_say_what_an_undisturbed_replay_says() {
    survives(Subject::Orders, 1, VERSION);
}

#[test]
fn the_bank_says_what_an_undisturbed_replay_says() {
    survives(Subject::Bank, 2, SURVIVES_A_KILL);
}

/// The component of each node, by merging those of the ends of each edge.
fn merged(edges: &BTreeMap<u64, (u64, u64)>) -> BTreeMap<u64, u64> {
    let mut components: BTreeMap<u64, u64> = edges.values().flat_map(|(a, b)| [(*a, *a), (*b, *b)]).collect();
    for (one, other) in edges.values().map(|(a, b)| (*a, *b)) {
        let (one, other) = (components[&one], components[&other]);
        components.values_mut().filter(|component| **component == one.max(other)).for_each(|c| *c = one.min(other));
    }
    components
}

/// The rows of the topic `components`, and how many records it has.
fn components(endpoint: &Endpoint) -> (BTreeMap<u64, u64>, usize) {
    let mut rows = BTreeMap::new();
    let records = endpoint.read("components", Isolation::Committed).unwrap();
    let count = records.len();
    let parsed =
        |bytes: Option<Vec<u8>>| bytes.map(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).unwrap());
    for record in records {
        let node = parsed(record.key).unwrap()["node"].as_u64().unwrap();
        match parsed(record.value) {
            Some(row) => rows.insert(node, row["component"].as_u64().unwrap()),
            None => rows.remove(&node),
        };
    }
    (rows, count)
}

#[test]
fn components_of_a_changing_graph_are_right_after_kills_of_processes() {
    let folder = Folder::new("fluvial-components-").unwrap();
    let broker = Broker::start(Config::default()).unwrap();
    broker.create_topic("edges", 2).unwrap();
    let endpoint = Endpoint::new(broker.bootstrap());
    let store = folder.path().join("store");
    let start = |options: &str| {
        let args = ["run", "--brokers", endpoint.bootstrap(), "--store", store.to_str().unwrap()];
        let args: Vec<OsString> = args.into_iter().chain(options.split_whitespace()).map(OsString::from).collect();
        Job::start("components", &args, &[], &folder.path().join("log")).unwrap()
    };
    let (mut random, mut edges) = (ChaCha8Rng::seed_from_u64(3), BTreeMap::new());
    let writer = endpoint.writer(&[]).unwrap();
    let mut write = |changes: usize| {
        for _ in 0..changes {
            let id = random.random_range(0..40_u64);
            let edge = (random.random_range(0..50), random.random_range(0..50));
            let value = (random.random_range(0..3) > 0).then_some(edge);
            match value {
                Some(edge) => drop(edges.insert(id, edge)),
                None => drop(edges.remove(&id)),
            }
            let (key, value) = (id.to_string(), value.map(|(from, to)| format!(r#"{{"from":{from},"to":{to}}}"#)));
            // The records of an edge are in one partition.
            let partition = Some((id % 2) as i32);
            let (key, value) = (Some(key.as_bytes()), value.as_ref().map(String::as_bytes));
            writer.write(&[Message { topic: "edges", partition, key, value, ..Message::default() }]).unwrap();
        }
        merged(&edges)
    };
    let job = start("--processes 2 --workers 2 --checkpoint-every 100ms");
    let mut seen = 0;
    for round in 0..3 {
        write(100);
        // In the midst of work: some of the round's output is there.
        let began = Instant::now();
        while seen == components_so_far(&endpoint) {
            assert!(began.elapsed() < MOST && job.process().status().is_none(), "{}", job.process().log_end());
            let _ = job.process().wait(Duration::from_millis(10));
        }
        while !job.kill_peer(round).unwrap() {
            assert!(began.elapsed() < MOST && job.process().status().is_none(), "{}", job.process().log_end());
            let _ = job.process().wait(Duration::from_millis(10));
        }
        seen = components_so_far(&endpoint);
    }
    let expected = write(100);
    job.kill_all().unwrap();
    let job = start("--processes 1 --workers 3 --stop-at-end");
    let status = job.process().wait(MOST).unwrap();
    assert!(status.success(), "{status}: {}", job.process().log_end());
    assert_eq!(components(&endpoint).0, expected);
}

/// How many records the output has; 0 where the job has not created it.
fn components_so_far(endpoint: &Endpoint) -> usize {
    endpoint.partitions("components").map_or(0, |_| components(endpoint).1)
}
