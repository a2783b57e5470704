//! Finding out what is committed: when a generation opens, and after an outcome that nobody knows.

use fluvial_connector::{Offset, Position, Progress, Tick};

use super::{Action, Committer, Done, Lane, Phase, Tail};
use crate::recreated::refuse_recreated;
use crate::{Ended, OutputFault, Rule, Verdict};

impl Committer {
    /// Gives up all transactions that are under way and finds out which of them are committed.
    pub(super) fn recover(&mut self) {
        self.flight.clear();
        self.lanes.iter_mut().for_each(Lane::begin_counting);
        let turns: Vec<u32> = (0..self.config.turns).collect();
        self.phase = Phase::Fencing { to_ask: turns.clone(), to_come: turns };
    }

    /// The next thing to ask, outside of making transactions.
    pub(super) fn next_question(&mut self) -> Option<Action> {
        let asked = match &mut self.phase {
            Phase::Fencing { to_ask, .. } => return to_ask.pop().map(|turn| Action::Fence { turn }),
            Phase::Waiting | Phase::Active => return None,
            Phase::Checking { asked }
            | Phase::Judging { asked, .. }
            | Phase::Doubting { asked, .. }
            | Phase::Reading { asked }
            | Phase::Tails { asked, .. } => asked,
        };
        if std::mem::replace(asked, true) {
            return None;
        }
        Some(match &self.phase {
            Phase::Reading { .. } => Action::ReadProgress,
            Phase::Tails { progress, .. } => {
                let from = |lane: &Lane| (lane.at.clone(), progress.get(&lane.at).map(|progress| progress.end));
                Action::ReadTails(self.lanes.iter().map(from).collect())
            }
            _ => Action::CheckJournal,
        })
    }

    /// Takes an answer to one of these questions.
    pub(super) fn answered(&mut self, done: Done) -> Result<(), Ended> {
        let was_doubting = matches!(self.phase, Phase::Doubting { .. });
        let result = self.answer(done);
        if was_doubting { result } else { self.or_doubt(result) }
    }

    fn answer(&mut self, done: Done) -> Result<(), Ended> {
        match (std::mem::replace(&mut self.phase, Phase::Waiting), done) {
            (Phase::Fencing { to_ask, mut to_come }, Done::Fenced { turn }) => {
                to_come.retain(|t| *t != turn);
                self.phase = if !to_come.is_empty() {
                    Phase::Fencing { to_ask, to_come }
                } else if self.rules.has(Rule::AskTheJournalAfterFencing) {
                    Phase::Checking { asked: false }
                } else {
                    Phase::Reading { asked: false }
                };
            }
            (
                Phase::Checking { .. } | Phase::Judging { .. } | Phase::Doubting { .. },
                Done::Journal(Verdict::Newer(by)),
            ) => return Err(Ended::Fenced { by }),
            (Phase::Doubting { ended, .. }, Done::Journal(_)) => return Err(ended),
            // What was asked before the doubt came up.
            (phase @ Phase::Doubting { .. }, _) => self.phase = phase,
            (Phase::Checking { .. }, Done::Journal(_)) => self.phase = Phase::Reading { asked: false },
            (Phase::Judging { why, .. }, Done::Journal(_)) => {
                return Err(Ended::WriterFenced { why });
            }
            (Phase::Reading { .. }, Done::Progress(progress, status)) => {
                refuse_recreated(&self.sinks, &status)?;
                for lane in &self.lanes {
                    self.check(lane, progress.get(&lane.at))?;
                }
                self.phase = Phase::Tails { progress, asked: false };
            }
            (Phase::Tails { mut progress, .. }, Done::Tails(tails)) if tails.len() == self.lanes.len() => {
                for (index, tail) in tails.into_iter().enumerate() {
                    match progress.remove(&self.lanes[index].at) {
                        Some(progress) => self.found(index, progress, tail)?,
                        None => self.lanes[index].begin_at(tail.end),
                    }
                }
                self.first_recovery = false;
                self.tails_at = self.sealed;
                self.phase = Phase::Active;
            }
            // What was under way when it was given up.
            (phase, Done::Prepared { .. } | Done::Committed { .. }) => self.phase = phase,
            (_, done) => return Err(Ended::Bug(format!("a committer got {done:?} without asking"))),
        }
        Ok(())
    }

    /// Whether a partition's progress can be that of this job as its journal has it.
    fn check(&self, lane: &Lane, progress: Option<&Progress>) -> Result<(), Ended> {
        let at = &lane.at;
        let Some(progress) = progress else {
            let begins = if lane.starts == Tick(0) { Tick(0) } else { Tick(lane.starts.0 - 1) };
            if self.opened_at <= begins && !lane.has_progress {
                return Ok(());
            }
            return Err(OutputFault::NoProgress { at: at.clone(), sealed: self.opened_at }.into());
        };
        if progress.incarnation != self.incarnation {
            let (is, own) = (progress.incarnation, self.incarnation);
            return Err(OutputFault::ProgressOfAnother { at: at.clone(), is, own }.into());
        }
        let one_alone = self.rules.has(Rule::SecondTailRead) && self.rules.has(Rule::AskTheJournalAfterFencing);
        if progress.generation > self.generation && one_alone {
            return Err(Ended::Fenced { by: progress.generation });
        }
        if progress.tick > self.sealed && self.rules.has(Rule::SealedBeforeVisible) {
            return Err(OutputFault::ProgressAhead { at: at.clone(), tick: progress.tick, sealed: self.sealed }.into());
        }
        let behind = if lane.has_progress { lane.committed.tick } else { self.as_of };
        let begun = self.as_of >= lane.starts;
        let partly = progress.tick == self.as_of && self.as_of > Tick(0) && progress.position != Position::Complete;
        if progress.tick < behind && (begun || lane.has_progress) || begun && partly {
            return Err(OutputFault::ProgressBehind { at: at.clone(), tick: progress.tick, committed: behind }.into());
        }
        Ok(())
    }

    /// Takes what a partition holds, against what its progress says.
    ///
    /// That the partition merely ends before its progress is refused when a generation opens; in a running one the next
    /// write notices it, whose offsets go back. That a record which was committed is aborted by now is refused in every
    /// recovery: no later write notices it, and none repeats the rows, since they count as committed.
    fn found(&mut self, index: usize, mut progress: Progress, tail: Tail) -> Result<(), Ended> {
        let Tail { records: mut uncovered, end, aborted } = tail;
        let lane = &mut self.lanes[index];
        if let Some((written, since)) = lane.went_back {
            let (at, envelope) = (lane.at.clone(), lane.envelope());
            return Err(OutputFault::WentBack { at, written, since, envelope }.into());
        }
        let within = progress.position != Position::Complete;
        if let Some(tick) = lane.reconcile
            && progress.generation < self.generation
            && (progress.tick < tick || progress.tick == tick && within)
        {
            // What is gone of the output is corrected like anything else that it lacks. The next recovery looks at the
            // record before this end: it must not be an aborted one again.
            let without_them = if aborted.is_some() { end } else { progress.end.min(end) };
            let end = uncovered.last().map_or(without_them, |(offset, _)| Offset(offset.0 + 1));
            lane.give_up_through(self.opened_at.min(Tick(tick.0 - 1)), end);
            return Ok(());
        }
        if lane.is_left(progress.tick) {
            // What an append output has lost stays lost.
            if end < progress.end || aborted.is_some() && uncovered.is_empty() {
                progress.end = end;
            }
        } else if let Some(offset) = aborted {
            let (at, envelope) = (lane.at.clone(), lane.envelope());
            return Err(OutputFault::Aborted { at, offset, envelope }.into());
        }
        if end < progress.end && self.first_recovery {
            let (at, written, envelope) = (lane.at.clone(), progress.end, lane.envelope());
            return Err(OutputFault::EndsEarly { at, end, written, envelope }.into());
        }
        if !self.rules.has(Rule::LeaveOutUncovered) {
            progress.end = uncovered.last().map_or(progress.end, |(offset, _)| Offset(offset.0 + 1));
            uncovered.clear();
        }
        if within && !self.rules.has(Rule::PositionWithinTick) {
            progress.position = Position::Records(0);
        }
        lane.recover(progress, uncovered, self.complete)
    }
}
