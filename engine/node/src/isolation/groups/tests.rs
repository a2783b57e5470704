//! The groups of a node, in folders that look like those of the kernel.

#![allow(clippy::unwrap_used)]
use std::cell::RefCell;

use super::*;

const LIMITS: Limits = Limits { memory_bytes: Some(1 << 30), millicpus: Some(1500) };

/// A folder that looks like a hierarchy, with the group `node` in it; and the line of `/proc/self/mountinfo` about it.
fn hierarchy(kind: &str, options: &str, controllers: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let node = folder.path().join("node");
    create_dir(&node).unwrap();
    write(node.join("cgroup.procs"), "").unwrap();
    write(node.join("cgroup.controllers"), controllers).unwrap();
    let mount = folder.path().display();
    let line = format!("42 31 0:39 / {mount} rw,relatime shared:9 - {kind} {kind} {options}\n");
    (folder, line)
}

fn text(folder: &Path, file: &str) -> Option<String> {
    read_to_string(folder.join(file)).ok()
}

#[test]
fn version_2_has_one_group_for_a_process_with_all_limits() {
    let (folder, mounts) = hierarchy("cgroup2", "rw", "cpuset cpu io memory pids\n");
    let groups = ControlGroups::new("0::/node\n", &mounts).unwrap();
    assert_eq!(groups.describe(), "control groups of version 2 (pids, memory, cpu)");
    assert_eq!(groups.lack(&LIMITS), None);
    let (node, all) = (folder.path().join("node"), Some("+pids +memory +cpu".to_owned()));
    assert_eq!(text(&node, "cgroup.subtree_control"), all);
    let own = groups.hierarchies[0].folder.clone();
    assert!(own.starts_with(&node));
    assert_eq!(text(&own, "cgroup.subtree_control"), all);
    let attempt = groups.attempt("orders", 7).unwrap();
    assert_eq!(text(&own.join("orders.7"), "cgroup.subtree_control"), all);
    let process = attempt.process(1, &LIMITS).unwrap();
    let at = own.join("orders.7/1");
    assert_eq!(process.folders, std::slice::from_ref(&at));
    assert_eq!(text(&at, "memory.max").unwrap(), "1073741824");
    assert_eq!(text(&at, "cpu.max").unwrap(), "150000 100000");
    assert_eq!(process.memory.unwrap().folder, at);
    let free = attempt.process(2, &Limits::default()).unwrap();
    assert!(text(&free.folders[0], "memory.max").is_none() && text(&free.folders[0], "cpu.max").is_none());
}

#[test]
fn version_1_has_a_group_in_the_hierarchy_of_each_controller() {
    let (memory, of_memory) = hierarchy("cgroup", "rw,memory", "");
    let (cpu, of_cpu) = hierarchy("cgroup", "rw,cpu,cpuacct", "");
    let groups = "4:memory:/node\n3:cpu,cpuacct:/node\n0::/\n";
    let groups = ControlGroups::new(groups, &format!("{of_memory}{of_cpu}")).unwrap();
    assert_eq!(groups.describe(), "control groups of version 1 (memory, cpu)");
    let process = groups.attempt("orders", 7).unwrap().process(0, &LIMITS).unwrap();
    assert!(process.folders[0].starts_with(&memory) && process.folders[1].starts_with(&cpu), "{process:?}");
    assert_eq!(text(&process.folders[0], "memory.limit_in_bytes").unwrap(), "1073741824");
    assert_eq!(text(&process.folders[1], "cpu.cfs_quota_us").unwrap(), "150000");
    assert_eq!(text(&process.folders[1], "cpu.cfs_period_us").unwrap(), "100000");
    assert!(text(&process.folders[1], "memory.limit_in_bytes").is_none());
    // Controllers may share a hierarchy.
    let (_both, of_both) = hierarchy("cgroup", "rw,cpu,memory", "");
    let groups = ControlGroups::new("4:cpu,memory:/node\n", &of_both).unwrap();
    let process = groups.attempt("orders", 8).unwrap().process(0, &LIMITS).unwrap();
    assert_eq!(process.folders.len(), 1);
    assert!(text(&process.folders[0], "cpu.cfs_quota_us").is_some());
    let (_memory, of_memory) = hierarchy("cgroup", "rw,memory", "");
    let groups = ControlGroups::new("4:memory:/node\n", &of_memory).unwrap();
    assert_eq!(groups.lack(&LIMITS).unwrap(), "its control groups lack the controllers: cpu");
    assert_eq!(groups.lack(&Limits { millicpus: None, ..LIMITS }), None);
}

#[test]
fn a_host_without_control_groups_and_a_group_without_controllers_say_why() {
    assert_eq!(ControlGroups::new("", "").unwrap_err(), "this host has no control groups");
    let (_folder, mounts) = hierarchy("cgroup2", "rw", "pids\n");
    let why = ControlGroups::new("0::/node\n", &mounts).unwrap_err();
    assert!(why.contains("no controllers of memory and CPU") && why.contains("Delegate=yes"), "{why}");
}

/// What a node in `at` writes to find groups of version 2, if the kernel answers so.
fn writes(
    at: &str,
    controllers: [&str; 2],
    answer: impl Fn(&str, usize) -> io::Result<()>,
) -> (Result<String, String>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join(at);
    std::fs::create_dir_all(&own).unwrap();
    write(own.parent().unwrap().join("cgroup.controllers"), controllers[0]).unwrap();
    write(own.join("cgroup.controllers"), controllers[1]).unwrap();
    let written = RefCell::new(Vec::new());
    let found = delegated(&own, "fluvial-1", &|file, text| {
        let file = file.strip_prefix(folder.path()).unwrap().display().to_string();
        let before = written.borrow().len();
        written.borrow_mut().push(format!("{text} > {file}"));
        answer(&file, before)
    });
    let found = found.map(|(base, _)| base.strip_prefix(folder.path()).unwrap().display().to_string());
    (found, written.into_inner())
}

fn busy() -> io::Result<()> {
    Err(io::ErrorKind::ResourceBusy.into())
}

#[test]
fn a_node_of_version_2_moves_into_a_leaf_if_its_group_holds_no_other_process() {
    let all = "memory cpu";
    // Only the first write fails: the node itself is in the group.
    let (found, written) = writes("a.service/own", [all, all], |_, before| if before == 0 { busy() } else { Ok(()) });
    assert_eq!(found.unwrap(), "a.service/own");
    let control = "+memory +cpu > a.service/own/cgroup.subtree_control";
    assert_eq!(written, [control, "0 > a.service/own/fluvial-1.node/cgroup.procs", control]);
    // Others are there, too: the node goes back.
    let (found, written) =
        writes("a.slice/own", [all, all], |file, _| if file.ends_with("subtree_control") { busy() } else { Ok(()) });
    assert!(found.unwrap_err().contains("holds other processes"));
    assert_eq!(written.last().unwrap(), "0 > a.slice/own/cgroup.procs");
}

#[test]
fn a_node_in_a_group_within_its_unit_uses_that_of_the_unit_but_never_a_slice() {
    let (found, written) = writes("a.service/own", ["memory cpu", ""], |_, _| Ok(()));
    assert_eq!(found.unwrap(), "a.service");
    assert_eq!(written, ["+memory +cpu > a.service/cgroup.subtree_control"]);
    let (found, written) = writes("a.slice/a.service", ["memory cpu", ""], |_, _| Ok(()));
    assert!(found.unwrap_err().contains("no controllers"));
    assert!(written.is_empty(), "{written:?}");
    let refused = || Err(io::ErrorKind::PermissionDenied.into());
    let (found, _) = writes("a.slice/a.service", ["", "memory"], |_, _| refused());
    assert!(found.unwrap_err().contains("is not delegated to this node"));
}

#[test]
fn only_what_a_dead_node_has_left_is_removed() {
    let (folder, mounts) = hierarchy("cgroup", "rw,memory", "");
    let node = folder.path().join("node");
    for name in ["fluvial-1", "fluvial-2/orders.7/0", "fluvial-3.node", "other"] {
        std::fs::create_dir_all(node.join(name)).unwrap();
    }
    let lives = File::open(node.join("fluvial-1")).unwrap();
    flock(&lives, FlockOperation::NonBlockingLockExclusive).unwrap();
    let first = ControlGroups::new("4:memory:/node\n", &mounts).unwrap();
    let second = ControlGroups::new("4:memory:/node\n", &mounts).unwrap();
    for (name, is_there) in [("fluvial-1", true), ("fluvial-2", false), ("fluvial-3.node", false), ("other", true)] {
        assert_eq!(node.join(name).exists(), is_there, "{name}");
    }
    for groups in [first, second] {
        let folder = groups.hierarchies[0].folder.clone();
        assert!(folder.exists());
        drop(groups);
        assert!(!folder.exists());
    }
}
