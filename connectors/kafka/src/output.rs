//! One output of a job: a topic.

use std::sync::Arc;

use fluvial_connector::{Envelope, Output, OutputSpec, Sink};

use crate::kafka::Kafka;
use crate::partitioner::partition_of;
use crate::sink::KafkaSink;

/// A topic as an output, created by [`Kafka::upsert`] or [`Kafka::append`]. All outputs on the same brokers share
/// transactions.
#[derive(Clone, Debug)]
pub struct KafkaOutput {
    kafka: Kafka,
    topic: String,
    envelope: Envelope,
}

impl KafkaOutput {
    pub(crate) fn new(kafka: Kafka, topic: String, envelope: Envelope) -> Self {
        Self { kafka, topic, envelope }
    }
}

impl Output for KafkaOutput {
    fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(KafkaSink::new(self.kafka.clone()))
    }

    fn spec(&self) -> OutputSpec {
        OutputSpec { name: self.topic.clone(), envelope: self.envelope, partition_of }
    }
}
