//! Counts of records.

use super::sealed::Linear;
use super::{Aggregate, Overflow, Retract};

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

impl Linear for Count {}

fn overflow() -> Overflow {
    Overflow { values: "1".into(), into: "u64", cure: "count fewer records to a key" }
}

/// Adds a number of records to a count.
pub(super) fn counted(count: u64, more: i64) -> Result<u64, Overflow> {
    count.checked_add_signed(more).ok_or_else(overflow)
}

impl<V> Aggregate<V> for Count {
    type Total = i64;
    type State = u64;
    type Out = u64;

    fn describe(&self) -> String {
        "count".to_owned()
    }

    #[inline]
    fn add(&self, total: &mut i64, _: &V) {
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
}

impl<V> Retract<V> for Count {
    fn add_times(&self, total: &mut i64, _: &V, times: i64) -> Result<(), Overflow> {
        *total = total.checked_add(times).ok_or_else(overflow)?;
        Ok(())
    }
}
