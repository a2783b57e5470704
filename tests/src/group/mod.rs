//! A group: copies of one job on several hosts, with a broker and a store on hosts of their own.
//!
//! ```text
//!   feeder ──► broker ◄──► copies on hosts 0, 1, 2, … (run --join) ◄──► store
//!                │                  struck as a siege says
//!                └──► committed output ──► replay of the kept journal, model
//! ```

mod blow;
pub mod figures;
pub mod histories;
mod record;
mod siege;

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fluvial_kafka_embedded::{Broker, Config};

use crate::apache::{ApacheKafka, Options};
use crate::campaign::Gauge;
use crate::client::Endpoint;
use crate::hosts::{Network, Place};
use crate::http;
use crate::stage::{OUTPUT_PARTITIONS, Stage, Started};
use crate::subject::Subject;

pub use blow::{Blow, Role};
pub use record::Record;
use record::Records;
pub(crate) use siege::seed_after_seed;
pub use siege::{Report, Siege, campaign};

/// Where a copy listens.
const PORT: u16 = 7401;
/// Where it serves HTTP.
const HTTP_PORT: u16 = 7402;
/// How many partitions the input has: more than a group has workers, so that each process needs the broker.
pub const INPUT_PARTITIONS: i32 = 12;
/// How long a group may take to run the job again, whatever has happened, and however busy the machine is.
pub const GROUP_MOST: Duration = Duration::from_secs(240);

/// Which broker a group uses.
#[derive(Debug)]
pub enum Kafka {
    /// Apache Kafka.
    Apache,
    /// The embedded broker, where Kafka's own behaviour is not the point.
    Embedded,
}

/// Which store a group uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// A folder that all hosts share.
    Folder,
    /// A bucket, on a host of its own.
    Bucket,
}

/// The options by which the copy on a host and the others know each other.
type Trust = Box<dyn Fn(u8) -> String + Send + Sync>;

/// A job's copies and all that they need.
pub struct Group {
    copies: Mutex<BTreeMap<u8, Arc<Started>>>,
    records: Records,
    /// What consumers of committed records see.
    output: Gauge,
    stage: Stage,
    trust: Trust,
    _kafka: Option<ApacheKafka>,
    _broker: Option<Broker>,
    network: Network,
    hosts: u8,
}

impl Group {
    /// Hosts on which nothing runs yet. The copies know each other by a cluster key.
    ///
    /// # Errors
    /// As [`Network::new`] and [`Stage::on`].
    pub fn new(hosts: u8, subject: Subject, kafka: &Kafka, store: Store) -> Result<Self> {
        Self::with(hosts, subject, kafka, store, |stage| stage)
    }

    /// As [`Group::new`], with a stage that is changed before anything runs on it.
    ///
    /// # Errors
    /// As [`Group::new`].
    pub fn with(
        hosts: u8,
        subject: Subject,
        kafka: &Kafka,
        store: Store,
        change: impl FnOnce(Stage) -> Stage,
    ) -> Result<Self> {
        let network = Network::new(hosts)?;
        let host = network.address(Place::Broker);
        let (mut apache, mut embedded) = (None, None);
        let bootstrap = match kafka {
            Kafka::Apache => {
                let launcher = network.launcher(Place::Broker)?;
                let options = Options { host, launcher, heap_mib: 512, ..Options::default() };
                apache.insert(ApacheKafka::start(&options)?).bootstrap().to_owned()
            }
            Kafka::Embedded => {
                let config = Config { listen: SocketAddr::from((host, 0)), ..Config::default() };
                let broker = network.within(Place::Broker, || Broker::start(config))??;
                embedded.insert(broker).bootstrap()
            }
        };
        let endpoint = Endpoint::new(&bootstrap);
        let mut stage = Stage::on(&endpoint, &bootstrap, subject, INPUT_PARTITIONS)?;
        if store == Store::Bucket {
            let at = SocketAddr::from((network.address(Place::Store), 0));
            stage = stage.with_bucket_at(network.within(Place::Store, || TcpListener::bind(at))??)?;
        }
        let stage = change(stage);
        for output in stage.outputs() {
            endpoint.create_topic(&output, OUTPUT_PARTITIONS, &[("cleanup.policy", "compact")])?;
        }
        let output = Gauge::start(&endpoint, &stage.outputs())?;
        let key = network.folder().join("cluster-key");
        fs::write(&key, stage.ask_with("cluster-key", vec!["new".into()], "")?)?;
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(Self {
            copies: Mutex::default(),
            records: Records::default(),
            output,
            stage,
            trust: Box::new(move |_| format!("--cluster-key-file {}", key.display())),
            _kafka: apache,
            _broker: embedded,
            network,
            hosts,
        })
    }

    /// The same with copies that know each other by these options, which depend on the host.
    #[must_use]
    pub fn with_trust(self, options: impl Fn(u8) -> String + Send + Sync + 'static) -> Self {
        Self { trust: Box::new(options), ..self }
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The job's topics and store.
    #[must_use]
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// The numbers of its hosts.
    #[must_use]
    pub fn hosts(&self) -> std::ops::Range<u8> {
        0..self.hosts
    }

    /// Where the copy on a host listens for the others.
    #[must_use]
    pub fn port(&self, host: u8) -> SocketAddr {
        SocketAddr::from((self.network.address(Place::Host(host)), PORT))
    }

    /// Where the copy on a host serves HTTP.
    #[must_use]
    pub fn http(&self, host: u8) -> SocketAddr {
        SocketAddr::from((self.network.address(Place::Host(host)), HTTP_PORT))
    }

    /// How the copy on a host is told to join, which the others reach at this address.
    fn joins(&self, host: u8, advertised: SocketAddr) -> String {
        format!(
            "--join --listen {} --advertise {advertised} --http {} {} --keep-journal --tick-header \
             --checkpoint-every 1s --patience 20s",
            self.port(host),
            self.http(host),
            (self.trust)(host)
        )
    }

    /// Starts the copy on a host, with two slots and these options besides.
    ///
    /// # Errors
    /// As [`Stage::start`].
    pub fn start(&self, host: u8, options: &str) -> Result<Arc<Started>> {
        self.start_in(host, &[], options)
    }

    /// As [`Group::start`], with this environment besides.
    ///
    /// # Errors
    /// As [`Stage::start`].
    pub fn start_in(&self, host: u8, env: &[(String, String)], options: &str) -> Result<Arc<Started>> {
        self.start_copy(host, self.port(host), env, options)
    }

    /// As [`Group::start`], and the others reach the copy at another address than its own.
    ///
    /// # Errors
    /// As [`Stage::start`].
    pub fn start_advertised(&self, host: u8, at: SocketAddr, options: &str) -> Result<Arc<Started>> {
        self.start_copy(host, at, &[], options)
    }

    fn start_copy(&self, host: u8, at: SocketAddr, env: &[(String, String)], options: &str) -> Result<Arc<Started>> {
        let slots = if options.contains("--slots") { "" } else { "--slots 2" };
        let options = format!("{} {slots} {options}", self.joins(host, at));
        let launcher = self.network.launcher(Place::Host(host))?;
        let copy = Arc::new(self.stage.start_by(&launcher, env, &options)?);
        self.copies().insert(host, Arc::clone(&copy));
        Ok(copy)
    }

    /// Starts a copy on a host with another folder as its store.
    ///
    /// # Errors
    /// As [`Stage::start`].
    pub fn start_with_store(&self, host: u8, store: &Path) -> Result<Arc<Started>> {
        let mut args = self.stage.run_args(&self.joins(host, self.port(host)));
        let place = args.iter().position(|arg| arg == "--store").context("a job has a store")?;
        args[place + 1] = store.into();
        let launcher = self.network.launcher(Place::Host(host))?;
        Ok(Arc::new(self.stage.spawn(&launcher, &[], args)?))
    }

    /// Starts the copies on all hosts on which none runs.
    ///
    /// # Errors
    /// As [`Stage::start`].
    pub fn start_all(&self, options: &str) -> Result<()> {
        for host in self.hosts() {
            if !self.runs(host) {
                self.start(host, options)?;
            }
        }
        Ok(())
    }

    /// Whether the copy on a host runs.
    #[must_use]
    pub fn runs(&self, host: u8) -> bool {
        self.copies().get(&host).is_some_and(|copy| copy.process().status().is_none())
    }

    /// The copy that was last started on a host.
    ///
    /// # Errors
    /// None has been.
    pub fn copy(&self, host: u8) -> Result<Arc<Started>> {
        self.copies().get(&host).cloned().with_context(|| format!("no copy was started on host {host}"))
    }

    fn copies(&self) -> MutexGuard<'_, BTreeMap<u8, Arc<Started>>> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest record of the group, if there is one.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        self.records.all(&self.stage).last().cloned()
    }

    /// All records of the group, in their order.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.records.all(&self.stage).clone()
    }

    /// The host at an address `host:port`.
    #[must_use]
    pub fn host_at(&self, address: &str) -> Option<u8> {
        self.hosts().find(|host| address == self.port(*host).to_string())
    }

    /// The host whose copy coordinates, as the store has it.
    ///
    /// # Errors
    /// There is none.
    pub fn coordinator(&self) -> Result<u8> {
        let record = self.record().context("the group has no record")?;
        self.host_at(&record.coordinator).with_context(|| format!("{} is no host's address", record.coordinator))
    }

    /// The hosts that the newest attempt has processes on.
    #[must_use]
    pub fn working(&self) -> Vec<u8> {
        let record = self.record().unwrap_or_default();
        let mut hosts: Vec<_> = record.places.iter().filter_map(|(address, _)| self.host_at(address)).collect();
        hosts.sort_unstable();
        hosts
    }

    /// How many committed records have been seen in the outputs.
    #[must_use]
    pub fn output(&self) -> &Gauge {
        &self.output
    }

    /// Waits until consumers have seen more than `before` committed records.
    ///
    /// # Errors
    /// They do not in time; the error holds the ends of all logs.
    pub fn wait_for_output(&self, before: u64, why: &str) -> Result<()> {
        self.wait_until(&format!("output {why}"), || Ok(self.output.records() > before))
    }

    /// Waits until there is output after this moment.
    ///
    /// # Errors
    /// As [`Group::wait_for_output`].
    pub fn wait_for_more(&self, why: &str) -> Result<()> {
        self.wait_for_output(self.output.records(), why)
    }

    /// Does something, and waits until there is output after it.
    ///
    /// # Errors
    /// As [`Group::wait_for_output`].
    pub fn wait_for_more_after(&self, act: impl FnOnce()) -> Result<()> {
        let before = self.output.records();
        act();
        self.wait_for_output(before, "after that")
    }

    /// Waits for a condition.
    ///
    /// # Errors
    /// It fails, or does not hold in time; the error holds the ends of all logs.
    pub fn wait_until(&self, what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !condition()? {
            if start.elapsed() > GROUP_MOST {
                bail!("no {what} after {GROUP_MOST:?}; the newest record is {:?}\n{}", self.record(), self.logs());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until the job runs on these hosts, with all slots of theirs, and says something new.
    ///
    /// # Errors
    /// As [`Group::wait_until`].
    pub fn wait_until_on(&self, hosts: &[u8]) -> Result<()> {
        self.wait_until(&format!("attempt on the hosts {hosts:?}"), || Ok(self.working() == hosts))?;
        self.wait_for_more(&format!("of an attempt on the hosts {hosts:?}"))
    }

    /// What the command `status` says of the group, asked from a host or from the test.
    ///
    /// # Errors
    /// It fails.
    pub fn status(&self, from: Place) -> Result<serde_json::Value> {
        let launcher = if from == Place::Test { Vec::new() } else { self.network.launcher(from)? };
        let args = vec!["--store".into(), self.stage.store_url(), "--name".into(), self.stage.name().into()];
        let host = if let Place::Host(host) = from { host } else { 0 };
        let said = self.stage.ask_by(&launcher, "status", args, &format!("--json {}", (self.trust)(host)))?;
        serde_json::from_str(&said).with_context(|| format!("status says {said}"))
    }

    /// Checks that the copies on these hosts say that they work, so that no platform would restart them.
    ///
    /// # Errors
    /// One of them does not.
    pub fn check_health(&self, hosts: &[u8]) -> Result<()> {
        for host in hosts {
            let asked = http::get(self.http(*host), "/healthz");
            let (status, said) = asked.with_context(|| format!("ask the copy on host {host} for its health"))?;
            ensure!(status == 200, "the copy on host {host} says that it does not work: {status} {said}");
        }
        Ok(())
    }

    /// The ends of the logs of all copies.
    #[must_use]
    pub fn logs(&self) -> String {
        let copies = self.copies();
        let log = |(host, copy): (&u8, &Arc<Started>)| {
            format!("--- host {host} ({:?}):\n{}\n", copy.process().status(), copy.process().log_end())
        };
        copies.iter().map(log).collect()
    }

    /// SIGTERM to all copies at once, which must commit, take a checkpoint and end with 0.
    ///
    /// # Errors
    /// One of them does not.
    pub fn stop_all(&self) -> Result<()> {
        let copies: Vec<_> = self.copies().iter().map(|(host, copy)| (*host, Arc::clone(copy))).collect();
        let copies: Vec<_> = copies.into_iter().filter(|(_, copy)| copy.process().status().is_none()).collect();
        for (_, copy) in &copies {
            copy.process().signal(rustix::process::Signal::TERM)?;
        }
        for (host, copy) in &copies {
            let status = copy.process().wait(GROUP_MOST)?;
            ensure!(status.success(), "the copy on host {host}: {status}\n{}", self.logs());
        }
        Ok(())
    }
}
