//! Uploads of binaries that a node receives, in pieces, until they are whole.
//!
//! ```text
//!   begin ──► {cache}/uploads/{hash}.{bytes}: grows with what arrives ──finish: hash, ELF file──► the store ──► the file is deleted
//! ```
//!
//! What has arrived stays in a file of this host when a connection is lost or the node is started again, and the upload goes on from
//! there. Another node does not have it: there an upload begins from the start.
//!
//! **Guarantees** that a binary is in the store only as a whole and with the hash that is its name, and that the number, the size and
//! the age of what is not whole yet are bounded. **Does not** hold more than a piece of a binary in memory.

mod receiving;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

pub use receiving::Receiving;

use crate::group::Shelf;

/// How much of uploads a node keeps.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The largest binary, in bytes.
    pub largest: u64,
    /// How many uploads may be under way.
    pub most: usize,
    /// What all of them may have when they are whole, in bytes.
    pub total: u64,
    /// After which time an upload of which nothing more arrives is given up.
    pub kept: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { largest: 1 << 30, most: 16, total: 4 << 30, kept: Duration::from_secs(24 * 3600) }
    }
}

/// How often is looked for uploads that are given up.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// How far an upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = UploadProgress)]
pub struct Progress {
    /// How many bytes have arrived: the offset from which it goes on.
    pub offset: u64,
    /// How many bytes there are.
    pub bytes: u64,
    /// Whether a request is sending some of it now.
    pub busy: bool,
}

/// Why an upload does not go on.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The binary is too large.
    #[error(
        "the binary has {bytes} bytes, and the largest that the cluster takes has {largest}: `strip --strip-debug` it"
    )]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The largest.
        largest: u64,
    },
    /// There are too many.
    #[error("too many uploads are under way at this node: try again")]
    TooMany,
    /// This node has nothing of it.
    #[error("this node does not have this upload: begin it here")]
    Unknown,
    /// Another request is sending it.
    #[error("another request is sending this binary")]
    Busy,
    /// What was sent does not follow what has arrived.
    #[error("{offset} bytes have arrived: send those that follow")]
    Elsewhere {
        /// How many have arrived.
        offset: u64,
    },
    /// It is not whole.
    #[error("{offset} of {bytes} bytes have arrived: send the rest first")]
    Incomplete {
        /// How many have arrived.
        offset: u64,
        /// How many there are.
        bytes: u64,
    },
    /// More has arrived than was said.
    #[error("more bytes arrived than were announced")]
    TooMuch,
    /// Nothing arrives.
    #[error("nothing arrived for {} s", .0.as_secs())]
    Stalled(Duration),
    /// The connection failed.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The file cannot be written or read.
    #[error("cannot keep what arrives in '{}': {source}", folder.display())]
    File {
        /// The folder.
        folder: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It cannot be kept: it is damaged or no job, or the store fails.
    #[error("{0:#}")]
    NotKept(anyhow::Error),
}

/// The uploads that a node receives. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Uploads(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    shelf: Shelf,
    bounds: Bounds,
    state: Mutex<BTreeMap<String, Upload>>,
    /// The cache, locked: two nodes that wrote to the same partial upload would damage it.
    _lock: File,
}

/// An upload that is under way.
#[derive(Clone, Copy, Debug)]
struct Upload {
    progress: Progress,
    touched: SystemTime,
}

impl Uploads {
    /// The uploads to a shelf, among them those that were under way when a node with the same cache ended.
    ///
    /// # Errors
    /// The folder cannot be used, or another node uses it.
    pub fn open(shelf: Shelf, bounds: Bounds) -> io::Result<Self> {
        let folder = shelf.cache().join("uploads");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        // Not the folder of uploads, which is created again if a person removes it.
        let lock = File::open(shelf.cache())?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            Errno::WOULDBLOCK => io::Error::other(format!(
                "another node uses '{}': give each node of a host a folder of its own with --cache",
                shelf.cache().display()
            )),
            error => error.into(),
        })?;
        let uploads = Self(Arc::new(Shared { folder, shelf, bounds, state: Mutex::default(), _lock: lock }));
        uploads.find()?;
        Ok(uploads)
    }

    /// Gives up, until the runtime ends, those of which nothing more arrives.
    pub fn clean(&self, runtime: &Handle) {
        let uploads = self.clone();
        runtime.spawn(async move {
            loop {
                uploads.give_up_old();
                tokio::time::sleep(LOOK_EVERY).await;
            }
        });
    }

    /// Finds what was left in the folder.
    fn find(&self) -> io::Result<()> {
        let Some(entries) = found(std::fs::read_dir(&self.0.folder))? else { return Ok(()) };
        let mut state = self.state();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let parsed = name.to_str().and_then(|name| name.split_once('.'));
            let parsed = parsed.and_then(|(hash, bytes)| Some((hash.to_owned(), bytes.parse::<u64>().ok()?)));
            // Somebody may have removed it meanwhile.
            let Some(metadata) = found(entry.metadata())? else { continue };
            match parsed {
                Some((hash, bytes)) if metadata.is_file() && metadata.len() <= bytes => {
                    let progress = Progress { offset: metadata.len(), bytes, busy: false };
                    state.insert(hash, Upload { progress, touched: metadata.modified()? });
                }
                _ => drop(found(std::fs::remove_file(entry.path()))?),
            }
        }
        Ok(())
    }

    /// Begins an upload, or says how far it is if it has begun.
    ///
    /// # Errors
    /// It is too large, or there are too many.
    pub fn begin(&self, hash: &str, bytes: u64) -> Result<Progress, UploadError> {
        let Bounds { largest, most, total, .. } = self.0.bounds;
        if bytes > largest {
            return Err(UploadError::TooLarge { bytes, largest });
        }
        self.give_up_old();
        let mut state = self.state();
        match state.get(hash) {
            Some(upload) if upload.progress.bytes == bytes => return Ok(upload.progress),
            Some(upload) if upload.progress.busy => return Err(UploadError::Busy),
            Some(_) => self.forget(&mut state, hash),
            None => {}
        }
        // Of those that nobody sends now, the ones that were sent longest ago make room.
        while state.len() >= most || state.values().map(|upload| upload.progress.bytes).sum::<u64>() + bytes > total {
            let idle = state.iter().filter(|(_, upload)| !upload.progress.busy);
            let oldest = idle.min_by_key(|(_, upload)| upload.touched).map(|(hash, _)| hash.clone());
            self.forget(&mut state, &oldest.ok_or(UploadError::TooMany)?);
        }
        let progress = Progress { offset: 0, bytes, busy: false };
        let create = || {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0.folder)?;
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.path(hash, bytes))
        };
        create().map_err(|source| self.failed(source))?;
        state.insert(hash.to_owned(), Upload { progress, touched: now() });
        Ok(progress)
    }

    /// How far an upload is.
    #[must_use]
    pub fn progress(&self, hash: &str) -> Option<Progress> {
        self.state().get(hash).map(|upload| upload.progress)
    }

    /// Gives an upload up, unless it is being sent.
    ///
    /// # Errors
    /// It is being sent.
    pub fn remove(&self, hash: &str) -> Result<(), UploadError> {
        let mut state = self.state();
        if state.get(hash).is_some_and(|upload| upload.progress.busy) {
            return Err(UploadError::Busy);
        }
        self.forget(&mut state, hash);
        Ok(())
    }

    /// Goes on with an upload, of which `from` bytes have arrived.
    ///
    /// # Errors
    /// Other bytes have arrived, or it is being sent.
    pub fn receive(&self, hash: &str, from: u64) -> Result<Receiving, UploadError> {
        let mut claimed = self.claim(hash)?;
        if claimed.progress.offset != from {
            return Err(UploadError::Elsewhere { offset: claimed.progress.offset });
        }
        let file = OpenOptions::new().append(true).open(self.path(hash, claimed.progress.bytes));
        let file = self.open_or_forget(&mut claimed, file)?;
        Ok(Receiving::new(claimed, file))
    }

    /// Keeps an upload that is whole in the store.
    ///
    /// # Errors
    /// It is not whole, or it cannot be kept. One that is damaged or no job is given up.
    pub async fn finish(&self, hash: &str) -> Result<(), UploadError> {
        let mut claimed = self.claim(hash)?;
        let Progress { offset, bytes, .. } = claimed.progress;
        if offset < bytes {
            return Err(UploadError::Incomplete { offset, bytes });
        }
        let file = self.open_or_forget(&mut claimed, File::open(self.path(hash, bytes)))?;
        let kept = self.0.shelf.put_binary(hash, file).await;
        drop(claimed);
        let by_store = kept.as_ref().is_err_and(|error| error.is::<fluvial_connector::Error>());
        if !by_store {
            self.forget(&mut self.state(), hash);
        }
        kept.map_err(UploadError::NotKept)
    }

    /// The file of an upload. If somebody has removed it, there is no such upload any more.
    fn open_or_forget(&self, claimed: &mut Claimed, file: io::Result<File>) -> Result<File, UploadError> {
        let file = found(file).map_err(|source| self.failed(source))?;
        claimed.gone = file.is_none();
        file.ok_or(UploadError::Unknown)
    }

    /// Keeps others from an upload.
    fn claim(&self, hash: &str) -> Result<Claimed, UploadError> {
        let mut state = self.state();
        let upload = state.get_mut(hash).ok_or(UploadError::Unknown)?;
        if std::mem::replace(&mut upload.progress.busy, true) {
            return Err(UploadError::Busy);
        }
        Ok(Claimed { uploads: self.clone(), hash: hash.to_owned(), progress: upload.progress, gone: false })
    }

    fn give_up_old(&self) {
        let mut state = self.state();
        let is_old = |upload: &Upload| {
            let age = upload.touched.elapsed().unwrap_or_default();
            !upload.progress.busy && age >= self.0.bounds.kept
        };
        let old: Vec<_> = state.iter().filter(|(_, upload)| is_old(upload)).map(|(hash, _)| hash.clone()).collect();
        for hash in old {
            self.forget(&mut state, &hash);
        }
    }

    fn forget(&self, state: &mut BTreeMap<String, Upload>, hash: &str) {
        let Some(upload) = state.remove(hash) else { return };
        let path = self.path(hash, upload.progress.bytes);
        if let Err(error) = found(std::fs::remove_file(&path)) {
            tracing::warn!(%error, file = %path.display(), "cannot delete an upload");
        }
    }

    fn path(&self, hash: &str, bytes: u64) -> PathBuf {
        self.0.folder.join(format!("{hash}.{bytes}"))
    }

    fn state(&self) -> MutexGuard<'_, BTreeMap<String, Upload>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, source: io::Error) -> UploadError {
        UploadError::File { folder: self.0.folder.clone(), source }
    }

    /// The folder of what is not whole.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }
}

/// An upload that one request works with, until this is dropped.
#[derive(Debug)]
struct Claimed {
    uploads: Uploads,
    hash: String,
    progress: Progress,
    /// Whether its file was removed by somebody else.
    gone: bool,
}

impl Drop for Claimed {
    fn drop(&mut self) {
        let mut state = self.uploads.state();
        if self.gone {
            state.remove(&self.hash);
        } else if let Some(upload) = state.get_mut(&self.hash) {
            upload.progress = Progress { busy: false, ..self.progress };
            upload.touched = now();
        }
    }
}

/// Turns [`io::ErrorKind::NotFound`] into `None`.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

#[allow(clippy::disallowed_methods, reason = "the age of a file is by the clock of its host")]
fn now() -> SystemTime {
    SystemTime::now()
}
