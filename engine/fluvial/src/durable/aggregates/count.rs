//! Counts of records.

use fluvial_connector::BoxError;

use super::{Aggregate, Overflow, Retract};
use crate::stream::Origin;

/// Counts the records of each key.
///
/// ```
/// use fluvial::harness::Dataflow;
/// use fluvial::Count;
///
/// let mut test = Dataflow::new(1, |scope| {
///     let visits = scope.input::<(String, ())>("visits");
///     scope.output("visits", visits.aggregate("visits", Count));
/// });
/// test.feed("visits", 1, [("home".to_owned(), ()), ("shop".to_owned(), ()), ("home".to_owned(), ())]);
/// test.advance_past(1);
/// assert_eq!(test.table::<(String, u64)>("visits"), [("home".to_owned(), 2), ("shop".to_owned(), 1)]);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Count;

fn overflow() -> Overflow {
    Overflow::of_sum("1", "u64", "count fewer records to a key")
}

/// Adds a number of records to a count.
pub(super) fn counted(count: u64, more: i64) -> Result<u64, Overflow> {
    count.checked_add_signed(more).ok_or_else(overflow)
}

impl<V> Aggregate<V> for Count {
    type Total = i64;
    type State = u64;
    type Out = u64;
    type Filtered = u64;

    fn describe(&self) -> String {
        "count".to_owned()
    }

    #[inline]
    fn add(&self, total: &mut i64, _: &V, _: Origin) {
        *total += 1;
    }

    #[inline]
    fn settle(&self, state: &mut u64, total: i64) -> Result<(), Overflow> {
        *state = counted(*state, total)?;
        Ok(())
    }

    #[inline]
    fn output(&self, state: &u64) -> u64 {
        *state
    }

    fn filtered(&self, out: Option<u64>) -> u64 {
        out.unwrap_or(0)
    }
}

impl<V> Retract<V> for Count {
    type Change = i64;
    type Index = u64;

    #[inline]
    fn add_times(&self, total: &mut i64, _: &V, times: i64) -> Result<(), Overflow> {
        *total = total.checked_add(times).ok_or_else(overflow)?;
        Ok(())
    }

    fn apply(&self, index: &mut u64, change: i64) -> Result<(), BoxError> {
        Ok(Aggregate::<V>::settle(self, index, change)?)
    }

    fn result(&self, index: &u64) -> u64 {
        *index
    }
}
