//! The loop of one worker.
//!
//! ```text
//!   ┌► control messages ─► leader (worker 0) ─► sources: read, report, release ─► dataflow ─► outlet ─► sink ──────┐
//!   └────────────────────────────────── park until something wakes us ◄──────────────────────────────────────────┘
//! ```
//!
//! The sink is the first worker's of each process. A generation begins with an opening: the leader claims the journal,
//! every process fences its share of earlier writers, every worker restores its state, and only when all are ready is
//! anything minted.

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
use super::failure::Failure;
use super::inbox::Outlet;
use super::leader::{BETWEEN_LOOKS, Ends, LeaderDriver};
use super::merges::Merges;
use super::process::Shared;
use super::sink::SinkDriver;
use super::source::{ReadOptions, SourceDriver, Volume};
use super::uploads::Uploads;
use crate::durable::{Durables, Restore};
use crate::fail_point::{FailPoint, reach};
use crate::job::output::OutputQueue;
use crate::job::{Declared, Job, Situation};
use crate::stages::STAGES;
use crate::state::StateStore;
use crate::stream::context;

/// How many replayed ticks are in the dataflow at once: enough to keep it busy.
const MOST_REPLAYED_AT_ONCE: usize = 64;

/// How many full ticks a worker reads ahead of those that are minted: what waits longer is no sooner in the dataflow, it
/// takes memory, and has left the caches when its tick comes.
const TICKS_READ_AHEAD: u64 = 2;

/// How often the leader is told, at the most, where its workers read on without a record: its lag is printed less often.
const TELL_PASSED_EVERY: Duration = Duration::from_secs(1);

/// Runs one worker from the opening to the end of its generation.
pub(crate) fn work(worker: &mut Worker, shared: &Arc<Shared>) -> Result<(), Failure> {
    let index = u32::try_from(worker.index()).expect("the number of workers is small");
    context::this_is_worker(index);
    let mut control = Control::new(worker);
    let thread = std::thread::current();
    let waker = Waker::new(move || thread.unpark());
    let for_the_leader = if index == 0 { shared.for_the_leader() } else { None };
    let mut leader = match for_the_leader {
        Some(with) => Some(LeaderDriver::new(shared, with, &waker)?),
        None => None,
    };
    if let Some(leader) = &mut leader {
        leader.open(&mut control)?;
    }
    let (plan, ends) = wait_for_the_plan(worker, &mut control, &mut leader)?;
    let mut running = Running::open(worker, shared, &plan, ends, control, leader, &waker)?;
    while !running.finished {
        shared.pulses.turn(worker.index());
        running.turn()?;
        let park = running.may_park();
        worker.step_or_park(Some(park));
    }
    shared.pulses.ended(worker.index());
    // Dropping the inputs ends the dataflows, which the engine's caller runs to their end.
    Ok(())
}

/// What the leader can do before the plan is there. With the plan come the ends to stop at, if the job stops at any.
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

/// A worker whose dataflow is built.
struct Running {
    index: u32,
    control: Control,
    leader: Option<LeaderDriver>,
    source: SourceDriver,
    outlet: Outlet,
    /// The process's sink, on its first worker.
    sink: Option<SinkDriver>,
    durables: Durables,
    uploads: Uploads,
    /// Merging, on the leader's worker.
    merges: Option<Merges>,
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
    finished: bool,
    more: bool,
}

impl Running {
    /// Restores and fences at the same time.
    fn open(
        worker: &mut Worker,
        shared: &Arc<Shared>,
        plan: &Plan,
        stop_at: Option<Ends>,
        control: Control,
        leader: Option<LeaderDriver>,
        waker: &Waker,
    ) -> Result<Self, Failure> {
        let index = u32::try_from(worker.index()).expect("the number of workers is small");
        let workers = u32::try_from(worker.peers()).expect("the number of workers is small");
        let thread = index % shared.config.layout.threads();
        let sink = if thread == 0 {
            let session = shared.session()?;
            reach(FailPoint::BeforeFencing);
            Some(SinkDriver::start(plan, session, shared, waker)?)
        } else {
            None
        };
        let store = StateStore::new(shared.store.clone(), shared.runtime.clone());
        let restore = plan.checkpoint.as_ref().map(|manifest| Restore {
            as_of: manifest.tick,
            operators: manifest.operators.clone(),
            store: store.clone(),
        });
        let durables = Durables::new(index, workers, restore);
        let declared = build(worker, shared, plan, &durables)?;
        durables
            .built()
            .map_err(|e| Failure::of(System::Store, Error::caused(e.kind(), "cannot restore the durable state", e)))?;
        tracing::debug!(target: STAGES, "restored");
        let queues: Vec<(String, Rc<RefCell<OutputQueue>>)> =
            declared.outputs.into_iter().map(|o| (o.spec.name, o.queue)).collect();
        let outlet = Outlet::new(thread as usize, &shared.inbox, queues, waker);
        let options = ReadOptions {
            most_waiting: Volume {
                records: shared.config.tick_records.saturating_mul(TICKS_READ_AHEAD),
                bytes: shared.config.in_flight_bytes / u64::from(workers),
            },
            compare: plan.compare(),
            cannot_correct: plan.cannot_correct.clone(),
            patience: shared.config.patience,
            between_looks: BETWEEN_LOOKS,
        };
        let mut source = SourceDriver::new(index, workers, options, stop_at, declared.sources, waker)?;
        source.look()?;
        source.begin_after(plan.as_of());
        for state in plan.checkpoint.iter().flat_map(|c| &c.splits) {
            source.resume(state)?;
        }
        for start in &plan.splits {
            source.begin(start, plan.caught_up_ms(start))?;
        }
        source.replay(&plan.replay)?;
        let merges = match &leader {
            Some(_) => Some(Merges::start(store.clone(), plan.generation, waker)?),
            None => None,
        };
        let uploads = Uploads::start(store, plan.generation, shared.config.patience, waker)?;
        Ok(Self {
            index,
            control,
            leader,
            source,
            outlet,
            sink,
            durables,
            uploads,
            merges,
            minted: VecDeque::new(),
            ahead: VecDeque::new(),
            all_fenced: false,
            ready: false,
            told_at_end: false,
            told_passed: ambient::instant(),
            told_compacted: false,
            finished: false,
            more: true,
        })
    }

    /// One turn of the loop.
    fn turn(&mut self) -> Result<(), Failure> {
        while let Some(message) = self.control.receive() {
            match message {
                Message::Order(order) => self.obey(order)?,
                Message::Report(worker, report) => self.with_leader(|l, c| l.hear(worker, report, c))?,
                Message::AtEnd(worker) => self.with_leader(|l, c| l.at_end(worker, c))?,
                Message::Found(found) => self.source.found(found)?,
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
        self.read()?;
        self.state()?;
        self.write()?;
        let may_be_ready = !self.ready && self.all_fenced;
        if may_be_ready && self.sink.as_ref().is_none_or(SinkDriver::is_ready) && self.source.verified() {
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
        match &mut self.leader {
            Some(leader) => act(leader, &mut self.control),
            None => Ok(()),
        }
    }

    fn obey(&mut self, order: Order) -> Result<(), Failure> {
        match order {
            Order::Opened(_) => return Err(bug("the journal was opened twice".to_owned())),
            Order::AllFenced => {
                self.all_fenced = true;
                if let Some(sink) = &mut self.sink {
                    reach(FailPoint::AfterAllFenced);
                    sink.all_fenced();
                }
            }
            Order::SplitStarted(start) => self.source.start_split(&start)?,
            Order::Minted(binding) => self.minted.push_back(binding),
            Order::Sealed(tick) => {
                if let Some(sink) = &mut self.sink {
                    sink.sealed(tick);
                }
            }
            Order::CheckpointComplete { operators, .. } => {
                if let Some(merges) = &self.merges {
                    merges.consider(operators);
                }
            }
            Order::Finish(_) => self.finished = true,
        }
        Ok(())
    }

    /// Reads input, and puts the ticks that are due into the dataflow.
    fn read(&mut self) -> Result<(), Failure> {
        self.more = self.source.read()?;
        // Before all are ready the leader has nothing to append it to.
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
                if let Some(sink) = &mut self.sink {
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
        // Before all are ready the leader would stop, and leave out what others have reported early.
        if self.ready && !self.told_at_end && self.source.at_end() {
            self.told_at_end = true;
            self.control.tell_leader(Message::AtEnd(self.index));
        }
        Ok(())
    }

    /// Stores what operators have frozen.
    fn state(&mut self) -> Result<(), Failure> {
        if let Some(error) = self.durables.failure() {
            return Err(Failure::new(Exit::Failed, error));
        }
        for frozen in self.durables.take_frozen() {
            self.uploads.store(frozen);
        }
        while let Some(stored) = self.uploads.stored()? {
            self.control.report(self.index, stored);
        }
        if let Some(merges) = &self.merges {
            while let Some(merged) = merges.merged()? {
                self.control.report(self.index, merged);
            }
        }
        Ok(())
    }

    /// Commits what is complete and sealed.
    fn write(&mut self) -> Result<(), Failure> {
        self.outlet.hand_on()?;
        let Some(sink) = &mut self.sink else { return Ok(()) };
        for report in sink.turn()? {
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

    /// How long there is nothing to do if nothing wakes us.
    fn may_park(&self) -> Duration {
        if self.more || self.finished {
            return Duration::ZERO;
        }
        let leader = self.leader.as_ref().map_or(Duration::from_secs(1), LeaderDriver::may_park);
        let sink = self.sink.as_ref().map_or(Duration::from_secs(1), SinkDriver::may_park);
        leader.min(sink)
    }
}

/// Builds the job's dataflow; its durable operators restore their state meanwhile.
fn build(worker: &mut Worker, shared: &Shared, plan: &Plan, durables: &Durables) -> Result<Declared, Failure> {
    let partitions: std::collections::BTreeMap<String, u32> =
        plan.sinks.iter().map(|s| (s.output.clone(), s.partitions)).collect();
    let situation = Situation {
        partitions: Box::new(move |output| partitions.get(output).copied().unwrap_or(1)),
        // What is compared or corrected is the whole table, the restored rows included.
        skip_through: Some(plan.as_of()).filter(|_| plan.reconciliation.is_none() && !plan.compare_outputs),
    };
    worker
        .dataflow_named::<u64, _, _>("job", |scope| {
            let mut job = Job::new(scope, durables.clone(), situation);
            (shared.build)(&mut job)?;
            let mut declared = job.finish();
            // All workers use the process's sources, and with them its connections.
            for own in &mut declared.sources {
                if let Some((_, source)) = shared.sources.iter().find(|(name, _)| *name == own.name) {
                    own.source = Arc::clone(source);
                }
            }
            Ok(declared)
        })
        .map_err(|error: anyhow::Error| Failure::new(Exit::Misconfigured, error))
}
