//! The command `fluvial-kafka-embedded`, as a person starts it.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluvial-kafka-embedded"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Ends the command with the test, whatever becomes of it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn failed(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command(arguments).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn it_says_where_it_listens_has_its_topics_and_ends_when_asked() {
    let listen = ["--listen", "127.0.0.1:0", "--partitions", "3", "--topic", "orders:4", "--topic", "other"];
    let mut running = Running(command(&listen).spawn().unwrap());
    let mut first = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", first.trim()).create().unwrap();
    let metadata = client.fetch_metadata(None, std::time::Duration::from_secs(10)).unwrap();
    let topics: Vec<_> = metadata.topics().iter().map(|t| (t.name(), t.partitions().len())).collect();
    assert_eq!(topics, [("orders", 4), ("other", 3)]);
    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(0));
}

#[test]
fn wrong_usage_is_2_and_says_why() {
    for (arguments, why) in [
        (["--memory-limit", "1GB"], "KiB, MiB or GiB"),
        (["--topic", "orders:0"], "at least one partition"),
        (["--fault", "Produce:3:explode"], "API:NTH"),
        (["--partitions", "0"], "0 is not in"),
    ] {
        let (code, error) = failed(&arguments);
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn what_it_cannot_do_is_1_and_says_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, error) = failed(&["--listen", &address]);
    assert_eq!(code, Some(1));
    assert!(error.contains("cannot listen on") && error.contains(&address), "{error}");
    let (code, error) = failed(&["--listen", "127.0.0.1:0", "--topic", "no spaces"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("cannot create topic no spaces"), "{error}");
}
