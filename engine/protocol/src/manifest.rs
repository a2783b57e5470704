//! The manifest of a checkpoint: everything that a restore needs besides the journal after it.

use std::collections::BTreeSet;

use fluvial_connector::{Digest, Generation, Incarnation, Offset, OutputPartition, Tick};
use serde::{Deserialize, Serialize};

use crate::journal::{Range, SinkStart, SplitStart};

/// A consistent snapshot of a job as of one tick. Nothing in it is keyed by worker.
///
/// It is stored as JSON, and reaches the other processes in a format without names of fields, so none may be left out when it is
/// written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The job.
    pub incarnation: Incarnation,
    /// Who took it.
    pub generation: Generation,
    /// The program that took it ([`Entry::Opened`](crate::journal::Entry::Opened)).
    pub program: String,
    /// The tick that it is a snapshot of.
    pub tick: Tick,
    /// The tick of the savepoint to which the job has gone back, if this is the manifest by which it has: the state is as of that
    /// tick, and counts as that of `tick`, which was the last sealed one.
    #[serde(default)]
    pub gone_back_to: Option<Tick>,
    /// The last request to go back that was carried out ([`GoBack::id`](crate::GoBack::id)).
    #[serde(default)]
    pub went_back: Option<u64>,
    /// Every split that has been met.
    pub splits: Vec<SplitState>,
    /// Every output that is written.
    pub sinks: Vec<SinkStart>,
    /// Every output partition's running digest as of `tick`; default for one without records so far.
    pub outputs: Vec<OutputState>,
    /// Every durable operator.
    pub operators: Vec<OperatorState>,
    /// The most slots (processes) and turns that any generation so far has had.
    pub most_slots: u32,
    /// See `most_slots`.
    pub most_turns: u32,
}

impl Manifest {
    /// The objects that a checkpoint consists of: its manifest, of this name, and its state files.
    #[must_use]
    pub fn objects(&self, name: &str) -> BTreeSet<String> {
        let files = self.operators.iter().flat_map(|operator| &operator.files).map(|file| file.object.clone());
        files.chain([name.to_owned()]).collect()
    }
}

/// A split as of the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitState {
    /// Which, and where it began.
    pub start: SplitStart,
    /// The next offset to read.
    pub position: Offset,
    /// The last range that was read before the checkpoint, if there was any: an opening reads it again.
    pub last: Option<Range>,
    /// The last time at which nothing at or after `position` is known to have been written, in milliseconds since the Unix
    /// epoch by the leader's clock; 0 where there is none.
    pub caught_up_ms: u64,
}

/// An output partition as of the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputState {
    /// The output partition.
    pub at: OutputPartition,
    /// The running digest through the checkpoint's tick.
    pub digest: Digest,
}

/// A durable operator as of the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorState {
    /// Its name, stable across versions.
    pub name: String,
    /// What it keeps and as which types; a binary whose operator differs is refused.
    pub kind: OperatorKind,
    /// Its state files, oldest first; where two have a key the later one wins.
    pub files: Vec<StateFile>,
    /// How many keys have a row, over all state files; `None` where rows have no keys.
    pub keys: Option<u64>,
}

impl OperatorState {
    /// Adds what a worker has stored at the next checkpoint. An operator whose types have changed since the last one
    /// has stored all its rows again, and its older state files are no longer needed.
    pub fn add(&mut self, kind: &OperatorKind, file: Option<StateFile>) {
        if self.kind != *kind {
            self.kind = kind.clone();
            self.files.clear();
        }
        self.files.extend(file);
    }
}

/// What tells whether a stored operator is the one that the binary has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorKind {
    /// `keep_all`, `latest`, `aggregate`.
    pub operator: String,
    /// The key's and the value's columns, as the state module writes them down.
    pub schema: String,
}

impl std::fmt::Display for OperatorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.operator, self.schema)
    }
}

/// An immutable Parquet file with rows of one durable operator: those that changed on one worker between two checkpoints, or
/// what several such files were merged into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// The Parquet file's object.
    pub object: String,
    /// How many rows it has, tombstones included.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// The file's checksum (crc32), checked before it is used.
    pub crc32: u32,
}
