//! What a job takes from its host and what it does where the host refuses: a log that nobody reads, memory, open files.
#![allow(clippy::unwrap_used)]

use std::fs::{File, OpenOptions, create_dir, read_to_string, remove_dir, write};
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fluvial_tests::client::{Message, unique};
use fluvial_tests::stage::{MOST, Stage, Started};
use fluvial_tests::subject::Subject;

/// How long a stop may take.
const SOON: Duration = Duration::from_secs(30);

fn stage(launcher: &[&str]) -> Stage {
    Stage::new(Subject::Orders, 2).unwrap().with_launcher(launcher.iter().copied())
}

/// Lets the job commit what comes now.
fn commits(stage: &Stage, job: &Started, numbers: std::ops::Range<u64>) {
    stage.feed(numbers).unwrap();
    stage.wait_until_caught_up(job).unwrap();
}

#[test]
fn a_job_whose_log_cannot_be_written_goes_on_without_it() {
    // Nobody reads it from the first line on; there is no stdout at all; the disk is full.
    for redirection in ["2> >(head -n 1 > /dev/null)", ">&- 2>&-", "> /dev/full 2> /dev/full"] {
        let log = format!("export RUST_LOG=trace; exec \"$@\" {redirection}");
        let stage = stage(&["bash", "-c", &log, "bash"]);
        let job = stage.start("--processes 2 --workers 4").unwrap();
        commits(&stage, &job, 0..100);
        commits(&stage, &job, 100..200);
        let ended = job.terminate(SOON).unwrap();
        assert_eq!(ended.code, Some(0), "{redirection}: {}", ended.said);
    }
}

#[test]
fn a_log_that_works_again_says_how_much_of_it_was_lost() {
    let stage = stage(&[]);
    // A pipe with a name, which readers may leave and come back to.
    let pipe = stage.folder().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let log = format!("export RUST_LOG=info,fluvial::stages=trace; exec \"$@\" 2> {}", pipe.display());
    let stage = stage.with_launcher(["bash", "-c", &log, "bash"]);
    let reader = read(&pipe);
    let job = stage.start("").unwrap();
    let mut lines = BufReader::new(reader).lines();
    assert!(lines.any(|line| line.unwrap().contains("the job is open")));
    commits(&stage, &job, 0..100);
    drop(lines);
    commits(&stage, &job, 100..200);
    commits(&stage, &job, 200..300);
    let again = read(&pipe);
    stage.feed(300..310).unwrap();
    let said = BufReader::new(again).lines().map(Result::unwrap).find(|line| line.contains("are lost")).unwrap();
    let count: u64 = said.split("lines=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(count > 10 && said.contains("Broken pipe"), "{said}");
    job.job().kill_all().unwrap();
}

/// Opens a pipe to read from it. For writing as well: so it does not wait for whoever writes, nor end before that one is
/// there.
fn read(pipe: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(pipe).unwrap()
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let stage = stage(&["bash", "-c", "ulimit -Sn 64; ulimit -Hn 5000; exec \"$@\"", "bash"]);
    let job = stage.start("--workers 8").unwrap();
    commits(&stage, &job, 0..100);
    for pid in job.job().peers() {
        let limits = read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(files.split_whitespace().nth(3), Some("5000"), "{files}");
    }
    assert_eq!(job.terminate(SOON).unwrap().code, Some(0));
}

#[test]
fn a_limit_of_open_files_that_is_too_low_is_named_at_once() {
    let stage = stage(&["bash", "-c", "ulimit -n 40; exec \"$@\"", "bash"]);
    let ended = stage.start("--workers 4").unwrap().finish(MOST).unwrap();
    ended.failed_with(2, &["may have 40 files open", "ulimit -n"]).unwrap();
    assert!(ended.took < Duration::from_secs(30), "{:?}", ended.took);
}

/// What a control group of the test's own limits, and by which files of the two versions.
struct Limit {
    controller: &'static str,
    first: (&'static str, &'static str),
    second: (&'static str, &'static str),
}

/// A memory of 300 MiB.
const MEMORY: Limit =
    Limit { controller: "memory", first: ("memory.limit_in_bytes", "314572800"), second: ("memory.max", "314572800") };
/// The time of one core.
const ONE_CORE: Limit =
    Limit { controller: "cpu", first: ("cpu.cfs_quota_us", "100000"), second: ("cpu.max", "100000 100000") };

/// A control group of the test's own, with a limit.
struct Group(PathBuf);

impl Group {
    /// `None` where this machine has no such controller in which this user may make one.
    ///
    /// # Panics
    /// For root, where such a controller is mounted writable: nothing is missing then.
    fn new(limit: &Limit) -> Option<Self> {
        controllers(limit).into_iter().find_map(|(mount, (file, value))| match Self::make(&mount, file, value) {
            Ok(group) => Some(group),
            Err(error) if rustix::process::geteuid().is_root() => {
                panic!("root cannot make a control group with a limit in {}: {error}", mount.display())
            }
            Err(_) => None,
        })
    }

    fn make(mount: &Path, file: &str, limit: &str) -> std::io::Result<Self> {
        let group = Self(mount.join(unique("fluvial-test")));
        create_dir(&group.0)?;
        // A group that gets no limit is dropped, and with it removed.
        write(group.0.join(file), limit)?;
        Ok(group)
    }
}

/// Where the kernel's control groups are mounted writable whose children can have such a limit, and the file and the value of
/// the limit.
fn controllers(limit: &Limit) -> Vec<(PathBuf, (&'static str, &'static str))> {
    let has = |list: &str, wanted: &str| list.split([',', ' ', '\n']).any(|word| word == wanted);
    let mounts = read_to_string("/proc/self/mountinfo").unwrap();
    let of_line = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let (mount, options) = (before.split(' ').nth(4)?, before.split(' ').nth(5)?);
        let (kind, of_all) = (after.split(' ').next()?, after.split(' ').next_back()?);
        if !has(options, "rw") || !has(of_all, "rw") {
            return None;
        }
        let mount = PathBuf::from(mount);
        match kind {
            "cgroup" if has(of_all, limit.controller) => Some((mount, limit.first)),
            "cgroup2" => {
                let controllers = read_to_string(mount.join("cgroup.subtree_control")).ok()?;
                has(&controllers, limit.controller).then_some((mount, limit.second))
            }
            _ => None,
        }
    };
    mounts.lines().filter_map(of_line).collect()
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = remove_dir(&self.0);
    }
}

#[test]
fn a_process_that_the_kernel_killed_for_memory_is_said_to_be() {
    // Where none can be made, the parser's own test has to do, which reads such files.
    let Some(group) = Group::new(&MEMORY) else {
        // Straight to the stream: what a test prints that passes is shown to nobody.
        let why =
            "a process that the kernel killed for memory is not shown: no control group with a limit can be made here";
        writeln!(std::io::stderr(), "\nSKIPPED: {why} (as root, with the memory controller mounted writable)").unwrap();
        return;
    };
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.0.display());
    let stage = stage(&["bash", "-c", &enter, "bash"]).with_program(env!("CARGO_BIN_EXE_faulty"));
    let job = stage.start("--wrong hoards --no-restart").unwrap();
    let writer = stage.endpoint().writer(&[]).unwrap();
    let order = br#"{"order_id":7,"quantity":1,"price_cents":0,"at":0}"#;
    writer.send(&Message { topic: &stage.input(), key: Some(b"7"), value: Some(order), ..Message::default() }).unwrap();
    writer.flush().unwrap();
    let ended = job.finish(MOST).unwrap();
    drop(job);
    ended.failed_with(4, &["signal: 9", "killed it for memory", "a limit of 300 MiB", "has used up to"]).unwrap();
}

#[test]
fn a_job_that_uses_all_slots_has_as_many_workers_as_it_may_use_cores() {
    let workers = |stage: &Stage, options: &str| {
        let said = stage.complete(&format!("--stop-at-end --workers auto {options}")).unwrap().said;
        let open = said.lines().find(|line| line.contains("the job is open")).unwrap().to_owned();
        let workers = open.split_whitespace().find_map(|word| word.strip_prefix("workers=")).unwrap();
        workers.parse::<usize>().unwrap()
    };
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(workers(&stage(&[]), ""), cores);
    assert_eq!(workers(&stage(&["taskset", "-c", "0"]), ""), 1);
    assert_eq!(workers(&stage(&["taskset", "-c", "0"]), "--slots 3"), 3);
    let Some(group) = Group::new(&ONE_CORE) else {
        let why = "that the quota of a control group counts: none with a limit can be made here";
        writeln!(std::io::stderr(), "\nSKIPPED: {why} (as root, with the CPU controller mounted writable)").unwrap();
        return;
    };
    let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.0.display());
    assert_eq!(workers(&stage(&["bash", "-c", &enter, "bash"]), ""), 1, "of {cores} cores, by a quota of one");
}
