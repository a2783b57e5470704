//! The binary knows its parts without a broker.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn its_graph_goes_from_lines_through_counts_to_counts() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_words")).args(["graph", "--brokers", "127.0.0.1:1"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let graph = String::from_utf8(output.stdout).unwrap();
    for part in ["source    lines", "durable   counts", "output    counts"] {
        assert!(graph.contains(part), "{part} is missing:\n{graph}");
    }
}
