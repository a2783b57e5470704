//! The commands that users run against a cluster.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Subcommand;
use comfy_table::{Table, presets};
use fluvial_node::http::api::{Submission, Update};
use fluvial_node::isolation::{HostIsolation, Limits};
use fluvial_node::status::{MemberReport, Report, State};
use reqwest::Method;

use crate::client::Client;
use crate::limits::LimitOptions;

/// Between two looks at a job that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How long a job has to wait for something before that is the answer.
const WAITS_FOR: Duration = Duration::from_secs(2);
/// How long a command waits for a job to run before it says how the job is.
const RUNS_WITHIN: Duration = Duration::from_secs(60);

/// A command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the binary of a job on the cluster
    Submit {
        /// The binary, such as target/release/orders
        binary: PathBuf,
        /// The name of the job [default: the name of the binary]
        #[arg(long)]
        name: Option<String>,
        /// The number of its workers
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
        workers: u32,
        #[command(flatten)]
        limits: LimitOptions,
        /// Return when the job is submitted, and do not wait until it runs
        #[arg(long)]
        detach: bool,
        /// The job's own options, as its command `run` takes them. A secret is given as file:PATH, or env:NAME where NAME begins with
        /// FLUVIAL_SECRET_, which the nodes resolve
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// List the jobs
    Jobs {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say how a job is, and why
    Status {
        /// The job
        job: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a job that was stopped or has ended
    Start {
        /// The job
        job: String,
    },
    /// Have a job commit, take a checkpoint and end
    Stop {
        /// The job
        job: String,
        /// Return at once, and do not wait until it has ended
        #[arg(long)]
        detach: bool,
    },
    /// End a job at a checkpoint, and run it again
    Restart {
        /// The job
        job: String,
    },
    /// Run a job with another number of workers, or with other limits
    #[command(group = clap::ArgGroup::new("what").args(["workers", "memory", "cpus"]).required(true).multiple(true))]
    Rescale {
        /// The job
        job: String,
        /// The number of its workers
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
        workers: Option<u32>,
        #[command(flatten)]
        limits: LimitOptions,
    },
    /// Run a job with another binary or other options. The old one goes on until a node has checked the new one
    Upgrade {
        /// The job
        job: String,
        /// The new binary
        binary: PathBuf,
        /// The job's own options, if they change
        #[arg(last = true)]
        arguments: Option<Vec<String>>,
    },
    /// Forget a job that has ended. Its state in the store and its topics stay
    Delete {
        /// The job
        job: String,
    },
    /// List the nodes
    Nodes {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs a command.
pub(crate) fn run(addr: &str, command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(carry_out(&Client::new(addr)?, command))
}

async fn carry_out(client: &Client, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Submit { binary, name, workers, limits, detach, arguments } => {
            let name = match name {
                Some(name) => name,
                None => binary.file_name().and_then(|name| name.to_str()).context("give the job a --name")?.to_owned(),
            };
            let hash = client.upload(read(&binary)?).await?;
            // No limit is to be taken away.
            let limits = Limits::default().changed_by(limits.change());
            let submission = Submission { name: name.clone(), binary: hash, arguments, workers, limits };
            client.change_to(Method::POST, "jobs", &submission).await?;
            println!("submitted {name}");
            if !detach {
                return wait_until_it_runs(client, &name).await;
            }
        }
        Command::Jobs { json: true } => println!("{}", serde_json::to_string_pretty(&jobs(client).await?)?),
        Command::Jobs { json: false } => print!("{}", table_of(&jobs(client).await?)),
        Command::Status { job, json } => {
            let job: Report = client.get(&format!("jobs/{job}")).await?;
            if json { println!("{}", serde_json::to_string_pretty(&job)?) } else { print!("{}", describe(&job)) }
        }
        Command::Start { job } => {
            client.change(Method::POST, &format!("jobs/{job}/start")).await?;
            return wait_until_it_runs(client, &job).await;
        }
        Command::Stop { job, detach } => {
            client.change(Method::POST, &format!("jobs/{job}/stop")).await?;
            if !detach {
                wait_for(client, &job, |job| matches!(job.state, State::Stopped | State::Ended)).await?;
            }
        }
        Command::Restart { job } => client.change_once(Method::POST, &format!("jobs/{job}/restart")).await?,
        Command::Rescale { job, workers, limits } => {
            let update = Update { workers, limits: limits.change(), ..Update::default() };
            client.change_to(Method::PATCH, &format!("jobs/{job}"), &update).await?;
        }
        Command::Upgrade { job, binary, arguments } => {
            let binary = Some(client.upload(read(&binary)?).await?);
            let update = Update { binary, arguments, ..Update::default() };
            client.change_to(Method::PATCH, &format!("jobs/{job}"), &update).await?;
        }
        Command::Delete { job } => client.change(Method::DELETE, &format!("jobs/{job}")).await?,
        Command::Nodes { json } => {
            let nodes: Vec<MemberReport> = client.get("nodes").await?;
            if json { println!("{}", serde_json::to_string_pretty(&nodes)?) } else { print!("{}", nodes_table(&nodes)) }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn read(binary: &PathBuf) -> anyhow::Result<Vec<u8>> {
    std::fs::read(binary).with_context(|| format!("cannot read '{}'", binary.display()))
}

async fn jobs(client: &Client) -> anyhow::Result<Vec<Report>> {
    client.get("jobs").await
}

/// Looks at a job until this holds.
async fn wait_for(client: &Client, name: &str, mut holds: impl FnMut(&Report) -> bool) -> anyhow::Result<Report> {
    loop {
        let job: Report = client.get(&format!("jobs/{name}")).await?;
        if holds(&job) {
            return Ok(job);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until a job runs, has ended, or waits for something that it lacks, and prints which.
async fn wait_until_it_runs(client: &Client, name: &str) -> anyhow::Result<ExitCode> {
    let until = Instant::now() + RUNS_WITHIN;
    let mut waits_since = None;
    let decided = |job: &Report| match job.state {
        State::Running | State::Ended | State::Stopped => true,
        // Its attempt may be about to begin.
        State::Waiting => waits_since.get_or_insert_with(Instant::now).elapsed() >= WAITS_FOR,
        _ => {
            waits_since = None;
            Instant::now() >= until
        }
    };
    let job = wait_for(client, name, decided).await?;
    match job.state {
        State::Running => {
            println!("{name} runs");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("{name} is {}", job.summary()),
    }
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// A table without the blanks at the ends of its lines.
fn text_of(table: &Table) -> String {
    table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn table_of(jobs: &[Report]) -> String {
    let mut table = plain_table();
    table.set_header(["JOB", "STATE", "WORKERS", "LAG", "WHY"]);
    for report in jobs {
        let running = report.attempt.as_ref().map_or(0, |attempt| attempt.workers);
        let running = if report.state == State::Running { running } else { 0 };
        let lag = report.progress.as_ref().and_then(|progress| progress.lag_records);
        table.add_row([
            report.job.clone(),
            report.state.to_string(),
            format!("{running}/{}", report.workers_wanted.unwrap_or_default()),
            lag.map_or("-".to_owned(), |lag| lag.to_string()),
            report.why.clone(),
        ]);
    }
    text_of(&table)
}

fn describe(report: &Report) -> String {
    let mut table = plain_table();
    let mut line = |name: &str, content: String| {
        table.add_row([name.to_owned(), content]);
    };
    line("job", report.job.clone());
    if let Some(wanted) = &report.wanted {
        let wants = if wanted.run { "run" } else { "be stopped" };
        line("wanted", format!("to {wants} with {} workers, revision {}", wanted.workers, wanted.revision));
    }
    line("state", report.summary());
    if let Some(limits) = &report.limits {
        line("limits", format!("{limits} for each process"));
    }
    if let Some(attempt) = &report.attempt {
        let generation = attempt.generation.map_or(String::new(), |generation| format!(", generation {generation}"));
        line("attempt", format!("{}{generation}: {}", attempt.number, attempt.why));
        for process in &attempt.processes {
            let why = process.why.as_ref().map_or(String::new(), |why| format!(": {why}"));
            let (number, node, state) = (process.process, &process.node, &process.state);
            line(&format!("process {number}"), format!("{} workers on {node}, {state}{why}", process.workers));
        }
    }
    if let Some(progress) = &report.progress {
        let lag = progress.lag_records.map_or("unknown".to_owned(), |records| format!("{records} records"));
        line("lag", lag);
        line(
            "rates",
            format!("{} records in and {} out a second", progress.records_in_per_s, progress.records_out_per_s),
        );
        let age = progress.checkpoint_age_ms.map_or("none".to_owned(), |ms| format!("{} s ago", ms / 1000));
        line("checkpoint", age);
    }
    text_of(&table)
}

fn nodes_table(nodes: &[MemberReport]) -> String {
    let mut table = plain_table();
    table.set_header(["NODE", "STATE", "SLOTS", "VERSION", "HEARD", "", "ISOLATION"]);
    for node in nodes {
        table.add_row([
            node.node.clone(),
            node.state.clone(),
            node.slots.map_or("-".to_owned(), |slots| slots.to_string()),
            node.version.clone().unwrap_or_else(|| "-".to_owned()),
            node.silent_ms.map_or("never".to_owned(), |ms| format!("{}s ago", ms / 1000)),
            if node.coordinates { "coordinates".to_owned() } else { String::new() },
            node.isolation.as_ref().map_or("unknown".to_owned(), HostIsolation::to_string),
        ]);
    }
    text_of(&table)
}
