//! One job's objects in the object store.
//!
//! ```text
//! {store}/{job}/journal/00000000000000000042.json     records of the journal
//! {store}/{job}/checkpoints/{name}.json               manifests
//! {store}/{job}/state/{operator}/{name}.parquet       state files of durable operators
//! {store}/{job}/savepoints/{name}.json                savepoints; those that are being taken in pins/
//! {store}/{job}/probe/{name}                          only for a moment at the start: see [`Store::probe`]
//! ```
//!
//! **Owns** the names of all objects and the bytes of the small ones. **Does not** decide anything, and does not retry: a call
//! that failed may have had its effect, so the state machines of the protocol first read what exists.

mod savepoints;

use std::sync::Arc;

use fluvial_connector::{Error, ErrorKind};
use fluvial_protocol::journal::{JournalRecord, Seq};
use fluvial_protocol::manifest::Manifest;
use fluvial_store::frame::Format;
use fluvial_store::{Created, Store};
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;

pub use savepoints::{NoCheckpoint, check_savepoint_name};

/// The number of objects that are fetched concurrently.
const CONCURRENT_GETS: usize = 32;

/// The format of the journal's records.
const JOURNAL: Format = Format { kind: "journal", version: 1 };
/// The format of manifests.
const MANIFEST: Format = Format { kind: "manifest", version: 1 };

/// A job's part of a store. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct JobStore {
    store: Store,
    /// What the names of the job's objects begin with.
    job: Path,
}

impl JobStore {
    /// The part of the job `job` in `store`.
    pub fn new(store: Store, job: &str) -> Self {
        Self { job: store.path(job), store }
    }

    /// The whole store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The underlying object store.
    #[must_use]
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        self.store.objects()
    }

    /// The full path of one of the job's objects.
    #[must_use]
    pub fn path(&self, object: &str) -> Path {
        Path::from(format!("{}/{object}", self.job))
    }

    /// Returns the location of an object, for messages.
    #[must_use]
    pub fn describe(&self, object: &str) -> String {
        self.store.describe_object(&self.path(object))
    }

    /// Checks that the store honours conditional creates, by an object whose name holds `unique`; see [`Store::probe`].
    ///
    /// # Errors
    /// As [`Store::probe`].
    pub async fn probe(&self, unique: uuid::Uuid) -> Result<(), Error> {
        self.store.probe(&self.path(&format!("probe/{unique}"))).await
    }

    /// Returns the positions of the records in the journal, ascending; only those after `after` where that is given. The
    /// store may list them in any order.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn list_journal(&self, after: Option<Seq>) -> Result<Vec<Seq>, Error> {
        let offset = after.map(|seq| self.path(&journal_object(seq)));
        let names = self.list_after("journal", offset).await?;
        let mut seqs: Vec<Seq> = names
            .iter()
            .filter_map(|name| name.strip_prefix("journal/")?.strip_suffix(".json")?.parse().ok().map(Seq))
            .collect();
        seqs.sort_unstable();
        Ok(seqs)
    }

    /// The names of the job's objects below `folder`.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn list(&self, folder: &str) -> Result<Vec<String>, Error> {
        self.list_after(folder, None).await
    }

    async fn list_after(&self, folder: &str, offset: Option<Path>) -> Result<Vec<String>, Error> {
        let found = self.store.list(&self.path(folder), offset.as_ref()).await?;
        let start = self.job.as_ref().len() + 1;
        Ok(found.iter().map(|name| name.as_ref()[start..].to_owned()).collect())
    }

    /// The record at a position, if there is one.
    ///
    /// # Errors
    /// The store cannot be reached, or the object is damaged or of a newer format.
    pub async fn get_record(&self, seq: Seq) -> Result<Option<JournalRecord>, Error> {
        self.store.get_framed(JOURNAL, &self.path(&journal_object(seq))).await
    }

    /// The records at several positions, in their order; several are fetched at once.
    ///
    /// # Errors
    /// As [`JobStore::get_record`].
    pub async fn get_records(&self, seqs: Vec<Seq>) -> Result<Vec<(Seq, Option<JournalRecord>)>, Error> {
        futures::stream::iter(seqs)
            .map(|seq| async move { Ok((seq, self.get_record(seq).await?)) })
            .buffered(CONCURRENT_GETS)
            .try_collect()
            .await
    }

    /// Writes a record, if the position is free.
    ///
    /// # Errors
    /// The call failed; the record may have been written all the same.
    pub async fn put_record(&self, seq: Seq, record: &JournalRecord) -> Result<Created, Error> {
        self.store.create_framed(JOURNAL, &self.path(&journal_object(seq)), record).await
    }

    /// A checkpoint's manifest, if it is there.
    ///
    /// # Errors
    /// As [`JobStore::get_record`].
    pub async fn get_manifest(&self, object: &str) -> Result<Option<Manifest>, Error> {
        self.store.get_framed(MANIFEST, &self.path(object)).await
    }

    /// Writes a checkpoint's manifest.
    ///
    /// # Errors
    /// The call failed; the manifest may have been written all the same.
    pub async fn put_manifest(&self, object: &str, manifest: &Manifest) -> Result<Created, Error> {
        self.store.create_framed(MANIFEST, &self.path(object), manifest).await
    }

    /// The number of the job's objects, and their size.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn size(&self) -> Result<(u64, u64), Error> {
        let found: Vec<_> = self
            .objects()
            .list(Some(&self.job))
            .map_ok(|object| object.size)
            .try_collect()
            .await
            .map_err(|error| self.store.failed("list", &self.job, error))?;
        Ok((found.len() as u64, found.iter().sum()))
    }

    /// Removes all objects of the job, as long as `goes_on` says so. Nothing may write any more.
    ///
    /// # Errors
    /// The store cannot be reached, or it does not go on; some objects may have been removed.
    pub async fn remove(&self, goes_on: impl Fn() -> bool) -> Result<(), Error> {
        for name in self.store.list(&self.job, None).await? {
            if !goes_on() {
                return Err(Error::new(ErrorKind::Retry, "the removal took too long"));
            }
            self.store.delete(&name).await?;
        }
        Ok(())
    }

    /// Writes bytes under a name that has not been used before.
    ///
    /// # Errors
    /// The error of the store; the object may have been written all the same.
    pub async fn put_new(&self, object: &str, bytes: bytes::Bytes) -> Result<(), object_store::Error> {
        self.store.create(&self.path(object), bytes).await.map(drop)
    }

    /// Deletes an object. It is no error if the object does not exist.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn delete(&self, object: &str) -> Result<(), Error> {
        self.store.delete(&self.path(object)).await
    }

    /// The error for an operation that failed on an object.
    pub fn failed(&self, operation: &str, object: &str, source: object_store::Error) -> Error {
        self.store.failed(operation, &self.path(object), source)
    }
}

/// Returns the name of the object for a position of the journal.
#[must_use]
pub fn journal_object(seq: Seq) -> String {
    format!("journal/{:020}.json", seq.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_connector::{ErrorKind, Generation, Incarnation};
    use fluvial_protocol::journal::Nonce;
    use object_store::memory::InMemory;

    use super::*;

    fn record(nonce: u64) -> JournalRecord {
        JournalRecord {
            incarnation: Incarnation(uuid::Uuid::nil()),
            generation: Generation(1),
            nonce: Nonce(nonce),
            entries: Vec::new(),
        }
    }

    #[tokio::test]
    async fn only_one_of_two_writers_gets_a_position() {
        let folder = tempfile::tempdir().unwrap();
        let local = Store::open(folder.path().to_str().unwrap()).unwrap();
        for store in [local, Store::over(Arc::new(InMemory::new()), "memory")] {
            let store = JobStore::new(store, "job");
            assert_eq!(store.put_record(Seq(7), &record(1)).await.unwrap(), Created::Created);
            assert_eq!(store.put_record(Seq(7), &record(2)).await.unwrap(), Created::AlreadyExists);
            assert_eq!(store.get_record(Seq(7)).await.unwrap().unwrap().nonce, Nonce(1));
            assert_eq!(store.get_record(Seq(8)).await.unwrap(), None);
            store.put_record(Seq(10), &record(3)).await.unwrap();
            assert_eq!(store.list_journal(None).await.unwrap(), vec![Seq(7), Seq(10)]);
            assert_eq!(store.list_journal(Some(Seq(7))).await.unwrap(), vec![Seq(10)]);
            store.delete(&journal_object(Seq(7))).await.unwrap();
            store.delete(&journal_object(Seq(9))).await.unwrap();
            assert_eq!(store.list_journal(None).await.unwrap(), vec![Seq(10)]);
        }
    }

    #[tokio::test]
    async fn a_damaged_object_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = JobStore::new(Store::open(folder.path().to_str().unwrap()).unwrap(), "job");
        store.put_record(Seq(0), &record(1)).await.unwrap();
        let path = folder.path().join("job").join(journal_object(Seq(0)));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = store.get_record(Seq(0)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Data);
        assert!(error.to_string().contains("job/journal/00000000000000000000.json"), "{error}");
    }
}
