//! What is measured, each in processes of its own: the engine's jobs, and what they are compared with.

pub(crate) mod bare_loop;
pub(crate) mod bare_table;
pub(crate) mod job;
pub(crate) mod librdkafka;
pub(crate) mod meter;
mod metered;

use std::ffi::OsString;
use std::process::ExitCode;

/// What runs a subject, given the command line from its name on.
type Subject = fn(Vec<OsString>) -> ExitCode;

/// The subject of this name.
pub(crate) fn named(name: &str) -> Option<Subject> {
    match name {
        job::COUNT => Some(job::count),
        job::TOTALS => Some(job::totals),
        job::SALES => Some(job::sales),
        job::SALES_FROM_MEMORY => Some(job::sales_from_memory),
        job::ORDERS => Some(job::orders),
        bare_table::NAME => Some(bare_table::main),
        bare_loop::NAME => Some(bare_loop::main),
        _ => None,
    }
}

/// A subject that has said why it ended.
fn exit(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
