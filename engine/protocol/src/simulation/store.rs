//! The simulated object store, and the undisturbed copy of what was ever appended to the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fluvial_connector::{Generation, Incarnation, Tick};
use uuid::Uuid;

use super::Violation;
use crate::history::newest_checkpoint;
use crate::journal::{Entry, JournalRecord, Nonce, Seq};
use crate::manifest::Manifest;
use crate::{Answer, Call, FoundObject, Identity, Object, PutOutcome, Savepoint, Verdict};

/// A state file: counts by key.
pub(super) type Counts = BTreeMap<u8, u64>;

/// The store.
#[derive(Default)]
pub(super) struct Store {
    journal: BTreeMap<Seq, Arc<JournalRecord>>,
    manifests: BTreeMap<String, Arc<Manifest>>,
    files: BTreeMap<String, Arc<Counts>>,
    /// Savepoints that are being taken.
    pins: BTreeMap<String, Savepoint>,
    pub(super) savepoints: BTreeMap<String, Savepoint>,
    /// The manifests by which generations have gone back, by their names. Nothing is ever deleted here.
    pub(super) gone_back: BTreeMap<String, Arc<Manifest>>,
    /// What was created first at each position. Nothing is ever deleted here.
    pub(super) all: BTreeMap<Seq, Arc<JournalRecord>>,
    sealed: BTreeSet<Tick>,
}

impl Store {
    /// Carries out a call.
    pub(super) fn execute(&mut self, call: &Call) -> Result<Answer, Violation> {
        Ok(match call {
            Call::List { after } => {
                let taken = self.journal.keys().copied();
                Answer::Positions(taken.filter(|seq| after.is_none_or(|after| *seq > after)).collect())
            }
            Call::Get(seqs) => {
                let found = |seq: &Seq| (*seq, self.journal.get(seq).map(|record| (**record).clone()));
                Answer::Records(seqs.iter().map(found).collect())
            }
            Call::Put(seq, record) => Answer::Put(self.put(*seq, record)?),
            Call::GetManifest(name) => Answer::Manifest(self.manifests.get(name).map(|m| Box::new((**m).clone()))),
            Call::PutManifest(name, manifest) => {
                if self.manifests.contains_key(name) {
                    return Ok(Answer::Put(PutOutcome::AlreadyExists));
                }
                self.manifests.insert(name.clone(), Arc::clone(manifest));
                if manifest.gone_back_to.is_some() && manifest.went_back.is_some() {
                    self.gone_back.insert(name.clone(), Arc::clone(manifest));
                }
                Answer::Put(PutOutcome::Created)
            }
            Call::GetSavepoint(name) => Answer::Savepoint(self.savepoints.get(name).cloned().map(Box::new)),
            Call::ListPinned => {
                let all = self.pins.values().chain(self.savepoints.values());
                Answer::Pinned(all.flat_map(Savepoint::objects).collect())
            }
            Call::ListObjects => {
                let names = self.manifests.keys().chain(self.files.keys());
                Answer::Objects(names.map(|name| found(name)).collect())
            }
            Call::Delete(objects) => {
                for object in objects {
                    match object {
                        Object::Record(seq) => drop(self.journal.remove(seq)),
                        Object::Named(name) => {
                            self.manifests.remove(name);
                            self.files.remove(name);
                        }
                    }
                }
                Answer::Deleted
            }
        })
    }

    fn put(&mut self, seq: Seq, record: &Arc<JournalRecord>) -> Result<PutOutcome, Violation> {
        if self.journal.contains_key(&seq) {
            return Ok(PutOutcome::AlreadyExists);
        }
        self.journal.insert(seq, Arc::clone(record));
        let binds = record.entries.iter().any(|entry| matches!(entry, Entry::Binding(_)));
        match self.all.get(&seq) {
            // One that lists, sleeps, and opens far behind the floor is stopped when it reads the tail.
            Some(first) if binds && first != record => {
                let generation = record.generation;
                return Err(Violation(format!("generation {generation} bound ticks in the pruned record {seq}")));
            }
            Some(_) => {}
            None => {
                self.all.insert(seq, Arc::clone(record));
                let ticks = record.entries.iter().filter_map(|entry| match entry {
                    Entry::Binding(binding) => Some(binding.tick),
                    _ => None,
                });
                self.sealed.extend(ticks);
            }
        }
        Ok(PutOutcome::Created)
    }

    /// The newest checkpoint, as a savepoint of this name would keep it.
    pub(super) fn newest_checkpoint(&self, name: &str) -> Option<Savepoint> {
        let journal = self.journal.iter().map(|(seq, record)| (*seq, (**record).clone())).collect();
        let checkpoint = newest_checkpoint(&journal)?.manifest;
        let manifest = (**self.manifests.get(&checkpoint)?).clone();
        Some(Savepoint { name: name.to_owned(), taken_ms: 0, checkpoint, manifest })
    }

    pub(super) fn pin(&mut self, savepoint: Savepoint) {
        self.pins.insert(savepoint.name.clone(), savepoint);
    }

    /// Takes a pin away. It has become a savepoint if `keep`.
    pub(super) fn unpin(&mut self, name: &str, keep: bool) {
        if let Some(savepoint) = self.pins.remove(name).filter(|_| keep) {
            self.savepoints.insert(savepoint.name.clone(), savepoint);
        }
    }

    /// Who bound the first tick.
    pub(super) fn first_to_bind(&self) -> Option<Nonce> {
        let binds =
            |record: &&Arc<JournalRecord>| record.entries.iter().any(|entry| matches!(entry, Entry::Binding(_)));
        self.all.values().find(binds).map(|record| record.nonce)
    }

    /// The last reconciliation that was asked for, and by whom.
    pub(super) fn reconciled(&self) -> Option<(Tick, Nonce)> {
        self.all.values().rev().find_map(|record| {
            record.entries.iter().rev().find_map(|entry| match entry {
                Entry::Reconciled { tick, .. } | Entry::Compacted { tick } | Entry::Upgraded { tick } => {
                    Some((*tick, record.nonce))
                }
                _ => None,
            })
        })
    }

    /// Whether the journal has ever bound a tick.
    pub(super) fn is_sealed(&self, tick: Tick) -> bool {
        self.sealed.contains(&tick)
    }

    pub(super) fn put_file(&mut self, name: &str, counts: &Counts) {
        self.files.insert(name.to_owned(), Arc::new(counts.clone()));
    }

    pub(super) fn file(&self, name: &str) -> Option<&Arc<Counts>> {
        self.files.get(name)
    }

    /// Whose the newest record is.
    pub(super) fn newest(&self, me: &Identity) -> Verdict {
        let newest = self.journal.last_key_value();
        newest.and_then(|(seq, record)| me.judge(*seq, record).ok()).unwrap_or(Verdict::Older)
    }

    /// Whether a generation of at least that number, other than the one of `nonce`, has ever opened the journal.
    pub(super) fn has_opened(&self, generation: Generation, nonce: Nonce) -> bool {
        self.has_newer(&Identity { incarnation: Incarnation(Uuid::nil()), generation, nonce })
    }

    /// Whether another run of this generation or a newer one has ever opened the journal.
    pub(super) fn has_newer(&self, me: &Identity) -> bool {
        self.all.values().any(|record| {
            record.generation >= me.generation
                && record.nonce != me.nonce
                && record.entries.iter().any(|entry| matches!(entry, Entry::Opened { .. }))
        })
    }
}

fn found(name: &str) -> FoundObject {
    let file = name.rsplit('/').next().and_then(|file| file.split('-').next());
    let generation = file.and_then(|part| part.parse().ok()).unwrap_or(u64::MAX);
    FoundObject { name: name.to_owned(), generation: Generation(generation) }
}
