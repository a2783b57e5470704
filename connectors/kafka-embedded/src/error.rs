//! What can go wrong with a broker in this process.

use std::net::SocketAddr;

/// An error of [`Broker`](crate::Broker).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is taken, or not this machine's.
    #[error("cannot listen on {listen}: choose another address, or port 0 for a free one")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The reason.
        source: std::io::Error,
    },
    /// The operating system gave no thread or event queue.
    #[error("cannot start the embedded broker's thread")]
    Start(#[source] std::io::Error),
    /// A topic could not be made.
    #[error("cannot create topic {topic}: {why}")]
    CreateTopic {
        /// The topic.
        topic: String,
        /// Kafka's error and the reason.
        why: String,
    },
}

/// The result of a call on a broker.
pub type Result<T> = std::result::Result<T, Error>;
