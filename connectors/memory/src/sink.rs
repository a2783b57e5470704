//! Topics as outputs of a job, and their transactions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use fluvial_connector::{
    CommitError, Envelope, Error, ErrorKind, Offset, Output, OutputPartition, OutputSpec, OutputStatus, PartitionWrite,
    Progress, ReadEnd, Record, Sink, SinkContext, SinkSession, SinkStatus, Transaction, Transactor, WriterId,
};

use crate::faults::LostCommit;
use crate::store::{Memory, OpenTransaction, no_partition};
use crate::topic::Topic;

/// A topic as an output, created by [`Memory::upsert`] or [`Memory::append_to`]. All outputs in one [`Memory`] share
/// transactions.
#[derive(Clone, Debug)]
pub struct MemoryOutput {
    memory: Memory,
    topic: String,
    envelope: Envelope,
}

impl MemoryOutput {
    pub(crate) fn new(memory: Memory, topic: String, partitions: u32, envelope: Envelope) -> Self {
        if memory.find(&topic).is_none() {
            memory.create_topic(&topic, partitions);
        }
        Self { memory, topic, envelope }
    }
}

/// The partition of a key, by its FNV-1a hash, which is the same in all versions of the binary.
fn partition_of(key: &[u8], partitions: u32) -> u32 {
    let hash = key.iter().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash % partitions
}

impl Output for MemoryOutput {
    fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(MemorySink { memory: self.memory.clone() })
    }

    fn spec(&self) -> OutputSpec {
        OutputSpec { name: self.topic.clone(), envelope: self.envelope, partition_of }
    }
}

struct MemorySink {
    memory: Memory,
}

impl Sink for MemorySink {
    fn identity(&self) -> String {
        self.memory.name().to_owned()
    }

    fn connect(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Result<Arc<dyn SinkSession>, Error> {
        let outputs = outputs.iter().map(|output| output.name.clone()).collect();
        Ok(Arc::new(MemorySession { memory: self.memory.clone(), context: context.clone(), outputs }))
    }

    fn look(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Result<Arc<dyn SinkSession>, Error> {
        // The topics are created with the outputs of the job.
        self.connect(context, outputs)
    }
}

struct MemorySession {
    memory: Memory,
    context: SinkContext,
    outputs: Vec<String>,
}

impl SinkSession for MemorySession {
    fn status(&self) -> Result<SinkStatus, Error> {
        let output = |name: &String| {
            let topic = self.memory.topic(name)?;
            Ok((name.clone(), OutputStatus { partitions: topic.count(), identity: topic.identity.clone() }))
        };
        Ok(SinkStatus {
            outputs: self.outputs.iter().map(output).collect::<Result<_, Error>>()?,
            progress_name: format!("the progress of job '{}'", self.context.process.job),
            // It is kept as long as the memory is.
            progress_identity: String::new(),
        })
    }

    fn writers(&self, output: &str) -> Result<Vec<String>, Error> {
        let writers = self.memory.writers();
        let others = writers.progress.iter().filter(|(job, _)| **job != self.context.process.job);
        let of_output = others.filter(|(_, progress)| progress.keys().any(|at| at.output == output));
        Ok(of_output.map(|(job, _)| format!("job '{job}' writes to it too")).collect())
    }

    fn fence(&self, id: &WriterId) -> Result<Box<dyn Transactor>, Error> {
        let mut writers = self.memory.writers();
        let epoch = writers.epochs.entry(*id).or_insert(0);
        *epoch += 1;
        let epoch = *epoch;
        let left_open = writers.open.remove(id);
        drop(writers);
        if let Some(transaction) = left_open {
            finish(&self.memory, &transaction, false);
        }
        let (memory, context) = (self.memory.clone(), self.context.clone());
        Ok(Box::new(MemoryTransactor { memory, context, id: *id, epoch }))
    }

    fn progress(&self) -> Result<BTreeMap<OutputPartition, Progress>, Error> {
        Ok(self.memory.writers().progress.get(&self.context.process.job).cloned().unwrap_or_default())
    }

    fn read_all_committed(
        &self,
        from: &[(OutputPartition, Offset)],
        take: &mut dyn FnMut(usize, Record<'_>),
    ) -> Result<Vec<ReadEnd>, Error> {
        let deadline = Instant::now() + self.context.patience;
        let topics = from.iter().map(|(at, _)| self.memory.topic(&at.output)).collect::<Result<Vec<_>, _>>()?;
        let log_of = |place: usize| {
            let at: &OutputPartition = &from[place].0;
            topics[place].read(at.partition).ok_or_else(|| no_partition(&at.output, at.partition))
        };
        // What is committed now may stand behind transactions that are open now: these are waited for.
        let ends = (0..from.len()).map(|place| Ok(log_of(place)?.end())).collect::<Result<Vec<_>, Error>>()?;
        let read = |(place, (at, from)): (usize, &(OutputPartition, Offset))| {
            let mut next = from.0;
            loop {
                let seen = topics[place].changes();
                let log = log_of(place)?;
                next = log.read(next, usize::MAX, &mut |record: Record<'_>| take(place, record)).1;
                if next >= ends[place] {
                    let before = from.0.checked_sub(1).filter(|before| log.is_aborted(*before));
                    return Ok(ReadEnd { aborted: before.map(Offset), ..ReadEnd::at(Offset(log.end())) });
                }
                drop(log);
                let what = format!("read back output {at}: an open transaction holds it up at offset {next}");
                let _wait = self.context.waits.begin(what.clone());
                if !topics[place].wait_for_change(seen, deadline) {
                    return Err(Error::new(ErrorKind::Retry, what));
                }
            }
        };
        from.iter().enumerate().map(read).collect()
    }
}

/// Ends a transaction in all partitions that it wrote to.
fn finish(memory: &Memory, transaction: &OpenTransaction, commit: bool) {
    for at in &transaction.partitions {
        if let Some(topic) = memory.find(&at.output) {
            if let Some(mut log) = topic.write(at.partition) {
                log.finish(transaction.id, commit);
            }
            topic.wake();
        }
    }
}

struct MemoryTransactor {
    memory: Memory,
    context: SinkContext,
    id: WriterId,
    epoch: u64,
}

impl MemoryTransactor {
    fn fenced(&self) -> CommitError {
        let what = format!("write as memory writer '{}': a newer writer of this id has fenced it", self.id);
        CommitError::Fenced(Error::new(ErrorKind::Fenced, what))
    }

    fn place(&self, write: &PartitionWrite) -> Result<Arc<Topic>, CommitError> {
        let topic = self.memory.topic(&write.at.output).map_err(CommitError::Refused)?;
        if topic.write(write.at.partition).is_none() {
            return Err(CommitError::Refused(no_partition(&write.at.output, write.at.partition)));
        }
        Ok(topic)
    }

    fn unknown(&self, why: &str) -> CommitError {
        CommitError::Unknown(Error::new(ErrorKind::Restart, format!("commit as memory writer '{}': {why}", self.id)))
    }
}

impl Transactor for MemoryTransactor {
    fn prepare(&mut self, transaction: &Transaction) -> Result<Vec<Offset>, CommitError> {
        let records = transaction.writes.iter().flat_map(|write| write.records.iter());
        let bytes = records.map(|record| record.bytes()).sum();
        self.memory.reserve(bytes).map_err(CommitError::Refused)?;

        // Everything that can fail comes before the first record is written.
        let topics = transaction.writes.iter().map(|write| self.place(write)).collect::<Result<Vec<_>, _>>()?;
        let mut writers = self.memory.writers();
        if writers.epochs.get(&self.id) != Some(&self.epoch) {
            return Err(self.fenced());
        }
        if writers.open.contains_key(&self.id) {
            return Err(self.unknown("a transaction is open already"));
        }
        writers.transactions += 1;
        let mut open = OpenTransaction { id: writers.transactions, partitions: Vec::new(), progress: Vec::new() };
        let mut ends = Vec::with_capacity(transaction.writes.len());
        for (write, topic) in transaction.writes.iter().zip(&topics) {
            let missing = || CommitError::Refused(no_partition(&write.at.output, write.at.partition));
            let mut log = topic.write(write.at.partition).ok_or_else(missing)?;
            let offsets: Vec<u64> =
                write.records.iter().map(|record| log.append(Some(record.key), record.value, Some(open.id))).collect();
            let progress = write.progress_at(|index| Offset(offsets[index] + 1));
            if !offsets.is_empty() {
                open.partitions.push(write.at.clone());
            }
            ends.push(progress.end);
            open.progress.push((write.at.clone(), progress));
        }
        writers.open.insert(self.id, open);
        Ok(ends)
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        let lost = self.memory.store().faults.before_commit(self.context.patience);
        let lost = lost.map_err(|()| self.unknown("commits are stopped, and the patience has ended"))?;
        let mut writers = self.memory.writers();
        if writers.epochs.get(&self.id) != Some(&self.epoch) {
            return Err(self.fenced());
        }
        if lost == Some(LostCommit::DidNot) {
            return Err(self.unknown("the answer was lost"));
        }
        let Some(transaction) = writers.open.remove(&self.id) else {
            return Err(self.unknown("no transaction is prepared"));
        };
        if lost != Some(LostCommit::Partly) {
            let progress = writers.progress.entry(self.context.process.job.clone()).or_default();
            progress.extend(transaction.progress.iter().cloned());
        }
        // Progress and records under one lock: nobody sees the one without the other.
        finish(&self.memory, &transaction, true);
        drop(writers);
        match lost {
            None => Ok(()),
            Some(_) => Err(self.unknown("the answer was lost")),
        }
    }
}
