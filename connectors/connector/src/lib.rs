//! What a connector implements, and nothing else.
//!
//! A connector joins the engine to one external system. On the way in it is a [`Source`]: a set of *splits* that can be
//! read again from any offset. On the way out it is a [`Sink`]: a system that can take records and the job's
//! [`Progress`] in one atomic step.
//!
//! ```text
//!   Source ──splits()──► SplitStatus          Sink ──connect()──► SinkSession ──fence()──► Transactor
//!      └────reader()──► SplitReader                                   ├─progress()           ├─prepare(txn)
//!                         └─poll() ► Record                           └─read_committed()     └─commit()
//! ```
//!
//! Guarantees asked of a connector are written at each trait. There is no dataflow in this crate, no thread, and no
//! clock: the engine decides when each call is made, and a connector never knows how many workers there are.
//!
//! # Writing a connector
//!
//! Begin from [`worked_example`], a source and a sink over files. Then prove the connector with [`conformance`], which has
//! a check for each contract of the traits. It is behind the cargo feature `conformance`, for the connector's own tests:
//!
//! ```toml
//! [dev-dependencies]
//! fluvial-connector = { version = "…", features = ["conformance"] }
//! ```

mod block;
// In the documentation it is there without the feature, too: a connector's author should come across it.
#[cfg(any(feature = "conformance", doc))]
pub mod conformance;
mod digest;
mod doubt;
mod error;
pub mod format;
mod headers;
mod progress;
pub mod secret;
mod sink;
mod source;
mod waits;
mod words;
pub mod worked_example;

pub use block::{OutputBlock, OutputRecordRef};
pub use digest::{Digest, output_digest, source_digest};
pub use doubt::Doubt;
pub use error::{BoxError, Error, ErrorKind, too_many_files};
pub use headers::{Header, Headers, ReadHeaders};
pub use progress::{Position, Progress, TickEnd};
pub use sink::{
    CommitError, Envelope, Output, OutputPartition, OutputRecord, OutputRecords, OutputSpec, OutputStatus,
    PartitionWrite, ReadEnd, Sink, SinkContext, SinkSession, SinkStatus, TickCount, Transaction, Transactor, WriterId,
};
pub use source::{Availability, Compaction, Record, Slot, Source, SplitReader, SplitStatus, Waker};
pub use waits::{Wait, Waits};
pub use words::{Generation, Incarnation, JobProcess, Offset, SplitId, Tick, describe_offsets};
