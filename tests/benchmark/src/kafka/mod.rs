//! The broker of a measurement, what is fed into it, and who reads its output.

pub(crate) mod feed;
pub(crate) mod order;
pub(crate) mod payment;
pub(crate) mod sale;
pub(crate) mod view;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fluvial_kafka_apache::{ApacheKafka, Options};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, Producer};

use self::feed::Fed;

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
    ApacheKafka::start(&Options { properties, fast: true, ..options })
}

/// Starts Apache Kafka with an input topic that holds a record of each key.
pub(crate) fn start_with_each_key(keys: u64, fed: Fed) -> Result<ApacheKafka> {
    let kafka = start()?;
    make_topic(kafka.bootstrap(), INPUT)?;
    eprintln!("  producing each key once");
    fed.load(kafka.bootstrap(), keys)?;
    Ok(kafka)
}

/// Asks for a topic until it is there.
pub(crate) fn make_topic(brokers: &str, topic: &str) -> Result<()> {
    make_topic_of(brokers, topic, PARTITIONS)
}

/// As [`make_topic`], for a topic that gets so many partitions.
pub(crate) fn make_topic_of(brokers: &str, topic: &str, count: u32) -> Result<()> {
    let consumer = config(brokers).set("allow.auto.create.topics", "true").create().context("make a consumer")?;
    wait_until_led(&consumer, topic, count)
}

fn wait_until_led(consumer: &BaseConsumer, topic: &str, count: u32) -> Result<()> {
    let led = || -> Result<bool> {
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).with_context(|| format!("ask for {topic}"))?;
        let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
        Ok(partitions.filter(|partition| partition.leader() >= 0).count() == count as usize)
    };
    // Nothing tells of new metadata; each question is a round trip.
    while !led()? {}
    Ok(())
}

/// Waits until the broker serves every partition of a topic: it has leaders before their logs exist.
pub(crate) fn wait_until_served(brokers: &str, topic: &str, count: u32) -> Result<()> {
    let consumer: BaseConsumer = config(brokers).create().context("make a consumer")?;
    for partition in 0..i32::try_from(count)? {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = consumer.fetch_watermarks(topic, partition, PATIENCE) {
            if Instant::now() >= deadline {
                return Err(error).with_context(|| format!("ask for the offsets of {topic} partition {partition}"));
            }
        }
    }
    Ok(())
}

/// How long a plain client takes for what a job's first start has to ask of the cluster: to create two topics, one of so
/// many partitions, and to claim two transactional ids.
pub(crate) fn bare_first_start(brokers: &str, name: &str, partitions: u32) -> Result<Duration> {
    let begun = Instant::now();
    let consumer: BaseConsumer = config(brokers).create().context("make a consumer")?;
    let admin: AdminClient<DefaultClientContext> = config(brokers).create().context("make an admin client")?;
    let progress = format!("{name}-progress");
    let topics = [(name, partitions), (progress.as_str(), PARTITIONS)];
    let mut new = Vec::new();
    for (topic, count) in topics {
        new.push(NewTopic::new(topic, i32::try_from(count)?, TopicReplication::Fixed(-1)));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for created in runtime.block_on(admin.create_topics(&new, &AdminOptions::new()))? {
        if let Err((topic, code)) = created {
            bail!("create topic {topic}: {code}");
        }
    }
    for (topic, count) in topics {
        wait_until_led(&consumer, topic, count)?;
        wait_until_served(brokers, topic, count)?;
    }
    for turn in 0..2 {
        let id = format!("{name}-{turn}");
        let producer: BaseProducer =
            config(brokers).set("transactional.id", &id).create().context("make a producer")?;
        producer.init_transactions(PATIENCE).with_context(|| format!("claim {id}"))?;
    }
    Ok(begun.elapsed())
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("group.id", "benchmark").set("enable.auto.commit", "false");
    config
}
