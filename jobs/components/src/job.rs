//! The connected components of a graph whose edges come and go: recursion in a job.
//!
//! ```text
//!                               ┌───────────────────────────────────────────────────┐ until nothing changes
//!                               ▼                                                   │
//!  edges ──latest──► each node: the least label of its neighbours and itself ──► labels ──► components
//! ```
//!
//! A component is named by its least node. A label is a fact about paths of any length, so no fixed number of joins computes
//! it; differential dataflow's `iterate` repeats a step until its result does not change, and when an edge goes, it takes
//! back what had followed from that edge and nothing else.

use fluvial::connector::format::{Json, Text};
use fluvial::differential::operators::Iterate as _;
use fluvial::{Collection, Job, OnMalformed};
use fluvial_kafka::KafkaOptions;
use serde::{Deserialize, Serialize};

/// The job's own options.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ComponentsOptions {
    /// The broker, and what to tell librdkafka.
    #[command(flatten)]
    pub(crate) kafka: KafkaOptions,

    /// The topic of edges, each {"from":1,"to":2} under a key of its own; a record without a value removes the edge
    #[arg(long, default_value = "edges", value_name = "TOPIC")]
    pub(crate) input: String,

    /// The topic that gets the component of each node
    #[arg(long, default_value = "components", value_name = "TOPIC")]
    pub(crate) output: String,

    /// What to do with a record of the input that cannot be decoded
    #[arg(long, value_enum, default_value = "fail", value_name = "WHAT")]
    pub(crate) on_malformed: OnMalformed,
}

/// An edge, as a record of the input topic. It has no direction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Edge {
    /// One end.
    pub(crate) from: u64,
    /// The other end.
    pub(crate) to: u64,
}

/// The key of the output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Node {
    /// The node.
    pub(crate) node: u64,
}

/// The component that a node belongs to. A node has one as long as it has an edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Component {
    /// The node.
    pub(crate) node: u64,
    /// The least node of the component.
    pub(crate) component: u64,
}

/// Builds the job.
///
/// # Errors
/// The options are wrong.
pub(crate) fn build(job: &mut Job<'_>, options: &ComponentsOptions) -> anyhow::Result<()> {
    let kafka = options.kafka.connect()?;
    let edges = job
        .source("edges", kafka.source(&options.input))
        .format((Text, Json))
        .on_malformed(options.on_malformed)
        .changelog::<String, Edge>()
        .latest("edges");
    let components = components(edges.map(|(_, edge)| (edge.from, edge.to)));
    let rows = components.map(|(node, component)| (Node { node }, Component { node, component }));
    job.output(kafka.upsert(&options.output)).format(Json).write(rows);
    Ok(())
}

/// Each node of an edge, with the least node that a path leads to.
fn components<'s>(edges: Collection<'s, (u64, u64)>) -> Collection<'s, (u64, u64)> {
    // Both directions. Several edges may have the same ends: one is as good as all of them.
    let edges = edges.flat_map(|(from, to)| [(from, to), (to, from)]).distinct();
    let nodes = edges.clone().map(|(from, _)| (from, from)).distinct();
    nodes.clone().iterate(|scope, labels| {
        let (edges, nodes) = (edges.enter(scope), nodes.enter(scope));
        let of_neighbours = labels.join_map(edges, |_, label, to| (*to, *label));
        // The labels of a node come in ascending order.
        of_neighbours.concat(nodes).reduce(|_, labels, least| least.push((*labels[0].0, 1)))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fluvial::harness::JobTest;
    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Few nodes, so that an edge often joins two components, or splits one when it goes.
    const NODES: u64 = 16;
    const EDGES: u64 = 14;
    const TICKS: u64 = 400;

    fn job(workers: usize) -> JobTest {
        let options = ComponentsOptions {
            kafka: KafkaOptions::new("127.0.0.1:1"),
            input: "edges".to_owned(),
            output: "components".to_owned(),
            on_malformed: OnMalformed::Fail,
        };
        JobTest::new(workers, move |job| build(job, &options))
    }

    /// The components, by merging those of the ends of each edge.
    fn merged(edges: &BTreeMap<u64, Edge>) -> BTreeMap<u64, u64> {
        let ends = edges.values().flat_map(|edge| [edge.from, edge.to]);
        let mut components: BTreeMap<u64, u64> = ends.map(|node| (node, node)).collect();
        for Edge { from, to } in edges.values() {
            let (one, other) = (components[from], components[to]);
            components.values_mut().filter(|component| **component == one.max(other)).for_each(|c| *c = one.min(other));
        }
        components
    }

    /// The rows of the output, with the changes of one tick.
    fn follow(rows: &mut BTreeMap<u64, u64>, updates: Vec<(String, Option<String>)>) {
        for (key, value) in updates {
            let Node { node } = serde_json::from_str(&key).expect("it is a node");
            match value.map(|value| serde_json::from_str::<Component>(&value).expect("it is a component")) {
                Some(row) => assert_ne!(rows.insert(row.node, row.component), Some(row.component), "it is said again"),
                None => assert!(rows.remove(&node).is_some(), "a node that was not there is gone"),
            }
        }
    }

    /// A join within an iteration once lost batches that cancel out when they are merged (differential-dataflow#801).
    fn edges_come_and_go(workers: usize, restart: usize) {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        let mut test = job(workers);
        let (mut edges, mut rows, mut changes) = (BTreeMap::new(), BTreeMap::new(), 0);
        for tick in 1..=TICKS {
            // One record an edge: the order of a tick is by split, and an edge's records would be in several here.
            let by_edge: BTreeMap<u64, Option<Edge>> = (0..8)
                .map(|_| {
                    let (id, keep) = (random.random_range(0..EDGES), random.random_range(0..3) > 0);
                    let edge = Edge { from: random.random_range(0..NODES), to: random.random_range(0..NODES) };
                    (id, keep.then_some(edge))
                })
                .collect();
            changes += by_edge.len();
            for (id, edge) in &by_edge {
                match edge {
                    Some(edge) => drop(edges.insert(*id, edge.clone())),
                    None => drop(edges.remove(id)),
                }
            }
            let text = |edge: &Edge| serde_json::to_string(edge).expect("it is serialised");
            test.feed("edges", tick, by_edge.iter().map(|(id, edge)| (Some(id.to_string()), edge.as_ref().map(text))));
            test.advance_past(tick);
            follow(&mut rows, test.updates_at("components", tick));
            assert_eq!(rows, merged(&edges), "tick {tick} on {workers} workers");
        }
        assert!(changes > 2_000, "only {changes} changes");
        // It is compared with what it was before.
        test.restart_at(TICKS / 2, restart);
    }

    #[test]
    fn components_of_a_changing_graph_are_those_of_recomputation_on_one_worker() {
        edges_come_and_go(1, 3);
    }

    #[test]
    fn components_of_a_changing_graph_are_those_of_recomputation_on_three_workers() {
        edges_come_and_go(3, 1);
    }

    #[test]
    fn a_component_falls_apart_when_its_only_bridge_goes_and_a_node_without_an_edge_is_gone() {
        let mut test = job(2);
        let edge =
            |id: &str, from: u64, to: u64| (Some(id.to_owned()), Some(format!(r#"{{"from":{from},"to":{to}}}"#)));
        test.feed("edges", 1, [edge("a", 1, 2), edge("bridge", 2, 3), edge("b", 3, 4), edge("same", 4, 3)]);
        test.feed("edges", 2, [(Some("bridge"), None::<&str>)]);
        test.feed("edges", 3, [(Some("b"), None::<&str>)]);
        test.feed("edges", 4, [(Some("same"), None::<&str>)]);
        test.advance_past(4);
        let said = |tick| {
            let mut rows = BTreeMap::new();
            (1..=tick).for_each(|tick| follow(&mut rows, test.updates_at("components", tick)));
            rows.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(said(1), [(1, 1), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(said(2), [(1, 1), (2, 1), (3, 3), (4, 3)]);
        assert_eq!(said(3), said(2), "another edge has the same ends");
        assert_eq!(said(4), [(1, 1), (2, 1)]);
    }
}
