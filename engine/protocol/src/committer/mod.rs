//! Committing output: one committer a process, for the output partitions whose rows go to the process's workers.
//!
//! ```text
//!            ┌────────────────── an outcome is unknown ──────────────────┐
//!            ▼                                                           │
//!   fence every turn ─► check the journal ─► progress ─► tails ─► prepare, commit, prepare, …
//!                          │ newer: fenced     ▲
//!                          ▼                   └── the opening comes in here, after Order::AllFenced
//! ```
//!
//! Guarantees, whatever fails in between: each record of a sealed tick is committed once and in order in its partition;
//! nothing of an unsealed tick is; what replay repeats is dropped, and compared by its digest; a transaction holds
//! progress for every partition that it moves. Turns prepare one after the other and commit in that order.
//!
//! The phases above are `recovery`'s, and the same for all partitions. What each of them holds, and what it gets next, is a
//! state machine of its own (`lane`). `writing` puts what is next of several partitions into one transaction.
//!
//! The committer does not know how a transaction is written: that progress follows the records' acknowledgements is the
//! sink's contract. So is, where there is more than one turn, that a commit which has succeeded leaves no request on its way:
//! one that partially commits the next transaction of its turn, while another turn's is not committed, leaves records out of
//! order, which nothing can mend; the generation then ends with [`OutputFault::ForeignRecord`](crate::OutputFault).

mod action;
mod holes;
mod lane;
mod queue;
mod records;
mod recovery;
#[cfg(test)]
mod tests;
mod waiting;
mod writing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fluvial_connector::{Digest, Envelope, Generation, Incarnation, Offset, OutputPartition, Position, Progress, Tick};

pub use action::{Action, Done, Failure, HeldRecords, Tail};
use lane::Lane;
use queue::Reached;
pub use records::TickRecords;
pub(crate) use waiting::Step;
use waiting::Watch;
pub use waiting::{REPORT_AFTER_MS, REPORT_EVERY_MS, Stall};

use super::Ended;
use super::messages::{Layout, Plan};
use super::participant::CommittedPartition;
use super::rules::{Rule, Rules};
use crate::journal::{Binding, SinkStart};

/// How a committer writes.
#[derive(Clone, Debug)]
pub struct CommitterConfig {
    /// The process's index: its place in the names of its writers.
    pub slot: u32,
    /// How many workers and processes this generation has.
    pub layout: Layout,
    /// How many writers the process has, which take turns.
    pub turns: u32,
    /// The outputs of this sink.
    pub outputs: Vec<String>,
    /// The most records that one transaction holds.
    pub transaction_records: usize,
    /// The most bytes of keys and values that one transaction holds, unless a single record has more.
    pub transaction_bytes: usize,
    /// How far the progress of idle partitions may stay behind.
    pub heartbeat_ms: u64,
    /// How long transactions may fail one after the other before the generation ends.
    pub patience_ms: u64,
}

/// Commits the output of one process's partitions.
#[derive(Debug)]
pub struct Committer {
    config: CommitterConfig,
    opened: Opened,
    sinks: Vec<SinkStart>,
    lanes: Vec<Lane>,
    /// Where each partition is among them.
    by_partition: BTreeMap<OutputPartition, usize>,
    complete: Tick,
    sealed: Tick,
    /// The checkpoint that is under way.
    marked: Option<Tick>,
    /// The last sealed tick that has input, and those that are not sealed yet.
    data: Tick,
    data_to_come: VecDeque<Tick>,
    phase: Phase,
    /// What the phase has to ask and has not asked yet.
    questions: VecDeque<Action>,
    /// Stretches with offsets that are not this job's, which nobody has been told of.
    unexplained: Vec<Stretch>,
    next_turn: u32,
    last_heartbeat_ms: u64,
    watch: Watch,
}

/// What holds for the whole generation.
#[derive(Clone, Copy, Debug)]
struct Opened {
    incarnation: Incarnation,
    generation: Generation,
    /// The last tick that was sealed when the generation opened.
    sealed: Tick,
    rules: Rules,
}

/// What a committer is doing. Each phase but the first and the last waits for the answers to its questions.
#[derive(Debug)]
enum Phase {
    /// Earlier generations are not fenced yet.
    Waiting,
    /// These turns have still to be fenced.
    Fencing(BTreeSet<u32>),
    /// The journal has to be read after fencing.
    Checking,
    /// The generation is over for this reason, unless a newer one exists, which is then the reason: the journal decides.
    Doubting(Ended),
    /// Progress is being read.
    Reading,
    /// What each partition holds after its progress is being read.
    Tails(BTreeMap<OutputPartition, Progress>),
    /// Transactions are made. These are not committed, in the order of their preparation.
    Active(VecDeque<Flight>),
}

#[derive(Debug)]
struct Flight {
    turn: u32,
    writes: Vec<Planned>,
    state: FlightState,
}

/// What a transaction writes to one partition.
#[derive(Clone, Copy, Debug)]
struct Planned {
    lane: usize,
    records: usize,
    /// What the partition is committed through with it.
    reached: Reached,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FlightState {
    Preparing,
    Prepared,
    Committing,
}

/// A stretch of an output partition that somebody else may have written to as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The output partition.
    pub at: OutputPartition,
    /// Its first offset.
    pub from: Offset,
    /// The offset after its last.
    pub to: Offset,
    /// How many of the records in it are this job's.
    pub records: usize,
    /// How many offsets in it are not explained.
    pub others: u64,
}

impl Committer {
    /// A committer of the generation that `plan` opens. It acts only after [`Committer::all_fenced`].
    #[must_use]
    pub fn new(plan: &Plan, config: CommitterConfig) -> Self {
        Self::with_rules(plan, config, Rules::default())
    }

    pub(crate) fn with_rules(plan: &Plan, config: CommitterConfig, rules: Rules) -> Self {
        let as_of = plan.as_of();
        let reconcile = plan.reconciliation.map(|reconciliation| reconciliation.tick);
        let digests = plan.checkpoint.iter().flat_map(|manifest| &manifest.outputs);
        let digests: BTreeMap<&OutputPartition, Digest> = digests.map(|output| (&output.at, output.digest)).collect();
        let mut lanes = Vec::new();
        let sinks = plan.sinks.iter().filter(|sink| config.outputs.contains(&sink.output));
        let sinks: Vec<SinkStart> = sinks.cloned().collect();
        for sink in &sinks {
            for partition in (0..sink.partitions).filter(|p| config.layout.committer_of(*p) == config.slot) {
                let at = OutputPartition { output: sink.output.clone(), partition };
                let digest = digests.get(&at).copied().unwrap_or_default();
                lanes.push(Lane::new(sink, partition, as_of, reconcile, digest));
            }
        }
        let by_partition = lanes.iter().enumerate().map(|(index, lane)| (lane.target.at.clone(), index)).collect();
        let data = plan.replay.iter().rev().find(|binding| !binding.ranges.is_empty());
        let Plan { incarnation, generation, .. } = *plan;
        Self {
            config,
            opened: Opened { incarnation, generation, sealed: plan.sealed(), rules },
            sinks,
            lanes,
            by_partition,
            complete: as_of,
            sealed: plan.sealed(),
            marked: None,
            data: data.map_or(as_of, |binding| binding.tick),
            data_to_come: VecDeque::new(),
            phase: Phase::Waiting,
            questions: VecDeque::new(),
            unexplained: Vec::new(),
            next_turn: 0,
            last_heartbeat_ms: 0,
            watch: Watch::default(),
        }
    }

    /// Every writer of earlier generations is fenced, this process's turns have fresh transactors, and the journal has
    /// no newer generation.
    pub fn all_fenced(&mut self) {
        self.enter(if self.lanes.is_empty() { Phase::Active(VecDeque::new()) } else { Phase::Reading });
    }

    /// Whether progress has been read and checked, and every partition has some.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Active(_)) && self.lanes.iter().all(|lane| lane.committed().is_some())
    }

    /// Whether the partitions are to be given their corrections at the tick of a reconciliation, once this is ready:
    /// those whose progress has not passed it.
    pub fn to_reconcile(&self) -> impl Iterator<Item = &OutputPartition> {
        let earlier = |lane: &&Lane| {
            lane.target.corrected_at().is_some_and(|at| lane.committed().is_some_and(|(tick, _)| tick < at))
        };
        self.lanes.iter().filter(earlier).map(|lane| &lane.target.at)
    }

    /// How far the partitions of upsert outputs are committed. It holds once this is ready, until the first transaction.
    pub(crate) fn upsert_partitions(&self) -> Vec<CommittedPartition> {
        let upserts = self.lanes.iter().filter(|lane| lane.target.envelope == Envelope::Upsert);
        upserts.filter_map(Lane::committed_partition).collect()
    }

    /// A tick was minted. To be told before any output at or after it is handed in.
    pub fn minted(&mut self, binding: &Binding) {
        if !binding.ranges.is_empty() {
            self.data_to_come.push_back(binding.tick);
        }
        if binding.checkpoint {
            self.marked = Some(binding.tick);
            self.lanes.iter_mut().for_each(|lane| lane.queue.mark(binding.tick));
        }
    }

    /// The ticks through this one are durable in the journal.
    pub fn sealed(&mut self, tick: Tick) {
        self.sealed = self.sealed.max(tick);
        while let Some(tick) = self.data_to_come.pop_front_if(|tick| *tick <= self.sealed) {
            self.data = tick;
        }
    }

    /// Hands in the complete output of a tick in one partition, in its order; each partition's ticks ascend. Output of
    /// the restored state itself, and of ticks before the output began, is dropped.
    ///
    /// # Errors
    /// [`Ended::Bug`] for a partition of another process, or a tick out of turn. Output that is not what was committed
    /// before ends the generation by [`Committer::on`], when the journal has been asked.
    pub fn output(&mut self, tick: Tick, at: &OutputPartition, records: TickRecords) -> Result<(), Ended> {
        let result = match self.by_partition.get(at) {
            Some(&lane) => self.lanes[lane].take(tick, records),
            None => Err(Ended::Bug(format!("output of {at} came to a process that does not own it"))),
        };
        result.or_else(|ended| self.doubt(ended))
    }

    /// Everything at ticks through this one has been handed in.
    ///
    /// # Errors
    /// As [`Committer::output`].
    pub fn complete(&mut self, through: Tick) -> Result<(), Ended> {
        self.complete = self.complete.max(through);
        let complete = self.complete;
        let result = self.lanes.iter_mut().try_for_each(|lane| lane.settle(complete));
        result.or_else(|ended| self.doubt(ended))
    }

    /// Everything at ticks through this one is committed. Never goes back.
    #[must_use]
    pub fn committed_through(&self) -> Tick {
        if self.lanes.iter().any(|lane| lane.committed().is_none()) {
            return Tick(0);
        }
        let through = self.until();
        let first = self.lanes.iter().filter_map(Lane::uncommitted).min();
        first.map_or(through, |tick| Tick(tick.0 - 1).min(through))
    }

    /// The digests of the process's partitions as of the checkpoint that was marked last, once progress through it is
    /// committed in all of them; only once.
    pub fn checkpointed(&mut self) -> Option<(Tick, Vec<(OutputPartition, Digest)>)> {
        let tick = self.marked.filter(|tick| *tick <= self.complete)?;
        let through = Some((tick, Position::Complete));
        let committed =
            self.is_ready() && tick <= self.sealed && self.lanes.iter().all(|lane| lane.committed() >= through);
        if !committed && self.opened.rules.has(Rule::CheckpointAfterSinks) {
            return None;
        }
        self.marked = None;
        Some((tick, self.lanes.iter().map(|lane| (lane.target.at.clone(), lane.queue.marked())).collect()))
    }

    /// Stretches since the last call in which not all offsets are explained by what this job has written.
    pub fn unexplained(&mut self) -> Vec<Stretch> {
        std::mem::take(&mut self.unexplained)
    }

    /// When [`Committer::next_action`] may have something to do though nothing else happens.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        let newest = self.data.min(self.until());
        let idle = self.is_ready() && self.lanes.iter().filter_map(Lane::planned).any(|planned| planned.tick < newest);
        idle.then_some(self.last_heartbeat_ms + self.config.heartbeat_ms)
    }

    /// What is sealed and complete.
    fn until(&self) -> Tick {
        if self.opened.rules.has(Rule::SealedBeforeVisible) { self.sealed.min(self.complete) } else { self.complete }
    }
}
