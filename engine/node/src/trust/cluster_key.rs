//! The key that all nodes of a cluster share.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ring::hkdf;
use rustls::pki_types::CertificateDer;

use super::TrustError;
use super::authority::Authority;
use crate::access::Token;
use crate::secret::Secret;

/// What the secret of the nodes' authority is used for.
pub(super) const NODES: &str = "authority of nodes";

/// The 32 bytes by which nodes know each other. Whoever has the key can be a node.
///
/// Its text form, which `cluster-key new` prints, is a line of 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterKey(Secret);

impl Default for ClusterKey {
    fn default() -> Self {
        Self::new()
    }
}

impl ClusterKey {
    /// A new random key.
    #[must_use]
    pub fn new() -> Self {
        Self(Secret::new())
    }

    /// The key as 64 hexadecimal digits.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.0.to_text()
    }

    /// Reads the text of a file with keys.
    ///
    /// Like ssh, it refuses a file that belongs to the user of this process and that other users can access. A file of another
    /// owner is accepted whatever its mode: Kubernetes mounts secrets as files of root that a group can read, and their mode
    /// says nothing about who can read them.
    ///
    /// # Errors
    /// The file cannot be read, or other users can access it.
    pub(super) fn read_text(path: &Path) -> Result<String, TrustError> {
        let failed = |source| TrustError::Read { what: "cluster key", path: path.to_owned(), source };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o077 != 0 {
            return Err(TrustError::OthersCanAccess { path: path.to_owned(), mode: metadata.mode() & 0o777 });
        }
        std::fs::read_to_string(path).map_err(failed)
    }

    /// The key of a text, as [`ClusterKey::to_text`] writes it.
    #[must_use]
    pub fn of_text(text: &str) -> Option<Self> {
        text.trim().parse().ok().map(Self)
    }

    /// The certificate of the authority that vouches for the nodes of the cluster.
    #[must_use]
    pub fn authority(&self) -> CertificateDer<'static> {
        Authority::of(&self.derive(NODES)).certificate()
    }

    /// The token of an operator that whoever has the key can derive. It is in no store, and ends with the key.
    #[must_use]
    pub fn root_token(&self) -> Token {
        Token::of(self.derive("root token"))
    }

    /// What tells the key from another, in hexadecimal digits. The key does not follow from it. It is not the fingerprint of the key's
    /// authority, which is that of a certificate.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.derive("fingerprint").bytes().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// A secret that follows from the key and from what it is `used_for`; the key does not follow from it.
    pub(super) fn derive(&self, used_for: &str) -> Secret {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"fluvial cluster key 1");
        let mut bytes = [0; 32];
        let info = [used_for.as_bytes()];
        let derived = salt.extract(self.0.bytes());
        let derived = derived.expand(&info, hkdf::HKDF_SHA256).and_then(|derived| derived.fill(&mut bytes));
        derived.expect("32 bytes are what SHA-256 gives");
        Secret::of(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::super::ClusterKeys;
    use super::*;

    #[test]
    fn a_key_is_read_from_a_file_that_only_its_owner_can_access() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let key = ClusterKey::new();
        let write = |text: &str, mode| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert!(matches!(ClusterKeys::read(&path), Err(TrustError::Read { .. })));
        for mode in [0o600, 0o400] {
            write(&format!("{}\n", key.to_text()), mode);
            assert_eq!(ClusterKeys::read(&path).unwrap().all(), std::slice::from_ref(&key));
        }
        let next = ClusterKey::new();
        write(&format!("# the keys\n{}\n\n{}\n", next.to_text(), key.to_text()), 0o600);
        let both = ClusterKeys::read(&path).unwrap();
        assert_eq!((both.first(), both.all().len()), (&next, 2));
        for mode in [0o640, 0o604, 0o620, 0o644] {
            write(&key.to_text(), mode);
            let error = ClusterKeys::read(&path).unwrap_err();
            assert!(matches!(error, TrustError::OthersCanAccess { .. }), "{mode:o}: {error}");
        }
        let twice = format!("{0}\n{0}\n", key.to_text());
        for text in ["", "secret", "# none", &key.to_text()[1..], &twice, &format!("{}\nsecret", key.to_text())] {
            write(text, 0o600);
            let error = ClusterKeys::read(&path).unwrap_err();
            assert!(matches!(error, TrustError::NotAClusterKey { .. }), "{text}: {error}");
        }
    }

    #[test]
    fn what_follows_from_a_key_is_its_own_for_each_use_and_each_key() {
        let (key, other) = (ClusterKey::new(), ClusterKey::new());
        assert_eq!(key.derive("a"), key.clone().derive("a"));
        assert_ne!(key.derive("a"), key.derive("b"));
        assert_ne!(key.derive("a"), other.derive("a"));
        assert_ne!(key.derive("a"), key.0);
    }
}
