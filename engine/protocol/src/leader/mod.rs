//! One generation's deciding half: it opens the journal, mints, seals, completes checkpoints and deletes.
//!
//! ```text
//!   opening ─► (looking) ─► preparing ─► fencing ─────► tail ─────────► restoring ────► running ─► ended
//!   journal    where input  outputs      Order::Opened  read it again,  Order::         Minted, Sealed,
//!              ends; what   begin        Report::Fenced every process   AllFenced       SplitStarted,
//!              outputs hold                             has fenced      Report::Ready   CheckpointComplete, Finish
//! ```
//!
//! It does no I/O and reads no clock: events come in by [`Leader::on`], what is to be done goes out by
//! [`Leader::next_request`]. It guarantees that nothing is minted before every writer of every earlier generation is
//! fenced and the journal has been found without a newer generation after that. It does not know how the workers do
//! what they are told.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fluvial_connector::{Envelope, Generation, Incarnation, SinkStatus, Tick};

use crate::appender::lost_the_race;
use crate::compaction::Compare;
use crate::journal::{Nonce, Seq, SinkStart, SplitNumber};
use crate::manifest::SplitState;
use crate::messages::{FoundOutput, FoundSplit, HeldOutput, Layout, Order, Plan, Report};
use crate::opening::{Opened, Opener, Opening};
use crate::preparing::{Prepared, refuse_held};
use crate::recreated::refuse_recreated;
use crate::rules::{Rule, Rules};
use crate::running::Running;
use crate::sequencer::Pace;
use crate::splits::Splits;
use crate::store::{Answer, Call, Identity, Part, Verdict};
use crate::{Ended, GoBack, Mismatch};

/// How often the clock is looked at while nothing else happens.
const AT_LEAST_EVERY_MS: u64 = 1000;

/// What a generation is started with.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
    /// The job's incarnation if the journal is empty; otherwise the journal says it.
    pub incarnation: Incarnation,
    /// A random number of this generation alone.
    pub nonce: Nonce,
    /// The newest generation of the same run that has opened, if one has. Where another run's has since, this one is
    /// fenced: a run begins the next generation by itself only after its own.
    pub follows: Option<Generation>,
    /// What tells the program from others that may compute other output ([`Entry::Opened`](crate::journal::Entry::Opened)).
    pub program: String,
    /// How many workers and processes this generation has.
    pub layout: Layout,
    /// How many writers each process has, which take turns.
    pub turns: u32,
    /// The names of the binary's sources.
    pub sources: Vec<String>,
    /// The outputs of the binary, with the partitions that they have now.
    pub outputs: Vec<FoundOutput>,
    /// What the sink says of them, asked for before the journal is opened.
    pub sink: SinkStatus,
    /// When ticks are minted.
    pub pace: Pace,
    /// The least time between the beginnings of two records of the journal.
    pub append_every_ms: u64,
    /// The least time between the beginnings of two checkpoints.
    pub checkpoint_every_ms: u64,
    /// The same while nothing changes; shorter than the limit that follows.
    pub idle_checkpoint_every_ms: u64,
    /// A generation ends whose last complete checkpoint is older.
    pub checkpoint_age_limit_ms: u64,
    /// Nothing of the journal is deleted.
    pub keep_journal: bool,
    /// The run takes the input as it is until it has a checkpoint, corrects upsert outputs and begins new ones.
    pub reconcile: bool,
    /// The hash of the program that a person has approved. If it is `program`, and another one wrote the outputs, they are
    /// corrected.
    pub upgrade: Option<String>,
    /// The savepoint that the job is to go back to, unless it has done so.
    pub go_back: Option<GoBack>,
    /// Append outputs, which cannot be corrected, do not stand in the way of a reconciliation or an upgrade.
    pub leave_append_outputs: bool,
    /// How long an object stays after nothing names it any more: longer than any pause that a process survives.
    pub grace_ms: u64,
    /// A clock that goes on by more in one step ends the generation.
    pub max_clock_jump_ms: u64,
}

/// What the leader is told.
#[derive(Debug)]
pub enum Event {
    /// The store's answer to a part's call.
    Store(Part, Answer),
    /// A worker's report.
    FromWorker(u32, Report),
    /// The splits that some of the sources have now, all splits of each; known ones may be among them. Asked for before the
    /// journal was opened, and then of all sources, or after [`Leader::identity`] is known.
    Splits(Vec<FoundSplit>),
    /// The answer to [`Request::Survey`]: the upsert outputs that this job has no progress for.
    Surveyed(Vec<HeldOutput>),
    /// What the sink says of the outputs, asked for since the journal was opened.
    Outputs(SinkStatus),
    /// Mint what has been read so far, take a checkpoint, and end well. On a signal, and when all that was to be read
    /// has been reported as [`Report::Read`].
    Stop,
    /// Time has passed.
    Time,
}

/// What the leader wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Make this call; answer with [`Event::Store`] and the same part.
    Store(Part, Call),
    /// Send this to every worker, in the order of the requests.
    Broadcast(Order),
    /// Tell the person.
    Warn(String),
    /// Look at what the upsert outputs hold that this job has no progress for; answer with [`Event::Surveyed`].
    Survey,
}

/// How far a generation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The last tick minted.
    pub minted: Tick,
    /// The last tick that is durable in the journal.
    pub sealed: Tick,
    /// What every process has committed through.
    pub committed: Tick,
    /// The newest complete checkpoint.
    pub checkpoint: Option<Tick>,
    /// The size of the ticks that are minted and not committed.
    pub in_flight_bytes: u64,
}

/// A generation's leader.
#[derive(Debug)]
pub struct Leader {
    config: LeaderConfig,
    stage: Stage,
    me: Option<Identity>,
    out: VecDeque<Request>,
    found: Option<Vec<FoundSplit>>,
    /// What the sources have said of each split that this generation continues, since it claimed the journal.
    splits: Splits,
    /// The outputs that this generation continues.
    sinks: Vec<SinkStart>,
    stop: bool,
    now_ms: u64,
    /// How far the clock has gone back since the beginning, in milliseconds. It is added to the clock, so that the
    /// leader's time does not go back.
    back_ms: u64,
    /// The status of the generation when it ended.
    at_the_end: Status,
    rules: Rules,
}

#[derive(Debug)]
enum Stage {
    Opening(Box<Opening>),
    /// A reconciliation accepts the input as it is. The sources are asked where it ends, now that no earlier generation
    /// binds any more of it. The end of an unavailable split is not known, so the leader waits until the split is
    /// available.
    ///
    /// A job that goes back to a savepoint asks, too, because its records have to be there still.
    Looking {
        opened: Box<Opened>,
        compare: Compare,
        /// Whether a warning has said which splits the leader waits for.
        told: bool,
    },
    /// The job has not written anything yet, and the sink is being asked what its upsert outputs hold.
    Surveying(Box<Opened>),
    /// What the opening adds to the journal is being appended.
    Preparing(Box<Prepared>),
    /// Processes fence the writers of earlier generations.
    Fencing {
        prepared: Box<Prepared>,
        fenced: BTreeSet<u32>,
    },
    /// The journal's tail is being read again.
    Tail {
        prepared: Box<Prepared>,
        beyond: Option<Seq>,
        asked: bool,
    },
    /// Workers restore, and read progress; those that are ready may be ahead of the others.
    Restoring {
        prepared: Box<Prepared>,
        ready: BTreeSet<u32>,
        early: Vec<(u32, Report)>,
    },
    Running(Box<Running>),
    Over,
}

impl Leader {
    /// A leader that is about to open the journal.
    #[must_use]
    pub fn new(config: LeaderConfig, now_ms: u64) -> Self {
        Self::with_rules(config, now_ms, Rules::default())
    }

    pub(crate) fn with_rules(config: LeaderConfig, now_ms: u64, rules: Rules) -> Self {
        let opener = Opener {
            incarnation: config.incarnation,
            nonce: config.nonce,
            follows: config.follows,
            go_back: config.go_back.clone(),
            program: config.program.clone(),
            layout: config.layout,
            turns: config.turns,
        };
        let stage = Stage::Opening(Box::new(Opening::new(opener, rules)));
        Self {
            config,
            stage,
            me: None,
            out: VecDeque::new(),
            found: None,
            splits: Splits::default(),
            sinks: Vec::new(),
            stop: false,
            now_ms,
            back_ms: 0,
            at_the_end: Status::default(),
            rules,
        }
    }

    /// Takes an event. Requests that are left after an error are still to be carried out (the last broadcasts). Once the
    /// generation is over, what comes was under way and changes nothing: workers read until they hear of the end.
    ///
    /// # Errors
    /// The generation is over.
    pub fn on(&mut self, event: Event, now_ms: u64) -> Result<(), Ended> {
        if matches!(self.stage, Stage::Over) {
            return Ok(());
        }
        self.back_ms += self.now_ms.saturating_sub(now_ms + self.back_ms);
        let now_ms = now_ms + self.back_ms;
        let by_ms = now_ms - self.now_ms;
        self.now_ms = now_ms;
        let result =
            if by_ms > self.config.max_clock_jump_ms { Err(Ended::ClockJumped { by_ms }) } else { self.take(event) };
        if result.is_err() {
            self.at_the_end = self.status();
            self.stage = Stage::Over;
        }
        result
    }

    /// What to do next; `None` until the next event.
    pub fn next_request(&mut self) -> Option<Request> {
        if let Some(request) = self.out.pop_front() {
            return Some(request);
        }
        let opening = |call| Request::Store(Part::Opening, call);
        match &mut self.stage {
            Stage::Opening(machine) => machine.next_call().map(opening),
            Stage::Preparing(prepared) => {
                prepared.appender.next_call(self.now_ms).map(|c| Request::Store(Part::Appender, c))
            }
            Stage::Tail { prepared, beyond, asked } if !*asked => {
                *asked = true;
                Some(opening(match beyond {
                    None => Call::List { after: Some(prepared.tail) },
                    Some(seq) => Call::Get(vec![*seq]),
                }))
            }
            Stage::Running(running) => running.next_call(self.now_ms),
            Stage::Looking { .. } | Stage::Surveying(_) | Stage::Tail { .. } | Stage::Fencing { .. } => None,
            Stage::Restoring { .. } | Stage::Over => None,
        }
    }

    /// The next request that stands already; unlike [`Leader::next_request`], this begins no call to the store.
    pub(crate) fn waiting_request(&mut self) -> Option<Request> {
        self.out.pop_front()
    }

    /// The plan of this generation, before the workers have it.
    pub(crate) fn plan(&self) -> Option<&Plan> {
        match &self.stage {
            Stage::Preparing(prepared) | Stage::Fencing { prepared, .. } => Some(&prepared.plan),
            _ => None,
        }
    }

    /// Whether a split seems to end too early, and its source has to be asked again.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.splits.is_in_doubt()
    }

    /// When [`Event::Time`] is of use at the latest.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        // What takes long, an opening or an outage, must not look like a clock that leapt.
        let look = self.now_ms + AT_LEAST_EVERY_MS;
        let deadline = match &self.stage {
            Stage::Running(running) => running.deadline_ms(&self.config).min(look),
            Stage::Over => return None,
            _ => look,
        };
        Some(deadline.saturating_sub(self.back_ms))
    }

    /// Who this generation is, once it has claimed its place in the journal.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.me
    }

    /// Whether the opening is done.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running(_))
    }

    /// Whether everything is replayed that earlier generations bound, and their outputs are corrected if they are to be.
    #[must_use]
    pub fn has_replayed(&self) -> bool {
        matches!(&self.stage, Stage::Running(running) if running.replays_through.is_none())
    }

    /// How far this generation is.
    #[must_use]
    pub fn status(&self) -> Status {
        let Stage::Running(running) = &self.stage else { return self.at_the_end };
        Status {
            minted: running.sequencer.last(),
            sealed: running.sealed,
            committed: running.committed(),
            checkpoint: running.checkpointer.newest().map(|manifest| manifest.tick),
            in_flight_bytes: running.sequencer.in_flight_bytes(),
        }
    }

    fn take(&mut self, event: Event) -> Result<(), Ended> {
        match event {
            Event::Splits(found) => {
                self.splits.hear(&found)?;
                self.found = Some(with_other_sources(found, self.found.take().unwrap_or_default()));
                self.judge()?;
            }
            Event::Surveyed(held) => self.on_survey(&held)?,
            Event::Outputs(status) => refuse_recreated(&self.sinks, &status)?,
            Event::Stop => self.stop = true,
            Event::Time => {}
            Event::Store(part, answer) => self.on_answer(part, answer)?,
            Event::FromWorker(worker, report) => self.on_report(worker, report)?,
        }
        if let Stage::Running(running) = &mut self.stage {
            if let Some(found) = self.found.take() {
                running.on_splits(found, &mut self.splits);
            }
            running.stopping |= self.stop;
            running.step(&self.config, self.now_ms, &mut self.out)?;
        }
        Ok(())
    }

    /// Decides what follows from the answers of the sources. A truncated split is refused, unless the input is accepted
    /// as it is: the job then continues at the ends of the truncated splits, as soon as the end of each split is known.
    fn judge(&mut self) -> Result<(), Ended> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Looking { opened, compare, told } => {
                if self.splits.is_decided() {
                    if compare != Compare::Nothing {
                        self.splits.refuse_truncated()?;
                        self.splits.refuse_lost()?;
                    }
                    return self.prepare(*opened, compare);
                }
                let waits = self.splits.undecided().map(|(described, why)| format!("{described}: {why}"));
                let waits = waits.collect::<Vec<_>>().join("; ");
                if !told && !waits.is_empty() {
                    self.out.push_back(Request::Warn(format!(
                        "the job waits until it is known where each split begins and ends: {waits}"
                    )));
                }
                self.stage = Stage::Looking { opened, compare, told: told || !waits.is_empty() };
                Ok(())
            }
            stage => {
                self.stage = stage;
                Ok(self.splits.refuse_truncated()?)
            }
        }
    }

    fn on_answer(&mut self, part: Part, answer: Answer) -> Result<(), Ended> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Opening(mut opening) => match opening.on(answer)? {
                Some(opened) => self.opened(opened),
                None => {
                    self.stage = Stage::Opening(opening);
                    Ok(())
                }
            },
            Stage::Preparing(mut prepared) => {
                if let Some(appended) = prepared.appender.on(answer)? {
                    prepared.tail = appended.seq;
                    prepared.cleaner.knows(appended.seq, &appended.record);
                }
                self.prepared(prepared);
                Ok(())
            }
            Stage::Tail { prepared, beyond, .. } => self.on_tail(prepared, beyond, answer),
            Stage::Running(mut running) => {
                let result = running.on_answer(part, answer, self.now_ms, &mut self.out);
                self.stage = Stage::Running(running);
                result
            }
            stage @ (Stage::Looking { .. }
            | Stage::Surveying(_)
            | Stage::Fencing { .. }
            | Stage::Restoring { .. }
            | Stage::Over) => {
                self.stage = stage;
                Err(Ended::Bug(format!("the store answered {part:?}, which had asked nothing")))
            }
        }
    }

    /// Goes on with a journal that has been opened.
    pub(crate) fn opened(&mut self, opened: Opened) -> Result<(), Ended> {
        self.me = Some(opened.me);
        self.refuse_lost_sources(&opened)?;
        let compare = opened.compare(self.config.reconcile);
        if compare == Compare::Nothing || opened.goes_back.as_ref().is_some_and(|back| back.corrects) {
            self.splits = splits_of(&opened.history.splits);
            self.stage = Stage::Looking { opened: Box::new(opened), compare, told: false };
            return self.judge();
        }
        let upserts = self.config.outputs.iter().any(|output| output.envelope == Envelope::Upsert);
        if upserts && opened.history.sealed() == Tick(0) {
            self.out.push_back(Request::Survey);
            self.stage = Stage::Surveying(Box::new(opened));
            return Ok(());
        }
        self.prepare(opened, compare)
    }

    /// Refuses a binary that lacks a source which the job has read: nobody would tell of its splits, nor read them.
    fn refuse_lost_sources(&self, opened: &Opened) -> Result<(), Ended> {
        let mut starts = opened.history.splits.values().map(|state| &state.start);
        match starts.find(|start| !self.config.sources.contains(&start.source)) {
            None => Ok(()),
            Some(start) => Err(Mismatch::SourceMissing { source_name: start.source.clone() }.into()),
        }
    }

    fn on_survey(&mut self, held: &[HeldOutput]) -> Result<(), Ended> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Surveying(opened) => {
                refuse_held(held)?;
                self.prepare(*opened, Compare::All)
            }
            stage => {
                Err(Ended::Bug(format!("the outputs were looked at in {}, where nothing was asked", stage.name())))
            }
        }
    }

    /// Adds to the journal what this generation begins: new outputs, a reconciliation.
    fn prepare(&mut self, opened: Opened, compare: Compare) -> Result<(), Ended> {
        let found = self.found.as_deref().unwrap_or_default();
        // Before anything is appended, restored or replayed: nothing of it could be right.
        splits_of(&opened.history.splits).refuse_recreated(found)?;
        let (config, splits) = (&self.config, &self.splits);
        let (prepared, warnings) = Prepared::new(config, opened, compare, splits, self.now_ms, self.rules)?;
        self.splits = splits_of(prepared.splits());
        self.sinks.clone_from(&prepared.plan.sinks);
        self.out.extend(warnings.into_iter().map(Request::Warn));
        self.prepared(Box::new(prepared));
        Ok(())
    }

    fn prepared(&mut self, prepared: Box<Prepared>) {
        self.stage = if prepared.appender.is_idle() {
            self.out.push_back(Request::Broadcast(Order::Opened(Box::new(prepared.plan.clone()))));
            Stage::Fencing { prepared, fenced: BTreeSet::new() }
        } else {
            Stage::Preparing(prepared)
        };
    }

    fn on_tail(&mut self, prepared: Box<Prepared>, beyond: Option<Seq>, answer: Answer) -> Result<(), Ended> {
        match (beyond, answer) {
            (None, Answer::Positions(positions)) => match positions.last() {
                None => self.all_fenced(prepared),
                Some(newest) => self.stage = Stage::Tail { prepared, beyond: Some(*newest), asked: false },
            },
            (Some(seq), Answer::Records(found)) => {
                let Some((_, Some(record))) = found.last() else {
                    // Pruned in between: then there is a newer one.
                    self.stage = Stage::Tail { prepared, beyond: None, asked: false };
                    return Ok(());
                };
                return match prepared.identity().judge(seq, record)? {
                    Verdict::Newer(by) => Err(Ended::Fenced { by }),
                    Verdict::Mine | Verdict::Older => Err(lost_the_race(seq)),
                };
            }
            (_, answer) => return Err(Ended::Bug(format!("reading the tail got {answer:?}"))),
        }
        Ok(())
    }

    fn all_fenced(&mut self, prepared: Box<Prepared>) {
        self.out.push_back(Request::Broadcast(Order::AllFenced));
        self.stage = Stage::Restoring { prepared, ready: BTreeSet::new(), early: Vec::new() };
    }

    fn on_report(&mut self, worker: u32, report: Report) -> Result<(), Ended> {
        match (std::mem::replace(&mut self.stage, Stage::Over), report) {
            (Stage::Fencing { prepared, mut fenced }, Report::Fenced) => {
                fenced.insert(worker);
                if fenced.len() < self.config.layout.processes as usize {
                    self.stage = Stage::Fencing { prepared, fenced };
                } else if self.rules.has(Rule::SecondTailRead) {
                    self.stage = Stage::Tail { prepared, beyond: None, asked: false };
                } else {
                    self.all_fenced(prepared);
                }
                Ok(())
            }
            (Stage::Restoring { mut prepared, mut ready, early }, Report::Ready { operators }) => {
                prepared.checkpointer.has_operators(operators)?;
                ready.insert(worker);
                if ready.len() < self.config.layout.workers as usize {
                    self.stage = Stage::Restoring { prepared, ready, early };
                    return Ok(());
                }
                self.stage = Stage::Running(Box::new(prepared.run(&self.config, self.now_ms, self.stop)));
                early.into_iter().try_for_each(|(worker, report)| self.on_report(worker, report))
            }
            (Stage::Running(mut running), report) => {
                let result = running.on_report(worker, report, self.now_ms);
                self.stage = Stage::Running(running);
                result
            }
            (Stage::Restoring { prepared, ready, mut early }, report) => {
                early.push((worker, report));
                self.stage = Stage::Restoring { prepared, ready, early };
                Ok(())
            }
            (stage, report) => Err(Ended::Bug(format!("worker {worker} reported {report:?} at {}", stage.name()))),
        }
    }
}

/// These splits, with the offset up to which each has been read. No source has said anything of them yet.
fn splits_of(states: &BTreeMap<SplitNumber, SplitState>) -> Splits {
    let mut splits = Splits::default();
    for SplitState { start, position, .. } in states.values() {
        splits.add(start, *position);
    }
    splits
}

/// The newest answers of all sources: `found` from those that have just answered, and of `before` those of the others.
fn with_other_sources(found: Vec<FoundSplit>, mut before: Vec<FoundSplit>) -> Vec<FoundSplit> {
    let sources: BTreeSet<&str> = found.iter().map(|found| &*found.source).collect();
    before.retain(|before| !sources.contains(&*before.source));
    before.extend(found);
    before
}

impl Stage {
    fn name(&self) -> &'static str {
        match self {
            Self::Opening(_) => "opening",
            Self::Looking { .. } => "looking",
            Self::Surveying(_) => "looking at the outputs",
            Self::Preparing(_) => "preparing",
            Self::Fencing { .. } => "fencing",
            Self::Tail { .. } => "reading the tail",
            Self::Restoring { .. } => "restoring",
            Self::Running(_) => "running",
            Self::Over => "the end",
        }
    }
}
