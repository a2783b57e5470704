//! What the kernel says of processes, in `/proc`.

use std::fs;
use std::time::Duration;

/// In what the kernel counts CPU time: it is so on every Linux.
const TICKS_A_SECOND: u32 = 100;

/// The fields of `/proc/PID/stat` after the name, which may hold anything up to the last parenthesis: the first is the
/// third of proc(5). `None` if there is no such process.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// Whether a process is there, and is no zombie.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z")
}

/// The processes that a process has started and that are there, zombies included, by their ids.
#[must_use]
pub fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut children: Vec<_> =
        pids.filter(|pid| stat(*pid).is_some_and(|fields| fields[1] == parent.to_string())).collect();
    children.sort_unstable();
    children
}

/// The CPU time of a process so far.
#[must_use]
pub fn cpu_of(pid: u32) -> Option<Duration> {
    let fields = stat(pid)?;
    let ticks: u64 = fields.get(11..13)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Duration::from_secs_f64(ticks as f64 / f64::from(TICKS_A_SECOND)))
}

/// The resident memory of a process, in bytes.
#[must_use]
pub fn resident_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
}
