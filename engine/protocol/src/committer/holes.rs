//! Whether the offsets of a partition are all this job's own.
//!
//! ```text
//!   offsets  │ records of N │ marker of N │ records of N + 1 │ ? ? ? │ records of N + 2 │
//!            └─ what lies between is the markers of own transactions, each of which takes one, or somebody else's ─┘
//! ```
//!
//! A transaction's marker comes at any time after its records, also between the next one's, which another turn prepares
//! meanwhile; it comes once, and before the same turn writes again. So offsets are counted, not placed: those that own
//! records and markers do not explain are another writer's. What an aborted transaction has left cannot be counted, so
//! after each recovery counting begins with the next transaction.
//!
//! **Not its task:** to be sure. A broker that takes over a coordinator may write a marker again, so whoever is told of
//! offsets that are not explained looks at what is there.

use fluvial_connector::Offset;

/// Offsets of one partition that may still turn out to be markers.
#[derive(Debug, Default)]
pub(super) struct Holes {
    /// Own transactions whose marker has not been counted; `None` before the first transaction since a recovery.
    markers: Option<u64>,
}

impl Holes {
    /// So many records were written to a partition whose own records ended at `before`, and end at `end` since. Returns
    /// how many offsets between are not this job's; `None` where the offsets have gone back: the partition is not the
    /// one that was written before.
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

    /// What each transaction finds: its records, and how many offsets there are since the one before it.
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
        // What lies before the first transaction is not known.
        check(&[(5, 7), (3, 1)], &[Some(0); 2]);
        // No records, no marker.
        check(&[(5, 0), (0, 0), (3, 1), (0, 0), (1, 1)], &[Some(0); 5]);
    }

    #[test]
    fn what_own_markers_do_not_explain_is_counted() {
        check(&[(5, 0), (3, 3), (1, 1)], &[Some(0), Some(2), Some(0)]);
        // It takes the place of a marker that comes late, which is then one too many.
        check(&[(5, 0), (3, 1), (1, 2), (1, 1)], &[Some(0), Some(0), Some(1), Some(0)]);
    }

    #[test]
    fn offsets_that_go_back_are_told() {
        let mut holes = Holes::default();
        assert_eq!(holes.wrote(Offset(7), 2, Offset(2)), None);
        assert_eq!(holes.wrote(Offset(7), 2, Offset(9)), Some(0));
    }
}
