//! What the parts of a job do: how many records each operator gets and sends, how long it computes, how much it holds.
//!
//! ```text
//!   timely's and differential's log events ─► Meter of a worker ──once a second──► Meters of the process ──beat──► node
//!                                                  sink's threads ─► SinkMeter ───────┘
//! ```
//!
//! Timely emits an event for each operator that is scheduled and for each batch that is sent or received, with the time. It
//! collects some of them before it hands them to the worker's own [`Meter`], on the worker's thread, which adds them up in plain
//! vectors: nothing is locked or allocated. Once a second the sums are copied to where the thread that beats finds them; if that
//! thread reads them at this moment, the worker does not wait, and copies them at its next turn.
//!
//! **Guarantees** that nothing that is computed depends on it. **Does not** know what operators inside a loop do: a loop is one
//! node.

mod drawing;
mod process;
mod sampling;
mod sink;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use differential_dataflow::logging::{DifferentialEvent, DifferentialEventBuilder};
use timely::logging::{MessagesEvent, ScheduleEvent, StartStop, TimelyEvent, TimelyEventBuilder};
use timely::worker::Worker;

use super::ambient;
use crate::durable::{Held, NamedNode};
pub(crate) use drawing::{Blueprint, Drawing};
pub(crate) use process::{LeaderFigures, Meters};
use sampling::Samples;
pub(crate) use sink::{SinkMeter, records_of};

/// How often the sums are passed on.
const EVERY: Duration = Duration::from_secs(1);
/// The name of timely's log.
const TIMELY: &str = "timely";
/// The name of the log of differential dataflow's arrangements.
const ARRANGEMENTS: &str = "differential/arrange";

/// What a node of the graph has done on one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) records_in: u64,
    pub(crate) records_out: u64,
    pub(crate) busy: Duration,
    /// The rows that it holds in memory, and the memory of their tables, if it is known.
    pub(crate) rows: Option<u64>,
    pub(crate) bytes: Option<u64>,
}

/// A place in a vector for what is not in it.
const NONE: u32 = u32::MAX;

/// What happens with the records of a channel.
#[derive(Clone, Copy, Debug)]
struct Channel {
    /// The edge of the graph; [`NONE`] inside a node.
    edge: u32,
    /// The node that sends, on the first channel of its output only, so that what goes to several nodes counts once.
    from: u32,
    /// The node that receives.
    to: u32,
}

/// The sums of a worker.
#[derive(Debug, Default)]
struct Sums {
    /// What timely says while the dataflow is built.
    blueprint: Blueprint,
    /// The node of an operator of the outermost scope, by the operator's number.
    nodes: Vec<u32>,
    /// The node that an operator of any scope is a part of, by the operator's number.
    parts: Vec<u32>,
    /// By the channel's number.
    channels: Vec<Option<Channel>>,
    /// When the operator that is running began, by its node. Operators of one scope do not run inside of each other.
    began: Vec<Duration>,
    counts: Vec<Counts>,
    /// The updates in the arrangements of a node.
    arranged: Vec<Option<i64>>,
    edges: Vec<u64>,
}

impl Sums {
    fn take(&mut self, at: Duration, event: TimelyEvent) {
        match event {
            TimelyEvent::Schedule(ScheduleEvent { id, start_stop }) => {
                let Some(node) = self.nodes.get(id).map(|node| *node as usize) else { return };
                match (start_stop, self.counts.get_mut(node)) {
                    (StartStop::Start, Some(_)) => self.began[node] = at,
                    (StartStop::Stop, Some(counts)) => counts.busy += at.saturating_sub(self.began[node]),
                    (_, None) => {}
                }
            }
            TimelyEvent::Messages(MessagesEvent { is_send, channel, record_count, .. }) => {
                let Some(Some(channel)) = self.channels.get(channel) else { return };
                let records = u64::try_from(record_count).unwrap_or_default();
                if !is_send {
                    if let Some(counts) = self.counts.get_mut(channel.to as usize) {
                        counts.records_in += records;
                    }
                    return;
                }
                if let Some(counts) = self.counts.get_mut(channel.from as usize) {
                    counts.records_out += records;
                }
                if let Some(sent) = self.edges.get_mut(channel.edge as usize) {
                    *sent += records;
                }
            }
            TimelyEvent::Operates(operator) => self.blueprint.operators.push(operator),
            TimelyEvent::Channels(channel) => self.blueprint.channels.push(channel),
            TimelyEvent::PushProgress(_)
            | TimelyEvent::Shutdown(_)
            | TimelyEvent::CommChannels(_)
            | TimelyEvent::Park(_)
            | TimelyEvent::Text(_) => {}
        }
    }

    fn arrange(&mut self, event: DifferentialEvent) {
        let (operator, more) = match event {
            DifferentialEvent::Batch(batch) => (batch.operator, batch.length as i64),
            DifferentialEvent::Drop(batch) => (batch.operator, -(batch.length as i64)),
            DifferentialEvent::Merge(merge) => {
                let Some(after) = merge.complete else { return };
                (merge.operator, after as i64 - (merge.length1 + merge.length2) as i64)
            }
            DifferentialEvent::MergeShortfall(_) | DifferentialEvent::TraceShare(_) | DifferentialEvent::Batcher(_) => {
                return;
            }
        };
        let Some(node) = self.parts.get(operator) else { return };
        if let Some(updates) = self.arranged.get_mut(*node as usize) {
            *updates = Some(updates.unwrap_or_default() + more);
        }
    }

    /// Makes room for what the operators and channels of a dataflow do.
    fn wire(&mut self, drawing: &Drawing) {
        let blueprint = std::mem::take(&mut self.blueprint);
        let nodes = drawing.graph.nodes.len();
        self.began = vec![Duration::ZERO; nodes];
        self.counts = vec![Counts::default(); nodes];
        self.arranged = vec![None; nodes];
        self.edges = vec![0; drawing.graph.edges.len()];
        for operator in &blueprint.operators {
            let (outermost, node) = drawing.node_of(&operator.addr);
            let node = node.map_or(NONE, |node| node as u32);
            put(&mut self.parts, operator.id, node, NONE);
            put(&mut self.nodes, operator.id, if outermost { node } else { NONE }, NONE);
        }
        let mut seen = BTreeMap::new();
        for channel in &blueprint.channels {
            let Some((from, to, edge)) = drawing.edge_of(channel) else { continue };
            // An output that goes to several nodes, or several times to one, has a channel for each.
            let first = *seen.entry(channel.source).or_insert(channel.id) == channel.id && from != to;
            let known = Channel {
                edge: edge.map_or(NONE, |edge| edge as u32),
                from: if first { from as u32 } else { NONE },
                to: if from == to { NONE } else { to as u32 },
            };
            put(&mut self.channels, channel.id, Some(known), None);
        }
    }
}

fn put<T: Clone>(vector: &mut Vec<T>, place: usize, value: T, nothing: T) {
    if vector.len() <= place {
        vector.resize(place + 1, nothing);
    }
    vector[place] = value;
}

/// The meter of one worker.
pub(crate) struct Meter {
    sums: Rc<RefCell<Sums>>,
    /// What the operators that keep state of their own hold, by node.
    held: Vec<(usize, Rc<Held>)>,
    to: Arc<Mutex<Samples>>,
    told: Instant,
}

impl Meter {
    /// Begins to listen, before the worker builds its dataflow. The sums go to `to`.
    fn listen(worker: &Worker, to: Arc<Mutex<Samples>>) -> Self {
        let sums = Rc::new(RefCell::new(Sums::default()));
        Blueprint::listen(worker, {
            let sums = Rc::clone(&sums);
            move |events| {
                let mut sums = sums.borrow_mut();
                events.drain(..).for_each(|(at, event)| sums.take(at, event));
            }
        });
        if let Some(mut registry) = worker.log_register() {
            let sums = Rc::clone(&sums);
            registry.insert::<DifferentialEventBuilder, _>(ARRANGEMENTS, move |_, events| {
                let mut sums = sums.borrow_mut();
                events.iter_mut().flat_map(|events| events.drain(..)).for_each(|(_, event)| sums.arrange(event));
            });
        }
        Self { sums, held: Vec::new(), to, told: ambient::instant() }
    }

    /// Takes note that the dataflow has been built, with these named nodes.
    pub(crate) fn built(&mut self, worker: &Worker, named: &[NamedNode]) {
        if let Some(mut registry) = worker.log_register() {
            registry.flush();
        }
        let mut sums = self.sums.borrow_mut();
        let drawing = Drawing::new(&sums.blueprint, named);
        sums.wire(&drawing);
        self.held = drawing.held;
        if let Ok(mut to) = self.to.lock() {
            to.begin(drawing.graph);
        }
    }

    /// Passes the sums on, if it is time.
    pub(crate) fn tell(&mut self) {
        let now = ambient::instant();
        if now - self.told < EVERY {
            return;
        }
        // The next turn does what this one cannot do without waiting.
        let Ok(mut to) = self.to.try_lock() else { return };
        self.told = now;
        let sums = self.sums.borrow();
        to.add(now, |sample| {
            sample.counts.clone_from(&sums.counts);
            sample.edges.clone_from(&sums.edges);
            for (counts, arranged) in sample.counts.iter_mut().zip(&sums.arranged) {
                counts.rows = arranged.map(|updates| u64::try_from(updates).unwrap_or_default());
            }
            for (node, held) in &self.held {
                let (rows, bytes) = held.get();
                (sample.counts[*node].rows, sample.counts[*node].bytes) = (Some(rows), Some(bytes));
            }
        });
    }
}

impl Blueprint {
    /// Hands timely's events to `take`, some at a time.
    pub(crate) fn listen(worker: &Worker, mut take: impl FnMut(&mut Vec<(Duration, TimelyEvent)>) + 'static) {
        if let Some(mut registry) = worker.log_register() {
            registry.insert::<TimelyEventBuilder, _>(TIMELY, move |_, events| events.iter_mut().for_each(&mut take));
        }
    }
}
