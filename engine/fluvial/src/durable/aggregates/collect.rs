//! All values, and all distinct values.

use std::collections::BTreeSet;
use std::fmt;

use differential_dataflow::ExchangeData;
use fluvial_connector::BoxError;

use super::multiset::Multiset;
use super::{Aggregate, Overflow, Retract};
use crate::stream::Origin;

/// All values that the closure returns for the records of a key, sorted; a value that occurs several times is repeated.
///
/// A key keeps all of its values, and the result is as large as that: a tick that changes a key costs the number of the key's
/// values, and so does the key's part of a checkpoint. Use it for keys that have few records.
///
/// ```
/// use fluvial::Collect;
/// use fluvial::harness::Dataflow;
///
/// let mut test = Dataflow::new(1, |scope| {
///     let visits = scope.input::<(u32, String)>("visits"); // visitor, page
///     scope.output("pages", visits.aggregate("pages", Collect(|page: &String| page.clone())));
/// });
/// test.feed("visits", 1, ["tea", "home", "tea"].map(|page| (7u32, page.to_owned())));
/// test.advance_past(1);
/// let pages = ["home", "tea", "tea"].map(str::to_owned).to_vec();
/// assert_eq!(test.table::<(u32, Vec<String>)>("pages"), [(7, pages)]);
/// ```
#[derive(Clone, Copy)]
pub struct Collect<F>(pub F);

impl<F> fmt::Debug for Collect<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collect")
    }
}

impl<V, B, F> Aggregate<V> for Collect<F>
where
    B: ExchangeData,
    F: Fn(&V) -> B + 'static,
{
    type Total = Vec<B>;
    type State = Vec<B>;
    type Out = Vec<B>;
    type Filtered = Vec<B>;

    fn describe(&self) -> String {
        "collect".to_owned()
    }

    #[inline]
    fn add(&self, total: &mut Vec<B>, value: &V, _: Origin) {
        total.push(self.0(value));
    }

    fn settle(&self, state: &mut Vec<B>, mut total: Vec<B>) -> Result<(), Overflow> {
        state.append(&mut total);
        // The values that were there are sorted already, which this sort makes use of.
        state.sort();
        Ok(())
    }

    fn output(&self, state: &Vec<B>) -> Vec<B> {
        state.clone()
    }

    fn filtered(&self, out: Option<Vec<B>>) -> Vec<B> {
        out.unwrap_or_default()
    }
}

impl<V, B, F> Retract<V> for Collect<F>
where
    B: ExchangeData,
    F: Fn(&V) -> B + 'static,
{
    type Change = Vec<(B, i64)>;
    type Index = Multiset<B>;

    #[inline]
    fn add_times(&self, change: &mut Self::Change, value: &V, times: i64) -> Result<(), Overflow> {
        change.push((self.0(value), times));
        Ok(())
    }

    fn apply(&self, index: &mut Multiset<B>, change: Self::Change) -> Result<(), BoxError> {
        index.apply(change)
    }

    fn result(&self, index: &Multiset<B>) -> Vec<B> {
        index.all().cloned().collect()
    }
}

/// The number of distinct values that the closure returns for the records of a key. It is exact.
///
/// A key keeps all of its distinct values, sorted: memory and checkpoints grow with their number. A record costs the logarithm
/// of it, and the part that a changed key has in a checkpoint all of it, so this is for keys with up to some ten thousand
/// distinct values.
///
/// ```
/// use fluvial::CountDistinct;
/// use fluvial::harness::Dataflow;
///
/// let mut test = Dataflow::new(1, |scope| {
///     let visits = scope.input::<(String, u32)>("visits"); // page, visitor
///     scope.output("visitors", visits.aggregate("visitors", CountDistinct(|visitor: &u32| *visitor)));
/// });
/// test.feed("visits", 1, [("home".to_owned(), 7u32), ("home".to_owned(), 8), ("home".to_owned(), 7)]);
/// test.advance_past(1);
/// assert_eq!(test.table::<(String, u64)>("visitors"), [("home".to_owned(), 2)]);
/// ```
#[derive(Clone, Copy)]
pub struct CountDistinct<F>(pub F);

impl<F> fmt::Debug for CountDistinct<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CountDistinct")
    }
}

impl<V, B, F> Aggregate<V> for CountDistinct<F>
where
    B: ExchangeData,
    F: Fn(&V) -> B + 'static,
{
    type Total = BTreeSet<B>;
    type State = BTreeSet<B>;
    type Out = u64;
    type Filtered = u64;

    fn describe(&self) -> String {
        "count distinct".to_owned()
    }

    #[inline]
    fn add(&self, total: &mut BTreeSet<B>, value: &V, _: Origin) {
        total.insert(self.0(value));
    }

    fn settle(&self, state: &mut BTreeSet<B>, total: BTreeSet<B>) -> Result<(), Overflow> {
        state.extend(total);
        Ok(())
    }

    fn output(&self, state: &BTreeSet<B>) -> u64 {
        state.len() as u64
    }

    fn filtered(&self, out: Option<u64>) -> u64 {
        out.unwrap_or(0)
    }
}

impl<V, B, F> Retract<V> for CountDistinct<F>
where
    B: ExchangeData,
    F: Fn(&V) -> B + 'static,
{
    type Change = Vec<(B, i64)>;
    type Index = Multiset<B>;

    #[inline]
    fn add_times(&self, change: &mut Self::Change, value: &V, times: i64) -> Result<(), Overflow> {
        change.push((self.0(value), times));
        Ok(())
    }

    fn apply(&self, index: &mut Multiset<B>, change: Self::Change) -> Result<(), BoxError> {
        index.apply(change)
    }

    fn result(&self, index: &Multiset<B>) -> u64 {
        index.distinct() as u64
    }
}
