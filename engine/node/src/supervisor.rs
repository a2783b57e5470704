//! The supervisor: the `run` process itself, which starts one generation after the other and holds no dataflow.
//!
//! Every generation begins with fresh processes, so nothing of the old one can leak into the new. A [`Keeper`]
//! starts and watches them, and [`Decisions`] says what follows when they have ended.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use fluvial_connector::Generation;
use fluvial_protocol::group::ProcessSays;
use fluvial_protocol::{Decisions, Exit, Fault, GenerationEnd, Layout, Next, ProcessEnd, cause};

use crate::keeper::{Keeper, Launch, ProcessEvent, Program};
use crate::process_link::{Invitation, MeshIdentity, MeshPlace, Succession};
use crate::secret::Secret;
use crate::signals::{self, SAME_SIGNAL};

/// How long the other processes have to report why they end, after the first one has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long they have if the first one ended because the job is done: they only have to free their state, which can
/// take a while.
const LETTING_GO: Duration = Duration::from_secs(30);

/// The options of a supervisor.
#[derive(Clone, Copy, Debug)]
pub struct Supervision {
    /// The numbers of workers and processes.
    pub layout: Layout,
    /// Whether to start the next generation when a restart may mend what ended the last one.
    pub restart: bool,
    /// Whether the logs of the processes have colours.
    pub ansi: bool,
}

/// An event of a run.
enum Event {
    /// SIGTERM or SIGINT.
    Signal,
    Process(ProcessEvent),
}

/// A generation that has ended.
struct Ended {
    end: GenerationEnd,
    /// The generation's number, if it got one.
    number: Option<Generation>,
}

/// Runs generations until one ends for good. Returns how, and why.
///
/// # Errors
/// The processes cannot be started at all.
pub fn supervise(supervision: Supervision) -> anyhow::Result<(Exit, String)> {
    let (events, inbox) = channel();
    let on_signal = events.clone();
    signals::watch(move || on_signal.send(Event::Signal).is_ok())?;
    let mut decisions = Decisions::new(supervision.restart);
    let mut succession = Succession { run: rand::random(), attempt: 0, follows: None };
    loop {
        let ended = generation(supervision, succession, &events, &inbox)?;
        succession.attempt += 1;
        succession.follows = ended.number.or(succession.follows);
        // Whoever watches a run on one host sees its restarts, and decides for how long it may go on.
        let Next::Start { pause_ms } = decisions.after(&ended.end, None) else {
            return Ok((ended.end.exit, ended.end.why));
        };
        tracing::warn!(why = ended.end.why, pause_ms, "the generation ended; starting the next one");
        if signalled_within(&inbox, Duration::from_millis(pause_ms)) {
            return Ok((Exit::StoppedUncommitted, "stopped while waiting to restart".to_owned()));
        }
    }
}

fn signalled_within(inbox: &Receiver<Event>, pause: Duration) -> bool {
    let until = Instant::now() + pause;
    loop {
        match inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::Signal) => return true,
            Ok(Event::Process(_)) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// Starts a generation, and waits until all of its processes have ended.
fn generation(
    supervision: Supervision,
    succession: Succession,
    events: &Sender<Event>,
    inbox: &Receiver<Event>,
) -> anyhow::Result<Ended> {
    let (layout, attempt) = (supervision.layout, u64::from(succession.attempt));
    let secret = Secret::new();
    let invitation = |index| Invitation {
        index,
        layout,
        succession,
        mesh: MeshPlace {
            listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
            host: Ipv4Addr::LOCALHOST.to_string(),
            identity: MeshIdentity::Plain(secret.clone()),
        },
        first: succession.attempt == 0,
        secrets: None,
        ansi: supervision.ansi,
    };
    let program = Program::of_this_process().context("cannot find this binary")?;
    let invitations = (0..layout.processes).map(invitation).collect();
    let launch = Launch { attempt, program, isolation: None, invitations, silent_looks: None, logs: None };
    let events = events.clone();
    // A run that has ended reads no more events.
    let keeper = Keeper::start(launch, move |event| drop(events.send(Event::Process(event))))?;
    Ok(Running::new(layout.processes as usize).watch(attempt, &keeper, inbox))
}

/// What is known of a generation that runs.
struct Running {
    listen: Vec<Option<String>>,
    ends: Vec<Option<ProcessEnd>>,
    first_end: Option<Instant>,
    number: Option<Generation>,
    opened: bool,
    stopping: Option<Instant>,
}

impl Running {
    fn new(processes: usize) -> Self {
        Self {
            listen: vec![None; processes],
            ends: vec![None; processes],
            first_end: None,
            number: None,
            opened: false,
            stopping: None,
        }
    }

    /// Passes on what the processes have to be told, until all have ended.
    fn watch(mut self, attempt: u64, keeper: &Keeper, inbox: &Receiver<Event>) -> Ended {
        let mut killed = false;
        while self.ends.iter().any(Option::is_none) {
            let event = match self.first_end.filter(|_| !killed) {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => inbox.recv_timeout((at + self.grace()).saturating_duration_since(Instant::now())),
            };
            match event {
                Err(_) => {
                    keeper.kill();
                    killed = true;
                }
                Ok(Event::Signal) => {
                    if let Some(ended) = self.signal(keeper) {
                        return ended;
                    }
                }
                Ok(Event::Process(event)) if event.attempt == attempt => self.process(event, keeper),
                Ok(Event::Process(_)) => {}
            }
        }
        let (exit, why) = cause(std::mem::take(&mut self.ends).into_iter().flatten());
        let stopping = self.stopping.is_some();
        Ended { end: self.end(exit, why, stopping), number: self.number }
    }

    /// Asks the generation to end well, if it is not asked yet and has anything to commit.
    fn signal(&mut self, keeper: &Keeper) -> Option<Ended> {
        if self.stopping.is_some_and(|since| since.elapsed() < SAME_SIGNAL) {
            return None;
        }
        let why = match self.stopping {
            Some(_) => "told twice to stop, so the run ended at once",
            // Before it has claimed anything there is nothing to commit, and it may be waiting for a broker.
            None if self.number.is_none() => "stopped before the job was open",
            None => {
                self.stopping = Some(Instant::now());
                tracing::info!("stopping: committing and taking a last checkpoint; a second signal ends at once");
                keeper.stop();
                return None;
            }
        };
        let (exit, why) = (Exit::StoppedUncommitted, why.to_owned());
        Some(Ended { end: self.end(exit, why, true), number: self.number })
    }

    fn process(&mut self, event: ProcessEvent, keeper: &Keeper) {
        let process = event.process as usize;
        match event.says {
            ProcessSays::Listens(address) => {
                self.listen[process] = Some(address);
                if let Some(addresses) = self.listen.iter().cloned().collect() {
                    keeper.introduce(addresses);
                }
            }
            ProcessSays::Opened(generation) => self.number = Some(generation),
            ProcessSays::Reads => self.opened = true,
            ProcessSays::Ended(end) => {
                self.ends[process] = Some(end);
                self.first_end.get_or_insert_with(Instant::now);
            }
        }
    }

    fn end(&self, exit: Exit, why: String, stopping: bool) -> GenerationEnd {
        // Failures of a run on one host are not counted.
        let (opened, lasted_ms, fault) = (self.opened, 0, Fault::None);
        GenerationEnd { exit, why, opened, healthy: opened, stopping, lasted_ms, fault }
    }

    /// How long the other processes have once the first has ended.
    fn grace(&self) -> Duration {
        let done = |end: &ProcessEnd| matches!(end, ProcessEnd::Said { exit: Exit::Done, .. });
        if self.ends.iter().flatten().any(done) { LETTING_GO } else { LAST_WORDS }
    }
}
