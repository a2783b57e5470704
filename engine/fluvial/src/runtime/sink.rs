//! Drives the sink of one process, on its first worker: takes complete ticks from the dataflow, and does what the
//! committer decides.
//!
//! ```text
//!   Inbox ──complete ticks, in order──► Committer ──actions──► turns (threads), journal's tail ──► Committer
//! ```
//!
//! One for each process, not for each worker: a writer is a client of the sink with connections and threads of its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use fluvial_connector::{CommitError, Error, Offset, OutputPartition, ProducerId, SinkSession, Tick, Waker};
use fluvial_protocol::System;
use fluvial_protocol::journal::Binding;
use fluvial_protocol::{
    self as protocol, Action, Committer, CommitterConfig, Identity, Plan, Report, TickRecords, owner,
};

use super::ambient;
use super::calls::StoreCalls;
use super::failure::{Failure, chain};
use super::foreign_writers::ForeignWriters;
use super::inbox::Inbox;
use super::process::Shared;
use super::reconcile::Reconciling;
use super::send_back;
use super::turns::{self, Done, Turns};
use crate::fail_point::{FailPoint, reach};
use crate::stages::STAGES;

/// The most records in one transaction.
const TRANSACTION_RECORDS: usize = 100_000;
/// The most bytes of keys and values in one transaction.
const TRANSACTION_BYTES: usize = 32 << 20;
/// How far the progress of idle partitions may stay behind.
const HEARTBEAT_MS: u64 = 1000;
/// How often it is looked at whether anything is committed.
const LOOK_EVERY_MS: u64 = 500;
/// A reconciliation reads back so many partitions at once: what is read of them takes memory until it is a table.
const READ_BACK_AT_ONCE: usize = 16;
/// Replayed ticks wait while so many records of output wait for their commit.
const MOST_WAITING_RECORDS: usize = 1_000_000;

enum Back {
    /// The writers of earlier generations that this one does not have are fenced.
    OthersFenced(Result<(), Error>),
    /// The journal's newest record.
    Newest(Result<(fluvial_protocol::journal::Seq, fluvial_protocol::journal::JournalRecord), Error>),
}

/// The sink of one process.
pub(crate) struct SinkDriver {
    /// The process's index.
    slot: u32,
    identity: Identity,
    committer: Committer,
    turns: Turns,
    foreign_writers: ForeignWriters,
    back: Receiver<Back>,
    tell: Sender<Back>,
    waker: Waker,
    calls: Arc<StoreCalls>,
    runtime: tokio::runtime::Handle,
    /// What is still to be fenced before the leader is told: own turns, and the rest as one.
    to_fence: usize,
    inbox: Arc<Inbox>,
    /// Outputs that are to be corrected before anything else is written.
    reconciling: Option<Reconciling>,
    /// Records handed to the committer by tick, until they are committed.
    waiting: VecDeque<(Tick, usize)>,
    waiting_records: usize,
    /// The dataflow's output is complete through this tick.
    complete: Tick,
    committed: Tick,
    /// How many records each turn's transaction holds, until it is committed.
    in_transactions: BTreeMap<u32, u64>,
    wrote: u64,
    reports: Vec<Report>,
    shared: Arc<Shared>,
    started: Instant,
    /// When it was looked at last whether anything is committed.
    looked_ms: u64,
}

impl SinkDriver {
    /// Begins to fence this process's share of the writers.
    pub(crate) fn start(
        plan: &Plan,
        session: Arc<dyn SinkSession>,
        shared: &Arc<Shared>,
        waker: &Waker,
    ) -> Result<Self, Failure> {
        let (slot, layout, patience) = (shared.process.index, shared.config.layout, shared.config.patience);
        let config = CommitterConfig {
            slot,
            layout,
            turns: super::TURNS,
            outputs: plan.sinks.iter().map(|s| s.output.clone()).collect(),
            transaction_records: TRANSACTION_RECORDS,
            transaction_bytes: TRANSACTION_BYTES,
            heartbeat_ms: HEARTBEAT_MS,
            patience_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
        };
        let turns = Turns::start(&session, super::TURNS, patience, waker).map_err(Failure::of_host)?;
        let foreign_writers = ForeignWriters::new(Arc::clone(&session), waker.clone());
        for turn in 0..super::TURNS {
            turns.fence(turn, ProducerId { incarnation: plan.incarnation, slot, turn });
        }
        let (tell, back) = channel();
        let share = (0..plan.most_slots).filter(|other| owner(*other, layout.processes) == slot);
        let others: Vec<ProducerId> = share
            .flat_map(|slot| (0..plan.most_turns).map(move |turn| (slot, turn)))
            .filter(|(other, turn)| *other != slot || *turn >= super::TURNS)
            .map(|(slot, turn)| ProducerId { incarnation: plan.incarnation, slot, turn })
            .collect();
        let mut to_fence = super::TURNS as usize;
        if !others.is_empty() {
            to_fence += 1;
            let (tell, waker) = (tell.clone(), waker.clone());
            std::thread::Builder::new()
                .name("fence".to_owned())
                .spawn(move || {
                    let result = turns::fence_all(&session, others, patience);
                    send_back(&tell, Back::OthersFenced(result), &waker);
                })
                .map_err(Failure::of_host)?;
        }
        Ok(Self {
            slot,
            identity: Identity { incarnation: plan.incarnation, generation: plan.generation, nonce: plan.nonce },
            committer: Committer::new(plan, config),
            turns,
            foreign_writers,
            back,
            tell,
            waker: waker.clone(),
            calls: Arc::new(StoreCalls::new(shared.store.clone(), patience)),
            runtime: shared.runtime.clone(),
            to_fence,
            inbox: Arc::clone(&shared.inbox),
            reconciling: plan.reconciliation.map(|at| Reconciling::new(at.tick, &plan.sinks)),
            waiting: VecDeque::new(),
            waiting_records: 0,
            complete: Tick(0),
            committed: Tick(0),
            in_transactions: BTreeMap::new(),
            wrote: 0,
            reports: Vec::new(),
            shared: Arc::clone(shared),
            started: ambient::instant(),
            looked_ms: 0,
        })
    }

    /// Every writer of earlier generations is fenced.
    pub(crate) fn all_fenced(&mut self) {
        self.committer.all_fenced();
    }

    /// Whether progress has been read and checked.
    pub(crate) fn is_ready(&self) -> bool {
        self.committer.is_ready()
    }

    /// A tick was minted.
    pub(crate) fn minted(&mut self, binding: &Binding) {
        self.committer.minted(binding);
    }

    /// The ticks through this one are durable in the journal.
    pub(crate) fn sealed(&mut self, tick: Tick) {
        self.committer.sealed(tick);
    }

    /// Records committed since the last call, if there are any.
    pub(crate) fn wrote(&mut self) -> Option<u64> {
        (self.wrote > 0).then(|| std::mem::take(&mut self.wrote))
    }

    /// Offsets that other writers have taken between this job's records since the last call, if there are any.
    pub(crate) fn foreign_records(&mut self) -> Option<u64> {
        self.foreign_writers.counted()
    }

    /// Takes what is complete, does what is due. Returns what the leader must know.
    pub(crate) fn turn(&mut self) -> Result<Vec<Report>, Failure> {
        self.take_output()?;
        while let Some(done) = self.turns.done() {
            self.on_done(done)?;
        }
        while let Ok(back) = self.back.try_recv() {
            match back {
                Back::OthersFenced(result) => {
                    result.map_err(|e| Failure::of(System::Sink, e))?;
                    self.fenced();
                }
                Back::Newest(newest) => {
                    let (seq, record) = newest.map_err(|e| Failure::of(System::Store, e))?;
                    let verdict = self.identity.judge(seq, &record)?;
                    self.committer_on(protocol::Done::Journal(verdict))?;
                }
            }
        }
        self.foreign_writers.take(self.committer.unexplained());
        while let Some(action) = self.committer.next_action(ambient::now_ms())? {
            self.act(action);
        }
        self.report();
        self.warn_of_a_stall();
        self.inbox.set_full(self.waiting_records >= MOST_WAITING_RECORDS);
        Ok(std::mem::take(&mut self.reports))
    }

    /// Says what is waited for when nothing has been committed for long.
    fn warn_of_a_stall(&mut self) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now_ms < self.looked_ms + LOOK_EVERY_MS {
            return;
        }
        self.looked_ms = now_ms;
        let Some(stall) = self.committer.stalled(now_ms) else { return };
        let sink = self.shared.waits.now();
        tracing::warn!(
            for_s = stall.for_ms / 1000,
            sink = (!sink.is_empty()).then(|| sink.join("; ")),
            last_failure = stall.failed,
            "nothing has been committed though there is output to commit: process {} waits for {}",
            self.slot,
            stall.step
        );
    }

    /// How long there is nothing to do if nothing wakes us.
    pub(crate) fn may_park(&self) -> Duration {
        let now = ambient::now_ms();
        self.committer.deadline_ms().map_or(Duration::from_secs(1), |at| Duration::from_millis(at.saturating_sub(now)))
    }

    /// Hands the complete ticks to the committer, in their order.
    fn take_output(&mut self) -> Result<(), Failure> {
        if let Some(at) = self.reconciling.as_ref().map(Reconciling::at) {
            let (ticks, upper) = self.inbox.take(at);
            for (tick, mut partitions) in ticks {
                tracing::debug!(%tick, "goes into the table that the outputs should hold");
                if let Some(reconciling) = &mut self.reconciling {
                    partitions = reconciling.take(partitions);
                }
                if !partitions.is_empty() {
                    self.hand_over(tick, partitions)?;
                }
            }
            if upper > at.0 {
                self.correct(at)?;
            }
            // Nothing later is handed over before the corrections have been.
            if self.reconciling.is_some() {
                return self.complete_before(upper.min(at.0));
            }
        }
        let (ticks, upper) = self.inbox.take(Tick(u64::MAX));
        for (tick, partitions) in ticks {
            self.hand_over(tick, partitions)?;
        }
        self.complete_before(upper)
    }

    /// All ticks before this one have been handed over.
    fn complete_before(&mut self, upper: u64) -> Result<(), Failure> {
        let complete = Tick(upper.saturating_sub(1));
        if complete > self.complete {
            self.complete = complete;
            self.committer.complete(complete)?;
        }
        Ok(())
    }

    fn hand_over(&mut self, tick: Tick, partitions: Vec<(OutputPartition, TickRecords)>) -> Result<(), Failure> {
        let records = partitions.iter().map(|(_, records)| records.len()).sum();
        for (at, records) in partitions {
            self.committer.output(tick, &at, records)?;
        }
        self.waiting.push_back((tick, records));
        self.waiting_records += records;
        Ok(())
    }

    /// Reads back what the outputs hold and, once that is known, hands over what corrects them at the tick `at`.
    fn correct(&mut self, at: Tick) -> Result<(), Failure> {
        let Some(reconciling) = &mut self.reconciling else { return Ok(()) };
        if !reconciling.is_asked() && self.committer.is_ready() {
            let partitions: Vec<OutputPartition> = self.committer.to_reconcile().cloned().collect();
            for some in partitions.chunks(READ_BACK_AT_ONCE) {
                self.turns.tails(some.iter().map(|at| (at.clone(), Offset(0))).collect());
            }
            reconciling.ask(partitions.into_iter());
        }
        if let Some(corrections) = reconciling.corrections() {
            self.reconciling = None;
            let records: usize = corrections.iter().map(|(_, records)| records.len()).sum();
            tracing::info!(tick = %at, records, "corrects the outputs");
            self.hand_over(at, corrections)?;
        }
        Ok(())
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Fence { turn } => {
                let incarnation = self.identity.incarnation;
                self.turns.fence(turn, ProducerId { incarnation, slot: self.slot, turn });
            }
            Action::CheckJournal => {
                let (calls, tell, waker) = (Arc::clone(&self.calls), self.tell.clone(), self.waker.clone());
                self.runtime.spawn(async move {
                    let newest = calls.newest_record().await;
                    send_back(&tell, Back::Newest(newest), &waker);
                });
            }
            Action::ReadProgress => self.turns.progress(),
            // Nothing is committed after the greatest offset: only the end is found.
            Action::ReadTails(from) => {
                let from = from.into_iter().map(|(at, from)| (at, from.unwrap_or(Offset(u64::MAX))));
                self.turns.tails(from.collect());
            }
            Action::Prepare { turn, transaction } => {
                let records = transaction.writes.iter().map(|write| write.records.len() as u64).sum();
                self.in_transactions.insert(turn, records);
                self.turns.prepare(turn, transaction);
            }
            Action::Commit { turn } => self.turns.commit(turn),
        }
    }

    fn on_done(&mut self, done: Done) -> Result<(), Failure> {
        let sink = |e| Failure::of(System::Sink, e);
        let done = match done {
            Done::Fenced { result, .. } if self.to_fence > 0 => {
                result.map_err(sink)?;
                self.fenced();
                return Ok(());
            }
            Done::Fenced { turn, result } => {
                result.map_err(sink)?;
                protocol::Done::Fenced { turn }
            }
            Done::Progress(result) => {
                let (progress, status) = result.map_err(sink)?;
                reach(FailPoint::AfterProgress);
                protocol::Done::Progress(progress, status)
            }
            Done::Tails { of, result } => {
                let tails = result.map_err(sink)?;
                if let Some(reconciling) = self.reconciling.as_mut().filter(|r| of.iter().any(|at| r.reads(at))) {
                    for (at, tail) in of.iter().zip(tails) {
                        reconciling.found(at, tail.records);
                    }
                    return Ok(());
                }
                protocol::Done::Tails(tails)
            }
            Done::Prepared { turn, result } => protocol::Done::Prepared { turn, result: result.map_err(explain) },
            Done::Committed { turn, result } => {
                let records = self.in_transactions.remove(&turn).unwrap_or(0);
                self.wrote += if result.is_ok() { records } else { 0 };
                protocol::Done::Committed { turn, result: result.map_err(explain) }
            }
        };
        self.committer_on(done)
    }

    fn committer_on(&mut self, done: protocol::Done) -> Result<(), Failure> {
        self.committer.on(done).map_err(Failure::from)
    }

    /// One of the things that had to be fenced is.
    fn fenced(&mut self) {
        self.to_fence -= 1;
        if self.to_fence == 0 {
            tracing::debug!(target: STAGES, "fenced");
            self.reports.push(Report::Fenced);
        }
    }

    /// Says how far the process has committed, and its digests at a checkpoint.
    fn report(&mut self) {
        if !self.committer.is_ready() {
            return;
        }
        let committed = self.committer.committed_through();
        if committed > self.committed {
            self.committed = committed;
            while let Some((_, records)) = self.waiting.pop_front_if(|(tick, _)| *tick <= committed) {
                self.waiting_records -= records;
            }
            self.reports.push(Report::Committed(committed));
        }
        while let Some((tick, outputs)) = self.committer.checkpointed() {
            self.reports.push(Report::SinkAt { tick, outputs });
        }
    }
}

/// What the committer has to know of a failure: what it means, and the whole reason.
fn explain(error: CommitError) -> protocol::Failure {
    let (failure, why): (fn(String) -> protocol::Failure, String) = match error {
        CommitError::Fenced(error) => (protocol::Failure::Fenced, chain(error)),
        CommitError::Unknown(error) => (protocol::Failure::Unknown, chain(error)),
        // The run ends with this reason, so it is not said before.
        CommitError::Refused(error) => return protocol::Failure::Refused(error.kind, chain(error)),
    };
    tracing::warn!(error = why, "a transaction was not committed");
    failure(why)
}
