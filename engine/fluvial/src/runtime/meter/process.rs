//! What the workers and the writers of a process say together, in a bounded size.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fluvial_node::status::{
    CheckpointFigures, EdgeFigures, OperatorFigures, OutputFigures, ProcessFigures, SplitFigures, WorkerFigures,
};
use rustix::time::{ClockId, clock_gettime};

use super::sampling::{Samples, per_s, rounded};
use super::sink::Committed;
use super::{Meter, SinkMeter};
use crate::runtime::ambient;
use timely::worker::Worker;

/// How many entries for one worker and one operator a process tells of at the most.
const MOST_ENTRIES: usize = 1024;
/// How many edges, splits and outputs a process tells of at the most, of each.
const MOST_OF_A_KIND: usize = 512;
/// The bytes of one entry, about.
const ENTRY_BYTES: usize = 160;
/// The bytes that a process sends a second, about. What is larger is sent more rarely.
const BYTES_PER_S: usize = 16 << 10;
/// How many readings of what was committed and used are kept, for rates.
const KEPT: usize = 6;

/// What the leader knows of the parts of a job.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeaderFigures {
    pub(crate) splits: Vec<SplitFigures>,
    pub(crate) checkpoint: Option<CheckpointFigures>,
    /// The size of the state files of each durable operator in the newest checkpoint.
    pub(crate) stored: BTreeMap<String, u64>,
}

/// The meters of a process.
pub(crate) struct Meters {
    /// The number of the process's first worker.
    first: u32,
    workers: Vec<Arc<Mutex<Samples>>>,
    sink: Arc<SinkMeter>,
    leader: Mutex<LeaderFigures>,
    /// Used by the thread that beats only.
    earlier: Mutex<Earlier>,
}

/// What was committed and used some time ago.
#[derive(Default)]
struct Earlier {
    readings: VecDeque<Reading>,
    next: Option<Instant>,
}

struct Reading {
    at: Instant,
    committed: Committed,
    cpu: Duration,
}

impl Meters {
    /// The meters of a process with so many workers, of which `first` is the first.
    pub(crate) fn new(first: u32, workers: usize) -> Self {
        Self {
            first,
            workers: (0..workers).map(|_| Arc::default()).collect(),
            sink: Arc::default(),
            leader: Mutex::default(),
            earlier: Mutex::default(),
        }
    }

    /// Begins to measure a worker of this process, which has not built its dataflow yet.
    pub(crate) fn of_worker(&self, worker: &Worker) -> Meter {
        Meter::listen(worker, Arc::clone(&self.workers[worker.index() % self.workers.len()]))
    }

    #[cfg(test)]
    pub(super) fn samples(&self, worker: usize) -> &Mutex<Samples> {
        &self.workers[worker]
    }

    /// What the process's writers tell.
    pub(crate) fn sink(&self) -> &Arc<SinkMeter> {
        &self.sink
    }

    /// Takes what the leader knows.
    pub(crate) fn of_leader(&self, figures: LeaderFigures) {
        *lock(&self.leader) = figures;
    }

    /// What is to be told the node now; `None` while what was told last is still new, for its size.
    pub(crate) fn due(&self) -> Option<ProcessFigures> {
        let now = ambient::instant();
        let mut earlier = lock(&self.earlier);
        if earlier.next.is_some_and(|next| now < next) {
            return None;
        }
        let figures = self.figures(now, &mut earlier);
        let seconds = u32::try_from(entries(&figures) * ENTRY_BYTES / BYTES_PER_S).unwrap_or(u32::MAX);
        earlier.next = (seconds > 0).then(|| now + Duration::from_secs(1).saturating_mul(seconds));
        Some(figures)
    }

    fn figures(&self, now: Instant, earlier: &mut Earlier) -> ProcessFigures {
        let samples: Vec<_> = self.workers.iter().map(|worker| lock(worker)).collect();
        let mut figures = operators_and_edges(self.first, &samples);
        drop(samples);
        let LeaderFigures { mut splits, checkpoint, stored } = lock(&self.leader).clone();
        for operator in &mut figures.operators {
            let durable = operator.id.strip_prefix("durable:");
            operator.stored_bytes = durable.and_then(|name| stored.get(name)).copied();
        }
        splits.sort_by_key(|split| std::cmp::Reverse(split.lag_records));
        figures.omitted += cut(&mut splits);
        splits.sort_by(|one, other| (&one.source, number(&one.split)).cmp(&(&other.source, number(&other.split))));
        (figures.splits, figures.checkpoint) = (splits, checkpoint);

        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = Duration::new(cpu.tv_sec.unsigned_abs(), u32::try_from(cpu.tv_nsec).unwrap_or_default());
        let committed = self.sink.so_far();
        if earlier.readings.len() == KEPT {
            earlier.readings.pop_front();
        }
        earlier.readings.push_back(Reading { at: now, committed: committed.clone(), cpu });
        let before = &earlier.readings[0];
        let time = now - before.at;
        let output = |(output, records): (&String, &u64)| {
            let of_before = before.committed.records.get(output).copied().unwrap_or_default();
            OutputFigures { output: output.clone(), records: *records, records_per_s: per_s(records - of_before, time) }
        };
        figures.outputs = committed.records.iter().map(output).collect();
        figures.omitted += cut(&mut figures.outputs);
        figures.commits = committed.histogram();
        figures.memory_bytes = resident_bytes();
        figures.cpu_ms = u64::try_from(cpu.as_millis()).ok();
        let used = (cpu - before.cpu).as_secs_f64();
        figures.cpu_share = (!time.is_zero()).then(|| rounded(used / time.as_secs_f64(), 1e3));
        figures
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drops what is too much. Returns how much that was.
fn cut<T>(list: &mut Vec<T>) -> u64 {
    let more = list.len().saturating_sub(MOST_OF_A_KIND);
    list.truncate(MOST_OF_A_KIND);
    more as u64
}

/// A split as a number, if it is one: 10 comes after 9.
fn number(split: &str) -> (Option<u64>, &str) {
    (split.parse().ok(), split)
}

/// How many entries figures have.
fn entries(figures: &ProcessFigures) -> usize {
    let workers: usize = figures.operators.iter().map(|operator| operator.workers.len()).sum();
    workers + figures.edges.len() + figures.splits.len() + figures.outputs.len()
}

fn operators_and_edges(first: u32, samples: &[MutexGuard<'_, Samples>]) -> ProcessFigures {
    let mut figures = ProcessFigures::default();
    // All workers have the same graph, once they have built it.
    let Some(graph) = samples.iter().map(|of_worker| of_worker.graph()).find(|graph| !graph.nodes.is_empty()) else {
        return figures;
    };
    let measured: Vec<_> =
        (first..).zip(samples).filter_map(|(worker, samples)| Some((worker, samples.measured()?))).collect();
    let operator = |(node, of_graph): (usize, &fluvial_node::status::GraphNode)| {
        let worker = |(worker, measured): &(u32, super::sampling::Measured<'_>)| {
            let counts = &measured.newest.counts[node];
            WorkerFigures {
                worker: *worker,
                records_in: counts.records_in,
                records_out: counts.records_out,
                records_in_per_s: measured.per_s(|sample| sample.counts[node].records_in),
                records_out_per_s: measured.per_s(|sample| sample.counts[node].records_out),
                busy_ms: u64::try_from(counts.busy.as_millis()).unwrap_or(u64::MAX),
                busy_share: measured.busy_share(node),
                rows: counts.rows,
                state_bytes: counts.bytes,
            }
        };
        OperatorFigures { id: of_graph.id.clone(), stored_bytes: None, workers: measured.iter().map(worker).collect() }
    };
    figures.operators = graph.nodes.iter().enumerate().map(operator).collect();
    let edge = |(place, edge): (usize, &fluvial_node::status::GraphEdge)| EdgeFigures {
        from: edge.from.clone(),
        to: edge.to.clone(),
        records: measured.iter().map(|(_, measured)| measured.newest.edges[place]).sum(),
        records_per_s: measured.iter().map(|(_, measured)| measured.per_s(|sample| sample.edges[place])).sum(),
    };
    figures.edges = graph.edges.iter().enumerate().map(edge).collect();
    let most = MOST_ENTRIES / samples.len().max(1);
    if figures.operators.len() > most {
        // Those that a person looks for are the busy ones.
        let busy = |operator: &OperatorFigures| operator.workers.iter().map(|worker| worker.busy_ms).sum::<u64>();
        let mut busiest: Vec<u64> = figures.operators.iter().map(busy).collect();
        busiest.sort_unstable_by(|one, other| other.cmp(one));
        let least = busiest[most.max(1) - 1];
        let before = figures.operators.len();
        figures.operators.retain(|operator| busy(operator) >= least);
        figures.operators.truncate(most.max(1));
        figures.omitted += (before - figures.operators.len()) as u64;
    }
    figures.omitted += cut(&mut figures.edges);
    figures
}

/// The resident memory of this process.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}
