//! Where this process is in the control groups of its host.
//!
//! In version 1 each controller has a hierarchy of its own, or shares one with others; in version 2 there is one for all.

use std::path::{Path, PathBuf};

/// The version of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// Each controller has a hierarchy.
    One,
    /// All controllers share the only hierarchy.
    Two,
}

/// A control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) version: Version,
    /// The path at which the hierarchy is mounted.
    pub(crate) mount: PathBuf,
    /// The folder of the group.
    pub(crate) folder: PathBuf,
}

/// The text of a file of `/proc`; empty if it cannot be read.
pub(crate) fn of_proc(name: &str) -> String {
    std::fs::read_to_string(Path::new("/proc/self").join(name)).unwrap_or_default()
}

impl Place {
    /// The group of a process for a controller, by the texts of its `/proc/self/cgroup` and `/proc/self/mountinfo`. `has` says by
    /// version which file a folder has if it is that group: in a container the mount may show the container's own group as its
    /// root, under another path.
    pub(crate) fn find(
        groups: &str,
        mounts: &str,
        controller: &str,
        has: impl Fn(Version) -> &'static str,
    ) -> Option<Self> {
        let mut lines = groups.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            Some((fields.next()?, fields.next()?, fields.next()?))
        });
        let of_version_1 = lines.clone().find(|(_, controllers, _)| controllers.split(',').any(|c| c == controller));
        let (version, kind, path) = match of_version_1 {
            Some((_, _, path)) => (Version::One, "cgroup", path),
            None => (
                Version::Two,
                "cgroup2",
                lines.find(|(number, controllers, _)| *number == "0" && controllers.is_empty())?.2,
            ),
        };
        mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut after = after.split(' ');
            if after.next()? != kind {
                return None;
            }
            let has_controller = after.next_back()?.split(',').any(|option| option == controller);
            if version == Version::One && !has_controller {
                return None;
            }
            let mut before = before.split(' ').skip(3);
            let (root, mount) = (before.next()?, PathBuf::from(before.next()?));
            let within = Path::new(path).strip_prefix(root).or_else(|_| Path::new(path).strip_prefix("/")).ok()?;
            let folder = [mount.join(within), mount.clone()].into_iter().find(|at| at.join(has(version)).is_file())?;
            Some(Self { version, mount, folder })
        })
    }
}
