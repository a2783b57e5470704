//! Records of other writers between this job's own.
//!
//! ```text
//!   committer: offsets that own records and markers do not explain ──► look at what is there ──records──► WARN, once an output
//!                                                                          └─nothing: a marker that came twice
//! ```
//!
//! After that it only counts. What others write is left as it is: only a person knows which of the writers is wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use fluvial_connector::{Error, SinkSession, Waker, describe_offsets};
use fluvial_protocol::Stretch;

use super::background::Background;
use super::failure::{Failure, chain};

/// The facts about other writers of this process's output partitions.
pub(crate) struct ForeignWriters {
    session: Arc<dyn SinkSession>,
    /// For each output with unexplained offsets, whether other writers are known to write it. If not, this is being
    /// found out.
    outputs: BTreeMap<String, bool>,
    looks: Background<(Stretch, Result<Found, Error>)>,
    /// How many offsets of other writers the leader has not been told of.
    untold: u64,
}

/// The records that were found in a stretch.
struct Found {
    others: u64,
    writers: Vec<String>,
}

impl ForeignWriters {
    pub(crate) fn new(session: Arc<dyn SinkSession>, waker: &Waker) -> Self {
        Self { session, outputs: BTreeMap::new(), looks: Background::new(waker), untold: 0 }
    }

    /// Takes the stretches that the committer could not explain.
    pub(crate) fn take(&mut self, stretches: Vec<Stretch>) {
        for stretch in stretches {
            match self.outputs.get(&stretch.at.output) {
                Some(true) => self.untold += stretch.others,
                Some(false) => {}
                None => {
                    self.outputs.insert(stretch.at.output.clone(), false);
                    self.look(stretch);
                }
            }
        }
    }

    /// Looks on a thread of its own: a transaction of another writer may hold it up for long.
    fn look(&self, stretch: Stretch) {
        let session = Arc::clone(&self.session);
        let look = move || {
            let found = found(session.as_ref(), &stretch);
            [Ok((stretch, found))]
        };
        if let Err(failure) = self.looks.spawn("foreign-writers", look) {
            tracing::debug!(error = failure.line(), "cannot start the thread that looks for other writers");
        }
    }

    /// Offsets that others have taken since the last call, if there are any.
    pub(crate) fn counted(&mut self) -> Result<Option<u64>, Failure> {
        while let Some((stretch, found)) = self.looks.next()? {
            match found {
                Ok(Found { others: 0, .. }) => drop(self.outputs.remove(&stretch.at.output)),
                Ok(Found { others, writers }) => {
                    self.outputs.insert(stretch.at.output.clone(), true);
                    self.untold += others;
                    let Stretch { at, from, to, .. } = &stretch;
                    let who = if writers.is_empty() { String::new() } else { format!(" ({})", writers.join("; ")) };
                    tracing::warn!(
                        "output {at} has {others} records within {} that this job has not written: another writer \
                         writes to it{who}; stop that writer, then `run --reconcile` makes an upsert output this \
                         job's table again",
                        describe_offsets(*from, *to)
                    );
                }
                Err(error) => {
                    tracing::debug!(error = chain(error), at = %stretch.at, "cannot find out who else writes to it");
                    self.outputs.remove(&stretch.at.output);
                }
            }
        }
        Ok((self.untold > 0).then(|| std::mem::take(&mut self.untold)))
    }
}

fn found(session: &dyn SinkSession, stretch: &Stretch) -> Result<Found, Error> {
    let Stretch { at, from, to, records, .. } = stretch;
    let mut all = 0;
    session.read_committed(at, *from, &mut |record| all += u64::from(record.offset < *to))?;
    let others = all.saturating_sub(*records as u64);
    let writers = if others > 0 { session.writers(&at.output).unwrap_or_default() } else { Vec::new() };
    Ok(Found { others, writers })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc::channel;
    use std::time::Duration;

    use fluvial_connector::{Offset, Output as _, OutputPartition, SinkContext};
    use fluvial_memory::Memory;

    use super::*;

    #[test]
    fn a_hole_is_looked_at_before_it_counts() {
        let memory = Memory::new();
        let output = memory.upsert("out", 1);
        let context = SinkContext::new("job", Duration::from_secs(1));
        let session = output.sink().connect(&context, &[output.spec()]).unwrap();
        for _ in 0..4 {
            memory.append("out", 0, Some(b"k"), Some(b"v")).unwrap();
        }
        let (wake, woken) = channel();
        let mut foreign_writers = ForeignWriters::new(session, &Waker::new(move || wake.send(()).unwrap_or_default()));
        let at = OutputPartition { output: "out".to_owned(), partition: 0 };
        let stretch = |records| Stretch { at: at.clone(), from: Offset(1), to: Offset(4), records, others: 1 };
        let mut counts = |records| {
            foreign_writers.take(vec![stretch(records)]);
            woken.recv_timeout(Duration::from_secs(10)).unwrap();
            foreign_writers.counted().unwrap()
        };
        // All records are the job's own: the unexplained offset is a marker.
        assert_eq!(counts(3), None);
        assert_eq!(counts(1), Some(2));
        // Once other writers are known, their offsets are counted and no records are read.
        foreign_writers.take(vec![stretch(1)]);
        assert_eq!(foreign_writers.counted().unwrap(), Some(1));
    }
}
