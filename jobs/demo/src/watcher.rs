//! Watches an output as a plain consumer, and notes when probes come by.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;

use crate::Demo;
use crate::plain;
use crate::probes::Probes;
use crate::run::Event;

/// The thread that watches; it ends when this is dropped.
pub(crate) struct Watcher {
    _until: Sender<()>,
}

impl Watcher {
    pub(crate) fn start(
        demo: &'static dyn Demo,
        brokers: &str,
        partitions: u32,
        probes: Arc<Probes>,
        events: Sender<Event>,
    ) -> anyhow::Result<Self> {
        let (until, ended) = channel();
        let brokers = brokers.to_owned();
        let run = move || {
            if let Err(error) = watch(demo, &brokers, partitions, &probes, &ended) {
                let _ = events.send(Event::Failed(error));
            }
        };
        std::thread::Builder::new().name("watcher".to_owned()).spawn(run).context("cannot start a consumer")?;
        Ok(Self { _until: until })
    }
}

fn watch(demo: &dyn Demo, brokers: &str, partitions: u32, probes: &Probes, ended: &Receiver<()>) -> anyhow::Result<()> {
    let consumer = plain::consumer(brokers, demo.probed(), partitions)?;
    while let Err(TryRecvError::Empty) = ended.try_recv() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let at = Instant::now();
                let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
                if let Some((partition, count)) = demo.probes_in(key, value) {
                    probes.seen(partition, count, at);
                }
            }
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => {
                return Err(error).with_context(|| format!("cannot follow the output '{}'", demo.probed()));
            }
        }
    }
    Ok(())
}
