//! Runs the leader's state machine beside worker 0: its calls go to the store, its orders to the workers.
//!
//! ```text
//!   reports of workers (control channel) ──► Leader ──► orders to all workers (control channel)
//!   answers, found splits, outputs, stop ──►        ──► calls to the store, surveys ─────────► beside the worker ──► answers
//! ```
//!
//! The leader is no thread: worker 0 steps it once in each turn of its loop, so that a tick is minted in the turn in which its
//! input was reported. It owns the machine, the status line, and the threads that ask sources and outputs what they are.
//! Everything that takes time happens beside the worker (`background.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_connector::{Envelope, Incarnation, Offset, SinkStatus, Waker};
use fluvial_node::process_link::Succession;
use fluvial_protocol::journal::{Nonce, SplitName};
use fluvial_protocol::{
    Answer, Call, Ended, Event, Exit, FoundOutput, FoundSplit, HeldOutput, Leader, LeaderConfig, Order, Pace, Part,
    Plan, Report, Request, System,
};

use super::ambient;
use super::background::{Background, Serve, Server, wait_out};
use super::config::RunConfig;
use super::control::{Control, Message};
use super::discovery::{self, Asking, Discovered, Discovery, of_source};
use super::failure::{Failure, chain};
use super::member::Member;
use super::missed;
use super::outputs;
use super::process::ForTheLeader;
use super::request_rate::{HEARTBEAT, LONGEST_HEARTBEAT, RequestRate, checkpoint_age_limit};
use super::status::StatusLine;
use super::unavailable::LOOK_AGAIN;
use crate::fail_point::{FailPoint, reach};
use crate::stages::STAGES;

/// Input is to stay readable for so many checkpoint intervals: the last checkpoint may be an old one, and a restart takes
/// its time.
const CHECKPOINTS_TO_REPLAY: u32 = 5;

/// How far the job has committed in each split of each source.
pub(crate) type Positions = Vec<(SplitName, Offset)>;

/// The result of work that the leader has given to other threads.
enum Back {
    Answered(Part, Answer),
    /// The status of the outputs.
    Outputs(SinkStatus),
    /// The rows of the upsert outputs that this job has no progress for.
    Surveyed(Vec<HeldOutput>),
    /// The node asks for the end.
    Stop,
}

/// The leader of this generation, on worker 0.
pub(crate) struct LeaderDriver {
    leader: Leader,
    background: Background<Back>,
    discovery: Discovery,
    /// The thread that asks the sink for the status of the outputs.
    outputs: Server<()>,
    member: Arc<Member>,
    stopping: Option<Instant>,
    /// The workers that have reported all input that was to be read.
    at_end: BTreeSet<u32>,
    /// Where the input ended at the start, for a job that stops there; `None` once the workers have been told.
    ends: Option<Ends>,
    opened: bool,
    /// Whether the workers have their plan.
    planned: bool,
    /// When the opening asked the sources last for their splits.
    asked: Option<Instant>,
    running: bool,
    said_open: bool,
    pub(crate) status: StatusLine,
}

impl LeaderDriver {
    /// Creates the leader from what the first process found.
    pub(crate) fn new(member: &Arc<Member>, with: ForTheLeader, waker: &Waker) -> Result<Self, Failure> {
        let ForTheLeader { found, succession, stop, program, rate } = with;
        let options = &member.config;
        let sources = member.sources.iter().map(|(name, _)| name.clone()).collect();
        let outputs = (found.outputs.clone(), found.sink.clone());
        let config = leader_config(options, sources, outputs, program, succession, rate);
        let background = Background::new(waker);
        background.spawn("stop", move || stop.recv().ok().map(|()| Ok(Back::Stop)))?;
        let discovery = Self::discover(member, waker, &found.splits)?;
        let session = member.sink.session()?;
        let of_warnings = Arc::clone(&session);
        background.spawn("warnings", move || {
            outputs::warn(of_warnings.as_ref());
            None
        })?;
        let look = move |()| outputs::look(session.as_ref()).map(|status| Ok(Back::Outputs(status)));
        let outputs = background.serve("outputs", Serve::Newest, look)?;
        let mut driver = Self {
            leader: Leader::new(config, ambient::now_ms()),
            background,
            discovery,
            outputs,
            member: Arc::clone(member),
            stopping: None,
            at_end: BTreeSet::new(),
            ends: options.stop_at_end.then(|| discovery::ends(&found.splits)),
            opened: false,
            planned: false,
            asked: None,
            running: false,
            said_open: false,
            status: StatusLine::new(),
        };
        driver.status.found(&found.splits);
        // This event cannot fail: the machine has not begun.
        let _ = driver.leader.on(Event::Splits(found.splits), ambient::now_ms());
        Ok(driver)
    }

    /// Starts to ask the sources for their splits, and to tell them how far the job is.
    fn discover(member: &Member, waker: &Waker, before: &[FoundSplit]) -> Result<Discovery, Failure> {
        let options = &member.config;
        let asking =
            Asking { job: member.process.job.clone(), patience: options.patience, window: input_to_replay(options) };
        Discovery::start(&member.sources, &asking, before, waker)
    }

    /// Takes a worker's report.
    pub(crate) fn hear(&mut self, worker: u32, report: Report, control: &mut Control) -> Result<(), Failure> {
        self.status.hear(&report);
        self.event(Event::FromWorker(worker, report), control)
    }

    /// Takes note that a worker has reported all input that was to be read. The job ends when all workers have.
    pub(crate) fn at_end(&mut self, worker: u32, control: &mut Control) -> Result<(), Failure> {
        self.at_end.insert(worker);
        if self.is_at_end() { self.event(Event::Stop, control) } else { Ok(()) }
    }

    /// Whether all input that was to be read has been reported.
    fn is_at_end(&self) -> bool {
        self.at_end.len() == self.member.config.layout.workers as usize
    }

    /// Whether the job has been told to finish.
    fn is_stopping(&self) -> bool {
        self.stopping.is_some() || self.is_at_end()
    }

    fn stop(&mut self, control: &mut Control) -> Result<(), Failure> {
        if !self.running {
            return Err(Failure::new(Exit::StoppedUncommitted, anyhow::anyhow!("stopped before the job was open")));
        }
        self.stopping = Some(ambient::instant());
        self.event(Event::Stop, control)
    }

    /// Does what has become due.
    pub(crate) fn step(&mut self, control: &mut Control) -> Result<(), Failure> {
        while let Some(back) = self.background.next()? {
            match back {
                Back::Answered(part, answer) => self.event(Event::Store(part, answer), control)?,
                Back::Surveyed(held) => self.event(Event::Surveyed(held), control)?,
                Back::Stop => self.stop(control)?,
                Back::Outputs(status) => self.event(Event::Outputs(status), control)?,
            }
        }
        while let Some(discovered) = self.discovery.next()? {
            match discovered {
                // A job that is about to end needs no more input.
                Discovered::Refused(_) if self.is_stopping() => {}
                Discovered::Refused(error) => return Err(Failure::of(System::Source, error)),
                Discovered::Splits(found) => {
                    self.status.found(&found);
                    if self.planned {
                        control.tell_all(&Message::Found(found.clone()));
                    }
                    self.event(Event::Splits(found), control)?;
                }
            }
        }
        if self.leader.deadline_ms().is_some_and(|at| at <= ambient::now_ms()) {
            self.event(Event::Time, control)?;
        }
        self.give_up_stopping()?;
        let status = self.leader.status();
        self.status.print(&status, self.member.store.calls.charged_requests());
        if let Some(progress) = self.status.measure(&status) {
            self.member.say_progress(progress, self.status.figures());
        }
        // The sources are asked only after the claim of the journal: an earlier answer could report less than the
        // previous generation has read since.
        if !self.opened {
        } else if let Some(positions) = self.status.ask() {
            self.discovery.ask(&positions);
            self.outputs.ask(());
        } else if !self.said_open && self.asked.is_none_or(|asked| asked.elapsed() >= LOOK_AGAIN) {
            self.ask_again();
        }
        Ok(())
    }

    /// Asks the sources for their splits at once. An opening waits for the answers, so it does not wait until the
    /// sources are asked in the regular interval, when the job's position is reported.
    fn ask_again(&mut self) {
        self.asked = Some(ambient::instant());
        self.discovery.ask(&Positions::new());
    }

    /// How long the worker may park.
    pub(crate) fn may_park(&self) -> Duration {
        let now = ambient::now_ms();
        let due = self
            .leader
            .deadline_ms()
            .map_or(Duration::from_secs(1), |at| Duration::from_millis(at.saturating_sub(now)));
        // The sources are not asked before the journal is opened.
        let rests = if self.opened { self.status.rests() } else { Duration::from_secs(1) };
        due.min(rests).min(Duration::from_secs(1))
    }

    /// The time for a good end is bounded: an unreachable store or broker must not hold up a stop for ever.
    fn give_up_stopping(&self) -> Result<(), Failure> {
        let within = self.member.config.stop_within;
        if self.stopping.is_none_or(|since| since.elapsed() < within) {
            return Ok(());
        }
        let status = self.leader.status();
        let (ending, what) = if status.committed < status.minted {
            (Exit::StoppedUncommitted, "not all output could be committed")
        } else {
            (Exit::StoppedWithoutCheckpoint, "all output is committed, but the last checkpoint is incomplete")
        };
        let committed = status.committed;
        Err(Failure::new(
            ending,
            anyhow::anyhow!("stopped after {within:?}: {what} (committed through tick {committed})"),
        ))
    }

    fn event(&mut self, event: Event, control: &mut Control) -> Result<(), Failure> {
        let result = self.leader.on(event, ambient::now_ms());
        if !self.opened
            && let Some(me) = self.leader.identity()
        {
            self.opened = true;
            self.member.say_opened(me.generation);
        }
        if !self.running && self.leader.is_running() {
            self.running = true;
            // The node knows it before anything is bound: a cluster goes back by itself from a program that has read nothing.
            tracing::debug!(target: STAGES, "input flows");
            self.member.say_running();
        }
        while let Some(request) = self.leader.next_request() {
            match request {
                Request::Broadcast(order) => {
                    self.status.order(&order);
                    note(&order);
                    if let Order::Opened(plan) = &order {
                        self.warn_of_deletions(plan)?;
                    }
                    control.broadcast(&order);
                    if matches!(order, Order::Opened(_)) {
                        self.planned = true;
                        // The workers begin to read when they receive the answers, and restore their state meanwhile.
                        self.ask_again();
                    }
                    if let Order::Minted(_) = order {
                        reach(FailPoint::AfterMinting);
                    }
                }
                Request::Warn(warning) => tracing::warn!("{warning}"),
                Request::Survey => self.survey()?,
                Request::Store(part, call) => self.call(part, call),
            }
        }
        if !self.said_open && self.leader.has_replayed() {
            self.said_open = true;
            let (workers, processes) = (self.member.config.layout.workers, self.member.config.layout.processes);
            let generation = self.leader.identity().map(|me| me.generation.0);
            let checkpoint = self.leader.status().checkpoint.map(|tick| tick.0);
            tracing::info!(generation, workers, processes, checkpoint, "the job is open");
        }
        match result {
            Ok(()) => Ok(()),
            // The workers are told to finish; the generation ends when they have.
            Err(done @ Ended::Done(_)) => {
                tracing::info!("{done}");
                self.report_the_end();
                Ok(())
            }
            Err(ended) => Err(ended.into()),
        }
    }

    /// Tells the sources how far the job has come, for tools that show the lag of a job while it does not run.
    fn report_the_end(&mut self) {
        let positions = self.status.at_the_end(&self.leader.status());
        for (name, source) in &self.member.sources {
            let of_source = of_source(&positions, name);
            if let Err(error) = source.report_committed(&self.member.process.job, &of_source) {
                tracing::debug!(
                    source = name,
                    error = chain(error),
                    "the last report of the job's position to a source failed"
                );
            }
        }
    }

    /// Tells the workers where to stop, if the job stops at the end of its input, before they hear of anything to read.
    /// Then makes the first calls of the opening.
    pub(crate) fn open(&mut self, control: &mut Control) -> Result<(), Failure> {
        if let Some(ends) = self.ends.take() {
            control.tell_all(&Message::Ends(ends.into_iter().collect()));
        }
        self.event(Event::Time, control)
    }

    fn warn_of_deletions(&self, plan: &Plan) -> Result<(), Failure> {
        let Some(checkpoint) = &plan.checkpoint else { return Ok(()) };
        let (splits, sources) = (checkpoint.splits.clone(), self.member.sources.clone());
        let patience = self.member.config.patience;
        self.background.spawn("deletions", move || {
            missed::warn_of_deletions(&splits, &sources, patience);
            None
        })
    }

    /// Asks the sink what the upsert outputs hold.
    fn survey(&self) -> Result<(), Failure> {
        let (session, patience) = (self.member.sink.session()?, self.member.config.patience);
        let upserts = self.member.sink.outputs.iter().filter(|output| output.envelope == Envelope::Upsert);
        let upserts: Vec<String> = upserts.map(|output| output.name.clone()).collect();
        self.background.spawn("survey", move || {
            let held = wait_out("sink", patience, || outputs::survey(session.as_ref(), &upserts));
            [held.map(Back::Surveyed).map_err(|error| Failure::of(System::Sink, error))]
        })
    }

    fn call(&self, part: Part, call: Call) {
        // The opening ends when the leader has an identity. A later call of this part is the second read of the
        // journal's tail.
        if part == Part::Opening && self.leader.identity().is_some() {
            reach(FailPoint::AfterFencing);
        }
        let calls = Arc::clone(&self.member.store.calls);
        self.background.spawn_task(&self.member.store.runtime, async move {
            let answer = calls.make(call).await;
            answer.map(|answer| Back::Answered(part, answer)).map_err(|error| Failure::of(System::Store, error))
        });
    }
}

/// How much of the input may have to be read again after a restart.
pub(crate) fn input_to_replay(options: &RunConfig) -> Duration {
    options.checkpoint_every.saturating_mul(CHECKPOINTS_TO_REPLAY)
}

/// What the leader of a generation is started with; `outputs` are those of the job, as found and as the sink describes them.
pub(crate) fn leader_config(
    options: &RunConfig,
    sources: Vec<String>,
    outputs: (Vec<FoundOutput>, SinkStatus),
    program: String,
    succession: Succession,
    rate: RequestRate,
) -> LeaderConfig {
    let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    LeaderConfig {
        incarnation: Incarnation(ambient::uuid()),
        nonce: Nonce::of_run(succession.run, succession.attempt),
        follows: succession.follows,
        program,
        layout: options.layout,
        turns: super::TURNS,
        sources,
        outputs: outputs.0,
        sink: outputs.1,
        pace: Pace {
            tick_interval_ms: millis(options.tick),
            heartbeat_ms: millis(HEARTBEAT),
            longest_heartbeat_ms: millis(LONGEST_HEARTBEAT),
            tick_records: options.tick_records,
            tick_bytes: (options.in_flight_bytes / 4).min(64 << 20),
            in_flight_bytes: options.in_flight_bytes,
            in_flight_ticks: 1000,
        },
        append_every_ms: millis(rate.append_every),
        checkpoint_every_ms: millis(rate.checkpoint_every),
        idle_checkpoint_every_ms: millis(rate.idle_checkpoint_every),
        checkpoint_age_limit_ms: millis(checkpoint_age_limit(options.checkpoint_every)),
        keep_journal: options.keep_journal,
        reconcile: options.reconcile,
        upgrade: options.upgrade.clone(),
        go_back: options.go_back.clone(),
        leave_append_outputs: options.leave_append_outputs,
        grace_ms: millis(options.deletion_grace),
        max_clock_jump_ms: millis(options.deletion_grace),
    }
}

/// Emits the events by which benchmarks and tests measure the stages of a generation.
fn note(order: &Order) {
    match order {
        Order::Opened(_) => tracing::debug!(target: STAGES, "opened"),
        Order::AllFenced => tracing::debug!(target: STAGES, "all fenced"),
        Order::CheckpointComplete { .. } => tracing::debug!(target: STAGES, "checkpoint complete"),
        Order::Minted(binding) => tracing::trace!(target: STAGES, tick = binding.tick.0, "minted"),
        Order::Sealed(tick) => tracing::trace!(target: STAGES, tick = tick.0, "sealed"),
        Order::SplitStarted(_) | Order::Finish(_) => {}
    }
}

/// The splits and their ends by source and split: what the status line and `--stop-at-end` know of the input.
pub(crate) type Ends = BTreeMap<SplitName, Offset>;
