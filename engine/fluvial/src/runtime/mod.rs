//! The runtime of a job: its processes, the mesh between them, the worker loop, and the drivers of sources and sinks.
//!
//! ```text
//!   node ──starts──► process ──threads──► worker loop ─┬─ source: readers ─► ticks ─► dataflow
//!                     │ mesh               │ control   ├─ outlet ─► inbox ─► sink, or printer (replay)
//!                     └ peer: stop         └ leader    └─ uploads, merges: state ─► store
//! ```
//!
//! # Who owns what
//!
//! A *node*, which has no dataflow, owns the processes and what they print ([`fluvial_node`]). A *process* ([`process`]) owns what its workers share ([`process::Shared`]) and, as a member of a generation, its ways to
//! node, store and sink ([`member`]). A *worker* ([`worker`]) owns everything else, and nothing of it is locked: its part
//! of the dataflow, its readers, its durable operators' rows; the first worker of each process also owns the process's sink
//! ([`sink`]), and worker 0 the leader ([`leader`]).
//!
//! A *replay* ([`replay`]) is the same worker loop without node, leader, store and sink: its plan comes from the kept
//! journal, and what comes out is printed.
//!
//! # Threads
//!
//! A worker's loop never waits for anything but its next wake-up, so each call that blocks is made on another thread. Those
//! beside a worker are all started by one type, [`background::Background`], which brings their results back:
//!
//! ```text
//!  each worker           uploads                             encodes and stores frozen rows
//!  first of a process    sink-turn-0, sink-turn-1            one transactor each: fence, prepare, commit
//!                        sink-reader                         progress, tails, read back
//!                        fence, foreign-writers              once, when there is something to fence or to look at
//!  leader's worker       discovery (one a source), outputs   what sources and outputs are now, every few seconds
//!                        merges                              after each checkpoint
//!                        stop                                waits for the node to ask for the end
//!                        warnings, deletions, survey         once, at a start
//! ```
//!
//! The first worker of a replay has `discovery` alone. In addition, a process has the workers themselves, the threads
//! of their sockets (timely's), two threads of a tokio runtime for the store's asynchronous calls, `node-link`,
//! `beat` and `pulse`, by which the process is watched, and the threads of sinks and sources (librdkafka's). While the
//! processes connect with each other, each has `mesh` and one thread for each connection. A node has one
//! thread for its signals, two for its output, one for each generation (`keeper`), and four for each process: for
//! its exit, its messages and its two streams.

mod ambient;
mod background;
mod beat;
mod calls;
pub(crate) mod check;
pub(crate) mod config;
pub(crate) mod control;
mod discovery;
pub(crate) mod failure;
mod foreign_writers;
mod inbox;
mod leader;
mod member;
mod merges;
pub(crate) mod mesh;
pub(crate) mod meter;
mod missed;
mod outputs;
pub(crate) mod panics;
pub(crate) mod peer;
pub(crate) mod plan;
pub(crate) mod process;
mod pulse;
pub(crate) mod replay;
mod request_rate;
mod sink;
pub(crate) mod source;
mod status;
mod turns;
pub(crate) mod unavailable;
mod uploads;
pub(crate) mod version;
mod worker;

use std::sync::Arc;

use crate::job::Job;

/// Builds a job's dataflow on a worker.
pub(crate) type Build = Arc<dyn for<'s> Fn(&mut Job<'s>) -> anyhow::Result<()> + Send + Sync>;

/// How many writers each process has, which take turns.
pub(crate) const TURNS: u32 = 2;
