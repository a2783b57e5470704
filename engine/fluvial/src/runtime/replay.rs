//! Runs a job over its kept journal, in this process, writing nothing: the same records come out as when it ran.
//!
//! ```text
//!   journal ──► Script: plan, ends ──► worker loop (worker.rs) ──► Inbox ──complete ticks──► Printer ──► stdout
//! ```
//!
//! People debug with a replay, and tests compare a disturbed run with it. It is a mode of the worker loop: the plan
//! holds all of the journal's bindings, to be replayed as after a crash without a checkpoint, and there is no leader
//! that would mint more. The replay ends when the output of the last binding has been printed.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use fluvial_connector::{Digest, Generation, OutputBlock, OutputPartition, Tick};
use fluvial_protocol::journal::{Nonce, Seq};
use fluvial_protocol::{Exit, History, Plan, System};
use fluvial_store::Store;
use serde::Serialize;

use super::Build;
use super::config::ReplayConfig;
use super::failure::Failure;
use super::inbox::Inbox;
use super::leader::Ends;
use super::panics;
use super::plan::plan;
use super::process::{Mode, Shared, start_workers};
use super::pulse::Pulses;
use super::source::Volume;
use fluvial_node::job_store::JobStore;

/// How long to wait for a source that is unavailable.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much input waits for its tick at the most, on all workers.
const MOST_WAITING_BYTES: u64 = 256 << 20;

/// Replays the job and prints its output to stdout, one JSON object a line. Records of one partition come in their
/// order.
///
/// # Errors
/// The journal is not whole, the input is not what it was, or the job fails.
pub(crate) fn replay(build: &Build, config: &ReplayConfig) -> Result<(), Failure> {
    let store = Store::open(&config.store).map_err(|error| Failure::of(System::Store, error))?;
    let store = JobStore::new(store, &config.job);
    let script = Script::read(&store, config)?;
    let topology = plan(build).map_err(|error| Failure::new(Exit::Misconfigured, error))?;
    let threads = config.workers as usize;
    let shared = Shared {
        build: Arc::clone(build),
        sources: topology.sources,
        most_waiting: Volume { records: u64::MAX, bytes: MOST_WAITING_BYTES / u64::from(config.workers) },
        patience: PATIENCE,
        inbox: Arc::new(Inbox::new(threads)),
        pulses: Pulses::new(threads),
        threads,
        mode: Mode::Replay(Box::new(script)),
    };
    panics::end_the_command_on_panic();
    let (tell, ended) = channel();
    let guards = start_workers(shared, 0, vec![None], move |result| tell.send(result).unwrap_or_default())?;
    for _ in 0..threads {
        if let Ok(Err(failure)) = ended.recv() {
            // The other workers may wait for this one for ever. They end with the command.
            std::mem::forget(guards);
            return Err(failure);
        }
    }
    drop(guards);
    Ok(())
}

/// The ticks to replay, and how their output is printed.
pub(crate) struct Script {
    /// The whole journal, to be replayed over empty state.
    pub(crate) plan: Plan,
    /// Where the journal's bindings end in each split. The replay reads no later records.
    pub(crate) ends: Ends,
    /// Whether to print digests in place of records.
    digest: bool,
}

impl Script {
    fn read(store: &JobStore, config: &ReplayConfig) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::of_host)?;
        let records = runtime.block_on(async {
            let seqs = store.list_journal(None).await?;
            let records = store.get_records(seqs).await?;
            Ok(records.into_iter().filter_map(|(seq, record)| Some((seq, record?))).collect::<BTreeMap<Seq, _>>())
        });
        let records = records.map_err(|error| Failure::of(System::Store, error))?;
        let none = || anyhow::anyhow!("the store has no journal of this job; is --store or --name wrong?");
        let first = records.values().next().ok_or_else(|| Failure::new(Exit::Failed, none()))?;
        let history = History::fold(first.incarnation, &records, None).map_err(|ended| {
            let what = "the journal does not reach back to its beginning (run the job with --keep-journal from its first \
                        start to replay it later), or the job has gone back to a savepoint since, which a replay cannot pass";
            Failure::new(ended.exit(), anyhow::Error::new(ended).context(what))
        })?;
        let mut replay = history.replay;
        replay.retain(|binding| config.until.is_none_or(|until| binding.tick <= until));
        let splits: Vec<_> = history.splits.into_values().map(|split| split.start).collect();
        let mut ends: BTreeMap<_, _> = splits.iter().map(|start| (start.number, start.offset)).collect();
        for range in replay.iter().flat_map(|binding| &binding.ranges) {
            ends.entry(range.split).and_modify(|end| *end = range.to.max(*end));
        }
        let ends = splits.iter().map(|start| (start.name(), ends[&start.number])).collect();
        let plan = Plan {
            incarnation: first.incarnation,
            generation: Generation(0),
            nonce: Nonce::of_run(0, 0),
            most_slots: 0,
            most_turns: 0,
            checkpoint: None,
            splits,
            replay,
            sinks: history.sinks,
            reconciliation: None,
            compare_outputs: None,
            cannot_correct: Some("`replay` shows the output of each tick as it was".to_owned()),
        };
        Ok(Self { plan, ends, digest: config.digest })
    }

    /// Creates the printer of the output, for the first worker.
    pub(crate) fn printer(&self) -> Printer {
        Printer { last: self.plan.sealed(), digests: self.digest.then(BTreeMap::new), ended: false }
    }
}

/// Prints the output.
pub(crate) struct Printer {
    /// The last tick of the replay.
    last: Tick,
    /// The digest of each output partition and the number of its records, if these are printed in place of the records.
    digests: Option<BTreeMap<OutputPartition, (Digest, u64)>>,
    ended: bool,
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
struct DigestLine<'a> {
    output: &'a str,
    partition: u32,
    records: u64,
    digest: Digest,
}

impl Printer {
    /// Takes the ticks that are complete. Returns the last tick, once, when it is among them.
    ///
    /// # Errors
    /// Nobody reads stdout any more, or it cannot be written.
    pub(crate) fn print(&mut self, inbox: &Inbox) -> Result<Option<Tick>, Failure> {
        let (ticks, upper) = inbox.take(Tick(u64::MAX));
        let ends = !self.ended && upper > self.last.0;
        self.ended |= ends;
        if ticks.is_empty() && !ends {
            return Ok(None);
        }
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        let failed = |error: std::io::Error| Failure::new(Exit::Failed, error);
        for (tick, mut partitions) in ticks {
            partitions.sort_by(|(one, _), (other, _)| one.cmp(other));
            for (at, records) in partitions {
                match &mut self.digests {
                    None => print_records(&mut out, tick, &at, records.block()).map_err(failed)?,
                    Some(digests) => {
                        let (digest, count) = digests.entry(at).or_default();
                        *digest = digest.chain(tick, records.sum());
                        *count += records.len() as u64;
                    }
                }
            }
        }
        if ends {
            for (at, (digest, records)) in self.digests.iter().flatten() {
                let line =
                    DigestLine { output: &at.output, partition: at.partition, records: *records, digest: *digest };
                print_line(&mut out, &line).map_err(failed)?;
            }
        }
        out.flush().map_err(failed)?;
        Ok(ends.then_some(self.last))
    }
}

fn print_records(out: &mut impl Write, tick: Tick, at: &OutputPartition, records: &OutputBlock) -> std::io::Result<()> {
    for record in records.iter() {
        let key = String::from_utf8_lossy(record.key);
        let value = record.value.map(String::from_utf8_lossy);
        print_line(out, &Line { tick, output: &at.output, partition: at.partition, key, value })?;
    }
    Ok(())
}

fn print_line(out: &mut impl Write, line: &impl Serialize) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
