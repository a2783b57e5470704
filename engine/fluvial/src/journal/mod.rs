//! The journal at rest: the bytes of its records ([`frame`]), and a job's objects in the store ([`JobStore`]).
//!
//! What a record holds, who may append what and when, is decided in [`fluvial_protocol`].

pub(crate) mod frame;
mod store;

pub(crate) use store::{Created, JobStore, journal_object};
