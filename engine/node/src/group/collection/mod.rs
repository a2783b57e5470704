//! Collects what nothing refers to any more: specifications, their binaries and graphs, logs of jobs that are gone, and savepoints that
//! were taken before upgrades; and removes the state of deleted jobs.
//!
//! ```text
//!   each hour, on the coordinator:  list ─► what is unused and old ─► announce ─► the store's time, the newest record, list again
//!                                                                       └─► what is unused and old still ─► delete ─► announcement goes
//!   whoever submits:                write the specification (again) ─► look for an announcement ─► look that all is there ─► change
//! ```
//!
//! # Rules
//!
//! *What the newest record leads to is used*: the versions that jobs run, are to run, or may return to, for `rollback` the three
//! before each of these, the binaries of all of them, and the savepoints that they name.
//!
//! *What is young is used.* [A binary was uploaded and its plan shown to a person; it is deleted before the person has agreed; or
//! a specification is written, and deleted before the change that names it.] So whatever was written less than a day ago
//! (`--collect-after`) stays, with the binary that it names, and whoever submits writes the specification again if it is there. Both times are the store's:
//! the clock of a node may be wrong.
//!
//! *Announce, then look again.* [The collector lists; a user submits a job with a binary that has been there for long, finds it in the store,
//! and the change is recorded; the collector deletes the binary.] Before it looks again, the collector writes an object that names what it is about
//! to delete. Who submits looks for that object after the specification has been written. So either the collector sees the new specification, or the user
//! sees the announcement and is told to ask again.
//!
//! *What is there is looked at last.* [The announcement has gone, and what it named with it, before a user looks for it.] Who
//! submits sees then that something is missing, and is told so.
//!
//! *The record is read from the store.* [A coordinator that has been superseded does not know the jobs that were submitted since.]
//!
//! *A collector that was paused deletes nothing.* [It has announced, and its host is suspended; another one takes the announcement for one that was
//! left, and removes it; a job is submitted; the first one wakes up and deletes.] What is announced is deleted within five minutes of the
//! announcement or not at all, and an announcement that was left is removed after an hour.
//!
//! *State is removed in the same way.* [The coordinator that removes the state of a deleted job is superseded and paused; the next one removes
//! it, and a job of the same name is submitted; the first one wakes up and deletes the new journal.] It reads the record from the store before
//! it begins, and has five minutes from then. A new coordinator waits as long before it removes what it finds to be removed.
//!
//! An hour costs four listings, one more for each job, and five cents a month in all for ten jobs on S3.

mod announcement;
mod rule;
mod savepoints;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use fluvial_protocol::group::{Change, GroupRecord};
use futures::TryStreamExt;
use object_store::ObjectMeta;
use object_store::path::Path;
use rustix::time::{ClockId, clock_gettime};

use super::programs::{Shelf, Specification};
use super::{CLUSTER, GroupJournal};
use crate::changes::Changes;
use crate::logs::StoredLogs;
use crate::status::Board;
use announcement::Announcement;
pub(super) use announcement::is_announced;
use rule::{Stored, unused, used};

/// The time since this host was started. Other than [`Instant`] it goes on while the host is suspended.
fn uptime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Whether something may still be deleted because of what was read or announced at this [`uptime`].
fn may_delete(since: Duration) -> bool {
    uptime().saturating_sub(since) < DELETED_WITHIN
}

/// How it is collected.
#[derive(Clone, Copy, Debug)]
pub struct CollectionOptions {
    /// The age from which on something that nothing refers to is deleted.
    pub after: Duration,
    /// The time between two collections.
    pub every: Duration,
    /// How many of the savepoints that were taken before upgrades a job keeps, besides those that it may go back to.
    pub keep_savepoints: usize,
}

impl Default for CollectionOptions {
    fn default() -> Self {
        Self { after: Duration::from_secs(86_400), every: Duration::from_secs(3600), keep_savepoints: 3 }
    }
}

/// Between two looks whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The time until something that failed is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// How long after the announcement something may still be deleted.
const DELETED_WITHIN: Duration = Duration::from_secs(300);

/// A time in milliseconds since the Unix epoch.
type Millis = i64;

/// When the state of each deleted job is removed, by the job and the time that the record says.
type Removing = BTreeMap<(String, u64), Instant>;

/// Whether an object is old enough to be deleted, at the time of another one that was written just now.
type IsOld = Arc<dyn Fn(&ObjectMeta, Millis) -> bool + Send + Sync>;

/// Collects for a cluster.
pub(super) struct Collector {
    shelf: Shelf,
    journal: GroupJournal,
    logs: StoredLogs,
    options: CollectionOptions,
    is_old: IsOld,
    /// The specifications that were read: none ever changes.
    known: BTreeMap<String, Specification>,
}

/// What a look has found.
struct Look {
    specifications: BTreeMap<String, ObjectMeta>,
    binaries: BTreeMap<String, ObjectMeta>,
    graphs: BTreeMap<String, ObjectMeta>,
}

impl Collector {
    pub(super) fn new(shelf: Shelf, options: CollectionOptions) -> Self {
        let store = shelf.store().clone();
        let after_ms = i64::try_from(options.after.as_millis()).unwrap_or(i64::MAX);
        let is_old = move |object: &ObjectMeta, now: Millis| {
            now.saturating_sub(object.last_modified.timestamp_millis()) >= after_ms
        };
        Self {
            journal: GroupJournal::new(store.clone(), CLUSTER),
            logs: StoredLogs::new(store, CLUSTER),
            shelf,
            options,
            is_old: Arc::new(is_old),
            known: BTreeMap::new(),
        }
    }

    /// Collects as long as the node lives, while it coordinates.
    pub(super) async fn run(mut self, board: Arc<Board>, changes: Changes) {
        let mut next = Instant::now() + self.options.every;
        let mut jobs = BTreeSet::new();
        let mut removing = BTreeMap::new();
        let mut coordinated = false;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let view = board.read().map(|(view, _)| view).filter(|view| view.coordinates());
            let Some(record) = view.and_then(|view| view.record.clone()) else {
                // Another node collects. It begins an hour after it has begun to coordinate.
                next = Instant::now() + self.options.every;
                removing.clear();
                coordinated = false;
                continue;
            };
            // What the coordinator before has begun to remove it may still be removing.
            let after = if coordinated { Duration::ZERO } else { DELETED_WITHIN };
            coordinated = true;
            self.remove(&record, &mut removing, after, &changes).await;
            let names: BTreeSet<_> = record.jobs.keys().cloned().collect();
            // What a deleted job has left is old, or is collected in its time.
            let is_gone = jobs.difference(&names).next().is_some();
            jobs = names;
            if Instant::now() < next && !is_gone {
                continue;
            }
            next = Instant::now() + self.options.every;
            if let Err(error) = self.collect().await {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "could not collect what nothing refers to: it is tried again"
                );
                next = Instant::now() + AGAIN.min(self.options.every);
            }
        }
    }

    /// Removes the state of deleted jobs whose time has come, and says so to the group. What is new in the record waits `after` longer.
    async fn remove(&self, record: &GroupRecord, removing: &mut Removing, after: Duration, changes: &Changes) {
        removing.retain(|(job, at_ms), _| record.removing.get(job) == Some(at_ms));
        for (job, at_ms) in &record.removing {
            // The group's clock stands still in a record, so the wait begins when this node has seen it.
            let wait = Duration::from_millis(at_ms.saturating_sub(record.clock_ms)) + after;
            let due = *removing.entry((job.clone(), *at_ms)).or_insert_with(|| Instant::now() + wait);
            if Instant::now() < due {
                continue;
            }
            match self.remove_state(job, *at_ms, changes).await {
                Ok(()) => tracing::info!(job, "the state of the deleted job has been removed from the store"),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(job, error, "could not remove the state of the deleted job: it is tried again");
                    removing.insert((job.clone(), *at_ms), Instant::now() + AGAIN);
                }
            }
        }
    }

    /// Removes the state of a deleted job as long as that is what the group's newest record says.
    async fn remove_state(&self, job: &str, at_ms: u64, changes: &Changes) -> anyhow::Result<()> {
        let since = uptime();
        let newest = self.journal.newest().await?;
        let is_due = newest.is_some_and(|(_, record)| record.removing.get(job) == Some(&at_ms));
        ensure!(is_due, "another coordinator has removed it");
        self.logs.prune(job, 0).await?;
        self.shelf.job(job).remove(|| may_delete(since)).await?;
        changes.make(Change::Removed { job: job.to_owned() }).await?;
        Ok(())
    }

    /// Collects once.
    ///
    /// # Errors
    /// The store fails, or holds something damaged: nothing is deleted then of which it is not known whether it is used.
    async fn collect(&mut self) -> anyhow::Result<()> {
        let Some((_, record)) = self.journal.newest().await? else { return Ok(()) };
        self.collect_logs(&record).await?;
        self.collect_savepoints(&record).await?;
        let look = self.look().await?;
        let now = clock();
        let first = self.unused(&record, &look, now).await?;
        if first.is_empty() {
            return Ok(());
        }
        let Some(announcement) = self.announce(first).await? else { return Ok(()) };
        let swept = self.sweep(&announcement).await;
        let ended = announcement.end(self.shelf.store()).await;
        swept?;
        Ok(ended?)
    }

    /// Announces what is to be deleted. `None` if another collector has announced something, and may be at work.
    async fn announce(&self, what: BTreeSet<Path>) -> anyhow::Result<Option<Announcement>> {
        Announcement::make(self.shelf.store(), what).await
    }

    /// Deletes what was announced and is unused still.
    async fn sweep(&mut self, announcement: &Announcement) -> anyhow::Result<()> {
        let Some((_, record)) = self.journal.newest().await? else { return Ok(()) };
        let look = self.look().await?;
        let second = self.unused(&record, &look, announcement.made).await?;
        self.delete(announcement, &second).await
    }

    async fn delete(&self, announcement: &Announcement, unused: &BTreeSet<Path>) -> anyhow::Result<()> {
        for name in announcement.what.intersection(unused) {
            if !may_delete(announcement.since) {
                anyhow::bail!("it took longer than {} s", DELETED_WITHIN.as_secs());
            }
            self.shelf.store().delete(name).await?;
            tracing::info!(object = %name, "nothing refers to it any more: it was deleted from the store");
        }
        Ok(())
    }

    async fn look(&self) -> anyhow::Result<Look> {
        // A specification that is written after the binaries were listed names one that is there, or is refused.
        let binaries = self.list("binaries", "").await?;
        let graphs = self.list("graphs", ".json").await?;
        let specifications = self.list("specifications", ".json").await?;
        Ok(Look { specifications, binaries, graphs })
    }

    /// The objects of a folder, by what their names begin with.
    async fn list(&self, folder: &str, suffix: &str) -> anyhow::Result<BTreeMap<String, ObjectMeta>> {
        let store = self.shelf.store();
        let folder = store.path(&format!("{CLUSTER}/{folder}"));
        let found: Vec<_> = store
            .objects()
            .list(Some(&folder))
            .try_collect()
            .await
            .map_err(|error| store.failed("list", &folder, error))?;
        let named = found.into_iter().filter_map(|object| {
            let name = object.location.filename()?.strip_suffix(suffix)?.to_owned();
            Some((name, object))
        });
        Ok(named.collect())
    }

    /// What a look shows to be unused and old.
    async fn unused(&mut self, record: &GroupRecord, look: &Look, now: Millis) -> anyhow::Result<BTreeSet<Path>> {
        let is_old = Arc::clone(&self.is_old);
        let stored = |objects: &BTreeMap<String, ObjectMeta>| -> BTreeMap<String, bool> {
            objects.iter().map(|(name, object)| (name.clone(), is_old(object, now))).collect()
        };
        let stored = Stored {
            specifications: stored(&look.specifications),
            binaries: stored(&look.binaries),
            graphs: stored(&look.graphs),
        };
        self.read(record, &stored).await?;
        let used = used(record, &self.known);
        let found = unused(&used, &stored, &self.known);
        let paths = |names: BTreeSet<String>, objects: &BTreeMap<String, ObjectMeta>| -> Vec<Path> {
            names.iter().filter_map(|name| objects.get(name)).map(|object| object.location.clone()).collect()
        };
        let mut all: BTreeSet<Path> = paths(found.specifications, &look.specifications).into_iter().collect();
        all.extend(paths(found.binaries, &look.binaries));
        all.extend(paths(found.graphs, &look.graphs));
        Ok(all)
    }

    /// Reads the specifications that decide about others: those that are young, and those that the record leads to.
    async fn read(&mut self, record: &GroupRecord, stored: &Stored) -> anyhow::Result<()> {
        self.known.retain(|version, _| stored.specifications.contains_key(version));
        let mut unread: BTreeSet<String> = rule::roots(record).into_iter().collect();
        unread.extend(stored.specifications.iter().filter(|(_, is_old)| !**is_old).map(|(version, _)| version.clone()));
        loop {
            let missing = unread.iter().filter(|version| stored.specifications.contains_key(*version));
            let missing: Vec<_> = missing.filter(|version| !self.known.contains_key(*version)).cloned().collect();
            for version in missing {
                let specification = self.shelf.get(&version).await?;
                self.known.insert(version, specification);
            }
            let before = unread.len();
            let previous = unread.iter().filter_map(|version| self.known.get(version)?.previous.as_ref());
            let previous: Vec<_> = previous.map(|previous| previous.version.clone()).collect();
            unread.extend(previous);
            if unread.len() == before {
                return Ok(());
            }
        }
    }

    /// Deletes the logs of jobs that are not there any more.
    async fn collect_logs(&self, record: &GroupRecord) -> anyhow::Result<()> {
        let store = self.shelf.store();
        let folder = store.path(&format!("{CLUSTER}/logs"));
        let listed = store.objects().list_with_delimiter(Some(&folder)).await;
        let listed = listed.map_err(|error| store.failed("list", &folder, error))?;
        let jobs = listed.common_prefixes.iter().filter_map(|folder| folder.filename());
        for job in jobs.filter(|job| !record.jobs.contains_key(*job)) {
            let objects = self.list(&format!("logs/{job}"), "").await?;
            let now = clock();
            if objects.values().all(|object| (self.is_old)(object, now)) {
                self.logs.prune(job, 0).await?;
                tracing::info!(job, "the logs of a job that was deleted have been removed from the store");
            }
        }
        Ok(())
    }
}

#[allow(clippy::disallowed_methods, reason = "a first look: the store's time decides")]
fn clock() -> Millis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
