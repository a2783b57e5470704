//! The output as a `read_committed` consumer sees it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::payment::Total;
use super::{PARTITIONS, PATIENCE, config, sale};
use crate::subject::meter::now_us;

/// Looks where an output ends for such a consumer.
pub(crate) struct Ends {
    consumer: BaseConsumer,
    topic: String,
}

impl Ends {
    pub(crate) fn new(brokers: &str, topic: &str) -> Result<Self> {
        let mut config = config(brokers);
        config.set("isolation.level", "read_committed");
        Ok(Self { consumer: config.create().context("make a consumer")?, topic: topic.to_owned() })
    }

    /// The sum of the partitions' last stable offsets.
    pub(crate) fn sum(&self) -> Result<i64> {
        let end = |partition| {
            let (_, end) = self.consumer.fetch_watermarks(&self.topic, partition, PATIENCE)?;
            Ok(end)
        };
        (0..PARTITIONS as i32)
            .map(end)
            .sum::<Result<i64>>()
            .with_context(|| format!("ask for the end of {}", self.topic))
    }
}

/// An output record that has been seen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// When, microseconds since the Unix epoch.
    pub(crate) at_us: u64,
    /// How long after the payment was produced that it speaks of; none where it speaks of several.
    pub(crate) after_us: Option<u64>,
}

/// Reads an output from its beginning, on a thread that ends when this is dropped.
pub(crate) struct View {
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// By key: what was known of it.
    totals: Vec<Total>,
    payments: u64,
    seen: Vec<Seen>,
    failed: Option<String>,
    stopped: bool,
}

impl View {
    /// `sums` says that the output holds each key's total, so that a payment is the difference to the last; otherwise
    /// each record is a payment. Payments were produced `base_us` later than they say.
    pub(crate) fn start(brokers: &str, topic: &str, keys: u64, sums: bool, base_us: u64) -> Result<Self> {
        let mut config = config(brokers);
        config.set("isolation.level", "read_committed").set("fetch.queue.backoff.ms", "5");
        let consumer: BaseConsumer = config.create().context("make a consumer")?;
        consumer.fetch_metadata(Some(topic), PATIENCE).with_context(|| format!("ask for {topic}"))?;
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS as i32 {
            all.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let state = State { totals: vec![Total { count: 0, sum: 0 }; keys as usize], ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let theirs = Arc::clone(&state);
        let thread = std::thread::spawn(move || read(&consumer, &theirs, sums, base_us));
        Ok(Self { state, thread: Some(thread) })
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> Result<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.failed.take() {
            Some(why) => Err(anyhow::anyhow!("read the output: {why}")),
            None => Ok(look(&mut state)),
        }
    }

    /// How many payments the output speaks of so far.
    pub(crate) fn payments(&self) -> Result<u64> {
        self.with(|state| state.payments)
    }

    /// What has been seen since the last call.
    pub(crate) fn take_seen(&self) -> Result<Vec<Seen>> {
        self.with(|state| std::mem::take(&mut state.seen))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        // A panic of the thread has been printed.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn read(consumer: &BaseConsumer, state: &Mutex<State>, sums: bool, base_us: u64) {
    loop {
        let message = consumer.poll(Duration::from_millis(100));
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.stopped {
            return;
        }
        match message {
            None => {}
            Some(Ok(message)) => {
                if let Err(error) = take(&mut state, message.key(), message.payload(), sums, base_us) {
                    state.failed = Some(format!("{error:#}"));
                    return;
                }
            }
            Some(Err(error)) => {
                state.failed = Some(error.to_string());
                return;
            }
        }
    }
}

fn take(state: &mut State, key: Option<&[u8]>, value: Option<&[u8]>, sums: bool, base_us: u64) -> Result<()> {
    let at_us = now_us();
    let key = key.context("a record has no key")?;
    let key = match serde_json::from_slice::<&str>(key) {
        Ok(account) => sale::number(account).context("an account without a number")? as usize,
        Err(_) => serde_json::from_slice(key)?,
    };
    let total: Total = serde_json::from_slice(value.context("a record has no value")?)?;
    let known = state.totals.get_mut(key).context("a key that was never produced")?;
    let before = if sums { std::mem::replace(known, total.clone()) } else { Total { count: 0, sum: 0 } };
    anyhow::ensure!(total.count > before.count, "key {key} goes from {before:?} to {total:?}");
    let payments = total.count - before.count;
    state.payments += payments;
    let produced_us = base_us.saturating_add_signed(total.sum - before.sum);
    state.seen.push(Seen { at_us, after_us: (payments == 1).then(|| at_us.saturating_sub(produced_us)) });
    Ok(())
}
