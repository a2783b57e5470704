//! The coordinator: from what it hears of the nodes, it decides what the group does next.
//!
//! ```text
//!            ┌──────────────────────────── attempt ───────────────────────────┐
//!   settled ─► started ─ all listen ─► running ─ other members ─► stopping ────► over ─► next attempt, or outcome
//!                 └── a process ends, a node is lost ────────────────────────────┘
//! ```
//!
//! [`Coordinator::decide`] is a function of the record in the journal, of the statuses and of the time. Everything that must
//! survive the coordinator is in the record; the rest a new coordinator hears again.

use std::collections::{BTreeMap, BTreeSet};

use super::Times;
use super::messages::{Command, Member, Offer, Orders, ProcessState, Running, Status};
use super::placement::{Placement, place};
use super::record::{Attempt, AttemptNumber, GroupRecord, NodeId, Outcome};
use crate::{Decisions, Exit, GenerationEnd, Next, ProcessEnd, cause};

/// A node as the coordinator knows it.
#[derive(Clone, Debug)]
struct Known {
    /// `None` until it has been heard in this term.
    status: Option<Status>,
    heard_ms: u64,
    /// The number of the last orders that were sent to it.
    sent: u64,
}

/// What the coordinator wants to be written to the journal.
#[derive(Clone, Debug)]
pub(super) enum Decision {
    /// The next attempt, which gets its number when it is written.
    Attempt { attempt: Attempt, failed: Vec<(NodeId, String)> },
    /// More nodes take no further part in the job, and no other one is ready yet.
    Failed(Vec<(NodeId, String)>),
    /// The job has ended for good.
    Outcome(Outcome),
}

/// The end of the newest attempt, and what follows.
#[derive(Clone, Debug)]
struct Over {
    since_ms: u64,
    /// Once all of its processes have ended: how, from when on the next attempt may begin, and the restarts so far.
    next: Option<(GenerationEnd, u64, Decisions)>,
}

/// A node in its term as coordinator.
#[derive(Debug)]
pub(super) struct Coordinator {
    times: Times,
    nodes: BTreeMap<NodeId, Known>,
    /// Since when the members have been as they are.
    settled_ms: u64,
    members: Vec<(NodeId, Offer, Vec<NodeId>)>,
    /// When the newest attempt was written, or the term began.
    began_ms: u64,
    /// Nodes of the newest attempt that were lost during it. Those who come back do not mend it.
    lost: BTreeSet<NodeId>,
    /// Nodes of whose identity nobody answers at their addresses: nobody waits for them.
    gone: BTreeSet<NodeId>,
    /// Why the newest attempt is asked to stop, if it is: others are to follow.
    stopping: Option<String>,
    over: Option<Over>,
}

/// Those of the nodes that can run an attempt together: each hears the coordinator and all others. Where two do not hear each
/// other, one is left out. What runs already finds out by itself whether it can.
fn together<'a>(
    mut nodes: Vec<(&'a NodeId, &'a Status)>,
    coordinator: &NodeId,
    running: Option<&Placement>,
) -> Vec<(&'a NodeId, &'a Offer)> {
    let runs = |node: &NodeId| running.is_some_and(|placement| placement.has(node));
    nodes.retain(|(node, status)| runs(node) || !status.deaf_to.contains(coordinator));
    loop {
        let rank = |(node, status): &(&NodeId, &Status)| {
            let apart = |(other, of_other): &&(&NodeId, &Status)| {
                let deaf = status.deaf_to.contains(other) || of_other.deaf_to.contains(node);
                deaf && !(runs(node) && runs(other))
            };
            (nodes.iter().filter(apart).count(), !runs(node), *node != coordinator)
        };
        match nodes.iter().map(rank).enumerate().max_by_key(|(_, rank)| *rank) {
            Some((worst, (1.., _, _))) => drop(nodes.remove(worst)),
            _ => return nodes.into_iter().map(|(node, status)| (node, &status.offer)).collect(),
        }
    }
}

impl Coordinator {
    pub(super) fn new(times: Times, now_ms: u64) -> Self {
        Self {
            times,
            nodes: BTreeMap::new(),
            settled_ms: now_ms,
            members: Vec::new(),
            began_ms: now_ms,
            lost: BTreeSet::new(),
            gone: BTreeSet::new(),
            stopping: None,
            over: None,
        }
    }

    /// Takes the state of a node.
    pub(super) fn hear(&mut self, from: NodeId, status: Status, now_ms: u64) {
        let known = self.nodes.entry(from.clone()).or_insert(Known { status: None, heard_ms: now_ms, sent: 0 });
        if known.status.as_ref().is_none_or(|last| last.number < status.number) {
            known.status = Some(status);
            known.heard_ms = now_ms;
            self.gone.remove(&from);
        }
    }

    /// A node that was there in the term before, and was heard then: it hears of this term from its orders.
    pub(super) fn expect(&mut self, node: NodeId, heard_ms: u64) {
        self.nodes.entry(node).or_insert(Known { status: None, heard_ms, sent: 0 });
    }

    /// The node is gone: nobody of this identity answers at its address.
    pub(super) fn is_gone(&mut self, node: &NodeId) {
        self.nodes.remove(node);
        self.gone.insert(node.clone());
    }

    /// A new record stands in the journal; `attempt` if its attempt is new.
    pub(super) fn wrote(&mut self, attempt: bool, now_ms: u64) {
        if attempt {
            (self.began_ms, self.stopping, self.over) = (now_ms, None, None);
            self.lost.clear();
        }
    }

    /// The nodes that are not silent, with those that have not been heard yet in this term.
    fn there(&self, now_ms: u64) -> impl Iterator<Item = (&NodeId, &Known)> {
        let silence_ms = self.times.silence_ms;
        self.nodes.iter().filter(move |(_, known)| now_ms < known.heard_ms + silence_ms)
    }

    /// The nodes that are heard.
    fn heard(&self, now_ms: u64) -> impl Iterator<Item = (&NodeId, &Status)> {
        self.there(now_ms).filter_map(|(node, known)| Some((node, known.status.as_ref()?)))
    }

    /// The nodes that are not silent, for people.
    pub(super) fn members(&self, now_ms: u64) -> Vec<Member> {
        let member = |(node, known): (&NodeId, &Known)| Member {
            node: node.clone(),
            status: known.status.clone(),
            silent_ms: now_ms.saturating_sub(known.heard_ms),
        };
        self.there(now_ms).map(member).collect()
    }

    /// What has to be written to the journal now, if anything has. `record` is its newest record.
    pub(super) fn decide(&mut self, record: &GroupRecord, now_ms: u64) -> Option<Decision> {
        self.watch_members(now_ms);
        if record.outcome.is_some() {
            return None;
        }
        let Some(attempt) = &record.attempt else { return self.first(record, now_ms) };
        self.watch(attempt, &record.coordinator, now_ms);
        let Some(over) = self.over.clone() else {
            self.watch_for_changes(record, attempt, now_ms);
            return None;
        };
        let (end, at_ms, decisions) = match over.next {
            Some(next) => next,
            None => {
                // A node that has not been heard in this term may have workers for the next attempt.
                if self.there(now_ms).any(|(_, known)| known.status.is_none()) {
                    return None;
                }
                let end = self.end_of(attempt)?;
                let mut decisions = attempt.decisions.clone();
                let pause_ms = match decisions.after(&end) {
                    Next::Start { pause_ms } => pause_ms,
                    // Others were to follow, so this end was asked for.
                    Next::End if end.stopping => 0,
                    Next::End => return self.ended_for_good(record, attempt, end, decisions, now_ms),
                };
                let next = (end, now_ms + pause_ms, decisions);
                self.over = Some(Over { next: Some(next.clone()), ..over });
                next
            }
        };
        if self.all_leave(now_ms) {
            let outcome = Outcome { exit: end.exit, why: end.why };
            return Some(Decision::Outcome(outcome));
        }
        if now_ms < at_ms {
            return None;
        }
        let asked = || self.stopping.clone().unwrap_or_else(|| "the copies have changed".to_owned());
        let why = if end.stopping && end.exit == Exit::Done { asked() } else { end.why };
        self.attempt(record, record.failed.clone(), decisions, why, now_ms)
    }

    /// Notes since when the members have been as they are.
    fn watch_members(&mut self, now_ms: u64) {
        let member = |(node, status): (&NodeId, &Status)| (node.clone(), status.offer.clone(), status.deaf_to.clone());
        let members: Vec<_> = self.heard(now_ms).map(member).collect();
        if members != self.members {
            self.members = members;
            self.settled_ms = now_ms;
        }
    }

    /// The first attempt waits a moment for copies that are being started together.
    fn first(&self, record: &GroupRecord, now_ms: u64) -> Option<Decision> {
        if self.all_leave(now_ms) {
            let why = "stopped before the job was open".to_owned();
            return Some(Decision::Outcome(Outcome { exit: Exit::StoppedUncommitted, why }));
        }
        if now_ms < self.settled_ms + self.times.gather_ms {
            return None;
        }
        let why = "the first attempt".to_owned();
        self.attempt(record, record.failed.clone(), Decisions::new(true), why, now_ms)
    }

    /// The attempt that the members as they are now would get, without the nodes in `failed`.
    fn attempt(
        &self,
        record: &GroupRecord,
        failed: Vec<(NodeId, String)>,
        decisions: Decisions,
        why: String,
        now_ms: u64,
    ) -> Option<Decision> {
        let (version, placement) = self.wanted(record, &failed, now_ms)?;
        let before = record.attempt.as_ref();
        let reported = before.and_then(|attempt| {
            let places = attempt.placement.places.iter();
            places.filter_map(|(node, _)| self.running(node, attempt.number)?.generation).max()
        });
        let follows = reported.or(before.and_then(|attempt| attempt.follows));
        let attempt = Attempt { number: AttemptNumber::default(), version, placement, follows, decisions, why };
        Some(Decision::Attempt { attempt, failed })
    }

    /// The version and the placement that the members as they are now would get.
    fn wanted(&self, record: &GroupRecord, failed: &[(NodeId, String)], now_ms: u64) -> Option<(String, Placement)> {
        let running = record.attempt.as_ref().filter(|_| self.over.is_none());
        let fit = |node: &NodeId, offer: &Offer| {
            // What runs is not stopped because it could not be started now: an outage would stop it everywhere.
            let ready = offer.unready.is_none() || running.is_some_and(|attempt| attempt.placement.has(node));
            ready && offer.slots > 0 && !offer.leaving && failed.iter().all(|(other, _)| other != node)
        };
        let fit = self.heard(now_ms).filter(|(node, status)| fit(node, &status.offer)).collect();
        let fit = together(fit, &record.coordinator, running.map(|attempt| &attempt.placement));
        let current = record.attempt.as_ref().map(|attempt| attempt.version.as_str());
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        fit.iter().for_each(|(_, offer)| *votes.entry(&offer.version).or_default() += 1);
        // A tie keeps the version that runs.
        let version =
            votes.into_iter().max_by_key(|(version, votes)| (*votes, Some(*version) == current))?.0.to_owned();
        let of_version = || fit.iter().filter(|(_, offer)| offer.version == version);
        let workers = of_version().map(|(_, offer)| offer.workers).max()?;
        let slots = of_version().map(|(node, offer)| ((*node).clone(), offer.slots)).collect();
        let places = record.attempt.iter().flat_map(|attempt| &attempt.placement.places);
        let preferred: Vec<_> = places.map(|(node, _)| node.clone()).collect();
        Some((version, place(&slots, workers, &preferred)?))
    }

    /// What a node runs of an attempt.
    fn running(&self, node: &NodeId, attempt: AttemptNumber) -> Option<&Running> {
        self.nodes.get(node)?.status.as_ref()?.running.as_ref().filter(|running| running.attempt == attempt)
    }

    /// Notes whether the attempt is over: a process has ended, or a node that runs some is lost.
    fn watch(&mut self, attempt: &Attempt, me: &NodeId, now_ms: u64) {
        let mut over = false;
        for (node, _) in &attempt.placement.places {
            let heard_ms = self.nodes.get(node).map_or(0, |known| known.heard_ms);
            let silent = self.gone.contains(node) || now_ms >= heard_ms + self.times.silence_ms;
            let known = self.nodes.get(node).and_then(|known| known.status.as_ref());
            // One that does not hear its orders will not begin.
            let deaf = known.is_some_and(|status| status.deaf_to.contains(me));
            let late = deaf || now_ms >= self.began_ms + self.times.start_ms;
            let running = self.running(node, attempt.number);
            let ended = |running: &Running| running.processes.values().any(|process| process.end().is_some());
            over |= running.is_some_and(ended);
            if silent || (late && running.is_none()) {
                over = true;
                self.lost.insert(node.clone());
            }
        }
        if over && self.over.is_none() {
            self.over = Some(Over { since_ms: now_ms, next: None });
        }
    }

    /// Asks the attempt to stop where the members have changed for good.
    fn watch_for_changes(&mut self, record: &GroupRecord, attempt: &Attempt, now_ms: u64) {
        let unheard = |node: &NodeId| self.heard(now_ms).all(|(other, _)| other != node);
        let mut places = attempt.placement.places.iter().map(|(node, _)| node);
        // A node that is not heard now is heard again, or lost, soon.
        if self.stopping.is_some() || now_ms < self.settled_ms + self.times.debounce_ms || places.any(unheard) {
            return;
        }
        let leaves = |(node, status): &(&NodeId, &Status)| status.offer.leaving && attempt.placement.has(node);
        let why = match self.heard(now_ms).find(leaves) {
            Some((node, _)) => Some(format!("{node} leaves")),
            None => self.wanted(record, &record.failed, now_ms).and_then(|(version, placement)| {
                let (before, after) = (attempt.layout().workers, placement.layout().workers);
                if version != attempt.version {
                    return Some(format!("most copies have version {version}"));
                }
                (before != after).then(|| format!("there is room for {after} workers instead of {before}"))
            }),
        };
        self.stopping = why;
    }

    /// How the attempt ended, once all of its processes have ended that are not on a lost node.
    fn end_of(&self, attempt: &Attempt) -> Option<GenerationEnd> {
        let (mut ends, mut opened, mut stopping) = (Vec::new(), false, false);
        for (node, _) in &attempt.placement.places {
            let lost = self.lost.contains(node);
            if lost {
                ends.push(ProcessEnd::Died { why: format!("node {node} was lost") });
            }
            match self.running(node, attempt.number) {
                Some(running) => {
                    if !lost && !running.is_over() {
                        return None;
                    }
                    opened |= running.reads;
                    stopping |= running.asked_to_stop;
                    ends.extend(running.processes.values().filter_map(ProcessState::end).cloned());
                }
                None if !lost => return None,
                None => {}
            }
        }
        let (exit, why) = cause(ends);
        Some(GenerationEnd { exit, why, opened, stopping })
    }

    /// The attempt ended in a way that no restart mends. Where other nodes can run the job, only those at fault are out: the
    /// nodes of which a process says that its host is the cause, or, where none does, all of this version.
    fn ended_for_good(
        &mut self,
        record: &GroupRecord,
        attempt: &Attempt,
        end: GenerationEnd,
        decisions: Decisions,
        now_ms: u64,
    ) -> Option<Decision> {
        let by_host = |process: &ProcessState| match process.end() {
            Some(ProcessEnd::Said { exit, why, elsewhere: true }) if *exit == end.exit => Some(why.clone()),
            _ => None,
        };
        let places = attempt.placement.places.iter();
        let mut out: Vec<_> = places
            .filter_map(|(node, _)| {
                let running = self.running(node, attempt.number)?;
                Some((node.clone(), running.processes.values().find_map(by_host)?))
            })
            .collect();
        let only_hosts = !out.is_empty();
        if !only_hosts {
            let of_version = self.heard(now_ms).filter(|(_, status)| status.offer.version == attempt.version);
            out.extend(of_version.map(|(node, _)| (node.clone(), end.why.clone())));
        }
        let mut failed = record.failed.clone();
        failed.extend(out.into_iter().filter(|(node, _)| record.failed.iter().all(|(other, _)| other != node)));
        let outcome = Decision::Outcome(Outcome { exit: end.exit, why: end.why.clone() });
        if matches!(end.exit, Exit::Done | Exit::Fenced) {
            return Some(outcome);
        }
        // Where the same program goes on and has been open, an outage does not end it.
        let after = if only_hosts { decisions } else { Decisions::new(true) };
        if let Some(next) = self.attempt(record, failed.clone(), after.clone(), end.why.clone(), now_ms) {
            return Some(next);
        }
        // Nodes that are not ready, for example because they have just been started, run the job once they are.
        let may_run = |(node, status): (&NodeId, &Status)| {
            let Offer { slots, leaving, .. } = status.offer;
            slots > 0 && !leaving && failed.iter().all(|(other, _)| other != node)
        };
        if !only_hosts || !self.heard(now_ms).any(may_run) {
            return Some(outcome);
        }
        if let Some(over) = &mut self.over {
            over.next = Some((end, now_ms, after));
        }
        (failed != record.failed).then_some(Decision::Failed(failed))
    }

    /// Whether every copy was told to leave.
    fn all_leave(&self, now_ms: u64) -> bool {
        self.heard(now_ms).count() > 0 && self.heard(now_ms).all(|(_, status)| status.offer.leaving)
    }

    /// The orders for every node that is heard.
    pub(super) fn orders(&mut self, record: &GroupRecord, reaches_store: bool, now_ms: u64) -> Vec<(NodeId, Orders)> {
        let members: Vec<_> = self.there(now_ms).map(|(node, _)| node.clone()).collect();
        let attempt = record.attempt.as_ref().map(|attempt| (attempt.clone(), self.command(attempt, now_ms)));
        let needs = |node: &NodeId| {
            let Some(attempt) = &record.attempt else { return false };
            let settled = self.over.as_ref().is_some_and(|over| over.next.is_some());
            let runs = !settled && attempt.placement.has(node);
            runs || (*node == record.coordinator && self.hands_over(record, attempt, now_ms))
        };
        let orders = members.iter().map(|node| {
            let orders = Orders {
                number: 0,
                term: record.term,
                run: record.run,
                members: members.clone(),
                reaches_store,
                attempt: attempt.clone(),
                outcome: record.outcome.clone(),
                may_leave: !needs(node) && record.outcome.is_none() && members.len() > 1,
            };
            (node.clone(), orders)
        });
        let mut orders: Vec<_> = orders.collect();
        for (node, orders) in &mut orders {
            if let Some(known) = self.nodes.get_mut(node) {
                known.sent += 1;
                orders.number = known.sent;
            }
        }
        orders
    }

    /// Whether this coordinator, if it leaves, has still to see to what follows: otherwise the job would wait until another one
    /// has begun to coordinate. It does so for some seconds at most.
    fn hands_over(&self, record: &GroupRecord, attempt: &Attempt, now_ms: u64) -> bool {
        if let Some((_, at_ms, _)) = self.over.as_ref().and_then(|over| over.next.as_ref()) {
            let follows = self.all_leave(now_ms) || self.wanted(record, &record.failed, now_ms).is_some();
            return follows && now_ms < at_ms + self.times.silence_ms;
        }
        let running = |(node, _): &(NodeId, u32)| self.running(node, attempt.number);
        let opened = attempt.placement.places.iter().filter_map(running).any(|running| running.generation.is_some());
        !opened && now_ms < self.began_ms + self.times.silence_ms
    }

    fn command(&self, attempt: &Attempt, now_ms: u64) -> Command {
        if let Some(over) = &self.over {
            // The others notice by themselves, and say why they end. Where a node is lost the reason is known.
            let ended = |running: &Running| running.processes.values().any(ProcessState::is_done);
            let mut places = attempt.placement.places.iter();
            let done = places.any(|(node, _)| self.running(node, attempt.number).is_some_and(ended));
            let grace_ms = if done {
                self.times.letting_go_ms
            } else if self.lost.is_empty() {
                self.times.last_words_ms
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
        let mut addresses = Vec::new();
        for (node, _) in &attempt.placement.places {
            let running = self.running(node, attempt.number);
            addresses.extend(running.iter().flat_map(|running| running.processes.values()).filter_map(|p| match p {
                ProcessState::Listens(address) => Some(address.clone()),
                ProcessState::Started | ProcessState::Ended(_) => None,
            }));
        }
        let all = addresses.len() == attempt.layout().processes as usize;
        if all { Command::Run(addresses) } else { Command::Start }
    }
}
