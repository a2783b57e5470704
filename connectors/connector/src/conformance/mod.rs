//! The conformance kit: checks that show whether a connector keeps the contracts of the traits.
//!
//! It is behind the cargo feature `conformance`, which a connector's tests enable:
//!
//! ```toml
//! [dev-dependencies]
//! fluvial-connector = { version = "…", features = ["conformance"] }
//! ```
//!
//! A test implements [`SourceSubject`] or [`SinkSubject`], which say how the system is filled, and calls
//! [`source::all`] or [`sink::all`]. Every check gets a subject of its own. All checks are run; those that failed are
//! listed at the end, and the test fails. A check that needs an ability which the subject does not have (to remove
//! records, to leave a transaction open) is *skipped*, and the returned [`Report`] says so: a test should assert which
//! checks it expects to be skipped.
//!
//! ```
//! use std::sync::Arc;
//! use fluvial_connector::conformance::{SinkSubject, SourceSubject, TestRecord, sink, source};
//! use fluvial_connector::{Output, SinkContext, Source};
//!
//! /// Implemented by the connector that is to be tested.
//! trait Connector: Send + Sync {
//!     fn input(&self, name: &str) -> Arc<dyn Source>;
//!     fn output(&self, name: &str) -> Arc<dyn Output>;
//!     fn write(&self, input: &str, split: u32, key: Option<&[u8]>, value: Option<&[u8]>);
//! }
//!
//! struct Input(Arc<dyn Connector>);
//!
//! impl SourceSubject for Input {
//!     fn source(&self) -> Arc<dyn Source> {
//!         self.0.input("in")
//!     }
//!     fn missing(&self) -> Arc<dyn Source> {
//!         self.0.input("does not exist")
//!     }
//!     fn append(&mut self, split: u32, records: &[TestRecord]) {
//!         for (key, value) in records {
//!             self.0.write("in", split, key.as_deref(), value.as_deref());
//!         }
//!     }
//! }
//!
//! struct Outputs(Arc<dyn Connector>);
//!
//! impl SinkSubject for Outputs {
//!     fn outputs(&self) -> [Arc<dyn Output>; 2] {
//!         [self.0.output("first"), self.0.output("second")]
//!     }
//!     fn context(&self) -> SinkContext {
//!         SinkContext::new("job", std::time::Duration::from_secs(10))
//!     }
//! }
//!
//! /// Called from a `#[test]` with a connector to a new, empty system each time.
//! fn conforms(empty: impl Fn() -> Arc<dyn Connector>) {
//!     source::all(|| Input(empty()));
//!     let report = sink::all(|| Outputs(empty()));
//!     println!("{report}");
//! }
//! ```
//!
//! [`worked_example`](crate::worked_example) is a connector that passes all checks that its system allows.
//!
//! # Which check shows which contract
//!
//! The tables are in [`source`] and [`sink`]. Each check is shown to fail on a connector that breaks its contract on
//! purpose (`tests/broken` of this crate).
//!
//! What a check waits for is an event with a deadline, the subject's patience; nothing sleeps. The kit cannot show how a
//! connector behaves while its system is unreachable, nor which of [`CommitError`](crate::CommitError)'s kinds it gives to
//! a failure of its own system: that is left to the connector's tests.

pub mod sink;
pub mod source;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Offset, Output, SinkContext, Source, Transactor, Waker};

/// How a transaction of a test ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its records are seen.
    Commit,
    /// Its records are never seen.
    Abort,
}

/// A record that a test appends: key and value.
pub type TestRecord = (Option<Vec<u8>>, Option<Vec<u8>>);

/// How long a check waits for what must come, unless the subject says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// An input with two splits, empty at first, and the means to fill it.
///
/// The methods with a body are optional: what they say by default is that the system cannot do this, and the checks that
/// need it are skipped.
pub trait SourceSubject {
    /// The input, as another process would open it: a new value each time.
    fn source(&self) -> Arc<dyn Source>;

    /// An input that does not exist.
    fn missing(&self) -> Arc<dyn Source>;

    /// Appends records to split 0 or 1; they are committed when this returns.
    fn append(&mut self, split: u32, records: &[TestRecord]);

    /// What the two splits are called.
    fn splits(&self) -> [String; 2] {
        ["0".to_owned(), "1".to_owned()]
    }

    /// The record as a reader gets it, where the system keeps only a part of it (no key, say); `None` for a record that
    /// it cannot hold. Most records of the kit have a key and a value of printable ASCII; these must be possible, and
    /// differ in what is read of them.
    fn as_read(&self, record: &TestRecord) -> Option<TestRecord> {
        Some(record.clone())
    }

    /// How long a check waits for what must come.
    fn patience(&self) -> Duration {
        PATIENCE
    }

    /// Appends records to a split in a transaction and leaves it open. `false` where there are no transactions.
    fn append_open(&mut self, split: u32, records: &[TestRecord]) -> bool {
        let _ = (split, records);
        false
    }

    /// Ends the transaction that [`append_open`](Self::append_open) left open.
    fn end(&mut self, ending: Ending) {
        unreachable!("no transaction was opened that could {ending:?}");
    }

    /// Appends the first part of a record, as a writer that is slow or has died leaves it. `false` where the system never
    /// keeps a part of a record.
    fn append_part(&mut self, split: u32, record: &TestRecord) -> bool {
        let _ = (split, record);
        false
    }

    /// Appends the rest of that record.
    fn append_rest(&mut self) {
        unreachable!("no part of a record was appended");
    }

    /// Removes all records of a split before the offset of a record. `false` where nothing can be removed.
    fn truncate(&mut self, split: u32, before: Offset) -> bool {
        let _ = (split, before);
        false
    }

    /// Deletes the input and creates it again under the same name, empty. `false` where that is not possible.
    fn recreate(&mut self) -> bool {
        false
    }

    /// Makes a split unavailable, as one whose broker is down, or available again. `false` where that is not possible.
    fn set_available(&mut self, split: u32, available: bool) -> bool {
        let _ = (split, available);
        false
    }
}

/// Two outputs of one system, which nothing was written to yet.
///
/// The methods with a body are optional, as those of [`SourceSubject`].
pub trait SinkSubject {
    /// The outputs, as another process would open them: new values each time. They may have any number of partitions.
    fn outputs(&self) -> [Arc<dyn Output>; 2];

    /// The job that they belong to. Its patience is how long a check waits for what must come.
    fn context(&self) -> SinkContext;

    /// Commits what is prepared with this writer, but ends as a crash of the process right before step `step` of the
    /// commit would: with a fail point, or by doing by hand what the earlier steps do. `false` if the commit has no such
    /// step. The kit asks for steps 0, 1, … until there is none, each with a transaction of its own, and reopens the sink.
    ///
    /// By default a commit is one step: the process crashes before it, or after it. A connector whose commit has several
    /// (a commit point, then copying the records to their place) implements this, or its recovery is not tested.
    fn crash_in_commit(&mut self, mut writer: Box<dyn Transactor>, step: usize) -> bool {
        if step == 1 {
            writer.commit().expect("a prepared transaction can be committed");
        }
        step <= 1
    }

    /// Deletes an output and creates it again, empty. `false` where that is not possible.
    fn recreate(&mut self, output: &str) -> bool {
        let _ = output;
        false
    }

    /// The output as an input of another job; `None` where the connector cannot read what it writes.
    fn input(&self, output: &str) -> Option<Arc<dyn Source>> {
        let _ = output;
        None
    }
}

/// One check of the kit.
#[derive(Debug)]
pub struct Check<S> {
    /// The name of the function that makes the check.
    pub name: &'static str,
    run: fn(&mut S) -> Outcome,
}

impl<S> Check<S> {
    /// Makes the check with a subject that has not been used.
    ///
    /// # Errors
    /// What the connector does wrong.
    pub fn run(&self, subject: &mut S) -> Result<Outcome, String> {
        catch_unwind(AssertUnwindSafe(|| (self.run)(subject))).map_err(|panic| said(&*panic))
    }
}

/// How a check ended that found nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The connector keeps the contract.
    Passed,
    /// The subject does not have what the check needs, for this reason.
    Skipped(&'static str),
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::Passed
    }
}

/// What all checks of a kit found, of a connector that failed none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The checks that the connector passed.
    pub passed: Vec<&'static str>,
    /// The checks that could not be made.
    pub skipped: Vec<&'static str>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} checks passed", self.passed.len())?;
        if !self.skipped.is_empty() {
            write!(f, ", {} were skipped: {}", self.skipped.len(), self.skipped.join(", "))?;
        }
        Ok(())
    }
}

/// Makes all of these checks, each with a subject of its own.
///
/// # Panics
/// Some failed.
fn run_all<S>(checks: &[Check<S>], mut fresh: impl FnMut() -> S) -> Report {
    let mut report = Report::default();
    let mut failed = Vec::new();
    for check in checks {
        let name = check.name;
        match check.run(&mut fresh()) {
            Ok(Outcome::Passed) => report.passed.push(name),
            Ok(Outcome::Skipped(why)) => {
                eprintln!("{name}: skipped, as {why}");
                report.skipped.push(name);
            }
            Err(why) => failed.push(format!("{name}: {why}")),
        }
    }
    assert!(failed.is_empty(), "{} of {} checks failed:\n{}", failed.len(), checks.len(), failed.join("\n"));
    report
}

/// The functions with these names, as checks.
macro_rules! checks {
    ($($check:ident)*) => {
        vec![$($crate::conformance::Check { name: stringify!($check), run: |subject| $check(subject).into() }),*]
    };
}
use checks;

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

/// Calls `f` on another thread. Panics as `f` does, or if `f` does not return in time; its thread is then left alone.
fn in_time<T: Send + 'static>(what: &str, patience: Duration, f: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || drop(sender.send(f())));
    match receiver.recv_timeout(patience) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => panic!("{what}: did not return within {patience:?}"),
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => panic!("{what}: {}", said(&*panic)),
            Ok(()) => unreachable!("the thread sends its result before it ends"),
        },
    }
}

/// Waits for a waker.
#[derive(Clone, Debug, Default)]
struct Alarm(Arc<(Mutex<u64>, Condvar)>);

impl Alarm {
    fn waker(&self) -> Waker {
        let Self(inner) = self.clone();
        Waker::new(move || {
            *inner.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            inner.1.notify_all();
        })
    }

    /// How often it was woken.
    fn count(&self) -> u64 {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it was woken more than `seen` times; `false` if that does not come.
    fn wait_after(&self, seen: u64, patience: Duration) -> bool {
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
fn numbered(prefix: &str, numbers: std::ops::Range<usize>) -> Vec<TestRecord> {
    let record = |n| (Some(format!("{prefix}{n}").into_bytes()), Some(format!("value {n} of {prefix}").into_bytes()));
    numbers.map(record).collect()
}

/// Whether a text names something: contains it, and neither a letter nor a digit right before or after it.
fn names(text: &str, what: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(what)
        .any(|(at, _)| !is_part(text[..at].chars().next_back()) && !is_part(text[at + what.len()..].chars().next()))
}
