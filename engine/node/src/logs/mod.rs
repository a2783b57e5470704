//! The logs of a cluster's jobs: what their processes print, by job, attempt and process.
//!
//! ```text
//!   process ──pipes──► Logs: its newest lines, in memory ──► nodes that ask ──► gather: merged by time ──► API
//!                        └─ each minute, and at its end ──► StoredLogs: the store, after the process and its node
//! ```
//!
//! A node keeps the newest MiB of lines of each process that it runs. Nothing here blocks or fails a process: a line is taken out
//! of its pipe and put into memory, and the oldest lines make room for it. A line longer than 64 KiB is cut.
//!
//! **The store.** The node writes these lines as one object, `.cluster/logs/{job}/{attempt}/{process}.jsonl.gz`, which replaces
//! the one before: when the process has ended; while it runs, after a minute (`--store-logs-every`) in which it has printed a
//! line that is no `INFO`, `DEBUG` or `TRACE` line of its log; and after ten minutes in which it has printed any line. A process
//! that prints nothing causes no request. On S3 ($5 for a million writes) a process that only logs its status costs $0.02 a
//! month, and one that warns each minute $0.22; the end of an attempt costs one write for each process and one listing, by which
//! the attempts before the newest 20 are deleted.
//!
//! **Guarantees** that each line of a process has a number, so that a reader who says what it has read gets no line twice, and
//! that the lines of one process are in the order in which it printed them on each of its streams. **Does not** guarantee
//! that a line is kept: a node that is killed loses the lines since its last write. The order of lines of different nodes is that of
//! their clocks.

mod gather;
mod held;
mod page;
mod positions;
mod ring;
mod split;
mod stored;
mod writer;

pub use gather::{Follower, Found, Gathered, News, Sought, Unanswered};
pub use held::{AttemptLogs, Logs, ProcessLog};
pub use page::{Page, Part, Question};
pub use positions::Positions;
pub use split::Split;
pub use stored::StoredLogs;

use serde::{Deserialize, Serialize};

/// What a process has printed a line to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
    Stderr,
    /// Neither: its node says how it has ended.
    Node,
}

/// A line that a process has printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Line {
    /// When its node has read it, in milliseconds since the Unix epoch, by the clock of that node. It never decreases within a
    /// process.
    pub time_ms: u64,
    /// The address of the node.
    pub node: String,
    /// The number of the attempt.
    pub attempt: u64,
    /// The number of the process.
    pub process: u32,
    /// Where it was printed.
    pub stream: Stream,
    /// Its number among the lines of its process, from 0.
    pub number: u64,
    /// The line, without its end. What is no UTF-8 is replaced.
    pub text: String,
}

impl Line {
    /// By what lines of several processes are ordered.
    fn order(&self) -> (u64, u64, u32, u64) {
        (self.time_ms, self.attempt, self.process, self.number)
    }

    /// How long it is as JSON, at least.
    fn encoded_len(&self) -> usize {
        let escaped = |byte: u8| match byte {
            b'"' | b'\\' => 2,
            0..0x20 => 6,
            _ => 1,
        };
        self.text.bytes().map(escaped).sum::<usize>() + self.node.len() + 160
    }
}

/// Sorts lines by time, and leaves out the oldest of those that do not fit. Returns whether there were some.
fn merge(lines: &mut Vec<Line>, most: usize, most_bytes: usize) -> bool {
    lines.sort_by_key(Line::order);
    let mut bytes = 0;
    let fits = lines.iter().rev().take(most).take_while(|line| {
        bytes += line.encoded_len();
        bytes <= most_bytes
    });
    let left_out = lines.len() - fits.count();
    lines.drain(..left_out);
    left_out > 0
}
