//! Makes the leader's calls to the store, and waits out the store's outages.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use fluvial_connector::{Error, ErrorKind, Generation};
use fluvial_protocol::journal::{Entry, Seq};
use fluvial_protocol::{Answer, Call, FoundObject, Object, PutOutcome};
use fluvial_store::Created;
use tokio::runtime::{Builder, Runtime};

use super::ambient;
use super::failure::chain;
use crate::fail_point::{FailPoint, reach};
use fluvial_node::job_store::{JobStore, journal_object};

/// The runtime on which the calls to the store run. It is never shut down: when the process ends, a merge or a call that was
/// given up may still be under way.
pub(crate) fn store_runtime() -> std::io::Result<&'static Runtime> {
    let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("store").enable_all().build()?;
    Ok(Box::leak(Box::new(runtime)))
}

/// The first pause after a call that failed. It grows while calls fail, so that a store that asks for fewer requests gets
/// fewer.
const PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The store as the leader calls it.
pub(crate) struct StoreCalls {
    store: JobStore,
    patience: Duration,
    /// Since when every create has failed, and since when everything else: a full store can be read well.
    failing_since: [Mutex<Option<Instant>>; 2],
}

impl StoreCalls {
    pub(crate) fn new(store: JobStore, patience: Duration) -> Self {
        Self { store, patience, failing_since: [Mutex::new(None), Mutex::new(None)] }
    }

    /// The answer to a call. A create whose outcome is unknown is answered as such; any other call is made again until
    /// it is answered.
    ///
    /// # Errors
    /// The store has been unavailable for longer than the patience, or an object in it is damaged.
    pub(crate) async fn make(&self, call: Call) -> Result<Answer, Error> {
        let creates = matches!(call, Call::Put(..) | Call::PutManifest(..));
        loop {
            match self.try_once(&call).await {
                Ok(answer) => {
                    *self.failing(creates) = None;
                    return Ok(answer);
                }
                Err(error) if error.kind != ErrorKind::Retry => return Err(error),
                Err(error) => {
                    let since = *self.failing(creates).get_or_insert_with(ambient::instant);
                    if since.elapsed() >= self.patience {
                        return Err(error);
                    }
                    tracing::warn!(error = chain(error), "the store is unavailable, retrying");
                    tokio::time::sleep(pause(since.elapsed())).await;
                    if creates {
                        return Ok(Answer::Put(PutOutcome::Unknown));
                    }
                }
            }
        }
    }

    /// Checks that the store honours conditional creates, and waits while it is unavailable.
    ///
    /// # Errors
    /// It does not, or it has been unavailable for longer than the patience.
    pub(crate) async fn probe(&self) -> Result<(), Error> {
        let since = ambient::instant();
        loop {
            match self.store.probe(ambient::uuid()).await {
                Err(error) if error.kind == ErrorKind::Retry && since.elapsed() < self.patience => {
                    tracing::warn!(error = chain(error), "the store is unavailable, retrying");
                    tokio::time::sleep(pause(since.elapsed())).await;
                }
                result => return result,
            }
        }
    }

    /// How many requests this process has made so far, if the store charges for them.
    pub(crate) fn charged_requests(&self) -> Option<u64> {
        self.store.store().charged_requests()
    }

    fn failing(&self, creates: bool) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.failing_since[usize::from(creates)].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn try_once(&self, call: &Call) -> Result<Answer, Error> {
        Ok(match call {
            Call::List { after } => {
                // A store may list more than what comes after.
                let mut positions = self.store.list_journal(*after).await?;
                positions.retain(|seq| after.is_none_or(|after| *seq > after));
                Answer::Positions(positions)
            }
            Call::Get(seqs) => Answer::Records(self.store.get_records(seqs.clone()).await?),
            Call::Put(seq, record) => {
                let created = self.store.put_record(*seq, record).await?;
                if created == Created::Created {
                    record.entries.iter().filter_map(point_after).take(1).for_each(reach);
                }
                Answer::Put(outcome(created))
            }
            Call::GetManifest(object) => Answer::Manifest(self.store.get_manifest(object).await?.map(Box::new)),
            Call::PutManifest(object, manifest) => {
                let created = self.store.put_manifest(object, manifest).await?;
                reach(FailPoint::AfterManifest);
                Answer::Put(outcome(created))
            }
            Call::GetSavepoint(name) => Answer::Savepoint(self.store.savepoint(name).await?.map(Box::new)),
            Call::ListPinned => match self.store.pinned().await {
                Ok(pinned) => Answer::Pinned(pinned),
                Err(error) if error.kind == ErrorKind::Retry => return Err(error),
                Err(error) => {
                    tracing::warn!(
                        error = chain(error),
                        "a savepoint cannot be read, so nothing is deleted from the store"
                    );
                    Answer::PinsUnknown
                }
            },
            Call::ListObjects => {
                let mut names = self.store.list("state").await?;
                names.extend(self.store.list("checkpoints").await?);
                Answer::Objects(names.into_iter().filter_map(found).collect())
            }
            Call::Delete(objects) => {
                for object in objects {
                    self.store.delete(&name(object)).await?;
                    reach(FailPoint::DuringDeletion);
                }
                Answer::Deleted
            }
        })
    }

    /// The newest record of the journal, which says whether a newer generation has opened it.
    ///
    /// # Errors
    /// The journal cannot be read, or is gone.
    pub(crate) async fn newest_record(&self) -> Result<(Seq, fluvial_protocol::journal::JournalRecord), Error> {
        let gone = || {
            let what = format!(
                "the journal in '{}', which this job has opened, does not exist any more: restore it from a copy of \
                 the store",
                self.store.describe("journal")
            );
            Error::new(ErrorKind::Data, what)
        };
        loop {
            let Answer::Positions(positions) = self.make(Call::List { after: None }).await? else { return Err(gone()) };
            let newest = *positions.last().ok_or_else(gone)?;
            let Answer::Records(mut records) = self.make(Call::Get(vec![newest])).await? else { return Err(gone()) };
            // The record may have been pruned in between. Then there is a newer one.
            if let Some((seq, Some(record))) = records.pop() {
                return Ok((seq, record));
            }
        }
    }
}

/// The pause after a call, by how long calls have failed.
fn pause(failing_for: Duration) -> Duration {
    (failing_for / 4).clamp(PAUSE, LONGEST_PAUSE)
}

/// The fail point at which a test may end the process when a record with this entry is in the journal.
fn point_after(entry: &Entry) -> Option<FailPoint> {
    match entry {
        Entry::Opened { .. } => Some(FailPoint::AfterClaiming),
        Entry::Binding(_) => Some(FailPoint::AfterSealing),
        _ => None,
    }
}

fn outcome(created: Created) -> PutOutcome {
    match created {
        Created::Created => PutOutcome::Created,
        Created::AlreadyExists => PutOutcome::AlreadyExists,
    }
}

fn name(object: &Object) -> String {
    match object {
        Object::Record(seq) => journal_object(*seq),
        Object::Named(name) => name.clone(),
    }
}

/// Recognises a state file or a manifest by its name, which begins with the generation. Other objects are not the engine's.
fn found(name: String) -> Option<FoundObject> {
    let generation = name.rsplit('/').next()?.split('-').next()?.parse().ok().map(Generation)?;
    Some(FoundObject { name, generation })
}
