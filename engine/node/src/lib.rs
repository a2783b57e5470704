//! A node: one copy of a job on one host, which runs the job together with the other copies, or a node of a cluster, which runs
//! the jobs that users submit together with the other nodes.
//!
//! ```text
//!   other nodes ◄──TLS──► links ──► the loop that drives fluvial_protocol::group::Node ──► keeper ──► processes of the job
//!   store ◄── group journal ──┘                └─► status, HTTP
//! ```
//!
//! **Does not** decide anything: that is [`fluvial_protocol::group`]. It knows nothing of dataflow.

mod allocator;
pub mod changes;
pub mod group;
pub mod http;
pub mod keeper;
pub mod links;
pub mod log;
mod memory;
pub mod process_link;
pub mod readiness;
pub mod secret;
mod signals;
pub mod status;
pub mod supervisor;
pub mod trust;
