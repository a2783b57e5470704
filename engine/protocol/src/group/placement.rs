//! Which nodes run which processes of an attempt.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::NodeId;
use crate::Layout;

/// The number of workers that a user wants over all copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workers {
    /// One for each slot of the copies that are ready.
    Auto,
    /// So many; copies that are not needed stand by. Fewer if there are fewer slots.
    Fixed(u32),
}

/// The processes of an attempt: all have the same number of workers, as timely requires.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// How many workers each process has.
    pub threads: u32,
    /// The nodes with the number of their processes; the processes are numbered in this order.
    pub places: Vec<(NodeId, u32)>,
}

impl Placement {
    /// The numbers of workers and processes.
    #[must_use]
    pub fn layout(&self) -> Layout {
        let processes: u32 = self.places.iter().map(|(_, processes)| processes).sum();
        Layout { workers: processes * self.threads, processes }
    }

    /// The numbers of the processes that a node starts.
    #[must_use]
    pub fn of(&self, node: &NodeId) -> std::ops::Range<u32> {
        let mut first = 0;
        for (place, processes) in &self.places {
            if place == node {
                return first..first + processes;
            }
            first += processes;
        }
        0..0
    }

    /// How many workers it has on a node.
    #[must_use]
    pub fn workers_on(&self, node: &NodeId) -> u32 {
        self.of(node).len() as u32 * self.threads
    }

    /// Whether a node starts a process of it.
    #[must_use]
    pub fn has(&self, node: &NodeId) -> bool {
        !self.of(node).is_empty()
    }
}

/// Divides the workers into processes of equal size. As many workers as possible are placed, up to the wanted number, in as few
/// processes as possible; nodes of `preferred` get them first. `None` if there are no slots.
#[must_use]
pub fn place(slots: &BTreeMap<NodeId, u32>, wanted: Workers, preferred: &[NodeId]) -> Option<Placement> {
    let all: u32 = slots.values().sum();
    let most = match wanted {
        Workers::Auto => all,
        Workers::Fixed(workers) => workers.min(all),
    };
    let largest = slots.values().copied().max()?.min(most);
    let capacity = |threads: u32| slots.values().map(|slots| slots / threads).sum::<u32>();
    // With one worker a process all slots can be used, so there is an answer if there is a slot.
    let best = (1..=largest).map(|threads| (capacity(threads).min(most / threads) * threads, threads)).max();
    let (workers, threads) = best?;
    let mut left = workers / threads;
    let rank = |node: &NodeId| preferred.iter().position(|other| other == node).unwrap_or(preferred.len());
    let mut nodes: Vec<_> = slots.iter().collect();
    nodes.sort_by_key(|(node, slots)| (rank(node), std::cmp::Reverse(**slots)));
    let mut places = Vec::new();
    for (node, slots) in nodes {
        let processes = (slots / threads).min(left);
        if processes > 0 {
            places.push((node.clone(), processes));
            left -= processes;
        }
    }
    (workers > 0).then_some(Placement { threads, places })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId { address: name.to_owned(), start: 0 }
    }

    /// The threads of each process, and the nodes with their processes, for nodes `a`, `b`, … of so many slots.
    fn check(slots: &[u32], wanted: Workers, preferred: &[&str], expected: Option<(u32, &str)>) {
        let slots: BTreeMap<_, _> = ["a", "b", "c", "d"].iter().map(|n| node(n)).zip(slots.iter().copied()).collect();
        let preferred: Vec<_> = preferred.iter().map(|n| node(n)).collect();
        let placed = place(&slots, wanted, &preferred);
        let found = placed.as_ref().map(|p| {
            let places: Vec<_> = p.places.iter().map(|(node, n)| format!("{node}{n}")).collect();
            (p.threads, places.join(" "))
        });
        assert_eq!(found, expected.map(|(threads, places)| (threads, places.to_owned())), "{slots:?} {wanted:?}");
    }

    #[test]
    fn as_many_workers_as_possible_in_as_few_processes_as_possible() {
        use Workers::{Auto, Fixed};
        check(&[2, 2, 2], Auto, &[], Some((2, "a1 b1 c1")));
        check(&[4, 2], Auto, &[], Some((2, "a2 b1")));
        check(&[4, 3], Auto, &[], Some((1, "a4 b3")));
        check(&[2, 2, 2], Fixed(4), &[], Some((2, "a1 b1")));
        check(&[2, 2, 2], Fixed(4), &["c", "b"], Some((2, "c1 b1")));
        check(&[4, 4], Fixed(4), &[], Some((4, "a1")));
        check(&[2, 2], Fixed(3), &[], Some((1, "a2 b1")));
        check(&[2], Fixed(8), &[], Some((2, "a1")));
        check(&[0, 2], Auto, &[], Some((2, "b1")));
        check(&[0], Auto, &[], None);
        check(&[], Auto, &[], None);
        check(&[2], Fixed(0), &[], None);
    }

    #[test]
    fn processes_are_numbered_in_the_order_of_the_nodes() {
        let placement = Placement { threads: 2, places: vec![(node("b"), 2), (node("a"), 1)] };
        assert_eq!((placement.of(&node("b")), placement.of(&node("a")), placement.of(&node("c"))), (0..2, 2..3, 0..0));
        assert_eq!(placement.layout(), Layout { workers: 6, processes: 3 });
        assert!(placement.has(&node("a")) && !placement.has(&node("c")));
    }
}
