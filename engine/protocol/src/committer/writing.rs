//! Writing transactions: which records go into the next one, which writer writes it, and in which order transactions
//! commit.

use std::collections::VecDeque;

use fluvial_connector::{Offset, PartitionWrite, Tick, Transaction};

use super::lane::{Room, Wrote};
use super::{Action, Committer, Done, Failure, Flight, FlightState, Lane, Phase, Planned, Stretch};
use crate::{Ended, Rule};

impl Committer {
    /// The next action; `None` if there is none until something happens or the deadline passes.
    ///
    /// # Errors
    /// The generation is over.
    pub fn next_action(&mut self, now_ms: u64) -> Result<Option<Action>, Ended> {
        let in_order = self.opened.rules.has(Rule::CommitInOrder);
        let turn = self.next_turn;
        let Phase::Active(flights) = &mut self.phase else { return Ok(self.questions.pop_front()) };
        if let Some(turn) = next_commit(flights, in_order) {
            return Ok(Some(Action::Commit { turn }));
        }
        let waits = flights.iter().any(|flight| flight.state == FlightState::Preparing || flight.turn == turn);
        let is_idle = flights.is_empty();
        if self.lanes.is_empty() || waits {
            return Ok(None);
        }
        let planned = match self.next_transaction(is_idle, now_ms) {
            Ok(planned) => planned,
            Err(ended) => {
                self.doubt(ended)?;
                return Ok(self.questions.pop_front());
            }
        };
        let (Some((transaction, writes)), Phase::Active(flights)) = (planned, &mut self.phase) else { return Ok(None) };
        self.next_turn = (turn + 1) % self.config.turns;
        flights.push_back(Flight { turn, writes, state: FlightState::Preparing });
        Ok(Some(Action::Prepare { turn, transaction: Box::new(transaction) }))
    }

    /// Takes the result of an action.
    ///
    /// # Errors
    /// The generation is over.
    pub fn on(&mut self, done: Done) -> Result<(), Ended> {
        let Phase::Active(flights) = &mut self.phase else { return self.answered(done) };
        let (turn, was, result) = match done {
            Done::Prepared { turn, result } => (turn, FlightState::Preparing, result.map(Some)),
            Done::Committed { turn, result } => (turn, FlightState::Committing, result.map(|()| None)),
            done => return Err(Ended::Bug(format!("a committer got {done:?} without asking"))),
        };
        let Some(index) = flights.iter().position(|flight| flight.turn == turn && flight.state == was) else {
            return Err(Ended::Bug(format!("turn {turn} has done something without being asked")));
        };
        match result {
            Ok(Some(ends)) => {
                flights[index].state = FlightState::Prepared;
                let writes = flights[index].writes.clone();
                self.prepared(&writes, &ends);
            }
            Ok(None) => {
                self.watch.committed();
                for Planned { lane, reached, .. } in flights.remove(index).into_iter().flat_map(|flight| flight.writes)
                {
                    self.lanes[lane].commit(reached);
                }
            }
            Err(Failure::Unknown(why)) => {
                let failing_ms = self.watch.failed(why.clone());
                if failing_ms >= self.config.patience_ms {
                    return Err(Ended::CommitsNothing { for_ms: failing_ms, why });
                }
                self.recover();
            }
            Err(Failure::Fenced(why)) => self.enter(Phase::Doubting(Ended::WriterFenced { why })),
            Err(Failure::Refused(kind, why)) => return Err(Ended::NotWritable { kind, why }),
        }
        Ok(())
    }

    /// Takes the offsets at which the records of a prepared transaction end in each partition. If such an end is too
    /// low to follow the records that this job wrote before, the partition is not the one that was written before, and
    /// the transaction must not be committed.
    fn prepared(&mut self, writes: &[Planned], ends: &[Offset]) {
        let mut goes_on = true;
        for (&Planned { lane, records, .. }, &to) in writes.iter().zip(ends) {
            let lane = &mut self.lanes[lane];
            match lane.wrote(records, to) {
                Wrote::Explained => {}
                Wrote::Unexplained { from, others } => {
                    self.unexplained.push(Stretch { at: lane.target.at.clone(), from, to, records, others });
                }
                Wrote::WentBack => goes_on = false,
            }
        }
        if !goes_on {
            self.recover();
        }
    }

    /// The next transaction, if one is due.
    fn next_transaction(&mut self, is_idle: bool, now_ms: u64) -> Result<Option<(Transaction, Vec<Planned>)>, Ended> {
        let until = self.until();
        let mut writes: Vec<Option<PartitionWrite>> = self.lanes.iter().map(|_| None).collect();
        if self.lanes.iter().any(Lane::is_new) {
            // The first transaction of a partition holds progress and no records, so that the records of a partially
            // committed transaction always follow some progress.
            if is_idle {
                for (lane, write) in self.lanes.iter().zip(&mut writes).filter(|(lane, _)| lane.is_new()) {
                    *write = lane.begin_write(&self.opened);
                }
            }
        } else {
            self.fill(until, &mut writes)?;
            self.add_idle(until, now_ms, &mut writes);
        }
        let mut planned = Vec::new();
        let mut transaction = Transaction { slot: self.config.slot, writes: Vec::new() };
        for (index, write) in writes.into_iter().enumerate() {
            let Some(mut write) = write else { continue };
            let reached = self.lanes[index].end_write(&mut write, until);
            planned.push(Planned { lane: index, records: write.records.len(), reached });
            transaction.writes.push(write);
        }
        Ok(if planned.is_empty() { None } else { Some((transaction, planned)) })
    }

    /// Fills a transaction with the output of all partitions, tick by tick, while there is room.
    fn fill(&mut self, until: Tick, writes: &mut [Option<PartitionWrite>]) -> Result<(), Ended> {
        let mut room =
            Room { records: self.config.transaction_records, bytes: self.config.transaction_bytes, used: false };
        while let Some(tick) = self.lanes.iter().filter_map(|lane| lane.next_tick(until)).min() {
            for (lane, write) in self.lanes.iter_mut().zip(writes.iter_mut()) {
                if lane.next_tick(tick) != Some(tick) {
                    continue;
                }
                if write.is_none() {
                    *write = lane.begin_write(&self.opened);
                }
                if let Some(write) = write
                    && !lane.plan(write, &mut room)?
                {
                    // A partition that found no room is left out of the transaction, unless its progress says where
                    // ticks of uncovered records end.
                    let says = |write: &PartitionWrite| !write.records.is_empty() || !write.progress.ticks.is_empty();
                    for write in writes {
                        *write = write.take().filter(says);
                    }
                    return Ok(());
                }
            }
        }
        self.lanes.iter_mut().try_for_each(|lane| lane.end_uncovered(until))
    }

    /// Moves the progress of idle partitions: at once if a checkpoint waits for it, otherwise at the heartbeat, when
    /// there has been input for which they had no output.
    fn add_idle(&mut self, until: Tick, now_ms: u64, writes: &mut [Option<PartitionWrite>]) {
        let is_earlier = |lane: &Lane, tick| lane.planned().is_some_and(|planned| planned.tick < tick);
        let needs = |tick: Tick| tick <= until && self.lanes.iter().any(|lane| is_earlier(lane, tick));
        let marked = self.marked.is_some_and(needs);
        let last = self.last_heartbeat_ms;
        let beats = now_ms >= last + self.config.heartbeat_ms || now_ms < last;
        let due = marked || beats && needs(self.data.min(until));
        if !due {
            return;
        }
        self.last_heartbeat_ms = now_ms;
        for (lane, write) in self.lanes.iter().zip(writes) {
            if write.is_none() && is_earlier(lane, until) && lane.next_tick(until).is_none() {
                *write = lane.begin_write(&self.opened);
            }
        }
    }
}

/// The turn of the writer that commits next: the one with the oldest transaction, if that is prepared. One transaction
/// commits at a time.
fn next_commit(flights: &mut VecDeque<Flight>, in_order: bool) -> Option<u32> {
    let mut flights = flights.iter_mut().take(if in_order { 1 } else { usize::MAX });
    let flight = flights.rfind(|flight| flight.state == FlightState::Prepared)?;
    flight.state = FlightState::Committing;
    Some(flight.turn)
}
