//! The control of one job: from what the coordinator hears of the nodes, it decides what the job does next.
//!
//! ```text
//!            ┌──────────────────────────── attempt ───────────────────────────┐
//!   settled ─► started ─ all listen ─► running ─ other members ─► stopping ────► over ─► next attempt, or outcome
//!                 └── a process ends, a node is lost ────────────────────────────┘
//! ```
//!
//! [`Control::decide`] is a function of the record in the journal, of the statuses and of the time. Everything that must survive
//! the coordinator is in the record; the rest a new coordinator hears again.

use std::collections::{BTreeMap, BTreeSet};

use super::Times;
use super::members::{Members, together};
use super::messages::{Command, Offer, ProcessState, Running, Status};
use super::placement::{Placement, Room, Workers, ZONE, place};
use super::record::{Attempt, AttemptNumber, Back, Death, JobRecord, NodeId, Outcome, Wanted, avoids};
use crate::{Decisions, Exit, Fault, GenerationEnd, Next, ProcessEnd, cause};

/// How many failures in a row end a run. With the pauses between them they take about two minutes.
pub(super) const MOST_FAILURES: u32 = 10;
/// The same of a version that has never read input, where another one ran before it.
pub(super) const MOST_FAILURES_ON_TRIAL: u32 = 3;

/// What is said of an attempt that users have forced to end.
const FORCED: &str =
    "its processes were ended at once, as a user has asked: what they had read and not committed is read again";

/// What is decided about a job.
#[derive(Clone, Debug)]
pub(super) enum Decision {
    /// The next attempt, which gets its number when it is written.
    Attempt { attempt: Attempt, failed: Vec<(NodeId, String)>, deaths: Vec<Death> },
    /// More nodes take no further part in the job, and no other one is ready yet.
    Failed(Vec<(NodeId, String)>),
    /// The job has ended for good.
    Outcome(Outcome),
    /// The attempt was of another program than users want by now, and has ended for good: the newest revision begins.
    Begin,
    /// The version of the newest attempt has read input.
    Reads(String),
    /// Nobody can say any more whether the version that is wanted has read input.
    MayHaveRead,
    /// The version that is wanted has failed before it has read input: the one before it is wanted again.
    Return(String),
}

/// Numbers of slots, by node.
pub(super) type Slots = BTreeMap<NodeId, u32>;

/// What a decision is a function of.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) members: &'a Members,
    pub(super) times: &'a Times,
    /// The node that coordinates.
    pub(super) coordinator: &'a NodeId,
    /// The name of the job, and what the newest record says of it.
    pub(super) name: &'a str,
    pub(super) job: &'a JobRecord,
    /// How many slots of each node jobs hold.
    pub(super) taken: &'a Slots,
    /// Those of them that this job holds: they are there for its next attempt.
    pub(super) own: &'a Slots,
    /// The addresses of the nodes that get no more processes.
    pub(super) draining: &'a BTreeSet<String>,
    pub(super) now_ms: u64,
    /// The time of the group's clock.
    pub(super) clock_ms: u64,
}

impl<'a> Facts<'a> {
    /// The nodes that are heard.
    fn heard(self) -> impl Iterator<Item = (&'a NodeId, &'a Status)> {
        self.members.heard(self.now_ms)
    }

    /// How many slots of a node other jobs hold.
    fn taken_by_others(self, node: &NodeId) -> u32 {
        let own = self.own.get(node).copied().unwrap_or_default();
        self.taken.get(node).copied().unwrap_or_default().saturating_sub(own)
    }

    /// Whether the run is to end: users want that, or all copies that run the job leave.
    fn is_to_end(self) -> bool {
        match &self.job.wanted {
            Some(wanted) => !wanted.run,
            None => self.members.all_leave(self.now_ms),
        }
    }

    /// Whether an attempt is of a version that the job leaves for the one before it if it fails now.
    fn on_trial(self, attempt: &Attempt) -> bool {
        let wanted = self.job.wanted.as_ref();
        wanted.is_some_and(|wanted| wanted.version == attempt.version) && self.job.may_return_to().is_some()
    }

    /// Whether users have forced the end of an attempt.
    fn is_forced(self, attempt: &Attempt) -> bool {
        self.job.wanted.as_ref().is_some_and(|wanted| attempt.number <= wanted.ends_at_once)
    }

    /// What each node of an attempt runs of it, if it does.
    fn running(self, attempt: &Attempt) -> impl Iterator<Item = (&NodeId, Option<&'a Running>)> {
        let running = move |node| self.members.running(node, self.name, attempt.number);
        attempt.placement.places.iter().map(move |(node, _)| (node, running(node)))
    }
}

/// The end of the newest attempt, and what follows.
#[derive(Clone, Debug)]
struct Over {
    since_ms: u64,
    /// Once all of its processes have ended: how, from when on the next attempt may begin, and the restarts so far.
    next: Option<(GenerationEnd, u64, Decisions)>,
}

/// What the coordinator knows of a job besides its record.
#[derive(Debug)]
pub(super) struct Control {
    /// When the newest attempt was written, or the term began.
    began_ms: u64,
    /// Nodes of the newest attempt that were lost during it. Those who come back do not mend it.
    lost: BTreeSet<NodeId>,
    /// Why the newest attempt is asked to stop, if it is: others are to follow.
    stopping: Option<String>,
    /// Where the next attempt is expected to run, if the newest one is asked to stop for it. Its slots are kept: two jobs that move at
    /// once would otherwise both count on them.
    moves_to: Option<Placement>,
    /// Whether a process of the attempt has been seen that had not ended.
    ran: bool,
    /// Whether it has been seen that the attempt had read input, and had done so for long: a lost node cannot say it any more.
    read: bool,
    healthy: bool,
    /// Whether the processes of the attempt may have been told of each other: before that, none of them reads.
    may_have_met: bool,
    /// Whether the node of its first process was lost after that, so that nobody can say whether it has read input.
    first_is_lost: bool,
    /// Whether it has taken too long to read input, on trial.
    is_late: bool,
    /// Since when each node that could run the version before refuses the one that is wanted.
    refused_since_ms: Option<u64>,
    /// The nodes on which processes died by themselves, and not because others had ended before.
    died: BTreeSet<NodeId>,
    over: Option<Over>,
}

impl Control {
    /// The control of a job whose newest attempt was written now, or becomes known now.
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            began_ms: now_ms,
            lost: BTreeSet::new(),
            stopping: None,
            moves_to: None,
            ran: false,
            read: false,
            healthy: false,
            may_have_met: false,
            first_is_lost: false,
            is_late: false,
            refused_since_ms: None,
            died: BTreeSet::new(),
            over: None,
        }
    }

    /// The same at the beginning of a term: what an earlier coordinator has ordered is not known.
    pub(super) fn adopted(now_ms: u64) -> Self {
        Self { may_have_met: true, ..Self::new(now_ms) }
    }

    /// The processes of the newest attempt are told of each other.
    pub(super) fn introduced(&mut self) {
        self.may_have_met = true;
    }

    /// What has to be written to the journal now, if anything has.
    pub(super) fn decide(&mut self, facts: Facts<'_>) -> Option<Decision> {
        let Facts { job, now_ms, .. } = facts;
        if job.outcome.is_some() {
            return None;
        }
        let Some(attempt) = &job.attempt else { return self.first(facts).or_else(|| self.refused(facts)) };
        self.watch(facts, attempt);
        if let Some(decision) = self.has_read(facts, attempt) {
            return Some(decision);
        }
        let Some(over) = self.over.clone() else {
            self.watch_for_changes(facts, attempt);
            return None;
        };
        let (end, at_ms, decisions) = match over.next {
            Some(next) => next,
            None => {
                if !facts.members.all_heard(now_ms) {
                    return None;
                }
                let mut end = self.end_of(facts, attempt)?;
                let mut decisions = attempt.decisions.clone();
                let on_trial = facts.on_trial(attempt) && !facts.is_to_end() && !end.stopping;
                if on_trial && self.is_late {
                    return Some(Decision::Return(end.why));
                }
                let most_failures = if on_trial { MOST_FAILURES_ON_TRIAL } else { MOST_FAILURES };
                let pause_ms = match decisions.after(&end, Some(most_failures)) {
                    Next::Start { pause_ms } => pause_ms,
                    // It must not be tried again, and what ran before begins at once.
                    Next::GiveUp { .. } | Next::End if self.was_given_up(facts, attempt) => 0,
                    Next::GiveUp { .. } if facts.is_to_end() => 0,
                    // What failed was not what users want by now.
                    Next::GiveUp { .. }
                        if !on_trial && job.wanted.as_ref().is_some_and(|w| w.revision != attempt.revision) =>
                    {
                        return Some(Decision::Begin);
                    }
                    Next::GiveUp { times, within_ms } => {
                        let (why, healthy_s) = (&end.why, facts.times.healthy_ms / 1000);
                        let within_s = within_ms / 1000;
                        end.why = format!(
                            "{why}; the job has failed {times} times in a row within {within_s} s, each time before it had run \
                             for {healthy_s} s"
                        );
                        if on_trial {
                            return Some(Decision::Return(end.why));
                        }
                        return self.ended_for_good(facts, attempt, end, decisions);
                    }
                    // Others were to follow, so this end was asked for.
                    Next::End if end.stopping => 0,
                    Next::End => {
                        let fails = !matches!(end.exit, Exit::Done | Exit::Fenced);
                        let decided = self.ended_for_good(facts, attempt, end, decisions);
                        return match decided {
                            Some(Decision::Outcome(outcome)) if on_trial && fails => {
                                Some(Decision::Return(outcome.why))
                            }
                            decided => decided,
                        };
                    }
                };
                let next = (end, now_ms + pause_ms, decisions);
                self.over = Some(Over { next: Some(next.clone()), ..over });
                next
            }
        };
        if facts.is_to_end() {
            let outcome = Outcome { exit: end.exit, why: end.why };
            return Some(Decision::Outcome(outcome));
        }
        if now_ms < at_ms {
            return None;
        }
        let asked = || self.stopping.clone().unwrap_or_else(|| "the nodes have changed".to_owned());
        let why = match &job.returned {
            Some(returned) if self.was_given_up(facts, attempt) => returned.to_string(),
            _ if end.stopping && end.exit == Exit::Done => asked(),
            _ => end.why,
        };
        self.attempt(facts, job.failed.clone(), decisions, why).or_else(|| self.refused(facts))
    }

    /// Whether the job has returned from the version of an attempt to the one before it.
    fn was_given_up(&self, facts: Facts<'_>, attempt: &Attempt) -> bool {
        let Facts { job, .. } = facts;
        let is_wanted = |wanted: &Wanted| wanted.version == attempt.version;
        job.returned.as_ref().is_some_and(|returned| returned.version == attempt.version)
            && !job.wanted.as_ref().is_some_and(is_wanted)
    }

    /// What has to be written about whether an attempt has read input.
    fn has_read(&self, facts: Facts<'_>, attempt: &Attempt) -> Option<Decision> {
        let Facts { job, .. } = facts;
        // Copies that users have started run what they were started with.
        job.wanted.as_ref()?;
        if self.read && (job.proven.as_ref() != Some(&attempt.version) || facts.on_trial(attempt)) {
            return Some(Decision::Reads(attempt.version.clone()));
        }
        let is_new = |back: &Back| attempt.version != back.of && attempt.version != back.version;
        let may_have_read = self.first_is_lost && job.may_return_to().is_some_and(is_new);
        may_have_read.then_some(Decision::MayHaveRead)
    }

    /// Gives up the version that is wanted, where each node that could run the version before refuses it. A job that runs meanwhile
    /// goes on as it is.
    fn refused(&mut self, facts: Facts<'_>) -> Option<Decision> {
        let why = self.refusal(facts);
        if why.is_none() {
            self.refused_since_ms = None;
        }
        let since_ms = *self.refused_since_ms.get_or_insert(facts.now_ms);
        why.filter(|_| facts.now_ms >= since_ms + facts.times.start_ms).map(Decision::Return)
    }

    fn refusal(&self, facts: Facts<'_>) -> Option<String> {
        let (wanted, back) = (facts.job.wanted.as_ref()?, facts.job.may_return_to()?);
        let before = Wanted {
            version: back.version.clone(),
            workers: back.workers,
            require: back.require.clone(),
            ..wanted.clone()
        };
        let (_, placement) = self.placed(facts, Some(&before), &[])?;
        let of_node = |(node, _): &(NodeId, u32)| {
            let status = facts.members.status(node)?;
            Some(format!("{node} could not run it: {}", status.offer.programs.get(&wanted.version)?.as_ref()?))
        };
        let refusals: Option<Vec<_>> = placement.places.iter().map(of_node).collect();
        refusals?.into_iter().next()
    }

    /// The first attempt waits a moment for copies that are being started together.
    fn first(&self, facts: Facts<'_>) -> Option<Decision> {
        let Facts { members, times, job, now_ms, .. } = facts;
        if facts.is_to_end() {
            let why = "stopped before the job was open".to_owned();
            return Some(Decision::Outcome(Outcome { exit: Exit::StoppedUncommitted, why }));
        }
        // A cluster's nodes are there already.
        if job.wanted.is_none() && !members.settled_for(times.gather_ms, now_ms) {
            return None;
        }
        let why = job.returned.as_ref().map_or("the first attempt".to_owned(), ToString::to_string);
        self.attempt(facts, job.failed.clone(), Decisions::new(true), why)
    }

    /// The attempt that the members as they are now would get, without the nodes in `failed`.
    fn attempt(
        &self,
        facts: Facts<'_>,
        failed: Vec<(NodeId, String)>,
        decisions: Decisions,
        why: String,
    ) -> Option<Decision> {
        let before = facts.job.attempt.as_ref();
        let wanted = facts.job.wanted.as_ref();
        let now =
            self.placed(facts, wanted, &failed).map(|placed| (placed, wanted.map_or(0, |wanted| wanted.revision)));
        let (version, placement, revision, why) = match (now, wanted, before) {
            (Some(((version, placement), revision)), ..) => (version, placement, revision, why),
            // What cannot run yet must not take down what could.
            (None, Some(wanted), Some(before))
                if before.revision != wanted.revision && !self.was_given_up(facts, before) =>
            {
                let (workers, version) = (before.layout().workers, before.version.clone());
                let as_before = Wanted { workers, version, ..wanted.clone() };
                let (version, placement) = self.placed(facts, Some(&as_before), &failed)?;
                let why = format!("revision {} cannot run yet; {why}", wanted.revision);
                (version, placement, before.revision, why)
            }
            _ => return None,
        };
        let reported = before.and_then(|attempt| {
            let running = facts.running(attempt).filter_map(|(_, running)| running);
            running.filter_map(|running| running.generation).max()
        });
        let follows = reported.or(before.and_then(|attempt| attempt.follows));
        let number = AttemptNumber::default();
        let is_changed = before.is_some_and(|before| before.revision != revision);
        let is_new = |job: &JobRecord| job.proven.is_some() && job.proven.as_ref() != Some(&version);
        let decisions = match before {
            Some(before) if is_changed && before.version == version => decisions.of_change(),
            Some(_) if is_changed && is_new(facts.job) => decisions.of_new_program(),
            Some(_) if is_changed && facts.job.proven.is_some() => decisions.of_proven_program(),
            _ if is_changed => decisions.of_change(),
            _ => decisions,
        };
        let attempt = Attempt { number, version, revision, placement, follows, decisions, why };
        Some(Decision::Attempt { attempt, failed, deaths: self.deaths(facts) })
    }

    /// The deaths that count, with those that have ended the newest attempt.
    fn deaths(&self, facts: Facts<'_>) -> Vec<Death> {
        let died = self.died.difference(&self.lost).filter(|_| self.over.is_some());
        let died = died.map(|node| Death { node: node.address.clone(), at_ms: facts.clock_ms });
        facts.job.deaths_at(facts.clock_ms).cloned().chain(died).collect()
    }

    /// The version and the placement that the members as they are now would get.
    fn wanted(&self, facts: Facts<'_>, failed: &[(NodeId, String)]) -> Option<(String, Placement)> {
        self.placed(facts, facts.job.wanted.as_ref(), failed)
    }

    /// The same for what users of a cluster want.
    fn placed(
        &self,
        facts: Facts<'_>,
        wanted: Option<&Wanted>,
        failed: &[(NodeId, String)],
    ) -> Option<(String, Placement)> {
        let newest = facts.job.attempt.as_ref();
        // A cluster's job is only stopped for an attempt that could begin now, with its nodes as they are.
        let running = newest.filter(|_| self.over.is_none() && wanted.is_none());
        let free = |node: &NodeId, offer: &Offer| offer.slots.saturating_sub(facts.taken_by_others(node));
        let fit = |node: &NodeId, offer: &Offer| {
            let ready = match wanted {
                Some(wanted) => {
                    let drains = facts.draining.contains(&node.address);
                    offer.programs.get(&wanted.version) == Some(&None) && offer.has_labels(&wanted.require) && !drains
                }
                None => offer.unready.is_none(),
            };
            // What runs is not stopped because it could not be started now: an outage would stop it everywhere.
            let may = ready || running.is_some_and(|attempt| attempt.placement.has(node));
            may && free(node, offer) > 0 && !offer.leaving && failed.iter().all(|(other, _)| other != node)
        };
        let fit = facts.heard().filter(|(node, status)| fit(node, &status.offer)).collect();
        let fit = together(fit, facts.coordinator, running.map(|attempt| &attempt.placement));
        let places = newest.map(|attempt| attempt.placement.places.as_slice()).unwrap_or_default();
        let deaths = self.deaths(facts);
        let room = |node: &NodeId, offer: &Offer, slots: u32| Room {
            slots,
            zone: offer.labels.get(ZONE).cloned().unwrap_or_default(),
            ran: places.iter().position(|(other, _)| other == node),
            avoid: avoids(&deaths, &node.address),
        };
        if let Some(wanted) = wanted {
            let rooms = fit.into_iter().map(|(node, offer)| (node.clone(), room(node, offer, free(node, offer))));
            let placement = place(&rooms.collect(), Workers::Fixed(wanted.workers))?;
            let whole = placement.layout().workers == wanted.workers;
            return whole.then(|| (wanted.version.clone(), placement));
        }
        let current = newest.map(|attempt| attempt.version.as_str());
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        fit.iter().for_each(|(_, offer)| *votes.entry(&offer.version).or_default() += 1);
        // A tie keeps the version that runs.
        let version =
            votes.into_iter().max_by_key(|(version, votes)| (*votes, Some(*version) == current))?.0.to_owned();
        let of_version = || fit.iter().filter(|(_, offer)| offer.version == version);
        let workers = of_version().map(|(_, offer)| offer.workers).max()?;
        let rooms = of_version().map(|(node, offer)| ((*node).clone(), room(node, offer, offer.slots))).collect();
        Some((version, place(&rooms, workers)?))
    }

    /// Notes whether the attempt is over: a process has ended, or a node that runs some is lost.
    fn watch(&mut self, facts: Facts<'_>, attempt: &Attempt) {
        let Facts { members, times, now_ms, .. } = facts;
        let mut over = false;
        for (node, running) in facts.running(attempt) {
            // One that does not hear its orders will not begin.
            let deaf = members.status(node).is_some_and(|status| status.deaf_to.contains(facts.coordinator));
            let late = deaf || now_ms >= self.began_ms + times.start_ms;
            let ended = |running: &Running| running.processes.values().any(|process| process.end().is_some());
            over |= running.is_some_and(ended);
            // Those that end later than this are killed by their nodes.
            let by_itself = self.over.as_ref().is_none_or(|over| now_ms < over.since_ms + times.last_words_ms);
            let died = |running: &Running| running.processes.values().any(ProcessState::has_died);
            if by_itself && running.is_some_and(died) && !facts.is_forced(attempt) {
                self.died.insert(node.clone());
            }
            self.ran |= running.is_some_and(|running| !running.is_over());
            self.read |= running.is_some_and(|running| running.reads);
            self.healthy |= running.is_some_and(|running| running.healthy);
            let is_lost = members.has_lost(node, now_ms);
            if is_lost || (late && running.is_none()) {
                over = true;
                self.lost.insert(node.clone());
            }
            let is_first = attempt.placement.places.first().is_some_and(|(first, _)| first == node);
            let has_ended = running.is_some_and(Running::is_over);
            self.first_is_lost |= is_first && is_lost && self.may_have_met && !has_ended;
        }
        let trial_ends_ms = self.began_ms.saturating_add(times.trial_ms);
        self.is_late |= !over && !self.read && now_ms >= trial_ends_ms && facts.on_trial(attempt);
        if over && self.over.is_none() {
            self.over = Some(Over { since_ms: now_ms, next: None });
        }
    }

    /// Asks the attempt to stop where users want another one or none, or the members have changed for good.
    fn watch_for_changes(&mut self, facts: Facts<'_>, attempt: &Attempt) {
        let Facts { members, times, job, now_ms, .. } = facts;
        if self.stopping.is_some() {
            return;
        }
        if let Some(wanted) = &job.wanted {
            if !wanted.run {
                self.stopping = Some("the job was told to stop".to_owned());
            } else if wanted.revision != attempt.revision
                && let Some((_, placement)) = self.wanted(facts, &job.failed)
            {
                // What cannot run yet leaves the job as it is.
                self.stopping = Some(format!("revision {} of the job was asked for", wanted.revision));
                self.moves_to = Some(placement);
            }
        }
        let unheard = |node: &NodeId| facts.heard().all(|(other, _)| other != node);
        let mut places = attempt.placement.places.iter().map(|(node, _)| node);
        // A node that is not heard now is heard again, or lost, soon.
        if self.stopping.is_some() || !members.settled_for(times.debounce_ms, now_ms) || places.any(unheard) {
            return;
        }
        let leaves = |(node, status): &(&NodeId, &Status)| status.offer.leaving && attempt.placement.has(node);
        let why = match facts.heard().find(leaves) {
            Some((node, _)) => {
                // It is not asked whether there is room: the node leaves in any case.
                self.moves_to = self.next(facts).map(|next| next.placement);
                Some(format!("{node} leaves"))
            }
            None if job.wanted.is_some() => self.drains(facts, attempt),
            None => self.wanted(facts, &job.failed).and_then(|(version, placement)| {
                let (before, after) = (attempt.layout().workers, placement.layout().workers);
                if version != attempt.version {
                    return Some(format!("most copies have version {version}"));
                }
                (before != after).then(|| format!("there is room for {after} workers instead of {before}"))
            }),
        };
        self.stopping = why;
    }

    /// The attempt that would follow if this one were asked to stop now.
    fn next(&self, facts: Facts<'_>) -> Option<Attempt> {
        let decided = self.attempt(facts, facts.job.failed.clone(), Decisions::new(true), String::new());
        match decided? {
            Decision::Attempt { attempt, .. } => Some(attempt),
            _ => None,
        }
    }

    /// Why the attempt is asked to stop, if a node of it is drained and the others have room for all of its workers.
    fn drains(&mut self, facts: Facts<'_>, attempt: &Attempt) -> Option<String> {
        let mut places = attempt.placement.places.iter();
        let (node, _) = places.find(|(node, _)| facts.draining.contains(&node.address))?;
        let next = self.next(facts)?;
        self.moves_to = Some(next.placement);
        Some(format!("{node} is drained"))
    }

    /// How the attempt ended, once all of its processes have ended that are not on a lost node.
    fn end_of(&self, facts: Facts<'_>, attempt: &Attempt) -> Option<GenerationEnd> {
        let (mut ends, mut stopping) = (Vec::new(), false);
        for (node, running) in facts.running(attempt) {
            let lost = self.lost.contains(node);
            if lost {
                ends.push(ProcessEnd::Died { why: format!("node {node} was lost") });
            }
            match running {
                Some(running) => {
                    if !lost && !running.is_over() {
                        return None;
                    }
                    stopping |= running.asked_to_stop;
                    ends.extend(running.processes.values().filter_map(ProcessState::end).cloned());
                }
                None if !lost => return None,
                None => {}
            }
        }
        let (mut exit, mut why) = cause(ends);
        if self.is_late {
            why = format!("it had not begun to read input within {} s", facts.times.trial_ms / 1000);
        }
        if facts.is_forced(attempt) && exit != Exit::Done {
            (exit, why, stopping) = (Exit::StoppedUncommitted, FORCED.to_owned(), true);
        }
        let fault = match exit {
            Exit::GenerationLost if !self.lost.is_empty() => Fault::None,
            Exit::GenerationLost if !self.died.is_empty() => Fault::Process,
            Exit::GenerationLost => Fault::Surroundings,
            _ => Fault::None,
        };
        let lasted_ms = facts.now_ms.saturating_sub(self.began_ms);
        let (opened, healthy) = (self.read, self.healthy);
        Some(GenerationEnd { exit, why, opened, healthy, stopping, lasted_ms, fault })
    }

    /// The attempt ended in a way that no restart mends. Where other nodes can run the job, only those at fault are out: the
    /// nodes of which a process says that its host is the cause, or, where none does, all of this version.
    fn ended_for_good(
        &mut self,
        facts: Facts<'_>,
        attempt: &Attempt,
        end: GenerationEnd,
        decisions: Decisions,
    ) -> Option<Decision> {
        let job = facts.job;
        let by_host = |process: &ProcessState| match process.end() {
            Some(ProcessEnd::Said { exit, why, elsewhere: true }) if *exit == end.exit => Some(why.clone()),
            _ => None,
        };
        let mut out: Vec<_> = facts
            .running(attempt)
            .filter_map(|(node, running)| Some((node.clone(), running?.processes.values().find_map(by_host)?)))
            .collect();
        let only_hosts = !out.is_empty();
        if !only_hosts {
            let of_version = facts.heard().filter(|(_, status)| status.offer.version == attempt.version);
            out.extend(of_version.map(|(node, _)| (node.clone(), end.why.clone())));
        }
        let mut failed = job.failed.clone();
        failed.extend(out.into_iter().filter(|(node, _)| job.failed.iter().all(|(other, _)| other != node)));
        let outcome = Decision::Outcome(Outcome { exit: end.exit, why: end.why.clone() });
        if end.exit == Exit::Fenced {
            return Some(outcome);
        }
        if let Some(wanted) = job.wanted.as_ref().filter(|_| !only_hosts) {
            // No node of a cluster has another program than that which has ended.
            let other = wanted.run && wanted.version != attempt.version;
            return Some(if other { Decision::Begin } else { outcome });
        }
        if end.exit == Exit::Done {
            return Some(outcome);
        }
        // Where the same program goes on and has been open, an outage does not end it.
        let after = if only_hosts { decisions } else { Decisions::new(true) };
        if let Some(next) = self.attempt(facts, failed.clone(), after.clone(), end.why.clone()) {
            return Some(next);
        }
        // Nodes that are not ready, for example because they have just been started, run the job once they are.
        let may_run = |(node, status): (&NodeId, &Status)| {
            let Offer { slots, leaving, .. } = status.offer;
            slots > 0 && !leaving && failed.iter().all(|(other, _)| other != node)
        };
        if !only_hosts || !facts.heard().any(may_run) {
            return Some(outcome);
        }
        if let Some(over) = &mut self.over {
            over.next = Some((end, facts.now_ms, after));
        }
        (failed != job.failed).then_some(Decision::Failed(failed))
    }

    /// Whether none of the newest attempt's processes runs any more, as far as anyone can know.
    fn is_over(&self) -> bool {
        self.over.as_ref().is_some_and(|over| over.next.is_some())
    }

    /// Whether the slots of the newest attempt are the job's: until its processes have ended, and for a while after, in which the
    /// next attempt may begin. One that had ended before this term holds none.
    fn holds_slots(&self, times: &Times, now_ms: u64) -> bool {
        let next = self.over.as_ref().and_then(|over| over.next.as_ref());
        next.is_none_or(|(_, at_ms, _)| self.ran && now_ms < at_ms + times.start_ms)
    }

    /// The slots that a job holds: those of its newest attempt, and those that are kept for the next one while it moves.
    pub(super) fn held(&self, job: &JobRecord, times: &Times, now_ms: u64) -> Slots {
        let mut held = Slots::new();
        let holds = job.outcome.is_none() && self.holds_slots(times, now_ms);
        let newest = job.attempt.as_ref().map(|attempt| &attempt.placement).filter(|_| holds);
        for placement in newest.into_iter().chain(self.moves_to.as_ref().filter(|_| holds)) {
            for (node, slots) in placement.slots() {
                let of_node = held.entry(node).or_default();
                *of_node = slots.max(*of_node);
            }
        }
        held
    }

    /// Whether this node is of use for the job, so that it must not leave yet: it runs some of its processes, or it coordinates
    /// and has still to see to what follows.
    pub(super) fn needs(&self, facts: Facts<'_>, node: &NodeId) -> bool {
        let Some(attempt) = facts.job.attempt.as_ref().filter(|_| facts.job.outcome.is_none()) else { return false };
        let runs = !self.is_over() && attempt.placement.has(node);
        runs || (node == facts.coordinator && self.hands_over(facts, attempt))
    }

    /// Whether this coordinator, if it leaves, has still to see to what follows: otherwise the job would wait until another one
    /// has begun to coordinate. It does so for some seconds at most.
    fn hands_over(&self, facts: Facts<'_>, attempt: &Attempt) -> bool {
        let Facts { times, now_ms, .. } = facts;
        if let Some((_, at_ms, _)) = self.over.as_ref().and_then(|over| over.next.as_ref()) {
            let follows = facts.is_to_end() || self.next(facts).is_some();
            return follows && now_ms < at_ms + times.silence_ms;
        }
        let mut running = facts.running(attempt).filter_map(|(_, running)| running);
        let opened = running.any(|running| running.generation.is_some());
        !opened && now_ms < self.began_ms + times.silence_ms
    }

    /// What is to be done with the newest attempt.
    pub(super) fn command(&self, facts: Facts<'_>, attempt: &Attempt) -> Command {
        let Facts { times, now_ms, .. } = facts;
        if facts.job.outcome.is_some() || facts.is_forced(attempt) || self.is_late {
            // A node that was lost meanwhile may still run some.
            return Command::Kill;
        }
        let running = || facts.running(attempt).filter_map(|(_, running)| running);
        if let Some(over) = &self.over {
            // The others notice by themselves, and say why they end. Where a node is lost the reason is known.
            let done = running().any(|running| running.processes.values().any(ProcessState::is_done));
            let grace_ms = if done {
                times.letting_go_ms
            } else if self.lost.is_empty() {
                times.last_words_ms
            } else {
                0
            };
            if now_ms >= over.since_ms + grace_ms {
                return Command::Kill;
            }
        }
        if self.stopping.is_some() {
            return Command::Stop;
        }
        let listens = |process: &ProcessState| match process {
            ProcessState::Listens(address) => Some(address.clone()),
            ProcessState::Started | ProcessState::Ended(_) => None,
        };
        let addresses: Vec<_> = running().flat_map(|running| running.processes.values()).filter_map(listens).collect();
        let all = addresses.len() == attempt.layout().processes as usize;
        if all { Command::Run(addresses) } else { Command::Start }
    }
}
