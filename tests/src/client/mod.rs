//! Producing and reading with a plain rdkafka client: none of the code that the tests are about.

mod admin;
mod read;
mod write;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

pub(crate) use admin::partitions_of;
pub use read::{Isolation, Seen};
pub use write::{Delivered, Message, Writer};

/// How long any single call to a broker may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A broker, by its address.
#[derive(Clone, Debug)]
pub struct Endpoint {
    bootstrap: String,
    settings: Vec<(String, String)>,
}

impl Endpoint {
    /// The broker at `host:port`, or several, separated by commas.
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self { bootstrap: bootstrap.into(), settings: Vec::new() }
    }

    /// The same with settings of librdkafka for every client, such as a password.
    #[must_use]
    pub fn with(mut self, settings: &[(&str, &str)]) -> Self {
        self.settings.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    /// Its address.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A client's settings: the address, and nothing logged that is an answer anyway.
    #[must_use]
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap).set("log_level", "2");
        for (name, value) in &self.settings {
            config.set(name, value);
        }
        config
    }
}

/// A name that no other test, of this or another process, has.
#[must_use]
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{:x}-{count}", std::process::id())
}

/// The code of an error, for comparing what two brokers did.
#[must_use]
pub fn code(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => {
            let flags = [
                (error.is_fatal(), " fatal"),
                (error.txn_requires_abort(), " requires-abort"),
                (error.is_retriable(), " retriable"),
            ];
            let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
            format!("{:?}{flags}", error.code())
        }
        other => other.rdkafka_error_code().map_or_else(|| other.to_string(), |code| format!("{code:?}")),
    }
}

/// The code of an admin call's answer for one object.
fn code_of<T, N>(result: Result<T, (N, RDKafkaErrorCode)>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err((_, code)) => format!("{code:?}"),
    }
}
