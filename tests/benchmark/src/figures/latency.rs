//! From produce to visible: a keyed count and sum, with numbers or texts as keys, beside a loop that passes its input through.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use fluvial_kafka_apache::child::Folder;

use super::{quantile, stages};
use crate::kafka;
use crate::kafka::feed::{Fed, Feed};
use crate::kafka::view::{Seen, View};
use crate::report::{Aim, Report, Value};
use crate::running::{Running, pause_whole};
use crate::subject::bare_loop::{self, Work};
use crate::subject::{job, meter};

/// How many keys there are.
const KEYS: u64 = 1_000_000;
/// How long the keys are that are texts.
const KEY_BYTES: usize = 36;
/// Records a second.
const RATE: u64 = 20_000;
/// How long the input flows before the measurement begins.
const WARM: Duration = Duration::from_secs(10);
/// How long is measured.
const MEASURED: Duration = Duration::from_secs(25);
/// How often a job runs with metrics and without.
const METRICS_TURNS: u32 = 3;
/// The workers of that job.
const METRICS_WORKERS: u32 = 2;
/// Records from mark to mark: four a second.
const STEP: u64 = RATE / 4;

/// With numbers as keys.
pub(crate) fn measure() -> Result<Report> {
    measure_of(Fed::Payments, "numbers as keys, a checkpoint each 10 s")
}

/// With texts as keys.
pub(crate) fn measure_texts() -> Result<Report> {
    measure_of(Fed::Sales(KEY_BYTES), "texts of 36 bytes as keys, a checkpoint each second")
}

fn measure_of(fed: Fed, keys: &str) -> Result<Report> {
    let kafka = kafka::start_with_each_key(KEYS, fed)?;
    let brokers = kafka.bootstrap();
    let mut input = Input { brokers, fed, produced: KEYS };
    let before = bare(&mut input, "bare-1")?;
    let (ours, cores, stages) = engine(&mut input)?;
    let after = bare(&mut input, "bare-2")?;
    let mut theirs = [before.clone(), after.clone()].concat();
    theirs.sort_unstable();
    let mut report = Report::new(format!(
        "Produce to visible, {} k records/s, ticks of 10 ms, {} M {keys}, local store with fsync",
        RATE / 1000,
        KEYS / 1_000_000
    ));
    for (name, at) in [("p50", 0.5), ("p99", 0.99)] {
        report.compare(name, time(quantile(&ours, at)), time(quantile(&theirs, at)), Aim::AtMost(1.5));
    }
    report.show("CPU", Value::Core(cores));
    for (name, median, p99) in stages {
        report.show(format!("{name}, p50"), time(median));
        report.show(format!("{name}, p99"), time(p99));
    }
    let both =
        |times: &[u64]| format!("{:.1}/{:.1}", quantile(times, 0.5) as f64 / 1e3, quantile(times, 0.99) as f64 / 1e3);
    report.note(format!("the pass-through before and after, p50/p99 ms: {} and {}", both(&before), both(&after)));
    Ok(report)
}

/// The same by how many workers the job's one process has, with the CPU that it takes.
pub(crate) fn measure_workers() -> Result<Report> {
    let kafka = kafka::start_with_each_key(KEYS, Fed::Payments)?;
    let mut input = Input { brokers: kafka.bootstrap(), fed: Fed::Payments, produced: KEYS };
    let mut report = Report::new(format!(
        "A busy job by its number of workers, {} k records/s, ticks of 10 ms, {} partitions, {} M keys",
        RATE / 1000,
        kafka::PARTITIONS,
        KEYS / 1_000_000
    ));
    for workers in [1, 8, 24] {
        eprintln!("  {workers} workers");
        let folder = Folder::new("fluvial-benchmark-")?;
        let name = format!("totals-{workers}");
        let flow = start_engine(&mut input, folder.path(), &name, workers, &[], stages::SELDOM)?.1;
        let s = if workers == 1 { "" } else { "s" };
        report.show(format!("{workers} worker{s}: p50"), time(quantile(&flow.times_us, 0.5)));
        report.show(format!("{workers} worker{s}: p99"), time(quantile(&flow.times_us, 0.99)));
        report.show(format!("{workers} worker{s}: CPU"), Value::Core(flow.cores));
    }
    report.note("from produce to visible; the CPU is that of both processes, in cores");
    report.note("FLUVIAL_JOB_BINARIES=FOLDER measures the fluvial-benchmark of another build");
    Ok(report)
}

/// What it costs to measure what operators do: the same job in turns with and without.
pub(crate) fn measure_metrics() -> Result<Report> {
    let kafka = kafka::start_with_each_key(KEYS, Fed::Payments)?;
    let mut input = Input { brokers: kafka.bootstrap(), fed: Fed::Payments, produced: KEYS };
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for turn in 0..METRICS_TURNS {
        // With, without, without, with: a trend of the machine adds to both equally.
        for measures in if turn % 2 == 0 { [true, false] } else { [false, true] } {
            eprintln!("  turn {} of {METRICS_TURNS}, {}", turn + 1, if measures { "with" } else { "without" });
            let folder = Folder::new("fluvial-benchmark-")?;
            let more: &[&str] = if measures { &[] } else { &["--without-metrics"] };
            let name = format!("totals-{turn}-{measures}");
            let flow = start_engine(&mut input, folder.path(), &name, METRICS_WORKERS, more, stages::SELDOM)?.1;
            if measures { &mut with } else { &mut without }.push(flow.cores);
        }
    }
    let mean = |cores: &[f64]| cores.iter().sum::<f64>() / cores.len() as f64;
    let mut report = Report::new(format!(
        "A busy job that measures its operators, {} k records/s, ticks of 10 ms, {METRICS_WORKERS} workers",
        RATE / 1000,
    ));
    report.compare("CPU", Value::Core(mean(&with)), Value::Core(mean(&without)), Aim::AtMost(1.02));
    let list = |cores: &[f64]| cores.iter().map(|cores| format!("{cores:.3}")).collect::<Vec<_>>().join(", ");
    report.note(format!("in cores, each turn: with {}; without {}", list(&with), list(&without)));
    Ok(report)
}

fn time(us: u64) -> Value {
    Value::Time(Duration::from_micros(us))
}

struct Input<'a> {
    brokers: &'a str,
    fed: Fed,
    produced: u64,
}

/// What was seen while the input flowed.
struct Flow {
    /// From produce to visible for each payment that was seen, sorted.
    times_us: Vec<u64>,
    /// From when to when it was measured.
    measured_us: Range<u64>,
    /// The CPU time of all of the subject's processes for each second.
    cores: f64,
}

impl Input<'_> {
    fn flow(&mut self, running: &Running, output: &str, sums: bool) -> Result<Flow> {
        let base_us = meter::now_us();
        let view = View::start(self.brokers, output, KEYS, sums, base_us)?;
        let produced = self.produced;
        running.wait_until("all that was produced is out", Duration::from_secs(60), |_| {
            Ok(view.payments()? >= produced)
        })?;
        let feed = Feed::start(self.brokers, self.fed, produced, KEYS, RATE, base_us)?;
        pause_whole(WARM);
        view.take_seen()?;
        let (from, cpu) = (meter::now_us(), running.cpu());
        pause_whole(MEASURED);
        let seen: Vec<Seen> = view.take_seen()?;
        let (to, cpu) = (meter::now_us(), running.cpu() - cpu);
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
        let cores = cpu.as_secs_f64() / ((to - from) as f64 / 1e6);
        Ok(Flow { times_us: times, measured_us: from..to, cores })
    }
}

fn bare(input: &mut Input<'_>, output: &str) -> Result<Vec<u64>> {
    eprintln!("  theirs");
    let folder = Folder::new("fluvial-benchmark-")?;
    kafka::make_topic(input.brokers, output)?;
    let work = match input.fed {
        Fed::Payments => Work::Pass,
        Fed::Sales(_) => Work::PassSales,
    };
    let arguments = bare_loop::arguments(work, input.brokers, output, STEP);
    let running = Running::start(bare_loop::NAME, &arguments, folder.path(), "info")?;
    Ok(input.flow(&running, output, false)?.times_us)
}

/// The name of a stage, its median and its 99th percentile, microseconds.
type Stage = (&'static str, u64, u64);

/// The times of records, the cores that it took, and the stages.
fn engine(input: &mut Input<'_>) -> Result<(Vec<u64>, f64, Vec<Stage>)> {
    eprintln!("  ours");
    let folder = Folder::new("fluvial-benchmark-")?;
    let (running, flow) = start_engine(input, folder.path(), "totals-1", 1, &[], stages::ALL)?;
    let (times, cores, measured) = (flow.times_us, flow.cores, flow.measured_us);
    let events = stages::read(running.log())?;
    let mut all = Vec::new();
    let ages =
        running.marks()?.into_iter().filter(|mark| measured.contains(&mark.at_us)).filter_map(|mark| mark.age_ms);
    all.push(stage("produce → read", ages.map(|ms| ms * 1000).collect()));
    let within: Vec<_> = events.into_iter().filter(|event| measured.contains(&event.at_us)).collect();
    all.extend(stages_of_ticks(&within)?);
    Ok((times, cores, all))
}

/// Starts the job and lets the input flow through it. `more` are further options; `logs` is what `RUST_LOG` is set to.
fn start_engine(
    input: &mut Input<'_>,
    folder: &Path,
    name: &str,
    workers: u32,
    more: &[&str],
    logs: &str,
) -> Result<(Running, Flow)> {
    let (job, mut arguments) = match input.fed {
        Fed::Payments => (job::TOTALS, job::totals_arguments(folder, input.brokers, name, STEP)),
        Fed::Sales(_) => (job::SALES, job::arguments_of(job::SALES, folder, input.brokers, name, STEP, "1s")),
    };
    arguments.extend(["--workers", &workers.to_string(), "--name", name].map(str::to_owned));
    arguments.extend(more.iter().map(|option| (*option).to_owned()));
    let running = Running::start(job, &arguments, folder, logs)?;
    running.wait_for_records(KEYS, Duration::from_secs(60))?;
    let flow = input.flow(&running, name, true)?;
    Ok((running, flow))
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
        said("handing records to librdkafka", "acknowledged", "handed_us"),
        said("waiting for their acknowledgement", "acknowledged", "acknowledged_us"),
        said("writing progress", "written", "progress_us"),
        between("waiting for the turn to commit", "prepared", "commit"),
        between("EndTxn", "commit", "committed"),
        between("mint → committed", "minted", "committed"),
    ])
}
