//! `run --join`: this copy and all others that are started so with the same store run the job together.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use fluvial_node::group::{GroupOptions, Runs, join};
use fluvial_node::readiness::Checks;
use fluvial_node::trust::TrustOptions;
use fluvial_protocol::Exit;
use fluvial_protocol::group::Workers;
use fluvial_store::Store;

use super::options::RunOptions;
use crate::runtime::config::RunConfig;

/// The options of a copy that runs the job together with others.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Several hosts")]
pub(super) struct JoinOptions {
    /// Run the job together with all other copies that are started with --join, the same name and the same store. Copies may
    /// come and go; the store is the only thing that they share besides Kafka
    #[arg(long, requires = "listen", conflicts_with_all = ["processes", "no_restart"])]
    pub join: bool,

    /// The address at which this copy listens for the other copies. The processes of the job that it starts listen at free
    /// ports of the same address
    #[arg(long, value_name = "ADDR:PORT", requires = "join")]
    pub listen: Option<SocketAddr>,

    /// The host and port by which the other copies reach this one [default: what --listen says]
    #[arg(long, value_name = "HOST:PORT", requires = "join", value_parser = host_and_port)]
    pub advertise: Option<String>,

    /// The address at which this copy serves /metrics for Prometheus, /healthz, /readyz and /status by plain HTTP
    #[arg(long, value_name = "ADDR:PORT", requires = "join")]
    pub http: Option<SocketAddr>,

    /// By what the copies know each other.
    #[command(flatten)]
    pub trust: TrustOptions,
}

fn host_and_port(text: &str) -> Result<String, String> {
    let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
    match port {
        Some(Ok(1..)) => Ok(text.to_owned()),
        _ => Err("expected a host and a port, such as host-a:7401".to_owned()),
    }
}

impl JoinOptions {
    /// The host and port by which others reach this copy.
    fn advertised(&self, listen: SocketAddr) -> Result<String, String> {
        match &self.advertise {
            Some(advertise) => Ok(advertise.clone()),
            None if listen.ip().is_unspecified() => Err(format!(
                "--listen {listen} is no address by which others reach this copy: give --advertise HOST:PORT"
            )),
            None => Ok(listen.to_string()),
        }
    }
}

/// Runs the job together with other copies. Returns how, and why, this copy ended.
///
/// # Errors
/// The options contradict each other, or the copy cannot be set up.
pub(super) fn run(
    options: &RunOptions,
    config: &RunConfig,
    version: String,
    ansi: bool,
) -> anyhow::Result<(Exit, String)> {
    let JoinOptions { listen, http, trust, .. } = &options.join;
    let misconfigured = |why: String| Ok((Exit::Misconfigured, why));
    let Some(listen) = *listen else { return misconfigured("--join requires --listen".to_owned()) };
    let trust = match trust.open() {
        Ok(trust) => Arc::new(trust),
        Err(error) => return misconfigured(format!("{:#}", anyhow::Error::new(error))),
    };
    if let Err(error) = trust.permits(listen.ip()) {
        return misconfigured(format!("{:#}", anyhow::Error::new(error)));
    }
    let listener = match TcpListener::bind(listen) {
        Ok(listener) => listener,
        Err(error) => return misconfigured(format!("cannot listen at --listen {listen}: {error}")),
    };
    let advertise = match options.join.advertised(listener.local_addr()?) {
        Ok(advertise) => advertise,
        Err(why) => return misconfigured(why),
    };
    let http = match http.map(TcpListener::bind).transpose() {
        Ok(http) => http,
        Err(error) => return misconfigured(format!("cannot listen at --http: {error}")),
    };
    let runs = Runs::Job {
        job: config.job.clone(),
        version,
        workers: options.workers.unwrap_or(Workers::Auto),
        checks: Checks::of_this_copy(std::env::args_os().skip(1))?,
    };
    join(GroupOptions {
        runs,
        store: Store::open_or_create(&config.store)?,
        slots: options.slots(),
        listener,
        advertise,
        trust,
        http,
        patience: config.patience,
        stop_within: config.stop_within,
        ansi,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_reached_by_a_host_and_a_port() {
        for (text, fits) in [
            ("a:1", true),
            ("10.0.0.1:7401", true),
            ("[::1]:7401", true),
            ("a", false),
            (":1", false),
            ("a:0", false),
            ("a:x", false),
        ] {
            assert_eq!(host_and_port(text).is_ok(), fits, "{text}");
        }
    }
}
