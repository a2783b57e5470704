//! What is used, and what is not, as pure functions.

use std::collections::{BTreeMap, BTreeSet};

use fluvial_protocol::group::GroupRecord;

use crate::group::Specification;

/// How many versions before one that is used are kept, so that `rollback` finds them.
pub(super) const KEPT_BEFORE: usize = 3;

/// What the store holds: by name, whether it is old enough to be deleted.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    pub(super) specifications: BTreeMap<String, bool>,
    pub(super) binaries: BTreeMap<String, bool>,
    pub(super) graphs: BTreeMap<String, bool>,
}

/// Names of what is used, or is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) specifications: BTreeSet<String>,
    pub(super) binaries: BTreeSet<String>,
    pub(super) graphs: BTreeSet<String>,
}

/// The versions that the record names.
pub(super) fn roots(record: &GroupRecord) -> BTreeSet<String> {
    let of_job = |job: &fluvial_protocol::group::JobRecord| {
        let wanted = job.wanted.as_ref().map(|wanted| wanted.version.clone());
        let running = job.attempt.as_ref().map(|attempt| attempt.version.clone());
        let back = job.back.iter().flat_map(|back| [back.version.clone(), back.of.clone()]);
        wanted.into_iter().chain(running).chain(back).chain(job.proven.clone()).collect::<Vec<_>>()
    };
    record.jobs.values().flat_map(of_job).collect()
}

/// The versions that are used: those that the record names, and some before each of them.
pub(super) fn used(record: &GroupRecord, known: &BTreeMap<String, Specification>) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for root in roots(record) {
        let mut version = Some(root);
        for _ in 0..=KEPT_BEFORE {
            let Some(name) = version else { break };
            let previous = known.get(&name).and_then(|specification| specification.previous.as_ref());
            version = previous.map(|previous| previous.version.clone());
            used.insert(name);
        }
    }
    used
}

/// What is old and nothing refers to. `known` holds at least the specifications that are used or young.
pub(super) fn unused(used: &BTreeSet<String>, stored: &Stored, known: &BTreeMap<String, Specification>) -> Names {
    let stays = |version: &String, is_old: bool| !is_old || used.contains(version);
    let of_old = |objects: &BTreeMap<String, bool>, is_used: &dyn Fn(&String) -> bool| -> BTreeSet<String> {
        let unused = objects.iter().filter(|(name, is_old)| **is_old && !is_used(name));
        unused.map(|(name, _)| name.clone()).collect()
    };
    let staying = stored.specifications.iter().filter(|(version, is_old)| stays(version, **is_old));
    let binaries: BTreeSet<&String> =
        staying.filter_map(|(version, _)| known.get(version)).map(|specification| &specification.binary).collect();
    Names {
        specifications: of_old(&stored.specifications, &|version| used.contains(version)),
        binaries: of_old(&stored.binaries, &|hash| binaries.contains(hash)),
        graphs: of_old(&stored.graphs, &|version| {
            stored.specifications.get(version).is_some_and(|is_old| stays(version, *is_old))
        }),
    }
}
