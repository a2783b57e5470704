//! The sums of one worker as they were in the last seconds, from which rates follow.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fluvial_node::status::Graph;

use super::Counts;

/// How many samples are kept. The oldest and the newest make the rates.
const KEPT: usize = 6;

/// The sums of a worker at one time.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    /// By the place of the node in the graph.
    pub(super) counts: Vec<Counts>,
    /// The records that were sent, by the place of the edge in the graph.
    pub(super) edges: Vec<u64>,
}

/// The last samples of a worker.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// What the places mean.
    graph: Graph,
    kept: VecDeque<Sample>,
}

/// What a worker has done, and how fast lately.
pub(super) struct Measured<'a> {
    pub(super) newest: &'a Sample,
    oldest: &'a Sample,
}

impl Samples {
    /// Takes the graph, before the first sample.
    pub(super) fn begin(&mut self, graph: Graph) {
        self.graph = graph;
    }

    /// Adds a sample. It takes the place of the oldest, whose memory `fill` uses again.
    pub(super) fn add(&mut self, at: Instant, fill: impl FnOnce(&mut Sample)) {
        let oldest = if self.kept.len() < KEPT { None } else { self.kept.pop_front() };
        let mut sample = oldest.unwrap_or(Sample { at, counts: Vec::new(), edges: Vec::new() });
        sample.at = at;
        fill(&mut sample);
        self.kept.push_back(sample);
    }

    pub(super) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What the worker has done, once it has said so.
    pub(super) fn measured(&self) -> Option<Measured<'_>> {
        Some(Measured { newest: self.kept.back()?, oldest: self.kept.front()? })
    }
}

impl Measured<'_> {
    /// How much of a sum was added in each second.
    pub(super) fn per_s(&self, of: impl Fn(&Sample) -> u64) -> f64 {
        per_s(of(self.newest) - of(self.oldest), self.newest.at - self.oldest.at)
    }

    /// The share of its time that the worker has spent in a node.
    pub(super) fn busy_share(&self, node: usize) -> f64 {
        let busy = self.newest.counts[node].busy - self.oldest.counts[node].busy;
        let time = self.newest.at - self.oldest.at;
        if time.is_zero() { 0.0 } else { rounded(busy.as_secs_f64() / time.as_secs_f64(), 1e4).min(1.0) }
    }
}

/// How much was added in each second.
pub(super) fn per_s(added: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { rounded(added as f64 / time.as_secs_f64(), 10.0) }
}

/// So many parts of 1 are enough: a long fraction is no more exact, and takes longer to send.
pub(super) fn rounded(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}
