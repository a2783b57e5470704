//! Drives the sink of one process, on its first worker: takes complete ticks from the dataflow, and does what the
//! participant decides.
//!
//! ```text
//!   Inbox ──complete ticks, in order──► Participant ──actions──► turns (threads), journal's tail ──► Participant
//! ```
//!
//! One for each process, not for each worker: a writer is a client of the sink with connections and threads of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_connector::{SinkSession, Tick, Waker};
use fluvial_protocol::journal::Binding;
use fluvial_protocol::{Action, CommitterConfig, Compared, Done, Participant, Plan, Report, System};

use super::ambient;
use super::background::Background;
use super::failure::Failure;
use super::foreign_writers::ForeignWriters;
use super::inbox::Inbox;
use super::member::Member;
use super::turns::{Command, Reading, Turns, fence_all};
use crate::stages::STAGES;

/// The most records in one transaction.
const TRANSACTION_RECORDS: usize = 100_000;
/// The most bytes of keys and values in one transaction.
const TRANSACTION_BYTES: usize = 32 << 20;
/// How long the progress of idle partitions may lag.
const HEARTBEAT_MS: u64 = 1000;
/// How often the driver checks whether anything is committed.
const LOOK_EVERY_MS: u64 = 500;
/// Replayed ticks wait while so many records of output wait for their commit.
const MOST_WAITING_RECORDS: usize = 1_000_000;

/// The sink of one process.
pub(crate) struct SinkDriver {
    participant: Participant,
    turns: Turns,
    foreign_writers: ForeignWriters,
    background: Background<Done>,
    session: Arc<dyn SinkSession>,
    member: Arc<Member>,
    started: Instant,
    /// When the driver last checked whether anything is committed, in milliseconds after `started`.
    looked_ms: u64,
}

impl SinkDriver {
    /// Starts the writers and fences this process's share of the writers of earlier generations.
    pub(crate) fn start(
        plan: &Plan,
        session: Arc<dyn SinkSession>,
        member: &Arc<Member>,
        waker: &Waker,
    ) -> Result<Self, Failure> {
        let (slot, layout, patience) = (member.process.index, member.config.layout, member.config.patience);
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
        let background = Background::new(waker);
        let mut this = Self {
            participant: Participant::new(plan, config),
            turns: Turns::start(&session, super::TURNS, patience, &background, member.meters.sink())?,
            foreign_writers: ForeignWriters::new(Arc::clone(&session), waker),
            background,
            session,
            member: Arc::clone(member),
            started: ambient::instant(),
            looked_ms: 0,
        };
        // The dataflow is built while the writers are fenced.
        this.act()?;
        Ok(this)
    }

    /// Takes note that every writer of earlier generations is fenced.
    pub(crate) fn all_fenced(&mut self) {
        self.participant.all_fenced();
    }

    /// Whether progress has been read and checked.
    pub(crate) fn is_ready(&self) -> bool {
        self.participant.is_ready()
    }

    /// Takes note that a tick was minted.
    pub(crate) fn minted(&mut self, binding: &Binding) {
        self.participant.minted(binding);
    }

    /// Takes note that the ticks through this one are sealed.
    pub(crate) fn sealed(&mut self, tick: Tick) {
        self.participant.sealed(tick);
    }

    /// Records committed since the last call, if there are any.
    pub(crate) fn wrote(&mut self) -> Option<u64> {
        Some(self.participant.wrote()).filter(|records| *records > 0)
    }

    /// Offsets that other writers have taken between this job's records since the last call, if there are any.
    pub(crate) fn foreign_records(&mut self) -> Result<Option<u64>, Failure> {
        self.foreign_writers.counted()
    }

    /// Takes complete ticks, and does everything that is due. Returns the reports to the leader.
    pub(crate) fn turn(&mut self, inbox: &Inbox) -> Result<Vec<Report>, Failure> {
        let (ticks, upper) = inbox.take(Tick(u64::MAX));
        for (tick, partitions) in ticks {
            self.participant.output(tick, partitions)?;
        }
        self.participant.complete(upper)?;
        while let Some(done) = self.background.next()? {
            self.participant.on(done)?;
        }
        self.foreign_writers.take(self.participant.unexplained());
        self.act()?;
        if let Some((tick, records)) = self.participant.corrected() {
            tracing::info!(%tick, records, "the corrections of the outputs have been computed");
        }
        if let Some(Compared { rows, gone }) = self.participant.compared() {
            tracing::info!(rows, "the outputs hold what this program computes, though another one wrote them");
            if gone > 0 {
                tracing::warn!(
                    rows = gone,
                    "rows that this program computes are not in the outputs, whose first records are gone: if retention has \
                     not removed these rows, this program's logic differs from that of the one that wrote the outputs"
                );
            }
        }
        self.warn_of_a_stall();
        inbox.set_full(self.participant.waiting_records() >= MOST_WAITING_RECORDS);
        let mut reports = Vec::new();
        while let Some(report) = self.participant.next_report() {
            if report == Report::Fenced {
                tracing::debug!(target: STAGES, "fenced");
            }
            reports.push(report);
        }
        Ok(reports)
    }

    /// Logs the step that is waited for when nothing has been committed for long.
    fn warn_of_a_stall(&mut self) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now_ms < self.looked_ms + LOOK_EVERY_MS {
            return;
        }
        self.looked_ms = now_ms;
        let Some(stall) = self.participant.stalled(now_ms) else { return };
        let sink = self.member.sink.context.waits.now();
        tracing::warn!(
            for_s = stall.for_ms / 1000,
            sink = (!sink.is_empty()).then(|| sink.join("; ")),
            last_failure = stall.failed,
            "nothing has been committed although there is output to commit: process {} waits for {}",
            self.member.process.index,
            stall.step
        );
    }

    /// How long the worker may wait if nothing wakes it earlier.
    pub(crate) fn may_park(&self) -> Duration {
        let now = ambient::now_ms();
        let until = |at: u64| Duration::from_millis(at.saturating_sub(now));
        self.participant.deadline_ms().map_or(Duration::from_secs(1), until)
    }

    /// Starts all actions that are to be done now.
    fn act(&mut self) -> Result<(), Failure> {
        while let Some(action) = self.participant.next_action(ambient::now_ms())? {
            match action {
                Action::Fence { turn } => self.turns.tell(turn, Command::Fence(self.participant.writer(turn))),
                Action::FenceOthers(ids) => {
                    let (session, patience) = (Arc::clone(&self.session), self.member.config.patience);
                    self.background.spawn("fence", move || {
                        let fenced = fence_all(session.as_ref(), &ids, patience);
                        [fenced.map(|()| Done::OthersFenced).map_err(|error| Failure::of(System::Sink, error))]
                    })?;
                }
                Action::CheckJournal => {
                    let (calls, identity) = (Arc::clone(&self.member.store.calls), *self.participant.identity());
                    self.background.spawn_task(&self.member.store.runtime, async move {
                        let newest = calls.newest_record().await;
                        let (seq, record) = newest.map_err(|error| Failure::of(System::Store, error))?;
                        Ok(Done::Journal(identity.judge(seq, &record)?))
                    });
                }
                Action::ReadProgress => self.turns.read(Reading::Progress),
                Action::ReadTails(from) => self.turns.read(Reading::Tails(from)),
                Action::ReadBack(partitions) => self.turns.read(Reading::Back(partitions)),
                Action::Prepare { turn, transaction } => self.turns.tell(turn, Command::Prepare(transaction)),
                Action::Commit { turn } => self.turns.tell(turn, Command::Commit),
            }
        }
        Ok(())
    }
}
