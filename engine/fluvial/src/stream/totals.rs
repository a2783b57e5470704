//! The operator that aggregates the rows of each key of a collection.
//!
//! ```text
//!   updates ──exchange by hash──► one table of changes a tick ──end of the tick──► rows ──(old, -1), (new, +1)──►
//! ```
//!
//! Ticks are totally ordered, so what is kept for a key is as of one tick: a sum where the aggregate is linear, an ordered index
//! of the key's rows where it is not. Differential dataflow's `reduce` would keep all values with their history, and evaluate
//! all values of a key that changed.

use std::collections::BTreeMap;
use std::rc::Rc;

use differential_dataflow::{AsCollection, ExchangeData};
use fluvial_node::status::NodeKind;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

use super::Collection;
use super::checked::Refusal;
use super::context::{at_tick, in_operator, lasting};
use crate::durable::{Durables, Held, Retract, TOO_MANY_ROWS};
use crate::state::{hash_owner, routing_hash};

type Update<K, V> = ((K, V), u64, isize);

/// How a key changes in a tick.
struct Change<T> {
    /// The rows that are added, less those that are retracted.
    rows: i64,
    total: T,
}

/// A tick whose updates may not all have arrived.
struct OpenTick<K, T> {
    capability: Capability<u64>,
    changes: HashTable<(u64, K, Change<T>)>,
}

/// What is kept for a key that has rows.
struct Kept<I> {
    rows: i64,
    index: I,
}

/// Gives the changes of the operator's rows, each with its difference, by which the result of a key changes.
pub(super) trait Emit<K, O, R>: Fn(K, Option<O>, Option<O>, &mut dyn FnMut(R, isize)) + 'static {}

impl<K, O, R, E: Fn(K, Option<O>, Option<O>, &mut dyn FnMut(R, isize)) + 'static> Emit<K, O, R> for E {}

pub(super) fn aggregate<'s, K, V, A>(
    collection: Collection<'s, (K, V)>,
    name: &str,
    durables: &Durables,
    aggregate: A,
) -> Collection<'s, (K, A::Out)>
where
    K: ExchangeData,
    V: ExchangeData,
    A: Retract<V>,
{
    operator(collection, name, durables, aggregate, |key: K, old, new, give| {
        old.into_iter().for_each(|old| give((key.clone(), old), -1));
        new.into_iter().for_each(|new| give((key.clone(), new), 1));
    })
}

/// Aggregates the rows of each key, and emits by `emit` how results change.
pub(super) fn operator<'s, K, V, A, R>(
    collection: Collection<'s, (K, V)>,
    name: &str,
    durables: &Durables,
    aggregate: A,
    emit: impl Emit<K, A::Out, R>,
) -> Collection<'s, R>
where
    K: ExchangeData,
    V: ExchangeData,
    A: Retract<V>,
    R: Clone + 'static,
{
    let called = lasting(name.to_owned());
    let (durables, workers) = (durables.clone(), durables.workers());
    let mut open: BTreeMap<u64, OpenTick<K, A::Change>> = BTreeMap::new();
    let mut totals = HashTable::new();
    // Once the operator has failed, it keeps its capabilities, so that no frontier passes the tick of the failure.
    let mut failed = None;
    let pact = Exchange::new(move |((key, _), ..): &Update<K, V>| u64::from(hash_owner(routing_hash(key), workers)));
    let (held, of_worker) = (Rc::new(Held::default()), durables.clone());
    let of_operator = Rc::clone(&held);
    let results = collection.inner.unary_frontier::<CapacityContainerBuilder<Vec<(R, u64, isize)>>, _, _, _>(
        pact,
        name,
        |_, _| {
            move |(input, frontier), output| {
                if failed.is_some() {
                    return;
                }
                let mut refused = None;
                input.for_each(|capability, batch: &mut Vec<Update<K, V>>| {
                    let mut capability_of = |tick: u64| capability.retain_least(0).map(|held| held.delayed(&tick));
                    let folded = in_operator(called, || {
                        batch.drain(..).try_for_each(|update| fold(&mut open, &aggregate, update, &mut capability_of))
                    });
                    refused = refused.take().or(folded.err());
                });
                while refused.is_none()
                    && let Some(entry) = open.first_entry().filter(|entry| !frontier.less_equal(entry.key()))
                {
                    let (tick, OpenTick { capability, changes }) = entry.remove_entry();
                    let mut session = output.session(&capability);
                    let closed = in_operator(called, || {
                        at_tick(tick);
                        close(&mut totals, &aggregate, tick, changes, &emit, |update| session.give(update))
                    });
                    drop(session);
                    if let Err(refusal) = closed {
                        refused = Some(refusal);
                        failed = Some(Some(capability));
                    }
                }
                if let Some(refusal) = refused {
                    durables.fail(refusal.by(called));
                    failed.get_or_insert(None);
                }
                of_operator.set(totals.len(), totals.allocation_size());
            }
        },
    );
    of_worker.note_node(&results, NodeKind::Operator, name, Some(held));
    results.as_collection()
}

/// Adds an update to its tick.
fn fold<K, V, A>(
    open: &mut BTreeMap<u64, OpenTick<K, A::Change>>,
    aggregate: &A,
    ((key, value), tick, times): Update<K, V>,
    capability: &mut impl FnMut(u64) -> Option<Capability<u64>>,
) -> Result<(), Refusal>
where
    K: ExchangeData,
    A: Retract<V>,
{
    at_tick(tick);
    let open = match open.entry(tick) {
        std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
        std::collections::btree_map::Entry::Vacant(vacant) => {
            // A batch with updates always comes with a capability.
            let Some(capability) = capability(tick) else { return Ok(()) };
            vacant.insert(OpenTick { capability, changes: HashTable::new() })
        }
    };
    let hash = routing_hash(&key);
    let mut change = match open.changes.entry(hash, |change| change.0 == hash && change.1 == key, |change| change.0) {
        Entry::Occupied(change) => change,
        Entry::Vacant(place) => place.insert((hash, key, Change { rows: 0, total: A::Change::default() })),
    };
    let (_, key, change) = change.get_mut();
    let times = times as i64;
    let added = aggregate.add_times(&mut change.total, &value, times);
    added.map_err(|overflow| Refusal::new(tick, key, overflow))?;
    change.rows = change.rows.checked_add(times).ok_or_else(|| Refusal::new(tick, key, TOO_MANY_ROWS))?;
    Ok(())
}

/// Applies a tick's changes to the state of its keys, and emits how their results change.
fn close<K, V, A, R>(
    totals: &mut HashTable<(u64, K, Kept<A::Index>)>,
    aggregate: &A,
    tick: u64,
    changes: HashTable<(u64, K, Change<A::Change>)>,
    emit: &impl Emit<K, A::Out, R>,
    mut give: impl FnMut((R, u64, isize)),
) -> Result<(), Refusal>
where
    K: ExchangeData,
    A: Retract<V>,
{
    for (hash, key, change) in changes {
        let entry = totals.entry(hash, |kept| kept.0 == hash && kept.1 == key, |kept| kept.0);
        let mut entry = match entry {
            Entry::Occupied(kept) => kept,
            Entry::Vacant(place) => place.insert((hash, key.clone(), Kept { rows: 0, index: A::Index::default() })),
        };
        let kept = &mut entry.get_mut().2;
        let refuse = |reason: String| Refusal::new(tick, &key, reason);
        let old = (kept.rows > 0).then(|| aggregate.result(&kept.index));
        kept.rows = kept.rows.checked_add(change.rows).ok_or_else(|| refuse(TOO_MANY_ROWS.to_owned()))?;
        if kept.rows < 0 {
            return Err(refuse(format!("it has {} rows: more were retracted than existed", kept.rows)));
        }
        aggregate.apply(&mut kept.index, change.total).map_err(|error| Refusal::new(tick, &key, error))?;
        let new = (kept.rows > 0).then(|| aggregate.result(&kept.index));
        if new.is_none() {
            if kept.index != A::Index::default() {
                return Err(refuse(
                    "it has no rows, but not a total of zero: other rows were retracted than had been added; make the \
                     job retract each row exactly as it added it"
                        .into(),
                ));
            }
            entry.remove();
        }
        if old != new {
            emit(key, old, new, &mut |row, times| give((row, tick, times)));
        }
    }
    Ok(())
}
