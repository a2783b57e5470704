//! State files as objects in the store: their names, and blocking reads and writes.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use fluvial_connector::{ErrorKind, Generation};
use fluvial_protocol::manifest::StateFile;
use object_store::ObjectStoreExt;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::StateError;
use fluvial_node::job_store::JobStore;

/// The pauses between the tries to read from a store on the network, in milliseconds.
const PAUSES_MS: [u64; 5] = [500, 1000, 2000, 4000, 8000];

/// The name of a state file's object within a job. Neither generation nor operator tells state files apart: `unique` does.
#[must_use]
pub(crate) fn state_object(operator: &str, generation: Generation, unique: Uuid) -> String {
    format!("state/{operator}/{generation}-{unique}.parquet")
}

/// A state file that has been encoded and waits to be written. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EncodedFile {
    /// The content of the Parquet file.
    pub bytes: Bytes,
    /// The number of rows, including those of deleted keys.
    pub rows: u64,
    /// The checksum of the file.
    pub crc32: u32,
}

impl fmt::Debug for EncodedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedFile")
            .field("bytes", &self.bytes.len())
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// The part of the store that holds a job's state files. Its calls block, so they must not be made on a thread of the tokio
/// runtime that they wait for.
#[derive(Clone, Debug)]
pub(crate) struct StateStore {
    store: JobStore,
    runtime: Handle,
}

impl StateStore {
    /// Creates the access to a job's state files; `runtime` executes the store's calls.
    #[must_use]
    pub(crate) fn new(store: JobStore, runtime: Handle) -> Self {
        Self { store, runtime }
    }

    /// Writes a state file. If the call fails, it may be repeated with the same arguments.
    ///
    /// # Errors
    /// [`StateError::Store`]; the file may have been written.
    pub(crate) fn put(&self, object: &str, file: &EncodedFile) -> Result<StateFile, StateError> {
        self.runtime
            .block_on(self.store.put_new(object, file.bytes.clone()))
            .map_err(|e| self.failed("write", object, e))?;
        Ok(StateFile { object: object.to_owned(), rows: file.rows, bytes: file.bytes.len() as u64, crc32: file.crc32 })
    }

    /// Reads a part of a file's object. A short outage of a store on the network is waited out: a restore reads much, and
    /// begins again with all of it if one read fails.
    pub(super) fn read(&self, file: &StateFile, range: Range<u64>) -> Result<Bytes, StateError> {
        let pauses_ms = if self.store.store().is_remote() { &PAUSES_MS[..] } else { &[] };
        for pause_ms in pauses_ms {
            match self.read_once(file, range.clone()) {
                Err(error) if error.kind() == ErrorKind::Retry => {
                    tracing::warn!(%error, "the store is unavailable, retrying");
                    self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(*pause_ms)).await });
                }
                result => return result,
            }
        }
        self.read_once(file, range)
    }

    fn read_once(&self, file: &StateFile, range: Range<u64>) -> Result<Bytes, StateError> {
        let path = self.store.path(&file.object);
        let store = self.store.objects();
        let expected = range.end - range.start;
        match self.runtime.block_on(store.get_range(&path, range)) {
            Ok(bytes) if bytes.len() as u64 == expected => Ok(bytes),
            Ok(_) => Err(self.damaged(file, "it is shorter than the checkpoint says")),
            Err(object_store::Error::NotFound { .. }) => {
                Err(StateError::Gone { object: self.store.describe(&file.object) })
            }
            Err(error) => match self.runtime.block_on(store.head(&path)) {
                // A store refuses a range beyond the end in a way of its own.
                Ok(meta) if meta.size != file.bytes => {
                    Err(self.damaged(file, "its size is not what the checkpoint says"))
                }
                _ => Err(self.failed("read", &file.object, error)),
            },
        }
    }

    pub(super) fn describe(&self, file: &StateFile) -> String {
        self.store.describe(&file.object)
    }

    pub(super) fn damaged(&self, file: &StateFile, what: impl Into<String>) -> StateError {
        StateError::Damaged { object: self.describe(file), what: what.into() }
    }

    pub(super) fn job_store(&self) -> &JobStore {
        &self.store
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(super) fn failed(&self, operation: &'static str, object: &str, source: object_store::Error) -> StateError {
        StateError::Store(self.store.failed(operation, object, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_name_says_its_generation() {
        let object = state_object("orders.v-2", Generation(42), Uuid::nil());
        assert_eq!(object, "state/orders.v-2/42-00000000-0000-0000-0000-000000000000.parquet");
    }
}
