//! One output partition: what it is to get, what it has, and whether the two agree.
//!
//! ```text
//!    … committed ────────► planned ────────► complete …            ticks
//!    progress says so     in transactions    handed in, waiting
//! ```
//!
//! Output that replay repeats is dropped up to the progress, and its digest is compared there. Records found behind
//! the progress are a partially committed transaction's: the next ones in order must be equal to them, and are left out.
//!
//! A reconciliation corrects the partition of an upsert output: what came before is given up. It leaves that of an append
//! output, which goes on after its progress; what it holds is then not compared with what the job would write there now.

use std::collections::VecDeque;
use std::sync::Arc;

use fluvial_connector::{
    Digest, Envelope, Offset, OutputPartition, OutputRecord, OutputRecords, PartitionWrite, Position, Progress, Tick,
    TickCount, TickEnd,
};

use super::holes::Holes;
use super::records::{self, TickRecords, sum};
use crate::journal::SinkStart;
use crate::{Ended, OutputFault};

/// A place in an output partition, and the digest of everything through it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) tick: Tick,
    pub(super) position: Position,
    pub(super) digest: Digest,
    /// The offset after the last record.
    pub(super) end: Offset,
    /// The sum of the tick's records through `position`, where that is a part.
    sum: Digest,
}

impl Point {
    /// A place at the end of a tick.
    pub(super) fn complete(tick: Tick, digest: Digest, end: Offset) -> Self {
        Self { tick, position: Position::Complete, digest, end, sum: Digest::default() }
    }

    fn order(&self) -> (Tick, u64) {
        match self.position {
            Position::Complete => (self.tick, u64::MAX),
            Position::Records(count) => (self.tick, count),
        }
    }
}

/// A tick's output in one partition.
#[derive(Debug)]
struct Item {
    tick: Tick,
    records: Arc<[OutputRecord]>,
    prior: Digest,
    digest: Digest,
    /// It corrects what is there, and no replay can repeat it: digests begin after it.
    reconciled: bool,
}

impl Item {
    /// The running digest after the first records, which sum to `sum`.
    fn digest_of(&self, sum: Digest) -> Digest {
        if self.reconciled { self.digest } else { self.prior.chain(self.tick, sum) }
    }
}

/// How much a transaction still takes.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) records: usize,
    pub(super) bytes: usize,
    /// Something is in it: a single record that is too large goes alone.
    pub(super) used: bool,
}

impl Room {
    fn takes(&mut self, record: &OutputRecord) -> bool {
        let bytes = record.key.len() + record.value.as_ref().map_or(0, Vec::len);
        let fits = self.records > 0 && (bytes <= self.bytes || !self.used);
        if fits {
            self.records -= 1;
            self.bytes = self.bytes.saturating_sub(bytes);
            self.used = true;
        }
        fits
    }
}

/// One output partition of the process.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) at: OutputPartition,
    envelope: Envelope,
    /// The tick from which on it is written.
    pub(super) starts: Tick,
    /// The tick that is restored: its output is out already.
    as_of: Tick,
    /// The tick of a reconciliation that corrects the partition.
    pub(super) reconcile: Option<Tick>,
    /// The tick of a reconciliation that leaves the partition: what was committed before is not compared.
    leave: Option<Tick>,
    items: VecDeque<Item>,
    last: Tick,
    /// The digest of everything before the first item.
    before: Digest,
    /// The digest of everything handed in.
    running: Digest,
    /// Progress that what is handed in has not reached yet.
    expect: Option<Progress>,
    uncovered: VecDeque<(Offset, OutputRecord)>,
    earlier: Vec<TickEnd>,
    holes: Holes,
    /// The offset of own records, and that of a later write which lies before it.
    pub(super) went_back: Option<(Offset, Offset)>,
    pub(super) has_progress: bool,
    pub(super) committed: Point,
    pub(super) planned: Point,
    /// A checkpoint's tick, and the digest there once a later tick has been handed in.
    mark: Option<(Tick, Option<Digest>)>,
}

impl Lane {
    /// A partition of `sink` whose digest is `digest` at the tick that is restored, at a reconciliation or without one.
    pub(super) fn new(sink: &SinkStart, partition: u32, as_of: Tick, reconcile: Option<Tick>, digest: Digest) -> Self {
        let (reconcile, leave) = match sink.envelope {
            Envelope::Upsert => (reconcile, None),
            Envelope::Append => (None, reconcile),
        };
        let digest = if reconcile.is_some() { Digest::default() } else { digest };
        let point = Point::complete(Tick(0), digest, Offset(0));
        Self {
            at: OutputPartition { output: sink.output.clone(), partition },
            envelope: sink.envelope,
            starts: sink.tick,
            as_of,
            reconcile,
            leave,
            items: VecDeque::new(),
            last: Tick(0),
            before: digest,
            running: digest,
            expect: None,
            uncovered: VecDeque::new(),
            earlier: Vec::new(),
            holes: Holes::default(),
            went_back: None,
            has_progress: false,
            committed: point,
            planned: point,
            mark: None,
        }
    }

    /// Takes a tick's output, in its order.
    pub(super) fn take(&mut self, tick: Tick, records: TickRecords) -> Result<(), Ended> {
        let not_its = tick < self.starts || tick <= self.as_of || self.reconcile.is_some_and(|first| tick < first);
        if not_its || records.is_empty() {
            return Ok(());
        }
        if tick <= self.last {
            return Err(Ended::Bug(format!("output {} was given tick {tick} after tick {}", self.at, self.last)));
        }
        self.last = tick;
        if let Some((marked, digest @ None)) = &mut self.mark
            && tick > *marked
        {
            *digest = Some(self.running);
        }
        let reconciled = self.reconcile == Some(tick);
        let prior = self.running;
        if !reconciled {
            self.running = prior.chain(tick, records.sum());
        }
        let records = records.into_records().into();
        self.items.push_back(Item { tick, records, prior, digest: self.running, reconciled });
        self.settle(Tick(0))
    }

    /// Remembers the digest as of `tick`, beyond which nothing has been handed in.
    pub(super) fn mark(&mut self, tick: Tick) {
        self.mark = Some((tick, None));
    }

    /// The digest as of the marked tick, which is complete.
    pub(super) fn marked(&self) -> Digest {
        self.mark.and_then(|(_, digest)| digest).unwrap_or(self.running)
    }

    /// The sink says that this much is committed, and what stands behind it. What was planned beyond is not.
    pub(super) fn recover(
        &mut self,
        progress: Progress,
        uncovered: Vec<(Offset, OutputRecord)>,
        complete: Tick,
    ) -> Result<(), Ended> {
        let Progress { tick, position, digest, end, .. } = progress;
        self.has_progress = true;
        self.earlier.clear();
        self.uncovered = uncovered.into();
        self.committed = Point { tick, position, digest, end, sum: Digest::default() };
        self.planned = self.committed;
        self.expect = Some(progress);
        self.settle(complete)
    }

    /// Everything before a reconciliation is given up: it will correct what is there, partially committed or not. The partition gets
    /// progress of its own first, as of the sealed tick `tick`, so that what is committed partially later is told from what was before.
    pub(super) fn give_up_through(&mut self, tick: Tick, end: Offset) {
        self.has_progress = false;
        self.earlier.clear();
        self.uncovered.clear();
        self.expect = None;
        self.committed = Point::complete(tick, Digest::default(), end);
        self.planned = self.committed;
    }

    /// Drops what the sink has already, and compares digests there.
    pub(super) fn settle(&mut self, complete: Tick) -> Result<(), Ended> {
        let Some(progress) = &self.expect else { return Ok(()) };
        let (tick, position, digest) = (progress.tick, progress.position, progress.digest);
        while let Some(item) = self.items.pop_front_if(|item| item.tick < tick) {
            self.before = item.digest;
        }
        let found = match (self.items.front(), position) {
            (Some(item), Position::Complete) if item.tick == tick => {
                self.before = item.digest;
                self.items.pop_front();
                self.before
            }
            (Some(item), Position::Records(count)) if item.tick == tick && count <= item.records.len() as u64 => {
                let sum = sum(item.records.iter().take(count as usize));
                self.committed.sum = sum;
                self.planned.sum = sum;
                item.digest_of(sum)
            }
            (Some(item), Position::Complete) if item.tick > tick => self.before,
            (None, Position::Complete) if complete >= tick => self.before,
            (None, _) if complete < tick => return Ok(()),
            _ if self.is_left(tick) => {
                while let Some(item) = self.items.pop_front_if(|item| item.tick == tick) {
                    self.before = item.digest;
                }
                self.committed = Point::complete(tick, self.before, self.committed.end);
                self.planned = self.committed;
                self.before
            }
            // Part of a tick is committed that has fewer records now, or none.
            _ => return Err(Ended::Diverged { at: self.at.clone(), tick }),
        };
        self.expect = None;
        if self.is_left(tick) {
            // What is written from here on follows from what replay gives now, and so does its digest.
            (self.committed.digest, self.planned.digest) = (found, found);
            return Ok(());
        }
        if found == digest { Ok(()) } else { Err(Ended::Diverged { at: self.at.clone(), tick }) }
    }

    /// How its records become messages.
    pub(super) fn envelope(&self) -> Envelope {
        self.envelope
    }

    /// Whether what was committed at `tick` stays as it is, whatever the job would write there now.
    pub(super) fn is_left(&self, tick: Tick) -> bool {
        self.leave.is_some_and(|reconciled| tick < reconciled)
    }

    /// What lies before the next records is not known.
    pub(super) fn begin_counting(&mut self) {
        self.holes.begin();
    }

    /// What is planned is written up to `end`, with so many records. Returns how many offsets there are not this job's;
    /// `None` where they have gone back.
    pub(super) fn wrote(&mut self, records: usize, end: Offset) -> Option<u64> {
        let before = std::mem::replace(&mut self.planned.end, end);
        let others = self.holes.wrote(before, records, end);
        if others.is_none() {
            self.went_back = Some((before, end));
        }
        others
    }

    /// Forgets what a commit has made durable.
    pub(super) fn commit(&mut self, point: Point) {
        self.has_progress = true;
        self.committed = point;
        while let Some(item) = self.items.pop_front_if(|item| (item.tick, item.records.len() as u64) <= point.order()) {
            self.before = item.digest;
        }
    }

    /// Whether the committed progress says so of everything through `tick`.
    pub(super) fn committed_through(&self, tick: Tick) -> bool {
        self.committed.order() >= (tick, u64::MAX)
    }

    /// The first tick of which something is not committed.
    pub(super) fn uncommitted(&self) -> Option<Tick> {
        self.items.iter().map(|item| item.tick).find(|tick| (*tick, u64::MAX) > self.committed.order())
    }

    /// The first tick through `until` of which something is not planned.
    pub(super) fn next_tick(&self, until: Tick) -> Option<Tick> {
        if self.expect.is_some() {
            return None;
        }
        self.items.get(self.next_item()).map(|item| item.tick).filter(|tick| *tick <= until)
    }

    fn next_item(&self) -> usize {
        let Point { tick, position, .. } = self.planned;
        self.items.partition_point(|item| item.tick < tick || item.tick == tick && position == Position::Complete)
    }

    /// Whether what is handed in has reached the progress.
    pub(super) fn is_settled(&self) -> bool {
        self.expect.is_none()
    }

    /// The partition has no progress yet, and ends here.
    pub(super) fn begin_at(&mut self, end: Offset) {
        let tick = Tick(self.starts.0.saturating_sub(1)).max(self.as_of);
        self.committed = Point::complete(tick, self.before, end);
        self.planned = self.committed;
    }

    /// Whether something stands behind the progress that has found no equal yet.
    pub(super) fn first_uncovered(&self) -> Option<Offset> {
        self.uncovered.front().map(|(offset, _)| *offset)
    }

    /// Lets uncovered records stand though nothing equals it, where what was before a reconciliation is left. Returns whether
    /// that is so.
    pub(super) fn leaves_torn(&mut self) -> bool {
        let left = self.is_left(self.committed.tick);
        if left && let Some((offset, _)) = self.uncovered.drain(..).next_back() {
            self.planned.end = Offset(offset.0 + 1);
        }
        left
    }

    /// Whether a partially committed transaction's records have been left out, so that progress is due.
    pub(super) fn has_left_out(&self) -> bool {
        !self.earlier.is_empty()
    }

    /// An empty write at the planned point.
    pub(super) fn begin_write(&self) -> PartitionWrite {
        PartitionWrite {
            at: self.at.clone(),
            records: OutputRecords::default(),
            ticks: Vec::new(),
            tick: self.planned.tick,
            position: self.planned.position,
            digest: self.planned.digest,
            begin: self.planned.end,
            end_before: self.planned.end,
            earlier: Vec::new(),
        }
    }

    /// Plans what is next of the next tick, as much as there is room for. Returns whether all of the tick is planned.
    pub(super) fn plan(&mut self, write: &mut PartitionWrite, room: &mut Room) -> Result<bool, Ended> {
        let index = self.next_item();
        let Some(item) = self.items.get(index) else { return Ok(true) };
        let begun = match self.planned.position {
            Position::Records(count) if self.planned.tick == item.tick => count as usize,
            _ => 0,
        };
        let mut count = begun;
        while let Some(record) = item.records.get(count)
            && let Some((offset, found)) = self.uncovered.front()
        {
            // What is left takes the place of as many records, whatever they are.
            if record != found && !self.is_left(self.committed.tick) {
                return Err(OutputFault::ForeignRecord { at: self.at.clone(), offset: *offset }.into());
            }
            self.planned.end = Offset(offset.0 + 1);
            count += 1;
            self.uncovered.pop_front();
        }
        if count > begun {
            self.earlier.push(TickEnd { tick: item.tick, end: self.planned.end });
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
        if count > begun {
            let mut sum = if begun > 0 { self.planned.sum } else { Digest::default() };
            sum.add(records::sum(&item.records[begun..count]));
            let position = Position::Records(count as u64);
            self.planned = Point { tick: item.tick, position, digest: item.digest_of(sum), end, sum };
        }
        Ok(false)
    }

    /// Ends a write: with everything through `until` planned, progress says so.
    pub(super) fn end_write(&mut self, write: &mut PartitionWrite, until: Tick) -> Point {
        if self.next_tick(until).is_none() && self.expect.is_none() && until > self.planned.tick {
            self.planned = Point::complete(until, self.planned.digest, self.planned.end);
        }
        let Point { tick, position, digest, end, .. } = self.planned;
        (write.tick, write.position, write.digest, write.end_before) = (tick, position, digest, end);
        write.earlier = std::mem::take(&mut self.earlier);
        self.planned
    }
}
