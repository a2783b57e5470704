//! All topics of one memory, and who may write to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use fluvial_connector::{Envelope, Error, ErrorKind, Offset, OutputPartition, Progress, WriterId};

use crate::faults::Faults;
use crate::log::TransactionId;
use crate::topic::{Generated, Partitions, Topic};
use crate::{MemoryOutput, MemorySource};

/// Topics in memory. Cheap to clone; clones are the same topics.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Store>);

/// A committed record of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedRecord {
    /// Where it stands.
    pub offset: Offset,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(crate) struct Store {
    name: String,
    limit_bytes: Option<u64>,
    topics: RwLock<BTreeMap<String, Arc<Topic>>>,
    pub(crate) writers: Mutex<Writers>,
    pub(crate) faults: Faults,
}

/// Who may write, and what has been committed by them.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    /// The current epoch of each id.
    pub(crate) epochs: BTreeMap<WriterId, u64>,
    /// The open transaction of each id, and where it wrote.
    pub(crate) open: BTreeMap<WriterId, OpenTransaction>,
    pub(crate) transactions: TransactionId,
    /// By job.
    pub(crate) progress: BTreeMap<String, BTreeMap<OutputPartition, Progress>>,
    bytes: u64,
}

#[derive(Debug)]
pub(crate) struct OpenTransaction {
    pub(crate) id: TransactionId,
    pub(crate) partitions: Vec<OutputPartition>,
    pub(crate) progress: Vec<(OutputPartition, Progress)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

impl Memory {
    /// An empty memory without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::make(None)
    }

    /// An empty memory that takes so many bytes of keys and values in all; what would be more is refused.
    #[must_use]
    pub fn with_limit(limit_bytes: u64) -> Self {
        Self::make(Some(limit_bytes))
    }

    fn make(limit_bytes: Option<u64>) -> Self {
        Self(Arc::new(Store {
            name: format!("memory {}", uuid::Uuid::new_v4()),
            limit_bytes,
            topics: RwLock::default(),
            writers: Mutex::default(),
            faults: Faults::default(),
        }))
    }

    /// Makes a topic; one of that name is replaced by an empty one, as if it had been deleted.
    ///
    /// # Panics
    /// No partitions are asked for.
    pub fn create_topic(&self, name: &str, partitions: u32) {
        assert!(partitions > 0, "a topic has at least one partition");
        self.put(name, Partitions::Logs((0..partitions).map(|_| RwLock::default()).collect()));
    }

    /// Removes a topic. Readers that it has stay with what they read.
    pub fn delete_topic(&self, name: &str) {
        self.0.topics.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Makes a topic of `splits` splits with `records` records each, which `generator` computes when they are read. It
    /// must fill in the same for the same split and offset, always. [`u64::MAX`] records are an endless input.
    pub fn generate(
        &self,
        name: &str,
        splits: u32,
        records: u64,
        generator: impl Fn(u32, Offset, &mut Generated) + Send + Sync + 'static,
    ) {
        self.put(name, Partitions::Generated { splits, records, generator: Arc::new(generator) });
    }

    fn put(&self, name: &str, partitions: Partitions) {
        let mut topics = self.0.topics.write().unwrap_or_else(PoisonError::into_inner);
        topics.insert(name.to_owned(), Arc::new(Topic::new(partitions)));
    }

    /// Appends a record outside of any transaction.
    ///
    /// # Errors
    /// There is no such partition, or the memory is full.
    pub fn append(
        &self,
        topic: &str,
        partition: u32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Offset, Error> {
        let of = self.topic(topic)?;
        self.reserve([key, value].into_iter().flatten().map(<[u8]>::len).sum())?;
        let mut log = of.write(partition).ok_or_else(|| no_partition(topic, partition))?;
        let offset = log.append(key, value, None);
        drop(log);
        of.wake();
        Ok(Offset(offset))
    }

    /// Forgets all records of a partition before `offset`, as retention does.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn truncate(&self, topic: &str, partition: u32, offset: Offset) -> Result<(), Error> {
        let of = self.topic(topic)?;
        of.write(partition).ok_or_else(|| no_partition(topic, partition))?.truncate(offset.0);
        Ok(())
    }

    /// Makes a partition of an input unreadable, as one whose broker is down, or readable again.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn set_available(&self, topic: &str, partition: u32, available: bool) -> Result<(), Error> {
        let of = self.topic(topic)?;
        if partition >= of.count() {
            return Err(no_partition(topic, partition));
        }
        of.set_available(partition, available);
        Ok(())
    }

    /// All committed records of a partition that are still there.
    ///
    /// # Errors
    /// There is no such partition.
    pub fn committed(&self, topic: &str, partition: u32) -> Result<Vec<CommittedRecord>, Error> {
        let of = self.topic(topic)?;
        let log = of.read(partition).ok_or_else(|| no_partition(topic, partition))?;
        let mut records = Vec::new();
        log.read(0, usize::MAX, |record| {
            let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
            records.push(CommittedRecord { offset: record.offset, key, value });
        });
        Ok(records)
    }

    /// What the engine said last of how far it has committed a topic, by partition.
    ///
    /// # Errors
    /// There is no such topic.
    pub fn reported(&self, topic: &str) -> Result<BTreeMap<u32, Offset>, Error> {
        Ok(self.topic(topic)?.reported.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// A topic as an input.
    #[must_use]
    pub fn source(&self, topic: impl Into<String>) -> MemorySource {
        MemorySource::new(self.clone(), topic.into())
    }

    /// A topic that is to hold a table. Made with `partitions` partitions if it does not exist.
    #[must_use]
    pub fn upsert(&self, topic: impl Into<String>, partitions: u32) -> MemoryOutput {
        MemoryOutput::new(self.clone(), topic.into(), partitions, Envelope::Upsert)
    }

    /// A topic that each record is appended to. Made with `partitions` partitions if it does not exist.
    #[must_use]
    pub fn append_to(&self, topic: impl Into<String>, partitions: u32) -> MemoryOutput {
        MemoryOutput::new(self.clone(), topic.into(), partitions, Envelope::Append)
    }

    /// Faults on request.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    pub(crate) fn name(&self) -> &str {
        &self.0.name
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0
    }

    pub(crate) fn find(&self, topic: &str) -> Option<Arc<Topic>> {
        self.0.topics.read().unwrap_or_else(PoisonError::into_inner).get(topic).cloned()
    }

    pub(crate) fn topic(&self, topic: &str) -> Result<Arc<Topic>, Error> {
        self.find(topic).ok_or_else(|| {
            let what = format!(
                "memory topic '{topic}' does not exist: create it with `create_topic`, or check its \
                 name"
            );
            Error::new(ErrorKind::Configuration, what)
        })
    }

    pub(crate) fn writers(&self) -> MutexGuard<'_, Writers> {
        self.0.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts bytes that are about to be kept.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<(), Error> {
        let mut writers = self.writers();
        let total = writers.bytes + bytes as u64;
        match self.0.limit_bytes {
            Some(limit) if total > limit => {
                let what = format!(
                    "append {bytes} bytes to a memory store of {limit} bytes that holds {}: it is full",
                    writers.bytes
                );
                Err(Error::new(ErrorKind::Configuration, what))
            }
            _ => {
                writers.bytes = total;
                Ok(())
            }
        }
    }
}

pub(crate) fn no_partition(topic: &str, partition: u32) -> Error {
    let what = format!("memory topic '{topic}' has no partition {partition} that records can be appended to");
    Error::new(ErrorKind::Configuration, what)
}
