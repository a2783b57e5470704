//! The nodes of a group as the coordinator knows them.

use std::collections::{BTreeMap, BTreeSet};

use super::Times;
use super::messages::{Member, Offer, Running, Status};
use super::placement::Placement;
use super::record::{AttemptNumber, NodeId};

/// A node as the coordinator knows it.
#[derive(Clone, Debug)]
struct Known {
    /// `None` until it has been heard in this term.
    status: Option<Status>,
    heard_ms: u64,
    /// The number of the last orders that were sent to it.
    sent: u64,
}

/// The nodes that the coordinator hears, or expects to hear.
#[derive(Debug)]
pub(super) struct Members {
    times: Times,
    nodes: BTreeMap<NodeId, Known>,
    /// Nodes of whose identity nobody answers at their addresses: nobody waits for them.
    gone: BTreeSet<NodeId>,
    /// Since when the members have been as they are.
    settled_ms: u64,
    last: Vec<(NodeId, Offer, Vec<NodeId>)>,
    drained_last: BTreeSet<String>,
}

impl Members {
    pub(super) fn new(times: Times, now_ms: u64) -> Self {
        Self {
            times,
            nodes: BTreeMap::new(),
            gone: BTreeSet::new(),
            settled_ms: now_ms,
            last: Vec::new(),
            drained_last: BTreeSet::new(),
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

    /// Notes since when the members have been as they are, and the same of them have been drained.
    pub(super) fn watch(&mut self, draining: &BTreeSet<String>, now_ms: u64) {
        if *draining != self.drained_last {
            self.drained_last.clone_from(draining);
            self.settled_ms = now_ms;
        }
        // A program that is fetched or checked is no change of the members.
        let offer = |offer: &Offer| Offer { programs: BTreeMap::new(), ..offer.clone() };
        let member = |(node, status): (&NodeId, &Status)| (node.clone(), offer(&status.offer), status.deaf_to.clone());
        let members: Vec<_> = self.heard(now_ms).map(member).collect();
        if members != self.last {
            self.last = members;
            self.settled_ms = now_ms;
        }
    }

    /// Whether the members have been as they are for so long.
    pub(super) fn settled_for(&self, ms: u64, now_ms: u64) -> bool {
        now_ms >= self.settled_ms + ms
    }

    /// The nodes that are not silent, with those that have not been heard yet in this term.
    pub(super) fn there(&self, now_ms: u64) -> impl Iterator<Item = &NodeId> {
        self.present(now_ms).map(|(node, _)| node)
    }

    fn present(&self, now_ms: u64) -> impl Iterator<Item = (&NodeId, &Known)> {
        let silence_ms = self.times.silence_ms;
        self.nodes.iter().filter(move |(_, known)| now_ms < known.heard_ms + silence_ms)
    }

    /// The nodes that are heard.
    pub(super) fn heard(&self, now_ms: u64) -> impl Iterator<Item = (&NodeId, &Status)> {
        self.present(now_ms).filter_map(|(node, known)| Some((node, known.status.as_ref()?)))
    }

    /// Whether a node of this address is heard.
    pub(super) fn has_address(&self, address: &str, now_ms: u64) -> bool {
        self.heard(now_ms).any(|(node, _)| node.address == address)
    }

    /// Whether each node that is there has been heard in this term: one that has not may have workers for the next attempt.
    pub(super) fn all_heard(&self, now_ms: u64) -> bool {
        self.present(now_ms).all(|(_, known)| known.status.is_some())
    }

    /// Whether every node was told to leave.
    pub(super) fn all_leave(&self, now_ms: u64) -> bool {
        self.heard(now_ms).count() > 0 && self.heard(now_ms).all(|(_, status)| status.offer.leaving)
    }

    /// Whether a node is lost: it has been silent for too long, or nobody answers at its address.
    pub(super) fn has_lost(&self, node: &NodeId, now_ms: u64) -> bool {
        let heard_ms = self.nodes.get(node).map_or(0, |known| known.heard_ms);
        self.gone.contains(node) || now_ms >= heard_ms + self.times.silence_ms
    }

    /// What a node said last, in this term.
    pub(super) fn status(&self, node: &NodeId) -> Option<&Status> {
        self.nodes.get(node)?.status.as_ref()
    }

    /// What a node runs of an attempt of a job.
    pub(super) fn running(&self, node: &NodeId, job: &str, attempt: AttemptNumber) -> Option<&Running> {
        self.status(node)?.running.get(job).filter(|running| running.attempt == attempt)
    }

    /// The number of the next orders to a node.
    pub(super) fn next_orders(&mut self, node: &NodeId) -> u64 {
        self.nodes.get_mut(node).map_or(0, |known| {
            known.sent += 1;
            known.sent
        })
    }

    /// The nodes that are not silent, for people.
    pub(super) fn list(&self, now_ms: u64) -> Vec<Member> {
        let member = |(node, known): (&NodeId, &Known)| Member {
            node: node.clone(),
            status: known.status.clone(),
            silent_ms: now_ms.saturating_sub(known.heard_ms),
        };
        self.present(now_ms).map(member).collect()
    }
}

/// Those of the nodes that can run an attempt together: each hears the coordinator and all others. Where two do not hear each
/// other, one is left out. What runs already finds out by itself whether it can.
pub(super) fn together<'a>(
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
