//! Looks at a job as the next generation would find it, and says what would stop that generation. Nothing is written.
//!
//! ```text
//!   Inspection: reads the journal ─► Inspected: the checkpoint ─► Judging: sources, outputs, what the person asked for
//!   (an opening that claims nothing)                              (a leader that appends nothing)
//! ```
//!
//! Both halves are the code of an opening, so that a check and a start agree. What an opening finds later, by reading input
//! and outputs again, is not looked at: it takes writers that are fenced.

use std::collections::BTreeMap;

use fluvial_connector::{Incarnation, OutputPartition, Progress, Tick};

use crate::journal::Nonce;
use crate::leader::{Event, Leader, LeaderConfig, Request};
use crate::manifest::Manifest;
use crate::messages::{FoundSplit, Layout};
use crate::opening::{Opened, Opener, Opening};
use crate::store::{Answer, Call};
use crate::{Committer, CommitterConfig, Ended, GoBack};

/// A journal that is being read. All of its calls read.
#[derive(Debug)]
pub struct Inspection(Opening);

/// A journal that has been read, and from which the next generation could go on.
#[derive(Debug)]
pub struct Inspected(Opened);

/// A job that is being compared with its journal.
#[derive(Debug)]
pub struct Judging {
    leader: Box<Leader>,
    /// The time stands still: nothing here depends on it.
    now_ms: u64,
}

/// What is needed to go on with judging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// What the upsert outputs hold: answer with [`Event::Surveyed`].
    Survey,
    /// The splits of the sources once more, after a moment, because one of them seems to end too early: answer with
    /// [`Event::Splits`].
    Splits,
}

impl Inspection {
    /// Begins to read, as a job that is to go back to a savepoint, if it is.
    #[must_use]
    pub fn new(go_back: Option<GoBack>) -> Self {
        Self(Opening::only_reading(Opener {
            incarnation: Incarnation(uuid::Uuid::nil()),
            nonce: Nonce::of_run(0, 0),
            program: String::new(),
            layout: Layout { workers: 1, processes: 1 },
            turns: 1,
            follows: None,
            go_back,
        }))
    }

    /// The next call to the store, if none is under way.
    pub fn next_call(&mut self) -> Option<Call> {
        self.0.next_call()
    }

    /// Takes the store's answer.
    ///
    /// # Errors
    /// The journal is not one that a generation could go on from.
    pub fn on(&mut self, answer: Answer) -> Result<Option<Inspected>, Ended> {
        Ok(self.0.on(answer)?.map(Inspected))
    }
}

impl Inspected {
    /// The checkpoint that the next generation restores.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&Manifest> {
        self.0.history.checkpoint.as_ref()
    }

    /// That checkpoint, with the name of its manifest's object.
    #[must_use]
    pub fn into_checkpoint(self) -> Option<(String, Manifest)> {
        self.0.manifest.zip(self.0.history.checkpoint)
    }

    /// Compares the job with its journal. `found` is what all sources have said since the journal was read.
    ///
    /// # Errors
    /// The reason for which a generation would end.
    pub fn judge(self, config: LeaderConfig, found: &[FoundSplit], now_ms: u64) -> Result<Judging, Ended> {
        let mut leader = Leader::new(config, now_ms);
        leader.on(Event::Splits(found.to_vec()), now_ms)?;
        leader.opened(self.0)?;
        leader.on(Event::Splits(found.to_vec()), now_ms)?;
        Ok(Judging { leader: Box::new(leader), now_ms })
    }
}

impl Judging {
    /// What a person should know, and what is needed to go on; nothing once the job is judged.
    pub fn asks(&mut self) -> (Vec<String>, Option<Asks>) {
        let (mut warnings, mut asks) = (Vec::new(), None);
        while let Some(request) = self.leader.waiting_request() {
            match request {
                Request::Warn(warning) => warnings.push(warning),
                Request::Survey => asks = Some(Asks::Survey),
                // Nobody is told anything.
                Request::Broadcast(_) | Request::Store(..) => {}
            }
        }
        let asks = asks.or_else(|| self.leader.is_in_doubt().then_some(Asks::Splits));
        (warnings, asks)
    }

    /// Compares the progress of the outputs, read after the journal, with the journal. It may be ahead: a generation that runs
    /// has sealed more since.
    ///
    /// # Errors
    /// As [`Inspected::judge`].
    pub fn check_progress(&self, progress: &BTreeMap<OutputPartition, Progress>) -> Result<(), Ended> {
        let Some(plan) = self.leader.plan() else { return Ok(()) };
        let config = CommitterConfig {
            slot: 0,
            layout: Layout { workers: 1, processes: 1 },
            turns: 1,
            outputs: plan.sinks.iter().map(|sink| sink.output.clone()).collect(),
            transaction_records: 0,
            transaction_bytes: 0,
            heartbeat_ms: u64::MAX,
            patience_ms: u64::MAX,
        };
        Committer::new(plan, config).check_progress(Tick(u64::MAX), progress)
    }

    /// Takes what was asked for.
    ///
    /// # Errors
    /// As [`Inspected::judge`].
    pub fn hear(&mut self, event: Event) -> Result<(), Ended> {
        self.leader.on(event, self.now_ms)
    }
}
