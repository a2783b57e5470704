//! Making transactions: what goes into the next one, whose turn it is, and in which order they commit.

use fluvial_connector::{Offset, PartitionWrite, Tick, Transaction};

use super::lane::Room;
use super::{Action, Committer, Done, Failure, Flight, FlightState, Phase, Planned, Stretch};
use crate::{Ended, OutputFault, Rule};

impl Committer {
    /// What to do next; `None` until something happens or the deadline passes.
    ///
    /// # Errors
    /// The generation is over.
    pub fn next_action(&mut self, now_ms: u64) -> Result<Option<Action>, Ended> {
        if !matches!(self.phase, Phase::Active) {
            return Ok(self.next_question());
        }
        if let Some(turn) = self.next_commit() {
            return Ok(Some(Action::Commit { turn }));
        }
        let turn = self.next_turn;
        let waits = self.flight.iter().any(|f| f.state == FlightState::Preparing || f.turn == turn);
        if self.lanes.is_empty() || waits {
            return Ok(None);
        }
        let planned = match self.next_transaction(now_ms) {
            Ok(planned) => planned,
            Err(ended) => {
                self.or_doubt(Err(ended))?;
                return Ok(self.next_question());
            }
        };
        let Some((transaction, points)) = planned else { return Ok(None) };
        self.next_turn = (turn + 1) % self.config.turns;
        self.flight.push_back(Flight { turn, points, state: FlightState::Preparing });
        Ok(Some(Action::Prepare { turn, transaction: Box::new(transaction) }))
    }

    /// Takes what came of an action.
    ///
    /// # Errors
    /// The generation is over.
    pub fn on(&mut self, done: Done) -> Result<(), Ended> {
        if !matches!(self.phase, Phase::Active) {
            return self.answered(done);
        }
        let (turn, result) = match done {
            Done::Prepared { turn, result } => (turn, result.map(Some)),
            Done::Committed { turn, result } => (turn, result.map(|()| None)),
            done => return Err(Ended::Bug(format!("a committer got {done:?} without asking"))),
        };
        let Some(index) = self.flight.iter().position(|flight| flight.turn == turn) else {
            return Err(Ended::Bug(format!("turn {turn} has done something without being asked")));
        };
        match result {
            Ok(Some(ends)) => self.prepared(index, ends),
            Ok(None) => {
                self.watch.committed();
                for Planned { lane, point, .. } in
                    self.flight.remove(index).into_iter().flat_map(|flight| flight.points)
                {
                    self.lanes[lane].commit(point);
                }
            }
            Err(Failure::Unknown(why)) => {
                let failing_ms = self.watch.failed(why.clone());
                if failing_ms >= self.config.patience_ms {
                    return Err(Ended::CommitsNothing { for_ms: failing_ms, why });
                }
                self.recover();
            }
            Err(Failure::Fenced(why)) => {
                self.flight.clear();
                self.phase = Phase::Judging { why, asked: false };
            }
            Err(Failure::Refused(kind, why)) => return Err(Ended::NotWritable { kind, why }),
        }
        Ok(())
    }

    /// A transaction's records lie up to these ends. Where that is before the place where its own records ended, the
    /// partition is not the one that was written before, and the transaction must not be committed.
    fn prepared(&mut self, index: usize, ends: Vec<Offset>) {
        let flight = &mut self.flight[index];
        flight.state = FlightState::Prepared;
        let mut goes_on = true;
        for (Planned { lane, records, point }, end) in flight.points.iter_mut().zip(ends) {
            let lane = &mut self.lanes[*lane];
            let from = lane.planned.end;
            match lane.wrote(*records, end) {
                None => goes_on = false,
                Some(0) => {}
                Some(others) => {
                    self.unexplained.push(Stretch { at: lane.at.clone(), from, to: end, records: *records, others });
                }
            }
            point.end = end;
        }
        if !goes_on {
            self.recover();
        }
    }

    /// The turn that is to commit now: that of the oldest transaction, and one at a time.
    fn next_commit(&mut self) -> Option<u32> {
        let in_order = self.rules.has(Rule::CommitInOrder);
        let mut flights = self.flight.iter_mut().take(if in_order { 1 } else { usize::MAX });
        let flight = flights.rfind(|flight| flight.state == FlightState::Prepared)?;
        flight.state = FlightState::Committing;
        Some(flight.turn)
    }

    /// The next transaction, if one is due.
    fn next_transaction(&mut self, now_ms: u64) -> Result<Option<(Transaction, Vec<Planned>)>, Ended> {
        let until = self.until();
        let mut writes: Vec<Option<PartitionWrite>> = self.lanes.iter().map(|_| None).collect();
        if self.lanes.iter().any(|lane| !lane.has_progress) {
            // The first progress of a partition stands alone, so that records of a partially committed transaction always follow some.
            if self.flight.is_empty() {
                self.begin_progress(&mut writes);
            }
        } else {
            self.fill(until, &mut writes)?;
            self.add_idle(until, now_ms, &mut writes);
        }
        let mut points = Vec::new();
        let mut transaction = Transaction {
            incarnation: self.incarnation,
            generation: self.generation,
            slot: self.config.slot,
            writes: Vec::new(),
        };
        for (index, write) in writes.into_iter().enumerate() {
            let Some(mut write) = write else { continue };
            let point = self.lanes[index].end_write(&mut write, until);
            points.push(Planned { lane: index, records: write.records.len(), point });
            transaction.writes.push(write);
        }
        Ok(if points.is_empty() { None } else { Some((transaction, points)) })
    }

    fn begin_progress(&mut self, writes: &mut [Option<PartitionWrite>]) {
        for (lane, write) in self.lanes.iter().zip(writes).filter(|(lane, _)| !lane.has_progress) {
            *write = Some(lane.begin_write());
        }
    }

    /// Takes tick after tick of all partitions, while there is room.
    fn fill(&mut self, until: Tick, writes: &mut [Option<PartitionWrite>]) -> Result<(), Ended> {
        let mut room =
            Room { records: self.config.transaction_records, bytes: self.config.transaction_bytes, used: false };
        while let Some(tick) = self.lanes.iter().filter_map(|lane| lane.next_tick(until)).min() {
            for (lane, write) in self.lanes.iter_mut().zip(writes.iter_mut()) {
                if lane.next_tick(tick) != Some(tick) {
                    continue;
                }
                let write = write.get_or_insert_with(|| lane.begin_write());
                if !lane.plan(write, &mut room)? {
                    self.drop_empty(writes);
                    return Ok(());
                }
            }
        }
        for lane in &mut self.lanes {
            // All that was sealed when the tail was read has been planned, and this is none of it.
            let uncovered = lane.first_uncovered().filter(|_| lane.is_settled() && until >= self.tails_at);
            if let Some(offset) = uncovered
                && !lane.leaves_torn()
            {
                return Err(OutputFault::ForeignRecord { at: lane.at.clone(), offset }.into());
            }
        }
        Ok(())
    }

    /// A partition that found no more room has nothing to say.
    fn drop_empty(&self, writes: &mut [Option<PartitionWrite>]) {
        for (lane, write) in self.lanes.iter().zip(writes) {
            if write.as_ref().is_some_and(|write| write.records.is_empty()) && !lane.has_left_out() {
                *write = None;
            }
        }
    }

    /// Lets the progress of idle partitions move: for a checkpoint at once, otherwise with the heartbeat, when there
    /// has been input that they had no output for.
    fn add_idle(&mut self, until: Tick, now_ms: u64, writes: &mut [Option<PartitionWrite>]) {
        let needs =
            |tick: Tick| tick <= until && self.lanes.iter().any(|lane| lane.is_settled() && lane.planned.tick < tick);
        let marked = self.marked.is_some_and(needs);
        let last = self.last_heartbeat_ms;
        let beats = now_ms >= last + self.config.heartbeat_ms || now_ms < last;
        let due = marked || beats && needs(self.data.min(until));
        if !due {
            return;
        }
        self.last_heartbeat_ms = now_ms;
        for (lane, write) in self.lanes.iter().zip(writes) {
            if write.is_none() && lane.is_settled() && lane.planned.tick < until && lane.next_tick(until).is_none() {
                *write = Some(lane.begin_write());
            }
        }
    }
}
