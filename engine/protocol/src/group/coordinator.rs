//! The coordinator: what it hears of the nodes, and a control for each job.

use std::collections::{BTreeMap, BTreeSet};

use super::Times;
use super::changes::{Change, Refusal, apply};
use super::control::{Control, Decision, Facts, Slots};
use super::members::Members;
use super::messages::{Command, JobOrder, Orders, Running, Status};
use super::record::{GroupRecord, JobRecord, NodeId};

/// How long the state of a deleted job stays if processes of it may still run that are not heard: no process survives a longer pause.
const REMOVED_AFTER_MS: u64 = 600_000;

/// A node in its term as coordinator.
#[derive(Debug)]
pub(super) struct Coordinator {
    times: Times,
    pub(super) members: Members,
    /// By the name of the job.
    controls: BTreeMap<String, Control>,
    /// What the group's clock said when the term began, and when that was.
    clock: (u64, u64),
}

impl Coordinator {
    /// The coordinator of a term that begins with this record.
    pub(super) fn new(times: Times, record: &GroupRecord, now_ms: u64) -> Self {
        let controls = record.jobs.keys().map(|job| (job.clone(), Control::adopted(now_ms))).collect();
        Self { times, members: Members::new(times, now_ms), controls, clock: (record.clock_ms, now_ms) }
    }

    /// The time of the group's clock, of which each record tells.
    pub(super) fn clock_ms(&self, now_ms: u64) -> u64 {
        let (began_at_ms, began_ms) = self.clock;
        began_at_ms + now_ms.saturating_sub(began_ms)
    }

    /// A new record stands in the journal, with new attempts of these jobs.
    pub(super) fn wrote(&mut self, attempts: Vec<String>, now_ms: u64) {
        self.controls.extend(attempts.into_iter().map(|job| (job, Control::new(now_ms))));
    }

    /// Makes the changes that users ask for, each with the number of the run that it may begin. Returns the record with them,
    /// and what becomes of each.
    pub(super) fn change(
        &mut self,
        record: &GroupRecord,
        changes: impl IntoIterator<Item = (Change, u32)>,
        now_ms: u64,
    ) -> (GroupRecord, Vec<Result<(), Refusal>>) {
        let mut next = record.clone();
        let of_change = |(change, run): (Change, u32)| match change.node() {
            Some(node) if !next.draining.contains(node) && !self.members.has_address(node, now_ms) => {
                Err(Refusal::UnknownNode(node.to_owned()))
            }
            _ => {
                let may_remove_at_ms = self.may_remove_at_ms(&next, &change, now_ms);
                apply(&mut next, &change, run, may_remove_at_ms)
            }
        };
        let results = changes.into_iter().map(of_change).collect();
        for (name, job) in &next.jobs {
            if record.jobs.get(name).is_none_or(|before| before.run != job.run) {
                self.controls.insert(name.clone(), Control::new(now_ms));
            }
        }
        self.controls.retain(|name, _| next.jobs.contains_key(name));
        (next, results)
    }

    /// From when on, by the group's clock, the state of a job may be removed that is deleted now. Where a node is not heard, it may
    /// run a process of the job, of its newest attempt or of an earlier one, which may still write to it.
    fn may_remove_at_ms(&self, record: &GroupRecord, change: &Change, now_ms: u64) -> u64 {
        let clock_ms = self.clock_ms(now_ms);
        let Change::Delete { job, .. } = change else { return clock_ms };
        let attempt = record.jobs.get(job).and_then(|job| job.attempt.as_ref());
        let has_ended =
            |(node, _): &(NodeId, u32)| !self.members.has_lost(node, now_ms) && self.members.status(node).is_some();
        let is_over = |(_, status): (&NodeId, &Status)| status.running.get(job).is_none_or(Running::is_over);
        let all_have = attempt.is_some_and(|attempt| attempt.placement.places.iter().all(has_ended))
            && self.members.all_heard(now_ms)
            && self.members.heard(now_ms).all(is_over);
        if all_have { clock_ms } else { clock_ms + REMOVED_AFTER_MS }
    }

    /// Decides what follows for each job of a record. If that is anything, returns the record with it, and the jobs that get new
    /// attempts by it.
    pub(super) fn decide(&mut self, record: &GroupRecord, now_ms: u64) -> Option<(GroupRecord, Vec<String>)> {
        self.members.watch(&record.draining, now_ms);
        let scene =
            Scene { members: &self.members, times: &self.times, record, now_ms, clock_ms: self.clock_ms(now_ms) };
        let (mut next, mut attempts) = (None, Vec::new());
        let mut taken = sum(self.held(record, now_ms).values());
        for (name, job) in &record.jobs {
            let control = self.controls.entry(name.clone()).or_insert_with(|| Control::new(now_ms));
            let own = control.held(job, &self.times, now_ms);
            let facts = scene.facts(name, job, &taken, &own);
            let decision = control.decide(facts);
            subtract(&mut taken, &own);
            let Some(decision) = decision else {
                // It may have begun to move.
                add(&mut taken, &control.held(job, &self.times, now_ms));
                continue;
            };
            let next = next.get_or_insert_with(|| record.clone());
            let Some(of_job) = next.jobs.get_mut(name) else { continue };
            match decision {
                Decision::Attempt { attempt, failed, deaths } => {
                    add(&mut taken, &attempt.placement.slots());
                    (of_job.attempt, of_job.failed, of_job.deaths) = (Some(attempt), failed, deaths);
                    attempts.push(name.clone());
                }
                Decision::Failed(failed) => {
                    add(&mut taken, &own);
                    of_job.failed = failed;
                }
                Decision::Outcome(outcome) => of_job.outcome = Some(outcome),
                Decision::Reads(version) => {
                    add(&mut taken, &own);
                    if of_job.wanted.as_ref().is_some_and(|wanted| wanted.version == version) {
                        of_job.back = None;
                    }
                    of_job.proven = Some(version);
                }
                Decision::MayHaveRead => {
                    add(&mut taken, &own);
                    of_job.back = None;
                }
                Decision::Return(why) => {
                    add(&mut taken, &own);
                    of_job.return_back(why);
                }
                Decision::Begin => {
                    of_job.attempt = None;
                    of_job.failed.clear();
                }
            }
        }
        next.map(|next| (next, attempts))
    }

    /// The slots that each job of a record holds.
    fn held<'a>(&self, record: &'a GroupRecord, now_ms: u64) -> BTreeMap<&'a str, Slots> {
        let held = |(name, job): (&'a String, &JobRecord)| {
            let control = self.controls.get(name)?;
            Some((name.as_str(), control.held(job, &self.times, now_ms)))
        };
        record.jobs.iter().filter_map(held).collect()
    }

    /// The orders for every node that is heard.
    pub(super) fn orders(&mut self, record: &GroupRecord, reaches_store: bool, now_ms: u64) -> Vec<(NodeId, Orders)> {
        let members: Vec<_> = self.members.there(now_ms).cloned().collect();
        let held = self.held(record, now_ms);
        let taken = sum(held.values());
        let scene =
            Scene { members: &self.members, times: &self.times, record, now_ms, clock_ms: self.clock_ms(now_ms) };
        let decided = || {
            record.jobs.iter().filter_map(|(name, job)| {
                Some((scene.facts(name, job, &taken, held.get(name.as_str())?), self.controls.get(name)?))
            })
        };
        let order = |(facts, control): (Facts<'_>, &Control)| {
            let attempt = facts.job.attempt.clone()?;
            let command = control.command(facts, &attempt);
            Some(JobOrder { job: facts.name.to_owned(), run: facts.job.run, attempt, command })
        };
        let jobs: Vec<_> = decided().filter_map(order).collect();
        let is_cluster = record.jobs.values().all(|job| job.wanted.is_some());
        let outcome = record.jobs.values().filter(|_| !is_cluster).find_map(|job| job.outcome.clone());
        let runs = |job: &&JobRecord| job.outcome.is_none();
        // An attempt may have to follow in the revision that runs now.
        let of_job = |job: &JobRecord| {
            let wanted = job.wanted.as_ref()?;
            let running = job.attempt.as_ref().map(|attempt| attempt.version.clone());
            // The job may have to return to it.
            let before = job.may_return_to().map(|back| back.version.clone());
            Some([Some(wanted.version.clone()), running, before])
        };
        let versions: BTreeSet<_> = record.jobs.values().filter(runs).filter_map(of_job).flatten().flatten().collect();
        let needs = |node: &NodeId| decided().any(|(facts, control)| control.needs(facts, node));
        let may_leave = |node: &NodeId| !needs(node) && outcome.is_none() && (is_cluster || members.len() > 1);
        let may_leave: Vec<_> = members.iter().map(may_leave).collect();
        for order in jobs.iter().filter(|order| matches!(order.command, Command::Run(_))) {
            if let Some(control) = self.controls.get_mut(&order.job) {
                control.introduced();
            }
        }
        let orders = members.iter().zip(may_leave).map(|(node, may_leave)| {
            let orders = Orders {
                number: self.members.next_orders(node),
                term: record.term,
                members: members.clone(),
                reaches_store,
                jobs: jobs.clone(),
                versions: versions.clone(),
                outcome: outcome.clone(),
                may_leave,
            };
            (node.clone(), orders)
        });
        orders.collect()
    }
}

/// What the facts about all jobs of a record have in common.
#[derive(Clone, Copy)]
struct Scene<'a> {
    members: &'a Members,
    times: &'a Times,
    record: &'a GroupRecord,
    now_ms: u64,
    clock_ms: u64,
}

impl<'a> Scene<'a> {
    fn facts(self, name: &'a str, job: &'a JobRecord, taken: &'a Slots, own: &'a Slots) -> Facts<'a> {
        let Self { members, times, record, now_ms, clock_ms } = self;
        let (coordinator, draining) = (&record.coordinator, &record.draining);
        Facts { members, times, coordinator, name, job, taken, own, draining, now_ms, clock_ms }
    }
}

fn sum<'a>(held: impl Iterator<Item = &'a Slots>) -> Slots {
    let mut taken = Slots::new();
    held.for_each(|of_job| add(&mut taken, of_job));
    taken
}

fn add(taken: &mut Slots, of_job: &Slots) {
    for (node, slots) in of_job {
        *taken.entry(node.clone()).or_default() += slots;
    }
}

fn subtract(taken: &mut Slots, of_job: &Slots) {
    for (node, slots) in of_job {
        *taken.entry(node.clone()).or_default() -= slots;
    }
}
