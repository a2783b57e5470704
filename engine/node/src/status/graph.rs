//! The dataflow of a job as a graph: what `graph --format json` prints, and `GET /v1/jobs/{name}/graph` answers.
//!
//! The ids of nodes join it with the [figures](super::Figures) of the running job. An id is made of the kind of the node and
//! its name, so it is the same on all workers and after each restart of a version of the job, and most ids survive a change of
//! the job's code. If several nodes have the same kind and name, the second has the suffix `-2`, and so on, in the order in
//! which the job builds them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The dataflow of a job. A loop (`iterate`) is one node.
///
/// ```
/// use fluvial_node::status::Graph;
///
/// let graph: Graph = serde_json::from_str(
///     r#"{
///         "nodes": [
///             {"id": "source:lines", "name": "lines", "kind": "source", "stateful": false, "about": "topic 'lines'"},
///             {"id": "durable:counts", "name": "counts", "kind": "durable", "stateful": true},
///             {"id": "output:counts", "name": "counts", "kind": "output", "stateful": false, "about": "upsert"}
///         ],
///         "edges": [
///             {"from": "source:lines", "to": "durable:counts"},
///             {"from": "durable:counts", "to": "output:counts"}
///         ]
///     }"#,
/// ).unwrap();
/// assert_eq!(graph.nodes.len(), 3);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Graph {
    /// The parts of the job, in the order in which it builds them: an edge leads from an earlier node to a later one.
    pub nodes: Vec<GraphNode>,
    /// Where records go. Two nodes have at most one edge.
    pub edges: Vec<GraphEdge>,
}

/// A part of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GraphNode {
    /// Its identity, such as `durable:counts`.
    pub id: String,
    /// The name that the job's author has given it, or the name of the function that made it, such as `map`.
    pub name: String,
    /// What it is.
    pub kind: NodeKind,
    /// Whether it keeps state: rows of a durable operator, totals of an aggregate, or an arrangement of differential dataflow.
    pub stateful: bool,
    /// What a person should know of a source or an output, such as its topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}

/// The kind of a part of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// It reads a source.
    Source,
    /// A durable operator: its state is in checkpoints, under its name.
    Durable,
    /// Any other operator.
    Operator,
    /// It encodes and writes an output.
    Output,
}

/// A connection between two parts of a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct GraphEdge {
    /// The id of the node that sends records.
    pub from: String,
    /// The id of the node that gets them.
    pub to: String,
}

impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::Durable => "durable",
            Self::Operator => "operator",
            Self::Output => "output",
        })
    }
}
