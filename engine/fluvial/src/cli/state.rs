//! `state`: what the store holds of a job.

use crate::cli::StoreOptions;

/// How `state` lists.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct StateOptions {
    /// Store and name.
    #[command(flatten)]
    pub(super) store: StoreOptions,

    /// Print JSON instead of tables
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn list(_options: &StateOptions, _job: &str) -> anyhow::Result<()> {
    anyhow::bail!("not yet")
}
