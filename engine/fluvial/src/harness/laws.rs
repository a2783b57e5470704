//! Tries the laws of aggregates on random input.

#[cfg(test)]
mod tests;

use std::fmt::Debug;

use fluvial_connector::{Offset, Tick};
use fluvial_protocol::journal::SplitNumber;
use fluvial_protocol::manifest::OperatorKind;

use crate::durable::{Aggregate, Overflow, Retract};
use crate::runtime::failure::chain;
use crate::state::{Part, RowSchema, encode_keyed};
use crate::stream::Origin;

/// The number of random inputs that are tried.
const CASES: usize = 200;

/// The maximum number of records of a random input.
const MOST_RECORDS: usize = 16;

/// Tries the laws of [`Aggregate`] on random inputs that consist of these values: the result must not depend on the order of
/// the records within a tick, nor on how they are divided into ticks, and the state must be read from a checkpoint as it was
/// written. The inputs are the same in each run.
///
/// Give values that differ in everything that the aggregate looks at, and some that are equal in it.
///
/// ```
/// use fluvial::MaxBy;
/// use fluvial::harness::check_aggregate;
///
/// check_aggregate(&MaxBy(|bid: &(u64, u32)| bid.0), [(5, 1), (7, 1), (7, 2), (3, 9)]);
/// ```
///
/// An aggregate whose result depends on the order of arrival is found:
///
/// ```should_panic
/// # use fluvial::durable::{Aggregate, Origin, Overflow};
/// # use fluvial::harness::check_aggregate;
/// struct Newest;
///
/// impl Aggregate<u64> for Newest {
///     # type Total = Option<u64>;
///     # type State = u64;
///     # type Out = u64;
///     # type Filtered = u64;
///     # fn describe(&self) -> String { "newest".to_owned() }
///     fn add(&self, total: &mut Option<u64>, value: &u64, _: Origin) {
///         *total = Some(*value);
///     }
///     // …
///     # fn settle(&self, state: &mut u64, total: Option<u64>) -> Result<(), Overflow> {
///     #     *state = total.unwrap_or(*state);
///     #     Ok(())
///     # }
///     # fn output(&self, state: &u64) -> u64 { *state }
///     # fn filtered(&self, out: Option<u64>) -> u64 { out.unwrap_or(0) }
/// }
///
/// check_aggregate(&Newest, [1, 2, 3]);
/// ```
///
/// # Panics
/// If the aggregate does not obey a law. The message says which one, and for which records.
pub fn check_aggregate<V, A>(aggregate: &A, values: impl IntoIterator<Item = V>)
where
    V: Clone + Debug,
    A: Aggregate<V>,
{
    let name = Aggregate::describe(aggregate);
    let values: Vec<V> = values.into_iter().collect();
    assert!(!values.is_empty(), "the laws of the aggregate '{name}' cannot be tried without values");
    let mut random = Random(1);
    for case in 0..CASES {
        let records = if case == 0 { values.clone() } else { random.some_of(&values, MOST_RECORDS) };
        let records: Vec<Record<V>> = (0..).zip(records).map(|(at, value)| Record::new(at, value)).collect();
        let ticks = random.divided(&records);
        for ticks in [vec![records.clone()], ticks.clone()] {
            let shuffled: Vec<_> = ticks.iter().map(|tick| random.shuffled(tick)).collect();
            let (one, other) = (run(aggregate, &ticks), run(aggregate, &shuffled));
            assert!(
                one == other,
                "the result of the aggregate '{name}' depends on the order of the records within a tick: the ticks \
                 {ticks:?} gave {one:?}, and {shuffled:?} gave {other:?}",
            );
        }
        // An overflow that a later tick makes good is one all the same, so overflows are not compared.
        if let (Ok(one), Ok(other)) = (run(aggregate, std::slice::from_ref(&records)), run(aggregate, &ticks)) {
            assert!(
                one == other,
                "the result of the aggregate '{name}' depends on how the records are divided into ticks: the tick \
                 {records:?} gave {one:?}, and the ticks {ticks:?} gave {other:?}",
            );
        }
        assert!(
            Aggregate::describe(aggregate) == name,
            "the aggregate '{name}' describes itself in another way when it is asked again: '{}'",
            Aggregate::describe(aggregate),
        );
    }
}

/// Tries the laws of [`Retract`] on random histories of these values: the result after values have come and gone must be that
/// of the values that are left, as [`Aggregate`] computes it, and nothing may be left of values that are gone. Try the laws of
/// [`Aggregate`] with [`check_aggregate`].
///
/// ```
/// use fluvial::Max;
/// use fluvial::harness::check_retraction;
///
/// check_retraction(&Max(|price: &u64| *price), [5, 7, 7, 3]);
/// ```
///
/// # Panics
/// If the aggregate does not obey a law. The message says which one, and for which rows.
pub fn check_retraction<V, A>(aggregate: &A, values: impl IntoIterator<Item = V>)
where
    V: Clone + Debug,
    A: Retract<V>,
{
    let name = Aggregate::<V>::describe(aggregate);
    let values: Vec<V> = values.into_iter().collect();
    assert!(!values.is_empty(), "the laws of the aggregate '{name}' cannot be tried without values");
    let mut random = Random(2);
    for _ in 0..CASES {
        let mut index = A::Index::default();
        let mut rows: Vec<V> = Vec::new();
        let mut history = Vec::new();
        // The last tick retracts everything.
        for last in [false, false, false, true] {
            let tick = random.tick_of(&mut rows, &values, last);
            history.push(tick.clone());
            let mut change = A::Change::default();
            let added = tick.iter().try_for_each(|(value, times)| aggregate.add_times(&mut change, value, *times));
            let applied = added.map_err(Into::into).and_then(|()| aggregate.apply(&mut index, change));
            let records: Vec<_> = (0..).zip(rows.iter().cloned()).map(|(at, value)| Record::new(at, value)).collect();
            let expected = (!rows.is_empty()).then(|| run(aggregate, &[records])).transpose();
            match (applied, expected) {
                (Ok(()), Ok(None)) => assert!(
                    index == A::Index::default(),
                    "the aggregate '{name}' keeps something of rows that are gone: the changes were {history:?}",
                ),
                (Ok(()), Ok(Some(expected))) => {
                    let result = aggregate.result(&index);
                    assert!(
                        result == expected,
                        "the result of the aggregate '{name}' is not that of the rows that are left: after the changes \
                         {history:?} it is {result:?}, and that of {rows:?} is {expected:?}",
                    );
                }
                // Whether there is a result depends on the rows alone.
                (Err(_), Err(_)) => break,
                (Ok(()), Err(error)) => panic!(
                    "the aggregate '{name}' has a result for rows for which it has none on a stream ({error}): {rows:?}"
                ),
                (Err(error), Ok(_)) => {
                    panic!("the aggregate '{name}' refuses rows that it takes on a stream ({error}): {history:?}")
                }
            }
        }
    }
}

/// A record with its place in the order of the input.
#[derive(Clone)]
struct Record<V> {
    origin: Origin,
    value: V,
}

impl<V> Record<V> {
    fn new(at: u64, value: V) -> Self {
        Self { origin: Origin::read(SplitNumber(0), Offset(at)), value }
    }
}

impl<V: Debug> Debug for Record<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.value.fmt(f)
    }
}

/// The result for the records of these ticks. After each of them the state is read as it was written.
fn run<V, A: Aggregate<V>>(aggregate: &A, ticks: &[Vec<Record<V>>]) -> Result<A::Out, Overflow> {
    let name = aggregate.describe();
    let mut state = A::State::default();
    for tick in ticks.iter().filter(|tick| !tick.is_empty()) {
        let mut total = A::Total::default();
        tick.iter().for_each(|record| aggregate.add(&mut total, &record.value, record.origin));
        aggregate.settle(&mut state, total)?;
        let bytes = postcard::to_stdvec(&state).unwrap_or_else(|error| not_restored(&name, error));
        let read = postcard::from_bytes(&bytes).unwrap_or_else(|error| not_restored(&name, error));
        if read != state {
            not_restored(&name, "the two are not equal; is a field skipped?");
        }
        state = read;
    }
    prove_stored(&name, &state);
    Ok(aggregate.output(&state))
}

/// Encodes a state as a checkpoint does. The encoder reads back what it has written, and compares.
fn prove_stored<S>(name: &str, state: &S)
where
    S: Clone + PartialEq + serde::Serialize + serde::de::DeserializeOwned,
{
    let schema = RowSchema::keyed::<u8, S>();
    let kind = OperatorKind { operator: name.to_owned(), schema: schema.describe() };
    let part = Part { rows: vec![(0u8, state.clone())], gone: Vec::new() };
    if let Err(error) = encode_keyed(name, &kind, &schema, Tick(0), vec![part]) {
        not_restored(name, chain(error));
    }
}

fn not_restored(name: &str, error: impl std::fmt::Display) -> ! {
    panic!("the state of the aggregate '{name}' is not read from a checkpoint as it was written: {error}")
}

/// A sequence of numbers that looks random and is always the same (SplitMix64).
struct Random(u64);

impl Random {
    /// A number less than `bound`, which must not be 0.
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    /// From one to `most` of the values, with repetitions.
    fn some_of<V: Clone>(&mut self, values: &[V], most: usize) -> Vec<V> {
        let count = 1 + self.below(most);
        (0..count).map(|_| values[self.below(values.len())].clone()).collect()
    }

    fn shuffled<T: Clone>(&mut self, items: &[T]) -> Vec<T> {
        let mut items = items.to_vec();
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
        items
    }

    /// The items in their order, in several lists.
    fn divided<T: Clone>(&mut self, items: &[T]) -> Vec<Vec<T>> {
        let mut lists: Vec<Vec<T>> = vec![Vec::new()];
        for item in items {
            if self.below(3) == 0 {
                lists.push(Vec::new());
            }
            lists.last_mut().into_iter().for_each(|list| list.push(item.clone()));
        }
        lists
    }

    /// Changes `rows`, and returns how: in any order, with changes that cancel out, and with equal rows added at once.
    fn tick_of<V: Clone>(&mut self, rows: &mut Vec<V>, values: &[V], retract_all: bool) -> Vec<(V, i64)> {
        let mut changes = Vec::new();
        for _ in 0..rows.len() {
            if retract_all || self.below(2) == 0 {
                changes.push((rows.swap_remove(self.below(rows.len())), -1));
            }
        }
        for value in self.some_of(values, MOST_RECORDS / 2) {
            let times = 1 + self.below(2);
            match self.below(3) {
                0 => changes.extend([(value.clone(), 1), (value, -1)]),
                _ if retract_all => {}
                _ => {
                    rows.extend(std::iter::repeat_n(value.clone(), times));
                    changes.push((value, times as i64));
                }
            }
        }
        self.shuffled(&changes)
    }
}
