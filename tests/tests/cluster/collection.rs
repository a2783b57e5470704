//! What nothing refers to is collected, and a deletion removes what it says.

use fluvial_tests::job::{binary, build_again};
use fluvial_tests::stage::Stage;
use fluvial_tests::subject::Subject;

use crate::nodes::Cluster;
use crate::savepoints::savepoints;

/// How many files there are below a folder of the store.
fn files(cluster: &Cluster, folder: &str) -> usize {
    let count = |folder: std::path::PathBuf| -> usize {
        let mut folders = vec![folder];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            let Ok(entries) = std::fs::read_dir(folder) else { continue };
            for entry in entries.filter_map(Result::ok) {
                if entry.path().is_dir() { folders.push(entry.path()) } else { files += 1 }
            }
        }
        files
    };
    count(cluster.path("store").join(folder))
}

#[test]
fn what_a_deleted_job_has_left_is_collected_and_what_others_use_is_not() {
    let cluster = Cluster::start(1);
    cluster.kill(0);
    let collecting = ["--collect-after", "15s", "--collect-every", "1s", "--keep-savepoints", "1"];
    cluster.start_node_with(0, &collecting);
    let stages = [Stage::new(Subject::Orders, 2).unwrap(), Stage::new(Subject::Orders, 2).unwrap()];
    let orders = binary("orders").unwrap();
    for stage in &stages {
        stage.feed(0..200).unwrap();
        let (succeeded, said) = cluster.submit(stage, 1, &orders);
        assert!(succeeded, "{said}\n{}", cluster.logs());
        cluster.wait_until_right(stage);
    }
    let [gone, stays] = stages.each_ref().map(|stage| stage.name().to_owned());
    // The second job is upgraded again and again, each time after a savepoint.
    for build in 0..3 {
        let again = cluster.path(&format!("built-again-{build}"));
        let mut program = orders.clone();
        if build > 0 {
            program = cluster.path(&format!("built-again-{}", build - 1));
        }
        build_again(&program, &again).unwrap();
        let generation = cluster.status(&stays)["attempt"]["generation"].as_u64();
        cluster.tell(&format!("upgrade {stays} {} --yes", again.display()));
        cluster.wait_until("the other build", || {
            let status = cluster.status(&stays);
            status["state"] == "running" && status["attempt"]["generation"].as_u64() > generation
        });
    }
    cluster.tell(&format!("stop {gone}"));
    let (succeeded, said) = cluster.ask(["delete", &gone]);
    assert!(!succeeded, "{said}");
    for part in ["objects of its state and journal", "no savepoints", "Topics are not touched", "--yes"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(files(&cluster, &gone) > 0);
    cluster.tell(&format!("delete {gone} --yes"));
    cluster.wait_until("its state is removed", || files(&cluster, &gone) == 0);
    cluster.wait_until("its logs are collected", || files(&cluster, &format!(".cluster/logs/{gone}")) == 0);
    // Of the other job stay the version that runs and three before it, all with their binaries.
    cluster.wait_until("specifications are collected", || files(&cluster, ".cluster/specifications") <= 5);
    stages[1].feed(200..400).unwrap();
    cluster.wait_until_right(&stages[1]);
    cluster.tell(&format!("rollback {stays} --yes"));
    stages[1].feed(400..600).unwrap();
    cluster.wait_until_right(&stages[1]);
    assert!(!savepoints(&cluster, &stays).is_empty());
    // The name is free again, and the job begins anew: its output holds rows of the one before.
    let (succeeded, said) = cluster.submit(&stages[0], 1, &orders);
    assert!(!succeeded && said.contains("is of incarnation"), "{said}\n{}", cluster.logs());
}
