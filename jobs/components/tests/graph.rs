//! The binary knows its parts without a broker.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn its_graph_goes_from_edges_through_a_loop_to_components() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_components"));
    let output = command.args(["graph", "--brokers", "127.0.0.1:1"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let graph = String::from_utf8(output.stdout).unwrap();
    for part in ["source    edges", "durable   edges", "output    components"] {
        assert!(graph.contains(part), "{part} is missing:\n{graph}");
    }
}
