//! The leader after its opening: it mints, seals, completes checkpoints and deletes.

use std::collections::{BTreeMap, VecDeque};

use fluvial_connector::{Offset, Tick};

use super::Ended;
use super::appender::{Appended, Appender};
use super::checkpointer::{Checkpointer, Stored};
use super::cleaner::Cleaner;
use super::leader::{LeaderConfig, Request};
use super::messages::{FoundSplit, Layout, Order, Passed, Report};
use super::rules::{Rule, Rules};
use super::sequencer::Sequencer;
use super::splits::Splits;
use super::store::{Answer, Part};
use crate::journal::{Entry, SplitNumber, SplitStart};
use crate::manifest::SplitState;

/// The deciding half of a generation that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub sequencer: Sequencer,
    pub appender: Appender,
    pub checkpointer: Checkpointer,
    pub cleaner: Cleaner,
    pub layout: Layout,
    /// What each process has committed through.
    pub committed: Vec<Tick>,
    pub sealed: Tick,
    pub next_checkpoint_ms: u64,
    /// When a checkpoint is due even if nothing has changed since the last one: the journal must not become long, and a
    /// checkpoint says how far the sources have been read.
    pub next_idle_checkpoint_ms: u64,
    pub last_checkpoint_ms: u64,
    /// Whether anything has changed since the last checkpoint began: input, or the splits.
    pub changed: bool,
    /// The last tick that this generation has to replay, or to correct its outputs at, until it is committed: no checkpoint
    /// can be complete before.
    pub replays_through: Option<Tick>,
    /// The last tick, once it is minted.
    pub last: Option<Tick>,
    /// Where splits ended when their source was asked, and when that was, until they have been read that far.
    pub ends: BTreeMap<SplitNumber, (Offset, u64)>,
    /// The newest stretch of each split that was passed without a record.
    pub passed: BTreeMap<SplitNumber, Passed>,
    /// Records that were compacted and have to be read again, once a worker has met them.
    pub compacted: Option<String>,
    pub stopping: bool,
    pub rules: Rules,
}

impl Running {
    /// What every process has committed through.
    pub(crate) fn committed(&self) -> Tick {
        self.committed.iter().min().copied().unwrap_or_default()
    }

    pub(crate) fn on_answer(
        &mut self,
        part: Part,
        answer: Answer,
        now_ms: u64,
        out: &mut VecDeque<Request>,
    ) -> Result<(), Ended> {
        match part {
            Part::Appender => {
                if let Some(appended) = self.appender.on(answer)? {
                    self.appended(&appended, now_ms, out)?;
                }
            }
            Part::Checkpointer => {
                if let Some(entry) = self.checkpointer.on(&answer) {
                    #[cfg(test)]
                    if let Some((name, manifest)) = self.checkpointer.on_its_way()
                        && !self.rules.has(Rule::DeleteAfterRecord)
                    {
                        let (name, manifest) = (name.to_owned(), manifest.clone());
                        self.cleaner.too_early(&name, &manifest);
                    }
                    self.appender.push(entry);
                }
            }
            Part::Cleaner => self.cleaner.on(answer, now_ms),
            Part::Opening => return Err(Ended::Bug("the opening got an answer after it was done".to_owned())),
        }
        Ok(())
    }

    /// Tells the workers what has become durable.
    fn appended(&mut self, appended: &Appended, now_ms: u64, out: &mut VecDeque<Request>) -> Result<(), Ended> {
        self.cleaner.knows(appended.seq, &appended.record);
        let mut sealed = None;
        for entry in &appended.record.entries {
            match entry {
                Entry::Binding(binding) => {
                    sealed = Some(binding.tick);
                    self.checkpointer.sealed(binding.tick, appended.seq);
                }
                Entry::SplitStarted(start) => out.push_back(Request::Broadcast(Order::SplitStarted(start.clone()))),
                Entry::Checkpoint { .. } => self.checkpointed(now_ms, out)?,
                Entry::Compacted { .. } => {
                    return Err(Ended::Compacted { what: self.compacted.take().unwrap_or_default() });
                }
                _ => {}
            }
        }
        if let Some(tick) = sealed {
            self.sealed = tick;
            out.push_back(Request::Broadcast(Order::Sealed(tick)));
        }
        Ok(())
    }

    fn checkpointed(&mut self, now_ms: u64, out: &mut VecDeque<Request>) -> Result<(), Ended> {
        let Some(complete) = self.checkpointer.recorded() else {
            return Err(Ended::Bug("a checkpoint was recorded that was not under way".to_owned()));
        };
        self.last_checkpoint_ms = now_ms;
        self.cleaner.complete(&complete.name, &complete.manifest, complete.floor, now_ms);
        let tick = complete.manifest.tick;
        let operators = complete.manifest.operators.clone();
        out.push_back(Request::Broadcast(Order::CheckpointComplete { tick, operators }));
        if self.last == Some(tick) {
            out.push_back(Request::Broadcast(Order::Finish(tick)));
            return Err(Ended::Done(tick));
        }
        Ok(())
    }

    pub(crate) fn on_report(&mut self, worker: u32, report: Report, now_ms: u64) -> Result<(), Ended> {
        match report {
            // After the last tick nothing more is minted, so nothing more need gather.
            Report::Read { .. } if self.stopping => {}
            Report::Read { ranges, bytes } => self.sequencer.gather(ranges, bytes)?,
            Report::Passed(passed) => self.passed.extend(passed.into_iter().map(|passed| (passed.split, passed))),
            Report::StateStored { tick, operator, kind, file, keys } => {
                self.checkpointer.state_stored(worker, tick, operator, Stored { kind, file, keys });
            }
            Report::Committed(tick) => {
                let process = self.layout.process_of(worker);
                let committed = self.committed.get_mut(process as usize).ok_or_else(|| unknown_worker(worker))?;
                *committed = tick.max(*committed);
                let committed = self.committed();
                self.sequencer.committed(committed);
                if self.replays_through.take_if(|replayed| *replayed <= committed).is_some() {
                    self.last_checkpoint_ms = now_ms;
                }
            }
            Report::SinkAt { tick, outputs } => {
                self.checkpointer.sink_at(self.layout.process_of(worker), tick, outputs);
            }
            Report::Merged { operator, removed, added } => {
                let object = added.object.clone();
                if !self.checkpointer.merged(&operator, &removed, added) {
                    self.cleaner.discard(object, now_ms);
                }
            }
            Report::Compacted { what } if self.compacted.is_none() => {
                if !self.rules.has(Rule::JournalWhatWasCompacted) {
                    return Err(Ended::Compacted { what });
                }
                self.compacted = Some(what);
                self.appender.push(Entry::Compacted { tick: self.sequencer.last().next() });
            }
            Report::Compacted { .. } => {}
            Report::Fenced | Report::Ready { .. } => {
                return Err(Ended::Bug(format!("worker {worker} reported the opening a second time")));
            }
        }
        Ok(())
    }

    /// Notes where splits end, which tells once they have been read that far that what lies beyond was written later.
    fn note_ends(&mut self, found: &[FoundSplit]) {
        self.catch_up();
        let found: BTreeMap<_, _> = found.iter().map(|found| ((&found.source, &found.split), found)).collect();
        for SplitState { start, .. } in self.sequencer.splits().values() {
            let found = found.get(&(&start.source, &start.split));
            if let Some((end, found)) = found.and_then(|found| Some((found.availability.end()?, found))) {
                self.ends.entry(start.number).or_insert((end, found.asked_ms));
            }
        }
        self.catch_up();
    }

    /// Notes which splits have been read to an end that they had.
    fn catch_up(&mut self) {
        for state in self.sequencer.splits_mut() {
            let passed = self.passed.get(&state.start.number);
            let read_to = passed.map_or(state.position, |passed| passed.read_to(state.position));
            if let Some((end, asked_ms)) = self.ends.get(&state.start.number).copied()
                && read_to >= end
            {
                state.caught_up_ms = state.caught_up_ms.max(asked_ms);
                self.ends.remove(&state.start.number);
            }
        }
    }

    /// Starts the splits that were not known and can be read, and adds them to `splits`. The others wait for a later
    /// answer, because it is not known yet where they begin.
    pub(crate) fn on_splits(&mut self, mut found: Vec<FoundSplit>, splits: &mut Splits) {
        found.sort_by(|a, b| (&a.source, &a.split).cmp(&(&b.source, &b.split)));
        for FoundSplit { source, split, availability, identity, .. } in &found {
            let Some(earliest) = availability.earliest() else { continue };
            let known = self.sequencer.splits().values().map(|s| &s.start);
            if known.into_iter().any(|s| s.source == *source && s.split == *split) {
                continue;
            }
            let last = self.sequencer.splits().keys().last();
            let number = SplitNumber(last.map_or(0, |last| last.0 + 1));
            let (source, split, identity) = (source.clone(), split.clone(), identity.clone());
            let start = SplitStart { number, source, split, offset: earliest, identity };
            let state = SplitState { start: start.clone(), position: start.offset, last: None, caught_up_ms: 0 };
            splits.met(&start);
            self.changed = true;
            self.sequencer.add_split(state);
            self.appender.push(Entry::SplitStarted(start));
        }
        self.note_ends(&found);
    }

    /// Does whatever is due.
    pub(crate) fn step(
        &mut self,
        config: &LeaderConfig,
        now_ms: u64,
        out: &mut VecDeque<Request>,
    ) -> Result<(), Ended> {
        let waits = |this: &Self| this.checkpoint_waits_ms().is_some_and(|at| at <= now_ms);
        while self.is_minting() && (self.stopping || self.sequencer.is_due(now_ms) || waits(self)) {
            let drained = self.stopping && self.sequencer.is_drained();
            self.mint(config, now_ms, drained, out)?;
        }
        self.checkpointer.advance(self.committed())?;
        let age_ms = now_ms.saturating_sub(self.last_checkpoint_ms);
        if self.replays_through.is_none() && age_ms > config.checkpoint_age_limit_ms {
            return Err(Ended::CheckpointTooOld { age_ms });
        }
        Ok(())
    }

    /// The last tick is the only one that waits for the checkpoint under way.
    fn is_minting(&self) -> bool {
        let waits = self.stopping && self.sequencer.is_drained() && self.checkpointer.is_pending();
        self.last.is_none() && !waits
    }

    /// When a tick has to be minted for a checkpoint, whether there is input for it or not.
    fn checkpoint_waits_ms(&self) -> Option<u64> {
        let waits = self.changed && !self.checkpointer.is_pending() && !self.stopping && self.sequencer.may_mint();
        waits.then_some(self.next_checkpoint_ms)
    }

    fn mint(
        &mut self,
        config: &LeaderConfig,
        now_ms: u64,
        last: bool,
        out: &mut VecDeque<Request>,
    ) -> Result<(), Ended> {
        let idle = !self.changed && self.sequencer.is_drained();
        let due = now_ms >= if idle { self.next_idle_checkpoint_ms } else { self.next_checkpoint_ms };
        let checkpoint = last || due && !self.stopping && !self.checkpointer.is_pending();
        let binding = self.sequencer.mint(now_ms, checkpoint)?;
        self.changed |= !binding.ranges.is_empty();
        if checkpoint {
            self.changed = false;
            self.next_checkpoint_ms = now_ms + config.checkpoint_every_ms;
            self.next_idle_checkpoint_ms = now_ms + config.idle_checkpoint_every_ms;
            self.catch_up();
            self.checkpointer.begin(binding.tick, self.sequencer.splits().values().cloned().collect());
        }
        if last {
            self.last = Some(binding.tick);
        }
        self.appender.push(Entry::Binding(binding.clone()));
        out.push_back(Request::Broadcast(Order::Minted(binding)));
        Ok(())
    }

    pub(crate) fn next_call(&mut self, now_ms: u64) -> Option<Request> {
        if let Some(call) = self.appender.next_call(now_ms) {
            return Some(Request::Store(Part::Appender, call));
        }
        if let Some(call) = self.checkpointer.next_call() {
            return Some(Request::Store(Part::Checkpointer, call));
        }
        self.cleaner.next_call(now_ms).map(|call| Request::Store(Part::Cleaner, call))
    }

    pub(crate) fn deadline_ms(&self, config: &LeaderConfig) -> u64 {
        let (minting, checkpoint) =
            if self.is_minting() { (self.sequencer.deadline_ms(), self.checkpoint_waits_ms()) } else { (None, None) };
        let age = self.last_checkpoint_ms.saturating_add(config.checkpoint_age_limit_ms).saturating_add(1);
        let age = if self.replays_through.is_none() { age } else { u64::MAX };
        let others = [self.appender.deadline_ms(), self.cleaner.deadline_ms()];
        others.into_iter().chain([minting, checkpoint]).flatten().fold(age, u64::min)
    }
}

fn unknown_worker(worker: u32) -> Ended {
    Ended::Bug(format!("a report came from worker {worker}, which does not exist"))
}
