//! A run of a job that a test has started.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::child::Process;
use crate::job::Job;

/// A running job that has a process group and a log of its own.
#[derive(Debug)]
pub struct Started {
    job: Job,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// All that it said, on stdout and stderr.
    pub said: String,
    /// How long it took from the question to the end.
    pub took: Duration,
}

impl Finished {
    /// The one line that begins with `error:`.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn error(&self) -> Result<&str> {
        let mut lines = self.said.lines().filter(|line| line.starts_with("error:"));
        let line = lines.next().with_context(|| format!("no line begins with error: in\n{}", self.said))?;
        ensure!(lines.next().is_none(), "more than one line begins with error: in\n{}", self.said);
        Ok(line)
    }

    /// Checks the exit code, and that the one error line holds each of these.
    ///
    /// # Errors
    /// It is not so.
    pub fn failed_with(&self, code: i32, parts: &[&str]) -> Result<()> {
        ensure!(self.code == Some(code), "exit code {:?}, not {code}; it said\n{}", self.code, self.said);
        let line = self.error()?;
        match parts.iter().find(|part| !line.contains(*part)) {
            Some(part) => bail!("the error does not say {part:?}: {line}"),
            None => Ok(()),
        }
    }
}

impl Started {
    pub(super) fn new(job: Job) -> Self {
        Self { job }
    }

    /// The job.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The process that was started.
    #[must_use]
    pub fn process(&self) -> &Process {
        self.job.process()
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not in that time; the error holds the end of its log.
    pub fn finish(&self, most: Duration) -> Result<Finished> {
        let start = Instant::now();
        let status = self.process().wait(most)?;
        self.finished(status, start)
    }

    /// SIGTERM to the first process, and its end.
    ///
    /// # Errors
    /// As [`Started::finish`].
    pub fn terminate(&self, most: Duration) -> Result<Finished> {
        let start = Instant::now();
        let status = self.job.stop(most)?;
        self.finished(status, start)
    }

    /// Ctrl-C: SIGINT to all its processes at once, and its end.
    ///
    /// # Errors
    /// As [`Started::finish`].
    pub fn interrupt(&self, most: Duration) -> Result<Finished> {
        let start = Instant::now();
        kill_process_group(pid(self.process().pid())?, Signal::INT).context("signal the job's process group")?;
        let status = self.process().wait(most)?;
        self.finished(status, start)
    }

    /// Sends a signal to one process of the generation.
    ///
    /// # Errors
    /// There is none of this index, or the kernel refused.
    pub fn signal_peer(&self, index: usize, signal: Signal) -> Result<()> {
        let peers = self.job.peers();
        let peer = peers.get(index).with_context(|| format!("there are only {} processes", peers.len()))?;
        kill_process(pid(*peer)?, signal).context("signal a process of the job")
    }

    fn finished(&self, status: ExitStatus, start: Instant) -> Result<Finished> {
        let said = std::fs::read_to_string(self.process().log())?;
        Ok(Finished { code: status.code(), said, took: start.elapsed() })
    }
}

fn pid(raw: u32) -> Result<Pid> {
    i32::try_from(raw).ok().and_then(Pid::from_raw).context("no process id")
}
