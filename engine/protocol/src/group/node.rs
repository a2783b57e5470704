//! A node of a group: whom it follows, when it claims the next term, and what it has its keeper do.
//!
//! ```text
//!   looking ─► following ──silence──► asking ──nobody hears──► claiming ──written──► coordinating
//!     ▲           ▲                     │ someone hears           │ another was faster      │ superseded
//!     │           └─────────────────────┴─────────────────────────┴─────────────────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fluvial_connector::Generation;

use super::changes::{Change, Refusal};
use super::coordinator::Coordinator;
use super::log::{Log, Logged, StoreAnswer, StoreCall};
use super::messages::{Command, JobOrder, Member, Message, Offer, Orders, ProcessState, Running, Status};
use super::record::{Attempt, AttemptNumber, GroupRecord, JobRecord, NodeId, Outcome, Term};
use super::{Chance, Times};
use crate::{Exit, ProcessEnd};

/// The largest number of times that the wait before a claim doubles: from 5 s to 160 s.
const MOST_DOUBLINGS: usize = 5;
/// How long a superseded term makes the wait longer.
const REMEMBERED_MS: u64 = 600_000;

/// An event of a node.
#[derive(Clone, Debug)]
pub enum NodeEvent {
    /// A message of another node.
    Message {
        /// The sender.
        from: NodeId,
        /// What it says.
        message: Message,
    },
    /// Nobody of this identity answers at its address: the connection is refused there, or another node answers. A host that
    /// is silent is not gone.
    Gone(NodeId),
    /// The answer of the store to the call under way.
    Store(StoreAnswer),
    /// What the node is and offers has changed.
    Offer(Offer),
    /// A user of a cluster wants something changed; answered by [`NodeRequest::Answer`] of the same number.
    Change {
        /// The number.
        number: u64,
        /// What is wanted.
        change: Change,
    },
    /// A process of an attempt listens, has ended, or says how far it is.
    Process {
        /// The name of the job.
        job: String,
        /// The attempt.
        attempt: AttemptNumber,
        /// The number of the process.
        process: u32,
        /// What it says.
        says: ProcessSays,
    },
}

/// What a node hears from a process of its own.
#[derive(Clone, Debug)]
pub enum ProcessSays {
    /// It waits at this address for the others.
    Listens(String),
    /// The journal is open.
    Opened(Generation),
    /// It has begun to read input.
    Reads,
    /// It has ended.
    Ended(ProcessEnd),
}

/// What a node wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeRequest {
    /// Send this message; it may be lost.
    Send {
        /// The receiver.
        to: NodeId,
        /// The message.
        message: Message,
    },
    /// Ask the store; one call at a time, which is answered by [`NodeEvent::Store`].
    Store(StoreCall),
    /// Say what became of a change.
    Answer {
        /// The number of the change.
        number: u64,
        /// Whether it stands in the journal.
        answer: Result<(), Refusal>,
    },
    /// Fetch and check these versions, and offer them; others are not needed.
    Prepare(BTreeSet<String>),
    /// Start these processes of an attempt.
    Start {
        /// The name of the job.
        job: String,
        /// The attempt.
        attempt: Attempt,
        /// The run to which it belongs.
        run: u32,
        /// The numbers of the processes.
        processes: std::ops::Range<u32>,
    },
    /// Tell this node's processes of the attempt where all of them listen.
    Introduce {
        /// The name of the job.
        job: String,
        /// The attempt.
        attempt: AttemptNumber,
        /// The addresses, by number.
        addresses: Vec<String>,
    },
    /// Ask the attempt to commit, take a checkpoint and end, if this node runs process 0.
    Stop {
        /// The name of the job.
        job: String,
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// End this node's processes of the attempt at once. Each is reported as ended.
    Kill {
        /// The name of the job.
        job: String,
        /// The attempt.
        attempt: AttemptNumber,
    },
    /// End this copy.
    Exit(Outcome),
}

/// What is said of the change of a number.
type Answer = (u64, Result<(), Refusal>);

/// A node as a state machine.
#[derive(Debug)]
pub struct Node {
    me: NodeId,
    times: Times,
    chance: Chance,
    now_ms: u64,
    /// The name of the only job, which is this node's own; `None` in a cluster.
    job: Option<String>,
    offer: Offer,
    /// By the name of the job.
    running: BTreeMap<String, Running>,
    /// What this node has had done for the newest attempt of each job.
    done: BTreeMap<String, Done>,
    log: Log,
    /// The position of the newest record when this node first looked: an outcome that stood there is not its own.
    first_look: Option<Option<u64>>,
    /// The newest term that it has heard of.
    term: Term,
    role: Role,
    /// The nodes that have ended its terms, with the times at which it learned of that. It has not heard any of them since.
    superseded_by: Vec<(NodeId, u64)>,
    status_number: u64,
    next_beat_ms: u64,
    members: Vec<NodeId>,
    /// When each other member was heard last; at first, since when it has been known as one.
    heard_ms: BTreeMap<NodeId, u64>,
    /// The changes that users want, by number.
    changes: Vec<(u64, Change)>,
    /// What is said of changes once the record that is being written stands in the journal.
    answers: Vec<Answer>,
    /// What is said of changes that change nothing, once so many looks have shown that this node still coordinates: one that began
    /// after the change was asked for.
    unchanged: Vec<(Answer, u32)>,
    /// The versions that this node was last told to prepare.
    prepared: BTreeSet<String>,
    requests: VecDeque<NodeRequest>,
    exited: bool,
}

/// The orders that have been carried out for an attempt that runs here.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    introduced: bool,
    stopped: bool,
    killed: bool,
    /// Since when the attempt reads input.
    reads_since_ms: Option<u64>,
}

#[derive(Debug)]
enum Role {
    /// It reads the journal.
    Looking,
    /// It sends its status to the coordinator of the newest term.
    Following { coordinator: NodeId, heard_ms: u64, orders: u64, reaches_store: bool },
    /// It asks the others whether they hear the coordinator.
    Asking { coordinator: NodeId, waits_for: BTreeSet<NodeId>, until_ms: u64 },
    /// It tries to write the next term's first record, and goes on saying to the coordinator that it is there.
    Claiming { coordinator: Option<NodeId> },
    /// It coordinates.
    Coordinating { coordinator: Box<Coordinator>, next_look_ms: u64, writes: bool },
}

impl Node {
    /// A node that has just started, at `now_ms` of a clock that only it reads. It is a copy of `job`, and ends with it, or a node
    /// of a cluster. `random` seeds the nonces of its records.
    #[must_use]
    pub fn new(me: NodeId, job: Option<String>, offer: Offer, times: Times, random: u64, now_ms: u64) -> Self {
        Self {
            me,
            times,
            chance: Chance::new(random),
            now_ms,
            job,
            offer,
            running: BTreeMap::new(),
            done: BTreeMap::new(),
            log: Log::new(),
            first_look: None,
            term: Term(0),
            role: Role::Looking,
            superseded_by: Vec::new(),
            status_number: 0,
            next_beat_ms: now_ms,
            members: Vec::new(),
            heard_ms: BTreeMap::new(),
            changes: Vec::new(),
            answers: Vec::new(),
            unchanged: Vec::new(),
            prepared: BTreeSet::new(),
            requests: VecDeque::new(),
            exited: false,
        }
    }

    /// Takes an event, if there is one, and the time; returns what is to be done.
    pub fn step(&mut self, now_ms: u64, event: Option<NodeEvent>) -> Vec<NodeRequest> {
        self.now_ms = now_ms;
        if let Some(event) = event {
            self.on(event);
        }
        self.advance();
        if let Some(call) = self.log.next_call(now_ms) {
            self.requests.push_back(NodeRequest::Store(call));
        }
        self.requests.drain(..).collect()
    }

    /// When [`Node::step`] is to be called again if nothing happens.
    #[must_use]
    pub fn deadline_ms(&self) -> u64 {
        self.now_ms + self.times.step_ms
    }

    /// Who it is.
    #[must_use]
    pub fn me(&self) -> &NodeId {
        &self.me
    }

    /// The newest record of the journal that this node has read or written.
    #[must_use]
    pub fn record(&self) -> Option<&GroupRecord> {
        self.log.newest().map(|(_, record)| record)
    }

    /// The same record, to be shared with those who ask.
    #[must_use]
    pub fn shared_record(&self) -> Option<&Arc<GroupRecord>> {
        self.log.shared()
    }

    /// The node that it takes for the coordinator, and the term.
    #[must_use]
    pub fn coordinator(&self) -> Option<(&NodeId, Term)> {
        match &self.role {
            Role::Following { coordinator, .. } | Role::Asking { coordinator, .. } => Some((coordinator, self.term)),
            Role::Coordinating { .. } => Some((&self.me, self.term)),
            Role::Looking | Role::Claiming { .. } => None,
        }
    }

    /// The nodes that it hears, itself among them, if it coordinates.
    #[must_use]
    pub fn members(&self) -> Option<Vec<Member>> {
        match &self.role {
            Role::Coordinating { coordinator, .. } => Some(coordinator.members.list(self.now_ms)),
            _ => None,
        }
    }

    /// Whether the store has answered lately.
    #[must_use]
    pub fn reaches_store(&self) -> bool {
        self.log.reaches_store(self.now_ms, &self.times)
    }

    /// The processes that it runs or ran last, by the name of their job.
    #[must_use]
    pub fn running(&self) -> &BTreeMap<String, Running> {
        &self.running
    }

    fn on(&mut self, event: NodeEvent) {
        match event {
            NodeEvent::Message { from, message } => self.receive(from, message),
            NodeEvent::Gone(node) => self.is_gone(&node),
            NodeEvent::Store(answer) => self.answered(answer),
            NodeEvent::Offer(offer) => {
                self.offer = offer;
                self.next_beat_ms = self.now_ms;
            }
            NodeEvent::Change { number, change } => {
                self.changes.push((number, change));
                if self.job.is_some() || !self.is_coordinating() {
                    self.refuse_changes();
                }
            }
            NodeEvent::Process { job, attempt, process, says } => self.process_says(&job, attempt, process, says),
        }
    }

    /// Refuses the changes that are not being written.
    fn refuse_changes(&mut self) {
        let refused = std::mem::take(&mut self.changes).into_iter();
        self.answer(refused.map(|(number, _)| (number, Err(Refusal::NotCoordinator))), false);
    }

    /// Gives answers, as they are or because this node's term may be over.
    fn answer(&mut self, answers: impl IntoIterator<Item = Answer>, is_over: bool) {
        let answers = answers.into_iter().map(|(number, answer)| {
            let answer = if is_over { Err(Refusal::NotCoordinator) } else { answer };
            NodeRequest::Answer { number, answer }
        });
        self.requests.extend(answers);
    }

    fn process_says(&mut self, job: &str, attempt: AttemptNumber, process: u32, says: ProcessSays) {
        let Some(running) = self.running.get_mut(job).filter(|running| running.attempt == attempt) else { return };
        let state = running.processes.entry(process).or_insert(ProcessState::Started);
        match says {
            _ if state.end().is_some() => return,
            ProcessSays::Opened(generation) => running.generation = Some(generation),
            ProcessSays::Reads => {
                running.reads = true;
                if let Some(done) = self.done.get_mut(job) {
                    done.reads_since_ms.get_or_insert(self.now_ms);
                }
            }
            ProcessSays::Listens(address) => *state = ProcessState::Listens(address),
            ProcessSays::Ended(end) => *state = ProcessState::Ended(end),
        }
        self.next_beat_ms = self.now_ms;
    }

    // ---- messages

    fn receive(&mut self, from: NodeId, message: Message) {
        if self.superseded_by.iter().any(|(node, _)| *node == from) {
            self.superseded_by.clear();
        }
        if let Some(heard_ms) = self.heard_ms.get_mut(&from) {
            *heard_ms = self.now_ms;
        }
        match message {
            Message::Status(status) => {
                if status.term > self.term {
                    self.log.look();
                }
                if let Role::Coordinating { coordinator, .. } = &mut self.role {
                    coordinator.members.hear(from, *status, self.now_ms);
                }
            }
            Message::Orders(orders) => self.obey(from, *orders),
            Message::Ask { term } => {
                let hears = term <= self.term && self.hears();
                self.send(from, Message::Hears { term: self.term, hears });
            }
            Message::Hears { term, hears } => {
                let silence_ms = self.silence_ms();
                if let Role::Asking { coordinator, waits_for, .. } = &mut self.role {
                    waits_for.remove(&from);
                    if hears && term >= self.term {
                        let coordinator = coordinator.clone();
                        self.follow(coordinator);
                        // The other may only have heard it a moment later than this node: it is asked again soon.
                        if let Role::Following { heard_ms, .. } = &mut self.role {
                            *heard_ms = (self.now_ms + self.times.answer_ms).saturating_sub(silence_ms);
                        }
                    }
                }
                if term > self.term {
                    self.log.look();
                }
            }
        }
    }

    /// Whether it hears a coordinator that can do its work.
    fn hears(&self) -> bool {
        match &self.role {
            Role::Following { heard_ms, reaches_store, orders, .. } => {
                *orders > 0 && *reaches_store && self.now_ms < heard_ms + self.times.silence_ms
            }
            Role::Coordinating { .. } => self.log.reaches_store(self.now_ms, &self.times),
            Role::Looking | Role::Asking { .. } | Role::Claiming { .. } => false,
        }
    }

    fn obey(&mut self, from: NodeId, orders: Orders) {
        if orders.term < self.term || from == self.me {
            return;
        }
        if orders.term > self.term {
            self.term = orders.term;
            self.follow(from.clone());
        }
        match &mut self.role {
            Role::Following { coordinator, heard_ms, orders: number, reaches_store } => {
                if *coordinator != from || orders.number <= *number {
                    return;
                }
                *number = orders.number;
                *reaches_store = orders.reaches_store;
                // One that cannot reach the store counts as silent, for those who can.
                if orders.reaches_store {
                    *heard_ms = self.now_ms;
                }
            }
            // The coordinator is there again.
            Role::Asking { .. } | Role::Claiming { .. } if orders.reaches_store => {
                self.follow(from);
                if let Role::Following { orders: number, .. } = &mut self.role {
                    *number = orders.number;
                }
            }
            _ => return,
        }
        self.members.clone_from(&orders.members);
        self.heard_ms.retain(|node, _| orders.members.contains(node));
        for node in orders.members.iter().filter(|node| **node != self.me) {
            self.heard_ms.entry(node.clone()).or_insert(self.now_ms);
        }
        self.carry_out(orders);
    }

    fn carry_out(&mut self, orders: Orders) {
        if let Some(outcome) = orders.outcome {
            self.end(outcome);
            return;
        }
        // A job without an attempt was deleted, or begins a new run, while this node was not heard.
        let is_ordered = |job: &String| orders.jobs.iter().any(|order| order.job == *job);
        let left_over = self.running.iter().filter(|(job, running)| !running.is_over() && !is_ordered(job));
        let left_over: Vec<_> = left_over.map(|(job, running)| (job.clone(), running.attempt)).collect();
        for (job, attempt) in left_over {
            self.kill(job, attempt);
        }
        // Nobody needs to know any more how an attempt ended that another one has followed: statuses go to all members each second.
        let is_newest = |job: &String, number: AttemptNumber| {
            orders.jobs.iter().any(|order| order.job == *job && order.attempt.number <= number)
        };
        self.running.retain(|job, running| !running.is_over() || is_newest(job, running.attempt));
        let running = &self.running;
        self.done.retain(|job, _| running.contains_key(job) || is_ordered(job));
        for order in orders.jobs {
            self.run(order);
        }
        if self.prepared != orders.versions {
            self.prepared.clone_from(&orders.versions);
            self.requests.push_back(NodeRequest::Prepare(orders.versions));
        }
        if orders.may_leave && self.offer.leaving && self.is_idle() {
            self.end(Outcome { exit: Exit::Done, why: String::new() });
        }
    }

    /// Whether none of its processes runs.
    fn is_idle(&self) -> bool {
        self.running.values().all(Running::is_over)
    }

    /// Brings what runs here of a job to what is wanted of it.
    fn run(&mut self, order: JobOrder) {
        let JobOrder { job, run, attempt, command } = order;
        let number = attempt.number;
        match self.running.get(&job) {
            Some(running) if running.attempt > number => return,
            Some(running) if running.attempt < number && !running.is_over() => {
                let old = running.attempt;
                self.kill(job, old);
                return;
            }
            Some(running) if running.attempt == number => {}
            _ => {
                let processes = attempt.placement.of(&self.me);
                if processes.is_empty() || !matches!(command, Command::Start | Command::Run(_)) {
                    return;
                }
                let running = Running {
                    attempt: number,
                    processes: processes.clone().map(|process| (process, ProcessState::Started)).collect(),
                    generation: None,
                    reads: false,
                    healthy: false,
                    asked_to_stop: false,
                };
                self.done.insert(job.clone(), Done::default());
                self.running.insert(job.clone(), running);
                self.requests.push_back(NodeRequest::Start { job: job.clone(), attempt, run, processes });
                self.next_beat_ms = self.now_ms;
            }
        }
        let (Some(running), Some(done)) = (self.running.get_mut(&job), self.done.get_mut(&job)) else { return };
        match command {
            Command::Start => {}
            Command::Run(addresses) => {
                if !std::mem::replace(&mut done.introduced, true) {
                    self.requests.push_back(NodeRequest::Introduce { job, attempt: number, addresses });
                }
            }
            Command::Stop => {
                if running.processes.contains_key(&0) && !std::mem::replace(&mut done.stopped, true) {
                    running.asked_to_stop = true;
                    self.requests.push_back(NodeRequest::Stop { job, attempt: number });
                    self.next_beat_ms = self.now_ms;
                }
            }
            Command::Kill => self.kill(job, number),
        }
    }

    fn kill(&mut self, job: String, attempt: AttemptNumber) {
        if !std::mem::replace(&mut self.done.entry(job.clone()).or_default().killed, true) {
            self.requests.push_back(NodeRequest::Kill { job, attempt });
        }
    }

    fn end(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.exited, true) {
            self.requests.push_back(NodeRequest::Exit(outcome));
        }
    }

    // ---- who coordinates

    fn follow(&mut self, coordinator: NodeId) {
        // What it decided as a coordinator, or wanted to claim, counts no more.
        self.log.withdraw();
        self.refuse_changes();
        let (written, unchanged) = (std::mem::take(&mut self.answers), std::mem::take(&mut self.unchanged));
        self.answer(written, true);
        self.answer(unchanged.into_iter().map(|(answer, _)| answer), true);
        self.role = Role::Following { coordinator, heard_ms: self.now_ms, orders: 0, reaches_store: true };
        self.next_beat_ms = self.now_ms;
    }

    fn is_gone(&mut self, node: &NodeId) {
        // While this node does not hear the one that superseded it, a refused connection proves nothing: a firewall may refuse it.
        let believes = self.silence_ms() == self.times.silence_ms;
        match &mut self.role {
            Role::Following { coordinator, .. } if coordinator == node && believes => self.ask(),
            Role::Asking { waits_for, .. } => drop(waits_for.remove(node)),
            Role::Coordinating { coordinator, .. } => coordinator.members.is_gone(node),
            _ => {}
        }
    }

    /// All other nodes that it knows: the members, and the nodes of the newest attempt.
    fn others(&self) -> BTreeSet<NodeId> {
        let jobs = self.record().into_iter().flat_map(|record| record.jobs.values());
        let attempts = jobs.filter_map(|job| job.attempt.as_ref());
        let places = attempts.flat_map(|attempt| &attempt.placement.places).map(|(node, _)| node);
        self.members.iter().chain(places).filter(|node| **node != self.me).cloned().collect()
    }

    /// Asks all others that it knows whether they hear the coordinator.
    fn ask(&mut self) {
        let Role::Following { coordinator, .. } = &self.role else { return };
        let coordinator = coordinator.clone();
        let mut waits_for = self.others();
        waits_for.remove(&coordinator);
        for node in waits_for.clone() {
            self.send(node, Message::Ask { term: self.term });
        }
        self.role = Role::Asking { coordinator, waits_for, until_ms: self.now_ms + self.times.answer_ms };
    }

    fn claim(&mut self) {
        let coordinator = match &self.role {
            Role::Following { coordinator, .. } | Role::Asking { coordinator, .. } => Some(coordinator.clone()),
            Role::Claiming { coordinator } => coordinator.clone(),
            Role::Looking | Role::Coordinating { .. } => None,
        };
        self.role = Role::Claiming { coordinator };
        let newest = self.log.newest().map(|(_, record)| record.clone());
        let term = newest.as_ref().map_or(0, |record| record.term.0).max(self.term.0) + 1;
        let (mut jobs, draining, clock_ms, removing) =
            newest.map(|record| (record.jobs, record.draining, record.clock_ms, record.removing)).unwrap_or_default();
        if let Some(own) = &self.job {
            // What ended before this node began is not its own: it begins anew.
            jobs.retain(|_, job| job.outcome.is_none());
            let run = self.chance.next() as u32;
            jobs.entry(own.clone()).or_insert_with(|| JobRecord::new(run));
        }
        let (nonce, coordinator) = (self.chance.next(), self.me.clone());
        let record = GroupRecord { nonce, term: Term(term), coordinator, jobs, draining, clock_ms, removing };
        self.log.append(record, Vec::new());
    }

    /// How the only job has ended, if a record says so.
    fn outcome_in<'a>(&self, record: &'a GroupRecord) -> Option<&'a Outcome> {
        record.jobs.get(self.job.as_ref()?)?.outcome.as_ref()
    }

    fn answered(&mut self, answer: StoreAnswer) {
        let Some(logged) = self.log.on(answer, self.now_ms, &self.times) else { return };
        if self.first_look.is_none() {
            self.first_look = Some(self.log.newest().map(|(position, _)| position));
        }
        if let Some((position, record)) = self.log.newest()
            && let Some(outcome) = self.outcome_in(record).cloned()
            && self.first_look.is_some_and(|first| first < Some(position))
            && !self.is_coordinating()
        {
            self.end(outcome);
            return;
        }
        let newest = self.record().map(|record| (record.term, record.coordinator.clone()));
        match logged {
            // Another node's term has begun since it was handed in.
            Logged::Mine { .. } if newest.as_ref().is_some_and(|(term, _)| *term < self.term) => self.log.look(),
            Logged::Mine { attempts } => match &mut self.role {
                Role::Coordinating { coordinator, writes, .. } => {
                    *writes = false;
                    coordinator.wrote(attempts, self.now_ms);
                    let answers = std::mem::take(&mut self.answers);
                    let unchanged = std::mem::take(&mut self.unchanged).into_iter().map(|(answer, _)| answer);
                    self.answer(answers.into_iter().chain(unchanged), false);
                    self.next_beat_ms = self.now_ms;
                }
                _ => self.coordinate(),
            },
            Logged::Read => match newest {
                Some((term, coordinator)) if coordinator == self.me => {
                    // A claim that it had given up has been written after all.
                    if !self.is_coordinating() && term > self.term {
                        self.coordinate();
                    } else if self.is_coordinating() {
                        self.has_looked();
                    }
                }
                // What was found where the claim was to stand is an earlier record of the coordinator that nobody hears: this
                // node had not read it.
                Some((term, coordinator)) if term == self.term && self.claims_after(&coordinator) => self.claim(),
                Some((term, coordinator))
                    if term > self.term || matches!(self.role, Role::Looking | Role::Claiming { .. }) =>
                {
                    if self.is_coordinating() {
                        let now_ms = self.now_ms;
                        self.superseded_by.retain(|(_, at_ms)| now_ms < at_ms + REMEMBERED_MS);
                        self.superseded_by.push((coordinator.clone(), self.now_ms));
                    }
                    self.term = term;
                    self.follow(coordinator);
                    self.begin_anew_if_over();
                }
                Some(_) => {}
                None => self.claim(),
            },
        }
    }

    /// The newest record is still this coordinator's.
    fn has_looked(&mut self) {
        self.unchanged.iter_mut().for_each(|(_, looks)| *looks -= 1);
        let confirmed = self.unchanged.extract_if(.., |(_, looks)| *looks == 0).map(|(answer, _)| answer);
        let confirmed: Vec<_> = confirmed.collect();
        self.answer(confirmed, false);
        if !self.unchanged.is_empty() {
            self.log.look();
        }
    }

    /// Claims the next term at once where the job had ended before this node began.
    fn begin_anew_if_over(&mut self) {
        let over_before = self
            .log
            .newest()
            .is_some_and(|(at, record)| self.outcome_in(record).is_some() && self.first_look == Some(Some(at)));
        if over_before {
            self.claim();
        }
    }

    /// Whether it claims the term after that of this coordinator.
    fn claims_after(&self, coordinator: &NodeId) -> bool {
        matches!(&self.role, Role::Claiming { coordinator: Some(silent) } if silent == coordinator)
    }

    fn is_coordinating(&self) -> bool {
        matches!(self.role, Role::Coordinating { .. })
    }

    /// Its record has become the newest one.
    fn coordinate(&mut self) {
        let Some(record) = self.record().cloned() else { return };
        self.term = record.term;
        // As the coordinator it counts those as lost that it does not hear. Who was silent before is not waited for again.
        let heard_ms = std::mem::take(&mut self.heard_ms);
        let mut coordinator = Coordinator::new(self.times, &record, self.now_ms);
        // The others learn of the new term from its orders.
        for node in self.others() {
            let heard_ms = heard_ms.get(&node).copied().unwrap_or(self.now_ms);
            coordinator.members.expect(node, heard_ms);
        }
        let next_look_ms = self.now_ms + self.times.look_ms;
        self.role = Role::Coordinating { coordinator: Box::new(coordinator), next_look_ms, writes: false };
        self.next_beat_ms = self.now_ms;
    }

    // ---- time

    /// How long it waits for a coordinator that says nothing. Two parts of a group that do not reach each other, while both
    /// reach the store, would otherwise end each other's terms all the time. The wait doubles for each node by itself, so the
    /// larger part, whose nodes take turns, waits less.
    fn silence_ms(&self) -> u64 {
        let lately = self.superseded_by.iter().filter(|(_, at_ms)| self.now_ms < at_ms + REMEMBERED_MS);
        self.times.silence_ms << lately.count().min(MOST_DOUBLINGS)
    }

    /// Notes which attempts have read input for long enough.
    fn watch_health(&mut self) {
        let healthy_ms = self.times.healthy_ms;
        for (job, running) in self.running.iter_mut().filter(|(_, running)| !running.healthy && !running.is_over()) {
            let since_ms = self.done.get(job).and_then(|done| done.reads_since_ms);
            running.healthy = since_ms.is_some_and(|since_ms| self.now_ms >= since_ms + healthy_ms);
        }
    }

    fn advance(&mut self) {
        if self.exited {
            return;
        }
        self.watch_health();
        let silence_ms = self.silence_ms();
        match &mut self.role {
            Role::Looking => self.log.look(),
            Role::Following { heard_ms, .. } if self.now_ms >= *heard_ms + silence_ms => self.ask(),
            Role::Following { .. } | Role::Claiming { .. } => {}
            Role::Asking { waits_for, until_ms, .. } => {
                if waits_for.is_empty() || self.now_ms >= *until_ms {
                    self.claim();
                }
            }
            Role::Coordinating { next_look_ms, .. } => {
                if self.now_ms >= *next_look_ms || !self.unchanged.is_empty() {
                    *next_look_ms = self.now_ms + self.times.look_ms;
                    self.log.look();
                }
                if !self.log.reaches_store(self.now_ms, &self.times) {
                    // A change that was refused must not be made later.
                    self.refuse_changes();
                }
                self.decide();
            }
        }
        let alone = match &self.role {
            Role::Looking | Role::Asking { .. } | Role::Claiming { .. } => true,
            Role::Following { heard_ms, .. } => self.now_ms >= *heard_ms + self.times.silence_ms,
            Role::Coordinating { .. } => false,
        };
        if self.offer.leaving && self.is_idle() && alone {
            self.end(Outcome { exit: Exit::Done, why: String::new() });
        }
        if self.now_ms >= self.next_beat_ms {
            self.next_beat_ms = self.now_ms + self.times.heartbeat_ms;
            self.beat();
        }
    }

    fn status(&mut self) -> Status {
        self.status_number += 1;
        let silent = |heard_ms: &u64| self.now_ms >= heard_ms + self.times.silence_ms;
        let deaf_to = self.heard_ms.iter().filter(|(_, heard_ms)| silent(heard_ms)).map(|(node, _)| node.clone());
        Status {
            number: self.status_number,
            term: self.term,
            offer: self.offer.clone(),
            running: self.running.clone(),
            deaf_to: deaf_to.collect(),
        }
    }

    /// Says to the others what they have to hear each second.
    fn beat(&mut self) {
        let status = self.status();
        let reaches_store = self.log.reaches_store(self.now_ms, &self.times);
        let record = self.log.shared().cloned();
        match &mut self.role {
            Role::Following { coordinator, .. }
            | Role::Asking { coordinator, .. }
            | Role::Claiming { coordinator: Some(coordinator) } => {
                let mut to: BTreeSet<_> = self.heard_ms.keys().cloned().collect();
                to.insert(coordinator.clone());
                for node in to {
                    self.send(node, Message::Status(Box::new(status.clone())));
                }
            }
            Role::Coordinating { coordinator, .. } => {
                coordinator.members.hear(self.me.clone(), status, self.now_ms);
                // Where a record of another coordinator has been read, that one gives the orders of its term.
                let Some(record) = record.filter(|record| record.coordinator == self.me) else { return };
                for (to, orders) in coordinator.orders(&record, reaches_store, self.now_ms) {
                    if to == self.me {
                        self.carry_out(orders);
                    } else {
                        self.send(to, Message::Orders(Box::new(orders)));
                    }
                }
            }
            Role::Looking | Role::Claiming { .. } => {}
        }
    }

    fn decide(&mut self) {
        let status = self.status();
        // A record of another coordinator has been read: this one's term is over.
        let Some((_, record)) = self.log.newest().filter(|(_, record)| record.coordinator == self.me) else { return };
        let Role::Coordinating { coordinator, writes, .. } = &mut self.role else { return };
        coordinator.members.hear(self.me.clone(), status, self.now_ms);
        if *writes {
            return;
        }
        // Most steps change nothing, and copy nothing.
        let (mut next, mut answers) = (None, Vec::new());
        if !self.changes.is_empty() {
            let (numbers, changes): (Vec<_>, Vec<_>) = std::mem::take(&mut self.changes).into_iter().unzip();
            let chance = &mut self.chance;
            let changes = changes.into_iter().map(|change| (change, chance.next() as u32));
            let (changed, results) = coordinator.change(record, changes, self.now_ms);
            answers = numbers.into_iter().zip(results).collect();
            next = Some(changed).filter(|changed| changed != record);
        }
        let decided = coordinator.decide(next.as_ref().unwrap_or(record), self.now_ms);
        let Some((mut next, new_attempts)) = decided.or(next.map(|changed| (changed, Vec::new()))) else {
            // Whether that is so is only known if this node still coordinates.
            let looks = if self.log.is_idle() { 1 } else { 2 };
            self.unchanged.extend(answers.into_iter().map(|answer| (answer, looks)));
            if !self.unchanged.is_empty() {
                self.log.look();
            }
            return;
        };
        self.answers.extend(answers);
        *writes = true;
        next.nonce = self.chance.next();
        next.clock_ms = coordinator.clock_ms(self.now_ms);
        self.log.append(next, new_attempts);
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.requests.push_back(NodeRequest::Send { to, message });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Workers;
    use super::*;

    fn id(name: &str) -> NodeId {
        NodeId { address: name.to_owned(), start: 1 }
    }

    fn offer() -> Offer {
        Offer {
            version: "1".to_owned(),
            slots: 2,
            workers: Workers::Auto,
            unready: None,
            leaving: false,
            programs: BTreeMap::new(),
            labels: BTreeMap::new(),
        }
    }

    fn orders(term: u64, number: u64) -> Message {
        Message::Orders(Box::new(Orders {
            number,
            term: Term(term),
            members: vec![id("a"), id("b")],
            reaches_store: true,
            jobs: Vec::new(),
            versions: BTreeSet::new(),
            outcome: None,
            may_leave: false,
        }))
    }

    /// The nodes that followed it heard the coordinator of that term no more, for ever.
    #[test]
    fn a_coordinator_that_has_read_the_record_of_the_next_one_gives_no_orders_of_that_term() {
        let mut node = Node::new(id("a"), Some("job".to_owned()), offer(), Times::default(), 1, 0);
        let stored = |answer| Some(NodeEvent::Store(answer));
        let put = |requests: Vec<NodeRequest>| {
            requests.into_iter().find_map(|request| match request {
                NodeRequest::Store(StoreCall::Put(_, record)) => Some(record),
                _ => None,
            })
        };
        node.step(0, None);
        let mine = put(node.step(1, stored(StoreAnswer::Newest(None)))).unwrap();
        node.step(2, stored(StoreAnswer::Put(crate::PutOutcome::Created)));
        let status = Status { number: 1, term: Term(1), offer: offer(), running: BTreeMap::new(), deaf_to: Vec::new() };
        let mut ordered = |at_ms, event| {
            let requests = node.step(at_ms, event);
            requests.iter().any(
                |request| matches!(request, NodeRequest::Send { message: Message::Orders(_), to } if *to == id("b")),
            )
        };
        let heard = |number| {
            let message = Message::Status(Box::new(Status { number, ..status.clone() }));
            Some(NodeEvent::Message { from: id("b"), message })
        };
        assert!(!ordered(3, heard(1)) && ordered(1100, None));
        let next = GroupRecord { term: Term(2), coordinator: id("c"), nonce: 7, ..(*mine).clone() };
        // It writes its first attempt where the other has begun its term, and cannot read further.
        ordered(1200, stored(StoreAnswer::Put(crate::PutOutcome::AlreadyExists)));
        ordered(1201, stored(StoreAnswer::Record(Some(Box::new(next)))));
        ordered(1202, stored(StoreAnswer::Failed));
        for second in 2..5 {
            assert!(!ordered(second * 1000 + 300, heard(second)), "after {second} s");
        }
    }

    #[test]
    fn the_orders_of_an_earlier_term_are_not_obeyed_by_a_node_that_hears_nobody() {
        let mut node = Node::new(id("b"), Some("job".to_owned()), offer(), Times::default(), 1, 0);
        let mut receive = |at_ms, from: &str, message| {
            node.step(at_ms, Some(NodeEvent::Message { from: id(from), message }));
            node.coordinator().map(|(node, term)| (node.address.clone(), term.0))
        };
        let said = |name: &str, term| Some((name.to_owned(), term));
        assert_eq!(receive(1, "a", orders(2, 1)), said("a", 2));
        assert_eq!(receive(2, "c", orders(1, 9)), said("a", 2));
        assert_eq!(receive(3, "c", orders(3, 1)), said("c", 3));
        node.step(4, Some(NodeEvent::Gone(id("c"))));
        // It has asked whom it knows, and waits for the store.
        let mut receive = |at_ms, from: &str, message| {
            node.step(at_ms, Some(NodeEvent::Message { from: id(from), message }));
            node.coordinator().map(|(node, term)| (node.address.clone(), term.0))
        };
        assert_eq!(receive(5, "a", orders(2, 2)), said("c", 3));
        assert_eq!(receive(6, "a", orders(4, 1)), said("a", 4));
    }
}
