//! What one copy knows, in the text format of Prometheus.

use std::fmt::{Display, Write};

use super::{Progress, View};

/// The metrics of a copy. Those of the job come from the copy that runs process 0.
#[must_use]
pub fn metrics(view: &View) -> String {
    let mut text = Text { job: label(&view.job), text: String::new() };
    text.one("fluvial_node_ready", "gauge", "Whether this copy could run the job now", ready(view));
    text.one("fluvial_node_coordinates", "gauge", "Whether this copy coordinates", u8::from(view.coordinates()));
    text.one("fluvial_node_slots", "gauge", "The workers that this copy can run", view.offer.slots);
    let reaches = u8::from(view.reaches_store);
    text.one("fluvial_node_store_reachable", "gauge", "Whether the store has answered this copy lately", reaches);
    let running = view.running.values().flat_map(|running| running.processes.values());
    let running = running.filter(|process| process.end().is_none()).count();
    text.one("fluvial_node_processes", "gauge", "The processes of the job on this copy", running);
    text.some(
        "fluvial_node_store_requests_total",
        "counter",
        "Requests of this copy and its processes to the store",
        view.store_requests,
    );
    if let Some((_, term)) = &view.coordinator {
        text.one("fluvial_group_term", "gauge", "The term of the coordinator", term);
    }
    if let Some(members) = &view.members {
        text.one("fluvial_group_members", "gauge", "The copies that the coordinator hears", members.len());
        let attempt = view.job_record().and_then(|job| job.attempt.as_ref());
        let number = attempt.map(|attempt| attempt.number);
        text.some("fluvial_group_attempt", "gauge", "The number of the newest attempt", number);
        let workers = attempt.map(|attempt| attempt.layout().workers);
        text.some("fluvial_group_workers", "gauge", "The workers of the newest attempt", workers);
    }
    if let Some(progress) = view.progress.get(&view.job) {
        of_job(&mut text, progress);
        let generation =
            view.running.get(&view.job).and_then(|running| running.generation).map(|generation| generation.0);
        text.some("fluvial_generation", "gauge", "The generation that runs", generation);
    }
    text.text
}

fn ready(view: &View) -> u8 {
    u8::from(view.offer.unready.is_none() && !view.offer.leaving)
}

fn of_job(text: &mut Text, progress: &Progress) {
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let Progress { records_in, records_out, foreign_records, in_flight_bytes, .. } = progress;
    text.one("fluvial_records_in_total", "counter", "Input records that the generation has read", records_in);
    text.one("fluvial_records_out_total", "counter", "Output records that it has committed", records_out);
    let help = "Offsets in output topics that other writers have used";
    text.one("fluvial_foreign_records_total", "counter", help, foreign_records);
    let help = "Input records whose output is not committed; absent while a source does not say where it ends";
    text.some("fluvial_lag_records", "gauge", help, progress.lag_records);
    let help = "How long the oldest of these has waited";
    text.some("fluvial_lag_seconds", "gauge", help, progress.lag_ms.map(seconds));
    text.one("fluvial_in_flight_bytes", "gauge", "Input that is held in memory", in_flight_bytes);
    for (name, help, tick) in [
        ("fluvial_minted_timestamp_seconds", "The last tick that was minted", Some(progress.minted)),
        ("fluvial_sealed_timestamp_seconds", "The last tick that the journal holds", Some(progress.sealed)),
        ("fluvial_committed_timestamp_seconds", "The last tick that is committed", Some(progress.committed)),
        ("fluvial_checkpoint_timestamp_seconds", "The tick of the newest checkpoint", progress.checkpoint),
    ] {
        text.some(name, "gauge", help, tick.map(seconds));
    }
    let help = "For how long nothing has been committed although something is minted";
    let stalled = seconds(progress.commits_nothing_for_ms);
    text.one("fluvial_commits_nothing_seconds", "gauge", help, stalled);
}

struct Text {
    /// The job's name as the value of a label.
    job: String,
    text: String,
}

impl Text {
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        let job = &self.job;
        // Writing into a text cannot fail.
        let _ =
            writeln!(self.text, "# HELP {name} {help}.\n# TYPE {name} {kind}\n{name}{{job_name=\"{job}\"}} {value}");
    }

    fn some(&mut self, name: &str, kind: &str, help: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.one(name, kind, help, value);
        }
    }
}

fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
