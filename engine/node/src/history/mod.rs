//! How the jobs of a cluster were in the last hour: lag, rates and checkpoints, and their attempts with the reasons they ended.
//!
//! ```text
//!   view of this node ──each second──► what it knows itself ──┐
//!   envelopes of other nodes ──────────► what they know ──────┴─► History ──► /v1/history, /v1/jobs/{name}/attempts
//! ```
//!
//! The node of a job's process 0 takes samples of the job, and the coordinator knows its attempts. What is new of both goes with the
//! messages that the nodes send each other anyway ([`Carried`]), so no node is asked, every node knows the same, and the end of
//! a node takes nothing with it. A hundred jobs are some kilobytes each 15 seconds.
//!
//! **Guarantees** that a node which has just been started is told the whole hour, and that what was lost on the way is sent
//! again: each node numbers what it knows, and the others say up to which number they have it. **Does not** outlive
//! the last node: nothing of it is in the store. The times are those of the nodes' clocks.

mod carried;
mod kept;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fluvial_protocol::group::NodeId;
use serde::{Deserialize, Serialize};

pub use carried::Carried;

use crate::status::View;
use carried::Peers;
use kept::Kept;

/// The time between two samples.
pub const EVERY_MS: u64 = 15_000;
/// The samples of an hour.
const MOST_SAMPLES: u64 = 240;
/// The attempts of a job that are kept, the newest.
const MOST_ATTEMPTS: usize = 20;
/// What a process said longer ago than this is no news.
const FRESH_MS: u64 = 5000;

/// How a job was at one time. What was not known is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// The input records whose output was not committed.
    pub lag_records: Option<u64>,
    /// The records that it read in ten seconds.
    pub read_in_10_s: u64,
    /// The records that it committed in ten seconds.
    pub committed_in_10_s: u64,
    /// Its newest checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<SampledCheckpoint>,
}

/// A checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampledCheckpoint {
    /// Its tick.
    pub tick: u64,
    /// The size of all state files that belong to it.
    pub bytes: u64,
    /// How long it took.
    pub duration_ms: u64,
}

/// An attempt to run a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PastAttempt {
    /// Its number.
    pub number: u64,
    /// The generation of the job that it has become.
    pub generation: Option<u64>,
    /// Why it followed the one before.
    pub why: String,
    /// The version of its program.
    pub version: String,
    /// The number of its workers.
    pub workers: u32,
    /// The nodes that ran its processes.
    pub nodes: Vec<String>,
    /// When it began, in milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// When it was over.
    pub ended_ms: Option<u64>,
    /// Why it is over; `None` if it is the newest, and goes on.
    pub ended: Option<String>,
}

/// What a node knows of the last hour. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    kept: Kept,
    peers: Peers,
    /// Of the newest samples.
    slot: u64,
}

impl History {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what this node knows itself; to be called each second.
    pub fn look(&self, now_ms: u64, view: &View) {
        let State { kept, slot, .. } = &mut *self.state();
        let now = now_ms / EVERY_MS;
        if std::mem::replace(slot, now) != now {
            kept.forget_before(now.saturating_sub(MOST_SAMPLES - 1));
            for (job, progress) in view.progress.iter().filter(|(_, progress)| progress.age_ms < FRESH_MS) {
                kept.sample(job, now, sample(view, job, progress));
            }
        }
        // Only a coordinator knows the newest record.
        let Some(record) = view.record.as_ref().filter(|_| view.coordinates()) else { return };
        kept.forget_jobs(|job| record.jobs.contains_key(job));
        for (name, job) in &record.jobs {
            if let Some(attempt) = &job.attempt {
                let generation = view.generation_of(name);
                kept.attempt(name, now_ms, attempt, generation, job.outcome.as_ref());
            }
        }
    }

    /// What is to be told to another node with the next message to it.
    #[must_use]
    pub fn for_node(&self, to: &NodeId) -> Option<Carried> {
        let State { kept, peers, .. } = &mut *self.state();
        peers.of(to, kept).tell(kept)
    }

    /// Takes what another node has told.
    pub fn hear(&self, from: &NodeId, carried: Carried) {
        let State { kept, peers, .. } = &mut *self.state();
        peers.of(from, kept).hear(carried, kept);
    }

    /// The samples of the last hour by job, oldest first, each with its time.
    #[must_use]
    pub fn samples(&self, now_ms: u64) -> BTreeMap<String, Vec<(u64, Sample)>> {
        self.state().kept.samples((now_ms / EVERY_MS).saturating_sub(MOST_SAMPLES - 1))
    }

    /// The newest attempts of a job, newest first.
    #[must_use]
    pub fn attempts(&self, job: &str) -> Vec<PastAttempt> {
        self.state().kept.attempts(job)
    }
}

fn sample(view: &View, job: &str, progress: &crate::status::Progress) -> Sample {
    let process_0 = view.figures.get(job).and_then(|processes| processes.get(&0));
    let checkpoint = process_0.and_then(|heard| heard.figures.checkpoint);
    let in_10_s = |rate: f64| (rate.max(0.0) * 10.0).round() as u64;
    Sample {
        lag_records: progress.lag_records,
        read_in_10_s: in_10_s(progress.records_in_per_s),
        committed_in_10_s: in_10_s(progress.records_out_per_s),
        checkpoint: checkpoint.map(|of| SampledCheckpoint {
            tick: of.tick,
            bytes: of.bytes,
            duration_ms: of.duration_ms,
        }),
    }
}
