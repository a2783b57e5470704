//! Detects offsets of an output partition that another writer has taken.
//!
//! ```text
//!   offsets  │ records of N │ marker of N │ records of N + 1 │ ? ? ? │ records of N + 2 │
//!            └─ what lies between is the markers of own transactions, each of which takes one, or somebody else's ─┘
//! ```
//!
//! A transaction's marker comes at any time after its records, also between the records of the next transaction, which
//! the other writer prepares meanwhile. It comes once, and before the same writer writes again. So offsets are counted,
//! not placed: those that this job's records and markers do not explain are another writer's. How many offsets an
//! aborted transaction has taken cannot be counted, so after each recovery counting begins with the next transaction.
//!
//! **Does not** decide for certain. A broker that takes over a coordinator may write a marker again, so offsets that
//! are not explained are looked at before they are called another writer's.

use fluvial_connector::Offset;

/// Offsets of one partition that may still turn out to be markers.
#[derive(Debug, Default)]
pub(super) struct Holes {
    /// This job's transactions whose marker has not been counted; `None` before the first transaction since a recovery.
    markers: Option<u64>,
}

impl Holes {
    /// Takes note that `records` records were written to a partition in which this job's records ended at `before`, and
    /// that they end at `end` now. Returns how many offsets between are not this job's; `None` where the offsets have
    /// gone back: the partition is not the one that was written before.
    pub(super) fn wrote(&mut self, before: Offset, records: usize, end: Offset) -> Option<u64> {
        let others = end.0.checked_sub(before.0 + records as u64)?;
        if records == 0 {
            return Some(0);
        }
        let own = self.markers.unwrap_or(u64::MAX);
        self.markers = Some(if own == u64::MAX { 1 } else { own.saturating_sub(others) + 1 });
        Some(others.saturating_sub(own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the offsets that transactions leave unexplained. Each transaction is given by the number of its records
    /// and the number of offsets since the transaction before it.
    fn check(transactions: &[(usize, u64)], expected: &[Option<u64>]) {
        let (mut holes, mut end) = (Holes::default(), 100);
        let found: Vec<_> = transactions
            .iter()
            .map(|(records, holes_before)| {
                let before = Offset(end);
                end += holes_before + *records as u64;
                holes.wrote(before, *records, Offset(end))
            })
            .collect();
        assert_eq!(found, expected, "{transactions:?}");
    }

    #[test]
    fn markers_of_own_transactions_are_explained_wherever_they_come() {
        // One turn: each marker is there before the next transaction's records.
        check(&[(5, 0), (3, 1), (1, 1)], &[Some(0); 3]);
        // Two turns: a marker comes one transaction later, or two at once.
        check(&[(5, 0), (3, 0), (1, 1), (2, 2), (1, 1)], &[Some(0); 5]);
        // The offsets before the first transaction are unknown.
        check(&[(5, 7), (3, 1)], &[Some(0); 2]);
        // No records, no marker.
        check(&[(5, 0), (0, 0), (3, 1), (0, 0), (1, 1)], &[Some(0); 5]);
    }

    #[test]
    fn what_own_markers_do_not_explain_is_counted() {
        check(&[(5, 0), (3, 3), (1, 1)], &[Some(0), Some(2), Some(0)]);
        // The record of another writer takes the place of a marker that comes late, which is then one too many.
        check(&[(5, 0), (3, 1), (1, 2), (1, 1)], &[Some(0), Some(0), Some(1), Some(0)]);
    }

    #[test]
    fn offsets_that_go_back_are_told() {
        let mut holes = Holes::default();
        assert_eq!(holes.wrote(Offset(7), 2, Offset(2)), None);
        assert_eq!(holes.wrote(Offset(7), 2, Offset(9)), Some(0));
    }
}
