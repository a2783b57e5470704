//! Completing checkpoints: collecting what the workers have stored, writing the manifest, naming it in the journal.
//!
//! ```text
//!   begin ─► collecting ──all state files, sealed, committed, all digests──► storing ─► recording ─► complete
//! ```
//!
//! A manifest is a checkpoint only when the journal has a record that names it; until then nothing refers to it.
//!
//! # Why
//!
//! *A checkpoint is consistent because it belongs to a tick, not to a moment.* No worker stops for it and no marker travels
//! through the dataflow. The leader marks a tick when it mints it; each durable operator freezes its rows when it has
//! closed that tick and before it closes the next, whenever that is on its worker. All of them have then seen exactly the
//! input through the tick. What the operators downstream have made of it needs no copy: it follows from the rows.
//!
//! *It waits for four things*, each of which would lose something if it were missing. All state files are stored: a
//! manifest that names a file which is not there cannot be restored. The tick is sealed: otherwise the state would contain
//! input that no journal record binds, and the next generation could bind other input to the same tick. Every process has
//! committed through the tick: the journal before the checkpoint is pruned, and with it the only means to make that output
//! again. And every process has given its digests at the tick: a restart compares what it recomputes with what was
//! written, and begins there.
//!
//! *State files are added, not replaced.* A checkpoint stores the rows that have changed since the one before, so its cost
//! follows the changes and not the size of the state; the manifest lists the whole chain of files that make up each operator.
//! Merging shortens the chains beside it. A merged file replaces its inputs in the next manifest only, and only where
//! these still stand in the chain next to each other: a file that was added meanwhile is newer than the merged one, and must
//! stay after it.
//!
//! *One at a time, and the name says who made it.* Two checkpoints under way would share files, and the older one could be
//! recorded after the newer. The object's name holds the generation, its nonce and the tick, so a conflict on its creation can
//! only be an earlier attempt of this leader. A superseded leader may still store a manifest: nobody reads it, because the
//! record that would name it cannot be appended any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fluvial_connector::{Digest, OutputPartition, Tick};

use super::Ended;
use super::messages::Layout;
use super::rules::{Rule, Rules};
use super::store::{Answer, Call, Identity, PutOutcome};
use crate::Mismatch;
use crate::journal::{Entry, Seq, SinkStart};
use crate::manifest::{Manifest, OperatorKind, OperatorState, OutputState, SplitState, StateFile};

/// The part of the leader that completes checkpoints, one at a time.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    me: Identity,
    program: String,
    layout: Layout,
    sinks: Vec<SinkStart>,
    most_slots: u32,
    most_turns: u32,
    /// The durable operators of the binary.
    operators: BTreeSet<String>,
    /// Every operator's state files for the next manifest: merged ones have replaced their inputs.
    chains: BTreeMap<String, OperatorState>,
    /// The newest complete checkpoint and its manifest's object.
    newest: Option<(String, Arc<Manifest>)>,
    pending: Option<Pending>,
    rules: Rules,
}

#[derive(Debug)]
struct Pending {
    tick: Tick,
    splits: Vec<SplitState>,
    /// The record that holds the tick's binding, once it is durable.
    sealed_at: Option<Seq>,
    files: BTreeMap<(String, u32), Stored>,
    digests: BTreeMap<u32, Vec<(OutputPartition, Digest)>>,
    manifest: Option<Storing>,
}

/// What a worker has stored of an operator.
#[derive(Debug)]
pub(crate) struct Stored {
    /// What the operator is.
    pub kind: OperatorKind,
    /// The state file, if anything had changed.
    pub file: Option<StateFile>,
    /// How many keys have a row there; `None` where rows have no keys.
    pub keys: Option<u64>,
}

#[derive(Debug)]
struct Storing {
    name: String,
    manifest: Arc<Manifest>,
    asked: bool,
}

/// A checkpoint that has become complete.
#[derive(Debug)]
pub(crate) struct Complete {
    /// Its manifest.
    pub manifest: Arc<Manifest>,
    /// The manifest's object.
    pub name: String,
    /// Where the journal begins with it.
    pub floor: Seq,
}

impl Checkpointer {
    pub(crate) fn new(
        me: Identity,
        program: String,
        layout: Layout,
        sinks: Vec<SinkStart>,
        most: (u32, u32),
        newest: Option<(String, Arc<Manifest>)>,
        rules: Rules,
    ) -> Self {
        let chains = newest.iter().flat_map(|(_, m)| &m.operators).map(|o| (o.name.clone(), o.clone())).collect();
        let (most_slots, most_turns) = most;
        let operators = BTreeSet::new();
        Self { me, program, layout, sinks, most_slots, most_turns, operators, chains, newest, pending: None, rules }
    }

    /// The durable operators that a worker has; all workers must have the same, and all that are stored.
    ///
    /// # Errors
    /// [`Ended::Mismatch`] for an operator that the binary lacks, [`Ended::Bug`] for workers that differ.
    pub(crate) fn has_operators(&mut self, operators: Vec<String>) -> Result<(), Ended> {
        let operators: BTreeSet<String> = operators.into_iter().collect();
        if let Some(lost) = self.chains.keys().find(|name| !operators.contains(*name)) {
            return Err(Mismatch::OperatorMissing { operator: lost.clone() }.into());
        }
        if !self.operators.is_empty() && self.operators != operators {
            return Err(Ended::Bug(format!("workers differ in their operators: {:?}, {operators:?}", self.operators)));
        }
        self.operators = operators;
        Ok(())
    }

    /// The newest complete checkpoint's manifest.
    pub(crate) fn newest(&self) -> Option<&Arc<Manifest>> {
        self.newest.as_ref().map(|(_, manifest)| manifest)
    }

    /// Whether a checkpoint is under way.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// A checkpoint of `tick` begins; the splits stand as given after it.
    pub(crate) fn begin(&mut self, tick: Tick, splits: Vec<SplitState>) {
        let (files, digests) = (BTreeMap::new(), BTreeMap::new());
        self.pending = Some(Pending { tick, splits, sealed_at: None, files, digests, manifest: None });
    }

    /// The binding of `tick` is durable in the record at `seq`.
    pub(crate) fn sealed(&mut self, tick: Tick, seq: Seq) {
        if let Some(pending) = self.pending.as_mut().filter(|p| p.tick == tick) {
            pending.sealed_at = Some(seq);
        }
    }

    /// A worker has stored its part of an operator.
    pub(crate) fn state_stored(&mut self, worker: u32, tick: Tick, operator: String, stored: Stored) {
        if let Some(pending) = self.pending.as_mut().filter(|p| p.tick == tick) {
            pending.files.insert((operator, worker), stored);
        }
    }

    /// A process has committed through `tick`, with these digests.
    pub(crate) fn sink_at(&mut self, process: u32, tick: Tick, outputs: Vec<(OutputPartition, Digest)>) {
        if let Some(pending) = self.pending.as_mut().filter(|p| p.tick == tick) {
            pending.digests.insert(process, outputs);
        }
    }

    /// Some of an operator's state files have been merged into one, for the next manifest. Returns whether it is used.
    pub(crate) fn merged(&mut self, operator: &str, removed: &[String], added: StateFile) -> bool {
        let Some(chain) = self.chains.get_mut(operator).filter(|_| !removed.is_empty()) else { return false };
        let same = |window: &[StateFile]| window.iter().map(|file| &file.object).eq(removed);
        let Some(from) = chain.files.windows(removed.len()).position(same) else { return false };
        chain.files.splice(from..from + removed.len(), [added]);
        true
    }

    /// Builds the manifest once everything has come; `committed` is what all processes have committed through.
    ///
    /// # Errors
    /// [`Ended::Bug`] for digests that are not those of the job's output partitions.
    pub(crate) fn advance(&mut self, committed: Tick) -> Result<(), Ended> {
        let Some(pending) = &mut self.pending else { return Ok(()) };
        // What is not committed has to be made again after a crash, from input that only the journal before this tick binds.
        let sinks_done = committed >= pending.tick || !self.rules.has(Rule::CheckpointAfterSinks);
        let complete = pending.manifest.is_none()
            && sinks_done
            && pending.sealed_at.is_some()
            && pending.digests.len() == self.layout.processes as usize
            && pending.files.len() == self.operators.len() * self.layout.workers as usize;
        if !complete {
            return Ok(());
        }
        // Workers give the keys that they have at this tick: the numbers of the last checkpoint do not add to them.
        self.chains.values_mut().for_each(|chain| chain.keys = None);
        for ((operator, _), Stored { kind, file, keys }) in std::mem::take(&mut pending.files) {
            let chain = self.chains.entry(operator.clone()).or_insert_with(|| OperatorState {
                name: operator,
                kind: kind.clone(),
                files: Vec::new(),
                keys: None,
            });
            chain.add(&kind, file);
            if let Some(keys) = keys {
                *chain.keys.get_or_insert(0) += keys;
            }
        }
        let digests = std::mem::take(&mut pending.digests).into_values().flatten();
        let mut outputs: Vec<OutputState> = digests.map(|(at, digest)| OutputState { at, digest }).collect();
        outputs.sort_by(|a, b| a.at.cmp(&b.at));
        let expected: u32 = self.sinks.iter().map(|sink| sink.partitions).sum();
        if outputs.len() != expected as usize {
            return Err(Ended::Bug(format!(
                "the processes gave the digests of {} output partitions at tick {}; the job has {expected}",
                outputs.len(),
                pending.tick
            )));
        }
        let manifest = Manifest {
            incarnation: self.me.incarnation,
            generation: self.me.generation,
            program: self.program.clone(),
            tick: pending.tick,
            gone_back_to: None,
            went_back: self.newest.as_ref().and_then(|(_, newest)| newest.went_back),
            splits: std::mem::take(&mut pending.splits),
            sinks: self.sinks.clone(),
            outputs,
            operators: self.chains.values().cloned().collect(),
            most_slots: self.most_slots,
            most_turns: self.most_turns,
        };
        let name = manifest_name(&self.me, pending.tick);
        pending.manifest = Some(Storing { name, manifest: Arc::new(manifest), asked: false });
        Ok(())
    }

    /// The next call to the store, if none is under way.
    pub(crate) fn next_call(&mut self) -> Option<Call> {
        let storing = self.pending.as_mut()?.manifest.as_mut().filter(|storing| !storing.asked)?;
        storing.asked = true;
        Some(Call::PutManifest(storing.name.clone(), Arc::clone(&storing.manifest)))
    }

    /// Takes the store's answer; returns the entry to append when the manifest is stored.
    pub(crate) fn on(&mut self, answer: &Answer) -> Option<Entry> {
        let pending = self.pending.as_mut()?;
        let storing = pending.manifest.as_mut()?;
        match answer {
            // Nobody else makes an object of that name, so one that exists is ours.
            Answer::Put(PutOutcome::Created | PutOutcome::AlreadyExists) => Some(Entry::Checkpoint {
                tick: pending.tick,
                manifest: storing.name.clone(),
                floor: pending.sealed_at?,
            }),
            _ => {
                storing.asked = false;
                None
            }
        }
    }

    /// What the manifest on its way names, before the journal names it.
    #[cfg(test)]
    pub(crate) fn on_its_way(&self) -> Option<(&str, &Manifest)> {
        let storing = self.pending.as_ref()?.manifest.as_ref()?;
        Some((&storing.name, &storing.manifest))
    }

    /// The journal names the checkpoint: it is complete.
    pub(crate) fn recorded(&mut self) -> Option<Complete> {
        let pending = self.pending.take()?;
        let storing = pending.manifest?;
        self.newest = Some((storing.name.clone(), Arc::clone(&storing.manifest)));
        Some(Complete { manifest: storing.manifest, name: storing.name, floor: pending.sealed_at? })
    }
}

/// The object's name of a manifest. Like every object's it begins with the generation; no other makes the same.
pub(crate) fn manifest_name(me: &Identity, tick: Tick) -> String {
    format!("checkpoints/{:010}-{:020}-{:016x}", me.generation.0, tick.0, me.nonce.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use fluvial_connector::{Generation, Incarnation};
    use uuid::Uuid;

    use super::*;
    use crate::journal::Nonce;

    const ME: Identity = Identity { incarnation: Incarnation(Uuid::nil()), generation: Generation(3), nonce: Nonce(7) };

    const LAYOUT: Layout = Layout { workers: 2, processes: 2 };

    fn file(name: &str) -> StateFile {
        StateFile { object: name.to_owned(), rows: 1, bytes: 1, crc32: 0 }
    }

    fn kind() -> OperatorKind {
        OperatorKind { operator: "latest".to_owned(), schema: String::new() }
    }

    fn stored(file: Option<StateFile>) -> Stored {
        Stored { kind: kind(), file, keys: Some(5) }
    }

    /// Two processes of a worker each, one operator, no outputs.
    fn checkpointer() -> Checkpointer {
        let mut checkpointer =
            Checkpointer::new(ME, "b".to_owned(), LAYOUT, Vec::new(), (2, 2), None, Rules::default());
        for _ in 0..2 {
            checkpointer.has_operators(vec!["op".to_owned()]).unwrap();
        }
        checkpointer
    }

    /// Takes a checkpoint in which the first worker stores `name`; returns the files that the manifest names.
    fn checkpoint(checkpointer: &mut Checkpointer, tick: u64, name: &str) -> Vec<String> {
        let at = Tick(tick);
        checkpointer.begin(at, Vec::new());
        checkpointer.sealed(at, Seq(tick));
        checkpointer.state_stored(0, at, "op".to_owned(), stored(Some(file(name))));
        checkpointer.state_stored(1, at, "op".to_owned(), stored(None));
        checkpointer.sink_at(0, at, Vec::new());
        checkpointer.sink_at(1, at, Vec::new());
        checkpointer.advance(at).unwrap();
        assert!(matches!(checkpointer.next_call(), Some(Call::PutManifest(..))));
        assert!(checkpointer.on(&Answer::Put(PutOutcome::Created)).is_some());
        let complete = checkpointer.recorded().unwrap();
        assert_eq!((complete.manifest.tick, complete.floor), (at, Seq(tick)));
        assert_eq!(complete.manifest.operators[0].keys, Some(10), "five on each worker");
        complete.manifest.operators[0].files.iter().map(|file| file.object.clone()).collect()
    }

    #[test]
    fn a_checkpoint_is_stored_only_when_everything_has_come() {
        type Step = fn(&mut Checkpointer);
        let steps: [Step; 5] = [
            |c| c.sealed(Tick(4), Seq(9)),
            |c| c.state_stored(0, Tick(4), "op".to_owned(), stored(None)),
            |c| c.state_stored(1, Tick(4), "op".to_owned(), stored(Some(file("a")))),
            |c| c.sink_at(0, Tick(4), Vec::new()),
            |c| c.sink_at(1, Tick(4), Vec::new()),
        ];
        for missing in 0..=steps.len() {
            let mut checkpointer = checkpointer();
            checkpointer.begin(Tick(4), Vec::new());
            steps.iter().enumerate().filter(|(i, _)| *i != missing).for_each(|(_, step)| step(&mut checkpointer));
            checkpointer.advance(Tick(3)).unwrap();
            assert!(checkpointer.next_call().is_none(), "the sinks have not committed");
            checkpointer.advance(Tick(4)).unwrap();
            assert_eq!(checkpointer.next_call().is_some(), missing == steps.len(), "without step {missing}");
        }
    }

    #[test]
    fn merged_runs_take_the_place_of_their_inputs_in_the_next_manifest() {
        let mut checkpointer = checkpointer();
        checkpoint(&mut checkpointer, 1, "a");
        checkpoint(&mut checkpointer, 2, "b");
        assert_eq!(checkpoint(&mut checkpointer, 3, "c"), ["a", "b", "c"]);
        assert!(checkpointer.merged("op", &["a".to_owned(), "b".to_owned()], file("ab")));
        assert_eq!(checkpointer.newest().unwrap().operators[0].files.len(), 3);
        assert!(!checkpointer.merged("op", &["b".to_owned(), "c".to_owned()], file("bc")), "b is gone");
        assert!(!checkpointer.merged("op", &["ab".to_owned(), "d".to_owned()], file("abd")), "there is no d");
        assert_eq!(checkpoint(&mut checkpointer, 4, "d"), ["ab", "c", "d"]);
    }

    #[test]
    fn an_unknown_outcome_puts_the_manifest_again() {
        let mut checkpointer = checkpointer();
        checkpointer.has_operators(vec!["op".to_owned()]).unwrap();
        checkpointer.begin(Tick(4), Vec::new());
        checkpointer.sealed(Tick(4), Seq(9));
        for worker in 0..2 {
            checkpointer.state_stored(worker, Tick(4), "op".to_owned(), stored(None));
            checkpointer.sink_at(worker, Tick(4), Vec::new());
        }
        checkpointer.advance(Tick(4)).unwrap();
        let first = checkpointer.next_call();
        assert!(checkpointer.on(&Answer::Put(PutOutcome::Unknown)).is_none());
        assert_eq!(checkpointer.next_call(), first);
        let entry = checkpointer.on(&Answer::Put(PutOutcome::AlreadyExists)).unwrap();
        assert!(matches!(entry, Entry::Checkpoint { tick: Tick(4), floor: Seq(9), .. }));
    }

    #[test]
    fn an_operator_that_the_binary_lacks_is_refused_by_name() {
        let mut first = checkpointer();
        checkpoint(&mut first, 1, "a");
        let newest = first.newest.clone();
        let mut next = Checkpointer::new(ME, "b".to_owned(), LAYOUT, Vec::new(), (2, 2), newest, Rules::default());
        let ended = next.has_operators(vec!["renamed".to_owned()]).unwrap_err();
        assert!(ended.to_string().contains("durable operator 'op'"), "{ended}");
    }
}
