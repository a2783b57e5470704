//! The operator that keeps every record.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::vec::IntoIter;

use differential_dataflow::{AsCollection, ExchangeData};
use fluvial_connector::Tick;
use fluvial_node::status::NodeKind;
use fluvial_protocol::manifest::OperatorKind;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::operator::Operator;

use super::context::{Registration, StoredFiles};
use super::frozen::Encode;
use super::{DataflowError, Held};
use crate::fail_point::{FailPoint, reach};
use crate::state::{EncodedFile, PlainPart, RowSchema, StateError, encode_plain, plain_parts};
use crate::stream::{Collection, Stream};

impl<'s, D: ExchangeData> Stream<'s, D> {
    /// Keeps every record, durably, as `name`. A record that arrives twice is in the collection twice.
    ///
    /// The operator itself holds in memory only the records since the last checkpoint. Operators downstream, such as `join` and
    /// `distinct`, hold the rows that they need.
    ///
    /// ```
    /// use fluvial::harness::Dataflow;
    ///
    /// let mut test = Dataflow::new(1, |scope| {
    ///     let edges = scope.input::<(u32, u32)>("edges").keep_all("edges");
    ///     scope.output("nodes", edges.map(|(from, _)| from).distinct());
    /// });
    /// test.feed("edges", 1, [(1u32, 2u32), (1, 3)]);
    /// test.feed("edges", 2, [(2u32, 1u32)]);
    /// test.advance_past(2);
    /// assert_eq!(test.table::<u32>("nodes"), [1, 2]);
    /// ```
    #[must_use]
    pub fn keep_all(self, name: &str) -> Collection<'s, D> {
        let (inner, durables) = self.into_parts();
        let scope = inner.scope();
        let schema = RowSchema::plain::<D>();
        let kind = OperatorKind { operator: "keep_all".to_owned(), schema: schema.describe() };
        let mut registration = durables.register(name, kind);
        let stored = registration.files.take();
        let parts = stored.and_then(|stored| {
            Replay::new(&stored, &registration.kind, scope.index(), scope.peers(), &schema)
                .and_then(|mut replay| {
                    if durables.only_checks() {
                        replay.check::<D>()?;
                    }
                    Ok(replay)
                })
                .map_err(|error| durables.refuse(error))
                .ok()
        });
        let mut unsaved = Unsaved { open: BTreeMap::new(), closed: Vec::new(), schema, registration };
        let held = Rc::new(Held::default());
        let of_operator = Rc::clone(&held);
        let records = inner.unary_frontier::<CapacityContainerBuilder<Vec<(D, u64, isize)>>, _, _, _>(
            Pipeline,
            name,
            |capability, info| {
                let mut replay = parts.map(|replay| (capability.delayed(&replay.as_of), replay));
                let activator = scope.activator_for(info.address);
                move |(input, frontier), output| {
                    if let Some((capability, parts)) = &mut replay {
                        match parts.next::<D>() {
                            Ok(Some(records)) => {
                                if parts.of_before {
                                    unsaved.closed.extend(records.iter().cloned());
                                }
                                let tick = *capability.time();
                                let mut updates = records.into_iter().map(|record| (record, tick, 1)).collect();
                                output.session(capability).give_container(&mut updates);
                                activator.activate();
                            }
                            Ok(None) => replay = None,
                            // The capability is kept, because otherwise the frontier would claim that all rows have been
                            // restored.
                            Err(error) if !parts.failed => {
                                parts.failed = true;
                                unsaved.fail(&error);
                            }
                            Err(_) => {}
                        }
                    }
                    input.for_each(|capability, batch| {
                        let Some(&tick) = capability.least() else { return };
                        let open = unsaved.open.entry(tick).or_default();
                        open.extend(batch.iter().map(|(record, _)| record.clone()));
                        let mut updates = batch.drain(..).map(|(record, _)| (record, tick, 1)).collect();
                        output.session(&capability).give_container(&mut updates);
                    });
                    if replay.is_none() {
                        unsaved.advance(|tick| !frontier.less_equal(&tick));
                    }
                    unsaved.tell(&of_operator);
                }
            },
        );
        durables.note_node(&records, NodeKind::Durable, name, Some(held));
        records.as_collection()
    }
}

/// The records since the last checkpoint, which no state file holds yet.
struct Unsaved<D> {
    open: BTreeMap<u64, Vec<D>>,
    closed: Vec<D>,
    schema: RowSchema,
    registration: Registration,
}

impl<D: ExchangeData> Unsaved<D> {
    /// Says how many records wait for the next checkpoint, and how much memory they have.
    fn tell(&self, held: &Held) {
        let open = self.open.values();
        let (rows, room) = open.fold((self.closed.len(), self.closed.capacity()), |(rows, room), records| {
            (rows + records.len(), room + records.capacity())
        });
        held.set(rows, room * size_of::<D>());
    }

    fn advance(&mut self, is_over: impl Fn(u64) -> bool) {
        loop {
            let mark = self.registration.next_mark();
            match self.open.first_entry() {
                Some(tick) if is_over(*tick.key()) && mark.is_none_or(|mark| *tick.key() <= mark) => {
                    self.closed.append(&mut tick.remove());
                }
                _ if mark.is_some_and(&is_over) => {
                    let rows = std::mem::take(&mut self.closed);
                    let schema = self.schema.clone();
                    let rows = (!rows.is_empty()).then(|| Box::new(PlainRows { rows, schema }) as Box<dyn Encode>);
                    self.registration.freeze(rows, None);
                }
                _ => return,
            }
        }
    }

    fn fail(&self, error: &StateError) {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            reason = format!("{reason}: {error}");
            source = error.source();
        }
        let operator = self.registration.name.clone();
        self.registration.durables.fail(DataflowError::Restore { operator, reason });
    }
}

/// This worker's share of the parts of a checkpoint's state files. Records have no keys, so any distribution is right in which
/// each part has exactly one reader.
struct Replay {
    of_before: bool,
    as_of: u64,
    parts: IntoIter<PlainPart>,
    failed: bool,
}

impl Replay {
    fn new(
        stored: &StoredFiles,
        kind: &OperatorKind,
        worker: usize,
        workers: usize,
        schema: &RowSchema,
    ) -> Result<Self, StateError> {
        let mut parts = Vec::new();
        for file in &stored.files {
            parts.extend(plain_parts(&stored.store, file, kind, schema)?);
        }
        let mine: Vec<_> = parts.into_iter().skip(worker).step_by(workers).collect();
        let (of_before, as_of) = (stored.of_before, stored.as_of);
        Ok(Self { of_before, as_of, parts: mine.into_iter(), failed: false })
    }

    /// Reads the first part of each file, to see that it can be read.
    fn check<D: ExchangeData>(&mut self) -> Result<(), StateError> {
        self.parts.by_ref().filter(PlainPart::is_first).try_for_each(|part| part.read::<D>().map(drop))
    }

    /// Reads the records of the next part.
    fn next<D: ExchangeData>(&mut self) -> Result<Option<Vec<D>>, StateError> {
        let records = self.parts.next().map(|part| part.read()).transpose();
        reach(FailPoint::DuringRestore);
        records
    }
}

struct PlainRows<D> {
    rows: Vec<D>,
    schema: RowSchema,
}

impl<D: ExchangeData> Encode for PlainRows<D> {
    fn encode(self: Box<Self>, operator: &str, kind: &OperatorKind, _: Tick) -> Result<EncodedFile, StateError> {
        encode_plain(operator, kind, &self.schema, &self.rows)
    }
}
