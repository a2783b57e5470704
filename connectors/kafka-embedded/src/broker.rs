//! A running broker: its thread, its listener and its alarm clock.
//!
//! Life is ownership: the broker ends, with all its connections and records, when it is dropped.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use kafka_protocol::messages::ApiKey;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::clock::Now;
use crate::fault::{Fault, Faults};
use crate::state::State;
use crate::state::settings::{Change, Settings};
use crate::state::topics::Named;
use crate::{Config, Error, Refusal, Result, connection};

/// A Kafka broker in this process. Dropping it ends it.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What all connections of a broker share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    /// Where clients are told to connect to.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) cluster_id: String,
    state: Mutex<State>,
    watched: Mutex<Watched>,
    /// How far the broker's wall clock is ahead of the host's.
    pub(crate) clock_ahead_ms: AtomicI64,
    /// Changes when all connections are to be closed.
    pub(crate) disconnect: watch::Sender<()>,
}

/// The requests: what is to go wrong, and how many there were.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    pub(crate) faults: Faults,
    pub(crate) requests: HashMap<ApiKey, u64>,
}

impl Shared {
    /// The state, locked. A panic under the lock does not spoil it for the other connections of a test.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Faults and counts, locked.
    pub(crate) fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Broker {
    /// Starts a broker on a thread of its own; it takes connections when this returns.
    ///
    /// # Errors
    ///
    /// When it cannot listen there, or has no thread.
    pub fn start(config: Config) -> Result<Self> {
        let listen = config.listen;
        let failed = |source| Error::Listen { listen, source };
        let listener = std::net::TcpListener::bind(listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (host, port) = config.advertise.clone().unwrap_or_else(|| {
            let host = if address.ip().is_unspecified() { "127.0.0.1".to_owned() } else { address.ip().to_string() };
            (host, address.port())
        });
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(config.memory_limit_bytes)),
            watched: Mutex::default(),
            clock_ahead_ms: AtomicI64::new(0),
            cluster_id: uuid::Uuid::new_v4().simple().to_string(),
            disconnect: watch::Sender::default(),
            config,
            host,
            port,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Start)?;
        let (end, ended) = oneshot::channel();
        let served = Arc::clone(&shared);
        let serve = move || {
            runtime.block_on(async move {
                tokio::select! {
                    _ = ended => {}
                    () = listen_on(listener, Arc::clone(&served)) => {}
                    () = watch_clock(&served) => {}
                }
            });
        };
        let thread =
            std::thread::Builder::new().name("kafka-embedded".to_owned()).spawn(serve).map_err(Error::Start)?;
        tracing::info!(%address, "embedded broker listens");
        Ok(Self { shared, address, end: Some(end), thread: Some(thread) })
    }

    /// What its connections share, for tests that ask it without a socket.
    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What clients set as `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        let Shared { host, port, .. } = &*self.shared;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Where the broker listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a topic.
    ///
    /// # Errors
    ///
    /// When it exists, or has a name or a number of partitions that no topic can have.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.create_topic_with(name, partitions, [])
    }

    /// Makes a topic with settings, such as `("max.message.bytes", "5000000")`.
    ///
    /// # Errors
    ///
    /// As [`create_topic`](Self::create_topic), and for a setting that does not exist or cannot have that value.
    pub fn create_topic_with<'a>(
        &self,
        name: &str,
        partitions: i32,
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<()> {
        let refused = |refusal: Refusal| Error::CreateTopic { topic: name.to_owned(), why: refusal.message };
        let mut chosen = Settings::default();
        for (setting, value) in settings {
            chosen.change(setting, Change::Set, Some(value)).map_err(refused)?;
        }
        self.shared.state().topics.create(name, partitions, chosen).map_err(refused)?;
        Ok(())
    }

    /// The topics and the number of their partitions.
    pub fn topics(&self) -> BTreeMap<String, usize> {
        self.shared.state().topics.iter().map(|(name, topic)| (name.clone(), topic.partitions.len())).collect()
    }

    /// The end offset of each partition of a topic, in order; none if there is no such topic.
    pub fn end_offsets(&self, topic: &str) -> Vec<i64> {
        let state = self.shared.state();
        let found = state.topics.get(Named::Name(topic));
        found.map(|t| t.partitions.iter().map(|p| p.log.end()).collect()).unwrap_or_default()
    }

    /// The memory that records take, which the limit bounds.
    pub fn memory_bytes(&self) -> usize {
        self.shared.state().memory.used()
    }

    /// Lets requests go wrong from now on.
    pub fn fault(&self, fault: Fault) {
        self.shared.watched().faults.add(fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.shared.watched().faults.clear();
    }

    /// From now on transactions end in the partitions of this topic without a marker, as after a loss of markers in Kafka
    /// (KAFKA-20734): the coordinator knows that the transaction is over, the partition does not.
    pub fn withhold_markers(&self, topic: &str) {
        self.shared.state().withheld = Some(topic.to_owned());
    }

    /// Aborts what [`Broker::withhold_markers`] has left open, as `kafka-transactions.sh abort` does.
    pub fn abort_withheld(&self) {
        self.shared.state().abort_withheld(Now::read());
    }

    /// Removes a partition's leader, or restores it: without one the partition exists and nobody serves it, as where
    /// the broker that holds its only replica is down.
    ///
    /// # Panics
    ///
    /// There is no such partition.
    pub fn set_leader(&self, topic: &str, partition: i32, has_leader: bool) {
        let mut state = self.shared.state();
        let partition = state.topics.partition_mut(Named::Name(topic), partition).expect("the partition exists");
        partition.leaderless = !has_leader;
        partition.waiters.wake_all();
    }

    /// Sets the clock with which timestamps of records are compared, in milliseconds ahead of the host's clock; negative values
    /// set it behind.
    pub fn set_clock_ahead_ms(&self, ms: i64) {
        self.shared.clock_ahead_ms.store(ms, Ordering::Relaxed);
    }

    /// How many requests of an API have come in.
    pub fn requests(&self, api: ApiKey) -> u64 {
        self.shared.watched().requests.get(&api).copied().unwrap_or_default()
    }

    /// Closes all connections, as a restarting broker would; clients may connect again at once.
    pub fn disconnect_all(&self) {
        self.shared.disconnect.send_replace(());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the embedded broker's thread has panicked");
        }
    }
}

async fn listen_on(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the embedded broker cannot listen"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(connection::serve(stream, peer, Arc::clone(&shared)));
            }
            Err(error) => {
                // Out of descriptors, most likely: without a pause this would spin until one is free.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

/// Does what is due when it is due, and nothing else.
async fn watch_clock(shared: &Shared) {
    let nearer = Arc::clone(&shared.state().alarm.nearer);
    loop {
        let next = shared.state().expire(Now::read());
        match next {
            Some(deadline) => {
                let _ = tokio::time::timeout_at(deadline.into(), nearer.notified()).await;
            }
            None => nearer.notified().await,
        }
    }
}
