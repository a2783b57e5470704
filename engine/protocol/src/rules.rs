//! The rules of the protocol, each with the history that it prevents.
//!
//! The rules of [`Rule`] can be taken out one at a time: `simulation/without.rs` shows for each of them that the simulation
//! then finds a history that loses or repeats a record, or a job that never goes on. In a build that is not a test of this
//! crate every rule holds: [`Rules::has`] is the constant `true`.
//!
//! The crate's documentation lists the rules that cannot be taken out, because they are the shape of the code.

/// A rule without which records are lost or repeated, or a job never goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "some rules are only ever asked about in tests"))]
pub enum Rule {
    /// When an append finds its position taken, the record there is read before anything is concluded from it.
    ///
    /// *Prevents:* object stores repeat a request inside, and then report the writer's own record as a conflict. A leader
    /// that trusts the conflict ends as fenced by itself.
    ReadBeforeJudging,
    /// After an append whose outcome is unknown, the same bytes are put again at the same position.
    ///
    /// *Prevents:* the first put was stored. A second put with the entries that have gathered since finds its own record
    /// there and calls all its entries durable, but the later ones are in no record.
    SameBytesAgain,
    /// An opening claims a position some places after the newest record, and farther ahead each time that it loses.
    ///
    /// *Prevents:* a busy leader on a slow store takes each next position before the new generation does, so the new
    /// generation never opens.
    ClaimAhead,
    /// An opening fills every position before its own record with a no-op.
    ///
    /// *Prevents:* the earlier generation goes on appending to the free positions after the newer one has read the journal.
    FillTheGap,
    /// Opened records and the no-ops before them are never deleted.
    ///
    /// *Prevents:* a leader that was paused appends at a position that has been pruned meanwhile. The create succeeds, and
    /// the leader believes that its tick is sealed.
    KeepOpenedRecords,
    /// An opening fences the transactional ids of every slot that any generation has had.
    ///
    /// *Prevents:* a generation with more processes is paused; the next one has fewer and fences only its own ids. The
    /// processes without a successor wake up and commit.
    FenceEverySlot,
    /// A process reports that its share is fenced only when every writer of the share is.
    ///
    /// *Prevents:* the leader reads the journal's tail and lets the generation read progress, while a writer of an earlier
    /// generation that has not been fenced yet commits.
    WaitForEveryFence,
    /// A program that is not the one that wrote the outputs commits nothing before every process has compared its upsert
    /// outputs with what the program computes.
    ///
    /// *Prevents:* a job with other logic is started after a clean stop. Nothing is replayed, so no digest differs, and the
    /// rows that the new logic would not write stay in the output for ever.
    CompareOutputsFirst,
    /// A process commits nothing later than the corrections of a reconciliation before these.
    ///
    /// *Prevents:* output of a later tick is committed, and the corrections, which belong to an earlier tick, come after it:
    /// a crash in between leaves an output whose progress says that it was corrected.
    CorrectionsFirst,
    /// The journal's tail is read again after all writers are fenced.
    ///
    /// *Prevents:* two generations open. The earlier one is paused before it fences, wakes up, and fences the writers of
    /// the later one, which gives it the newest epoch. Reading the tail shows it that it has been superseded.
    SecondTailRead,
    /// The journal is read again after every later fencing as well.
    ///
    /// *Prevents:* the same as [`Rule::SecondTailRead`], when a generation fences its own writers again after a failed
    /// transaction.
    AskTheJournalAfterFencing,
    /// Only ticks that are sealed are committed to the sinks.
    ///
    /// *Prevents:* output of a tick becomes visible, and the process dies before the tick is in the journal. The next
    /// generation puts other input into that tick, or no tick at all.
    SealedBeforeVisible,
    /// Records that a partially committed transaction left after the newest progress are compared with the replayed output
    /// and not written again.
    ///
    /// *Prevents:* a late `EndTxn` commits the records of a transaction whose progress was not written yet. Replay writes
    /// them a second time.
    LeaveOutUncovered,
    /// A tick that is committed in several transactions has its position in the progress of each.
    ///
    /// *Prevents:* the process dies between two of them, and how much of the tick is committed is unknown.
    PositionWithinTick,
    /// A checkpoint is complete only when every output is committed through its tick.
    ///
    /// *Prevents:* the journal is pruned behind a checkpoint whose output is not committed. After a crash nothing can make
    /// that output again.
    CheckpointAfterSinks,
    /// State files are deleted only after the journal record that no longer names them.
    ///
    /// *Prevents:* a crash between deleting and recording leaves a checkpoint that names a state file which is gone.
    DeleteAfterRecord,
    /// Before state files are deleted, it is looked whether a savepoint keeps them.
    ///
    /// *Prevents:* a job goes back to a savepoint whose state files are gone.
    LookForPins,
    /// After it was looked which objects savepoints keep, the journal is read: if a newer generation has opened, nothing is deleted.
    ///
    /// *Prevents:* a generation goes back to a savepoint, and the savepoint is dropped. An earlier leader, which does not know yet that it
    /// was superseded, deletes the state files, which nothing has named since the checkpoint after the savepoint.
    AskBeforeDeleting,
    /// Who takes a savepoint looks, after it has pinned the newest checkpoint, whether that is still the newest.
    ///
    /// *Prevents:* the leader has looked for pins before, and deletes what the savepoint keeps.
    #[cfg(test)]
    LookAgainAfterPinning,
    /// That records which have to be read again were compacted is in the journal before the generation ends that met it.
    ///
    /// *Prevents:* the next generation meets the same loss and ends as well, and so does every later one.
    JournalWhatWasCompacted,
    /// A reconciliation begins again with each generation until a checkpoint covers it.
    ///
    /// *Prevents:* a crash during the correction. The next generation compares what only a correction can do without, and
    /// is refused for good.
    ReconcileUntilCovered,
    /// Transactions of a process's writers commit in the order in which they were prepared.
    ///
    /// *Prevents:* the second of two transactions commits, with progress that covers the first, and the first fails.
    CommitInOrder,
    /// For a sink: after a commit whose outcome is unknown, no transaction begins in the old epoch.
    ///
    /// *Prevents:* the `EndTxn` of the first transaction arrives late and commits a part of the second (KIP-890).
    #[cfg(test)]
    NewEpochAfterUnknown,
    /// For a sink: progress is written after the records are acknowledged.
    ///
    /// *Prevents:* a late `EndTxn` commits progress that covers records which were never written.
    #[cfg(test)]
    ProgressAfterRecords,
    /// For a sink: progress is read up to the high watermark as of the fencing, not to the last stable offset.
    ///
    /// *Prevents:* another transaction is open and holds back the last stable offset, so that committed progress is not
    /// seen and its ticks are written again.
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
