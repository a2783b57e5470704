//! The runtime of a generation: its processes, the mesh between them, the worker loop, and the drivers of sources and sinks.
//!
//! ```text
//!   supervisor ─► keeper ──starts──► process ──threads──► worker loop ─┬─ source: readers ─► reclock ─► dataflow
//!    (decisions)  (watches)           │ mesh               │ control   ├─ sink: dataflow ─► committer ─► turns
//!                                     └ peer: stop         └ leader    └─ uploads: frozen state ─► store
//! ```

mod allocator;
mod ambient;
mod background;
mod calls;
pub(crate) mod config;
pub(crate) mod control;
mod discovery;
pub(crate) mod failure;
mod foreign_writers;
mod inbox;
mod keeper;
mod leader;
pub(crate) mod log;
mod memory;
mod merges;
pub(crate) mod mesh;
mod missed;
mod outputs;
pub(crate) mod panics;
pub(crate) mod peer;
pub(crate) mod plan;
pub(crate) mod process;
mod pulse;
pub(crate) mod replay;
mod sink;
pub(crate) mod source;
mod status;
pub(crate) mod supervisor;
mod turns;
pub(crate) mod unavailable;
mod uploads;
mod worker;

use std::sync::Arc;

use crate::job::Job;

/// Builds a job's dataflow on a worker.
pub(crate) type Build = Arc<dyn for<'s> Fn(&mut Job<'s>) -> anyhow::Result<()> + Send + Sync>;

/// How many writers each process has, which take turns.
pub(crate) const TURNS: u32 = 2;
