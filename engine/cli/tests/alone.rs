//! The command where there is no cluster.
#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::process::Command;

/// Runs the command; returns whether it succeeded, and what it printed.
fn fluvial(args: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluvial"));
    // The logins of whoever runs the test are not for it.
    command.env("XDG_CONFIG_HOME", "/nonexistent").env_remove("FLUVIAL_ADDR").env_remove("FLUVIAL_TOKEN");
    let output = command.args(args).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn a_command_without_a_node_says_how_to_start_one() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (succeeded, said) = fluvial(&["--addr", &nobody, "jobs"]);
    assert!(!succeeded && said.contains(&nobody) && said.contains("fluvial up"), "{said}");
}

#[test]
fn a_node_listens_for_users_of_this_host_only_and_for_others_only_with_a_proof() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let node = |more: &[&str]| {
        let args = [&["node", "--store", store.to_str().unwrap()], more].concat();
        let (succeeded, said) = fluvial(&args);
        assert!(!succeeded, "{args:?}: {said}");
        said
    };
    let said = node(&["--listen", "127.0.0.1:0", "--api", "0.0.0.0:0"]);
    assert!(said.contains("loopback interface only") && said.contains("--cluster-key-file"), "{said}");
    let said = node(&["--listen", "0.0.0.0:0", "--advertise", "host-a:7400"]);
    assert!(said.contains("--cluster-key-file"), "{said}");
    let said = node(&["--listen", "0.0.0.0:0", "--insecure"]);
    assert!(said.contains("--advertise"), "{said}");
}

#[test]
fn nothing_is_sent_to_another_host_that_does_not_prove_who_it_is() {
    let (succeeded, said) = fluvial(&["--addr", "192.0.2.1", "jobs"]);
    assert!(!succeeded && said.contains("fluvial login 192.0.2.1:7400"), "{said}");
    for words in ["tokens revoke ../jobs/orders", "status ..", "delete ../tokens/anna", "stop a%2fb"] {
        let (succeeded, said) = fluvial(&words.split(' ').collect::<Vec<_>>());
        assert!(!succeeded && said.contains("no name of a job or token"), "{words}: {said}");
    }
    let (succeeded, said) = fluvial(&["up", "--cluster-key-file", "key"]);
    assert!(!succeeded && said.contains("fluvial node"), "{said}");
}

#[test]
fn a_shell_can_complete_the_commands() {
    for (shell, part) in [("bash", "complete -F"), ("zsh", "#compdef fluvial"), ("fish", "complete -c fluvial")] {
        let (succeeded, said) = fluvial(&["completions", shell]);
        assert!(succeeded && said.contains(part) && said.contains("submit") && said.contains("top"), "{shell}: {said}");
    }
    let (succeeded, said) = fluvial(&["completions", "tcsh"]);
    assert!(!succeeded && said.contains("bash"), "{said}");
}
