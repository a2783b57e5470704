//! Finding out what is committed, when a generation opens and after a transaction whose outcome is unknown.
//!
//! ```text
//!             ┌────────────────── an outcome is unknown ───────────────────┐
//!             ▼                                                            │
//!   Fencing ─all turns─► Checking ─not newer─► Reading ─► Tails ─► Active ─┤ wrong, or fenced
//!                            │ newer          ▲  │ wrong  │ wrong         │
//!                            ▼                │  └────────┴──► Doubting ◄──┘
//!                        Ended::Fenced ◄──────│─── newer ──────────┤
//!                                             │                    └─ not newer ─► the doubt ends the generation
//!   Waiting ─── the leader: all fenced ───────┘
//! ```
//!
//! # Why
//!
//! A transaction can be *partially committed*: a request to commit that was not answered is carried out late, while the
//! next transaction of the same writer and epoch is being written, and Kafka takes it for the end of that one (KIP-890).
//! Then the records that had arrived by that moment are visible and the others are not. Neither is the progress, since progress
//! is written after all of the records have been acknowledged. That order is what makes the case decidable: visible
//! progress covers only records that exist, and partially committed records are after the newest progress, where
//! recovery looks for them.
//!
//! The visible records cannot be taken back, since consumers have read them. The output can only be made right by
//! writing the rest in the same order. So the records after the progress, the *uncovered* ones, are read and handed to
//! the lane, which matches them one by one with the output that replay computes again and does not write those a second
//! time. This rests on two facts: the output of a tick is the same whenever it is computed, and its order in a
//! partition is fixed. A record that does not match is another writer's, and the generation ends, because nothing that
//! it could write would be right.
//!
//! All of this must look at a state that does not change any more. A process that asks for the progress while one of its own
//! requests is under way may read it just before the commit takes effect. So every writer of the process is fenced
//! first, and the journal is read after that: a process that was paused between the two gets the newest epoch although
//! a newer generation writes by now, and only the journal says so. For the same reason whatever looks wrong (progress
//! that is ahead, foreign records, other digests) is a *doubt* at first: a newer generation that this one does not know
//! of yet causes exactly such findings. The journal is read before a fault is reported.
//!
//! **Does not** decide by time. How long an answer may take is up to the sink, and failures that go on are counted by
//! [`waiting`](super::waiting).

use std::collections::{BTreeMap, VecDeque};

use fluvial_connector::{Digest, Offset, OutputPartition, Position, Progress, Tick};

use super::lane::{Lane, Point, Replaying, State, Target, Uncovered, Unknown};
use super::queue::Queue;
use super::{Action, Committer, Done, Opened, Phase, Tail};
use crate::recreated::refuse_recreated;
use crate::{Ended, OutputFault, Rule, Verdict};

impl Committer {
    /// Gives up all transactions that are under way and finds out which of them are committed.
    pub(super) fn recover(&mut self) {
        self.lanes.iter_mut().for_each(Lane::lose);
        self.enter(Phase::Fencing((0..self.config.turns).collect()));
    }

    /// Ends the generation for this reason. If a newer generation that this one does not know of yet could be the
    /// cause, the journal is asked first.
    pub(crate) fn doubt(&mut self, ended: Ended) -> Result<(), Ended> {
        if !ended.may_be_a_newer_generations() {
            return Err(ended);
        }
        if !matches!(self.phase, Phase::Doubting(_)) {
            self.enter(Phase::Doubting(ended));
        }
        Ok(())
    }

    /// Begins a phase, and lists the questions that it has to ask.
    pub(super) fn enter(&mut self, phase: Phase) {
        self.questions = match &phase {
            Phase::Waiting | Phase::Active(_) => VecDeque::new(),
            Phase::Fencing(turns) => turns.iter().rev().map(|turn| Action::Fence { turn: *turn }).collect(),
            Phase::Checking | Phase::Doubting(_) => [Action::CheckJournal].into(),
            Phase::Reading => [Action::ReadProgress].into(),
            Phase::Tails(progress) => {
                let from =
                    |Lane { target: Target { at, .. }, .. }: &Lane| (at.clone(), progress.get(at).map(|p| p.end));
                [Action::ReadTails(self.lanes.iter().map(from).collect())].into()
            }
        };
        self.phase = phase;
    }

    /// Takes the answer to a question of the current phase.
    pub(super) fn answered(&mut self, done: Done) -> Result<(), Ended> {
        match (&mut self.phase, done) {
            // The result of a transaction that was under way when it was given up.
            (_, Done::Prepared { .. } | Done::Committed { .. }) => {}
            (Phase::Fencing(turns), Done::Fenced { turn }) => {
                turns.remove(&turn);
                if turns.is_empty() {
                    let asks = self.opened.rules.has(Rule::AskTheJournalAfterFencing);
                    self.enter(if asks { Phase::Checking } else { Phase::Reading });
                }
            }
            (Phase::Checking | Phase::Doubting(_), Done::Journal(Verdict::Newer(by))) => {
                return Err(Ended::Fenced { by });
            }
            (Phase::Doubting(ended), Done::Journal(_)) => return Err(ended.clone()),
            (Phase::Checking, Done::Journal(_)) => self.enter(Phase::Reading),
            (Phase::Reading, Done::Progress(progress, status)) => {
                let checked = refuse_recreated(&self.sinks, &status);
                let checked = checked.and_then(|()| self.check_progress(self.sealed, &progress));
                match checked {
                    Ok(()) => self.enter(Phase::Tails(progress)),
                    Err(ended) => return self.doubt(ended),
                }
            }
            (Phase::Tails(progress), Done::Tails(tails)) if tails.len() == self.lanes.len() => {
                let (sealed, complete) = (self.sealed, self.complete);
                let found = self.lanes.iter_mut().zip(tails).try_for_each(|(lane, tail)| {
                    lane.found(&self.opened, sealed, progress.remove(&lane.target.at), tail)?;
                    lane.settle(complete)
                });
                match found {
                    Ok(()) => self.enter(Phase::Active(VecDeque::new())),
                    Err(ended) => return self.doubt(ended),
                }
            }
            (_, done) => return Err(Ended::Bug(format!("a committer got {done:?} without asking"))),
        }
        Ok(())
    }
}

impl Committer {
    /// Checks whether the sink's progress can be that of this job, by what the journal says and with ticks sealed through
    /// `sealed`.
    pub(crate) fn check_progress(
        &self,
        sealed: Tick,
        progress: &BTreeMap<OutputPartition, Progress>,
    ) -> Result<(), Ended> {
        self.lanes.iter().try_for_each(|lane| lane.check(&self.opened, sealed, progress.get(&lane.target.at)))
    }
}

impl Lane {
    /// Checks whether the sink's progress can be that of this job, by what the journal says.
    fn check(&self, opened: &Opened, sealed: Tick, progress: Option<&Progress>) -> Result<(), Ended> {
        let Target { at, starts, as_of, .. } = &self.target;
        let known = self.committed();
        let Some(progress) = progress else {
            if opened.sealed.0 <= starts.0.saturating_sub(1) && known.is_none() {
                return Ok(());
            }
            return Err(OutputFault::NoProgress { at: at.clone(), sealed: opened.sealed }.into());
        };
        if progress.incarnation != opened.incarnation {
            let (is, own) = (progress.incarnation, opened.incarnation);
            return Err(OutputFault::ProgressOfAnother { at: at.clone(), is, own }.into());
        }
        let rules = opened.rules;
        let one_alone = rules.has(Rule::SecondTailRead) && rules.has(Rule::AskTheJournalAfterFencing);
        if progress.generation > opened.generation && one_alone {
            return Err(Ended::Fenced { by: progress.generation });
        }
        if progress.tick > sealed && rules.has(Rule::SealedBeforeVisible) {
            return Err(OutputFault::ProgressAhead { at: at.clone(), tick: progress.tick, sealed }.into());
        }
        let committed = known.map_or(*as_of, |(tick, _)| tick);
        let begun = as_of >= starts;
        let partly = progress.tick == *as_of && *as_of > Tick(0) && progress.position != Position::Complete;
        // What was sealed and not committed when the job went back is corrected.
        let is_corrected = opened.gone_back && self.target.corrected_at().is_some();
        let begun = begun && !is_corrected;
        if progress.tick < committed && (begun || known.is_some()) || begun && partly {
            return Err(OutputFault::ProgressBehind { at: at.clone(), tick: progress.tick, committed }.into());
        }
        Ok(())
    }

    /// Takes the content of the partition: its progress, which has been checked, and the records after it.
    fn found(&mut self, opened: &Opened, sealed: Tick, progress: Option<Progress>, tail: Tail) -> Result<(), Ended> {
        self.state = match std::mem::take(&mut self.state) {
            State::Unknown(unknown) => unknown.found(opened, &self.target, &self.queue, sealed, progress, tail)?,
            state => state,
        };
        Ok(())
    }
}

impl Unknown {
    /// The state that follows from the content of the partition.
    ///
    /// A partition that ends before its progress is refused when progress is found for the first time. After that, this
    /// is left to the next write, whose offsets go back. A record that was committed and is aborted by now is refused
    /// in every recovery, because no later write notices it, and none repeats its rows, which count as committed.
    fn found(
        self,
        opened: &Opened,
        target: &Target,
        queue: &Queue,
        sealed: Tick,
        progress: Option<Progress>,
        tail: Tail,
    ) -> Result<State, Ended> {
        let Target { at, envelope, .. } = target;
        let Some(mut progress) = progress else {
            let tick = Tick(target.starts.0.saturating_sub(1));
            return Ok(State::New(Point::complete(tick, queue.before(), tail.end)));
        };
        let Tail { records: mut uncovered, end, aborted } = tail;
        let end_of_uncovered = uncovered.last().map(|(offset, _)| Offset(offset.0 + 1));
        if let Some((written, since)) = self.went_back {
            return Err(OutputFault::WentBack { at: at.clone(), written, since, envelope: *envelope }.into());
        }
        let within = progress.position != Position::Complete;
        if let Some(tick) = target.corrected_at()
            && progress.generation < opened.generation
            && (progress.tick < tick || progress.tick == tick && within)
        {
            // Whatever was committed before the reconciliation is accepted, even if it is partially committed or has
            // been lost, because the reconciliation will correct the partition. The partition first gets progress of
            // this generation, as of a sealed tick, so that records of a later partially committed transaction can be
            // told from those before. The next recovery looks at the record before this end, which must not be an
            // aborted one again.
            let without = if aborted.is_some() { end } else { progress.end.min(end) };
            let tick = opened.sealed.min(Tick(tick.0 - 1));
            return Ok(State::New(Point::complete(tick, Digest::default(), end_of_uncovered.unwrap_or(without))));
        }
        if target.is_left(progress.tick) {
            // Records that an append output has lost stay lost, because the reconciliation does not correct it.
            if end < progress.end || aborted.is_some() && uncovered.is_empty() {
                progress.end = end;
            }
        } else if let Some(offset) = aborted {
            return Err(OutputFault::Aborted { at: at.clone(), offset, envelope: *envelope }.into());
        }
        if end < progress.end && self.committed.is_none() {
            let written = progress.end;
            return Err(OutputFault::EndsEarly { at: at.clone(), end, written, envelope: *envelope }.into());
        }
        if !opened.rules.has(Rule::LeaveOutUncovered) {
            progress.end = end_of_uncovered.unwrap_or(progress.end);
            uncovered.clear();
        }
        if within && !opened.rules.has(Rule::PositionWithinTick) {
            progress.position = Position::Records(0);
        }
        Ok(State::Replaying(Replaying { progress, uncovered: Uncovered { records: uncovered.into(), sealed } }))
    }
}
