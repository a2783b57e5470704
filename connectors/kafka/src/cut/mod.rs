//! One consistent cut over several output topics, with the tick that it stands for.
//!
//! ```text
//!   output partitions ─► records ──┐
//!                                  ├─► each record's tick ─► ticks that all partitions have passed ─► Cut
//!   progress topic ────► ends ─────┘
//! ```

mod ticks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_connector::{Error, Offset, OutputPartition, Record, Tick};

use crate::kafka::Kafka;
use crate::native::{Bounds, Isolation};
use crate::progress::{self, progress_topic};
use crate::reading::Reading;
use ticks::Ticks;

/// How many records a partition that is ahead of others may hold before it rests.
const AHEAD_RECORDS: usize = 50_000;

/// How long the ends of the progress topic are asked for.
const ASK: Duration = Duration::from_secs(10);

/// How many records are taken at once.
const BATCH_RECORDS: usize = 4096;

/// Reads several output topics of a job as one sequence of consistent states.
///
/// The processes of a job commit separately, so a plain consumer of several partitions sees ticks of different age. This
/// reader hands out, tick by tick, the records of all partitions: a caller that applies [`Cut`] after [`Cut`] holds,
/// after each of them, the job's whole output for some prefix of its input.
///
/// **Guarantee.** Cuts come in the order of their ticks; every tick at which any of the topics changed has a cut of its
/// own, with all of its records and none of a later tick. Only where progress records have been removed by compaction are
/// several ticks in one cut, which is that of the last of them: records older than the oldest known progress count as
/// of the first cut.
///
/// **Memory.** Records wait here until all partitions have passed their tick: one tick's records of all partitions, and
/// up to 50,000 more of each partition that is ahead. Progress records wait for their records; those that the topic
/// holds at the beginning are all read first.
///
/// **Not its task:** to follow partitions that are added to a topic. The job does not write to them, and they are not
/// waited for only if they had not been there when the reader began.
pub struct CutReader {
    kafka: Kafka,
    progress_topic: String,
    reading: Reading,
    /// By place in `reading`.
    places: Vec<Place>,
    partitions: Vec<Partition>,
    /// Records that have their tick, not handed out yet.
    ready: BTreeMap<Tick, Vec<CutRecord>>,
    /// Where each progress partition must be read to before missing progress counts as gone.
    progress_ends: BTreeMap<usize, u64>,
    /// Whether the progress topic has been read to what was its end when the reader began. Until then outputs rest.
    begun: bool,
    handed_out: Option<Tick>,
}

/// What a place in `reading` is.
#[derive(Clone, Copy, Debug)]
enum Place {
    Progress,
    Output(usize),
}

/// A record's key and value.
type Row = (Option<Vec<u8>>, Option<Vec<u8>>);

struct Partition {
    at: OutputPartition,
    topic: Arc<str>,
    place: usize,
    ticks: Ticks<Row>,
    /// Records that have their tick and are not handed out.
    held: usize,
    resting: bool,
}

/// All records of the topics at one tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The tick: with the cuts before it this is the job's output as of the end of this tick.
    pub tick: Tick,
    /// The records; those of a partition in their order.
    pub records: Vec<CutRecord>,
}

/// A record of an output topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CutRecord {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: Offset,
    /// Its tick, or the last that it can be of where its progress is gone.
    pub tick: Tick,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` deletes the key of an upsert topic.
    pub value: Option<Vec<u8>>,
}

impl Kafka {
    /// Reads output topics of the job `job` from their beginning as consistent cuts.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use fluvial_kafka::KafkaOptions;
    ///
    /// let kafka = KafkaOptions::new("localhost:9092").connect()?;
    /// let mut cuts = kafka.cuts("orders", ["revenue"], Duration::from_secs(10))?;
    /// while let Some(cut) = cuts.next_cut(Duration::from_secs(1))? {
    ///     println!("tick {}: {} records", cut.tick, cut.records.len());
    /// }
    /// # Ok::<(), fluvial_connector::Error>(())
    /// ```
    ///
    /// # Errors
    /// A topic does not exist, or the cluster cannot be reached within the patience.
    pub fn cuts<'a>(
        &self,
        job: &str,
        topics: impl IntoIterator<Item = &'a str>,
        patience: Duration,
    ) -> Result<CutReader, Error> {
        CutReader::open(self, job, topics.into_iter(), patience)
    }
}

impl CutReader {
    fn open<'a>(
        kafka: &Kafka,
        job: &str,
        topics: impl Iterator<Item = &'a str>,
        patience: Duration,
    ) -> Result<Self, Error> {
        let deadline = Instant::now() + patience;
        let mut reader = Self {
            kafka: kafka.clone(),
            progress_topic: progress_topic(job),
            reading: Reading::new(&kafka.consumer("cuts"), "consistent cuts", None)?,
            places: Vec::new(),
            partitions: Vec::new(),
            ready: BTreeMap::new(),
            progress_ends: BTreeMap::new(),
            begun: false,
            handed_out: None,
        };
        let topic = reader.progress_topic.clone();
        for (partition, Bounds { earliest, end }) in bounds(kafka, &topic, deadline)? {
            let place = reader.start(&topic, partition, earliest, Place::Progress)?;
            reader.progress_ends.insert(place, end);
        }
        for topic in topics {
            let name: Arc<str> = Arc::from(topic);
            for (partition, Bounds { earliest: low, .. }) in bounds(kafka, topic, deadline)? {
                let place = reader.start(topic, partition, low, Place::Output(reader.partitions.len()))?;
                reader.reading.set_paused(place, true);
                reader.partitions.push(Partition {
                    at: OutputPartition { output: topic.to_owned(), partition },
                    topic: name.clone(),
                    place,
                    ticks: Ticks::new(low),
                    held: 0,
                    resting: true,
                });
            }
        }
        Ok(reader)
    }

    fn start(&mut self, topic: &str, partition: u32, from: u64, what: Place) -> Result<usize, Error> {
        let place = self.reading.start(topic, partition, from)?;
        debug_assert_eq!(place, self.places.len(), "each partition is started once");
        self.places.push(what);
        Ok(place)
    }

    /// The next cut; `None` if it does not come within `wait`. A later call goes on from there.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](fluvial_connector::ErrorKind::Data) for offsets that are gone and progress that cannot be
    /// understood; an outage is no error.
    pub fn next_cut(&mut self, wait: Duration) -> Result<Option<Cut>, Error> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(cut) = self.take_cut() {
                return Ok(Some(cut));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            self.read(left.min(Duration::from_millis(500)))?;
            self.confirm()?;
            if self.begun {
                self.assign();
                self.rest();
            }
            if left.is_zero() {
                return Ok(self.take_cut());
            }
        }
    }

    /// The tick through which everything has been handed out: the tables of the caller are those of this tick, also if
    /// nothing has changed since the last cut. `None` before all partitions have progress.
    #[must_use]
    pub fn tick(&self) -> Option<Tick> {
        let passed = self.passed()?;
        let next = self.ready.first_key_value().map(|(tick, _)| *tick);
        match next {
            Some(next) if next <= passed => self.handed_out,
            _ => Some(passed).filter(|passed| *passed >= self.floor()).or(self.handed_out),
        }
    }

    /// Whether all that the topics held has been read and handed out, as far as the cluster has said.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        self.ready.is_empty()
            && (0..self.places.len()).all(|place| self.reading.at_end(place))
            && self.partitions.iter().all(|partition| partition.ticks.waiting() == 0)
    }

    /// The tick that all partitions have passed.
    fn passed(&self) -> Option<Tick> {
        self.partitions.iter().map(|partition| partition.ticks.complete()).min().flatten()
    }

    fn floor(&self) -> Tick {
        self.partitions.iter().map(|partition| partition.ticks.floor()).max().unwrap_or_default()
    }

    fn take_cut(&mut self) -> Option<Cut> {
        let passed = self.passed()?;
        let first = *self.ready.first_key_value()?.0;
        let tick = first.max(self.floor());
        if tick > passed {
            return None;
        }
        let mut records = Vec::new();
        while let Some(entry) = self.ready.first_entry()
            && *entry.key() <= tick
        {
            records.extend(entry.remove());
        }
        for record in &records {
            let of = |p: &&mut Partition| p.at.partition == record.partition && p.at.output == *record.topic;
            if let Some(partition) = self.partitions.iter_mut().find(of) {
                partition.held -= 1;
            }
        }
        self.handed_out = Some(tick);
        Some(Cut { tick, records })
    }

    fn read(&mut self, wait: Duration) -> Result<(), Error> {
        let (places, partitions, topic) = (&self.places, &mut self.partitions, &self.progress_topic);
        let mut failed = None;
        self.reading.poll(BATCH_RECORDS, wait, &mut |place, record: Record<'_>| match places[place] {
            Place::Output(number) => {
                let row = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
                partitions[number].ticks.record(record.offset.0, row);
            }
            Place::Progress => match progress::decode(topic, record.key, record.value) {
                Ok(Some((at, progress))) => {
                    if let Some(partition) = partitions.iter_mut().find(|partition| partition.at == at) {
                        partition.ticks.progress(progress);
                    }
                }
                Ok(None) => {}
                Err(error) => failed = Some(error),
            },
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Finds out whether progress that is missing is gone.
    ///
    /// After a change of processes progress may overtake what comes before it in another partition of the progress topic.
    /// When all that was written there has been read, what is missing was removed by compaction.
    fn confirm(&mut self) -> Result<(), Error> {
        let was_asked = !self.progress_ends.is_empty() || !self.begun;
        self.progress_ends.retain(|place, end| self.reading.position(*place) < *end);
        if !self.progress_ends.is_empty() {
            return Ok(());
        }
        self.begun = true;
        if was_asked {
            self.partitions.iter_mut().for_each(|partition| partition.ticks.confirm());
        } else if self.partitions.iter().any(|partition| partition.ticks.misses_progress()) {
            let bounds = bounds(&self.kafka, &self.progress_topic, Instant::now() + ASK)?;
            let progress = self.places.iter().enumerate().filter(|(_, what)| matches!(what, Place::Progress));
            for ((_, Bounds { end, .. }), (place, _)) in bounds.into_iter().zip(progress) {
                self.progress_ends.insert(place, end);
            }
        }
        Ok(())
    }

    fn assign(&mut self) {
        let ready = &mut self.ready;
        for partition in &mut self.partitions {
            let Partition { at, topic, place, ticks, held, .. } = partition;
            ticks.assign(self.reading.position(*place), |tick, offset, (key, value)| {
                *held += 1;
                ready.entry(tick).or_default().push(CutRecord {
                    topic: topic.clone(),
                    partition: at.partition,
                    offset: Offset(offset),
                    tick,
                    key,
                    value,
                });
            });
        }
    }

    /// Lets partitions that are far ahead of others rest, until those have followed.
    fn rest(&mut self) {
        let passed = self.passed();
        for partition in &mut self.partitions {
            let ahead =
                partition.ticks.complete() > passed && partition.held + partition.ticks.waiting() > AHEAD_RECORDS;
            if ahead != partition.resting {
                self.reading.set_paused(partition.place, ahead);
                partition.resting = ahead;
            }
        }
    }
}

/// Where each partition of a topic begins and ends, open transactions included.
fn bounds(kafka: &Kafka, topic: &str, deadline: Instant) -> Result<Vec<(u32, Bounds)>, Error> {
    let count = kafka.partitions(&[topic], deadline)?[0];
    let asked: Vec<_> = (0..count).map(|partition| (topic, partition)).collect();
    Ok((0..).zip(kafka.bounds(&asked, Isolation::Uncommitted, deadline)?).collect())
}
