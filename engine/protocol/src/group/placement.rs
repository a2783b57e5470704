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

    /// How many slots it takes of each of its nodes.
    #[must_use]
    pub fn slots(&self) -> BTreeMap<NodeId, u32> {
        self.places.iter().map(|(node, processes)| (node.clone(), processes * self.threads)).collect()
    }

    /// Whether a node starts a process of it.
    #[must_use]
    pub fn has(&self, node: &NodeId) -> bool {
        !self.of(node).is_empty()
    }
}

/// What is known of a node that could run the program: it has fetched and checked it. No other node is asked, so there is no
/// rule that prefers nodes which have the binary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// How many slots are free for the job.
    pub slots: u32,
    /// The value of the node's label [`ZONE`]; empty without one. Nodes without one are in one zone.
    pub zone: String,
    /// Which place the node had in the job's last attempt, if it had one.
    pub ran: Option<usize>,
    /// Whether processes of the job died there several times lately: it is only used if the others have not enough room.
    pub avoid: bool,
}

/// The label that says in which zone a node is.
pub const ZONE: &str = "zone";

/// Divides the workers into processes of equal size, and chooses their nodes. `None` if there are no slots. The rules, the most
/// important first:
///
/// 1. As many workers as possible, up to the wanted number.
/// 2. Nodes to avoid get processes only if there are fewer workers without them.
/// 3. As few processes as possible.
/// 4. The processes are spread evenly over zones, and then over nodes, as far as these have room.
/// 5. Nodes on which the job ran are preferred, then those with the most free slots.
#[must_use]
pub fn place(rooms: &BTreeMap<NodeId, Room>, wanted: Workers) -> Option<Placement> {
    let of_all = within(rooms, wanted)?;
    if rooms.values().any(|room| room.avoid) {
        let others = rooms.iter().filter(|(_, room)| !room.avoid);
        let others: BTreeMap<_, _> = others.map(|(node, room)| (node.clone(), room.clone())).collect();
        // What `Auto` wants of them is fewer.
        if let Some(of_others) = within(&others, wanted).filter(|of| of.layout().workers == of_all.layout().workers) {
            return Some(of_others);
        }
    }
    Some(of_all)
}

/// The same for nodes of which none is avoided.
fn within(rooms: &BTreeMap<NodeId, Room>, wanted: Workers) -> Option<Placement> {
    let all: u32 = rooms.values().map(|room| room.slots).sum();
    let most = match wanted {
        Workers::Auto => all,
        Workers::Fixed(workers) => workers.min(all),
    };
    let largest = rooms.values().map(|room| room.slots).max()?.min(most);
    let capacity = |threads: u32| rooms.values().map(|room| room.slots / threads).sum::<u32>();
    // With one worker a process all slots can be used, so there is an answer if there is a slot.
    let best = (1..=largest).map(|threads| (capacity(threads).min(most / threads) * threads, threads)).max();
    let (workers, threads) = best?;
    let rank = |node: &NodeId| (rooms[node].ran.unwrap_or(usize::MAX), std::cmp::Reverse(rooms[node].slots));
    let (mut in_zone, mut on_node) = (BTreeMap::<&str, u32>::new(), BTreeMap::<&NodeId, u32>::new());
    for _ in 0..workers / threads {
        let processes = |node: &NodeId| on_node.get(node).copied().unwrap_or_default();
        let of_zone = |room: &Room| in_zone.get(room.zone.as_str()).copied().unwrap_or_default();
        let has_room = |(node, room): &(&NodeId, &Room)| (processes(node) + 1) * threads <= room.slots;
        let next = rooms.iter().filter(has_room);
        let (node, room) = next.min_by_key(|(node, room)| (of_zone(room), processes(node), rank(node), *node))?;
        *on_node.entry(node).or_default() += 1;
        *in_zone.entry(&room.zone).or_default() += 1;
    }
    let mut places: Vec<_> = on_node.into_iter().map(|(node, processes)| (node.clone(), processes)).collect();
    places.sort_by_key(|(node, _)| rank(node));
    (workers > 0).then_some(Placement { threads, places })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn node(name: &str) -> NodeId {
        NodeId { address: name.to_owned(), start: 0 }
    }

    /// Nodes `a`, `b`, … that are described as `slots`, `slots@zone`, with `!` behind those to avoid.
    fn rooms(described: &str, ran: &[&str]) -> BTreeMap<NodeId, Room> {
        let room = |(name, text): (&str, &str)| {
            let (text, avoid) = text.strip_suffix('!').map_or((text, false), |text| (text, true));
            let (slots, zone) = text.split_once('@').unwrap_or((text, ""));
            let ran = ran.iter().position(|other| *other == name);
            (node(name), Room { slots: slots.parse().unwrap(), zone: zone.to_owned(), ran, avoid })
        };
        ["a", "b", "c", "d", "e"].into_iter().zip(described.split_whitespace()).map(room).collect()
    }

    /// The threads of each process, and the nodes with their processes.
    #[track_caller]
    fn check(described: &str, wanted: Workers, ran: &[&str], expected: Option<(u32, &str)>) {
        let placed = place(&rooms(described, ran), wanted);
        let found = placed.as_ref().map(|p| {
            let places: Vec<_> = p.places.iter().map(|(node, n)| format!("{node}{n}")).collect();
            (p.threads, places.join(" "))
        });
        assert_eq!(found, expected.map(|(threads, places)| (threads, places.to_owned())), "{described} {wanted:?}");
    }

    #[test]
    fn as_many_workers_as_possible_in_as_few_processes_as_possible() {
        use Workers::{Auto, Fixed};
        check("2 2 2", Auto, &[], Some((2, "a1 b1 c1")));
        check("4 2", Auto, &[], Some((2, "a2 b1")));
        check("4 3", Auto, &[], Some((1, "a4 b3")));
        check("2 2 2", Fixed(4), &[], Some((2, "a1 b1")));
        check("4 4", Fixed(4), &[], Some((4, "a1")));
        check("2 2", Fixed(3), &[], Some((1, "a2 b1")));
        check("2", Fixed(8), &[], Some((2, "a1")));
        check("0 2", Auto, &[], Some((2, "b1")));
        check("0", Auto, &[], None);
        check("", Auto, &[], None);
        check("2", Fixed(0), &[], None);
    }

    #[test]
    fn processes_are_spread_over_zones_and_then_over_nodes() {
        use Workers::Fixed;
        check("2@x 2@x 2@y", Fixed(4), &[], Some((2, "a1 c1")));
        check("2@x 2@x 2@y 2@y", Fixed(6), &[], Some((2, "a1 b1 c1")));
        // A zone without room gives its share to the others.
        check("4@x 4@x 1@y", Fixed(8), &[], Some((4, "a1 b1")));
        check("3@x 3@y 3@y", Fixed(5), &[], Some((1, "a2 b2 c1")));
        // Nodes without a zone are in one.
        check("2 2 2@y", Fixed(4), &[], Some((2, "a1 c1")));
        // Fewer processes count more than their spread.
        check("4@x 2@y 2@z", Fixed(4), &[], Some((4, "a1")));
        check("4@x 4@x 2@y", Fixed(6), &[], Some((3, "a1 b1")));
    }

    #[test]
    fn where_the_job_ran_counts_less_than_the_spread_and_more_than_free_slots() {
        use Workers::Fixed;
        check("2 2 2", Fixed(4), &["c", "b"], Some((2, "c1 b1")));
        check("2 4 2", Fixed(2), &["c"], Some((2, "c1")));
        check("2 4 2", Fixed(2), &[], Some((2, "b1")));
        check("2@x 2@x 2@y", Fixed(4), &["a", "b"], Some((2, "a1 c1")));
    }

    #[test]
    fn a_node_to_avoid_is_used_only_if_the_others_have_not_enough_room() {
        use Workers::{Auto, Fixed};
        check("4! 2 2", Fixed(4), &["a"], Some((2, "b1 c1")));
        check("4! 2", Fixed(4), &["a"], Some((4, "a1")));
        check("2@x 2@y! 2@x", Fixed(4), &[], Some((2, "a1 c1")));
        check("2 2!", Auto, &[], Some((2, "a1 b1")));
        check("2! 2!", Fixed(2), &[], Some((2, "a1")));
    }

    /// Whatever rooms there are: no node gets more than it has, and no zone or node could give a process to another one that has
    /// fewer of them by two.
    #[test]
    fn a_placement_is_as_even_as_the_rooms_allow() {
        let mut dice = crate::simulation::dice::Dice::new(11);
        for _ in 0..2000 {
            let nodes = dice.between(1, 6);
            let rooms: BTreeMap<_, _> = (0..nodes)
                .map(|of| {
                    let zone = ["x", "y", "z"][dice.below(3)].to_owned();
                    let slots = dice.between(0, 5) as u32;
                    (node(&format!("n{of}")), Room { slots, zone, ..Room::default() })
                })
                .collect();
            let wanted = dice.between(1, 12) as u32;
            let all: u32 = rooms.values().map(|room| room.slots).sum();
            let Some(placement) = place(&rooms, Workers::Fixed(wanted)) else {
                assert_eq!(all, 0);
                continue;
            };
            assert_eq!(placement.layout().workers, wanted.min(all));
            let on = |node: &NodeId| placement.of(node).len() as u32;
            let has_room = |node: &NodeId| (on(node) + 1) * placement.threads <= rooms[node].slots;
            let in_zone = |zone: &str| -> u32 {
                rooms.iter().filter(|(_, room)| room.zone == zone).map(|(node, _)| on(node)).sum()
            };
            for (node, room) in &rooms {
                assert!(placement.workers_on(node) <= room.slots, "{rooms:?} {placement:?}");
                for (other, of_other) in rooms.iter().filter(|(other, _)| has_room(other)) {
                    let even = if room.zone == of_other.zone {
                        on(node) <= on(other) + 1
                    } else {
                        on(node) == 0 || in_zone(&room.zone) <= in_zone(&of_other.zone) + 1
                    };
                    assert!(even, "{wanted}: {rooms:?} {placement:?}");
                }
            }
        }
    }

    #[test]
    fn processes_are_numbered_in_the_order_of_the_nodes() {
        let placement = Placement { threads: 2, places: vec![(node("b"), 2), (node("a"), 1)] };
        assert_eq!((placement.of(&node("b")), placement.of(&node("a")), placement.of(&node("c"))), (0..2, 2..3, 0..0));
        assert_eq!(placement.layout(), Layout { workers: 6, processes: 3 });
        assert!(placement.has(&node("a")) && !placement.has(&node("c")));
    }
}
