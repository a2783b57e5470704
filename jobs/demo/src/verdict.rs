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
    // The exit code says it also to those who do not read it.
    let mut err = std::io::stderr().lock();
    for fault in faults.iter().take(TOLD) {
        let _ = writeln!(err, "error: {fault}");
    }
    if faults.len() > TOLD {
        let _ = writeln!(err, "error: and {} more", count((faults.len() - TOLD) as u64));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use comfy_table::Table;
    use fluvial_kafka::Cut;
    use fluvial_kafka_embedded::Config;
    use rdkafka::config::ClientConfig;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;
    use crate::{Audit, Generate, View};

    /// The demo of a job that copies its input.
    struct Copies;

    impl Demo for Copies {
        fn job(&self) -> &'static str {
            "copies"
        }

        fn records(&self) -> &'static str {
            "lines"
        }

        fn input(&self) -> &'static str {
            "in"
        }

        fn outputs(&self) -> &'static [&'static str] {
            &["out"]
        }

        fn probed(&self) -> &'static str {
            "out"
        }

        fn probes_in(&self, _: &[u8], _: &[u8]) -> Option<(u32, u64)> {
            None
        }

        fn generator(&self, _: u64, _: u32) -> Box<dyn Generate> {
            unreachable!("the input is there")
        }

        fn view(&self) -> Box<dyn View> {
            Box::new(Nothing)
        }

        fn audit(&self) -> Box<dyn Audit> {
            Box::new(Copied(Rows::default()))
        }
    }

    struct Nothing;

    impl View for Nothing {
        fn apply(&mut self, _: &Cut) -> anyhow::Result<()> {
            Ok(())
        }

        fn table(&self) -> Table {
            Table::new()
        }
    }

    struct Copied(Rows);

    impl Audit for Copied {
        fn input(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> anyhow::Result<()> {
            self.0.upsert("out", key.unwrap_or_default(), value);
            Ok(())
        }

        fn expected(&self) -> anyhow::Result<Rows> {
            Ok(self.0.clone())
        }

        fn figures(&self) -> Vec<(&'static str, String)> {
            Vec::new()
        }
    }

    type Row = (&'static str, &'static str);

    /// Whether these topics and this reader of cuts are found right.
    fn is_right(input: &[Row], output: &[Row], cuts: &[Row]) -> bool {
        let broker = Broker::start(Config::default()).unwrap();
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().unwrap();
        for (topic, rows) in [("in", input), ("out", output)] {
            broker.create_topic(topic, 1).unwrap();
            for (key, value) in rows {
                producer.send(BaseRecord::to(topic).partition(0).key(*key).payload(*value)).unwrap();
            }
        }
        producer.flush(Duration::from_secs(10)).unwrap();
        let mut seen = Rows::default();
        cuts.iter().for_each(|(key, value)| seen.upsert("out", key.as_bytes(), Some(value.as_bytes())));
        let seen = Seen { tick: None, cuts: 0, rows: seen, view: Copies.view() };
        let run =
            Run { took: Duration::from_secs(1), probes: Arc::new(Probes::new(1)), seen: Arc::new(Mutex::new(seen)) };
        let code = give(&Copies, &broker, &run).unwrap();
        code == ExitCode::SUCCESS
    }

    #[test]
    fn it_is_right_only_where_both_the_topics_and_the_cuts_are() {
        let right = [("a", "2"), ("b", "1")];
        assert!(is_right(&[("a", "1"), ("b", "1"), ("a", "2")], &[("b", "1"), ("a", "1"), ("a", "2")], &right));
        assert!(!is_right(&right, &[("a", "2"), ("b", "7")], &right), "a wrong row");
        assert!(!is_right(&right, &[("a", "2")], &right), "a missing row");
        assert!(!is_right(&right, &[("a", "2"), ("b", "1"), ("c", "1")], &right), "a row too many");
        assert!(!is_right(&right, &right, &[("a", "2"), ("b", "7")]), "a wrong row in the cuts");
    }
}
