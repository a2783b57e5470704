//! `fluvial`: the nodes of a cluster, and the jobs that they run.
//!
//! ```text
//!   fluvial node, up ──► engine/node: the node of a cluster, with its API
//!   fluvial submit, jobs, stop, … ──HTTP, JSON──► the API of a node
//! ```

mod access;
mod client;
mod cluster_key;
mod connection;
mod contexts;
mod drain;
mod ending;
mod jobs;
mod limits;
mod logs;
mod node;
mod pinned;
mod top;
mod upload;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Run a cluster that runs jobs, and submit jobs to it.
#[derive(Debug, Parser)]
#[command(name = "fluvial", version)]
struct Options {
    #[command(flatten)]
    connection: connection::ConnectionOptions,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole cluster on this machine for development: one node on the loopback interface, with a folder as its store
    Up(node::UpOptions),
    /// Run a node of a cluster
    Node(Box<node::NodeOptions>),
    /// Make the key by which nodes know each other, or replace it by another while they run
    #[command(subcommand)]
    ClusterKey(cluster_key::KeyCommand),
    /// Print what makes a shell complete the words of this command, such as `source <(fluvial completions bash)`
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    #[command(flatten)]
    Access(access::Command),
    #[command(flatten)]
    Jobs(jobs::Command),
}

fn main() -> ExitCode {
    if let Some(code) = fluvial_node::isolation::stage::enter() {
        return code;
    }
    let Options { connection, command } = Options::parse();
    let done = match command {
        Command::Up(_) if connection.cluster_key_file.is_some() => {
            Err(anyhow::anyhow!("`up` uses no cluster key: run `fluvial node --cluster-key-file …` instead"))
        }
        Command::Up(options) => node::up(options),
        Command::Node(options) => node::run(*options),
        Command::ClusterKey(command) => cluster_key::run(&connection, command),
        Command::Completions { shell } => completions(shell),
        Command::Access(command) => access::run(&connection, command),
        Command::Jobs(command) => jobs::run(&connection, command),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Prints the completions of a shell. A closed pipe is no error.
fn completions(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Options::command(), "fluvial", &mut text);
    match std::io::stdout().write_all(&text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }
}
