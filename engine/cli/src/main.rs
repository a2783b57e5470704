//! `fluvial`: the nodes of a cluster, and the jobs that they run.
//!
//! ```text
//!   fluvial node, up ──► engine/node: the node of a cluster, with its API
//!   fluvial submit, jobs, stop, … ──HTTP, JSON──► the API of a node
//! ```

mod client;
mod jobs;
mod limits;
mod node;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Run a cluster that runs jobs, and submit jobs to it.
#[derive(Debug, Parser)]
#[command(name = "fluvial", version)]
struct Options {
    /// The address of a node's API
    #[arg(long, global = true, env = "FLUVIAL_ADDR", value_name = "HOST:PORT", default_value = node::API)]
    addr: String,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a whole cluster on this machine for development: one node on the loopback interface, with a folder as its store
    Up(node::UpOptions),
    /// Run a node of a cluster
    Node(Box<node::NodeOptions>),
    /// Make the key by which nodes know each other
    #[command(subcommand)]
    ClusterKey(KeyCommand),
    #[command(flatten)]
    Jobs(jobs::Command),
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Print a new key. Put it into a file that only the user of the nodes can read
    New,
}

fn main() -> ExitCode {
    if let Some(code) = fluvial_node::isolation::stage::enter() {
        return code;
    }
    let Options { addr, command } = Options::parse();
    let done = match command {
        Command::Up(options) => node::up(options),
        Command::Node(options) => node::run(*options),
        Command::ClusterKey(KeyCommand::New) => {
            println!("{}", fluvial_node::trust::ClusterKey::new().to_text());
            Ok(ExitCode::SUCCESS)
        }
        Command::Jobs(command) => jobs::run(&addr, command),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }
}
