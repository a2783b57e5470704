//! Producing payments: as fast as can be, or at a rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use super::order::Order;
use super::payment::Payment;
use super::{INPUT, PARTITIONS, sale};
use crate::running::pause;
use crate::subject::job::key_at;
use crate::subject::meter::now_us;

/// How often records that are due are produced.
const ROUND: Duration = Duration::from_millis(1);
const FLUSH: Duration = Duration::from_secs(60);

fn producer(brokers: &str, linger_ms: &str) -> Result<ThreadedProducer<DefaultProducerContext>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("enable.idempotence", "true").set("linger.ms", linger_ms);
    config.set("delivery.report.only.error", "true");
    config.create().context("make a producer")
}

fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    partition: u32,
    key: Option<&[u8]>,
    value: &[u8],
) -> Result<()> {
    let mut next = BaseRecord::<'_, [u8], [u8]>::to(INPUT).partition(partition as i32).payload(value);
    next.key = key;
    while let Err((error, back)) = producer.send(next) {
        if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
            return Err(error).context("produce to the input topic");
        }
        // librdkafka has no event for a queue that has room again.
        pause(ROUND);
        next = back;
    }
    Ok(())
}

/// Produces the payments of these offsets, as fast as can be: each key's amount is 1.
pub(crate) fn load(brokers: &str, offsets: std::ops::Range<u64>, keys: u64) -> Result<()> {
    load_with(brokers, offsets, |producer, offset, value| {
        Payment { key: key_at(offset, keys), amount: 1 }.value(value);
        send(producer, (offset % u64::from(PARTITIONS)) as u32, None, value)
    })
}

/// As [`load`], for sales with accounts of so many bytes, which are the keys of their records: those of an account are in one
/// partition.
pub(crate) fn load_sales(brokers: &str, offsets: std::ops::Range<u64>, keys: u64, key_bytes: usize) -> Result<()> {
    load_with(brokers, offsets, |producer, offset, value| {
        let key = key_at(offset, keys);
        sale::value(key, key_bytes, 1, value);
        let account = sale::account(key, key_bytes);
        send(producer, (key % u64::from(PARTITIONS)) as u32, Some(account.as_bytes()), value)
    })
}

/// As [`load`], for changes of orders, which are the keys of their records.
pub(crate) fn load_orders(brokers: &str, offsets: std::ops::Range<u64>, orders: u64) -> Result<()> {
    load_with(brokers, offsets, |producer, offset, value| {
        let number = key_at(offset, orders);
        let order = Order::of(number, offset);
        order.value(value)?;
        send(producer, (number % u64::from(PARTITIONS)) as u32, Some(order.order.as_bytes()), value)
    })
}

fn load_with(
    brokers: &str,
    offsets: std::ops::Range<u64>,
    send: impl Fn(&ThreadedProducer<DefaultProducerContext>, u64, &mut Vec<u8>) -> Result<()>,
) -> Result<()> {
    let producer = producer(brokers, "5")?;
    let mut value = Vec::new();
    for offset in offsets {
        send(&producer, offset, &mut value)?;
    }
    producer.flush(FLUSH).context("the broker does not take the input")
}

/// What a [`Feed`] produces.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fed {
    /// Payments.
    Payments,
    /// Sales, with accounts of so many bytes.
    Sales(usize),
}

impl Fed {
    /// Produces one record of each key, as fast as can be.
    pub(crate) fn load(self, brokers: &str, keys: u64) -> Result<()> {
        match self {
            Self::Payments => load(brokers, 0..keys, keys),
            Self::Sales(key_bytes) => load_sales(brokers, 0..keys, keys, key_bytes),
        }
    }

    fn value(self, key: u64, amount: i64, into: &mut Vec<u8>) {
        match self {
            Self::Payments => Payment { key, amount }.value(into),
            Self::Sales(key_bytes) => sale::value(key, key_bytes, amount, into),
        }
    }
}

/// Payments or sales at a steady rate, until dropped. The amount of each is when it was produced, in microseconds since `base`.
pub(crate) struct Feed {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Feed {
    /// Begins; offsets that choose the keys go on from `from`.
    pub(crate) fn start(brokers: &str, fed: Fed, from: u64, keys: u64, rate: u64, base_us: u64) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let producer = producer(brokers, "0")?;
        let run = move || {
            let began = Instant::now();
            let mut value = Vec::new();
            let mut made = 0;
            // All records of a round go to one partition: as few requests as a client that batches makes.
            let mut partition = 0;
            while !stopped.load(Ordering::Relaxed) {
                let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
                for offset in from + made..from + due {
                    let amount = i64::try_from(now_us() - base_us).unwrap_or(i64::MAX);
                    fed.value(key_at(offset, keys), amount, &mut value);
                    send(&producer, partition, None, &value)?;
                }
                made = due;
                partition = (partition + 1) % PARTITIONS;
                pause(ROUND);
            }
            producer.flush(FLUSH).context("the broker does not take the input")?;
            Ok(made)
        };
        Ok(Self { stop, thread: Some(std::thread::spawn(run)) })
    }

    /// Ends it; returns how many payments there were.
    pub(crate) fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("a feed ends once")?;
        thread.join().map_err(|_| anyhow::anyhow!("the feed panicked"))?
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
