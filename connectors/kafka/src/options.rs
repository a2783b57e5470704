//! The command-line options for Kafka.

use std::path::PathBuf;

use fluvial_connector::Error;

use crate::config::Setting;
use crate::kafka::Kafka;

/// The command-line options of a job that uses this connector: how to reach a Kafka cluster, and how to create topics there.
///
/// ```
/// use clap::Parser;
/// use fluvial_kafka::KafkaOptions;
///
/// #[derive(clap::Parser)]
/// struct Options {
///     #[command(flatten)]
///     kafka: KafkaOptions,
/// }
///
/// let options = Options::parse_from(["job", "--brokers", "localhost:9092", "-X", "linger.ms=5"]);
/// assert_eq!(options.kafka.output_partitions, 4); // the default of --output-partitions
/// let kafka = options.kafka.connect()?;
/// assert_eq!(kafka.source("orders").topic(), "orders");
///
/// let wrong = Options::parse_from(["job", "--brokers", "localhost:9092", "-X", "linger=5"]);
/// assert_eq!(wrong.kafka.connect().unwrap_err().to_string(), "-X linger: librdkafka has no setting 'linger'");
/// # Ok::<(), fluvial_connector::Error>(())
/// ```
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Kafka")]
// The id of the group tells the engine that these options do not decide what a job computes.
#[group(id = "kafka-connection")]
pub struct KafkaOptions {
    /// The bootstrap brokers, as host:port separated by commas. Not needed if --kafka-config sets bootstrap.servers
    #[arg(long, value_name = "HOST:PORT,…", value_parser = brokers, required_unless_present = "kafka_config")]
    pub brokers: Option<String>,
    /// A properties file with settings for all Kafka clients of the job, with the names of Kafka's own tools or of
    /// librdkafka; for example for TLS and SASL. Values may refer to ${env:NAME}, ${file:PATH:KEY} or ${dir:PATH:FILE}
    #[arg(long, value_name = "FILE")]
    pub kafka_config: Option<PathBuf>,
    /// A librdkafka setting for all Kafka clients of the job. May be repeated, and overrides --kafka-config. Other users of
    /// this host can read command lines, so write a secret as -X 'sasl.password=${env:NAME}', or in a cluster as -X
    /// sasl.password=file:PATH, which its nodes resolve
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    pub settings: Vec<Setting>,
    /// The number of partitions of an output topic that the job creates
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub output_partitions: u32,
    /// The replication factor of topics that the job creates [default: the cluster's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=32))]
    pub replication_factor: Option<u16>,
    /// A topic setting, such as compression.type=zstd, for output topics that the job creates. May be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    pub topic_config: Vec<(String, String)>,
    /// Write the tick of each output record as the record's timestamp, instead of the time of sending, and in decimal digits
    /// in a header `fluvial-tick`. This halves the output rate, approximately
    #[arg(long)]
    pub tick_header: bool,
    /// The consumer group under which the job reports committed input offsets to tools that monitor lag, such as
    /// kafka-consumer-groups.sh; an empty GROUP reports nothing. The group has no members. The job takes its position from its
    /// journal, so that --reset-offsets of the group has no effect and is overwritten within seconds [default: the job's name]
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}

impl KafkaOptions {
    /// The options with these brokers and the default values of all others.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: Some(brokers.into()),
            kafka_config: None,
            settings: Vec::new(),
            output_partitions: 4,
            replication_factor: None,
            topic_config: Vec::new(),
            tick_header: false,
            group: None,
        }
    }

    /// Checks the options and returns the handle that sources and outputs are created from. Does not wait for the cluster.
    ///
    /// # Errors
    /// [`Configuration`](fluvial_connector::ErrorKind::Configuration), naming the setting that librdkafka does not know, whose
    /// value it does not accept, or that refers to something that does not exist.
    pub fn connect(&self) -> Result<Kafka, Error> {
        Kafka::new(self.clone())
    }
}

/// Checks a list of brokers.
pub(crate) fn brokers(text: &str) -> Result<String, String> {
    for broker in text.split(',') {
        let (host, port) = broker.rsplit_once(':').ok_or_else(|| format!("'{broker}' is not host:port"))?;
        if host.contains('/') {
            return Err(format!("'{broker}' is not host:port: remove what precedes the host"));
        }
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
    use fluvial_connector::ErrorKind;

    use super::*;

    #[test]
    fn an_unknown_setting_is_named() {
        let options = KafkaOptions { settings: vec![Setting::new("no.such", "1")], ..KafkaOptions::new("localhost:1") };
        let error = options.connect().err().unwrap();
        assert_eq!(error.kind, ErrorKind::Configuration);
        assert_eq!(error.to_string(), "-X no.such: librdkafka has no setting 'no.such'");
    }

    #[test]
    fn a_value_that_librdkafka_does_not_take_is_named() {
        let options = KafkaOptions {
            settings: vec![Setting::new("fetch.min.bytes", "much")],
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
