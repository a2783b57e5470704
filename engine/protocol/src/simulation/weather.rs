//! How bad a history is.

use super::dice::Dice;

/// What goes wrong how often: every history has a weather of its own. Each is once in so many times.
pub(super) struct Weather {
    pub(super) disturbance: usize,
    pub(super) start: usize,
    pub(super) crash: usize,
    pub(super) pause: usize,
    pub(super) whole: usize,
    pub(super) store_fault: usize,
    pub(super) write_fault: usize,
    pub(super) commit_fault: usize,
    pub(super) forgotten_id: usize,
    /// The clock goes back.
    pub(super) clock: usize,
    /// Sinks are slow: so many ticks may be sealed and not committed, and so many records go into a transaction.
    pub(super) backlog: usize,
    pub(super) transaction_records: usize,
    /// A generation falls asleep when it begins to fence.
    pub(super) sleepy: usize,
    /// A request that was given up arrives.
    pub(super) late: usize,
    /// Transactions time out after so many milliseconds.
    pub(super) time_out_ms: u64,
    /// Commits that were answered may come a second time, as with a client that sends again by itself.
    pub(super) stale_commits: bool,
    /// The next generation has more workers than those before.
    pub(super) widens: bool,
    /// Some generations come with other logic, and reconcile.
    pub(super) upgrades: bool,
    /// Some generations come with other logic by mistake: nobody asks for a reconciliation.
    pub(super) mistakes: bool,
    /// The input is compacted.
    pub(super) compacts: bool,
    /// Savepoints are taken and dropped, and some generations go back to one.
    pub(super) savepoints: bool,
}

impl Weather {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let mut one_of = |choices: &[usize]| choices[dice.below(choices.len())];
        Self {
            disturbance: one_of(&[8, 20, 60]),
            start: one_of(&[3, 8, 20]),
            crash: one_of(&[4, 8, 40]),
            pause: one_of(&[2, 3, 10]),
            whole: one_of(&[1, 2, 4]),
            store_fault: one_of(&[2, 5, 50]),
            write_fault: one_of(&[30, 100, 1000]),
            commit_fault: one_of(&[2, 6, 30]),
            forgotten_id: one_of(&[20, 60, 1000]),
            clock: one_of(&[300, 10_000]),
            backlog: one_of(&[5, 15, 40]),
            transaction_records: one_of(&[1, 3, 8]),
            sleepy: one_of(&[2, 4, 1000]),
            late: one_of(&[2, 8, 24]),
            time_out_ms: one_of(&[300, 600, 3000]) as u64,
            stale_commits: one_of(&[0, 0, 0, 1]) == 1,
            widens: one_of(&[0, 1]) == 1,
            upgrades: one_of(&[0, 0, 0, 1]) == 1,
            mistakes: one_of(&[0, 0, 0, 1]) == 1,
            compacts: one_of(&[0, 0, 0, 1]) == 1,
            savepoints: one_of(&[0, 0, 1]) == 1,
        }
    }
}
