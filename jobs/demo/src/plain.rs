//! A plain consumer, as anybody would write it: librdkafka's, `read_committed`, nothing of the engine's.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, bail};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

/// How long a broker on this machine may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// A consumer of all partitions of a topic from their beginning. Where a partition ends is told as an error,
/// `PartitionEOF`.
pub(crate) fn consumer(brokers: &str, topic: &str, partitions: u32) -> anyhow::Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "demo").set("enable.auto.commit", "false");
    config.set("isolation.level", "read_committed").set("enable.partition.eof", "true");
    // With their defaults a full queue stops the fetching for a second, and an end is told after half of one.
    config.set("fetch.queue.backoff.ms", "5").set("fetch.wait.max.ms", "50");
    let consumer: BaseConsumer = config.create().context("cannot create a consumer")?;
    // Assigned without it, partitions wait until the next time when leaders are looked for.
    consumer.fetch_metadata(Some(topic), SILENCE).with_context(|| format!("cannot find topic '{topic}'"))?;
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition as i32, Offset::Beginning)?;
    }
    consumer.assign(&all).with_context(|| format!("cannot read topic '{topic}'"))?;
    Ok(consumer)
}

/// Reads all that a topic holds, and says how many records that are.
pub(crate) fn read_all(
    brokers: &str,
    topic: &str,
    partitions: u32,
    mut each: impl FnMut(Option<&[u8]>, Option<&[u8]>) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let consumer = consumer(brokers, topic, partitions)?;
    let mut open: BTreeSet<_> = (0..partitions as i32).collect();
    let mut count = 0;
    while !open.is_empty() {
        match consumer.poll(SILENCE) {
            Some(Ok(message)) => {
                each(message.key(), message.payload())?;
                count += 1;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(Err(error)) => return Err(error).with_context(|| format!("cannot read topic '{topic}' back")),
            None => bail!("topic '{topic}' cannot be read back: the broker has been silent for {SILENCE:?}"),
        }
    }
    Ok(count)
}
