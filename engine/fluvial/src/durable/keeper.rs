//! The state of a keyed durable operator: its rows, and the ticks that are still open.
//!
//! ```text
//!   batch ─fold─► open ticks: key ─► delta ──close, in order──► rows ──freeze, at a mark──► Frozen ──► state file
//! ```
//!
//! # Why
//!
//! *Ticks and marks are worked off in one order.* A tick is closed when the frontier has passed it, a checkpoint is frozen when
//! the frontier has passed its mark; whichever is earlier goes first. If a tick after the mark were closed before the freeze,
//! the checkpoint would hold input that its manifest does not count, and a restart would apply that input twice. So
//! [`Keeper::advance`] looks at both at each step. A mark that the frontier has not passed yet delays no tick before
//! it.
//!
//! *Freezing copies; encoding and storing happen on another thread.* The dataflow pauses for the copy alone. The copy is made in
//! parts by hash. These are encoded one after the other and freed in between, so that even if all of the state has
//! changed, its checkpoint does not need as much memory again for long.
//!
//! *An operator that fails holds its capability.* An overflow cannot be answered with a value. If the operator returned, its
//! capability would be dropped, the frontier would pass the tick, and the output of the tick would be taken as complete,
//! sealed and committed without the key that failed. So the failure is reported, the open tick is put back with
//! its capability, and nothing after it is ever complete.
//!
//! *Most of the time goes into waiting for memory.* A lookup in a table of some gigabytes misses every cache. So deltas are
//! looked up in groups: the loads of a group are under way at the same time, and the rows are changed after that. Room for
//! a group is made before it is looked up, because the places that were found must not move until all of them are used.

use std::collections::BTreeMap;

use differential_dataflow::ExchangeData;
use fluvial_connector::Tick;
use fluvial_protocol::manifest::OperatorKind;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use serde::Serialize;
use serde::de::DeserializeOwned;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilderSession;

use super::context::Registration;
use super::frozen::Encode;
use super::keyed::{Change, Emits, Fold};
use super::table::Table;
use super::{DataflowError, Durables, Held, Overflow};
use crate::fail_point::{FailPoint, reach};
use crate::state::routing_hash;
use crate::state::{EncodedFile, HashRange, Part, RowSchema, StateError, encode_keyed, read_keyed};
use crate::stream::Origin;
use crate::stream::context::{at_record, at_tick};

/// The number of rows of a restored table that are emitted before other operators are scheduled.
const PLACES_A_TURN: usize = 1 << 16;

/// How many bytes of rows that changed are sorted and encoded at a time, at the most. It is half of this at the least where
/// there are so many, which is still more than what goes back to the system at once when it is freed: see `allocator.rs` of
/// `fluvial-node`.
const PART_BYTES: usize = 6 << 20;

/// How many rows are looked up before the first of them is changed: the memory that they lie in is then fetched for
/// several at a time.
const LOOKED_UP_AT_ONCE: usize = 32;

/// How many deltas of a tick an emptied table has room for, and is kept whatever the tick had.
const SPARE_DELTAS: usize = 1 << 14;

/// The receiver of an operator's updates.
pub(crate) type Output<'a, U> = OutputBuilderSession<'a, u64, CapacityContainerBuilder<Vec<U>>>;

/// The state of one keyed operator on one worker.
pub(crate) struct Keeper<K, F: Fold> {
    fold: F,
    schema: RowSchema,
    rows: Table<K, F::Row>,
    open: BTreeMap<u64, OpenTick<K, F::Delta>>,
    /// The deltas' table of the last closed tick, emptied, for the next one.
    spare: HashTable<(u64, K, F::Delta)>,
    /// How many keys the last closed tick had: about as many will have the next one.
    last_keys: usize,
    registration: Registration,
}

/// A tick that may still receive records.
struct OpenTick<K, D> {
    capability: Capability<u64>,
    deltas: HashTable<(u64, K, D)>,
}

impl<K: ExchangeData, F: Fold> Keeper<K, F> {
    pub(crate) fn new(fold: F, durables: &Durables, name: &str, operator: String) -> Self {
        let schema = RowSchema::keyed::<K, F::Row>();
        let registration = durables.register(name, OperatorKind { operator, schema: schema.describe() });
        Self {
            fold,
            schema,
            rows: Table::new(),
            open: BTreeMap::new(),
            spare: HashTable::new(),
            last_keys: 0,
            registration,
        }
    }

    /// Loads the rows of the checkpoint whose hashes are in `range`, if there is a checkpoint of this operator, and
    /// returns its tick. Where it is only checked that they could be loaded, those are loaded that show it.
    pub(crate) fn restore(&mut self, range: HashRange) -> Option<u64> {
        let stored = self.registration.files.take()?;
        let range = Some(range).filter(|_| !self.registration.durables.only_checks());
        for file in &stored.files {
            // Files are read from the oldest to the newest, so that the newest row of a key remains.
            let kind = &self.registration.kind;
            let read =
                read_keyed::<K, F::Row>(&stored.store, file, kind, &self.schema, range, |hash, key, row| {
                    match (self.rows.find(hash, &key), row) {
                        (None, Some(row)) => self.rows.insert(hash, key, row, routing_hash),
                        (None, None) => {}
                        (Some(place), Some(row)) => {
                            if let Some(kept) = self.rows.change_at(place) {
                                kept.1 = row;
                            }
                        }
                        (Some(place), None) => {
                            self.rows.remove_at(place, hash, routing_hash);
                        }
                    }
                });
            if let Err(error) = read {
                self.registration.durables.refuse(error);
                return None;
            }
            reach(FailPoint::DuringRestore);
        }
        // Rows count as changed when they are loaded. Where their type has changed they must: the next checkpoint then writes
        // all of them again, in the new form.
        if !stored.of_before {
            self.rows.settle();
        }
        // Rows that were loaded for a check are not emitted: no closure of the job may see a part of its state.
        (range.is_some() && self.rows.len() > 0).then_some(stored.as_of)
    }

    /// Says how many rows there are, and how much memory their tables have.
    pub(crate) fn tell(&self, held: &Held) {
        let open = self.open.values().map(|tick| tick.deltas.allocation_size()).sum::<usize>();
        held.set(self.rows.len(), self.rows.bytes() + open + self.spare.allocation_size());
    }

    /// Folds the records of one batch into their tick.
    pub(crate) fn fold(
        &mut self,
        tick: u64,
        capability: impl FnOnce() -> Option<Capability<u64>>,
        batch: &mut Vec<((K, F::Value), Origin)>,
    ) {
        let open = match self.open.entry(tick) {
            std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let Some(capability) = capability() else { return };
                let mut deltas = std::mem::take(&mut self.spare);
                deltas.reserve(self.last_keys.min(batch.len()), |delta| delta.0);
                vacant.insert(OpenTick { capability, deltas })
            }
        };
        for ((key, value), origin) in batch.drain(..) {
            at_record(origin);
            let hash = routing_hash(&key);
            match open.deltas.entry(hash, |delta| delta.0 == hash && delta.1 == key, |delta| delta.0) {
                Entry::Occupied(mut delta) => self.fold.add(&mut delta.get_mut().2, value, origin),
                Entry::Vacant(place) => {
                    place.insert((hash, key, self.fold.begin(value, origin)));
                }
            }
        }
    }

    /// Closes the ticks that are over and takes the checkpoints that are due between them, in order. `false` when the
    /// operator has failed; it then holds the capability of the tick that it failed at.
    pub(crate) fn advance<E: Emits<K, F::Out>>(
        &mut self,
        is_over: impl Fn(u64) -> bool,
        output: &mut Output<'_, E::Update>,
    ) -> bool {
        loop {
            let tick = self.open.keys().next().copied();
            let mark = self.registration.next_mark();
            match (tick, mark) {
                (Some(tick), mark) if is_over(tick) && mark.is_none_or(|mark| tick <= mark) => {
                    if !self.close::<E>(tick, output) {
                        return false;
                    }
                }
                (_, Some(mark)) if is_over(mark) => self.freeze(),
                _ => return true,
            }
        }
    }

    fn close<E: Emits<K, F::Out>>(&mut self, tick: u64, output: &mut Output<'_, E::Update>) -> bool {
        let Some(mut open) = self.open.remove(&tick) else { return true };
        at_tick(tick);
        let len = open.deltas.len();
        self.last_keys = len;
        let mut session = output.session(&open.capability);
        let mut failed = None;
        let mut deltas = open.deltas.drain();
        let mut found = Vec::with_capacity(LOOKED_UP_AT_ONCE);
        while failed.is_none() {
            self.rows.make_room(LOOKED_UP_AT_ONCE, &routing_hash);
            // All are looked up before the first is changed, so that the processor waits for their memory at the same time.
            let next = deltas.by_ref().take(LOOKED_UP_AT_ONCE);
            found.extend(next.map(|(hash, key, delta)| (self.rows.find(hash, &key), hash, key, delta)));
            if found.is_empty() {
                break;
            }
            for (place, hash, key, delta) in found.drain(..) {
                match settle(&self.fold, &mut self.rows, place, hash, key, delta) {
                    Ok(settled) => E::emit(settled, tick, |update| session.give(update)),
                    Err(failure) => {
                        failed = Some(failure);
                        break;
                    }
                }
            }
        }
        drop((session, deltas));
        if let Some((key, overflow)) = failed {
            self.registration.durables.fail(DataflowError::Overflow {
                operator: self.registration.name.clone(),
                tick,
                key: format!("{key:?}"),
                overflow,
            });
            // The tick's capability keeps the frontier at the tick, so that the tick is never taken as complete.
            self.open.insert(tick, open);
            return false;
        }
        // A table that was large for once, while the job caught up, is not kept; ticks that are large and small in turn
        // keep theirs.
        if open.deltas.capacity() <= 4 * len + SPARE_DELTAS {
            self.spare = open.deltas;
        }
        true
    }

    /// Copies what has changed, in parts by hash, each of which is let go when it is encoded.
    fn freeze(&mut self) {
        let changes = self.rows.changes();
        let bits = (changes * size_of::<(K, F::Row)>()).div_ceil(PART_BYTES).next_power_of_two().trailing_zeros();
        let expected = (changes >> bits) + (changes >> bits) / 64 + 1;
        let part = |_| Part { rows: Vec::with_capacity(expected), gone: Vec::new() };
        let mut parts: Vec<Part<K, F::Row>> = (0..1 << bits).map(part).collect();
        self.rows.take_changes(|key, row| {
            let part = &mut parts[routing_hash(key).checked_shr(64 - bits).unwrap_or(0) as usize];
            match row {
                Some(row) => part.rows.push((key.clone(), row.clone())),
                None => part.gone.push(key.clone()),
            }
        });
        let rows = (changes > 0).then(|| Box::new(KeyedRows { parts, schema: self.schema.clone() }) as Box<dyn Encode>);
        self.registration.freeze(rows, Some(self.rows.len() as u64));
    }
}

/// The effect of a tick on a key, with the values before and after.
pub(crate) enum Settled<K, O> {
    Nothing,
    New(K, O),
    Other(K, O, O),
    Gone(K, O),
}

#[inline]
fn settle<K: ExchangeData, F: Fold>(
    fold: &F,
    rows: &mut Table<K, F::Row>,
    place: Option<usize>,
    hash: u64,
    key: K,
    delta: F::Delta,
) -> Result<Settled<K, F::Out>, (K, Overflow)> {
    let Some((place, row)) = place.and_then(|place| Some((place, rows.row_at_mut(place)?))) else {
        return Ok(match fold.first_and_output(delta) {
            Ok(None) => Settled::Nothing,
            Ok(Some((row, new))) => {
                rows.insert(hash, key.clone(), row, routing_hash);
                Settled::New(key, new)
            }
            Err(overflow) => return Err((key, overflow)),
        });
    };
    match fold.change(&mut row.1, delta) {
        Ok(Change::Unchanged) => Ok(Settled::Nothing),
        Ok(Change::Same) => {
            rows.mark(place);
            Ok(Settled::Nothing)
        }
        Ok(Change::Other { old, new }) => {
            rows.mark(place);
            Ok(Settled::Other(key, old, new))
        }
        Ok(Change::Gone { old }) => {
            rows.remove_at(place, hash, routing_hash);
            Ok(Settled::Gone(key, old))
        }
        Err(overflow) => Err((key, overflow)),
    }
}

/// The restored rows of a checkpoint that are still to be emitted, all at the checkpoint's tick.
pub(crate) struct Emission {
    capability: Capability<u64>,
    place: usize,
}

impl Emission {
    pub(crate) fn new(capability: Capability<u64>) -> Self {
        Self { capability, place: 0 }
    }

    /// Emits some of the rows. Returns whether there are more.
    pub(crate) fn step<K: ExchangeData, F: Fold, E: Emits<K, F::Out>>(
        &mut self,
        keeper: &Keeper<K, F>,
        output: &mut Output<'_, E::Update>,
    ) -> bool {
        let tick = *self.capability.time();
        let end = keeper.rows.places().min(self.place + PLACES_A_TURN);
        let mut session = output.session(&self.capability);
        for (key, row) in (self.place..end).filter_map(|place| keeper.rows.row_at(place)) {
            let settled = Settled::New(key.clone(), keeper.fold.output(row));
            E::emit(settled, tick, |update| session.give(update));
        }
        self.place = end;
        end < keeper.rows.places()
    }
}

/// Copies of the rows that changed, in parts that follow each other by hash.
struct KeyedRows<K, R> {
    parts: Vec<Part<K, R>>,
    schema: RowSchema,
}

impl<K, R> Encode for KeyedRows<K, R>
where
    K: ExchangeData,
    R: Serialize + DeserializeOwned + PartialEq + Send,
{
    fn encode(self: Box<Self>, operator: &str, kind: &OperatorKind, tick: Tick) -> Result<EncodedFile, StateError> {
        encode_keyed(operator, kind, &self.schema, tick, self.parts)
    }
}
