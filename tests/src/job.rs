//! The workspace's job binaries, run as processes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::child::{Process, Spec};
use crate::processes::{children, is_alive};
use crate::workspace;

/// The environment variable that names a folder of job binaries to test in place of those of the workspace.
pub const BINARIES: &str = "FLUVIAL_JOB_BINARIES";

/// The built binary of the crate `name` in `jobs/`.
///
/// Cargo gives a test only the binaries of its own package, so the first call asks it to build this one: in the same
/// profile, and with nothing to do where it has been built. The variable [`BINARIES`] names a folder with others.
///
/// # Errors
/// It does not build, or has no binary of its name.
pub fn binary(name: &str) -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os(BINARIES) {
        return Ok(PathBuf::from(folder).join(name));
    }
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = built.get(name) {
        return Ok(path.clone());
    }
    let path = build(name).with_context(|| format!("build the job {name}"))?;
    built.insert(name.to_owned(), path.clone());
    Ok(path)
}

/// Makes another build of a program: the same one with other bytes.
///
/// # Errors
/// The copy cannot be written.
pub fn build_again(program: &Path, copy: &Path) -> Result<()> {
    fs::copy(program, copy).with_context(|| format!("copy {}", program.display()))?;
    File::options().append(true).open(copy)?.write_all(&[0])?;
    Ok(())
}

fn build(name: &str) -> Result<PathBuf> {
    // Cargo names itself to what it runs. A program that was started by hand takes the one that a shell would find.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The command of that name is in a crate of its own; all others are jobs.
    let package = if name == "fluvial" { "fluvial-cli" } else { name };
    cargo.args(["build", "--package", package, "--message-format=json"]).current_dir(workspace::root());
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    if cfg!(feature = "tls") && package == name {
        cargo.args(["--features", "tls"]);
    }
    let output = cargo.output().context("run cargo build")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut artifacts = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let path = artifacts.find_map(|artifact| {
        let of_this_name = artifact["target"]["name"] == name;
        artifact["executable"].as_str().filter(|_| of_this_name).map(PathBuf::from)
    });
    path.context("cargo built no such binary")
}

/// A running job: the process that was started, and those that it has started.
#[derive(Debug)]
pub struct Job {
    process: Process,
}

impl Job {
    /// Starts `binary` with `args`; all that it says goes to the end of `log`.
    ///
    /// # Errors
    /// As [`binary`] and [`Process::start`].
    pub fn start(name: &str, args: &[OsString], env: &[(String, String)], log: &Path) -> Result<Self> {
        let spec = Spec {
            name: name.to_owned(),
            program: binary(name)?,
            args: args.to_vec(),
            env: env.to_vec(),
            log: log.into(),
        };
        Self::of(spec)
    }

    /// Starts a program that is a job, however it is called.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn of(spec: Spec) -> Result<Self> {
        Ok(Self { process: Process::start(spec)? })
    }

    /// The process that was started.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The processes of the generation that runs now: the children of the one that was started.
    #[must_use]
    pub fn peers(&self) -> Vec<u32> {
        children(self.process.pid()).into_iter().filter(|pid| is_alive(*pid)).collect()
    }

    /// `kill -9` of one process of the generation; false where there is none of this index.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn kill_peer(&self, index: usize) -> Result<bool> {
        let peers = self.peers();
        let Some(pid) = peers.get(index % peers.len().max(1)) else { return Ok(false) };
        signal(*pid, Signal::KILL)?;
        Ok(true)
    }

    /// `kill -9` of the process that was started, alone, and then waits for the end of the others, which must follow.
    ///
    /// # Errors
    /// One of the others is still there after `most`.
    pub fn kill_first(&self, most: Duration) -> Result<()> {
        let peers = self.peers();
        self.process.kill()?;
        let start = Instant::now();
        while let Some(left) = peers.iter().find(|pid| is_alive(**pid)) {
            if start.elapsed() > most {
                bail!("process {left} is still there {most:?} after its job's first process was killed");
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Ok(())
    }

    /// `kill -9` of all its processes, as nearly at once as can be.
    ///
    /// # Errors
    /// The kernel refused, or one does not end.
    pub fn kill_all(&self) -> Result<()> {
        for peer in self.peers() {
            signal(peer, Signal::KILL)?;
        }
        self.kill_first(Duration::from_secs(20))
    }

    /// SIGSTOP of all its processes.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn pause(&self) -> Result<()> {
        // First the one that would notice something about the others.
        self.process.signal(Signal::STOP)?;
        self.peers().into_iter().try_for_each(|peer| signal(peer, Signal::STOP))
    }

    /// SIGCONT to all its processes.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn resume(&self) -> Result<()> {
        self.peers().into_iter().try_for_each(|peer| signal(peer, Signal::CONT))?;
        self.process.signal(Signal::CONT)
    }

    /// Asks it to stop as `kill` does, and waits for its end.
    ///
    /// # Errors
    /// It has not ended after `most`.
    pub fn stop(&self, most: Duration) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(most)
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // A job that does not end its processes by itself must not leave them to the tests that follow.
        let peers = self.peers();
        let _ = self.process.kill();
        for peer in peers {
            let _ = signal(peer, Signal::KILL);
        }
    }
}

fn signal(pid: u32, signal: Signal) -> Result<()> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    match kill_process(pid, signal) {
        Err(error) if error != rustix::io::Errno::SRCH => Err(error).context("signal a process of the job"),
        _ => Ok(()),
    }
}
