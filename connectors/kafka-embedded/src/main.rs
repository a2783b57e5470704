//! `fluvial-kafka-embedded`: the embedded broker as a command. It prints its `bootstrap.servers` when it is ready, and
//! ends on Ctrl-C or SIGTERM.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use fluvial_kafka_embedded::{Broker, Config, Fault};

/// A Kafka broker in memory, for trying things out: nothing is kept when it ends, and nothing is compacted or expired.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:9092", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Where clients are told to connect, if that is another address
    #[arg(long, value_name = "HOST:PORT", value_parser = host_and_port)]
    advertise: Option<(String, u16)>,
    /// A topic to make, with its number of partitions; may be given several times
    #[arg(long = "topic", value_name = "NAME[:PARTITIONS]", value_parser = topic)]
    topics: Vec<(String, i32)>,
    /// The most that records may take, as in 512MiB or 4GiB; beyond it, producing fails
    #[arg(long, default_value = "1GiB", value_name = "BYTES", value_parser = bytes)]
    memory_limit: usize,
    /// The partitions of a topic for which no number is asked
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// Make topics when clients ask for them
    #[arg(long)]
    auto_create: bool,
    /// Let requests go wrong, as in Produce:3:drop, Fetch:1x*:delay=200ms, EndTxn:2:lose@client or
    /// Produce:1x5:error=NOT_LEADER_OR_FOLLOWER; may be given several times
    #[arg(long = "fault", value_name = "API:NTH[xTIMES]:ACTION[@CLIENT]")]
    faults: Vec<Fault>,
}

fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or("write HOST:PORT")?;
    let port = port.parse().map_err(|_| "the port is a number up to 65535")?;
    Ok((host.to_owned(), port))
}

fn topic(text: &str) -> Result<(String, i32), String> {
    match text.rsplit_once(':') {
        None => Ok((text.to_owned(), -1)),
        Some((name, count)) => match count.parse() {
            Ok(count) if count > 0 => Ok((name.to_owned(), count)),
            _ => Err("write NAME or NAME:PARTITIONS, with at least one partition".to_owned()),
        },
    }
}

fn bytes(text: &str) -> Result<usize, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err("write bytes, or a number of KiB, MiB or GiB".to_owned()),
    };
    let number: usize = number.parse().map_err(|_| "write a number, as in 512MiB")?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is more than this machine can address".to_owned())
}

fn main() -> ExitCode {
    let options = Options::parse();
    let level = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(level)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // Nobody could be told that a line was not written.
        .log_internal_errors(false)
        .init();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "fluvial-kafka-embedded: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> anyhow::Result<()> {
    let broker = Broker::start(Config {
        listen: options.listen,
        advertise: options.advertise,
        memory_limit_bytes: options.memory_limit,
        default_partitions: options.partitions,
        auto_create: options.auto_create,
        ..Config::default()
    })?;
    for (name, partitions) in options.topics {
        broker.create_topic(&name, if partitions < 0 { options.partitions } else { partitions })?;
    }
    for fault in options.faults {
        broker.fault(fault);
    }
    // Whoever started it may not read; that is no error.
    let _ = writeln!(std::io::stdout(), "{}", broker.bootstrap());
    wait_for_end()
}

/// Returns on Ctrl-C or SIGTERM.
fn wait_for_end() -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot wait for signals")?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted.context("cannot wait for Ctrl-C"),
            _ = terminate.recv() => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_read_as_people_write_them() {
        assert_eq!(bytes("64MiB"), Ok(64 << 20));
        assert_eq!(bytes("1024"), Ok(1024));
        assert!(bytes("1GB").is_err());
        assert_eq!(topic("orders:4"), Ok(("orders".to_owned(), 4)));
        assert!(topic("orders:0").is_err());
        assert_eq!(host_and_port("broker.example:9092"), Ok(("broker.example".to_owned(), 9092)));
    }
}
