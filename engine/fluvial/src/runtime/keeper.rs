//! Starts the processes of one generation on this host, watches them, and ends them.
//!
//! ```text
//!   starting ──all said hello──► running ──first end──► ending ──all gone──► ended
//! ```
//!
//! **Guarantees** that its processes end when the keeper ends, even by SIGKILL, and that all processes of a generation end when
//! one of them does. **Does not** decide what follows; see [`fluvial_protocol::Decisions`].

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::Context;
use fluvial_connector::Generation;
use fluvial_protocol::{Exit, GenerationEnd, ProcessEnd, cause};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use signal_hook::consts::SIGKILL;

use super::allocator;
use super::ambient;
use super::log::Following;
use super::memory::Memory;
use super::mesh::Secret;
use super::peer::{FromPeer, Invitation, PEER_VARIABLE, PeerLink, Succession, ToPeer, read_line};
use super::supervisor::{Supervision, thread};

/// How long the other processes have to report why they end, after the first one has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long they have if the first one ended because the job is done: they only have to free their state, which can
/// take a while.
const LETTING_GO: Duration = Duration::from_secs(30);
/// A signal that arrives within this time after the first is the same one: programs such as `timeout` signal both a process and
/// its process group.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// An event of a run.
pub(super) enum Event {
    /// SIGTERM or SIGINT.
    Signal,
    /// Something about one process of one generation; what belongs to an earlier generation is passed over.
    Process { generation: u64, index: usize, what: What },
}

/// An event of a process.
pub(super) enum What {
    Connected(PeerLink, SocketAddr),
    Said(FromPeer),
    /// The connection has ended; all that it said has been heard.
    Silent,
    Exited,
}

/// A generation that has ended.
pub(super) struct Ended {
    pub(super) end: GenerationEnd,
    /// The generation's number, if it got one.
    pub(super) number: Option<Generation>,
}

/// A process, and what its keeper knows of it.
struct Process {
    child: Child,
    link: Option<(PeerLink, SocketAddr)>,
    exited: bool,
    silent: bool,
    said: Option<(Exit, String)>,
}

impl Process {
    /// Whether nothing more can come from the process.
    fn gone(&self) -> bool {
        self.exited && (self.link.is_none() || self.silent)
    }
}

/// The processes of one generation; dropping it kills what still runs.
pub(super) struct Processes {
    number: u64,
    processes: Vec<Process>,
    /// The output of the processes.
    following: Following,
    /// The memory of the control group before the processes were started, and what the kernel had killed in it.
    memory: Memory,
    /// The listener for the connections of the processes. A thread waits on it.
    listener: TcpListener,
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.kill();
        // Ends the thread that waits for connections; on an error it ends with this process.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        for process in &mut self.processes {
            // An error here means that it has been reaped already.
            let _ = process.child.wait();
        }
        self.following.end();
    }
}

impl Processes {
    /// Starts all processes of the generation that is the run's `number`-th; what happens to them comes as `events`.
    ///
    /// # Errors
    /// One of them cannot be started.
    pub(super) fn start(
        supervision: &Supervision,
        succession: Succession,
        number: u64,
        events: &Sender<Event>,
    ) -> anyhow::Result<Self> {
        let count = supervision.processes;
        let fail_point = supervision.fail_point.filter(|_| number == 0);
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on the loopback interface")?;
        let secret = Secret(ambient::secret());
        let binary = std::env::current_exe().context("cannot find this binary")?;
        let (following, memory) = (Following::new(), Memory::now());
        let mut this = Self { number, processes: Vec::new(), following, memory, listener };
        let supervisor = this.listener.local_addr()?;
        for index in 0..count {
            let invitation = Invitation {
                supervisor,
                secret: secret.to_hex(),
                index,
                succession,
                ansi: supervision.ansi,
                fail_point,
            };
            // The name that `ps` and `pgrep -f` show.
            let shown = format!("{} process {index} of {count}:", std::env::args().next().unwrap_or_default());
            let mut child = Command::new(&binary)
                .arg0(shown)
                .args(std::env::args_os().skip(1))
                .env(PEER_VARIABLE, serde_json::to_string(&invitation)?)
                .env(allocator::VARIABLE, allocator::tunables(std::env::var_os(allocator::VARIABLE)))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .with_context(|| format!("cannot start process {index} of the job"))?;
            let pid = Pid::from_child(&child);
            let following = this.following.follow(&mut child);
            this.processes.push(Process { child, link: None, exited: false, silent: false, said: None });
            following.context("cannot begin to read what the job's processes print")?;
            let events = events.clone();
            thread("exit", move || {
                wait_for_exit(pid);
                let _ = events.send(Event::Process { generation: number, index, what: What::Exited });
            })?;
        }
        let (listener, events) = (this.listener.try_clone()?, events.clone());
        thread("hello", move || accept(&listener, &secret, count, number, &events))?;
        Ok(this)
    }

    /// Waits until all of them have ended, and passes on what they have to be told.
    pub(super) fn run(mut self, inbox: &Receiver<Event>) -> Ended {
        let mut first_exit: Option<Instant> = None;
        let mut killed = false;
        let (mut opened, mut stopping, mut number) = (false, None, None);
        while !self.processes.iter().all(Process::gone) {
            let event = match first_exit.filter(|_| !killed) {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => inbox.recv_timeout((at + self.grace()).saturating_duration_since(ambient::instant())),
            };
            match event {
                Err(_) => {
                    self.kill();
                    killed = true;
                }
                Ok(Event::Signal) if stopping.is_some_and(|since: Instant| since.elapsed() < SAME_SIGNAL) => {}
                // Before it has claimed anything there is nothing to commit, and it may be waiting for a broker.
                Ok(Event::Signal) if stopping.is_some() || number.is_none() => {
                    let twice = stopping.is_some();
                    let why = if twice {
                        "told twice to stop, so the run ended at once"
                    } else {
                        "stopped before the job was open"
                    }
                    .to_owned();
                    let end = GenerationEnd { exit: Exit::StoppedUncommitted, why, opened, stopping: true };
                    return Ended { end, number };
                }
                Ok(Event::Signal) => {
                    stopping = Some(ambient::instant());
                    tracing::info!("stopping: committing and taking a last checkpoint; a second signal ends at once");
                    self.ask_to_stop();
                }
                Ok(Event::Process { generation, .. }) if generation != self.number => {}
                Ok(Event::Process { index, what, .. }) => match what {
                    What::Connected(link, address) => {
                        self.processes[index].link = Some((link, address));
                        self.introduce();
                        if stopping.is_some() {
                            self.ask_to_stop();
                        }
                    }
                    What::Said(FromPeer::Ended { exit, why }) => self.processes[index].said = Some((exit, why)),
                    What::Said(FromPeer::Opened(generation)) => number = Some(generation),
                    What::Said(FromPeer::Running) => opened = true,
                    What::Said(FromPeer::Hello { .. }) => {}
                    What::Silent => self.processes[index].silent = true,
                    What::Exited => {
                        self.processes[index].exited = true;
                        first_exit.get_or_insert_with(ambient::instant);
                    }
                },
            }
        }
        let (exit, why) = cause(self.ends());
        Ended { end: GenerationEnd { exit, why, opened, stopping: stopping.is_some() }, number }
    }

    /// How long the other processes have once the first has ended.
    fn grace(&self) -> Duration {
        let done = self.processes.iter().any(|process| matches!(process.said, Some((Exit::Done, _))));
        if done { LETTING_GO } else { LAST_WORDS }
    }

    fn kill(&mut self) {
        for process in &mut self.processes {
            // An error here means that it is gone already.
            let _ = process.child.kill();
        }
    }

    /// Once all are there, tells each where the others are.
    fn introduce(&mut self) {
        let addresses: Option<Vec<_>> = self.processes.iter().map(|p| p.link.as_ref().map(|(_, at)| *at)).collect();
        if let Some(addresses) = addresses {
            for (link, _) in self.processes.iter_mut().filter_map(|p| p.link.as_mut()) {
                link.say(&ToPeer::Peers(addresses.clone()));
            }
        }
    }

    /// Asks the first process to end the job well, once all are there.
    fn ask_to_stop(&mut self) {
        if self.processes.iter().all(|p| p.link.is_some())
            && let Some((link, _)) = &mut self.processes[0].link
        {
            link.say(&ToPeer::Stop);
        }
    }

    /// How each process ended.
    fn ends(&mut self) -> Vec<ProcessEnd> {
        let Self { processes, memory, .. } = self;
        let ends = processes.iter_mut().enumerate().map(|(index, process)| match process.said.take() {
            Some((exit, why)) => ProcessEnd::Said { exit, why },
            None => {
                let status = process.child.wait();
                let killed = status.as_ref().is_ok_and(|s| s.signal() == Some(SIGKILL));
                let for_memory = if killed { memory.explain() } else { None };
                let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                let died = format!("process {index} of the job died ({status})");
                ProcessEnd::Died { why: for_memory.map_or(died.clone(), |memory| format!("{died}: {memory}")) }
            }
        });
        ends.collect()
    }
}

/// Waits until the process has exited, and leaves its status to be collected.
fn wait_for_exit(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
}

/// Accepts the processes' connections and passes on what they say.
fn accept(listener: &TcpListener, secret: &Secret, count: usize, generation: u64, events: &Sender<Event>) {
    let mut missing = count;
    while missing > 0 {
        let Ok(accepted) = PeerLink::accept(listener, secret) else { return };
        let Some((index, address, link)) = accepted.filter(|(index, ..)| *index < count) else { continue };
        missing -= 1;
        let Ok(mut lines) = link.lines() else { continue };
        let tell = events.clone();
        let tell = move |what| tell.send(Event::Process { generation, index, what }).is_ok();
        tell(What::Connected(link, address));
        let silent = tell.clone();
        let listening = thread("process-link", move || {
            while let Ok(Some(message)) = read_line(&mut lines) {
                if !tell(What::Said(message)) {
                    return;
                }
            }
            tell(What::Silent);
        });
        if listening.is_err() {
            silent(What::Silent);
        }
    }
}
