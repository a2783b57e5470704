//! The common part of all keyed durable operators. Each of them differs in its [`Fold`].
//!
//! ```text
//!   records ──exchange by hash──► one small table a tick ──end of the tick──► rows ──(old, -1), (new, +1)──►
//!                                 (records of later ticks wait here,           │ one bit a row: changed
//!                                  folded already)                             └──checkpoint──► Frozen
//! ```
//!
//! # Why
//!
//! *The records of a tick are folded into one delta for each key, and the row is changed once, when the tick has closed.*
//! Records of a tick arrive in batches, from several workers, in an order that depends on threads and on the network. If each
//! batch changed the row and emitted what it had become, a consumer would see values that depend on that order, and a replay
//! would give others. The row of a key at the end of the tick does not depend on that order, as long as the delta does
//! not. It is also less work: a key that has a thousand records in a tick is looked up in the large table once, not a
//! thousand times, and emits one change.
//!
//! *Ticks that are open are kept apart.* Batches of a later tick arrive before an earlier one has closed: other workers are
//! not equally fast. They are folded at once, into a small table of their own tick with its own capability, and the rows see
//! ticks in their order only. So the rows are always those as of the end of one tick. That is what a checkpoint copies,
//! without stopping anything: it is frozen between the last tick that it holds and the next one.
//!
//! *Rows are the operator's own, and not an arrangement of differential dataflow.* An arrangement keeps history, compacts it,
//! and is rebuilt from a stream of updates; what has to be stored and restored here is one row for each key. A hash table with
//! one bit for each row, which is set when the row changes, makes a checkpoint cost only what has changed, and a
//! restore reads files straight into the table. Other operators receive the rows as a collection, and arrange it by
//! differential's means if they have to.
//!
//! *A restored table is emitted once, as of the checkpoint's tick*, so that the operators downstream, which store nothing,
//! have what they had. The capability of that tick is held until the last row is out. It takes several turns: a large
//! table in one would hold back every other operator of the worker, and its updates would all wait in memory at once.
//!
//! **Guarantees**: what is emitted at a tick is what each key has become by its end, once, whatever the order and the
//! batching of the tick's records; ticks are closed in order, and a checkpoint is frozen between the last tick that it
//! holds and the next. **Does not** look at the worker's index but to find the hashes that are its own.

use std::rc::Rc;

use differential_dataflow::{AsCollection, ExchangeData};
use fluvial_node::status::NodeKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::operator::Operator;

use super::keeper::{Emission, Keeper, Settled};
use super::{Held, Overflow};
use crate::state::HashRange;
use crate::state::{hash_owner, routing_hash};
use crate::stream::context::{in_operator, lasting};
use crate::stream::{Changes, Collection, Origin, Stream};

/// What a keyed operator does with the records of a key.
pub(crate) trait Fold: 'static {
    /// The type of a record without its key.
    type Value: 'static;
    /// The combined change of a key's records in one tick. It must not depend on their order.
    type Delta: 'static;
    /// The type of the row that is kept for a key.
    type Row: Clone + PartialEq + Send + Serialize + DeserializeOwned + 'static;
    /// The type of the value that the operator emits for a key.
    type Out: Clone + 'static;

    /// Returns the delta of one record.
    fn begin(&self, value: Self::Value, origin: Origin) -> Self::Delta;

    /// Adds another record of the same tick to a delta.
    fn add(&self, delta: &mut Self::Delta, value: Self::Value, origin: Origin);

    /// Returns the row of a key that had none, if it has one now.
    fn first(&self, delta: Self::Delta) -> Result<Option<Self::Row>, Overflow>;

    /// As [`first`](Fold::first), with the value that the operator emits for the new row. It may say more than the row does.
    #[inline]
    fn first_and_output(&self, delta: Self::Delta) -> Result<Option<First<Self>>, Overflow> {
        Ok(self.first(delta)?.map(|row| {
            let output = self.output(&row);
            (row, output)
        }))
    }

    /// Applies the delta of a tick to a row.
    fn change(&self, row: &mut Self::Row, delta: Self::Delta) -> Result<Change<Self::Out>, Overflow>;

    /// Returns the value that the operator emits for a row.
    fn output(&self, row: &Self::Row) -> Self::Out;
}

/// The row of a key that had none, and the value that the operator emits for it.
pub(crate) type First<F> = (<F as Fold>::Row, <F as Fold>::Out);

/// The effect of a tick on a key's row.
pub(crate) enum Change<O> {
    /// The row is unchanged, so the next checkpoint need not store it.
    Unchanged,
    /// The row may have changed, and the emitted value has not.
    Same,
    /// The emitted value has changed.
    Other { old: O, new: O },
    /// The key was deleted.
    Gone { old: O },
}

/// The form in which a keyed operator emits what its rows have become.
pub(crate) trait Emits<K, O>: 'static {
    /// One update of the operator's output, at the time of a tick.
    type Update: Clone + 'static;

    /// Gives the updates that say what a key has become in a tick.
    fn emit(settled: Settled<K, O>, tick: u64, give: impl FnMut(Self::Update));
}

/// As updates of a collection: the old value is taken back, the new one is added.
struct AsUpdates;

impl<K: Clone + 'static, O: Clone + 'static> Emits<K, O> for AsUpdates {
    type Update = ((K, O), u64, isize);

    #[inline]
    fn emit(settled: Settled<K, O>, tick: u64, mut give: impl FnMut(Self::Update)) {
        match settled {
            Settled::Nothing => {}
            Settled::New(key, new) => give(((key, new), tick, 1)),
            Settled::Other(key, old, new) => {
                give(((key.clone(), old), tick, -1));
                give(((key, new), tick, 1));
            }
            Settled::Gone(key, old) => give(((key, old), tick, -1)),
        }
    }
}

/// As changes: the new value alone.
struct AsChanges;

impl<K: Clone + 'static, O: Clone + 'static> Emits<K, O> for AsChanges {
    type Update = (K, Option<O>);

    #[inline]
    fn emit(settled: Settled<K, O>, _: u64, mut give: impl FnMut(Self::Update)) {
        match settled {
            Settled::Nothing => {}
            Settled::New(key, new) | Settled::Other(key, _, new) => give((key, Some(new))),
            Settled::Gone(key, _) => give((key, None)),
        }
    }
}

/// As updates of a collection in which a key has several rows: the old ones are those that a tick takes back, the new ones those
/// that it adds.
struct AsRows;

impl<K: Clone + 'static, O: Clone + 'static> Emits<K, Vec<O>> for AsRows {
    type Update = ((K, O), u64, isize);

    #[inline]
    fn emit(settled: Settled<K, Vec<O>>, tick: u64, mut give: impl FnMut(Self::Update)) {
        let (key, old, new) = match settled {
            Settled::Nothing => return,
            Settled::New(key, new) => (key, Vec::new(), new),
            Settled::Other(key, old, new) => (key, old, new),
            Settled::Gone(key, old) => (key, old, Vec::new()),
        };
        old.into_iter().for_each(|old| give(((key.clone(), old), tick, -1)));
        new.into_iter().for_each(|new| give(((key.clone(), new), tick, 1)));
    }
}

/// Adds the operator `name` to the dataflow, and returns the collection of its rows.
pub(crate) fn keyed<'s, K, F>(
    stream: Stream<'s, (K, F::Value)>,
    name: &str,
    operator: String,
    fold: F,
) -> Collection<'s, (K, F::Out)>
where
    K: ExchangeData,
    F: Fold<Value: ExchangeData>,
{
    built::<K, F, AsUpdates>(stream, name, operator, fold).as_collection()
}

/// Adds the operator `name` to the dataflow, whose keys have several rows each, and returns the collection of these.
pub(crate) fn keyed_rows<'s, K, O, F>(
    stream: Stream<'s, (K, F::Value)>,
    name: &str,
    operator: String,
    fold: F,
) -> Collection<'s, (K, O)>
where
    K: ExchangeData,
    O: Clone + 'static,
    F: Fold<Value: ExchangeData, Out = Vec<O>>,
{
    built::<K, F, AsRows>(stream, name, operator, fold).as_collection()
}

/// Adds the operator `name` to the dataflow, and returns the changes of its rows.
pub(crate) fn keyed_changes<'s, K, F>(
    stream: Stream<'s, (K, F::Value)>,
    name: &str,
    operator: String,
    fold: F,
) -> Changes<'s, K, F::Out>
where
    K: ExchangeData,
    F: Fold<Value: ExchangeData>,
{
    Changes::new(built::<K, F, AsChanges>(stream, name, operator, fold))
}

/// Adds the operator `name` to the dataflow, and returns what it emits.
pub(super) fn built<'s, K, F, E>(
    stream: Stream<'s, (K, F::Value)>,
    name: &str,
    operator: String,
    fold: F,
) -> StreamVec<'s, u64, E::Update>
where
    K: ExchangeData,
    F: Fold<Value: ExchangeData>,
    E: Emits<K, F::Out>,
{
    let (inner, durables) = stream.into_parts();
    let scope = inner.scope();
    let (worker, workers) = (durables.worker(), durables.workers());
    debug_assert_eq!((worker as usize, workers as usize), (scope.index(), scope.peers()));
    let mut keeper = Keeper::new(fold, &durables, name, operator);
    let called = lasting(name.to_owned());
    let mut restored = keeper.restore(HashRange::of(worker, workers));
    let held = Rc::new(Held::default());
    keeper.tell(&held);
    let of_operator = Rc::clone(&held);

    let pact =
        Exchange::new(move |((key, _), _): &((K, F::Value), Origin)| u64::from(hash_owner(routing_hash(key), workers)));
    let changes =
        inner.unary_frontier::<CapacityContainerBuilder<Vec<E::Update>>, _, _, _>(pact, name, |capability, info| {
            let mut emission = restored.take().map(|as_of| Emission::new(capability.delayed(&as_of)));
            let activator = scope.activator_for(info.address);
            let mut going = true;
            move |(input, frontier), output| {
                if !going {
                    return;
                }
                // Input waits in its channel until the restored rows are out: a change to a row must follow the row.
                if let Some(under_way) = &mut emission {
                    if in_operator(called, || under_way.step::<K, F, E>(&keeper, output)) {
                        return activator.activate();
                    }
                    emission = None;
                }
                input.for_each(|capability, batch| {
                    if let Some(&tick) = capability.least() {
                        in_operator(called, || keeper.fold(tick, || capability.retain_least(0), batch));
                    }
                });
                // The frontier is that of the schedule's start: what has just been folded is not before it.
                going = in_operator(called, || keeper.advance::<E>(|tick| !frontier.less_equal(&tick), output));
                keeper.tell(&of_operator);
            }
        });
    durables.note_node(&changes, NodeKind::Durable, name, Some(held));
    changes
}
