//! What one node knows, in the text format of Prometheus.
//!
//! Everything about a job has the label `job_name`: Prometheus itself gives the label `job` to everything that it reads. What a
//! node says of itself has the name of its copy's job, or of its cluster, there. Figures of a job's parts come from the node that
//! runs the process which knows them, so the pages of all nodes together have each of them once.

mod families;
mod page;
#[cfg(test)]
mod tests;

use fluvial_protocol::Exit;
use fluvial_protocol::group::JobRecord;

use self::families as of;
use self::page::Page;
use super::{Heard, Histogram, ProcessFigures, Progress, Report, State, View};

/// The metrics of a node.
#[must_use]
pub fn metrics(view: &View) -> String {
    let mut page = Page::default();
    of_node(&mut page, view);
    if view.coordinates() {
        for (name, record) in view.record.iter().flat_map(|record| &record.jobs) {
            of_record(&mut page, view, name, record);
        }
    }
    for (name, progress) in &view.progress {
        of_progress(&mut page, name, progress);
        let generation = view.running.get(name).and_then(|running| running.generation);
        page.some(&of::GENERATION, &[name], generation.map(|generation| generation.0));
    }
    for (name, processes) in &view.figures {
        for (process, Heard { figures, .. }) in processes {
            of_process(&mut page, name, &process.to_string(), figures);
        }
    }
    page.text()
}

fn of_node(page: &mut Page, view: &View) {
    let name: &[&str] = &[&view.job];
    page.add(&of::READY, name, u8::from(view.offer.unready.is_none() && !view.offer.leaving));
    page.add(&of::COORDINATES, name, u8::from(view.coordinates()));
    page.add(&of::SLOTS, name, view.offer.slots);
    page.add(&of::STORE_REACHABLE, name, u8::from(view.reaches_store));
    let running = view.running.values().flat_map(|running| running.processes.values());
    page.add(&of::PROCESSES, name, running.filter(|process| process.end().is_none()).count());
    page.some(&of::STORE_REQUESTS, name, view.store_requests);
    page.some(&of::TERM, name, view.coordinator.as_ref().map(|(_, term)| term.0));
    page.some(&of::MEMBERS, name, view.members.as_ref().map(Vec::len));
}

/// What the coordinator knows of a job.
fn of_record(page: &mut Page, view: &View, name: &str, record: &JobRecord) {
    let done = record.outcome.as_ref().is_some_and(|outcome| outcome.exit == Exit::Done);
    let wanted = record.wanted.as_ref().is_none_or(|wanted| wanted.run) && !done;
    page.add(&of::JOB_WANTED, &[name], u8::from(wanted));
    // Whether its process 0, which may be on another node, says that it is stalled, is what `commits_nothing` is for.
    let progress = view.progress.get(name).cloned().unwrap_or_default();
    let runs = Report::new(name, view, Some(view), Some(progress)).state == State::Running;
    page.add(&of::JOB_RUNNING, &[name], u8::from(runs));
    let attempt = record.attempt.as_ref();
    page.some(&of::ATTEMPT, &[name], attempt.map(|attempt| attempt.number));
    page.some(&of::WORKERS, &[name], attempt.map(|attempt| attempt.layout().workers));
}

fn of_progress(page: &mut Page, name: &str, progress: &Progress) {
    let name: &[&str] = &[name];
    page.add(&of::RECORDS_IN, name, progress.records_in);
    page.add(&of::RECORDS_OUT, name, progress.records_out);
    page.add(&of::FOREIGN_RECORDS, name, progress.foreign_records);
    page.add(&of::LAG_KNOWN, name, u8::from(progress.lag_records.is_some()));
    page.some(&of::LAG_RECORDS, name, progress.lag_records);
    page.some(&of::LAG_SECONDS, name, progress.lag_ms.map(seconds));
    page.add(&of::IN_FLIGHT_BYTES, name, progress.in_flight_bytes);
    page.add(&of::MINTED, name, seconds(progress.minted));
    page.add(&of::SEALED, name, seconds(progress.sealed));
    page.add(&of::COMMITTED, name, seconds(progress.committed));
    page.add(&of::COMMITS_NOTHING, name, seconds(progress.commits_nothing_for_ms));
    page.some(&of::CHECKPOINT, name, progress.checkpoint.map(seconds));
    page.some(&of::CHECKPOINT_AGE, name, progress.checkpoint_age_ms.map(seconds));
}

fn of_process(page: &mut Page, name: &str, process: &str, figures: &ProcessFigures) {
    for operator in &figures.operators {
        page.some(&of::OPERATOR_STORED_BYTES, &[name, &operator.id], operator.stored_bytes);
        for of_worker in &operator.workers {
            let worker = of_worker.worker.to_string();
            let labels: &[&str] = &[name, &operator.id, &worker];
            page.add(&of::OPERATOR_RECORDS_IN, labels, of_worker.records_in);
            page.add(&of::OPERATOR_RECORDS_OUT, labels, of_worker.records_out);
            page.add(&of::OPERATOR_BUSY, labels, seconds(of_worker.busy_ms));
            page.some(&of::OPERATOR_ROWS, labels, of_worker.rows);
            page.some(&of::OPERATOR_STATE_BYTES, labels, of_worker.state_bytes);
        }
    }
    for split in &figures.splits {
        let labels: &[&str] = &[name, &split.source, &split.split];
        page.add(&of::SPLIT_OFFSET, labels, split.offset);
        page.some(&of::SPLIT_LAG_RECORDS, labels, split.lag_records);
        page.some(&of::SPLIT_LAG_SECONDS, labels, split.lag_ms.map(seconds));
    }
    for output in &figures.outputs {
        page.add(&of::OUTPUT_RECORDS, &[name, &output.output, process], output.records);
    }
    let Histogram { count, sum_ms, buckets } = &figures.commits;
    let buckets = buckets.iter().map(|bucket| (seconds(bucket.le_ms), bucket.count));
    page.histogram(&of::COMMIT_SECONDS, &[name, process], buckets, sum_ms / 1000.0, *count);
    if let Some(checkpoint) = &figures.checkpoint {
        page.add(&of::CHECKPOINT_DURATION, &[name], seconds(checkpoint.duration_ms));
        page.add(&of::CHECKPOINT_BYTES, &[name], checkpoint.bytes);
    }
    page.some(&of::RESIDENT, &[name, process], figures.memory_bytes);
    page.some(&of::CPU, &[name, process], figures.cpu_ms.map(seconds));
    page.add(&of::OMITTED, &[name, process], figures.omitted);
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
