//! The journal at rest: a job's objects in the store ([`JobStore`]).
//!
//! What a record holds, who may append what and when, is decided in [`fluvial_protocol`].

mod store;

pub(crate) use store::{JobStore, journal_object};
