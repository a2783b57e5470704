//! What a stranger, or a user who makes mistakes, can send to the API of a cluster.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fluvial_tests::apache::python;
use fluvial_tests::campaign::Subject;
use fluvial_tests::job::binary;
use fluvial_tests::stage::Stage;
use fluvial_tests::workspace::root;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::nodes::Cluster;

/// The version of schemathesis.
const SCHEMATHESIS: &str = "4.32.5";

impl Cluster {
    /// Has schemathesis make requests of the kinds that the document of the API names, and compare the answers with it.
    #[track_caller]
    fn conforms(&self, token: &str, options: &[&str], env: &[(&str, &str)]) {
        let python = python::with(&format!("schemathesis-{SCHEMATHESIS}"), &[&format!("schemathesis=={SCHEMATHESIS}")]);
        let config = self.path("schemathesis.toml");
        // Whether there is something of a name, and whether a job is in a state that permits a change, no schema can say.
        let mut checks = "[checks]\npositive_data_acceptance.enabled = false\n".to_owned();
        if !env.is_empty() {
            // A graph is unknown until a node has checked the program.
            checks += "not_a_server_error.expected-statuses = [\"2xx\", \"3xx\", \"4xx\", \"503\"]\n";
        }
        std::fs::write(&config, checks).unwrap();
        let mut command = Command::new(python.unwrap());
        command.current_dir(self.path("")).envs(env.iter().copied()).env("PYTHONWARNINGS", "ignore");
        command.args(["-m", "schemathesis.cli", "--config-file"]).arg(config);
        command.args(["run", &format!("https://{}/v1/openapi.json", self.api())]);
        // All nodes have certificates of the same name, which is none of an address.
        command.args(["--tls-verify", "false", "--header", &format!("Authorization: Bearer {token}")]);
        // The first path's answer has no end, by the second the token of the requests would be revoked, and the other paths are served
        // elsewhere.
        command.args(["--exclude-path-regex", "^/v1/events$|^/v1/tokens/|^/[a-z]+$", "--request-timeout", "30"]);
        // A handshake has to end within five seconds, which may be too soon on a busy machine.
        command.args(["--request-retries", "3"]);
        command.args(["--generation-deterministic", "--continue-on-failure", "--no-shrink", "--no-color"]);
        let output = command.args(options).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{}", self.logs());
        assert!(!self.logs().contains("panicked"), "{said}\n{}", self.logs());
    }
}

#[test]
fn answers_conform_to_the_document_and_no_request_breaks_a_node() {
    let (cluster, stage) = (Cluster::start(2), Stage::new(Subject::Orders, 2).unwrap());
    let orders = binary("orders").unwrap();
    stage.feed(0..200).unwrap();
    let (succeeded, said) = cluster.submit(&stage, 2, &orders);
    assert!(succeeded, "{said}\n{}", cluster.logs());
    cluster.wait_until_right(&stage);
    let token = cluster.create_token("anna --role operator");
    // Names that are invented, and requests that do not fit the document.
    cluster.conforms(&token, &["--max-examples", "6"], &[]);
    stage.feed(200..400).unwrap();
    cluster.wait_until_right(&stage);
    // The job, the binary and a node that are there, whatever becomes of them.
    let hooks = root().join("tests/tests/cluster/schemathesis.py");
    let node = cluster.addresses.borrow()[&0].0.clone();
    let hash = sha256_of(&orders);
    let env = [
        ("SCHEMATHESIS_HOOKS", hooks.to_str().unwrap()),
        ("FLUVIAL_JOB", stage.name()),
        ("FLUVIAL_NODE", &node),
        ("FLUVIAL_BINARY", &hash),
    ];
    let options = ["--mode", "positive", "--phases", "fuzzing,stateful", "--max-examples", "4"];
    cluster.conforms(&token, &options, &env);
    // Whatever that was, another job runs.
    let other = Stage::new(Subject::Orders, 2).unwrap();
    other.feed(0..200).unwrap();
    cluster.tell(&format!("undrain {node}"));
    cluster.ask(["stop", stage.name()]);
    let (succeeded, said) = cluster.submit(&other, 1, &orders);
    assert!(succeeded, "{said}\n{}", cluster.logs());
    cluster.wait_until_right(&other);
}

fn sha256_of(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

/// What comes back for these bytes, until the node closes the connection or says nothing for some time.
fn answer(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    connection.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    // A node that refuses closes without reading to the end.
    let _ = connection.write_all(bytes);
    let _ = connection.shutdown(std::net::Shutdown::Write);
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(read @ 1..) = connection.read(&mut part) {
        answer.extend_from_slice(&part[..read]);
    }
    answer
}

/// Requests as they are, changed at random, over and over.
#[test]
fn requests_that_are_no_http_or_almost_are_refused_and_break_no_node() {
    let cluster = Cluster::without_key(1);
    let api = cluster.api();
    let request = |method: &str, path: &str, body: &str| {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {api}\r\nfluvial-client: 1\r\nContent-Type: application/json\r\n"
        );
        format!(
            "{head}Cookie: a=b; __Host-fluvial=fluvial_{}\r\nContent-Length: {}\r\n\r\n{body}",
            "0".repeat(64),
            body.len()
        )
    };
    let binary = "0".repeat(64);
    let job =
        format!(r#"{{"name":"a","binary":"{binary}","arguments":["--x"],"workers":1,"limits":{{"millicpus":100}}}}"#);
    let chunked = request("POST", "/v1/session", "").replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let valid = [
        request("GET", "/v1/jobs?limit=2", ""),
        request("GET", "/v1/jobs/a/logs?tail=5&after=3.0.7", ""),
        request("POST", "/v1/jobs", &job),
        request("PATCH", "/v1/jobs/a", r#"{"workers":2,"from":"s","correct_outputs":true}"#),
        request("POST", "/v1/jobs/a/savepoints", r#"{"name":"s"}"#),
        request("POST", "/v1/tokens", r#"{"name":"a","role":"viewer","expires_s":5}"#),
        request("PUT", &format!("/v1/binaries/{binary}"), "\x7fELF\x02"),
        chunked + "a\r\n{\"token\":\"\r\n3\r\nx\"}\r\n0\r\n\r\n",
    ];
    let tokens = [
        "\r\n",
        "\n",
        "\0",
        ":",
        " ",
        "%2e%2e",
        "..",
        "{",
        "\"",
        "99999999999999999999",
        "-1",
        "\u{e9}",
        "chunked",
        "HTTP/1.1",
    ];
    let mut random = ChaCha8Rng::seed_from_u64(14);
    for _ in 0..600 {
        let mut bytes = valid.choose(&mut random).unwrap().clone().into_bytes();
        for _ in 0..random.random_range(1..5) {
            let at = random.random_range(0..bytes.len());
            match random.random_range(0..5) {
                0 => bytes[at] = random.random(),
                1 => drop(bytes.splice(at..at, tokens.choose(&mut random).unwrap().bytes())),
                2 => drop(bytes.splice(at..bytes.len().min(at + 9), tokens.choose(&mut random).unwrap().bytes())),
                3 => bytes.truncate(at.max(1)),
                _ => bytes.extend_from_slice(valid.choose(&mut random).unwrap().as_bytes()),
            }
        }
        let answer = answer(&api, &bytes);
        let (sent, said) = (String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&answer));
        assert!(answer.is_empty() || said.starts_with("HTTP/1."), "{sent}\n\n{said}");
        assert!(!said.contains("HTTP/1.1 5") && !said.contains("HTTP/1.0 5"), "{sent}\n\n{said}");
    }
    assert_eq!(cluster.tell("jobs --json").trim(), "[]");
    assert!(!cluster.logs().contains("panicked"), "{}", cluster.logs());
}
