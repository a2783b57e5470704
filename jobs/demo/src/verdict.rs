//! The verdict: what the topics hold in the end, against a recomputation from the input.

use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fluvial_kafka_embedded::Broker;

use crate::figures::{columns, count, millis};
use crate::probes::Probes;
use crate::table::{Rows, differences};
use crate::viewer::{Seen, lock};
use crate::{Demo, plain};

/// How many faults are told one by one.
const TOLD: usize = 10;

/// A run that has ended well, as far as anybody can tell before looking.
pub(crate) struct Run {
    /// From the first record to the moment when all output was visible.
    pub(crate) took: Duration,
    pub(crate) probes: Arc<Probes>,
    /// What the reader of consistent cuts saw.
    pub(crate) seen: Arc<Mutex<Seen>>,
}

/// Reads the topics back, prints the summary, and says whether the outputs are right.
pub(crate) fn give(demo: &dyn Demo, broker: &Broker, run: &Run) -> anyhow::Result<ExitCode> {
    let brokers = broker.bootstrap();
    let partitions = |topic: &str| u32::try_from(broker.end_offsets(topic).len()).unwrap_or(0);
    let mut audit = demo.audit();
    let records =
        plain::read_all(&brokers, demo.input(), partitions(demo.input()), |key, value| audit.input(key, value))?;
    let mut found = Rows::default();
    let mut updates = 0;
    for topic in demo.outputs() {
        updates += plain::read_all(&brokers, topic, partitions(topic), |key, value| {
            found.upsert(topic, key.unwrap_or_default(), value);
            audit.output(topic, value);
            Ok(())
        })?;
    }
    let expected = audit.expected()?;
    let seen = lock(&run.seen);
    let mut faults = differences(&expected, &found);
    faults.extend(differences(&expected, &seen.rows).into_iter().map(|line| format!("in the consistent cuts: {line}")));
    faults.extend(audit.faults());
    faults.extend(seen.view.faults());
    faults.extend(run.probes.fault());

    let rate = records as f64 / run.took.as_secs_f64().max(0.001);
    let mut lines = vec![
        ("records in", count(records)),
        ("updates out", count(updates)),
        ("records/s", count(rate as u64)),
        (
            "produce to visible",
            match run.probes.latency() {
                Some(of) => format!("p50 {}, p99 {} ({} probes)", millis(of.p50), millis(of.p99), count(of.probes)),
                None => "no probe came in time".to_owned(),
            },
        ),
        ("consistent cuts", count(seen.cuts)),
    ];
    lines.extend(seen.view.figures());
    lines.extend(audit.figures());
    let rows = count(expected.len() as u64);
    lines.push((
        "totals",
        match faults.is_empty() {
            true => format!("all {rows} rows are equal to the recomputation from the input topic"),
            false => format!("WRONG in {} places", count(faults.len() as u64)),
        },
    ));
    print(&format!("{}\n\n{}", seen.view.table(), columns(&lines)))?;
    if faults.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    for fault in faults.iter().take(TOLD) {
        eprintln!("error: {fault}");
    }
    if faults.len() > TOLD {
        eprintln!("error: and {} more", count((faults.len() - TOLD) as u64));
    }
    Ok(ExitCode::FAILURE)
}

/// Prints results. A reader that has gone away is no error.
fn print(text: &str) -> std::io::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
