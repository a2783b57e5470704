//! How a cluster keeps the processes of jobs apart from its nodes. Where a host has no control groups, the tests check what the
//! cluster says of that instead.

use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

use fluvial_tests::child::Folder;
use fluvial_tests::client::Message;
use fluvial_tests::job::binary;
use fluvial_tests::stage::Stage;
use fluvial_tests::subject::Subject;
use serde_json::Value;

use crate::nodes::{Cluster, SECRET_VARIABLE, fluvial, own_args};

/// A record of an order that comes to nothing, at which a faulty job does what is wrong.
pub(crate) fn send_nothing(stage: &Stage) {
    let writer = stage.endpoint().writer(&[]).unwrap();
    let order = br#"{"order_id":7,"quantity":1,"price_cents":0,"at":0}"#;
    writer.send(&Message { topic: &stage.input(), key: Some(b"7"), value: Some(order), ..Message::default() }).unwrap();
    writer.flush().unwrap();
}

/// Submits the faulty job with options of `submit` and options of its own.
#[track_caller]
pub(crate) fn submit_faulty(cluster: &Cluster, stage: &Stage, of_submit: &str, wrong: &str) {
    let faulty = binary("faulty").unwrap();
    let words = format!("submit {} --name {} {of_submit} --", faulty.display(), stage.name());
    let words = words.split_whitespace().map(Into::into);
    let own =
        own_args(stage).into_iter().chain(format!("--wrong {wrong}").split(' ').map(Into::into).collect::<Vec<_>>());
    let (succeeded, said) = cluster.ask(words.chain(own).collect::<Vec<std::ffi::OsString>>());
    assert!(succeeded, "{said}\n{}", cluster.logs());
}

/// Why the node has no control groups with the controllers of memory and CPU, if it has none.
pub(crate) fn lacks_groups(cluster: &Cluster) -> Option<String> {
    let nodes: Value = serde_json::from_str(&cluster.tell("nodes --json")).unwrap();
    let isolation = &nodes[0]["isolation"];
    let groups = isolation["control_groups"].as_str().unwrap_or_default().to_owned();
    if rustix::process::geteuid().is_root() {
        // The machines of our tests have them; one that is said to have none is told apart by this.
        let mounted = read_to_string("/proc/self/mountinfo").unwrap().contains(" - cgroup");
        assert!(!mounted || groups.contains("memory"), "{isolation}");
    }
    if groups.contains("memory") && groups.contains("cpu") { None } else { Some(isolation.to_string()) }
}

/// The status while the job runs without its limits, if the host does not have what they need.
fn is_said_where_there_are_no_groups(cluster: &Cluster, stage: &Stage) -> bool {
    if lacks_groups(cluster).is_none() {
        return false;
    }
    cluster.wait_until("a job without its limits that says so", || {
        let status = cluster.status(stage.name());
        status["state"] == "running" && status["why"].as_str().unwrap().contains("without its limits")
    });
    assert!(cluster.tell("nodes").contains("no limits on memory and CPU"));
    true
}

/// The folder of a process's group of a controller.
pub(crate) fn group_of(pid: u32, controller: &str) -> PathBuf {
    let groups = read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let line = groups.lines().find(|line| line.split(':').nth(1).unwrap().split(',').any(|name| name == controller));
    match line {
        Some(line) => {
            let mounts = read_to_string("/proc/self/mountinfo").unwrap();
            let of_controller = |line: &&str| {
                line.contains(" - cgroup ")
                    && line.rsplit(' ').next().unwrap().split(',').any(|name| name == controller)
            };
            let mount = mounts.lines().find(of_controller).unwrap().split(' ').nth(4).unwrap();
            PathBuf::from(format!("{mount}{}", line.splitn(3, ':').nth(2).unwrap()))
        }
        None => {
            PathBuf::from(format!("/sys/fs/cgroup{}", groups.lines().last().unwrap().splitn(3, ':').nth(2).unwrap()))
        }
    }
}

/// The processes whose command line holds all of these.
pub(crate) fn processes(parts: &[&str]) -> Vec<u32> {
    let of_proc = read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let holds = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        parts.iter().all(|part| line.contains(part))
    };
    of_proc.filter(holds).collect()
}

pub(crate) fn process_of(stage: &Stage) -> u32 {
    processes(&[stage.name(), "process 0 of"])[0]
}

fn limit(pid: u32, controller: &str, files: [&str; 2]) -> String {
    let folder = group_of(pid, controller);
    let text = files.iter().find_map(|file| read_to_string(folder.join(file)).ok());
    text.unwrap_or_else(|| panic!("{} has none of {files:?}", folder.display())).trim().to_owned()
}

#[test]
fn each_process_of_a_job_has_the_limits_that_its_user_has_set_and_changed() {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    stage.feed(0..100).unwrap();
    submit_faulty(&cluster, &stage, "--memory 1GiB --cpus 1.5", "nothing");
    if is_said_where_there_are_no_groups(&cluster, &stage) {
        return;
    }
    let memory = ["memory.limit_in_bytes", "memory.max"];
    let cpu = ["cpu.cfs_quota_us", "cpu.max"];
    let pid = process_of(&stage);
    assert_eq!(limit(pid, "memory", memory), (1_u64 << 30).to_string());
    assert!(limit(pid, "cpu", cpu).starts_with("150000"));
    assert_eq!(limit(pid, "pids", ["pids.max"; 2]), "4096");
    assert_eq!(cluster.status(stage.name())["limits"]["memory_bytes"], 1_u64 << 30);
    let first = group_of(pid, "memory");
    assert_ne!(first, group_of(std::process::id(), "memory"));
    // A change is a new version, which the job goes on with; what it does not name stays.
    cluster.tell(&format!("rescale {} --memory 2GiB", stage.name()));
    cluster.wait_until("the new limit", || {
        let status = cluster.status(stage.name());
        status["state"] == "running" && status["limits"]["memory_bytes"] == 2_u64 << 30
    });
    assert_eq!(limit(process_of(&stage), "memory", memory), (2_u64 << 30).to_string());
    assert!(limit(process_of(&stage), "cpu", cpu).starts_with("150000"));
    assert!(!first.exists(), "the group of an attempt that has ended is there: {}", first.display());
    let said = cluster.tell(&format!("status {}", stage.name()));
    assert!(said.contains("2 GiB of memory and 1.5 CPUs for each process"), "{said}");
    cluster.tell(&format!("rescale {} --cpus none", stage.name()));
    cluster.wait_until("no limit on CPUs", || {
        let status = cluster.status(stage.name());
        status["state"] == "running" && status["limits"]["millicpus"].is_null()
    });
    assert!(!limit(process_of(&stage), "cpu", cpu).starts_with("150000"));
    let node = group_of(process_of(&stage), "memory").ancestors().nth(2).unwrap().to_owned();
    assert_eq!(cluster.terminate(0), Some(0), "{}", cluster.logs());
    assert!(!node.exists(), "the groups of a node that has ended are there: {}", node.display());
}

#[test]
fn a_process_that_needs_more_memory_than_its_limit_is_killed_and_the_status_says_so() {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    submit_faulty(&cluster, &stage, "--memory 300MiB", "hoards");
    if is_said_where_there_are_no_groups(&cluster, &stage) {
        return;
    }
    let first = cluster.status(stage.name())["attempt"]["number"].as_u64();
    send_nothing(&stage);
    // The job begins again and again, with pauses: nobody can know that it will need as much again.
    cluster.wait_until("an attempt that follows for this reason", || {
        let attempt = cluster.status(stage.name())["attempt"].clone();
        attempt["number"].as_u64() > first
            && attempt["why"].as_str().unwrap().contains("killed: more than its limit of 300 MiB")
    });
}

#[test]
fn a_program_that_a_job_has_started_does_not_outlive_its_attempt() {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    submit_faulty(&cluster, &stage, "", "leaves-a-program");
    if lacks_groups(&cluster).is_some() {
        // Without control groups the node cannot find the programs that a process has started.
        assert!(cluster.tell("nodes").contains("no limits on memory and CPU"));
        return;
    }
    let left = || processes(&["left-by-a-job", stage.name()]);
    let attempt = || cluster.status(stage.name())["attempt"].clone();
    let first = attempt()["number"].as_u64();
    send_nothing(&stage);
    cluster.wait_until("an attempt that follows because the program was started", || {
        let attempt = attempt();
        attempt["number"].as_u64() > first && attempt["why"].as_str().unwrap().contains("exit status: 4")
    });
    cluster.tell(&format!("stop {}", stage.name()));
    assert!(left().is_empty(), "programs of attempts that have ended run: {:?}", left());
}

#[test]
fn what_a_killed_node_has_left_behind_is_ended_by_the_next_node() {
    let (cluster, stage) = (Cluster::start(2), Stage::new(Subject::Orders, 2).unwrap());
    submit_faulty(&cluster, &stage, "", "nothing");
    if lacks_groups(&cluster).is_some() {
        return assert!(cluster.tell("nodes").contains("no limits on memory and CPU"));
    }
    let group = group_of(process_of(&stage), "memory");
    let mut stray = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    std::fs::write(group.join("cgroup.procs"), stray.id().to_string()).unwrap();
    let node = cluster.nodes_of(stage.name())[0];
    // A node that starts beside it leaves it alone, because it lives.
    cluster.terminate(1 - node);
    cluster.start_node(1 - node);
    assert!(stray.try_wait().unwrap().is_none() && group.exists());
    cluster.kill(node);
    assert!(stray.try_wait().unwrap().is_none(), "it ended with the node, so this test shows nothing");
    cluster.start_node(node);
    let stray = std::cell::RefCell::new(stray);
    cluster.wait_until("the stray program ends", || stray.borrow_mut().try_wait().unwrap().is_some());
    cluster.wait_until("the group is gone", || !group.exists());
}

#[test]
fn a_job_of_a_node_that_is_root_runs_as_another_user_and_reaches_nothing_of_the_node() {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    let is_root = rustix::process::geteuid().is_root();
    let user = cluster.tell("nodes");
    if !is_root {
        // There is no other user then, and that is said.
        return assert!(user.contains("jobs run as the user of the node"), "{user}");
    }
    let key = cluster.path("key");
    let journal = cluster.path("store").join(".cluster");
    let spied = [key.clone(), journal.clone(), PathBuf::from("/etc/passwd")].map(|path| path.display().to_string());
    stage.feed(0..100).unwrap();
    submit_faulty(&cluster, &stage, "", &format!("spies --spy-on {}", spied.join(" --spy-on ")));
    cluster
        .wait_until("output of the job", || cluster.status(stage.name())["progress"]["records_out"].as_u64() > Some(0));
    let owner = |path: PathBuf| std::os::unix::fs::MetadataExt::uid(&path.metadata().unwrap());
    let pid = process_of(&stage);
    assert_ne!(owner(PathBuf::from(format!("/proc/{pid}"))), 0);
    assert_ne!(owner(cluster.path("store").join(stage.name())), 0);
    let groups = read_to_string(format!("/proc/{pid}/status")).unwrap();
    let groups = groups.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap().trim().to_owned();
    assert_eq!(groups, "", "it has groups of root's");
    send_nothing(&stage);
    cluster.wait_until("the end of the job", || cluster.status(stage.name())["state"] == "failed");
    let why = cluster.status(stage.name())["why"].as_str().unwrap().to_owned();
    // What everybody may read shows that the job has tried.
    assert!(why.contains("reached: /etc/passwd."), "{why}");
}

#[test]
fn a_node_that_is_root_refuses_to_run_jobs_as_root_or_as_a_user_that_reaches_what_it_must_not() {
    let cluster = Cluster::start(1);
    let node = |store: &Path, options: &[&str]| {
        let mut command = std::process::Command::new(fluvial());
        command.args(["node", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0", "--store"]).arg(store);
        let output = command.arg("--cache").arg(cluster.path("other-cache")).args(options).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let store = cluster.path("other-store");
    if !rustix::process::geteuid().is_root() {
        return assert!(node(&store, &["--job-user", "65534:65534"]).contains("only a node that runs as root"));
    }
    assert!(node(&store, &["--job-user", "root"]).contains("with --allow-root-jobs only"));
    let closed = Folder::new("fluvial-closed-").unwrap();
    std::fs::set_permissions(closed.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let kept_out = node(closed.path(), &[]);
    assert!(kept_out.contains("jobs cannot use the folder of --store") && kept_out.contains("no access"), "{kept_out}");
    // Whoever owns the key can read it.
    let key = cluster.path("key-of-another");
    std::fs::copy(cluster.path("key"), &key).unwrap();
    std::os::unix::fs::chown(&key, Some(65534), Some(65534)).unwrap();
    let can_read = node(&store, &["--cluster-key-file", key.to_str().unwrap(), "--job-user", "65534:65534"]);
    assert!(can_read.contains("can read"), "{can_read}");
}

/// Whether a file of a folder holds a text.
fn holds(folder: &Path, text: &str) -> bool {
    read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, text);
        }
        let content = std::fs::read(path).unwrap_or_default();
        content.windows(text.len()).any(|part| part == text.as_bytes())
    })
}

#[test]
fn a_job_gets_its_secrets_from_the_node_and_nobody_else_sees_them() {
    let cluster = Cluster::start(1);
    let secrets = cluster.path("secrets");
    std::fs::create_dir(&secrets).unwrap();
    std::fs::set_permissions(&secrets, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let of_file = "never-shown-file";
    let by_variable = format!("env:{}", SECRET_VARIABLE[0]);
    for (reference, secret) in [("file:password", of_file), (&*by_variable, SECRET_VARIABLE[1])] {
        let stage = Stage::new(Subject::Orders, 2).unwrap();
        let backwards: String = secret.chars().rev().collect();
        let wrong = format!("tells-the-secret --secret {reference}");
        submit_faulty(&cluster, &stage, "--detach", &wrong);
        if reference.starts_with("file") {
            // A node without the secret cannot run the job, and says why.
            cluster.wait_until("the reason why it does not run", || {
                let status = cluster.status(stage.name());
                let why = status["why"].as_str().unwrap();
                status["state"] == "waiting"
                    && why.contains("the secret 'file:password' of 'secret' cannot be resolved")
            });
            std::fs::write(secrets.join("password"), format!("{secret}\n")).unwrap();
        }
        cluster.wait_until("the job runs", || cluster.status(stage.name())["state"] == "running");
        let pid = process_of(&stage);
        for file in ["environ", "cmdline"] {
            let content = std::fs::read(format!("/proc/{pid}/{file}")).unwrap();
            let content = String::from_utf8_lossy(&content);
            assert!(!content.contains(of_file) && !content.contains(SECRET_VARIABLE[1]), "{file}: {content}");
            assert!(!content.contains(SECRET_VARIABLE[0]) || file == "cmdline", "it inherits the variable");
        }
        send_nothing(&stage);
        cluster.wait_until("the end of the job", || cluster.status(stage.name())["state"] == "failed");
        let status = cluster.status(stage.name()).to_string();
        assert!(status.contains(&backwards), "the job did not get its secret: {status}");
        assert!(!status.contains(secret) && !cluster.logs().contains(secret));
        assert!(!holds(&cluster.path("store"), secret), "the store holds the secret");
        assert!(holds(&cluster.path("store"), reference), "the store does not hold the reference");
    }
}

#[test]
fn a_secret_in_the_place_of_a_reference_is_refused() {
    let cluster = Cluster::start(1);
    let orders = binary("orders").unwrap();
    for options in ["-X sasl.password=hunter2", "-X ssl.key.pem=hunter2", "--db-password hunter2"] {
        let words = format!("submit {} --name a -- --input a --output b {options}", orders.display());
        let (succeeded, said) = cluster.ask(words.split(' '));
        assert!(!succeeded && said.contains("is a secret") && said.contains("file:PATH"), "{said}");
        assert!(!said.contains("hunter2") && !cluster.logs().contains("hunter2"), "{said}");
    }
}
