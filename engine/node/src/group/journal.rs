//! The group's journal in the store: `{job}/group/{position}.json`, one [`GroupRecord`] an object.

use std::time::Duration;

use fluvial_connector::Error;
use fluvial_protocol::PutOutcome;
use fluvial_protocol::group::{GroupRecord, StoreAnswer, StoreCall};
use fluvial_store::frame::Format;
use fluvial_store::{Created, Store};
use object_store::path::Path;

/// Version 3 has what a job returns to, what users have forced, and whose state is being removed. Records of version 2 lack them, which
/// means that there is none. A node of the version before cannot read version 3. It runs on under a coordinator, and is none.
const GROUP: Format = Format { kind: "group", version: 3 };
/// The format that this process reads and writes.
fn format() -> Format {
    Format { version: crate::skew::apply(GROUP.version), ..GROUP }
}

/// How long one call may take before it counts as failed. A put that is given up may still take effect; whoever asked
/// for it reads the position before it judges.
const CALL_WITHIN: Duration = Duration::from_secs(5);

/// A group's journal. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct GroupJournal {
    store: Store,
    /// The name of the job.
    job: String,
}

impl GroupJournal {
    /// The journal of the group that runs `job`.
    #[must_use]
    pub fn new(store: Store, job: &str) -> Self {
        Self { store, job: job.to_owned() }
    }

    /// The newest record and its position, if a group has ever begun.
    ///
    /// # Errors
    /// The store cannot be reached, or the record is damaged.
    pub async fn newest(&self) -> Result<Option<(u64, GroupRecord)>, Error> {
        // The record may be deleted after it was listed, once a thousand others have been written.
        while let Some(position) = self.newest_position().await? {
            if let Some(record) = self.store.get_framed(format(), &self.name(position)).await? {
                return Ok(Some((position, record)));
            }
        }
        Ok(None)
    }

    /// Makes a call of the state machine.
    ///
    /// # Errors
    /// The call failed. A put may have taken effect.
    pub(super) async fn call(&self, call: &StoreCall) -> Result<StoreAnswer, Error> {
        match tokio::time::timeout(CALL_WITHIN, self.ask(call)).await {
            Ok(answer) => answer,
            Err(_) => {
                let what =
                    format!("the store '{}' did not answer within {} s", self.store.describe(), CALL_WITHIN.as_secs());
                Err(Error::new(fluvial_connector::ErrorKind::Retry, what))
            }
        }
    }

    async fn ask(&self, call: &StoreCall) -> Result<StoreAnswer, Error> {
        Ok(match call {
            StoreCall::Newest => StoreAnswer::Newest(self.newest_position().await?),
            StoreCall::Get(position) => {
                StoreAnswer::Record(self.store.get_framed(format(), &self.name(*position)).await?.map(Box::new))
            }
            StoreCall::Put(position, record) => {
                let created = self.store.create_framed(format(), &self.name(*position), &**record).await?;
                StoreAnswer::Put(match created {
                    Created::Created => PutOutcome::Created,
                    Created::AlreadyExists => PutOutcome::AlreadyExists,
                })
            }
            StoreCall::Delete(position) => {
                self.store.delete(&self.name(*position)).await?;
                StoreAnswer::Deleted
            }
        })
    }

    async fn newest_position(&self) -> Result<Option<u64>, Error> {
        let names = self.store.list(&self.store.path(&format!("{}/group/journal", self.job)), None).await?;
        // Some stores list in any order.
        Ok(names.iter().filter_map(|name| name.filename()?.strip_suffix(".json")?.parse().ok()).max())
    }

    fn name(&self, position: u64) -> Path {
        self.store.path(&format!("{}/group/journal/{position:020}.json", self.job))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_record_of_the_version_before_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap()).unwrap();
        let journal = GroupJournal::new(store.clone(), "orders");
        let content = serde_json::json!({
            "nonce": 1, "term": 3, "coordinator": {"address": "host-a:7401", "start": 5},
            "jobs": {"orders": {
                "wanted": {"revision": 2, "version": "v1", "workers": 4, "run": true},
                "run": 7, "failed": [], "outcome": null,
                "attempt": {
                    "number": 9, "version": "v1", "revision": 2, "follows": null, "why": "the first attempt",
                    "placement": {"threads": 2, "places": [[{"address": "host-a:7401", "start": 5}, 2]]},
                    "decisions": {"restart": true, "pause_ms": 500, "ever_opened": true},
                },
            }},
        });
        let name = journal.name(12);
        store.create_framed(Format { version: 2, ..GROUP }, &name, &content).await.unwrap();
        let (position, record) = journal.newest().await.unwrap().unwrap();
        let job = &record.jobs["orders"];
        assert_eq!((position, record.draining.len(), record.clock_ms, job.deaths.len()), (12, 0, 0, 0));
        assert!(job.wanted.as_ref().unwrap().require.is_empty());
        assert_eq!((&job.proven, &job.back, &job.returned), (&None, &None, &None));
        assert_eq!((job.wanted.as_ref().unwrap().ends_at_once.0, record.removing.len()), (0, 0));
        store.create_framed(GROUP, &journal.name(13), &record).await.unwrap();
        assert_eq!(journal.newest().await.unwrap(), Some((13, record)));
        store.create_framed(Format { version: 4, ..GROUP }, &journal.name(14), &content).await.unwrap();
        let newer = anyhow::Error::new(journal.newest().await.unwrap_err());
        assert!(
            format!("{newer:#}").contains("version is 4") || format!("{newer:#}").contains("version 4"),
            "{newer:#}"
        );
    }
}
