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
/// How many processes and threads a process of a job may have together with what it starts: one that starts others without end fills
/// no more of its host.
const MOST_PIDS: u64 = 4096;

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
        let mut why = "this host has no control groups".to_owned();
        for hierarchy in hierarchies {
            if let Some(base) = hierarchy.folder.parent() {
                left_behind::end_all(base, PREFIX, OF_NODE);
            }
            match make_and_lock(&hierarchy.folder) {
                Ok(lock) => {
                    this._locks.push(lock);
                    this.hierarchies.push(hierarchy);
                }
                // In version 1 others may be to be had.
                Err(error) => why = format!("cannot make the control group '{}': {error}", hierarchy.folder.display()),
            }
        }
        if !this.has("memory") && !this.has("cpu") {
            return Err(why);
        }
        if this.version == Version::Two {
            let node = &this.hierarchies[0];
            enable(&node.folder, &node.controllers, &|file, text| write(file, text))
                .map_err(|error| format!("cannot use the control group '{}': {error}", node.folder.display()))?;
        }
        Ok(this)
    }

    fn has(&self, controller: &str) -> bool {
        self.hierarchies.iter().any(|of| of.controllers.contains(&controller))
    }

    /// What of these limits cannot be kept here, because its controller is not to be had.
    pub(crate) fn lack(&self, limits: &Limits) -> Option<String> {
        let wanted = [("memory", limits.memory_bytes.is_some()), ("cpu", limits.millicpus.is_some())];
        let missing: Vec<_> =
            wanted.iter().filter(|(name, wanted)| *wanted && !self.has(name)).map(|(name, _)| *name).collect();
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
        self.group(&format!("{job}.{attempt}"))
    }

    /// The group of the process of one check.
    pub(crate) fn check(&self) -> io::Result<AttemptGroup> {
        // No job has a name that begins so.
        self.group(&format!(".check.{:016x}", rand::random::<u64>()))
    }

    fn group(&self, name: &str) -> io::Result<AttemptGroup> {
        let mut group = AttemptGroup { version: self.version, hierarchies: Vec::new() };
        for of_node in &self.hierarchies {
            let hierarchy = Hierarchy { folder: of_node.folder.join(name), ..of_node.clone() };
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

impl ControlGroups {
    /// Ends what is left in the groups, and removes them.
    pub(crate) fn end(&self) {
        self.hierarchies.iter().for_each(|of| left_behind::end(&of.folder));
    }
}

impl Drop for ControlGroups {
    fn drop(&mut self) {
        self.end();
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
    let pids = has("pids").then(|| ("pids.max", MOST_PIDS.to_string()));
    let files = match version {
        Version::One => [
            memory.map(|bytes| ("memory.limit_in_bytes", bytes.to_string())),
            quota.map(|_| ("cpu.cfs_period_us", PERIOD_US.to_string())),
            quota.map(|quota| ("cpu.cfs_quota_us", quota.to_string())),
            pids,
        ],
        Version::Two => [
            memory.map(|bytes| ("memory.max", bytes.to_string())),
            quota.map(|quota| ("cpu.max", format!("{quota} {PERIOD_US}"))),
            pids,
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
mod tests;
