//! A copy of a job as a node of a group: the loop that drives [`Node`], and what it does for it.
//!
//! ```text
//!   links, store, keeper, readiness, signals ──Event──► Node::step ──NodeRequest──► links, store, keeper
//! ```
//!
//! The loop waits for nothing but its next event. Calls to the store and messages are tasks of a runtime, and processes are
//! started on the thread of their [`Keeper`](crate::keeper::Keeper), so that no heartbeat waits for any of them.

mod attempt;
mod journal;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use fluvial_connector::{Error, ErrorKind};
use fluvial_protocol::group::{
    AttemptNumber, Message, Node, NodeEvent, NodeId, NodeRequest, Offer, Outcome, ProcessSays, StoreAnswer, StoreCall,
    Times, Workers,
};
use fluvial_protocol::{Exit, ProcessEnd, PutOutcome, System};
use fluvial_store::Store;
use tokio::runtime::Runtime;

pub use journal::GroupJournal;

use crate::http;
use crate::keeper::ProcessEvent;
use crate::links::{Envelope, LinkEvent, LinkOptions, Links, StoreProof};
use crate::readiness::{Checks, Readiness};
use crate::signals::{self, SAME_SIGNAL};
use crate::status::{Board, Observer};
use crate::trust::Trust;
use attempt::Attempts;

/// How much longer than its last commit and checkpoint a copy may take to leave: the coordinator gathers changes for some
/// seconds, and may itself be lost meanwhile.
const LEAVING_BESIDES: Duration = Duration::from_secs(15);
/// How often a failure of the store is logged while it lasts.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Between two looks whether the store answers, before this copy has become a node.
const STORE_AGAIN: Duration = Duration::from_millis(500);

/// The options of a copy.
pub struct GroupOptions {
    /// The name of the job.
    pub job: String,
    /// The store that the copies share.
    pub store: Store,
    /// The program that this copy would run: the hash of the binary and of the job's own options.
    pub version: String,
    /// How many workers it can run.
    pub slots: u32,
    /// The number of workers that its user wants over all copies.
    pub workers: Workers,
    /// Accepts connections of other copies.
    pub listener: std::net::TcpListener,
    /// The `host:port` by which the others reach it.
    pub advertise: String,
    /// By what the copies know each other.
    pub trust: Arc<Trust>,
    /// How it is checked whether this copy could run the job.
    pub checks: Checks,
    /// Accepts HTTP connections, if the copy is to serve its status.
    pub http: Option<std::net::TcpListener>,
    /// How long a store may be unavailable when the copy starts.
    pub patience: Duration,
    /// How long the last commit and checkpoint may take.
    pub stop_within: Duration,
    /// Whether the logs of the processes have colours.
    pub ansi: bool,
}

/// An event of a copy.
enum Event {
    Link(LinkEvent),
    Store(Result<StoreAnswer, (Error, StoreAnswer)>),
    Process(ProcessEvent),
    /// Why this copy could not run the job now, if it could not.
    Unready(Option<String>),
    /// SIGTERM or SIGINT.
    Signal,
}

/// Runs the job together with other copies, until it ends or this copy leaves. Returns how, and why.
///
/// # Errors
/// The copy cannot be set up.
pub fn join(mut options: GroupOptions) -> anyhow::Result<(Exit, String)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("group")
        .enable_all()
        .build()
        .context("cannot start the threads of this copy")?;
    let (events, inbox) = channel();
    let on_signal = events.clone();
    signals::watch(move || on_signal.send(Event::Signal).is_ok())?;
    let board = Arc::new(Board::default());
    if let Some(listener) = options.http.take() {
        http::serve(listener, Arc::clone(&board), Arc::clone(&options.trust), runtime.handle())
            .context("cannot serve HTTP")?;
    }
    if let Some(ended) = wait_for_store(&options, &runtime, &inbox) {
        return Ok(ended);
    }
    let ended = Copy::new(options, board, &runtime, events)?.run(&inbox);
    // A call to the store that is under way is of no use any more.
    runtime.shutdown_background();
    Ok(ended)
}

/// Waits until the store answers and has shown that it honours conditional creates.
fn wait_for_store(options: &GroupOptions, runtime: &Runtime, inbox: &Receiver<Event>) -> Option<(Exit, String)> {
    let until = Instant::now() + options.patience;
    let mut said = false;
    loop {
        let name = options.store.path(&format!("{}/probe/{:016x}", options.job, rand::random::<u64>()));
        let Err(error) = runtime.block_on(options.store.probe(&name)) else { return None };
        if error.kind != ErrorKind::Retry || Instant::now() >= until {
            return Some((Exit::of(error.kind, System::Store), format!("{:#}", anyhow::Error::new(error))));
        }
        if !std::mem::replace(&mut said, true) {
            let for_s = options.patience.as_secs();
            tracing::warn!(error = format!("{:#}", anyhow::Error::new(error)), for_s, "waiting for the store");
        }
        if let Ok(Event::Signal) = inbox.recv_timeout(STORE_AGAIN) {
            return Some((Exit::StoppedUncommitted, "stopped while waiting for the store".to_owned()));
        }
    }
}

/// Why a process could not go on, if it did not reach what it needs. Others may reach it.
fn unreachable_from_here(says: &ProcessSays) -> Option<&str> {
    match says {
        ProcessSays::Ended(ProcessEnd::Said { exit, why, .. }) => {
            matches!(exit, Exit::SinkFailed | Exit::SourceFailed | Exit::StoreFailed).then_some(why)
        }
        _ => None,
    }
}

/// A copy that runs.
struct Copy<'a> {
    me: NodeId,
    job: String,
    node: Node,
    started: Instant,
    offer: Offer,
    stop_within: Duration,
    leaving: Option<Instant>,
    journal: GroupJournal,
    observer: Observer,
    store: Store,
    links: Links,
    attempts: Attempts,
    /// Checks are made as long as this is there.
    readiness: Readiness,
    runtime: &'a Runtime,
    events: Sender<Event>,
    /// Whether the journal has been read.
    looked: bool,
    store_failure: Option<Instant>,
}

impl<'a> Copy<'a> {
    fn new(
        options: GroupOptions,
        board: Arc<Board>,
        runtime: &'a Runtime,
        events: Sender<Event>,
    ) -> anyhow::Result<Self> {
        let GroupOptions { job, store, version, slots, workers, listener, advertise, trust, .. } = options;
        let host = advertise.rsplit_once(':').map_or(advertise.clone(), |(host, _)| host.to_owned());
        let listen = listener.local_addr()?.ip();
        let me = NodeId { address: advertise, start: rand::random() };
        let offer = Offer {
            version,
            slots,
            workers,
            unready: Some("it is not known yet whether this copy can run the job".to_owned()),
            leaving: false,
        };
        let link = events.clone();
        let links = Links::start(
            LinkOptions {
                me: me.clone(),
                listener,
                trust,
                proof: StoreProof::new(store.clone(), &job),
                board: Arc::clone(&board),
            },
            runtime.handle(),
            // A copy that has ended reads no more events.
            move |event| drop(link.send(Event::Link(event))),
        )?;
        let of_checks = events.clone();
        let readiness = Readiness::start(options.checks, move |unready| drop(of_checks.send(Event::Unready(unready))))?;
        let of_processes = events.clone();
        let attempts = Attempts::new(me.clone(), listen, host, options.ansi, move |event| {
            drop(of_processes.send(Event::Process(event)));
        });
        Ok(Self {
            node: Node::new(me.clone(), job.clone(), offer.clone(), Times::default(), rand::random(), 0),
            me,
            started: Instant::now(),
            offer,
            stop_within: options.stop_within,
            leaving: None,
            journal: GroupJournal::new(store.clone(), &job),
            observer: Observer::new(job.clone(), store.describe().to_owned(), board),
            job,
            store,
            links,
            attempts,
            readiness,
            runtime,
            events,
            looked: false,
            store_failure: None,
        })
    }

    fn run(mut self, inbox: &Receiver<Event>) -> (Exit, String) {
        let mut event = None;
        loop {
            let requests = self.node.step(self.now_ms(), event);
            for request in requests {
                if let Some(outcome) = self.carry_out(request) {
                    return (outcome.exit, outcome.why);
                }
            }
            self.observe();
            let at = self.started + Duration::from_millis(self.node.deadline_ms());
            let heard = match inbox.recv_timeout(at.saturating_duration_since(Instant::now())) {
                Ok(event) => self.hear(event),
                Err(RecvTimeoutError::Timeout) => self.late(),
                Err(RecvTimeoutError::Disconnected) => unreachable!("this copy holds a sender"),
            };
            event = match heard {
                Ok(event) => event,
                Err(ended) => return ended,
            };
        }
    }

    /// Shows how this copy is to those who ask, and logs what has changed.
    fn observe(&mut self) {
        let requests = self.store.charged_requests().map(|own| own + self.attempts.store_requests());
        self.observer.look(&self.me, &self.offer, &self.node, self.attempts.progress(), requests);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What an event means for the node, or how this copy ends with it.
    fn hear(&mut self, event: Event) -> Result<Option<NodeEvent>, (Exit, String)> {
        Ok(Some(match event {
            Event::Link(LinkEvent::Received(envelope)) => {
                let Envelope { from, message, authority } = *envelope;
                self.attempts.hear(authority, matches!(message, Message::Orders(_)));
                NodeEvent::Message { from, message }
            }
            Event::Link(LinkEvent::Gone(node)) => NodeEvent::Gone(node),
            // This copy runs the job, so it is the other one that has to end.
            Event::Link(LinkEvent::OtherTrust(_)) if self.node.running().values().any(|running| !running.is_over()) => {
                return Ok(None);
            }
            Event::Link(LinkEvent::OtherStore(why) | LinkEvent::OtherTrust(why)) => {
                return Err((Exit::Misconfigured, why));
            }
            Event::Store(Ok(answer)) => {
                self.looked |= matches!(answer, StoreAnswer::Newest(_));
                if self.store_failure.take().is_some() {
                    tracing::info!("the store answers again");
                }
                NodeEvent::Store(answer)
            }
            Event::Store(Err((error, answer))) => {
                // What is wrong from the beginning is wrong with the options.
                if !self.looked && error.kind != ErrorKind::Retry {
                    let exit = Exit::of(error.kind, System::Store);
                    return Err((exit, format!("{:#}", anyhow::Error::new(error))));
                }
                self.say_failure(error);
                NodeEvent::Store(answer)
            }
            Event::Process(event) if self.offer.unready.is_none() && unreachable_from_here(&event.says).is_some() => {
                // The others must know that this copy is not ready before they know that the attempt is over: the next one
                // would begin with it. A check tells when it is ready again.
                self.offer.unready = unreachable_from_here(&event.says).map(str::to_owned);
                self.readiness.check_again();
                // This copy holds the other end.
                let _ = self.events.send(Event::Process(event));
                NodeEvent::Offer(self.offer.clone())
            }
            Event::Process(ProcessEvent { attempt, process, says }) => {
                NodeEvent::Process { job: self.job.clone(), attempt: AttemptNumber(attempt), process, says }
            }
            Event::Unready(unready) => {
                self.offer.unready = unready;
                NodeEvent::Offer(self.offer.clone())
            }
            Event::Signal => return self.signal(),
        }))
    }

    fn say_failure(&mut self, error: Error) {
        if self.store_failure.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            self.store_failure = Some(Instant::now());
            let error = format!("{:#}", anyhow::Error::new(error));
            tracing::warn!(error, "this copy does not reach the store, and cannot coordinate meanwhile");
        }
    }

    fn signal(&mut self) -> Result<Option<NodeEvent>, (Exit, String)> {
        match self.leaving {
            Some(since) if since.elapsed() < SAME_SIGNAL => Ok(None),
            Some(_) => {
                let why = "told twice to stop, so this copy ended at once".to_owned();
                Err((Exit::StoppedUncommitted, why))
            }
            None => {
                self.leaving = Some(Instant::now());
                tracing::info!("leaving the group; a second signal ends this copy at once");
                self.offer.leaving = true;
                Ok(Some(NodeEvent::Offer(self.offer.clone())))
            }
        }
    }

    /// Nothing has happened in time.
    fn late(&self) -> Result<Option<NodeEvent>, (Exit, String)> {
        let most = self.stop_within + LEAVING_BESIDES;
        if self.leaving.is_some_and(|since| since.elapsed() >= most) {
            let why = format!("could not leave within {} s, so this copy ended", most.as_secs());
            return Err((Exit::StoppedUncommitted, why));
        }
        Ok(None)
    }

    fn carry_out(&mut self, request: NodeRequest) -> Option<Outcome> {
        match request {
            NodeRequest::Send { to, message } => {
                let authority = self.attempts.authority();
                self.links.send(&to, Envelope { from: self.me.clone(), message, authority });
            }
            NodeRequest::Store(call) => self.ask(call),
            NodeRequest::Start { attempt, run, processes, .. } => self.attempts.start(&attempt, run, processes),
            NodeRequest::Introduce { attempt, addresses, .. } => self.attempts.introduce(attempt, addresses),
            NodeRequest::Stop { attempt, .. } => self.attempts.stop(attempt),
            NodeRequest::Kill { attempt, .. } => self.attempts.kill(attempt),
            NodeRequest::Exit(outcome) => return Some(outcome),
        }
        None
    }

    /// Makes a call to the store, whose answer comes as an event.
    fn ask(&mut self, call: StoreCall) {
        if let StoreCall::Put(position, record) = &call {
            self.attempts.writes(*position, record);
        }
        let (journal, events) = (self.journal.clone(), self.events.clone());
        self.runtime.spawn(async move {
            let answer = journal.call(&call).await.map_err(|error| match call {
                StoreCall::Put(..) => (error, StoreAnswer::Put(PutOutcome::Unknown)),
                StoreCall::Newest | StoreCall::Get(_) | StoreCall::Delete(_) => (error, StoreAnswer::Failed),
            });
            // A copy that has ended reads no more events.
            let _ = events.send(Event::Store(answer));
        });
    }
}
