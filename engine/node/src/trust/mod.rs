//! Whom nodes and processes trust: certificates, and the secrets from which they follow.
//!
//! ```text
//!   nodes:      cluster key ──► authority ──► certificate of each node          or the user's own files, or nothing
//!   processes:  random secret of the attempt ──► authority ──► certificate of each process
//! ```
//!
//! [`Trust`] is by what nodes know each other. [`AttemptAuthority`] is by what the processes of one attempt do; it is a part of
//! each attempt, however nodes know each other. Both yield [`Tls`], which allows TLS 1.3 only and wants a certificate of both
//! ends.
//!
//! **Does not** tell one node from another: whoever has the cluster key, or a certificate of the user's authority, is a node of
//! the cluster.

mod attempt;
mod authority;
mod cluster_key;
mod files;
mod key_ring;
pub mod of_users;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, ServerName, pem};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

pub use attempt::{AttemptAuthority, Authorities, MeshCertificate};
pub use authority::Tls;
pub use cluster_key::ClusterKey;
pub use key_ring::{ClusterKeys, Withdrawn};

use files::{Files, Paths};
use key_ring::KeyRing;

use crate::access::TokenHash;

/// How often a node looks whether its files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What a user gives by which nodes know each other: the file of a cluster key, or the user's own certificates, or nothing. The
/// command line of a job has these options, and that of `fluvial node`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct TrustOptions {
    /// A file with the key that all nodes share, by which they know each other; `cluster-key new` prints one. Only the user of this
    /// process may have access to it, unless it belongs to another user. Of several keys, one on each line, the first is used and all
    /// are accepted, so that a key can be replaced by another. When the file changes it is read again
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tls_cert", "tls_key", "tls_ca", "insecure"])]
    pub cluster_key_file: Option<PathBuf>,

    /// This node's certificate in PEM format, with intermediate ones, instead of a cluster key. It has to be valid for the host
    /// that --advertise names, and for clients too if it restricts its use. Files that change are read again
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "tls_ca"], conflicts_with = "insecure")]
    pub tls_cert: Option<PathBuf>,

    /// The key of that certificate in PEM format
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// The certificates of the authorities that vouch for nodes, in PEM format. Whoever has a certificate of theirs can be a node,
    /// so use authorities that issue certificates for nothing else
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_ca: Option<PathBuf>,

    /// Talk to other nodes in clear, and believe whoever connects. Whoever can reach the port can then run processes of jobs and
    /// read their data
    #[arg(long)]
    pub insecure: bool,
}

/// By what nodes know each other.
#[derive(Debug)]
pub struct Trust(Kind);

#[derive(Debug)]
enum Kind {
    /// By the user's own certificates.
    Files(Files),
    /// By certificates of the authorities that follow from cluster keys.
    ClusterKey(KeyRing),
    /// By nothing: plain TCP, on the loopback interface only unless the user has said that it is to be so.
    Plain { insecure: bool },
}

/// The kind of trust that a node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustKind {
    /// Certificates of the user. Which ones is not said, because they may be replaced one by one.
    Certificates,
    /// The cluster key with this fingerprint.
    ClusterKey(String),
    /// Nothing proves who a node is.
    Nothing,
}

impl std::fmt::Display for TrustKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Certificates => f.write_str("certificates of its own (--tls-cert)"),
            Self::ClusterKey(fingerprint) => write!(f, "a cluster key with the fingerprint {fingerprint}"),
            Self::Nothing => f.write_str("neither a cluster key nor certificates"),
        }
    }
}

/// How a node authenticates others, as it says in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its trust.
    pub trust: TrustKind,
    /// The fingerprints of the cluster keys that it accepts besides the one that it uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepts: Vec<String>,
}

/// The name in the certificates of nodes that have a cluster key. It is the same for all: the key proves that the other end is
/// a node, and no node has a secret that another has not.
const NODE: &str = "node.fluvial";

impl TrustOptions {
    /// Reads what the options name.
    ///
    /// # Errors
    /// The files cannot be used, or the options contradict each other.
    pub fn open(&self) -> Result<Trust, TrustError> {
        let Self { cluster_key_file, tls_cert, tls_key, tls_ca, insecure } = self;
        let kind = match (cluster_key_file, (tls_cert, tls_key, tls_ca), insecure) {
            (Some(path), (None, None, None), false) => Kind::ClusterKey(KeyRing::open(path)?),
            (None, (Some(certificate), Some(key), Some(authorities)), false) => Kind::Files(Files::open(Paths {
                certificate: certificate.clone(),
                key: key.clone(),
                authorities: authorities.clone(),
            })?),
            (None, (None, None, None), &insecure) => Kind::Plain { insecure },
            _ => return Err(TrustError::Contradiction),
        };
        Ok(Trust(kind))
    }
}

impl Trust {
    /// Trust in all who have the same key.
    ///
    /// # Errors
    /// Never for a key that can be read.
    pub fn of_cluster_key(key: &ClusterKey) -> Result<Self, TrustError> {
        Ok(Self(Kind::ClusterKey(KeyRing::of(key)?)))
    }

    /// Looks again and again whether the files have changed, until the runtime ends, and at once on SIGHUP. Without files there is
    /// nothing to do. They are also looked at with each new connection, but one that is open has to end when its key is removed.
    pub fn watch_files(self: &Arc<Self>, runtime: &Handle) {
        if matches!(self.0, Kind::Plain { .. }) {
            return;
        }
        let trust = Arc::clone(self);
        runtime.spawn(async move {
            let mut hangup = signal(SignalKind::hangup())
                .inspect_err(|error| tracing::warn!(%error, "SIGHUP ends this process: it cannot be watched for"))
                .ok();
            loop {
                match &mut hangup {
                    // It makes no difference which of the two it was.
                    Some(hangup) => drop(tokio::time::timeout(LOOK_EVERY, hangup.recv()).await),
                    None => tokio::time::sleep(LOOK_EVERY).await,
                }
                drop(trust.tls());
            }
        });
    }

    /// Refuses to listen at `ip` if others than this host can reach it and would not have to prove who they are.
    ///
    /// # Errors
    /// They can; the error names the options.
    pub fn permits(&self, ip: IpAddr) -> Result<(), TrustError> {
        match self.0 {
            Kind::Plain { insecure: false } if !ip.to_canonical().is_loopback() => Err(TrustError::Unprotected { ip }),
            _ => Ok(()),
        }
    }

    /// Its kind. Two nodes of different kinds cannot connect.
    #[must_use]
    pub fn kind(&self) -> TrustKind {
        match &self.0 {
            Kind::Files(_) => TrustKind::Certificates,
            Kind::ClusterKey(keys) => TrustKind::ClusterKey(keys.now().fingerprints[0].clone()),
            Kind::Plain { .. } => TrustKind::Nothing,
        }
    }

    /// What it says of itself to others.
    #[must_use]
    pub fn shown(&self) -> Shown {
        match &self.0 {
            Kind::ClusterKey(keys) => {
                let now = keys.now();
                let accepts = now.fingerprints[1..].to_vec();
                Shown { trust: TrustKind::ClusterKey(now.fingerprints[0].clone()), accepts }
            }
            Kind::Files(_) | Kind::Plain { .. } => Shown { trust: self.kind(), accepts: Vec::new() },
        }
    }

    /// Whether a node of this trust and one that shows that of its own can connect: each has to accept what the other one uses.
    #[must_use]
    pub fn fits(&self, theirs: &Shown) -> bool {
        let mine = self.shown();
        let accepts = |one: &Shown, other: &TrustKind| match other {
            TrustKind::ClusterKey(fingerprint) if one.accepts.contains(fingerprint) => true,
            other => one.trust == *other,
        };
        accepts(&mine, &theirs.trust) && accepts(theirs, &mine.trust)
    }

    /// Ends when it shows something else than when this was called, which may be never.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let changed = match &self.0 {
            Kind::ClusterKey(keys) => Some(keys.changed()),
            Kind::Files(_) | Kind::Plain { .. } => None,
        };
        async move {
            match changed {
                Some(changed) => changed.await,
                None => std::future::pending().await,
            }
        }
    }

    /// Says from now on whether a cluster key is removed.
    #[must_use]
    pub fn withdrawn(&self) -> Withdrawn {
        match &self.0 {
            Kind::ClusterKey(keys) => keys.withdrawn(),
            Kind::Files(_) | Kind::Plain { .. } => Withdrawn::never(),
        }
    }

    /// The certificates of the authorities of its cluster keys, the one in use first. Empty without a cluster key: the user has the
    /// certificates of other authorities.
    #[must_use]
    pub fn authorities(&self) -> Vec<CertificateDer<'static>> {
        match &self.0 {
            Kind::ClusterKey(keys) => keys.now().authorities.clone(),
            Kind::Files(_) | Kind::Plain { .. } => Vec::new(),
        }
    }

    /// How to accept and open connections now, or `None` for plain TCP. To be asked for each connection, because the user's
    /// certificates can change.
    #[must_use]
    pub fn tls(&self) -> Option<Tls> {
        match &self.0 {
            Kind::Files(files) => Some(files.now().nodes),
            Kind::ClusterKey(keys) => Some(keys.now().tls.clone()),
            Kind::Plain { .. } => None,
        }
    }

    /// How the API accepts connections of users now, who have tokens and no certificates, or `None` for plain TCP without tokens.
    /// To be asked for each connection.
    #[must_use]
    pub fn tls_of_users(&self) -> Option<Arc<ServerConfig>> {
        match &self.0 {
            Kind::Files(files) => Some(files.now().users),
            Kind::ClusterKey(keys) => Some(Arc::clone(&keys.now().users)),
            Kind::Plain { .. } => None,
        }
    }

    /// Whether users of the API have to show tokens.
    #[must_use]
    pub fn wants_tokens(&self) -> bool {
        !matches!(self.0, Kind::Plain { .. })
    }

    /// Whether this is the hash of an operator's token that whoever has one of the cluster keys can derive.
    pub(crate) fn is_root_token(&self, token: &TokenHash) -> bool {
        match &self.0 {
            Kind::ClusterKey(keys) => keys.now().root_tokens.contains(token),
            Kind::Files(_) | Kind::Plain { .. } => false,
        }
    }

    /// Refuses to serve the API at `ip` if others than this host can reach it and users would not have to show tokens.
    ///
    /// # Errors
    /// They can; the error names the options.
    pub fn permits_api(&self, ip: IpAddr) -> Result<(), TrustError> {
        if self.wants_tokens() || ip.to_canonical().is_loopback() {
            return Ok(());
        }
        Err(TrustError::UnprotectedApi { ip })
    }

    /// The name that the certificate of the node at `address`, a `host:port`, has to have: its host, or the name that all nodes
    /// with a cluster key have.
    ///
    /// # Errors
    /// The address has no host that a certificate could name.
    pub fn name_of(&self, address: &str) -> Result<ServerName<'static>, TrustError> {
        let name = match &self.0 {
            Kind::Files(_) => address.rsplit_once(':').map_or(address, |(host, _)| host),
            Kind::ClusterKey(_) | Kind::Plain { .. } => NODE,
        };
        let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        ServerName::try_from(name.to_owned()).map_err(|_| TrustError::NoHost { address: address.to_owned() })
    }
}

/// Nodes could not know each other.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file cannot be read.
    #[error("cannot read the {what} from {}", path.display())]
    Read {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A file with a secret can be accessed by other users.
    #[error("other users can access the cluster key in {} (mode {mode:03o}); run chmod 600 on it", path.display())]
    OthersCanAccess {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file does not hold a cluster key.
    #[error(
        "{} does not hold a cluster key, which is a line of 64 hexadecimal digits, or up to four different ones on a line each; \
         cluster-key new prints one",
        path.display()
    )]
    NotAClusterKey {
        /// The file.
        path: PathBuf,
    },
    /// A file is not in PEM format, or holds something else.
    #[error("{} does not hold the {what} in PEM format", path.display())]
    NotPem {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: pem::Error,
    },
    /// Certificates cannot be used.
    #[error("the certificate in {}, its key and its authorities cannot be used together", path.display())]
    Certificates {
        /// The file with the certificate.
        path: PathBuf,
        /// The reason.
        source: rustls::Error,
    },
    /// The key that would be used is one that this node has not accepted so far.
    #[error(
        "its first key, {fingerprint}, was not accepted by this node before, so other nodes may not know it: let it follow the \
         present one on all nodes, and put it first when they have read it"
    )]
    KeyIsNew {
        /// What tells the key from others.
        fingerprint: String,
    },
    /// The certificate that follows from the cluster key cannot be used.
    #[error("cannot make a certificate from the cluster key")]
    Derived {
        /// The reason.
        source: rustls::Error,
    },
    /// The options contradict each other.
    #[error("give either --cluster-key-file, or all of --tls-cert, --tls-key and --tls-ca, or --insecure")]
    Contradiction,
    /// Others than this host could connect, and nothing would prove who they are.
    #[error(
        "other hosts can reach {ip}: give --cluster-key-file (cluster-key new prints a key), or --tls-cert, --tls-key and \
         --tls-ca, by which copies know each other, or --insecure"
    )]
    Unprotected {
        /// The address to listen at.
        ip: IpAddr,
    },
    /// Others than this host could use the API, which would ask for no token.
    #[error(
        "other hosts can reach the API at {ip}, and it would ask for no token: give --cluster-key-file (cluster-key new prints a \
         key), or --tls-cert, --tls-key and --tls-ca. Without them it is served on the loopback interface only"
    )]
    UnprotectedApi {
        /// The address to listen at.
        ip: IpAddr,
    },
    /// An address names no host.
    #[error("{address} names no host that a certificate could be valid for")]
    NoHost {
        /// The address.
        address: String,
    },
}
