//! A node: one copy of a job on one host, which runs the job together with the other copies, or a node of a cluster, which runs
//! the jobs that users submit together with the other nodes.
//!
//! ```text
//!   other nodes ◄──TLS──► links ──► the loop that drives fluvial_protocol::group::Node ──► keeper ──► processes of the job
//!   store ◄── group journal ──┘                └─► status, HTTP
//! ```
//!
//! **Does not** decide anything: that is [`fluvial_protocol::group`]. It knows nothing of dataflow. [`job_store`] has the names of
//! a job's objects in the store, for the nodes and for the runtime of a job.

pub mod access;
mod allocator;
pub mod changes;
pub mod elf;
pub mod fail_point;
pub mod group;
pub mod history;
#[cfg(test)]
mod hostile;
pub mod http;
pub mod isolation;
pub mod job_store;
pub mod keeper;
pub mod labels;
pub mod links;
pub mod log;
pub mod logs;
mod memory;
pub mod process_link;
pub mod readiness;
pub mod secret;
mod signals;
pub mod skew;
pub mod status;
pub mod supervisor;
pub mod trust;
pub mod uploads;

/// Checks the name of a job: it becomes a folder in the store, and a part of a topic's name. One that begins with a point is the
/// engine's own.
///
/// # Errors
/// One line that says what a name consists of.
pub fn check_job_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=100).contains(&name.len()) && name.chars().all(fits) && !name.starts_with('.') {
        return Ok(());
    }
    Err("a job's name consists of 1 to 100 letters, digits, '-', '_' or '.', and does not begin with '.'".to_owned())
}
