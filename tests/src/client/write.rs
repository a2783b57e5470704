//! Writing records, in transactions and without.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::ClientContext;
use rdkafka::TopicPartitionList;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use super::{Endpoint, PATIENCE, code};

/// A record to be written.
#[derive(Clone, Debug, Default)]
pub struct Message<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition; where there is none, the client chooses by the key as Java does.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Its timestamp in milliseconds since the Unix epoch; the client's clock where there is none.
    pub timestamp_ms: Option<i64>,
}

impl<'a> Message<'a> {
    /// A record with a key and a value that are text.
    #[must_use]
    pub fn text(topic: &'a str, partition: i32, key: &'a str, value: &'a str) -> Self {
        let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
        Self { topic, partition: Some(partition), key, value, ..Self::default() }
    }
}

/// What became of a record: where it is, or the code of the error.
pub type Delivered = Result<(i32, i64), String>;

/// A producer that remembers what became of each record.
pub struct Writer {
    producer: ThreadedProducer<Deliveries>,
    deliveries: Arc<Mutex<Vec<Delivered>>>,
}

struct Deliveries(Arc<Mutex<Vec<Delivered>>>);

impl ClientContext for Deliveries {
    fn error(&self, _: KafkaError, _: &str) {}
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, _: &str, _: &str) {}
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let delivered = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(code(error)),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(delivered);
    }
}

impl Endpoint {
    /// An idempotent producer; `settings` are librdkafka's and win.
    ///
    /// # Errors
    /// A setting is refused.
    pub fn writer(&self, settings: &[(&str, &str)]) -> Result<Writer> {
        let mut config = self.config();
        config.set("enable.idempotence", "true").set("linger.ms", "2").set("partitioner", "murmur2_random");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        let deliveries = Arc::new(Mutex::new(Vec::new()));
        let context = Deliveries(Arc::clone(&deliveries));
        let producer = ThreadedProducer::from_config_and_context(&config, context).context("create a producer")?;
        Ok(Writer { producer, deliveries })
    }

    /// A transactional producer that has been initialised.
    ///
    /// # Errors
    /// A setting is refused, or the broker cannot be reached.
    pub fn transactional(&self, id: &str, settings: &[(&str, &str)]) -> Result<Writer> {
        let mut all = vec![("transactional.id", id)];
        all.extend_from_slice(settings);
        let writer = self.writer(&all)?;
        writer.init().with_context(|| format!("initialise the writer {id}"))?;
        Ok(writer)
    }
}

impl Writer {
    /// Hands a record to the client. Waits while its queue is full.
    ///
    /// # Errors
    /// The client refuses it at once.
    pub fn send(&self, message: &Message<'_>) -> Result<(), KafkaError> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(message.topic);
        record.partition = message.partition;
        record.key = message.key;
        record.payload = message.value;
        record.timestamp = message.timestamp_ms;
        if !message.headers.is_empty() {
            let headers = OwnedHeaders::new_with_capacity(message.headers.len());
            record.headers = Some(
                message
                    .headers
                    .iter()
                    .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(*value) })),
            );
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::park_timeout(Duration::from_millis(2));
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Waits until the broker has answered for every record, and returns the answers in their order.
    ///
    /// # Errors
    /// It has not within [`PATIENCE`].
    pub fn flush(&self) -> Result<Vec<Delivered>> {
        // Not the client's own flush: that would serve delivery reports on this thread too, out of their order.
        let start = Instant::now();
        while self.producer.in_flight_count() > 0 {
            if start.elapsed() > PATIENCE {
                bail!("flush: {} records are still under way", self.producer.in_flight_count());
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Ok(std::mem::take(&mut self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Sends records and waits until all are written.
    ///
    /// # Errors
    /// One is not.
    pub fn write(&self, messages: &[Message<'_>]) -> Result<()> {
        for message in messages {
            self.send(message).with_context(|| format!("produce to {}", message.topic))?;
        }
        for delivered in self.flush()? {
            delivered.map_err(|code| anyhow::anyhow!("produce: {code}"))?;
        }
        Ok(())
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// The client's.
    pub fn begin(&self) -> Result<(), KafkaError> {
        self.producer.begin_transaction()
    }

    /// Commits the transaction.
    ///
    /// # Errors
    /// The client's.
    pub fn commit(&self) -> Result<(), KafkaError> {
        self.producer.commit_transaction(PATIENCE)
    }

    /// Aborts the transaction.
    ///
    /// # Errors
    /// The client's.
    pub fn abort(&self) -> Result<(), KafkaError> {
        self.producer.abort_transaction(PATIENCE)
    }

    /// Puts a group's offsets into the transaction.
    ///
    /// # Errors
    /// The client's.
    pub fn send_offsets(&self, offsets: &TopicPartitionList, group: &ConsumerGroupMetadata) -> Result<(), KafkaError> {
        self.producer.send_offsets_to_transaction(offsets, group, PATIENCE)
    }

    /// Initialises transactions again, as a new producer of the same id would.
    ///
    /// # Errors
    /// The client's.
    pub fn init(&self) -> Result<(), KafkaError> {
        self.producer.init_transactions(PATIENCE)
    }
}
