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
//! It behaves as a Kafka cluster does: a topic's partitions are splits, a transaction's records take their offsets when
//! they are written and are seen when it commits, its end takes an offset that no record has, and a newer writer of an
//! id fences the older one and aborts what it left open.
//!
//! **Not its task:** to survive the process. Nothing limits what it holds, unless [`Memory::with_limit`] does.
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
pub use store::{CommittedRecord, Memory};
pub use topic::Generated;
