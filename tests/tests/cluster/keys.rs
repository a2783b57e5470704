//! The cluster key is replaced while the cluster works.

use std::ffi::OsString;
use std::path::PathBuf;

use fluvial_tests::child::{Process, Spec};
use fluvial_tests::job::binary;
use fluvial_tests::stage::{MOST, Stage};
use fluvial_tests::subject::Subject;
use serde_json::Value;

use crate::nodes::{Cluster, fluvial};

/// The files of the keys of three nodes. That of the first one is also the user's.
const FILES: [&str; 3] = ["key", "key-1", "key-2"];

impl Cluster {
    /// Does a step of replacing the key in the file of each node, one after the other.
    fn step(&self, words: &[&str], mut each: impl FnMut(usize)) {
        for (node, file) in FILES.iter().enumerate() {
            let file = self.path(file).to_str().unwrap().to_owned();
            let words = ["--cluster-key-file", &file, "cluster-key"].into_iter().chain(words.iter().copied());
            let (succeeded, said) = self.run(words, None);
            assert!(succeeded, "{said}");
            each(node);
        }
    }

    /// What the nodes say of their keys: which they use, and how many they accept besides.
    fn keys(&self) -> Vec<(String, usize)> {
        let report: Value = serde_json::from_str(&self.tell("cluster-key status --json")).unwrap();
        let of = |node: &Value| {
            (node["uses"].as_str().unwrap_or_default().to_owned(), node["accepts"].as_array().unwrap().len())
        };
        report["nodes"].as_array().unwrap().iter().map(of).collect()
    }

    fn all_nodes(&self, what: &str, holds: impl Fn(&(String, usize)) -> bool) {
        self.wait_until(what, || {
            let keys = self.keys();
            keys.len() == 3 && keys.iter().all(&holds)
        });
    }

    fn contexts_of_logins(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.path("config/fluvial/contexts.json")).unwrap()).unwrap()
    }

    /// How many authorities a login trusts.
    fn pinned(&self, api: &str) -> usize {
        let contexts = self.contexts_of_logins();
        contexts["contexts"][api]["authorities"].as_str().unwrap().matches("BEGIN CERTIFICATE").count()
    }
}

#[test]
fn the_cluster_key_is_replaced_while_a_job_runs_and_afterwards_the_old_one_gets_nothing() {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    let copy = |from: &str, to: &str| std::fs::copy(cluster.path(from), cluster.path(to)).unwrap();
    for (node, file) in FILES.iter().enumerate().skip(1) {
        copy("key", file);
        cluster.start_node(node);
    }
    copy("key", "old-key");
    cluster.make_key("new-key");
    stage.feed(0..200).unwrap();
    let (succeeded, said) = cluster.submit(&stage, 6, &binary("orders").unwrap());
    assert!(succeeded, "{said}\n{}", cluster.logs());
    cluster.wait_until_right(&stage);
    let mut nodes = cluster.nodes_of(stage.name());
    nodes.sort_unstable();
    assert_eq!(nodes, [0, 1, 2], "the job does not run on all nodes");
    let attempt = || {
        let attempt = cluster.status(stage.name())["attempt"].clone();
        (attempt["number"].clone(), attempt["generation"].clone())
    };
    let (first, old) = (attempt(), cluster.keys()[0].0.clone());
    // Three logins: one is used in the first step, one in the second, and one never.
    let token = cluster.create_token("anna --role operator");
    let apis: Vec<String> = cluster.addresses.borrow().values().map(|(_, api)| api.clone()).collect();
    let key = cluster.path("key").to_str().unwrap().to_owned();
    let (_, fingerprint) = cluster.run(["cluster-key", "fingerprint", "--cluster-key-file", &key], None);
    for api in &apis {
        let (succeeded, said) = cluster.run(["login", api, "--fingerprint", fingerprint.trim()], Some(&token));
        assert!(succeeded, "{said}");
    }
    let uses = |api: &String| cluster.run(["--addr", api, "jobs", "--json"], None);
    let mut fed = 200;
    let mut feed = |_: usize| {
        stage.feed(fed..fed + 50).unwrap();
        fed += 50;
        cluster.wait_until_right(&stage);
        assert_eq!(attempt(), first, "{}", cluster.logs());
    };
    let new_key = cluster.path("new-key").to_str().unwrap().to_owned();
    cluster.step(&["add", &new_key], &mut feed);
    cluster.all_nodes("all accept the new key", |(uses, besides)| *uses == old && *besides == 1);
    assert!(uses(&apis[0]).0);
    assert_eq!(apis.iter().map(|api| cluster.pinned(api)).collect::<Vec<_>>(), [2, 1, 1]);
    cluster.step(&["rotate"], &mut feed);
    cluster.all_nodes("all use the new key", |(uses, besides)| *uses != old && *besides == 1);
    assert!(uses(&apis[0]).0 && uses(&apis[1]).0);
    assert_eq!(apis.iter().map(|api| cluster.pinned(api)).collect::<Vec<_>>(), [2, 2, 1]);
    cluster.step(&["retire"], &mut feed);
    cluster.all_nodes("all have the new key alone", |(uses, besides)| *uses != old && *besides == 0);
    for api in &apis[..2] {
        let (succeeded, said) = uses(api);
        assert!(succeeded, "{said}");
        assert_eq!(cluster.pinned(api), 1);
    }
    let (succeeded, said) = uses(&apis[2]);
    assert!(!succeeded && said.contains("is no node of the cluster") && said.contains("again"), "{said}");
    // Who has the old key alone gets nothing, as a user and as a node.
    let old_key = cluster.path("old-key").to_str().unwrap().to_owned();
    let (succeeded, said) = cluster.run(["--addr", &apis[0], "--cluster-key-file", &old_key, "jobs"], None);
    assert!(!succeeded && said.contains("is no node of the cluster"), "{said}");
    assert_eq!(stranger(&cluster, cluster.path("old-key")), Some(2));
    assert_eq!(attempt(), first);
    feed(0);
    // A node that starts with the new key belongs to the cluster.
    copy("key", "key-3");
    cluster.start_node(3);
    cluster.wait_until("the fourth node", || {
        let keys = cluster.keys();
        keys.len() == 4 && keys.iter().all(|(uses, besides)| *uses != old && *besides == 0)
    });
}

/// How a node with another key ends.
fn stranger(cluster: &Cluster, key: PathBuf) -> Option<i32> {
    let mut args: Vec<OsString> = ["node", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"].map(Into::into).into();
    args.extend(["--store".into(), cluster.path("store").into(), "--cluster-key-file".into(), key.into()]);
    args.extend(["--cache".into(), cluster.path("cache-stranger").into()]);
    let log = cluster.path("log-stranger");
    let spec = Spec { name: "stranger".into(), program: fluvial(), args, env: Vec::new(), log };
    Process::start(spec).unwrap().wait(MOST).unwrap().code()
}

#[test]
fn a_node_reads_its_key_again_on_sighup_and_keeps_the_old_one_if_the_new_file_is_no_good() {
    let cluster = Cluster::start(1);
    // The coordinator does not know it before it has heard the node.
    cluster.wait_until("the node says which key it uses", || !cluster.tell("cluster-key status").contains("unknown"));
    let before = cluster.tell("cluster-key status");
    cluster.make_key("new-key");
    // In the place of the old key, which other nodes would still use.
    let (key, aside) = (cluster.path("key"), cluster.path("aside"));
    std::fs::rename(&key, &aside).unwrap();
    std::fs::copy(cluster.path("new-key"), &key).unwrap();
    cluster.nodes.borrow()[&0].signal(rustix::process::Signal::HUP).unwrap();
    cluster.wait_until("what the node says of the file", || {
        cluster.logs().contains("was not accepted by this node before")
    });
    std::fs::rename(&aside, &key).unwrap();
    assert_eq!(cluster.tell("cluster-key status"), before);
    let added = cluster.path("new-key").to_str().unwrap().to_owned();
    let (succeeded, said) = cluster.ask(["cluster-key", "add", &added]);
    assert!(succeeded && said.contains("in use") && said.contains("accepted"), "{said}");
    cluster.nodes.borrow()[&0].signal(rustix::process::Signal::HUP).unwrap();
    cluster.wait_until("the second key", || cluster.tell("cluster-key status") != before);
}
