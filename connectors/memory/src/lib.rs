//! Topics in memory: a source and a sink for tests and benchmarks.
//!
//! ```
//! use fluvial_connector::{Offset, Slot, Source, SplitId, Waker};
//! use fluvial_memory::Memory;
//!
//! let memory = Memory::new();
//! memory.create_topic("in", 1);
//! memory.append("in", 0, Some(b"k"), Some(b"v"))?;
//!
//! let mut reader = memory.source("in").reader(Waker::new(|| ()))?;
//! reader.start(Slot(0), &SplitId("0".to_owned()), Offset(0))?;
//! let mut keys = Vec::new();
//! reader.poll(10, &mut |_, record| keys.push(record.key.unwrap().to_vec()))?;
//! assert_eq!(keys, [b"k"]);
//! # Ok::<(), fluvial_connector::Error>(())
//! ```
//!
//! It behaves like a Kafka cluster: a topic's partitions are its splits; the records of a transaction get their offsets when
//! they are written and become visible when it commits; the end of a transaction takes an offset that no record has; a newer
//! writer with the same id fences the older one and aborts its open transaction.
//!
//! **Does not** survive the process. Its size is unlimited unless it was created by [`Memory::with_limit`].
//!
//! A topic can also be *generated* ([`Memory::generate`]): its records are computed when they are read, without an
//! allocation each. [`Faults`] stop commits, or leave their outcome unknown.

mod faults;
mod log;
mod sink;
mod source;
mod store;
mod topic;

pub use faults::{Faults, LostCommit};
pub use sink::MemoryOutput;
pub use source::MemorySource;
pub use store::{CommittedRecord, Memory, Metadata};
pub use topic::Generated;
