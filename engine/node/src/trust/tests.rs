#![allow(clippy::unwrap_used)]

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConnection, ServerConnection};

use rustls::crypto::ring::default_provider;

use super::authority::{Authority, Identity};
use super::*;
use crate::secret::Secret;

/// Hands each end of a connection what the other one has to say.
fn exchange(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), rustls::Error> {
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    server.read_tls(&mut wire.as_slice()).unwrap();
    server.process_new_packets()?;
    let mut wire = Vec::new();
    while server.wants_write() {
        server.write_tls(&mut wire).unwrap();
    }
    client.read_tls(&mut wire.as_slice()).unwrap();
    client.process_new_packets()?;
    Ok(())
}

/// Lets both ends of a connection shake hands; returns the certificates that client and server have seen.
fn shake(client: &Tls, name: ServerName<'static>, server: &Tls) -> Result<[CertificateDer<'static>; 2], rustls::Error> {
    let mut client = ClientConnection::new(client.client.clone(), name).unwrap();
    let mut server = ServerConnection::new(server.server.clone()).unwrap();
    // What comes in by one record after the handshake: in TLS 1.3, a client learns only so that it was refused.
    while client.wants_write() || server.wants_write() {
        exchange(&mut client, &mut server)?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let seen = |certificates: Option<&[CertificateDer<'static>]>| certificates.unwrap()[0].clone();
    Ok([seen(client.peer_certificates()), seen(server.peer_certificates())])
}

pub(super) fn between(client: &Trust, server: &Trust) -> Result<[CertificateDer<'static>; 2], rustls::Error> {
    shake(&client.tls().unwrap(), client.name_of("host-b:7401").unwrap(), &server.tls().unwrap())
}

#[test]
fn nodes_with_one_cluster_key_have_one_authority_and_others_are_refused() {
    let key = ClusterKey::new();
    let [one, two] = [&key, &key].map(|key| Trust::of_cluster_key(key).unwrap());
    between(&one, &two).unwrap();
    between(&two, &one).unwrap();
    let stranger = Trust::of_cluster_key(&ClusterKey::new()).unwrap();
    for (client, server) in [(&one, &stranger), (&stranger, &one)] {
        let error = between(client, server).unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
    }
    // Each end refuses by itself: a server is not safe because clients are careful.
    let careless = Tls {
        server: stranger.tls().unwrap().server,
        client: {
            let mut client = rustls::ClientConfig::clone(&stranger.tls().unwrap().client);
            client.dangerous().set_certificate_verifier(std::sync::Arc::new(careless::Careless));
            client.into()
        },
    };
    let error = shake(&careless, one.name_of("host-a:7401").unwrap(), &one.tls().unwrap()).unwrap_err();
    assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
}

#[test]
fn a_certificate_is_that_of_one_process_of_one_attempt() {
    let (attempt, other) = (AttemptAuthority::new(), AttemptAuthority::new());
    let of = |authority: &AttemptAuthority, process| authority.certificate(process).tls().unwrap();
    let [servers, clients] = shake(&of(&attempt, 3), MeshCertificate::server_name(1), &of(&attempt, 1)).unwrap();
    assert!(MeshCertificate::is_of(&servers, 1) && MeshCertificate::is_of(&clients, 3));
    assert!(!MeshCertificate::is_of(&clients, 1) && !MeshCertificate::is_of(&clients, 33));
    let refused = |client: &Tls, process, server: &Tls| {
        let error = shake(client, MeshCertificate::server_name(process), server).unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
    };
    refused(&of(&attempt, 3), 1, &of(&attempt, 2));
    refused(&of(&attempt, 3), 1, &of(&other, 1));
    refused(&of(&other, 3), 1, &of(&attempt, 1));
    // Nor is the certificate of a node one of a process, or the other way round.
    let node = Trust::of_cluster_key(&ClusterKey::new()).unwrap().tls().unwrap();
    refused(&node, 1, &of(&attempt, 1));
    refused(&of(&attempt, 3), 1, &node);
}

#[test]
fn a_certificate_that_its_holder_has_signed_is_refused_whatever_its_name() {
    let authority = Authority::of(&Secret::new());
    let tls = |identity| Tls::new(identity, default_provider()).unwrap();
    let [one, two] = ["p1.fluvial", "p2.fluvial"].map(|name| authority.identity(name));
    let key = KeyPair::generate().unwrap();
    let signed = CertificateParams::new(["p1.fluvial".to_owned()]).unwrap().self_signed(&key).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let of_itself = Identity { authorities: one.authorities.clone(), chain: vec![signed.der().clone()], key };
    let (of_itself, one, two) = (tls(of_itself), tls(one), tls(two));
    let shake = |client, server| shake(client, MeshCertificate::server_name(1), server);
    shake(&two, &one).unwrap();
    shake(&one, &one).unwrap();
    for (client, server) in [(&of_itself, &one), (&two, &of_itself)] {
        let error = shake(client, server).unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
    }
}

#[test]
fn what_is_sent_to_another_node_or_to_a_process_is_the_same_there_and_is_not_shown() {
    let authority = AttemptAuthority::new();
    let sent: AttemptAuthority = serde_json::from_str(&serde_json::to_string(&authority).unwrap()).unwrap();
    assert_eq!(sent, authority);
    let certificate = authority.certificate(2);
    let text = serde_json::to_string(&certificate).unwrap();
    let received: MeshCertificate = serde_json::from_str(&text).unwrap();
    assert_eq!(received, certificate);
    let of_other_node = sent.certificate(0).tls().unwrap();
    shake(&received.tls().unwrap(), MeshCertificate::server_name(0), &of_other_node).unwrap();
    let shown = format!("{authority:?} {certificate:?} {:?}", ClusterKey::new());
    assert_eq!(shown, "AttemptAuthority(Secret(…)) MeshCertificate(…) ClusterKey(Secret(…))");
}

#[test]
fn a_node_listens_to_other_hosts_only_if_it_can_know_them_or_was_told_not_to_care() {
    let (loopback, all) = (["127.0.0.1", "::1", "::ffff:127.0.0.1"], ["0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1"]);
    let (loopback, all) = (loopback.map(|ip| ip.parse().unwrap()), all.map(|ip| ip.parse().unwrap()));
    let nothing = TrustOptions::default().open().unwrap();
    let insecure = TrustOptions { insecure: true, ..TrustOptions::default() }.open().unwrap();
    let key = Trust::of_cluster_key(&ClusterKey::new()).unwrap();
    for trust in [&nothing, &insecure, &key] {
        loopback.iter().for_each(|ip| trust.permits(*ip).unwrap());
    }
    for ip in all {
        insecure.permits(ip).unwrap();
        key.permits(ip).unwrap();
        let error = nothing.permits(ip).unwrap_err().to_string();
        for option in ["--cluster-key-file", "--tls-cert", "--tls-key", "--tls-ca", "--insecure"] {
            assert!(error.contains(option), "{error}");
        }
    }
    assert!(nothing.tls().is_none() && insecure.tls().is_none());
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let path = || Some(PathBuf::from("/nowhere"));
    let none = TrustOptions::default;
    for options in [
        TrustOptions { cluster_key_file: path(), insecure: true, ..none() },
        TrustOptions { cluster_key_file: path(), tls_cert: path(), tls_key: path(), tls_ca: path(), ..none() },
        TrustOptions { tls_cert: path(), tls_key: path(), ..none() },
        TrustOptions { tls_ca: path(), ..none() },
        TrustOptions { tls_cert: path(), tls_key: path(), tls_ca: path(), insecure: true, ..none() },
    ] {
        assert!(matches!(options.open().unwrap_err(), TrustError::Contradiction), "{options:?}");
    }
}

/// An authority of the user's, and certificates of it in files.
struct OfUser {
    params: CertificateParams,
    key: KeyPair,
}

impl OfUser {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { params, key: KeyPair::generate().unwrap() }
    }

    /// Issues a certificate for `names` and puts it where the options say, in place of what is there.
    fn issue(&self, folder: &Path, names: &[&str]) -> TrustOptions {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        let put = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(path.with_extension("new"), text).unwrap();
            std::fs::rename(path.with_extension("new"), &path).unwrap();
            Some(path)
        };
        TrustOptions {
            tls_cert: put("cert.pem", certificate.pem()),
            tls_key: put("key.pem", key.serialize_pem()),
            tls_ca: put("ca.pem", self.params.self_signed(&self.key).unwrap().pem()),
            ..TrustOptions::default()
        }
    }
}

#[test]
fn a_certificate_of_the_user_has_to_be_valid_for_the_host_of_the_address() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), OfUser::new());
    let trust = authority.issue(folder.path(), &["host-a", "10.0.0.1", "fd00::1"]).open().unwrap();
    let tls = trust.tls().unwrap();
    for (address, is_named) in [
        ("host-a:7401", true),
        ("10.0.0.1:7401", true),
        ("[fd00::1]:7401", true),
        ("host-b:7401", false),
        ("10.0.0.2:7401", false),
        ("[fd00::2]:7401", false),
    ] {
        let shaken = shake(&tls, trust.name_of(address).unwrap(), &tls);
        assert_eq!(shaken.is_ok(), is_named, "{address}");
    }
    assert!(matches!(trust.name_of("no host:1").unwrap_err(), TrustError::NoHost { .. }));
}

#[test]
fn certificates_of_the_user_are_read_again_when_their_files_change_and_kept_while_these_are_no_good() {
    let (folder, authority) = (tempfile::tempdir().unwrap(), OfUser::new());
    let options = authority.issue(folder.path(), &["host-b"]);
    let trust = options.open().unwrap();
    let seen = |trust: &Trust| between(trust, trust).unwrap();
    let first = seen(&trust);
    assert_eq!(seen(&trust), first, "nothing has changed");
    authority.issue(folder.path(), &["host-b"]);
    let second = seen(&trust);
    assert_ne!(second, first);
    // The certificate has been replaced, its key not yet.
    let (_, certificate) = (OfUser::new(), options.tls_cert.as_ref().unwrap());
    let elsewhere = tempfile::tempdir().unwrap();
    let next = authority.issue(elsewhere.path(), &["host-b"]);
    std::fs::copy(next.tls_cert.as_ref().unwrap(), certificate).unwrap();
    assert_eq!(seen(&trust), second);
    std::fs::write(certificate, "").unwrap();
    assert_eq!(seen(&trust), second);
    std::fs::copy(next.tls_cert.as_ref().unwrap(), certificate).unwrap();
    std::fs::rename(next.tls_key.as_ref().unwrap(), options.tls_key.as_ref().unwrap()).unwrap();
    let third = seen(&trust);
    assert_ne!(third, second);
    // Another authority: what the old one vouches for is refused from now on.
    let old = authority.issue(elsewhere.path(), &["host-b"]).open().unwrap();
    between(&old, &trust).unwrap();
    OfUser::new().issue(folder.path(), &["host-b"]);
    assert_ne!(seen(&trust), third);
    between(&old, &trust).unwrap_err();
}

/// The certificate that a user's client sees which trusts these authorities.
pub(super) fn seen_by_user(
    authorities: &[CertificateDer<'static>],
    name: &'static str,
    trust: &Trust,
) -> Result<CertificateDer<'static>, rustls::Error> {
    let config = Arc::new(of_users::client(authorities).unwrap());
    let mut client = ClientConnection::new(config, ServerName::try_from(name).unwrap()).unwrap();
    let mut server = ServerConnection::new(trust.tls_of_users().unwrap()).unwrap();
    while client.is_handshaking() {
        exchange(&mut client, &mut server)?;
    }
    Ok(client.peer_certificates().unwrap()[0].clone())
}

#[test]
fn a_user_believes_every_node_with_the_cluster_key_and_a_certificate_of_the_users_for_its_host_alone() {
    let key = ClusterKey::new();
    let trust = Trust::of_cluster_key(&key).unwrap();
    seen_by_user(&[key.authority()], "any-name", &trust).unwrap();
    seen_by_user(&[key.authority()], "10.0.0.1", &trust).unwrap();
    seen_by_user(&[ClusterKey::new().authority()], "any-name", &trust).unwrap_err();
    let (folder, authority) = (tempfile::tempdir().unwrap(), OfUser::new());
    let options = authority.issue(folder.path(), &["host-b"]);
    let trust = options.open().unwrap();
    let text = std::fs::read_to_string(options.tls_ca.as_ref().unwrap()).unwrap();
    let authorities = of_users::certificates(&text).unwrap();
    let first = seen_by_user(&authorities, "host-b", &trust).unwrap();
    seen_by_user(&authorities, "host-c", &trust).unwrap_err();
    authority.issue(folder.path(), &["host-b"]);
    assert_ne!(seen_by_user(&authorities, "host-b", &trust).unwrap(), first, "the files were replaced");
}

mod careless {
    //! A client that believes every server.

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub(super) struct Careless;

    impl ServerCertVerifier for Careless {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
}
