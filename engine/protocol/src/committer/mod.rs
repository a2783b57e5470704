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
//! nothing of an unsealed tick is committed; output that replay repeats is dropped, and compared by its digest; a
//! transaction holds progress for every partition that it moves. Transactions are prepared one after the other and
//! commit in that order.
//!
//! The phases above belong to `recovery`, and are the same for all partitions. Each partition has a state machine of
//! its own (`lane`), which knows what the partition holds and what is written to it next. `writing` puts the next
//! records of several partitions into one transaction.
//!
//! The committer does not know how a transaction is written, and relies on two parts of the sink's contract. First,
//! progress is written only after the records have been acknowledged. Second, where a process has more than one writer,
//! a commit that has succeeded leaves no request on its way: such a request could partially commit the writer's next
//! transaction before the transaction of the other writer that precedes it is committed. The records would then be out
//! of order, which nothing can repair, and the generation would end with
//! [`OutputFault::ForeignRecord`](crate::OutputFault).

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

use fluvial_connector::{Digest, Generation, Incarnation, Offset, OutputPartition, Position, Progress, Tick};

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
use super::savepoint::has_gone_back;
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
    /// How long, in milliseconds, the progress of partitions without output may lag.
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
    /// The index of each partition in `lanes`.
    by_partition: BTreeMap<OutputPartition, usize>,
    complete: Tick,
    sealed: Tick,
    /// The tick of the checkpoint that is under way.
    marked: Option<Tick>,
    /// The last sealed tick that has input.
    data: Tick,
    /// The ticks that have input and are not sealed yet.
    data_to_come: VecDeque<Tick>,
    phase: Phase,
    /// The questions of the current phase that have not been asked yet.
    questions: VecDeque<Action>,
    /// Stretches with offsets that are not this job's, which have not been returned by [`Committer::unexplained`] yet.
    unexplained: Vec<Stretch>,
    next_turn: u32,
    last_heartbeat_ms: u64,
    watch: Watch,
}

/// Facts that hold for the whole generation.
#[derive(Clone, Copy, Debug)]
struct Opened {
    incarnation: Incarnation,
    generation: Generation,
    /// The last tick that was sealed when the generation opened.
    sealed: Tick,
    /// Whether the restored state is that of a savepoint to which the job has gone back. Its outputs need not have been committed
    /// through its tick.
    gone_back: bool,
    rules: Rules,
}

/// The phase of a committer. Each phase but the first and the last waits for the answers to its questions.
#[derive(Debug)]
enum Phase {
    /// Earlier generations are not fenced yet.
    Waiting,
    /// The writers with these turns have still to be fenced.
    Fencing(BTreeSet<u32>),
    /// The journal has to be read, because the writers were fenced.
    Checking,
    /// The generation ends for this reason, unless the journal says that a newer one exists, which is then the reason.
    Doubting(Ended),
    /// Progress is being read.
    Reading,
    /// The records of each partition after its progress are being read.
    Tails(BTreeMap<OutputPartition, Progress>),
    /// Transactions are written. These are not committed yet, in the order of their preparation.
    Active(VecDeque<Flight>),
}

#[derive(Debug)]
struct Flight {
    turn: u32,
    writes: Vec<Planned>,
    state: FlightState,
}

/// The part of a transaction that goes to one partition.
#[derive(Clone, Copy, Debug)]
struct Planned {
    lane: usize,
    records: usize,
    /// How far the partition is committed once the transaction is.
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
        let gone_back = has_gone_back(plan.checkpoint.as_ref()).is_some();
        let Plan { incarnation, generation, .. } = *plan;
        Self {
            config,
            opened: Opened { incarnation, generation, sealed: plan.sealed(), gone_back, rules },
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

    /// Begins to read the progress. Every writer of earlier generations is fenced, this process's writers have fresh
    /// transactors, and the journal has no newer generation.
    pub fn all_fenced(&mut self) {
        self.enter(if self.lanes.is_empty() { Phase::Active(VecDeque::new()) } else { Phase::Reading });
    }

    /// Whether progress has been read and checked, and every partition has some.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Active(_)) && self.lanes.iter().all(|lane| lane.committed().is_some())
    }

    /// The partitions whose corrections have to be handed in at the tick of the reconciliation: those that it corrects
    /// and whose progress has not reached that tick. To be called once this is ready.
    pub fn to_reconcile(&self) -> impl Iterator<Item = &OutputPartition> {
        let earlier = |lane: &&Lane| {
            lane.target.corrected_at().is_some_and(|at| lane.committed().is_some_and(|(tick, _)| tick < at))
        };
        self.lanes.iter().filter(earlier).map(|lane| &lane.target.at)
    }

    /// How far the partitions of upsert outputs are committed. The answer is valid from when this is ready until the
    /// first transaction.
    pub(crate) fn upsert_partitions(&self) -> Vec<CommittedPartition> {
        let upserts = self.lanes.iter().filter(|lane| lane.target.envelope.can_be_corrected());
        upserts.filter_map(Lane::committed_partition).collect()
    }

    /// Takes note that a tick was minted. Must be called before any output at or after the tick is handed in.
    pub fn minted(&mut self, binding: &Binding) {
        if !binding.ranges.is_empty() {
            self.data_to_come.push_back(binding.tick);
        }
        if binding.checkpoint {
            self.marked = Some(binding.tick);
            self.lanes.iter_mut().for_each(|lane| lane.queue.mark(binding.tick));
        }
    }

    /// Takes note that the ticks through this one are sealed.
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
    /// [`Ended::Bug`] for a partition of another process, or a tick that is not after the last. Output that differs
    /// from what was committed before ends the generation by [`Committer::on`], when the journal has been asked.
    pub fn output(&mut self, tick: Tick, at: &OutputPartition, records: TickRecords) -> Result<(), Ended> {
        let result = match self.by_partition.get(at) {
            Some(&lane) => self.lanes[lane].take(tick, records),
            None => Err(Ended::Bug(format!("output of {at} came to a process that does not own it"))),
        };
        result.or_else(|ended| self.doubt(ended))
    }

    /// Takes note that all output at ticks through this one has been handed in.
    ///
    /// # Errors
    /// As [`Committer::output`].
    pub fn complete(&mut self, through: Tick) -> Result<(), Ended> {
        self.complete = self.complete.max(through);
        let complete = self.complete;
        let result = self.lanes.iter_mut().try_for_each(|lane| lane.settle(complete));
        result.or_else(|ended| self.doubt(ended))
    }

    /// The tick through which everything is committed. It never goes back.
    #[must_use]
    pub fn committed_through(&self) -> Tick {
        if self.lanes.iter().any(|lane| lane.committed().is_none()) {
            return Tick(0);
        }
        let through = self.until();
        let first = self.lanes.iter().filter_map(Lane::uncommitted).min();
        first.map_or(through, |tick| Tick(tick.0 - 1).min(through))
    }

    /// The tick of the checkpoint that was marked last and the digests of the process's partitions there, once progress
    /// through it is committed in all of them. They are returned once.
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

    /// The time at which [`Committer::next_action`] may have something to do even if nothing else happens.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        let newest = self.data.min(self.until());
        let idle = self.is_ready() && self.lanes.iter().filter_map(Lane::planned).any(|planned| planned.tick < newest);
        idle.then_some(self.last_heartbeat_ms + self.config.heartbeat_ms)
    }

    /// The last tick that is both sealed and complete.
    fn until(&self) -> Tick {
        if self.opened.rules.has(Rule::SealedBeforeVisible) { self.sealed.min(self.complete) } else { self.complete }
    }
}
