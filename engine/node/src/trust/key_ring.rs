//! The cluster keys of a node: one, or several while one is being replaced by another.
//!
//! ```text
//!   file:  key in use         the node's own certificate follows from it, on links and on the API
//!          further keys       whoever has one of these is accepted all the same
//! ```
//!
//! A key is replaced in three steps, each of which is done on all nodes before the next one: the new key is added as the last one, it
//! becomes the first one, and the old one is removed. After each step every node accepts what every other node shows.
//!
//! **Guarantees** that a node never shows a key that it did not accept before, because nodes that have not been told of the key
//! would refuse this one. When a key is removed, all links end that were made before ([`Withdrawn`]); those who still have a key make them again.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use super::authority::{Authority, Tls};
use super::cluster_key::{ClusterKey, NODES};
use super::{NODE, TrustError, of_users};
use crate::access::TokenHash;

/// How many keys a file holds at most: two, while one is replaced by another, and some more for who replaces one in haste.
const MOST_KEYS: usize = 4;

/// The keys of a file, of which there is at least one. The first one is used, and all are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterKeys(Vec<ClusterKey>);

impl ClusterKeys {
    /// These keys, in this order. `None` if there are none, too many, or one of them twice.
    #[must_use]
    pub fn of(keys: Vec<ClusterKey>) -> Option<Self> {
        let twice = keys.iter().enumerate().any(|(at, key)| keys[..at].contains(key));
        ((1..=MOST_KEYS).contains(&keys.len()) && !twice).then_some(Self(keys))
    }

    /// Reads the keys of a file, which has one on each line.
    ///
    /// # Errors
    /// The file cannot be read, other users can access it, or it does not hold keys.
    pub fn read(path: &Path) -> Result<Self, TrustError> {
        let text = ClusterKey::read_text(path)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let keys: Option<Vec<_>> = lines.map(ClusterKey::of_text).collect();
        let wrong = || TrustError::NotAClusterKey { path: path.to_owned() };
        keys.and_then(Self::of).ok_or_else(wrong)
    }

    /// The key that is used.
    #[must_use]
    pub fn first(&self) -> &ClusterKey {
        &self.0[0]
    }

    /// All keys, in their order.
    #[must_use]
    pub fn all(&self) -> &[ClusterKey] {
        &self.0
    }

    /// The certificates of the authorities that vouch for nodes, in the order of their keys.
    #[must_use]
    pub fn authorities(&self) -> Vec<CertificateDer<'static>> {
        self.0.iter().map(ClusterKey::authority).collect()
    }

    /// The text of a file with these keys.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.0.iter().map(|key| key.to_text() + "\n").collect()
    }
}

/// What follows from the keys.
#[derive(Debug)]
pub(super) struct InUse {
    keys: ClusterKeys,
    /// How nodes connect.
    pub(super) tls: Tls,
    /// How the API accepts users.
    pub(super) users: Arc<ServerConfig>,
    /// The hashes of the tokens that whoever has one of the keys can derive.
    pub(super) root_tokens: Vec<TokenHash>,
    /// What tells the keys from others, in their order.
    pub(super) fingerprints: Vec<String>,
    /// The authorities of the keys, in their order.
    pub(super) authorities: Vec<CertificateDer<'static>>,
}

impl InUse {
    fn of(keys: ClusterKeys) -> Result<Self, TrustError> {
        let derived = |source| TrustError::Derived { source };
        let authority = authority_of(keys.first());
        let others = keys.all()[1..].iter().map(authority_of);
        let authorities = keys.authorities();
        let mut identity = authority.identity(NODE);
        identity.authorities.clone_from(&authorities);
        let tls = Tls::new(identity, default_provider()).map_err(derived)?;
        let mut identity = authority.server_identity(NODE);
        // A client that knows the authority of another key only believes this node by these. The authority itself stays the last one.
        let last = identity.chain.len() - 1;
        let crossed = others.map(|other| other.vouches_for(&authority));
        identity.chain.splice(last..last, crossed);
        let users = of_users::server(&identity).map_err(derived)?;
        let root_tokens = keys.all().iter().map(|key| key.root_token().hash()).collect();
        let fingerprints = keys.all().iter().map(ClusterKey::fingerprint).collect();
        Ok(Self { keys, tls, users, root_tokens, fingerprints, authorities })
    }
}

fn authority_of(key: &ClusterKey) -> Authority {
    Authority::of(&key.derive(NODES))
}

/// What tells one state of the file from another.
type Stamp = Option<(i64, i64, u64, u64)>;

fn stamp(path: &Path) -> Stamp {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.mtime(), metadata.mtime_nsec(), metadata.ino(), metadata.len()))
}

/// How often the keys have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Changes {
    all: u64,
    /// Those by which a key was removed.
    withdrawn: u64,
}

/// The keys of a node, which change with their file.
#[derive(Debug)]
pub(super) struct KeyRing {
    /// `None` for a key that came from no file.
    path: Option<PathBuf>,
    state: Mutex<(Stamp, Arc<InUse>)>,
    changes: watch::Sender<Changes>,
}

impl KeyRing {
    /// The keys of a file.
    pub(super) fn open(path: &Path) -> Result<Self, TrustError> {
        // Taken before the file is read: a change in between is another one, and is seen next time.
        let stamp = stamp(path);
        let now = Arc::new(InUse::of(ClusterKeys::read(path)?)?);
        Ok(Self { path: Some(path.to_owned()), state: Mutex::new((stamp, now)), changes: watch::Sender::default() })
    }

    /// One key that does not change.
    pub(super) fn of(key: &ClusterKey) -> Result<Self, TrustError> {
        let now = Arc::new(InUse::of(ClusterKeys(vec![key.clone()]))?);
        Ok(Self { path: None, state: Mutex::new((None, now)), changes: watch::Sender::default() })
    }

    /// What follows from the keys that the file holds now. A file that cannot be used leaves it as it was.
    pub(super) fn now(&self) -> Arc<InUse> {
        let mut state = self.state();
        if let Some(path) = &self.path {
            let stamp = stamp(path);
            if stamp != state.0 {
                state.0 = stamp;
                match self.next(path, &state.1.keys) {
                    Ok(Some(next)) => {
                        let withdrawn = state.1.keys.all().iter().any(|key| !next.keys.all().contains(key));
                        state.1 = Arc::new(next);
                        let (uses, keys) = (&state.1.fingerprints[0], state.1.fingerprints.len());
                        tracing::info!(uses, keys, withdrawn, "the cluster key file has changed and was read again");
                        self.changes.send_modify(|changes| {
                            changes.all += 1;
                            changes.withdrawn += u64::from(withdrawn);
                        });
                    }
                    Ok(None) => {}
                    Err(error) => {
                        let (file, error) = (path.display(), format!("{:#}", anyhow::Error::from(error)));
                        tracing::warn!(%file, error, "the cluster key file has changed and cannot be used; the old keys stay in use");
                    }
                }
            }
        }
        Arc::clone(&state.1)
    }

    /// What follows from the keys of the file, if they are others than before.
    fn next(&self, path: &Path, before: &ClusterKeys) -> Result<Option<InUse>, TrustError> {
        let keys = ClusterKeys::read(path)?;
        if keys == *before {
            return Ok(None);
        }
        if !before.all().contains(keys.first()) {
            return Err(TrustError::KeyIsNew { fingerprint: keys.first().fingerprint() });
        }
        InUse::of(keys).map(Some)
    }

    fn state(&self) -> MutexGuard<'_, (Stamp, Arc<InUse>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when other keys are in use than when this was called.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut changes = self.changes.subscribe();
        async move {
            if changes.changed().await.is_err() {
                std::future::pending().await
            }
        }
    }

    pub(super) fn withdrawn(&self) -> Withdrawn {
        let changes = self.changes.subscribe();
        let then = changes.borrow().withdrawn;
        Withdrawn(Some((changes, then)))
    }
}

/// Says whether a key has been removed since this was made. What was agreed upon before does not count any more then.
#[derive(Clone, Debug)]
pub struct Withdrawn(Option<(watch::Receiver<Changes>, u64)>);

impl Withdrawn {
    /// Where there are no keys, none is removed.
    pub(crate) fn never() -> Self {
        Self(None)
    }

    /// Whether it has happened.
    #[must_use]
    pub fn has_happened(&self) -> bool {
        self.0.as_ref().is_some_and(|(changes, then)| changes.borrow().withdrawn != *then)
    }

    /// Waits until it happens, which may be never.
    pub async fn happens(&mut self) {
        if let Some((changes, then)) = &mut self.0
            && changes.wait_for(|changes| changes.withdrawn != *then).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests;
