//! From produce to visible: a keyed count and sum, beside a loop that passes its input through.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use fluvial_kafka_apache::child::Folder;

use super::{quantile, stages};
use crate::kafka;
use crate::kafka::feed::Feed;
use crate::kafka::view::{Seen, View};
use crate::report::{Aim, Report, Value};
use crate::running::{Running, pause_whole};
use crate::subject::{bare_loop, job, meter};

/// How many keys there are.
const KEYS: u64 = 1_000_000;
/// Records a second.
const RATE: u64 = 20_000;
/// How long the input flows before the measurement begins.
const WARM: Duration = Duration::from_secs(10);
/// How long is measured.
const MEASURED: Duration = Duration::from_secs(25);
/// Records from mark to mark: four a second.
const STEP: u64 = RATE / 4;

pub(crate) fn measure() -> Result<Report> {
    let kafka = kafka::start_with_each_key(KEYS)?;
    let brokers = kafka.bootstrap();
    let mut input = Input { brokers, produced: KEYS };
    let before = bare(&mut input, "bare-1")?;
    let (ours, stages) = engine(&mut input)?;
    let after = bare(&mut input, "bare-2")?;
    let mut theirs = [before.clone(), after.clone()].concat();
    theirs.sort_unstable();
    let mut report = Report::new(format!(
        "Produce to visible, {} k records/s, ticks of 10 ms, {} M keys, local store with fsync",
        RATE / 1000,
        KEYS / 1_000_000
    ));
    for (name, at) in [("p50", 0.5), ("p99", 0.99)] {
        report.compare(name, time(quantile(&ours, at)), time(quantile(&theirs, at)), Aim::AtMost(1.5));
    }
    for (name, median, p99) in stages {
        report.show(format!("{name}, p50"), time(median));
        report.show(format!("{name}, p99"), time(p99));
    }
    let both =
        |times: &[u64]| format!("{:.1}/{:.1}", quantile(times, 0.5) as f64 / 1e3, quantile(times, 0.99) as f64 / 1e3);
    report.note(format!("the pass-through before and after, p50/p99 ms: {} and {}", both(&before), both(&after)));
    Ok(report)
}

fn time(us: u64) -> Value {
    Value::Time(Duration::from_micros(us))
}

struct Input<'a> {
    brokers: &'a str,
    produced: u64,
}

impl Input<'_> {
    /// The times of all payments that were seen while it was measured, sorted, and from when to when that was.
    fn flow(&mut self, running: &Running, output: &str, sums: bool) -> Result<(Vec<u64>, std::ops::Range<u64>)> {
        let base_us = meter::now_us();
        let view = View::start(self.brokers, output, KEYS, sums, base_us)?;
        let produced = self.produced;
        running.wait_until("all that was produced is out", Duration::from_secs(60), |_| {
            Ok(view.payments()? >= produced)
        })?;
        let feed = Feed::start(self.brokers, produced, KEYS, RATE, base_us)?;
        pause_whole(WARM);
        view.take_seen()?;
        let from = meter::now_us();
        pause_whole(MEASURED);
        let seen: Vec<Seen> = view.take_seen()?;
        let to = meter::now_us();
        self.produced += feed.stop()?;
        running.check()?;
        let mut times: Vec<u64> = seen.iter().filter_map(|seen| seen.after_us).collect();
        let expected = RATE * MEASURED.as_secs();
        anyhow::ensure!(
            times.len() as u64 > expected * 8 / 10,
            "only {} of {expected} payments were seen",
            times.len()
        );
        times.sort_unstable();
        Ok((times, from..to))
    }
}

fn bare(input: &mut Input<'_>, output: &str) -> Result<Vec<u64>> {
    eprintln!("  theirs");
    let folder = Folder::new("fluvial-benchmark-")?;
    kafka::make_topic(input.brokers, output)?;
    let arguments = bare_loop::arguments(input.brokers, output, STEP);
    let running = Running::start(bare_loop::NAME, &arguments, folder.path(), "info")?;
    Ok(input.flow(&running, output, false)?.0)
}

/// The name of a stage, its median and its 99th percentile, microseconds.
type Stage = (&'static str, u64, u64);

fn engine(input: &mut Input<'_>) -> Result<(Vec<u64>, Vec<Stage>)> {
    eprintln!("  ours");
    let folder = Folder::new("fluvial-benchmark-")?;
    let arguments = job::totals_arguments(folder.path(), input.brokers, "totals", STEP);
    let running = Running::start(job::TOTALS, &arguments, folder.path(), stages::ALL)?;
    running.wait_for_records(KEYS, Duration::from_secs(60))?;
    let (times, measured) = input.flow(&running, "totals", true)?;
    let events = stages::read(running.log())?;
    let mut all = Vec::new();
    let ages =
        running.marks()?.into_iter().filter(|mark| measured.contains(&mark.at_us)).filter_map(|mark| mark.age_ms);
    all.push(stage("produce → read", ages.map(|ms| ms * 1000).collect()));
    let within: Vec<_> = events.into_iter().filter(|event| measured.contains(&event.at_us)).collect();
    all.extend(stages_of_ticks(&within)?);
    Ok((times, all))
}

fn stage(name: &'static str, mut times: Vec<u64>) -> Stage {
    times.sort_unstable();
    (name, quantile(&times, 0.5), quantile(&times, 0.99))
}

/// What each stage of a tick took: between two events of the tick, or as an event says itself.
fn stages_of_ticks(events: &[stages::Event]) -> Result<Vec<Stage>> {
    let mut ticks: BTreeMap<u64, BTreeMap<&str, u64>> = BTreeMap::new();
    for event in events {
        if let Some(tick) = event.number("tick") {
            ticks.entry(tick).or_default().entry(event.message.as_str()).or_insert(event.at_us);
        }
    }
    anyhow::ensure!(!ticks.is_empty(), "the job's log says nothing of its ticks");
    let between = |name, from: &str, to: &str| {
        let times = ticks.values().filter_map(|at| at.get(to)?.checked_sub(*at.get(from)?));
        stage(name, times.collect())
    };
    let said = |name, message: &str, field: &str| {
        stage(name, events.iter().filter(|e| e.message == message).filter_map(|e| e.number(field)).collect())
    };
    let mints: Vec<u64> = ticks.values().filter_map(|at| at.get("minted").copied()).collect();
    let apart = mints.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
    let last = ticks.values().filter_map(|at| at.get("committed")).max().context("no tick was committed")?;
    anyhow::ensure!(*last > 0, "no tick was committed");
    Ok(vec![
        stage("from tick to tick", apart),
        between("mint → durable in the journal", "minted", "sealed"),
        between("mint → out of the dataflow, encoded", "minted", "complete"),
        between("of which encoding", "encode", "encoded"),
        between("mint → begin of its transaction", "minted", "prepare"),
        said("handing records to librdkafka", "written", "handed_us"),
        said("waiting for their acknowledgement", "written", "acknowledged_us"),
        said("writing progress", "written", "progress_us"),
        between("waiting for the turn to commit", "prepared", "commit"),
        between("EndTxn", "commit", "committed"),
        between("mint → committed", "minted", "committed"),
    ])
}
