//! Sieges for as long as one likes: both jobs in turn on real Kafka, struck by every kind of fault, each compared with an
//! undisturbed replay, a naive model and consistent cuts.
//!
//! ```text
//! cargo run --release -p fluvial-tests --bin campaign -- --seed 7 --minutes 30
//! cargo run --release -p fluvial-tests --bin campaign -- --brokers 3 --minutes 30
//! cargo run --release -p fluvial-tests --bin campaign -- --brokers 3 --rolling 5
//! cargo run --release -p fluvial-tests --features tls --bin campaign -- --secured
//! cargo run --release -p fluvial-tests --bin campaign -- --hosts 3 --seed 7 --minutes 30
//! cargo run --release -p fluvial-tests --bin campaign -- --cluster 3 --seed 7 --minutes 30
//! ```
//!
//! On stdout, at the end, a table of what each fault did. Exit code 1 if anything was lost, doubled or wrong, or if a job or
//! the campaign itself failed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use fluvial_tests::apache::SURVIVES_A_KILL;
use fluvial_tests::campaign::{Blow, Ground, Ledger, Outcome, Plan, Siege, Subject};
use fluvial_tests::{cluster, group};

/// Puts both jobs under fire, and shows what came of it.
#[derive(Debug, Parser)]
struct Options {
    /// The first siege's seed; each later one's is one higher
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// No siege begins after so many minutes
    #[arg(long, default_value_t = 10)]
    minutes: u64,

    /// How many runs of a siege end badly
    #[arg(long, default_value_t = 4)]
    rounds: usize,

    /// 1 broker, or 3 that hold each partition three times and are stopped or killed in turn
    #[arg(long, default_value_t = 1)]
    brokers: usize,

    /// Four sieges instead, in which three brokers are restarted one after the other, each as often as this says: each job
    /// once with SIGTERM and once with `kill -9`
    #[arg(long, value_name = "ROUNDS")]
    rolling: Option<usize>,

    /// Groups of copies on so many hosts instead, each a network namespace: processes, copies and hosts are killed, stopped
    /// and isolated
    #[arg(long, value_name = "HOSTS", value_parser = clap::value_parser!(u8).range(2..=20))]
    hosts: Option<u8>,

    /// Clusters of so many nodes instead, each on a network namespace, that run many jobs: nodes and hosts are killed, stopped and
    /// isolated while users submit, rescale, upgrade and drain
    #[arg(long, value_name = "NODES", value_parser = clap::value_parser!(u8).range(2..=20), conflicts_with = "hosts")]
    cluster: Option<u8>,

    /// With --cluster: a node is killed at every place of every kind of change instead
    #[arg(long, requires = "cluster")]
    fail_points: bool,

    /// Jobs reach the brokers by SASL over TLS; build with --features tls
    #[arg(long)]
    secured: bool,

    /// The version of Apache Kafka. The default survives to be killed; where another would be killed, it is stopped well
    #[arg(long, default_value = SURVIVES_A_KILL)]
    kafka: String,

    /// Where stores and logs of failed sieges are left
    #[arg(long, value_name = "FOLDER")]
    evidence: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    if let Some(hosts) = options.hosts {
        let clean = group::campaign(hosts, options.seed, Duration::from_secs(60 * options.minutes));
        return Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if let Some(nodes) = options.cluster {
        let time = Duration::from_secs(60 * options.minutes);
        let clean = match options.fail_points {
            true => cluster::fail_points(nodes, time),
            false => cluster::campaign(nodes, options.seed, time),
        };
        return Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let (mut ledger, start) = (Ledger::default(), Instant::now());
    let mut sieges = 0;
    loop {
        let seed = options.seed + sieges;
        let subject = if seed.is_multiple_of(2) { Subject::Bank } else { Subject::Orders };
        let plan = match options.rolling {
            Some(_) if sieges == 4 => break,
            Some(rounds) => {
                let blow = if sieges < 2 { Blow::RestartBroker } else { Blow::KillBroker };
                Plan::rolling(seed, blow, rounds * 3)
            }
            None if sieges > 0 && start.elapsed() >= Duration::from_secs(60 * options.minutes) => break,
            None => Plan::new(seed, options.rounds),
        };
        // Brokers of its own, so that no siege's leavings slow down another.
        let ground = match options.brokers {
            brokers if options.secured => {
                Ground::secured(if options.rolling.is_some() { 3 } else { brokers }, &options.kafka)
            }
            1 if options.rolling.is_none() => Ground::new(&options.kafka),
            _ => Ground::of_three(&options.kafka),
        };
        let ground = match ground {
            Ok(ground) => ground,
            Err(error) => {
                eprintln!("FAILED: {error:#}\n");
                ledger.enter_failure(&[]);
                break;
            }
        };
        sieges += 1;
        let siege = Siege::new(&ground, subject, ground.fit(plan))?;
        let clean = match siege.run() {
            Ok(report) => {
                eprintln!("seed {seed}, {}: {report}\n", subject.binary());
                ledger.enter(&report);
                report.is_clean()
            }
            Err(error) => {
                eprintln!("FAILED: {error:#}\n");
                ledger.enter_failure(&siege.struck());
                false
            }
        };
        if let (false, Some(folder)) = (clean, &options.evidence) {
            std::fs::create_dir_all(folder)?;
            siege.keep_evidence(&folder.join(format!("seed-{seed}")))?;
        }
    }
    println!("{sieges} sieges, seeds from {}", options.seed);
    let (fault, columns) = ("fault", ["count", "lost", "twice", "wrong", "failed"]);
    let columns: Vec<String> = columns.iter().map(|column| format!("{column:>6}")).collect();
    println!("{fault:<60} {}  longest pause, s", columns.join(" "));
    for (fault, outcome) in ledger.rows() {
        let Outcome { count, lost, twice, wrong, failed, longest_pause } = outcome;
        let counts: Vec<String> =
            [count, lost, twice, wrong, failed].iter().map(|count| format!("{count:>6}")).collect();
        let pause = if longest_pause.is_zero() { String::new() } else { format!("{:.1}", longest_pause.as_secs_f64()) };
        println!("{fault:<60} {}  {pause:>16}", counts.join(" "));
    }
    Ok(if ledger.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
