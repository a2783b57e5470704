//! What a committer asks of its sink, and what it hears.

use std::collections::BTreeMap;

use fluvial_connector::{
    ErrorKind, Offset, OutputPartition, OutputRecord, Progress, SinkStatus, Transaction, WriterId,
};

use crate::Verdict;

/// Something to do with the sink. Actions of one turn are done in their order, those of different turns side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Drop the turn's transactor, whatever it is doing, and fence its id again. Answered by [`Done::Fenced`].
    Fence {
        /// The turn.
        turn: u32,
    },
    /// Fence these writers, which earlier generations had and this one does not use. Answered by [`Done::OthersFenced`] when
    /// all of them are. A [`Participant`](crate::Participant) asks for it.
    FenceOthers(Vec<WriterId>),
    /// Read all that these output partitions hold, to compare or to correct it. Answered by [`Done::ReadBack`], in one or in several
    /// parts. A [`Participant`](crate::Participant) asks for it.
    ReadBack(Vec<OutputPartition>),
    /// Look at the newest record of the journal ([`Identity::judge`](crate::Identity::judge)). Answered by
    /// [`Done::Journal`].
    CheckJournal,
    /// Read the progress of all output partitions, and after that ask what the outputs are. Answered by
    /// [`Done::Progress`].
    ReadProgress,
    /// Read what is committed in each of these partitions from an offset on, or only find where it ends. Answered by
    /// [`Done::Tails`].
    ReadTails(Vec<(OutputPartition, Option<Offset>)>),
    /// Write a transaction up to its commit. Answered by [`Done::Prepared`].
    Prepare {
        /// By which turn.
        turn: u32,
        /// The transaction.
        transaction: Box<Transaction>,
    },
    /// Commit what the turn has prepared. Answered by [`Done::Committed`].
    Commit {
        /// The turn.
        turn: u32,
    },
}

/// What came of an action. Actions that are only read, and fencing, are made again until they succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The turn has a fresh transactor.
    Fenced {
        /// The turn.
        turn: u32,
    },
    /// Producers of earlier generations are fenced.
    OthersFenced,
    /// All committed records of partitions that were to be read back, in their order.
    ReadBack(Vec<HeldRecords>),
    /// Whose the journal's newest record is.
    Journal(Verdict),
    /// The committed progress of all output partitions that have any, and what the outputs are.
    Progress(BTreeMap<OutputPartition, Progress>, SinkStatus),
    /// The partitions that were asked for, in their order.
    Tails(Vec<Tail>),
    /// A transaction is written, each partition's records up to the offset given.
    Prepared {
        /// By which turn.
        turn: u32,
        /// The ends, in the order of the transaction's writes.
        result: Result<Vec<Offset>, Failure>,
    },
    /// A transaction is committed.
    Committed {
        /// By which turn.
        turn: u32,
        /// Or nobody knows.
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

/// What is committed in a partition from an offset on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The records in order; none where only the end was asked for.
    pub records: Vec<(Offset, OutputRecord)>,
    /// Where the partition ends.
    pub end: Offset,
    /// See [`fluvial_connector::ReadEnd::aborted`].
    pub aborted: Option<Offset>,
}

/// Why a turn's transactor is of no further use; see [`fluvial_connector::CommitError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A newer writer exists, or the system gave this one up, for this reason: the journal decides.
    Fenced(String),
    /// It failed, or its outcome is unknown, for this reason.
    Unknown(String),
    /// It can never succeed, for this reason; the kind says what a person can do about it.
    Refused(ErrorKind, String),
}
