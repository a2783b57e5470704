//! Faults on request, for the sinks of one [`Memory`](crate::Memory).

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What becomes of a commit whose answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostCommit {
    /// It happened.
    Happened,
    /// It did not; the transaction stays open until its writer is fenced.
    DidNot,
    /// Its records were committed and its progress was not, as a delayed request of an earlier transaction can do.
    Partly,
}

/// Faults on request.
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

    /// Stops all commits, or lets them go on. A commit that is stopped waits no longer than its sink's patience.
    pub fn block_commits(&self, blocked: bool) {
        self.state().blocked = blocked;
        self.changed.notify_all();
    }

    /// Waits until so many commits are stopped at once; `false` if it does not come to that in time.
    pub fn wait_for_blocked(&self, commits: usize, patience: Duration) -> bool {
        let state = self.state();
        let result = self.changed.wait_timeout_while(state, patience, |s| s.waiting < commits);
        !result.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Loses the answer of the `nth` commit from now on, counted from 1.
    pub fn lose_commit(&self, nth: u64, outcome: LostCommit) {
        let mut state = self.state();
        let number = state.commits + nth;
        state.lost.insert(number, outcome);
    }

    /// How many commits were begun so far.
    pub fn commits(&self) -> u64 {
        self.state().commits
    }

    /// Waits while commits are stopped, and says what becomes of this one. `Err` when the patience is at its end.
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
