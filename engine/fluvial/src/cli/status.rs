//! The command `status`, which says how a job is that several copies run together.

use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use comfy_table::{CellAlignment, Table, presets};
use fluvial_node::group::GroupJournal;
use fluvial_node::links::ask_for_report;
use fluvial_node::status::{Progress, Report, Stored};
use fluvial_node::trust::{Trust, TrustOptions};
use fluvial_protocol::group::GroupRecord;
use fluvial_store::Store;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::StoreOptions;
use crate::state::list;
use fluvial_node::job_store::JobStore;

/// How many copies are asked. Each asks the others that know more.
const MOST_ASKED: usize = 5;
/// The characters of a version that are enough to tell it from others.
const VERSION_SHOWN: usize = 8;

/// The options of `status`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct StatusOptions {
    /// The options for the store and the job's name.
    #[command(flatten)]
    pub(super) store: StoreOptions,

    /// Print JSON instead of tables
    #[arg(long)]
    pub(super) json: bool,

    /// By what the copies know who may ask them.
    #[command(flatten)]
    trust: TrustOptions,
}

/// Asks a copy of the job for its status, or reads the store if none answers, and prints it.
pub(super) fn print(options: &StatusOptions, job: &str) -> anyhow::Result<()> {
    let job = &options.store.job(job);
    let trust = options.trust.open().map_err(|error| super::Usage(format!("{:#}", anyhow::Error::new(error))))?;
    let store = Store::open(&options.store.store)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(report(&store, job, &trust))?;
    let Some(report) = report else {
        bail!("'{}' holds nothing of job '{job}'; are --store and --name right?", options.store.store);
    };
    let mut out = std::io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", describe(&report))?;
    }
    Ok(())
}

/// What the copies know, or what the store holds; `None` if that is nothing.
async fn report(store: &Store, job: &str, trust: &Trust) -> anyhow::Result<Option<Report>> {
    let record = GroupJournal::new(store.clone(), job).newest().await?.map(|(_, record)| record);
    let mut unanswered = Vec::new();
    if let Some(record) = &record {
        match ask(record, job, trust).await {
            Ok(report) => return Ok(Some(report)),
            Err(errors) => unanswered = errors,
        }
    }
    let stored = stored(&JobStore::new(store.clone(), job)).await?;
    if record.is_none() && stored.is_none() {
        return Ok(None);
    }
    let mut report = Report::of_store(job.to_owned(), store.describe().to_owned(), record.as_ref());
    if !unanswered.is_empty() && record.is_some_and(|record| record.jobs.get(job).is_none_or(|of| of.outcome.is_none()))
    {
        let hint = if trust.tls().is_some() {
            ""
        } else {
            "; if the copies have a cluster key or certificates, give the options for them here, too"
        };
        report.why = format!("no copy answers: {}{hint}", unanswered.join("; "));
    }
    report.stored = stored;
    Ok(Some(report))
}

/// The addresses at which a copy may answer: the coordinator's, and those of the copies that run the job.
fn addresses(record: &GroupRecord) -> Vec<&str> {
    let attempts = record.jobs.values().filter_map(|job| job.attempt.as_ref());
    let places = attempts.flat_map(|attempt| &attempt.placement.places).map(|(node, _)| node);
    let mut addresses = Vec::new();
    for node in std::iter::once(&record.coordinator).chain(places) {
        if !addresses.contains(&node.address.as_str()) {
            addresses.push(node.address.as_str());
        }
    }
    addresses.truncate(MOST_ASKED);
    addresses
}

/// Asks all of them at once, because one that is isolated answers late. The first that knows the coordinator of the newest term
/// counts, or else the one that knows most.
async fn ask(record: &GroupRecord, job: &str, trust: &Trust) -> Result<Report, Vec<String>> {
    let asked = addresses(record).into_iter().map(|address| async move {
        ask_for_report(address, trust, job).await.map_err(|error| format!("{address}: {error}"))
    });
    let mut answers: FuturesUnordered<_> = asked.collect();
    let (mut best, mut errors): (Option<Report>, _) = (None, Vec::new());
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(report) if report.workers_wanted.is_some() && report.term >= Some(record.term.0) => return Ok(report),
            Ok(report) if best.as_ref().is_none_or(|best| best.term < report.term) => best = Some(report),
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
    }
    best.ok_or(errors)
}

/// The end of the job's journal and its newest checkpoint; `None` if the store holds no journal.
async fn stored(store: &JobStore) -> anyhow::Result<Option<Stored>> {
    let Some(end) = store.list_journal(None).await?.last().copied() else { return Ok(None) };
    let Some(record) = store.get_record(end).await? else { return Ok(None) };
    let checkpoint = list(store).await?.last().map(|checkpoint| checkpoint.tick.0);
    Ok(Some(Stored { generation: record.generation.0, journal_end: end.0, checkpoint }))
}

/// The report for people.
fn describe(report: &Report) -> String {
    let mut lines = plain_table();
    let mut line = |name: &str, content: String| {
        lines.add_row([name.to_owned(), content]);
    };
    line("job", format!("{} in '{}'", report.job, report.store));
    line("state", report.summary());
    if let (Some(coordinator), Some(term)) = (&report.coordinator, report.term) {
        line("coordinator", format!("{coordinator}, term {term}"));
    }
    if let Some(attempt) = &report.attempt {
        let generation = attempt.generation.map_or(String::new(), |generation| format!(", generation {generation}"));
        let (workers, processes) = (attempt.workers, attempt.processes.len());
        line("attempt", format!("{}{generation}: {workers} workers in {processes} processes", attempt.number));
        line("it began", attempt.why.clone());
    }
    if let Some(progress) = &report.progress {
        describe_progress(progress, &mut line);
    }
    if let Some(requests) = report.members.iter().filter_map(|member| member.store_requests).reduce(u64::saturating_add)
    {
        line("requests", format!("{requests} to the store since these copies began"));
    }
    if let Some(stored) = &report.stored {
        let checkpoint = stored.checkpoint.map_or("none".to_owned(), |tick| format!("of tick {tick}"));
        line("checkpoint", checkpoint);
        line("journal", format!("ends at position {}, generation {}", stored.journal_end, stored.generation));
    }
    let mut text = format!("{lines}\n");
    if !report.members.is_empty() {
        text.push_str(&format!("\n{}\n", members(report)));
    }
    // The table pads its last column.
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn describe_progress(progress: &Progress, line: &mut impl FnMut(&str, String)) {
    let time = |ms: u64| humantime::format_duration(Duration::from_millis(ms)).to_string();
    let lag = progress.lag_records.map_or("unknown".to_owned(), |records| {
        let waited = progress.lag_ms.map_or(String::new(), |ms| format!(", {}", time(ms)));
        format!("{records} records{waited}")
    });
    line("lag", lag);
    let Progress { records_in_per_s, records_out_per_s, in_flight_bytes, .. } = progress;
    line("rates", format!("{records_in_per_s} records in and {records_out_per_s} out a second"));
    line("in flight", format!("{in_flight_bytes} bytes of input"));
    let Progress { minted, sealed, committed, .. } = progress;
    line("ticks", format!("minted {minted}, sealed {sealed}, committed {committed}"));
    let whole = |ms: u64| time(ms / 1000 * 1000);
    let checkpoint = progress.checkpoint.zip(progress.checkpoint_age_ms);
    line(
        "checkpoint",
        checkpoint.map_or("none".to_owned(), |(tick, age)| format!("of tick {tick}, {} ago", whole(age))),
    );
    if progress.foreign_records > 0 {
        line("foreign", format!("{} offsets of outputs are of other writers", progress.foreign_records));
    }
}

/// The copies, one a row, as people know it from `kubectl get`.
fn members(report: &Report) -> Table {
    let mut table = plain_table();
    table.set_header(["COPY", "STATE", "SLOTS", "PROCESSES", "VERSION", "HEARD", ""]);
    for member in &report.members {
        let processes: Vec<_> = member.processes.iter().map(ToString::to_string).collect();
        let version = member.version.as_deref().unwrap_or("-");
        let notes = [member.coordinates.then(|| "coordinates".to_owned()), member.why.clone()];
        table.add_row([
            member.node.clone(),
            member.state.clone(),
            member.slots.map_or("-".to_owned(), |slots| slots.to_string()),
            if processes.is_empty() { "-".to_owned() } else { processes.join(",") },
            version.chars().take(VERSION_SHOWN).collect(),
            member.silent_ms.map_or("never".to_owned(), |ms| format!("{}s ago", ms / 1000)),
            notes.into_iter().flatten().collect::<Vec<_>>().join("; "),
        ]);
    }
    if let Some(column) = table.column_mut(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_node::status::{AttemptReport, MemberReport, State};
    use fluvial_protocol::Exit;
    use fluvial_protocol::group::{JobRecord, NodeId, Outcome, Term};
    use fluvial_store::frame::Format;

    use super::*;

    fn member(node: &str, state: &str, processes: Vec<u32>) -> MemberReport {
        MemberReport {
            node: node.to_owned(),
            coordinates: node == "host-a:7401",
            version: Some("0123456789abcdef".to_owned()),
            slots: Some(2),
            state: state.to_owned(),
            why: (state == "unready").then(|| "no broker answers".to_owned()),
            silent_ms: Some(400),
            processes,
            store_requests: Some(200),
            labels: Default::default(),
            drain: None,
            slots_used: None,
            api: None,
            isolation: None,
        }
    }

    fn record(coordinator: &str, outcome: Option<Outcome>) -> GroupRecord {
        GroupRecord {
            nonce: 1,
            term: Term(4),
            coordinator: NodeId { address: coordinator.to_owned(), start: 1 },
            jobs: [("orders".to_owned(), JobRecord { outcome, ..JobRecord::new(1) })].into(),
            draining: Default::default(),
            clock_ms: 0,
            removing: Default::default(),
        }
    }

    #[tokio::test]
    async fn what_no_copy_says_is_read_from_the_store_and_never_looks_well() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap()).unwrap();
        let trust = TrustOptions::default().open().unwrap();
        let report = async || report(&store, "orders", &trust).await.unwrap();
        assert!(report().await.is_none(), "there is no such job");
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let write = async |position: u64, record: GroupRecord| {
            let name = store.path(&format!("orders/group/journal/{position:020}.json"));
            store.create_framed(Format { kind: "group", version: 1 }, &name, &record).await.unwrap();
        };
        write(0, record(&nobody, None)).await;
        let lost = report().await.unwrap();
        assert_eq!((lost.state, lost.term, lost.answered_by), (State::Unknown, Some(4), None));
        assert!(lost.why.contains("no copy answers") && lost.why.contains(&nobody), "{}", lost.why);
        write(1, record(&nobody, Some(Outcome { exit: Exit::Failed, why: "a bad record".to_owned() }))).await;
        let ended = report().await.unwrap();
        assert_eq!(ended.state, State::Failed);
        assert!(ended.why.contains("a bad record"), "{}", ended.why);
    }

    #[test]
    fn people_see_the_state_its_reason_and_every_copy() {
        let report = Report {
            job: "orders".to_owned(),
            store: "s3://bucket/fluvial".to_owned(),
            state: State::Stalled,
            why: "nothing has been committed for 12 s, although there is input".to_owned(),
            answered_by: Some("host-a:7401".to_owned()),
            coordinator: Some("host-a:7401".to_owned()),
            term: Some(3),
            attempt: Some(AttemptReport {
                number: 17,
                generation: Some(12),
                why: "node host-c:7401 was lost".to_owned(),
                version: "0123456789abcdef".to_owned(),
                workers: 2,
                processes: Vec::new(),
            }),
            wanted: None,
            returned: None,
            returns_to: None,
            limits: None,
            workers_wanted: Some(4),
            members: vec![member("host-a:7401", "ready", vec![0]), member("host-b:7401", "unready", Vec::new())],
            progress: Some(Progress { minted: 30, sealed: 20, committed: 10, ..Progress::default() }),
            memory_bytes: None,
            cpu_share: None,
            figures: None,
            stored: None,
        };
        let text = describe(&report);
        for line in [
            " state        stalled: nothing has been committed for 12 s, although there is input",
            " coordinator  host-a:7401, term 3",
            " attempt      17, generation 12: 2 workers in 0 processes",
            " lag          unknown",
            " ticks        minted 30, sealed 20, committed 10",
            " checkpoint   none",
            " requests     400 to the store since these copies began",
            " host-a:7401  ready        2  0          01234567  0s ago  coordinates",
            " host-b:7401  unready      2  -          01234567  0s ago  no broker answers",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} is missing in\n{text}");
        }
    }
}
