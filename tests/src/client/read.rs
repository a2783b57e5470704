//! Reading topics whole.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message as _};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use super::{Endpoint, PATIENCE};

/// Which records a consumer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Those of committed transactions, up to the last stable offset.
    Committed,
    /// All.
    Uncommitted,
}

impl Isolation {
    /// The value of librdkafka's `isolation.level`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Committed => "read_committed",
            Self::Uncommitted => "read_uncommitted",
        }
    }
}

/// A record as a consumer has seen it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its timestamp in milliseconds since the Unix epoch.
    pub timestamp_ms: Option<i64>,
}

impl Seen {
    /// `partition/offset key=value`, for comparing and for reading.
    #[must_use]
    pub fn line(&self) -> String {
        let text = |bytes: &Option<Vec<u8>>| match bytes {
            Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            None => "null".to_owned(),
        };
        format!("{}/{} {}={}", self.partition, self.offset, text(&self.key), text(&self.value))
    }

    /// The header `name` as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let value = self.headers.iter().find(|(key, _)| key == name)?.1.as_ref()?;
        String::from_utf8(value.clone()).ok()
    }
}

impl Endpoint {
    /// All records of a topic, by partition and offset, from its first to what the isolation level shows as its end
    /// when the reader gets there.
    ///
    /// # Errors
    /// The topic does not exist, or its end is not reached in a minute.
    pub fn read(&self, topic: &str, isolation: Isolation) -> Result<Vec<Seen>> {
        let partitions = self.partitions(topic)?;
        if partitions == 0 {
            bail!("read topic {topic}: it does not exist");
        }
        let starts = (0..partitions).map(|partition| (partition, Offset::Beginning));
        self.read_from(topic, isolation, &starts.collect::<Vec<_>>())
    }

    /// As [`Endpoint::read`], for these partitions and from these offsets on.
    ///
    /// # Errors
    /// As [`Endpoint::read`], and an offset that is gone.
    pub fn read_from(&self, topic: &str, isolation: Isolation, from: &[(i32, Offset)]) -> Result<Vec<Seen>> {
        let consumer = self.reader(isolation)?;
        let mut assignment = TopicPartitionList::new();
        for (partition, offset) in from {
            assignment.add_partition_offset(topic, *partition, *offset)?;
        }
        consumer.assign(&assignment)?;
        let mut open: BTreeSet<i32> = from.iter().map(|(partition, _)| *partition).collect();
        let mut seen = Vec::new();
        let mut moved = Instant::now();
        while !open.is_empty() {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    moved = Instant::now();
                    let headers = message.headers().map(|headers| {
                        let all = headers.iter();
                        all.map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
                    });
                    seen.push(Seen {
                        partition: message.partition(),
                        offset: message.offset(),
                        key: message.key().map(<[u8]>::to_vec),
                        value: message.payload().map(<[u8]>::to_vec),
                        headers: headers.unwrap_or_default(),
                        timestamp_ms: message.timestamp().to_millis(),
                    });
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                // librdkafka goes on by itself; what is final is that the end is not reached in time.
                Some(Err(error)) if is_an_outage(&error) && moved.elapsed() <= PATIENCE * 2 => {}
                Some(Err(error)) => return Err(error).with_context(|| format!("read topic {topic}")),
                None if moved.elapsed() > PATIENCE * 2 => {
                    bail!("read topic {topic}: the ends of partitions {open:?} are not reached")
                }
                None => {}
            }
        }
        seen.sort_by_key(|record| (record.partition, record.offset));
        Ok(seen)
    }

    /// The records of a topic as lines; see [`Seen::line`].
    ///
    /// # Errors
    /// As [`Endpoint::read`].
    pub fn lines(&self, topic: &str, isolation: Isolation) -> Result<Vec<String>> {
        Ok(self.read(topic, isolation)?.iter().map(Seen::line).collect())
    }

    /// Waits until no transaction is open in any partition of the topic. A commit has happened when the call returns;
    /// the broker writes the markers that show it a little later.
    ///
    /// # Errors
    /// One is still open after a minute.
    pub fn settle(&self, topic: &str) -> Result<()> {
        let (stable, all) = (self.reader(Isolation::Committed)?, self.reader(Isolation::Uncommitted)?);
        let start = Instant::now();
        for partition in 0..self.partitions(topic)? {
            loop {
                // In this order: what is written in between must not look like an open transaction for ever, nor an
                // open one like none.
                let (_, end) = all.fetch_watermarks(topic, partition, PATIENCE)?;
                let (_, stable) = stable.fetch_watermarks(topic, partition, PATIENCE)?;
                if stable >= end {
                    break;
                }
                if start.elapsed() > PATIENCE * 2 {
                    bail!("partition {partition} of {topic} is stable up to {stable} only, its end is {end}");
                }
            }
        }
        Ok(())
    }

    /// The first and the end offset of a partition: the end of what the isolation level shows.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub fn watermarks(&self, topic: &str, partition: i32, isolation: Isolation) -> Result<(i64, i64)> {
        let consumer = self.reader(isolation)?;
        consumer.fetch_watermarks(topic, partition, PATIENCE).with_context(|| format!("watermarks of {topic}"))
    }

    /// The offset that a group has committed in a partition, if it has.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Result<Option<i64>> {
        let consumer: BaseConsumer = self.config().set("group.id", group).create().context("create a consumer")?;
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let committed = consumer.committed_offsets(list, PATIENCE).with_context(|| format!("offsets of {group}"))?;
        Ok(committed.elements().first().and_then(|element| match element.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }))
    }

    /// A consumer that reports the ends of partitions and refuses offsets that are gone, for manual assignment.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn reader(&self, isolation: Isolation) -> Result<BaseConsumer> {
        let mut config = self.config();
        config.set("isolation.level", isolation.name()).set("enable.partition.eof", "true");
        config.set("group.id", "a-reader-without-a-group").set("enable.auto.commit", "false");
        config.set("auto.offset.reset", "error").set("fetch.queue.backoff.ms", "5");
        // The end of an empty partition is told only when a fetch has waited for so long.
        config.set("fetch.wait.max.ms", "20");
        config.create().context("create a consumer")
    }
}

fn is_an_outage(error: &KafkaError) -> bool {
    let codes = [RDKafkaErrorCode::BrokerTransportFailure, RDKafkaErrorCode::AllBrokersDown];
    error.rdkafka_error_code().is_some_and(|code| codes.contains(&code))
}
