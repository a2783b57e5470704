//! confluent-kafka for Python as a client.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{output_of, sorted};
use crate::client::{Endpoint, Isolation};
use crate::workspace;

const VERSION: &str = "2.16.1";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/foreign/client.py");

/// A Python client, pointed at a broker.
#[derive(Clone, Debug)]
pub struct Python {
    bootstrap: String,
    interpreter: std::path::PathBuf,
}

impl Python {
    /// A Python client for this broker; its package is installed into the target folder once.
    ///
    /// # Errors
    /// Python is missing, or the package cannot be installed.
    pub fn new(broker: &Endpoint) -> Result<Self> {
        let folder = workspace::made_once(&format!("confluent-kafka-{VERSION}"), |folder| {
            let cure = "install Python with venv: apt-get install -y python3-venv (the script tests/run does it)";
            run(Command::new("python3").args(["-m", "venv"]).arg(folder)).context(cure)?;
            let mut pip = Command::new(interpreter(folder));
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
            run(pip.arg(format!("confluent-kafka=={VERSION}")))
        })?;
        Ok(Self { bootstrap: broker.bootstrap().to_owned(), interpreter: interpreter(&folder) })
    }

    fn run(&self, args: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(&self.interpreter);
        command.args([SCRIPT, &self.bootstrap]).args(args);
        output_of(command, input)
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// The client fails.
    pub fn create_topic(&self, topic: &str, partitions: i32) -> Result<()> {
        self.run(&["create", topic, &partitions.to_string()], "").map(drop)
    }

    /// Produces `partition:key:value` lines with an idempotent producer.
    ///
    /// # Errors
    /// The client fails.
    pub fn produce(&self, topic: &str, lines: &str) -> Result<()> {
        self.run(&["produce", topic], lines).map(drop)
    }

    /// Produces `partition:key:value` lines in one transaction, and commits or aborts it.
    ///
    /// # Errors
    /// The client fails.
    pub fn transact(&self, topic: &str, id: &str, commit: bool, lines: &str) -> Result<()> {
        self.run(&["transact", topic, id, if commit { "commit" } else { "abort" }], lines).map(drop)
    }

    /// Reads a topic to its end, a line for each record.
    ///
    /// # Errors
    /// The client fails.
    pub fn read(&self, topic: &str, isolation: Isolation) -> Result<Vec<String>> {
        Ok(sorted(&self.run(&["read", topic, isolation.name()], "")?))
    }

    /// Joins a group, reads so many records of the topic, a line for each, and commits.
    ///
    /// # Errors
    /// The client fails.
    pub fn consume_in_group(&self, topic: &str, group: &str, records: usize) -> Result<Vec<String>> {
        Ok(sorted(&self.run(&["group", topic, group, &records.to_string()], "")?))
    }
}

fn interpreter(folder: &Path) -> std::path::PathBuf {
    folder.join("bin").join("python")
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{command:?} ended with {}:\n{out}{err}", output.status);
    }
    Ok(())
}
