//! The group's journal as one node reads and writes it, one call to the store at a time.
//!
//! ```text
//!   newest ─► get, get, … to the end ─► idle ─append─► put ─created──────────────► mine
//!     ▲                                   ▲             ▲ └─exists, unknown─► judge ┘
//!     └──the record was deleted meanwhile │             └──────absent──────────┘ │
//!                                         └──────── get on ◄──another's──────────┘
//! ```

use std::sync::Arc;

use super::Times;
use super::record::{AttemptNumber, GroupRecord};
use crate::PutOutcome;

/// How many records are kept: a writer that wakes up late finds its position taken.
const KEPT: u64 = 1000;

/// A call to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreCall {
    /// The greatest position of the journal that is taken.
    Newest,
    /// Read the record at a position.
    Get(u64),
    /// Create the record at a position if that is free.
    Put(u64, Arc<GroupRecord>),
    /// Delete the record at a position, which nobody needs any more.
    Delete(u64),
}

/// The answer of the store.
#[derive(Clone, Debug)]
pub enum StoreAnswer {
    /// To [`StoreCall::Newest`].
    Newest(Option<u64>),
    /// To [`StoreCall::Get`]; `None` if there is nothing.
    Record(Option<Box<GroupRecord>>),
    /// To [`StoreCall::Put`].
    Put(PutOutcome),
    /// To [`StoreCall::Delete`].
    Deleted,
    /// The call failed. Only a put may have had an effect, which is then [`PutOutcome::Unknown`].
    Failed,
}

/// What came of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Logged {
    /// The journal has been read to its end.
    Read,
    /// The record that was handed in stands in the journal, with new attempts of these jobs.
    Mine {
        /// Their names.
        attempts: Vec<String>,
    },
}

#[derive(Clone, Debug)]
enum Task {
    Idle,
    /// Which position is the greatest?
    Newest,
    /// Is there a record at this position?
    Get(u64),
    Put(Append),
    /// Whose is the record at the position of this one?
    Judge(Append),
    Delete(u64),
}

#[derive(Clone, Debug)]
struct Append {
    position: u64,
    record: Arc<GroupRecord>,
    new_attempts: Vec<String>,
}

/// One node's view of the group's journal.
#[derive(Debug)]
pub(super) struct Log {
    newest: Option<(u64, Arc<GroupRecord>)>,
    /// A record to write once nothing else is under way, and the jobs whose attempts are new in it.
    appends: Option<(GroupRecord, Vec<String>)>,
    task: Task,
    asked: bool,
    retry_ms: u64,
    /// Since when no call has succeeded.
    fails_since_ms: Option<u64>,
}

impl Log {
    pub(super) fn new() -> Self {
        Self { newest: None, appends: None, task: Task::Idle, asked: false, retry_ms: 0, fails_since_ms: None }
    }

    /// The newest record that is known, with its position.
    pub(super) fn newest(&self) -> Option<(u64, &GroupRecord)> {
        self.newest.as_ref().map(|(position, record)| (*position, &**record))
    }

    /// The same record, to be shared.
    pub(super) fn shared(&self) -> Option<&Arc<GroupRecord>> {
        self.newest.as_ref().map(|(_, record)| record)
    }

    /// Whether the store has answered lately.
    pub(super) fn reaches_store(&self, now_ms: u64, times: &Times) -> bool {
        self.fails_since_ms.is_none_or(|since_ms| now_ms < since_ms + times.store_ms)
    }

    /// Whether nothing is under way, so that a look would begin now.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.task, Task::Idle)
    }

    /// Looks whether there are newer records.
    pub(super) fn look(&mut self) {
        if let Task::Idle = self.task {
            self.task = match &self.newest {
                Some((position, _)) => Task::Get(position + 1),
                None => Task::Newest,
            };
        }
    }

    /// Writes a record after the newest one that is known; the attempts of `new_attempts` get their numbers. Whoever finds
    /// another record there follows its coordinator, and withdraws.
    pub(super) fn append(&mut self, record: GroupRecord, new_attempts: Vec<String>) {
        self.appends = Some((record, new_attempts));
    }

    /// Gives up a record that has not been sent to the store.
    pub(super) fn withdraw(&mut self) {
        self.appends = None;
    }

    /// The next call, if none is under way.
    pub(super) fn next_call(&mut self, now_ms: u64) -> Option<StoreCall> {
        if self.asked || now_ms < self.retry_ms {
            return None;
        }
        if let Task::Idle = self.task
            && let Some((mut record, new_attempts)) = self.appends.take()
        {
            let position = self.newest.as_ref().map_or(0, |(position, _)| position + 1);
            for job in &new_attempts {
                if let Some(attempt) = record.jobs.get_mut(job).and_then(|job| job.attempt.as_mut()) {
                    attempt.number = AttemptNumber(position);
                }
            }
            self.task = Task::Put(Append { position, record: Arc::new(record), new_attempts });
        }
        let call = match &self.task {
            Task::Idle => return None,
            Task::Newest => StoreCall::Newest,
            Task::Get(position) => StoreCall::Get(*position),
            Task::Put(append) => StoreCall::Put(append.position, Arc::clone(&append.record)),
            Task::Judge(append) => StoreCall::Get(append.position),
            Task::Delete(position) => StoreCall::Delete(*position),
        };
        self.asked = true;
        Some(call)
    }

    /// Takes the answer to the call under way.
    pub(super) fn on(&mut self, answer: StoreAnswer, now_ms: u64, times: &Times) -> Option<Logged> {
        self.asked = false;
        let failed = matches!(answer, StoreAnswer::Failed | StoreAnswer::Put(PutOutcome::Unknown));
        if failed {
            self.fails_since_ms.get_or_insert(now_ms);
            self.retry_ms = now_ms + times.retry_ms;
        } else {
            self.fails_since_ms = None;
        }
        let (next, logged) = match (std::mem::replace(&mut self.task, Task::Idle), answer) {
            (Task::Put(append), StoreAnswer::Put(PutOutcome::Created)) => self.mine(append),
            (Task::Put(append), StoreAnswer::Put(_) | StoreAnswer::Failed) => (Task::Judge(append), None),
            (task, StoreAnswer::Failed) => (task, None),
            (Task::Newest, StoreAnswer::Newest(Some(position))) => (Task::Get(position), None),
            (Task::Newest, StoreAnswer::Newest(None)) => (Task::Idle, Some(Logged::Read)),
            (Task::Get(position), StoreAnswer::Record(Some(record))) => self.anothers(position, record),
            // It was deleted after it had been listed.
            (Task::Get(_), StoreAnswer::Record(None)) if self.newest.is_none() => (Task::Newest, None),
            (Task::Get(_), StoreAnswer::Record(None)) => (Task::Idle, Some(Logged::Read)),
            (Task::Judge(append), StoreAnswer::Record(None)) => (Task::Put(append), None),
            (Task::Judge(append), StoreAnswer::Record(Some(record))) => {
                if record.nonce == append.record.nonce {
                    self.mine(append)
                } else {
                    self.anothers(append.position, record)
                }
            }
            _ => (Task::Idle, None),
        };
        self.task = next;
        logged
    }

    fn mine(&mut self, append: Append) -> (Task, Option<Logged>) {
        let Append { position, record, new_attempts } = append;
        self.newest = Some((position, record));
        let next = position.checked_sub(KEPT).map_or(Task::Idle, Task::Delete);
        (next, Some(Logged::Mine { attempts: new_attempts }))
    }

    /// A record of another writer.
    fn anothers(&mut self, position: u64, record: Box<GroupRecord>) -> (Task, Option<Logged>) {
        self.newest = Some((position, Arc::from(record)));
        (Task::Get(position + 1), None)
    }
}
