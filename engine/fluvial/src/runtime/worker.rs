//! The loop of one worker: the only one, whether the job runs or is replayed.
//!
//! ```text
//!   ┌► control messages ─► leader (worker 0) ─► sources: read, report, release ─► dataflow ─► outlet ─► inbox ─► sink ┐
//!   └───────────────────────────────── park until something wakes the worker ◄──────────────────────────────────────┘
//! ```
//!
//! A worker is one thread. It owns everything that it drives, so none of that is shared or locked. The exception is the
//! process's [`Inbox`](super::inbox::Inbox): through it, complete ticks reach the process's first worker, which owns
//! the sink. A worker is woken by readers that have records, by timely, by other workers, and by the results of work
//! that it has given to other threads ([`background`](super::background)). It never waits for any of these within one
//! turn of its loop.
//!
//! A generation begins with an opening: the leader claims the journal, every process fences its share of earlier writers,
//! every worker restores its state, and only when all are ready is anything minted.
//!
//! In a *replay*, the plan comes from the kept journal and is replayed as after a crash. A replay fences nothing, so no
//! worker becomes ready. Therefore nothing is reported, minted, appended, checkpointed or committed: the workers lack
//! the [`Parts`] that would do so. The first worker prints complete ticks, and after the last one tells all workers to
//! finish.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_connector::{Error, Tick, Waker};
use fluvial_protocol::journal::Binding;
use fluvial_protocol::{Exit, Order, Plan, Report, System};
use timely::worker::Worker;

use super::ambient;
use super::control::{Control, Message};
use super::discovery::{self, Asking, Discovered, Discovery};
use super::failure::Failure;
use super::inbox::Outlet;
use super::leader::{Ends, LeaderDriver, Positions};
use super::member::Member;
use super::merges::Merges;
use super::meter::Meter;
use super::process::{Mode, Shared};
use super::replay::Printer;
use super::sink::SinkDriver;
use super::source::{ReadOptions, SourceDriver};
use super::unavailable::LOOK_AGAIN;
use super::uploads::Uploads;
use crate::durable::{Durables, Restore};
use crate::fail_point::{FailPoint, reach};
use crate::job::output::OutputQueue;
use crate::job::{Declared, Job, Situation};
use crate::stages::STAGES;
use crate::stream::context;

/// How many replayed ticks are in the dataflow at once: enough to keep it busy.
const MOST_REPLAYED_AT_ONCE: usize = 64;

/// How often the leader is told, at the most, where its workers read on without a record: its lag is printed less often.
const TELL_PASSED_EVERY: Duration = Duration::from_secs(1);

/// Runs one worker from the opening to the end of its generation, or of the replay.
pub(crate) fn work(worker: &mut Worker, shared: &Shared) -> Result<(), Failure> {
    let index = u32::try_from(worker.index()).expect("the number of workers is small");
    context::this_is_worker(index);
    let mut control = Control::new(worker);
    let thread = std::thread::current();
    let waker = Waker::new(move || thread.unpark());
    let mut running = match &shared.mode {
        Mode::Run(member) => open_in_a_generation(worker, shared, member, control, &waker)?,
        Mode::Replay(script) => {
            let parts = if index == 0 {
                let discovery = Some(ask_for_a_replay(shared, &mut control, &waker)?);
                Parts { printer: Some(script.printer()), discovery, ..Parts::default() }
            } else {
                Parts::default()
            };
            let open = Open { plan: &script.plan, ends: Some(script.ends.clone()), restore: None, control, parts };
            Running::open(worker, shared, open, &waker)?
        }
    };
    while !running.finished {
        shared.pulses.turn(worker.index());
        running.turn(shared)?;
        let park = running.may_park();
        worker.step_or_park(Some(park));
    }
    shared.pulses.ended(worker.index());
    // Dropping the inputs ends the dataflows, which the engine's caller runs to their end.
    Ok(())
}

/// Asks the sources for their splits, for all workers of a replay, which has no leader to do so.
fn ask_for_a_replay(shared: &Shared, control: &mut Control, waker: &Waker) -> Result<Discovery, Failure> {
    let found = discovery::splits(&shared.sources, shared.patience).map_err(|e| Failure::of(System::Source, e))?;
    let asking = Asking { job: String::new(), patience: shared.patience, window: Duration::ZERO };
    let discovery = Discovery::start(&shared.sources, &asking, &found, waker)?;
    control.tell_all(&Message::Found(found));
    Ok(discovery)
}

/// Waits until the leader has opened the journal, and restores and fences at the same time.
fn open_in_a_generation(
    worker: &mut Worker,
    shared: &Shared,
    member: &Arc<Member>,
    mut control: Control,
    waker: &Waker,
) -> Result<Running, Failure> {
    let for_the_leader = if worker.index() == 0 { member.for_the_leader() } else { None };
    let mut leader = match for_the_leader {
        Some(with) => Some(LeaderDriver::new(member, with, waker)?),
        None => None,
    };
    if let Some(leader) = &mut leader {
        leader.open(&mut control)?;
    }
    let (plan, ends) = wait_for_the_plan(worker, &mut control, &mut leader)?;
    let sink = if shared.thread(worker) == 0 {
        let session = member.sink.session()?;
        reach(FailPoint::BeforeFencing);
        // The dataflow is built while the sink fences.
        Some(SinkDriver::start(&plan, session, member, waker)?)
    } else {
        None
    };
    let store = &member.store.state;
    let restore = plan.checkpoint.as_ref().map(|manifest| Restore {
        as_of: manifest.tick,
        operators: manifest.operators.clone(),
        store: store.clone(),
    });
    let merges = match &leader {
        Some(_) => Some(Merges::start(store.clone(), plan.generation, worker.peers() as u32, waker)?),
        None => None,
    };
    let uploads = Some(Uploads::start(store.clone(), plan.generation, member.config.patience, waker)?);
    let parts = Parts { leader, sink, uploads, merges, ..Parts::default() };
    Running::open(worker, shared, Open { plan: &plan, ends, restore, control, parts }, waker)
}

/// Waits for the plan, and lets the leader work meanwhile, if it is on this worker. Returns the plan, and where the job
/// stops reading, if it stops at the end of its input.
fn wait_for_the_plan(
    worker: &mut Worker,
    control: &mut Control,
    leader: &mut Option<LeaderDriver>,
) -> Result<(Plan, Option<Ends>), Failure> {
    let mut stop_at = None;
    loop {
        if let Some(leader) = leader {
            leader.step(control)?;
        }
        match control.receive() {
            Some(Message::Order(Order::Opened(plan))) => return Ok((*plan, stop_at)),
            Some(Message::Ends(ends)) => {
                stop_at = Some(ends.into_iter().collect());
            }
            Some(other) => return Err(bug(format!("{other:?} came before the journal was opened"))),
            None => {
                worker.step_or_park(Some(Duration::from_millis(100)));
            }
        }
    }
}

fn bug(what: String) -> Failure {
    Failure::new(Exit::EngineFault, anyhow::anyhow!("a fault in the engine: {what}"))
}

/// The parts of a worker that not all workers have. A replay has none of the parts that write to the store or to a
/// sink: it has no leader, so nothing is minted or appended, no sink and no uploads. It has a printer instead.
#[derive(Default)]
struct Parts {
    /// The leader, on the first worker of a generation.
    leader: Option<LeaderDriver>,
    /// The process's sink, on its first worker.
    sink: Option<SinkDriver>,
    /// The thread that stores state files, on every worker of a generation.
    uploads: Option<Uploads>,
    /// The thread that merges state files, on the leader's worker.
    merges: Option<Merges>,
    /// The printer, on the first worker of a replay, in place of the sink.
    printer: Option<Printer>,
    /// The threads that ask the sources, on the first worker of a replay.
    discovery: Option<Discovery>,
}

/// The values that a worker begins with.
struct Open<'a> {
    plan: &'a Plan,
    /// Where the input ends, for a job that stops there.
    ends: Option<Ends>,
    restore: Option<Restore>,
    control: Control,
    parts: Parts,
}

/// A worker whose dataflow is built.
struct Running {
    index: u32,
    control: Control,
    parts: Parts,
    source: SourceDriver,
    outlet: Outlet,
    durables: Durables,
    /// Ticks that were minted while the journal's were still being replayed.
    minted: VecDeque<Binding>,
    /// Replayed ticks that are in the dataflow and not out of it.
    ahead: VecDeque<Tick>,
    /// Whether the writers of earlier generations are fenced, and no newer generation exists.
    all_fenced: bool,
    ready: bool,
    told_at_end: bool,
    told_passed: Instant,
    told_compacted: bool,
    /// The time at which the sources were last asked, in a replay.
    asked: Instant,
    finished: bool,
    more: bool,
    /// What the operators do; not in a replay.
    meter: Option<Meter>,
}

impl Running {
    /// Builds the dataflow, whose durable operators restore their state, and begins to read.
    fn open(worker: &mut Worker, shared: &Shared, open: Open<'_>, waker: &Waker) -> Result<Self, Failure> {
        let Open { plan, ends, restore, control, parts } = open;
        let index = u32::try_from(worker.index()).expect("the number of workers is small");
        let workers = u32::try_from(worker.peers()).expect("the number of workers is small");
        let durables = Durables::new(index, workers, restore);
        let mut meter = match &shared.mode {
            Mode::Run(member) if member.config.metrics => Some(member.meters.of_worker(worker)),
            Mode::Run(_) | Mode::Replay(_) => None,
        };
        let declared = build(worker, shared, plan, &durables)?;
        if let Some(meter) = &mut meter {
            meter.built(worker, &durables.nodes());
        }
        durables
            .built()
            .map_err(|e| Failure::of(System::Store, Error::caused(e.kind(), "cannot restore the durable state", e)))?;
        tracing::debug!(target: STAGES, "restored");
        let queues: Vec<(String, Rc<RefCell<OutputQueue>>)> =
            declared.outputs.into_iter().map(|o| (o.spec.name, o.queue)).collect();
        let outlet = Outlet::new(shared.thread(worker), &shared.inbox, queues, waker);
        let options = ReadOptions {
            most_waiting: shared.most_waiting,
            compare: plan.compare(),
            cannot_correct: plan.cannot_correct.clone(),
            patience: shared.patience,
        };
        let mut source = SourceDriver::new(index, workers, options, ends, declared.sources, waker)?;
        source.begin_after(plan.as_of());
        for state in plan.checkpoint.iter().flat_map(|c| &c.splits) {
            source.resume(state)?;
        }
        for start in &plan.splits {
            source.begin(start, plan.caught_up_ms(start))?;
        }
        source.replay(&plan.replay);
        Ok(Self {
            index,
            control,
            parts,
            source,
            outlet,
            durables,
            minted: VecDeque::new(),
            ahead: VecDeque::new(),
            all_fenced: false,
            ready: false,
            told_at_end: false,
            told_passed: ambient::instant(),
            told_compacted: false,
            asked: ambient::instant(),
            finished: false,
            more: true,
            meter,
        })
    }

    /// One turn of the loop.
    fn turn(&mut self, shared: &Shared) -> Result<(), Failure> {
        while let Some(message) = self.control.receive() {
            match message {
                Message::Order(order) => self.obey(order)?,
                Message::Report(worker, report) => self.with_leader(|l, c| l.hear(worker, report, c))?,
                Message::AtEnd(worker) => self.with_leader(|l, c| l.at_end(worker, c))?,
                Message::Found(found) => self.source.found(&found)?,
                Message::Ends(_) => return Err(bug("where to stop came after the journal was opened".to_owned())),
                Message::Wrote(records) => self.with_leader(|l, _| {
                    l.status.wrote(records);
                    Ok(())
                })?,
                Message::ForeignRecords(offsets) => self.with_leader(|l, _| {
                    l.status.others_wrote(offsets);
                    Ok(())
                })?,
            }
        }
        self.with_leader(LeaderDriver::step)?;
        if let Some(meter) = &mut self.meter {
            meter.tell();
        }
        self.read()?;
        self.state()?;
        self.write(shared)?;
        let may_be_ready = !self.ready && self.all_fenced;
        if may_be_ready && self.parts.sink.as_ref().is_none_or(SinkDriver::is_ready) && self.source.verified() {
            reach(FailPoint::BeforeReady);
            self.ready = true;
            tracing::debug!(target: STAGES, "ready");
            let operators = self.durables.names();
            self.control.report(self.index, Report::Ready { operators });
        }
        Ok(())
    }

    fn with_leader(
        &mut self,
        act: impl FnOnce(&mut LeaderDriver, &mut Control) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match &mut self.parts.leader {
            Some(leader) => act(leader, &mut self.control),
            None => Ok(()),
        }
    }

    fn obey(&mut self, order: Order) -> Result<(), Failure> {
        match order {
            Order::Opened(_) => return Err(bug("the journal was opened twice".to_owned())),
            Order::AllFenced => {
                self.all_fenced = true;
                if let Some(sink) = &mut self.parts.sink {
                    reach(FailPoint::AfterAllFenced);
                    sink.all_fenced();
                }
            }
            Order::SplitStarted(start) => self.source.start_split(&start)?,
            Order::Minted(binding) => self.minted.push_back(binding),
            Order::Sealed(tick) => {
                if let Some(sink) = &mut self.parts.sink {
                    sink.sealed(tick);
                }
            }
            Order::CheckpointComplete { operators, .. } => {
                if let Some(merges) = &self.parts.merges {
                    merges.consider(operators);
                }
            }
            Order::Finish(_) => self.finished = true,
        }
        Ok(())
    }

    /// Tells all workers of a replay the newest answers of the sources.
    fn discover(&mut self) -> Result<(), Failure> {
        let Some(discovery) = &self.parts.discovery else { return Ok(()) };
        while let Some(discovered) = discovery.next()? {
            match discovered {
                Discovered::Splits(found) => self.control.tell_all(&Message::Found(found)),
                Discovered::Refused(error) => return Err(Failure::of(System::Source, error)),
            }
        }
        if self.asked.elapsed() >= LOOK_AGAIN {
            self.asked = ambient::instant();
            discovery.ask(&Positions::new());
        }
        Ok(())
    }

    /// Reads input, and puts the ticks that are due into the dataflow.
    fn read(&mut self) -> Result<(), Failure> {
        self.discover()?;
        self.more = self.source.read()?;
        // Before all workers are ready, the leader cannot append this to the journal.
        if self.ready
            && !self.told_compacted
            && let Some(what) = self.source.compacted()
        {
            self.told_compacted = true;
            self.control.report(self.index, Report::Compacted { what: what.to_owned() });
        }
        let complete = self.outlet.complete();
        while self.ahead.pop_front_if(|tick| *tick <= complete).is_some() {}
        context::left(complete);
        while self.ahead.len() < MOST_REPLAYED_AT_ONCE
            && self.outlet.has_room()
            && let Some(binding) = self.source.replay_next()
        {
            self.ahead.push_back(binding.tick);
        }
        if self.source.replayed() {
            while let Some(binding) = self.minted.pop_front() {
                if binding.checkpoint {
                    self.durables.mark_checkpoint(binding.tick);
                }
                if let Some(sink) = &mut self.parts.sink {
                    sink.minted(&binding);
                }
                self.source.release(&binding);
            }
            if self.ready
                && let Some((ranges, bytes)) = self.source.report()
            {
                self.control.report(self.index, Report::Read { ranges, bytes });
            }
        }
        if self.ready && self.source.replayed() && self.told_passed.elapsed() >= TELL_PASSED_EVERY {
            self.told_passed = ambient::instant();
            let passed = self.source.passed();
            if !passed.is_empty() {
                self.control.report(self.index, Report::Passed(passed));
            }
        }
        // Before all workers are ready, the leader would stop at this message and leave out input that others have
        // reported early.
        if self.ready && !self.told_at_end && self.source.at_end() {
            self.told_at_end = true;
            self.control.tell_leader(Message::AtEnd(self.index));
        }
        Ok(())
    }

    /// Stores the rows that operators have frozen.
    fn state(&mut self) -> Result<(), Failure> {
        if let Some(error) = self.durables.failure() {
            return Err(Failure::new(Exit::Failed, error));
        }
        if let Some(uploads) = &self.parts.uploads {
            for frozen in self.durables.take_frozen() {
                uploads.store(frozen);
            }
            while let Some(stored) = uploads.stored()? {
                self.control.report(self.index, stored);
            }
        }
        if let Some(merges) = &self.parts.merges {
            while let Some(merged) = merges.merged()? {
                self.control.report(self.index, merged);
            }
        }
        Ok(())
    }

    /// Commits what is complete and sealed; prints what is complete, in a replay.
    fn write(&mut self, shared: &Shared) -> Result<(), Failure> {
        self.outlet.hand_on()?;
        if let Some(printer) = &mut self.parts.printer
            && let Some(last) = printer.print(&shared.inbox)?
        {
            self.control.broadcast(&Order::Finish(last));
        }
        let Some(sink) = &mut self.parts.sink else { return Ok(()) };
        for report in sink.turn(&shared.inbox)? {
            self.control.report(self.index, report);
        }
        if let Some(records) = sink.wrote() {
            self.control.tell_leader(Message::Wrote(records));
        }
        if let Some(offsets) = sink.foreign_records()? {
            self.control.tell_leader(Message::ForeignRecords(offsets));
        }
        Ok(())
    }

    /// How long the worker may wait if nothing wakes it earlier.
    fn may_park(&self) -> Duration {
        if self.more || self.finished {
            return Duration::ZERO;
        }
        let leader = self.parts.leader.as_ref().map_or(Duration::from_secs(1), LeaderDriver::may_park);
        let sink = self.parts.sink.as_ref().map_or(Duration::from_secs(1), SinkDriver::may_park);
        leader.min(sink)
    }
}

/// Builds the job's dataflow; its durable operators restore their state meanwhile.
fn build(worker: &mut Worker, shared: &Shared, plan: &Plan, durables: &Durables) -> Result<Declared, Failure> {
    let partitions: std::collections::BTreeMap<String, u32> =
        plan.sinks.iter().map(|s| (s.output.clone(), s.partitions)).collect();
    let situation = Situation {
        partitions: Box::new(move |output| partitions.get(output).copied().unwrap_or(1)),
        // A comparison and a correction need the whole table, including the restored rows.
        skip_through: Some(plan.as_of()).filter(|_| plan.reconciliation.is_none() && plan.compare_outputs.is_none()),
    };
    worker
        .dataflow_named::<u64, _, _>("job", |scope| {
            let mut job = Job::new(scope, durables.clone(), situation);
            (shared.build)(&mut job)?;
            let mut declared = job.finish();
            // All workers use the process's sources, and therefore share its connections.
            for own in &mut declared.sources {
                if let Some((_, source)) = shared.sources.iter().find(|(name, _)| *name == own.name) {
                    own.source = Arc::clone(source);
                }
            }
            Ok(declared)
        })
        .map_err(|error: anyhow::Error| Failure::new(Exit::Misconfigured, error))
}
