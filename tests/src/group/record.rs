//! What a group keeps in the store, read as anyone may read it: one header line, then JSON. Of it only what the tests need.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    jobs: BTreeMap<String, Job>,
}

#[derive(Default, Deserialize)]
struct Job {
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

/// The records of a group, each of which is read once.
#[derive(Debug, Default)]
pub(super) struct Records(Mutex<Vec<Record>>);

impl Records {
    /// All that there are now, in their order.
    pub(super) fn all(&self, stage: &Stage) -> MutexGuard<'_, Vec<Record>> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = |position| read(&stage.object(&format!("group/journal/{position:020}.json")).ok()??);
        while let Some(record) = next(seen.len()) {
            seen.push(record);
        }
        seen
    }
}

/// A record of the journal.
fn read(object: &[u8]) -> Option<Record> {
    let (_header, body) = std::str::from_utf8(object).ok()?.split_once('\n')?;
    let Stored { term, coordinator, jobs } = serde_json::from_str(body).ok()?;
    let Job { attempt, outcome } = jobs.into_values().next().unwrap_or_default();
    let placement = attempt.as_ref().map(|attempt| &attempt.placement);
    let places = placement.iter().flat_map(|of| &of.places).map(|(node, count)| (node.address.clone(), *count));
    Some(Record {
        term,
        coordinator: coordinator.address,
        attempt: attempt.as_ref().map(|attempt| attempt.number),
        version: attempt.as_ref().map(|attempt| attempt.version.clone()),
        places: places.collect(),
        threads: placement.map_or(0, |placement| placement.threads),
        ended: outcome.is_some(),
    })
}
