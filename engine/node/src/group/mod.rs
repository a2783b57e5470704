//! A node of a group, a copy of a job or a node of a cluster: the loop that drives [`Node`], and what it does for it.
//!
//! ```text
//!   links, store, keepers, checks, users, signals ──Event──► Node::step ──NodeRequest──► links, store, keepers, programs
//! ```
//!
//! The loop waits for nothing but its next event. Calls to the store and messages are tasks of a runtime, and processes are
//! started on the thread of their [`Keeper`](crate::keeper::Keeper), so that no heartbeat waits for any of them.

mod attempt;
mod binary_files;
mod collection;
mod journal;
mod programs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use fluvial_connector::{Error, ErrorKind};
use fluvial_protocol::group::{
    AttemptNumber, Change, Message, Node, NodeEvent, NodeId, NodeRequest, Offer, Outcome, ProcessSays, Refusal,
    StoreAnswer, StoreCall, Times, Workers,
};
use fluvial_protocol::{Exit, ProcessEnd, PutOutcome, System};
use fluvial_store::Store;
use tokio::runtime::Runtime;

pub use binary_files::hash_of_file;
pub use collection::CollectionOptions;
pub use journal::GroupJournal;
pub use programs::{GoesBack, Kept, Previous, Shelf, Specification, hash};

use crate::changes::{Changes, Reply};
use crate::fail_point::{FailPoint, reach};
use crate::history::History;
use crate::http::{self, api};
use crate::isolation::{Isolation, IsolationOptions};
use crate::keeper::{ProcessEvent, Program};
use crate::links::{Envelope, LinkEvent, LinkOptions, Links, StoreProof};
use crate::logs::{Gathered, Logs, StoredLogs};
use crate::readiness::{Checks, Readiness};
use crate::signals::{self, SAME_SIGNAL};
use crate::status::{Board, Observer};
use crate::trust::Trust;
use attempt::Attempts;
use collection::Collector;
use programs::Programs;

/// How much longer than its last commit and checkpoint a copy may take to leave: the coordinator gathers changes for some
/// seconds, and may itself be lost meanwhile.
const LEAVING_BESIDES: Duration = Duration::from_secs(15);
/// How often a failure of the store is logged while it lasts.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Between two looks whether the store answers, before this copy has become a node.
const STORE_AGAIN: Duration = Duration::from_millis(500);

/// The name of a cluster, where a group of copies has the name of its job. No job has it.
pub const CLUSTER: &str = ".cluster";

/// What a node runs.
pub enum Runs {
    /// The job whose copy it is.
    Job {
        /// The name of the job.
        job: String,
        /// The program that this copy would run: the hash of the binary and of the job's own options.
        version: String,
        /// The number of workers that its user wants over all copies.
        workers: Workers,
        /// How it is checked whether this copy could run the job.
        checks: Checks,
    },
    /// What users of a cluster submit.
    Cluster {
        /// The location of the store, as processes of jobs are told.
        location: String,
        /// The folder of this host where binaries are kept.
        cache: PathBuf,
        /// The labels of this node.
        labels: BTreeMap<String, String>,
        /// How processes of jobs are kept apart from this node.
        isolation: IsolationOptions,
        /// Accepts the connections of users.
        api: std::net::TcpListener,
        /// The least time between two writes of a running process's log to the store.
        store_logs_every: Duration,
        /// How it collects what nothing refers to.
        collection: CollectionOptions,
        /// How long a program that a job was upgraded to may take until it reads input.
        trial: Duration,
    },
}

/// The options of a node.
pub struct GroupOptions {
    /// What it runs.
    pub runs: Runs,
    /// The store that the nodes share.
    pub store: Store,
    /// How many workers it can run.
    pub slots: u32,
    /// Accepts connections of other copies.
    pub listener: std::net::TcpListener,
    /// The `host:port` by which the others reach it.
    pub advertise: String,
    /// By what the copies know each other.
    pub trust: Arc<Trust>,
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
    /// Of a process of this job.
    Process(String, ProcessEvent),
    /// Why this copy could not run the job now, if it could not.
    Unready(Option<String>),
    /// Why this node of a cluster could not run a version now, if it could not.
    Checked(String, Option<String>),
    /// A user of a cluster wants a change; the answer goes there.
    Change(Change, Reply),
    /// What this node offers has changed.
    Offer,
    /// SIGTERM or SIGINT.
    Signal,
}

/// Runs the job together with other copies, or the jobs of a cluster together with other nodes, until the job ends or this node
/// leaves. Returns how, and why.
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
    options.trust.watch_files(runtime.handle());
    let board = Arc::new(Board::default());
    if let Some(listener) = options.http.take() {
        http::serve(listener, Arc::clone(&board), Arc::clone(&options.trust), runtime.handle())
            .context("cannot serve HTTP")?;
    }
    if let Some(ended) = wait_for_store(&options, &runtime, &inbox) {
        return Ok(ended);
    }
    let logs = matches!(options.runs, Runs::Cluster { .. }).then(|| Logs::new(&options.advertise));
    let stored = StoredLogs::new(options.store.clone(), CLUSTER);
    let ended = Copy::new(options, board, logs.clone(), &runtime, events)?.run(&inbox);
    if let Some(logs) = logs {
        runtime.block_on(logs.write_last(&stored));
    }
    // A call to the store that is under way is of no use any more.
    runtime.shutdown_background();
    Ok(ended)
}

/// Waits until the store answers and has shown that it honours conditional creates.
fn wait_for_store(options: &GroupOptions, runtime: &Runtime, inbox: &Receiver<Event>) -> Option<(Exit, String)> {
    let until = Instant::now() + options.patience;
    let mut said = false;
    loop {
        let name = options.store.path(&format!("{}/probe/{:016x}", options.runs.name(), rand::random::<u64>()));
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

impl Runs {
    /// The name of the job or of the cluster.
    fn name(&self) -> &str {
        match self {
            Self::Job { job, .. } => job,
            Self::Cluster { .. } => CLUSTER,
        }
    }

    /// The `host:port` of the API, on a node that others reach at `host`; `None` where there is no API.
    fn api_by(&self, host: &str) -> std::io::Result<Option<String>> {
        let Self::Cluster { api, .. } = self else { return Ok(None) };
        let address = api.local_addr()?;
        let everywhere = address.ip().is_unspecified();
        Ok(Some(if everywhere { format!("{host}:{}", address.port()) } else { address.to_string() }))
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

/// What can run here.
enum OfPrograms {
    /// This binary; it is checked as long as this is there.
    Own(Readiness),
    /// What users submit.
    Submitted(Box<Programs>),
}

/// A node that runs.
struct Copy<'a> {
    me: NodeId,
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
    programs: OfPrograms,
    /// The version that was started last of each job.
    versions: BTreeMap<String, String>,
    /// Who waits for what becomes of a change, by its number.
    replies: BTreeMap<u64, Reply>,
    /// What is to be said to them.
    answers: Vec<(Reply, Result<(), Refusal>)>,
    changes: u64,
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
        logs: Option<Logs>,
        runtime: &'a Runtime,
        events: Sender<Event>,
    ) -> anyhow::Result<Self> {
        let GroupOptions { runs, store, slots, listener, advertise, trust, .. } = options;
        let name = runs.name().to_owned();
        let host = advertise.rsplit_once(':').map_or(advertise.clone(), |(host, _)| host.to_owned());
        let listen = listener.local_addr()?.ip();
        let me = NodeId { address: advertise, start: rand::random() };
        let (version, workers, unready) = match &runs {
            Runs::Job { version, workers, .. } => {
                let unknown = "it is not known yet whether this copy can run the job".to_owned();
                (version.clone(), *workers, Some(unknown))
            }
            Runs::Cluster { .. } => (env!("CARGO_PKG_VERSION").to_owned(), Workers::Auto, None),
        };
        let (labels, times) = match &runs {
            Runs::Cluster { labels, trial, .. } => {
                let trial_ms = u64::try_from(trial.as_millis()).unwrap_or(u64::MAX);
                (labels.clone(), Times { trial_ms, ..Times::default() })
            }
            Runs::Job { .. } => (BTreeMap::new(), Times::default()),
        };
        let offer = Offer { version, slots, workers, unready, leaving: false, programs: BTreeMap::new(), labels };
        let link = events.clone();
        let of_users = events.clone();
        // A node that has ended takes no more of them.
        let changes = Changes::new(move |change, reply| drop(of_users.send(Event::Change(change, reply))));
        let history = History::default();
        let links = Links::start(
            LinkOptions {
                me: me.clone(),
                listener,
                trust: Arc::clone(&trust),
                proof: StoreProof::new(store.clone(), &name),
                board: Arc::clone(&board),
                changes: changes.clone(),
                logs: logs.clone(),
                history: logs.is_some().then(|| history.clone()),
            },
            runtime.handle(),
            // A copy that has ended reads no more events.
            move |event| drop(link.send(Event::Link(event))),
        )?;
        let of_checks = events.clone();
        let api = runs.api_by(&host)?;
        let (job, programs, isolation) = match runs {
            Runs::Job { job, checks, .. } => {
                let checked = move |unready| drop(of_checks.send(Event::Unready(unready)));
                (Some(job), OfPrograms::Own(Readiness::start(checks, checked)?), None)
            }
            Runs::Cluster { location, cache, isolation, api, store_logs_every, collection, .. } => {
                let isolation = Arc::new(Isolation::new(&isolation, &location, &cache)?);
                let checked = move |version: &str, unready| {
                    drop(of_checks.send(Event::Checked(version.to_owned(), unready)));
                };
                let (shelf, handle) = (
                    Shelf::new(store.clone(), CLUSTER, location, cache).isolated(Arc::clone(&isolation))?,
                    runtime.handle(),
                );
                let (stored, logs) = (StoredLogs::new(store.clone(), CLUSTER), logs.clone().unwrap_or(Logs::new("")));
                let gathered = Gathered::new(logs.clone(), stored.clone(), Arc::clone(&trust));
                handle.spawn(logs.write(stored, store_logs_every));
                handle.spawn(Collector::new(shelf.clone(), collection).run(Arc::clone(&board), changes.clone()));
                api::serve(api, Arc::clone(&board), trust, shelf.clone(), changes, (gathered, history), handle)
                    .context("cannot serve the API")?;
                let programs = Programs::new(shelf, handle.clone(), Arc::new(checked));
                (None, OfPrograms::Submitted(Box::new(programs)), Some(isolation))
            }
        };
        let of_processes = events.clone();
        let on_event = move |job: &str, event| drop(of_processes.send(Event::Process(job.to_owned(), event)));
        let on_event = Arc::new(on_event);
        let attempts = Attempts::new(me.clone(), listen, host, options.ansi, logs, isolation, on_event);
        Ok(Self {
            node: Node::new(me.clone(), job, offer.clone(), times, rand::random(), 0),
            me,
            started: Instant::now(),
            offer,
            stop_within: options.stop_within,
            leaving: None,
            journal: GroupJournal::new(store.clone(), &name),
            observer: Observer::new(name, store.describe().to_owned(), api, board),
            store,
            links,
            attempts,
            programs,
            versions: BTreeMap::new(),
            replies: BTreeMap::new(),
            answers: Vec::new(),
            changes: 0,
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
            // Who is told that a change was made finds it so.
            for (reply, answer) in std::mem::take(&mut self.answers) {
                if answer.is_ok() {
                    reach(FailPoint::BeforeAnswer);
                }
                // The request may have been given up.
                let _ = reply.send(answer);
            }
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
        self.attempts.forget_all_but(|job| self.node.running().contains_key(job));
        let requests = self.store.charged_requests().map(|own| own + self.attempts.store_requests());
        let (progress, figures) = (self.attempts.progress(), self.attempts.figures());
        let isolation = self.attempts.isolation();
        self.observer.look(&self.me, &self.offer, &self.node, (progress, figures), requests, isolation);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What an event means for the node, or how this copy ends with it.
    fn hear(&mut self, event: Event) -> Result<Option<NodeEvent>, (Exit, String)> {
        Ok(Some(match event {
            Event::Link(LinkEvent::Received(envelope)) => {
                let Envelope { from, message, authorities, .. } = *envelope;
                let record = self.node.record().filter(|_| self.node.members().is_some());
                // One that was superseded may not know it yet.
                let term = self.node.coordinator().map(|(_, term)| term);
                let obeyed = matches!(&message, Message::Orders(orders) if term.is_none_or(|term| orders.term >= term));
                self.attempts.hear(authorities, obeyed && record.is_none(), record);
                NodeEvent::Message { from, message }
            }
            Event::Link(LinkEvent::Gone(node)) => NodeEvent::Gone(node),
            // This copy runs the job, so it is the other one that has to end.
            Event::Link(LinkEvent::OtherTrust(_) | LinkEvent::OtherVersion(_))
                if self.node.running().values().any(|running| !running.is_over()) =>
            {
                return Ok(None);
            }
            Event::Link(LinkEvent::OtherStore(why) | LinkEvent::OtherTrust(why) | LinkEvent::OtherVersion(why)) => {
                return Err((Exit::Misconfigured, why));
            }
            Event::Store(Ok(answer)) => {
                self.looked |= matches!(answer, StoreAnswer::Newest(None) | StoreAnswer::Record(_));
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
            Event::Process(job, event) if self.becomes_unready(&job, &event) => {
                // The others must know that this node is not ready before they know that the attempt is over: the next one
                // would begin with it. A check tells when it is ready again.
                // This node holds the other end.
                let _ = self.events.send(Event::Process(job, event));
                NodeEvent::Offer(self.offer.clone())
            }
            Event::Process(job, ProcessEvent { attempt, process, says }) => {
                if let (ProcessSays::Ended(ProcessEnd::Died { .. }), OfPrograms::Submitted(programs), Some(version)) =
                    (&says, &self.programs, self.versions.get(&job))
                {
                    programs.repair(version);
                }
                NodeEvent::Process { job, attempt: AttemptNumber(attempt), process, says }
            }
            Event::Unready(unready) => {
                self.offer.unready = unready;
                NodeEvent::Offer(self.offer.clone())
            }
            Event::Checked(version, unready) => {
                // A check that began before the version was forgotten says nothing any more.
                if matches!(&self.programs, OfPrograms::Submitted(programs) if programs.prepares(&version)) {
                    self.offer.programs.insert(version, unready);
                }
                NodeEvent::Offer(self.offer.clone())
            }
            Event::Change(change, reply) => {
                self.changes += 1;
                self.replies.insert(self.changes, reply);
                NodeEvent::Change { number: self.changes, change }
            }
            Event::Offer => NodeEvent::Offer(self.offer.clone()),
            Event::Signal => return self.signal(),
        }))
    }

    /// Whether this node could not run a job as well as it could before, because a process could not.
    fn becomes_unready(&mut self, job: &str, event: &ProcessEvent) -> bool {
        let Some(why) = unreachable_from_here(&event.says).map(str::to_owned) else { return false };
        match &self.programs {
            OfPrograms::Own(readiness) if self.offer.unready.is_none() => {
                self.offer.unready = Some(why);
                readiness.check_again();
                true
            }
            OfPrograms::Own(_) => false,
            OfPrograms::Submitted(programs) => {
                let Some(version) = self.versions.get(job) else { return false };
                let Some(unready @ None) = self.offer.programs.get_mut(version) else { return false };
                *unready = Some(why);
                programs.check_again(version);
                true
            }
        }
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
                let authorities = self.attempts.authorities();
                self.links.send(&to, Envelope { from: self.me.clone(), message, authorities, history: None });
            }
            NodeRequest::Store(call) => self.ask(call),
            NodeRequest::Start { job, attempt, run, processes } => {
                reach(FailPoint::BeforeStart);
                let program = match &self.programs {
                    OfPrograms::Own(_) => Program::of_this_process().map_err(anyhow::Error::from),
                    OfPrograms::Submitted(programs) => programs.program(&attempt.version),
                };
                self.attempts.start(&job, &attempt, run, processes, program);
                self.versions.insert(job, attempt.version);
            }
            NodeRequest::Introduce { job, attempt, addresses } => {
                reach(FailPoint::BeforeIntroduction);
                self.attempts.introduce(&job, attempt, addresses);
            }
            NodeRequest::Stop { job, attempt } => {
                reach(FailPoint::BeforeStop);
                self.attempts.stop(&job, attempt);
            }
            NodeRequest::Kill { job, attempt } => self.attempts.kill(&job, attempt),
            NodeRequest::Exit(outcome) => return Some(outcome),
            NodeRequest::Answer { number, answer } => {
                self.answers.extend(self.replies.remove(&number).map(|reply| (reply, answer)));
            }
            NodeRequest::Prepare(versions) => {
                if let OfPrograms::Submitted(programs) = &mut self.programs {
                    programs.prepare(&versions);
                    self.offer.programs.retain(|version, _| versions.contains(version));
                    // This node holds the other end.
                    let _ = self.events.send(Event::Offer);
                }
            }
        }
        None
    }

    /// Makes a call to the store, whose answer comes as an event.
    fn ask(&mut self, call: StoreCall) {
        let mut after = None;
        if let StoreCall::Put(position, record) = &call {
            self.attempts.writes(*position, record);
            let number = AttemptNumber(*position);
            let begins = record.jobs.values().any(|job| job.attempt.as_ref().is_some_and(|of| of.number == number));
            reach(if begins { FailPoint::BeforeAttempt } else { FailPoint::BeforeRecord });
            after = Some(if begins { FailPoint::AfterAttempt } else { FailPoint::AfterRecord });
        }
        let (journal, events) = (self.journal.clone(), self.events.clone());
        self.runtime.spawn(async move {
            let answer = journal.call(&call).await.map_err(|error| match call {
                StoreCall::Put(..) => (error, StoreAnswer::Put(PutOutcome::Unknown)),
                StoreCall::Newest | StoreCall::Get(_) | StoreCall::Delete(_) => (error, StoreAnswer::Failed),
            });
            if let (Ok(StoreAnswer::Put(PutOutcome::Created)), Some(point)) = (&answer, after) {
                reach(point);
            }
            // A copy that has ended reads no more events.
            let _ = events.send(Event::Store(answer));
        });
    }
}
