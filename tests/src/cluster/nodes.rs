//! The nodes, and the command by which users speak with them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fluvial_kafka_embedded::{Broker, Config};
use rustix::process::Signal;
use serde_json::Value;

use crate::apache::{ApacheKafka, Options, SURVIVES_A_KILL};
use crate::child::{Process, Spec};
use crate::client::Endpoint;
use crate::group::{Kafka, Store};
use crate::hosts::{Network, Place};
use crate::job::binary;
use crate::stage::{OUTPUT_PARTITIONS, Stage};
use crate::subject::Subject;

/// Where a node listens for the others.
const PORT: u16 = 7401;
/// Where it serves metrics.
const HTTP_PORT: u16 = 7402;
/// Where it serves its API.
const API_PORT: u16 = 7403;
/// How many partitions the input of a small job has.
pub const SMALL_PARTITIONS: i32 = 2;
/// How long a cluster may take to run all jobs again, whatever has happened, and however busy the machine is.
pub const WITHIN: Duration = Duration::from_secs(240);
/// How long one call of the command may take.
const ANSWERED_WITHIN: &str = "150";

/// What a cluster is like.
pub struct ClusterOptions {
    /// How many hosts there are.
    pub hosts: u8,
    /// The slots of each node.
    pub slots: u32,
    /// The broker.
    pub kafka: Kafka,
    /// The store.
    pub store: Store,
    /// Whether nodes know each other by a cluster key, and the API asks for tokens. Without, messages travel in clear, and the API
    /// is reached on its own host only.
    pub key: bool,
}

/// Nodes on hosts, and all that they need.
pub struct Cluster {
    nodes: Mutex<BTreeMap<u8, Arc<Process>>>,
    /// The options that each node gets besides, which a test may change.
    besides: Mutex<BTreeMap<u8, Vec<OsString>>>,
    /// The program of each node, where that is not the one of this build.
    programs: Mutex<BTreeMap<u8, PathBuf>>,
    /// The hosts that do not answer, because of what a test does to them.
    struck: Mutex<BTreeSet<u8>>,
    endpoint: Endpoint,
    /// Holds the bucket of the cluster.
    base: Stage,
    options: ClusterOptions,
    kafka: Mutex<Option<ApacheKafka>>,
    _broker: Option<Broker>,
    network: Network,
}

/// What came of a call of the command.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Whether it succeeded.
    pub succeeded: bool,
    /// What it printed.
    pub printed: String,
}

impl Cluster {
    /// Hosts on which nodes run.
    ///
    /// # Errors
    /// As [`Network::new`], and if a node does not start.
    pub fn start(options: ClusterOptions) -> Result<Self> {
        let cluster = Self::prepare(options)?;
        cluster.hosts().try_for_each(|host| cluster.start_node(host))?;
        cluster.wait_for_nodes()?;
        Ok(cluster)
    }

    /// Hosts on which nothing runs yet.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn prepare(options: ClusterOptions) -> Result<Self> {
        let network = Network::new(options.hosts)?;
        // The user of the jobs has to pass.
        let passable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(network.folder(), passable)?;
        let host = network.address(Place::Broker);
        let (mut kafka, mut broker) = (None, None);
        let bootstrap = match options.kafka {
            Kafka::Apache => {
                let launcher = network.launcher(Place::Broker)?;
                // A later one may forget an open transaction when it is restarted (KAFKA-20734).
                let version = SURVIVES_A_KILL.to_owned();
                let options = Options { host, launcher, heap_mib: 512, version, ..Options::default() };
                kafka.insert(ApacheKafka::start(&options)?).bootstrap().to_owned()
            }
            Kafka::Embedded => {
                let config = Config { listen: SocketAddr::from((host, 0)), ..Config::default() };
                let started = network.within(Place::Broker, || Broker::start(config))??;
                broker.insert(started).bootstrap()
            }
        };
        let endpoint = Endpoint::new(&bootstrap);
        let mut base = Stage::without_input(&endpoint, &bootstrap, Subject::Orders)?;
        if options.store == Store::Bucket {
            let at = SocketAddr::from((network.address(Place::Store), 0));
            base = base.with_bucket_at(network.within(Place::Store, || TcpListener::bind(at))??)?;
        } else {
            base = base.with_folder(&network.folder().join("store"));
        }
        let cluster = Self {
            nodes: Mutex::default(),
            besides: Mutex::default(),
            programs: Mutex::default(),
            struck: Mutex::default(),
            endpoint,
            base,
            options,
            kafka: Mutex::new(kafka),
            _broker: broker,
            network,
        };
        let key = Command::new(binary("fluvial")?).args(["cluster-key", "new"]).output()?.stdout;
        std::fs::write(cluster.key(), key)?;
        std::fs::set_permissions(cluster.key(), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        std::fs::create_dir_all(cluster.fail_points())?;
        Ok(cluster)
    }

    /// A job's topics on the cluster's broker, with the cluster's store.
    ///
    /// # Errors
    /// The topics cannot be created.
    pub fn stage(&self, subject: Subject, input_partitions: i32) -> Result<Stage> {
        let stage = Stage::on(&self.endpoint, self.endpoint.bootstrap(), subject, input_partitions)?;
        for output in stage.outputs() {
            self.endpoint.create_topic(&output, OUTPUT_PARTITIONS, &[("cleanup.policy", "compact")])?;
        }
        Ok(match self.options.store {
            Store::Bucket => stage.with_bucket_of(&self.base),
            Store::Folder => stage.with_folder(&self.base.store()),
        })
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What stands in front of the store.
    ///
    /// # Panics
    /// When the store is a folder.
    #[must_use]
    pub fn front(&self) -> &crate::s3::Front {
        self.base.front()
    }

    /// Restarts Apache Kafka, which keeps ports and data.
    ///
    /// # Errors
    /// It does not end or start, or the cluster has another broker.
    pub fn restart_kafka(&self) -> Result<()> {
        let mut kafka = lock(&self.kafka);
        let kafka = kafka.as_mut().context("the broker is Apache Kafka")?;
        kafka.stop()?;
        kafka.start_again()
    }

    /// The numbers of its hosts.
    #[must_use]
    pub fn hosts(&self) -> std::ops::Range<u8> {
        0..self.options.hosts
    }

    fn at(&self, host: u8, port: u16) -> SocketAddr {
        SocketAddr::from((self.network.address(Place::Host(host)), port))
    }

    /// Where the node on a host listens for the others, which is its name.
    #[must_use]
    pub fn address(&self, host: u8) -> String {
        self.at(host, PORT).to_string()
    }

    /// Where the node on a host serves its API.
    #[must_use]
    pub fn api(&self, host: u8) -> SocketAddr {
        if self.options.key { self.at(host, API_PORT) } else { SocketAddr::from(([127, 0, 0, 1], API_PORT)) }
    }

    /// Where the node on a host serves its metrics.
    #[must_use]
    pub fn metrics(&self, host: u8) -> SocketAddr {
        self.at(host, HTTP_PORT)
    }

    fn key(&self) -> PathBuf {
        self.network.folder().join("cluster-key")
    }

    /// The folder of binaries of the node on a host.
    #[must_use]
    pub fn cache(&self, host: u8) -> PathBuf {
        self.network.folder().join(format!("cache-{host}"))
    }

    /// The folder in which a test names a place at which one node, the first that gets there, is to be killed.
    #[must_use]
    pub fn fail_points(&self) -> PathBuf {
        self.network.folder().join("fail-points")
    }

    /// From the next start on, the node on a host gets these options besides.
    pub fn set_options(&self, host: u8, options: &[&str]) {
        lock(&self.besides).insert(host, options.iter().map(OsString::from).collect());
    }

    /// From the next start on, the node on a host is this program.
    pub fn set_program(&self, host: u8, program: &Path) {
        lock(&self.programs).insert(host, program.to_owned());
    }

    /// Starts the node on a host.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_node(&self, host: u8) -> Result<()> {
        self.start_node_by(host, &[])
    }

    /// As [`Cluster::start_node`], by a program that starts the node; the node and its arguments follow.
    ///
    /// # Errors
    /// As [`Cluster::start_node`].
    pub fn start_node_by(&self, host: u8, launcher: &[OsString]) -> Result<()> {
        let mut args = self.network.launcher(Place::Host(host))?;
        args.extend_from_slice(launcher);
        let program = lock(&self.programs).get(&host).cloned().map_or_else(|| binary("fluvial"), Ok)?;
        args.push(program.into_os_string());
        args.extend(["node", "--store"].map(OsString::from));
        args.push(self.base.store_url());
        if self.options.key {
            args.extend(["--cluster-key-file".into(), self.key().into()]);
        } else {
            args.push("--insecure".into());
        }
        args.extend(["--cache".into(), self.cache(host).into(), "--fail-points".into(), self.fail_points().into()]);
        let (listen, api, http) = (self.address(host), self.api(host).to_string(), self.metrics(host).to_string());
        let slots = self.options.slots.to_string();
        args.extend(["--listen", &listen, "--api", &api, "--http", &http, "--slots", &slots].map(OsString::from));
        args.extend(lock(&self.besides).get(&host).cloned().unwrap_or_default());
        let log = self.network.folder().join(format!("node-{host}.log"));
        let program = PathBuf::from(args.remove(0));
        let name = format!("the node on host {host}");
        // The lines of the node that ran here before stay, for the logs of a failed test.
        let said = std::fs::read_to_string(&log).unwrap_or_default().matches("the node starts").count();
        let process = Arc::new(Process::start(Spec { name, program, args, env: self.base.environment(), log })?);
        self.wait_until("a node that starts", || {
            let now = std::fs::read_to_string(process.log())?;
            let status = process.status();
            ensure!(status.is_none(), "the node on host {host} ended: {status:?}\n{}", process.log_end());
            Ok(now.matches("the node starts").count() > said)
        })?;
        lock(&self.nodes).insert(host, process);
        lock(&self.struck).remove(&host);
        Ok(())
    }

    /// The node on a host, which was started.
    ///
    /// # Errors
    /// None was.
    pub fn node(&self, host: u8) -> Result<Arc<Process>> {
        lock(&self.nodes).get(&host).cloned().with_context(|| format!("no node was started on host {host}"))
    }

    /// Whether the node on a host lives.
    #[must_use]
    pub fn lives(&self, host: u8) -> bool {
        self.node(host).is_ok_and(|node| node.status().is_none())
    }

    /// `kill -9` of the node on a host. Its processes end with it.
    ///
    /// # Errors
    /// It does not end.
    pub fn kill_node(&self, host: u8) -> Result<()> {
        self.node(host)?.kill()?;
        self.wait_until("the end of its processes", || Ok(self.network.pids(Place::Host(host))?.is_empty()))
    }

    /// SIGTERM to the node on a host, which must leave with exit code 0.
    ///
    /// # Errors
    /// It does not.
    pub fn stop_node(&self, host: u8) -> Result<()> {
        let node = self.node(host)?;
        node.signal(Signal::TERM)?;
        let status = node.wait(WITHIN)?;
        ensure!(status.success(), "the node on host {host} left with {status}\n{}", self.logs());
        Ok(())
    }

    /// Users ask this host no more until its node is started again, or [`Cluster::answers_again`].
    pub fn does_not_answer(&self, host: u8) {
        lock(&self.struck).insert(host);
    }

    /// All hosts answer again.
    pub fn answers_again(&self) {
        lock(&self.struck).clear();
    }

    /// Whether the node on a host lives, and nothing is done to its host.
    #[must_use]
    pub fn answers(&self, host: u8) -> bool {
        self.lives(host) && !lock(&self.struck).contains(&host)
    }

    /// The hosts whose nodes can be asked.
    fn answering(&self) -> Vec<u8> {
        self.hosts().filter(|host| self.answers(*host)).collect()
    }

    /// Runs the command against the node on a host.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn ask_at<I: Into<OsString>>(&self, host: u8, args: impl IntoIterator<Item = I>) -> Result<Asked> {
        // On a host without a key only its own users reach the API.
        let mut words = if self.options.key { Vec::new() } else { self.network.launcher(Place::Host(host))? };
        words.extend(["timeout".into(), ANSWERED_WITHIN.into(), binary("fluvial")?.into_os_string()]);
        words.extend(["--addr".into(), self.api(host).to_string().into()]);
        if self.options.key {
            words.extend(["--cluster-key-file".into(), self.key().into()]);
        }
        words.extend(args.into_iter().map(Into::into));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("XDG_CONFIG_HOME", self.network.folder()).stdin(Stdio::null());
        let output = command.env_remove("FLUVIAL_ADDR").env_remove("FLUVIAL_TOKEN").output()?;
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Ok(Asked { succeeded: output.status.success(), printed })
    }

    /// Runs the command against a node that answers.
    ///
    /// # Errors
    /// There is none.
    pub fn ask<I: Into<OsString>>(&self, args: impl IntoIterator<Item = I>) -> Result<Asked> {
        let host = self.answering().pop().context("no node answers")?;
        self.ask_at(host, args)
    }

    /// Runs the command again and again, at one node after the other, until it succeeds or `done` says of what it printed that there
    /// is nothing left to do.
    ///
    /// # Errors
    /// It does not in time.
    pub fn tell_until(&self, args: &[OsString], done: impl Fn(&str) -> bool) -> Result<String> {
        let start = Instant::now();
        let mut newest = String::new();
        for turn in 0.. {
            let answering = self.answering();
            if let Some(host) = answering.get(turn % answering.len().max(1)) {
                let Asked { succeeded, printed } = self.ask_at(*host, args)?;
                if succeeded || done(&printed) {
                    return Ok(printed);
                }
                newest = printed;
            }
            if start.elapsed() > WITHIN {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(200));
        }
        bail!("{args:?}: {newest}\n{}", self.logs())
    }

    /// As [`Cluster::tell_until`], with words that are separated by blanks and must succeed.
    ///
    /// # Errors
    /// As [`Cluster::tell_until`].
    pub fn tell(&self, words: &str) -> Result<String> {
        let args: Vec<_> = words.split(' ').map(OsString::from).collect();
        self.tell_until(&args, |_| false)
    }

    /// What a command prints with `--json`.
    ///
    /// # Errors
    /// As [`Cluster::tell`].
    pub fn json(&self, words: &str) -> Result<Value> {
        let said = self.tell(&format!("{words} --json"))?;
        serde_json::from_str(&said).with_context(|| format!("{words} says {said}"))
    }

    /// The jobs, by name.
    ///
    /// # Errors
    /// As [`Cluster::tell`].
    pub fn jobs(&self) -> Result<BTreeMap<String, Value>> {
        let jobs = self.json("jobs")?;
        let named = |job: &Value| Some((job["job"].as_str()?.to_owned(), job.clone()));
        Ok(jobs.as_array().into_iter().flatten().filter_map(named).collect())
    }

    /// The host whose node coordinates.
    ///
    /// # Errors
    /// As [`Cluster::tell`].
    pub fn coordinator(&self) -> Result<u8> {
        let mut found = None;
        self.wait_until("a coordinator", || {
            let nodes = self.json("nodes")?;
            let coordinates = nodes.as_array().into_iter().flatten().find(|node| node["coordinates"] == true);
            found = coordinates.and_then(|node| self.host_of(node["node"].as_str()?));
            Ok(found.is_some())
        })?;
        found.context("a coordinator was found")
    }

    /// The host of an address.
    #[must_use]
    pub fn host_of(&self, address: &str) -> Option<u8> {
        self.hosts().find(|host| self.address(*host) == address)
    }

    /// Waits until all nodes are members that can run jobs.
    ///
    /// # Errors
    /// They are not in time.
    pub fn wait_for_nodes(&self) -> Result<()> {
        self.wait_until("all nodes", || {
            let nodes = self.json("nodes")?;
            let ready = nodes.as_array().into_iter().flatten().filter(|node| node["state"] == "ready");
            Ok(ready.count() == usize::from(self.options.hosts))
        })
    }

    /// Waits for a condition.
    ///
    /// # Errors
    /// It fails, or does not hold in time; the error holds the ends of all logs.
    pub fn wait_until(&self, what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !condition()? {
            if start.elapsed() > WITHIN {
                let jobs = self.ask(["jobs"]).map(|asked| asked.printed).unwrap_or_default();
                bail!("not within {WITHIN:?}: {what}\n{jobs}\n{}", self.logs());
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The ends of the logs of all nodes.
    #[must_use]
    pub fn logs(&self) -> String {
        let nodes = lock(&self.nodes).clone();
        let log =
            |(host, node): (u8, Arc<Process>)| format!("--- host {host} ({:?}):\n{}\n", node.status(), node.log_end());
        nodes.into_iter().map(log).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
