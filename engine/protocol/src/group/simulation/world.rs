//! Hosts, network, store and the job's processes.

use std::collections::{BTreeMap, BTreeSet};

use fluvial_connector::Generation;

use crate::group::{
    Attempt, AttemptNumber, Change, GroupRecord, JobRecord, Node, NodeEvent, NodeId, NodeRequest, Offer, Outcome,
    Placement, ProcessSays, Refusal, StoreAnswer, StoreCall, Times, Workers,
};
use crate::simulation::dice::Dice;
use crate::{Exit, ProcessEnd, PutOutcome};

/// How far the time goes on in one step, milliseconds.
const STEP_MS: u64 = 50;
/// How long the mesh takes to notice a host that says nothing any more.
const MESH_SILENCE_MS: u64 = 5000;

/// The name of the job of a group.
pub(super) const JOB: &str = "job";
/// An attempt of a job.
type Key = (String, AttemptNumber);

/// A program that no node of a cluster can run.
pub(super) const UNFIT: &str = "unfit";
/// The program whose processes fail.
pub(super) const BAD: &str = "bad";
/// The program whose processes die soon after they have begun to read.
pub(super) const DYING: &str = "dying";

/// The program whose processes die before they open.
pub(super) const ABORTS: &str = "aborts";
/// The program whose processes meet, and do nothing.
pub(super) const HANGS: &str = "hangs";
/// The program that fails after it has read some input.
pub(super) const SPOILS: &str = "spoils";
/// The program that cannot stop, because its broker is unavailable.
pub(super) const STUCK: &str = "stuck";

pub(super) struct Host {
    pub(super) node: Option<Node>,
    pub(super) offer: Offer,
    start: u64,
    /// Its node makes no step before.
    pub(super) paused_until_ms: u64,
    /// It has no power.
    pub(super) dark: bool,
    pub(super) exited: Option<Outcome>,
    /// How often its node has been told which versions to prepare.
    prepares: u64,
}

/// What happens at a later time.
enum Happening {
    ToNode(usize, NodeId, NodeEvent),
    Opens(Key),
    Reads(Key),
    Dies(Key),
    Fails(Key),
    Stops(Key),
    /// A node of a cluster has fetched and checked the versions of so many requests.
    Prepared(usize, NodeId, u64, BTreeSet<String>),
    /// A put that was given up takes effect.
    LatePut(u64, Box<GroupRecord>),
}

/// The processes of an attempt.
struct Job {
    placement: Placement,
    version: String,
    /// The live ones, by number, with their hosts.
    live: BTreeMap<u32, usize>,
    introduced: BTreeSet<u32>,
    opened: bool,
    /// When the others notice that one of them is lost.
    breaks_ms: Option<u64>,
}

pub(super) struct World {
    pub(super) now_ms: u64,
    pub(super) dice: Dice,
    pub(super) hosts: Vec<Host>,
    /// From one host to another nothing arrives since.
    pub(super) cuts: BTreeMap<(usize, usize), u64>,
    /// Hosts that cannot reach the store.
    pub(super) storeless: BTreeSet<usize>,
    /// Hosts of which the job's processes are refused what those of other hosts may do: their clocks are wrong.
    pub(super) refused: BTreeSet<usize>,
    pub(super) records: BTreeMap<u64, GroupRecord>,
    /// The positions of records that were deleted because they are old.
    deleted: BTreeSet<u64>,
    /// One message in so many is lost, one in so many arrives twice, and one call to the store in so many fails.
    pub(super) faults: u64,
    happenings: BTreeMap<(u64, u64), Happening>,
    count: u64,
    jobs: BTreeMap<Key, Job>,
    /// The attempts that have read input.
    bound: BTreeSet<Key>,
    /// The version that is wanted of each job, and the position of the record since which it is.
    wanted: BTreeMap<String, (String, u64)>,
    /// The newest attempt of each job that has opened.
    opened: BTreeMap<String, AttemptNumber>,
    /// Attempts that processes were started for, in their order.
    pub(super) started: Vec<Key>,
    /// How many processes of each job have died by themselves, or have lost each other.
    pub(super) deaths: BTreeMap<String, u32>,
    /// Whether the nodes are those of a cluster.
    is_cluster: bool,
    /// What became of the changes that were asked for, by number.
    pub(super) answers: BTreeMap<u64, Result<(), Refusal>>,
    changes: u64,
    pub(super) tells: bool,
}

pub(super) fn offer(version: &str, slots: u32) -> Offer {
    Offer {
        version: version.to_owned(),
        slots,
        workers: Workers::Auto,
        unready: None,
        leaving: false,
        programs: BTreeMap::new(),
        labels: BTreeMap::new(),
    }
}

impl World {
    /// A world of hosts with these slots, on which nothing runs yet.
    pub(super) fn new(seed: u64, slots: &[u32]) -> Self {
        let host = |slots: &u32| Host {
            node: None,
            offer: offer("1", *slots),
            start: 0,
            paused_until_ms: 0,
            dark: false,
            exited: None,
            prepares: 0,
        };
        Self {
            now_ms: 1_000_000,
            dice: Dice::new(seed),
            hosts: slots.iter().map(host).collect(),
            cuts: BTreeMap::new(),
            storeless: BTreeSet::new(),
            refused: BTreeSet::new(),
            records: BTreeMap::new(),
            deleted: BTreeSet::new(),
            faults: 0,
            happenings: BTreeMap::new(),
            count: 0,
            jobs: BTreeMap::new(),
            bound: BTreeSet::new(),
            wanted: BTreeMap::new(),
            opened: BTreeMap::new(),
            started: Vec::new(),
            deaths: BTreeMap::new(),
            is_cluster: false,
            answers: BTreeMap::new(),
            changes: 0,
            tells: false,
        }
    }

    /// The same whose nodes run what users submit.
    pub(super) fn of_cluster(seed: u64, slots: &[u32]) -> Self {
        Self { is_cluster: true, ..Self::new(seed, slots) }
    }

    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{:>8.2} {}", self.now_ms as f64 / 1000.0 - 1000.0, what());
        }
    }

    fn id(&self, host: usize) -> NodeId {
        NodeId { address: format!("host-{host}"), start: self.hosts[host].start }
    }

    // ---- what is done to hosts

    pub(super) fn start(&mut self, host: usize) {
        self.hosts[host].start += 1;
        let (me, now_ms) = (self.id(host), self.now_ms);
        let random = self.dice.between(0, 1 << 30) as u64;
        self.tell(|| format!("host-{host} starts"));
        let of = &mut self.hosts[host];
        of.offer.leaving = false;
        of.offer.programs.clear();
        let job = (!self.is_cluster).then(|| JOB.to_owned());
        of.exited = None;
        of.paused_until_ms = 0;
        of.node = Some(Node::new(me, job, of.offer.clone(), Times::default(), random << 20 | host as u64, now_ms));
    }

    pub(super) fn start_all(&mut self) {
        (0..self.hosts.len()).for_each(|host| self.start(host));
    }

    /// `kill -9` of the copy: its processes end with it.
    pub(super) fn kill(&mut self, host: usize) {
        self.tell(|| format!("host-{host} is killed"));
        self.hosts[host].node = None;
        self.lose_processes(host, STEP_MS);
    }

    /// The host loses its power: nobody is told.
    pub(super) fn power_cut(&mut self, host: usize) {
        self.tell(|| format!("host-{host} goes dark"));
        self.hosts[host].node = None;
        self.hosts[host].dark = true;
        self.lose_processes(host, MESH_SILENCE_MS);
    }

    pub(super) fn leave(&mut self, host: usize) {
        self.tell(|| format!("host-{host} is told to leave"));
        self.hosts[host].offer.leaving = true;
        self.offers(host);
    }

    /// A check finds that the host could not run the job, or that it could.
    pub(super) fn set_unready(&mut self, host: usize, unready: bool) {
        self.hosts[host].offer.unready = unready.then(|| "a check has failed".to_owned());
        self.offers(host);
    }

    fn offers(&mut self, host: usize) {
        let (id, offer) = (self.id(host), self.hosts[host].offer.clone());
        self.later(0, Happening::ToNode(host, id, NodeEvent::Offer(offer)));
    }

    /// A user asks a host for a change. Returns its number.
    pub(super) fn change(&mut self, host: usize, change: Change) -> u64 {
        self.changes += 1;
        self.tell(|| format!("change {} at host-{host}: {change:?}", self.changes));
        let (number, id) = (self.changes, self.id(host));
        self.later(1, Happening::ToNode(host, id, NodeEvent::Change { number, change }));
        number
    }

    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.tell(|| format!("host-{from} no longer reaches host-{to}"));
        self.cuts.entry((from, to)).or_insert(self.now_ms);
    }

    /// A process of the newest attempt dies.
    pub(super) fn kill_a_process(&mut self) {
        let newest = self.jobs.iter().max_by_key(|((_, number), _)| *number);
        let Some((key, job)) = newest else { return };
        let (key, victim) = (key.clone(), job.live.iter().next().map(|(process, host)| (*process, *host)));
        if let Some((process, host)) = victim {
            self.tell(|| format!("process {process} of attempt {key:?} dies"));
            *self.deaths.entry(key.0.clone()).or_default() += 1;
            self.end(&key, process, host, died("killed"), STEP_MS);
        }
    }

    /// From now on this host's processes are refused what those of other hosts may do.
    pub(super) fn refuse(&mut self, host: usize) {
        self.tell(|| format!("processes on host-{host} are refused"));
        self.refused.insert(host);
        if let Some(key) = self.jobs.keys().max_by_key(|(_, number)| *number).cloned() {
            self.end_refused(&key);
        }
    }

    // ---- processes

    /// Ends the processes of an attempt that are refused. Returns whether there are any.
    fn end_refused(&mut self, key: &Key) -> bool {
        let live = self.jobs.get(key).map(|job| job.live.clone()).unwrap_or_default();
        let refused: Vec<_> = live.into_iter().filter(|(_, host)| self.refused.contains(host)).collect();
        for (process, host) in &refused {
            let why = format!("host-{host} has another time");
            let end = ProcessEnd::Said { exit: Exit::Misconfigured, why, elsewhere: true };
            self.end(key, *process, *host, end, STEP_MS);
        }
        !refused.is_empty()
    }

    fn lose_processes(&mut self, host: usize, notice_ms: u64) {
        for job in self.jobs.values_mut() {
            let before = job.live.len();
            job.live.retain(|_, on| *on != host);
            if job.live.len() < before {
                breaks(job, self.now_ms + notice_ms);
            }
        }
    }

    /// A process ends and says how; the others notice after a while.
    fn end(&mut self, key: &Key, process: u32, host: usize, end: ProcessEnd, notice_ms: u64) {
        let now_ms = self.now_ms;
        if let Some(job) = self.jobs.get_mut(key)
            && job.live.remove(&process).is_some()
        {
            breaks(job, now_ms + notice_ms);
            self.says(host, key, process, ProcessSays::Ended(end), 20);
        }
    }

    fn end_all(&mut self, key: &Key, end: &ProcessEnd) {
        let live = self.jobs.get_mut(key).map(|job| std::mem::take(&mut job.live)).unwrap_or_default();
        for (process, host) in live {
            self.says(host, key, process, ProcessSays::Ended(end.clone()), 20);
        }
    }

    fn says(&mut self, host: usize, key: &Key, process: u32, says: ProcessSays, after_ms: u64) {
        let (id, (job, attempt)) = (self.id(host), key.clone());
        self.later(after_ms, Happening::ToNode(host, id, NodeEvent::Process { job, attempt, process, says }));
    }

    fn opens(&mut self, key: &Key) {
        let (name, number) = key;
        let Some(job) = self.jobs.get_mut(key) else { return };
        if job.live.len() < job.placement.layout().processes as usize {
            return;
        }
        let said = |exit, why: String| ProcessEnd::Said { exit, why, elsewhere: false };
        if let Some(newer) = self.opened.get(name).filter(|opened| number < *opened) {
            let end = said(Exit::Fenced, format!("superseded by attempt {newer}"));
            return self.end_all(key, &end);
        }
        if job.version == HANGS {
            return;
        }
        if job.version == ABORTS {
            let (process, host) =
                job.live.iter().next_back().map(|(process, host)| (*process, *host)).expect("it lives");
            *self.deaths.entry(name.clone()).or_default() += 1;
            return self.end(key, process, host, died("signal 6"), STEP_MS);
        }
        if job.version == BAD {
            return self.end_all(key, &said(Exit::Failed, "a bad record".to_owned()));
        }
        if self.end_refused(key) {
            return;
        }
        let Some(job) = self.jobs.get_mut(key) else { return };
        job.opened = true;
        let (first, job_dies, spoils) = (job.live[&0], job.version == DYING, job.version == SPOILS);
        self.opened.insert(name.clone(), *number);
        self.tell(|| format!("attempt {number} of {name} opens"));
        self.says(first, key, 0, ProcessSays::Opened(Generation(number.0)), 1);
        if job_dies {
            let after_ms = self.dice.between(100, 3000) as u64;
            self.later(after_ms, Happening::Dies(key.clone()));
        }
        self.later(200, Happening::Reads(key.clone()));
        if spoils {
            self.later(1000, Happening::Fails(key.clone()));
        }
        let older = |other: &&Key| other.0 == *name && other.1 < *number;
        let older: Vec<_> = self.jobs.keys().filter(older).cloned().collect();
        for other in older {
            self.end_all(&other, &said(Exit::Fenced, format!("superseded by {number}")));
        }
    }

    /// Ends the processes that have lost each other.
    fn break_meshes(&mut self) {
        let (now_ms, cuts) = (self.now_ms, &self.cuts);
        let mut broken = Vec::new();
        for (key, job) in &mut self.jobs {
            let old = |pair| cuts.get(&pair).is_some_and(|since_ms| now_ms >= since_ms + MESH_SILENCE_MS);
            let hosts: BTreeSet<_> = job.live.values().copied().collect();
            let cut = hosts.iter().any(|a| hosts.iter().any(|b| old((*a, *b))));
            let meshed = job.introduced.len() == job.placement.layout().processes as usize;
            if meshed && (cut || job.breaks_ms.is_some_and(|at_ms| now_ms >= at_ms)) {
                broken.push(key.clone());
            }
        }
        for key in broken {
            *self.deaths.entry(key.0.clone()).or_default() += 1;
            let why = "lost another process".to_owned();
            self.end_all(&key, &ProcessEnd::Said { exit: Exit::GenerationLost, why, elsewhere: false });
        }
    }

    // ---- time

    fn later(&mut self, after_ms: u64, happening: Happening) {
        self.count += 1;
        self.happenings.insert((self.now_ms + after_ms, self.count), happening);
    }

    pub(super) fn run_for(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        while self.now_ms < until_ms {
            self.step();
        }
    }

    pub(super) fn step(&mut self) {
        self.now_ms += STEP_MS;
        for host in 0..self.hosts.len() {
            if self.hosts[host].paused_until_ms <= self.now_ms {
                self.step_node(host, None);
            }
        }
        while let Some(entry) = self.happenings.first_entry().filter(|entry| entry.key().0 <= self.now_ms) {
            match entry.remove() {
                Happening::ToNode(host, id, event) => {
                    let of = &self.hosts[host];
                    if of.node.is_none() || self.id(host) != id {
                        continue;
                    }
                    if of.paused_until_ms > self.now_ms {
                        let wait_ms = of.paused_until_ms - self.now_ms;
                        self.later(wait_ms, Happening::ToNode(host, id, event));
                    } else {
                        self.step_node(host, Some(event));
                    }
                }
                Happening::Opens(key) => self.opens(&key),
                Happening::Prepared(host, id, request, versions) => {
                    if self.id(host) == id && self.hosts[host].prepares == request {
                        let unfit = |version: &str| (version == UNFIT).then(|| "it needs another libc".to_owned());
                        let checked = versions.into_iter().map(|version| (version.clone(), unfit(&version)));
                        self.hosts[host].offer.programs = checked.collect();
                        self.offers(host);
                    }
                }
                Happening::Reads(key) => {
                    if let Some(host) = self.jobs.get(&key).and_then(|job| job.live.get(&0).copied()) {
                        self.bound.insert(key.clone());
                        self.says(host, &key, 0, ProcessSays::Reads, 1);
                    }
                }
                Happening::Fails(key) => {
                    let why = "a bad record, after others".to_owned();
                    self.end_all(&key, &ProcessEnd::Said { exit: Exit::Failed, why, elsewhere: false });
                }
                Happening::Stops(key) if self.jobs.get(&key).is_some_and(|job| job.version == STUCK) => {}
                Happening::Dies(key) => {
                    let live = self.jobs.get(&key).map(|job| job.live.clone()).unwrap_or_default();
                    if let Some((process, host)) = live.into_iter().next_back() {
                        *self.deaths.entry(key.0.clone()).or_default() += 1;
                        self.end(&key, process, host, died("signal 11"), STEP_MS);
                    }
                }
                Happening::Stops(key) => {
                    let opened = self.jobs.get(&key).is_some_and(|job| job.opened);
                    let done = ProcessEnd::Said { exit: Exit::Done, why: String::new(), elsewhere: false };
                    self.end_all(&key, &if opened { done } else { died("stopped before it was open") });
                }
                Happening::LatePut(position, record) => {
                    if !self.records.contains_key(&position) {
                        self.insert(position, *record);
                    }
                }
            }
        }
        self.break_meshes();
    }

    fn step_node(&mut self, host: usize, event: Option<NodeEvent>) {
        let Some(node) = &mut self.hosts[host].node else { return };
        for request in node.step(self.now_ms, event) {
            self.request(host, request);
        }
    }

    fn request(&mut self, host: usize, request: NodeRequest) {
        match request {
            NodeRequest::Send { to, message } => {
                self.send(host, to, NodeEvent::Message { from: self.id(host), message })
            }
            NodeRequest::Store(call) => self.store(host, call),
            NodeRequest::Start { job, attempt, processes, .. } => {
                let number = attempt.number;
                // Its record says which nodes had been drained before it.
                let record = self.records.get(&number.0);
                let is_drained = |node: &NodeId| record.is_some_and(|record| record.draining.contains(&node.address));
                let drained = attempt.placement.places.iter().find(|(node, _)| is_drained(node));
                assert_eq!(drained, None, "a node that is drained gets processes of attempt {number} of {job}");
                assert!(self.is_stored(&job, &attempt), "host-{host} starts attempt {number}, which no record holds");
                let key = (job, number);
                if !self.started.contains(&key) {
                    self.tell(|| format!("attempt {key:?}: {:?}; {}", attempt.placement.places, attempt.why));
                    self.started.push(key.clone());
                }
                let job = self.jobs.entry(key.clone()).or_insert_with(|| Job {
                    placement: attempt.placement.clone(),
                    version: attempt.version.clone(),
                    live: BTreeMap::new(),
                    introduced: BTreeSet::new(),
                    opened: false,
                    breaks_ms: None,
                });
                job.live.extend(processes.clone().map(|process| (process, host)));
                for process in processes {
                    let after_ms = self.dice.between(20, 300) as u64;
                    self.says(host, &key, process, ProcessSays::Listens(format!("host-{host}:{process}")), after_ms);
                }
            }
            NodeRequest::Introduce { job, attempt, .. } => {
                let key = (job, attempt);
                let Some(job) = self.jobs.get_mut(&key) else { return };
                job.introduced.extend(job.live.iter().filter(|(_, on)| **on == host).map(|(process, _)| *process));
                if job.introduced.len() == job.placement.layout().processes as usize {
                    let after_ms = self.dice.between(50, 500) as u64;
                    self.later(after_ms, Happening::Opens(key));
                }
            }
            NodeRequest::Stop { job, attempt } => {
                let after_ms = self.dice.between(100, 1000) as u64;
                self.later(after_ms, Happening::Stops((job, attempt)));
            }
            NodeRequest::Kill { job, attempt } => {
                let key = (job, attempt);
                let live = self.jobs.get(&key).map(|job| job.live.clone()).unwrap_or_default();
                for (process, on) in live.into_iter().filter(|(_, on)| *on == host) {
                    self.end(&key, process, on, died("killed by its node"), STEP_MS);
                }
            }
            NodeRequest::Answer { number, answer } => {
                self.tell(|| format!("change {number}: {answer:?}"));
                assert!(self.answers.insert(number, answer).is_none(), "change {number} is answered twice");
            }
            NodeRequest::Prepare(versions) => {
                let (after_ms, id) = (self.dice.between(100, 2000) as u64, self.id(host));
                self.hosts[host].prepares += 1;
                let request = self.hosts[host].prepares;
                self.later(after_ms, Happening::Prepared(host, id, request, versions));
            }
            NodeRequest::Exit(outcome) => {
                self.tell(|| format!("host-{host} exits: {:?}, {}", outcome.exit, outcome.why));
                self.hosts[host].node = None;
                self.hosts[host].exited = Some(outcome);
                self.lose_processes(host, STEP_MS);
            }
        }
    }

    fn passes(&self, from: usize, to: usize) -> bool {
        !self.cuts.contains_key(&(from, to)) && !self.hosts[from].dark && !self.hosts[to].dark
    }

    fn send(&mut self, from: usize, to: NodeId, event: NodeEvent) {
        let Some(host) = to.address.strip_prefix("host-").and_then(|n| n.parse::<usize>().ok()) else { return };
        if !self.passes(from, host) || (self.faults > 0 && self.dice.one_in(self.faults as usize)) {
            return;
        }
        let after_ms = self.dice.between(1, 200) as u64;
        if self.hosts[host].node.is_some() && self.id(host) == to {
            if self.faults > 0 && self.dice.one_in(self.faults as usize) {
                let again_ms = self.dice.between(1, 200) as u64;
                self.later(again_ms, Happening::ToNode(host, to.clone(), event.clone()));
            }
            self.later(after_ms, Happening::ToNode(host, to, event));
        } else if self.passes(host, from) {
            let sender = self.id(from);
            self.later(after_ms, Happening::ToNode(from, sender, NodeEvent::Gone(to)));
        }
    }

    fn store(&mut self, host: usize, call: StoreCall) {
        let reaches = !self.storeless.contains(&host) && !self.hosts[host].dark;
        let fails = !reaches || (self.faults > 0 && self.dice.one_in(self.faults as usize));
        let answer = match call {
            StoreCall::Put(position, record) => {
                let free = !self.records.contains_key(&position);
                if reaches && free && (!fails || self.dice.one_in(3)) {
                    let (term, of) = (record.term, &record.coordinator);
                    let outcome = record.jobs.get(JOB).and_then(|job| job.outcome.as_ref());
                    self.tell(|| format!("record {position}: term {term} of {of}, {outcome:?}"));
                    self.insert(position, (*record).clone());
                } else if reaches && fails && self.dice.one_in(2) {
                    let after_ms = self.dice.between(1, 20_000) as u64;
                    self.later(after_ms, Happening::LatePut(position, Box::new((*record).clone())));
                }
                StoreAnswer::Put(match (fails, free) {
                    (true, _) => PutOutcome::Unknown,
                    (false, true) => PutOutcome::Created,
                    (false, false) => PutOutcome::AlreadyExists,
                })
            }
            _ if fails => StoreAnswer::Failed,
            StoreCall::Newest => StoreAnswer::Newest(self.records.keys().next_back().copied()),
            StoreCall::Get(position) => StoreAnswer::Record(self.records.get(&position).cloned().map(Box::new)),
            StoreCall::Delete(position) => {
                self.records.remove(&position);
                self.deleted.insert(position);
                StoreAnswer::Deleted
            }
        };
        let after_ms = if reaches { self.dice.between(5, 150) } else { 2000 } as u64;
        let id = self.id(host);
        self.later(after_ms, Happening::ToNode(host, id, NodeEvent::Store(answer)));
    }

    /// A record stands in the journal. A job returns from a version only if that has read no input since it has been wanted.
    fn insert(&mut self, position: u64, record: GroupRecord) {
        let before = self.newest().cloned();
        for (name, job) in &record.jobs {
            let returned_before = before.as_ref().and_then(|before| before.jobs.get(name)?.returned.as_ref());
            if let Some(returned) = job.returned.as_ref().filter(|returned| returned_before != Some(returned)) {
                self.tell(|| format!("{name} returns: {returned}"));
                let (_, since) = &self.wanted[name];
                let of_version =
                    |key: &&Key| key.0 == *name && key.1.0 > *since && self.jobs[*key].version == returned.version;
                let bound = self.bound.iter().find(of_version);
                assert_eq!(bound, None, "{name} returns from a version that has read input: {returned:?}");
            }
        }
        self.wanted.retain(|name, _| record.jobs.contains_key(name));
        for (name, job) in &record.jobs {
            let Some(wanted) = &job.wanted else {
                // Groups of copies are never upgraded, and their journal cannot store these fields.
                assert_eq!((&job.proven, &job.back, &job.returned), (&None, &None, &None), "copies are not upgraded");
                continue;
            };
            if self.wanted.get(name).is_none_or(|(version, _)| *version != wanted.version) {
                self.wanted.insert(name.clone(), (wanted.version.clone(), position));
            }
        }
        self.records.insert(position, record);
    }

    // ---- what can be seen

    pub(super) fn newest(&self) -> Option<&GroupRecord> {
        self.records.values().next_back()
    }

    /// What the newest record says of the job.
    pub(super) fn job(&self) -> Option<&JobRecord> {
        self.newest()?.jobs.get(JOB)
    }

    /// Whether the record of an attempt, whose position is the attempt's number, holds it or did so until it was deleted.
    fn is_stored(&self, job: &str, attempt: &Attempt) -> bool {
        let position = attempt.number.0;
        match self.records.get(&position) {
            Some(record) => record.jobs[job].attempt.as_ref() == Some(attempt),
            None => self.deleted.contains(&position),
        }
    }

    /// The versions that attempts have run, in their order: equal ones that follow each other count once.
    pub(super) fn versions(&self) -> Vec<&str> {
        let mut versions: Vec<_> = self.started.iter().map(|number| self.jobs[number].version.as_str()).collect();
        versions.dedup();
        versions
    }

    /// The version of each attempt that has been started.
    pub(super) fn started_versions(&self) -> impl Iterator<Item = &str> {
        self.started.iter().map(|key| self.jobs[key].version.as_str())
    }

    /// The attempts of which processes live, each with their hosts and its number of workers on each.
    pub(super) fn live(&self) -> impl Iterator<Item = (&str, AttemptNumber, BTreeMap<usize, u32>)> {
        let live = self.jobs.iter().filter(|(_, job)| !job.live.is_empty());
        live.map(|((name, number), job)| {
            let mut workers = BTreeMap::new();
            for host in job.live.values() {
                *workers.entry(*host).or_default() += job.placement.threads;
            }
            (name.as_str(), *number, workers)
        })
    }

    /// Why the group is not as it should be when nothing is wrong with its surroundings.
    pub(super) fn unsettled(&self) -> Option<String> {
        let Some((record, job)) = self.newest().zip(self.job()) else { return Some("the journal is empty".to_owned()) };
        let Some(attempt) = &job.attempt else {
            return Some(format!("there is no attempt: {:?}", self.hosts.iter().map(|h| &h.node).collect::<Vec<_>>()));
        };
        if let Some(outcome) = &job.outcome {
            return Some(format!("the job has ended: {outcome:?}"));
        }
        let nodes: Vec<_> = self.hosts.iter().filter_map(|host| host.node.as_ref().map(|node| (host, node))).collect();
        for (host, node) in &nodes {
            let follows = node.coordinator().map(|(coordinator, term)| (coordinator.clone(), term));
            if follows != Some((record.coordinator.clone(), record.term)) {
                return Some(format!(
                    "{:?} follows {follows:?} and not {} of {}",
                    host.offer, record.coordinator, record.term
                ));
            }
        }
        let mut votes: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
        for (host, _) in &nodes {
            let id = self.hosts.iter().position(|other| std::ptr::eq(other, *host)).map(|host| self.id(host));
            if host.offer.slots > 0 && job.failed.iter().all(|(failed, _)| Some(failed) != id.as_ref()) {
                let (count, slots) = votes.entry(&host.offer.version).or_default();
                *count += 1;
                *slots += host.offer.slots;
            }
        }
        let most = votes.values().map(|(count, _)| *count).max();
        let own = votes.get(attempt.version.as_str());
        if own.map(|(count, _)| *count) != most {
            return Some(format!("version {} runs, of {votes:?}", attempt.version));
        }
        if own.map(|(_, slots)| *slots) != Some(attempt.layout().workers) {
            return Some(format!("{} workers run, of {votes:?}", attempt.layout().workers));
        }
        (!self.runs(JOB, attempt)).then(|| format!("attempt {} does not run", attempt.number))
    }

    /// Whether the processes of an attempt run the job.
    pub(super) fn runs(&self, job: &str, attempt: &Attempt) -> bool {
        let job = self.jobs.get(&(job.to_owned(), attempt.number));
        job.is_some_and(|job| job.opened && job.live.len() == attempt.layout().processes as usize)
    }
}

fn breaks(job: &mut Job, at_ms: u64) {
    job.breaks_ms = Some(job.breaks_ms.map_or(at_ms, |other| other.min(at_ms)));
}

fn died(why: &str) -> ProcessEnd {
    ProcessEnd::Died { why: why.to_owned() }
}
