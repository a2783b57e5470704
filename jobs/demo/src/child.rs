//! The job, run as a child process of the demo.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;

use anyhow::Context;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::folder::Folder;
use crate::run::Event;

/// How many lines of its log are shown when it fails.
const LAST_LINES: usize = 15;

/// The running job. Dropping it kills it; so does the end of the demo, as the job runs with `--end-with-stdin`.
pub(crate) struct Job {
    child: Child,
    log: PathBuf,
}

impl Job {
    /// Starts `run` of this binary. Its end is an event.
    pub(crate) fn start(
        arguments: impl IntoIterator<Item = OsString>,
        folder: &Folder,
        events: &Sender<Event>,
    ) -> anyhow::Result<Self> {
        let log = folder.path().join("log");
        let stderr = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let binary = std::env::current_exe().context("cannot find this binary")?;
        let mut command = Command::new(binary);
        command.arg("run").arg("--end-with-stdin").args(arguments);
        // A Ctrl-C is meant for the demo, which then tells the job in its turn.
        command.process_group(0);
        let hold = folder.hold().context("cannot hold the temporary folder")?;
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().context("cannot start the job")?;
        drop(hold);
        let this = Self { child, log };
        let (pid, events) = (this.pid(), events.clone());
        let wait = move || {
            // Leaves the status to be collected, so that the number cannot become another process's before.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
            let _ = events.send(Event::JobEnded);
        };
        std::thread::Builder::new().name("job".to_owned()).spawn(wait).context("cannot watch the job")?;
        Ok(this)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Asks it to commit, take a checkpoint and end.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        kill_process(self.pid(), Signal::TERM).context("cannot tell the job to stop")
    }

    /// How it ended; waits for it.
    pub(crate) fn status(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.wait().context("cannot wait for the job")
    }

    /// Puts its log where it stays, and says where, with the last lines.
    pub(crate) fn last_words(&self, name: &str) -> String {
        let kept = std::env::temp_dir().join(format!("{name}-demo-{}.log", std::process::id()));
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        match keep(&self.log, &kept) {
            Ok(()) => format!("its log is in {} and ends with\n{last}", kept.display()),
            Err(error) => format!("its log could not be kept ({error}) and ends with\n{last}"),
        }
    }
}

fn keep(log: &Path, at: &Path) -> std::io::Result<()> {
    std::fs::copy(log, at).map(drop)
}

impl Drop for Job {
    fn drop(&mut self) {
        // Errors here mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
