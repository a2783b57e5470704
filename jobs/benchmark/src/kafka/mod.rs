//! The broker of a measurement, what is fed into it, and who reads its output.

pub(crate) mod feed;
pub(crate) mod payment;
pub(crate) mod view;

use std::time::Duration;

use anyhow::{Context, Result};
use fluvial_kafka_apache::{ApacheKafka, Options};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

/// How many partitions each topic has.
pub(crate) const PARTITIONS: u32 = 4;
/// The input topic.
pub(crate) const INPUT: &str = "payments";

/// How long the broker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts Apache Kafka; a topic is made when it is first asked for.
pub(crate) fn start() -> Result<ApacheKafka> {
    start_with(PARTITIONS, Options::default())
}

/// As [`start`], with so many partitions for each topic that is made.
pub(crate) fn start_with_partitions(partitions: u32) -> Result<ApacheKafka> {
    start_with(partitions, Options::default())
}

/// As [`start`], with three brokers.
pub(crate) fn start_three() -> Result<ApacheKafka> {
    start_with(PARTITIONS, Options { brokers: 3, heap_mib: 512, ..Options::default() })
}

/// As [`start`], with TLS and SASL besides.
pub(crate) fn start_secured() -> Result<ApacheKafka> {
    start_with(PARTITIONS, Options { secured: true, ..Options::default() })
}

fn start_with(partitions: u32, options: Options) -> Result<ApacheKafka> {
    eprintln!("  starting Apache Kafka");
    let properties = [("num.partitions", partitions.to_string()), ("auto.create.topics.enable", "true".to_owned())];
    let properties = properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    ApacheKafka::start(&Options { properties, ..options })
}

/// Starts Apache Kafka with an input topic that holds a payment of each key.
pub(crate) fn start_with_each_key(keys: u64) -> Result<ApacheKafka> {
    let kafka = start()?;
    make_topic(kafka.bootstrap(), INPUT)?;
    eprintln!("  producing each key once");
    feed::load(kafka.bootstrap(), 0..keys, keys)?;
    Ok(kafka)
}

/// Asks for a topic until it is there.
pub(crate) fn make_topic(brokers: &str, topic: &str) -> Result<()> {
    make_topic_of(brokers, topic, PARTITIONS)
}

/// As [`make_topic`], for a topic that gets so many partitions.
pub(crate) fn make_topic_of(brokers: &str, topic: &str, count: u32) -> Result<()> {
    let consumer: BaseConsumer =
        config(brokers).set("allow.auto.create.topics", "true").create().context("make a consumer")?;
    let led = || -> Result<bool> {
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).with_context(|| format!("ask for {topic}"))?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        Ok(partitions.filter(|partition| partition.leader() >= 0).count() == count as usize)
    };
    // Nothing tells of new metadata; each question is a round trip.
    while !led()? {}
    Ok(())
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "benchmark").set("enable.auto.commit", "false");
    config
}
