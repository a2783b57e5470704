//! Drives the sink of one process, on its first worker: takes complete ticks from the dataflow, and does what the
//! participant decides.
//!
//! ```text
//!   Inbox ──complete ticks, in order──► Participant ──actions──► turns (threads), journal's tail ──► Participant
//! ```
//!
//! One for each process, not for each worker: a writer is a client of the sink with connections and threads of its own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use fluvial_connector::{CommitError, Error, ProducerId, SinkSession, Tick, Waker};
use fluvial_protocol::journal::{Binding, JournalRecord, Seq};
use fluvial_protocol::{self as protocol, Action, CommitterConfig, Participant, Plan, Report, System};

use super::ambient;
use super::calls::StoreCalls;
use super::failure::{Failure, chain};
use super::foreign_writers::ForeignWriters;
use super::process::Shared;
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
/// Replayed ticks wait while so many records of output wait for their commit.
const MOST_WAITING_RECORDS: usize = 1_000_000;

enum Back {
    /// The writers of earlier generations that this one does not have are fenced.
    OthersFenced(Result<(), Error>),
    /// The journal's newest record.
    Newest(Result<(Seq, JournalRecord), Error>),
}

/// The sink of one process.
pub(crate) struct SinkDriver {
    participant: Participant,
    turns: Turns,
    foreign_writers: ForeignWriters,
    back: Receiver<Back>,
    tell: Sender<Back>,
    waker: Waker,
    calls: Arc<StoreCalls>,
    session: Arc<dyn SinkSession>,
    shared: Arc<Shared>,
    started: Instant,
    /// When it was looked at last whether anything is committed.
    looked_ms: u64,
}

impl SinkDriver {
    /// Begins to fence this process's share of the producers.
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
        let (tell, back) = channel();
        let mut this = Self {
            participant: Participant::new(plan, config),
            turns: Turns::start(&session, super::TURNS, patience, waker).map_err(Failure::of_host)?,
            foreign_writers: ForeignWriters::new(Arc::clone(&session), waker.clone()),
            back,
            tell,
            waker: waker.clone(),
            calls: Arc::new(StoreCalls::new(shared.store.clone(), patience)),
            session,
            shared: Arc::clone(shared),
            started: ambient::instant(),
            looked_ms: 0,
        };
        // The dataflow is built meanwhile.
        this.act()?;
        Ok(this)
    }

    /// Every producer of earlier generations is fenced.
    pub(crate) fn all_fenced(&mut self) {
        self.participant.all_fenced();
    }

    /// Whether progress has been read and checked.
    pub(crate) fn is_ready(&self) -> bool {
        self.participant.is_ready()
    }

    /// A tick was minted.
    pub(crate) fn minted(&mut self, binding: &Binding) {
        self.participant.minted(binding);
    }

    /// The ticks through this one are durable in the journal.
    pub(crate) fn sealed(&mut self, tick: Tick) {
        self.participant.sealed(tick);
    }

    /// Records committed since the last call, if there are any.
    pub(crate) fn wrote(&mut self) -> Option<u64> {
        Some(self.participant.wrote()).filter(|records| *records > 0)
    }

    /// Offsets that other writers have taken between this job's records since the last call, if there are any.
    pub(crate) fn foreign_records(&mut self) -> Option<u64> {
        self.foreign_writers.counted()
    }

    /// Takes what is complete, does what is due. Returns what the leader must know.
    pub(crate) fn turn(&mut self) -> Result<Vec<Report>, Failure> {
        let (ticks, upper) = self.shared.inbox.take(Tick(u64::MAX));
        for (tick, partitions) in ticks {
            self.participant.output(tick, partitions)?;
        }
        self.participant.complete(upper)?;
        while let Some(done) = self.turns.done() {
            self.on_done(done)?;
        }
        while let Ok(back) = self.back.try_recv() {
            match back {
                Back::OthersFenced(result) => {
                    result.map_err(|e| Failure::of(System::Sink, e))?;
                    self.participant.on(protocol::Done::OthersFenced)?;
                }
                Back::Newest(newest) => {
                    let (seq, record) = newest.map_err(|e| Failure::of(System::Store, e))?;
                    let verdict = self.participant.identity().judge(seq, &record)?;
                    self.participant.on(protocol::Done::Journal(verdict))?;
                }
            }
        }
        self.foreign_writers.take(self.participant.unexplained());
        self.act()?;
        if let Some((tick, records)) = self.participant.corrected() {
            tracing::info!(%tick, records, "corrects the outputs");
        }
        self.warn_of_a_stall();
        self.shared.inbox.set_full(self.participant.waiting_records() >= MOST_WAITING_RECORDS);
        let mut reports = Vec::new();
        while let Some(report) = self.participant.next_report() {
            if report == Report::Fenced {
                tracing::debug!(target: STAGES, "fenced");
            }
            reports.push(report);
        }
        Ok(reports)
    }

    /// Says what is waited for when nothing has been committed for long.
    fn warn_of_a_stall(&mut self) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now_ms < self.looked_ms + LOOK_EVERY_MS {
            return;
        }
        self.looked_ms = now_ms;
        let Some(stall) = self.participant.stalled(now_ms) else { return };
        let sink = self.shared.waits.now();
        tracing::warn!(
            for_s = stall.for_ms / 1000,
            sink = (!sink.is_empty()).then(|| sink.join("; ")),
            last_failure = stall.failed,
            "nothing has been committed though there is output to commit: process {} waits for {}",
            self.shared.process.index,
            stall.step
        );
    }

    /// How long there is nothing to do if nothing wakes us.
    pub(crate) fn may_park(&self) -> Duration {
        let now = ambient::now_ms();
        let until = |at: u64| Duration::from_millis(at.saturating_sub(now));
        self.participant.deadline_ms().map_or(Duration::from_secs(1), until)
    }

    /// Begins everything that is to be done now.
    fn act(&mut self) -> Result<(), Failure> {
        while let Some(action) = self.participant.next_action(ambient::now_ms())? {
            match action {
                Action::Fence { turn } => self.turns.fence(turn, self.participant.producer(turn)),
                Action::FenceOthers(ids) => self.fence_others(ids)?,
                Action::CheckJournal => {
                    let (calls, tell, waker) = (Arc::clone(&self.calls), self.tell.clone(), self.waker.clone());
                    self.shared.runtime.spawn(async move {
                        let newest = calls.newest_record().await;
                        send_back(&tell, Back::Newest(newest), &waker);
                    });
                }
                Action::ReadProgress => self.turns.progress(),
                Action::ReadTails(from) => self.turns.tails(from),
                Action::ReadBack(partitions) => self.turns.read_back(partitions),
                Action::Prepare { turn, transaction } => self.turns.prepare(turn, transaction),
                Action::Commit { turn } => self.turns.commit(turn),
            }
        }
        Ok(())
    }

    /// Fences producers that only earlier generations had, on a thread of its own.
    fn fence_others(&self, ids: Vec<ProducerId>) -> Result<(), Failure> {
        let (session, patience) = (Arc::clone(&self.session), self.shared.config.patience);
        let (tell, waker) = (self.tell.clone(), self.waker.clone());
        let fence = move || {
            let result = turns::fence_all(&session, ids, patience);
            send_back(&tell, Back::OthersFenced(result), &waker);
        };
        std::thread::Builder::new().name("fence".to_owned()).spawn(fence).map(drop).map_err(Failure::of_host)
    }

    fn on_done(&mut self, done: Done) -> Result<(), Failure> {
        let sink = |e| Failure::of(System::Sink, e);
        let done = match done {
            Done::Fenced { turn, result } => {
                result.map_err(sink)?;
                protocol::Done::Fenced { turn }
            }
            Done::Progress(result) => {
                let (progress, status) = result.map_err(sink)?;
                reach(FailPoint::AfterProgress);
                protocol::Done::Progress(progress, status)
            }
            Done::Tails(result) => protocol::Done::Tails(result.map_err(sink)?),
            Done::ReadBack(result) => protocol::Done::ReadBack(result.map_err(sink)?),
            Done::Prepared { turn, result } => protocol::Done::Prepared { turn, result: result.map_err(explain) },
            Done::Committed { turn, result } => protocol::Done::Committed { turn, result: result.map_err(explain) },
        };
        self.participant.on(done).map_err(Failure::from)
    }
}

/// What the protocol has to know of a failure: what it means, and the whole reason.
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
