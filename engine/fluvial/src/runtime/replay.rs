//! Runs a job over its kept journal, in this process, writing nothing: the same records come out as when it ran.
//!
//! It is what a person debugs with, and what tests compare a disturbed run against.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use fluvial_connector::{Digest, OutputPartition, OutputRecord, Tick, Waker};
use fluvial_protocol::journal::{Binding, Seq, SinkStart, SplitStart};
use fluvial_protocol::{Compare, History};
use serde::Serialize;
use timely::worker::Worker;

use super::config::ReplayConfig;
use super::failure::Failure;
use super::leader::BETWEEN_LOOKS;
use super::panics;
use super::source::{ReadOptions, SourceDriver, Volume};
use super::unavailable::LOOK_AGAIN;
use super::{Build, ambient};
use crate::durable::Durables;
use crate::job::output::OutputQueue;
use crate::job::{Job, Situation};
use crate::journal::JobStore;
use crate::stream::context;

/// What there is to replay.
struct Script {
    splits: Vec<SplitStart>,
    bindings: Vec<Binding>,
    sinks: Vec<SinkStart>,
}

/// A record of the output, as it is printed.
#[derive(Serialize)]
struct Line<'a> {
    tick: Tick,
    output: &'a str,
    partition: u32,
    key: std::borrow::Cow<'a, str>,
    value: Option<std::borrow::Cow<'a, str>>,
}

/// The digest of an output partition, as it is printed.
#[derive(Serialize)]
struct DigestLine {
    output: String,
    partition: u32,
    records: u64,
    digest: Digest,
}

/// How long to wait for a source that is unavailable.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much input waits for its tick at the most, on all workers.
const MOST_WAITING_BYTES: u64 = 256 << 20;

/// Replays, and prints to stdout, one JSON object a line; records of one partition come in their order.
///
/// # Errors
/// The journal is not whole, the input is not what it was, or the job fails.
pub(crate) fn replay(build: &Build, config: &ReplayConfig) -> anyhow::Result<()> {
    let store = JobStore::open(&config.store, &config.job)?;
    let script = Arc::new(read_journal(&store, config.until)?);
    let digests: Arc<Mutex<Vec<DigestLine>>> = Arc::default();
    let (all, build, print) = (Arc::clone(&digests), Arc::clone(build), !config.digest);
    let processes = timely::Config::process(config.workers as usize);
    panics::end_the_command_on_panic();
    let guards = timely::execute(processes, move |worker| -> anyhow::Result<()> {
        let of_worker = replay_on(worker, &build, &script, print)?;
        all.lock().unwrap_or_else(PoisonError::into_inner).extend(of_worker);
        Ok(())
    })
    .map_err(anyhow::Error::msg)?;
    for result in guards.join() {
        result.map_err(anyhow::Error::msg)??;
    }
    if config.digest {
        let mut digests = std::mem::take(&mut *digests.lock().unwrap_or_else(PoisonError::into_inner));
        digests.sort_by(|a, b| (&a.output, a.partition).cmp(&(&b.output, b.partition)));
        let mut out = std::io::stdout().lock();
        for line in digests {
            serde_json::to_writer(&mut out, &line).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
    }
    Ok(())
}

fn read_journal(store: &JobStore, until: Option<Tick>) -> anyhow::Result<Script> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let records: BTreeMap<Seq, _> = runtime.block_on(async {
        let seqs = store.list_journal().await?;
        let records = store.get_records(seqs).await?;
        Ok::<_, fluvial_connector::Error>(records.into_iter().filter_map(|(seq, r)| Some((seq, r?))).collect())
    })?;
    let first = records.values().next().context("the store has no journal of this job; is --store or --name wrong?")?;
    let history = History::fold(first.incarnation, &records, None).context(
        "the journal does not reach back to its beginning: run the job with --keep-journal from its first \
             start to replay it later",
    )?;
    let mut bindings = history.replay;
    bindings.retain(|binding| until.is_none_or(|until| binding.tick <= until));
    Ok(Script { splits: history.splits.into_values().map(|s| s.start).collect(), bindings, sinks: history.sinks })
}

fn replay_on(worker: &mut Worker, build: &Build, script: &Script, print: bool) -> anyhow::Result<Vec<DigestLine>> {
    let index = u32::try_from(worker.index())?;
    let workers = u32::try_from(worker.peers())?;
    context::this_is_worker(index);
    let thread = std::thread::current();
    let waker = Waker::new(move || thread.unpark());
    let durables = Durables::new(index, workers, None);
    let partitions: BTreeMap<String, u32> = script.sinks.iter().map(|s| (s.output.clone(), s.partitions)).collect();
    let situation = Situation {
        partitions: Box::new(move |output| partitions.get(output).copied().unwrap_or(1)),
        skip_through: None,
    };
    let declared = worker.dataflow::<u64, _, _>(|scope| {
        let mut job = Job::new(scope, durables.clone(), situation);
        build(&mut job)?;
        anyhow::Ok(job.finish())
    })?;
    durables.built()?;
    let options = ReadOptions {
        most_waiting: Volume { records: u64::MAX, bytes: MOST_WAITING_BYTES / u64::from(workers) },
        compare: Compare::All,
        cannot_correct: Some("`replay` shows the output of each tick as it was".to_owned()),
        patience: PATIENCE,
        between_looks: BETWEEN_LOOKS,
    };
    let failed = |failure: Failure| failure.error;
    let mut outputs = Outputs {
        queues: declared.outputs.into_iter().map(|o| (o.spec.name, o.queue)).collect(),
        digests: BTreeMap::new(),
        print,
    };
    let mut source = SourceDriver::new(index, workers, options, None, declared.sources, &waker).map_err(failed)?;
    source.look().map_err(failed)?;
    source.begin_after(Tick(0));
    for start in &script.splits {
        source.begin(start, None).map_err(failed)?;
    }
    source.replay(&script.bindings).map_err(failed)?;
    while !source.look_again().map_err(failed)? {
        ambient::pause(LOOK_AGAIN);
    }
    let mut ahead: BTreeSet<u64> = BTreeSet::new();
    while !source.replayed() {
        let more = source.read().map_err(failed)?;
        // A few ticks at once in the dataflow are enough to keep it busy.
        while ahead.len() < 64
            && let Some(binding) = source.replay_next()
        {
            ahead.insert(binding.tick.0);
        }
        let park = if more { Duration::ZERO } else { Duration::from_millis(100) };
        worker.step_or_park(Some(park));
        let upper = outputs.take()?;
        context::left(Tick(upper.map_or(u64::MAX, |upper| upper.saturating_sub(1))));
        ahead = upper.map_or_else(BTreeSet::new, |upper| ahead.split_off(&upper));
        if let Some(error) = durables.failure() {
            return Err(error.into());
        }
    }
    drop(source);
    while outputs.take()?.is_some() {
        worker.step_or_park(None);
        if let Some(error) = durables.failure() {
            return Err(error.into());
        }
    }
    Ok(outputs
        .digests
        .into_iter()
        .map(|(at, (digest, records))| DigestLine { output: at.output, partition: at.partition, records, digest })
        .collect())
}

/// What comes out, on one worker.
struct Outputs {
    queues: Vec<(String, Rc<RefCell<OutputQueue>>)>,
    digests: BTreeMap<OutputPartition, (Digest, u64)>,
    print: bool,
}

impl Outputs {
    /// Takes what is complete; returns the first tick that is not, `None` when all is.
    fn take(&mut self) -> anyhow::Result<Option<u64>> {
        let mut first: Option<u64> = None;
        for (output, queue) in &self.queues {
            let mut queue = queue.borrow_mut();
            if let Some(error) = queue.failed.take() {
                return Err(error.into());
            }
            for tick in queue.ready.drain(..) {
                for (partition, records) in tick.partitions {
                    let at = OutputPartition { output: output.clone(), partition };
                    let (digest, count) = self.digests.entry(at).or_default();
                    *digest = digest.chain(tick.tick, records.sum());
                    *count += records.len() as u64;
                    if self.print {
                        print(tick.tick, output, partition, records.records())?;
                    }
                }
            }
            first = match (first, queue.upper) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        Ok(first)
    }
}

fn print(tick: Tick, output: &str, partition: u32, records: &[OutputRecord]) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for record in records {
        let key = String::from_utf8_lossy(&record.key);
        let value = record.value.as_deref().map(String::from_utf8_lossy);
        serde_json::to_writer(&mut out, &Line { tick, output, partition, key, value })?;
        out.write_all(b"\n")?;
    }
    out.flush()
}
