//! The end of the dataflow: what a tick's output is, per output partition.
//!
//! ```text
//!  collection ──key's bytes, partition──► exchange to the partition's owner ──► per tick: consolidate, encode, sort
//!                                                                                   └──► OutputQueue ──► committer
//! ```
//!
//! A tick's output leaves here once, when the frontier has passed the tick, in the order (partition, key, value). The
//! operator does not know what is sealed or committed.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::{Data, ExchangeData, VecCollection};
use fluvial_connector::format::Encode;
use fluvial_connector::{Envelope, OutputRecord, OutputSpec, Tick};
use timely::dataflow::channels::pact::Exchange;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::Map;

use super::ambient;
use super::panics::{in_operator, lasting};
use super::stages::STAGES;

/// The complete output of one tick for the partitions of one output that this worker owns.
pub(crate) struct TickOutput {
    /// The tick.
    pub(crate) tick: Tick,
    /// The records of each partition that has any, in their order.
    pub(crate) partitions: BTreeMap<u32, Vec<OutputRecord>>,
}

/// Where an output's operator leaves what is complete.
#[derive(Default)]
pub(crate) struct OutputQueue {
    /// Complete ticks, ascending; a tick without output is not among them.
    pub(crate) ready: VecDeque<TickOutput>,
    /// All ticks before this one are complete; `None` when the dataflow has ended.
    pub(crate) upper: Option<u64>,
    /// Why there is nothing more to come.
    pub(crate) failed: Option<OutputError>,
}

/// Why a tick's output cannot be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// An upsert output has one row for a key, at most.
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
    /// An append output cannot take back what it has written.
    #[error(
        "output '{output}' would have to take back a record of key {key} at tick {tick}: an append output cannot; write it with the upsert envelope"
    )]
    Retraction {
        /// The output.
        output: String,
        /// The key as text, or its bytes.
        key: String,
        /// The tick.
        tick: Tick,
    },
    /// The row cannot be expressed in the output's format.
    #[error("a row of output '{output}' cannot be encoded")]
    Encode {
        /// The output.
        output: String,
        /// What the encoder said.
        #[source]
        source: fluvial_connector::BoxError,
    },
}

/// A row on its way to its partition's owner: partition, key's bytes, value.
type Routed<V> = (u32, Result<Vec<u8>, String>, Option<V>);

/// Ends `collection` in `queue`. Updates at or before `skip_through` are restored state, which is out already.
pub(crate) fn collect<'s, K, V>(
    collection: VecCollection<'s, u64, (K, V), isize>,
    spec: &OutputSpec,
    partitions: u32,
    encode: impl Encode<K, V>,
    skip_through: Option<u64>,
    queue: Rc<RefCell<OutputQueue>>,
) where
    K: Data,
    V: ExchangeData,
{
    let encode = Arc::new(encode);
    let (partition_of, name, envelope) = (spec.partition_of, spec.name.clone(), spec.envelope);
    queue.borrow_mut().upper = Some(0);
    let called = lasting(format!("write to {name}"));
    let encode_key = Arc::clone(&encode);
    let routed = collection.inner.flat_map(move |((key, value), tick, diff)| {
        if skip_through.is_some_and(|through| tick <= through) {
            return None;
        }
        let mut bytes = Vec::new();
        let routed: Routed<V> = match in_operator(called, || encode_key.key(&key, &mut bytes)) {
            Ok(()) => (partition_of(&bytes, partitions), Ok(bytes), Some(value)),
            Err(error) => (0, Err(error.to_string()), None),
        };
        Some((routed, tick, diff))
    });
    let mut pending: BTreeMap<u64, Vec<(Routed<V>, isize)>> = BTreeMap::new();
    routed.sink(
        Exchange::new(|((partition, ..), ..): &(Routed<V>, u64, isize)| u64::from(*partition)),
        &format!("Write({name})"),
        move |(input, frontier)| {
            let mut queue = queue.borrow_mut();
            input.for_each(|_, rows: &mut Vec<(Routed<V>, u64, isize)>| {
                for (row, tick, diff) in rows.drain(..) {
                    pending.entry(tick).or_default().push((row, diff));
                }
            });
            if queue.failed.is_some() {
                // The upper stays where it is: what has failed is never complete.
                return;
            }
            let upper = frontier.frontier().first().copied();
            while let Some(entry) = pending.first_entry().filter(|e| upper.is_none_or(|u| *e.key() < u)) {
                let (tick, rows) = entry.remove_entry();
                let began = ambient::instant();
                let output = in_operator(called, || tick_output(&name, envelope, Tick(tick), rows, encode.as_ref()));
                let took_us = began.elapsed().as_micros() as u64;
                tracing::trace!(target: STAGES, tick, took_us, output = name, "encoded");
                match output {
                    Ok(output) if output.partitions.is_empty() => {}
                    Ok(output) => queue.ready.push_back(output),
                    Err(error) => {
                        queue.failed = Some(error);
                        return;
                    }
                }
            }
            queue.upper = upper;
        },
    );
}

/// What a tick's updates come to.
fn tick_output<K, V: Ord>(
    output: &str,
    envelope: Envelope,
    tick: Tick,
    mut rows: Vec<(Routed<V>, isize)>,
    encode: &impl Encode<K, V>,
) -> Result<TickOutput, OutputError> {
    differential_dataflow::consolidation::consolidate(&mut rows);
    let mut partitions: BTreeMap<u32, Vec<OutputRecord>> = BTreeMap::new();
    let mut rows = rows.into_iter().peekable();
    while let Some(((partition, key, value), diff)) = rows.next() {
        let fail = |source: fluvial_connector::BoxError| OutputError::Encode { output: output.to_owned(), source };
        let key = key.map_err(|error| fail(error.into()))?;
        let mut group = vec![(value, diff)];
        while let Some(((_, _, value), diff)) = rows.next_if(|((p, k, _), _)| *p == partition && k.as_ref() == Ok(&key))
        {
            group.push((value, diff));
        }
        let into = partitions.entry(partition).or_default();
        let encoded = |value: Option<V>| match value {
            None => Ok(None),
            Some(value) => {
                let mut bytes = Vec::new();
                encode.value(&value, &mut bytes).map_err(fail)?;
                Ok(Some(bytes))
            }
        };
        match envelope {
            Envelope::Upsert => {
                let mut now = group.into_iter().filter(|(_, diff)| *diff > 0);
                let row = now.next();
                if now.next().is_some() || row.as_ref().is_some_and(|(_, diff)| *diff > 1) {
                    return Err(OutputError::TwoRows { output: output.to_owned(), key: readable(&key), tick });
                }
                let value = encoded(row.and_then(|(value, _)| value))?;
                into.push(OutputRecord { key, value });
            }
            Envelope::Append => {
                let begun = into.len();
                for (value, diff) in group {
                    let Ok(times) = usize::try_from(diff) else {
                        return Err(OutputError::Retraction { output: output.to_owned(), key: readable(&key), tick });
                    };
                    let value = encoded(value)?;
                    into.extend(std::iter::repeat_n(OutputRecord { key: key.clone(), value }, times));
                }
                // Keys come in order; of one key's rows the bytes decide, which need not be in the order of the values.
                into[begun..].sort();
            }
        }
    }
    Ok(TickOutput { tick, partitions })
}

fn readable(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_connector::format::json::Json;

    use super::*;

    type Rows = Vec<(Routed<i64>, isize)>;

    fn row(key: &str, value: i64, diff: isize) -> (Routed<i64>, isize) {
        ((0, Ok(key.as_bytes().to_vec()), Some(value)), diff)
    }

    fn check(envelope: Envelope, rows: Rows, expected: Result<&[(&str, Option<&str>)], &str>) {
        let got = tick_output::<String, i64>("out", envelope, Tick(5), rows, &Json);
        match (got, expected) {
            (Ok(output), Ok(expected)) => {
                let records: Vec<_> = output.partitions.into_values().flatten().collect();
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
    }

    #[test]
    fn an_append_output_refuses_to_take_back() {
        use Envelope::Append;
        check(
            Append,
            vec![row("a", 2, 1), row("a", 1, 2)],
            Ok(&[("a", Some("1")), ("a", Some("1")), ("a", Some("2"))]),
        );
        check(Append, vec![row("a", 1, -1)], Err("take back"));
    }
}
