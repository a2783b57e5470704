//! The engine: what a job is written against, and what runs it.
//!
//! *A job is a deterministic function of its journal.* A job is an ordinary binary: its `main` hands the engine a
//! closure that builds a dataflow, from sources through [`Stream`]s, durable operators and [`Collection`]s to outputs.
//!
//! ```text
//!   Job::source ─► Stream ─► durable operator ─► Collection ─► Job::output
//! ```
//!
//! Start at [`App`] for a job's `main`, at [`Job`] for what its closure can do, at [`harness`] for its tests.

mod cli;
pub mod durable;
mod fail_point;
pub mod harness;
mod job;
mod journal;
mod runtime;
mod stages;
mod state;
mod stream;

/// The library of the operators on a [`Collection`]; jobs use it from here, so that they have the engine's version.
pub use differential_dataflow as differential;
pub use fluvial_connector as connector;

pub use cli::App;
pub use durable::{Average, Count, Sum};
#[doc(hidden)]
pub use fail_point::{Doom, FailPoint, Fate};
pub use job::{Job, NoFormat, OnMalformed, OutputBuilder, SourceBuilder};
pub use stream::{Changelog, Collection, Stream, Table};
