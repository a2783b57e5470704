//! Input as the world writes it: by several producers, in transactions that commit, abort and hold each other back, with
//! one key in several partitions.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::RngExt as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::client::{Endpoint, Message, Writer, unique};
use crate::subject::Subject;

/// How many orders there are: few, so that they are amended and cancelled, in whatever partition.
const ORDERS: u64 = 400;
/// The longest pause between two batches, in milliseconds.
const PAUSE_MS: u64 = 30;
/// How often in a row the broker may fail the input: it may be unavailable for a while.
const FAILURES: u32 = 20;

/// Writes input until it is told to stop.
#[derive(Debug)]
pub struct Feeder {
    stop: Sender<()>,
    thread: JoinHandle<Result<u64>>,
}

impl Feeder {
    /// Begins to write to a topic what `subject` takes, as the seed says.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub fn start(broker: &Endpoint, topic: &str, partitions: i32, subject: Subject, seed: u64) -> Result<Self> {
        Self::paced(broker, topic, partitions, subject, seed, PAUSE_MS)
    }

    /// The same with pauses of at most so many milliseconds between two batches.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub fn paced(
        broker: &Endpoint,
        topic: &str,
        partitions: i32,
        subject: Subject,
        seed: u64,
        pause_ms: u64,
    ) -> Result<Self> {
        let id = unique("feeder");
        let mut source = Source {
            topic: topic.to_owned(),
            partitions,
            subject,
            random: ChaCha8Rng::seed_from_u64(seed ^ 0xfeed),
            next: 0,
            writers: Writers::new(broker, &id)?,
        };
        let broker = broker.clone();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut failures = 0;
            loop {
                match source.batch() {
                    Ok(()) => failures = 0,
                    Err(error) if failures == FAILURES => return Err(error),
                    Err(_) => {
                        // What was written of the batch is input like any other. The same id ends an open transaction.
                        failures += 1;
                        if let Ok(writers) = Writers::new(&broker, &id) {
                            source.writers = writers;
                        }
                    }
                }
                let pause = Duration::from_millis(source.random.random_range(0..pause_ms));
                if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                    return source.last().map(|()| source.next);
                }
            }
        });
        Ok(Self { stop, thread })
    }

    /// Whether it has failed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the input, with an aborted transaction in each partition, and returns how many records were made.
    ///
    /// # Errors
    /// The writing failed.
    pub fn stop(self) -> Result<u64> {
        drop(self.stop);
        match self.thread.join() {
            Ok(result) => result.context("write the input"),
            Err(_) => bail!("the thread that writes the input panicked"),
        }
    }
}

struct Source {
    topic: String,
    partitions: i32,
    subject: Subject,
    random: ChaCha8Rng,
    next: u64,
    writers: Writers,
}

struct Writers {
    plain: Writer,
    transactional: Writer,
}

impl Writers {
    fn new(broker: &Endpoint, id: &str) -> Result<Self> {
        Ok(Self { plain: broker.writer(&[])?, transactional: broker.transactional(id, &[])? })
    }
}

impl Source {
    fn batch(&mut self) -> Result<()> {
        match self.random.random_range(0..6) {
            0..=2 => {
                self.records(false, 1..40)?;
                flushed(&self.writers.plain)
            }
            3 => self.transaction(true),
            4 => self.transaction(false),
            _ => {
                // What the plain producer writes meanwhile waits for the transaction's end.
                self.writers.transactional.begin()?;
                self.records(true, 1..20)?;
                self.records(false, 1..20)?;
                flushed(&self.writers.plain)?;
                self.records(true, 1..20)?;
                self.end(!self.next.is_multiple_of(3))
            }
        }
    }

    /// An aborted transaction in every partition, so that each ends in a control marker.
    fn last(&mut self) -> Result<()> {
        self.writers.transactional.begin()?;
        for partition in 0..self.partitions {
            self.record(true, partition)?;
        }
        self.end(false)
    }

    fn transaction(&mut self, commit: bool) -> Result<()> {
        self.writers.transactional.begin()?;
        self.records(true, 1..80)?;
        self.end(commit)
    }

    fn end(&self, commit: bool) -> Result<()> {
        flushed(&self.writers.transactional)?;
        let ended = if commit { self.writers.transactional.commit() } else { self.writers.transactional.abort() };
        ended.context("end a transaction of the input")
    }

    fn records(&mut self, in_transaction: bool, how_many: std::ops::Range<u32>) -> Result<()> {
        for _ in 0..self.random.random_range(how_many) {
            let partition = self.random.random_range(0..self.partitions);
            self.record(in_transaction, partition)?;
        }
        Ok(())
    }

    fn record(&mut self, in_transaction: bool, partition: i32) -> Result<()> {
        let number = self.next;
        self.next += 1;
        let (key, value) = self.subject.record(&mut self.random, number, ORDERS);
        let message = Message {
            topic: &self.topic,
            partition: Some(partition),
            key: key.as_deref().map(str::as_bytes),
            value: value.as_deref().map(str::as_bytes),
            ..Message::default()
        };
        let writer = if in_transaction { &self.writers.transactional } else { &self.writers.plain };
        writer.send(&message).context("write the input")
    }
}

fn flushed(writer: &Writer) -> Result<()> {
    for delivered in writer.flush()? {
        delivered.map_err(|code| anyhow::anyhow!("a record of the input was refused: {code}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_kafka_embedded::{Broker, Config};

    use std::time::Instant;

    use super::*;
    use crate::client::{Isolation, PATIENCE};

    #[test]
    fn the_input_holds_committed_and_aborted_records_and_ends_in_markers() {
        let broker = Broker::start(Config::default()).unwrap();
        let broker = Endpoint::new(broker.bootstrap());
        for subject in [Subject::Orders, Subject::Bank] {
            let topic = unique("fed");
            broker.create_topic(&topic, 3, &[]).unwrap();
            let feeder = Feeder::start(&broker, &topic, 3, subject, 1).unwrap();
            let count = |isolation| broker.read(&topic, isolation).unwrap().len();
            let start = Instant::now();
            while !(1..count(Isolation::Uncommitted)).contains(&count(Isolation::Committed)) {
                assert!(start.elapsed() < PATIENCE, "it has not both committed and aborted");
            }
            let written = feeder.stop().unwrap() as usize;
            let committed = broker.read(&topic, Isolation::Committed).unwrap().len();
            assert_eq!(broker.read(&topic, Isolation::Uncommitted).unwrap().len(), written);
            assert!(0 < committed && committed < written, "{committed} of {written}");
            for partition in 0..3 {
                let (_, end) = broker.watermarks(&topic, partition, Isolation::Committed).unwrap();
                let all = broker.read_from(&topic, Isolation::Uncommitted, &[(partition, rdkafka::Offset::Beginning)]);
                assert_eq!(all.unwrap().last().unwrap().offset, end - 2, "the last offset is a marker's");
            }
        }
    }
}
