//! What the leader asks of the store, and what it hears.
//!
//! Every part of the leader has at most one call under way; the answer comes back to the part that asked.

use std::collections::BTreeSet;
use std::sync::Arc;

use fluvial_connector::{Generation, Incarnation};

use super::{Ended, JournalFault, Savepoint};
use crate::journal::{JournalRecord, Nonce, Seq};
use crate::manifest::Manifest;

/// The part of the leader that asked; carried along so that the answer finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Reading the journal and claiming a place in it.
    Opening,
    /// Appending to the journal.
    Appender,
    /// Storing manifests.
    Checkpointer,
    /// Deleting what nothing needs.
    Cleaner,
}

/// A call to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The positions of the journal that exist, ascending; only those after `after` where that is given. Answered by
    /// [`Answer::Positions`].
    List {
        /// The position to list after.
        after: Option<Seq>,
    },
    /// These records of the journal, best read at once. Answered by [`Answer::Records`] in the same order.
    Get(Vec<Seq>),
    /// Create this record if the position is free. Answered by [`Answer::Put`].
    Put(Seq, Arc<JournalRecord>),
    /// Read a manifest. Answered by [`Answer::Manifest`].
    GetManifest(String),
    /// Store a manifest under a name that nobody else uses. Answered by [`Answer::Put`].
    PutManifest(String, Arc<Manifest>),
    /// Read a savepoint. Answered by [`Answer::Savepoint`].
    GetSavepoint(String),
    /// The objects that savepoints keep, and pins of savepoints that are being taken. Answered by [`Answer::Pinned`].
    ListPinned,
    /// Every state file and manifest that exists. Answered by [`Answer::Objects`].
    ListObjects,
    /// Delete these; what is gone already counts as deleted. Answered by [`Answer::Deleted`].
    Delete(Vec<Object>),
}

/// Something that can be deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A record of the journal.
    Record(Seq),
    /// A state file or a manifest, by its object's name.
    Named(String),
}

/// A state file or a manifest that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundObject {
    /// The object's name.
    pub name: String,
    /// The generation that made it, which is part of the name.
    pub generation: Generation,
}

/// What became of a conditional create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// It was created by this call.
    Created,
    /// Something is there, which may be this very object.
    AlreadyExists,
    /// It may have happened, and may yet happen.
    Unknown,
}

/// What the store says. A call that cannot be answered for good is made again by whoever runs the machine, except for
/// the creates, whose unknown outcome is an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Call::List`].
    Positions(Vec<Seq>),
    /// To [`Call::Get`]; `None` where there is nothing.
    Records(Vec<(Seq, Option<JournalRecord>)>),
    /// To [`Call::Put`] and [`Call::PutManifest`].
    Put(PutOutcome),
    /// To [`Call::GetManifest`].
    Manifest(Option<Box<Manifest>>),
    /// To [`Call::GetSavepoint`].
    Savepoint(Option<Box<Savepoint>>),
    /// To [`Call::ListPinned`].
    Pinned(BTreeSet<String>),
    /// To [`Call::ListPinned`], if one of them cannot be read: nothing may be deleted for now.
    PinsUnknown,
    /// To [`Call::ListObjects`].
    Objects(Vec<FoundObject>),
    /// To [`Call::Delete`].
    Deleted,
}

/// Who writes: a generation, and which run of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The job.
    pub incarnation: Incarnation,
    /// The generation.
    pub generation: Generation,
    /// What tells it from another of that number.
    pub nonce: Nonce,
}

/// Whose a record of the journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This generation's own.
    Mine,
    /// Of an earlier generation.
    Older,
    /// Of a generation that fences this one.
    Newer(Generation),
}

impl Identity {
    /// Whose `record` is. One of the same number and another nonce counts as newer: of two that chose the same number
    /// neither may go on when it meets the other.
    ///
    /// Used on the newest record of the journal this says whether this generation may still write: a newer generation
    /// has its record there before it does anything else.
    ///
    /// # Errors
    /// [`Ended::Journal`] for a record of another job.
    pub fn judge(&self, seq: Seq, record: &JournalRecord) -> Result<Verdict, Ended> {
        if record.incarnation != self.incarnation {
            let (at, is, own) = (seq, record.incarnation, self.incarnation);
            return Err(JournalFault::RecordOfAnother { at, is, own }.into());
        }
        Ok(match record.generation.cmp(&self.generation) {
            std::cmp::Ordering::Less => Verdict::Older,
            std::cmp::Ordering::Equal if record.nonce == self.nonce => Verdict::Mine,
            _ => Verdict::Newer(record.generation),
        })
    }

    /// A record of this writer.
    pub fn record(&self, entries: Vec<crate::journal::Entry>) -> Arc<JournalRecord> {
        Arc::new(JournalRecord {
            incarnation: self.incarnation,
            generation: self.generation,
            nonce: self.nonce,
            entries,
        })
    }
}
