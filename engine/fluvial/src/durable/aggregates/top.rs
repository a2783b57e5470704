//! The greatest records.

use std::fmt;

use differential_dataflow::ExchangeData;
use fluvial_connector::BoxError;

use super::multiset::Multiset;
use super::ranking::place;
use super::{Aggregate, Overflow, Retract};
use crate::stream::Origin;

/// The `n` records of a key for which the closure returns the greatest values, as a list, the greatest first. Records for which
/// it returns the same are in their own order ([`Ord`]). Equal records are separate records.
///
/// On a stream, a key keeps `n` records. On a collection it keeps all of its distinct rows in order; a change costs the
/// logarithm of their number, and `n`.
///
/// [`Stream::top`](crate::Stream::top) and [`Table::top`](crate::Table::top) return the records as rows of their own instead of
/// a list.
///
/// ```
/// use fluvial::Top;
/// use fluvial::harness::Dataflow;
///
/// let mut test = Dataflow::new(1, |scope| {
///     let bids = scope.input::<(String, u64)>("bids");
///     scope.output("top", bids.aggregate("top", Top::new(2, |price: &u64| *price)));
/// });
/// test.feed("bids", 1, [5, 9, 7].map(|price: u64| ("tea".to_owned(), price)));
/// test.advance_past(1);
/// assert_eq!(test.table::<(String, Vec<u64>)>("top"), [("tea".to_owned(), vec![9, 7])]);
/// ```
#[derive(Clone, Copy)]
pub struct Top<F> {
    n: usize,
    by: F,
}

impl<F> Top<F> {
    /// The `n` records for which `by` returns the greatest values.
    ///
    /// # Panics
    /// If `n` is 0.
    #[must_use]
    pub fn new(n: usize, by: F) -> Self {
        assert!(n > 0, "`Top` keeps the 0 greatest records of a key: keep at least one");
        Self { n, by }
    }
}

impl<F> fmt::Debug for Top<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Top").field("n", &self.n).finish_non_exhaustive()
    }
}

impl<V, B, F> Aggregate<V> for Top<F>
where
    V: ExchangeData,
    B: Ord + 'static,
    F: Fn(&V) -> B + 'static,
{
    /// The greatest records of the tick, the greatest first.
    type Total = Vec<V>;
    type State = Vec<V>;
    type Out = Vec<V>;
    type Filtered = Vec<V>;

    fn describe(&self) -> String {
        format!("top {}", self.n)
    }

    #[inline]
    fn add(&self, total: &mut Vec<V>, value: &V, _: Origin) {
        if let Some(place) = place(total, self.n, &self.by, value) {
            total.insert(place, value.clone());
            total.truncate(self.n);
        }
    }

    fn settle(&self, state: &mut Vec<V>, total: Vec<V>) -> Result<(), Overflow> {
        for value in total {
            // All that follow are less.
            let Some(place) = place(state, self.n, &self.by, &value) else { break };
            state.insert(place, value);
            state.truncate(self.n);
        }
        Ok(())
    }

    fn output(&self, state: &Vec<V>) -> Vec<V> {
        state.clone()
    }

    fn filtered(&self, out: Option<Vec<V>>) -> Vec<V> {
        out.unwrap_or_default()
    }
}

impl<V, B, F> Retract<V> for Top<F>
where
    V: ExchangeData,
    B: Ord + 'static,
    F: Fn(&V) -> B + 'static,
{
    type Change = Vec<((B, V), i64)>;
    type Index = Multiset<(B, V)>;

    #[inline]
    fn add_times(&self, change: &mut Self::Change, value: &V, times: i64) -> Result<(), Overflow> {
        change.push((((self.by)(value), value.clone()), times));
        Ok(())
    }

    fn apply(&self, index: &mut Self::Index, change: Self::Change) -> Result<(), BoxError> {
        index.apply(change)
    }

    fn result(&self, index: &Self::Index) -> Vec<V> {
        index.all().rev().take(self.n).map(|(_, value)| value.clone()).collect()
    }
}
