//! Clients that are not ours: Debian's kcat, and PyPI's confluent-kafka driven by a few lines of Python.
//!
//! Both print what they read as `partition/offset key=value`, like [`crate::client::Seen::line`], so that their view
//! can be compared with anyone else's.

mod kcat;
mod python;

pub use kcat::Kcat;
pub use python::Python;

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a client to its end and returns what it printed.
fn output_of(mut command: Command, input: &str) -> Result<String> {
    let name = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("run {name}"))?;
    let mut stdin = child.stdin.take().context("its standard input is a pipe")?;
    let input = input.to_owned();
    let written = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().with_context(|| format!("run {name}"))?;
    let _ = written.join();
    if !output.status.success() {
        bail!("{name} ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("read what {name} printed"))
}

/// Lines in the order of partition and offset.
fn sorted(text: &str) -> Vec<String> {
    let position = |line: &str| -> Option<(i32, i64)> {
        let (partition, offset) = line.split(' ').next()?.split_once('/')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    };
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort_by_key(|line| position(line));
    lines
}
