//! Who waits for more of a partition.
//!
//! A reader that found too little leaves a weak reference here, under the same lock under which it looked, and is woken
//! by the next change that it can see. Guarantees no lost wake-up; does not promise that what woke it is enough.

use std::sync::{Arc, Weak};

use tokio::sync::Notify;

use super::log::{Isolation, Log};

/// The readers waiting for one partition.
#[derive(Debug, Default)]
pub(crate) struct Waiters(Vec<(Weak<Notify>, Isolation)>);

/// How far readers could read at some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reach {
    end: i64,
    last_stable: i64,
}

impl Reach {
    /// How far they can read now.
    pub(crate) fn of(log: &Log) -> Self {
        Self { end: log.end(), last_stable: log.last_stable() }
    }
}

impl Waiters {
    /// Lets a reader wait for the next change; once each, however often it asks.
    pub(crate) fn add(&mut self, reader: &Arc<Notify>, isolation: Isolation) {
        self.0
            .retain(|(waiting, _)| waiting.strong_count() > 0 && !std::ptr::eq(waiting.as_ptr(), Arc::as_ptr(reader)));
        self.0.push((Arc::downgrade(reader), isolation));
    }

    /// Wakes those for whom there is more than there was at `before`.
    pub(crate) fn wake(&mut self, before: Reach, log: &Log) {
        let now = Reach::of(log);
        self.0.retain(|(waiting, isolation)| {
            let more = match isolation {
                Isolation::Uncommitted => now.end > before.end,
                Isolation::Committed => now.last_stable > before.last_stable,
            };
            if more && let Some(reader) = waiting.upgrade() {
                reader.notify_one();
            }
            !more
        });
    }

    /// Wakes everyone: the partition is being deleted.
    pub(crate) fn wake_all(&mut self) {
        self.0.drain(..).filter_map(|(waiting, _)| waiting.upgrade()).for_each(|reader| reader.notify_one());
    }
}
