//! Savepoints in the store: taking, listing and dropping them.
//!
//! ```text
//! {store}/{job}/savepoints/{name}.json     a savepoint
//! {store}/{job}/pins/{id}.json             one that is being taken
//! ```
//!
//! What makes a savepoint whole is in [`fluvial_protocol`]'s module `savepoint`.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use fluvial_connector::Error;
use fluvial_protocol::{Answer, Call, Inspected, Inspection, Savepoint};
use fluvial_store::Created;
use fluvial_store::frame::Format;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectMeta;

use super::{CONCURRENT_GETS, JobStore};
use crate::check_job_name;
use crate::fail_point::{FailPoint, reach};

const SAVEPOINT: Format = Format { kind: "savepoint", version: 1 };
/// How often the newest checkpoint is pinned until it still is the newest afterwards.
const ATTEMPTS: usize = 20;
/// The age from which a pin counts as left by somebody who died.
const LEFT_AFTER_MS: u64 = 3_600_000;

/// Checks the name of a savepoint, which becomes a part of an object's name.
///
/// # Errors
/// One line that says what a name consists of.
pub fn check_savepoint_name(name: &str) -> Result<(), String> {
    check_job_name(name).map_err(|error| error.replace("a job's name", "a savepoint's name"))
}

/// A job has no checkpoint yet.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the job has no checkpoint yet")]
pub struct NoCheckpoint;

fn object(name: &str) -> String {
    format!("savepoints/{name}.json")
}

impl JobStore {
    /// Takes a savepoint of the newest checkpoint.
    ///
    /// # Errors
    /// There is a savepoint of this name, or no checkpoint yet; or the store fails.
    pub async fn take_savepoint(&self, name: &str) -> anyhow::Result<Savepoint> {
        ensure!(self.savepoint(name).await?.is_none(), "there is a savepoint '{name}' already: choose another name");
        self.forget_left_pins().await?;
        for _ in 0..ATTEMPTS {
            let taken_ms = now_ms();
            let inspected = self.inspect().await?;
            let (checkpoint, manifest) = inspected.into_checkpoint().ok_or(NoCheckpoint)?;
            let savepoint = Savepoint { name: name.to_owned(), taken_ms, checkpoint, manifest };
            let pin = format!("pins/{:016x}.json", rand::random::<u64>());
            self.store.create_framed(SAVEPOINT, &self.path(&pin), &savepoint).await?;
            reach(FailPoint::AfterPin);
            let newest = self.inspect().await?.into_checkpoint();
            let whole = newest.is_some_and(|(newest, _)| newest == savepoint.checkpoint);
            if whole {
                reach(FailPoint::BeforeSavepoint);
            }
            // A create that has failed may yet take effect, so the pin stays then.
            let kept = match whole {
                true => Some(self.store.create_framed(SAVEPOINT, &self.path(&object(name)), &savepoint).await?),
                false => None,
            };
            if kept.is_some() {
                reach(FailPoint::AfterSavepoint);
            }
            self.delete(&pin).await?;
            match kept {
                Some(Created::Created) => return Ok(savepoint),
                Some(Created::AlreadyExists) => {
                    // Either another user was faster, or the store repeated this request.
                    let found = self.savepoint(name).await?;
                    ensure!(
                        found.as_ref() == Some(&savepoint),
                        "there is a savepoint '{name}' already: choose another name"
                    );
                    return Ok(savepoint);
                }
                None => {}
            }
        }
        bail!("checkpoints follow each other too fast for a savepoint of one of them: ask again");
    }

    /// The object of the newest checkpoint's manifest.
    ///
    /// # Errors
    /// The store fails.
    pub async fn newest_checkpoint(&self) -> anyhow::Result<Option<String>> {
        Ok(self.inspect().await?.into_checkpoint().map(|(name, _)| name))
    }

    /// The number of the last request to go back that was carried out, if one was.
    ///
    /// # Errors
    /// The store fails.
    pub async fn went_back(&self) -> anyhow::Result<Option<u64>> {
        Ok(self.inspect().await?.into_checkpoint().and_then(|(_, manifest)| manifest.went_back))
    }

    /// The savepoint of a name, if there is one.
    ///
    /// # Errors
    /// The store cannot be reached, or the object is damaged or of a newer format.
    pub async fn savepoint(&self, name: &str) -> Result<Option<Savepoint>, Error> {
        self.store.get_framed(SAVEPOINT, &self.path(&object(name))).await
    }

    /// The savepoints by name, with their objects.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub(crate) async fn listed(&self, folder: &str) -> Result<Vec<(String, ObjectMeta)>, Error> {
        let folder = self.path(folder);
        let found = self.objects().list(Some(&folder)).try_collect::<Vec<_>>().await;
        let found = found.map_err(|error| self.store.failed("list", &folder, error))?;
        let named = |object: ObjectMeta| Some((object.location.filename()?.strip_suffix(".json")?.to_owned(), object));
        Ok(found.into_iter().filter_map(named).collect())
    }

    /// All savepoints, the oldest first.
    ///
    /// # Errors
    /// As [`JobStore::savepoint`].
    pub async fn savepoints(&self) -> Result<Vec<Savepoint>, Error> {
        let mut found = self.savepoints_in("savepoints").await?;
        found.sort_by(|a, b| (a.taken_ms, &a.name).cmp(&(b.taken_ms, &b.name)));
        Ok(found)
    }

    /// Drops a savepoint, if there is one of this name. What nothing else needs of it is deleted by a later generation of the job.
    ///
    /// # Errors
    /// The store cannot be reached.
    pub async fn drop_savepoint(&self, name: &str) -> Result<(), Error> {
        self.delete(&object(name)).await
    }

    /// The objects that must not be deleted, because a savepoint, or one that is being taken, keeps them.
    ///
    /// # Errors
    /// As [`JobStore::savepoint`].
    pub async fn pinned(&self) -> Result<BTreeSet<String>, Error> {
        // A pin becomes a savepoint and goes after that, so they are read in this order.
        let pins = self.savepoints_in("pins").await?;
        let savepoints = self.savepoints_in("savepoints").await?;
        Ok(pins.iter().chain(&savepoints).flat_map(Savepoint::objects).collect())
    }

    async fn savepoints_in(&self, folder: &str) -> Result<Vec<Savepoint>, Error> {
        let names = self.list(folder).await?;
        let found: Vec<Option<Savepoint>> = futures::stream::iter(names)
            .map(|name| async move { self.store.get_framed(SAVEPOINT, &self.path(&name)).await })
            .buffered(CONCURRENT_GETS)
            .try_collect()
            .await?;
        // One that was listed may be gone by now.
        Ok(found.into_iter().flatten().collect())
    }

    async fn forget_left_pins(&self) -> Result<(), Error> {
        for name in self.list("pins").await? {
            let pin: Option<Savepoint> = self.store.get_framed(SAVEPOINT, &self.path(&name)).await?;
            if pin.is_some_and(|pin| pin.taken_ms + LEFT_AFTER_MS < now_ms()) {
                self.delete(&name).await?;
            }
        }
        Ok(())
    }

    /// Reads the journal as an opening would find it.
    async fn inspect(&self) -> anyhow::Result<Inspected> {
        let mut inspection = Inspection::new(None);
        loop {
            let call = inspection.next_call().context("the inspection of the journal asks nothing")?;
            let answer = match call {
                Call::List { after } => Answer::Positions(self.list_journal(after).await?),
                Call::Get(seqs) => Answer::Records(self.get_records(seqs).await?),
                Call::GetManifest(name) => Answer::Manifest(self.get_manifest(&name).await?.map(Box::new)),
                other => bail!("an inspection only reads, and asked for {other:?}"),
            };
            if let Some(inspected) = inspection.on(answer)? {
                return Ok(inspected);
            }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the time is for people, and to recognise what was left for an hour")]
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_connector::{Generation, Incarnation, Tick};
    use fluvial_protocol::journal::{Entry, JournalRecord, Nonce, Seq};
    use fluvial_protocol::manifest::Manifest;
    use fluvial_store::Store;

    use super::*;

    fn manifest(tick: u64) -> Manifest {
        Manifest {
            incarnation: Incarnation(uuid::Uuid::nil()),
            generation: Generation(1),
            program: String::new(),
            tick: Tick(tick),
            gone_back_to: None,
            went_back: None,
            splits: Vec::new(),
            sinks: Vec::new(),
            outputs: Vec::new(),
            operators: Vec::new(),
            most_slots: 1,
            most_turns: 1,
        }
    }

    fn record(entries: Vec<Entry>) -> JournalRecord {
        JournalRecord {
            incarnation: Incarnation(uuid::Uuid::nil()),
            generation: Generation(1),
            nonce: Nonce::of_run(1, 1),
            entries,
        }
    }

    async fn checkpoint(store: &JobStore, tick: u64) {
        let name = format!("checkpoints/0000000001-{tick}");
        store.put_manifest(&name, &manifest(tick)).await.unwrap();
        let checkpoint = Entry::Checkpoint { tick: Tick(tick), manifest: name, floor: Seq(tick) };
        store.put_record(Seq(tick), &record(vec![checkpoint])).await.unwrap();
    }

    #[tokio::test]
    async fn a_savepoint_keeps_the_newest_checkpoint_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let store = JobStore::new(Store::open(folder.path().to_str().unwrap()).unwrap(), "job");
        let opened = Entry::Opened { program: String::new(), workers: 1, processes: 1, turns: 1 };
        store.put_record(Seq(0), &record(vec![opened])).await.unwrap();
        let none = store.take_savepoint("early").await.unwrap_err();
        assert!(none.to_string().contains("no checkpoint yet"), "{none}");
        checkpoint(&store, 1).await;
        checkpoint(&store, 2).await;
        let taken = store.take_savepoint("first").await.unwrap();
        assert_eq!((taken.manifest.tick, taken.checkpoint.as_str()), (Tick(2), "checkpoints/0000000001-2"));
        let again = store.take_savepoint("first").await.unwrap_err();
        assert!(again.to_string().contains("already"), "{again}");
        checkpoint(&store, 3).await;
        let names = |savepoints: Vec<Savepoint>| savepoints.into_iter().map(|s| s.name).collect::<Vec<_>>();
        assert_eq!(names(store.savepoints().await.unwrap()), ["first"]);
        assert_eq!(store.savepoint("first").await.unwrap(), Some(taken.clone()));
        assert_eq!(store.pinned().await.unwrap(), taken.objects());
        assert!(store.list("pins").await.unwrap().is_empty());
        store.drop_savepoint("first").await.unwrap();
        store.drop_savepoint("first").await.unwrap();
        assert!(store.pinned().await.unwrap().is_empty());
    }

    #[test]
    fn the_name_of_a_savepoint_names_no_other_object() {
        for (name, fits) in [("before-upgrade.1", true), ("../journal/0", false), ("", false), (".x", false)] {
            assert_eq!(check_savepoint_name(name).is_ok(), fits, "{name}");
        }
    }
}
