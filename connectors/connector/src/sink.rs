//! The way out: records and progress in one atomic step, by one writer at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Error, ErrorKind, Incarnation, JobProcess, Offset, OutputBlock, OutputRecordRef, Progress, Record, Tick, Waits,
};

/// One named output of a job: a topic of a sink.
pub trait Output: Send + Sync + 'static {
    /// The system that the output lies in.
    fn sink(&self) -> Arc<dyn Sink>;

    /// What is asked of the output.
    fn spec(&self) -> OutputSpec;
}

/// How records become messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Envelope {
    /// Each record is a message; nothing is ever taken back.
    Append,
    /// The newest message of a key is its row; a null value says that it has none.
    Upsert,
    /// The same for consumers as [`Envelope::Upsert`], but the job keeps no table of the rows, because it writes a stream:
    /// no operator can emit the rows again. The engine makes an upsert output of such a job's one of this kind.
    #[serde(rename = "stream-written")]
    StreamWritten,
}

impl Envelope {
    /// Whether the job can emit all rows of the output again, so that an output that lacks rows or holds wrong ones can be
    /// corrected.
    #[must_use]
    pub fn can_be_corrected(self) -> bool {
        self == Self::Upsert
    }
}

impl fmt::Display for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Append => "append",
            Self::Upsert => "upsert",
            Self::StreamWritten => "stream-written",
        })
    }
}

/// What the engine must know of an output.
#[derive(Clone, Debug)]
pub struct OutputSpec {
    /// Its stable name: the topic.
    pub name: String,
    /// How records become messages.
    pub envelope: Envelope,
    /// The partition of a key among `partitions`, less than `partitions`. Must never change for a key: replay compares
    /// output per partition.
    pub partition_of: fn(key: &[u8], partitions: u32) -> u32,
}

/// An external system that commits the records of several outputs together with the job's progress.
pub trait Sink: Send + Sync + 'static {
    /// Two sinks of equal identity are one system, and share transactions. All sinks of a system have one identity.
    fn identity(&self) -> String;

    /// Connects, creates what is missing, keeps what is there, and returns the session, which sees everything that any
    /// earlier session has committed. Blocks no longer than the context's patience.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) for what a person must change,
    /// [`ErrorKind::Retry`](crate::ErrorKind::Retry) for a system that cannot be reached.
    fn connect(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Result<Arc<dyn SinkSession>, Error>;

    /// Connects and creates nothing. The session says of what is missing, with the identity [`OutputStatus::NOT_YET`], what
    /// [`Sink::connect`] would create; it is only read from, and of no more than what exists. Blocks no longer than the
    /// context's patience.
    ///
    /// # Errors
    /// As [`Sink::connect`], as far as the system tells without creating anything.
    fn look(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Result<Arc<dyn SinkSession>, Error>;
}

/// The job that a session belongs to, and what the session shares with the engine.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// The job, under whose name the progress is kept, and which of its processes connects. The processes of a job share
    /// its progress, and two jobs share none, even if they write the same outputs.
    pub process: JobProcess,
    /// How long a call may wait for a system that is unreachable.
    pub patience: Duration,
    /// Where the session notes what its calls wait for, so that the engine can report a wait that is too long.
    pub waits: Waits,
}

impl SinkContext {
    /// Of the first process of a job of this name.
    pub fn new(job: impl Into<String>, patience: Duration) -> Self {
        let process = JobProcess { job: job.into(), index: 0 };
        Self { process, patience, waits: Waits::default() }
    }
}

/// A connection to a sink. Calls block; several threads may call at once.
pub trait SinkSession: Send + Sync {
    /// What the outputs and the place where progress is kept are now. Asked when a generation opens, again and again
    /// while it runs, and after each write that failed.
    ///
    /// # Errors
    /// The system cannot be reached, or has no such output.
    fn status(&self) -> Result<SinkStatus, Error>;

    /// What a person should know of the outputs: a sentence each, with object and cure.
    ///
    /// # Errors
    /// Any; the engine logs it and goes on.
    fn warnings(&self) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Other jobs that keep progress for an output, in a few words each: whoever else may write it, as far as the system
    /// tells.
    ///
    /// # Errors
    /// The system cannot be reached, or does not let this job look.
    fn writers(&self, output: &str) -> Result<Vec<String>, Error> {
        let _ = output;
        Ok(Vec::new())
    }

    /// Makes the writer `id` exist, aborts what an earlier writer of that id left open, and makes every later call of
    /// an earlier one fail with [`CommitError::Fenced`], in whatever session, thread or process that one is. Writers of
    /// other ids are not disturbed.
    ///
    /// # Errors
    /// As [`Sink::connect`].
    fn fence(&self, id: &WriterId) -> Result<Box<dyn Transactor>, Error>;

    /// The committed progress of each output partition that has any. **Contract:** what was committed before the call
    /// is seen, also while other transactions are open (the call waits for them, no longer than the patience).
    ///
    /// # Errors
    /// [`ErrorKind::Retry`](crate::ErrorKind::Retry) with the name of what holds it up;
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) for progress that cannot be understood.
    fn progress(&self) -> Result<BTreeMap<OutputPartition, Progress>, Error>;

    /// Reads the committed records of output partitions, all different, each from its offset to what is its end at the
    /// call; `take` gets the partition's place in `from` with each. Returns what was found of each, in the same order: an
    /// end is less than its `from` where records have been lost, or where only the end was asked for, from
    /// `Offset(u64::MAX)`. The partitions are read side by side. Any other `from` is where records end that are known to be
    /// committed: the sink makes sure of an end before it, which no later call would take back.
    /// **Contract:** as for [`SinkSession::progress`]: what was committed before the call is seen, and open transactions
    /// are waited for. A committed record right before `from` that is aborted by now is told as [`ReadEnd::aborted`].
    ///
    /// # Errors
    /// As [`SinkSession::progress`].
    fn read_all_committed(
        &self,
        from: &[(OutputPartition, Offset)],
        take: &mut dyn FnMut(usize, Record<'_>),
    ) -> Result<Vec<ReadEnd>, Error>;

    /// As [`SinkSession::read_all_committed`], for one partition, of which only the end is returned.
    ///
    /// # Errors
    /// As there.
    fn read_committed(
        &self,
        at: &OutputPartition,
        from: Offset,
        take: &mut dyn FnMut(Record<'_>),
    ) -> Result<Offset, Error> {
        let ends = self.read_all_committed(&[(at.clone(), from)], &mut |_, record| take(record))?;
        ends.first()
            .map(|read| read.end)
            .ok_or_else(|| Error::new(ErrorKind::Bug, format!("output {at} was read and has no end")))
    }

    /// Where an output partition ends: no later record has a smaller offset, and every earlier one has.
    ///
    /// # Errors
    /// As [`SinkSession::progress`].
    fn end(&self, at: &OutputPartition) -> Result<Offset, Error> {
        self.read_committed(at, Offset(u64::MAX), &mut |_| ())
    }
}

/// The result of reading an output partition, apart from its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadEnd {
    /// The first offset that the partition still has. Retention or a person has removed everything before it.
    /// Compaction, which removes records that later ones supersede, does not move it.
    pub earliest: Offset,
    /// Where the partition ends: no later record has a smaller offset. It is less than the offset from which the partition
    /// was to be read where records have been lost, or where only the end was asked for.
    pub end: Offset,
    /// The offset of the record right before the one from which the partition was to be read, if that record is there and
    /// does not count as committed any more: its transaction was aborted after a job had learnt that it was committed.
    /// `None` where that record is committed, where it is gone (compaction, retention, truncation), and where the place
    /// before holds no record. A sink that keeps no aborted records says it by an `end` that is less.
    pub aborted: Option<Offset>,
}

impl ReadEnd {
    /// The result for a partition that has all its records from offset 0 on, and of which no transaction was aborted
    /// after a job had learnt that it was committed.
    #[must_use]
    pub fn at(end: Offset) -> Self {
        Self { earliest: Offset(0), end, aborted: None }
    }
}

/// The places that a job writes to, as its sink describes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkStatus {
    /// Each output, by its name.
    pub outputs: BTreeMap<String, OutputStatus>,
    /// The name of the place where progress is kept.
    pub progress_name: String,
    /// The identity of that place, which differs if it is recreated under the same name; empty where the system has no
    /// such identity.
    pub progress_identity: String,
}

/// One output, as its sink describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputStatus {
    /// How many partitions it has.
    pub partitions: u32,
    /// What tells it from one that is recreated under the same name; empty where the system cannot tell.
    pub identity: String,
}

impl OutputStatus {
    /// The identity of what does not exist yet, in a session of [`Sink::look`].
    pub const NOT_YET: &str = "none yet";

    /// Whether it exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.identity != Self::NOT_YET
    }
}

/// The only way to write: one transaction after the other.
///
/// **Contract.** Nothing of a transaction is visible before its commit, and all of it, records and progress, from then on.
/// If the process ends at any moment, a session that is opened later finds all of the transaction or, after the next
/// [`SinkSession::fence`], nothing. Of two writers that take turns, the second may prepare before the first commits; they
/// commit in the order in which they prepared. Dropping a transactor whose transaction is open does not wait for the
/// system: the next fence aborts the transaction.
///
/// ```text
///   idle ──prepare──► prepared ──commit──► idle
///     └────────any error: drop the transactor──────► fence again
/// ```
pub trait Transactor: Send {
    /// Writes the records of a transaction, and the progress of each of its partitions
    /// ([`PartitionWrite::progress_at`]), so that only the commit is left to do. Where the system might commit one without
    /// the other, the progress is written last, when all records are known to be stored: records without progress are found
    /// and left out, and progress without records would be a loss. Returns each partition's end offset, in the order of
    /// [`Transaction::writes`].
    ///
    /// # Errors
    /// [`CommitError`]; the transaction is not committed, and never will be.
    fn prepare(&mut self, transaction: &Transaction) -> Result<Vec<Offset>, CommitError>;

    /// Commits what was prepared.
    ///
    /// # Errors
    /// [`CommitError`]; it is unknown whether the transaction is committed.
    fn commit(&mut self) -> Result<(), CommitError>;
}

/// Why a transactor is of no further use. In both cases the journal decides what comes next.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A newer writer of the same id exists, or the system gave this one up.
    #[error("the writer was fenced")]
    Fenced(#[source] Error),
    /// Something failed; from [`Transactor::commit`] the outcome is unknown. Fence again and read the progress.
    #[error("the transaction failed or its outcome is unknown")]
    Unknown(#[source] Error),
    /// It can never succeed: a record that is too large, a topic that may not be written.
    #[error("the transaction cannot succeed")]
    Refused(#[source] Error),
}

/// Names one writer of a job for ever: `incarnation-slot-turn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId {
    /// The job.
    pub incarnation: Incarnation,
    /// The process's index.
    pub slot: u32,
    /// Which of the process's writers, which take turns.
    pub turn: u32,
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.incarnation, self.slot, self.turn)
    }
}

/// One partition of one output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OutputPartition {
    /// The output's name.
    pub output: String,
    /// The partition's number.
    pub partition: u32,
}

impl fmt::Display for OutputPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.output, self.partition)
    }
}

/// One message of an output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputRecord {
    /// The message's key.
    pub key: Vec<u8>,
    /// The message's value; `None` deletes the key.
    pub value: Option<Vec<u8>>,
}

impl OutputRecord {
    /// The message, as it would be in a block.
    #[must_use]
    pub fn borrowed(&self) -> OutputRecordRef<'_> {
        OutputRecordRef { key: &self.key, value: self.value.as_deref() }
    }
}

/// Messages of an output, in their order. They are shared with whoever handed them in: cloning copies none of them.
#[derive(Clone, Debug, Default)]
pub struct OutputRecords {
    parts: Vec<(Arc<OutputBlock>, Range<usize>)>,
    len: usize,
}

impl OutputRecords {
    /// Adds some messages of a block at the end.
    ///
    /// # Panics
    /// There are no messages at some of these places.
    pub fn push(&mut self, block: &Arc<OutputBlock>, places: Range<usize>) {
        assert!(places.end <= block.len(), "{places:?} is not within {} records", block.len());
        if !places.is_empty() {
            self.len += places.len();
            self.parts.push((Arc::clone(block), places));
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The messages, as they lie together.
    pub fn parts(&self) -> impl Iterator<Item = impl ExactSizeIterator<Item = OutputRecordRef<'_>> + Clone> {
        self.parts.iter().map(|(block, places)| block.range(places.clone()))
    }

    /// The messages.
    pub fn iter(&self) -> impl Iterator<Item = OutputRecordRef<'_>> {
        self.parts().flatten()
    }
}

impl From<Vec<OutputRecord>> for OutputRecords {
    fn from(records: Vec<OutputRecord>) -> Self {
        let (mut all, block) = (Self::default(), OutputBlock::from(records));
        let len = block.len();
        all.push(&Arc::new(block), 0..len);
        all
    }
}

impl PartialEq for OutputRecords {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for OutputRecords {}

/// What one transaction writes: all of it becomes visible in one step, or nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Which process writes: all progress of a slot goes to one place.
    pub slot: u32,
    /// What is written to each partition; a partition may have progress and no records.
    pub writes: Vec<PartitionWrite>,
}

/// The part of a transaction that goes to one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionWrite {
    /// The output partition.
    pub at: OutputPartition,
    /// The records, in order.
    pub records: OutputRecords,
    /// The tick of each record: how many of `records` have been written through the end of each tick, ascending. The
    /// last entry may be a tick of which only a part is written.
    pub ticks: Vec<TickCount>,
    /// The progress of the partition, except for the offsets of the records, which [`PartitionWrite::progress_at`]
    /// adds. Its `end` is where the partition's records end before this transaction; it stays so if there are no
    /// records.
    pub progress: Progress,
}

/// How many records of a [`PartitionWrite`] there are through the end of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickCount {
    /// The tick.
    pub tick: Tick,
    /// The records of the write through its end.
    pub records: usize,
}
