//! The journal: the one log that a job is a deterministic function of.
//!
//! Owns what is in it ([`JournalRecord`]), the bytes of it ([`frame`]), and where it lies ([`JobStore`]). Who may
//! append what, and when, is decided in [`crate::protocol`].

pub(crate) mod frame;
mod record;
mod store;
mod trouble;

pub(crate) use record::{
    Binding, Entry, JournalRecord, Nonce, Range, Recreated, Rewound, Seq, SinkStart, SplitNumber, SplitStart, differ,
};
pub(crate) use store::{Created, JobStore, journal_object};
pub(crate) use trouble::Trouble;
