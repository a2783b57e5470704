//! The end of the dataflow, where each output's rows are collected by tick and partition, and encoded.
//!
//! ```text
//!  collection ──partition of the key's bytes──► exchange to the partition's owner ──► per tick: consolidate, encode, sort
//!  changes, ──encode, partition of the key's bytes─► exchange of blocks to the owner ──► per tick: sort    │
//!  stream                                                            add up digests └──► OutputQueue ──► Outlet
//! ```
//!
//! The output of a tick is emitted once, when the frontier has passed the tick, in the order (partition, key, value), and
//! that of a stream in the order of its records' origins. The operator does not know which ticks are sealed or committed.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::iter;
use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::{ExchangeData, VecCollection};
use fluvial_connector::format::{Encode, Formats};
use fluvial_connector::{BoxError, Envelope, OutputBlock, OutputSpec, Tick};
use fluvial_node::status::NodeKind;
use fluvial_protocol::TickRecords;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Map;

use super::order::in_order;
use crate::durable::Durables;
use crate::stages::STAGES;
use crate::stream::context::{at_tick, described, in_operator, lasting};

/// The complete output of one tick for the partitions of one output that this worker owns.
pub(crate) struct TickOutput {
    /// The tick.
    pub(crate) tick: Tick,
    /// The records of each partition that has any, in the order in which they are written.
    pub(crate) partitions: BTreeMap<u32, TickRecords>,
}

/// The queue of an output's complete ticks, from its operator to the runtime.
#[derive(Default)]
pub(crate) struct OutputQueue {
    /// Complete ticks, ascending; a tick without output is not among them.
    pub(crate) ready: VecDeque<TickOutput>,
    /// All ticks before this one are complete; `None` when the dataflow has ended.
    pub(crate) upper: Option<u64>,
    /// The failure after which the operator emits nothing more.
    pub(crate) failed: Option<OutputError>,
}

/// The reason for which a tick's output cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// An upsert output has two rows for one key.
    #[error(
        "output '{output}' has two rows for the key {key} at tick {tick}: an upsert output needs one row for each key; aggregate by the key, or write it with the append envelope"
    )]
    TwoRows {
        /// The output.
        output: String,
        /// The key as text, or its bytes.
        key: String,
        /// The tick.
        tick: Tick,
    },
    /// A row of an append output was retracted.
    #[error(
        "output '{output}' would have to retract a record of key {key} at tick {tick}, which an append output \
         cannot: write it with the upsert envelope"
    )]
    Retraction {
        /// The output.
        output: String,
        /// The key as text, or its bytes.
        key: String,
        /// The tick.
        tick: Tick,
    },
    /// A row cannot be encoded in the output's format.
    #[error("a row of output '{output}' cannot be encoded{}", in_brackets(.input.as_deref()))]
    Encode {
        /// The output.
        output: String,
        /// The input that the row was made of, as narrowly as it is known.
        input: Option<String>,
        /// The error of the encoder.
        #[source]
        source: fluvial_connector::BoxError,
    },
}

fn in_brackets(input: Option<&str>) -> String {
    input.map_or_else(String::new, |input| format!(" ({input})"))
}

/// A row that is sent to the worker that owns its partition: partition, key, value.
type Routed<K, V> = (u32, K, V);

/// The rows of a tick, with their multiplicities.
type Rows<K, V> = Vec<(Routed<K, V>, isize)>;

/// The end of the dataflow at which the records of an output are collected.
pub(crate) struct End<'a> {
    pub(crate) spec: &'a OutputSpec,
    /// How many partitions the output has.
    pub(crate) partitions: u32,
    /// Updates at or before this tick are dropped, because they come from restored state whose output has been committed.
    pub(crate) skip_through: Option<u64>,
    /// Where the output of each tick goes.
    pub(crate) queue: Rc<RefCell<OutputQueue>>,
    pub(crate) durables: &'a Durables,
}

/// Collects what a collection has become.
pub(crate) fn collect<'s, F, K, V>(collection: VecCollection<'s, u64, (K, V), isize>, end: End<'_>, formats: F)
where
    F: Formats<Key: Encode<K>, Value: Encode<V>>,
    K: ExchangeData,
    V: ExchangeData,
{
    let End { spec, partitions, skip_through, .. } = end;
    let formats = Arc::new(formats);
    let (partition_of, name, envelope) = (spec.partition_of, spec.name.clone(), spec.envelope);
    let called = lasting(format!("write to {name}"));
    let of_keys = Arc::clone(&formats);
    let mut bytes = Vec::new();
    let routed = collection.inner.flat_map(move |((key, value), tick, diff)| {
        if skip_through.is_some_and(|through| tick <= through) {
            return None;
        }
        bytes.clear();
        // An error is ignored here, because the key is encoded again at the end of its tick, where the error is reported.
        let encoded = in_operator(called, || {
            at_tick(tick);
            of_keys.key().encode(&key, &mut bytes)
        });
        let partition = encoded.map_or(0, |()| partition_of(&bytes, partitions));
        Some(((partition, key, value), tick, diff))
    });
    end.gather(
        called,
        routed,
        |((partition, ..), ..): &(Routed<K, V>, u64, isize)| *partition,
        |pending: &mut BTreeMap<u64, Rows<K, V>>, _, rows| {
            let mut rows = rows.drain(..).peekable();
            while let Some((row, tick, diff)) = rows.next() {
                let of_tick = pending.entry(tick).or_default();
                of_tick.push((row, diff));
                of_tick.extend(iter::from_fn(|| rows.next_if(|(_, at, _)| *at == tick)).map(|(r, _, d)| (r, d)));
            }
        },
        move |tick, rows| tick_output(&name, envelope, tick, rows, formats.as_ref()),
    );
}

impl End<'_> {
    /// Sends what goes to each partition to the worker that owns it, takes it there by tick, and hands the output of a tick
    /// on when the frontier has passed it. `called` is the name of the operator in reports.
    pub(super) fn gather<'s, D, P: 'static>(
        &self,
        called: &'static str,
        routed: StreamVec<'s, u64, D>,
        partition: impl Fn(&D) -> u32 + 'static,
        take: impl Fn(&mut BTreeMap<u64, P>, u64, &mut Vec<D>) + 'static,
        output_of: impl Fn(Tick, P) -> Result<TickOutput, OutputError> + 'static,
    ) where
        D: timely::ExchangeData,
    {
        self.durables.note_node(&routed, NodeKind::Output, &self.spec.name, None);
        let (queue, name) = (Rc::clone(&self.queue), self.spec.name.clone());
        queue.borrow_mut().upper = Some(0);
        let mut pending: BTreeMap<u64, P> = BTreeMap::new();
        let pact = Exchange::new(move |row: &D| u64::from(partition(row)));
        routed.sink(pact, &format!("Write({name})"), move |(input, frontier)| {
            let mut queue = queue.borrow_mut();
            input.for_each(|capability, rows: &mut Vec<D>| {
                if let Some(tick) = capability.least() {
                    take(&mut pending, *tick, rows);
                }
            });
            if queue.failed.is_some() {
                // The upper is not advanced any more, so that the failed tick never counts as complete.
                return;
            }
            let upper = frontier.frontier().first().copied();
            while let Some(entry) = pending.first_entry().filter(|e| upper.is_none_or(|u| *e.key() < u)) {
                let (tick, rows) = entry.remove_entry();
                tracing::trace!(target: STAGES, tick, output = name, "encode");
                let output = in_operator(called, || {
                    at_tick(tick);
                    output_of(Tick(tick), rows)
                });
                match output {
                    Ok(output) if output.partitions.is_empty() => {}
                    Ok(output) => queue.ready.push_back(output),
                    Err(error) => {
                        queue.failed = Some(error);
                        return;
                    }
                }
                tracing::trace!(target: STAGES, tick, output = name, "encoded");
            }
            queue.upper = upper;
        });
    }
}

/// Computes the output of a tick from its updates.
fn tick_output<F, K: Ord, V: Ord>(
    output: &str,
    envelope: Envelope,
    tick: Tick,
    mut rows: Rows<K, V>,
    formats: &F,
) -> Result<TickOutput, OutputError>
where
    F: Formats<Key: Encode<K>, Value: Encode<V>>,
{
    let (of_keys, of_values) = (formats.key(), formats.value());
    differential_dataflow::consolidation::consolidate(&mut rows);
    let fail = |source: BoxError| OutputError::Encode { output: output.to_owned(), input: described(), source };
    let two_rows = |key: &[u8]| OutputError::TwoRows { output: output.to_owned(), key: readable(key), tick };
    let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
    let mut partitions: BTreeMap<u32, OutputBlock> = BTreeMap::new();
    let mut rows = rows.into_iter().peekable();
    while let Some(((partition, key, value), diff)) = rows.next() {
        let into = partitions.entry(partition).or_default();
        key_bytes.clear();
        of_keys.encode(&key, &mut key_bytes).map_err(fail)?;
        let others = iter::from_fn(|| rows.next_if(|((p, k, _), _)| *p == partition && *k == key));
        let group = iter::once((value, diff)).chain(others.map(|((_, _, value), diff)| (value, diff)));
        match envelope {
            Envelope::Upsert => {
                let mut row = None;
                for (value, diff) in group.filter(|(_, diff)| *diff > 0) {
                    if diff > 1 || row.replace(value).is_some() {
                        return Err(two_rows(&key_bytes));
                    }
                }
                value_bytes.clear();
                if let Some(value) = &row {
                    of_values.encode(value, &mut value_bytes).map_err(fail)?;
                }
                into.push(&key_bytes, row.is_some().then_some(&value_bytes));
            }
            Envelope::Append | Envelope::StreamWritten => {
                for (value, diff) in group {
                    let Ok(times) = usize::try_from(diff) else {
                        let key = readable(&key_bytes);
                        return Err(OutputError::Retraction { output: output.to_owned(), key, tick });
                    };
                    value_bytes.clear();
                    of_values.encode(&value, &mut value_bytes).map_err(fail)?;
                    (0..times).for_each(|_| into.push(&key_bytes, Some(&value_bytes)));
                }
            }
        }
    }
    let partitions = partitions.into_iter().map(|(partition, block)| (partition, vec![block]));
    assemble(output, envelope, tick, partitions)
}

/// Puts the records of each partition of a tick into their order.
pub(super) fn assemble(
    output: &str,
    envelope: Envelope,
    tick: Tick,
    partitions: impl Iterator<Item = (u32, Vec<OutputBlock>)>,
) -> Result<TickOutput, OutputError> {
    let two_rows = |key: Vec<u8>| OutputError::TwoRows { output: output.to_owned(), key: readable(&key), tick };
    let partitions = partitions.map(|(partition, blocks)| match in_order(blocks, envelope) {
        Ok(block) => Ok((partition, TickRecords::new(block))),
        Err(key) => Err(two_rows(key)),
    });
    Ok(TickOutput { tick, partitions: partitions.collect::<Result<_, _>>()? })
}

fn readable(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_connector::OutputRecord;
    use fluvial_connector::format::{Format, Text};

    use super::*;

    fn row(key: &str, value: i64, diff: isize) -> (Routed<String, i64>, isize) {
        ((0, key.to_owned(), value), diff)
    }

    /// Writes keys without regard to case: two that differ may be written the same.
    struct Caseless;

    impl Format for Caseless {}

    impl Encode<String> for Caseless {
        fn encode(&self, key: &String, into: &mut Vec<u8>) -> Result<(), BoxError> {
            into.extend_from_slice(key.to_lowercase().as_bytes());
            Ok(())
        }
    }

    fn check(envelope: Envelope, rows: Rows<String, i64>, expected: Result<&[(&str, Option<&str>)], &str>) {
        let got = tick_output("out", envelope, Tick(5), rows, &(Caseless, Text));
        match (got, expected) {
            (Ok(output), Ok(expected)) => {
                let records = output.partitions.into_values().flat_map(|records| {
                    let records = records.into_block();
                    records.iter().map(|record| record.to_record()).collect::<Vec<_>>()
                });
                let records: Vec<_> = records.collect();
                let expected: Vec<_> = expected
                    .iter()
                    .map(|(k, v)| OutputRecord { key: k.as_bytes().to_vec(), value: v.map(|v| v.as_bytes().to_vec()) })
                    .collect();
                assert_eq!(records, expected);
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, _) => panic!("{:?}", got.map(|o| o.partitions)),
        }
    }

    #[test]
    fn an_upsert_says_what_a_key_has_become() {
        use Envelope::Upsert;
        check(Upsert, vec![row("a", 1, -1), row("a", 2, 1)], Ok(&[("a", Some("2"))]));
        check(Upsert, vec![row("a", 1, -1)], Ok(&[("a", None)]));
        check(Upsert, vec![row("b", 1, 1), row("a", 1, 1)], Ok(&[("a", Some("1")), ("b", Some("1"))]));
        check(Upsert, vec![row("a", 1, 1), row("a", 1, -1)], Ok(&[]));
        check(Upsert, vec![row("a", 1, 1), row("a", 2, 1)], Err("two rows for the key a at tick 5"));
        check(Upsert, vec![row("a", 1, 2)], Err("two rows"));
        check(Upsert, vec![row("a", 1, -1), row("A", 2, 1)], Ok(&[("a", Some("2"))]));
        check(Upsert, vec![row("A", 1, -1), row("a", 2, 1)], Ok(&[("a", Some("2"))]));
        check(Upsert, vec![row("A", 1, 1), row("a", 2, 1)], Err("two rows for the key a"));
    }

    #[test]
    fn an_append_output_refuses_a_retraction() {
        use Envelope::Append;
        check(
            Append,
            vec![row("a", 2, 1), row("a", 1, 2)],
            Ok(&[("a", Some("1")), ("a", Some("1")), ("a", Some("2"))]),
        );
        check(Append, vec![row("a", 1, -1)], Err("have to retract a record of key a"));
    }
}
