//! What blocking calls wait for at the moment.
//!
//! A call to an external system can wait for as long as the patience allows, and only the connector knows what for: the
//! partition whose records are not acknowledged, the transaction that is open. It notes that here, and the engine,
//! which knows when a wait has become too long, reports it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The waits that are under way in one session. Clones share them.
///
/// ```
/// let waits = fluvial_connector::Waits::default();
/// let wait = waits.begin("read the progress of job 'orders'");
/// wait.says("read the progress of job 'orders': partition 3 has no leader");
/// assert_eq!(waits.now(), ["read the progress of job 'orders': partition 3 has no leader"]);
/// drop(wait);
/// assert!(waits.now().is_empty());
/// ```
#[derive(Clone, Debug, Default)]
pub struct Waits(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    under_way: BTreeMap<u64, String>,
}

/// One wait; dropping it ends it.
#[derive(Debug)]
pub struct Wait {
    waits: Waits,
    number: u64,
}

impl Waits {
    /// Notes that a call waits for `what`: operation and object.
    #[must_use = "the wait ends when this is dropped"]
    pub fn begin(&self, what: impl Into<String>) -> Wait {
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        inner.under_way.insert(number, what.into());
        Wait { waits: self.clone(), number }
    }

    /// What is waited for now, the longest wait first.
    #[must_use]
    pub fn now(&self) -> Vec<String> {
        self.lock().under_way.values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    /// Notes what more is known by now.
    pub fn says(&self, what: impl Into<String>) {
        self.waits.lock().under_way.insert(self.number, what.into());
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.waits.lock().under_way.remove(&self.number);
    }
}
