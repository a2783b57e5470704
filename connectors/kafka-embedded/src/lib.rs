//! A Kafka broker in memory, inside the process, for a newcomer's first run and for fast tests.
//!
//! It speaks Kafka's own protocol, so that every client works with it: topics and partitions, idempotent and transactional
//! producers with fencing and timeouts, aborted records hidden from `read_committed`, control markers that take offsets,
//! consumer groups, the admin calls, and [faults](Fault) on request. librdkafka (rdkafka, kcat, confluent-kafka), the Java
//! client and kafka-python work with it. The command `fluvial-kafka-embedded` runs it alone.
//!
//! ```
//! use fluvial_kafka_embedded::{Broker, Config};
//! let broker = Broker::start(Config::default())?;
//! broker.create_topic("orders", 4)?;
//! println!("bootstrap.servers={}", broker.bootstrap());
//! # Ok::<(), fluvial_kafka_embedded::Error>(())
//! ```
//!
//! # What it guarantees
//!
//! - The results of a real broker, held to the same conformance checks as Apache Kafka (the `tests` crate).
//! - A record that was acknowledged can be read until its topic or records are deleted, or the broker ends.
//! - It never takes much more memory than its limit: beyond it producers get `POLICY_VIOLATION`, and an error is logged.
//! - An idle broker costs nothing: no polling, no periodic work.
//!
//! # What it does not do
//!
//! - **Keep anything**: all is gone when it ends.
//! - **Compact or expire records**: `cleanup.policy`, `retention.*` and the like are taken and shown, and have no effect.
//! - Replicate, authenticate, encrypt or authorise; limit rates.
//! - KIP-848's consumer groups, share groups, KIP-890's second part, formats before magic 2, fetch sessions.
//! - Set timestamps; those that a topic does not take (`message.timestamp.before.max.ms`) are refused.
//! - Check that records of a compacted topic have keys, as it does not look inside batches.
//!
//! # How it is built
//!
//! ```text
//!  socket ─► connection ─► frame ─► api (decode, act, encode) ─► state: topics, groups, transactions (one lock, pure)
//!                             ▲ faults                                └─► wake-ups: readers, members, the alarm
//! ```

mod api;
mod broker;
mod clock;
mod config;
mod connection;
mod error;
mod fault;
mod refusal;
mod state;

pub use broker::Broker;
pub use config::Config;
pub use error::{Error, Result};
pub use fault::{Action, Fault, FaultSyntax};
pub use kafka_protocol::ResponseError;
pub use kafka_protocol::messages::ApiKey;

pub(crate) use refusal::Refusal;
