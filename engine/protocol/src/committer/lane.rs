//! The state machine of one output partition: how far it is committed, and what is written to it next.
//!
//! ```text
//!            an outcome is unknown, or offsets went back
//!       ┌─────────────────────────────┬───────────────────────────────┐
//!       ▼                             │                               │
//!   Unknown ── found: progress ──► Replaying ── replay reaches it ──► Writing ◄─┐
//!      ▲ │                                                              ▲  └────┘ plan, wrote, commit
//!      │ └──── found: none, or given up ────► New ── commit ────────────┘
//!      └───────── an outcome is unknown ───────┘
//! ```
//!
//! | state | owns |
//! | --- | --- |
//! | [`Unknown`] | how much was known to be committed before; the offsets that went back |
//! | `New` | the point at which the partition begins: its first transaction writes that as progress, and nothing else |
//! | [`Replaying`] | the sink's progress, which the replayed output has not reached yet; the uncovered records after it |
//! | [`Writing`] | what is committed, what is planned, the uncovered records that are not matched yet, the holes |
//!
//! The output that the dataflow hands in is kept in a [`Queue`] beside the state, because it arrives in every state.
//!
//! # Why
//!
//! *An unknown outcome is neither a success nor a failure.* A commit request that was not answered may have been decided,
//! may still be on its way, or may be lost. To write its records again could repeat them, and to go on after them could lose
//! them. So nothing is concluded: `planned` is given up, and the partition is `Unknown` until every writer of the
//! process has been fenced, which no late request survives, and the sink's progress has been read after that. The
//! transactions of the other writer are given up as well, since the offsets, positions and digests of their
//! transactions follow on from the one whose outcome is unknown. Only the point that was known to be committed is kept:
//! progress that is earlier than it means that the sink has lost what it had acknowledged.
//!
//! *One transaction is prepared at a time, and one more may be committing.* `planned` is where the next transaction goes on,
//! and the sink says only at the end of `Prepare` at which offset it ends. If two transactions were being prepared, their
//! records would also interleave in the partition, whose order is part of the guarantee. Commits follow the order of
//! preparation, one after the other: the progress of a transaction covers all of the transactions before it, so if it were
//! committed and an earlier one failed, the records of the earlier one would never be written.
//!
//! *The writers alternate* because a writer holds one transaction at a time, open from its first record until its
//! commit is acknowledged. With one transactional id, a partition would receive nothing during each commit. With two,
//! the next transaction is prepared meanwhile, and an id is used again only after its commit has been acknowledged: a
//! repeated request that ends the earlier transaction could otherwise end the next one, since both have one id and one
//! epoch.
//!
//! *A partition begins with progress alone.* Records that a partially committed transaction left are found by reading from
//! the newest progress. Before the first progress there would be nothing to read from, and records of an earlier job could
//! not be told from this one's. So the first transaction of a partition carries its place and no records.
//!
//! *Replay is compared, not trusted.* Up to its progress a partition holds what an earlier generation computed. The replayed
//! output must have the same digest there, otherwise what follows does not go with what consumers have read. Uncovered
//! records are matched with the output that follows, one by one, and count as written. The exception is an output
//! that the reconciliation does not correct: its records are not compared, whatever the job would write there
//! now.

use std::collections::VecDeque;

use fluvial_connector::{
    Digest, Envelope, Offset, OutputPartition, OutputRecord, OutputRecordRef, OutputRecords, PartitionWrite, Position,
    Progress, Tick, TickCount, TickEnd,
};

use super::Opened;
use super::holes::Holes;
use super::queue::{Item, Place, Queue, Reached};
use super::records::TickRecords;
use crate::journal::SinkStart;
use crate::participant::CommittedPartition;
use crate::{Ended, OutputFault};

/// The output partition of a lane, with the facts about it that stay the same for the whole generation.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) at: OutputPartition,
    /// The kind of the output to which the partition belongs.
    pub(super) envelope: Envelope,
    /// The first tick whose output is written.
    pub(super) starts: Tick,
    /// The tick of the restored state. The output through this tick was committed before, and is not written again.
    pub(super) as_of: Tick,
    /// The tick of the reconciliation, if one is under way.
    reconciliation: Option<Tick>,
}

impl Target {
    /// The tick at which a reconciliation corrects the partition; `None` without a reconciliation, and for an output of
    /// which the job has no table, which a reconciliation does not correct.
    pub(super) fn corrected_at(&self) -> Option<Tick> {
        self.reconciliation.filter(|_| self.envelope.can_be_corrected())
    }

    /// Whether the records that were committed at `tick` are accepted without comparison, whatever the job would write
    /// there now. They are if the partition belongs to an output which the reconciliation does not correct, and `tick` is
    /// before the reconciliation.
    pub(super) fn is_left(&self, tick: Tick) -> bool {
        !self.envelope.can_be_corrected() && self.reconciliation.is_some_and(|reconciled| tick < reconciled)
    }

    /// Whether the output of `tick` is written at all.
    fn has(&self, tick: Tick) -> bool {
        tick >= self.starts && tick > self.as_of && self.corrected_at().is_none_or(|first| tick >= first)
    }

    fn foreign_record(&self, offset: Offset) -> Ended {
        OutputFault::ForeignRecord { at: self.at.clone(), offset }.into()
    }
}

/// A place in an output partition, and the digest of everything through it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) tick: Tick,
    place: Place,
    digest: Digest,
    /// The offset after the last record.
    pub(super) end: Offset,
}

impl Point {
    /// A place at the end of a tick.
    pub(super) fn complete(tick: Tick, digest: Digest, end: Offset) -> Self {
        Self { tick, place: Place::Complete, digest, end }
    }

    fn reached(&self) -> Reached {
        (self.tick, self.place.position())
    }
}

/// The records and bytes that still fit into a transaction.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) records: usize,
    pub(super) bytes: usize,
    /// Whether the transaction holds a record already. The first record is accepted even if it is larger than the
    /// limit.
    pub(super) used: bool,
}

impl Room {
    fn takes(&mut self, record: OutputRecordRef<'_>) -> bool {
        let bytes = record.bytes();
        let fits = self.records > 0 && (bytes <= self.bytes || !self.used);
        if fits {
            self.records -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
            self.used = true;
        }
        fits
    }
}

/// The state of a partition. The module's documentation draws the transitions.
#[derive(Debug)]
pub(super) enum State {
    /// The progress of the partition has to be read.
    Unknown(Unknown),
    /// It has no progress, and begins at this point.
    New(Point),
    /// It has progress, and the replayed output has not reached that progress yet.
    Replaying(Replaying),
    /// Replay has reached its progress, and later output is written to it.
    Writing(Writing),
}

impl Default for State {
    fn default() -> Self {
        Self::Unknown(Unknown::default())
    }
}

/// A partition whose progress has to be read. It is only known how far the partition was committed before.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    /// How far the partition was known to be committed; `None` where it has had no progress in this generation.
    pub(super) committed: Option<Reached>,
    /// If offsets went back: the offset at which this job's records had ended, and the end of a later write, which is
    /// too low to follow them.
    pub(super) went_back: Option<(Offset, Offset)>,
}

/// A partition whose replayed output has not reached the sink's progress yet. Output through that progress is dropped,
/// and its digest is compared with the digest in the progress.
#[derive(Debug)]
pub(super) struct Replaying {
    pub(super) progress: Progress,
    pub(super) uncovered: Uncovered,
}

/// A partition to which the output after its progress is written.
#[derive(Debug)]
pub(super) struct Writing {
    committed: Reached,
    /// The point at which the transactions under way end. The next one continues here.
    planned: Point,
    uncovered: Uncovered,
    /// The offsets that may still turn out to be markers. Counting begins again after each recovery, because it is
    /// unknown how many offsets an aborted transaction has taken.
    holes: Holes,
}

/// Committed records after the progress, which a partially committed transaction left. The next records in order must be
/// equal to them, and are not written again.
#[derive(Debug, Default)]
pub(super) struct Uncovered {
    pub(super) records: VecDeque<(Offset, OutputRecord)>,
    /// The last sealed tick when the records were read. They belong to ticks through this one.
    pub(super) sealed: Tick,
}

/// The conclusion from the offset at which newly written records end.
pub(super) enum Wrote {
    /// This job's records and markers explain all offsets since the last write.
    Explained,
    /// `others` offsets, from `from` on, belong neither to this job's records nor to its markers.
    Unexplained { from: Offset, others: u64 },
    /// The offsets went back: the partition is not the one that was written before.
    WentBack,
}

impl State {
    /// How far the partition is known to be committed; `None` where it has no progress, or is not known to have any.
    fn committed(&self) -> Option<Reached> {
        match self {
            Self::Unknown(Unknown { committed, .. }) => *committed,
            Self::New(_) => None,
            Self::Replaying(Replaying { progress, .. }) => Some((progress.tick, progress.position)),
            Self::Writing(writing) => Some(writing.committed),
        }
    }

    /// The state after a transaction whose outcome is unknown: the planned output may be committed or not.
    fn lost(self) -> Self {
        match self {
            Self::Unknown(_) => self,
            _ => Self::Unknown(Unknown { committed: self.committed(), went_back: None }),
        }
    }

    /// The state after the commit of a transaction that holds the partition's progress through `reached`.
    fn commit(self, reached: Reached) -> Self {
        match self {
            Self::New(planned) => {
                let (uncovered, holes) = (Uncovered::default(), Holes::default());
                Self::Writing(Writing { committed: reached, planned, uncovered, holes })
            }
            Self::Writing(writing) => Self::Writing(Writing { committed: reached, ..writing }),
            // No transaction is under way in these states.
            Self::Unknown(_) | Self::Replaying(_) => self,
        }
    }
}

impl Replaying {
    /// Drops the output that the sink holds already, and compares the digests at the progress. All output through
    /// `complete` has been handed in.
    fn settle(self, target: &Target, queue: &mut Queue, complete: Tick) -> Result<State, Ended> {
        let Progress { tick, position, digest, end, .. } = self.progress;
        queue.drop_through((tick, position));
        if queue.first().is_none() && complete < tick {
            return Ok(State::Replaying(self));
        }
        // `None` if a part of the tick is committed and replay gives the tick fewer records than that part has.
        let replayed = match position {
            Position::Complete => Some((Place::Complete, queue.before())),
            Position::Records(count) => {
                let item = queue.first().filter(|item| item.tick == tick && count <= item.records.len() as u64);
                item.map(|item| item.part(None, count as usize))
            }
        };
        let is_left = target.is_left(tick);
        let (place, replayed) = match replayed {
            Some((place, replayed)) if replayed == digest || is_left => (place, replayed),
            None if is_left => {
                queue.drop_through((tick, Position::Complete));
                (Place::Complete, queue.before())
            }
            _ => return Err(Ended::Diverged { at: target.at.clone(), tick }),
        };
        // In an append output that the reconciliation does not correct, later records and their digests continue the
        // replayed output, not the committed one.
        Ok(State::Writing(Writing {
            committed: (tick, place.position()),
            planned: Point { tick, place, digest: replayed, end },
            uncovered: self.uncovered,
            holes: Holes::default(),
        }))
    }
}

impl Writing {
    /// Plans the next records of `item`, as many as there is room for. Returns whether all of the item is planned.
    fn plan(
        &mut self,
        target: &Target,
        item: &Item,
        write: &mut PartitionWrite,
        room: &mut Room,
    ) -> Result<bool, Ended> {
        let begun = match self.planned.place {
            Place::Part { records, sum } => Some((records as usize, sum)),
            Place::Complete => None,
        };
        let begin = begun.map_or(0, |(records, _)| records);
        let mut count = begin;
        while let Some(record) = item.records.get(count)
            && let Some((offset, found)) = self.uncovered.records.front()
        {
            // In an append output that the reconciliation does not correct, each uncovered record takes the place of
            // one of the job's records, whether the two are equal or not.
            if record != found.borrowed() && !target.is_left(self.committed.0) {
                return Err(target.foreign_record(*offset));
            }
            self.planned.end = Offset(offset.0 + 1);
            count += 1;
            self.uncovered.records.pop_front();
        }
        if count > begin {
            write.progress.ticks.push(TickEnd { tick: item.tick, end: self.planned.end });
        }
        let first = count;
        while item.records.get(count).is_some_and(|record| room.takes(record)) {
            count += 1;
        }
        if count > first {
            write.records.push(&item.records, first..count);
            write.ticks.push(TickCount { tick: item.tick, records: write.records.len() });
        }
        let end = self.planned.end;
        if count == item.records.len() {
            self.planned = Point::complete(item.tick, item.digest, end);
            return Ok(true);
        }
        if count > begin {
            let (place, digest) = item.part(begun, count);
            self.planned = Point { tick: item.tick, place, digest, end };
        }
        Ok(false)
    }

    /// Ends the matching of uncovered records, once everything through `until` is planned and the records can only
    /// belong to these ticks. A record that is still unmatched then is another writer's. In an append output that the
    /// reconciliation does not correct, it is accepted.
    fn end_uncovered(&mut self, target: &Target, until: Tick) -> Result<(), Ended> {
        let records = &mut self.uncovered.records;
        let Some((first, _)) = records.front().filter(|_| until >= self.uncovered.sealed) else { return Ok(()) };
        if !target.is_left(self.committed.0) {
            return Err(target.foreign_record(*first));
        }
        if let Some((last, _)) = records.drain(..).next_back() {
            self.planned.end = Offset(last.0 + 1);
        }
        Ok(())
    }

    /// Takes note that the sink has written `records` records of the transaction that was planned last, and that they
    /// end at `end`.
    fn wrote(mut self, records: usize, end: Offset) -> (State, Wrote) {
        let from = std::mem::replace(&mut self.planned.end, end);
        let wrote = match self.holes.wrote(from, records, end) {
            Some(0) => Wrote::Explained,
            Some(others) => Wrote::Unexplained { from, others },
            None => {
                let unknown = Unknown { committed: Some(self.committed), went_back: Some((from, end)) };
                return (State::Unknown(unknown), Wrote::WentBack);
            }
        };
        (State::Writing(self), wrote)
    }
}

/// One output partition of the process.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) target: Target,
    pub(super) queue: Queue,
    pub(super) state: State,
}

impl Lane {
    /// A lane for a partition of `sink`, whose output has the digest `digest` at the restored tick `as_of`.
    /// `reconciliation` is the tick of the reconciliation, if one is under way.
    pub(super) fn new(
        sink: &SinkStart,
        partition: u32,
        as_of: Tick,
        reconciliation: Option<Tick>,
        digest: Digest,
    ) -> Self {
        let at = OutputPartition { output: sink.output.clone(), partition };
        let target = Target { at, envelope: sink.envelope, starts: sink.tick, as_of, reconciliation };
        let digest = if target.corrected_at().is_some() { Digest::default() } else { digest };
        Self { target, queue: Queue::new(digest), state: State::default() }
    }

    /// Takes the output of a tick, in its order.
    pub(super) fn take(&mut self, tick: Tick, records: TickRecords) -> Result<(), Ended> {
        if records.is_empty() || !self.target.has(tick) {
            return Ok(());
        }
        let corrections = self.target.corrected_at() == Some(tick);
        self.queue
            .push(tick, records, corrections)
            .map_err(|last| Ended::Bug(format!("output {} was given tick {tick} after tick {last}", self.target.at)))?;
        self.settle(Tick(0))
    }

    /// Ends the replay if it has reached the progress. All output through `complete` has been handed in.
    pub(super) fn settle(&mut self, complete: Tick) -> Result<(), Ended> {
        self.state = match std::mem::take(&mut self.state) {
            State::Replaying(replaying) => replaying.settle(&self.target, &mut self.queue, complete)?,
            state => state,
        };
        Ok(())
    }

    /// Takes note that a transaction's outcome is unknown.
    pub(super) fn lose(&mut self) {
        self.state = std::mem::take(&mut self.state).lost();
    }

    /// Takes note that the sink has written the records that were planned last, and that they end at `end`.
    pub(super) fn wrote(&mut self, records: usize, end: Offset) -> Wrote {
        let wrote;
        (self.state, wrote) = match std::mem::take(&mut self.state) {
            State::Writing(writing) => writing.wrote(records, end),
            // The first transaction of a partition holds progress and no records, so it takes no offset.
            state => (state, Wrote::Explained),
        };
        wrote
    }

    /// Takes note that a transaction is committed, and drops the output that it holds.
    pub(super) fn commit(&mut self, reached: Reached) {
        self.state = std::mem::take(&mut self.state).commit(reached);
        self.queue.drop_through(reached);
    }

    /// How far the partition is known to be committed; `None` where it is not known to have progress.
    pub(super) fn committed(&self) -> Option<Reached> {
        self.state.committed()
    }

    /// The first tick whose output is not completely committed.
    pub(super) fn uncommitted(&self) -> Option<Tick> {
        self.queue.next(self.committed().unwrap_or((Tick(0), Position::Complete))).map(|item| item.tick)
    }

    /// How far the partition is committed; `None` where it has no progress. To be called while no transaction is under
    /// way.
    pub(super) fn committed_partition(&self) -> Option<CommittedPartition> {
        let ((tick, position), end) = match &self.state {
            State::Unknown(_) | State::New(_) => return None,
            State::Replaying(Replaying { progress, .. }) => ((progress.tick, progress.position), progress.end),
            State::Writing(Writing { committed, planned, .. }) => (*committed, planned.end),
        };
        Some(CommittedPartition { at: self.target.at.clone(), tick, position, end })
    }

    /// Whether the partition has no progress, and is ready to get its first.
    pub(super) fn is_new(&self) -> bool {
        matches!(self.state, State::New(_))
    }

    /// The point at which the next transaction continues; `None` where that is not known yet.
    pub(super) fn planned(&self) -> Option<&Point> {
        match &self.state {
            State::New(point) | State::Writing(Writing { planned: point, .. }) => Some(point),
            State::Unknown(_) | State::Replaying(_) => None,
        }
    }

    /// The first tick through `until` whose output is not completely planned; `None` also where it is not known what is
    /// planned.
    pub(super) fn next_tick(&self, until: Tick) -> Option<Tick> {
        self.queue.next(self.planned()?.reached()).map(|item| item.tick).filter(|tick| *tick <= until)
    }

    /// An empty write at the planned point.
    pub(super) fn begin_write(&self, opened: &Opened) -> Option<PartitionWrite> {
        let planned = self.planned()?;
        Some(PartitionWrite {
            at: self.target.at.clone(),
            records: OutputRecords::default(),
            ticks: Vec::new(),
            progress: Progress::complete(opened.incarnation, opened.generation, planned.tick, planned.end),
        })
    }

    /// Plans the next records of the next tick, as many as there is room for. Returns whether all of the tick is
    /// planned.
    pub(super) fn plan(&mut self, write: &mut PartitionWrite, room: &mut Room) -> Result<bool, Ended> {
        let State::Writing(writing) = &mut self.state else { return Ok(true) };
        let Some(item) = self.queue.next(writing.planned.reached()) else { return Ok(true) };
        writing.plan(&self.target, item, write, room)
    }

    /// Ends the matching of uncovered records of ticks through `until`, all of which are planned.
    pub(super) fn end_uncovered(&mut self, until: Tick) -> Result<(), Ended> {
        match &mut self.state {
            State::Writing(writing) => writing.end_uncovered(&self.target, until),
            _ => Ok(()),
        }
    }

    /// Completes a write with its progress, which covers `until` if everything through that tick is planned. Returns
    /// how far the transaction commits the partition.
    pub(super) fn end_write(&mut self, write: &mut PartitionWrite, until: Tick) -> Reached {
        let is_all = self.next_tick(until).is_none();
        if let State::New(planned) | State::Writing(Writing { planned, .. }) = &mut self.state {
            if is_all && until > planned.tick {
                *planned = Point::complete(until, planned.digest, planned.end);
            }
            let progress = &mut write.progress;
            (progress.tick, progress.position) = planned.reached();
            (progress.digest, progress.end) = (planned.digest, planned.end);
        }
        (write.progress.tick, write.progress.position)
    }
}
