//! A process's half of the protocol, from the plan of its generation on.
//!
//! ```text
//!   Plan ─► fence the writers of its share ─► Report::Fenced ─ all fenced ─► recover ─► ready
//!   output of complete ticks ─► (corrections, where a reconciliation is under way) ─► Committer ─► Report::Committed
//! ```
//!
//! The leader coordinates and the processes participate: each fences a share of the writers that earlier generations had,
//! corrects the outputs of its partitions where that was asked for, commits what is complete and sealed, and reports how far
//! it has come. The runtime and the simulation drive this same machine; what differs is who does the [`Action`]s.
//!
//! **Owns** the order of these steps in one process. **Does not** know the dataflow: complete ticks are handed in, in their
//! order.

mod comparison;
mod corrections;

use std::collections::{BTreeMap, VecDeque};

use fluvial_connector::{OutputPartition, Tick, WriterId};

pub(crate) use comparison::CommittedPartition;
pub use comparison::Compared;
use comparison::Comparing;
pub use corrections::PartitionOutput;
use corrections::Reconciling;

use crate::committer::{Stall, Step};
use crate::journal::Binding;
use crate::rules::{Rule, Rules};
use crate::{Action, Committer, CommitterConfig, Done, Ended, Identity, Plan, Report, Stretch, owner};

/// How many partitions are read back at once: their records take memory until they are applied to a table.
const READ_BACK_AT_ONCE: usize = 16;

/// One process of a generation.
#[derive(Debug)]
pub struct Participant {
    rules: Rules,
    identity: Identity,
    slot: u32,
    committer: Committer,
    /// The process's own actions, in this order. They come before the committer's.
    actions: VecDeque<Action>,
    /// How many fencing actions must succeed before the leader is told: one for each own writer, and one for all
    /// others.
    to_fence: usize,
    /// Outputs that are to be compared before anything is committed.
    comparing: Option<Comparing>,
    /// The result of the comparison, until it is asked for.
    compared: Option<Compared>,
    /// Outputs that are to be corrected before anything later is committed.
    reconciling: Option<Reconciling>,
    /// The tick of the corrections and the number of their records, from when they are made until that is asked for.
    corrected: Option<(Tick, usize)>,
    /// Output of ticks after the corrections, ascending.
    later: VecDeque<(Tick, Vec<PartitionOutput>)>,
    /// All ticks before this one have been handed in.
    upper: u64,
    /// The tick through which the committer has been told that everything has been handed in.
    complete: Tick,
    /// How many records were handed to the committer at each tick that is not committed yet.
    waiting: VecDeque<(Tick, usize)>,
    waiting_records: usize,
    committed: Tick,
    /// How many records each turn's transaction holds, until it is committed.
    in_transactions: BTreeMap<u32, u64>,
    wrote: u64,
    reports: VecDeque<Report>,
}

impl Participant {
    /// A process of the generation that `plan` opens.
    #[must_use]
    pub fn new(plan: &Plan, config: CommitterConfig) -> Self {
        Self::with_rules(plan, config, Rules::default())
    }

    pub(crate) fn with_rules(plan: &Plan, config: CommitterConfig, rules: Rules) -> Self {
        let Plan { incarnation, generation, nonce, .. } = *plan;
        let (slot, turns) = (config.slot, config.turns);
        let mut actions: VecDeque<Action> = (0..turns).map(|turn| Action::Fence { turn }).collect();
        let share = (0..plan.most_slots).filter(|other| owner(*other, config.layout.processes) == slot);
        let others = share.flat_map(|slot| (0..plan.most_turns).map(move |turn| WriterId { incarnation, slot, turn }));
        let others: Vec<WriterId> = others.filter(|id| id.slot != slot || id.turn >= turns).collect();
        if !others.is_empty() {
            actions.push_back(Action::FenceOthers(others));
        }
        // Without the rule, the process waits for its own writers alone.
        let to_fence = if rules.has(Rule::WaitForEveryFence) { actions.len() } else { turns as usize };
        Self {
            rules,
            identity: Identity { incarnation, generation, nonce },
            slot,
            committer: Committer::with_rules(plan, config, rules),
            to_fence,
            actions,
            comparing: plan
                .compare_outputs
                .clone()
                .filter(|_| rules.has(Rule::CompareOutputsFirst))
                .map(|approval| Comparing::new(plan.as_of(), plan.sealed(), approval)),
            compared: None,
            reconciling: plan.reconciliation.map(|at| Reconciling::new(at.tick, &plan.sinks)),
            corrected: None,
            later: VecDeque::new(),
            upper: 0,
            complete: Tick(0),
            waiting: VecDeque::new(),
            waiting_records: 0,
            committed: Tick(0),
            in_transactions: BTreeMap::new(),
            wrote: 0,
            reports: VecDeque::new(),
        }
    }

    /// The generation that this process belongs to.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The process's own writer with this turn.
    #[must_use]
    pub fn writer(&self, turn: u32) -> WriterId {
        WriterId { incarnation: self.identity.incarnation, slot: self.slot, turn }
    }

    /// Takes note that every writer of earlier generations is fenced, and that no newer generation exists.
    pub fn all_fenced(&mut self) {
        self.committer.all_fenced();
    }

    /// Whether progress has been read and checked, every output partition of the process has some, and the outputs have
    /// been compared if they are to be.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let has_compared = self.comparing.as_ref().is_none_or(|comparing| comparing.compared().is_some());
        self.committer.is_ready() && has_compared
    }

    /// Takes note that a tick was minted. Must be called before any output at or after the tick is handed in.
    pub fn minted(&mut self, binding: &Binding) {
        // The leader mints when every process is ready.
        if let Some(comparing) = &mut self.comparing {
            comparing.all_have_compared();
        }
        self.committer.minted(binding);
    }

    /// Takes note that the ticks through this one are sealed.
    pub fn sealed(&mut self, tick: Tick) {
        self.committer.sealed(tick);
    }

    /// Hands in the output of a tick in the process's partitions; ticks ascend, and those without output may be left out.
    ///
    /// # Errors
    /// As [`Committer::output`].
    pub fn output(&mut self, tick: Tick, partitions: Vec<PartitionOutput>) -> Result<(), Ended> {
        if let Some(comparing) = &mut self.comparing {
            comparing.take(tick, partitions);
            return Ok(());
        }
        let Some(reconciling) = &mut self.reconciling else { return self.hand_over(tick, partitions) };
        if tick > reconciling.at() && self.rules.has(Rule::CorrectionsFirst) {
            self.later.push_back((tick, partitions));
            return Ok(());
        }
        let left = if tick > reconciling.at() { partitions } else { reconciling.take(partitions) };
        if left.is_empty() { Ok(()) } else { self.hand_over(tick, left) }
    }

    /// Takes note that all output of ticks before `upper` has been handed in.
    ///
    /// # Errors
    /// As [`Committer::output`].
    pub fn complete(&mut self, upper: u64) -> Result<(), Ended> {
        self.upper = self.upper.max(upper);
        self.advance()
    }

    /// Takes the result of an action.
    ///
    /// # Errors
    /// As [`Committer::on`].
    pub fn on(&mut self, done: Done) -> Result<(), Ended> {
        match done {
            Done::Fenced { .. } | Done::OthersFenced if self.to_fence > 0 => {
                self.to_fence -= 1;
                if self.to_fence == 0 {
                    self.reports.push_back(Report::Fenced);
                }
                Ok(())
            }
            #[cfg(test)]
            Done::OthersFenced => Ok(()),
            Done::ReadBack(tables) => {
                for held in tables {
                    if let Some(comparing) = &mut self.comparing {
                        comparing.found(held);
                    } else if let Some(reconciling) = &mut self.reconciling {
                        reconciling.found(held);
                    }
                }
                self.advance()
            }
            Done::Committed { turn, result } => {
                let records = self.in_transactions.remove(&turn).unwrap_or(0);
                self.wrote += if result.is_ok() { records } else { 0 };
                self.committer.on(Done::Committed { turn, result })
            }
            done => self.committer.on(done),
        }
    }

    /// The next action.
    ///
    /// # Errors
    /// As [`Committer::next_action`].
    pub fn next_action(&mut self, now_ms: u64) -> Result<Option<Action>, Ended> {
        self.advance()?;
        if let Some(action) = self.actions.pop_front() {
            return Ok(Some(action));
        }
        let action = self.committer.next_action(now_ms)?;
        if let Some(Action::Prepare { turn, transaction }) = &action {
            let records = transaction.writes.iter().map(|write| write.records.len() as u64).sum();
            self.in_transactions.insert(*turn, records);
        }
        Ok(action)
    }

    /// The next report to the leader.
    pub fn next_report(&mut self) -> Option<Report> {
        if self.reports.is_empty() && self.committer.is_ready() {
            let committed = self.committer.committed_through();
            if committed > self.committed {
                self.committed = committed;
                while let Some((_, records)) = self.waiting.pop_front_if(|(tick, _)| *tick <= committed) {
                    self.waiting_records -= records;
                }
                self.reports.push_back(Report::Committed(committed));
            }
            while let Some((tick, outputs)) = self.committer.checkpointed() {
                self.reports.push_back(Report::SinkAt { tick, outputs });
            }
        }
        self.reports.pop_front()
    }

    /// How many records wait for their commit.
    #[must_use]
    pub fn waiting_records(&self) -> usize {
        self.waiting_records
    }

    /// How many records have been committed since the last call. Records that were committed before and are replayed do
    /// not count.
    pub fn wrote(&mut self) -> u64 {
        std::mem::take(&mut self.wrote)
    }

    /// The tick of the corrections and the number of their records, once they are made; returned once.
    pub fn corrected(&mut self) -> Option<(Tick, usize)> {
        self.corrected.take()
    }

    /// The result of the comparison of the outputs, once it has found no difference; returned once.
    pub fn compared(&mut self) -> Option<Compared> {
        self.compared.take()
    }

    /// The time at which something is due even if nothing else happens; see [`Committer::deadline_ms`].
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        self.committer.deadline_ms()
    }

    /// The step that is waited for, if nothing has been committed for long; see [`Committer::stalled`].
    pub fn stalled(&mut self, now_ms: u64) -> Option<Stall> {
        let stall = self.committer.stalled(now_ms)?;
        let compares = self.comparing.is_some() && self.committer.is_ready();
        Some(if compares { Stall { step: Step::Compare, ..stall } } else { stall })
    }

    /// Stretches of output partitions that hold offsets which this job's records do not explain; see
    /// [`Committer::unexplained`].
    pub fn unexplained(&mut self) -> Vec<Stretch> {
        self.committer.unexplained()
    }

    /// Does what has become possible: compares, corrects, and hands over the output that waited for that.
    fn advance(&mut self) -> Result<(), Ended> {
        if let Some(comparing) = &mut self.comparing {
            if self.upper > comparing.through().0 && self.committer.is_ready() && !comparing.is_asked() {
                let partitions = self.committer.upsert_partitions();
                let at: Vec<_> = partitions.iter().map(|of| of.at.clone()).collect();
                self.actions.extend(read_back(&at));
                comparing.ask(partitions);
            }
            match comparing.compare() {
                Ok(None) => {}
                Ok(equal) => self.compared = equal,
                // What a newer generation has written may differ from what this one computes.
                Err(different) => return self.committer.doubt(different.into()),
            }
            let Some(replayed) = comparing.finish() else { return Ok(()) };
            self.comparing = None;
            for (tick, partitions) in replayed {
                self.hand_over(tick, partitions)?;
            }
        }
        if let Some(at) = self.reconciling.as_ref().map(Reconciling::at) {
            if self.upper > at.0 {
                self.correct(at)?;
            }
            // Nothing later is handed over before the corrections have been.
            if self.reconciling.is_some() {
                return self.complete_before(self.upper.min(at.0));
            }
            for (tick, partitions) in std::mem::take(&mut self.later) {
                self.hand_over(tick, partitions)?;
            }
        }
        self.complete_before(self.upper)
    }

    /// Reads back the records of the outputs and, once they are known, hands over the corrections at the tick `at`.
    fn correct(&mut self, at: Tick) -> Result<(), Ended> {
        let Some(reconciling) = &mut self.reconciling else { return Ok(()) };
        if !reconciling.is_asked() && self.committer.is_ready() {
            let partitions: Vec<OutputPartition> = self.committer.to_reconcile().cloned().collect();
            self.actions.extend(read_back(&partitions));
            reconciling.ask(partitions.into_iter());
        }
        match reconciling.corrections() {
            None => Ok(()),
            Some(corrections) => {
                self.reconciling = None;
                self.corrected = Some((at, corrections.iter().map(|(_, records)| records.len()).sum()));
                self.hand_over(at, corrections)
            }
        }
    }

    fn hand_over(&mut self, tick: Tick, partitions: Vec<PartitionOutput>) -> Result<(), Ended> {
        let records = partitions.iter().map(|(_, records)| records.len()).sum();
        for (at, records) in partitions {
            self.committer.output(tick, &at, records)?;
        }
        if records > 0 {
            self.waiting.push_back((tick, records));
            self.waiting_records += records;
        }
        Ok(())
    }

    /// Tells the committer that all ticks before `upper` have been handed over.
    fn complete_before(&mut self, upper: u64) -> Result<(), Ended> {
        let complete = Tick(upper.saturating_sub(1));
        if complete > self.complete {
            self.complete = complete;
            self.committer.complete(complete)?;
        }
        Ok(())
    }
}

/// The actions that read these partitions back.
fn read_back(partitions: &[OutputPartition]) -> impl Iterator<Item = Action> {
    partitions.chunks(READ_BACK_AT_ONCE).map(|some| Action::ReadBack(some.to_vec()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_connector::{Generation, Incarnation};
    use uuid::Uuid;

    use super::*;
    use crate::Layout;
    use crate::journal::Nonce;

    /// Process 1 of two, of a generation after one that had five processes with three turns each.
    fn participant() -> Participant {
        let plan = Plan {
            incarnation: Incarnation(Uuid::nil()),
            generation: Generation(2),
            nonce: Nonce(7),
            most_slots: 5,
            most_turns: 3,
            checkpoint: None,
            splits: Vec::new(),
            replay: Vec::new(),
            sinks: Vec::new(),
            reconciliation: None,
            compare_outputs: None,
            cannot_correct: None,
        };
        let config = CommitterConfig {
            slot: 1,
            layout: Layout { workers: 2, processes: 2 },
            turns: 2,
            outputs: Vec::new(),
            transaction_records: 10,
            transaction_bytes: 1 << 20,
            heartbeat_ms: 60,
            patience_ms: u64::MAX,
        };
        Participant::new(&plan, config)
    }

    #[test]
    fn a_process_fences_its_own_writers_and_its_share_of_the_others_before_it_says_so() {
        let mut participant = participant();
        assert_eq!(participant.next_action(0), Ok(Some(Action::Fence { turn: 0 })));
        assert_eq!(participant.next_action(0), Ok(Some(Action::Fence { turn: 1 })));
        let Ok(Some(Action::FenceOthers(others))) = participant.next_action(0) else {
            panic!("the other writers are not fenced")
        };
        let others: Vec<_> = others.iter().map(|id| (id.slot, id.turn)).collect();
        assert_eq!(others, [(1, 2), (3, 0), (3, 1), (3, 2)]);
        assert_eq!(participant.next_action(0), Ok(None));
        for done in [Done::Fenced { turn: 1 }, Done::OthersFenced, Done::Fenced { turn: 0 }] {
            assert_eq!(participant.next_report(), None, "before {done:?}");
            participant.on(done).unwrap();
        }
        assert_eq!(participant.next_report(), Some(Report::Fenced));
        assert_eq!(participant.next_report(), None);
    }
}
