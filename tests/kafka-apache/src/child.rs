//! Processes that end with the one that started them, however it ends, and folders that go with it.
//!
//! A child is started through `setpriv --pdeathsig KILL`: the kernel kills it when the thread that started it ends, so
//! also after a `kill -9` of the test that runs. Because that is about the *thread*, one thread that lives as long as the process
//! starts them all. A folder is removed by a shell that waits for the end of a pipe that only the test holds.
//!
//! Not promised: a child's own children. What they do when their parent dies is for the child to say, and a thing that
//! our tests look at.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, setpriority_process};
use tempfile::TempDir;

/// The nice value of a process whose priority was raised.
const RAISED: i32 = -10;

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    ended: Arc<Ended>,
}

#[derive(Debug, Default)]
struct Ended {
    status: Mutex<Option<ExitStatus>>,
    changed: Condvar,
}

type Spawned = std::io::Result<Child>;

/// What to run.
#[derive(Debug)]
pub struct Spec {
    /// What to call it in errors.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// What is added to the environment.
    pub env: Vec<(String, String)>,
    /// Where its standard output and error go, both, appended.
    pub log: PathBuf,
}

impl Process {
    /// Starts a process.
    ///
    /// # Errors
    /// The program or `setpriv` (of util-linux) is not there, or the log cannot be written.
    pub fn start(spec: Spec) -> Result<Self> {
        let log = File::options().create(true).append(true).open(&spec.log);
        let log = log.with_context(|| format!("open {}", spec.log.display()))?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&spec.program).args(&spec.args);
        command.envs(spec.env.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = start_on_the_lasting_thread(command);
        let mut child = child.with_context(|| format!("start {} through setpriv", spec.name))?;
        let pid = Pid::from_child(&child);
        let ended = Arc::new(Ended::default());
        let told = Arc::clone(&ended);
        std::thread::spawn(move || {
            let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0x7f00));
            *told.status.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
            told.changed.notify_all();
        });
        Ok(Self { name: spec.name, pid, log: spec.log, ended })
    }

    /// Raises the priority of a process that stands in for a service with machines of its own, if that is permitted. To be called
    /// before the process creates threads.
    pub fn raise_priority(&self) {
        // Without the permission the service is only slower.
        let _ = setpriority_process(Some(self.pid), RAISED);
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended, if it has.
    #[must_use]
    pub fn status(&self) -> Option<ExitStatus> {
        *self.ended.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a signal; a process that has ended gets none.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Held during the call, so that the process id cannot have been given to another process in between.
        let status = self.ended.status.lock().unwrap_or_else(PoisonError::into_inner);
        match if status.is_some() { Ok(()) } else { kill_process(self.pid, signal) } {
            Err(error) if error != rustix::io::Errno::SRCH => {
                Err(error).with_context(|| format!("signal {}", self.name))
            }
            _ => Ok(()),
        }
    }

    /// `kill -9`, and waits for its end.
    ///
    /// # Errors
    /// The kernel refused, or it does not end.
    pub fn kill(&self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(20))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It has not ended after `most`; the error holds the end of its log.
    pub fn wait(&self, most: Duration) -> Result<ExitStatus> {
        let status = self.ended.status.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, _) = self
            .ended
            .changed
            .wait_timeout_while(status, most, |status| status.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        match *status {
            Some(status) => Ok(status),
            None => bail!("{} has not ended after {most:?}; its log ends with\n{}", self.name, self.log_end()),
        }
    }

    /// Waits until a line of the log holds `text`; lines before the process's start count too.
    ///
    /// # Errors
    /// The process ended first, or the line has not come after `most`; the error holds the end of the log.
    pub fn wait_for_line(&self, text: &str, most: Duration) -> Result<()> {
        let start = Instant::now();
        let mut log = BufReader::new(File::open(&self.log)?);
        let mut line = String::new();
        loop {
            let over = self.status();
            while log.read_line(&mut line)? > 0 {
                if line.ends_with('\n') {
                    if line.contains(text) {
                        return Ok(());
                    }
                    line.clear();
                }
            }
            if let Some(status) = over {
                bail!("{} ended ({status}) before it said {text:?}; its log ends with\n{}", self.name, self.log_end());
            }
            if start.elapsed() > most {
                bail!("{} has not said {text:?} after {most:?}; its log ends with\n{}", self.name, self.log_end());
            }
            // A file tells nobody that it has grown; the wait ends early when the process does.
            let _ = self.wait(Duration::from_millis(20));
        }
    }

    /// Whether its log holds `text` so far.
    #[must_use]
    pub fn log_holds(&self, text: &str) -> bool {
        fs::read(&self.log).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
    }

    /// The file that holds what it has written.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of what it has written.
    #[must_use]
    pub fn log_end(&self) -> String {
        let text = fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn start_on_the_lasting_thread(command: Command) -> Spawned {
    type Request = (Command, Sender<Spawned>);
    static THREAD: OnceLock<Sender<Request>> = OnceLock::new();
    let thread = THREAD.get_or_init(|| {
        let (sender, requests): (Sender<Request>, Receiver<Request>) = mpsc::channel();
        std::thread::spawn(move || {
            for (mut command, answer) in requests {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let gone = || std::io::Error::new(ErrorKind::BrokenPipe, "the thread that starts processes is gone");
    let (answer, answered) = mpsc::channel();
    thread.send((command, answer)).map_err(|_| gone())?;
    match answered.recv_timeout(Duration::from_secs(60)) {
        Ok(spawned) => spawned,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(gone()),
    }
}

/// A temporary folder that goes with the test process, also when that is killed or never drops it.
#[derive(Debug)]
pub struct Folder {
    folder: TempDir,
    remover: Child,
}

impl Folder {
    /// Makes a folder.
    ///
    /// # Errors
    /// The system's temporary folder cannot be written.
    pub fn new(prefix: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir().context("make a temporary folder")?;
        // Processes that are being killed may still write: try until nothing is left, a bounded number of times. A
        // Ctrl-C is meant for the test, so the remover is in a process group of its own.
        let script = r#"cat; for i in 1 2 3 4 5 6 7 8 9; do rm -rf -- "$0" 2>/dev/null && break; sleep 0.2; done"#;
        let mut remover = Command::new("sh");
        std::os::unix::process::CommandExt::process_group(&mut remover, 0);
        remover.arg("-c").arg(script).arg(folder.path());
        remover.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let remover = remover.spawn().context("start sh")?;
        Ok(Self { folder, remover })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The remover sees the end of its pipe and is waited for, so that no zombie process stays; what it removes is
        // what TempDir would.
        drop(self.remover.stdin.take());
        let _ = self.remover.wait();
    }
}
