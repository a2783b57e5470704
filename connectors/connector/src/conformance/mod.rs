//! The checks that every connector passes.
//!
//! A connector's test implements [`SourceSubject`] and [`SinkSubject`] for its system, and calls [`source::all`] and
//! [`sink::all`], or each check by itself. A check panics with what it found. Feature `conformance`.

pub mod sink;
pub mod source;

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Offset, Output, SinkContext, Source, Waker};

/// How a transaction of a test ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its records are seen.
    Commit,
    /// Its records are never seen.
    Abort,
}

/// A record that a test appends: key and value.
pub type TestRecord = (Vec<u8>, Option<Vec<u8>>);

/// An input with the two splits `0` and `1`, empty at first, and the means to fill it.
pub trait SourceSubject {
    /// The input.
    fn source(&self) -> Arc<dyn Source>;

    /// An input that does not exist.
    fn missing(&self) -> Arc<dyn Source>;

    /// Appends records to a split; they are committed when this returns.
    fn append(&mut self, split: u32, records: &[TestRecord]);

    /// Appends records to a split in a transaction and leaves it open.
    fn append_open(&mut self, split: u32, records: &[TestRecord]);

    /// Ends the transaction that is open.
    fn end(&mut self, ending: Ending);

    /// Removes all records of a split before an offset.
    fn truncate(&mut self, split: u32, before: Offset);

    /// Deletes the input and makes it anew under the same name, empty.
    fn make_anew(&mut self);

    /// Makes a split unavailable, as one whose broker is down, or available again. Whether the test can do so.
    fn set_available(&mut self, split: u32, available: bool) -> bool;
}

/// Two outputs in one system with two partitions each, that nothing was written to: an upsert one and an append one.
pub trait SinkSubject {
    /// The outputs.
    fn outputs(&self) -> [Arc<dyn Output>; 2];

    /// The job that they belong to.
    fn context(&self) -> SinkContext;

    /// Deletes an output and creates it again, empty, with two partitions.
    fn recreate(&mut self, output: &str);
}

/// How long a check waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a waker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alarm(Arc<(Mutex<u64>, Condvar)>);

impl Alarm {
    pub(crate) fn waker(&self) -> Waker {
        let Self(inner) = self.clone();
        Waker::new(move || {
            *inner.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            inner.1.notify_all();
        })
    }

    /// How often it was woken.
    pub(crate) fn count(&self) -> u64 {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it was woken more than `seen` times; `false` if that does not come.
    pub(crate) fn wait_after(&self, seen: u64, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut count = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *count <= seen {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            count = self.0.1.wait_timeout(count, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// Records with keys `{prefix}{from}`, `{prefix}{from + 1}`, …
pub(crate) fn numbered(prefix: &str, numbers: std::ops::Range<usize>) -> Vec<TestRecord> {
    numbers.map(|n| (format!("{prefix}{n}").into_bytes(), Some(format!("value {n}").into_bytes()))).collect()
}
