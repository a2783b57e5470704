//! Why a generation is over.

use fluvial_connector::{ErrorKind, Generation, Offset, OutputPartition, Tick};

use crate::journal::Seq;

/// The end of a generation, as a state machine of the protocol decided it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// Asked to stop: everything is committed and the checkpoint is complete.
    #[error("committed and checkpointed through tick {0}")]
    Done(Tick),
    /// The journal has a newer generation. This one must never be started again by itself.
    #[error("generation {by} of this job has taken over: another run was started with the same --store and --name")]
    Fenced {
        /// The generation that has.
        by: Generation,
    },
    /// Nothing is wrong with the job: the next generation may succeed.
    #[error("{0}; the next generation can go on")]
    Restart(String),
    /// A person must look at it: what is stored is not what this job and binary can go on from.
    #[error("{0}")]
    Refused(String),
    /// An input was deleted and recreated under its name.
    #[error(
        "{described} was deleted and recreated, or is another than the job has read (its id is {is} and was {was}): a \
         job cannot go on with other input; begin a new one on it under another --name, with --reconcile if it is to \
         correct the same outputs"
    )]
    MadeAnew {
        /// The split that was found to be another, as its source describes it.
        described: String,
        /// Its identity when the job met it.
        was: String,
        /// Its identity now.
        is: String,
    },
    /// An input ends before the place that it has been read to.
    #[error(
        "{described} ends at offset {end} now, and has been read up to {read}: what lay between is gone (a \
         log that was cut off, as an unclean leader election does it); `run --reconcile` goes on from the input as it is"
    )]
    CutOff {
        /// Which split, as its source describes it.
        described: String,
        /// The offset after the last that was read of it.
        read: Offset,
        /// Its end now.
        end: Offset,
    },
    /// Records that have to be read again were compacted. The journal says so now: the next generation goes on without them
    /// and corrects the outputs.
    #[error("{what}; the next generation goes on with what is left, and corrects the outputs")]
    Compacted {
        /// Which records, for people.
        what: String,
    },
    /// An earlier generation began to correct the outputs after compaction, and this one cannot.
    #[error(
        "input that has to be read again was compacted, and the outputs have yet to be corrected for that, which this run \
         cannot do: {why}; start the job as it was, or go on from the input as it is with `run --reconcile`"
    )]
    CannotCorrect {
        /// Why.
        why: String,
    },
    /// The same input gave other output than before.
    #[error(
        "output {at} is not what it was when tick {tick} was first committed: either the code is not deterministic (a \
         clock, a random number, the order of a hash map) or it has changed; `run --reconcile` goes on from here"
    )]
    Diverged {
        /// Where.
        at: OutputPartition,
        /// The tick at which the digests were compared.
        tick: Tick,
    },
    /// The output holds records that this job does not make at that place.
    #[error(
        "output {at} holds a committed record at offset {offset}, after this job's last one, that this job does not write \
         there: stop whoever else writes to this topic, then start the job once with --reconcile, which makes an upsert \
         output this job's table again"
    )]
    ForeignRecord {
        /// Where.
        at: OutputPartition,
        /// The record's offset.
        offset: u64,
    },
    /// A sink refuses what this job writes, and would refuse it again.
    #[error("{why}")]
    NotWritable {
        /// What a person can do: change a setting, or the data.
        kind: ErrorKind,
        /// The whole reason.
        why: String,
    },
    /// Every transaction has failed for too long.
    #[error("no transaction has been committed for {} s; the last one failed: {why}; the next generation can go on", .for_ms / 1000)]
    CommitsNothing {
        /// How long.
        for_ms: u64,
        /// Why the last one failed.
        why: String,
    },
    /// No checkpoint has been completed for too long.
    #[error("no checkpoint has been completed for {age_ms} ms; is the store full or too slow?")]
    CheckpointTooOld {
        /// How long.
        age_ms: u64,
    },
    /// The clock made a leap, or the process was stopped for that long.
    #[error("the clock went on by {by_ms} ms in one step: it was set, or this process was stopped")]
    ClockJumped {
        /// How far.
        by_ms: u64,
    },
    /// A fault in the engine.
    #[error("a fault in the engine: {0}")]
    Bug(String),
}

impl Ended {
    /// What the caller should do; `None` for a good end.
    #[must_use]
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Done(_) => None,
            Self::Fenced { .. } => Some(ErrorKind::Fenced),
            Self::NotWritable { kind, .. } => Some(*kind),
            Self::Restart(_)
            | Self::Compacted { .. }
            | Self::CommitsNothing { .. }
            | Self::CheckpointTooOld { .. }
            | Self::ClockJumped { .. } => Some(ErrorKind::Restart),
            Self::Refused(_) | Self::MadeAnew { .. } => Some(ErrorKind::Configuration),
            Self::CutOff { .. } | Self::CannotCorrect { .. } | Self::Diverged { .. } | Self::ForeignRecord { .. } => {
                Some(ErrorKind::Data)
            }
            Self::Bug(_) => Some(ErrorKind::Bug),
        }
    }

    /// Something at a position of the journal is not what it must be.
    pub fn journal(seq: Seq, what: impl std::fmt::Display) -> Self {
        Self::Refused(format!("the journal's record {seq} {what}"))
    }
}
