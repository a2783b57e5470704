//! `cluster-key new`: makes a key by which the copies of a job on several hosts know each other.

use std::io::Write;

use clap::Command;
use fluvial_node::trust::ClusterKey;

use super::described;

pub(super) fn command() -> Command {
    let new = described(Command::new("new"), "Print a new key. Put it into a file that only the job's user can read");
    let command = Command::new("cluster-key").subcommand_required(true).arg_required_else_help(true).subcommand(new);
    described(command, "Make the key by which copies of the job on several hosts know each other")
}

/// Prints a new key.
pub(super) fn print() -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{}", ClusterKey::new().to_text())
}
