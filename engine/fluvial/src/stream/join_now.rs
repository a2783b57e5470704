//! Joins of a stream with a table as of the tick of each record.
//!
//! ```text
//!   records ──exchange by hash──► wait for the end of the tick ─┐ each record finds the rows of its key
//!   updates ──exchange by hash──► wait for the end of the tick ─┴► rows by key ──► records with rows ──►
//! ```
//!
//! **Guarantees**: what a record becomes depends on the table as of its tick alone, and never changes afterwards. **Does not**
//! store anything: the table is rebuilt from the rows that the durable operators have restored.

use std::collections::BTreeMap;
use std::rc::Rc;

use differential_dataflow::ExchangeData;
use fluvial_node::status::NodeKind;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::operator::Operator;

use super::checked::Refusal;
use super::context::{at_tick, in_operator, lasting};
use super::rows_by_key::{Negative, RowsByKey};
use super::{Collection, Origin, Stream};
use crate::durable::Held;
use crate::state::{hash_owner, routing_hash};

#[cfg(test)]
mod tests;

/// How many records an operator makes before it sends them on.
const SENT_AT_ONCE: usize = 1024;

impl<'s, K: ExchangeData, V: ExchangeData> Stream<'s, (K, V)> {
    /// Looks up each record's key in a table as it is at the end of the record's tick, and pairs the record with each row of
    /// the key. A record without a row is dropped; [`left_join_now`](Stream::left_join_now) keeps it.
    ///
    /// The result is a stream: it never changes afterwards, whatever becomes of the table, so it can go to an append output.
    /// (A join of collections would have to retract what it has said.) Records and changes of one tick count as simultaneous:
    /// a record sees all changes of its own tick. It therefore depends on which tick the leader has bound a record and a
    /// change to; that is in the journal, so that a restart and a replay give the same result.
    ///
    /// Error messages and metrics name the operator by `name`; nothing is stored under it. The operator keeps the table in memory.
    /// If a key has several rows, the pairs come in the order of the rows; a row that is in the table several times is paired as
    /// often. A row that is in the table a negative number of times ends the job with an error.
    ///
    /// If the table is made of a [`Changelog`](crate::Changelog) and a restart has to read records of it that its system has
    /// compacted since, records of those ticks may find a newer row, or none. The job goes on only if all its outputs are upsert
    /// outputs, and corrects them.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(2, |scope| {
    ///     let prices = scope.input::<(String, Option<i64>)>("prices").latest("prices");
    ///     let sales = scope.input::<(String, i64)>("sales");
    ///     let worth = sales.join_now("prices now", prices).map(|(item, (pieces, price))| (item, pieces * price));
    ///     scope.output("worth", worth.keep_all("worth"));
    /// });
    /// test.feed("sales", 1, [("tea".to_owned(), 2i64), ("jam".to_owned(), 1)]);
    /// test.feed("prices", 1, [("tea".to_owned(), Some(3i64))]);
    /// test.feed("prices", 2, [("tea".to_owned(), Some(4i64))]);
    /// test.feed("sales", 3, [("tea".to_owned(), 2i64)]);
    /// test.advance_past(3);
    /// // There was no jam. The new price of tea counts from its own tick on.
    /// let worth = test.updates::<(String, i64)>("worth");
    /// assert_eq!(worth, [(("tea".to_owned(), 6), 1, 1), (("tea".to_owned(), 8), 3, 1)]);
    /// ```
    #[must_use]
    pub fn join_now<W: ExchangeData>(self, name: &str, table: Collection<'s, (K, W)>) -> Stream<'s, (K, (V, W))> {
        self.look_up(lasting(name.to_owned()), table, AsOf::End, |(key, value), origin, rows, made| {
            pair_each(key, value, rows, |key, value, row| made.push(((key, (value, row.clone())), origin)));
        })
    }

    /// Looks up each record's key in a table, as [`join_now`](Stream::join_now) does, and keeps a record whose key has no row
    /// at the end of the record's tick, once and with `None`.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let names = scope.input::<(u32, Option<String>)>("names").latest("names");
    ///     let visits = scope.input::<(u32, u64)>("visits").left_join_now("names now", names);
    ///     scope.output("visits", visits.keep_all("visits"));
    /// });
    /// test.feed("names", 1, [(1u32, Some("Ann".to_owned()))]);
    /// test.feed("visits", 1, [(1u32, 10u64), (2, 11)]);
    /// test.feed("names", 2, [(2u32, Some("Bob".to_owned()))]);
    /// test.advance_past(2);
    /// let visits = test.table::<(u32, (u64, Option<String>))>("visits");
    /// assert_eq!(visits, [(1, (10, Some("Ann".to_owned()))), (2, (11, None))]);
    /// ```
    #[must_use]
    pub fn left_join_now<W: ExchangeData>(
        self,
        name: &str,
        table: Collection<'s, (K, W)>,
    ) -> Stream<'s, (K, (V, Option<W>))> {
        self.look_up(lasting(name.to_owned()), table, AsOf::End, |(key, value), origin, rows, made| {
            if rows.is_empty() {
                made.push(((key, (value, None)), origin));
            } else {
                pair_each(key, value, rows, |key, value, row| made.push(((key, (value, Some(row.clone()))), origin)));
            }
        })
    }

    /// Makes of each record what `answer` makes of it and of the rows of its key. `answer` adds to its last argument any number
    /// of records with the origin of the record that it was given; they are numbered afterwards as `flat_map` does it.
    pub(crate) fn look_up<W, D>(
        self,
        name: &'static str,
        table: Collection<'s, (K, W)>,
        as_of: AsOf,
        answer: impl Fn((K, V), Origin, &[(W, isize)], &mut Vec<(D, Origin)>) + 'static,
    ) -> Stream<'s, D>
    where
        W: ExchangeData,
        D: ExchangeData,
    {
        let Stream { inner, branches, durables } = self;
        let workers = durables.workers();
        let owner = move |key: &K| u64::from(hash_owner(routing_hash(key), workers));
        let records_by_key = Exchange::new(move |((key, _), _): &((K, V), Origin)| owner(key));
        let rows_by_key = Exchange::new(move |((key, _), ..): &((K, W), u64, isize)| owner(key));
        let mut open: BTreeMap<u64, OpenTick<K, V, W>> = BTreeMap::new();
        let mut rows = RowsByKey::new();
        // Once the operator has failed, it keeps its capabilities, so that no frontier passes the tick of the failure.
        let mut failed = None;
        let (held, of_worker) = (Rc::new(Held::default()), durables.clone());
        let of_operator = Rc::clone(&held);
        let answered = inner.binary_frontier::<_, CapacityContainerBuilder<Vec<(D, Origin)>>, _, _, _, _>(
            table.inner,
            records_by_key,
            rows_by_key,
            name,
            |_, _| {
                move |(records, records_frontier), (updates, updates_frontier), output| {
                    if failed.is_some() {
                        return;
                    }
                    records.for_each(|capability, batch| {
                        let Some(&tick) = capability.least() else { return };
                        if let Some(open) = of_tick(&mut open, tick, || capability.retain_least(0)) {
                            open.records.append(batch);
                        }
                    });
                    updates.for_each(|capability, batch| {
                        for (row, tick, diff) in batch.drain(..) {
                            let capability = || capability.retain_least(0).map(|held| held.delayed(&tick));
                            if let Some(open) = of_tick(&mut open, tick, capability) {
                                open.updates.push((row, diff));
                            }
                        }
                    });
                    let is_over = |tick: &u64| !records_frontier.less_equal(tick) && !updates_frontier.less_equal(tick);
                    while failed.is_none()
                        && let Some(entry) = open.first_entry().filter(|entry| is_over(entry.key()))
                    {
                        let (tick, OpenTick { capability, records, updates }) = entry.remove_entry();
                        let mut session = output.session(&capability);
                        let mut made = Vec::new();
                        let mut answer_all = |records: Vec<((K, V), Origin)>, rows: &RowsByKey<K, W>| {
                            for (record, origin) in records {
                                let of_key = rows.of(&record.0);
                                answer(record, origin, of_key, &mut made);
                                if made.len() >= SENT_AT_ONCE {
                                    session.give_container(&mut std::mem::take(&mut made));
                                }
                            }
                            if !made.is_empty() {
                                session.give_container(&mut made);
                            }
                        };
                        let applied = in_operator(name, || {
                            at_tick(tick);
                            match as_of {
                                AsOf::Start => {
                                    answer_all(records, &rows);
                                    rows.apply(updates).map_err(|negative| refusal(tick, &negative))
                                }
                                AsOf::End => {
                                    rows.apply(updates).map_err(|negative| refusal(tick, &negative))?;
                                    answer_all(records, &rows);
                                    Ok(())
                                }
                            }
                        });
                        drop(session);
                        if let Err(refusal) = applied {
                            durables.fail(refusal.by(name));
                            failed = Some(capability);
                        }
                    }
                    rows.tell(&of_operator);
                }
            },
        );
        of_worker.note_node(&answered, NodeKind::Operator, name, Some(held));
        Stream::by_key(answered, branches, of_worker).flat_map(Some)
    }
}

/// As of when a record looks up the table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AsOf {
    /// Before the changes of the record's tick.
    Start,
    /// After the changes of the record's tick.
    End,
}

/// A tick of which records or updates may not all have arrived.
struct OpenTick<K, V, W> {
    capability: Capability<u64>,
    records: Vec<((K, V), Origin)>,
    updates: Vec<((K, W), isize)>,
}

/// The tick's records and updates so far. A batch that has any comes with a capability.
fn of_tick<K, V, W>(
    open: &mut BTreeMap<u64, OpenTick<K, V, W>>,
    tick: u64,
    capability: impl FnOnce() -> Option<Capability<u64>>,
) -> Option<&mut OpenTick<K, V, W>> {
    use std::collections::btree_map::Entry;
    Some(match open.entry(tick) {
        Entry::Occupied(open) => open.into_mut(),
        Entry::Vacant(place) => {
            let capability = capability()?;
            place.insert(OpenTick { capability, records: Vec::new(), updates: Vec::new() })
        }
    })
}

fn refusal<K: std::fmt::Debug>(tick: u64, Negative { key, times }: &Negative<K>) -> Refusal {
    let reason = format!(
        "the table has one of its rows {times} times: it was retracted more often than it was added; make the job retract each \
         row exactly as it added it"
    );
    Refusal::new(tick, key, reason)
}

/// Calls `pair` for each row, as often as it is in the table. Key and value are copied for all calls but the last.
pub(crate) fn pair_each<K: Clone, V: Clone, W>(key: K, value: V, rows: &[(W, isize)], mut pair: impl FnMut(K, V, &W)) {
    let mut rows = rows.iter().flat_map(|(row, times)| std::iter::repeat_n(row, usize::try_from(*times).unwrap_or(0)));
    let Some(mut last) = rows.next() else { return };
    for next in rows {
        pair(key.clone(), value.clone(), last);
        last = next;
    }
    pair(key, value, last);
}
