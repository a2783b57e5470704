//! Fail points of a node: named places at which a test kills it, to show that the cluster goes on and loses nothing.
//!
//! A node that was started with `--fail-points FOLDER` looks in that folder, at each place that it passes, for a file with the name of
//! the place. If it can remove the file, it kills itself. So a test chooses the moment while the nodes run, and of several nodes
//! that share a folder exactly one is killed.
//!
//! **Guarantees** that the effect is that of a crash: nothing is unwound, sent or written. **Does not** cost anything in a node
//! without that option but a look at a variable, and all places are rare events.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::process::{Signal, getpid, kill_process};

/// A place in what a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailPoint {
    /// A binary has arrived and is right; it is not in the store.
    BeforeBinary,
    /// A binary is in the store; the client does not know.
    AfterBinary,
    /// A specification is to be stored.
    BeforeSpecification,
    /// A specification is stored; no record names it.
    AfterSpecification,
    /// The coordinator is about to store a record that begins no attempt.
    BeforeRecord,
    /// Such a record is stored; no node and no user has been told.
    AfterRecord,
    /// The record that holds a user's change is stored; the user has no answer.
    BeforeAnswer,
    /// A node is to fetch a binary.
    BeforeFetch,
    /// The binary is in the cache; it is not checked.
    AfterFetch,
    /// The binary's own check has said what it has to say; the node has not offered it.
    AfterCheck,
    /// The coordinator is about to store a record that begins an attempt.
    BeforeAttempt,
    /// Such a record is stored; no node has been told.
    AfterAttempt,
    /// A node was told to start processes.
    BeforeStart,
    /// A process runs; it does not know yet what it is for.
    BeforeInvitation,
    /// All processes of an attempt on the node run and have their invitations.
    AfterStart,
    /// The addresses of all processes of an attempt are known; those on the node have not been told.
    BeforeIntroduction,
    /// They have been told.
    AfterIntroduction,
    /// A node was told to stop processes at a checkpoint.
    BeforeStop,
    /// A process has ended; nobody has been told.
    AfterEnd,
    /// The newest checkpoint of a job is pinned; it is not known whether it still is the newest.
    AfterPin,
    /// It was the newest while it was pinned; the savepoint is not stored.
    BeforeSavepoint,
    /// A savepoint is stored; its pin is still there.
    AfterSavepoint,
}

impl FailPoint {
    /// All of them, in the order in which an upgrade could pass them.
    pub const ALL: &[Self] = &[
        Self::BeforeBinary,
        Self::AfterBinary,
        Self::AfterPin,
        Self::BeforeSavepoint,
        Self::AfterSavepoint,
        Self::BeforeSpecification,
        Self::AfterSpecification,
        Self::BeforeRecord,
        Self::AfterRecord,
        Self::BeforeAnswer,
        Self::BeforeFetch,
        Self::AfterFetch,
        Self::AfterCheck,
        Self::BeforeStop,
        Self::AfterEnd,
        Self::BeforeAttempt,
        Self::AfterAttempt,
        Self::BeforeStart,
        Self::BeforeInvitation,
        Self::AfterStart,
        Self::BeforeIntroduction,
        Self::AfterIntroduction,
    ];

    /// Its name, which is that of its file.
    #[must_use]
    pub fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.extend(letter.to_lowercase());
        }
        name
    }
}

/// Where this node looks.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// From now on this process looks for files in a folder at each place that it passes.
pub fn watch(folder: PathBuf) {
    // A second call changes nothing.
    let _ = FOLDER.set(folder);
}

/// Says that this place is reached.
pub(crate) fn reach(point: FailPoint) {
    if let Some(folder) = FOLDER.get()
        && is_armed(folder, point)
    {
        // A process may always signal itself.
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// Whether there is a file for this place, which is removed.
fn is_armed(folder: &Path, point: FailPoint) -> bool {
    std::fs::remove_file(folder.join(point.name())).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_place_is_armed_by_a_file_of_its_name_and_once() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("before-attempt"), "").unwrap();
        assert!(!is_armed(folder.path(), FailPoint::AfterAttempt));
        assert!(is_armed(folder.path(), FailPoint::BeforeAttempt));
        assert!(!is_armed(folder.path(), FailPoint::BeforeAttempt));
    }

    #[test]
    fn every_place_has_a_name_of_its_own() {
        let names: BTreeSet<_> = FailPoint::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), FailPoint::ALL.len());
        // The last of them in the order of the declaration: all are listed.
        assert_eq!(FailPoint::ALL.len(), FailPoint::AfterSavepoint as usize + 1);
    }
}
