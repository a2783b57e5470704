//! TLS between users and the API of a node.
//!
//! A node shows a certificate, and a user a token, so users need no certificates. A user's client trusts the authority of the cluster,
//! which it knows from the cluster key, from a file, or by a fingerprint that a person has compared.
//!
//! With a cluster key all nodes have certificates for the same name, so a client accepts that name at every address: it proves that
//! the node belongs to the cluster, not which one it is. Certificates of the user's own have to be valid for the host of the
//! address.

use std::io::{self, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use ring::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};

use super::NODE;
use super::authority::Identity;

/// How long a connection and each step of its handshake may take.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);

/// How a node accepts users.
pub(super) fn server(identity: &Identity) -> Result<Arc<ServerConfig>, Error> {
    let mut server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    server.send_tls13_tickets = 0;
    Ok(Arc::new(server))
}

/// How a user's client connects to nodes for which one of these authorities vouches.
///
/// # Errors
/// None of them is a certificate that can be used.
pub fn client(authorities: &[CertificateDer<'static>]) -> Result<ClientConfig, Error> {
    let provider = Arc::new(default_provider());
    let verifier = Arc::new(NodeOfCluster(webpki(authorities, &provider)?));
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}

fn webpki(
    authorities: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities.iter().cloned());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| Error::General(error.to_string()))
}

/// The certificates in a text of PEM format.
///
/// # Errors
/// It is in another format, or holds none.
pub fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    let found = CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    if found.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(found) }
}

/// Certificates in PEM format.
#[must_use]
pub fn to_pem(certificates: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for certificate in certificates {
        let encoded = base64::engine::general_purpose::STANDARD.encode(certificate);
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for at in (0..encoded.len()).step_by(64) {
            text.push_str(&encoded[at..encoded.len().min(at + 64)]);
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// The SHA-256 of a certificate in hexadecimal digits, as `openssl x509 -fingerprint -sha256` prints it (there in capital letters
/// and with colons).
#[must_use]
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    digest::digest(&digest::SHA256, certificate).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the node at an address shows of itself. Nothing is believed yet, and nothing is sent.
///
/// # Errors
/// Nobody answers there by TLS.
pub fn look(address: &str) -> io::Result<Vec<CertificateDer<'static>>> {
    let seen = Arc::new(Onlooker { seen: Mutex::default(), provider: default_provider() });
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&seen) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let config = Arc::new(config);
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name stands for no address");
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, CONNECTS_WITHIN) {
            Ok(mut socket) => {
                socket.set_read_timeout(Some(CONNECTS_WITHIN))?;
                socket.set_write_timeout(Some(CONNECTS_WITHIN))?;
                let mut tls = ClientConnection::new(config, name_of(address)?).map_err(io::Error::other)?;
                while tls.is_handshaking() {
                    tls.complete_io(&mut socket)?;
                }
                tls.send_close_notify();
                tls.complete_io(&mut socket)?;
                socket.flush()?;
                return Ok(std::mem::take(&mut seen.seen.lock().unwrap_or_else(PoisonError::into_inner)));
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// The authority at the end of a chain, if it vouches for the node at an address by itself.
#[must_use]
pub fn authority_of(chain: &[CertificateDer<'static>], address: &str) -> Option<CertificateDer<'static>> {
    let (authority, (node, between)) = (chain.last()?, chain.split_first()?);
    let verifier = NodeOfCluster(webpki(std::slice::from_ref(authority), &Arc::new(default_provider())).ok()?);
    let verified = verifier.verify_server_cert(node, between, &name_of(address).ok()?, &[], UnixTime::now());
    verified.is_ok().then(|| authority.clone())
}

/// The host of an address, as certificates name it.
fn name_of(address: &str) -> io::Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Accepts a certificate for the name that all nodes with a cluster key have, or for the host of the address.
#[derive(Debug)]
struct NodeOfCluster(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for NodeOfCluster {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify =
            |name: &ServerName<'_>| self.0.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        let node = ServerName::try_from(NODE).map_err(|error| Error::General(error.to_string()))?;
        match verify(&node) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => verify(server_name),
            decided => decided,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Remembers the chain that a node shows. It is for [`look`] alone.
#[derive(Debug)]
struct Onlooker {
    seen: Mutex<Vec<CertificateDer<'static>>>,
    provider: CryptoProvider,
}

impl ServerCertVerifier for Onlooker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            chain.map(|certificate| certificate.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
