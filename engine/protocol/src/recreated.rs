//! Whether the places that a job writes to are still those that its journal names.
//!
//! A topic that is deleted and recreated under its name is another topic: what was written to the first is gone, and no
//! offset of it means anything in the second. Writes succeed all the same, so this is told by identity alone. Where the
//! system knows no identities, it is told by offsets that have gone back ([`Committer`](super::Committer)).

use fluvial_connector::SinkStatus;

use super::{Ended, OutputFault};
use crate::journal::{SinkStart, differ};

/// A place that is another by now, under the same name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IsRecreated<'a> {
    /// The output; `None` for the place where progress is kept.
    output: Option<&'a SinkStart>,
    name: &'a str,
    was: &'a str,
    is: &'a str,
}

/// The places of these outputs, and of their progress, that have another identity now.
pub(crate) fn recreated<'a>(sinks: &'a [SinkStart], now: &'a SinkStatus) -> impl Iterator<Item = IsRecreated<'a>> {
    let progress = sinks.iter().map(|sink| (None, &*now.progress_name, &*sink.progress, &*now.progress_identity));
    let outputs = sinks.iter().filter_map(|sink| {
        let is = &now.outputs.get(&sink.output)?.identity;
        Some((Some(sink), &*sink.output, &*sink.identity, &**is))
    });
    let all = progress.chain(outputs).filter(|(_, _, was, is)| differ(was, is));
    all.map(|(output, name, was, is)| IsRecreated { output, name, was, is })
}

/// Refuses to go on where one of these places is another by now.
///
/// # Errors
/// [`Ended::Output`] with the first of them.
pub(crate) fn refuse_recreated(sinks: &[SinkStart], now: &SinkStatus) -> Result<(), Ended> {
    recreated(sinks, now).next().map_or(Ok(()), |recreated| Err(recreated.refuse()))
}

impl IsRecreated<'_> {
    /// The output that a reconciliation can go on with as it is now: an upsert output gets the whole of its table;
    /// an output of which the job has no table only where what it has lost is to stay lost.
    pub(crate) fn can_be_accepted(&self, leave_append_outputs: bool) -> Option<(&str, &str)> {
        let output = self.output.filter(|output| output.envelope.can_be_corrected() || leave_append_outputs)?;
        Some((&output.output, self.is))
    }

    /// Says what is known of it, and the way out.
    pub(crate) fn refuse(&self) -> Ended {
        let (was, is) = (self.was.to_owned(), self.is.to_owned());
        let fault = match self.output {
            None => OutputFault::ProgressRecreated { name: self.name.to_owned(), was, is },
            Some(output) => {
                OutputFault::Recreated { output: output.output.clone(), was, is, envelope: output.envelope }
            }
        };
        fault.into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use fluvial_connector::{Envelope, OutputStatus, Tick};

    use super::*;

    fn sink(output: &str, envelope: Envelope, identity: &str) -> SinkStart {
        let (identity, progress) = (identity.to_owned(), "p1".to_owned());
        SinkStart { output: output.to_owned(), partitions: 1, envelope, tick: Tick(0), identity, progress }
    }

    #[test]
    fn what_is_recreated_is_named_with_both_ids_and_the_way_out() {
        let check = |envelope, was: &str, is: &str, progress: &str, expected: &[&str]| {
            let output = OutputStatus { partitions: 1, identity: is.to_owned() };
            let status = SinkStatus {
                outputs: [("out".to_owned(), output)].into(),
                progress_name: "the progress topic 'j.p'".to_owned(),
                progress_identity: progress.to_owned(),
            };
            let said = refuse_recreated(&[sink("out", envelope, was)], &status).err().map(|ended| ended.to_string());
            assert_eq!(said.is_none(), expected.is_empty(), "{said:?}");
            let said = said.unwrap_or_default();
            assert!(expected.iter().all(|part| said.contains(part)), "{said}");
        };
        let upsert = ["'out'", "has the id i2 and had i1", "`run --reconcile` writes the whole table"];
        check(Envelope::Upsert, "i1", "i2", "p1", &upsert);
        check(Envelope::Append, "i1", "i2", "p1", &["'out'", "i2 and had i1", "--reconcile --leave-append-outputs"]);
        let of_stream = ["keeps no table from which they could be written again", "--reconcile --leave-append-outputs"];
        check(Envelope::StreamWritten, "i1", "i2", "p1", &of_stream);
        check(Envelope::Upsert, "i1", "i1", "p2", &["topic 'j.p'", "has the id p2 and had p1", "another --name"]);
        check(Envelope::Upsert, "i1", "i1", "p1", &[]);
        // A system that knew no identities, or knows none.
        check(Envelope::Upsert, "", "i1", "", &[]);
        check(Envelope::Upsert, "i1", "", "p1", &[]);
    }
}
