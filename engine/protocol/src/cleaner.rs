//! Deletes what is no longer needed: journal records before the floor, state files and manifests that the newest
//! checkpoint does not name, and the objects that earlier generations left.
//!
//! Guarantees that nothing is deleted that a record of the journal names or may yet name, and that opened records and
//! no-ops stay. Does not guarantee that everything else is deleted by this generation: objects that a crash leaves are
//! found by a later one.

use std::collections::{BTreeMap, BTreeSet};

use super::history::is_kept;
use super::rules::{Rule, Rules};
use super::store::{Answer, Call, Identity, Object};
use crate::journal::{JournalRecord, Seq};
use crate::manifest::Manifest;

/// How many objects one call deletes or reads.
const CHUNK: usize = 256;
/// How long nothing is deleted after it could not be found out what savepoints keep, at the least.
const LEAST_REST_MS: u64 = 60_000;

/// The part of the leader that deletes.
#[derive(Debug)]
pub(crate) struct Cleaner {
    me: Identity,
    keep_journal: bool,
    grace_ms: u64,
    floor: Option<Seq>,
    /// Records that go when the floor has passed them.
    prunable: BTreeSet<Seq>,
    /// Records below the floor at opening whose kind is not known yet.
    unread: Vec<Seq>,
    /// What the newest complete checkpoint names, and what goes with it.
    named: BTreeSet<String>,
    /// What goes at which time.
    garbage: BTreeMap<String, u64>,
    /// Whether the leavings of older generations are still to be looked for.
    search: bool,
    /// What savepoints and pins keep, with the time at which that was asked for.
    pinned: BTreeSet<String>,
    pinned_as_of_ms: Option<u64>,
    /// Whether it is still to be asked if a newer generation has opened, since that time.
    doubts: bool,
    /// Records that are beyond the last known one, if there are any.
    unjudged: Vec<Seq>,
    /// Whether these are being read.
    judges: bool,
    /// The last record of the journal that is known.
    last: Seq,
    /// Whether a newer generation has opened: nothing is deleted any more.
    superseded: bool,
    /// Nothing is deleted before, because it is not known what savepoints keep.
    rests_until_ms: u64,
    busy: bool,
    rules: Rules,
}

impl Cleaner {
    pub(crate) fn new(me: Identity, keep_journal: bool, grace_ms: u64, below: Vec<Seq>, rules: Rules) -> Self {
        Self {
            me,
            keep_journal,
            grace_ms,
            floor: None,
            prunable: BTreeSet::new(),
            unread: if keep_journal { Vec::new() } else { below },
            named: BTreeSet::new(),
            garbage: BTreeMap::new(),
            search: false,
            pinned: BTreeSet::new(),
            pinned_as_of_ms: None,
            doubts: false,
            unjudged: Vec::new(),
            judges: false,
            last: Seq(0),
            superseded: false,
            rests_until_ms: 0,
            busy: false,
            rules,
        }
    }

    /// A record that stands in the journal.
    pub(crate) fn knows(&mut self, seq: Seq, record: &JournalRecord) {
        self.last = self.last.max(seq);
        if !self.keep_journal && (!is_kept(record) || !self.rules.has(Rule::KeepOpenedRecords)) {
            self.prunable.insert(seq);
        }
    }

    /// The checkpoint that the job was restored from: it is named, and nothing goes yet.
    pub(crate) fn restored(&mut self, name: &str, manifest: &Manifest) {
        self.named = manifest.objects(name);
    }

    /// A checkpoint is complete: what only the one before it named may go.
    pub(crate) fn complete(&mut self, name: &str, manifest: &Manifest, floor: Seq, now_ms: u64) {
        let named = manifest.objects(name);
        for lost in self.named.difference(&named) {
            self.garbage.insert(lost.clone(), now_ms + self.grace_ms);
        }
        // The first one of a generation: whatever older ones left can no longer be named.
        self.search |= self.floor.is_none();
        self.named = named;
        self.floor = Some(floor);
    }

    /// Deletes what `manifest` will no longer name before any record says so, as one must never do.
    #[cfg(test)]
    pub(crate) fn too_early(&mut self, name: &str, manifest: &Manifest) {
        let named = manifest.objects(name);
        self.garbage.extend(self.named.difference(&named).map(|lost| (lost.clone(), 0)));
        self.named = named;
    }

    /// An object of this generation that nothing will ever name.
    pub(crate) fn discard(&mut self, name: String, now_ms: u64) {
        self.garbage.insert(name, now_ms + self.grace_ms);
    }

    /// When something is due to go.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        if self.busy || self.superseded {
            return None;
        }
        self.garbage.values().min().map(|due| (*due).max(self.rests_until_ms))
    }

    /// The next call to the store, if none is under way.
    pub(crate) fn next_call(&mut self, now_ms: u64) -> Option<Call> {
        if self.busy {
            return None;
        }
        if self.superseded {
            return None;
        }
        let call = self.prune().or_else(|| self.collect(now_ms));
        self.busy = call.is_some();
        call
    }

    /// Takes the store's answer.
    pub(crate) fn on(&mut self, answer: Answer, now_ms: u64) {
        self.busy = false;
        match answer {
            Answer::Records(found) if std::mem::take(&mut self.judges) => {
                self.doubts = false;
                let newer = |(_, record): &(Seq, Option<JournalRecord>)| {
                    record.as_ref().is_none_or(|record| record.nonce != self.me.nonce)
                };
                self.superseded = found.iter().any(newer);
            }
            Answer::Records(found) => {
                for (seq, record) in found {
                    if let Some(record) = record {
                        self.knows(seq, &record);
                    }
                }
            }
            Answer::Objects(found) => {
                for object in found {
                    if object.generation < self.me.generation && !self.named.contains(&object.name) {
                        self.garbage.entry(object.name).or_insert(now_ms + self.grace_ms);
                    }
                }
            }
            Answer::Pinned(pinned) => {
                self.pinned = pinned;
                self.doubts = self.rules.has(Rule::AskBeforeDeleting);
            }
            Answer::PinsUnknown => {
                self.pinned_as_of_ms = None;
                self.rests_until_ms = now_ms + self.grace_ms.max(LEAST_REST_MS);
            }
            // The appender may have a record there whose answer has not come yet.
            Answer::Positions(positions) if positions.is_empty() => self.doubts = false,
            Answer::Positions(positions) => self.unjudged = positions,
            _ => {}
        }
    }

    fn prune(&mut self) -> Option<Call> {
        let floor = self.floor?;
        if !self.unread.is_empty() {
            let from = self.unread.len().saturating_sub(CHUNK);
            return Some(Call::Get(self.unread.split_off(from)));
        }
        let gone: Vec<Seq> = self.prunable.range(..floor).take(CHUNK).copied().collect();
        for seq in &gone {
            self.prunable.remove(seq);
        }
        if gone.is_empty() { None } else { Some(Call::Delete(gone.into_iter().map(Object::Record).collect())) }
    }

    fn collect(&mut self, now_ms: u64) -> Option<Call> {
        if std::mem::take(&mut self.search) {
            return Some(Call::ListObjects);
        }
        if !self.unjudged.is_empty() {
            self.judges = true;
            return Some(Call::Get(std::mem::take(&mut self.unjudged)));
        }
        if self.doubts {
            return Some(Call::List { after: Some(self.last) });
        }
        if now_ms < self.rests_until_ms {
            return None;
        }
        // What a savepoint keeps was pinned before it became superfluous.
        let since_ms = self.garbage.values().filter(|due| **due <= now_ms).max()?.saturating_sub(self.grace_ms);
        if self.pinned_as_of_ms.is_none_or(|as_of| as_of < since_ms) && self.rules.has(Rule::LookForPins) {
            self.pinned_as_of_ms = Some(now_ms);
            return Some(Call::ListPinned);
        }
        let due = self.garbage.extract_if(.., |_, due| *due <= now_ms).take(CHUNK);
        let stays = |name: &String| self.named.contains(name) || self.pinned.contains(name);
        // What is pinned goes some time after the savepoint was dropped, when a later generation looks for it.
        let gone: Vec<Object> = due.filter(|(name, _)| !stays(name)).map(|(name, _)| Object::Named(name)).collect();
        if gone.is_empty() { None } else { Some(Call::Delete(gone)) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use fluvial_connector::{Generation, Incarnation, Tick};
    use uuid::Uuid;

    use super::*;
    use crate::FoundObject;
    use crate::journal::{Entry, Nonce};
    use crate::manifest::{OperatorKind, OperatorState, StateFile};

    const ME: Identity = Identity { incarnation: Incarnation(Uuid::nil()), generation: Generation(3), nonce: Nonce(7) };

    fn manifest(files: &[&str]) -> Manifest {
        let file = |name: &&str| StateFile { object: (*name).to_owned(), rows: 1, bytes: 1, crc32: 0 };
        let kind = OperatorKind { operator: "latest".to_owned(), schema: String::new() };
        Manifest {
            incarnation: ME.incarnation,
            generation: ME.generation,
            program: String::new(),
            tick: Tick(1),
            gone_back_to: None,
            went_back: None,
            splits: Vec::new(),
            sinks: Vec::new(),
            outputs: Vec::new(),
            operators: vec![OperatorState {
                name: "op".to_owned(),
                kind,
                files: files.iter().map(file).collect(),
                keys: None,
            }],
            most_slots: 1,
            most_turns: 1,
        }
    }

    fn cleaner(keep_journal: bool) -> Cleaner {
        let mut cleaner = Cleaner::new(ME, keep_journal, 100, vec![Seq(0), Seq(1)], Rules::default());
        let opened = Entry::Opened { program: String::new(), workers: 1, processes: 1, turns: 1 };
        for (seq, entries) in [
            (4, vec![opened]),
            (5, vec![]),
            (6, vec![Entry::Reconciled { tick: Tick(1), rewound: Vec::new(), recreated: Vec::new() }]),
        ] {
            cleaner.knows(Seq(seq), &ME.record(entries));
        }
        cleaner
    }

    /// Everything that is to be deleted now, with nothing else in the store.
    fn deleted(cleaner: &mut Cleaner, found: &[(&str, u64)], now_ms: u64) -> Vec<Object> {
        deleted_beside(cleaner, found, &[], None, now_ms)
    }

    /// The same with savepoints that keep these objects, and with this record beyond the last known one.
    fn deleted_beside(
        cleaner: &mut Cleaner,
        found: &[(&str, u64)],
        pinned: &[&str],
        newer: Option<&JournalRecord>,
        now_ms: u64,
    ) -> Vec<Object> {
        let mut all = Vec::new();
        while let Some(call) = cleaner.next_call(now_ms) {
            let answer = match call {
                Call::Get(seqs) if seqs == [Seq(7)] => Answer::Records(vec![(Seq(7), newer.cloned())]),
                Call::Get(seqs) => Answer::Records(
                    seqs.into_iter()
                        .map(|seq| {
                            (
                                seq,
                                Some(
                                    (*ME.record(vec![Entry::Reconciled {
                                        tick: Tick(1),
                                        rewound: Vec::new(),
                                        recreated: Vec::new(),
                                    }]))
                                    .clone(),
                                ),
                            )
                        })
                        .collect(),
                ),
                Call::ListObjects => {
                    let object = |(name, generation): &(&str, u64)| FoundObject {
                        name: (*name).to_owned(),
                        generation: Generation(*generation),
                    };
                    Answer::Objects(found.iter().map(object).collect())
                }
                Call::ListPinned => Answer::Pinned(pinned.iter().map(|name| (*name).to_owned()).collect()),
                Call::List { after } => Answer::Positions(newer.iter().map(|_| after.unwrap().next()).collect()),
                Call::Delete(objects) => {
                    all.extend(objects);
                    Answer::Deleted
                }
                other => panic!("{other:?}"),
            };
            cleaner.on(answer, now_ms);
        }
        all.sort();
        all
    }

    fn named(name: &str) -> Object {
        Object::Named(name.to_owned())
    }

    #[test]
    fn nothing_goes_before_a_checkpoint_is_complete() {
        let mut cleaner = cleaner(false);
        cleaner.restored("m1", &manifest(&["a", "b"]));
        assert_eq!(deleted(&mut cleaner, &[("orphan", 1)], 1000), []);
    }

    #[test]
    fn the_journal_goes_behind_the_floor_but_for_opened_records_and_no_ops() {
        let mut cleaner = cleaner(false);
        // The record at the floor holds the checkpoint's own tick, and maybe later ones.
        for seq in [7, 8] {
            cleaner.knows(
                Seq(seq),
                &ME.record(vec![Entry::Reconciled { tick: Tick(1), rewound: Vec::new(), recreated: Vec::new() }]),
            );
        }
        cleaner.complete("m2", &manifest(&[]), Seq(7), 0);
        let records: Vec<Object> = [0, 1, 6].map(|seq| Object::Record(Seq(seq))).into();
        assert_eq!(deleted(&mut cleaner, &[], 0), records);
    }

    #[test]
    fn all_of_the_journal_stays_where_that_is_asked_for() {
        let mut cleaner = cleaner(true);
        cleaner.complete("m2", &manifest(&[]), Seq(7), 0);
        assert_eq!(deleted(&mut cleaner, &[], 0), []);
    }

    #[test]
    fn what_only_the_older_checkpoint_names_goes_after_the_grace_time() {
        let mut cleaner = cleaner(true);
        cleaner.restored("m1", &manifest(&["a", "b"]));
        cleaner.complete("m2", &manifest(&["b", "c"]), Seq(2), 1000);
        assert_eq!(deleted(&mut cleaner, &[], 1099), []);
        assert_eq!(cleaner.deadline_ms(), Some(1100));
        assert_eq!(deleted(&mut cleaner, &[], 1100), [named("a"), named("m1")]);
    }

    #[test]
    fn what_a_savepoint_keeps_stays_and_the_savepoints_are_looked_at_once_in_the_grace_time() {
        let mut cleaner = cleaner(true);
        cleaner.restored("m1", &manifest(&["a", "b"]));
        cleaner.complete("m2", &manifest(&["c"]), Seq(2), 1000);
        assert_eq!(deleted_beside(&mut cleaner, &[], &["m1", "a"], None, 1100), [named("b")]);
        cleaner.complete("m3", &manifest(&["d"]), Seq(3), 1090);
        // It was looked after these had become superfluous.
        assert_eq!(deleted_beside(&mut cleaner, &[], &["m2"], None, 1190), [named("c"), named("m2")]);
        cleaner.complete("m4", &manifest(&[]), Seq(4), 1150);
        assert_eq!(deleted_beside(&mut cleaner, &[], &["m3"], None, 1250), [named("d")]);
    }

    #[test]
    fn a_superseded_leader_deletes_nothing_and_its_own_record_does_not_supersede_it() {
        let newer = Identity { generation: Generation(9), nonce: Nonce(9), ..ME };
        for (by, expected) in [(newer, vec![]), (ME, vec![named("a"), named("m1")])] {
            let mut cleaner = cleaner(true);
            cleaner.restored("m1", &manifest(&["a"]));
            cleaner.complete("m2", &manifest(&[]), Seq(2), 1000);
            let record = by.record(Vec::new());
            assert_eq!(deleted_beside(&mut cleaner, &[], &[], Some(&record), 1100), expected);
        }
    }

    #[test]
    fn of_what_no_checkpoint_names_only_the_leavings_of_older_generations_go() {
        let mut cleaner = cleaner(true);
        cleaner.complete("m2", &manifest(&["kept"]), Seq(2), 0);
        let found = [("kept", 1), ("m2", 3), ("orphan", 2), ("under way", 3), ("of a newer generation", 4)];
        assert_eq!(deleted(&mut cleaner, &found, 0), []);
        assert_eq!(deleted(&mut cleaner, &found, 100), [named("orphan")]);
    }
}
