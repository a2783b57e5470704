//! Looks at the outputs beside the job: what a person should know of them when it starts, and whether they are still the
//! same while it runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use fluvial_connector::{Error, Offset, OutputPartition, SinkSession, SinkStatus, output_digest};
use fluvial_protocol::HeldOutput;

use super::failure::chain;

/// How often the outputs are looked at while they are written. A write that fails looks at them at once.
const EVERY: Duration = Duration::from_secs(10);

/// The thread that looks at the outputs. It ends when this is dropped and its last question is answered.
pub(crate) struct OutputWatch {
    _alive: Sender<()>,
}

impl OutputWatch {
    /// Begins to look. What the sink says goes to `told`, until that gives `false`.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn start(
        session: Arc<dyn SinkSession>,
        mut told: impl FnMut(SinkStatus) -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let (alive, ended) = channel::<()>();
        let watch = move || {
            match session.warnings() {
                Ok(warnings) => warnings.iter().for_each(|warning| tracing::warn!("{warning}")),
                Err(error) => tracing::debug!(error = chain(error), "the settings of the outputs are not known"),
            }
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(EVERY) {
                match session.status() {
                    Ok(status) => {
                        if !told(status) {
                            return;
                        }
                    }
                    Err(error) => tracing::warn!(error = chain(error), "could not look at the outputs"),
                }
            }
        };
        std::thread::Builder::new().name("outputs".to_owned()).spawn(watch).map(|_| Self { _alive: alive })
    }
}

/// What those of the outputs hold that no job of this name has progress for. One that has is not new, and its committers
/// say whose it is.
///
/// # Errors
/// The sink cannot be reached.
pub(crate) fn survey(session: &dyn SinkSession, outputs: &[String]) -> Result<Vec<HeldOutput>, Error> {
    let (status, progress) = (session.status()?, session.progress()?);
    let is_new = |output: &&String| progress.keys().all(|at| at.output != **output);
    let held = outputs.iter().filter(is_new).map(|output| {
        let rows = count_rows(session, output, status.outputs.get(output).map_or(0, |status| status.partitions))?;
        let writers = if rows > 0 { session.writers(output).unwrap_or_default() } else { Vec::new() };
        Ok(HeldOutput { output: output.clone(), rows, writers })
    });
    held.collect()
}

/// How many keys of an output have a value. Of each key only 64 bits of its digest are kept.
fn count_rows(session: &dyn SinkSession, output: &str, partitions: u32) -> Result<u64, Error> {
    let mut rows = BTreeSet::new();
    let from: Vec<_> = (0..partitions)
        .map(|partition| (OutputPartition { output: output.to_owned(), partition }, Offset(0)))
        .collect();
    session.read_all_committed(&from, &mut |partition, record| {
        let key = (partition, output_digest(record.key, None).0 as u64);
        if record.value.is_some() {
            rows.insert(key)
        } else {
            rows.remove(&key)
        };
    })?;
    Ok(rows.len() as u64)
}
