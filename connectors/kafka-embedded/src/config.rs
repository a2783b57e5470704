//! What can be chosen about a broker.

use std::net::SocketAddr;
use std::time::Duration;

/// How a [`Broker`](crate::Broker) is to be; the default suits tests.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. Port 0 (the default, on the loopback) takes a free one.
    pub listen: SocketAddr,
    /// The `host:port` that clients are told to connect to, when it is not where the broker listens.
    pub advertise: Option<(String, u16)>,
    /// The most that records may take; beyond, producing fails with `POLICY_VIOLATION` and an error is logged. Default 1 GiB.
    pub memory_limit_bytes: usize,
    /// The partitions of a topic for which nothing else is asked. Default 1.
    pub default_partitions: i32,
    /// Whether a topic comes into being when a client asks for its metadata. Default no.
    pub auto_create: bool,
    /// Whether topics have ids, as with Kafka 2.8 and newer. Default yes.
    pub topic_ids: bool,
    /// The longest transaction timeout that a producer may ask for. Default 15 minutes, as Kafka's.
    pub max_transaction_timeout: Duration,
    /// The shortest session timeout that a consumer may ask for. Default 6 s, as Kafka's.
    pub min_session_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            memory_limit_bytes: 1 << 30,
            default_partitions: 1,
            auto_create: false,
            topic_ids: true,
            max_transaction_timeout: Duration::from_secs(15 * 60),
            min_session_timeout: Duration::from_secs(6),
        }
    }
}
