//! What a job has emitted, tick by tick, and whether it is what it must be.
//!
//! A history comes from three sides that share no code: what a `read_committed` consumer sees in the output topics with
//! their `fluvial-tick` headers, what the job's own `replay` prints, and what a naive model of the job gives for the
//! input that the journal binds to each tick.

mod compare;
mod invariants;
mod models;
mod partitioner;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::client::{Endpoint, Isolation, PATIENCE, Seen};
use crate::journal::Journal;

pub use compare::{Difference, Verdict, compare};
pub use invariants::{Balances, bank_is_consistent, cut_at_each_tick};
pub use models::{Bank, Model, Orders};
pub use partitioner::partition_of;

/// A record of an output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Emitted {
    /// The output topic.
    pub output: String,
    /// The partition.
    pub partition: i32,
    /// The tick.
    pub tick: u64,
    /// The key.
    pub key: String,
    /// The value; none deletes the key.
    pub value: Option<String>,
}

/// Records, those of one partition in their order.
pub type History = Vec<Emitted>;

/// What a `read_committed` consumer sees in these topics.
///
/// # Errors
/// They cannot be read, or a record has no tick.
pub fn seen_in_topics(broker: &Endpoint, outputs: &[String]) -> Result<History> {
    let mut history = Vec::new();
    for output in outputs {
        for record in broker.read(output, Isolation::Committed)? {
            let tick = record.header("fluvial-tick").and_then(|tick| tick.parse().ok());
            let tick = tick.with_context(|| format!("{output}: {} has no header fluvial-tick", record.line()))?;
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).context("a key or value is no text");
            let (key, value) = (text(record.key.unwrap_or_default())?, record.value.map(text).transpose()?);
            history.push(Emitted { output: output.clone(), partition: record.partition, tick, key, value });
        }
    }
    Ok(history)
}

/// What `fluvial-kafka`'s reader of consistent cuts gives, which takes the ticks from the progress topic and not from
/// headers.
///
/// # Errors
/// The topics cannot be read, or are not read to their ends in a minute.
pub fn seen_in_cuts(broker: &Endpoint, job: &str, outputs: &[String]) -> Result<History> {
    let kafka = fluvial_kafka::KafkaOptions::new(broker.bootstrap()).connect()?;
    let mut reader = kafka.cuts(job, outputs.iter().map(String::as_str), PATIENCE)?;
    let (mut history, start) = (Vec::new(), Instant::now());
    while !reader.caught_up() {
        anyhow::ensure!(start.elapsed() < PATIENCE * 2, "the reader of consistent cuts does not catch up");
        while let Some(cut) = reader.next_cut(Duration::from_millis(200))? {
            for record in cut.records {
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).context("a key or value is no text");
                history.push(Emitted {
                    output: record.topic.to_string(),
                    partition: i32::try_from(record.partition)?,
                    tick: cut.tick.0,
                    key: text(record.key.unwrap_or_default())?,
                    value: record.value.map(text).transpose()?,
                });
            }
        }
    }
    Ok(history)
}

/// What `replay` has printed.
///
/// # Errors
/// A line is not understood.
pub fn printed_by_replay(text: &str) -> Result<History> {
    let line = |line: &str| serde_json::from_str(line).with_context(|| format!("replay printed {line}"));
    text.lines().map(line).collect()
}

/// What the model gives for the journal's ticks over `input`, the committed records of the input topic; the outputs'
/// partition counts are given by their names.
///
/// # Errors
/// The journal's ranges do not hold as many records as it says.
pub fn given_by_model(
    model: &mut dyn Model,
    journal: &Journal,
    input: &[Seen],
    partitions: &BTreeMap<String, i32>,
) -> Result<History> {
    let mut by_place: BTreeMap<i32, BTreeMap<i64, &Seen>> = BTreeMap::new();
    for record in input {
        by_place.entry(record.partition).or_default().insert(record.offset, record);
    }
    let nothing = BTreeMap::new();
    let mut history = Vec::new();
    for tick in &journal.ticks {
        for range in &tick.ranges {
            let records = by_place.get(&range.partition).unwrap_or(&nothing).range(range.from..range.to);
            let mut count = 0;
            for (_, record) in records {
                model.take(record).with_context(|| format!("take {}", record.line()))?;
                count += 1;
            }
            let says = format!("tick {} binds {} records of {range:?}", tick.tick, range.count);
            anyhow::ensure!(count == range.count, "{says}; a read_committed consumer sees {count} there");
        }
        let mut of_tick: History = Vec::new();
        for (output, key, value) in model.end_tick() {
            let count = partitions.get(&output).with_context(|| format!("no output {output}"))?;
            let partition = partition_of(key.as_bytes(), *count);
            of_tick.push(Emitted { output, partition, tick: tick.tick, key, value });
        }
        // Output of a tick goes to a partition in key order.
        of_tick.sort();
        history.extend(of_tick);
    }
    Ok(history)
}
