//! Asks the sink about the outputs: about settings that a person should know of at the start, about their status while
//! the job runs, and about the rows that they hold before the job writes to them.

use std::collections::BTreeSet;

use fluvial_connector::{Error, Offset, OutputPartition, SinkSession, SinkStatus, output_digest};
use fluvial_protocol::HeldOutput;

use super::failure::chain;

/// Logs what a person should know of the outputs' settings.
pub(crate) fn warn(session: &dyn SinkSession) {
    match session.warnings() {
        Ok(warnings) => warnings.iter().for_each(|warning| tracing::warn!("{warning}")),
        Err(error) => tracing::debug!(error = chain(error), "the settings of the outputs could not be read"),
    }
}

/// The status of the outputs; `None` if the sink cannot be asked, which is an outage and passes.
pub(crate) fn look(session: &dyn SinkSession) -> Option<SinkStatus> {
    let warn = |error| tracing::warn!(error = chain(error), "could not ask the sink for the status of the outputs");
    session.status().map_err(warn).ok()
}

/// The rows that these outputs hold, except those outputs for which a job of this name has progress. Such an output is
/// not new, and its committers check whose it is. One that does not exist yet holds none.
///
/// # Errors
/// The sink cannot be reached.
pub(crate) fn survey(session: &dyn SinkSession, outputs: &[String]) -> Result<Vec<HeldOutput>, Error> {
    let (status, progress) = (session.status()?, session.progress()?);
    let is_new = |output: &&String| progress.keys().all(|at| at.output != **output);
    let held = outputs.iter().filter(is_new).map(|output| {
        let exists = status.outputs.get(output).filter(|status| status.exists());
        let rows = exists.map_or(Ok(0), |status| count_rows(session, output, status.partitions))?;
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
