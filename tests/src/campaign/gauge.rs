//! How long a consumer of committed records sees nothing new.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{Endpoint, Isolation};

/// For how long a consumer may see nothing before another one takes its place: librdkafka can forget all brokers for ever when one
/// of them has just started (confluentinc/librdkafka#5301).
const SILENT: Duration = Duration::from_secs(20);

/// Reads topics until it is dropped, and measures the pauses between records.
#[derive(Debug)]
pub struct Gauge {
    seen: Arc<Mutex<Seen>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Seen {
    records: u64,
    last: Instant,
    longest: Duration,
}

impl Gauge {
    /// Begins to read all partitions of these topics from their ends on.
    ///
    /// # Errors
    /// The topics cannot be read.
    pub fn start(broker: &Endpoint, topics: &[String]) -> Result<Self> {
        let mut assignment = TopicPartitionList::new();
        for topic in topics {
            for partition in 0..broker.partitions(topic)? {
                assignment.add_partition_offset(topic, partition, Offset::End)?;
            }
        }
        let mut consumer = connect(broker, &assignment)?;
        let seen = Arc::new(Mutex::new(Seen { records: 0, last: Instant::now(), longest: Duration::ZERO }));
        let (stop, stopped) = mpsc::channel::<()>();
        let (notes, broker) = (Arc::clone(&seen), broker.clone());
        let thread = std::thread::spawn(move || {
            let mut heard = Instant::now();
            while stopped.recv_timeout(Duration::ZERO) == Err(RecvTimeoutError::Timeout) {
                if read(&consumer, &notes) {
                    heard = Instant::now();
                } else if heard.elapsed() > SILENT {
                    heard = Instant::now();
                    if let Ok(next) = consumer.position().map_err(Into::into).and_then(|at| connect(&broker, &at)) {
                        consumer = next;
                    }
                }
            }
        });
        Ok(Self { seen, stop: Some(stop), thread: Some(thread) })
    }

    /// Forgets all pauses so far; one that is under way counts from now on.
    pub fn reset(&self) {
        let mut seen = self.seen();
        (seen.last, seen.longest) = (Instant::now(), Duration::ZERO);
    }

    /// How many records were seen.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.seen().records
    }

    /// The longest pause, the one included that is under way.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let seen = self.seen();
        seen.longest.max(seen.last.elapsed())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn connect(broker: &Endpoint, from: &TopicPartitionList) -> Result<BaseConsumer> {
    let consumer = broker.reader(Isolation::Committed)?;
    let mut assignment = TopicPartitionList::new();
    for of in from.elements() {
        // A partition of which nothing was read yet has no position.
        let offset = if of.offset() == Offset::Invalid { Offset::End } else { of.offset() };
        assignment.add_partition_offset(of.topic(), of.partition(), offset)?;
    }
    consumer.assign(&assignment).context("assign what is measured")?;
    Ok(consumer)
}

/// Reads for a moment, and returns whether there was a record. An error is told by the pause that it makes.
fn read(consumer: &BaseConsumer, notes: &Mutex<Seen>) -> bool {
    let Some(Ok(_)) = consumer.poll(Duration::from_millis(100)) else { return false };
    let mut seen = notes.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let pause = now - seen.last;
    (seen.records, seen.longest, seen.last) = (seen.records + 1, seen.longest.max(pause), now);
    true
}
