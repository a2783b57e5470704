//! The page, compared with the table of all metrics, and the names in the files for Grafana and Prometheus.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::families::{ALL, Kind};
use super::metrics;
use crate::status::made_up::{JOB, progress, view};
use crate::status::{
    Bucket, CheckpointFigures, Heard, Histogram, OperatorFigures, OutputFigures, ProcessFigures, Progress,
    SplitFigures, View, WorkerFigures,
};

/// The view of a coordinator that runs process 0 of a job and knows everything that can be known.
fn full() -> View {
    let worker = WorkerFigures { busy_ms: 1500, rows: Some(3), state_bytes: Some(64), ..WorkerFigures::default() };
    let operator =
        OperatorFigures { id: "durable:a\"b".to_owned(), stored_bytes: Some(9), workers: vec![worker.clone()] };
    let split = SplitFigures { lag_records: Some(1), lag_ms: Some(2), ..SplitFigures::default() };
    let figures = ProcessFigures {
        operators: vec![operator],
        splits: vec![split],
        outputs: vec![OutputFigures::default()],
        commits: Histogram { count: 3, sum_ms: 12.5, buckets: vec![Bucket { le_ms: 5, count: 2 }] },
        checkpoint: Some(CheckpointFigures::default()),
        memory_bytes: Some(1 << 20),
        cpu_ms: Some(10),
        ..ProcessFigures::default()
    };
    let progress = Progress { checkpoint: Some(1), checkpoint_age_ms: Some(5), ..progress() };
    let mut running = view().running;
    running.values_mut().for_each(|running| running.generation = Some(fluvial_connector::Generation(3)));
    View {
        progress: BTreeMap::from([(JOB.to_owned(), progress)]),
        figures: BTreeMap::from([(
            JOB.to_owned(),
            BTreeMap::from([(0, Heard { age_ms: 1, figures: Arc::new(figures) })]),
        )]),
        running,
        ..view()
    }
}

/// A sample: the name of its metric, its labels and its value.
type Sample = (String, BTreeMap<String, String>, f64);

/// Reads a page as strictly as Prometheus does, with the rules that `promtool check metrics` adds.
fn read(page: &str) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut described = BTreeSet::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) =
            line.strip_prefix("# HELP ").unwrap_or_else(|| panic!("no help: {line}")).split_once(' ').unwrap();
        assert!(help.len() > 10 && help.ends_with('.'), "{line}");
        assert!(described.insert(name), "{name} is described twice");
        let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
        assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_')) && name.starts_with("fluvial_"), "{name}");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        for unit in ["_ms", "_milliseconds", "_kb", "_percent", "_bucket", "_count", "_sum", "_gauge", "_counter"] {
            assert!(!name.ends_with(unit), "{name} has no base unit, or a name that is reserved");
        }
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (metric, value) = line.rsplit_once(' ').unwrap();
            let (found, labels) = metric.strip_suffix('}').unwrap().split_once('{').unwrap();
            let suffix = found.strip_prefix(name).unwrap_or_else(|| panic!("{line} is below {name}"));
            assert!(if kind == "histogram" {
                ["_bucket", "_sum", "_count"].contains(&suffix)
            } else {
                suffix.is_empty()
            });
            samples.push((found.to_owned(), read_labels(labels), value.parse().unwrap()));
        }
    }
    let keys: BTreeSet<_> = samples.iter().map(|(name, labels, _)| (name, labels)).collect();
    assert_eq!(keys.len(), samples.len(), "a sample is there twice");
    samples
}

fn read_labels(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (_, '\\') => value.push(match chars.next().unwrap().1 {
                    'n' => '\n',
                    escaped => escaped,
                }),
                (end, '"') => break end,
                (_, other) => value.push(other),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "{name}");
        text = rest[end + 1..].strip_prefix(',').unwrap_or(&rest[end + 1..]);
    }
    labels
}

/// The name of the metric that a sample of this name belongs to.
fn family(sample: &str) -> &str {
    let histograms = ALL.iter().filter(|family| family.kind == Kind::Histogram);
    histograms.map(|family| family.name).find(|name| sample.starts_with(name)).unwrap_or(sample)
}

#[test]
fn a_page_has_every_metric_with_its_labels_in_the_format_of_prometheus() {
    let samples = read(&metrics(&full()));
    for known in ALL {
        let (_, labels, _) = samples
            .iter()
            .find(|(name, ..)| family(name) == known.name)
            .unwrap_or_else(|| panic!("{} is missing", known.name));
        let expected: BTreeSet<_> = std::iter::once("job_name").chain(known.labels.iter().copied()).collect();
        let found: BTreeSet<_> = labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
        assert_eq!(found, expected, "{}", known.name);
    }
    let value = |name: &str, labels: &[(&str, &str)]| {
        let has = |(found, of, _): &&Sample| found == name && labels.iter().all(|(label, value)| of[*label] == *value);
        samples.iter().find(has).unwrap_or_else(|| panic!("{name} {labels:?}")).2
    };
    assert_eq!(value("fluvial_operator_busy_seconds_total", &[("operator", "durable:a\"b"), ("worker", "0")]), 1.5);
    assert_eq!(value("fluvial_commit_seconds_bucket", &[("le", "0.005")]), 2.0);
    assert_eq!(value("fluvial_commit_seconds_bucket", &[("le", "+Inf")]), 3.0);
    assert_eq!(value("fluvial_lag_seconds", &[("job_name", JOB)]), 0.04);
    assert_eq!((value("fluvial_job_wanted", &[]), value("fluvial_job_running", &[])), (1.0, 1.0));
}

#[test]
fn what_is_unknown_is_absent_and_a_job_that_does_not_run_says_so() {
    let names = |view: &View| -> BTreeMap<String, f64> {
        read(&metrics(view)).into_iter().map(|(name, _, value)| (name, value)).collect()
    };
    let lag_unknown = Progress { lag_records: None, lag_ms: None, ..progress() };
    let unknown = names(&View { progress: BTreeMap::from([(JOB.to_owned(), lag_unknown)]), ..view() });
    assert!(!unknown.contains_key("fluvial_lag_records") && unknown["fluvial_lag_known"] == 0.0, "{unknown:?}");
    let elsewhere = names(&view());
    assert!(!elsewhere.contains_key("fluvial_lag_known"), "another node runs process 0");
    assert_eq!(elsewhere["fluvial_job_running"], 1.0, "the coordinator knows it without that process");
    let mut opening = view();
    for member in opening.members.as_mut().unwrap() {
        member.status.as_mut().unwrap().running.values_mut().for_each(|running| running.reads = false);
    }
    let opening = names(&opening);
    assert_eq!((opening["fluvial_job_running"], opening["fluvial_job_wanted"]), (0.0, 1.0));
    assert!(!names(&View { members: None, ..view() }).contains_key("fluvial_job_running"));
}

fn deploy(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_documented_table_is_that_of_the_page() {
    let row = |family: &super::families::Family| {
        let labels: Vec<_> = std::iter::once("job_name")
            .chain(family.labels.iter().copied())
            .map(|label| format!("`{label}`"))
            .collect();
        format!("| `{}` | {} | {} | {} |", family.name, family.kind.name(), labels.join(", "), family.help)
    };
    let expected: Vec<_> = ALL.iter().map(row).collect();
    let text = deploy("metrics.md");
    let found: Vec<_> = text.lines().filter(|line| line.starts_with("| `fluvial_")).collect();
    assert_eq!(found, expected, "engine/deploy/metrics.md should have these rows:\n{}", expected.join("\n"));
}

#[test]
fn the_dashboard_and_the_alerts_use_metrics_that_exist() {
    let all: BTreeSet<&str> = ALL.iter().map(|family| family.name).collect();
    for file in ["grafana/fluvial.json", "prometheus/alerts.yaml"] {
        let text = deploy(file);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let used: BTreeSet<_> = words.filter(|word| word.starts_with("fluvial_")).map(family).collect();
        let unknown: Vec<_> = used.iter().filter(|name| !all.contains(*name)).collect();
        assert!(unknown.is_empty(), "{file} uses {unknown:?}, which no node has");
        assert!(used.len() >= 7, "{file} uses only {used:?}");
    }
    let dashboard: serde_json::Value = serde_json::from_str(&deploy("grafana/fluvial.json")).unwrap();
    let ids: Vec<_> =
        dashboard["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "panels have ids of their own: {ids:?}");
}

#[test]
fn every_alert_says_how_urgent_it_is_and_what_is_to_be_done() {
    let text = deploy("prometheus/alerts.yaml");
    let alerts: Vec<_> = text.split("      - alert: ").skip(1).collect();
    let names: Vec<_> = alerts.iter().map(|alert| alert.lines().next().unwrap()).collect();
    for expected in [
        "FluvialJobNotRunning",
        "FluvialJobStalled",
        "FluvialLagGrows",
        "FluvialCheckpointTooOld",
        "FluvialJobRestarts",
        "FluvialStoreUnreachable",
        "FluvialKafkaUnreachable",
        "FluvialNodeLost",
    ] {
        assert!(names.contains(&expected), "{expected} is not among {names:?}");
    }
    for alert in alerts {
        for part in ["expr: ", "for: ", "severity: ", "summary: ", "description: "] {
            assert!(alert.contains(part), "{part} is missing in {alert}");
        }
        assert!(
            alert.contains("fluvial status") || alert.contains("fluvial nodes") || alert.contains("fluvial logs"),
            "{alert}"
        );
    }
}
