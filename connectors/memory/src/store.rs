//! The topics of one memory store, and the state of their writers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use fluvial_connector::{Envelope, Error, ErrorKind, Offset, OutputPartition, Progress, WriterId};

use crate::faults::Faults;
use crate::log::TransactionId;
use crate::topic::{Generated, Partitions, Topic};
use crate::{MemoryOutput, MemorySource};

/// A set of topics in memory. It is cheap to clone, and all clones share the topics.
///
/// ```
/// use fluvial_memory::Memory;
///
/// let memory = Memory::new();
/// memory.create_topic("orders", 2);
/// let offset = memory.append("orders", 0, Some(b"1"), Some(b"tea"))?;
/// let records = memory.committed("orders", 0)?;
/// assert_eq!((records.len(), records[0].offset, records[0].value.as_deref()), (1, offset, Some(&b"tea"[..])));
/// # Ok::<(), fluvial_connector::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Memory(Arc<Store>);

/// A committed record of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedRecord {
    /// Its offset in the partition.
    pub offset: Offset,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// What a record has beside its key and its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Its headers, in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its time, in milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
}

#[derive(Debug)]
pub(crate) struct Store {
    name: String,
    limit_bytes: Option<u64>,
    topics: RwLock<BTreeMap<String, Arc<Topic>>>,
    pub(crate) writers: Mutex<Writers>,
    pub(crate) faults: Faults,
}

/// The writers of all transactions, and the progress that they have committed.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    /// The current epoch of each id.
    pub(crate) epochs: BTreeMap<WriterId, u64>,
    /// The open transaction of each id, with the partitions that it has written to.
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
    /// Creates an empty memory store without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::make(None)
    }

    /// Creates an empty memory store that accepts at most `limit_bytes` bytes of keys and values in all.
    ///
    /// ```
    /// use fluvial_memory::Memory;
    ///
    /// let memory = Memory::with_limit(10);
    /// memory.create_topic("orders", 1);
    /// memory.append("orders", 0, None, Some(b"12345678"))?;
    /// let error = memory.append("orders", 0, None, Some(b"9ab")).unwrap_err();
    /// assert_eq!(error.to_string(), "append 3 bytes to a memory store of 10 bytes that holds 8: it is full");
    /// # Ok::<(), fluvial_connector::Error>(())
    /// ```
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

    /// Creates a topic. An existing topic of that name is replaced by an empty one, as if it had been deleted and recreated.
    ///
    /// # Panics
    /// If `partitions` is 0.
    pub fn create_topic(&self, name: &str, partitions: u32) {
        assert!(partitions > 0, "a topic has at least one partition");
        self.put(name, Partitions::Logs((0..partitions).map(|_| RwLock::default()).collect()));
    }

    /// Deletes a topic. Existing readers keep reading the deleted topic.
    pub fn delete_topic(&self, name: &str) {
        self.0.topics.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Creates a topic of `splits` splits with `records` records each, which `generator` computes when they are read. For the
    /// same split and offset it must always compute the same record. [`u64::MAX`] records are an endless input.
    ///
    /// ```
    /// use fluvial_connector::{Offset, Slot, Source, SplitId, Waker};
    /// use fluvial_memory::Memory;
    ///
    /// let memory = Memory::new();
    /// memory.generate("numbers", 1, 3, |_, offset, record| record.value.extend_from_slice(offset.to_string().as_bytes()));
    /// let mut reader = memory.source("numbers").reader(Waker::new(|| ()))?;
    /// reader.start(Slot(0), &SplitId("0".to_owned()), Offset(1))?;
    /// let mut values = Vec::new();
    /// reader.poll(10, &mut |_, record| values.push(record.value.unwrap().to_vec()))?;
    /// assert_eq!(values, [b"1", b"2"]);
    /// # Ok::<(), fluvial_connector::Error>(())
    /// ```
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

    /// Appends a record outside of any transaction, and returns its offset. The example of [`Memory`] shows it.
    ///
    /// # Errors
    /// The partition does not exist, or the memory store is full.
    pub fn append(
        &self,
        topic: &str,
        partition: u32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Offset, Error> {
        self.append_with(topic, partition, key, value, Metadata::default())
    }

    /// Appends a record with headers and a timestamp, as [`Memory::append`] does.
    ///
    /// ```
    /// use fluvial_connector::{Offset, Slot, Source, SplitId, Waker};
    /// use fluvial_memory::{Memory, Metadata};
    ///
    /// let memory = Memory::new();
    /// memory.create_topic("orders", 1);
    /// let metadata = Metadata { headers: vec![("trace".to_owned(), Some(b"7".to_vec()))], timestamp_ms: Some(5) };
    /// memory.append_with("orders", 0, None, Some(b"tea"), metadata)?;
    /// let mut reader = memory.source("orders").reader(Waker::new(|| ()))?;
    /// reader.start(Slot(0), &SplitId("0".to_owned()), Offset(0))?;
    /// reader.poll(1, &mut |_, record| {
    ///     assert_eq!(record.headers.last("trace").and_then(|header| header.value), Some(&b"7"[..]));
    ///     assert_eq!(record.timestamp_ms, Some(5));
    /// })?;
    /// # Ok::<(), fluvial_connector::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Memory::append`].
    pub fn append_with(
        &self,
        topic: &str,
        partition: u32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        metadata: Metadata,
    ) -> Result<Offset, Error> {
        let of = self.topic(topic)?;
        self.reserve([key, value].into_iter().flatten().map(<[u8]>::len).sum())?;
        let mut log = of.write(partition).ok_or_else(|| no_partition(topic, partition))?;
        let offset = log.append_with(key, value, metadata, None);
        drop(log);
        of.wake();
        Ok(Offset(offset))
    }

    /// Removes all records of a partition before `offset`, as retention does.
    ///
    /// ```
    /// use fluvial_connector::Offset;
    /// use fluvial_memory::Memory;
    ///
    /// let memory = Memory::new();
    /// memory.create_topic("orders", 1);
    /// for value in [b"a", b"b"] {
    ///     memory.append("orders", 0, None, Some(value))?;
    /// }
    /// memory.truncate("orders", 0, Offset(1))?;
    /// assert_eq!(memory.committed("orders", 0)?[0].value.as_deref(), Some(&b"b"[..]));
    /// # Ok::<(), fluvial_connector::Error>(())
    /// ```
    ///
    /// # Errors
    /// The partition does not exist.
    pub fn truncate(&self, topic: &str, partition: u32, offset: Offset) -> Result<(), Error> {
        let of = self.topic(topic)?;
        of.write(partition).ok_or_else(|| no_partition(topic, partition))?.truncate(offset.0);
        Ok(())
    }

    /// Makes a partition unavailable, as if its broker were down, or available again.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use fluvial_connector::Source;
    /// use fluvial_memory::Memory;
    ///
    /// let memory = Memory::new();
    /// memory.create_topic("orders", 1);
    /// memory.set_available("orders", 0, false)?;
    /// let splits = memory.source("orders").splits(Duration::ZERO)?;
    /// assert_eq!(splits[0].availability.why_not(), Some("it was made unavailable"));
    /// # Ok::<(), fluvial_connector::Error>(())
    /// ```
    ///
    /// # Errors
    /// The partition does not exist.
    pub fn set_available(&self, topic: &str, partition: u32, available: bool) -> Result<(), Error> {
        let of = self.topic(topic)?;
        if partition >= of.count() {
            return Err(no_partition(topic, partition));
        }
        of.set_available(partition, available);
        Ok(())
    }

    /// Returns all committed records of a partition that have not been removed by [`Memory::truncate`].
    ///
    /// # Errors
    /// The partition does not exist.
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

    /// Returns the committed position of each partition that a job reported last for monitoring
    /// ([`Source::report_committed`](fluvial_connector::Source::report_committed)).
    ///
    /// ```
    /// use fluvial_connector::{Offset, Source, SplitId};
    /// use fluvial_memory::Memory;
    ///
    /// let memory = Memory::new();
    /// memory.create_topic("orders", 1);
    /// memory.source("orders").report_committed("job", &[(SplitId("0".to_owned()), Offset(7))])?;
    /// assert_eq!(memory.reported("orders")?[&0], Offset(7));
    /// # Ok::<(), fluvial_connector::Error>(())
    /// ```
    ///
    /// # Errors
    /// The topic does not exist.
    pub fn reported(&self, topic: &str) -> Result<BTreeMap<u32, Offset>, Error> {
        Ok(self.topic(topic)?.reported.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Returns a topic as a source of a job. The topic must exist when the job reads it.
    #[must_use]
    pub fn source(&self, topic: impl Into<String>) -> MemorySource {
        MemorySource::new(self.clone(), topic.into())
    }

    /// Returns a topic as an upsert output of a job: the newest record of a key is its row, and a record without value deletes
    /// it. The topic is created with `partitions` partitions if it does not exist.
    ///
    /// ```
    /// use fluvial_connector::{Envelope, Output};
    /// use fluvial_memory::Memory;
    ///
    /// let memory = Memory::new();
    /// assert_eq!(memory.upsert("counts", 1).spec().envelope, Envelope::Upsert);
    /// assert_eq!(memory.append_to("alerts", 1).spec().envelope, Envelope::Append);
    /// assert!(memory.committed("counts", 0)?.is_empty()); // the topic exists, without records
    /// # Ok::<(), fluvial_connector::Error>(())
    /// ```
    #[must_use]
    pub fn upsert(&self, topic: impl Into<String>, partitions: u32) -> MemoryOutput {
        MemoryOutput::new(self.clone(), topic.into(), partitions, Envelope::Upsert)
    }

    /// Returns a topic as an append output of a job, which keeps every record. The topic is created with `partitions` partitions if
    /// it does not exist.
    #[must_use]
    pub fn append_to(&self, topic: impl Into<String>, partitions: u32) -> MemoryOutput {
        MemoryOutput::new(self.clone(), topic.into(), partitions, Envelope::Append)
    }

    /// Returns the handle that injects faults into commits.
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
            let what =
                format!("memory topic '{topic}' does not exist: create it with `create_topic`, or check its name");
            Error::new(ErrorKind::Configuration, what)
        })
    }

    pub(crate) fn writers(&self) -> MutexGuard<'_, Writers> {
        self.0.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes that are about to be stored to the total, unless that would exceed the limit.
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
