//! The control groups of the processes that a node starts.
//!
//! ```text
//!   group of the node ─┬─ fluvial-{random}.node             the node itself, in version 2: there only leaves hold processes
//!                      └─ fluvial-{random}                  locked by the node as long as it lives
//!                          └─ {job}.{attempt}
//!                              ├─ 0                         process 0, and the programs that it has started
//!                              └─ 1
//! ```
//!
//! In version 1 the same folders, except that of the node itself, are in the hierarchy of each controller.
//!
//! **Guarantees** that what is left of an attempt is killed when it ends, and what is left of a node when the next one starts
//! in the same group. The lock of a folder says that its node lives, so a node never touches the folder of another one that runs.

use std::fs::{File, create_dir, read_to_string, remove_dir, write};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::Limits;
use super::hierarchy::{Place, Version};
use super::left_behind;

/// The controllers that a node uses, where they are to be had. That of the number of processes comes first: by it, no process begins
/// while others are killed.
const CONTROLLERS: [&str; 3] = ["pids", "memory", "cpu"];
/// How the folders of nodes begin.
const PREFIX: &str = "fluvial-";
/// How the folder of a node itself ends.
const OF_NODE: &str = ".node";
/// The period in which a process may use its time, in microseconds: the kernel's default.
const PERIOD_US: u64 = 100_000;

/// The control groups of one node. Dropping it ends the processes that are left in them, and removes them.
#[derive(Debug)]
pub(crate) struct ControlGroups {
    version: Version,
    hierarchies: Vec<Hierarchy>,
    /// One for the folder of this node in each hierarchy.
    _locks: Vec<File>,
}

/// A hierarchy, and the folder of this node in it.
#[derive(Clone, Debug)]
struct Hierarchy {
    controllers: Vec<&'static str>,
    mount: PathBuf,
    folder: PathBuf,
}

/// How a file of the kernel is written.
type Write<'a> = &'a dyn Fn(&Path, &str) -> io::Result<()>;

impl ControlGroups {
    /// Makes the groups of a node, whose `/proc/self/cgroup` and `/proc/self/mountinfo` have these texts, and ends what nodes have
    /// left behind that were killed.
    ///
    /// # Errors
    /// One line that says why there are none to be had.
    pub(crate) fn new(groups: &str, mounts: &str) -> Result<Self, String> {
        let has = |_| "cgroup.procs";
        let found = CONTROLLERS.map(|controller| (controller, Place::find(groups, mounts, controller, has)));
        // A controller may be without a hierarchy of version 1 where others have one: version 2 has it then, and is not used.
        let first = found.iter().find_map(|(_, place)| place.clone().filter(|place| place.version == Version::One));
        let first = first.or_else(|| found.iter().find_map(|(_, place)| place.clone()));
        let Some(first) = first else { return Err("this host has no control groups".to_owned()) };
        let name = format!("{PREFIX}{:016x}", rand::random::<u64>());
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        match first.version {
            Version::One => {
                let found = found.into_iter().filter_map(|(controller, place)| Some((controller, place?)));
                for (controller, place) in found.filter(|(_, place)| place.version == Version::One) {
                    let folder = place.folder.join(&name);
                    match hierarchies.iter_mut().find(|hierarchy| hierarchy.folder == folder) {
                        Some(shared) => shared.controllers.push(controller),
                        None => {
                            hierarchies.push(Hierarchy { controllers: vec![controller], mount: place.mount, folder });
                        }
                    }
                }
            }
            Version::Two => {
                let (base, controllers) = delegated(&first.folder, &name, &|file, text| write(file, text))?;
                hierarchies.push(Hierarchy { controllers, mount: first.mount, folder: base.join(&name) });
            }
        }
        let mut this = Self { version: first.version, hierarchies: Vec::new(), _locks: Vec::new() };
        for hierarchy in hierarchies {
            let failed = |error| format!("cannot make the control group '{}': {error}", hierarchy.folder.display());
            if let Some(base) = hierarchy.folder.parent() {
                left_behind::end_all(base, PREFIX, OF_NODE);
            }
            this._locks.push(make_and_lock(&hierarchy.folder).map_err(failed)?);
            this.hierarchies.push(hierarchy);
        }
        if this.version == Version::Two {
            let node = &this.hierarchies[0];
            enable(&node.folder, &node.controllers, &|file, text| write(file, text))
                .map_err(|error| format!("cannot use the control group '{}': {error}", node.folder.display()))?;
        }
        Ok(this)
    }

    /// What of these limits cannot be kept here, because its controller is not to be had.
    pub(crate) fn lack(&self, limits: &Limits) -> Option<String> {
        let has = |controller| self.hierarchies.iter().any(|of| of.controllers.contains(&controller));
        let wanted = [("memory", limits.memory_bytes.is_some()), ("cpu", limits.millicpus.is_some())];
        let missing: Vec<_> =
            wanted.iter().filter(|(name, wanted)| *wanted && !has(name)).map(|(name, _)| *name).collect();
        (!missing.is_empty()).then(|| format!("its control groups lack the controllers: {}", missing.join(", ")))
    }

    /// Their version, and the controllers that they have.
    pub(crate) fn describe(&self) -> String {
        let version = if self.version == Version::One { 1 } else { 2 };
        let controllers: Vec<_> = self.hierarchies.iter().flat_map(|of| of.controllers.iter().copied()).collect();
        format!("control groups of version {version} ({})", controllers.join(", "))
    }

    /// The group of the processes of one attempt.
    pub(crate) fn attempt(&self, job: &str, attempt: u64) -> io::Result<AttemptGroup> {
        let name = format!("{job}.{attempt}");
        let mut group = AttemptGroup { version: self.version, hierarchies: Vec::new() };
        for of_node in &self.hierarchies {
            let hierarchy = Hierarchy { folder: of_node.folder.join(&name), ..of_node.clone() };
            // Pushed before, so that it is removed if the next fails.
            create_dir(&hierarchy.folder).map_err(|error| about(&hierarchy.folder, &error))?;
            group.hierarchies.push(hierarchy);
        }
        if self.version == Version::Two {
            let of = &group.hierarchies[0];
            enable(&of.folder, &of.controllers, &|file, text| write(file, text))?;
        }
        Ok(group)
    }
}

impl Drop for ControlGroups {
    fn drop(&mut self) {
        self.hierarchies.iter().for_each(|of| left_behind::end(&of.folder));
    }
}

/// The group of one attempt. Dropping it ends what is left in it, and removes it.
#[derive(Debug)]
pub(crate) struct AttemptGroup {
    version: Version,
    hierarchies: Vec<Hierarchy>,
}

impl AttemptGroup {
    /// The group of one process, with its limits.
    pub(crate) fn process(&self, index: u32, limits: &Limits) -> io::Result<ProcessGroup> {
        let mut folders = Vec::new();
        for of in &self.hierarchies {
            let folder = of.folder.join(index.to_string());
            create_dir(&folder).map_err(|error| about(&folder, &error))?;
            for (file, text) in files(self.version, &of.controllers, limits) {
                write(folder.join(file), text).map_err(|error| about(&folder.join(file), &error))?;
            }
            // Without accounting of swap there is no such file, and it is not limited.
            let swap = swap(self.version, limits).filter(|(file, _)| folder.join(file).exists());
            if let Some((file, text)) = swap.filter(|_| of.controllers.contains(&"memory")) {
                write(folder.join(file), text).map_err(|error| about(&folder.join(file), &error))?;
            }
            folders.push(folder);
        }
        let memory = self.hierarchies.iter().zip(&folders).find(|(of, _)| of.controllers.contains(&"memory"));
        let memory =
            memory.map(|(of, folder)| Place { version: self.version, mount: of.mount.clone(), folder: folder.clone() });
        Ok(ProcessGroup { folders, memory })
    }
}

impl Drop for AttemptGroup {
    fn drop(&mut self) {
        self.hierarchies.iter().for_each(|of| left_behind::end(&of.folder));
    }
}

/// The group of one process, and of what it starts. It is removed with that of its attempt.
#[derive(Debug)]
pub(crate) struct ProcessGroup {
    folders: Vec<PathBuf>,
    /// Its group of memory.
    pub(crate) memory: Option<Place>,
}

impl ProcessGroup {
    /// Moves a process into the group.
    pub(crate) fn put(&self, pid: u32) -> io::Result<()> {
        for folder in &self.folders {
            let file = folder.join("cgroup.procs");
            write(&file, pid.to_string()).map_err(|error| about(&file, &error))?;
        }
        Ok(())
    }

    /// Kills what is left in the group, and waits until it has ended.
    pub(crate) fn kill(&self) {
        // Every process is in all of them.
        if let Some(folder) = self.folders.first() {
            left_behind::kill(folder);
        }
    }
}

/// The files that hold these limits.
fn files(version: Version, controllers: &[&'static str], limits: &Limits) -> Vec<(&'static str, String)> {
    let has = |controller| controllers.contains(&controller);
    let memory = limits.memory_bytes.filter(|_| has("memory"));
    let quota = limits.millicpus.filter(|_| has("cpu")).map(|cpus| u64::from(cpus) * PERIOD_US / 1000);
    let files = match version {
        Version::One => [
            memory.map(|bytes| ("memory.limit_in_bytes", bytes.to_string())),
            quota.map(|_| ("cpu.cfs_period_us", PERIOD_US.to_string())),
            quota.map(|quota| ("cpu.cfs_quota_us", quota.to_string())),
        ],
        Version::Two => [
            memory.map(|bytes| ("memory.max", bytes.to_string())),
            quota.map(|quota| ("cpu.max", format!("{quota} {PERIOD_US}"))),
            None,
        ],
    };
    files.into_iter().flatten().collect()
}

/// The file by which a process with a limit on its memory gets no swap besides. In version 1 it counts both together.
fn swap(version: Version, limits: &Limits) -> Option<(&'static str, String)> {
    let bytes = limits.memory_bytes?;
    Some(match version {
        Version::One => ("memory.memsw.limit_in_bytes", bytes.to_string()),
        Version::Two => ("memory.swap.max", "0".to_owned()),
    })
}

/// Makes the folder of a node and locks it. A node that starts at this moment may take it for one that was left behind before
/// it is locked; it is made again then.
fn make_and_lock(folder: &Path) -> io::Result<File> {
    loop {
        create_dir(folder)?;
        let locked = File::open(folder).and_then(|opened| {
            flock(&opened, FlockOperation::LockExclusive)?;
            Ok(opened)
        });
        match locked {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(_) if !folder.exists() => {}
            locked => return locked,
        }
    }
}

/// The group of version 2 in which a node can make others, for a node in `own`, and the controllers that they have.
fn delegated(own: &Path, name: &str, write: Write<'_>) -> Result<(PathBuf, Vec<&'static str>), String> {
    // With systemd's DelegateSubgroup= the node is in a group within that of its unit, which is delegated as a whole.
    let of_unit = own
        .parent()
        .filter(|parent| parent.extension().is_some_and(|extension| extension == "service" || extension == "scope"));
    let mut why = String::new();
    for base in std::iter::once(own).chain(of_unit) {
        match enabled_in(base, base == own, name, write) {
            Ok(controllers) => return Ok((base.to_owned(), controllers)),
            Err(error) if why.is_empty() => why = format!("the control group '{}' {error}", base.display()),
            Err(_) => {}
        }
    }
    Err(why)
}

fn enabled_in(base: &Path, is_own: bool, name: &str, write: Write<'_>) -> Result<Vec<&'static str>, String> {
    let there = read_to_string(base.join("cgroup.controllers")).map_err(|error| format!("cannot be read: {error}"))?;
    let there: Vec<_> =
        CONTROLLERS.into_iter().filter(|wanted| there.split_whitespace().any(|c| c == *wanted)).collect();
    if there.iter().all(|controller| *controller == "pids") {
        let cure = "start the node by systemd with Delegate=yes, or in a container with a control group of its own";
        return Err(format!("has no controllers of memory and CPU: {cure}"));
    }
    match enable(base, &there, write) {
        Ok(()) => return Ok(there),
        // Only groups without processes may have controllers below them.
        Err(error) if is_own && error.kind() == io::ErrorKind::ResourceBusy => {}
        Err(error) => return Err(format!("is not delegated to this node: {error}")),
    }
    let leaf = base.join(format!("{name}{OF_NODE}"));
    let moved = create_dir(&leaf).and_then(|()| write(&leaf.join("cgroup.procs"), "0"));
    if let Err(error) = moved.and_then(|()| enable(base, &there, write)) {
        // The node goes back to where it was. If that fails it stays in the leaf, which does no harm.
        let _ = write(&base.join("cgroup.procs"), "0").and_then(|()| remove_dir(&leaf));
        let cure = "start the node by systemd with Delegate=yes, or in a container of its own";
        return Err(format!("holds other processes besides this node ({error}): {cure}"));
    }
    Ok(there)
}

/// Lets the groups below this one have controllers.
fn enable(folder: &Path, controllers: &[&str], write: Write<'_>) -> io::Result<()> {
    let text: Vec<_> = controllers.iter().map(|controller| format!("+{controller}")).collect();
    write(&folder.join("cgroup.subtree_control"), &text.join(" "))
}

fn about(file: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("'{}': {error}", file.display()))
}

#[cfg(test)]
mod tests {
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
        let (found, written) =
            writes("a.service/own", [all, all], |_, before| if before == 0 { busy() } else { Ok(()) });
        assert_eq!(found.unwrap(), "a.service/own");
        let control = "+memory +cpu > a.service/own/cgroup.subtree_control";
        assert_eq!(written, [control, "0 > a.service/own/fluvial-1.node/cgroup.procs", control]);
        // Others are there, too: the node goes back.
        let (found, written) =
            writes(
                "a.slice/own",
                [all, all],
                |file, _| {
                    if file.ends_with("subtree_control") { busy() } else { Ok(()) }
                },
            );
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
        for (name, is_there) in [("fluvial-1", true), ("fluvial-2", false), ("fluvial-3.node", false), ("other", true)]
        {
            assert_eq!(node.join(name).exists(), is_there, "{name}");
        }
        for groups in [first, second] {
            let folder = groups.hierarchies[0].folder.clone();
            assert!(folder.exists());
            drop(groups);
            assert!(!folder.exists());
        }
    }
}
