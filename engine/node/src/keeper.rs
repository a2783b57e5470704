//! Starts the processes of one attempt on this host, watches them, and ends them.
//!
//! ```text
//!   Keeper ──introduce, stop, kill──► thread ──socket pair──► processes
//!      owner ◄──ProcessEvent─────────────┘◄──what they say, their silence, their exit
//! ```
//!
//! **Guarantees** that its processes end when the keeper ends, even by SIGKILL, that each of them is reported as ended once,
//! and that this is the last that is heard of it. **Does not** decide what follows.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use fluvial_protocol::ProcessEnd;
use fluvial_protocol::group::ProcessSays;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use signal_hook::consts::SIGKILL;

use crate::allocator;
use crate::fail_point::{FailPoint, reach};
use crate::isolation::{AttemptGroup, Isolation, Limits, ProcessGroup, Secrets, secrets, stage};
use crate::log::Following;
use crate::logs::{AttemptLogs, ProcessLog, Stream};
use crate::memory::Memory;
use crate::process_link::{FromProcess, Invitation, PROCESS_VARIABLE, ToProcess, read_line, write_line};
use crate::status::{Heard, ProcessFigures, Progress};

/// How often a keeper looks whether its processes are silent.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a worker may compute without a pause before its process counts as hung. A tick that brings much of the past
/// takes minutes, so it is long.
const STEP_WITHIN_MS: u64 = 600_000;
/// The longest address at which a process may listen, and the longest reason for its end, in bytes.
const LONGEST_ADDRESS: usize = 300;
const LONGEST_REASON: usize = 4096;
/// How long a write to a process may take: what a process is told fits into the buffer of its socket.
const WRITE_WITHIN: Duration = Duration::from_secs(1);

/// An event of a process.
#[derive(Debug)]
pub struct ProcessEvent {
    /// The number by which the owner knows the attempt.
    pub attempt: u64,
    /// The number of the process.
    pub process: u32,
    /// What is known of it now.
    pub says: ProcessSays,
}

/// What the processes of a job are started from.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// The name that `ps` shows.
    pub name: String,
    /// The arguments.
    pub arguments: Vec<OsString>,
    /// The options of the job among them, whose references to secrets are resolved where the keeper isolates the processes.
    pub options: Vec<String>,
    /// The limits of each process, where the keeper isolates them.
    pub limits: Limits,
}

impl Program {
    /// This process's own program with its arguments. If its file has been replaced, it is still the one that runs here.
    ///
    /// # Errors
    /// The path of this binary is unknown.
    pub fn of_this_process() -> std::io::Result<Self> {
        let path = std::env::current_exe()?;
        let path = if path.exists() { path } else { PathBuf::from("/proc/self/exe") };
        let name = std::env::args().next().unwrap_or_default();
        Ok(Self {
            path,
            name,
            arguments: std::env::args_os().skip(1).collect(),
            options: Vec::new(),
            limits: Limits::default(),
        })
    }
}

/// The processes that a keeper starts.
#[derive(Debug)]
pub struct Launch {
    /// The number by which the owner knows the attempt.
    pub attempt: u64,
    /// What they are started from.
    pub program: Program,
    /// How they are kept apart from this node; not at all if the program is the node's own.
    pub(crate) isolation: Option<Arc<Isolation>>,
    /// What each process is told first.
    pub invitations: Vec<Invitation>,
    /// After so many looks without a word a process counts as hung, and is killed, as it is if one of its workers computes for
    /// too long; never, if there is none.
    pub silent_looks: Option<u32>,
    /// Where what they print is kept; `None` if this process prints it.
    pub logs: Option<AttemptLogs>,
}

/// What the processes have said in their newest beats.
type Newest = Arc<Mutex<Beaten>>;

#[derive(Debug, Default)]
struct Beaten {
    /// How far the job is, as process 0 says, and when it was heard.
    progress: Option<(Progress, Instant)>,
    /// The requests of each process to a store that charges for them.
    store_requests: BTreeMap<u32, u64>,
    /// What each process says of the parts of the job, and when it was heard.
    figures: BTreeMap<u32, (Arc<ProcessFigures>, Instant)>,
    /// For how long the slowest worker of each process has computed without a pause, of those that were heard since the last look.
    step_ms: BTreeMap<u32, u64>,
}

impl Beaten {
    /// Takes a beat. Returns a message that is none.
    fn hear(&mut self, process: u32, message: FromProcess) -> Option<FromProcess> {
        let FromProcess::Beat { step_ms, store_requests, progress, figures } = message else { return Some(message) };
        self.step_ms.insert(process, step_ms);
        self.store_requests.extend(store_requests.map(|requests| (process, requests)));
        self.figures.extend(figures.map(|figures| (process, (Arc::new(*figures), Instant::now()))));
        self.progress = progress.map(|progress| (progress, Instant::now())).or(self.progress.take());
        None
    }
}

/// The processes of one attempt on this host. Dropping it kills those that still run, and waits for their end.
#[derive(Debug)]
pub struct Keeper {
    inputs: Sender<Input>,
    thread: Option<JoinHandle<()>>,
    newest: Newest,
}

#[derive(Debug)]
enum Input {
    Introduce(Vec<String>),
    Stop,
    Kill,
    /// Something about one of the processes.
    Process(u32, What),
}

#[derive(Debug)]
enum What {
    /// Not a beat: those are kept where they are read, because waking the keeper for each of them would be most of what an idle job
    /// costs its node.
    Said(FromProcess),
    /// The connection has ended; all that it said has been heard.
    Silent,
    Exited,
}

impl Keeper {
    /// Starts the processes of a launch, and does not wait for them. What happens to them is handed to `events`; one that
    /// cannot be started is reported as ended.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(launch: Launch, events: impl Fn(ProcessEvent) + Send + 'static) -> std::io::Result<Self> {
        let (inputs, inbox) = channel();
        let of_processes = inputs.clone();
        let newest = Newest::default();
        let heard = Arc::clone(&newest);
        // The kernel ends a process with the thread that started it, so this thread lives as long as its processes.
        let thread = move || {
            let silent_looks = launch.silent_looks;
            Processes::start(launch, &of_processes, Box::new(events), heard).run(&inbox, silent_looks);
        };
        let thread = std::thread::Builder::new().name("keeper".to_owned()).spawn(thread)?;
        Ok(Self { inputs, thread: Some(thread), newest })
    }

    /// How far the job is, if process 0 is one of these and has said so.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).progress.clone();
        newest.map(|(progress, heard)| {
            let since_ms = u64::try_from(heard.elapsed().as_millis()).unwrap_or(u64::MAX);
            Progress { age_ms: progress.age_ms.saturating_add(since_ms), ..progress }
        })
    }

    /// What the processes have said of the parts of the job.
    #[must_use]
    pub fn figures(&self) -> BTreeMap<u32, Heard> {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = |(process, (figures, at)): (&u32, &(Arc<ProcessFigures>, Instant))| {
            let age_ms = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
            (*process, Heard { age_ms, figures: Arc::clone(figures) })
        };
        newest.figures.iter().map(heard).collect()
    }

    /// The requests that its processes have made to a store that charges for them, as far as they have said so.
    #[must_use]
    pub fn store_requests(&self) -> u64 {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).store_requests.values().sum()
    }

    /// Tells each process where the processes of its attempt listen.
    pub fn introduce(&self, addresses: Vec<String>) {
        self.tell(Input::Introduce(addresses));
    }

    /// Asks process 0, if it is one of these, to commit, to take a checkpoint, and to end.
    pub fn stop(&self) {
        self.tell(Input::Stop);
    }

    /// Ends the processes at once.
    pub fn kill(&self) {
        self.tell(Input::Kill);
    }

    fn tell(&self, input: Input) {
        // The thread has ended only if all processes have.
        let _ = self.inputs.send(input);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.kill();
        // A panic of the thread has been reported by the panic hook.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A process, and what its keeper knows of it.
struct Process {
    child: Child,
    group: Option<ProcessGroup>,
    /// The memory of its control group before it was started, and what the kernel had killed in it.
    memory: Memory,
    link: UnixStream,
    exited: bool,
    silent: bool,
    said: Option<ProcessEnd>,
    /// The looks since it last said something.
    looks: u32,
    ended: bool,
    /// Where what it prints is kept, until it has ended.
    log: Option<ProcessLog>,
}

struct Processes {
    attempt: u64,
    program: Program,
    /// By number.
    processes: BTreeMap<u32, Process>,
    events: Box<dyn Fn(ProcessEvent) + Send>,
    /// The output of the processes.
    following: Following,
    isolation: Option<Arc<Isolation>>,
    /// The control group of the attempt, which ends what is left of it.
    group: Option<AttemptGroup>,
    newest: Newest,
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.kill();
        for process in self.processes.values_mut() {
            // An error here means that it has been reaped already.
            let _ = process.child.wait();
        }
        // What they have started has their output, too.
        self.group = None;
        self.following.end();
    }
}

impl Processes {
    fn start(launch: Launch, inputs: &Sender<Input>, events: Box<dyn Fn(ProcessEvent) + Send>, newest: Newest) -> Self {
        let Launch { attempt, program, isolation, mut invitations, logs, .. } = launch;
        let (following, processes) = (Following::new(logs), BTreeMap::new());
        let group = isolation.as_ref().map_or(Ok(None), |isolation| {
            let handed_over = isolation.hand_over(&program.name).context("cannot give the job its folder in the store");
            handed_over.and_then(|()| {
                isolation.attempt(&program.name, attempt).context("cannot make a control group for the job")
            })
        });
        let resolved = isolation.as_ref().map(|isolation| isolation.resolve(&program.options)).transpose();
        let group = group.and_then(|group| {
            let resolved: Option<Secrets> = resolved.map_err(anyhow::Error::msg)?;
            invitations.iter_mut().for_each(|invitation| invitation.secrets.clone_from(&resolved));
            Ok(group)
        });
        let mut this = Self { attempt, program, processes, events, following, isolation, group: None, newest };
        match group {
            Ok(group) => this.group = group,
            Err(error) => {
                for Invitation { index, .. } in invitations {
                    let why = format!("cannot start process {index} of the job: {error:#}");
                    this.tell_owner(index, ProcessSays::Ended(ProcessEnd::Died { why }));
                }
                return this;
            }
        }
        for invitation in invitations {
            let index = invitation.index;
            if let Err(error) = this.start_one(&invitation, inputs) {
                if let Some(mut process) = this.processes.remove(&index) {
                    // Errors mean that it is gone already.
                    let _ = process.child.kill().and_then(|()| process.child.wait());
                }
                let why = format!("cannot start process {index} of the job: {error:#}");
                this.tell_owner(index, ProcessSays::Ended(ProcessEnd::Died { why }));
            }
        }
        reach(FailPoint::AfterStart);
        this
    }

    fn start_one(&mut self, invitation: &Invitation, inputs: &Sender<Input>) -> anyhow::Result<()> {
        let (index, of) = (invitation.index, invitation.layout.processes);
        // The name that `ps` and `pgrep -f` show.
        let shown = format!("{} process {index} of {of}:", self.program.name);
        let (mut link, end) = UnixStream::pair()?;
        link.set_write_timeout(Some(WRITE_WITHIN))?;
        let group = self.group.as_ref().map(|group| group.process(index, &self.program.limits)).transpose();
        let group = group.context("cannot make its control group")?;
        let place = group.as_ref().and_then(|group| group.memory.clone());
        let memory = place.map_or_else(Memory::now, |place| Memory::of(place, self.program.limits.memory_bytes));
        let mut command = match &self.isolation {
            Some(isolation) => isolation.command(&self.program, &shown),
            None => {
                let mut command = Command::new(&self.program.path);
                command.arg0(shown).args(&self.program.arguments);
                command
            }
        };
        if self.isolation.is_some() {
            for name in secrets::variables() {
                command.env_remove(name);
            }
        }
        let mut child = command
            .env(PROCESS_VARIABLE, "")
            .env(allocator::VARIABLE, allocator::tunables(std::env::var_os(allocator::VARIABLE)))
            .stdin(Stdio::from(OwnedFd::from(end)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let pid = Pid::from_child(&child);
        let followed = self.following.follow(index, &mut child);
        let moved = group.as_ref().map_or(Ok(()), |group| group.put(child.id()));
        reach(FailPoint::BeforeInvitation);
        let may_go = if self.isolation.is_some() && moved.is_ok() { link.write_all(stage::GO) } else { Ok(()) };
        let said = may_go.and_then(|()| write_line(&mut link, invitation));
        let lines = link.try_clone();
        let process = Process {
            child,
            group,
            memory,
            link,
            exited: false,
            silent: false,
            said: None,
            looks: 0,
            ended: false,
            log: None,
        };
        self.processes.insert(index, process);
        // From here on the process ends with this value, whatever fails.
        moved.context("cannot move it into its control group")?;
        let log = followed.context("cannot begin to read what it prints")?;
        if let Some(process) = self.processes.get_mut(&index) {
            process.log = log;
        }
        said.context("it does not take its invitation")?;
        let mut lines = BufReader::new(lines?);
        let tell = |inputs: Sender<Input>| move |what| inputs.send(Input::Process(index, what)).is_ok();
        let exit = tell(inputs.clone());
        thread("exit", move || {
            wait_for_exit(pid);
            exit(What::Exited);
        })?;
        let says = tell(inputs.clone());
        let newest = Arc::clone(&self.newest);
        thread("process-link", move || {
            while let Ok(Some(message)) = read_line(&mut lines) {
                let message = newest.lock().unwrap_or_else(PoisonError::into_inner).hear(index, message);
                if message.is_some_and(|message| !says(What::Said(message))) {
                    return;
                }
            }
            says(What::Silent);
        })?;
        Ok(())
    }

    /// Watches the processes until all have ended.
    fn run(mut self, inbox: &Receiver<Input>, silent_looks: Option<u32>) {
        let mut next_look = Instant::now() + LOOK_EVERY;
        while !self.processes.values().all(|process| process.ended) {
            match inbox.recv_timeout(next_look.saturating_duration_since(Instant::now())) {
                Ok(Input::Introduce(addresses)) => {
                    self.tell(&ToProcess::Peers(addresses), |_| true);
                    reach(FailPoint::AfterIntroduction);
                }
                Ok(Input::Stop) => self.tell(&ToProcess::Stop, |index| index == 0),
                Ok(Input::Kill) => self.kill(),
                Ok(Input::Process(index, what)) => self.heard(index, what),
                Err(RecvTimeoutError::Timeout) => {
                    next_look = Instant::now() + LOOK_EVERY;
                    self.look(silent_looks);
                }
                // Each `exit` thread holds a sender, so this cannot happen while a process runs.
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Counts the looks at which a process was silent. Looks are counted, not time: if this process was itself stopped, or
    /// its host was, it hears what the others said meanwhile before it looks again.
    fn look(&mut self, silent_looks: Option<u32>) {
        let heard = std::mem::take(&mut self.newest.lock().unwrap_or_else(PoisonError::into_inner).step_ms);
        let Some(most) = silent_looks else { return };
        for (index, process) in self.processes.iter_mut().filter(|(_, process)| !process.exited) {
            let step_ms = heard.get(index);
            process.looks = if step_ms.is_some() { 1 } else { process.looks + 1 };
            if let Some(hangs) = hangs(process.looks, most, step_ms.copied().unwrap_or(0)) {
                let why = format!("process {index} of the job {hangs} and was killed");
                tracing::warn!("{why}");
                process.said.get_or_insert(ProcessEnd::Died { why });
                // An error here means that it is gone already.
                let _ = process.child.kill();
            }
        }
    }

    fn heard(&mut self, index: u32, what: What) {
        // One that could not be started has been reported.
        let Some(process) = self.processes.get_mut(&index) else { return };
        process.looks = 0;
        match what {
            // Nobody could connect with it.
            What::Said(FromProcess::Listens(address)) if address.len() > LONGEST_ADDRESS => {}
            What::Said(FromProcess::Listens(address)) => self.tell_owner(index, ProcessSays::Listens(address)),
            What::Said(FromProcess::Opened(generation)) => self.tell_owner(index, ProcessSays::Opened(generation)),
            What::Said(FromProcess::Running) => self.tell_owner(index, ProcessSays::Reads),
            What::Said(FromProcess::Beat { .. }) => {}
            What::Said(FromProcess::Ended { exit, why, elsewhere }) => {
                process.said = Some(ProcessEnd::Said { exit, why: shortened(why), elsewhere });
            }
            What::Silent => process.silent = true,
            What::Exited => {
                process.exited = true;
                if let Some(group) = &process.group {
                    // Older kernels list a process in its group until its end has been collected.
                    let _ = process.child.wait();
                    // What it has started must not be there any more when its end is told.
                    group.kill();
                }
            }
        }
        if let Some(end) = self.end_of(index) {
            if let Some(log) = self.processes.get_mut(&index).and_then(|process| process.log.take()) {
                log.push(Stream::Node, last_words(&end));
            }
            reach(FailPoint::AfterEnd);
            self.tell_owner(index, ProcessSays::Ended(end));
        }
    }

    fn tell_owner(&self, process: u32, says: ProcessSays) {
        (self.events)(ProcessEvent { attempt: self.attempt, process, says });
    }

    /// How a process ended, once nothing more can come from it; said once.
    fn end_of(&mut self, index: u32) -> Option<ProcessEnd> {
        let process = self.processes.get_mut(&index)?;
        if !process.exited || !process.silent || std::mem::replace(&mut process.ended, true) {
            return None;
        }
        if let Some(said) = process.said.take() {
            return Some(said);
        }
        let status = process.child.wait();
        let killed = status.as_ref().is_ok_and(|s| s.signal() == Some(SIGKILL));
        let for_memory = if killed { process.memory.explain() } else { None };
        let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
        let died = format!("process {index} of the job died ({status})");
        Some(ProcessEnd::Died { why: for_memory.map_or(died.clone(), |memory| format!("{died}: {memory}")) })
    }

    fn tell(&mut self, message: &ToProcess, to: impl Fn(u32) -> bool) {
        for (index, process) in self.processes.iter_mut().filter(|(index, _)| to(**index)) {
            if let Err(error) = write_line(&mut process.link, message) {
                // If the process is gone, its exit is noticed.
                tracing::debug!(%error, process = index, "could not send a message to a process of the job");
            }
        }
    }

    fn kill(&mut self) {
        for process in self.processes.values_mut() {
            // An error here means that it is gone already.
            let _ = process.child.kill();
        }
    }
}

/// How a process has ended, for the log of its job.
fn last_words(end: &ProcessEnd) -> String {
    match end {
        ProcessEnd::Said { exit, why, .. } if why.is_empty() => format!("ended: {}", exit.describe()),
        ProcessEnd::Said { exit, why, .. } => format!("ended: {}: {why}", exit.describe()),
        ProcessEnd::Died { why } => format!("ended: {why}"),
    }
}

/// A reason that is no longer than nodes can tell each other, with all those of other jobs.
pub(crate) fn shortened(mut why: String) -> String {
    if why.len() > LONGEST_REASON {
        let end = (0..=LONGEST_REASON).rev().find(|at| why.is_char_boundary(*at)).unwrap_or(0);
        why.truncate(end);
        why.push('…');
    }
    why
}

/// Whether a process hangs that has said nothing for so many looks, or whose slowest worker has computed for so long.
fn hangs(looks: u32, most: u32, step_ms: u64) -> Option<String> {
    if looks == most {
        return Some(format!("was silent for {most} s"));
    }
    let for_s = step_ms / 1000;
    (step_ms >= STEP_WITHIN_MS).then(|| format!("had a worker that computed for {for_s} s without a pause"))
}

/// Waits until the process has exited, and leaves its status to be collected.
fn wait_for_exit(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_two_characters() {
        assert_eq!(shortened("short".to_owned()), "short");
        let long = shortened("ä".repeat(5000));
        assert_eq!((long.chars().count(), long.ends_with("ä…")), (2049, true));
        assert!(shortened(format!("a{}", "ä".repeat(5000))).len() <= LONGEST_REASON + '…'.len_utf8());
    }

    #[test]
    fn a_process_hangs_that_is_silent_or_whose_worker_does_not_return() {
        for (looks, step_ms, expected) in [
            (1, 0, None),
            (4, 599_999, None),
            (5, 0, Some("was silent for 5 s")),
            (6, 0, None),
            (1, 600_000, Some("had a worker that computed for 600 s without a pause")),
        ] {
            assert_eq!(hangs(looks, 5, step_ms).as_deref(), expected, "{looks} {step_ms}");
        }
    }
}
