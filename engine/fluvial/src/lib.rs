//! The engine of Fluvial: the API that jobs are written against, and the runtime that executes them.
//!
//! *A job is a deterministic function of its journal.* A job is an ordinary binary. Its `main` passes the engine a closure that
//! builds a dataflow, from sources through [`Stream`]s, durable operators and [`Collection`]s to outputs.
//!
//! ```text
//!   Job::source ─► Stream ─► durable operator ─► Collection ─► Job::output
//! ```
//!
//! Start with [`App`] for a job's `main`, with [`Job`] for the closure that builds it, and with [`harness`] for its tests.

mod cli;
pub mod durable;
mod fail_point;
pub mod harness;
mod job;
mod runtime;
mod stages;
mod state;
mod stream;

/// The library of the operators on a [`Collection`]; jobs use it from here, so that they have the engine's version.
pub use differential_dataflow as differential;
pub use fluvial_connector as connector;

pub use cli::App;
pub use durable::{Average, Collect, Count, CountDistinct, First, Last, Max, MaxBy, Min, MinBy, Sum, Top, of};
#[doc(hidden)]
pub use fail_point::{Doom, FailPoint, Fate};
pub use job::{Job, NoFormat, OnMalformed, OutputBuilder, SourceBuilder};
pub use stream::{Changelog, Changes, Collection, Stream, Table};
