//! What a process takes from its host by how many workers it has, on three brokers.

use std::time::Duration;

use anyhow::Result;
use fluvial_kafka_apache::child::Folder;

use super::stages;
use crate::kafka::{self, feed};
use crate::report::{Report, Value};
use crate::running::{Running, Taken, pause_whole};
use crate::subject::job;

/// How many workers the one process has.
const WORKERS: [u32; 3] = [1, 8, 24];
/// How many records go through it, so that it has every connection that it will have.
const RECORDS: u64 = 200_000;
/// How long after that is looked: clients that are there for a question only are gone by then.
const SETTLED: Duration = Duration::from_secs(3);

pub(crate) fn measure() -> Result<Report> {
    let kafka = kafka::start_three()?;
    kafka::make_topic(kafka.bootstrap(), kafka::INPUT)?;
    feed::load(kafka.bootstrap(), 0..RECORDS, 1000)?;
    let mut report = Report::new("What a process takes from its host, three brokers");
    for workers in WORKERS {
        let Taken { threads, connections, files, resident_bytes } = taken(kafka.bootstrap(), workers)?;
        let s = if workers == 1 { "" } else { "s" };
        report.show(format!("{workers} worker{s}: threads"), Value::Count(threads));
        report.show(format!("{workers} worker{s}: connections to brokers"), Value::Count(connections));
        report.show(format!("{workers} worker{s}: open files"), Value::Count(files));
        report.show(format!("{workers} worker{s}: resident memory"), Value::Bytes(resident_bytes));
    }
    report.note("the one process of a job that counts and sums 1,000 keys; without the supervisor");
    report.note("FLUVIAL_JOB_BINARIES=FOLDER measures the fluvial-benchmark of another build");
    Ok(report)
}

fn taken(brokers: &str, workers: u32) -> Result<Taken> {
    let folder = Folder::new("fluvial-benchmark-")?;
    let mut arguments = job::totals_arguments(folder.path(), brokers, &format!("totals-{workers}"), RECORDS / 10);
    arguments.extend(["--workers", &workers.to_string(), "--name", &format!("totals-{workers}")].map(str::to_owned));
    let running = Running::start(job::TOTALS, &arguments, folder.path(), stages::SELDOM)?;
    running.wait_for_records(RECORDS, Duration::from_secs(120))?;
    pause_whole(SETTLED);
    let taken = running.taken(brokers)?;
    running.stop()?;
    Ok(taken)
}
