//! rdkafka clients for the tests of the broker.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fluvial_kafka_embedded::Broker;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{Offset, TopicPartitionList};

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What became of a record: its offset, or why not.
pub type Delivered = Result<i64, RDKafkaErrorCode>;

/// Notes what became of each record.
#[derive(Clone, Default)]
pub struct Deliveries(Arc<Mutex<Vec<Delivered>>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let delivered = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap()),
        };
        self.0.lock().unwrap().push(delivered);
    }
}

pub fn config(broker: &Broker, settings: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.bootstrap());
    for (key, value) in settings {
        config.set(*key, *value);
    }
    config
}

/// An idempotent producer, polled by the test's thread only.
pub struct Writer {
    pub producer: BaseProducer<Deliveries>,
    deliveries: Deliveries,
}

impl Writer {
    pub fn new(broker: &Broker, settings: &[(&str, &str)]) -> Self {
        let mut config = config(broker, &[("enable.idempotence", "true"), ("linger.ms", "0")]);
        settings.iter().for_each(|(key, value)| {
            config.set(*key, *value);
        });
        let deliveries = Deliveries::default();
        Self { producer: config.create_with_context(deliveries.clone()).unwrap(), deliveries }
    }

    pub fn transactional(broker: &Broker, id: &str, settings: &[(&str, &str)]) -> Self {
        let writer = Self::new(broker, &[&[("transactional.id", id)], settings].concat());
        writer.producer.init_transactions(PATIENCE).unwrap();
        writer
    }

    pub fn send(&self, topic: &str, partition: i32, value: &str) {
        self.producer
            .send(BaseRecord::<(), str>::to(topic).partition(partition).payload(value))
            .map_err(|e| e.0)
            .unwrap();
    }

    /// What became of all records, in the order of their deliveries.
    pub fn flush(&self) -> Vec<Delivered> {
        let start = Instant::now();
        while self.producer.in_flight_count() > 0 {
            assert!(start.elapsed() < PATIENCE, "records are still under way");
            self.producer.poll(Duration::from_millis(1));
        }
        std::mem::take(&mut self.deliveries.0.lock().unwrap())
    }

    pub fn begin(&self) {
        self.producer.begin_transaction().unwrap();
    }

    pub fn commit(&self) -> Result<(), KafkaError> {
        self.flush();
        self.producer.commit_transaction(PATIENCE)
    }

    pub fn abort(&self) {
        self.flush();
        self.producer.abort_transaction(PATIENCE).unwrap();
    }
}

pub fn consumer(broker: &Broker, settings: &[(&str, &str)]) -> BaseConsumer {
    let own = [("group.id", "tests"), ("enable.auto.commit", "false"), ("auto.offset.reset", "error")];
    let eof = [("enable.partition.eof", "true")];
    config(broker, &[&own[..], &eof[..], settings].concat()).create().unwrap()
}

pub fn assign(consumer: &BaseConsumer, topic: &str, partitions: i32) {
    let mut all = TopicPartitionList::new();
    (0..partitions).for_each(|p| all.add_partition_offset(topic, p, Offset::Beginning).unwrap());
    consumer.assign(&all).unwrap();
}

/// The values of a topic up to its end, as such a reader sees them.
pub fn read(broker: &Broker, topic: &str, isolation: &str) -> Vec<String> {
    let partitions = broker.topics()[topic] as i32;
    let consumer = consumer(broker, &[("isolation.level", isolation)]);
    assign(&consumer, topic, partitions);
    let (mut values, mut ended) = (Vec::new(), 0);
    while ended < partitions {
        match consumer.poll(PATIENCE).expect("a record or an end") {
            Ok(message) => values.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap()),
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{error}"),
        }
    }
    values
}
