//! One network namespace.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddrV4;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::child::{Process, Spec};

/// How long processes may take to end that have been killed.
const MOST: Duration = Duration::from_secs(20);

/// A namespace, which lives as long as the first process in it.
#[derive(Debug)]
pub(super) struct Namespace {
    holder: Process,
}

impl Namespace {
    pub(super) fn new(name: &str, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let _ = fs::remove_file(&log);
        let holder = Process::start(Spec {
            name: format!("the holder of the namespace {name}"),
            program: "unshare".into(),
            // It says so when it is in its namespace.
            args: ["--net", "sh", "-c", "echo inside; exec sleep infinity"].map(Into::into).into(),
            env: Vec::new(),
            log,
        })?;
        holder.wait_for_line("inside", Duration::from_secs(20))?;
        Ok(Self { holder })
    }

    pub(super) fn pid(&self) -> u32 {
        self.holder.pid()
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.pid())
    }

    pub(super) fn launcher(&self) -> Vec<OsString> {
        vec!["nsenter".into(), format!("--net={}", self.path()).into()]
    }

    /// Runs a program there to its end.
    pub(super) fn run(&self, words: &[&str], input: &str) -> Result<()> {
        let namespace = format!("--net={}", self.path());
        run(&[&["nsenter", namespace.as_str()], words].concat(), input)
    }

    /// Runs commands of `ip` there, one a line.
    pub(super) fn batch(&self, commands: &str) -> Result<()> {
        self.run(&["ip", "-batch", "-"], commands)
    }

    pub(super) fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        let path = self.path();
        let namespace = File::open(&path).with_context(|| format!("open {path}"))?;
        let there = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("enter {path}"))?;
            Ok(act())
        };
        match std::thread::scope(|scope| scope.spawn(there).join()) {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// The processes there, but the first.
    pub(super) fn members(&self) -> Result<Vec<u32>> {
        let namespace = fs::read_link(self.path()).context("read the namespace's number")?;
        let entries = fs::read_dir("/proc").context("list /proc")?.flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        // Of a process that has ended nothing can be read.
        let there = |pid: &u32| fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|of| of == namespace);
        Ok(pids.filter(|pid| *pid != self.holder.pid() && there(pid)).collect())
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        for pid in self.members()? {
            let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
            match kill_process(pid, signal) {
                Err(error) if error != Errno::SRCH => return Err(error).context("signal a process of a host"),
                _ => {}
            }
        }
        if signal == Signal::STOP { self.wait_until_stopped() } else { Ok(()) }
    }

    /// A signal has only been sent when the call returns; the threads of a process stop one after the other.
    fn wait_until_stopped(&self) -> Result<()> {
        let start = Instant::now();
        while let Some(pid) = self.members()?.into_iter().find(|pid| !is_stopped(*pid)) {
            ensure!(start.elapsed() < MOST, "process {pid} does not stop");
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Kills all processes there, those too that they start meanwhile.
    pub(super) fn kill_all(&self) -> Result<()> {
        let start = Instant::now();
        while !self.members()?.is_empty() {
            ensure!(start.elapsed() < MOST, "processes {:?} do not end", self.members()?);
            self.signal(Signal::KILL)?;
            std::thread::park_timeout(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The local ports of the connections to `to` that are established.
    pub(super) fn connections_to(&self, to: SocketAddrV4) -> Result<Vec<u16>> {
        let path = format!("/proc/{}/net/tcp", self.holder.pid());
        let table = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        // Addresses stand there as the machine has them in memory, in hexadecimal digits; 01 is "established".
        let remote = format!("{:08X}:{:04X}", u32::from_ne_bytes(to.ip().octets()), to.port());
        let local = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, of, state) = (fields.next()?, fields.next()?, fields.next()?);
            let port = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
            (of == remote && state == "01").then_some(port)
        };
        Ok(table.lines().filter_map(local).collect())
    }
}

/// Runs a program to its end.
pub(super) fn run(words: &[&str], input: &str) -> Result<()> {
    let what = words.join(" ");
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("run {what}"))?;
    // A program that has failed does not read; its error says more.
    let _ = child.stdin.take().context("the standard input is piped")?.write_all(input.as_bytes());
    let output = child.wait_with_output().with_context(|| format!("run {what}"))?;
    if !output.status.success() {
        bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Whether all threads of a process are stopped, or gone.
fn is_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.map(|thread| thread.path().join("stat")).all(|stat| {
        // The state follows the name, which is in brackets and may hold any character.
        let stat = std::fs::read_to_string(stat).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 't', 'Z', 'X']))
    })
}
