//! Where the sources and the built things lie, and things that are made once for all processes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folder of the workspace's `Cargo.toml`.
#[must_use]
pub fn root() -> &'static Path {
    let below = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    below.expect("this crate lies two below the workspace's root")
}

/// The target folder that this program was built into.
#[must_use]
pub fn target() -> PathBuf {
    let executable = std::env::current_exe().unwrap_or_default();
    let built_into = executable.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    built_into.map_or_else(|| root().join("target"), Path::to_path_buf)
}

/// The folder `name` below the target folder, made by `make` the first time that any process asks for it.
///
/// `make` is given an empty folder, which gets its final name when `make` has succeeded: a folder that exists is whole.
/// Other processes wait meanwhile.
///
/// # Errors
/// `make` failed, or the folder cannot be written.
pub fn made_once(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let kept = target().join("made-for-tests");
    fs::create_dir_all(&kept).with_context(|| format!("create {}", kept.display()))?;
    let (folder, lock, partial) =
        (kept.join(name), kept.join(format!("{name}.lock")), kept.join(format!("{name}.partial")));
    let lock = File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
    lock.lock().context("wait for another process to make what both need")?;
    if folder.exists() {
        return Ok(folder);
    }
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("remove {}", partial.display()))?;
    }
    fs::create_dir(&partial).with_context(|| format!("create {}", partial.display()))?;
    make(&partial)?;
    fs::rename(&partial, &folder).with_context(|| format!("rename {} to {}", partial.display(), folder.display()))?;
    Ok(folder)
}
