//! The coordinator: what it hears of the nodes, and a control for each job.

use std::collections::BTreeMap;

use super::Times;
use super::control::{Control, Decision, Facts};
use super::members::Members;
use super::messages::{JobOrder, Orders};
use super::record::{GroupRecord, NodeId};

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

    /// The record that has to be written to the journal now, if one has, and the jobs that get new attempts by it. `record` is the
    /// newest record.
    pub(super) fn decide(&mut self, record: &GroupRecord, now_ms: u64) -> Option<(GroupRecord, Vec<String>)> {
        self.members.watch(now_ms);
        let (mut next, mut attempts) = (record.clone(), Vec::new());
        for (name, job) in &record.jobs {
            let control = self.controls.entry(name.clone()).or_insert_with(|| Control::new(now_ms));
            let facts = Facts {
                members: &self.members,
                times: &self.times,
                coordinator: &record.coordinator,
                name,
                job,
                now_ms,
            };
            let (Some(decision), Some(job)) = (control.decide(facts), next.jobs.get_mut(name)) else { continue };
            match decision {
                Decision::Attempt { attempt, failed } => {
                    (job.attempt, job.failed) = (Some(attempt), failed);
                    attempts.push(name.clone());
                }
                Decision::Failed(failed) => job.failed = failed,
                Decision::Outcome(outcome) => job.outcome = Some(outcome),
            }
        }
        (next != *record).then_some((next, attempts))
    }

    /// The jobs of a record that have been decided about: the facts of each, and its control.
    fn jobs<'a>(&'a self, record: &'a GroupRecord, now_ms: u64) -> impl Iterator<Item = (Facts<'a>, &'a Control)> {
        let coordinator = &record.coordinator;
        record.jobs.iter().filter_map(move |(name, job)| {
            let facts = Facts { members: &self.members, times: &self.times, coordinator, name, job, now_ms };
            Some((facts, self.controls.get(name)?))
        })
    }

    /// The orders for every node that is heard.
    pub(super) fn orders(&mut self, record: &GroupRecord, reaches_store: bool, now_ms: u64) -> Vec<(NodeId, Orders)> {
        let members: Vec<_> = self.members.there(now_ms).cloned().collect();
        let order = |(facts, control): (Facts<'_>, &Control)| {
            let attempt = facts.job.attempt.clone()?;
            let command = control.command(facts, &attempt);
            Some(JobOrder { job: facts.name.to_owned(), run: facts.job.run, attempt, command })
        };
        let jobs: Vec<_> = self.jobs(record, now_ms).filter_map(order).collect();
        let outcome = record.jobs.values().find_map(|job| job.outcome.clone());
        let needs = |node: &NodeId| self.jobs(record, now_ms).any(|(facts, control)| control.needs(facts, node));
        let may_leave = |node: &NodeId| !needs(node) && outcome.is_none() && members.len() > 1;
        let may_leave: Vec<_> = members.iter().map(may_leave).collect();
        let orders = members.iter().zip(may_leave).map(|(node, may_leave)| {
            let orders = Orders {
                number: self.members.next_orders(node),
                term: record.term,
                members: members.clone(),
                reaches_store,
                jobs: jobs.clone(),
                outcome: outcome.clone(),
                may_leave,
            };
            (node.clone(), orders)
        });
        orders.collect()
    }
}
