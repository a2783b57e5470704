//! Aggregates of some of the records.

use std::fmt;

use fluvial_connector::BoxError;
use serde::{Deserialize, Serialize};

use super::overflow::TOO_MANY_ROWS;
use super::{Aggregate, Overflow, Retract};
use crate::stream::Origin;

/// An aggregate of those records for which a closure returns `true`. Made by [`Aggregate::when`].
///
/// A key has a row from its first record on, whether the record passes the filter or not. While none has passed, a count is 0,
/// a sum 0, a list empty, and everything else is `None`: the type of the result is [`Aggregate::Filtered`].
///
/// ```
/// use fluvial::durable::Aggregate;
/// use fluvial::harness::Dataflow;
/// use fluvial::{Count, Max};
///
/// let mut test = Dataflow::new(1, |scope| {
///     let bids = scope.input::<(String, u64)>("bids");
///     let dear = |price: &u64| *price >= 100;
///     let all = (Count, Count.when(dear), Max(|price: &u64| *price).when(dear));
///     scope.output("bids", bids.aggregate("bids", all));
/// });
/// test.feed("bids", 1, [("tea", 7), ("tea", 120), ("jam", 9)].map(|(item, price): (&str, u64)| (item.to_owned(), price)));
/// test.advance_past(1);
/// let (jam, tea) = (("jam".to_owned(), (1, 0, None)), ("tea".to_owned(), (2, 1, Some(120))));
/// assert_eq!(test.table::<(String, (u64, u64, Option<u64>))>("bids"), [jam, tea]);
/// ```
#[derive(Clone, Copy)]
pub struct When<A, P> {
    aggregate: A,
    passes: P,
}

impl<A, P> When<A, P> {
    pub(super) fn new(aggregate: A, passes: P) -> Self {
        Self { aggregate, passes }
    }
}

impl<A: fmt::Debug, P> fmt::Debug for When<A, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("When").field("aggregate", &self.aggregate).finish_non_exhaustive()
    }
}

/// What is kept of the records that have passed a filter.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[allow(unreachable_pub)]
pub struct Passed<S> {
    /// Whether a record has passed.
    any: bool,
    state: S,
}

impl<V, A, P> Aggregate<V> for When<A, P>
where
    A: Aggregate<V>,
    P: Fn(&V) -> bool + 'static,
{
    type Total = Option<A::Total>;
    type State = Passed<A::State>;
    type Out = A::Filtered;
    type Filtered = A::Filtered;

    fn describe(&self) -> String {
        format!("filtered {}", self.aggregate.describe())
    }

    #[inline]
    fn add(&self, total: &mut Self::Total, value: &V, origin: Origin) {
        if (self.passes)(value) {
            self.aggregate.add(total.get_or_insert_default(), value, origin);
        }
    }

    #[inline]
    fn settle(&self, state: &mut Self::State, total: Self::Total) -> Result<(), Overflow> {
        let Some(total) = total else { return Ok(()) };
        state.any = true;
        self.aggregate.settle(&mut state.state, total)
    }

    #[inline]
    fn output(&self, state: &Self::State) -> Self::Out {
        self.aggregate.filtered(state.any.then(|| self.aggregate.output(&state.state)))
    }

    fn filtered(&self, out: Option<Self::Out>) -> Self::Filtered {
        out.unwrap_or_else(|| self.aggregate.filtered(None))
    }
}

impl<V, A, P> Retract<V> for When<A, P>
where
    A: Retract<V>,
    P: Fn(&V) -> bool + 'static,
{
    /// The rows that pass, less those of them that are retracted, and how they change the aggregate.
    type Change = (i64, A::Change);
    type Index = (i64, A::Index);

    #[inline]
    fn add_times(&self, (rows, change): &mut Self::Change, value: &V, times: i64) -> Result<(), Overflow> {
        if !(self.passes)(value) {
            return Ok(());
        }
        let sum = rows.checked_add(times);
        *rows = sum.ok_or_else(|| Overflow::new(TOO_MANY_ROWS))?;
        self.aggregate.add_times(change, value, times)
    }

    fn apply(&self, (rows, index): &mut Self::Index, (more, change): Self::Change) -> Result<(), BoxError> {
        *rows = rows.checked_add(more).ok_or(TOO_MANY_ROWS)?;
        self.aggregate.apply(index, change)?;
        if *rows < 0 || (*rows == 0 && *index != A::Index::default()) {
            return Err("rows that pass a filter of the aggregate were retracted otherwise than they had been added; \
                        make the job retract each row exactly as it added it"
                .into());
        }
        Ok(())
    }

    fn result(&self, (rows, index): &Self::Index) -> Self::Out {
        self.aggregate.filtered((*rows > 0).then(|| self.aggregate.result(index)))
    }
}
