//! The options that limit the processes of a job.

use fluvial_node::isolation::{Limits, cpus, memory};

/// What each process of a job may use, together with the programs that it starts.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct LimitOptions {
    /// The memory that each process of the job may use, without swap, such as 2GiB; `none` takes the limit away. A process that
    /// needs more is killed, and the job starts again. A job has one process on each node that runs it, or more if its workers cannot be
    /// spread evenly
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,

    /// The CPUs that each process of the job may use, such as 2 or 0.5; `none` takes the limit away. A process that would use more
    /// is slowed down
    #[arg(long, value_name = "NUMBER", value_parser = cpus)]
    cpus: Option<u32>,
}

impl LimitOptions {
    /// The change that a user wants: zero takes a limit away.
    pub(crate) fn change(self) -> Limits {
        Limits { memory_bytes: self.memory, millicpus: self.cpus }
    }
}
