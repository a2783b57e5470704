//! The rules of the protocol that can be taken out, one at a time, to show what they prevent.
//!
//! Outside of this crate's own tests every rule holds and nothing can switch one off: [`Rules::has`] is then the
//! constant `true`.

/// A rule whose absence loses or doubles records, or lets a job get stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "some rules are only ever asked about in tests"))]
pub(crate) enum Rule {
    /// A conflict on an append is judged by the record that is there, not by the conflict.
    ReadBeforeJudging,
    /// After an unknown outcome the same bytes are put again, not what has gathered since.
    SameBytesAgain,
    /// An opening claims a place ahead of the newest record, and further ahead each time that it loses.
    ClaimAhead,
    /// An opening fills every hole before its own record with no-ops.
    FillTheGap,
    /// Opened records and no-ops outlive every pruning.
    KeepOpenedRecords,
    /// Every slot that any generation has had is fenced, not only those that this one has.
    FenceEverySlot,
    /// The journal's tail is read again after the writers are fenced.
    SecondTailRead,
    /// The journal is asked after every later fencing as well.
    AskTheJournalAfterFencing,
    /// Sinks wait for sealed ticks.
    SealedBeforeVisible,
    /// Records of a torn transaction are left out when they are replayed.
    LeaveOutTorn,
    /// Part of a tick is committed with its position.
    PositionWithinTick,
    /// A checkpoint waits until the sinks have committed through its tick.
    CheckpointAfterSinks,
    /// Runs are deleted only after the record that no longer names them.
    DeleteAfterRecord,
    /// That input which has to be read again was compacted is in the journal before the generation that met it ends.
    JournalWhatWasCompacted,
    /// A reconciliation begins again with each generation until a checkpoint covers it.
    ReconcileUntilCovered,
    /// Transactions of a process's turns commit in the order in which they were prepared.
    CommitInOrder,
    /// Simulated sink only: after an unknown outcome no transaction begins in the old epoch.
    #[cfg(test)]
    NewEpochAfterUnknown,
    /// Simulated sink only: progress is written after the records are acknowledged.
    #[cfg(test)]
    ProgressAfterRecords,
    /// Simulated sink only: progress is read up to the high watermark, not to the last stable offset.
    #[cfg(test)]
    ProgressToHighWatermark,
}

/// Which rules hold.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    #[cfg(test)]
    without: Option<Rule>,
}

impl Rules {
    /// All rules but one.
    #[cfg(test)]
    pub(crate) fn without(rule: Rule) -> Self {
        Self { without: Some(rule) }
    }

    /// Whether `rule` holds.
    #[allow(clippy::unused_self, reason = "it is used in tests")]
    pub(crate) fn has(self, rule: Rule) -> bool {
        #[cfg(test)]
        return self.without != Some(rule);
        #[cfg(not(test))]
        {
            let _ = rule;
            true
        }
    }
}
