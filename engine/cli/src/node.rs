//! `fluvial node` and `fluvial up`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fluvial_node::group::{CollectionOptions, GroupOptions, Runs, join};
use fluvial_node::isolation::{IsolationOptions, UserOptions};
use fluvial_node::labels::parse_label;
use fluvial_node::log;
use fluvial_node::trust::TrustOptions;
use fluvial_protocol::Exit;
use fluvial_store::Store;

/// Where the API is, if nothing else is said.
pub(crate) const API: &str = "127.0.0.1:7400";
/// How long a store may be unavailable when a node starts.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the last commits and checkpoints may take when a node leaves.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// How often logs are written to the store, if nothing else is said.
const STORE_LOGS_EVERY: &str = "1m";
/// The default of `--trial`. State that is large takes its time to be restored.
const TRIAL: &str = "10m";

/// What the node of a whole cluster needs.
#[derive(Debug, clap::Args)]
pub(crate) struct UpOptions {
    /// The folder that holds all that the cluster knows
    #[arg(long, value_name = "FOLDER", default_value = "fluvial-store")]
    store: String,

    /// How many workers this machine can run [default: the number of its cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,

    /// The address of the API, on the loopback interface
    #[arg(long, value_name = "ADDR:PORT", default_value = API)]
    api: SocketAddr,

    /// As whom jobs run.
    #[command(flatten)]
    user: UserOptions,

    /// The folder of secrets that options of jobs may refer to, as in file:PATH [default: /run/secrets]
    #[arg(long, value_name = "FOLDER")]
    secrets: Option<PathBuf>,
}

/// What a node needs.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeOptions {
    /// The store that all nodes share: a folder, or a URL such as s3://bucket/prefix, gs://bucket/prefix or
    /// az://container/prefix. Credentials, region and endpoint come from the environment, or from the instance's metadata
    #[arg(long, value_name = "URL")]
    store: String,

    /// The address at which this node listens for the others. Processes of jobs listen at free ports of the same address
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,

    /// The host and port by which the others reach this node [default: what --listen says]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,

    /// By what the nodes know each other.
    #[command(flatten)]
    trust: TrustOptions,

    /// How many workers this node can run [default: the number of its cores]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: Option<u32>,

    /// A label of this node, which jobs can require; may be given several times. Processes of a job are spread over the values of
    /// the label `zone`
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,

    /// The address of the API. With a cluster key or certificates it uses TLS and asks for tokens. Without, it is on the loopback
    /// interface only, and every user of this host can run programs as the user of this node
    #[arg(long, value_name = "ADDR:PORT", default_value = API)]
    api: SocketAddr,

    /// The address at which this node serves /metrics for Prometheus, /healthz and /readyz by plain HTTP
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<SocketAddr>,

    /// The folder where binaries of jobs are kept [default: fluvial in $XDG_CACHE_HOME or ~/.cache; for root in /var/cache]
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,

    /// The least time between two writes of a running process's log to the store, in which it has printed a line that is no INFO
    /// of its log; other lines wait ten times as long. A node that is killed loses the lines since. A write a minute costs $0.22 a
    /// month on S3
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = STORE_LOGS_EVERY)]
    store_logs_every: Duration,

    /// The age from which on binaries, options and logs are deleted that no job uses any more, and savepoints from before upgrades
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "24h")]
    collect_after: Duration,

    /// How often it is looked for them
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1h")]
    collect_every: Duration,

    /// How many savepoints from before upgrades each job keeps, besides those that it may go back to. Those that a person has taken
    /// stay until they are dropped
    #[arg(long, value_name = "NUMBER", default_value_t = CollectionOptions::default().keep_savepoints)]
    keep_savepoints: usize,

    /// How long a program that a job was upgraded to may take until it reads input. After that the job returns to the program before it
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = TRIAL)]
    trial: Duration,

    /// As whom jobs run.
    #[command(flatten)]
    user: UserOptions,

    /// The folder of secrets that options of jobs may refer to, as in file:PATH. A reference env:NAME is resolved from a variable of this
    /// node whose name begins with FLUVIAL_SECRET_ [default: /run/secrets]
    #[arg(long, value_name = "FOLDER")]
    secrets: Option<PathBuf>,

    /// For tests: the node kills itself at a place whose name is that of a file in this folder
    #[arg(long, value_name = "FOLDER", hide = true)]
    fail_points: Option<PathBuf>,

    /// For tests: the node takes itself for one that is so many versions later
    #[arg(long, value_name = "VERSIONS", default_value_t = 0, hide = true)]
    later_by: u32,
}

/// Runs one node that is the whole cluster.
pub(crate) fn up(options: UpOptions) -> anyhow::Result<ExitCode> {
    let UpOptions { store, slots, api, user, secrets } = options;
    println!(
        "a cluster with its store in '{store}' and its API and console at http://{api}; Ctrl-C ends it, and `up` resumes its jobs"
    );
    let options = NodeOptions {
        store,
        listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        advertise: None,
        trust: TrustOptions::default(),
        slots,
        labels: Vec::new(),
        api,
        http: None,
        cache: None,
        store_logs_every: humantime::parse_duration(STORE_LOGS_EVERY)?,
        collect_after: CollectionOptions::default().after,
        collect_every: CollectionOptions::default().every,
        keep_savepoints: CollectionOptions::default().keep_savepoints,
        trial: humantime::parse_duration(TRIAL)?,
        user,
        secrets,
        fail_points: None,
        later_by: 0,
    };
    start(options, true)
}

/// Runs a node.
pub(crate) fn run(options: NodeOptions) -> anyhow::Result<ExitCode> {
    start(options, false)
}

/// Runs a node; on a machine for development, jobs may run as the user of the node where no other one can run them.
fn start(options: NodeOptions, for_development: bool) -> anyhow::Result<ExitCode> {
    log::print_for_the_run().context("cannot set up the output of log lines")?;
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing_subscriber::filter::LevelFilter::INFO.into())
                .from_env_lossy(),
        )
        .with_target(false)
        .with_ansi(false)
        .with_writer(|| log::Writer)
        .init();
    let NodeOptions {
        store,
        listen,
        advertise,
        trust,
        slots,
        labels,
        api,
        http,
        cache,
        store_logs_every,
        collect_after,
        collect_every,
        keep_savepoints,
        trial,
        user,
        secrets,
        fail_points,
        later_by,
    } = options;
    fluvial_node::skew::set(later_by);
    fail_points.into_iter().for_each(fluvial_node::fail_point::watch);
    let labels = fluvial_node::labels::labels(labels).map_err(anyhow::Error::msg)?;
    let private = [&trust.cluster_key_file, &trust.tls_key].into_iter().flatten().cloned().collect();
    let isolation = IsolationOptions { user, lenient: for_development, private, secrets };
    let trust = Arc::new(trust.open()?);
    trust.permits(listen.ip())?;
    trust.permits_api(api.ip())?;
    let bind = |option: &str, address: SocketAddr| {
        TcpListener::bind(address).with_context(|| format!("cannot listen at {option} {address}"))
    };
    let listener = bind("--listen", listen)?;
    let address = listener.local_addr()?;
    let advertise = match advertise {
        Some(advertise) => advertise,
        None if address.ip().is_unspecified() => anyhow::bail!(
            "--listen {address} is no address by which others reach this node: give --advertise HOST:PORT"
        ),
        None => address.to_string(),
    };
    let api = bind("--api", api)?;
    tracing::info!(node = advertise, api = %api.local_addr()?, "the node starts");
    let cores = || std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
    let (exit, why) = join(GroupOptions {
        store: Store::open_or_create(&store)?,
        runs: Runs::Cluster {
            location: store,
            cache: cache.map_or_else(default_cache, Ok)?,
            labels,
            isolation,
            api,
            store_logs_every,
            collection: CollectionOptions { after: collect_after, every: collect_every, keep_savepoints },
            trial,
        },
        slots: slots.unwrap_or_else(cores),
        listener,
        advertise,
        trust,
        http: http.map(|address| bind("--http", address)).transpose()?,
        patience: PATIENCE,
        stop_within: STOP_WITHIN,
        ansi: false,
    })?;
    if exit != Exit::Done {
        log::say(&format!("error: {why}"));
    }
    log::finish();
    Ok(ExitCode::from(exit.code()))
}

fn default_cache() -> anyhow::Result<PathBuf> {
    let folder = |name: &str, within: &str| Some(PathBuf::from(std::env::var_os(name)?).join(within));
    // Jobs of a node that runs as root have another user, who has no access to root's home.
    let of_root = rustix::process::geteuid().is_root().then(|| PathBuf::from("/var/cache/fluvial"));
    let cache = folder("XDG_CACHE_HOME", "fluvial").or(of_root).or_else(|| folder("HOME", ".cache/fluvial"));
    cache.context("neither XDG_CACHE_HOME nor HOME is set: say by --cache where binaries are kept")
}
