//! The protocol of a job as state machines without I/O: journal, opening, sealing, committing, checkpoints, deleting.
//!
//! ```text
//!                    Event ─►┌────────────────────── Leader ──────────────────────┐─► Request
//!   one a generation         │ Opening   Appender   Sequencer   Checkpointer      │   (store calls,
//!                            │ (History)                        Cleaner           │    broadcasts)
//!                            └────────────────────────────────────────────────────┘
//!                                   Order ▼        ▲ Report
//!   one a process              Done ─►┌─── Participant ───┐─► Action (fence, prepare, commit, read progress)
//!                                     │     Committer     │
//!                                     └───────────────────┘
//! ```
//!
//! Records, answers and the time come in, decisions go out. Nothing here reads a clock, draws a random number, or waits:
//! the crates that this one depends on cannot, and Clippy refuses the standard library's ways to (`clippy.toml`). The
//! runtime drives these machines against a store and a sink. `simulation` drives the same machines against simulated ones,
//! through crashes, pauses, and requests that arrive late, twice or never.
//!
//! # Rules
//!
//! [`Rule`] lists those that a test takes out one by one, with the history that each prevents. The others are the shape of
//! the code, and stand here.
//!
//! *One log.* All facts that must survive are records of one journal, numbered without gaps and made by conditional create.
//! There is no second sequence that would have to be fenced. A record that its writer finds in its place is read before
//! anything is concluded; an append is made by one call at a time, and the next one takes everything that has gathered.
//!
//! *One sequencer.* One worker mints ticks, so that ticks are the same on all workers and no other clock counts. Workers
//! release the ranges of a tick at once, and only sinks wait until it is sealed. A range has been replayed when the position
//! has passed its end, or the split has ended there: the last record before the end may never come, because control markers,
//! aborted records and compacted records take offsets too.
//!
//! *Order.* An operator emits what a key has become by the end of a tick, once, because the steps within a tick depend on
//! arrival. The output of a tick goes to a partition in the order of its keys, so that a restart can leave out the part of
//! it that is committed. Where a result depends on an order, the order is that of tick, source, split, offset and index.
//!
//! *One owner.* Each output partition has one owner in a generation, and its number of partitions is pinned in the journal:
//! two writers under one progress key would lose records, and a key that moves would be written twice.
//!
//! *Progress.* A transaction holds what is sealed for all partitions of the owner and then, after the delivery reports of
//! these records, one progress record for each of them. An opening refuses progress that is earlier than the checkpoint (the
//! records between are lost), after what is sealed (the journal was rolled back), or that is of another incarnation (another
//! job of the same name). Missing progress is right only where the journal says that the output starts there.
//!
//! *Identity.* The last binding before the checkpoint is read again and compared: a topic that was truncated, or deleted and
//! recreated, while there was nothing to replay would not be noticed otherwise.
//!
//! *Names.* A checkpoint exists when a journal record names its manifest, not before: a manifest that a superseded leader has
//! written refers to state files that may be deleted. The names of state files hold the generation and a UUID. What no record names any
//! more is deleted after a grace time that is longer than any pause that a process survives.
//!
//! *Age.* A job whose checkpoints fail ends after a limit. The input that a restart has to read again would otherwise grow
//! without end.
//!
//! *Digests.* They are wrapping 128-bit sums over the records of a tick, chained over the ticks that have records. A sum and
//! not an exclusive or, in which two equal records would cancel out.

mod appender;
mod checkpointer;
mod claim;
mod cleaner;
mod committer;
mod compaction;
mod decisions;
mod ended;
mod exit;
pub mod group;
mod history;
mod inspection;
pub mod journal;
mod leader;
pub mod manifest;
mod messages;
mod opening;
mod participant;
mod preparing;
mod recreated;
mod rules;
mod running;
mod savepoint;
mod sequencer;
#[cfg(test)]
mod simulation;
mod splits;
mod store;

pub use committer::{
    Action, Committer, CommitterConfig, Done, Failure, HeldRecords, REPORT_AFTER_MS, REPORT_EVERY_MS, Stall, Stretch,
    Tail, TickRecords,
};
pub use compaction::{Compare, Reconciliation, Removed};
pub use decisions::{Decisions, Fault, GenerationEnd, Next, ProcessEnd, cause};
pub use ended::{Ended, InputFault, JournalFault, Mismatch, OutputFault};
pub use exit::{Exit, System};
pub use history::History;
pub use inspection::{Asks, Inspected, Inspection, Judging};
pub use leader::{Event, Leader, LeaderConfig, Request, Status};
pub use messages::{
    Approval, FoundOutput, FoundSplit, HeldOutput, Layout, Order, Passed, Plan, Report, owner, split_owner,
};
pub use participant::{Compared, Participant, PartitionOutput};
pub use savepoint::{GoBack, Savepoint};
pub use sequencer::Pace;
pub use splits::{Splits, Standing};
pub use store::{Answer, Call, FoundObject, Identity, Object, Part, PutOutcome, Verdict};

pub use rules::Rule;
