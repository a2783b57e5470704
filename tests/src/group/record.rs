//! What a group keeps in the store, read as anyone may read it: one header line, then JSON. Of it only what the tests need.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::stage::Stage;

/// The newest record of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The term in which it was written.
    pub term: u64,
    /// The address of the node that coordinates in this term.
    pub coordinator: String,
    /// The newest attempt.
    pub attempt: Option<u64>,
    /// The version that it runs.
    pub version: Option<String>,
    /// The addresses of the nodes of the attempt, with their numbers of processes.
    pub places: Vec<(String, u32)>,
    /// How many workers each process has.
    pub threads: u32,
    /// Whether the job has ended.
    pub ended: bool,
}

#[derive(Deserialize)]
struct Stored {
    term: u64,
    coordinator: Node,
    attempt: Option<Attempt>,
    outcome: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Node {
    address: String,
}

#[derive(Deserialize)]
struct Attempt {
    number: u64,
    version: String,
    placement: Placement,
}

#[derive(Deserialize)]
struct Placement {
    threads: u32,
    places: Vec<(Node, u32)>,
}

/// The newest record of the group, if there is one.
pub(super) fn newest(stage: &Stage) -> Option<Record> {
    let (_, path) = objects(&folder(stage, "group/journal")?).pop_last()?;
    let Stored { term, coordinator, attempt, outcome } = read(&path)?;
    let placement = attempt.as_ref().map(|attempt| &attempt.placement);
    Some(Record {
        term,
        coordinator: coordinator.address,
        attempt: attempt.as_ref().map(|attempt| attempt.number),
        version: attempt.as_ref().map(|attempt| attempt.version.clone()),
        places: placement
            .iter()
            .flat_map(|of| &of.places)
            .map(|(node, count)| (node.address.clone(), *count))
            .collect(),
        threads: placement.map_or(0, |placement| placement.threads),
        ended: outcome.is_some(),
    })
}

/// A folder of the job, fetched where the store is a bucket.
fn folder(stage: &Stage, name: &str) -> Option<PathBuf> {
    stage.fetch(name).ok()?;
    Some(stage.store().join(stage.name()).join(name))
}

/// The objects of a journal by their positions.
fn objects(folder: &Path) -> BTreeMap<u64, PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let position = |path: PathBuf| Some((path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok()?, path));
    entries.filter_map(position).collect()
}

/// The record of a journal, unless it is being written.
fn read<T: for<'d> Deserialize<'d>>(path: &Path) -> Option<T> {
    let text = fs::read_to_string(path).ok()?;
    let (_header, body) = text.split_once('\n')?;
    serde_json::from_str(body).ok()
}
