//! What the leader and the workers of one generation tell each other.
//!
//! The leader runs beside worker 0. Its messages reach every worker in the order in which they were sent; a worker's
//! messages reach the leader in order too. Nothing here is stored.

use fluvial_connector::{
    Availability, Digest, Envelope, Generation, Incarnation, Offset, OutputPartition, SplitId, Tick,
};
use serde::{Deserialize, Serialize};

use super::compaction::{Compare, Reconciliation};
use crate::journal::{Binding, Nonce, Range, SinkStart, SplitName, SplitNumber, SplitStart};
use crate::manifest::{Manifest, OperatorKind, OperatorState, StateFile};

/// From the leader to every worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// The journal has been opened: begin to restore. Each process fences its share of the writers (every `slot` with
    /// `slot % processes == process`, `slot < most_slots`, each with all turns), then reports [`Report::Fenced`].
    Opened(Box<Plan>),
    /// Every writer of every earlier generation is fenced, and no newer generation exists. Each process reads the
    /// progress of its output partitions, checks it and looks for partially committed transactions; then its workers report
    /// [`Report::Ready`].
    AllFenced,
    /// A split was met; read it from its start on if it is yours (`number % workers`).
    SplitStarted(SplitStart),
    /// A tick: release the records of these ranges at it.
    Minted(Binding),
    /// The bindings through this tick are durable: sinks may commit through it.
    Sealed(Tick),
    /// A checkpoint is complete: its operators' state files, for those who merge them.
    CheckpointComplete {
        /// The checkpoint's tick.
        tick: Tick,
        /// Every durable operator with its state files as the manifest names them.
        operators: Vec<OperatorState>,
    },
    /// Everything through this tick is committed and the checkpoint of it is complete: end well.
    Finish(Tick),
}

/// What a generation starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The job.
    pub incarnation: Incarnation,
    /// This generation.
    pub generation: Generation,
    /// What tells it from another of that number.
    pub nonce: Nonce,
    /// How many slots any generation has had, this one included: one for each process.
    pub most_slots: u32,
    /// How many turns any generation's slots have had, this one's included.
    pub most_turns: u32,
    /// The checkpoint to restore, if there is one.
    pub checkpoint: Option<Manifest>,
    /// The splits that were met after the checkpoint.
    pub splits: Vec<SplitStart>,
    /// The bindings after the checkpoint, ascending; all sealed. They are to be replayed. None is marked as a
    /// checkpoint: those that were will never be complete.
    pub replay: Vec<Binding>,
    /// Every output of the job with its pinned partition count.
    pub sinks: Vec<SinkStart>,
    /// A reconciliation that is under way or to be done now; see [`crate::journal::Entry::Reconciled`] and
    /// [`crate::journal::Entry::Compacted`].
    pub reconciliation: Option<Reconciliation>,
    /// If another program than this one may have written the outputs, how a person approves this one: the outputs are
    /// compared before anything is committed.
    pub compare_outputs: Option<Approval>,
    /// Why this generation must not go on where records were compacted that it has to read again; `None` where it may.
    pub cannot_correct: Option<String>,
}

impl Plan {
    /// The tick that the restored state is of; tick 0 where there is no checkpoint.
    #[must_use]
    pub fn as_of(&self) -> Tick {
        self.checkpoint.as_ref().map_or(Tick(0), |c| c.tick)
    }

    /// When a split that was met after the checkpoint had nothing that the checkpoint does not hold, in milliseconds since
    /// the epoch; `None` where the checkpoint holds nothing of its source. Otherwise that is not known, which is 0: the
    /// split may have existed, unavailable, when the others were last read to their ends.
    #[must_use]
    pub fn caught_up_ms(&self, start: &SplitStart) -> Option<u64> {
        let mut splits = self.checkpoint.iter().flat_map(|checkpoint| &checkpoint.splits);
        splits.any(|state| state.start.source == start.source).then_some(0)
    }

    /// How what is read again is compared with what was read before.
    #[must_use]
    pub fn compare(&self) -> Compare {
        self.reconciliation.map_or(Compare::All, |reconciliation| reconciliation.compare)
    }

    /// The last sealed tick of earlier generations.
    #[must_use]
    pub fn sealed(&self) -> Tick {
        self.replay.last().map_or(self.as_of(), |b| b.tick)
    }
}

/// How a person approves a program whose output differs from that of the program before it. Displayed as the options of `run`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The hash of the program.
    pub program: String,
    /// Whether there are append outputs, which cannot be corrected: that their records stay as they are has to be approved,
    /// too.
    pub leave_append_outputs: bool,
}

impl std::fmt::Display for Approval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "--upgrade {}", self.program)?;
        if self.leave_append_outputs { f.write_str(" --leave-append-outputs") } else { Ok(()) }
    }
}

/// From a worker to the leader. What is about committing comes from the first worker of each process, for the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Report {
    /// The process's share of the writers is fenced.
    Fenced,
    /// State is restored, the last ranges before the checkpoint have been read again and are equal. From the first
    /// worker of a process also: progress has been read and checked, and every output partition of the process has some.
    Ready {
        /// The names of all durable operators of the dataflow; the same on every worker. Each reports
        /// [`Report::StateStored`] for every checkpoint.
        operators: Vec<String>,
    },
    /// What was read since the last such report. Ranges of one split follow each other without gaps.
    Read {
        /// The ranges.
        ranges: Vec<Range>,
        /// Their size, for back-pressure.
        bytes: u64,
    },
    /// Readers have passed offsets without a record.
    Passed(Vec<Passed>),
    /// A durable operator's part of the checkpoint of `tick` on this worker is stored.
    StateStored {
        /// The checkpoint's tick.
        tick: Tick,
        /// The operator.
        operator: String,
        /// The kind of operator, with the types of its columns.
        kind: OperatorKind,
        /// The state file, if anything had changed.
        file: Option<StateFile>,
        /// How many keys have a row on this worker; `None` where rows have no keys.
        keys: Option<u64>,
    },
    /// The process's output partitions are committed through `tick`.
    Committed(Tick),
    /// The digests of the process's output partitions as of the checkpoint tick `tick`, all committed.
    SinkAt {
        /// The checkpoint's tick.
        tick: Tick,
        /// The digests.
        outputs: Vec<(OutputPartition, Digest)>,
    },
    /// Records that have to be read again are gone because the input was compacted, and the job can go on without them once
    /// the journal says so; see [`crate::journal::Entry::Compacted`]. The worker puts nothing of that tick or a later one
    /// into the dataflow.
    Compacted {
        /// Which records, for people.
        what: String,
    },
    /// Some of an operator's state files, which follow each other in the newest checkpoint, have been merged into one. The next
    /// checkpoint names it in their place.
    Merged {
        /// The operator.
        operator: String,
        /// The objects of the state files that were merged, oldest first.
        removed: Vec<String>,
        /// The state file that holds all their rows.
        added: StateFile,
    },
}

/// A stretch of a split that a reader has passed without a record: Kafka's control markers, what was aborted, what was
/// compacted. Nothing is bound of it: it becomes a part of the range of the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// The split.
    pub split: SplitNumber,
    /// Where the last reported range of it ends.
    pub from: Offset,
    /// The offset to read next.
    pub to: Offset,
}

impl Passed {
    /// Where reading stands if everything before `position` is done with.
    #[must_use]
    pub fn read_to(self, position: Offset) -> Offset {
        if position < self.from { position } else { position.max(self.to) }
    }
}

/// A split as a source reports it, for the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundSplit {
    /// The name of the job's source.
    pub source: String,
    /// What it is, for people ([`fluvial_connector::Source::describe_split`]).
    pub described: String,
    /// The split's name.
    pub split: SplitId,
    /// Where it begins and ends, or why it cannot be read now.
    pub availability: Availability,
    /// Its identity; see [`fluvial_connector::SplitStatus::identity`].
    pub identity: String,
    /// When the source was asked, in milliseconds since the Unix epoch.
    pub asked_ms: u64,
}

impl FoundSplit {
    /// The split's name.
    #[must_use]
    pub fn name(&self) -> SplitName {
        SplitName { source: self.source.clone(), split: self.split.clone() }
    }
}

/// An output of the binary that runs, for the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundOutput {
    /// Its name.
    pub output: String,
    /// How many partitions it has now.
    pub partitions: u32,
    /// How its records become messages.
    pub envelope: Envelope,
}

/// What an upsert output holds that this job has no progress for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldOutput {
    /// Its name.
    pub output: String,
    /// How many rows it holds.
    pub rows: u64,
    /// The jobs that write it, in a few words each, as far as the sink tells.
    pub writers: Vec<String>,
}

/// How a generation's workers are spread: equally many in each process, numbered process by process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// How many workers the generation has.
    pub workers: u32,
    /// How many processes they run in, of which it is a multiple.
    pub processes: u32,
}

impl Layout {
    /// How many workers each process has.
    #[must_use]
    pub fn threads(self) -> u32 {
        self.workers / self.processes
    }

    /// The process that a worker runs in.
    #[must_use]
    pub fn process_of(self, worker: u32) -> u32 {
        worker / self.threads()
    }

    /// The process that commits an output partition: its rows go to one of the workers there.
    #[must_use]
    pub fn committer_of(self, partition: u32) -> u32 {
        self.process_of(owner(partition, self.workers))
    }
}

/// Which worker a split or the rows of an output partition belong to.
#[must_use]
pub fn owner(number: u32, workers: u32) -> u32 {
    number % workers
}

/// The owner of a split.
#[must_use]
pub fn split_owner(split: SplitNumber, workers: u32) -> u32 {
    owner(split.0, workers)
}
