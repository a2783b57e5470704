//! The certificates of the processes of one attempt.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fluvial_protocol::group::AttemptNumber;
use rustls::client::verify_server_name;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::ParsedCertificate;
use serde::{Deserialize, Serialize};

use super::authority::{Authority, Identity, Tls};
use crate::secret::Secret;

/// The certificate authority of one attempt: processes of other attempts have other authorities, so none of them can finish a
/// handshake with a process of this one.
///
/// The coordinator makes it at random for each attempt, and it travels between nodes only; it is never stored. Each node
/// issues the certificates of its own processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptAuthority(Secret);

impl Default for AttemptAuthority {
    fn default() -> Self {
        Self::new()
    }
}

impl AttemptAuthority {
    /// The authority of a new attempt.
    #[must_use]
    pub fn new() -> Self {
        Self(Secret::new())
    }

    /// A new certificate for the process with this number.
    #[must_use]
    pub fn certificate(&self, process: u32) -> MeshCertificate {
        let identity = Authority::of(&self.0).identity(&name_of(process));
        MeshCertificate {
            authority: BASE64_STANDARD.encode(&identity.authorities[0]),
            certificate: BASE64_STANDARD.encode(&identity.chain[0]),
            key: BASE64_STANDARD.encode(identity.key.secret_der()),
        }
    }
}

/// The newest authority of each job's attempts, by the name of the job.
pub type Authorities = BTreeMap<String, (AttemptNumber, AttemptAuthority)>;

/// What proves to the other processes of an attempt which of its processes this is: a certificate of its own with its key,
/// and the certificate of the attempt's authority, which vouches for the others.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshCertificate {
    authority: String,
    certificate: String,
    key: String,
}

impl std::fmt::Debug for MeshCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MeshCertificate(…)")
    }
}

/// The name in the certificate of the process with this number. The attempt is not part of it, because no other attempt has the
/// same authority.
fn name_of(process: u32) -> String {
    format!("p{process}.fluvial")
}

impl MeshCertificate {
    /// How the process connects with the others of its attempt.
    ///
    /// # Errors
    /// The certificate is not one that [`AttemptAuthority::certificate`] has made.
    pub fn tls(&self) -> Result<Tls, rustls::Error> {
        let der = |text: &str| BASE64_STANDARD.decode(text).map_err(|error| rustls::Error::General(error.to_string()));
        let identity = Identity {
            authorities: vec![CertificateDer::from(der(&self.authority)?)],
            chain: vec![CertificateDer::from(der(&self.certificate)?)],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der(&self.key)?)),
        };
        // Both ends are this program, so there is nothing to negotiate: AES-128 is the fastest on processors of the last decade.
        let mut provider = default_provider();
        provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
        Tls::new(identity, provider)
    }

    /// The name that the certificate of the process with this number has.
    ///
    /// # Panics
    /// Never: such a name is one of the DNS.
    #[must_use]
    pub fn server_name(process: u32) -> ServerName<'static> {
        ServerName::try_from(name_of(process)).expect("a name of letters, digits and a dot")
    }

    /// Whether `certificate`, which the attempt's authority has issued, is that of the process with this number.
    #[must_use]
    pub fn is_of(certificate: &CertificateDer<'_>, process: u32) -> bool {
        let parsed = ParsedCertificate::try_from(certificate);
        parsed.and_then(|parsed| verify_server_name(&parsed, &Self::server_name(process))).is_ok()
    }
}
