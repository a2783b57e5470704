//! What a job of a cluster waits for that cannot begin, or cannot begin elsewhere.

use std::collections::BTreeMap;

use fluvial_protocol::group::{GroupRecord, Member, NodeId, Offer, Room, Wanted, Workers, place};

use super::State;
use crate::labels::describe_labels;

/// Of how many nodes a line speaks.
const MOST_NODES: usize = 8;

/// What is known about where a job could run now.
pub(super) struct Outlook {
    workers: u32,
    /// The free slots and all slots of each node that could run it.
    slots: BTreeMap<NodeId, (u32, u32)>,
    /// The nodes that could run it perhaps, once they have checked its program.
    checking: Vec<NodeId>,
    /// Why the other nodes could not run it.
    reasons: Vec<String>,
}

impl Outlook {
    /// What the coordinator knows about a job of this name.
    pub(super) fn new(name: &str, wanted: &Wanted, record: &GroupRecord, members: &[Member]) -> Self {
        let others = record.jobs.iter().filter(|(other, job)| *other != name && job.outcome.is_none());
        let attempts: Vec<_> = others.filter_map(|(_, job)| job.attempt.as_ref()).collect();
        let failed = record.jobs.get(name).map(|job| job.failed.as_slice()).unwrap_or_default();
        let mut outlook =
            Self { workers: wanted.workers, slots: BTreeMap::new(), checking: Vec::new(), reasons: Vec::new() };
        for member in members {
            let Some(offer) = member.status.as_ref().map(|status| &status.offer) else {
                outlook.reasons.push(format!("{} is not heard", member.node));
                continue;
            };
            let failure = failed.iter().find(|(node, _)| *node == member.node).map(|(_, why)| why.as_str());
            if let Some(why) = unfit(&member.node, offer, wanted, record, failure) {
                outlook.reasons.push(why);
            } else if offer.programs.contains_key(&wanted.version) {
                let taken: u32 = attempts.iter().map(|attempt| attempt.placement.workers_on(&member.node)).sum();
                outlook.slots.insert(member.node.clone(), (offer.slots.saturating_sub(taken), offer.slots));
            } else {
                outlook.checking.push(member.node.clone());
            }
        }
        outlook
    }

    /// Whether there is room for all of its workers.
    pub(super) fn has_room(&self) -> bool {
        let room = |(node, (free, _)): (&NodeId, &(u32, u32))| (node.clone(), Room { slots: *free, ..Room::default() });
        let rooms = self.slots.iter().map(room).collect();
        place(&rooms, Workers::Fixed(self.workers)).is_some_and(|room| room.layout().workers == self.workers)
    }

    /// What it lacks, in one line.
    pub(super) fn lacks(&self) -> String {
        let free: u32 = self.slots.values().map(|(free, _)| free).sum();
        let nodes = self.slots.iter().map(|(node, (free, all))| format!("{free} of {all} on {node}"));
        let mut parts = vec![match self.slots.len() {
            0 => format!("it needs {} slots, and no node could run it now", self.workers),
            _ => format!("it needs {} slots, and {free} are free: {}", self.workers, list(nodes)),
        }];
        if !self.checking.is_empty() {
            parts.push(format!(
                "its program is fetched and checked on {}",
                list(self.checking.iter().map(NodeId::to_string))
            ));
        }
        if !self.reasons.is_empty() {
            parts.push(list(self.reasons.iter().cloned()));
        }
        parts.join("; ")
    }

    /// The state of a job that waits for this, and what is to be said of it.
    pub(super) fn state(&self) -> (State, String) {
        if self.has_room() {
            (State::Starting, "an attempt is about to begin".to_owned())
        } else if self.checking.is_empty() {
            (State::Waiting, self.lacks())
        } else {
            (State::Preparing, self.lacks())
        }
    }
}

/// Why a node could not run a job, whatever slots are free.
fn unfit(node: &NodeId, offer: &Offer, wanted: &Wanted, record: &GroupRecord, failure: Option<&str>) -> Option<String> {
    if record.draining.contains(&node.address) {
        Some(format!("{node} is drained"))
    } else if offer.leaving {
        Some(format!("{node} leaves"))
    } else if !offer.has_labels(&wanted.require) {
        Some(format!("{node} has not the labels {}", describe_labels(&wanted.require)))
    } else if let Some(why) = failure {
        Some(format!("{node} takes no further part in the job: {why}"))
    } else {
        let unready = offer.programs.get(&wanted.version)?.as_ref()?;
        Some(format!("{node} could not run it now: {unready}"))
    }
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<_> = items.into_iter().collect();
    let more = items.len().saturating_sub(MOST_NODES);
    let shown = items[..items.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown}, and {more} more") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_protocol::group::{AttemptNumber, JobRecord, Offer};

    use super::super::made_up::{id, member, offer, record};
    use super::*;

    fn wanted(workers: u32) -> Wanted {
        Wanted {
            revision: 1,
            version: "v".to_owned(),
            workers,
            run: true,
            require: BTreeMap::new(),
            ends_at_once: AttemptNumber(0),
        }
    }

    /// A node with these slots that has checked the program.
    fn node(name: &str, slots: u32, change: impl FnOnce(&mut Offer)) -> Member {
        let mut member = member(name, 0);
        let status = member.status.as_mut().unwrap();
        status.running.clear();
        status.offer = Offer { slots, programs: BTreeMap::from([("v".to_owned(), None)]), ..offer() };
        change(&mut status.offer);
        member
    }

    #[test]
    fn what_a_job_waits_for_names_the_slots_and_the_reason_of_each_node() {
        let mut record = record();
        // The job that runs has two workers on each of `a` and `b`.
        record.draining.insert("d".to_owned());
        record.jobs.insert(
            "new".to_owned(),
            JobRecord { failed: vec![(id("f"), "a wrong clock".to_owned())], ..JobRecord::new(2) },
        );
        let mut wants = wanted(4);
        wants.require.insert("disk".to_owned(), "ssd".to_owned());
        let ssd = |offer: &mut Offer| drop(offer.labels.insert("disk".to_owned(), "ssd".to_owned()));
        let members = [
            node("a", 3, ssd),
            node("b", 2, ssd),
            node("c", 4, |_| {}),
            node("d", 4, ssd),
            node("e", 4, |offer| (offer.leaving, _) = (true, ssd(offer))),
            node("f", 4, ssd),
            node("g", 4, |offer| {
                ssd(offer);
                offer.programs.insert("v".to_owned(), Some("it needs another libc".to_owned()));
            }),
        ];
        let outlook = Outlook::new("new", &wants, &record, &members);
        assert!(!outlook.has_room());
        let (state, why) = outlook.state();
        assert_eq!(state, State::Waiting);
        for part in [
            "it needs 4 slots, and 1 are free: 1 of 3 on a, 0 of 2 on b",
            "c has not the labels disk=ssd",
            "d is drained",
            "e leaves",
            "f takes no further part in the job: a wrong clock",
            "g could not run it now: it needs another libc",
        ] {
            assert!(why.contains(part), "{part}: {why}");
        }
    }

    #[test]
    fn a_program_that_is_not_checked_yet_is_said_so_and_never_taken_for_room() {
        let unchecked = [node("a", 4, |offer| offer.programs.clear())];
        let (state, why) = Outlook::new("new", &wanted(2), &record(), &unchecked).state();
        assert_eq!(state, State::Preparing);
        assert!(why.contains("fetched and checked on a"), "{why}");
        let outlook = Outlook::new("new", &wanted(2), &record(), &[node("c", 4, |_| {})]);
        assert_eq!(outlook.state().0, State::Starting);
        let many: Vec<_> = (0..12).map(|n| node(&format!("n{n:02}"), 0, |_| {})).collect();
        let why = Outlook::new("new", &wanted(1), &record(), &many).state().1;
        assert!(why.contains("0 of 0 on n07, and 4 more") && !why.contains("n08"), "{why}");
    }
}
