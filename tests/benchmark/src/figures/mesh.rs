//! What the connections between the processes of a job cost: a keyed count from memory by two workers, in two copies that are
//! connected by TLS, in two processes that are connected by plain TCP, and in one process.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use fluvial_kafka_apache::child::Folder;

use super::stages;
use crate::report::{Aim, Report, Value};
use crate::running::Running;
use crate::subject::job;

/// How many keys there are.
const KEYS: u64 = 1_000_000;
/// What is read before the measurement begins: every key once, and as much again.
const WARM: u64 = 2 * KEYS;
/// What is measured.
const RECORDS: u64 = 30_000_000;
const TICK_RECORDS: u64 = 100_000;
/// How often each is measured; in turn, so that what else the machine does comes to all alike.
const ROUNDS: u32 = 3;
const AT_MOST: Duration = Duration::from_secs(120);

pub(crate) fn measure() -> Result<Report> {
    let (mut one, mut plain, mut tls) = (0.0, 0.0, 0.0);
    for _ in 0..ROUNDS {
        one += copies(1, &["--workers", "2"])? / f64::from(ROUNDS);
        plain += copies(1, &["--workers", "2", "--processes", "2"])? / f64::from(ROUNDS);
        tls += joined()? / f64::from(ROUNDS);
    }
    let [one, plain, tls] = [one, plain, tls].map(Value::CpuPerMillion);
    let mut report = Report::new(format!("Durable count of {} M keys by two workers", KEYS / 1_000_000));
    report.compare("two processes: TLS, beside plain TCP", tls, plain, Aim::AtMost(1.15));
    report.compare("plain TCP: two processes, beside one", plain, one, Aim::None);
    report.note(
        "one worker reads all records and sends half of them to the other; all processes counted, with supervisors",
    );
    report.note(format!("each the mean of {ROUNDS} runs, which were made in turn"));
    Ok(report)
}

/// Two copies with one worker each, which know each other by a key.
fn joined() -> Result<f64> {
    use std::io::Write;
    let folder = Folder::new("fluvial-benchmark-")?;
    let key = folder.path().join("key");
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&key)?;
    writeln!(file, "{}", "5a".repeat(32))?;
    let key = key.display().to_string();
    copies(2, &["--join", "--listen", "127.0.0.1:0", "--cluster-key-file", &key, "--slots", "1"])
}

/// CPU seconds per million records of so many copies of the job on one store.
fn copies(number: usize, more: &[&str]) -> Result<f64> {
    let folder = Folder::new("fluvial-benchmark-")?;
    let mut arguments = job::count_arguments(folder.path(), KEYS, TICK_RECORDS, Duration::ZERO);
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    let of_each: Vec<_> = (0..number).map(|copy| folder.path().join(copy.to_string())).collect();
    let start = |folder: &Path| {
        std::fs::create_dir(folder)?;
        Running::start(job::COUNT, &arguments, folder, stages::SELDOM)
    };
    let copies = of_each.iter().map(|folder| start(folder)).collect::<Result<Vec<_>>>()?;
    let (first, cpu_before) = at(&copies, WARM)?;
    let (last, cpu) = at(&copies, WARM + RECORDS)?;
    Ok((cpu - cpu_before).as_secs_f64() / ((last - first) as f64 / 1e6))
}

/// How many records have been read and what CPU time all copies have taken, when so many have been read. Only one worker reads.
fn at(copies: &[Running], records: u64) -> Result<(u64, Duration)> {
    let mut read = None;
    let first = copies.first().context("no copy")?;
    first.wait_until(&format!("{records} records read"), AT_MOST, |_| {
        for copy in copies {
            read = read.or(copy.marks()?.last().map(|mark| mark.records).filter(|&read| read >= records));
        }
        Ok(read.is_some())
    })?;
    Ok((read.context("nothing was read")?, copies.iter().map(Running::cpu).sum()))
}
