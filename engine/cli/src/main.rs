//! `fluvial`: the nodes of a cluster, and the jobs that they run.
//!
//! ```text
//!   fluvial node, up ──► engine/node: the node of a cluster, with its API
//!   fluvial submit, jobs, stop, … ──HTTP, JSON──► the API of a node
//! ```

mod client;
mod jobs;
mod node;
mod top;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

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
    Node(node::NodeOptions),
    /// Make the key by which nodes know each other
    #[command(subcommand)]
    ClusterKey(KeyCommand),
    /// Print what makes a shell complete the words of this command, such as `source <(fluvial completions bash)`
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    #[command(flatten)]
    Jobs(jobs::Command),
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Print a new key. Put it into a file that only the user of the nodes can read
    New,
}

fn main() -> ExitCode {
    let Options { addr, command } = Options::parse();
    let done = match command {
        Command::Up(options) => node::up(options),
        Command::Node(options) => node::run(options),
        Command::ClusterKey(KeyCommand::New) => {
            println!("{}", fluvial_node::trust::ClusterKey::new().to_text());
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => completions(shell),
        Command::Jobs(command) => jobs::run(&addr, command),
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
