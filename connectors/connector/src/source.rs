//! The way in: splits that can be read again from any offset.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Error, Headers, JobProcess, Offset, SplitId};

/// An input of a job: a set of splits, each an ordered log of records.
///
/// **Contract.** A record keeps its split, offset, key and value for as long as the system keeps it, whichever value of
/// the source and whichever reader it is read by. Offsets grow strictly within a split, by any steps: those of bytes will
/// do. A record that is gone is reported as an [`ErrorKind::Data`](crate::ErrorKind::Data) error naming split, wanted and
/// available offset, never skipped; so is an offset beyond the end of its split, which can only come from records that
/// were lost. Only committed records are delivered: none of a transaction that is open or aborted, and no part of a record
/// that is still being written. Calls here block and are made off the hot path.
pub trait Source: Send + Sync + 'static {
    /// For people: `kafka topic 'orders'`.
    fn describe(&self) -> String;

    /// A split of it, for people: `kafka topic 'orders' partition 3`.
    fn describe_split(&self, split: &SplitId) -> String {
        format!("{} split {split}", self.describe())
    }

    /// The output that this would be to a job which wrote it: the [identity of its sink](crate::Sink::identity), and its
    /// name. A job that reads what it writes is refused; `None` where nothing can be written.
    fn as_output(&self) -> Option<(String, String)> {
        None
    }

    /// Says which process of which job is going to use the source, so that the system can be told whose its connections
    /// are. Called once in each process, before anything that connects.
    fn used_by(&self, process: &JobProcess) {
        let _ = process;
    }

    /// The splits that exist now, those included that cannot be read for the moment: as long as the system tells that a
    /// split exists, that it is unavailable is a status and no error, and nothing waits for it. Waits no longer than
    /// `patience` for the system's answer.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) for an input that does not exist or may not be
    /// read, which ends a running job when it is said several times in a row;
    /// [`ErrorKind::Retry`](crate::ErrorKind::Retry) for a system that cannot be reached, which does not.
    fn splits(&self, patience: Duration) -> Result<Vec<SplitStatus>, Error>;

    /// A reader for some of the splits, used by one thread. It calls `waker` when records may be had after
    /// [`SplitReader::poll`] found none. Several threads may have a reader each, and each reader calls its own waker.
    ///
    /// # Errors
    /// As [`Source::splits`].
    fn reader(&self, waker: Waker) -> Result<Box<dyn SplitReader>, Error>;

    /// What a person should know of the input where what was read in the last `window` may have to be read again: a
    /// sentence each, with object and cure. Waits no longer than `patience`.
    ///
    /// # Errors
    /// Any; the engine logs it and goes on.
    fn warnings(&self, window: Duration, patience: Duration) -> Result<Vec<String>, Error> {
        let _ = (window, patience);
        Ok(Vec::new())
    }

    /// Whether the system removes records from the middle of a split because a later record of the same key supersedes
    /// them; `None` where it keeps every record up to the first that is gone. Asked when records that were read before
    /// are missing. Waits no longer than `patience`.
    ///
    /// # Errors
    /// As [`Source::splits`]; the engine then treats the missing records as lost.
    fn compaction(&self, patience: Duration) -> Result<Option<Compaction>, Error> {
        let _ = patience;
        Ok(None)
    }

    /// Tells the system, for monitoring alone, how far the job of this name has committed. Nothing is ever read back from
    /// it.
    ///
    /// # Errors
    /// Any; the engine logs it and goes on.
    fn report_committed(&self, job: &str, positions: &[(SplitId, Offset)]) -> Result<(), Error> {
        let _ = (job, positions);
        Ok(())
    }
}

/// What a source says of one split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitStatus {
    /// The split's name.
    pub split: SplitId,
    /// What tells this split from one that was later recreated under the same name; empty where the system cannot tell.
    pub identity: String,
    /// Whether it can be read now.
    pub availability: Availability,
}

impl SplitStatus {
    /// The status of a split that can be read.
    #[must_use]
    pub fn available(split: SplitId, earliest: Offset, end: Offset, identity: String) -> Self {
        Self { split, identity, availability: Availability::Available { earliest, end } }
    }
}

/// Whether a split that exists can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Availability {
    /// The split can be read.
    Available {
        /// The first offset that can still be read: where a job that meets the split for the first time begins.
        earliest: Offset,
        /// The end of the committed records: no record before it belongs to an open transaction.
        end: Offset,
    },
    /// It cannot for now: the server that stores it is down, or has no successor yet. It can be read again once that is
    /// over.
    Unavailable {
        /// For people, with the split as its subject: `it has no leader`.
        why: String,
    },
}

impl Availability {
    /// The first offset that can still be read, if it is known.
    #[must_use]
    pub fn earliest(&self) -> Option<Offset> {
        match self {
            Self::Available { earliest, .. } => Some(*earliest),
            Self::Unavailable { .. } => None,
        }
    }

    /// The end of what is committed now, if it is known.
    #[must_use]
    pub fn end(&self) -> Option<Offset> {
        match self {
            Self::Available { end, .. } => Some(*end),
            Self::Unavailable { .. } => None,
        }
    }

    /// Why it cannot be read, if it cannot.
    #[must_use]
    pub fn why_not(&self) -> Option<&str> {
        match self {
            Self::Available { .. } => None,
            Self::Unavailable { why } => Some(why),
        }
    }
}

/// How a system compacts a source: it keeps at least the newest record of each key of a split, in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// How long a deletion, a record without a value, stays readable at the least after it was written. The newest record
    /// of a key may disappear only if it is a deletion that is older.
    pub deletions_kept: Duration,
    /// For people: the setting that protects records which may have to be read again, and the value that it should have.
    pub cure: String,
}

/// The engine's short name for a split within one reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// Reads splits in batches of borrowed records. Lives on one thread.
pub trait SplitReader {
    /// Begins to read `split` at `from`; its records come as `slot`. A split that is being read can be started again, and
    /// goes on from the new offset. One reader of a source at a time reads a split. A split that is unavailable, or
    /// becomes so, delivers nothing meanwhile and goes on by itself.
    ///
    /// # Errors
    /// The split does not exist or cannot be read. Where that is not known yet, [`SplitReader::poll`] says it, or delivers
    /// nothing.
    fn start(&mut self, slot: Slot, split: &SplitId, from: Offset) -> Result<(), Error>;

    /// Stops or resumes the delivery of one split. A paused split costs no memory beyond what is already fetched.
    ///
    /// # Errors
    /// The underlying client refused.
    fn set_paused(&mut self, slot: Slot, paused: bool) -> Result<(), Error>;

    /// Hands up to `most` records to `take`, without waiting, each split's in the order of their offsets. Returns how
    /// many there were. After 0 the waker is called when there may be more: for whatever was appended or committed since
    /// that poll, in any of the splits.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::ErrorKind::Data) when the offset to read next is gone. Passing outages are no
    /// errors: they look like a split without new records.
    fn poll(&mut self, most: usize, take: &mut dyn FnMut(Slot, Record<'_>)) -> Result<usize, Error>;

    /// The next offset to read. It also moves past what is not delivered (records that were aborted or compacted, and what
    /// the system itself keeps among them) as soon as the reader knows that there is nothing to deliver before it.
    fn position(&self, slot: Slot) -> Offset;

    /// How many answers of the system this reader, or the client that it shares with others, has received so far. The number
    /// grows as long as the client reaches any part of the system and splits are read that are not paused. If it stands still
    /// while the source says, asked by another process, that there is more to read, this process cannot reach the system, and
    /// ends. `None` if that is unknown: a reader that cannot reach the system then waits.
    fn answers(&self) -> Option<u64> {
        None
    }
}

/// A record as it lies in the reader's buffer.
///
/// A generation that reads input again compares offsets, keys and values with what the journal says of them, but neither
/// timestamps nor headers: a system that changes these in place would change what a job computes from them.
///
/// ```
/// use fluvial_connector::{Offset, Record};
///
/// let record = Record { offset: Offset(7), value: Some(b"tea"), ..Record::default() };
/// assert_eq!((record.key, record.timestamp_ms, record.headers.iter().count()), (None, None, 0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it stands in its split.
    pub offset: Offset,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a deletion where the split is a changelog.
    pub value: Option<&'a [u8]>,
    /// The system's time of the record, milliseconds since the Unix epoch, if it has one.
    pub timestamp_ms: Option<i64>,
    /// Its headers.
    pub headers: Headers<'a>,
    /// The split that it stands in. The engine sets it for the job; a reader leaves it empty, because it names the split by a
    /// [`Slot`].
    pub split: Option<&'a SplitId>,
}

impl Record<'_> {
    /// The number of its split, where the source names splits by numbers, as Kafka names partitions.
    ///
    /// ```
    /// use fluvial_connector::{Record, SplitId};
    ///
    /// let split = SplitId("3".to_owned());
    /// assert_eq!(Record { split: Some(&split), ..Record::default() }.partition(), Some(3));
    /// ```
    #[must_use]
    pub fn partition(&self) -> Option<u32> {
        self.split.and_then(|split| split.0.parse().ok())
    }
}

/// Wakes the worker that reads. Cheap to clone; may be called from any thread, at any time, also in vain.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Wakes the worker.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}
