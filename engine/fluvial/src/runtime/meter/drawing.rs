//! The graph of a dataflow, from what timely says while it is built.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use fluvial_node::status::{Graph, GraphEdge, GraphNode, NodeKind};
use timely::logging::{ChannelsEvent, OperatesEvent, TimelyEvent};
use timely::worker::Worker;

use crate::durable::{Held, NamedNode};

/// How the names of differential dataflow's operators begin that keep an arrangement.
const ARRANGING: [&str; 5] = ["Arrange", "Reduce", "Count", "Threshold", "Distinct"];

/// The operators and channels of a dataflow, as timely has said them.
#[derive(Debug, Default)]
pub(crate) struct Blueprint {
    pub(super) operators: Vec<OperatesEvent>,
    pub(super) channels: Vec<ChannelsEvent>,
}

impl Blueprint {
    /// Collects what timely says from now on while a dataflow is built.
    pub(crate) fn collect(worker: &Worker) -> Rc<RefCell<Self>> {
        let blueprint = Rc::new(RefCell::new(Self::default()));
        let collected = Rc::clone(&blueprint);
        Self::listen(worker, move |events| {
            let mut blueprint = collected.borrow_mut();
            for (_, event) in events.drain(..) {
                match event {
                    TimelyEvent::Operates(operator) => blueprint.operators.push(operator),
                    TimelyEvent::Channels(channel) => blueprint.channels.push(channel),
                    _ => {}
                }
            }
        });
        blueprint
    }
}

/// The graph of a dataflow, and which of its nodes an operator belongs to.
#[derive(Debug, Default)]
pub(crate) struct Drawing {
    pub(crate) graph: Graph,
    /// What the nodes with state of their own hold, by the place of the node.
    pub(crate) held: Vec<(usize, Rc<Held>)>,
    /// The place of the node that an operator of the outermost scope belongs to, by the operator's index.
    places: BTreeMap<usize, usize>,
    edges: BTreeMap<(usize, usize), usize>,
}

impl Drawing {
    /// Draws a dataflow of which some nodes have names. The same dataflow gives the same drawing, on every worker.
    pub(crate) fn new(blueprint: &Blueprint, named: &[NamedNode]) -> Self {
        let named: BTreeMap<usize, &NamedNode> = named.iter().map(|node| (node.index, node)).collect();
        // Operators of the outermost scope, by index. The dataflow itself has a path of one.
        let operators: BTreeMap<usize, &OperatesEvent> = blueprint
            .operators
            .iter()
            .filter_map(|operator| match operator.addr[..] {
                [_, index] => Some((index, operator)),
                _ => None,
            })
            .collect();
        let channels = || blueprint.channels.iter().filter(|channel| channel.scope_addr.len() == 1);
        // An output has two operators: one that finds the partitions of rows, and one that writes them.
        let writers: BTreeMap<usize, usize> = channels()
            .filter(|channel| named.get(&channel.source.0).is_some_and(|node| node.kind == NodeKind::Output))
            .map(|channel| (channel.target.0, channel.source.0))
            .collect();
        let node_of = |index: usize| writers.get(&index).copied().unwrap_or(index);
        let pairs: BTreeSet<(usize, usize)> = channels()
            .map(|channel| (node_of(channel.source.0), node_of(channel.target.0)))
            .filter(|(from, to)| from != to && operators.contains_key(from) && operators.contains_key(to))
            .collect();
        let indices: BTreeSet<usize> = operators.keys().copied().filter(|index| node_of(*index) == *index).collect();
        let ordered = in_order(indices, &pairs);

        let mut ids = BTreeSet::new();
        let mut drawing = Self::default();
        for index in ordered {
            let place = drawing.graph.nodes.len();
            drawing.places.insert(index, place);
            let operator = operators[&index];
            let node = match named.get(&index) {
                Some(node) => {
                    drawing.held.extend(node.held.iter().map(|held| (place, Rc::clone(held))));
                    GraphNode {
                        id: free_id(node.kind, &node.name, &mut ids),
                        name: node.name.clone(),
                        kind: node.kind,
                        stateful: node.held.is_some(),
                        about: None,
                    }
                }
                None => GraphNode {
                    id: free_id(NodeKind::Operator, &operator.name, &mut ids),
                    name: operator.name.clone(),
                    kind: NodeKind::Operator,
                    stateful: keeps_an_arrangement(blueprint, operator),
                    about: None,
                },
            };
            drawing.graph.nodes.push(node);
        }
        for (writer, node) in &writers {
            if let Some(place) = drawing.places.get(node).copied() {
                drawing.places.insert(*writer, place);
            }
        }
        let mut pairs: Vec<_> = pairs.iter().map(|(from, to)| (drawing.places[from], drawing.places[to])).collect();
        pairs.sort_unstable();
        for (place, (from, to)) in pairs.into_iter().enumerate() {
            let id = |place: usize| drawing.graph.nodes[place].id.clone();
            let edge = GraphEdge { from: id(from), to: id(to) };
            drawing.graph.edges.push(edge);
            drawing.edges.insert((from, to), place);
        }
        drawing
    }

    /// The place of the node that the operator at this path belongs to, and whether it is in the outermost scope itself.
    pub(super) fn node_of(&self, path: &[usize]) -> (bool, Option<usize>) {
        (path.len() == 2, path.get(1).and_then(|index| self.places.get(index)).copied())
    }

    /// The places of the nodes that a channel of the outermost scope connects, and that of its edge, unless both are one node.
    pub(super) fn edge_of(&self, channel: &ChannelsEvent) -> Option<(usize, usize, Option<usize>)> {
        let place = |(index, _): (usize, usize)| self.places.get(&index).copied();
        let (from, to) =
            Some((place(channel.source)?, place(channel.target)?)).filter(|_| channel.scope_addr.len() == 1)?;
        Some((from, to, self.edges.get(&(from, to)).copied()))
    }
}

/// Whether an operator, or one inside of it, keeps an arrangement.
fn keeps_an_arrangement(blueprint: &Blueprint, operator: &OperatesEvent) -> bool {
    let inside = blueprint.operators.iter().filter(|inside| inside.addr.starts_with(&operator.addr));
    inside.into_iter().any(|inside| ARRANGING.iter().any(|name| inside.name.starts_with(name)))
}

/// A name that no other node has.
fn free_id(kind: NodeKind, name: &str, ids: &mut BTreeSet<String>) -> String {
    let first = format!("{kind}:{name}");
    let id = if ids.contains(&first) {
        (2..).map(|number| format!("{first}-{number}")).find(|id| !ids.contains(id)).unwrap_or(first)
    } else {
        first
    };
    ids.insert(id.clone());
    id
}

/// The indices such that each comes after those that it has edges from, and otherwise in ascending order.
fn in_order(indices: BTreeSet<usize>, pairs: &BTreeSet<(usize, usize)>) -> Vec<usize> {
    let mut waits_for: BTreeMap<usize, usize> = indices.iter().map(|index| (*index, 0)).collect();
    for (_, to) in pairs {
        waits_for.entry(*to).and_modify(|count| *count += 1);
    }
    let mut free: BTreeSet<usize> = indices.iter().copied().filter(|index| waits_for[index] == 0).collect();
    let mut ordered = Vec::new();
    while let Some(next) = free.pop_first() {
        ordered.push(next);
        for (_, to) in pairs.range((next, 0)..=(next, usize::MAX)) {
            if let Some(count) = waits_for.get_mut(to) {
                *count -= 1;
                free.extend((*count == 0).then_some(*to));
            }
        }
    }
    // The operators of one scope have no cycles, so this adds nothing. A graph without some nodes would be wrong, though.
    let done: BTreeSet<usize> = ordered.iter().copied().collect();
    ordered.extend(indices.difference(&done));
    ordered
}
