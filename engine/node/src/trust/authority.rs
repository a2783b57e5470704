//! Certificate authorities that follow from a secret.
//!
//! The key of such an authority is made from the secret alone (an Ed25519 key has no other parts than its 32 bytes), so
//! whoever shares the secret has the same authority, and nothing else has to be stored or sent.
//!
//! **No certificate expires.** An expiry bounds how long a stolen key is of use. Here the key of a certificate exists only in the
//! memory of one process, beside the secret that could issue any number of others, so an expiry would protect nothing, and
//! clocks of hosts that differ by hours would keep nodes and processes from reaching each other. What ends the trust in
//! certificates is another secret: each attempt has one, and a user can replace the cluster key.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SignatureAlgorithm,
};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::secret::Secret;

const WRITTEN: &str = "a certificate with these fields can be written";

/// A certificate authority that follows from a secret.
pub(super) struct Authority {
    key: KeyPair,
    params: CertificateParams,
}

impl Authority {
    /// The authority of a secret.
    pub(super) fn of(secret: &Secret) -> Self {
        // RFC 8410: the PKCS #8 form of an Ed25519 key is this and its 32 bytes.
        const ED25519: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
        let key = PrivatePkcs8KeyDer::from([ED25519.as_slice(), secret.bytes()].concat());
        let key = KeyPair::try_from(&key).expect("every 32 bytes are an Ed25519 key");
        let mut params = unlimited("fluvial authority", Vec::new());
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self { key, params }
    }

    /// What vouches for the holder of a new key under `name`: its certificate, and the authority's for those of the others.
    pub(super) fn identity(&self, name: &str) -> Identity {
        self.sign(unlimited(name, vec![name.to_owned()]), &rcgen::PKCS_ED25519)
    }

    /// The same for a server whose clients have no certificates. Its chain ends with the authority, so that clients can show its
    /// fingerprint to a user. Its key is of a kind that browsers know.
    pub(super) fn server_identity(&self, name: &str) -> Identity {
        let mut leaf = unlimited(name, vec![name.to_owned()]);
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let mut identity = self.sign(leaf, &rcgen::PKCS_ECDSA_P256_SHA256);
        identity.chain.extend(identity.authorities.iter().cloned());
        identity
    }

    /// The certificate of the authority itself. It is the same each time.
    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.params.self_signed(&self.key).expect(WRITTEN).der().clone()
    }

    /// A certificate by which who knows this authority believes what the other one vouches for.
    pub(super) fn vouches_for(&self, other: &Self) -> CertificateDer<'static> {
        let crossed = other.params.signed_by(&other.key, &Issuer::from_params(&self.params, &self.key));
        crossed.expect(WRITTEN).der().clone()
    }

    fn sign(&self, leaf: CertificateParams, kind: &'static SignatureAlgorithm) -> Identity {
        let key = KeyPair::generate_for(kind).expect("the kernel gives random bytes");
        let leaf = leaf.signed_by(&key, &Issuer::from_params(&self.params, &self.key));
        Identity {
            authorities: vec![self.certificate()],
            chain: vec![leaf.expect(WRITTEN).der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        }
    }
}

fn unlimited(common_name: &str, names: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(names).expect("the names are made here, of ASCII letters");
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// Who this end of a connection is, and whom it trusts.
#[derive(Debug)]
pub(super) struct Identity {
    /// The certificates of the authorities that vouch for the other end.
    pub(super) authorities: Vec<CertificateDer<'static>>,
    /// The certificate of this end, and those that link it to an authority.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The key of this end's certificate.
    pub(super) key: PrivateKeyDer<'static>,
}

/// How TLS connections are accepted and opened: TLS 1.3 only, a certificate on both sides, no resumption.
#[derive(Clone, Debug)]
pub struct Tls {
    /// For connections that are accepted.
    pub server: Arc<ServerConfig>,
    /// For connections that are opened.
    pub client: Arc<ClientConfig>,
}

impl Tls {
    /// # Errors
    /// The certificates or the key are not what they should be, or do not belong together.
    pub(super) fn new(identity: Identity, provider: CryptoProvider) -> Result<Self, rustls::Error> {
        let Identity { authorities, chain, key } = identity;
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority)?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(provider));
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())?;
        // A ticket would let a connection begin without a certificate.
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        client.resumption = Resumption::disabled();
        Ok(Self { server: Arc::new(server), client: Arc::new(client) })
    }
}
