//! Version skew, for tests: a node that takes itself for one of a later version.
//!
//! A rolling upgrade of Fluvial has nodes of two versions in one cluster. A test shows that with one build: a node that was started
//! with `--later-by N` speaks a version of the messages, and writes a version of the group's records, that is N higher.

use std::sync::atomic::{AtomicU32, Ordering};

static LATER_BY: AtomicU32 = AtomicU32::new(0);

/// From now on this process takes itself for one that is so many versions later.
pub fn set(later_by: u32) {
    LATER_BY.store(later_by, Ordering::Relaxed);
}

/// What a version of this build is in this process.
pub(crate) fn apply(version: u32) -> u32 {
    version + LATER_BY.load(Ordering::Relaxed)
}
