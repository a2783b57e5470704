//! librdkafka's settings: the connector's, the user's, and those that the user cannot change.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use fluvial_connector::{Error, ErrorKind};

use crate::config::{Given, Origin, Setting};

/// Settings of one client, by librdkafka's names.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    values: BTreeMap<String, String>,
    /// Where those of the user come from.
    origins: BTreeMap<String, Origin>,
    token_file: Option<PathBuf>,
    let_in: Arc<AtomicBool>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.values.iter().map(|(name, value)| Setting::new(name, value))).finish()
    }
}

/// Where SASL/OAUTHBEARER gets its tokens from, in the words of Kafka's own clients.
const TOKEN_URL: &str = "sasl.oauthbearer.token.endpoint.url";

/// What the engine must decide itself, and what to use in place of the setting.
pub(crate) const RESERVED: [(&str, &str); 16] = [
    ("bootstrap.servers", "use --brokers"),
    ("metadata.broker.list", "use --brokers"),
    ("group.id", "use --group"),
    ("enable.auto.commit", "positions are kept in the job's journal"),
    ("enable.auto.offset.store", "positions are kept in the job's journal"),
    ("auto.offset.reset", "an offset that is gone is always an error"),
    ("enable.partition.eof", "the engine depends on its value"),
    ("isolation.level", "only committed records are read"),
    ("allow.auto.create.topics", "topics are created with the requested settings or not at all"),
    ("transactional.id", "the engine names its producers"),
    ("enable.idempotence", "the engine depends on its value"),
    ("enable.gapless.guarantee", "the engine depends on its value"),
    ("acks", "an acknowledged record must be safe"),
    ("request.required.acks", "an acknowledged record must be safe"),
    ("delivery.report.only.error", "the engine needs the offsets of its records"),
    ("plugin.library.paths", "plugins are not supported"),
];

/// How long a request may go without an answer.
const REQUEST_MS: u32 = 30_000;

impl Settings {
    /// What the user asks for, on these brokers.
    ///
    /// # Errors
    /// Tokens are to come from where they cannot be fetched.
    pub(crate) fn of_user(brokers: &str, given: Given) -> Result<Self, Error> {
        let mut settings = Self::default();
        for (name, (value, origin)) in given {
            if name == TOKEN_URL {
                let Some(path) = value.strip_prefix("file:") else {
                    let what = format!(
                        "{}: Fluvial does not fetch tokens over HTTP: let another program (a sidecar, a projected \
                         volume) write the token to a file, and set the URL file:///PATH",
                        origin.of(&name)
                    );
                    return Err(Error::new(ErrorKind::Configuration, what));
                };
                settings.token_file = Some(path.strip_prefix("//").unwrap_or(path).into());
                continue;
            }
            settings.origins.insert(name.clone(), origin);
            settings.values.insert(name, value);
        }
        settings.values.insert("bootstrap.servers".to_owned(), brokers.to_owned());
        Ok(settings)
    }

    /// The file that holds the token of SASL/OAUTHBEARER, if one does.
    pub(crate) fn token_file(&self) -> Option<&Path> {
        self.token_file.as_deref()
    }

    /// Whether the cluster has ever answered a client of these settings or of what they were made of.
    pub(crate) fn let_in(&self) -> &Arc<AtomicBool> {
        &self.let_in
    }

    /// What to call a setting in an error.
    pub(crate) fn describe(&self, name: &str) -> String {
        self.origins.get(name).map_or_else(|| format!("setting '{name}'"), |origin| origin.of(name))
    }

    /// With these, where the user has not said anything.
    pub(crate) fn or(mut self, defaults: &[(&str, &str)]) -> Self {
        for (name, value) in defaults {
            self.values.entry((*name).to_owned()).or_insert_with(|| (*value).to_owned());
        }
        self
    }

    /// With these, whatever was said before.
    pub(crate) fn and(mut self, fixed: &[(&str, &str)]) -> Self {
        for (name, value) in fixed {
            self.values.insert((*name).to_owned(), (*value).to_owned());
        }
        self
    }

    /// One setting.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// One setting that is a number of bytes.
    ///
    /// # Errors
    /// It is not given in decimal digits. librdkafka reads other notations, too.
    pub(crate) fn bytes(&self, name: &str) -> Result<usize, Error> {
        self.get(name).and_then(|bytes| bytes.parse().ok()).ok_or_else(|| {
            let what = format!("{}: give the number of bytes in decimal digits", self.describe(name));
            Error::new(ErrorKind::Configuration, what)
        })
    }

    /// Who the cluster takes these clients for, as far as the settings tell.
    pub(crate) fn principal(&self) -> Option<String> {
        self.get("sasl.username").or(self.get("sasl.kerberos.principal")).map(|name| format!("User:{name}"))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Reconnecting within a second: a broker that restarts is unavailable for seconds, not minutes. A connection that has
    /// been lost without a word is found out within seconds (`native/socket.rs`), one that cannot be made within ten, and
    /// a request without an answer within thirty, as by Java's clients.
    fn any_client(self) -> Self {
        self.or(&[
            ("reconnect.backoff.ms", "50"),
            ("reconnect.backoff.max.ms", "1000"),
            ("socket.keepalive.enable", "true"),
            ("socket.connection.setup.timeout.ms", "10000"),
            ("socket.timeout.ms", &REQUEST_MS.to_string()),
        ])
    }

    /// For a consumer of committed records.
    pub(crate) fn consumer(&self) -> Self {
        // The end of a partition is told by a fetch that brings nothing: this is how late that may be known.
        self.consumer_that_waits("100")
    }

    /// As [`Settings::consumer`], with fetches that wait for so many milliseconds.
    pub(crate) fn consumer_that_waits(&self, wait_ms: &str) -> Self {
        self.clone()
            .any_client()
            .or(&[
                // The default of one second is how long a partition rests after its queue was full.
                ("fetch.queue.backoff.ms", "5"),
                ("fetch.error.backoff.ms", "100"),
                ("fetch.wait.max.ms", wait_ms),
                ("queued.min.messages", "100000"),
                // Bounds what a reader holds beyond what it was asked for.
                ("queued.max.messages.kbytes", "32768"),
            ])
            .and(&[
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("auto.offset.reset", "error"),
                ("enable.partition.eof", "true"),
                ("isolation.level", "read_committed"),
                ("allow.auto.create.topics", "false"),
                // A client that assigns by hand must name a group, and never joins it.
                ("group.id", "fluvial-unused"),
            ])
    }

    /// For a consumer that sees the records of open and aborted transactions as well.
    pub(crate) fn uncommitted_consumer(&self) -> Self {
        self.consumer().and(&[("isolation.level", "read_uncommitted")])
    }

    /// For a transactional producer.
    pub(crate) fn producer(&self, transactional_id: &str) -> Self {
        let transaction_ms = self.get("transaction.timeout.ms").and_then(|ms| ms.parse().ok()).unwrap_or(60_000u32);
        // Less than the transaction's, as librdkafka demands.
        let message_ms = transaction_ms.saturating_sub(transaction_ms / 6);
        let (request_ms, message_ms) = (message_ms.min(REQUEST_MS).to_string(), message_ms.to_string());
        self.clone()
            .or(&[("socket.timeout.ms", &request_ms)])
            .any_client()
            .or(&[
                // A transaction is flushed as soon as it is complete: waiting for more would be waiting for nothing.
                ("linger.ms", "0"),
                ("transaction.timeout.ms", "60000"),
                ("message.timeout.ms", &message_ms),
                ("queue.buffering.max.messages", "100000"),
                // How large a record may be is for the topic to say. It is no more than this, as librdkafka sets aside
                // so much for each request.
                ("message.max.bytes", "8388608"),
                // librdkafka's own value, so that it can be compared with the limits of the topics.
                ("batch.size", "1000000"),
            ])
            .and(&[("transactional.id", transactional_id), ("enable.idempotence", "true"), ("acks", "all")])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(name: &str, value: &str) -> Result<Settings, Error> {
        Settings::of_user("b:1", crate::config::read(None, &[Setting::new(name, value)])?)
    }

    #[test]
    fn a_setting_of_the_user_wins_over_our_default() {
        let settings = settings("linger.ms", "7").unwrap().producer("id");
        assert_eq!(settings.get("linger.ms"), Some("7"));
        assert_eq!(settings.get("bootstrap.servers"), Some("b:1"));
    }

    #[test]
    fn a_request_does_not_outlast_its_transaction() {
        for (transaction_ms, request_ms) in [("60000", "30000"), ("6000", "5000")] {
            let settings = settings("transaction.timeout.ms", transaction_ms).unwrap();
            assert_eq!(settings.producer("id").get("socket.timeout.ms"), Some(request_ms));
            assert_eq!(settings.consumer().get("socket.timeout.ms"), Some("30000"));
        }
    }

    #[test]
    fn what_the_engine_relies_on_cannot_be_set() {
        for (name, _) in RESERVED {
            let error = settings(name, "x").unwrap_err();
            assert_eq!(error.kind, ErrorKind::Configuration);
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn tokens_come_from_a_file_or_not_at_all() {
        let at = |url| settings(TOKEN_URL, url);
        assert_eq!(at("file:///run/token").unwrap().token_file(), Some(Path::new("/run/token")));
        assert_eq!(at("file:/run/token").unwrap().token_file(), Some(Path::new("/run/token")));
        let error = at("https://example.org/token").unwrap_err();
        assert!(error.to_string().contains("file:///PATH"), "{error}");
    }
}
