//! Durable state at rest: runs, manifests, merging, restoring.

mod manifest;

pub use manifest::{Manifest, OperatorKind, OperatorState, OutputState, RunRef, SplitState};
