//! Sends the messages for one receiver.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use fluvial_protocol::group::{Message, NodeId};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};

use super::connection::{ANSWERS_WITHIN, Answer, Connection, Hello, NotOpened, spoken};
use super::seldom::Seldom;
use super::{Envelope, LinkEvent, Outboxes, Shared};
use crate::trust::{Shown, TrustKind};

/// How long a connection stays open without a message.
const IDLE: Duration = Duration::from_secs(60);

/// The messages that wait for one receiver: of each kind the newest.
pub(super) struct Outbox {
    waiting: Mutex<[Option<Envelope>; 4]>,
    changed: Notify,
    task: Mutex<Option<AbortHandle>>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self { waiting: Mutex::new([const { None }; 4]), changed: Notify::new(), task: Mutex::new(None) }
    }

    /// Notes the task that sends what waits here.
    pub(super) fn runs_in(&self, task: &JoinHandle<()>) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
    }

    /// Ends the task.
    pub(super) fn close(&self) {
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }

    /// Takes a message in the place of an older one of its kind.
    pub(super) fn put(&self, envelope: Envelope) {
        let kind = match envelope.message {
            Message::Orders(_) => 0,
            Message::Status(_) => 1,
            Message::Ask { .. } => 2,
            Message::Hears { .. } => 3,
        };
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)[kind] = Some(envelope);
        self.changed.notify_one();
    }

    fn next(&self) -> Option<Envelope> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().find_map(Option::take)
    }

    fn is_empty(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).iter().all(Option::is_none)
    }
}

/// Why there is no connection to the receiver.
enum Unlinked {
    /// Nobody of its identity answers at its address.
    Gone,
    /// It sees another store, which is here.
    OtherStore(String),
    /// It authenticates others by something else than this node.
    OtherTrust(TrustKind),
    /// It speaks another version of the messages.
    OtherVersion(u32),
    /// Something listens at its address, and does not speak as a node that has the same trust.
    Insecure(io::Error),
    /// It may be there.
    Failed(io::Error),
}

/// Sends what is put into the outbox, until nothing has been put there for a minute.
pub(super) fn send(
    to: NodeId,
    outbox: Arc<Outbox>,
    shared: Arc<Shared>,
    outboxes: &Arc<Outboxes>,
) -> impl Future<Output = ()> + Send + use<> {
    let outboxes = Arc::downgrade(outboxes);
    async move {
        let mut link = Link { to, shared, connection: None, used: false, trusted: false, failed: Seldom::default() };
        loop {
            match tokio::time::timeout(IDLE, link.wait(&outbox)).await {
                Err(_) if retire(&link.to, &outbox, &outboxes) => return,
                Ok(false) => {}
                Ok(true) | Err(_) => link.carry(&outbox).await,
            }
        }
    }
}

/// Takes the outbox out of the list, unless a message has just been put there.
fn retire(to: &NodeId, outbox: &Outbox, outboxes: &Weak<Outboxes>) -> bool {
    let Some(outboxes) = outboxes.upgrade() else { return true };
    let mut outboxes = outboxes.lock().unwrap_or_else(PoisonError::into_inner);
    let idle = outbox.is_empty();
    if idle {
        outboxes.remove(to);
    }
    idle
}

struct Link {
    to: NodeId,
    shared: Arc<Shared>,
    connection: Option<Connection>,
    /// Whether a message has been sent on the connection.
    used: bool,
    /// Whether it is known that the receiver authenticates others by the same as this node.
    trusted: bool,
    failed: Seldom,
}

impl Link {
    /// Waits for a message, or for the end of the connection. Returns whether there is something to do: a connection that
    /// has ended without having been used is not tried again at once, or two nodes could keep each other busy.
    async fn wait(&mut self, outbox: &Outbox) -> bool {
        let Some(connection) = &mut self.connection else {
            outbox.changed.notified().await;
            return true;
        };
        tokio::select! {
            () = outbox.changed.notified() => true,
            () = connection.ends() => {
                self.connection = None;
                self.used
            }
        }
    }

    /// Sends what waits. Where there is no connection, one is tried once, also without a message: when the connection has
    /// ended, this tells a node that is gone from one that has only lost a connection.
    async fn carry(&mut self, outbox: &Outbox) {
        if self.connection.is_none() {
            let connected = match self.connect().await {
                Err(Unlinked::Insecure(error)) => Err(self.explain(error).await),
                other => other,
            };
            match connected {
                Ok(connection) => {
                    (self.connection, self.used, self.trusted) = (Some(connection), false, true);
                    self.shared.welcomed.store(true, Ordering::Relaxed);
                }
                Err(Unlinked::Gone) => return (self.shared.events)(LinkEvent::Gone(self.to.clone())),
                Err(Unlinked::OtherStore(theirs)) => {
                    let (to, mine) = (&self.to, self.shared.proof.store());
                    let why = format!(
                        "this copy uses another store, '{mine}', than the copy at {to}, '{theirs}': give --store the same \
                         location on all hosts"
                    );
                    return (self.shared.events)(LinkEvent::OtherStore(why));
                }
                Err(Unlinked::OtherTrust(theirs)) => {
                    let (to, mine) = (&self.to, self.shared.trust.kind());
                    let why = format!(
                        "this copy has {mine}, and the copy at {to} has {theirs}, so they cannot connect: give all copies the \
                         same --cluster-key-file. A key is replaced in three steps, each on all copies: the new one is added to the \
                         file, put first, and the old one removed"
                    );
                    self.failed(&io::Error::other(why.clone()));
                    return (self.shared.events)(LinkEvent::OtherTrust(why));
                }
                Err(Unlinked::OtherVersion(theirs)) => {
                    let older = if theirs < spoken() { "that" } else { "this" };
                    let why = format!(
                        "this node speaks version {} of the messages between nodes, and the node at {} version {theirs}: \
                         upgrade {older} node, one version after the other",
                        spoken(),
                        self.to
                    );
                    self.failed(&io::Error::other(why.clone()));
                    // Where others understand it, it is the other one that is to be upgraded.
                    if !self.shared.welcomed.load(Ordering::Relaxed) {
                        (self.shared.events)(LinkEvent::OtherVersion(why));
                    }
                    return;
                }
                Err(Unlinked::Failed(error) | Unlinked::Insecure(error)) => return self.failed(&error),
            }
        }
        while let (Some(connection), Some(mut envelope)) = (&mut self.connection, outbox.next()) {
            self.used = true;
            // Here, because a message that waits may be replaced.
            envelope.history = self.shared.history.as_ref().and_then(|history| history.for_node(&self.to));
            if let Err(error) = connection.write(&envelope).await {
                self.connection = None;
                self.failed(&error);
            }
        }
    }

    fn failed(&self, error: &io::Error) {
        if let Some(left_out) = self.failed.now() {
            tracing::warn!(to = %self.to, %error, left_out, "cannot send to another copy");
        }
    }

    /// Why something that listens at the receiver's address is not connected. The address may belong to something else by now,
    /// so only what the receiver has said of itself in the store counts. A node that others have welcomed has the right trust.
    async fn explain(&mut self, error: io::Error) -> Unlinked {
        if !self.trusted && !self.shared.welcomed.load(Ordering::Relaxed) {
            let theirs = tokio::time::timeout(ANSWERS_WITHIN, self.shared.proof.trust_of(&self.to)).await;
            match theirs {
                Ok(Some(theirs)) if !self.shared.trust.fits(&theirs) => {
                    let Shown { trust, .. } = theirs;
                    return Unlinked::OtherTrust(trust);
                }
                Ok(Some(_)) => self.trusted = true,
                Ok(None) | Err(_) => {}
            }
        }
        Unlinked::Failed(error)
    }

    async fn connect(&self) -> Result<Connection, Unlinked> {
        let shared = &self.shared;
        shared.proof.is_shown().await;
        let opened = Connection::open(&self.to.address, &shared.trust).await;
        let mut connection = opened.map_err(|error| match error {
            NotOpened::Refused => Unlinked::Gone,
            NotOpened::Insecure(error) => Unlinked::Insecure(error),
            NotOpened::Failed(error) => Unlinked::Failed(error),
        })?;
        let store = shared.proof.store().to_owned();
        let hello = Hello::Messages { from: shared.me.clone(), to: self.to.clone(), store, protocol: spoken() };
        let asked = async {
            connection.write(&hello).await?;
            connection.read().await?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        let answered = tokio::time::timeout(ANSWERS_WITHIN, asked).await.map_err(io::Error::from);
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::InvalidData => {
                Unlinked::Insecure(error)
            }
            _ => Unlinked::Failed(error),
        };
        match answered.and_then(|answer| answer).map_err(failed)? {
            Answer::Welcome => Ok(connection),
            Answer::NotMe => Err(Unlinked::Gone),
            Answer::OtherStore(theirs) => Err(Unlinked::OtherStore(theirs)),
            Answer::OtherVersion(theirs) => Err(Unlinked::OtherVersion(theirs)),
            Answer::Later(why) => Err(Unlinked::Failed(io::Error::other(why))),
            Answer::View(_) | Answer::Report(_) | Answer::Changed(_) | Answer::Logs(_) => {
                Err(Unlinked::Failed(io::ErrorKind::InvalidData.into()))
            }
        }
    }
}
