//! The nodes of a cluster, and the command by which users speak with them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fluvial_tests::child::{Folder, Process, Spec};
use fluvial_tests::job::binary;
use fluvial_tests::stage::{MOST, Stage};
use rustix::process::Signal;
use serde_json::Value;

/// A variable of each node, and the secret that it holds.
pub(crate) const SECRET_VARIABLE: [&str; 2] = ["FLUVIAL_SECRET_OF_TESTS", "never-shown-variable"];

/// The nodes of a cluster, on the loopback interface.
pub(crate) struct Cluster {
    folder: Folder,
    /// Whether the nodes have a cluster key, so that their API uses TLS and tokens.
    key: bool,
    pub(crate) nodes: RefCell<BTreeMap<usize, Process>>,
    /// By node: the address by which the others reach it, and that of its API.
    pub(crate) addresses: RefCell<BTreeMap<usize, (String, String)>>,
}

impl Cluster {
    /// A cluster of nodes with two slots each.
    pub(crate) fn start(nodes: usize) -> Self {
        Self::with(nodes, true)
    }

    /// A cluster without a cluster key, whose API is open to this host.
    pub(crate) fn without_key(nodes: usize) -> Self {
        Self::with(nodes, false)
    }

    fn with(nodes: usize, key: bool) -> Self {
        let cluster = Self {
            folder: Folder::new("fluvial-cluster-").unwrap(),
            key,
            nodes: RefCell::default(),
            addresses: RefCell::default(),
        };
        // The user of the jobs has to pass, if the nodes run as root.
        let passable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(cluster.folder.path(), passable).unwrap();
        cluster.make_key("key");
        (0..nodes).for_each(|node| cluster.start_node(node));
        // Else what is submitted first could be placed on the first node alone.
        cluster.wait_until("all nodes are known", || {
            let known: Value = serde_json::from_str(&cluster.tell("nodes --json")).unwrap();
            known.as_array().unwrap().iter().filter(|node| node["state"] == "ready").count() == nodes
        });
        cluster
    }

    /// Makes a file with a new cluster key.
    pub(crate) fn make_key(&self, name: &str) {
        let key = Command::new(fluvial()).args(["cluster-key", "new"]).output().unwrap().stdout;
        std::fs::write(self.path(name), key).unwrap();
        std::fs::set_permissions(self.path(name), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn start_node(&self, node: usize) {
        self.start_node_with(node, &[]);
    }

    /// The same with more options.
    pub(crate) fn start_node_with(&self, node: usize, options: &[&str]) {
        let mut args: Vec<OsString> = ["node", "--slots", "2", "--store"].map(Into::into).into();
        args.push(self.path("store").into());
        if self.key {
            // A node can have a file of its own.
            let own = self.path(&format!("key-{node}"));
            let key = if own.exists() { own } else { self.path("key") };
            args.extend(["--cluster-key-file".into(), key.into()]);
        }
        args.extend(["--cache".into(), self.path(&format!("cache-{node}")).into()]);
        args.extend(["--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"].map(OsString::from));
        args.extend(options.iter().map(OsString::from));
        args.extend(["--store-logs-every", "100ms"].map(OsString::from));
        args.extend(["--secrets".into(), self.path("secrets").into()]);
        let log = self.path(&format!("log-{node}"));
        // What it said when it was started before must not be taken for what it says now.
        std::fs::write(&log, "").unwrap();
        let spec = Spec {
            name: format!("node {node}"),
            program: fluvial(),
            args,
            env: vec![SECRET_VARIABLE.map(str::to_owned).into()],
            log,
        };
        let process = Process::start(spec).unwrap();
        process.wait_for_line("the node starts", MOST).unwrap();
        let said = std::fs::read_to_string(process.log()).unwrap();
        let after = |name: &str| {
            let (_, rest) = said.split_once(name).unwrap();
            rest.split([' ', '\n']).next().unwrap().trim_matches('"').to_owned()
        };
        self.addresses.borrow_mut().insert(node, (after(" node="), after(" api=")));
        self.nodes.borrow_mut().insert(node, process);
    }

    /// Ends a node at once, and with it all of its processes.
    pub(crate) fn kill(&self, node: usize) {
        self.nodes.borrow_mut().remove(&node).unwrap().kill().unwrap();
    }

    /// Has a node leave.
    pub(crate) fn terminate(&self, node: usize) -> Option<i32> {
        let process = self.nodes.borrow_mut().remove(&node).unwrap();
        process.signal(Signal::TERM).unwrap();
        process.wait(MOST).unwrap().code()
    }

    /// Runs a command against a node that lives. Returns whether it succeeded, and what it printed.
    pub(crate) fn ask<I: Into<OsString>>(&self, args: impl IntoIterator<Item = I>) -> (bool, String) {
        let mut all = vec!["--addr".into(), self.api().into()];
        if self.key {
            all.extend(["--cluster-key-file".into(), OsString::from(self.path("key"))]);
        }
        all.extend(args.into_iter().map(Into::into));
        self.run(all, None)
    }

    /// The address of the API of a node that lives.
    pub(crate) fn api(&self) -> String {
        let node = *self.nodes.borrow().keys().next_back().unwrap();
        self.addresses.borrow()[&node].1.clone()
    }

    /// Runs the command as a user who has logged in nowhere but by this, and has perhaps a token in the environment.
    pub(crate) fn run<I: Into<OsString>>(
        &self,
        args: impl IntoIterator<Item = I>,
        token: Option<&str>,
    ) -> (bool, String) {
        let mut command = Command::new(fluvial());
        command.env("XDG_CONFIG_HOME", self.path("config")).env_remove("FLUVIAL_ADDR").env_remove("FLUVIAL_TOKEN");
        command.envs(token.map(|token| ("FLUVIAL_TOKEN", token))).stdin(std::process::Stdio::null());
        let output = command.args(args.into_iter().map(Into::into)).output().unwrap();
        let printed = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(printed).unwrap())
    }

    /// The same for a command of words that must succeed. A change that meets the end of a coordinator is asked for again, as
    /// its refusal says.
    #[track_caller]
    pub(crate) fn tell(&self, words: &str) -> String {
        let begun = Instant::now();
        loop {
            let (succeeded, printed) = self.ask(words.split(' '));
            if succeeded {
                return printed;
            }
            let again = printed.contains("ask again") || printed.contains("no node answers");
            assert!(again && begun.elapsed() < MOST, "{words}: {printed}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Submits the job of a stage.
    pub(crate) fn submit(&self, stage: &Stage, workers: u32, program: &Path) -> (bool, String) {
        let mut args: Vec<OsString> = vec!["submit".into(), program.into(), "--name".into(), stage.name().into()];
        args.extend(["--workers".into(), workers.to_string().into(), "--".into()]);
        args.extend(own_args(stage));
        self.ask(args)
    }

    pub(crate) fn status(&self, job: &str) -> Value {
        serde_json::from_str(&self.tell(&format!("status {job} --json"))).unwrap()
    }

    /// The nodes that run processes of a job.
    pub(crate) fn nodes_of(&self, job: &str) -> Vec<usize> {
        let status = self.status(job);
        let processes = status["attempt"]["processes"].as_array().cloned().unwrap_or_default();
        let node = |process: &Value| {
            let addresses = self.addresses.borrow();
            let of_process = process["node"].as_str().unwrap();
            *addresses.iter().find(|(_, (listens, _))| listens == of_process).unwrap().0
        };
        processes.iter().map(node).collect()
    }

    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < MOST, "{what}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the output is what the input says.
    #[track_caller]
    pub(crate) fn wait_until_right(&self, stage: &Stage) {
        let expected = stage.table_of_input().unwrap();
        self.wait_until(&format!("the output of {}", stage.name()), || stage.table().unwrap() == expected);
    }

    pub(crate) fn logs(&self) -> String {
        let log = |node: usize| std::fs::read_to_string(self.path(&format!("log-{node}"))).unwrap_or_default();
        self.addresses.borrow().keys().map(|node| format!("--- node {node}\n{}", log(*node))).collect()
    }
}

pub(crate) fn fluvial() -> PathBuf {
    binary("fluvial").unwrap()
}

/// The options of a stage's job that a user gives: the cluster says where the store is and how the job is named.
pub(crate) fn own_args(stage: &Stage) -> Vec<OsString> {
    let mut args = stage.common_args();
    for option in ["--store", "--name"] {
        let at = args.iter().position(|arg| arg == option).unwrap();
        args.drain(at..at + 2);
    }
    args.extend(["--checkpoint-every", "1s"].map(OsString::from));
    args
}
