//! Topics: making, changing and removing them.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::{Endpoint, PATIENCE, code, code_of};

impl Endpoint {
    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        self.config().create().context("create an admin client")
    }

    /// Makes a topic and waits until metadata shows it. `settings` are the topic's own.
    ///
    /// # Errors
    /// The broker refuses, or the topic does not appear.
    pub fn create_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<()> {
        let answer = self.try_create_topic(topic, partitions, settings)?;
        if answer != "ok" {
            bail!("create topic {topic}: {answer}");
        }
        self.wait_for_partitions(topic, partitions)
    }

    /// Creates a topic whose partitions lie on these brokers, and waits until metadata shows it.
    ///
    /// # Errors
    /// As [`Endpoint::create_topic`].
    pub fn create_topic_on(&self, topic: &str, replicas: &[&[i32]]) -> Result<()> {
        let partitions = i32::try_from(replicas.len())?;
        let new = NewTopic::new(topic, partitions, TopicReplication::Variable(replicas));
        let results = wait_for(self.admin()?.create_topics([&new], &options()))?;
        let answer = results.into_iter().next().map_or_else(|| "no answer".to_owned(), code_of);
        if answer != "ok" {
            bail!("create topic {topic}: {answer}");
        }
        self.wait_for_partitions(topic, partitions)
    }

    /// Makes a topic; the answer is `ok` or the code of the broker's error.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub fn try_create_topic(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Result<String> {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        let results = wait_for(self.admin()?.create_topics([&new], &options()))?;
        Ok(results.into_iter().next().map_or_else(|| "no answer".to_owned(), code_of))
    }

    /// Removes a topic; the answer is `ok` or the code of the broker's error.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub fn delete_topic(&self, topic: &str) -> Result<String> {
        let results = wait_for(self.admin()?.delete_topics(&[topic], &options()))?;
        Ok(results.into_iter().next().map_or_else(|| "no answer".to_owned(), code_of))
    }

    /// Raises a topic's number of partitions; the answer is `ok` or the code of the broker's error.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub fn add_partitions(&self, topic: &str, partitions: usize) -> Result<String> {
        let new = NewPartitions::new(topic, partitions);
        let results = wait_for(self.admin()?.create_partitions([&new], &options()))?;
        Ok(results.into_iter().next().map_or_else(|| "no answer".to_owned(), code_of))
    }

    /// Removes the records of a partition before `before`; the answer is the first offset that is left, or the code
    /// of the broker's error.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub fn delete_records(&self, topic: &str, partition: i32, before: Offset) -> Result<String> {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, before)?;
        let results = wait_for(self.admin()?.delete_records(&offsets, &options()))?;
        let element = results.find_partition(topic, partition).context("no answer for the partition")?;
        Ok(match element.error() {
            Ok(()) => element.offset().to_raw().unwrap_or(-1).to_string(),
            Err(error) => code(&error),
        })
    }

    /// The values of a topic's settings; none where the topic does not exist.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub fn topic_settings(&self, topic: &str) -> Result<BTreeMap<String, String>> {
        let of = ResourceSpecifier::Topic(topic);
        let results = wait_for(self.admin()?.describe_configs([&of], &options()))?;
        let entries = results.into_iter().flatten().flat_map(|resource| resource.entries);
        Ok(entries.map(|entry| (entry.name, entry.value.unwrap_or_default())).collect())
    }

    /// Replaces all of a topic's own settings; the answer is `ok` or the code of the broker's error.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub fn alter_topic(&self, topic: &str, settings: &[(&str, &str)]) -> Result<String> {
        let new = AlterConfig::new(ResourceSpecifier::Topic(topic));
        let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
        let results = wait_for(self.admin()?.alter_configs([&new], &options()))?;
        Ok(results.into_iter().next().map_or_else(|| "no answer".to_owned(), code_of))
    }

    /// How many partitions a topic has; 0 where it does not exist.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub fn partitions(&self, topic: &str) -> Result<i32> {
        let consumer: BaseConsumer = self.config().create()?;
        partitions_of(&consumer, topic)
    }

    /// Waits until metadata shows the topic with so many partitions, each with a leader.
    ///
    /// # Errors
    /// It does not within [`PATIENCE`].
    pub fn wait_for_partitions(&self, topic: &str, partitions: i32) -> Result<()> {
        let consumer: BaseConsumer = self.config().create()?;
        let start = Instant::now();
        while partitions_of(&consumer, topic)? != partitions {
            if start.elapsed() > PATIENCE {
                bail!("topic {topic} has not got {partitions} partitions after {PATIENCE:?}");
            }
            // Nothing tells of new metadata; each question is a round trip.
        }
        Ok(())
    }
}

impl Endpoint {
    /// Waits until every replica of every partition is in sync: a broker that came back has caught up.
    ///
    /// # Errors
    /// They are not within twice [`PATIENCE`].
    pub fn wait_until_in_sync(&self) -> Result<()> {
        let consumer: BaseConsumer = self.config().create()?;
        let start = Instant::now();
        loop {
            // A broker that has just come back may not answer yet.
            let metadata = consumer.fetch_metadata(None, PATIENCE);
            let in_sync = metadata.as_ref().is_ok_and(|metadata| {
                let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
                partitions.into_iter().all(|of| of.leader() >= 0 && of.isr().len() == of.replicas().len())
            });
            if in_sync {
                return Ok(());
            }
            if start.elapsed() > PATIENCE * 2 {
                bail!("some replicas are not in sync after {:?}: {:?}", PATIENCE * 2, metadata.err());
            }
            // Nothing tells of new metadata; the question is no burden when asked ten times a second.
            thread::park_timeout(std::time::Duration::from_millis(100));
        }
    }
}

/// How many partitions a topic has that have a leader; 0 where it does not exist.
pub(crate) fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Result<i32> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).context("fetch metadata")?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none()) else {
        return Ok(0);
    };
    let led = found.partitions().iter().filter(|partition| partition.leader() >= 0 && partition.error().is_none());
    Ok(led.count() as i32)
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

/// Waits for a future on this thread: what the admin client returns needs no runtime.
fn wait_for<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
