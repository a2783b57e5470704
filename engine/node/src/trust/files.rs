//! The user's own certificates, which are read again when their files change.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::authority::{Identity, Tls};
use super::{TrustError, of_users};

/// Files in PEM format.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    /// The certificate of this node, followed by those that link it to an authority.
    pub(super) certificate: PathBuf,
    /// Its key.
    pub(super) key: PathBuf,
    /// The certificates of the authorities that vouch for nodes.
    pub(super) authorities: PathBuf,
}

/// What tells one state of a file from another: when it was written, and as which object. A renewed certificate is usually
/// another file under the same name, or under the same link.
type Stamp = Option<(i64, i64, u64, u64)>;

impl Paths {
    fn stamps(&self) -> [Stamp; 3] {
        [&self.certificate, &self.key, &self.authorities].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.mtime(), metadata.mtime_nsec(), metadata.ino(), metadata.len()))
        })
    }

    fn read(&self) -> Result<Both, TrustError> {
        let identity = Identity {
            authorities: certificates("authorities' certificates", &self.authorities)?,
            chain: certificates("certificate", &self.certificate)?,
            key: PrivateKeyDer::from_pem_file(&self.key).map_err(|error| unreadable("key", &self.key, error))?,
        };
        let users = of_users::server(&identity);
        users
            .and_then(|users| Ok(Both { users, nodes: Tls::new(identity, default_provider())? }))
            .map_err(|source| TrustError::Certificates { path: self.certificate.clone(), source })
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read.map_err(|error| unreadable(what, path, error))? {
        none if none.is_empty() => {
            Err(TrustError::NotPem { what, path: path.to_owned(), source: pem::Error::NoItemsFound })
        }
        certificates => Ok(certificates),
    }
}

fn unreadable(what: &'static str, path: &Path, error: pem::Error) -> TrustError {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => TrustError::Read { what, path, source },
        source => TrustError::NotPem { what, path, source },
    }
}

/// What follows from the files.
#[derive(Clone, Debug)]
pub(super) struct Both {
    /// For connections between nodes.
    pub(super) nodes: Tls,
    /// For connections of users to the API.
    pub(super) users: Arc<ServerConfig>,
}

/// Certificates as the files hold them now.
#[derive(Debug)]
pub(super) struct Files {
    paths: Paths,
    read: Mutex<([Stamp; 3], Both)>,
}

impl Files {
    pub(super) fn open(paths: Paths) -> Result<Self, TrustError> {
        let read = Mutex::new((paths.stamps(), paths.read()?));
        Ok(Self { paths, read })
    }

    /// How to connect and to be connected to now. Files that cannot be used, as while they are being replaced one after the other, leave it as it was.
    pub(super) fn now(&self) -> Both {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before the files are read: a change in between is another one, and is seen next time.
        let stamps = self.paths.stamps();
        if stamps != read.0 {
            match self.paths.read() {
                Ok(both) => {
                    tracing::info!(certificate = %self.paths.certificate.display(), "the TLS files have changed and were read again");
                    read.1 = both;
                }
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "the TLS files have changed and cannot be used; the old ones stay in use"
                    );
                }
            }
            read.0 = stamps;
        }
        read.1.clone()
    }
}
