//! Topics of a cluster as subjects of the conformance suite, filled by a client that is not the connector.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_connector::conformance::{Ending, SinkSubject, SourceSubject, TestRecord};
use fluvial_connector::{Offset, Output, SinkContext, Source};
use fluvial_kafka::{Kafka, KafkaOptions};
use fluvial_kafka_embedded::Broker;
use rdkafka::bindings as rd;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// A name that no other test uses.
pub fn fresh_name(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4().simple())
}

pub fn kafka(brokers: &str) -> Kafka {
    KafkaOptions { output_partitions: 2, ..KafkaOptions::new(brokers) }.connect().unwrap()
}

pub fn writer(brokers: &str, transactional_id: Option<&str>) -> ThreadedProducer<DefaultProducerContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("linger.ms", "0").set("enable.idempotence", "true");
    if let Some(id) = transactional_id {
        config.set("transactional.id", id).set("message.timeout.ms", "10000").set("transaction.timeout.ms", "60000");
    }
    config.create().unwrap()
}

pub fn send(to: &ThreadedProducer<DefaultProducerContext>, topic: &str, partition: u32, records: &[TestRecord]) {
    for (key, value) in records {
        let mut record = BaseRecord::to(topic).partition(partition as i32);
        (record.key, record.payload) = (key.as_ref(), value.as_ref());
        to.send(record).map_err(|(error, _)| error).unwrap();
    }
    to.flush(PATIENCE).unwrap();
}

/// The admin calls that the tests need, made directly: waiting for a future would take a runtime.
pub struct Admin(rdkafka::client::Client<rdkafka::client::DefaultClientContext>);

#[allow(unsafe_code)]
impl Admin {
    pub fn of(brokers: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        let native = config.create_native_config().unwrap();
        let kind = rdkafka::types::RDKafkaType::RD_KAFKA_PRODUCER;
        let context = rdkafka::client::DefaultClientContext;
        Self(rdkafka::client::Client::new(&config, native, kind, context).unwrap())
    }

    /// Runs a request and checks that the cluster did what was asked.
    fn call(&self, request: impl FnOnce(*mut rd::rd_kafka_t, *mut rd::rd_kafka_queue_t)) {
        // SAFETY: the handles are valid and freed after their last use.
        unsafe {
            let rk = self.0.native_ptr();
            let queue = rd::rd_kafka_queue_new(rk);
            request(rk, queue);
            let event = rd::rd_kafka_queue_poll(queue, 20_000);
            assert!(!event.is_null(), "the cluster answers an admin request in time");
            let error = rd::rd_kafka_event_error(event);
            assert_eq!(error, rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
            rd::rd_kafka_event_destroy(event);
            rd::rd_kafka_queue_destroy(queue);
        }
    }

    pub fn create_topic(&self, name: &str, partitions: i32) {
        let c_name = std::ffi::CString::new(name).unwrap();
        self.call(|rk, queue| {
            // SAFETY: as above; the name ends with a zero byte.
            unsafe {
                let mut topic = rd::rd_kafka_NewTopic_new(c_name.as_ptr(), partitions, 1, std::ptr::null_mut(), 0);
                rd::rd_kafka_CreateTopics(rk, &raw mut topic, 1, std::ptr::null(), queue);
                rd::rd_kafka_NewTopic_destroy(topic);
            }
        });
        self.wait_for(name, Some(partitions as usize));
    }

    pub fn create_partitions(&self, name: &str, total: usize) {
        let c_name = std::ffi::CString::new(name).unwrap();
        self.call(|rk, queue| {
            // SAFETY: as above.
            unsafe {
                let mut more = rd::rd_kafka_NewPartitions_new(c_name.as_ptr(), total, std::ptr::null_mut(), 0);
                rd::rd_kafka_CreatePartitions(rk, &raw mut more, 1, std::ptr::null(), queue);
                rd::rd_kafka_NewPartitions_destroy(more);
            }
        });
        self.wait_for(name, Some(total));
    }

    pub fn delete_topic(&self, name: &str) {
        let c_name = std::ffi::CString::new(name).unwrap();
        self.call(|rk, queue| {
            // SAFETY: as above.
            unsafe {
                let mut topic = rd::rd_kafka_DeleteTopic_new(c_name.as_ptr());
                rd::rd_kafka_DeleteTopics(rk, &raw mut topic, 1, std::ptr::null(), queue);
                rd::rd_kafka_DeleteTopic_destroy(topic);
            }
        });
        self.wait_for(name, None);
    }

    pub fn delete_records(&self, name: &str, partition: u32, before: Offset) {
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition_offset(name, partition as i32, rdkafka::Offset::Offset(before.0 as i64)).unwrap();
        self.call(|rk, queue| {
            // SAFETY: as above.
            unsafe {
                let mut request = rd::rd_kafka_DeleteRecords_new(list.ptr());
                rd::rd_kafka_DeleteRecords(rk, &raw mut request, 1, std::ptr::null(), queue);
                rd::rd_kafka_DeleteRecords_destroy(request);
            }
        });
    }

    /// Until the cluster shows the topic as it is to be. All topics are asked for: asking for one could make it.
    fn wait_for(&self, name: &str, partitions: Option<usize>) {
        let begun = Instant::now();
        loop {
            let metadata = self.0.fetch_metadata(None, PATIENCE).unwrap();
            let found = metadata.topics().iter().find(|topic| topic.name() == name);
            let ready = found.map(|topic| topic.partitions().iter().filter(|p| p.leader() >= 0).count());
            if ready == partitions {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "topic {name} is not as it was asked for in time");
        }
    }
}

/// A topic of two partitions.
pub struct Input {
    pub brokers: String,
    pub kafka: Kafka,
    pub topic: String,
    admin: Admin,
    plain: ThreadedProducer<DefaultProducerContext>,
    open: Option<ThreadedProducer<DefaultProducerContext>>,
    embedded: Option<Arc<Broker>>,
}

impl Input {
    pub fn new(brokers: &str) -> Self {
        let (kafka, admin, topic) = (kafka(brokers), Admin::of(brokers), fresh_name("in"));
        admin.create_topic(&topic, 2);
        Self {
            brokers: brokers.to_owned(),
            kafka,
            topic,
            admin,
            plain: writer(brokers, None),
            open: None,
            embedded: None,
        }
    }

    /// The same on an embedded broker, which can remove the leader of a partition.
    pub fn on(broker: &Arc<Broker>) -> Self {
        Self { embedded: Some(Arc::clone(broker)), ..Self::new(&broker.bootstrap()) }
    }
}

impl SourceSubject for Input {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.kafka.source(&self.topic))
    }

    fn missing(&self) -> Arc<dyn Source> {
        Arc::new(self.kafka.source(fresh_name("missing")))
    }

    fn append(&mut self, split: u32, records: &[TestRecord]) {
        send(&self.plain, &self.topic, split, records);
    }

    fn append_open(&mut self, split: u32, records: &[TestRecord]) -> bool {
        let producer = writer(&self.brokers, Some(&fresh_name("writer")));
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        send(&producer, &self.topic, split, records);
        self.open = Some(producer);
        true
    }

    fn end(&mut self, ending: Ending) {
        let producer = self.open.take().unwrap();
        let before = self.kafka.source(&self.topic).splits(PATIENCE).unwrap();
        match ending {
            Ending::Commit => producer.commit_transaction(PATIENCE).unwrap(),
            Ending::Abort => producer.abort_transaction(PATIENCE).unwrap(),
        }
        // The markers are written after the answer.
        let begun = Instant::now();
        while self.kafka.source(&self.topic).splits(PATIENCE).unwrap() == before {
            assert!(begun.elapsed() < PATIENCE, "the transaction ends in time");
        }
    }

    fn truncate(&mut self, split: u32, before: Offset) -> bool {
        self.admin.delete_records(&self.topic, split, before);
        true
    }

    fn recreate(&mut self) -> bool {
        self.admin.delete_topic(&self.topic);
        self.admin.create_topic(&self.topic, 2);
        true
    }

    fn set_available(&mut self, split: u32, available: bool) -> bool {
        let Some(broker) = &self.embedded else { return false };
        broker.set_leader(&self.topic, i32::try_from(split).unwrap(), available);
        true
    }
}

/// Two outputs of a job of their own.
pub struct Outputs {
    kafka: Kafka,
    admin: Admin,
    job: String,
}

impl Outputs {
    pub fn new(brokers: &str) -> Self {
        Self { kafka: kafka(brokers), admin: Admin::of(brokers), job: fresh_name("job") }
    }
}

impl SinkSubject for Outputs {
    fn outputs(&self) -> [Arc<dyn Output>; 2] {
        let name = |what: &str| format!("{}-{what}", self.job);
        [Arc::new(self.kafka.upsert(name("table"))), Arc::new(self.kafka.append(name("log")))]
    }

    fn context(&self) -> SinkContext {
        SinkContext::new(self.job.clone(), PATIENCE)
    }

    fn recreate(&mut self, output: &str) -> bool {
        self.admin.delete_topic(output);
        self.admin.create_topic(output, 2);
        true
    }

    fn input(&self, output: &str) -> Option<Arc<dyn Source>> {
        Some(Arc::new(self.kafka.source(output)))
    }
}
