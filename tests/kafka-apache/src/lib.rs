//! Apache Kafka itself: KRaft, one server or three, each of them broker and controller, on free ports, with its data in a
//! temporary folder.
//!
//! Nothing of it outlives the process that started it ([`child`]). [`ApacheKafka::stop`] and
//! [`ApacheKafka::start_again`] keep ports and data, so that a test can stop the broker and start it again.
//!
//! With [`Options::secured`] it also listens with TLS and SASL, and has access control lists ([`secured`]).
//!
//! For tests and benchmarks alone: it needs Java and Maven, and says so where they are missing.

pub mod certificates;
pub mod child;
mod jars;
mod java;
mod properties;
pub mod python;
pub mod secured;
mod truncate;
pub mod workspace;

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::RngExt as _;
use rustix::process::Signal;

pub use jars::{LIBRARIES, OLDEST, SURVIVES_A_KILL, VERSION, fetch, on_the_path};
use properties::Ports;

use crate::child::{Folder, Process, Spec};
use crate::java::{Archive, Java};
use crate::secured::{Listener, Secured};

const STARTED: &str = "Kafka Server started";
/// A start takes seconds, and has taken more than a minute and a half where many tests shared two slow cores: this ends a
/// start that hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many brokers: 1 or 3.
    pub brokers: usize,
    /// Lines of `server.properties` that are added or replaced.
    pub properties: Vec<(String, String)>,
    /// The version of Apache Kafka, such as [`VERSION`].
    pub version: String,
    /// The most memory that each server's heap may take, MiB.
    pub heap_mib: u32,
    /// The port of a proxy in front of the one broker: clients that come from it are told to come there again.
    pub proxy: Option<u16>,
    /// Whether to listen with TLS and SASL as well, and to let users do only what they were allowed; see [`secured`].
    pub secured: bool,
    /// The address at which it listens.
    pub host: Ipv4Addr,
    /// What starts the servers, such as a program that enters a network namespace; `java` and its arguments follow.
    pub launcher: Vec<OsString>,
    /// Whether the servers are to be as fast as they can be after some minutes, as for a benchmark. Else their code is
    /// compiled once and quickly.
    pub fast: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            brokers: 1,
            properties: Vec::new(),
            version: VERSION.to_owned(),
            heap_mib: 1024,
            proxy: None,
            secured: false,
            host: Ipv4Addr::LOCALHOST,
            launcher: Vec::new(),
            fast: false,
        }
    }
}

/// A running, or stopped, Apache Kafka. Dropping it kills it and removes its data.
#[derive(Debug)]
pub struct ApacheKafka {
    servers: Vec<Server>,
    bootstrap: String,
    /// In the order of [`Listener::ALL`]; empty where it is not secured.
    secured_bootstrap: Vec<String>,
    secured: Option<Secured>,
    behind_proxy: SocketAddr,
    java: Java,
    // Dropped last: the servers write into it.
    folder: Folder,
}

#[derive(Debug)]
struct Server {
    /// Its command line.
    spec: Vec<OsString>,
    data: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl ApacheKafka {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// Java or Maven is missing, or the server does not start; the error holds the end of its log.
    pub fn start(options: &Options) -> Result<Self> {
        Self::start_with(options, &Archive::of(&options.version)?)
    }

    fn start_with(options: &Options, archive: &Archive) -> Result<Self> {
        let mut failures = 0;
        loop {
            // A port that was free can be taken before the server binds it: then other ports are tried.
            match Self::start_once(options, archive) {
                Err(error) if failures < 2 && format!("{error:#}").contains("Address already in use") => failures += 1,
                result => return result,
            }
        }
    }

    /// The one that all of this process share, started by the first that asks. Use topic names of your own
    /// and do not stop it.
    ///
    /// # Panics
    /// It does not start.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<ApacheKafka> = OnceLock::new();
        SHARED.get_or_init(|| match Self::start(&Options::default()) {
            Ok(kafka) => kafka,
            Err(error) => panic!("Apache Kafka does not start: {error:#}"),
        })
    }

    fn start_once(options: &Options, archive: &Archive) -> Result<Self> {
        let folder = Folder::new("fluvial-apache-kafka-")?;
        let java = Java::new(&options.version, folder.path(), archive.clone())?;
        let secured = options.secured.then(|| Secured::new(folder.path())).transpose()?;
        let listeners = if options.secured { Listener::ALL.len() } else { 0 };
        let ports = (0..options.brokers).map(|_| {
            let secured = (0..listeners).map(|_| free_port()).collect::<Result<_>>()?;
            Ok(Ports { client: free_port()?, controller: free_port()?, behind_proxy: free_port()?, secured })
        });
        let ports = ports.collect::<Result<Vec<_>>>()?;
        // Kafka writes its ids as 16 bytes in URL-safe base64.
        let cluster = url_safe_base64(uuid::Uuid::new_v4().as_bytes());
        let mut servers = Vec::new();
        for index in 0..options.brokers {
            let home = folder.path().join(format!("server-{}", index + 1));
            fs::create_dir(&home)?;
            let (settings, data) = (home.join("server.properties"), home.join("data"));
            fs::write(&settings, properties::server(options, &ports, secured.as_ref(), index, &data)?)?;
            // An id may begin with a dash.
            let mut format = vec!["format".into(), format!("--cluster-id={cluster}").into()];
            format.extend(["--config".into(), settings.clone().into()]);
            if options.secured {
                format.extend(Secured::scram().map(OsString::from));
            }
            java.run_tool("kafka.tools.StorageTool", format)?;
            let mut spec = options.launcher.clone();
            spec.extend(java.server(options, &settings));
            servers.push(Server { spec, data, log: home.join("log"), process: None });
        }
        let bootstrap = |port: &dyn Fn(&Ports) -> u16| {
            let addresses: Vec<_> = ports.iter().map(|ports| format!("{}:{}", options.host, port(ports))).collect();
            addresses.join(",")
        };
        let mut kafka = Self {
            servers,
            bootstrap: bootstrap(&|ports| ports.client),
            secured_bootstrap: (0..listeners).map(|index| bootstrap(&|ports| ports.secured[index])).collect(),
            secured,
            behind_proxy: SocketAddr::from((options.host, ports[0].behind_proxy)),
            java,
            folder,
        };
        kafka.start_again()?;
        Ok(kafka)
    }

    /// What clients connect to: `host:port`, separated by commas.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Where the proxy of [`Options::proxy`] has to connect to.
    #[must_use]
    pub fn behind_proxy(&self) -> SocketAddr {
        self.behind_proxy
    }

    /// Starts every server that does not run, on its old port and data, and waits until they serve.
    ///
    /// # Errors
    /// As [`ApacheKafka::start`].
    pub fn start_again(&mut self) -> Result<()> {
        // All of them first: none serves before most of the controllers run.
        for (index, server) in self.servers.iter_mut().enumerate() {
            server.start(index)?;
        }
        self.servers.iter().try_for_each(Server::wait_until_it_serves)
    }

    /// Starts the server `index`, counted from 0, on its old ports and data, and waits until it serves. Whether its replicas
    /// have caught up, metadata tells.
    ///
    /// # Errors
    /// As [`ApacheKafka::start`], or there is no such server.
    pub fn start_server(&mut self, index: usize) -> Result<()> {
        let server = self.servers.get_mut(index).with_context(|| format!("there is no server {index}"))?;
        server.start(index)?;
        server.wait_until_it_serves()
    }

    /// Stops the server `index` in an orderly way, as [`ApacheKafka::stop`] does all.
    ///
    /// # Errors
    /// It cannot be signalled or does not end.
    pub fn stop_server(&mut self, index: usize) -> Result<()> {
        let server = self.servers.get_mut(index).with_context(|| format!("there is no server {index}"))?;
        server.signal_to_stop()?;
        server.wait_until_it_has_stopped()
    }

    /// How many servers there are, those included that do not run.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// Stops every server in an orderly way, at most for 30 s, then by force. Ports and data are kept.
    ///
    /// # Errors
    /// A server cannot be signalled or does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.servers.iter().try_for_each(Server::signal_to_stop)?;
        self.servers.iter_mut().try_for_each(Server::wait_until_it_has_stopped)
    }

    /// `kill -9` of the server `index`, counted from 0. Port and data are kept.
    ///
    /// # Errors
    /// The server cannot be signalled or does not end.
    pub fn kill(&mut self, index: usize) -> Result<()> {
        if let Some(process) = self.servers.get_mut(index).and_then(|server| server.process.take()) {
            process.kill()?;
        }
        Ok(())
    }

    /// `kill -9` of the one server, which comes up again without the records of a partition from `end` on (whole batches:
    /// one that reaches beyond is gone as a whole): what an unclean leader election leaves.
    ///
    /// # Errors
    /// As [`ApacheKafka::start`], or the partition is not there.
    pub fn lose_the_tail(&mut self, topic: &str, partition: i32, end: u64) -> Result<()> {
        self.kill(0)?;
        let server = self.servers.first().context("there is a server")?;
        truncate::truncate(&server.data.join(format!("{topic}-{partition}")), end)?;
        self.start_again()
    }

    /// [`ApacheKafka::stop`], then [`ApacheKafka::start_again`].
    ///
    /// # Errors
    /// As these two.
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Where its settings, logs and data are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process ids of the servers that run.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.servers.iter().filter_map(|server| server.process.as_ref().map(Process::pid)).collect()
    }
}

impl Server {
    fn start(&mut self, index: usize) -> Result<()> {
        if self.process.as_ref().is_some_and(|process| process.status().is_none()) {
            return Ok(());
        }
        // What an earlier run said must not be taken for what this one says.
        let _ = fs::rename(&self.log, self.log.with_extension("before"));
        let (program, args) = self.spec.split_first().context("a server has a command line")?;
        self.process = Some(Process::start(Spec {
            name: format!("Apache Kafka server {}", index + 1),
            program: program.into(),
            args: args.to_vec(),
            env: Vec::new(),
            log: self.log.clone(),
        })?);
        Ok(())
    }

    fn wait_until_it_serves(&self) -> Result<()> {
        self.process.as_ref().map_or(Ok(()), |process| process.wait_for_line(STARTED, PATIENCE))
    }

    fn signal_to_stop(&self) -> Result<()> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal(Signal::TERM))
    }

    fn wait_until_it_has_stopped(&mut self) -> Result<()> {
        if let Some(process) = self.process.take()
            && process.wait(Duration::from_secs(30)).is_err()
        {
            process.kill()?;
        }
        Ok(())
    }
}

/// A port below the range that the kernel gives to outgoing connections, so that none of these takes it while a server
/// is down.
fn free_port() -> Result<u16> {
    for _ in 0..1_000 {
        let port = rand::rng().random_range(12_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port between 12000 and 32000 is free")
}

fn url_safe_base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(move |digit| DIGITS[(group >> (18 - 6 * digit) & 63) as usize] as char)
    });
    digits.collect()
}
