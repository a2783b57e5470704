//! Produces the input at a steady rate, with probes in between.
//!
//! ```text
//!  first probes ──► wait for the word to go ──► records and probes ──► stop ──► last probes ──► flushed
//! ```
//!
//! Of each input partition the first thing is a probe, and the last: when the first have come out, the job runs; when
//! the last have, all of the input is in the output.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use crate::probes::Probes;
use crate::run::Event;
use crate::{Generate, InputRecord};

/// The time between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(5);
/// How often records that are due are produced.
const ROUND: Duration = Duration::from_millis(1);
/// How long the broker may take for what was produced last.
const FLUSH: Duration = Duration::from_secs(30);

/// What to produce.
pub(crate) struct Feed {
    pub(crate) brokers: String,
    pub(crate) topic: &'static str,
    pub(crate) partitions: u32,
    pub(crate) rate: u32,
    pub(crate) generator: Box<dyn Generate>,
    pub(crate) probes: Arc<Probes>,
}

/// The thread that produces; it ends with its last probes when this is dropped, and that is an event.
pub(crate) struct Feeder {
    go: Sender<()>,
    records: Arc<AtomicU64>,
}

impl Feeder {
    pub(crate) fn start(feed: Feed, events: Sender<Event>) -> anyhow::Result<Self> {
        let (go, wait) = channel();
        let records = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&records);
        let run = move || {
            let result = Producing::new(feed, counted).and_then(|mut producing| producing.run(&wait));
            let _ = events.send(Event::Fed(result));
        };
        std::thread::Builder::new().name("generator".to_owned()).spawn(run).context("cannot start the generator")?;
        Ok(Self { go, records })
    }

    /// Begins with records.
    pub(crate) fn go(&self) {
        // A generator that has ended by itself has said why.
        let _ = self.go.send(());
    }

    /// How many records there were.
    pub(crate) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}

struct Producing {
    feed: Feed,
    producer: ThreadedProducer<Failures>,
    records: Arc<AtomicU64>,
    /// How many probes each partition has had.
    probes: Vec<u64>,
}

impl Producing {
    fn new(feed: Feed, records: Arc<AtomicU64>) -> anyhow::Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &feed.brokers).set("enable.idempotence", "true").set("linger.ms", "1");
        // A report for each record would cost more than making the record.
        config.set("delivery.report.only.error", "true");
        let producer =
            config.create_with_context(Failures::default()).context("cannot create the generator's producer")?;
        let probes = vec![0; feed.partitions as usize];
        Ok(Self { feed, producer, records, probes })
    }

    fn run(&mut self, wait: &Receiver<()>) -> anyhow::Result<()> {
        self.probe_each_partition()?;
        if wait.recv().is_ok() {
            self.produce(wait)?;
        }
        self.probe_each_partition()?;
        self.producer.flush(FLUSH).context("the broker does not take what was produced last")?;
        self.check()
    }

    fn produce(&mut self, wait: &Receiver<()>) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut next_probe = began;
        let mut lanes = (0..self.feed.partitions).cycle();
        // Where the rate is more than can be produced, the word to stop must still be heard.
        let burst = u64::from(self.feed.rate) / 50 + 1;
        let mut made = 0;
        loop {
            let now = now_ms();
            let due = (began.elapsed().as_secs_f64() * f64::from(self.feed.rate)) as u64;
            let until = due.min(made + burst);
            while made < until {
                let record = self.feed.generator.next(now);
                self.send(&record)?;
                made += 1;
            }
            if Instant::now() >= next_probe
                && let Some(partition) = lanes.next()
            {
                self.probe(partition, Some(Instant::now()))?;
                next_probe = (next_probe + PROBE_EVERY).max(Instant::now());
            }
            self.check()?;
            let pause = if made < due { Duration::ZERO } else { ROUND };
            if matches!(wait.recv_timeout(pause), Err(RecvTimeoutError::Disconnected)) {
                return Ok(());
            }
        }
    }

    fn probe_each_partition(&mut self) -> anyhow::Result<()> {
        (0..self.feed.partitions).try_for_each(|partition| self.probe(partition, None))
    }

    fn probe(&mut self, partition: u32, at: Option<Instant>) -> anyhow::Result<()> {
        self.feed.probes.sent(partition, at);
        let number = self.probes[partition as usize];
        let record = self.feed.generator.probe(partition, number, now_ms());
        self.probes[partition as usize] += 1;
        self.send(&record)
    }

    fn send(&self, record: &InputRecord) -> anyhow::Result<()> {
        let mut next = BaseRecord::<'_, [u8], [u8]>::to(self.feed.topic).partition(record.partition as i32);
        (next.key, next.payload) = (record.key.as_deref(), record.value.as_deref());
        while let Err((error, back)) = self.producer.send(next) {
            if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                return Err(error).context("cannot produce to the input topic");
            }
            self.check()?;
            // librdkafka has no event for a queue that has room again.
            std::thread::park_timeout(ROUND);
            next = back;
        }
        self.records.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn check(&self) -> anyhow::Result<()> {
        match self.producer.context().first() {
            None => Ok(()),
            Some(KafkaError::MessageProduction(RDKafkaErrorCode::PolicyViolation)) => {
                bail!("the embedded broker's memory is full: give a lower --rate or a shorter --for")
            }
            Some(error) => Err(error).context("the broker has not taken a record of the input"),
        }
    }
}

/// The first record that the broker has refused.
#[derive(Default)]
struct Failures(Mutex<Option<KafkaError>>);

impl Failures {
    fn first(&self) -> Option<KafkaError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
        }
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
