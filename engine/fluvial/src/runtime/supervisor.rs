//! Starts the processes of a generation, waits for their end, and decides whether the next generation follows.
//!
//! ```text
//!   starting ──all said hello──► running ──first end──► ending ──all gone──► ended
//!                                                                              │ a restart may mend it
//!                                                                              └────► starting (at once, then with back-off)
//! ```
//!
//! The supervisor is the `run` process itself; it holds no dataflow, so every generation begins with fresh processes.
//! When it dies, however it dies, its processes die with it. When one process of a generation ends, all end.
//!
//! Until a generation has opened, misconfiguration is more likely than an outage, so an error ends the run instead of
//! being retried. Only the loss of a process is retried even then.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use fluvial_connector::Generation;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use signal_hook::consts::{SIGINT, SIGKILL, SIGTERM};
use signal_hook::iterator::Signals;

use super::allocator;
use super::ambient;
use super::ending::Ending;
use super::log::Following;
use super::memory::Memory;
use super::mesh::Secret;
use super::peer::{FromPeer, Invitation, PEER_VARIABLE, PeerLink, Succession, ToPeer, read_line};
use crate::fail_point::Doom;

/// How long the other processes have to say why they end once the first has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long they have where the first is done: nothing is left to do but to let go of the state, which takes its time.
const LETTING_GO: Duration = Duration::from_secs(30);
/// Signals that come so soon after the first are the same one: `timeout` and others tell a process and its group.
const SAME_SIGNAL: Duration = Duration::from_secs(1);
/// The longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The pause before the second restart in a row; the first comes at once.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// What to supervise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Supervision {
    /// How many processes a generation has.
    pub processes: usize,
    /// Whether to start the next generation when a restart may mend what ended the last one.
    pub restart: bool,
    /// Where the processes of the first generation end or stand still.
    pub fail_point: Option<Doom>,
    /// Whether their logs have colours.
    pub ansi: bool,
}

/// What the supervisor's threads tell it.
enum Event {
    /// SIGTERM or SIGINT.
    Signal,
    /// Something about one process of one generation; what belongs to an earlier generation is passed over.
    Process { generation: u64, index: usize, what: What },
}

enum What {
    Connected(PeerLink, SocketAddr),
    Said(FromPeer),
    /// The connection has ended; all that it said has been heard.
    Silent,
    Exited,
}

/// Runs generations until one ends for good. Returns how, and why.
///
/// # Errors
/// The processes cannot be started at all.
pub(crate) fn supervise(supervision: Supervision) -> anyhow::Result<(Ending, String)> {
    let (events, inbox) = channel();
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot watch for signals")?;
    let on_signal = events.clone();
    thread("signals", move || {
        for _ in signals.forever() {
            if on_signal.send(Event::Signal).is_err() {
                return;
            }
        }
    })?;
    let mut pause = Duration::ZERO;
    let mut ever_opened = false;
    let mut succession = Succession { run: ambient::nonce() as u32, follows: None };
    for number in 0.. {
        let ended = Processes::start(&supervision, succession, number, &events)?.run(&inbox);
        succession.follows = ended.generation.or(succession.follows);
        if ended.opened {
            pause = Duration::ZERO;
            ever_opened = true;
        }
        if ended.stopping || !supervision.restart || !ended.ending.a_restart_may_mend(ever_opened) {
            return Ok((ended.ending, ended.why));
        }
        tracing::warn!(why = ended.why, pause_ms = pause.as_millis(), "the generation ended, starting the next");
        if signalled_within(&inbox, pause) {
            return Ok((Ending::StoppedUncommitted, "stopped while waiting to restart".to_owned()));
        }
        pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    }
    unreachable!("generations follow each other until one is the last")
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
}

fn signalled_within(inbox: &Receiver<Event>, pause: Duration) -> bool {
    let until = ambient::instant() + pause;
    loop {
        match inbox.recv_timeout(until.saturating_duration_since(ambient::instant())) {
            Ok(Event::Signal) => return true,
            Ok(Event::Process { .. }) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
        }
    }
}

struct Ended {
    ending: Ending,
    why: String,
    /// The generation's number, if it got one.
    generation: Option<Generation>,
    /// Whether the generation opened: it came as far as minting.
    opened: bool,
    /// Whether it was asked to stop.
    stopping: bool,
}

/// One process as the supervisor knows it.
struct Process {
    child: Child,
    link: Option<(PeerLink, SocketAddr)>,
    exited: bool,
    silent: bool,
    ending: Option<(Ending, String)>,
}

impl Process {
    /// Whether there is nothing more to come from it.
    fn gone(&self) -> bool {
        self.exited && (self.link.is_none() || self.silent)
    }
}

/// The processes of one generation; dropping it kills what still runs.
struct Processes {
    number: u64,
    processes: Vec<Process>,
    /// What they print.
    following: Following,
    /// What the kernel had killed for memory before they were started.
    memory: Memory,
    /// Where they connect; a thread waits on it.
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
    fn start(
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
            let mut child = Command::new(&binary)
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
            this.processes.push(Process { child, link: None, exited: false, silent: false, ending: None });
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

    fn run(mut self, inbox: &Receiver<Event>) -> Ended {
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
                    let why =
                        if twice { "told twice to stop: ended at once" } else { "stopped while opening" }.to_owned();
                    let ending = Ending::StoppedUncommitted;
                    return Ended { ending, why, generation: number, opened, stopping: true };
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
                    What::Said(FromPeer::Ended { ending, why }) => self.processes[index].ending = Some((ending, why)),
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
        let (ending, why) = self.cause();
        Ended { ending, why, generation: number, opened, stopping: stopping.is_some() }
    }

    /// How long the other processes have once the first has ended.
    fn grace(&self) -> Duration {
        let done = self.processes.iter().any(|process| matches!(process.ending, Some((Ending::Done, _))));
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

    /// How the generation ended: what a process said of itself counts for more than that another lost it.
    fn cause(&mut self) -> (Ending, String) {
        let mut silent_death = None;
        let mut said = Vec::new();
        for (index, process) in self.processes.iter_mut().enumerate() {
            match process.ending.take() {
                Some(ending) => said.push(ending),
                None => {
                    let status = process.child.wait();
                    let killed = status.as_ref().is_ok_and(|s| s.signal() == Some(SIGKILL));
                    let for_memory = if killed { self.memory.explain() } else { None };
                    let status = status.map_or_else(|e| e.to_string(), |s| s.to_string());
                    let why = match for_memory {
                        Some(memory) => format!("process {index} of the job died ({status}): {memory}"),
                        None => format!("process {index} of the job died ({status})"),
                    };
                    silent_death.get_or_insert((Ending::PeerLost, why));
                }
            }
        }
        said.sort_by_key(|(ending, _)| match ending {
            Ending::PeerLost => 2,
            Ending::Done => 1,
            _ => 0,
        });
        let died =
            silent_death.filter(|_| said.first().is_none_or(|(e, _)| matches!(e, Ending::PeerLost | Ending::Done)));
        died.or_else(|| said.into_iter().next())
            .unwrap_or((Ending::PeerLost, "no process of the job could be started".to_owned()))
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
