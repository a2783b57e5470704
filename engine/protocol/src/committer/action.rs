//! The actions that a committer asks of its sink, and their results.

use std::collections::BTreeMap;

use fluvial_connector::{
    ErrorKind, Offset, OutputPartition, OutputRecord, Progress, SinkStatus, Transaction, WriterId,
};

use crate::Verdict;

/// An action on the sink. Actions of one writer are done in their order, those of different writers side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Drop the transactor of the writer with this turn, whatever it is doing, and fence its id again. Answered by
    /// [`Done::Fenced`].
    Fence {
        /// The writer's turn.
        turn: u32,
    },
    /// Fence these writers, which earlier generations had and this one does not use. Answered by [`Done::OthersFenced`] when
    /// all of them are. A [`Participant`](crate::Participant) asks for it.
    FenceOthers(Vec<WriterId>),
    /// Read all records that these output partitions hold, to compare or to correct them. Answered by
    /// [`Done::ReadBack`], in one or in several parts. A [`Participant`](crate::Participant) asks for it.
    ReadBack(Vec<OutputPartition>),
    /// Look at the newest record of the journal ([`Identity::judge`](crate::Identity::judge)). Answered by
    /// [`Done::Journal`].
    CheckJournal,
    /// Read the progress of all output partitions, and after that the status of the outputs. Answered by
    /// [`Done::Progress`].
    ReadProgress,
    /// Read the committed records of each of these partitions from an offset on, or only find where it ends. Answered
    /// by [`Done::Tails`].
    ReadTails(Vec<(OutputPartition, Option<Offset>)>),
    /// Write a transaction up to its commit. Answered by [`Done::Prepared`].
    Prepare {
        /// The writer's turn.
        turn: u32,
        /// The transaction.
        transaction: Box<Transaction>,
    },
    /// Commit the transaction that the writer with this turn has prepared. Answered by [`Done::Committed`].
    Commit {
        /// The writer's turn.
        turn: u32,
    },
}

/// The result of an action. Fencing, and actions that only read, are repeated until they succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The writer with this turn is fenced and has a fresh transactor.
    Fenced {
        /// The writer's turn.
        turn: u32,
    },
    /// The writers of earlier generations are fenced.
    OthersFenced,
    /// All committed records of partitions that were to be read back, in their order.
    ReadBack(Vec<HeldRecords>),
    /// Which generation the newest record of the journal belongs to.
    Journal(Verdict),
    /// The committed progress of all output partitions that have any, and the status of the outputs.
    Progress(BTreeMap<OutputPartition, Progress>, SinkStatus),
    /// The committed records of the partitions that were asked for, in their order.
    Tails(Vec<Tail>),
    /// A transaction is written, each partition's records up to the offset given.
    Prepared {
        /// The writer's turn.
        turn: u32,
        /// The ends, in the order of the transaction's writes.
        result: Result<Vec<Offset>, Failure>,
    },
    /// A transaction is committed.
    Committed {
        /// The writer's turn.
        turn: u32,
        /// Whether the commit succeeded. After a failure its outcome may be unknown.
        result: Result<(), Failure>,
    },
}

/// All committed records that an output partition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldRecords {
    /// The output partition.
    pub at: OutputPartition,
    /// See [`fluvial_connector::ReadEnd::earliest`].
    pub earliest: Offset,
    /// The records, in their order.
    pub records: Vec<(Offset, OutputRecord)>,
}

/// The committed records of a partition from an offset on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The records in order; none where only the end was asked for.
    pub records: Vec<(Offset, OutputRecord)>,
    /// The offset at which the partition ends.
    pub end: Offset,
    /// See [`fluvial_connector::ReadEnd::aborted`].
    pub aborted: Option<Offset>,
}

/// Why the transactor of a writer is of no further use; see [`fluvial_connector::CommitError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A newer writer exists, or the system gave this one up, for this reason: the journal decides.
    Fenced(String),
    /// The call failed, or its outcome is unknown, for this reason.
    Unknown(String),
    /// The call can never succeed, for this reason; the kind says what a person can do about it.
    Refused(ErrorKind, String),
}
