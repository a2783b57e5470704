//! kcat as a client.

use std::process::Command;

use anyhow::{Result, bail};

use super::{output_of, sorted};
use crate::apache::on_the_path;
use crate::client::{Endpoint, Isolation};

/// kcat, pointed at a broker.
#[derive(Clone, Debug)]
pub struct Kcat {
    bootstrap: String,
}

impl Kcat {
    /// kcat for this broker.
    ///
    /// # Errors
    /// It is not installed; the error says how to.
    pub fn new(broker: &Endpoint) -> Result<Self> {
        if !on_the_path("kcat") {
            bail!("kcat is missing; install it: apt-get install -y kcat (the script tests/run does it)");
        }
        Ok(Self { bootstrap: broker.bootstrap().to_owned() })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("kcat");
        command.args(["-q", "-b", &self.bootstrap, "-m", "30"]).args(args);
        command
    }

    /// The names and partition counts of a topic as kcat lists them: `topic "t" with 2 partitions:` and on.
    ///
    /// # Errors
    /// kcat fails.
    pub fn list(&self, topic: &str) -> Result<String> {
        output_of(self.command(&["-L", "-t", topic]), "")
    }

    /// Produces `key:value` lines, in one transaction where there is an id.
    ///
    /// # Errors
    /// kcat fails.
    pub fn produce(&self, topic: &str, partition: i32, transaction: Option<&str>, lines: &str) -> Result<()> {
        let partition = partition.to_string();
        let id = transaction.map(|id| format!("transactional.id={id}"));
        let mut args = vec!["-P", "-t", topic, "-p", &partition, "-K", ":"];
        args.extend(id.iter().flat_map(|id| ["-X", id]));
        output_of(self.command(&args), lines).map(drop)
    }

    /// Reads a topic to its end, a line for each record.
    ///
    /// # Errors
    /// kcat fails.
    pub fn read(&self, topic: &str, isolation: Isolation) -> Result<Vec<String>> {
        let isolation = format!("isolation.level={}", isolation.name());
        let args = ["-C", "-e", "-o", "beginning", "-X", &isolation, "-t", topic, "-f", "%p/%o %k=%s\n"];
        Ok(sorted(&output_of(self.command(&args), "")?))
    }
}
