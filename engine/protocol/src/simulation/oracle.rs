//! What must be true at the end of every history.

use std::collections::BTreeMap;

use fluvial_connector::{Offset, OutputPartition, OutputRecord, Position, Tick};

use super::input::range_of;
use super::kafka::Body;
use super::worker::{record, unversioned};
use super::world::World;
use super::{Computes, OUTPUT, OUTPUT_PARTITIONS, Violation};
use crate::journal::{Entry, Nonce, Range};
use crate::rules::Rule;

/// Compares what a `read_committed` consumer sees with the function of everything that was ever journalled.
///
/// Up to the last reconciliation there may be more than one truth (what a logic that is gone had committed, corrections
/// that were begun twice), but the table that comes of it must be right.
pub(super) fn check(world: &World) -> Result<(), Violation> {
    let (reconciled, version) = world.reconciled();
    if world.computes == Computes::Stream {
        return check_stream(world, reconciled, version);
    }
    let compacts = world.input.compacts();
    for (partition, expected) in expected(world)?.into_iter().enumerate() {
        let found = world.kafka.read(partition, 0, usize::MAX).filter_map(|(offset, body)| match body {
            Body::Record(record) => Some((offset, record.clone())),
            _ => None,
        });
        let mut found: Vec<(Offset, OutputRecord)> = found.collect();
        let before = expected.iter().filter(|row| row.tick <= reconciled).count();
        let (settled, later) = expected.split_at(before);
        if found.len() < later.len() || reconciled == Tick(0) && found.len() != later.len() {
            return Err(Violation(format!("partition {partition} has {found:?}\nand should have {later:?}")));
        }
        let found_later = found.split_off(found.len() - later.len());
        let same = |((_, found), row): (&(Offset, OutputRecord), &Row)| *found == record(row.key, row.count, version);
        if !found_later.iter().zip(later).all(same) {
            return Err(Violation(format!("partition {partition} has {found_later:?}\nand should have {later:?}")));
        }
        let mut table: BTreeMap<Vec<u8>, OutputRecord> = found.into_iter().map(|(_, r)| (r.key.clone(), r)).collect();
        table.retain(|_, record| record.value.is_some());
        let mut wanted: BTreeMap<Vec<u8>, OutputRecord> =
            settled.iter().map(|row| (vec![row.key], record(row.key, row.count, version))).collect();
        if compacts {
            // What is superseded later may be gone already when it is read again.
            let is_final = |key: &Vec<u8>| later.iter().all(|row| [row.key] != key[..]);
            table.retain(|key, _| is_final(key));
            wanted.retain(|key, _| is_final(key));
        }
        if table != wanted {
            return Err(Violation(format!(
                "partition {partition}, reconciled at {reconciled}: {table:?}\nand should be {wanted:?}, before {found_later:?}"
            )));
        }
        check_progress(world, partition, &found_later, later)?;
    }
    Ok(())
}

/// Compares each record of an output that nobody corrects: there is one for each that the ticks of the journal make, in their
/// order. Up to the last reconciliation any version of the logic may have written them.
fn check_stream(world: &World, reconciled: Tick, version: u64) -> Result<(), Violation> {
    for (partition, expected) in expected(world)?.into_iter().enumerate() {
        let found = world.kafka.read(partition, 0, usize::MAX).filter_map(|(offset, body)| match body {
            Body::Record(record) => Some((offset, record.clone())),
            _ => None,
        });
        let found: Vec<(Offset, OutputRecord)> = found.collect();
        let same = |((_, found), row): (&(Offset, OutputRecord), &Row)| {
            let wanted = record(row.key, row.count, version);
            *found == wanted || row.tick < reconciled && unversioned(found) == unversioned(&wanted)
        };
        if found.len() != expected.len() || !found.iter().zip(&expected).all(same) {
            return Err(Violation(format!(
                "partition {partition}, reconciled at {reconciled}, has {found:?}\nand should have {expected:?}"
            )));
        }
        check_progress(world, partition, &found, &expected)?;
    }
    Ok(())
}

/// A row of the output.
#[derive(Clone, Debug)]
struct Row {
    tick: Tick,
    key: u8,
    count: u64,
}

/// Each output partition's records with their ticks.
fn expected(world: &World) -> Result<Vec<Vec<Row>>, Violation> {
    let mut splits = BTreeMap::new();
    let mut counts: BTreeMap<u8, u64> = BTreeMap::new();
    let mut outputs = vec![Vec::new(); OUTPUT_PARTITIONS];
    let mut last = Tick(0);
    let stream = world.computes == Computes::Stream;
    // What was read, counted and written through each tick, for a job that goes back.
    let mut through = BTreeMap::new();
    let mut went_back = None;
    let entries = world.store.all.values().flat_map(|record| record.entries.iter().map(|entry| (record.nonce, entry)));
    for (nonce, entry) in entries {
        match entry {
            Entry::SplitStarted(start) => {
                splits.entry(start.number).or_insert((start.clone(), start.offset));
            }
            Entry::Binding(binding) => {
                if binding.tick <= last {
                    return Err(Violation(format!("the journal binds tick {} after tick {last}", binding.tick)));
                }
                last = binding.tick;
                let mut changed: BTreeMap<u8, u64> = BTreeMap::new();
                for range in &binding.ranges {
                    let Some((_, position)) = splits.get_mut(&range.split) else {
                        return Err(Violation(format!("{range:?} is of no split")));
                    };
                    if *position != range.from {
                        return Err(Violation(format!("{range:?} does not begin at {position}")));
                    }
                    *position = range.to;
                    for (offset, key) in delivered(world, nonce, range)? {
                        let counts = if stream { &mut changed } else { &mut counts };
                        let count = counts.entry(key).or_default();
                        *count = world.input.both(*count, world.input.value(offset));
                        let count = *count;
                        changed.insert(key, count);
                    }
                }
                for (key, count) in changed {
                    outputs[key as usize % OUTPUT_PARTITIONS].push(Row { tick: binding.tick, key, count });
                }
                through.insert(binding.tick, (splits.clone(), counts.clone(), outputs.clone()));
            }
            Entry::Checkpoint { manifest, .. } => {
                let Some(by) = world.store.gone_back.get(manifest) else { continue };
                let Some(tick) = by.gone_back_to else { continue };
                // A generation that was paused before it opened may carry out an earlier request after a later one.
                if went_back.replace(by.went_back) == Some(by.went_back) {
                    return Err(Violation(format!("{manifest} goes back by request {:?} a second time", by.went_back)));
                }
                let Some((splits_then, counts_then, outputs_then)) = through.get(&tick) else {
                    return Err(Violation(format!("{manifest} goes back to tick {tick}, which was never bound")));
                };
                // Splits that were met later are read from their beginnings.
                for (number, (start, position)) in &mut splits {
                    *position = splits_then.get(number).map_or(start.offset, |(_, then)| *then);
                }
                counts.clone_from(counts_then);
                outputs.clone_from(outputs_then);
                // A savepoint of this checkpoint has the restored state.
                through.insert(by.tick, (splits.clone(), counts.clone(), outputs.clone()));
            }
            _ => {}
        }
    }
    let unread = splits.values().find(|(start, position)| !world.input.is_read(start, *position));
    match unread {
        Some((start, position)) => Err(Violation(format!("{start:?} was read only up to {position}"))),
        None if splits.len() != world.input.splits() => Err(Violation("a split was never met".to_owned())),
        None => Ok(outputs),
    }
}

/// What the generation that bound a range had read of it.
fn delivered(world: &World, nonce: Nonce, range: &Range) -> Result<Vec<(u64, u8)>, Violation> {
    let generation = world.generations.iter().find(|generation| generation.nonce == nonce);
    let records = generation.map(|generation| generation.mesh.delivered(range)).unwrap_or_default();
    if range_of(range.split, range.from, range.to, &records) != *range {
        return Err(Violation(format!("range {range:?} was bound where {records:?} had been read")));
    }
    Ok(records)
}

/// Progress names the tick of every record, and ends behind the last one.
fn check_progress(
    world: &World,
    partition: usize,
    found: &[(Offset, OutputRecord)],
    rows: &[Row],
) -> Result<(), Violation> {
    let at = OutputPartition { output: OUTPUT.to_owned(), partition: partition as u32 };
    let mut ends: BTreeMap<Offset, Tick> = BTreeMap::new();
    for (_, progress) in world.all_progress().into_iter().filter(|(of, _)| *of == at) {
        ends.extend(progress.ticks.iter().map(|end| (end.end, end.tick)));
    }
    for ((offset, _), Row { tick, .. }) in found.iter().zip(rows) {
        let named = ends.range(Offset(offset.0 + 1)..).next().map(|(_, tick)| *tick);
        if named != Some(*tick) && world.rules.has(Rule::ProgressAfterRecords) {
            let what = format!("{at} offset {offset} is of tick {tick}; progress says {named:?} in {ends:?}");
            return Err(Violation(what));
        }
    }
    let progress = world.progress();
    let last = (found.last().map_or(Offset(0), |(offset, _)| Offset(offset.0 + 1)), rows.last().map(|row| &row.tick));
    match progress.get(&at) {
        Some(p) if p.end >= last.0 && Some(&p.tick) >= last.1 && p.position == Position::Complete => Ok(()),
        other => Err(Violation(format!("the progress of {at} is {other:?} at the end, behind {last:?}"))),
    }
}
