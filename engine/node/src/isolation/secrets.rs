//! The secrets among a job's options, which a node resolves for its processes.
//!
//! ```text
//!   arguments of the job ──► references ──► the node's files and variables ──► Invitation, or the standard input of a check
//! ```
//!
//! Whoever can submit a job can name any reference. So that nobody reads the node's own secrets in this way, a file has to be in the
//! node's folder for secrets, and a variable has to have a name that says so. Processes of jobs do not inherit these variables.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use fluvial_connector::secret::{Reference, is_named_secret};
use serde::{Deserialize, Serialize};

/// How the names of variables begin that hold secrets of jobs.
const VARIABLES: &str = "FLUVIAL_SECRET_";
/// The folder for secrets, unless a person names another one.
pub(crate) const FOLDER: &str = "/run/secrets";
/// The most that the secrets of a job may hold together, in bytes: a pipe that nobody reads takes so much.
const MOST: u64 = 48 << 10;

/// What the references among a job's options stand for, by reference. It is not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secrets(BTreeMap<String, String>);

impl Secrets {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets the options of this process be resolved by these.
    pub fn provide(self) {
        fluvial_connector::secret::provide(self.0);
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The options of a job as `(name, value)`: `--name value`, `--name=value`, and `-X name=value` with its `name`.
fn options(arguments: &[String]) -> impl Iterator<Item = (&str, &str)> {
    let before = std::iter::once("").chain(arguments.iter().map(String::as_str));
    before.zip(arguments).map(|(before, argument)| match argument.split_once('=') {
        Some((name, value)) => named(argument).unwrap_or((name.trim_start_matches('-').trim(), value)),
        None if argument.starts_with('-') => ("", argument.as_str()),
        None => (before.trim_start_matches('-'), argument.as_str()),
    })
}

/// Of `-Xname=value` and `-X=name=value`, the name and the value.
fn named(argument: &str) -> Option<(&str, &str)> {
    let property = argument.strip_prefix("-X")?;
    let (name, value) = property.strip_prefix('=').unwrap_or(property).split_once('=')?;
    Some((name.trim(), value))
}

/// Checks that the options of a job hold no secrets, but references to them.
///
/// # Errors
/// One line that says how to give the secret.
pub(crate) fn check(arguments: &[String]) -> Result<(), String> {
    let how = format!("file:PATH for a file in the nodes' folder for secrets ({FOLDER}), or env:{VARIABLES}…");
    for (name, value) in options(arguments) {
        match Reference::of(value) {
            Some(Reference::Environment(variable)) if !variable.starts_with(VARIABLES) => {
                return Err(format!(
                    "'{name}': a variable that holds a secret has a name that begins with {VARIABLES}"
                ));
            }
            Some(_) => {}
            // These are references, too, which the connector resolves in the process of the job.
            None if value.contains("${") => {}
            None if is_named_secret(name) => {
                return Err(format!("'{name}' is a secret, which is not stored: give a reference to it, {how}"));
            }
            None => {}
        }
    }
    Ok(())
}

/// Resolves the references among the options of a job by the node's variables, and files in `folder`.
///
/// # Errors
/// One line that names the reference which cannot be resolved.
pub(crate) fn resolve(arguments: &[String], folder: &Path) -> Result<Secrets, String> {
    let mut secrets = BTreeMap::new();
    for (name, value) in options(arguments) {
        let failed = |why: String| format!("the secret '{value}' of '{name}' cannot be resolved on this node: {why}");
        let secret = match Reference::of(value) {
            Some(Reference::File(path)) => match file(path, folder) {
                Ok(secret) => secret,
                // It may be the URL of a file, which is for the job to read.
                Err(_) if !is_named_secret(name) && !folder.join(path).starts_with(folder) => continue,
                Err(why) => return Err(failed(why)),
            },
            Some(reference @ Reference::Environment(variable)) => {
                if !variable.starts_with(VARIABLES) {
                    return Err(failed(format!("the name of the variable does not begin with {VARIABLES}")));
                }
                reference.read().map_err(failed)?
            }
            None => continue,
        };
        secrets.insert(value.to_owned(), secret);
    }
    if secrets.values().map(String::len).sum::<usize>() as u64 > MOST {
        return Err(format!("the secrets of the job have more than {MOST} bytes"));
    }
    Ok(Secrets(secrets))
}

/// The text of a file in the folder for secrets. A path that is not absolute begins there.
fn file(path: &str, folder: &Path) -> Result<String, String> {
    let path = folder.join(path);
    let failed = |why: std::io::Error| format!("'{}' cannot be read: {why}", path.display());
    let inside =
        folder.canonicalize().map_err(|why| format!("the folder '{}' cannot be used: {why}", folder.display()))?;
    // Mounted secrets are links within their folder.
    let found = path.canonicalize().map_err(failed)?;
    if !found.starts_with(inside) {
        return Err(format!("'{}' is not in this node's folder for secrets, '{}'", path.display(), folder.display()));
    }
    let mut text = String::new();
    let read = std::fs::File::open(&found).and_then(|file| file.take(MOST + 1).read_to_string(&mut text));
    if read.map_err(failed)? as u64 > MOST {
        return Err(format!("'{}' has more than {MOST} bytes", path.display()));
    }
    let text = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
    Ok(text.to_owned())
}

/// The variables of this process that no process of a job may inherit.
pub(crate) fn variables() -> impl Iterator<Item = OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(|name| name.as_encoded_bytes().starts_with(VARIABLES.as_bytes()))
}

/// The folder for secrets, if a person has named none.
pub(crate) fn default_folder() -> PathBuf {
    PathBuf::from(FOLDER)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_secret_is_refused_and_a_reference_is_not() {
        for (arguments, refused) in [
            ("--input a -X linger.ms=5", None),
            ("-X sasl.password=hunter2", Some("'sasl.password' is a secret")),
            ("-Xsasl.password=hunter2", Some("'sasl.password' is a secret")),
            ("--settings=a -X ssl.key.pem=hunter2", Some("'ssl.key.pem' is a secret")),
            ("--db-password hunter2", Some("'db-password' is a secret")),
            ("--db-password=hunter2", Some("'db-password' is a secret")),
            ("-X sasl.password=file:/run/secrets/a", None),
            ("-X sasl.password=env:FLUVIAL_SECRET_A", None),
            ("-X sasl.password=env:HOME", Some("begins with FLUVIAL_SECRET_")),
            ("-X sasl.password=${dir:/run/secrets:a}", None),
            ("-X sasl.oauthbearer.token.endpoint.url=file:///a", None),
            ("--password-file /a", None),
            ("--show-password --input a", None),
            ("-X sasl.password=-hunter2", Some("'sasl.password' is a secret")),
        ] {
            let found = check(&words(arguments)).err();
            assert_eq!(found.is_some(), refused.is_some(), "{arguments}: {found:?}");
            let found = found.unwrap_or_default();
            assert!(found.contains(refused.unwrap_or_default()) && !found.contains("hunter2"), "{found}");
        }
    }

    #[test]
    fn a_node_resolves_only_what_is_in_its_folder_for_secrets() {
        let all = tempfile::tempdir().unwrap();
        let folder = all.path().join("secrets");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("a"), "hunter2\n").unwrap();
        std::fs::write(all.path().join("key"), "of the node").unwrap();
        std::os::unix::fs::symlink(folder.join("a"), folder.join("inner")).unwrap();
        std::os::unix::fs::symlink(all.path().join("key"), folder.join("outer")).unwrap();
        let at = folder.display();
        let resolve = |arguments: &str| super::resolve(&words(arguments), &folder);
        for found in [format!("file:{at}/a"), "file:a".to_owned(), "file:inner".to_owned()] {
            let secrets = resolve(&format!("--input a -X sasl.password={found}")).unwrap();
            assert_eq!(secrets.0, BTreeMap::from([(found, "hunter2".to_owned())]));
            assert!(!format!("{secrets:?}").contains("hunter2"));
        }
        for (reference, why) in [
            (format!("file:{}", all.path().join("key").display()), "is not in this node's folder"),
            ("file:../key".to_owned(), "is not in this node's folder"),
            ("file:outer".to_owned(), "is not in this node's folder"),
            ("file:gone".to_owned(), "cannot be read"),
            ("env:PATH".to_owned(), "does not begin with FLUVIAL_SECRET_"),
            ("env:FLUVIAL_SECRET_GONE".to_owned(), "no environment variable"),
        ] {
            let refused = resolve(&format!("-X sasl.password={reference}")).unwrap_err();
            assert!(refused.contains(why) && refused.contains(&reference), "{refused}");
        }
        // What is a URL of a file is not touched.
        assert!(resolve("-X sasl.oauthbearer.token.endpoint.url=file:///etc/passwd").unwrap().is_empty());
    }
}
