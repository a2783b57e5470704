//! `fluvial stop`, `restart` and `delete`.

use std::time::{Duration, Instant};

use anyhow::bail;
use fluvial_node::http::api::{Holdings, NewSavepoint, SavepointReport};
use fluvial_node::status::{Report, State};
use reqwest::Method;

use crate::client::Client;
use crate::jobs::{confirmed, seconds_since_the_epoch};

/// After how long a job that has not stopped is spoken of. Most jobs have by then.
const SPOKEN_OF_AFTER: Duration = Duration::from_secs(10);
/// Between two looks at a job that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How a job is stopped.
#[derive(Debug, clap::Args)]
pub(crate) struct StopOptions {
    /// The job
    job: String,
    /// End its processes at once, without a last commit and checkpoint: what was read since the last checkpoint is read again
    /// when the job starts. No output is lost or written twice
    #[arg(long)]
    force: bool,
    /// When it has stopped, keep its last checkpoint as a savepoint of this name [default name: the time]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["force", "detach"])]
    savepoint: Option<Option<String>>,
    /// Return at once, and do not wait until it has ended
    #[arg(long)]
    detach: bool,
}

/// What is deleted.
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteOptions {
    /// The job
    job: String,
    /// Leave its state, its journal and its savepoints in the store: a job that is submitted under this name goes on with them
    #[arg(long)]
    keep_state: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Stops a job, and waits until it has ended.
pub(crate) async fn stop(client: &Client, options: StopOptions) -> anyhow::Result<()> {
    let StopOptions { job, force, savepoint, detach } = options;
    client.change(Method::POST, &format!("jobs/{job}/stop?force={force}")).await?;
    if detach {
        return Ok(());
    }
    let report = wait_for_the_end(client, &job).await?;
    if let Some(name) = savepoint {
        if report.state != State::Stopped || !report.why.is_empty() {
            bail!("no savepoint was taken, because {job} has not ended at a checkpoint: it is {}", report.summary());
        }
        let name = name.unwrap_or_else(|| format!("at-{}", seconds_since_the_epoch()));
        let taken: SavepointReport = client.ask(&format!("jobs/{job}/savepoints"), &NewSavepoint { name }).await?;
        println!("{} keeps {job} as of tick {}, its last", taken.name, taken.tick);
    } else if !report.why.is_empty() {
        eprintln!("{job} is {}", report.summary());
    }
    Ok(())
}

/// Waits until a job has ended. Says what it waits for if that takes long, and what can be done.
async fn wait_for_the_end(client: &Client, name: &str) -> anyhow::Result<Report> {
    let (begun, mut said) = (Instant::now(), false);
    loop {
        let job: Report = client.get(&format!("jobs/{name}")).await?;
        if matches!(job.state, State::Stopped | State::Ended | State::Failed) {
            return Ok(job);
        }
        if begun.elapsed() >= SPOKEN_OF_AFTER && !std::mem::replace(&mut said, true) {
            eprintln!("{}", takes_long(&job));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What is said of a job that does not end soon.
fn takes_long(job: &Report) -> String {
    let progress = job.progress.as_ref();
    let outage = progress.map_or(String::new(), |progress| match progress.commits_nothing_for_ms / 1000 {
        0 => String::new(),
        seconds => format!("; it has committed nothing for {seconds} s: are its brokers and the store reachable?"),
    });
    let since = progress.and_then(|progress| progress.checkpoint_age_ms).map_or_else(
        || "all input".to_owned(),
        |ms| format!("the input since the last checkpoint, {} s ago,", ms / 1000),
    );
    format!(
        "{name} has not stopped yet: {summary}{outage}. It ends by itself when its --stop-within has passed. `fluvial stop {name} --force` \
         ends its processes at once and gives up the last commit and checkpoint: {since} is read again when it starts. No output is \
         lost or written twice",
        name = job.job,
        summary = job.summary()
    )
}

/// Restarts a job.
pub(crate) async fn restart(client: &Client, job: &str, force: bool) -> anyhow::Result<()> {
    client.change_once(Method::POST, &format!("jobs/{job}/restart?force={force}")).await
}

/// Deletes a job, after it has said what that removes.
pub(crate) async fn delete(client: &Client, options: DeleteOptions) -> anyhow::Result<()> {
    let DeleteOptions { job, keep_state, yes } = options;
    let path = format!("jobs/{job}");
    if client.exists(&path).await? {
        match client.get::<Holdings>(&format!("{path}/holdings")).await {
            Ok(holdings) => eprintln!("{}", removes(&job, &holdings, keep_state)),
            Err(error) if yes => eprintln!("what the job holds is not known: {error:#}"),
            Err(error) => return Err(error.context("what the job holds is not known; --yes deletes it all the same")),
        }
        if !yes && !confirmed(&format!("delete {job}?"))? {
            bail!("{job} stays");
        }
    }
    client.change(Method::DELETE, &format!("{path}?state={}", !keep_state)).await
}

/// What a deletion removes.
fn removes(job: &str, holdings: &Holdings, keep_state: bool) -> String {
    let Holdings { objects, bytes, savepoints, binaries, .. } = holdings;
    let state = format!("{objects} objects of its state and journal ({} KiB)", bytes.div_ceil(1024));
    let savepoints = match savepoints.as_slice() {
        [] => "no savepoints".to_owned(),
        names => format!("its savepoints {}", names.join(", ")),
    };
    let binaries = match binaries {
        0 => String::new(),
        1 => ". Its binary, which no other job uses, follows when it has not been used for a while".to_owned(),
        _ => format!(". {binaries} binaries that no other job uses follow when they have not been used for a while"),
    };
    let of_store = if keep_state {
        format!("its logs. What stays are {state}, and {savepoints}")
    } else {
        format!("its logs, {state}, and {savepoints}, for good")
    };
    format!("deleting {job} removes {of_store}{binaries}. Topics are not touched")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_says_what_it_removes_and_what_stays() {
        let holdings = Holdings { objects: 7, bytes: 2000, savepoints: vec!["first".to_owned()], logs: 3, binaries: 1 };
        let said = removes("orders", &holdings, false);
        for part in
            ["7 objects of its state and journal (2 KiB)", "its savepoints first, for good", "Its binary", "Topics"]
        {
            assert!(said.contains(part), "{part}: {said}");
        }
        let said = removes("orders", &Holdings { savepoints: Vec::new(), binaries: 0, ..holdings }, true);
        assert!(said.contains("What stays are 7 objects") && said.contains("no savepoints. Topics"), "{said}");
    }
}
