//! The threads that make a sink's blocking calls for one process.
//!
//! ```text
//!   first worker ─Prepare, Commit, Fence──► turn 0 ─┐
//!               ──Prepare, Commit, Fence──► turn 1 ─┼── Done ──► first worker (and a wake-up)
//!               ──progress, tails─────────► reader ─┘
//! ```
//!
//! Each turn owns one transactor; commands of one turn are done in their order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use fluvial_connector::{
    CommitError, Error, ErrorKind, Offset, OutputPartition, OutputRecord, ProducerId, Progress, ReadEnd, SinkSession,
    SinkStatus, Tick, Transaction, Transactor, Waker,
};
use fluvial_protocol::{HeldRecords, Tail};

use super::ambient;
use super::failure::chain;
use crate::fail_point::{FailPoint, reach};
use crate::stages::STAGES;

/// The pause before a call is made again.
const PAUSE: Duration = Duration::from_millis(250);

/// A call that has returned.
pub(crate) enum Done {
    /// The turn has a fresh transactor.
    Fenced { turn: u32, result: Result<(), Error> },
    /// A transaction is written, or its writer is of no further use.
    Prepared { turn: u32, result: Result<Vec<Offset>, CommitError> },
    /// A transaction is committed, or nobody knows.
    Committed { turn: u32, result: Result<(), CommitError> },
    /// The committed progress of all output partitions, and what the outputs are after that.
    Progress(Result<(BTreeMap<OutputPartition, Progress>, SinkStatus), Error>),
    /// The committed records of partitions after an offset, with their offsets, and where the partitions end.
    Tails(Result<Vec<Tail>, Error>),
    /// All committed records of partitions.
    ReadBack(Result<Vec<HeldRecords>, Error>),
}

enum Command {
    Fence(ProducerId),
    Prepare(Box<Transaction>),
    Commit,
}

enum Reading {
    Progress,
    Tails(Vec<(OutputPartition, Option<Offset>)>),
    Back(Vec<OutputPartition>),
}

/// The sink's threads of one process; they end when this is dropped and their last call has returned.
pub(crate) struct Turns {
    turns: Vec<Sender<Command>>,
    reader: Sender<Reading>,
    done: Receiver<Done>,
}

/// How a thread hands over what it has done.
#[derive(Clone)]
struct Tell {
    done: Sender<Done>,
    waker: Waker,
}

impl Tell {
    fn tell(&self, done: Done) -> bool {
        let told = self.done.send(done).is_ok();
        self.waker.wake();
        told
    }
}

impl Turns {
    /// Starts `turns` writers and a reader over one session.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn start(
        session: &Arc<dyn SinkSession>,
        turns: u32,
        patience: Duration,
        waker: &Waker,
    ) -> std::io::Result<Self> {
        let (sender, done) = channel();
        let tell = Tell { done: sender, waker: waker.clone() };
        let mut writers = Vec::new();
        for turn in 0..turns {
            let (commands, inbox) = channel();
            let (session, tell) = (Arc::clone(session), tell.clone());
            spawn(format!("sink-turn-{turn}"), move || write(turn, session.as_ref(), &inbox, &tell, patience))?;
            writers.push(commands);
        }
        let (reader, inbox) = channel();
        let session = Arc::clone(session);
        spawn("sink-reader".to_owned(), move || read(session.as_ref(), &inbox, &tell, patience))?;
        Ok(Self { turns: writers, reader, done })
    }

    /// A call that has returned, if there is one.
    pub(crate) fn done(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }

    /// Drops the turn's transactor and makes a fresh one.
    pub(crate) fn fence(&self, turn: u32, id: ProducerId) {
        self.command(turn, Command::Fence(id));
    }

    /// Writes a transaction.
    pub(crate) fn prepare(&self, turn: u32, transaction: Box<Transaction>) {
        self.command(turn, Command::Prepare(transaction));
    }

    /// Commits what the turn has prepared.
    pub(crate) fn commit(&self, turn: u32) {
        self.command(turn, Command::Commit);
    }

    /// Reads all progress.
    pub(crate) fn progress(&self) {
        self.reading(Reading::Progress);
    }

    /// Reads the committed records of partitions, each from an offset on, side by side, or only where they end.
    pub(crate) fn tails(&self, from: Vec<(OutputPartition, Option<Offset>)>) {
        self.reading(Reading::Tails(from));
    }

    /// Reads all committed records of partitions, side by side.
    pub(crate) fn read_back(&self, partitions: Vec<OutputPartition>) {
        self.reading(Reading::Back(partitions));
    }

    fn command(&self, turn: u32, command: Command) {
        self.turns[turn as usize].send(command).expect("a turn's thread lives as long as its sender");
    }

    fn reading(&self, reading: Reading) {
        self.reader.send(reading).expect("the reader's thread lives as long as its sender");
    }
}

/// Fences writers of earlier generations that this one does not have, all at once; returns the first error.
pub(crate) fn fence_all(session: &Arc<dyn SinkSession>, ids: Vec<ProducerId>, patience: Duration) -> Result<(), Error> {
    let fencing: Vec<_> = ids
        .into_iter()
        .map(|id| {
            let session = Arc::clone(session);
            std::thread::spawn(move || wait_out("sink", patience, || session.fence(&id)).map(drop))
        })
        .collect();
    let ended = |_| Error::new(ErrorKind::Bug, "a thread that fences earlier writers panicked");
    fencing.into_iter().try_for_each(|thread| thread.join().map_err(ended)?)
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name(name).spawn(run).map(drop)
}

fn write(turn: u32, session: &dyn SinkSession, inbox: &Receiver<Command>, tell: &Tell, patience: Duration) {
    let mut transactor: Option<Box<dyn Transactor>> = None;
    let mut tick = Tick(0);
    let without = || CommitError::Unknown(Error::new(ErrorKind::Restart, "the writer was given up before"));
    for command in inbox {
        let done = match command {
            Command::Fence(id) => {
                transactor = None;
                let result = wait_out("sink", patience, || session.fence(&id)).map(|fresh| transactor = Some(fresh));
                Done::Fenced { turn, result }
            }
            Command::Prepare(transaction) => {
                tick = transaction.writes.iter().map(|write| write.tick).max().unwrap_or(Tick(0));
                tracing::trace!(target: STAGES, tick = tick.0, "prepare");
                let result = transactor.as_mut().ok_or_else(without).and_then(|t| t.prepare(&transaction));
                tracing::trace!(target: STAGES, tick = tick.0, "prepared");
                Done::Prepared { turn, result }
            }
            Command::Commit => {
                reach(FailPoint::BeforeCommit);
                tracing::trace!(target: STAGES, tick = tick.0, "commit");
                let result = transactor.as_mut().ok_or_else(without).and_then(|t| t.commit());
                tracing::trace!(target: STAGES, tick = tick.0, "committed");
                if result.is_ok() {
                    reach(FailPoint::AfterCommit);
                }
                Done::Committed { turn, result }
            }
        };
        if let Done::Prepared { result: Err(_), .. } | Done::Committed { result: Err(_), .. } = &done {
            // Never begin again in the old epoch.
            transactor = None;
        }
        if !tell.tell(done) {
            return;
        }
    }
}

fn read(session: &dyn SinkSession, inbox: &Receiver<Reading>, tell: &Tell, patience: Duration) {
    for reading in inbox {
        let done = match reading {
            Reading::Progress => {
                let progress = wait_out("sink", patience, || session.progress());
                let status = || wait_out("sink", patience, || session.status());
                Done::Progress(progress.and_then(|progress| Ok((progress, status()?))))
            }
            Reading::Tails(from) => {
                // Nothing is committed after the greatest offset: only the end is found.
                let from: Vec<_> = from.into_iter().map(|(at, from)| (at, from.unwrap_or(Offset(u64::MAX)))).collect();
                Done::Tails(read_from(session, &from, patience))
            }
            Reading::Back(partitions) => {
                let from: Vec<_> = partitions.into_iter().map(|at| (at, Offset(0))).collect();
                let tails = read_from(session, &from, patience);
                let of = from.into_iter().map(|(at, _)| at);
                Done::ReadBack(tails.map(|tails| of.zip(tails.into_iter().map(|tail| tail.records)).collect()))
            }
        };
        if !tell.tell(done) {
            return;
        }
    }
}

fn read_from(
    session: &dyn SinkSession,
    from: &[(OutputPartition, Offset)],
    patience: Duration,
) -> Result<Vec<Tail>, Error> {
    wait_out("sink", patience, || {
        let mut records: Vec<Vec<_>> = from.iter().map(|_| Vec::new()).collect();
        let ends = session.read_all_committed(from, &mut |place, record| {
            let key = record.key.unwrap_or_default().to_vec();
            let value = record.value.map(<[u8]>::to_vec);
            records[place].push((record.offset, OutputRecord { key, value }));
        })?;
        let tail = |(records, read): (_, ReadEnd)| Tail { records, end: read.end, aborted: read.aborted };
        Ok(records.into_iter().zip(ends).map(tail).collect())
    })
}

/// Repeats a call while the system is unavailable, no longer than the patience.
pub(crate) fn wait_out<T>(
    system: &str,
    patience: Duration,
    mut call: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let started = ambient::instant();
    loop {
        match call() {
            Err(error) if error.kind == ErrorKind::Retry && started.elapsed() < patience => {
                tracing::warn!(error = chain(error), "the {system} is unavailable, retrying");
                ambient::pause(PAUSE);
            }
            result => return result,
        }
    }
}
