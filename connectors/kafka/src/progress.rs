//! The progress topic: what each output partition is committed through.
//!
//! One compacted topic a job, `{job}.fluvial-progress`. A record's key names the output partition, its value is the
//! progress; both are JSON:
//!
//! ```text
//! key    {"output":"revenue","partition":3}
//! value  {"version":1,"incarnation":"…","generation":4,"tick":1790000000123,"position":"complete",
//!         "digest":"…","begin":1201,"end":1260,"ticks":[{"tick":1790000000123,"end":1260}]}
//! ```
//!
//! The value is written in the transaction that writes the records it tells of: the records from `begin` to `end` are
//! those of `ticks`, each of which ends before the offset that it names. All progress of a process goes to one partition
//! of this topic, its slot modulo the topic's partitions, so a key may be in several of them: the greatest tick (then
//! position, then generation) is the newest. Other keys (`{"slot":3}`, without a value: a transaction touches the
//! partition early, so that the broker knows of it in time) are to be ignored.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fluvial_connector::{Error, ErrorKind, OutputPartition, Progress, SinkContext};
use serde::{Deserialize, Serialize};

use crate::failure;
use crate::kafka::Kafka;
use crate::native::{Bounds, Isolation, NewTopic};
use crate::reading::Reading;

/// The version of the value that this code writes, and the newest that it reads.
const VERSION: u32 = 1;

/// How long reading may be held up before it is noted why.
const TELL_AFTER: Duration = Duration::from_secs(5);

/// What the names of progress topics end with.
const SUFFIX: &str = ".fluvial-progress";

/// How many partitions a progress topic gets that is made.
pub(crate) const PARTITIONS: u32 = 4;

/// Returns the name of the progress topic of a job.
///
/// ```
/// assert_eq!(fluvial_kafka::progress_topic("orders"), "orders.fluvial-progress");
/// ```
#[must_use]
pub fn progress_topic(job: &str) -> String {
    format!("{job}{SUFFIX}")
}

/// The job whose progress topic this is, if it is one.
pub(crate) fn job_of(topic: &str) -> Option<&str> {
    topic.strip_suffix(SUFFIX)
}

/// The progress topic of a job, to be made.
pub(crate) fn new_topic(kafka: &Kafka, job: &str) -> NewTopic {
    // Small segments and an eager cleaner: a generation that opens reads all of the topic.
    let settings = [("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("min.cleanable.dirty.ratio", "0.1")];
    NewTopic {
        name: progress_topic(job),
        partitions: PARTITIONS,
        replication_factor: kafka.options().replication_factor,
        settings: settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    }
}

/// A progress record's value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    version: u32,
    #[serde(flatten)]
    progress: Progress,
}

/// The bytes of a value.
pub(crate) fn encode(progress: Progress) -> Vec<u8> {
    serde_json::to_vec(&Entry { version: VERSION, progress }).expect("numbers, texts and lists are always JSON")
}

/// The bytes of a key.
pub(crate) fn encode_key(at: &OutputPartition) -> Vec<u8> {
    serde_json::to_vec(at).expect("a name and a number are always JSON")
}

/// The key that a transaction of `slot` touches the progress partition with.
pub(crate) fn touch_key(slot: u32) -> Vec<u8> {
    format!("{{\"slot\":{slot}}}").into_bytes()
}

/// Understands a record of the progress topic; `None` for one that is no progress.
pub(crate) fn decode(
    topic: &str,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<Option<(OutputPartition, Progress)>, Error> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let Some(Ok(at)) = key.map(serde_json::from_slice::<OutputPartition>) else { return Ok(None) };
    let Some(value) = value else { return Ok(None) };
    let what = || format!("read the progress of {at} in topic '{topic}'");
    let bad = |source: serde_json::Error| {
        Error::caused(
            ErrorKind::Data,
            format!("{}: the record is damaged, or was not written by Fluvial", what()),
            source,
        )
    };
    let Version { version } = serde_json::from_slice(value).map_err(bad)?;
    if version > VERSION {
        let newer = format!("{}: it has version {version}, and this binary knows up to {VERSION}", what());
        return Err(Error::new(ErrorKind::Data, newer));
    }
    let Entry { progress, .. } = serde_json::from_slice(value).map_err(bad)?;
    Ok(Some((at, progress)))
}

/// The newest committed progress of each output partition. What was committed before the call is seen: it waits for
/// transactions that are open at the call, no longer than the patience.
pub(crate) fn read(kafka: &Kafka, context: &SinkContext) -> Result<BTreeMap<OutputPartition, Progress>, Error> {
    let (topic, patience) = (progress_topic(&context.process.job), context.patience);
    let wait = context.waits.begin(format!("read the progress topic '{topic}'"));
    let mut held_up_since = Instant::now();
    let deadline = Instant::now() + patience;
    let partitions = kafka.partitions(&[&topic], deadline)?[0];
    let asked: Vec<_> = (0..partitions).map(|partition| (&*topic, partition)).collect();
    let bounds = kafka.bounds(&asked, Isolation::Uncommitted, deadline)?;
    let mut reading = Reading::new(&kafka.consumer("progress"), "the progress topic", None)?;
    let mut ends = Vec::new();
    for (partition, Bounds { earliest, end }) in (0..).zip(bounds) {
        if earliest < end {
            ends.push((reading.start(&topic, partition, earliest)?, partition, end));
        }
    }
    let mut newest: BTreeMap<OutputPartition, Progress> = BTreeMap::new();
    loop {
        ends.retain(|(place, _, high)| reading.position(*place) < *high);
        let Some((place, partition, high)) = ends.first() else { return Ok(newest) };
        let left = deadline.saturating_duration_since(Instant::now());
        if held_up_since.elapsed() >= TELL_AFTER || left.is_zero() {
            let position = reading.position(*place);
            let what = format!(
                "read the progress topic '{topic}': partition {partition} is readable up to offset {position} and was \
                 written up to {high}: an open transaction holds it up, or the cluster is unavailable{}",
                failure::how_to_end_a_hanging_transaction(&topic, *partition, position, 0)
            );
            if left.is_zero() {
                return Err(Error::new(ErrorKind::Retry, what));
            }
            wait.says(what);
            held_up_since = Instant::now();
        }
        let mut failed = None;
        reading.poll(usize::MAX, left.min(Duration::from_millis(500)), &mut |_, record| match decode(
            &topic,
            record.key,
            record.value,
        ) {
            Ok(Some((at, progress))) => {
                let known = newest.get(&at);
                if known.is_none_or(|known| known.rank() <= progress.rank()) {
                    newest.insert(at, progress);
                }
            }
            Ok(None) => {}
            Err(error) => failed = Some(error),
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_connector::{Digest, Generation, Incarnation, Offset, Position, Tick, TickEnd};

    use super::*;

    fn progress() -> Progress {
        Progress {
            incarnation: Incarnation(uuid::Uuid::nil()),
            generation: Generation(2),
            tick: Tick(5),
            position: Position::Records(3),
            digest: Digest(9),
            begin: Offset(7),
            end: Offset(8),
            ticks: vec![TickEnd { tick: Tick(5), end: Offset(8) }],
        }
    }

    fn at() -> OutputPartition {
        OutputPartition { output: "o".to_owned(), partition: 1 }
    }

    #[test]
    fn progress_reads_what_it_wrote() {
        let read = decode("t", Some(&encode_key(&at())), Some(&encode(progress()))).unwrap();
        assert_eq!(read, Some((at(), progress())));
    }

    #[test]
    fn a_touch_is_no_progress() {
        assert_eq!(decode("t", Some(&touch_key(3)), None).unwrap(), None);
        assert_eq!(decode("t", Some(&touch_key(3)), Some(b"{}")).unwrap(), None);
    }

    #[test]
    fn progress_of_a_newer_version_and_damaged_progress_are_refused() {
        let key = encode_key(&at());
        let newer = String::from_utf8(encode(progress())).unwrap().replace("\"version\":1", "\"version\":2");
        for bad in [newer.as_bytes(), b"{\"version\":1}", b"not json"] {
            let error = decode("t", Some(&key), Some(bad)).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Data);
            assert!(error.to_string().contains("o/1"), "{error}");
        }
    }
}
