//! The threads that make a sink's blocking calls for one process.
//!
//! ```text
//!   first worker ─Fence, Prepare, Commit──► turn 0 ─┐
//!               ──Fence, Prepare, Commit──► turn 1 ─┼── Done ──► first worker
//!               ──progress, tails─────────► reader ─┘
//! ```
//!
//! Each writer owns one transactor, and does its commands in their order. Its thread is named after its turn.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fluvial_connector::{
    CommitError, Error, ErrorKind, Offset, OutputPartition, OutputRecord, ReadEnd, SinkSession, Tick, Transaction,
    Transactor, WriterId,
};
use fluvial_protocol::{self as protocol, Done, HeldRecords, System, Tail};

use super::ambient;
use super::background::{Background, Serve, Server, wait_out};
use super::failure::{Failure, chain};
use super::meter::{SinkMeter, records_of};
use crate::fail_point::{FailPoint, reach};
use crate::stages::STAGES;

/// A command to a writer.
pub(crate) enum Command {
    /// Drop the transactor, and fence its id, which gives a fresh one.
    Fence(WriterId),
    /// Write a transaction.
    Prepare(Box<Transaction>),
    /// Commit the prepared transaction.
    Commit,
}

/// A request to the reader.
pub(crate) enum Reading {
    /// All progress, and after that the status of the outputs.
    Progress,
    /// The committed records of partitions, each from an offset on, side by side, or only where they end.
    Tails(Vec<(OutputPartition, Option<Offset>)>),
    /// All committed records of partitions, side by side.
    Back(Vec<OutputPartition>),
}

/// The sink's threads of one process.
pub(crate) struct Turns {
    turns: Vec<Server<Command>>,
    reader: Server<Reading>,
}

impl Turns {
    /// Starts `turns` writers and a reader over one session.
    ///
    /// # Errors
    /// The host has no more threads.
    pub(crate) fn start(
        session: &Arc<dyn SinkSession>,
        turns: u32,
        patience: Duration,
        background: &Background<Done>,
        meter: &Arc<SinkMeter>,
    ) -> Result<Self, Failure> {
        let writer = |turn| {
            let session = Arc::clone(session);
            let meter = Arc::clone(meter);
            let (transactor, records) = (None, BTreeMap::new());
            let mut writer = Writer { turn, session, patience, transactor, tick: Tick(0), records, meter };
            background.serve(&format!("sink-turn-{turn}"), Serve::Each, move |command| [writer.obey(command)])
        };
        let turns = (0..turns).map(writer).collect::<Result<_, _>>()?;
        let session = Arc::clone(session);
        let read = move |reading| {
            [read(session.as_ref(), reading, patience).map_err(|error| Failure::of(System::Sink, error))]
        };
        Ok(Self { turns, reader: background.serve("sink-reader", Serve::Each, read)? })
    }

    /// Gives a command to the writer with this turn.
    pub(crate) fn tell(&self, turn: u32, command: Command) {
        self.turns[turn as usize].ask(command);
    }

    /// Gives the reader a request.
    pub(crate) fn read(&self, reading: Reading) {
        self.reader.ask(reading);
    }
}

/// Fences writers of earlier generations that this generation does not use, all at once; returns the first error.
pub(crate) fn fence_all(session: &dyn SinkSession, ids: &[WriterId], patience: Duration) -> Result<(), Error> {
    std::thread::scope(|scope| {
        let fence = |id| scope.spawn(move || wait_out("sink", patience, || session.fence(id)).map(drop));
        let fencing: Vec<_> = ids.iter().map(fence).collect();
        let ended = |_| Error::new(ErrorKind::Bug, "a thread that fences earlier writers panicked");
        fencing.into_iter().try_for_each(|thread| thread.join().map_err(ended)?)
    })
}

/// One of the process's writers.
struct Writer {
    turn: u32,
    session: Arc<dyn SinkSession>,
    patience: Duration,
    /// `None` until the writer is fenced, and after a failure until it is fenced again: no transaction begins in an
    /// epoch in which one has failed.
    transactor: Option<Box<dyn Transactor>>,
    /// The last tick of the transaction, for the events by which stages are measured.
    tick: Tick,
    /// The records of the transaction by output.
    records: BTreeMap<String, u64>,
    meter: Arc<SinkMeter>,
}

impl Writer {
    fn obey(&mut self, command: Command) -> Result<Done, Failure> {
        let (turn, patience) = (self.turn, self.patience);
        Ok(match command {
            Command::Fence(id) => {
                self.transactor = None;
                let fenced = wait_out("sink", patience, || self.session.fence(&id));
                self.transactor = Some(fenced.map_err(|error| Failure::of(System::Sink, error))?);
                Done::Fenced { turn }
            }
            Command::Prepare(transaction) => {
                self.tick = transaction.writes.iter().map(|write| write.progress.tick).max().unwrap_or(Tick(0));
                tracing::trace!(target: STAGES, tick = self.tick.0, "prepare");
                self.records = records_of(&transaction);
                let result = self.write(|transactor| transactor.prepare(&transaction));
                tracing::trace!(target: STAGES, tick = self.tick.0, "prepared");
                Done::Prepared { turn, result }
            }
            Command::Commit => {
                reach(FailPoint::BeforeCommit);
                tracing::trace!(target: STAGES, tick = self.tick.0, "commit");
                let begun = ambient::instant();
                let result = self.write(|transactor| transactor.commit());
                tracing::trace!(target: STAGES, tick = self.tick.0, "committed");
                if result.is_ok() {
                    self.meter.committed(&self.records, begun.elapsed());
                    reach(FailPoint::AfterCommit);
                }
                Done::Committed { turn, result }
            }
        })
    }

    fn write<T>(
        &mut self,
        call: impl FnOnce(&mut Box<dyn Transactor>) -> Result<T, CommitError>,
    ) -> Result<T, protocol::Failure> {
        let without = || CommitError::Unknown(Error::new(ErrorKind::Restart, "the writer had already been given up"));
        let result = self.transactor.as_mut().ok_or_else(without).and_then(call);
        if result.is_err() {
            self.transactor = None;
        }
        result.map_err(explain)
    }
}

/// Converts an error for the protocol, which has to know the meaning of the error and its full reason.
fn explain(error: CommitError) -> protocol::Failure {
    let (failure, why): (fn(String) -> protocol::Failure, String) = match error {
        CommitError::Fenced(error) => (protocol::Failure::Fenced, chain(error)),
        CommitError::Unknown(error) => (protocol::Failure::Unknown, chain(error)),
        // The run ends with this reason and reports it then.
        CommitError::Refused(error) => return protocol::Failure::Refused(error.kind, chain(error)),
    };
    tracing::warn!(error = why, "a transaction was not committed");
    failure(why)
}

fn read(session: &dyn SinkSession, reading: Reading, patience: Duration) -> Result<Done, Error> {
    Ok(match reading {
        Reading::Progress => {
            let progress = wait_out("sink", patience, || session.progress())?;
            let status = wait_out("sink", patience, || session.status())?;
            reach(FailPoint::AfterProgress);
            Done::Progress(progress, status)
        }
        Reading::Tails(from) => {
            // No record is at or after the greatest offset, so only the end is found.
            let from: Vec<_> = from.into_iter().map(|(at, from)| (at, from.unwrap_or(Offset(u64::MAX)))).collect();
            let tail = |(records, read): (_, ReadEnd)| Tail { records, end: read.end, aborted: read.aborted };
            Done::Tails(read_from(session, &from, patience)?.into_iter().map(tail).collect())
        }
        Reading::Back(partitions) => {
            let from: Vec<_> = partitions.into_iter().map(|at| (at, Offset(0))).collect();
            let found = read_from(session, &from, patience)?;
            let held =
                |((at, _), (records, ReadEnd { earliest, .. })): (_, (_, _))| HeldRecords { at, earliest, records };
            Done::ReadBack(from.into_iter().zip(found).map(held).collect())
        }
    })
}

/// The committed records of one output partition from an offset on, with the result of reading it.
type ReadFrom = (Vec<(Offset, OutputRecord)>, ReadEnd);

fn read_from(
    session: &dyn SinkSession,
    from: &[(OutputPartition, Offset)],
    patience: Duration,
) -> Result<Vec<ReadFrom>, Error> {
    wait_out("sink", patience, || {
        let mut records: Vec<Vec<_>> = from.iter().map(|_| Vec::new()).collect();
        let ends = session.read_all_committed(from, &mut |place, record| {
            let key = record.key.unwrap_or_default().to_vec();
            let value = record.value.map(<[u8]>::to_vec);
            records[place].push((record.offset, OutputRecord { key, value }));
        })?;
        Ok(records.into_iter().zip(ends).collect())
    })
}
