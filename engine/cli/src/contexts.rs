//! The clusters that a user has logged in to: a file that only the user can read.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

/// What the file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The address of the last login.
    pub(crate) current: Option<String>,
    /// By the address of a node's API.
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// A login.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// The authorities that vouch for nodes, in PEM format.
    pub(crate) authorities: String,
    /// The token.
    pub(crate) token: String,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Context(…)")
    }
}

/// `$XDG_CONFIG_HOME/fluvial/contexts.json`, or below `~/.config`.
fn file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(config.join("fluvial/contexts.json"))
}

impl Contexts {
    /// Where the file is, for people.
    pub(crate) fn shown() -> String {
        file().map_or("no file".to_owned(), |file| format!("'{}'", file.display()))
    }

    /// Reads the file. Without one there was no login.
    ///
    /// # Errors
    /// It cannot be used, or other users can access it.
    pub(crate) fn read() -> anyhow::Result<Self> {
        let Some(file) = file() else { return Ok(Self::default()) };
        let text = match std::fs::read_to_string(&file) {
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            read => read.with_context(|| format!("cannot read '{}'", file.display()))?,
        };
        let mode = std::fs::metadata(&file)?.mode();
        ensure!(
            mode & 0o077 == 0,
            "other users can access the tokens in '{}' (mode {:03o}); run chmod 600 on it",
            file.display(),
            mode & 0o777
        );
        serde_json::from_str(&text).with_context(|| {
            format!("'{}' is damaged, or of a newer version: move it away, and `fluvial login` again", file.display())
        })
    }

    /// Replaces the file as a whole.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let file = file().context("neither XDG_CONFIG_HOME nor HOME is set, so there is no place for a login")?;
        let folder = file.parent().context("the file is in a folder")?;
        let failed = || format!("cannot write '{}'", file.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(failed)?;
        let new = folder.join(format!("contexts.json.{}", std::process::id()));
        // One that a command left behind could have another mode.
        if let Err(error) = std::fs::remove_file(&new)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).with_context(failed);
        }
        let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
        let mut written = opened.with_context(failed)?;
        written.write_all(&serde_json::to_vec_pretty(self)?).with_context(failed)?;
        written.sync_all().with_context(failed)?;
        std::fs::rename(&new, &file).with_context(failed)
    }
}
