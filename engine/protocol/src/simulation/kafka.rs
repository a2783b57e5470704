//! The simulated Kafka: partitions with offsets and control markers, transactional ids with epochs, and the first
//! version of the transaction protocol, in which an EndTxn says nothing of which transaction it ends.

use std::collections::{BTreeMap, BTreeSet};

use fluvial_connector::{Offset, OutputPartition, OutputRecord, Progress};

/// A partition's number in the broker: outputs first, then the progress topic's.
pub(super) type Partition = usize;

/// A transactional id: slot and turn.
pub(super) type Id = (u32, u32);

/// What a producer has been given by its initialisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Producer {
    pid: u32,
    epoch: u32,
}

/// What is written.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Record(OutputRecord),
    Progress(OutputPartition, Progress),
    Touch,
}

#[derive(Debug)]
struct Entry {
    pid: u32,
    body: Option<Body>,
    committed: Option<bool>,
}

#[derive(Debug, Default)]
struct Log {
    entries: Vec<Entry>,
    /// The first offset of each open transaction.
    open: BTreeMap<u32, usize>,
}

impl Log {
    fn stable(&self) -> usize {
        self.open.values().min().copied().unwrap_or(self.entries.len())
    }
}

#[derive(Debug)]
struct Writer {
    pid: u32,
    epoch: u32,
    state: State,
    since: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Empty,
    Ongoing(BTreeSet<Partition>),
    Ending { commit: bool, left: BTreeSet<Partition> },
    Ended { commit: bool },
}

/// Why a request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Try again: a transaction is still being ended.
    Busy,
    /// The producer is not the newest of its id.
    Fenced,
    /// Not in this state.
    Invalid,
}

/// The broker.
pub(super) struct Kafka {
    logs: Vec<Log>,
    writers: BTreeMap<Id, Writer>,
    next_pid: u32,
}

impl Kafka {
    pub(super) fn new(partitions: usize) -> Self {
        Self { logs: (0..partitions).map(|_| Log::default()).collect(), writers: BTreeMap::new(), next_pid: 1 }
    }

    /// InitProducerId: ends what an earlier producer left open, and makes a new epoch.
    pub(super) fn init(&mut self, id: Id, now: u64) -> Result<Producer, Refusal> {
        let next_pid = &mut self.next_pid;
        let writer = self.writers.entry(id).or_insert_with(|| {
            *next_pid += 1;
            Writer { pid: *next_pid, epoch: 0, state: State::Empty, since: now }
        });
        match &mut writer.state {
            State::Ending { .. } => Err(Refusal::Busy),
            State::Ongoing(_) => {
                writer.epoch += 1;
                writer.end(false);
                Err(Refusal::Busy)
            }
            State::Empty | State::Ended { .. } => {
                writer.epoch += 1;
                writer.state = State::Empty;
                Ok(Producer { pid: writer.pid, epoch: writer.epoch })
            }
        }
    }

    fn writer(&mut self, id: Id, producer: Producer) -> Result<&mut Writer, Refusal> {
        let writer = self.writers.get_mut(&id).ok_or(Refusal::Fenced)?;
        let same = writer.pid == producer.pid && writer.epoch == producer.epoch;
        if same { Ok(writer) } else { Err(Refusal::Fenced) }
    }

    /// AddPartitionsToTxn.
    pub(super) fn add(&mut self, id: Id, producer: Producer, to: Partition, now: u64) -> Result<(), Refusal> {
        let writer = self.writer(id, producer)?;
        match &mut writer.state {
            State::Ending { .. } => return Err(Refusal::Busy),
            State::Ongoing(partitions) => drop(partitions.insert(to)),
            State::Empty | State::Ended { .. } => {
                writer.state = State::Ongoing([to].into());
                writer.since = now;
            }
        }
        Ok(())
    }

    /// Produce, in a partition that must be part of the transaction. Returns the offset of the first.
    pub(super) fn produce(
        &mut self,
        id: Id,
        producer: Producer,
        to: Partition,
        bodies: Vec<Body>,
    ) -> Result<Offset, Refusal> {
        let writer = self.writer(id, producer)?;
        match &writer.state {
            State::Ongoing(partitions) if partitions.contains(&to) => {}
            _ => return Err(Refusal::Invalid),
        }
        let log = &mut self.logs[to];
        let first = log.entries.len();
        log.open.entry(producer.pid).or_insert(first);
        log.entries.extend(bodies.into_iter().map(|body| Entry {
            pid: producer.pid,
            body: Some(body),
            committed: None,
        }));
        Ok(Offset(first as u64))
    }

    /// EndTxn with commit. It ends whatever transaction the epoch has open.
    pub(super) fn commit(&mut self, id: Id, producer: Producer) -> Result<(), Refusal> {
        let writer = self.writer(id, producer)?;
        match &writer.state {
            State::Ongoing(_) => {
                writer.end(true);
                Ok(())
            }
            State::Ended { commit: true } => Ok(()),
            State::Ending { .. } => Err(Refusal::Busy),
            State::Ended { commit: false } | State::Empty => Err(Refusal::Invalid),
        }
    }

    /// EndTxn with abort.
    pub(super) fn abort(&mut self, id: Id, producer: Producer) -> Result<(), Refusal> {
        let writer = self.writer(id, producer)?;
        match &writer.state {
            State::Ongoing(_) => {
                writer.end(false);
                Ok(())
            }
            State::Ending { .. } => Err(Refusal::Busy),
            State::Ended { .. } | State::Empty => Ok(()),
        }
    }

    /// Writes one marker of a transaction that is being ended. `choose` picks one of so many.
    pub(super) fn write_marker(&mut self, choose: impl FnOnce(usize) -> usize) {
        let mut ending: Vec<&mut Writer> =
            self.writers.values_mut().filter(|w| matches!(w.state, State::Ending { .. })).collect();
        if ending.is_empty() {
            return;
        }
        let index = choose(ending.len());
        let writer = &mut *ending[index];
        let State::Ending { commit, left } = &mut writer.state else { return };
        let commit = *commit;
        if let Some(partition) = left.pop_first() {
            let log = &mut self.logs[partition];
            if let Some(first) = log.open.remove(&writer.pid) {
                for entry in &mut log.entries[first..] {
                    if entry.pid == writer.pid {
                        entry.committed = Some(commit);
                    }
                }
                log.entries.push(Entry { pid: writer.pid, body: None, committed: Some(commit) });
            }
        }
        if left.is_empty() {
            writer.state = State::Ended { commit };
        }
    }

    /// Aborts transactions that have been open for too long; their producers are fenced.
    pub(super) fn time_out(&mut self, now: u64, after: u64) {
        for writer in self.writers.values_mut() {
            if matches!(writer.state, State::Ongoing(_)) && now > writer.since + after {
                writer.epoch += 1;
                writer.end(false);
            }
        }
    }

    /// Forgets an id that has nothing open: its producer meets INVALID_PRODUCER_ID_MAPPING.
    pub(super) fn forget(&mut self, choose: impl FnOnce(usize) -> usize) {
        let idle = self.writers.iter().filter(|(_, w)| matches!(w.state, State::Empty | State::Ended { .. }));
        let idle: Vec<Id> = idle.map(|(id, _)| *id).collect();
        if !idle.is_empty() {
            self.writers.remove(&idle[choose(idle.len())]);
        }
    }

    /// The high watermark.
    pub(super) fn end(&self, of: Partition) -> usize {
        self.logs[of].entries.len()
    }

    /// The last stable offset.
    pub(super) fn stable(&self, of: Partition) -> usize {
        self.logs[of].stable()
    }

    /// What is committed from an offset to another, as far as it is stable.
    pub(super) fn read(&self, of: Partition, from: usize, to: usize) -> impl Iterator<Item = (Offset, &Body)> {
        let log = &self.logs[of];
        let to = to.min(log.stable());
        let entries = log.entries[..to].iter().enumerate().skip(from);
        let visible = entries.filter(|(_, entry)| entry.committed == Some(true));
        visible.filter_map(|(offset, entry)| Some((Offset(offset as u64), entry.body.as_ref()?)))
    }

    /// Whether there is a record at an offset whose transaction was aborted.
    pub(super) fn is_aborted(&self, of: Partition, at: Offset) -> bool {
        let entry = self.logs[of].entries.get(at.0 as usize);
        entry.is_some_and(|entry| entry.body.is_some() && entry.committed == Some(false))
    }

    /// Whether a transaction is being ended.
    pub(super) fn is_ending(&self) -> bool {
        self.writers.values().any(|writer| matches!(writer.state, State::Ending { .. }))
    }
}

impl Writer {
    fn end(&mut self, commit: bool) {
        if let State::Ongoing(left) = std::mem::replace(&mut self.state, State::Empty) {
            self.state = State::Ending { commit, left };
        }
    }
}
