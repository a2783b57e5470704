//! Records that are encoded where they are made, and travel as blocks to the workers that own their partitions: the changes of
//! a durable operator, and the records of a stream.

use std::collections::BTreeMap;
use std::rc::Rc;

use fluvial_connector::format::{Encode, Formats};
use fluvial_connector::{OutputBlock, Tick};
use fluvial_protocol::TickRecords;
use serde::{Deserialize, Serialize};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use super::order::in_order_of_origin;
use super::output::{End, OutputError, TickOutput, assemble};
use crate::stream::context::{at_record, at_tick, described, in_operator, lasting};
use crate::stream::{Changes, Stream};

/// Collects changes. They are encoded where they are made, and travel as blocks.
pub(crate) fn collect_changes<K, V, F>(changes: Changes<'_, K, V>, end: End<'_>, formats: F)
where
    F: Formats<Key: Encode<K>, Value: Encode<V>>,
    K: 'static,
    V: 'static,
{
    let (name, envelope) = (end.spec.name.clone(), end.spec.envelope);
    let called = lasting(format!("write to {name}"));
    let encoded = end.encode(called, changes.into_inner(), formats, |(key, value)| ((), key, value));
    end.gather_blocks(called, encoded, move |tick, partitions| {
        let records = partitions
            .into_iter()
            .map(|(partition, blocks)| (partition, blocks.into_iter().map(|encoded| encoded.records).collect()));
        assemble(&name, envelope, tick, records)
    });
}

/// Collects the records of a stream. They are encoded where they are, and travel as blocks, with their origins.
pub(crate) fn collect_stream<D, K, V, F>(
    stream: Stream<'_, D>,
    end: End<'_>,
    formats: F,
    parts: impl Fn(D) -> (K, Option<V>) + 'static,
) where
    F: Formats<Key: Encode<K>, Value: Encode<V>>,
    D: 'static,
    K: 'static,
    V: 'static,
{
    let (name, envelope) = (end.spec.name.clone(), end.spec.envelope);
    let called = lasting(format!("write to {name}"));
    let encoded = end.encode(called, stream.into_parts().0, formats, move |(record, origin)| {
        at_record(origin);
        let (key, value) = parts(record);
        (origin, key, value)
    });
    end.gather_blocks(called, encoded, move |tick, partitions| {
        let records = partitions.into_iter().map(|(partition, blocks)| {
            let blocks = blocks.into_iter().map(|Encoded { records, places, .. }| (records, places)).collect();
            (partition, TickRecords::new(in_order_of_origin(blocks, envelope)))
        });
        Ok(TickOutput { tick, partitions: records.collect() })
    });
}

/// Encoded records of one partition, on their way to the partition's owner.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Encoded<P> {
    partition: u32,
    records: OutputBlock,
    /// What the order of the records is made from, besides their bytes: for each of them its place.
    places: Vec<P>,
}

/// The encoded records of a tick, by partition.
type ByPartition<P> = BTreeMap<u32, Vec<Encoded<P>>>;

impl End<'_> {
    /// Sends blocks to the owners of their partitions, and hands the output of a tick on when the tick is over.
    fn gather_blocks<'s, P: timely::ExchangeData>(
        &self,
        called: &'static str,
        encoded: StreamVec<'s, u64, Encoded<P>>,
        output_of: impl Fn(Tick, ByPartition<P>) -> Result<TickOutput, OutputError> + 'static,
    ) {
        self.gather(
            called,
            encoded,
            |block| block.partition,
            |pending: &mut BTreeMap<u64, ByPartition<P>>, tick, blocks| {
                let of_tick = pending.entry(tick).or_default();
                blocks.drain(..).for_each(|block| of_tick.entry(block.partition).or_default().push(block));
            },
            output_of,
        );
    }

    /// Encodes records where they are. `parts` takes a record apart into its place, its key and its value. The first record
    /// that cannot be encoded ends the job. `called` is the name of the operator in reports.
    fn encode<'s, D, P, K, V, F>(
        &self,
        called: &'static str,
        records: StreamVec<'s, u64, D>,
        formats: F,
        parts: impl Fn(D) -> (P, K, Option<V>) + 'static,
    ) -> StreamVec<'s, u64, Encoded<P>>
    where
        F: Formats<Key: Encode<K>, Value: Encode<V>>,
        D: 'static,
        P: 'static,
    {
        let Self { spec, partitions, skip_through, queue, .. } = self;
        let (partition_of, output_name) = (spec.partition_of, spec.name.clone());
        let (partitions, skip_through, queue) = (*partitions, *skip_through, Rc::clone(queue));
        let (mut key_bytes, mut value_bytes) = (Vec::new(), Vec::new());
        let mut blocks: BTreeMap<u32, Encoded<P>> = BTreeMap::new();
        // What could not be encoded holds back its tick, so that nobody takes the tick as complete.
        let mut held = None;
        records.unary::<CapacityContainerBuilder<Vec<Encoded<P>>>, _, _, _>(Pipeline, "Encode", move |_, _| {
            move |input, output| {
                input.for_each(|capability, batch: &mut Vec<D>| {
                    let Some(tick) = capability.least().copied() else { return };
                    if held.is_some() || skip_through.is_some_and(|through| tick <= through) {
                        return batch.clear();
                    }
                    let encoded = in_operator(called, || {
                        at_tick(tick);
                        let encoded = batch.drain(..).try_for_each(|record| {
                            let (place, key, value) = parts(record);
                            key_bytes.clear();
                            formats.key().encode(&key, &mut key_bytes)?;
                            let partition = partition_of(&key_bytes, partitions);
                            let empty = || Encoded { partition, records: OutputBlock::default(), places: Vec::new() };
                            let block = blocks.entry(partition).or_insert_with(empty);
                            // Each value is encoded into a buffer of its own: a format might do more to it than append.
                            value_bytes.clear();
                            if let Some(value) = &value {
                                formats.value().encode(value, &mut value_bytes)?;
                            }
                            block.records.push(&key_bytes, value.is_some().then_some(&value_bytes));
                            block.places.push(place);
                            Ok(())
                        });
                        encoded.map_err(|source| OutputError::Encode {
                            output: output_name.clone(),
                            input: described(),
                            source,
                        })
                    });
                    if let Err(error) = encoded {
                        queue.borrow_mut().failed = Some(error);
                        held = capability.retain_least(0);
                        return;
                    }
                    output.session(&capability).give_iterator(std::mem::take(&mut blocks).into_values());
                });
            }
        })
    }
}
