//! The group's journal in the store: `{job}/group/{position}.json`, one [`GroupRecord`] an object.

use std::time::Duration;

use fluvial_connector::Error;
use fluvial_protocol::PutOutcome;
use fluvial_protocol::group::{GroupRecord, StoreAnswer, StoreCall};
use fluvial_store::frame::Format;
use fluvial_store::{Created, Store};
use object_store::path::Path;

const GROUP: Format = Format { kind: "group", version: 1 };
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
            if let Some(record) = self.store.get_framed(GROUP, &self.name(position)).await? {
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
                StoreAnswer::Record(self.store.get_framed(GROUP, &self.name(*position)).await?.map(Box::new))
            }
            StoreCall::Put(position, record) => {
                let created = self.store.create_framed(GROUP, &self.name(*position), &**record).await?;
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
