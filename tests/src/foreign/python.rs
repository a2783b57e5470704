//! confluent-kafka for Python as a client.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{output_of, sorted};
use crate::apache::python;
use crate::client::{Endpoint, Isolation};

const VERSION: &str = "2.16.1";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/foreign/client.py");

/// A Python client, pointed at a broker.
#[derive(Clone, Debug)]
pub struct Python {
    bootstrap: String,
    interpreter: PathBuf,
}

impl Python {
    /// A Python client for this broker; its package is installed into the target folder once.
    ///
    /// # Errors
    /// Python is missing, or the package cannot be installed.
    pub fn new(broker: &Endpoint) -> Result<Self> {
        let (name, package) = (format!("confluent-kafka-{VERSION}"), format!("confluent-kafka=={VERSION}"));
        let interpreter = python::with(&name, &[&package])?;
        Ok(Self { bootstrap: broker.bootstrap().to_owned(), interpreter })
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
