//! Opening the journal: claiming a place in it, closing every hole before it, reading what it says.
//!
//! ```text
//!   list ─► newest ─► claim a few positions ahead ─► list again ─► read to the floor ─► fill holes ─► manifest ─► opened
//!    ▲                  │ taken by another              │ something beyond: judge it
//!    └──────────────────┘                              ▼
//!                                               fenced, or lost the race
//! ```
//!
//! Guarantees that when it is done no earlier generation can append anything any more, and that the history it hands
//! on holds everything that any of them did append. It does not say that no newer generation exists: the leader reads
//! the tail again after the writers are fenced.
//!
//! # Why
//!
//! *Nobody is asked to stop.* The leader of an earlier generation may be dead, paused for an hour, or isolated from everything
//! but the store. No message reaches it for certain, and no lease helps, since its clock may stand still with it. The only
//! thing that every leader must do before anything of it counts is to create the next object of the journal, and the store
//! lets exactly one succeed in that. So a new generation takes positions: once it has its `opened` record, and every position
//! before it is taken by someone, the older leader's next append fails, whenever it comes. It reads there who has superseded
//! it, and ends. Opened records and the no-ops before them are never deleted, since a position that becomes free again could be
//! taken by a leader that wakes up late.
//!
//! *The claim is made some positions ahead, and the gap is filled afterwards.* An older leader that is at work appends every
//! few milliseconds, and takes the position after the newest sooner than the new one can: the new one would lose that
//! race again and again. A few positions ahead no other leader competes for the position. Between the two points in
//! time the older leader may still append to the gap, and what it appends there is valid: each position of the gap is
//! settled by a create, a record or a no-op, and only then is the history complete. This is why the holes are filled
//! after the claim and before the history is folded. A race that was lost doubles the distance.
//!
//! *The order of reading is what makes the history exact.* The list is read again after the claim: it then holds every
//! position that was taken before it. Records are read from the newest towards the oldest, because the floor is not known
//! before the newest checkpoint has been found; what is earlier than the floor may be pruned by the older leader at any moment,
//! and is not needed.
//!
//! *What looks wrong is doubted first.* While this generation reads, a newer one may have opened: it prunes records that are
//! about to be read, and deletes the manifest that they name. That looks like a damaged journal, and a job whose journal
//! is damaged stops until a person has looked at it. So before a fault is reported the journal is listed once more. A
//! record beyond this generation's own means that it is fenced, and is the better reason. Only where there is none is the
//! fault believed.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fluvial_connector::{Generation, Incarnation};

use crate::appender::lost_the_race;
use crate::checkpointer::manifest_name;
use crate::claim::{Claim, Claimed};
use crate::history::{CheckpointEntry, History, newest_checkpoint};
use crate::journal::{Entry, JournalRecord, Nonce, Seq};
use crate::manifest::Manifest;
use crate::messages::Layout;
use crate::rules::{Rule, Rules};
use crate::savepoint::{GoBack, go_back};
use crate::store::{Answer, Call, Identity, PutOutcome, Verdict};
use crate::{Compare, Ended, JournalFault, Mismatch};

/// How many positions beyond the newest a generation claims first: so many appends may a busy older one make meanwhile.
const AHEAD: u64 = 4;
/// The most that this grows to, after races that were lost.
const FURTHEST_AHEAD: u64 = 256;
/// How many records are read at once.
const CHUNK: usize = 256;

/// What the opened record says, and who the job is if the journal is empty.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    pub incarnation: Incarnation,
    pub nonce: Nonce,
    pub program: String,
    pub layout: Layout,
    pub turns: u32,
    /// The newest generation of the same run that has opened, if one has: where the journal has another run's since, that
    /// one has taken over.
    pub follows: Option<Generation>,
    /// The savepoint that the job is to go back to, unless it has done so.
    pub go_back: Option<GoBack>,
}

/// An opening under way.
#[derive(Debug)]
pub(crate) struct Opening {
    opener: Opener,
    me: Identity,
    ahead: u64,
    at: Seq,
    positions: BTreeSet<Seq>,
    records: BTreeMap<Seq, JournalRecord>,
    phase: Phase,
    asked: bool,
    /// Whether the journal is only read, as an opening would find it: nothing is claimed, and holes are not filled but taken
    /// as filled.
    only_reads: bool,
    /// The fault that was found when the journal was read the last time, if it is only read.
    suspected: Option<Ended>,
    rules: Rules,
}

#[derive(Debug)]
enum Phase {
    /// Which positions are taken?
    List,
    /// Whose is the newest?
    Newest(Seq),
    /// Our opened record is being put.
    Claim(Claim),
    /// Which positions are taken now that ours is?
    Relist,
    /// There is a record beyond ours: whose?
    Beyond(Seq),
    /// The history is being read.
    Read(Vec<Seq>),
    /// A hole is being filled.
    Fill(Claim),
    /// The newest checkpoint's manifest is being read.
    Manifest(CheckpointEntry),
    /// The savepoint that the job is to go back to is being read.
    Savepoint(Box<Opened>, GoBack),
    /// The manifest by which it goes back is being stored.
    GoingBack(Box<Opened>, Arc<Manifest>, bool),
    /// Something is wrong with what was read. That may be because a newer generation prunes it.
    Doubt(Ended),
    /// A newer record was found while in doubt: whose?
    DoubtBeyond(Seq, Ended),
}

/// A journal that is this generation's.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Who we are from now on.
    pub me: Identity,
    /// Where our opened record stands: the journal's end.
    pub at: Seq,
    /// What the journal says.
    pub history: History,
    /// The object of the checkpoint's manifest.
    pub manifest: Option<String>,
    /// The records from the floor on.
    pub records: BTreeMap<Seq, JournalRecord>,
    /// Positions below the floor that still exist, unread.
    pub below: Vec<Seq>,
    /// The checkpoint by which the job goes back to a savepoint, to be appended.
    pub goes_back: Option<GoesBack>,
}

/// The checkpoint by which a job goes back to a savepoint.
#[derive(Debug)]
pub(crate) struct GoesBack {
    /// Names its manifest.
    pub entry: Entry,
    /// Whether the outputs have moved on since: the same record says that they are corrected.
    pub corrects: bool,
}

impl Opened {
    /// How this generation compares what it reads again. A run that is `asked` to takes the input as it is until it has
    /// a checkpoint: it would otherwise accept whatever changes as long as it lives. And whoever finds a reconciliation
    /// that no checkpoint covers has to begin it again: what the one before replayed for it has been compared no
    /// further.
    pub(crate) fn compare(&self, asked: bool) -> Compare {
        let covers = |entry: &Entry| matches!(entry, Entry::Checkpoint { .. });
        let covered = self.records.values().any(|r| r.nonce.same_run(self.me.nonce) && r.entries.iter().any(covers));
        if asked && !covered {
            return Compare::Nothing;
        }
        self.history.reconciliation.map_or(Compare::All, |reconciliation| reconciliation.compare)
    }
}

impl Opening {
    pub(crate) fn new(opener: Opener, rules: Rules) -> Self {
        let me = Identity { incarnation: opener.incarnation, generation: Generation(1), nonce: opener.nonce };
        Self {
            opener,
            me,
            ahead: AHEAD,
            at: Seq(0),
            positions: BTreeSet::new(),
            records: BTreeMap::new(),
            phase: Phase::List,
            asked: false,
            only_reads: false,
            suspected: None,
            rules,
        }
    }

    /// As [`Opening::new`], but it only reads, and asks for nothing that changes the store. The generation that it would open
    /// cannot be fenced: if others append meanwhile, it reads again.
    pub(crate) fn only_reading(opener: Opener) -> Self {
        Self { only_reads: true, ..Self::new(opener, Rules::default()) }
    }

    /// The next call to the store, if none is under way.
    pub(crate) fn next_call(&mut self) -> Option<Call> {
        if let Phase::Claim(claim) | Phase::Fill(claim) = &mut self.phase {
            return claim.call();
        }
        if std::mem::replace(&mut self.asked, true) {
            return None;
        }
        Some(match &self.phase {
            Phase::List | Phase::Relist => Call::List { after: None },
            Phase::Newest(seq) | Phase::Beyond(seq) | Phase::DoubtBeyond(seq, _) => Call::Get(vec![*seq]),
            Phase::Read(seqs) => Call::Get(seqs.clone()),
            Phase::Manifest(checkpoint) => Call::GetManifest(checkpoint.manifest.clone()),
            Phase::Savepoint(_, asked) => Call::GetSavepoint(asked.savepoint.clone()),
            Phase::GoingBack(_, manifest, _) => {
                Call::PutManifest(manifest_name(&self.me, manifest.tick), Arc::clone(manifest))
            }
            Phase::Doubt(_) => Call::List { after: Some(self.at) },
            Phase::Claim(_) | Phase::Fill(_) => return None,
        })
    }

    /// Takes the store's answer.
    ///
    /// # Errors
    /// [`Ended::Fenced`] and [`Ended::LostRace`] when another generation was faster, [`Ended::Journal`] for a journal
    /// that cannot be gone on from.
    pub(crate) fn on(&mut self, answer: Answer) -> Result<Option<Opened>, Ended> {
        self.asked = false;
        match self.step(answer) {
            // What looks wrong may have been changed while it was read. A fault that lasts is found a second time.
            Err(refused) if self.only_reads => {
                if self.suspected.as_ref() == Some(&refused) {
                    return Err(refused);
                }
                self.suspected = Some(refused);
                self.start_over();
                Ok(None)
            }
            Err(refused)
                if refused.may_be_a_newer_generations() && !matches!(self.phase, Phase::List | Phase::Newest(_)) =>
            {
                if let Phase::Doubt(_) | Phase::DoubtBeyond(..) = self.phase {
                    return Err(refused);
                }
                self.phase = Phase::Doubt(refused);
                Ok(None)
            }
            other => other,
        }
    }

    fn step(&mut self, answer: Answer) -> Result<Option<Opened>, Ended> {
        match (std::mem::replace(&mut self.phase, Phase::List), answer) {
            (Phase::List, Answer::Positions(positions)) => {
                match positions.last() {
                    Some(newest) => self.phase = Phase::Newest(*newest),
                    None if self.only_reads => return self.fold(None),
                    None => self.claim(Seq(0)),
                }
                self.positions = positions.into_iter().collect();
                Ok(None)
            }
            (Phase::Newest(seq), Answer::Records(found)) => {
                // Gone already: list again, as `phase` says by now.
                if let Some(record) = only(found) {
                    // A run that was paused for an hour must not supersede the one that was started in its place, nor an
                    // attempt whose processes come together late the next one.
                    let taken_over = self.opener.follows.is_some_and(|own| record.generation >= own);
                    let late = self.opener.nonce.is_of_an_earlier_attempt(record.nonce);
                    if late || (taken_over && !record.nonce.same_run(self.opener.nonce)) {
                        return Err(Ended::Fenced { by: record.generation });
                    }
                    self.me.incarnation = record.incarnation;
                    self.me.generation = Generation(record.generation.0 + 1);
                    if self.only_reads {
                        self.at = seq.next();
                        return self.read_on();
                    }
                    let ahead = if self.rules.has(Rule::ClaimAhead) { self.ahead } else { 0 };
                    self.claim(Seq(seq.0 + ahead + 1));
                }
                Ok(None)
            }
            (Phase::Claim(claim), answer) => self.claimed(claim, answer),
            (Phase::Relist, Answer::Positions(positions)) => {
                if let Some(last) = positions.last().filter(|last| **last > self.at) {
                    self.phase = Phase::Beyond(*last);
                    return Ok(None);
                }
                self.positions = positions.into_iter().collect();
                self.positions.insert(self.at);
                self.read_on()
            }
            (Phase::Beyond(seq), Answer::Records(found)) => match only(found) {
                Some(record) => Err(self.beyond(seq, &record)),
                None => {
                    self.phase = Phase::Relist;
                    Ok(None)
                }
            },
            (Phase::DoubtBeyond(seq, refused), Answer::Records(found)) => match only(found) {
                Some(record) => Err(self.beyond(seq, &record)),
                None => {
                    self.phase = Phase::Doubt(refused);
                    Ok(None)
                }
            },
            (Phase::Read(_), Answer::Records(found)) => {
                if found.iter().any(|(_, record)| record.is_none()) {
                    // Pruned meanwhile by the generation before us, or by one after us.
                    self.phase = Phase::Relist;
                    if self.only_reads {
                        self.start_over();
                    }
                    return Ok(None);
                }
                for (seq, record) in found.into_iter().filter_map(|(seq, record)| Some((seq, record?))) {
                    if !self.admit(seq, record)? {
                        return Ok(None);
                    }
                }
                self.read_on()
            }
            (Phase::Fill(claim), answer) => self.filled(claim, answer),
            (Phase::Manifest(checkpoint), Answer::Manifest(found)) => match found {
                Some(manifest) => self.fold(Some((checkpoint, *manifest))),
                None => {
                    self.phase = Phase::Manifest(checkpoint.clone());
                    let CheckpointEntry { manifest, at, tick, .. } = checkpoint;
                    Err(JournalFault::ManifestMissing { manifest, at, tick }.into())
                }
            },
            (Phase::Savepoint(opened, asked), Answer::Savepoint(found)) => match found {
                Some(savepoint) => {
                    let newest = opened.manifest.as_deref();
                    let (manifest, corrects) = go_back(&self.me, &opened.history, newest, &asked, &savepoint)?;
                    if self.only_reads {
                        return Ok(Some(self.gone_back(*opened, &manifest, corrects)));
                    }
                    self.phase = Phase::GoingBack(opened, Arc::new(manifest), corrects);
                    Ok(None)
                }
                None => Err(Mismatch::SavepointMissing { name: asked.savepoint }.into()),
            },
            (Phase::GoingBack(opened, manifest, corrects), Answer::Put(outcome)) => {
                if outcome == PutOutcome::Unknown {
                    self.phase = Phase::GoingBack(opened, manifest, corrects);
                    return Ok(None);
                }
                // Nobody else makes an object of that name, so one that exists is ours.
                Ok(Some(self.gone_back(*opened, &manifest, corrects)))
            }
            (Phase::Doubt(refused), Answer::Positions(positions)) => match positions.last() {
                Some(newest) => {
                    self.phase = Phase::DoubtBeyond(*newest, refused);
                    Ok(None)
                }
                None => {
                    self.phase = Phase::Doubt(refused.clone());
                    Err(refused)
                }
            },
            (phase, answer) => Err(Ended::Bug(format!("the opening got {answer:?} while it was at {phase:?}"))),
        }
    }

    /// A journal that goes on from the savepoint.
    fn gone_back(&self, mut opened: Opened, manifest: &Manifest, corrects: bool) -> Opened {
        let (name, tick) = (manifest_name(&self.me, manifest.tick), manifest.tick);
        opened.history.gone_back(manifest);
        let entry = Entry::Checkpoint { tick, manifest: name.clone(), floor: self.at };
        opened.goes_back = Some(GoesBack { entry, corrects });
        opened.manifest = Some(name);
        opened
    }

    /// Forgets what was read.
    fn start_over(&mut self) {
        self.records.clear();
        self.phase = Phase::List;
    }

    /// Somebody has a record beyond ours.
    fn beyond(&self, seq: Seq, record: &JournalRecord) -> Ended {
        match self.me.judge(seq, record) {
            Ok(Verdict::Newer(by)) => Ended::Fenced { by },
            Ok(Verdict::Mine | Verdict::Older) => lost_the_race(seq),
            Err(ended) => ended,
        }
    }

    fn claim(&mut self, at: Seq) {
        self.at = at;
        let Opener { program, layout: Layout { workers, processes }, turns, .. } = &self.opener;
        let entry = Entry::Opened { program: program.clone(), workers: *workers, processes: *processes, turns: *turns };
        self.phase = Phase::Claim(Claim::new(at, self.me.record(vec![entry]), self.rules));
    }

    fn claimed(&mut self, mut claim: Claim, answer: Answer) -> Result<Option<Opened>, Ended> {
        match claim.on(answer) {
            Claimed::NotYet => self.phase = Phase::Claim(claim),
            Claimed::Mine => {
                self.records.insert(self.at, (**claim.record()).clone());
                self.phase = Phase::Relist;
            }
            Claimed::Others(_) => {
                self.ahead = (self.ahead * 2).min(FURTHEST_AHEAD);
                self.phase = Phase::List;
            }
            #[cfg(test)]
            Claimed::Unread => return Err(Ended::Fenced { by: self.me.generation }),
        }
        Ok(None)
    }

    fn filled(&mut self, mut claim: Claim, answer: Answer) -> Result<Option<Opened>, Ended> {
        let seq = claim.seq();
        let record = match claim.on(answer) {
            Claimed::NotYet => {
                self.phase = Phase::Fill(claim);
                return Ok(None);
            }
            Claimed::Mine => (**claim.record()).clone(),
            Claimed::Others(record) => record,
            #[cfg(test)]
            Claimed::Unread => return Err(Ended::Fenced { by: self.me.generation }),
        };
        if self.admit(seq, record)? { self.read_on() } else { Ok(None) }
    }

    /// Takes a record before ours into the history. Another that chose the same number makes us choose a higher one:
    /// returns false then, and all begins again.
    fn admit(&mut self, seq: Seq, record: JournalRecord) -> Result<bool, Ended> {
        match self.me.judge(seq, &record)? {
            Verdict::Newer(by) if by > self.me.generation => return Err(Ended::Fenced { by }),
            Verdict::Newer(_) => {
                self.start_over();
                return Ok(false);
            }
            Verdict::Mine | Verdict::Older => {}
        }
        self.positions.insert(seq);
        self.records.insert(seq, record);
        Ok(true)
    }

    /// Reads the next records towards the floor, then fills the next hole, then asks for the manifest.
    fn read_on(&mut self) -> Result<Option<Opened>, Ended> {
        let checkpoint = newest_checkpoint(&self.records);
        let floor = checkpoint.as_ref().map_or(Seq(0), |c| c.floor);
        // The newest first: the floor moves up when a newer checkpoint is found, and then less has to be read.
        let unread = self.positions.range(floor..).rev().filter(|seq| !self.records.contains_key(seq));
        let unread: Vec<Seq> = unread.take(CHUNK).copied().collect();
        if !unread.is_empty() {
            self.phase = Phase::Read(unread);
            return Ok(None);
        }
        while let Some(hole) = (floor.0..self.at.0).map(Seq).find(|seq| !self.positions.contains(seq)) {
            let nothing = self.me.record(Vec::new());
            if self.rules.has(Rule::FillTheGap) && !self.only_reads {
                self.phase = Phase::Fill(Claim::new(hole, nothing, self.rules));
                return Ok(None);
            }
            self.positions.insert(hole);
            self.records.insert(hole, (*nothing).clone());
        }
        match checkpoint {
            Some(checkpoint) => {
                self.phase = Phase::Manifest(checkpoint);
                Ok(None)
            }
            None => self.fold(None),
        }
    }

    fn fold(&mut self, checkpoint: Option<(CheckpointEntry, Manifest)>) -> Result<Option<Opened>, Ended> {
        let floor = checkpoint.as_ref().map_or(Seq(0), |(entry, _)| entry.floor);
        let manifest = checkpoint.as_ref().map(|(entry, _)| entry.manifest.clone());
        // Whatever goes wrong from here on is no longer about listing.
        self.phase = Phase::Relist;
        let mut history = History::fold(self.me.incarnation, &self.records, checkpoint)?;
        if !self.rules.has(Rule::ReconcileUntilCovered) {
            history.reconciliation = None;
        }
        let records = self.records.split_off(&floor);
        let below = self.positions.range(..floor).copied().collect();
        let opened = Opened { me: self.me, at: self.at, history, manifest, records, below, goes_back: None };
        let last = opened.history.checkpoint.as_ref().and_then(|checkpoint| checkpoint.went_back);
        match self.opener.go_back.clone().filter(|asked| last != Some(asked.id)) {
            Some(asked) => {
                self.phase = Phase::Savepoint(Box::new(opened), asked);
                Ok(None)
            }
            None => Ok(Some(opened)),
        }
    }
}

/// The record that was asked for.
fn only(mut found: Vec<(Seq, Option<JournalRecord>)>) -> Option<JournalRecord> {
    found.pop().and_then(|(_, record)| record)
}
