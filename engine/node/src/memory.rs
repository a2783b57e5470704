//! Detects by the control group whether the kernel killed a process because of its memory.
//!
//! The kernel kills with SIGKILL and does not tell the parent why. The control group counts such kills: version 1 in
//! `memory.oom_control`, version 2 in `memory.events`. The limit may be that of any parent group, as in a container.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::isolation::{Bytes, Place, Version, of_proc};

/// The files of one version of control groups.
struct Files {
    /// Counts the kills, in the line that begins with `oom_kill `.
    kills: &'static str,
    limit: &'static str,
    /// The most that was ever used; what is used now where the kernel does not keep that.
    used: [&'static str; 2],
}

const VERSION_1: Files = Files {
    kills: "memory.oom_control",
    limit: "memory.limit_in_bytes",
    used: ["memory.max_usage_in_bytes", "memory.usage_in_bytes"],
};

const VERSION_2: Files = Files { kills: "memory.events", limit: "memory.max", used: ["memory.peak", "memory.current"] };

fn files(version: Version) -> &'static Files {
    match version {
        Version::One => &VERSION_1,
        Version::Two => &VERSION_2,
    }
}

/// A limit at or above this means that there is none: version 1 reports a very large number then.
const NO_LIMIT: u64 = 1 << 60;

/// A memory control group, and how many processes the kernel had killed in it when that was asked.
pub(crate) struct Memory(Option<Group>);

struct Group {
    version: &'static Files,
    /// The path at which the hierarchy is mounted, and the path of the group in it.
    mount: PathBuf,
    folder: PathBuf,
    kills: u64,
    /// The limit that a user has set for a process, whose own group this is.
    own_limit: Option<u64>,
}

impl Memory {
    /// This process's group as it is now.
    pub(crate) fn now() -> Self {
        Self(Group::find(&of_proc("cgroup"), &of_proc("mountinfo")))
    }

    /// The group of one process of a job as it is now, with the limit that its user has set.
    pub(crate) fn of(place: Place, own_limit: Option<u64>) -> Self {
        Self(Group::at(place).map(|group| Group { own_limit, ..group }))
    }

    /// The reason, for people, why a process was killed since, if the kernel killed any process of the group for
    /// memory.
    pub(crate) fn explain(&self) -> Option<String> {
        let group = self.0.as_ref()?;
        (group.count()? > group.kills).then(|| group.describe())
    }
}

impl Group {
    /// Finds the group of a process by the texts of its `/proc/self/cgroup` and `/proc/self/mountinfo`.
    fn find(groups: &str, mounts: &str) -> Option<Self> {
        Self::at(Place::find(groups, mounts, "memory", |version| files(version).kills)?)
    }

    fn at(Place { version, mount, folder }: Place) -> Option<Self> {
        let mut group = Self { version: files(version), folder, mount, kills: 0, own_limit: None };
        group.kills = group.count()?;
        Some(group)
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

    /// The limit of its user, if that is what the process has reached.
    fn own_limit(&self) -> Option<u64> {
        let (at, limit, used) = self.limit()?;
        // The kernel counts in steps of some pages.
        let reached = used.is_none_or(|used| used >= limit - limit / 64);
        self.own_limit.filter(|_| at == self.folder && reached)
    }

    fn describe(&self) -> String {
        if let Some(limit) = self.own_limit() {
            return format!(
                "killed: more than its limit of {}; raise the limit by `fluvial rescale --memory`, or give the job fewer \
                 workers or a smaller --in-flight",
                Bytes(limit)
            );
        }
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
    fn folder_with(version: &Files, limits: [&str; 2]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (at, limit) in ["pod", "pod/job"].into_iter().zip(limits) {
            let at = folder.path().join(at);
            std::fs::create_dir_all(&at).unwrap();
            std::fs::write(at.join(version.limit), limit).unwrap();
            std::fs::write(at.join(version.used[1]), "104857600\n").unwrap();
        }
        folder
    }

    fn check(version: &Files, groups: &str, kind: &str, options: &str, limits: [&str; 2], expected: &str) {
        let folder = folder_with(version, limits);
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
    fn a_process_that_has_reached_the_limit_of_its_user_is_told_so() {
        for (version, of, own, parents) in [
            (Version::One, &VERSION_1, "104857600\n", "9223372036854771712\n"),
            (Version::Two, &VERSION_2, "104857600\n", "max\n"),
        ] {
            let folder = folder_with(of, [parents, own]);
            let at = folder.path().join("pod/job");
            let place = Place { version, mount: folder.path().to_owned(), folder: at.clone() };
            let kill = |count: u32| std::fs::write(at.join(of.kills), format!("oom_kill {count}\n")).unwrap();
            kill(0);
            let memory = Memory::of(place.clone(), Some(100 << 20));
            assert_eq!(memory.explain(), None);
            kill(1);
            let said = memory.explain().unwrap();
            assert!(said.starts_with("killed: more than its limit of 100 MiB;"), "{said}");
            // The host had no memory left long before that.
            std::fs::write(at.join(of.used[1]), "5000\n").unwrap();
            let said = memory.explain().unwrap();
            assert!(said.contains("has a limit of 100 MiB and has used up to 0 MiB"), "{said}");
            // A parent has less.
            std::fs::write(folder.path().join("pod").join(of.limit), "50000000\n").unwrap();
            let said = memory.explain().unwrap();
            assert!(said.contains("pod has a limit of 47 MiB"), "{said}");
        }
    }

    #[test]
    fn a_machine_without_control_groups_tells_nothing() {
        assert!(Group::find("", "").is_none());
        assert!(Group::find("0::/a\n", "31 23 0:28 / /proc rw - proc proc rw\n").is_none());
    }
}
