//! Injected faults, for the sinks of one [`Memory`](crate::Memory).

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The real outcome of a commit whose answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostCommit {
    /// The transaction was committed.
    Happened,
    /// The transaction was not committed; it stays open until its writer is fenced.
    DidNot,
    /// Its records were committed and its progress was not, as a delayed request of an earlier transaction can do.
    Partly,
}

/// Injects faults into the commits of one [`Memory`](crate::Memory); see [`Memory::faults`](crate::Memory::faults).
///
/// ```
/// use std::time::Duration;
///
/// use fluvial_memory::{LostCommit, Memory};
///
/// let memory = Memory::new();
/// // The next commit will succeed, but its caller will learn only that the outcome is unknown.
/// memory.faults().lose_commit(1, LostCommit::Happened);
/// // No commit is made until this is taken back; none is waiting yet.
/// memory.faults().block_commits(true);
/// assert!(!memory.faults().wait_for_blocked(1, Duration::ZERO));
/// assert_eq!(memory.faults().commits(), 0);
/// ```
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    blocked: bool,
    waiting: usize,
    commits: u64,
    lost: BTreeMap<u64, LostCommit>,
}

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks all commits, or releases them. A blocked commit fails when its sink's patience has ended.
    pub fn block_commits(&self, blocked: bool) {
        self.state().blocked = blocked;
        self.changed.notify_all();
    }

    /// Waits until `commits` commits are blocked at the same time; returns `false` if that does not happen within `patience`.
    pub fn wait_for_blocked(&self, commits: usize, patience: Duration) -> bool {
        let state = self.state();
        let result = self.changed.wait_timeout_while(state, patience, |s| s.waiting < commits);
        !result.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Loses the answer of the `nth` commit from now on, counted from 1: its caller gets an unknown outcome, while `outcome` is
    /// what really happens.
    pub fn lose_commit(&self, nth: u64, outcome: LostCommit) {
        let mut state = self.state();
        let number = state.commits + nth;
        state.lost.insert(number, outcome);
    }

    /// Returns the number of commits that have begun so far.
    pub fn commits(&self) -> u64 {
        self.state().commits
    }

    /// Waits while commits are blocked, and returns the fault that applies to this one. `Err` if the patience ends first.
    pub(crate) fn before_commit(&self, patience: Duration) -> Result<Option<LostCommit>, ()> {
        let deadline = Instant::now() + patience;
        let mut state = self.state();
        while state.blocked {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(());
            }
            state.waiting += 1;
            self.changed.notify_all();
            let woken = self.changed.wait_timeout_while(state, left, |s| s.blocked);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
            state.waiting -= 1;
        }
        state.commits += 1;
        let number = state.commits;
        Ok(state.lost.remove(&number))
    }
}
