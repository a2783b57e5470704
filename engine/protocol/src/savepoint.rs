//! Savepoints: checkpoints that are kept until a person drops them, and how a job goes back to one.
//!
//! ```text
//!   take:   newest checkpoint ─► pin ─► newest checkpoint again: the same ─► savepoint ─► the pin goes
//!   go back: opened ─► read the savepoint ─► manifest as of now ─► [checkpoint, upgraded] in one record ─► outputs corrected
//! ```
//!
//! A savepoint is an object of its own beside the journal and holds the whole manifest of the checkpoint. Anyone who
//! reaches the store can take one, whether the job runs or not; the leader is not asked.
//!
//! # Why
//!
//! *A pin comes before the savepoint.* The leader deletes the files of a checkpoint some time after the next one has become
//! complete, and only after it has looked which objects are pinned, in a list that began after the files had become superfluous.
//! Whoever takes a savepoint first creates a pin, and then looks whether the pinned checkpoint is still the newest. If it is, its
//! files were not superfluous when the pin was created, so every list that counts shows the pin. If it is not, a leader may have
//! looked before, so this pin vouches for nothing, and the newer checkpoint is tried.
//!
//! *A leader that has been superseded deletes nothing that a later generation needs.* It looks at the journal after it has listed the
//! pins, and deletes nothing if a newer generation has opened. A generation reads the savepoint that it goes back to after it has
//! opened. So either the leader sees that generation, or the savepoint was dropped before that generation could read it.
//!
//! *Going back is going on.* Ticks are never used twice, so the restored state becomes the state as of the last sealed tick, by a
//! manifest of its own. Input is read again from where the savepoint ends. What the outputs have become since is corrected, as after
//! an upgrade. The record that names the manifest also says that the outputs are to be corrected: a generation that finds one of
//! them finds both.

use std::collections::BTreeSet;

use fluvial_connector::Tick;
use serde::{Deserialize, Serialize};

use crate::history::History;
use crate::journal::SplitNumber;
use crate::manifest::{Manifest, SplitState};
use crate::store::Identity;
use crate::{Ended, Mismatch};

/// A checkpoint that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Savepoint {
    /// Its name, which a person has chosen.
    pub name: String,
    /// When it was taken, in milliseconds since the Unix epoch, by the clock of whoever took it.
    pub taken_ms: u64,
    /// The object of the checkpoint's manifest.
    pub checkpoint: String,
    /// That manifest.
    pub manifest: Manifest,
}

impl Savepoint {
    /// The objects that it keeps.
    #[must_use]
    pub fn objects(&self) -> BTreeSet<String> {
        self.manifest.objects(&self.checkpoint)
    }
}

/// A request to go back to a savepoint. A job goes back once for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoBack {
    /// Tells this request from any other.
    pub id: u64,
    /// The name of the savepoint.
    pub savepoint: String,
    /// Whether the upsert outputs may be corrected to what follows from it, if they have moved on since.
    pub correct_outputs: bool,
}

/// The manifest by which `history` goes back to a savepoint, and whether the outputs have moved on since and have to be corrected.
/// Where nothing has, the manifest is that of the checkpoint itself, and notes that the request was carried out: a later start must
/// not carry it out again.
///
/// # Errors
/// [`Ended::Mismatch`] for a savepoint of another job, and where the outputs have moved on since and cannot be corrected, or may not
/// be.
pub(crate) fn go_back(
    me: &Identity,
    history: &History,
    newest: Option<&str>,
    asked: &GoBack,
    savepoint: &Savepoint,
) -> Result<(Manifest, bool), Ended> {
    let Savepoint { name, checkpoint, manifest, .. } = savepoint;
    let (sealed, name) = (history.sealed(), name.clone());
    if manifest.incarnation != me.incarnation {
        return Err(Mismatch::SavepointOfAnother { name }.into());
    }
    let by_me = Manifest { generation: me.generation, went_back: Some(asked.id), ..manifest.clone() };
    if newest == Some(checkpoint) && sealed == manifest.tick && history.reconciliation.is_none() {
        return Ok((Manifest { splits: history.splits.values().cloned().collect(), ..by_me }, false));
    }
    if let Some(append) = history.sinks.iter().find(|sink| !sink.envelope.can_be_corrected()) {
        let (output, envelope) = (append.output.clone(), append.envelope);
        return Err(Mismatch::SavepointBeforeAppended { name, output, envelope }.into());
    }
    if !asked.correct_outputs {
        return Err(Mismatch::SavepointBeforeOutputs { name, tick: manifest.tick, sealed }.into());
    }
    // An output that another program has begun since is no part of the job any more.
    let then = |output: &str| manifest.sinks.iter().any(|sink| sink.output == output);
    let sinks = history.sinks.iter().filter(|now| then(&now.output)).cloned().collect();
    let manifest = Manifest {
        tick: sealed,
        gone_back_to: Some(manifest.tick),
        splits: splits(history, manifest),
        sinks,
        // They begin again with the corrections.
        outputs: Vec::new(),
        most_slots: history.most_slots,
        most_turns: history.most_turns,
        ..by_me
    };
    Ok((manifest, true))
}

/// The splits of a savepoint as they are there. One that was met later is read from its beginning, if the job had its source: a
/// source that another program has begun since is no part of the job any more.
fn splits(history: &History, manifest: &Manifest) -> Vec<SplitState> {
    let mut splits = manifest.splits.clone();
    for now in history.splits.values() {
        let of_source = |then: &SplitState| then.start.source == now.start.source;
        // A savepoint from before anything was read does not tell which sources there were.
        let had_source = manifest.splits.is_empty() || splits.iter().any(of_source);
        if !had_source || splits.iter().any(|then| then.start.name() == now.start.name()) {
            continue;
        }
        let mut start = now.start.clone();
        // The number may belong to another split there.
        if splits.iter().any(|then| then.start.number == start.number) {
            let last = splits.iter().map(|then| then.start.number.0).max().unwrap_or_default();
            start.number = SplitNumber(last + 1);
        }
        let position = start.offset;
        splits.push(SplitState { start, position, last: None, caught_up_ms: 0 });
    }
    splits
}

impl History {
    /// Goes back to the state that `manifest` has made the state of the last sealed tick.
    pub(crate) fn gone_back(&mut self, manifest: &Manifest) {
        self.splits = manifest.splits.iter().map(|split| (split.start.number, split.clone())).collect();
        self.new_splits.clear();
        self.replay.clear();
        (self.reconciliation, self.reconciled_by) = (None, None);
        self.programs.insert(manifest.program.clone());
        self.sinks.clone_from(&manifest.sinks);
        self.checkpoint = Some(manifest.clone());
    }
}

/// The tick of the savepoint whose state this manifest has made the state of a later tick, if it has.
pub(crate) fn has_gone_back(manifest: Option<&Manifest>) -> Option<Tick> {
    manifest.and_then(|manifest| manifest.gone_back_to)
}
