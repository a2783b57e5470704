//! The record of what was changed by whom: a log line, and an object in the store.
//!
//! Objects are written by one task after the request was answered, in the order in which the changes were made. While the store
//! fails they wait; when too many wait, the oldest in the queue stay and new ones are in the log only. A node that is killed
//! at once leaves the log line alone. The number of objects is bounded: each node deletes the oldest beyond [`KEPT`] from time to time.

use std::time::Duration;

use bytes::Bytes;
use fluvial_connector::Error;
use fluvial_store::Store;
use fluvial_store::frame::{self, Format};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// The format of an entry's object.
const AUDIT: Format = Format { kind: "audit", version: 1 };
/// How many entries are kept.
const KEPT: usize = 4096;
/// After how many entries a node looks whether there are too many. With n nodes there are never more than
/// `KEPT + n * LOOK_EVERY`.
const LOOK_EVERY: usize = 256;
/// How many entries may wait for the store.
const MOST_WAITING: usize = 1024;
/// The time between two attempts to write one.
const AGAIN: Duration = Duration::from_secs(1);
/// How many objects are read or deleted at a time.
const AT_ONCE: usize = 32;

/// One request that changed something, or was to. It holds neither bodies nor tokens. What is refused because of its role is in the log only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct AuditEntry {
    /// When it was answered, in milliseconds since the Unix epoch, by the clock of the node.
    pub at_ms: u64,
    /// The name of the token.
    pub by: String,
    /// The method of the request.
    pub method: String,
    /// The path of the request.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// The address of the node that has answered.
    pub node: String,
}

/// Keeps the record.
#[derive(Clone, Debug)]
pub struct Audit {
    store: Store,
    folder: Path,
    queue: mpsc::Sender<AuditEntry>,
}

impl Audit {
    /// Begins to write the record of the cluster whose objects are in `folder`.
    #[must_use]
    pub fn start(store: Store, folder: &str, runtime: &Handle) -> Self {
        let folder = store.path(&format!("{folder}/audit"));
        let (queue, waiting) = mpsc::channel(MOST_WAITING);
        let audit = Self { store, folder, queue };
        runtime.spawn(write(audit.store.clone(), audit.folder.clone(), waiting));
        audit
    }

    /// Records a request. Never blocks.
    pub fn record(&self, entry: AuditEntry) {
        let AuditEntry { by, method, path, status, .. } = &entry;
        tracing::info!(by, method, path, status, "a request to change something");
        if self.queue.try_send(entry).is_err() {
            tracing::warn!("the store does not take the audit record, so this request is in the log only");
        }
    }

    /// The newest entries, newest first; of those before the entry of a name, if one is given. If there are older ones, also the name of
    /// the last entry.
    ///
    /// # Errors
    /// The store fails.
    pub async fn newest(&self, most: usize, before: Option<&str>) -> Result<(Vec<AuditEntry>, Option<String>), Error> {
        let mut paths = self.store.list(&self.folder, None).await?;
        let name = |path: &Path| path.filename().unwrap_or_default().to_owned();
        paths.retain(|path| before.is_none_or(|before| name(path).as_str() < before));
        paths.sort_unstable_by(|a, b| b.cmp(a));
        let more = paths.len() > most;
        paths.truncate(most);
        let last = paths.last().map(name).filter(|_| more);
        let read = |path: Path| async move { self.store.get_framed(AUDIT, &path).await };
        let found: Vec<Option<AuditEntry>> =
            futures::stream::iter(paths).map(read).buffered(AT_ONCE).try_collect().await?;
        // One may be deleted while this reads.
        Ok((found.into_iter().flatten().collect(), last))
    }
}

/// Writes entries until their sender is gone.
async fn write(store: Store, folder: Path, mut waiting: mpsc::Receiver<AuditEntry>) {
    let mut written = 0;
    while let Some(entry) = waiting.recv().await {
        // Names sort by time.
        let name = Path::from(format!("{folder}/{:015}-{:08x}.json", entry.at_ms, rand::random::<u32>()));
        let bytes = match frame::encode(AUDIT, &entry) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(%error, "cannot encode an entry of the audit record");
                continue;
            }
        };
        create(&store, &name, bytes).await;
        if written % LOOK_EVERY == 0
            && let Err(error) = prune(&store, &folder, KEPT).await
        {
            let error = format!("{:#}", anyhow::Error::new(error));
            tracing::warn!(error, "cannot delete the oldest entries of the audit record; it is tried again later");
        }
        written += 1;
    }
}

/// Creates an object, however long the store is unavailable.
async fn create(store: &Store, name: &Path, bytes: Bytes) {
    let mut said = false;
    // That it exists is the success of an earlier attempt.
    while let Err(error) = store.create(name, bytes.clone()).await {
        if !std::mem::replace(&mut said, true) {
            let error = format!("{:#}", anyhow::Error::new(store.failed("write", name, error)));
            tracing::warn!(error, "cannot write the audit record; it is tried again");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Deletes the oldest entries beyond this number.
async fn prune(store: &Store, folder: &Path, kept: usize) -> Result<(), Error> {
    let mut paths = store.list(folder, None).await?;
    paths.sort_unstable();
    let surplus = paths.len().saturating_sub(kept);
    let delete = |path: Path| async move { store.delete(&path).await };
    futures::stream::iter(paths.into_iter().take(surplus))
        .map(delete)
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::time::Instant;

    use object_store::memory::InMemory;

    use super::*;

    fn entry(at_ms: u64) -> AuditEntry {
        AuditEntry {
            at_ms,
            by: "anna".to_owned(),
            method: "POST".to_owned(),
            path: "/v1/jobs/a/stop".to_owned(),
            status: 200,
            node: "a:1".to_owned(),
        }
    }

    #[tokio::test]
    async fn entries_are_written_in_order_and_the_newest_are_read_first() {
        let store = Store::over(Arc::new(InMemory::new()), "memory");
        let audit = Audit::start(store, ".cluster", &Handle::current());
        (1..=9).for_each(|at_ms| audit.record(entry(at_ms)));
        let until = Instant::now() + Duration::from_secs(60);
        while audit.newest(100, None).await.unwrap().0.len() < 9 {
            assert!(Instant::now() < until);
            tokio::task::yield_now().await;
        }
        let (newest, last) = audit.newest(3, None).await.unwrap();
        let newest: Vec<_> = newest.into_iter().map(|entry| entry.at_ms).collect();
        assert_eq!(newest, [9, 8, 7]);
        let (older, _) = audit.newest(3, last.as_deref()).await.unwrap();
        assert_eq!(older.into_iter().map(|entry| entry.at_ms).collect::<Vec<_>>(), [6, 5, 4]);
        prune(&audit.store, &audit.folder, 4).await.unwrap();
        let left: Vec<_> = audit.newest(100, None).await.unwrap().0.into_iter().map(|entry| entry.at_ms).collect();
        assert_eq!(left, [9, 8, 7, 6]);
    }
}
