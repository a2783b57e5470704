//! What a cluster of three nodes costs, and how long its changes and failures take.

use std::time::Duration;

use anyhow::Result;
use fluvial_store::cost;
use fluvial_tests::cluster::figures::{self, Idle};

use crate::report::{Report, Value};

/// How many small jobs run.
const JOBS: usize = 100;
/// How many keys the job holds whose pauses are measured.
const KEYS: u64 = 1_000_000;
/// From the loss of a host's power until nodes count it as lost.
const DETECTED: Duration = Duration::from_secs(5);

pub(crate) fn measure() -> Result<Report> {
    let mut report =
        Report::new("Three nodes of a cluster with many small jobs, each in a network namespace, and a bucket");
    let many = figures::many_jobs(JOBS)?;
    let mut submitted = many.submitted;
    let count = submitted.len();
    let name = format!("submit → running, binary present: p50 of {count}");
    report.limit(name, quantile(&mut submitted, 0.5), Value::Time(Duration::from_secs(1)));
    report.limit("… p99", quantile(&mut submitted, 0.99), Value::Time(Duration::from_secs(3)));
    for (what, mut times) in ["all jobs", "one job"].into_iter().zip(many.answered) {
        let name = format!("the API's answer about {what} of {JOBS}: p50 of {}", times.len());
        report.show(name, quantile(&mut times, 0.5));
        report.limit("… p99", quantile(&mut times, 0.99), Value::Time(Duration::from_millis(50)));
    }
    for Idle { jobs, coordinator_share, coordinator_bytes, process_bytes, processes_share, requests } in
        [many.without, many.with]
    {
        let what = format!("{jobs} idle jobs");
        report.limit(format!("{what}: the coordinator"), Value::Core(coordinator_share), Value::Core(0.02));
        report.show(format!("{what}: memory of the coordinator"), Value::Bytes(coordinator_bytes));
        if jobs > 0 {
            report.show(format!("{what}: memory of a job's process"), Value::Bytes(process_bytes));
            report.show(format!("{what}: all their processes"), Value::Core(processes_share));
        }
        let [writes, reads, deletes] = requests;
        report.show(format!("{what}: PUT and LIST an hour"), Value::Count(writes.round() as u64));
        report.show(format!("{what}: GET an hour"), Value::Count(reads.round() as u64));
        let price = Value::DollarsPerMonth(cost::Requests { writes, reads, deletes }.dollars_per_month());
        if jobs == 0 {
            report.limit("… price of the cluster itself", price, Value::DollarsPerMonth(1.0));
        } else {
            report.show("… price", price);
        }
    }
    report.note("Requests are counted at the store's door, at the list prices of S3 Standard (us-east-1).");
    name_machine(&mut report);
    Ok(report)
}

pub(crate) fn measure_changes() -> Result<Report> {
    let mut report = Report::new("Changes and a power cut in a cluster of three nodes, each in a network namespace");
    let pauses = figures::pauses(KEYS)?;
    for (what, mut times) in [("rescale", pauses.rescaled), ("upgrade", pauses.upgraded)] {
        let name = format!("pause of the output at a {what}, one million string keys: p50 of {}", times.len());
        report.limit(name, quantile(&mut times, 0.5), Value::Time(Duration::from_secs(2)));
        report.show("… max", quantile(&mut times, 1.0));
    }
    let cut = figures::power_cut()?;
    report.show(format!("power cut of a node with {} jobs → next attempts", cut.jobs), Value::Time(cut.detected));
    report.limit("… → all commit again", Value::Time(cut.all_commit), Value::Time(DETECTED + Duration::from_secs(5)));
    report.note("A pause is what a consumer of the output sees. The store is a folder.");
    name_machine(&mut report);
    Ok(report)
}

/// The time within which a share of all these lies.
fn quantile(times: &mut [Duration], share: f64) -> Value {
    times.sort();
    Value::Time(times[((times.len() as f64 * share) as usize).min(times.len() - 1)])
}

fn name_machine(report: &mut Report) {
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default().to_owned();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    report.note(format!(
        "All hosts, the broker and the store share this machine: {cores} cores,{}",
        model.trim_start_matches(['\t', ':'])
    ));
}
