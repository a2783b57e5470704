//! The journal: the one log that a job is a deterministic function of.

mod record;

pub use record::{
    Binding, Entry, JournalRecord, Nonce, Range, Seq, SinkStart, SplitNumber, SplitStart,
};
