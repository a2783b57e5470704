//! Runs a job's dataflow in a unit test.
//!
//! A test feeds records at ticks, advances the dataflow, and reads the outputs as updates or as a table. It can use any number
//! of workers, and restart the dataflow at any tick. Nothing here reads a clock or waits for time to pass.
//!
//! [`JobTest`] runs a whole job, as the job's `main` would: the test feeds keys and values, and reads messages. [`Dataflow`]
//! runs logic between streams and collections, with typed inputs and outputs. [`check_aggregate`] tries the laws of an aggregate
//! of the job's own.
//!
//! **Guarantees** that a restart compares all output with the output before it, so that a test that restarts shows that the job
//! recovers. **Does not** use files, sockets or a broker.

mod dataflow;
mod input_record;
mod job;
mod laws;
mod test;
mod workers;

pub use dataflow::{Builder, Dataflow};
pub use input_record::InputRecord;
pub use job::JobTest;
pub use laws::{check_aggregate, check_retraction};
pub use test::Test;
