//! The commands that users run against a cluster.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::Subcommand;
use comfy_table::{Table, presets};
use fluvial_node::http::api::{NewSavepoint, Plan, SavepointReport, Submission, Update};
use fluvial_node::isolation::{HostIsolation, Limits};
use fluvial_node::labels::{describe_labels, labels, parse_label};
use fluvial_node::readiness::Becomes;
use fluvial_node::status::{MemberReport, Report, State};
use reqwest::Method;
use serde::Serialize;

use crate::client::Client;
use crate::connection::ConnectionOptions;
use crate::drain;
use crate::ending;
use crate::limits::LimitOptions;
use crate::logs;
use crate::upload::upload;

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
        /// A label that its nodes must have; may be given several times
        #[arg(long, value_name = "NAME=VALUE", value_parser = parse_label)]
        require: Vec<(String, String)>,
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
    /// Print what the processes of a job have printed, by time; also those that have ended
    Logs(logs::Options),
    /// Run a job that was stopped or has ended
    Start {
        /// The job
        job: String,
        /// Go back to this savepoint
        #[arg(long, value_name = "SAVEPOINT")]
        from: Option<String>,
        /// With --from: read the input since the savepoint again, and correct upsert outputs that have moved on since
        #[arg(long, requires = "from")]
        correct_outputs: bool,
    },
    /// Have a job commit, take a checkpoint and end
    Stop(ending::StopOptions),
    /// End a job at a checkpoint, and run it again
    Restart {
        /// The job
        job: String,
        /// End its processes at once, without a last commit and checkpoint: what was read since the last checkpoint is read again
        #[arg(long)]
        force: bool,
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
    /// Run a job with another binary or other options, after a savepoint. The old one goes on until a node has checked the new one
    Upgrade {
        /// The job
        job: String,
        /// The new binary
        binary: PathBuf,
        /// Do not ask whether the plan is right
        #[arg(long)]
        yes: bool,
        /// Refuse the new program if it computes other output than the old one
        #[arg(long)]
        same_output: bool,
        /// The job's own options, if they change
        #[arg(last = true)]
        arguments: Option<Vec<String>>,
    },
    /// Go back to what a job ran before its last upgrade, and to the savepoint from before it
    Rollback {
        /// The job
        job: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Keep the newest checkpoint of a job until the savepoint is dropped
    Savepoint {
        /// The job
        job: String,
        /// The name of the savepoint [default: the time]
        #[arg(long)]
        name: Option<String>,
    },
    /// List the savepoints of a job, or drop one
    Savepoints {
        /// The job
        job: String,
        /// Drop this savepoint
        #[arg(long, value_name = "SAVEPOINT")]
        drop: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget a job that has ended, and remove its state, savepoints and logs. Its topics stay
    Delete(ending::DeleteOptions),
    /// Give a node no more processes, move those that it has as far as other nodes have room, and wait until they are gone. The node
    /// stays a member, also when it is started again, until it is undrained
    Drain {
        /// Its address, or its host
        node: String,
        /// Return at once, and do not wait
        #[arg(long)]
        detach: bool,
    },
    /// Let a node that was drained have processes again
    Undrain {
        /// Its address, or its host
        node: String,
    },
    /// Show all jobs and how fast they are, each second, until Ctrl-C. Prints them once if the output is no terminal
    Top {
        /// Print JSON, once
        #[arg(long)]
        json: bool,
    },
    /// List the nodes
    Nodes {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs a command.
pub(crate) fn run(connection: &ConnectionOptions, command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(carry_out(&Client::new(connection.resolve()?)?, command))
}

async fn carry_out(client: &Client, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Submit { binary, name, workers, require, limits, detach, arguments } => {
            let require = labels(require).map_err(anyhow::Error::msg)?;
            let name = match name {
                Some(name) => name,
                None => binary.file_name().and_then(|name| name.to_str()).context("give the job a --name")?.to_owned(),
            };
            let hash = upload(client, &binary).await?;
            // No limit is to be taken away.
            let limits = Limits::default().changed_by(limits.change());
            let submission = Submission { name: name.clone(), binary: hash, arguments, workers, require, limits };
            client.change_to(Method::POST, "jobs", &submission).await?;
            println!("submitted {name}");
            if !detach {
                return wait_until_it_runs(client, &name).await;
            }
        }
        Command::Jobs { json } => {
            let jobs: Vec<Report> = client.list("jobs").await?;
            show(json, &jobs, || table_of(&jobs))?;
        }
        Command::Status { job, json } => {
            let job: Report = client.get(&format!("jobs/{job}")).await?;
            show(json, &job, || describe(&job))?;
        }
        Command::Logs(options) => return logs::print(client, &options).await,
        Command::Start { job, from, correct_outputs } => {
            if from.is_some() {
                let update = Update { from, correct_outputs, ..Update::default() };
                client.change_to_once(Method::PATCH, &format!("jobs/{job}"), &update).await?;
            }
            client.change(Method::POST, &format!("jobs/{job}/start")).await?;
            return wait_until_it_runs(client, &job).await;
        }
        Command::Stop(options) => ending::stop(client, options).await?,
        Command::Restart { job, force } => ending::restart(client, &job, force).await?,
        Command::Rescale { job, workers, limits } => {
            let update = Update { workers, limits: limits.change(), ..Update::default() };
            client.change_to(Method::PATCH, &format!("jobs/{job}"), &update).await?;
        }
        Command::Upgrade { job, binary, yes, same_output, arguments } => {
            let binary = Some(upload(client, &binary).await?);
            let mut update = Update { binary, arguments, ..Update::default() };
            let plan: Plan = client.ask(&format!("jobs/{job}/plan"), &update).await?;
            eprint!("{}", describe_plan(&plan));
            if let Some(problem) = plan.problems.first() {
                bail!("{job} goes on as it is: the new program could not run ({}: {})", problem.part, problem.what);
            }
            if !yes && !confirmed(&format!("upgrade {job}?"))? {
                bail!("{job} goes on as it is");
            }
            update.approved = Some(plan.program).filter(|_| !same_output);
            client.change_to_once(Method::PATCH, &format!("jobs/{job}"), &update).await?;
            println!("{job} is being upgraded; `fluvial rollback {job}` goes back");
        }
        Command::Rollback { job, yes } => {
            let question = format!("go back to what {job} ran before, and correct its upsert outputs?");
            if !yes && !confirmed(&question)? {
                bail!("{job} goes on as it is");
            }
            client.change_once(Method::POST, &format!("jobs/{job}/rollback")).await?;
        }
        Command::Savepoint { job, name } => {
            let name = name.unwrap_or_else(|| format!("at-{}", seconds_since_the_epoch()));
            let taken: SavepointReport = client.ask(&format!("jobs/{job}/savepoints"), &NewSavepoint { name }).await?;
            println!("{} keeps {job} as of tick {}", taken.name, taken.tick);
        }
        Command::Savepoints { job, drop: Some(savepoint), .. } => {
            client.change(Method::DELETE, &format!("jobs/{job}/savepoints/{savepoint}")).await?;
        }
        Command::Savepoints { job, drop: None, json } => {
            let savepoints: Vec<SavepointReport> = client.list(&format!("jobs/{job}/savepoints")).await?;
            show(json, &savepoints, || savepoints_table(&savepoints))?;
        }
        Command::Delete(options) => ending::delete(client, options).await?,
        Command::Drain { node, detach } => drain::drain(client, &node, detach).await?,
        Command::Undrain { node } => drain::undrain(client, &node).await?,
        Command::Top { json } => crate::top::run(client, json).await?,
        Command::Nodes { json } => {
            let nodes: Vec<MemberReport> = client.list("nodes").await?;
            show(json, &nodes, || nodes_table(&nodes))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints what a node has answered, as JSON or as text for people.
pub(crate) fn show(json: bool, answer: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(answer)?)
    } else {
        print!("{}", text())
    }
    Ok(())
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

/// Waits until a job runs, has ended, or has been in the state `waiting` for a while. Prints that it runs; anything else is an error.
async fn wait_until_it_runs(client: &Client, name: &str) -> anyhow::Result<ExitCode> {
    let until = Instant::now() + RUNS_WITHIN;
    let mut waits_since = None;
    let decided = |job: &Report| match job.state {
        State::Running | State::Ended | State::Failed | State::Stopped => true,
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
        _ => bail!("{name} is {}{}", job.summary(), hint(&job).map_or(String::new(), |hint| format!("; {hint}"))),
    }
}

/// Asks a question on a terminal. Without one nobody could answer.
pub(crate) fn confirmed(question: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("{question} Say --yes, because nobody can be asked here");
    }
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

pub(crate) fn seconds_since_the_epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn describe_plan(plan: &Plan) -> String {
    let mut table = plain_table();
    for part in &plan.parts {
        let becomes = match part.becomes {
            Becomes::Reused => "goes on",
            Becomes::New => "is new",
            Becomes::Gone => "is gone",
        };
        table.add_row([part.kind.clone(), part.name.clone(), becomes.to_owned()]);
    }
    let warnings = plan.warnings.iter().map(|warning| format!("warning: {warning}\n"));
    std::iter::once(text_of(&table)).chain(warnings).collect()
}

fn savepoints_table(savepoints: &[SavepointReport]) -> String {
    let mut table = plain_table();
    table.set_header(["SAVEPOINT", "AGE", "TICK", "STATE"]);
    for savepoint in savepoints {
        let age = seconds_since_the_epoch().saturating_sub(savepoint.taken_ms / 1000);
        let kib = savepoint.bytes.div_ceil(1024);
        table.add_row([savepoint.name.clone(), format!("{age} s"), savepoint.tick.to_string(), format!("{kib} KiB")]);
    }
    text_of(&table)
}

/// Where more is said about a job that is not well and has printed something.
fn hint(job: &Report) -> Option<String> {
    let failed = matches!(job.state, State::Failed | State::Ended | State::Restarting | State::Stalled);
    (failed && job.attempt.is_some()).then(|| format!("see `fluvial logs {}`", job.job))
}

pub(crate) fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

/// A table without the blanks at the ends of its lines.
pub(crate) fn text_of(table: &Table) -> String {
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
        if !wanted.require.is_empty() {
            line("requires", describe_labels(&wanted.require));
        }
    }
    line("state", report.summary());
    if let Some(returned) = report.returned.as_ref().filter(|returned| report.why != returned.to_string()) {
        line("returned", returned.to_string());
    }
    if let Some(hint) = hint(report) {
        line("log", hint);
    }
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
    table.set_header(["NODE", "STATE", "SLOTS", "LABELS", "VERSION", "HEARD", "", "ISOLATION"]);
    for node in nodes {
        table.add_row([
            node.node.clone(),
            node.state.clone(),
            node.slots.map_or("-".to_owned(), |slots| slots.to_string()),
            if node.labels.is_empty() { "-".to_owned() } else { describe_labels(&node.labels) },
            node.version.clone().unwrap_or_else(|| "-".to_owned()),
            node.silent_ms.map_or("never".to_owned(), |ms| format!("{}s ago", ms / 1000)),
            if node.coordinates { "coordinates".to_owned() } else { String::new() },
            node.isolation.as_ref().map_or("unknown".to_owned(), HostIsolation::to_string),
        ]);
    }
    text_of(&table)
}
