//! Who may use a cluster: tokens, roles, logins, and the record of what was done.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use fluvial_tests::child::{Process, Spec};
use fluvial_tests::stage::MOST;
use serde_json::Value;

use crate::nodes::{Cluster, fluvial};

impl Cluster {
    /// Runs a command of words as somebody who trusts the cluster's authority and has this token.
    fn as_holder(&self, token: &str, words: &str) -> (bool, String) {
        let (ca, api) = (self.path("ca.pem"), self.api());
        assert!(ca.exists(), "`log_in` writes it");
        let options = ["--addr".to_owned(), api, "--ca".to_owned(), ca.to_str().unwrap().to_owned()];
        self.run(options.into_iter().chain(words.split(' ').map(str::to_owned)), Some(token))
    }

    pub(crate) fn create_token(&self, words: &str) -> String {
        let printed = self.tell(&format!("tokens create {words}"));
        printed.lines().find(|line| line.starts_with("fluvial_")).unwrap().to_owned()
    }

    /// Logs in with the fingerprint of the cluster key, and keeps the authority for [`Cluster::as_holder`].
    fn log_in(&self, token: &str) {
        let key = self.path("key").to_str().unwrap().to_owned();
        let (succeeded, fingerprint) = self.run(["cluster-key", "fingerprint", "--cluster-key-file", &key], None);
        assert!(succeeded, "{fingerprint}");
        let api = self.api();
        let (succeeded, said) = self.run(["login", &api, "--fingerprint", fingerprint.trim()], Some(token));
        assert!(succeeded && said.contains(&format!("logged in to {api}")), "{said}");
        let contexts: Value = serde_json::from_slice(&std::fs::read(self.contexts()).unwrap()).unwrap();
        let authority = contexts["contexts"][&api]["authorities"].as_str().unwrap();
        std::fs::write(self.path("ca.pem"), authority).unwrap();
    }

    fn contexts(&self) -> std::path::PathBuf {
        self.path("config/fluvial/contexts.json")
    }
}

#[test]
fn a_token_gives_its_role_until_it_expires_or_is_revoked() {
    let cluster = Cluster::start(2);
    let viewer = cluster.create_token("eve --role viewer");
    let operator = cluster.create_token("anna --role operator --expires 30d");
    let short = cluster.create_token("short --role viewer --expires 1s");
    let created = Instant::now();
    cluster.log_in(&operator);
    let (succeeded, said) = cluster.as_holder(&viewer, "jobs --json");
    assert!(succeeded && said.trim() == "[]", "{said}");
    for words in ["stop orders", "tokens list", "audit", "tokens create x --role operator"] {
        let (succeeded, said) = cluster.as_holder(&viewer, words);
        assert!(!succeeded && said.contains("this needs an operator"), "{words}: {said}");
    }
    assert!(cluster.as_holder(&operator, "delete no-such-job").0);
    let unknown = format!("fluvial_{}", "0".repeat(64));
    let (succeeded, said) = cluster.as_holder(&unknown, "jobs");
    assert!(!succeeded && said.contains("unknown or was revoked") && said.contains("fluvial login"), "{said}");
    let (succeeded, said) = cluster.as_holder("secret", "jobs");
    assert!(!succeeded && said.contains("FLUVIAL_TOKEN holds no token"), "{said}");
    cluster.wait_until("the token that expires", || {
        let (succeeded, said) = cluster.as_holder(&short, "jobs");
        assert!(succeeded || said.contains("'short' has expired"), "{said}");
        !succeeded
    });
    assert!(created.elapsed() >= Duration::from_millis(900));
    // It is revoked at a node that is not the one which is asked with it afterwards.
    let other = cluster.addresses.borrow()[&0].1.clone();
    let key = cluster.path("key").to_str().unwrap().to_owned();
    assert!(cluster.as_holder(&viewer, "jobs").0);
    let revoke = ["--addr", &other, "--cluster-key-file", &key, "tokens", "revoke", "eve"];
    let (succeeded, said) = cluster.run(revoke, None);
    assert!(succeeded, "{said}");
    let revoked = Instant::now();
    cluster.wait_until("the token that was revoked", || !cluster.as_holder(&viewer, "jobs").0);
    assert!(revoked.elapsed() < Duration::from_secs(15), "{:?}", revoked.elapsed());
    let list: Value = serde_json::from_str(&cluster.tell("tokens list --json")).unwrap();
    let names: Vec<_> = list.as_array().unwrap().iter().map(|token| token["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["anna", "short"]);
    // All of it is on record, without a token.
    cluster.wait_until("the record", || {
        let audit = cluster.tell("audit --json");
        for token in [&viewer, &operator, &short] {
            assert!(!audit.contains(&token[8..24]), "{audit}");
        }
        let audit: Value = serde_json::from_str(&audit).unwrap();
        let has = |by: &str, method: &str, path: &str, status: u64| {
            audit.as_array().unwrap().iter().any(|entry| {
                let text = |name: &str, expected: &str| entry[name] == expected;
                text("by", by) && text("method", method) && text("path", path) && entry["status"] == status
            })
        };
        has("the cluster key", "POST", "/v1/tokens", 201)
            && has("anna", "DELETE", "/v1/jobs/no-such-job", 200)
            && has("the cluster key", "DELETE", "/v1/tokens/eve", 200)
    });
    assert!(!cluster.logs().contains(&operator[8..24]), "a log holds a token");
}

#[test]
fn a_login_pins_the_cluster_and_is_used_by_the_commands_that_follow() {
    let cluster = Cluster::start(1);
    let (api, token) = (cluster.api(), cluster.create_token("anna --role operator"));
    let (succeeded, said) = cluster.run(["login", &api], Some(&token));
    assert!(!succeeded && said.contains("--fingerprint") && said.contains("Nothing was sent"), "{said}");
    let (succeeded, said) = cluster.run(["login", &api, "--fingerprint", &"0".repeat(64)], Some(&token));
    assert!(!succeeded && said.contains("another cluster"), "{said}");
    let (succeeded, said) = cluster.run(["--addr", &api, "jobs"], Some(&token));
    assert!(!succeeded && said.contains("uses TLS") && said.contains("fluvial login"), "{said}");
    assert!(!cluster.contexts().exists());
    cluster.log_in(&token);
    assert_eq!(std::fs::metadata(cluster.contexts()).unwrap().mode() & 0o777, 0o600);
    let (succeeded, said) = cluster.run(["jobs", "--json"], None);
    assert!(succeeded && said.trim() == "[]", "{said}");
    let (succeeded, said) = cluster.run(["tokens", "list"], None);
    assert!(succeeded && said.contains("anna"), "{said}");
    // Somebody else answers at the address: it gets no token, and the command says why.
    let other = Cluster::start(1);
    let contexts = std::fs::read_to_string(cluster.contexts()).unwrap().replace(&api, &other.api());
    std::fs::write(cluster.contexts(), contexts).unwrap();
    let (succeeded, said) = cluster.run(["jobs"], None);
    assert!(!succeeded && said.contains("is no node of the cluster"), "{said}");
    let key = other.path("key").to_str().unwrap().to_owned();
    let (succeeded, said) = cluster.run(["--addr", &api, "--cluster-key-file", &key, "jobs"], None);
    assert!(!succeeded && said.contains("is no node of the cluster"), "{said}");
    let (succeeded, said) = cluster.run(["logout"], None);
    assert!(succeeded, "{said}");
    assert!(!cluster.run(["logout"], None).0);
    std::fs::set_permissions(cluster.contexts(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let (succeeded, said) = cluster.run(["jobs"], None);
    assert!(!succeeded && said.contains("chmod 600"), "{said}");
}

#[test]
fn plain_http_and_a_node_with_another_key_get_nothing_of_a_cluster() {
    let cluster = Cluster::start(1);
    let mut connection = std::net::TcpStream::connect(cluster.api()).unwrap();
    write!(connection, "GET /v1/jobs HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("uses TLS"), "{answer}");
    cluster.make_key("other-key");
    let path = |name: &str| cluster.path(name).to_str().unwrap().to_owned();
    let (store, key, cache) = (path("store"), path("other-key"), path("cache-other"));
    let words = ["node", "--store", &store, "--cluster-key-file", &key, "--cache", &cache];
    let words = words.into_iter().chain(["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]);
    let args = words.map(Into::into).collect();
    let log = cluster.path("log-other");
    let stranger =
        Process::start(Spec { name: "stranger".into(), program: fluvial(), args, env: Vec::new(), log }).unwrap();
    let code = stranger.wait(MOST).unwrap().code();
    let said = std::fs::read_to_string(cluster.path("log-other")).unwrap();
    assert!(code == Some(2) && said.contains("a cluster key with the fingerprint"), "{code:?} {said}");
    assert_eq!(cluster.tell("jobs --json").trim(), "[]");
}
