//! `orders demo` from outside: in a pipe, interrupted, killed.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A demo whose temporary files lie in a folder of the test. Dropping it kills it.
struct Demo {
    child: Child,
    stderr: BufReader<ChildStderr>,
    temp: TempDir,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
        command.arg("demo").args(arguments).env("TMPDIR", temp.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, temp }
    }

    /// Waits until it says that records are produced.
    fn wait_for_records(&mut self) {
        let mut line = String::new();
        while !line.contains("each second") {
            line.clear();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "the demo ended before it had produced anything");
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and checks that nothing is left behind.
    fn finish(mut self) -> Output {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.child.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
        self.stderr.read_to_end(&mut stderr).unwrap();
        let status = self.child.wait().unwrap();
        let output = Output { status, stdout, stderr };
        assert!(is_empty(self.temp.path()), "{output:?} has left something behind");
        output
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

/// The figure that stands behind a label of the summary.
fn figure<'a>(summary: &'a str, label: &str) -> &'a str {
    let line = summary.lines().find(|line| line.starts_with(label));
    line.unwrap_or_else(|| panic!("there is no {label} in\n{summary}"))[label.len()..].trim()
}

fn number(summary: &str, label: &str) -> u64 {
    figure(summary, label).replace(',', "").parse().unwrap()
}

#[test]
fn in_a_pipe_it_gives_a_plain_summary_and_the_right_totals() {
    let output = Demo::start(&["--for", "3s", "--rate", "10000"]).finish();
    let (summary, rest) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{summary}\n{rest}");
    for text in [&summary, &rest] {
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "control characters in\n{text}");
    }
    assert!(rest.lines().count() <= 10, "{rest}");
    for region in ["eu", "us", "asia"] {
        assert!(summary.contains(region), "{summary}");
    }
    let (records, updates) = (number(&summary, "records in"), number(&summary, "updates out"));
    assert!((10_000..=35_000).contains(&records), "{summary}");
    assert!(updates > 24 && number(&summary, "records/s") > 0, "{summary}");
    let latency = figure(&summary, "produce to visible");
    assert!(latency.contains("p50") && latency.contains("p99"), "{summary}");
    assert!(figure(&summary, "totals").contains("equal to the recomputation"), "{summary}");
}

#[test]
fn ctrl_c_ends_it_with_a_summary() {
    let mut demo = Demo::start(&["--for", "10m", "--rate", "2000"]);
    demo.wait_for_records();
    demo.signal(Signal::INT);
    let output = demo.finish();
    let summary = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{summary}");
    assert!(figure(&summary, "totals").contains("equal to the recomputation"), "{summary}");
}

#[test]
fn killed_it_leaves_neither_processes_nor_files() {
    let mut demo = Demo::start(&["--for", "10m", "--rate", "2000"]);
    demo.wait_for_records();
    demo.signal(Signal::KILL);
    // The folder goes when the last process of the job has, so an empty one says both.
    let start = Instant::now();
    while !is_empty(demo.temp.path()) {
        assert!(start.elapsed() < PATIENCE, "the job or its files are still there");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_wrong_value_is_wrong_usage() {
    for arguments in [["--for", "soon"], ["--rate", "0"], ["--workers", "many"]] {
        let output = Demo::start(&arguments).finish();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}
