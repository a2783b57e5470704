//! Creating one record at one position, whatever the store says in between.
//!
//! ```text
//!   put ──created──────────────────────────► mine
//!    ▲ └─exists, unknown─► get ──mine──────► mine
//!    └───────absent─────────┘  └─another's─► another's
//! ```

use std::sync::Arc;

use super::rules::{Rule, Rules};
use super::store::{Answer, Call, PutOutcome};
use crate::journal::{Entry, JournalRecord, Seq};

/// One conditional create under way.
#[derive(Debug)]
pub(crate) struct Claim {
    seq: Seq,
    record: Arc<JournalRecord>,
    reading: bool,
    asked: bool,
    rules: Rules,
}

/// What came of an answer.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// Ask on.
    NotYet,
    /// The record stands at its position.
    Mine,
    /// The position has this record of another.
    Others(JournalRecord),
    /// The position is taken, and nobody looked by whom.
    #[cfg(test)]
    Unread,
}

impl Claim {
    pub(crate) fn new(seq: Seq, record: Arc<JournalRecord>, rules: Rules) -> Self {
        Self { seq, record, reading: false, asked: false, rules }
    }

    pub(crate) fn seq(&self) -> Seq {
        self.seq
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.record.entries
    }

    pub(crate) fn record(&self) -> &Arc<JournalRecord> {
        &self.record
    }

    /// Replaces what is to be put, as one must never do after an unknown outcome.
    pub(crate) fn replace(&mut self, record: Arc<JournalRecord>) {
        self.record = record;
    }

    /// Whether the record is about to be put, for the first time or again.
    pub(crate) fn puts(&self) -> bool {
        !self.reading && !self.asked
    }

    /// The next call, if there is none under way.
    pub(crate) fn call(&mut self) -> Option<Call> {
        if std::mem::replace(&mut self.asked, true) {
            return None;
        }
        Some(if self.reading { Call::Get(vec![self.seq]) } else { Call::Put(self.seq, Arc::clone(&self.record)) })
    }

    pub(crate) fn on(&mut self, answer: Answer) -> Claimed {
        self.asked = false;
        match answer {
            Answer::Put(PutOutcome::Created) => Claimed::Mine,
            #[cfg(test)]
            Answer::Put(PutOutcome::AlreadyExists) if !self.rules.has(Rule::ReadBeforeJudging) => Claimed::Unread,
            Answer::Put(PutOutcome::Unknown) if !self.rules.has(Rule::SameBytesAgain) => Claimed::NotYet,
            Answer::Put(_) => {
                self.reading = true;
                Claimed::NotYet
            }
            Answer::Records(mut found) => match found.pop().and_then(|(_, record)| record) {
                None => {
                    self.reading = false;
                    Claimed::NotYet
                }
                Some(record) if record.nonce == self.record.nonce && record.generation == self.record.generation => {
                    Claimed::Mine
                }
                Some(record) => Claimed::Others(record),
            },
            _ => Claimed::NotYet,
        }
    }
}
