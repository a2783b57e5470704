//! One topic: its partitions, and the wakers of the readers that wait for its records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use fluvial_connector::{Offset, Waker};

use crate::log::Log;

/// A record that the generator of [`Memory::generate`](crate::Memory::generate) fills in. The buffers are reused for the next
/// record.
#[derive(Debug, Default)]
pub struct Generated {
    /// Its key; empty at first.
    pub key: Vec<u8>,
    /// Its value; empty at first.
    pub value: Vec<u8>,
}

/// Computes the record of a split at an offset. It always computes the same record for the same place.
pub(crate) type Generator = Arc<dyn Fn(u32, Offset, &mut Generated) + Send + Sync>;

pub(crate) struct Topic {
    /// Distinguishes the topic from a later one of the same name.
    pub(crate) identity: String,
    pub(crate) partitions: Partitions,
    wakers: Mutex<Vec<(u64, Waker)>>,
    unavailable: Mutex<BTreeSet<u32>>,
    pub(crate) reported: Mutex<BTreeMap<u32, Offset>>,
    /// The number of changes so far, for readers that wait for the end of a transaction.
    changes: Mutex<u64>,
    changed: Condvar,
}

pub(crate) enum Partitions {
    Logs(Vec<RwLock<Log>>),
    Generated { splits: u32, records: u64, generator: Generator },
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Topic {
    pub(crate) fn new(partitions: Partitions) -> Self {
        let identity = uuid::Uuid::new_v4().to_string();
        Self {
            identity,
            partitions,
            wakers: Mutex::default(),
            unavailable: Mutex::default(),
            reported: Mutex::default(),
            changes: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn count(&self) -> u32 {
        match &self.partitions {
            Partitions::Logs(logs) => u32::try_from(logs.len()).unwrap_or(u32::MAX),
            Partitions::Generated { splits, .. } => *splits,
        }
    }

    fn log(&self, partition: u32) -> Option<&RwLock<Log>> {
        match &self.partitions {
            Partitions::Logs(logs) => logs.get(partition as usize),
            Partitions::Generated { .. } => None,
        }
    }

    pub(crate) fn read(&self, partition: u32) -> Option<RwLockReadGuard<'_, Log>> {
        Some(self.log(partition)?.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn write(&self, partition: u32) -> Option<RwLockWriteGuard<'_, Log>> {
        Some(self.log(partition)?.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a partition can be read now.
    pub(crate) fn is_available(&self, partition: u32) -> bool {
        !self.unavailable.lock().unwrap_or_else(PoisonError::into_inner).contains(&partition)
    }

    pub(crate) fn set_available(&self, partition: u32, available: bool) {
        let mut unavailable = self.unavailable.lock().unwrap_or_else(PoisonError::into_inner);
        if available {
            unavailable.remove(&partition)
        } else {
            unavailable.insert(partition)
        };
        drop(unavailable);
        self.wake();
    }

    fn wakers(&self) -> MutexGuard<'_, Vec<(u64, Waker)>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a waker, and returns the number by which [`Topic::remove_waker`] removes it.
    pub(crate) fn add_waker(&self, waker: Waker) -> u64 {
        let mut wakers = self.wakers();
        let number = wakers.last().map_or(0, |(last, _)| last + 1);
        wakers.push((number, waker));
        number
    }

    pub(crate) fn remove_waker(&self, number: u64) {
        self.wakers().retain(|(known, _)| *known != number);
    }

    /// Returns the number of changes so far.
    pub(crate) fn changes(&self) -> u64 {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there were more changes than `seen`; `false` if there is none before the deadline.
    pub(crate) fn wait_for_change(&self, seen: u64, deadline: Instant) -> bool {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(changes, left, |changes| *changes == seen);
        *waited.unwrap_or_else(PoisonError::into_inner).0 > seen
    }

    pub(crate) fn wake(&self) {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
        for (_, waker) in self.wakers().iter() {
            waker.wake();
        }
    }
}
