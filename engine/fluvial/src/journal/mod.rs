//! The journal: the one log that a job is a deterministic function of.
//!
//! Owns what is in it ([`JournalRecord`]), the bytes of it ([`frame`]), and where it lies ([`JobStore`]). Who may
//! append what, and when, is decided in [`crate::protocol`].

pub mod frame;
mod record;
mod store;
mod trouble;

pub use record::{Binding, Entry, JournalRecord, Nonce, Range, Seq, SinkStart, SplitNumber, SplitStart};
pub use store::{Created, JobStore, journal_object};
pub use trouble::Trouble;
