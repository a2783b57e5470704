//! Running a job's dataflow in a unit test.
//!
//! Feed records at ticks, advance, read outputs as updates and as a table, with one worker and several, with a restart
//! in the middle at any tick. Nothing here reads a clock or waits for time to pass.
//!
//! [`JobTest`] runs a whole job as `main` would, fed with keys and values and read as messages; [`Dataflow`] is for logic
//! between streams and collections, with typed inputs and outputs.
//!
//! **Guarantees**: a restart compares everything that comes out with what came out before, so a test that restarts
//! proves that the job recovers. **Does not** touch files, sockets or a broker.

mod dataflow;
mod job;
mod test;
mod workers;

pub use dataflow::{Builder, Dataflow};
pub use job::JobTest;
pub use test::Test;
