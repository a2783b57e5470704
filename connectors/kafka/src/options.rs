//! What a job's command line says about Kafka.

use fluvial_connector::{Error, ErrorKind};

use crate::kafka::Kafka;

/// How to reach a Kafka cluster and how to make topics there: the options of a job that uses this connector.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaOptions {
    /// The brokers to ask first: host:port, separated by commas
    #[arg(long, value_name = "HOST:PORT,…", value_parser = brokers)]
    pub brokers: String,
    /// Any librdkafka setting, for all clients; may be repeated
    #[arg(short = 'X', value_name = "KEY=VALUE", value_parser = pair)]
    pub settings: Vec<(String, String)>,
    /// How many partitions an output topic gets that does not exist
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub output_partitions: u32,
    /// How many replicas a topic gets that is made; the cluster's default where nothing is said
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    pub replication_factor: Option<u16>,
    /// A setting of output topics that are made; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub topic_config: Vec<(String, String)>,
    /// Give each output record its tick: as its timestamp, in place of the time of sending, and in decimal digits in a
    /// header `fluvial-tick` (about halves the output rate)
    #[arg(long)]
    pub tick_header: bool,
    /// The consumer group under which the input's committed offsets are shown to tools that watch lag, such as
    /// kafka-consumer-groups.sh: the job's name if this is not given, and none if it is empty. The group has no members, and
    /// the job reads its own journal, never the group: --reset-offsets changes nothing, and is overwritten within seconds
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}

impl KafkaOptions {
    /// The options of a job that only says where the brokers are.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            settings: Vec::new(),
            output_partitions: 4,
            replication_factor: None,
            topic_config: Vec::new(),
            tick_header: false,
            group: None,
        }
    }

    /// Checks the options and makes the handle that sources and outputs come from. Does not wait for the cluster.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] naming the setting that librdkafka does not know or take.
    pub fn connect(&self) -> Result<Kafka, Error> {
        if let Err(why) = brokers(&self.brokers) {
            return Err(Error::new(ErrorKind::Configuration, format!("--brokers {}: {why}", self.brokers)));
        }
        Kafka::new(self.clone())
    }
}

fn brokers(text: &str) -> Result<String, String> {
    for broker in text.split(',') {
        let (host, port) = broker.rsplit_once(':').ok_or_else(|| format!("'{broker}' is not host:port"))?;
        if host.trim().is_empty() || port.trim().parse::<u16>().is_err() {
            return Err(format!("'{broker}' is not host:port"));
        }
    }
    Ok(text.to_owned())
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' is not key=value")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_unknown_setting_is_named() {
        let options =
            KafkaOptions { settings: vec![("no.such".to_owned(), "1".to_owned())], ..KafkaOptions::new("localhost:1") };
        let error = options.connect().err().unwrap();
        assert_eq!(error.kind, ErrorKind::Configuration);
        assert_eq!(error.to_string(), "-X no.such=1: librdkafka has no setting 'no.such'");
    }

    #[test]
    fn a_value_that_librdkafka_does_not_take_is_named() {
        let options = KafkaOptions {
            settings: vec![("fetch.min.bytes".to_owned(), "much".to_owned())],
            ..KafkaOptions::new("localhost:1")
        };
        let error = options.connect().err().unwrap();
        assert!(error.to_string().contains("fetch.min.bytes"), "{error}");
    }

    #[test]
    fn brokers_are_host_and_port() {
        assert!(brokers("a:1,[::1]:9092").is_ok());
        for bad in ["", "a", "a:", ":9092", "a:9092,", "a:99999"] {
            assert!(brokers(bad).is_err(), "{bad}");
        }
    }
}
