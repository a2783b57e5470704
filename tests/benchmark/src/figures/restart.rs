//! From `kill -9` of one of two processes to the next committed output, `run` restarting by itself.

use std::time::Duration;

use anyhow::{Context, Result};
use fluvial_kafka_apache::child::Folder;

use super::stages::{self, Event};
use crate::kafka;
use crate::kafka::feed::{Fed, Feed};
use crate::kafka::view::View;
use crate::report::{Report, Value};
use crate::running::{Running, kill};
use crate::subject::{job, meter};

/// How many keys there are.
const KEYS: u64 = 1_000_000;
/// Records a second.
const RATE: u64 = 20_000;
/// How often each process is killed.
const KILLS: usize = 3;
/// From one kill to the next: in every one of them lies a checkpoint.
const BETWEEN: Duration = Duration::from_secs(12);
/// What the log says on the way.
const STAGES: [&str; 9] = [
    "the generation ended; starting the next one",
    "joined",
    "found",
    "opened",
    "restored",
    "fenced",
    "all fenced",
    "ready",
    "input flows",
];
/// What is aimed at.
const AIM: Duration = Duration::from_secs(2);

pub(crate) fn measure() -> Result<Report> {
    let kafka = kafka::start_with_each_key(KEYS, Fed::Payments)?;
    let brokers = kafka.bootstrap();
    let folder = Folder::new("fluvial-benchmark-")?;
    let mut arguments = job::totals_arguments(folder.path(), brokers, "totals", KEYS);
    arguments.extend(["--processes", "2", "--workers", "2"].map(str::to_owned));
    let running = Running::start(job::TOTALS, &arguments, folder.path(), stages::SELDOM)?;
    kafka::make_topic(brokers, "totals")?;
    let base_us = meter::now_us();
    let view = View::start(brokers, "totals", KEYS, true, base_us)?;
    running.wait_until("each key is out", Duration::from_secs(60), |_| Ok(view.payments()? >= KEYS))?;
    let feed = Feed::start(brokers, Fed::Payments, KEYS, KEYS, RATE, base_us)?;
    running.wait_until("a checkpoint holds all keys", Duration::from_secs(60), |this| {
        Ok(stages::read(this.log())?.iter().filter(|e| e.message == "checkpoint complete").count() >= 2)
    })?;
    let mut report = Report::new(format!(
        "From kill -9 of one of two processes to new committed output, {} M keys, {} k records/s",
        KEYS / 1_000_000,
        RATE / 1000
    ));
    for (index, name) in [(1, "a process beside the leader's"), (0, "the leader's process")] {
        let mut times = Vec::new();
        for _ in 0..KILLS {
            eprintln!("  killing {name}");
            times.push(one_kill(&running, &view, index)?);
        }
        times.sort_by_key(|time| time.0);
        let (time, stages) = times.swap_remove(KILLS / 2);
        report.limit(format!("{name}, median of {KILLS}"), Value::Time(time), Value::Time(AIM));
        for (stage, at) in stages {
            report.show(format!("… {stage}, after"), Value::Time(at));
        }
    }
    let produced = KEYS + feed.stop()?;
    running.wait_until(
        "all that was produced is out",
        Duration::from_secs(60),
        |_| Ok(view.payments()? >= produced),
    )?;
    anyhow::ensure!(view.payments()? == produced, "{} payments are out of {produced}", view.payments()?);
    report.note(format!("at the end each of the {produced} payments is in the output once"));
    Ok(report)
}

/// How long nothing new was visible, and what happened meanwhile.
fn one_kill(running: &Running, view: &View, index: usize) -> Result<(Duration, Vec<(String, Duration)>)> {
    let peer = *running.peers().get(index).context("the job has fewer processes")?;
    view.take_seen()?;
    let killed_us = meter::now_us();
    kill(peer)?;
    let mut seen = Vec::new();
    running.wait_until("output after the kill", BETWEEN * 5, |_| {
        seen.extend(view.take_seen()?);
        Ok(meter::now_us() > killed_us + BETWEEN.as_micros() as u64 && !seen.is_empty())
    })?;
    // What the old generation still committed comes before the longest silence.
    let after: Vec<u64> = seen.iter().map(|seen| seen.at_us).filter(|at| *at > killed_us).collect();
    let gaps = std::iter::once(&killed_us).chain(&after).zip(&after);
    let (_, first_us) = gaps.max_by_key(|(from, to)| *to - *from).context("nothing came after the kill")?;
    let events: Vec<Event> =
        stages::read(running.log())?.into_iter().filter(|e| (killed_us..*first_us).contains(&e.at_us)).collect();
    let mut reached: Vec<(String, Duration)> = Vec::new();
    for event in events.iter().filter(|event| STAGES.contains(&event.message.as_str())) {
        let at = Duration::from_micros(event.at_us - killed_us);
        // What several processes or workers say counts when the last of them says it.
        match reached.iter_mut().find(|(name, _)| *name == event.message) {
            Some((_, last)) => *last = at,
            None => reached.push((event.message.clone(), at)),
        }
    }
    reached.sort_by_key(|(_, at)| *at);
    Ok((Duration::from_micros(first_us - killed_us), reached))
}
