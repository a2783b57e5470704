//! What the journal holds.
//!
//! The journal is a sequence of records without gaps, one object each, made by conditional create. A record belongs to
//! one generation and carries its nonce, so that a writer who finds a position taken can tell its own record from
//! another's. It holds any number of entries: whatever had gathered while the append before it was under way.

use fluvial_connector::{Digest, Envelope, Generation, Incarnation, Offset, SplitId, Tick};
use serde::{Deserialize, Serialize};

/// A position in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl std::fmt::Display for Seq {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A random number that tells two generations apart that chose the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(pub u64);

impl Nonce {
    /// The nonce of the generation that an attempt of a run becomes. Runs are told apart by a random number, and the attempts
    /// of a run by theirs, which grows.
    #[must_use]
    pub fn of_run(run: u32, attempt: u32) -> Self {
        Self(u64::from(run) << 32 | u64::from(attempt))
    }

    /// Whether both are of one run.
    #[must_use]
    pub fn same_run(self, other: Self) -> bool {
        self.0 >> 32 == other.0 >> 32
    }

    /// Whether this is of an earlier attempt of the same run.
    #[must_use]
    pub fn is_of_an_earlier_attempt(self, other: Self) -> bool {
        self.same_run(other) && self.0 < other.0
    }
}

/// The engine's number for a split of any of the job's sources, given in journal order and never reused. Within a tick
/// it is the first part of a record's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SplitNumber(pub u32);

/// One object of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRecord {
    /// The job.
    pub incarnation: Incarnation,
    /// Who wrote it.
    pub generation: Generation,
    /// Which run of that generation number wrote it.
    pub nonce: Nonce,
    /// The facts, in order. There are none in a position that a newer generation took to fence an older one.
    pub entries: Vec<Entry>,
}

/// One fact that must survive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// A generation began.
    Opened {
        /// Identifies its program: the hash of its binary and of the job's own options. Another program may compute
        /// other output.
        program: String,
        /// How many workers it has.
        workers: u32,
        /// How many processes they run in. Each is a slot in the names of the writers.
        processes: u32,
        /// How many writers each process has, which take turns.
        turns: u32,
    },
    /// A tick was minted.
    Binding(Binding),
    /// A split of a source was met for the first time.
    SplitStarted(SplitStart),
    /// An output begins: progress for it is missing only before `tick` has been committed.
    SinkStarted(SinkStart),
    /// A checkpoint is complete.
    Checkpoint {
        /// The tick that it is a snapshot of.
        tick: Tick,
        /// The manifest's object.
        manifest: String,
        /// The position at which the journal begins from now on: earlier records are not needed to restore this
        /// checkpoint. Opened records before it are kept.
        floor: Seq,
    },
    /// Upsert outputs were (or are to be) corrected to the dataflow's whole output at `tick`; their digests begin
    /// again there. Complete when every output partition has progress at or after `tick`.
    Reconciled {
        /// The tick of the reconciliation.
        tick: Tick,
        /// The splits that ended before the offset up to which they had been read, and that continue at their ends.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        rewound: Vec<Rewound>,
        /// The outputs that were recreated under their names, and that the job continues as they are.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        recreated: Vec<Recreated>,
    },
    /// Upsert outputs are corrected at `tick`, as by [`Entry::Reconciled`], because compaction removed records that
    /// have to be read again after the checkpoint. Everything else is still compared with what was read before.
    Compacted {
        /// The tick of the reconciliation. The generation that finds the loss names one too, but it ends, and the next
        /// generation reconciles.
        tick: Tick,
    },
    /// Upsert outputs are corrected at `tick`, as by [`Entry::Reconciled`], because a program that a person has approved
    /// computes other output than the one before it. The input is still compared with what was read before.
    Upgraded {
        /// The tick of the reconciliation.
        tick: Tick,
    },
}

/// A split whose log was truncated, and where it goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewound {
    /// The split's number.
    pub split: SplitNumber,
    /// Its end, once it had been truncated: the next offset to read.
    pub to: Offset,
}

/// An output that was recreated under its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recreated {
    /// Its name.
    pub output: String,
    /// Its identity from the tick of the reconciliation on.
    pub identity: String,
}

/// A tick and the input that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The tick.
    pub tick: Tick,
    /// For each split that moved, where the tick's data begins and ends. Empty for a heartbeat.
    pub ranges: Vec<Range>,
    /// Whether a checkpoint is taken of this tick.
    pub checkpoint: bool,
}

/// A stretch of one split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The split that the range is of.
    pub split: SplitNumber,
    /// The first offset.
    pub from: Offset,
    /// The offset after the last: also past what is never delivered.
    pub to: Offset,
    /// How many records were delivered.
    pub count: u64,
    /// The sum of their digests ([`fluvial_connector::source_digest`]).
    pub digest: Digest,
}

/// Where a split begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitStart {
    /// The number that it has from now on.
    pub number: SplitNumber,
    /// The name of the job's source.
    pub source: String,
    /// Its name there.
    pub split: SplitId,
    /// The first offset that is read.
    pub offset: Offset,
    /// What tells it from one recreated under the same name ([`fluvial_connector::SplitStatus::identity`]).
    pub identity: String,
}

/// Names a split for ever: by the job's source and its name there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SplitName {
    /// The name of the job's source.
    pub source: String,
    /// The split's name in it.
    pub split: SplitId,
}

impl SplitStart {
    /// The split's name.
    #[must_use]
    pub fn name(&self) -> SplitName {
        SplitName { source: self.source.clone(), split: self.split.clone() }
    }

    /// Whether the split is another by now, under the same name. One whose system cannot tell, then or now, is not.
    #[must_use]
    pub fn was_recreated(&self, identity: &str) -> bool {
        differ(&self.identity, identity)
    }
}

/// Whether two identities are those of different things. Where the system could not tell, then or now, they are not.
pub fn differ(was: &str, is: &str) -> bool {
    !was.is_empty() && !is.is_empty() && was != is
}

/// Where an output begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStart {
    /// Its name.
    pub output: String,
    /// How many partitions it has, for ever.
    pub partitions: u32,
    /// How its records become messages.
    pub envelope: Envelope,
    /// The tick from which on it is written: output at earlier ticks is not its.
    pub tick: Tick,
    /// What tells it from one recreated under the same name ([`fluvial_connector::OutputStatus::identity`]).
    pub identity: String,
    /// The same of the place where its progress is kept ([`fluvial_connector::SinkStatus::progress_identity`]).
    pub progress: String,
}
