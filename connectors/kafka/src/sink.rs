//! The way out: topics, and the progress topic beside them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_connector::{
    Envelope, Error, ErrorKind, Offset, OutputPartition, OutputSpec, ProducerId, Progress, Record, Sink, SinkContext,
    SinkSession, Transactor,
};

use crate::failure;
use crate::kafka::Kafka;
use crate::native::{NewTopic, Producer};
use crate::progress::{self, progress_topic};
use crate::reading::Reading;
use crate::transactor::KafkaTransactor;

/// How long it is asked how far an output can be read, when it cannot be read to its end.
const ASK_WHAT_IS_READABLE: Duration = Duration::from_secs(5);

/// The topics of one cluster, which share transactions.
pub(crate) struct KafkaSink {
    kafka: Kafka,
}

impl KafkaSink {
    pub(crate) fn new(kafka: Kafka) -> Self {
        Self { kafka }
    }

    fn make_missing(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Result<(), Error> {
        let deadline = Instant::now() + context.patience;
        let wanted = outputs.iter().map(|output| self.new_topic(output));
        for topic in wanted.chain([progress::new_topic(&self.kafka, &context.job)]) {
            if self.kafka.find_topic(&topic.name, remaining(deadline))?.is_some() {
                continue;
            }
            tracing::info!(topic = %topic.name, partitions = topic.partitions, "makes a topic that is missing");
            self.kafka.questions()?.create_topic(&topic, deadline)?;
            self.wait_for(&topic.name, deadline)?;
        }
        Ok(())
    }

    fn new_topic(&self, output: &OutputSpec) -> NewTopic {
        let options = self.kafka.options();
        let mut settings = options.topic_config.clone();
        if output.envelope == Envelope::Upsert && !settings.iter().any(|(name, _)| name == "cleanup.policy") {
            settings.push(("cleanup.policy".to_owned(), "compact".to_owned()));
        }
        NewTopic {
            name: output.name.clone(),
            partitions: options.output_partitions,
            replication_factor: options.replication_factor,
            settings,
        }
    }

    /// A topic that was made is not known to all brokers at once.
    fn wait_for(&self, topic: &str, deadline: Instant) -> Result<(), Error> {
        while self.kafka.find_topic(topic, remaining(deadline))?.is_none() {
            if Instant::now() >= deadline {
                let what = format!("topic '{topic}' was made, but the cluster does not show it in time");
                return Err(Error::new(ErrorKind::Retry, what));
            }
            self.kafka.questions()?.pause(Duration::from_millis(20));
        }
        Ok(())
    }
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl Sink for KafkaSink {
    fn identity(&self) -> String {
        self.kafka.identity()
    }

    fn connect(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Result<Arc<dyn SinkSession>, Error> {
        self.make_missing(context, outputs)?;
        let topic = progress_topic(&context.job);
        let progress_partitions = self.kafka.partitions(&topic, context.patience)?;
        Ok(Arc::new(KafkaSession {
            kafka: self.kafka.clone(),
            context: context.clone(),
            outputs: outputs.iter().map(|output| output.name.clone()).collect(),
            progress_partitions,
        }))
    }
}

/// One job's use of a cluster's topics.
struct KafkaSession {
    kafka: Kafka,
    context: SinkContext,
    outputs: Vec<String>,
    progress_partitions: u32,
}

impl KafkaSession {
    /// What a person can do about an output that is not readable to its end, and is being read after its progress.
    fn cure_of_held_up(&self, at: &OutputPartition, progress: Offset) -> String {
        let deadline = Instant::now() + ASK_WHAT_IS_READABLE;
        let stable = self.kafka.questions().and_then(|client| client.watermarks(&at.output, at.partition, deadline));
        match stable {
            Ok((_, stable)) if stable < progress.0 => format!(
                ". Its progress reaches offset {progress}, and the transaction begins at {stable}: to abort that one \
                 would lose records"
            ),
            Ok((_, stable)) => failure::how_to_end_a_hanging_transaction(&at.output, at.partition, stable),
            Err(_) => String::new(),
        }
    }
}

impl SinkSession for KafkaSession {
    fn partitions(&self) -> Result<BTreeMap<String, u32>, Error> {
        let count = |output: &String| Ok((output.clone(), self.kafka.partitions(output, self.context.patience)?));
        self.outputs.iter().map(count).collect()
    }

    fn fence(&self, id: &ProducerId) -> Result<Box<dyn Transactor>, Error> {
        let what = format!("take over the kafka transactional id '{id}'");
        let deadline = Instant::now() + self.context.patience;
        let settings = self.kafka.settings().producer(&id.to_string());
        let mut producer = Producer::new(&settings, &format!("the producer '{id}'"))?;
        let progress = progress_topic(&self.context.job);
        for topic in self.outputs.iter().chain([&progress]) {
            // A producer that asks for a topic makes it: the other client looks first. And the producer must know all
            // partitions before it writes, or the first records of one key could be sent out of order.
            self.kafka.partitions(topic, remaining(deadline))?;
            producer.open_topic(topic)?;
            producer.client().partitions(topic, deadline)?;
        }
        // A call that timed out is made again to go on with it.
        producer.client().until(deadline, &what, |wait_ms| match producer.init(wait_ms) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::debug!(%id, fatal = error.fatal, retriable = error.retriable, "{}", error.reason);
                Err(error.code)
            }
        })?;
        Ok(Box::new(KafkaTransactor::new(
            producer,
            id,
            progress,
            self.progress_partitions,
            self.kafka.options().tick_header,
            &self.context,
        )))
    }

    fn progress(&self) -> Result<BTreeMap<OutputPartition, Progress>, Error> {
        progress::read(&self.kafka, &self.context.job, self.context.patience)
    }

    fn end(&self, at: &OutputPartition) -> Result<Offset, Error> {
        let deadline = Instant::now() + self.context.patience;
        let ends = self.kafka.ends()?.watermarks(&at.output, at.partition, deadline);
        ends.map(|(_, end)| Offset(end)).map_err(|error| self.kafka.unreachable(error))
    }

    fn read_committed(
        &self,
        at: &OutputPartition,
        from: Offset,
        take: &mut dyn FnMut(Record<'_>),
    ) -> Result<Offset, Error> {
        let deadline = Instant::now() + self.context.patience;
        // Not the last stable offset: a commit is answered before it moves.
        let ends = self.kafka.ends()?.watermarks(&at.output, at.partition, deadline);
        let (low, end) = ends.map_err(|error| self.kafka.unreachable(error))?;
        if end <= from.0 {
            return Ok(Offset(end));
        }
        let mut reading = Reading::new(&self.kafka.settings().consumer(), "an output, read back", None)?;
        // What retention or deletion took from an output is not missing.
        let place = reading.start(&at.output, at.partition, from.0.max(low))?;
        let mut quiet_since = Instant::now();
        while reading.position(place) < end {
            let before = reading.position(place);
            let mut one = |_, record: Record<'_>| {
                if record.offset.0 < end {
                    take(record);
                }
            };
            reading.poll(usize::MAX, Duration::from_millis(500), &mut one)?;
            if reading.position(place) != before {
                quiet_since = Instant::now();
            } else if quiet_since.elapsed() >= self.context.patience {
                let what = format!(
                    "read back output {at}: it is readable up to offset {before} and was written up to {end}: an open \
                     transaction holds it up, or the cluster is away{}",
                    self.cure_of_held_up(at, from)
                );
                return Err(failure::error(crate::native::Code::OperationTimedOut, what));
            }
        }
        Ok(Offset(end))
    }
}
