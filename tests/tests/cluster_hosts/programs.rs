//! Programs that cannot run, and hosts that cannot keep them.

use std::ffi::OsString;
use std::path::PathBuf;

use fluvial_tests::cluster::{Cluster, ClusterOptions, SMALL_PARTITIONS, check_logs, own_args, submission};
use fluvial_tests::group::{Kafka, Store};
use fluvial_tests::hosts::Place;
use fluvial_tests::job::binary;
use fluvial_tests::stage::Stage;
use fluvial_tests::subject::Subject;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn cluster(hosts: u8) -> Cluster {
    Cluster::prepare(ClusterOptions { hosts, slots: 2, kafka: Kafka::Embedded, store: Store::Folder, key: true })
        .unwrap()
}

/// A job that runs, with one worker.
fn running(cluster: &Cluster) -> Stage {
    let stage = cluster.stage(Subject::Orders, SMALL_PARTITIONS).unwrap();
    stage.feed(0..100).unwrap();
    cluster.tell_until(&submission(&stage, &binary("orders").unwrap(), 1), |_| false).unwrap();
    wait_until_right(cluster, &stage);
    stage
}

fn wait_until_right(cluster: &Cluster, stage: &Stage) {
    let expected = stage.table_of_input().unwrap();
    let right = cluster.wait_until("the output of the input", || Ok(stage.table()? == expected));
    right.unwrap_or_else(|error| panic!("{error:#}"));
}

fn status(cluster: &Cluster, stage: &Stage) -> Value {
    cluster.json(&format!("status {}", stage.name())).unwrap()
}

/// The orders, built for a host with a libc that no host has.
fn for_another_libc(cluster: &Cluster) -> PathBuf {
    let mut content = std::fs::read(binary("orders").unwrap()).unwrap();
    let (needed, unknown) = (b"GLIBC_2.34\0", b"GLIBC_9.99\0");
    let places: Vec<_> = (0..content.len() - needed.len()).filter(|at| content[*at..].starts_with(needed)).collect();
    assert!(!places.is_empty(), "the build needs no such version");
    places.iter().for_each(|at| content[*at..*at + unknown.len()].copy_from_slice(unknown));
    let path = cluster.network().folder().join("for-another-libc");
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn an_upgrade_that_cannot_run_leaves_the_job_as_it_is_and_says_why() {
    let cluster = cluster(2);
    cluster.hosts().for_each(|host| cluster.start_node(host).unwrap());
    let stage = running(&cluster);
    let name = stage.name();
    let before = status(&cluster, &stage);
    let upgrade = |program: &PathBuf, arguments: &[&str]| {
        let mut args: Vec<OsString> = vec!["upgrade".into(), name.into(), program.into(), "--yes".into()];
        args.push("--".into());
        args.extend(own_args(&stage));
        args.extend(arguments.iter().map(OsString::from));
        cluster.ask(args).unwrap()
    };
    let orders = binary("orders").unwrap();
    let faulty = binary("faulty").unwrap();
    for (what, asked, says) in [
        ("a libc that no node has", upgrade(&for_another_libc(&cluster), &[]), "needs glibc 9.99, this node has"),
        ("an option that it does not have", upgrade(&orders, &["--no-such-option"]), "--no-such-option"),
        ("other state", upgrade(&faulty, &[]), "a durable operator 'orders'"),
    ] {
        assert!(!asked.succeeded && asked.printed.contains(says), "{what}: {}", asked.printed);
    }
    stage.feed(100..200).unwrap();
    let jobs = cluster.jobs().unwrap();
    assert_eq!(jobs[name]["attempt"]["version"], before["attempt"]["version"], "{jobs:?}");
    wait_until_right(&cluster, &stage);
    let submitted = cluster.stage(Subject::Orders, SMALL_PARTITIONS).unwrap();
    let words = submission(&submitted, &for_another_libc(&cluster), 1);
    assert!(cluster.ask(words).unwrap().succeeded);
    cluster
        .wait_until("the reason why it cannot run", || {
            let why = status(&cluster, &submitted)["why"].as_str().unwrap_or_default().to_owned();
            Ok(why.contains("needs glibc 9.99, this node has"))
        })
        .unwrap();
    check_logs(&cluster).unwrap();
}

#[test]
fn a_job_runs_elsewhere_while_the_cache_of_a_node_is_full_and_nothing_is_left_there() {
    let cluster = cluster(2);
    let cache = cluster.cache(0);
    std::fs::create_dir_all(&cache).unwrap();
    // What users upload has room.
    let script = "mount -t tmpfs -o size=1m,mode=755 tmpfs \"$0\" && mkdir \"$0/uploads\" && \
                  mount -t tmpfs -o size=1g,mode=700 tmpfs \"$0/uploads\" && exec \"$@\"";
    let launcher = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script].map(OsString::from);
    let launcher: Vec<_> = launcher.into_iter().chain([cache.clone().into_os_string()]).collect();
    cluster.start_node_by(0, &launcher).unwrap();
    let stage = cluster.stage(Subject::Orders, SMALL_PARTITIONS).unwrap();
    stage.feed(0..100).unwrap();
    cluster.tell_until(&submission(&stage, &binary("orders").unwrap(), 1), |_| false).unwrap();
    cluster
        .wait_until("the reason why the job waits", || {
            Ok(status(&cluster, &stage)["why"].as_str().unwrap_or_default().contains("No space left on device"))
        })
        .unwrap_or_else(|error| panic!("{error:#}"));
    let seen = PathBuf::from(format!("/proc/{}/root", cluster.node(0).unwrap().pid()));
    let seen = seen.join(cache.strip_prefix("/").unwrap());
    let files = || std::fs::read_dir(&seen).unwrap().map(|entry| entry.unwrap().file_name());
    let left = || files().filter(|name| name != "uploads").collect::<Vec<_>>();
    // One may be under way.
    cluster.wait_until("an empty cache", || Ok(left().is_empty())).unwrap_or_else(|error| panic!("{error:#}"));
    cluster.start_node(1).unwrap();
    wait_until_right(&cluster, &stage);
    let processes = status(&cluster, &stage)["attempt"]["processes"].clone();
    assert_eq!(processes[0]["node"], cluster.address(1), "{processes}");
    check_logs(&cluster).unwrap();
}

#[test]
fn a_binary_that_was_damaged_in_the_cache_is_fetched_again_when_its_process_dies() {
    let cluster = cluster(1);
    cluster.start_node(0).unwrap();
    let stage = running(&cluster);
    let entries = std::fs::read_dir(cluster.cache(0)).unwrap().map(|entry| entry.unwrap().path());
    // Beside the binary is the folder of uploads.
    let cached: Vec<_> = entries.filter(|entry| entry.is_file()).collect();
    assert_eq!(cached.len(), 1, "{cached:?}");
    // The file of a program that runs cannot be written.
    let damaged = std::fs::read(&cached[0]).unwrap()[..4096].to_vec();
    std::fs::remove_file(&cached[0]).unwrap();
    std::fs::write(&cached[0], damaged).unwrap();
    std::fs::set_permissions(&cached[0], std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let node = cluster.node(0).unwrap().pid();
    for pid in cluster.network().pids(Place::Host(0)).unwrap().into_iter().filter(|pid| *pid != node) {
        let _ = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL);
    }
    stage.feed(100..200).unwrap();
    wait_until_right(&cluster, &stage);
    cluster.wait_until("a job that runs", || Ok(status(&cluster, &stage)["state"] == "running")).unwrap();
    check_logs(&cluster).unwrap();
}
