//! Ends the processes that are left in control groups, and removes the groups.

use std::fs::{File, read_dir, read_to_string, remove_dir, write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long processes may take to end that the kernel was asked to kill.
const KILLED_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks whether they have ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Ends what nodes have left behind in `base` that do not live any more. Their folders begin with `prefix`; the folder of a
/// node itself, in version 2, ends with `of_node`.
pub(super) fn end_all(base: &Path, prefix: &str, of_node: &str) {
    for folder in children(base) {
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        if !name.starts_with(prefix) {
            continue;
        }
        if name.ends_with(of_node) {
            // It cannot be removed as long as the node is in it.
            let _ = remove_dir(&folder);
            continue;
        }
        // Whoever gets the lock of a folder finds it without its node, and keeps others from removing it as well.
        let Ok(opened) = File::open(&folder) else { continue };
        let lock = || flock(&opened, FlockOperation::NonBlockingLockExclusive);
        let mut locked = lock();
        if locked.is_err() && is_locked_from_within(&folder, &opened) {
            // A process that waits for the lock of its node gets it when the node is killed.
            kill(&folder);
            locked = lock();
        }
        if locked.is_ok() {
            end(&folder);
            tracing::info!(group = %folder.display(), "removed the control group of a node that was killed");
        }
    }
}

/// Whether the lock of a node's folder is held by a process in the group, which is none of a node: a node that lives holds it itself, and
/// is in another group.
fn is_locked_from_within(folder: &Path, opened: &File) -> bool {
    let Ok(metadata) = opened.metadata() else { return false };
    let locks = read_to_string("/proc/locks").unwrap_or_default();
    let holders = holders(&locks, metadata.ino());
    let within = processes(folder);
    !holders.is_empty() && holders.iter().all(|holder| within.contains(holder))
}

/// The processes that hold the lock of a file, by the text of `/proc/locks`: `1: FLOCK  ADVISORY  WRITE 123 00:1b:456 0 EOF`. Others of
/// the same number on another device count, too: then the lock is left alone.
fn holders(locks: &str, inode: u64) -> Vec<Pid> {
    let holder = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // Who waits for a lock has an arrow before its kind.
        let [_, "FLOCK", _, _, pid, file, ..] = fields[..] else { return None };
        let of_file = file.rsplit(':').next()?.parse::<u64>().ok()?;
        (of_file == inode).then(|| Pid::from_raw(pid.parse().ok()?)).flatten()
    };
    locks.lines().filter_map(holder).collect()
}

/// Ends the processes of a group and of those below it, and removes them.
pub(super) fn end(folder: &Path) {
    kill(folder);
    if let Err(error) = remove(folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, group = %folder.display(), "cannot remove a control group");
    }
}

/// Kills the processes of a group and of those below it, and waits until they have ended.
pub(super) fn kill(folder: &Path) {
    let until = Instant::now() + KILLED_WITHIN;
    let most = folder.join("pids.max");
    if most.exists() {
        // None begins while others are killed. Without this, the last ones to begin are killed in the next round.
        let _ = write(most, "0");
    }
    while !processes(folder).is_empty() {
        // Version 2, since Linux 5.14.
        let at_once = folder.join("cgroup.kill");
        if !at_once.exists() || write(at_once, "1").is_err() {
            // A process that was opened while it is in the group is the one that is in the group.
            let opened: Vec<_> = processes(folder)
                .into_iter()
                .filter_map(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)))
                .collect();
            let still = processes(folder);
            for (_, process) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
                // It may have ended meanwhile.
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
        }
        if Instant::now() >= until {
            tracing::warn!(group = %folder.display(), "processes of a control group do not end although they were killed");
            return;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The processes of a group and of those below it.
fn processes(folder: &Path) -> Vec<Pid> {
    let own = read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let own = own.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
    own.chain(children(folder).iter().flat_map(|child| processes(child))).collect()
}

/// Removes a group and those below it. The kernel needs a moment to let a group go whose processes have just ended.
fn remove(folder: &Path) -> std::io::Result<()> {
    for child in children(folder) {
        remove(&child)?;
    }
    let until = Instant::now() + KILLED_WITHIN;
    loop {
        match remove_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy && Instant::now() < until => {
                std::thread::sleep(LOOK_EVERY);
            }
            removed => return removed,
        }
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_lock_is_told_from_who_waits_for_it_and_from_who_holds_another() {
        let locks = "1: FLOCK  ADVISORY  WRITE 123 00:1b:456 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 124 00:1b:456 0 EOF\n\
                     2: POSIX  ADVISORY  WRITE 125 00:1b:456 0 EOF\n3: FLOCK  ADVISORY  READ 126 00:1b:4567 0 EOF\n";
        assert_eq!(holders(locks, 456), [Pid::from_raw(123)].into_iter().flatten().collect::<Vec<_>>());
        assert!(holders(locks, 7).is_empty() && holders("", 456).is_empty());
    }
}
