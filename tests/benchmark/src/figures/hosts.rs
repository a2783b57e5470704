//! How long a group of three copies takes to notice that something is lost, to move its work, and to go on.

use anyhow::Result;
use fluvial_tests::group::figures;

use crate::report::{Report, Value};

/// How many keys the job holds.
const KEYS: u64 = 1_000_000;

pub(crate) fn measure() -> Result<Report> {
    let title = "Three copies, each in a network namespace, with two workers each and one million string keys";
    let mut report = Report::new(title);
    for figure in figures::measure(KEYS)? {
        let mut times = figure.times;
        times.sort();
        let (p50, max) = (times[times.len() / 2], times[times.len() - 1]);
        report.limit(format!("{}: p50 of {}", figure.name, times.len()), Value::Time(p50), Value::Time(figure.aim));
        report.show(format!("{}: max", figure.name), Value::Time(max));
    }
    report.note("A pause is what a consumer of the output sees. All hosts and the broker share this machine.");
    Ok(report)
}
