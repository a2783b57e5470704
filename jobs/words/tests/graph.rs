//! The binary knows its parts without a broker, and says them to whoever listens.
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

#[test]
fn a_reader_that_has_gone_away_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut graph = Command::new(env!("CARGO_BIN_EXE_words"));
    let output = graph.args(["graph", "--brokers", "127.0.0.1:1"]).stdout(writer).output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

#[test]
fn its_graph_is_also_printed_as_json_and_for_mermaid() {
    let graph = |format: &str| {
        let args = ["graph", "--format", format, "--brokers", "127.0.0.1:1"];
        let output = Command::new(env!("CARGO_BIN_EXE_words")).args(args).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (succeeded, json) = graph("json");
    for part in [r#""id": "source:lines""#, r#""id": "durable:counts""#, r#""to": "durable:counts""#] {
        assert!(succeeded && json.contains(part), "{part} is missing:\n{json}");
    }
    let (succeeded, mermaid) = graph("mermaid");
    assert!(succeeded && mermaid.starts_with("flowchart LR\n") && mermaid.contains(r#"[("counts")]"#), "{mermaid}");
    assert!(!graph("svg").0, "it draws no pictures itself");
}
