//! Durable state at rest: state files, manifests, merging, restoring.
//!
//! A *state file* is an immutable Parquet file with the rows of one durable operator that changed between two checkpoints on
//! one worker, sorted by the hash of their keys. A checkpoint's manifest names each operator's state files, oldest first;
//! where two have a key, the later one wins.
//!
//! **Owns** the format of state files and their names, and which of them to merge. **Guarantees** that what is read is what
//! was written: versions and checksums are checked before anything is used, and an error names the object. No worker
//! is mentioned in a state file, so any number of them can restore it. **Does not** know when a checkpoint is complete
//! ([`fluvial_protocol`]), nor what may be deleted.
//!
//! The columns of a state file are `hash`, `key`, `value`, `deleted` and `tick` (only `value` for `keep_all`). `key` and `value`
//! are the user's own fields where Arrow can express the types, so that DuckDB or pandas can read them. Other types are
//! stored as bytes (of the postcard format). A key has a row in each state file written at a checkpoint since which the key had changed; the row with the
//! greatest `tick` counts, and `state --sql OPERATOR` prints the query that picks it.

mod columns;
mod error;
mod file_reader;
mod file_writer;
mod listing;
mod merge;
mod routing;
mod rows;
mod schema;
mod store;
#[cfg(test)]
mod tests;
mod upload;

pub(crate) use error::StateError;
pub(crate) use listing::{ListedCheckpoint, list};
pub(crate) use merge::{merge, merge_due};
pub(crate) use routing::hash_owner;
pub use routing::routing_hash;
pub(crate) use rows::{HashRange, Part, PlainPart, encode_keyed, encode_plain, plain_parts, read_keyed};
pub(crate) use schema::RowSchema;
pub(crate) use store::{EncodedFile, StateStore, state_object};
