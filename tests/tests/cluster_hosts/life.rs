//! The whole life of a job beside many others.

use std::ffi::OsString;

use fluvial_tests::child::Folder;
use fluvial_tests::cluster::{Cluster, ClusterOptions, Fleet, SMALL_PARTITIONS, built_again, check_logs, submission};
use fluvial_tests::group::{Kafka, Store};
use fluvial_tests::job::binary;
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;
use serde_json::Value;

fn cluster() -> Cluster {
    Cluster::start(ClusterOptions { hosts: 3, slots: 6, kafka: Kafka::Apache, store: Store::Folder, key: true })
        .unwrap()
}

/// Waits until a job runs with so many workers, as it is wanted, in a generation after this one. Returns the generation.
fn wait_for(cluster: &Cluster, job: &str, workers: u64, after: u64) -> u64 {
    let mut generation = 0;
    let what = format!("{job} with {workers} workers after generation {after}");
    let runs = cluster.wait_until(&what, || {
        let status = cluster.json(&format!("status {job}"))?;
        let (attempt, wanted) = (&status["attempt"], &status["wanted"]);
        generation = attempt["generation"].as_u64().unwrap_or_default();
        Ok(status["state"] == "running"
            && attempt["workers"] == workers
            && attempt["version"] == wanted["version"]
            && generation > after)
    });
    runs.unwrap_or_else(|error| panic!("{error:#}"));
    generation
}

#[test]
fn a_job_is_rescaled_saved_upgraded_drained_stopped_and_started_beside_others_that_run_on() {
    let cluster = cluster();
    let fleet = Fleet::start(&cluster, 6, 7).unwrap();
    let name = fleet.tenants()[1].name().to_owned();
    let before = fleet.generations().unwrap();
    let mut generation = wait_for(&cluster, &name, 2, 0);
    for workers in [6, 1] {
        cluster.tell(&format!("rescale {name} --workers {workers}")).unwrap();
        generation = wait_for(&cluster, &name, workers, generation);
    }
    cluster.tell(&format!("savepoint {name} --name first")).unwrap();
    let again = built_again(&cluster, &binary("orders").unwrap(), "built-again").unwrap();
    cluster.tell(&format!("upgrade {name} {} --yes --same-output", again.display())).unwrap();
    generation = wait_for(&cluster, &name, 1, generation);
    cluster.tell(&format!("stop {name}")).unwrap();
    cluster.tell(&format!("start {name}")).unwrap();
    generation = wait_for(&cluster, &name, 1, generation);
    let others: Vec<_> = fleet.generations().unwrap().into_iter().zip(before).collect();
    let interrupted = others.iter().enumerate().filter(|(job, (after, before))| *job != 1 && after != before).count();
    assert_eq!(interrupted, 0, "changes of one job interrupted others: {others:?}");
    let host = fleet.hosts_of(&name).unwrap().into_iter().next().unwrap();
    cluster.tell(&format!("drain {}", cluster.address(host))).unwrap();
    assert!(cluster.network().pids(fluvial_tests::hosts::Place::Host(host)).unwrap().len() <= 1, "processes are left");
    wait_for(&cluster, &name, 1, generation);
    cluster.tell(&format!("undrain {}", cluster.address(host))).unwrap();
    fleet.wait_until_all_run().unwrap();
    fleet.finish().unwrap_or_else(|error| panic!("{error:#}"));
    check_logs(&cluster).unwrap();
}

/// What another job gives that reads the same input in one run, without a cluster.
fn undisturbed(stage: &Stage) -> std::collections::BTreeMap<String, String> {
    let folder = Folder::new("fluvial-undisturbed-").unwrap();
    let name = fluvial_tests::client::unique("undisturbed");
    let output = format!("{name}.revenue");
    let mut args: Vec<OsString> = vec!["run".into()];
    args.extend(stage.common_args());
    for (option, value) in
        [("--name", name.into()), ("--output", output.clone().into()), ("--store", folder.path().join("store").into())]
    {
        let at = args.iter().position(|arg| arg == option).unwrap();
        args[at + 1] = value;
    }
    args.push("--stop-at-end".into());
    let finished = stage.start_with(args).unwrap().finish(MOST).unwrap();
    assert_eq!(finished.code, Some(0), "{}", finished.said);
    table(stage, &output)
}

/// The newest value of each key.
fn table(stage: &Stage, output: &str) -> std::collections::BTreeMap<String, String> {
    let mut table = std::collections::BTreeMap::new();
    for record in stage.endpoint().read(output, fluvial_tests::client::Isolation::Committed).unwrap() {
        let key = String::from_utf8(record.key.unwrap_or_default()).unwrap();
        match record.value {
            Some(value) => table.insert(key, String::from_utf8(value).unwrap()),
            None => table.remove(&key),
        };
    }
    table
}

#[test]
fn changed_logic_is_rolled_back_and_a_job_goes_back_to_a_savepoint_as_if_nothing_had_been() {
    let cluster =
        Cluster::start(ClusterOptions { hosts: 3, slots: 2, kafka: Kafka::Embedded, store: Store::Folder, key: true })
            .unwrap();
    let faulty = binary("faulty").unwrap();
    let stage = cluster.stage(Subject::Orders, SMALL_PARTITIONS).unwrap().with_program(&faulty);
    let (name, output) = (stage.name().to_owned(), stage.outputs().swap_remove(0));
    stage.feed(0..200).unwrap();
    cluster.tell_until(&submission(&stage, &faulty, 2), |_| false).unwrap();
    let generation = wait_for(&cluster, &name, 2, 0);
    let caught_up = |expected: &std::collections::BTreeMap<String, String>| {
        let right = cluster.wait_until("the output of the input", || Ok(table(&stage, &output) == *expected));
        right.unwrap_or_else(|error| panic!("{error:#}"));
    };
    let plain = undisturbed(&stage);
    caught_up(&plain);
    // A checkpoint of it.
    cluster.wait_until("a savepoint", || Ok(cluster.ask(["savepoint", &name, "--name", "first"])?.succeeded)).unwrap();

    let mut upgrade: Vec<OsString> = ["upgrade", &name].map(Into::into).into();
    upgrade.extend([faulty.into(), "--yes".into(), "--".into()]);
    upgrade.extend(fluvial_tests::cluster::own_args(&stage));
    upgrade.extend(["--logic", "doubled"].map(OsString::from));
    cluster.tell_until(&upgrade, |_| false).unwrap();
    let generation = wait_for(&cluster, &name, 2, generation);
    let doubled = plain.iter().map(|(key, value)| (key.clone(), (2 * value.parse::<i64>().unwrap()).to_string()));
    caught_up(&doubled.collect());

    cluster.tell(&format!("rollback {name} --yes")).unwrap();
    wait_for(&cluster, &name, 2, generation);
    caught_up(&plain);
    stage.feed(200..400).unwrap();
    caught_up(&undisturbed(&stage));

    cluster.tell(&format!("stop {name}")).unwrap();
    cluster.tell(&format!("start {name} --from first --correct-outputs")).unwrap();
    stage.feed(400..600).unwrap();
    caught_up(&undisturbed(&stage));
    cluster.tell(&format!("stop {name}")).unwrap();
    cluster.tell(&format!("delete {name} --yes")).unwrap();
    assert_eq!(cluster.json("jobs").unwrap(), Value::Array(Vec::new()));
    check_logs(&cluster).unwrap();
}
