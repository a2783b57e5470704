//! Detects by the control group whether the kernel killed a process because of its memory.
//!
//! The kernel kills with SIGKILL and does not tell the parent why. The control group counts such kills: version 1 in
//! `memory.oom_control`, version 2 in `memory.events`. The limit may be that of any parent group, as in a container.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The files of one version of control groups.
struct Version {
    /// Counts the kills, in the line that begins with `oom_kill `.
    kills: &'static str,
    limit: &'static str,
    /// The most that was ever used; what is used now where the kernel does not keep that.
    used: [&'static str; 2],
}

const VERSION_1: Version = Version {
    kills: "memory.oom_control",
    limit: "memory.limit_in_bytes",
    used: ["memory.max_usage_in_bytes", "memory.usage_in_bytes"],
};

const VERSION_2: Version =
    Version { kills: "memory.events", limit: "memory.max", used: ["memory.peak", "memory.current"] };

/// A limit at or above this means that there is none: version 1 reports a very large number then.
const NO_LIMIT: u64 = 1 << 60;

/// This process's memory control group, and how many processes the kernel had killed in it when that was asked.
pub(crate) struct Memory(Option<Group>);

struct Group {
    version: &'static Version,
    /// The path at which the hierarchy is mounted, and the path of the group in it.
    mount: PathBuf,
    folder: PathBuf,
    kills: u64,
}

impl Memory {
    /// The group as it is now.
    pub(crate) fn now() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self(Group::find(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo")))
    }

    /// The reason, for people, why a process was killed since, if the kernel killed any process of the group for
    /// memory.
    pub(crate) fn explain(&self) -> Option<String> {
        let group = self.0.as_ref()?;
        (group.count()? > group.kills).then(|| group.describe())
    }
}

impl Group {
    /// Finds the group by the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
    fn find(groups: &str, mounts: &str) -> Option<Self> {
        let mut lines = groups.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            Some((fields.next()?, fields.next()?, fields.next()?))
        });
        let of_version_1 = lines.clone().find(|(_, controllers, _)| controllers.split(',').any(|c| c == "memory"));
        let (version, kind, path) = match of_version_1 {
            Some((_, _, path)) => (&VERSION_1, "cgroup", path),
            None => (
                &VERSION_2,
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
            let has_memory = after.next_back()?.split(',').any(|option| option == "memory");
            if kind == "cgroup" && !has_memory {
                return None;
            }
            let mut before = before.split(' ').skip(3);
            let (root, mount) = (before.next()?, PathBuf::from(before.next()?));
            // In a container the mount may show the container's own group as its root.
            let within = Path::new(path).strip_prefix(root).or_else(|_| Path::new(path).strip_prefix("/")).ok()?;
            let group = [mount.join(within), mount.clone()].into_iter().find(|at| at.join(version.kills).is_file());
            let mut group = Self { version, folder: group?, mount, kills: 0 };
            group.kills = group.count()?;
            Some(group)
        })
    }

    fn count(&self) -> Option<u64> {
        let text = std::fs::read_to_string(self.folder.join(self.version.kills)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }

    /// The tightest limit that holds for the group: where, how much, and how much has been used there.
    fn limit(&self) -> Option<(&Path, u64, Option<u64>)> {
        let number = |at: &Path, file| std::fs::read_to_string(at.join(file)).ok()?.trim().parse::<u64>().ok();
        let inside = self.folder.ancestors().take_while(|at| at.starts_with(&self.mount));
        let limits =
            inside.filter_map(|at| Some((at, number(at, self.version.limit).filter(|limit| *limit < NO_LIMIT)?)));
        let (at, limit) = limits.min_by_key(|(_, limit)| *limit)?;
        Some((at, limit, self.version.used.iter().find_map(|file| number(at, file))))
    }

    fn describe(&self) -> String {
        let Some((at, limit, used)) = self.limit() else {
            return "the kernel killed it because the host had no memory left: give the job fewer workers, a smaller \
                    --in-flight, or a larger host"
                .to_owned();
        };
        let mut said = format!(
            "the kernel killed it for memory: the control group {} has a limit of {}",
            at.display(),
            mebibytes(limit)
        );
        if let Some(used) = used {
            let _ = write!(said, " and has used up to {}", mebibytes(used));
        }
        said + "; raise the limit, or give the job fewer workers or a smaller --in-flight"
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Files as the kernel shows them: a container whose parent has the limit.
    fn files(version: &Version, limits: [&str; 2]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (at, limit) in ["pod", "pod/job"].into_iter().zip(limits) {
            let at = folder.path().join(at);
            std::fs::create_dir_all(&at).unwrap();
            std::fs::write(at.join(version.limit), limit).unwrap();
            std::fs::write(at.join(version.used[1]), "104857600\n").unwrap();
        }
        folder
    }

    fn check(version: &Version, groups: &str, kind: &str, options: &str, limits: [&str; 2], expected: &str) {
        let folder = files(version, limits);
        let kills = folder.path().join("pod/job").join(version.kills);
        std::fs::write(&kills, "low 0\noom 4\noom_kill 2\n").unwrap();
        let mount = folder.path().display();
        let mounts = format!(
            "31 23 0:28 / /proc rw - proc proc rw\n42 31 0:39 / {mount} rw,relatime shared:9 - {kind} {kind} {options}\n"
        );
        let memory = Memory(Some(Group::find(groups, &mounts).unwrap()));
        assert_eq!(memory.explain(), None);
        std::fs::write(&kills, "low 0\noom 5\noom_kill 3\n").unwrap();
        let said = memory.explain().unwrap();
        assert!(said.contains(expected), "{said}");
        assert!(limits[0].len() > 12 || said.contains(&format!("{mount}/pod has")), "{said}");
    }

    #[test]
    fn a_kill_is_explained_with_the_tightest_limit_and_its_use() {
        let both = "9:name=systemd:/\n4:cpu,memory:/pod/job\n0::/\n";
        let bounded = "has a limit of 100 MiB and has used up to 100 MiB";
        check(&VERSION_1, both, "cgroup", "rw,memory", ["104857600\n", "9223372036854771712\n"], bounded);
        check(&VERSION_2, "0::/pod/job\n", "cgroup2", "rw", ["104857600\n", "max\n"], bounded);
        let host = "the host had no memory left";
        check(&VERSION_1, both, "cgroup", "rw,memory", ["9223372036854771712\n", "9223372036854771712\n"], host);
    }

    #[test]
    fn a_machine_without_control_groups_tells_nothing() {
        assert!(Group::find("", "").is_none());
        assert!(Group::find("0::/a\n", "31 23 0:28 / /proc rw - proc proc rw\n").is_none());
    }
}
