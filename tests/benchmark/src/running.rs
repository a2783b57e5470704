//! A process that is being measured: this binary, as one of its subjects.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fluvial_kafka_apache::child::{Process, Spec};
use fluvial_tests::processes::{children, cpu_of, resident_of};
use rustix::process::{Pid, Signal, kill_process};

use crate::subject::meter::{Mark, read_marks};

/// A subject, running. Dropping it kills it, and its processes die with it.
#[derive(Debug)]
pub(crate) struct Running {
    process: Process,
    marks: PathBuf,
}

impl Running {
    /// Starts a subject; its log and its marks go to `folder`. `logs` is what `RUST_LOG` is set to.
    pub(crate) fn start(name: &str, arguments: &[String], folder: &Path, logs: &str) -> Result<Self> {
        Self::start_in(&[], name, arguments, folder, logs)
    }

    /// As [`Running::start`], with more in the environment.
    pub(crate) fn start_in(
        environment: &[(String, String)],
        name: &str,
        arguments: &[String],
        folder: &Path,
        logs: &str,
    ) -> Result<Self> {
        Self::start_build(program()?, environment, name, arguments, folder, logs)
    }

    /// As [`Running::start_in`], of the build whose binary `program` is.
    pub(crate) fn start_build(
        program: PathBuf,
        environment: &[(String, String)],
        name: &str,
        arguments: &[String],
        folder: &Path,
        logs: &str,
    ) -> Result<Self> {
        let marks = folder.join("marks").display().to_string();
        let arguments = [arguments, &["--marks".to_owned(), marks]].concat();
        let environment = [environment, &[("RUST_LOG".to_owned(), logs.to_owned())]].concat();
        Self::start_program(program, environment, name, &arguments, folder)
    }

    /// Starts another program, which writes no marks.
    pub(crate) fn start_program(
        program: PathBuf,
        environment: Vec<(String, String)>,
        name: &str,
        arguments: &[String],
        folder: &Path,
    ) -> Result<Self> {
        let process = Process::start(Spec {
            name: name.to_owned(),
            program,
            args: arguments.iter().map(OsString::from).collect(),
            env: environment,
            log: folder.join("log"),
        })?;
        Ok(Self { process, marks: folder.join("marks") })
    }

    /// The file that it writes its log to.
    pub(crate) fn log(&self) -> &Path {
        self.process.log()
    }

    /// What it has said so far of its input.
    pub(crate) fn marks(&self) -> Result<Vec<Mark>> {
        self.check()?;
        read_marks(&self.marks)
    }

    /// Fails if it has ended.
    pub(crate) fn check(&self) -> Result<()> {
        match self.process.status() {
            None => Ok(()),
            Some(status) => anyhow::bail!("what was measured ended ({status}):\n{}", self.process.log_end()),
        }
    }

    /// Waits until `done` says so; it is asked again and again, and fails where the process has ended.
    pub(crate) fn wait_until(
        &self,
        what: &str,
        most: Duration,
        mut done: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let start = Instant::now();
        while !done(self)? {
            self.check()?;
            anyhow::ensure!(start.elapsed() < most, "after {most:?} not yet: {what}\n{}", self.process.log_end());
            pause(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until so many records have been read, and returns that mark.
    pub(crate) fn wait_for_records(&self, records: u64, most: Duration) -> Result<Mark> {
        let mut found = None;
        self.wait_until(&format!("{records} records read"), most, |this| {
            found = this.marks()?.into_iter().find(|mark| mark.records >= records);
            Ok(found.is_some())
        })?;
        found.context("no mark")
    }

    /// Its processes: a job's are the one that was started and those that this one has started.
    fn processes(&self) -> Vec<u32> {
        let first = self.process.pid();
        [first].into_iter().chain(children(first)).collect()
    }

    /// The processes of a job's generation.
    pub(crate) fn peers(&self) -> Vec<u32> {
        children(self.process.pid())
    }

    /// The CPU time of all its processes so far.
    pub(crate) fn cpu(&self) -> Duration {
        self.processes().into_iter().filter_map(cpu_of).sum()
    }

    /// The resident memory of all its processes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.processes().into_iter().filter_map(resident_of).sum()
    }

    /// What the first process of the job's generation takes from its host.
    pub(crate) fn taken(&self, brokers: &str) -> Result<Taken> {
        let pid = self.peers().into_iter().next().context("the job has no process")?;
        Taken::by(pid, brokers)
    }

    /// Asks it to end and waits for that.
    pub(crate) fn stop(&self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(Duration::from_secs(60)).map(drop)
    }
}

/// What a process takes from its host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) threads: u64,
    /// Established connections to brokers.
    pub(crate) connections: u64,
    /// Open files, sockets and pipes.
    pub(crate) files: u64,
    pub(crate) resident_bytes: u64,
}

impl Taken {
    fn by(pid: u32, brokers: &str) -> Result<Self> {
        let entries = |folder: &str| -> Result<Vec<PathBuf>> {
            let entries = fs::read_dir(format!("/proc/{pid}/{folder}")).context("look at the process")?;
            Ok(entries.flatten().map(|entry| entry.path()).collect())
        };
        let files = entries("fd")?;
        let sockets: Vec<String> =
            files.iter().filter_map(|fd| fs::read_link(fd).ok()?.to_str().map(str::to_owned)).collect();
        let ports = brokers.split(',').filter_map(|broker| broker.rsplit_once(':')?.1.parse().ok());
        let ports: Vec<String> = ports.map(|port: u16| format!("{port:04X}")).collect();
        // The remote address is the third field, the state (01: established) the fourth, the socket's number the tenth.
        let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).context("look at the connections")?;
        let to_brokers = table.lines().skip(1).filter(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, _, remote, "01", _, _, _, _, _, inode, ..] = fields[..] else { return false };
            let port = remote.rsplit_once(':').map_or("", |(_, port)| port);
            ports.iter().any(|of_broker| of_broker == port) && sockets.contains(&format!("socket:[{inode}]"))
        });
        Ok(Self {
            threads: entries("task")?.len() as u64,
            connections: to_brokers.count() as u64,
            files: files.len() as u64,
            resident_bytes: resident_of(pid).context("look at the process")?,
        })
    }
}

/// The binary that is measured: this one, or the other build's.
fn program() -> Result<PathBuf> {
    other_build().map_or_else(this_build, Ok)
}

/// This binary.
pub(crate) fn this_build() -> Result<PathBuf> {
    std::env::current_exe().context("find this binary")
}

/// The binary of the same name in the folder that `FLUVIAL_JOB_BINARIES` names.
pub(crate) fn other_build() -> Option<PathBuf> {
    std::env::var_os("FLUVIAL_JOB_BINARIES").map(|folder| PathBuf::from(folder).join("fluvial-benchmark"))
}

/// Waits for a time: what is measured from outside tells nobody that it has come along.
pub(crate) fn pause(time: Duration) {
    std::thread::park_timeout(time);
}

/// Waits for all of a time.
pub(crate) fn pause_whole(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        pause(left);
    }
}

/// `kill -9`.
pub(crate) fn kill(pid: u32) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process id")?;
    kill_process(pid, Signal::KILL).context("kill a process of the job")
}
