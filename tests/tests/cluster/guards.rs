//! What a job does on purpose to reach more than it should.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::process::Command;

use fluvial_tests::job::binary;
use fluvial_tests::stage::Stage;
use fluvial_tests::subject::Subject;

use crate::limits::{group_of, lacks_groups, process_of, processes, send_nothing, submit_faulty};
use crate::nodes::Cluster;

#[test]
fn a_node_that_is_root_follows_no_link_that_a_job_has_planted() {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    stage.feed(0..100).unwrap();
    let (succeeded, said) = cluster.submit(&stage, 1, &binary("orders").unwrap());
    assert!(succeeded, "{said}\n{}", cluster.logs());
    let (job, outside) = (cluster.path("store").join(stage.name()), cluster.path("outside"));
    std::fs::create_dir(&outside).unwrap();
    cluster.wait_until("a savepoint", || cluster.ask(["savepoint", stage.name(), "--name", "first"]).0);
    let of_job = job.metadata().unwrap().uid();
    for file in [job.join("savepoints"), job.join("savepoints/first.json")] {
        assert_eq!(file.metadata().unwrap().uid(), of_job, "{} is not the job's", file.display());
    }
    if !rustix::process::geteuid().is_root() {
        // The node can do no more than the job, and no link leads it astray.
        return;
    }
    std::fs::write(outside.join("victim.json"), "").unwrap();
    std::fs::rename(job.join("savepoints"), cluster.path("aside")).unwrap();
    symlink(&outside, job.join("savepoints")).unwrap();
    let (succeeded, said) = cluster.ask(["savepoint", stage.name(), "--name", "second"]);
    assert!(!succeeded, "{said}");
    let (succeeded, said) = cluster.ask(["savepoints", stage.name(), "--drop", "victim"]);
    assert!(!succeeded, "{said}");
    let (succeeded, said) = cluster.ask(["savepoints", stage.name()]);
    assert!(!succeeded, "{said}");
    let left: Vec<_> = outside.read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["victim.json"]);
    // The job itself goes on.
    std::fs::remove_file(job.join("savepoints")).unwrap();
    std::fs::rename(cluster.path("aside"), job.join("savepoints")).unwrap();
    assert!(cluster.tell(&format!("savepoints {}", stage.name())).contains("first"));
    stage.feed(100..200).unwrap();
    cluster.wait_until_right(&stage);
}

#[test]
fn a_check_of_a_job_has_the_limits_of_the_job() {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    if lacks_groups(&cluster).is_some() {
        return assert!(cluster.tell("nodes").contains("no limits on memory and CPU"));
    }
    submit_faulty(&cluster, &stage, "--detach --memory 300MiB", "hoards-when-built");
    cluster.wait_until("the end of the check", || {
        let status = cluster.status(stage.name());
        let why = status["why"].as_str().unwrap();
        assert_ne!(status["state"], "running", "the check had more memory than the job may have");
        status["state"] == "waiting" && why.contains("a check of the job failed") && why.contains("signal: 9")
    });
}

#[test]
fn a_check_of_a_job_runs_as_the_user_of_jobs() {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    submit_faulty(&cluster, &stage, "--detach", "says-its-user");
    let why = || cluster.status(stage.name())["why"].as_str().unwrap().to_owned();
    cluster.wait_until("what the check says", || why().contains("it was built by user"));
    let own = rustix::process::geteuid();
    let is_own = why().contains(&format!("it was built by user {}", own.as_raw()));
    assert_eq!(is_own, !own.is_root(), "{}", why());
}

#[test]
fn a_job_that_takes_the_lock_of_its_dead_node_is_ended_all_the_same() {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    submit_faulty(&cluster, &stage, "", "nothing");
    if lacks_groups(&cluster).is_some() {
        return assert!(cluster.tell("nodes").contains("no limits on memory and CPU"));
    }
    let group = group_of(process_of(&stage), "memory");
    let of_node = group.ancestors().nth(2).unwrap().to_owned();
    // It waits for the lock, and starts the program when it has it.
    let waits = ["1000.5", stage.name()];
    let program = format!("sleep {}; : {}", waits[0], waits[1]);
    let mut stray = Command::new("flock").arg(&of_node).args(["-c", &program]).spawn().unwrap();
    std::fs::write(group.join("cgroup.procs"), stray.id().to_string()).unwrap();
    cluster.kill(0);
    let holds = || !processes(&["sleep", waits[0]]).is_empty();
    cluster.wait_until("the program that holds the lock", holds);
    cluster.start_node(0);
    let stray_ended = std::cell::RefCell::new(&mut stray);
    cluster.wait_until("the program ends", || stray_ended.borrow_mut().try_wait().unwrap().is_some());
    cluster.wait_until("the group is gone", || !of_node.exists());
}

#[test]
fn a_job_reaches_the_key_of_its_node_by_no_file_of_the_host() {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    if !rustix::process::geteuid().is_root() {
        return assert!(cluster.tell("nodes").contains("jobs run as the user of the node"));
    }
    // The key is replaced before, so that its file is one that the command has written.
    cluster.make_key("new-key");
    let added = cluster.path("new-key").to_str().unwrap().to_owned();
    assert!(cluster.ask(["cluster-key", "add", &added]).0);
    let node = cluster.nodes.borrow()[&0].pid();
    let key = cluster.path("key").display().to_string();
    let mut spied = vec![key.clone(), added, format!("/proc/{node}/root{key}"), "/etc/passwd".to_owned()];
    spied.extend(["mem", "maps", "environ", "auxv", "stack", "syscall"].map(|name| format!("/proc/{node}/{name}")));
    spied.extend((0..64).map(|file| format!("/proc/{node}/fd/{file}")));
    spied.extend(["cache-0/uploads", "store/.cluster", "secrets"].map(|name| cluster.path(name).display().to_string()));
    submit_faulty(&cluster, &stage, "", &format!("spies --spy-on {}", spied.join(" --spy-on ")));
    send_nothing(&stage);
    cluster.wait_until("the end of the job", || cluster.status(stage.name())["state"] == "failed");
    let why = cluster.status(stage.name())["why"].as_str().unwrap().to_owned();
    // What everybody may read shows that the job has tried.
    assert!(why.contains("reached: /etc/passwd."), "{why}");
}
