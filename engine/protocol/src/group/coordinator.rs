//! The coordinator: what it hears of the nodes, and a control for each job.

use std::collections::{BTreeMap, BTreeSet};

use super::Times;
use super::changes::{Change, Refusal, apply};
use super::control::{Control, Decision, Facts};
use super::members::Members;
use super::messages::{JobOrder, Orders};
use super::record::{Attempt, GroupRecord, JobRecord, NodeId};

/// A node in its term as coordinator.
#[derive(Debug)]
pub(super) struct Coordinator {
    times: Times,
    pub(super) members: Members,
    /// By the name of the job.
    controls: BTreeMap<String, Control>,
}

impl Coordinator {
    /// The coordinator of a term that begins with this record.
    pub(super) fn new(times: Times, record: &GroupRecord, now_ms: u64) -> Self {
        let controls = record.jobs.keys().map(|job| (job.clone(), Control::new(now_ms))).collect();
        Self { times, members: Members::new(times, now_ms), controls }
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
        let results = changes.into_iter().map(|(change, run)| apply(&mut next, &change, run)).collect();
        for (name, job) in &next.jobs {
            if record.jobs.get(name).is_none_or(|before| before.run != job.run) {
                self.controls.insert(name.clone(), Control::new(now_ms));
            }
        }
        self.controls.retain(|name, _| next.jobs.contains_key(name));
        (next, results)
    }

    /// Decides what follows for each job of a record. If that is anything, returns the record with it, and the jobs that get new
    /// attempts by it.
    pub(super) fn decide(&mut self, record: &GroupRecord, now_ms: u64) -> Option<(GroupRecord, Vec<String>)> {
        self.members.watch(now_ms);
        let (mut next, mut attempts) = (None, Vec::new());
        let mut taken = self.taken(record, now_ms);
        let of_moving = self.controls.iter().filter(|(_, control)| control.is_moving(&self.times, now_ms));
        let mut moving: BTreeSet<_> = of_moving.map(|(name, _)| name.clone()).collect();
        for (name, job) in &record.jobs {
            let control = self.controls.entry(name.clone()).or_insert_with(|| Control::new(now_ms));
            let own = job.attempt.as_ref().filter(|_| is_placed(job, control, &self.times, now_ms));
            let facts = Facts {
                members: &self.members,
                times: &self.times,
                coordinator: &record.coordinator,
                name,
                job,
                taken: &taken,
                own,
                others_move: moving.iter().any(|other| other != name),
                now_ms,
            };
            let decision = control.decide(facts);
            if control.is_moving(&self.times, now_ms) {
                moving.insert(name.clone());
            }
            let Some(decision) = decision else { continue };
            if let Some(attempt) = own.filter(|_| !matches!(decision, Decision::Failed(_))) {
                count(&mut taken, attempt, |of_node, workers| *of_node -= workers);
            }
            let next = next.get_or_insert_with(|| record.clone());
            let Some(of_job) = next.jobs.get_mut(name) else { continue };
            match decision {
                Decision::Attempt { attempt, failed } => {
                    count(&mut taken, &attempt, |of_node, workers| *of_node += workers);
                    (of_job.attempt, of_job.failed) = (Some(attempt), failed);
                    attempts.push(name.clone());
                }
                Decision::Failed(failed) => of_job.failed = failed,
                Decision::Outcome(outcome) => of_job.outcome = Some(outcome),
                Decision::Begin => {
                    of_job.attempt = None;
                    of_job.failed.clear();
                }
            }
        }
        next.map(|next| (next, attempts))
    }

    /// How many workers each node runs, of all jobs.
    fn taken(&self, record: &GroupRecord, now_ms: u64) -> BTreeMap<NodeId, u32> {
        let mut taken = BTreeMap::new();
        for (name, job) in &record.jobs {
            let placed = self.controls.get(name).is_none_or(|control| is_placed(job, control, &self.times, now_ms));
            if let Some(attempt) = job.attempt.as_ref().filter(|_| placed) {
                count(&mut taken, attempt, |of_node, workers| *of_node += workers);
            }
        }
        taken
    }

    /// The jobs of a record that have been decided about: the facts of each, and its control.
    fn jobs<'a>(
        &'a self,
        record: &'a GroupRecord,
        taken: &'a BTreeMap<NodeId, u32>,
        now_ms: u64,
    ) -> impl Iterator<Item = (Facts<'a>, &'a Control)> {
        let coordinator = &record.coordinator;
        record.jobs.iter().filter_map(move |(name, job)| {
            let control = self.controls.get(name)?;
            let own = job.attempt.as_ref().filter(|_| is_placed(job, control, &self.times, now_ms));
            let (members, times) = (&self.members, &self.times);
            let facts = Facts { members, times, coordinator, name, job, taken, own, others_move: false, now_ms };
            Some((facts, control))
        })
    }

    /// The orders for every node that is heard.
    pub(super) fn orders(&mut self, record: &GroupRecord, reaches_store: bool, now_ms: u64) -> Vec<(NodeId, Orders)> {
        let members: Vec<_> = self.members.there(now_ms).cloned().collect();
        let taken = self.taken(record, now_ms);
        let order = |(facts, control): (Facts<'_>, &Control)| {
            let attempt = facts.job.attempt.clone()?;
            let command = control.command(facts, &attempt);
            Some(JobOrder { job: facts.name.to_owned(), run: facts.job.run, attempt, command })
        };
        let jobs: Vec<_> = self.jobs(record, &taken, now_ms).filter_map(order).collect();
        let is_cluster = record.jobs.values().all(|job| job.wanted.is_some());
        let outcome = record.jobs.values().filter(|_| !is_cluster).find_map(|job| job.outcome.clone());
        let runs = |job: &&JobRecord| job.outcome.is_none();
        // An attempt may have to follow in the revision that runs now.
        let of_job = |job: &JobRecord| {
            let wanted = job.wanted.as_ref()?;
            let running = job.attempt.as_ref().map(|attempt| attempt.version.clone());
            Some([Some(wanted.version.clone()), running])
        };
        let versions: BTreeSet<_> = record.jobs.values().filter(runs).filter_map(of_job).flatten().flatten().collect();
        let needs =
            |node: &NodeId| self.jobs(record, &taken, now_ms).any(|(facts, control)| control.needs(facts, node));
        let may_leave = |node: &NodeId| !needs(node) && outcome.is_none() && (is_cluster || members.len() > 1);
        let may_leave: Vec<_> = members.iter().map(may_leave).collect();
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

/// Whether the newest attempt of a job holds slots.
fn is_placed(job: &JobRecord, control: &Control, times: &Times, now_ms: u64) -> bool {
    job.outcome.is_none() && control.holds_slots(times, now_ms)
}

fn count(taken: &mut BTreeMap<NodeId, u32>, attempt: &Attempt, change: impl Fn(&mut u32, u32)) {
    for (node, _) in &attempt.placement.places {
        change(taken.entry(node.clone()).or_default(), attempt.placement.workers_on(node));
    }
}
