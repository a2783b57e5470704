//! Secrets among a job's options.
//!
//! ```text
//!   option: file:PATH, env:NAME or the secret itself ──► Secret ──reveal──► the secret
//!                         in a cluster: the node resolves references ──provide──┘
//! ```
//!
//! Command lines and environments can be read by other users and end up in logs, so an option should hold a *reference* to a
//! secret: `file:PATH`, the text of a file without a line end after it, or `env:NAME`, an environment variable. A process that a node
//! of a cluster has started gets what its references stand for from the node, and never reads them itself.
//!
//! **Guarantees** that no secret is a part of an error or of what [`std::fmt::Debug`] shows.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use crate::{Error, ErrorKind};

/// What the node of this process has resolved; `None` if no node has started it.
static PROVIDED: OnceLock<BTreeMap<String, String>> = OnceLock::new();

/// An option that is a secret, or a reference to one.
///
/// ```
/// use fluvial_connector::secret::Secret;
///
/// let secret: Secret = "hunter2".parse().unwrap();
/// assert_eq!(secret.reveal()?, "hunter2");
/// assert!(!format!("{secret:?}").contains("hunter2"));
/// # Ok::<(), fluvial_connector::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret.
    ///
    /// # Errors
    /// [`Configuration`](ErrorKind::Configuration): it is a reference to what is not there.
    pub fn reveal(&self) -> Result<String, Error> {
        reveal(&self.0).map_err(|why| Error::new(ErrorKind::Configuration, why))
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if Reference::of(&self.0).is_some() { &self.0 } else { "[hidden]" })
    }
}

/// What a reference refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// The file at this path.
    File(&'a str),
    /// The environment variable of this name.
    Environment(&'a str),
}

impl<'a> Reference<'a> {
    /// The reference that an option is, if it is one.
    #[must_use]
    pub fn of(option: &'a str) -> Option<Self> {
        let file = option.strip_prefix("file:").map(Self::File);
        file.or_else(|| option.strip_prefix("env:").map(Self::Environment))
    }

    /// What it stands for.
    ///
    /// # Errors
    /// The reason, without any part of the secret.
    pub fn read(self) -> Result<String, String> {
        match self {
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|why| format!("'{path}' cannot be read: {why}"))?;
                let text = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
                Ok(text.to_owned())
            }
            // The error of the standard library shows the value if it is no text.
            Self::Environment(name) => match std::env::var(name) {
                Ok(secret) => Ok(secret),
                Err(std::env::VarError::NotPresent) => Err(format!("there is no environment variable '{name}'")),
                Err(_) => Err(format!("the environment variable '{name}' is no text")),
            },
        }
    }
}

/// What an option stands for: the secret that it refers to, or itself.
///
/// # Errors
/// The reason why a reference cannot be resolved, without any part of a secret.
pub fn reveal(option: &str) -> Result<String, String> {
    let Some(reference) = Reference::of(option) else { return Ok(option.to_owned()) };
    match PROVIDED.get() {
        None => reference.read(),
        Some(provided) => {
            let not_there = || format!("the node has not resolved the reference '{option}'");
            provided.get(option).cloned().ok_or_else(not_there)
        }
    }
}

/// Takes what the node of this process has resolved, by reference. Only the first call counts.
pub fn provide(secrets: BTreeMap<String, String>) {
    // A second call would be that of the same node.
    let _ = PROVIDED.set(secrets);
}

/// Whether the name of an option or a setting says that its value is a secret, such as `sasl.password`, `ssl.key.pem` or
/// `client-secret`.
#[must_use]
pub fn is_named_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['-', '_'], ".");
    let parts = ["password", "passphrase", "secret", "jaas.config"];
    // What is at a path is not in the option.
    let is_path = [".file", ".location", ".path", ".dir"].iter().any(|end| name.ends_with(end));
    !is_path
        && (parts.iter().any(|part| name.contains(part)) || name.ends_with("key.pem") || name == "ssl.keystore.key")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn references_stand_for_files_and_variables_and_errors_hold_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "hunter2\n").unwrap();
        assert_eq!(reveal(&format!("file:{}", file.display())).unwrap(), "hunter2");
        assert_eq!(reveal("env:PATH").unwrap(), std::env::var("PATH").unwrap());
        assert!(reveal("file:/does/not/exist").unwrap_err().contains("'/does/not/exist' cannot be read"));
        assert!(reveal("env:FLUVIAL_NO_SUCH").unwrap_err().contains("no environment variable 'FLUVIAL_NO_SUCH'"));
        assert_eq!(format!("{:?}", Secret("hunter2".to_owned())), "[hidden]");
        assert_eq!(format!("{:?}", Secret("env:NAME".to_owned())), "env:NAME");
    }

    #[test]
    fn secrets_are_known_by_the_names_of_their_options() {
        for name in [
            "sasl.password",
            "ssl.key.password",
            "ssl.key.pem",
            "ssl.keystore.password",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.client.credentials.client.secret",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "sasl.oauthbearer.assertion.private.key.pem",
            "sasl.jaas.config",
            "db-password",
            "API_SECRET",
        ] {
            assert!(is_named_secret(name), "{name}");
        }
        for name in [
            "sasl.username",
            "ssl.ca.pem",
            "ssl.certificate.pem",
            "ssl.key.location",
            "sasl.oauthbearer.token.endpoint.url",
            "sasl.oauthbearer.assertion.private.key.file",
            "password-file",
            "brokers",
        ] {
            assert!(!is_named_secret(name), "{name}");
        }
    }
}
