//! The part of Fluvial that must be right before anything else is, as state machines without I/O.
//!
//! ```text
//!                    Event ─►┌────────────────────── Leader ──────────────────────┐─► Request
//!   one a generation         │ Opening   Appender   Sequencer   Checkpointer      │   (store calls,
//!                            │ (History)                        Cleaner           │    broadcasts)
//!                            └────────────────────────────────────────────────────┘
//!                                   Order ▼        ▲ Report
//!   one a process            Answer ─►┌──── Committer ────┐─► Action (fence, prepare, commit, read progress)
//!                                     └───────────────────┘
//! ```
//!
//! Records, answers and the time come in, decisions go out. Nothing here reads a clock, draws a random number, or
//! waits. The runtime drives these machines against a store and a sink; `simulation` drives the very same ones against
//! simulated ones, through crashes, pauses and requests that come late, twice or not at all.

mod appender;
mod checkpointer;
mod claim;
mod cleaner;
mod committer;
mod compaction;
mod ended;
mod history;
mod leader;
mod messages;
mod opening;
mod preparing;
mod recreated;
mod rules;
mod running;
mod sequencer;
#[cfg(test)]
mod simulation;
mod store;

pub(crate) use committer::{
    Action, Committer, CommitterConfig, Done, Failure, REPORT_AFTER_MS, REPORT_EVERY_MS, Stretch, Tail, TickRecords,
};
pub(crate) use compaction::{Compare, Reconciliation, Removed};
pub(crate) use ended::Ended;
pub(crate) use history::History;
pub(crate) use leader::{Event, Leader, LeaderConfig, Request, Status};
pub(crate) use messages::{
    FoundOutput, FoundSplit, HeldOutput, Layout, Order, Passed, Plan, Report, owner, split_owner,
};
pub(crate) use sequencer::Pace;
pub(crate) use store::{Answer, Call, FoundObject, Identity, Object, Part, PutOutcome, Verdict};

pub(crate) use rules::Rule;
