//! A source that notes how much of it is read, and hands out its records at a rate if it is told to.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fluvial::connector::{Error, JobProcess, Offset, Record, Slot, Source, SplitId, SplitReader, SplitStatus, Waker};

use super::meter::Meter;

/// So many records become available at each beat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The records of a beat.
    pub(crate) records: u64,
    /// The time between two beats; none where a beat follows as soon as the one before has been read.
    pub(crate) every: Duration,
}

/// Another source, metered.
pub(crate) struct Metered<S> {
    source: S,
    meter: Arc<Meter>,
    pace: Option<Pace>,
}

impl<S: Source> Metered<S> {
    /// `source` as it is.
    pub(crate) fn new(source: S, meter: Arc<Meter>, pace: Option<Pace>) -> Self {
        Self { source, meter, pace }
    }
}

impl<S: Source> Source for Metered<S> {
    fn describe(&self) -> String {
        self.source.describe()
    }

    fn used_by(&self, process: &JobProcess) {
        self.source.used_by(process);
    }

    fn splits(&self, patience: Duration) -> Result<Vec<SplitStatus>, Error> {
        self.source.splits(patience)
    }

    fn reader(&self, waker: Waker) -> Result<Box<dyn SplitReader>, Error> {
        let paced =
            self.pace.map(|pace| Paced { pace, handed_out: 0, began: Instant::now(), alarm: Alarm::new(&waker) });
        Ok(Box::new(MeteredReader { reader: self.source.reader(waker)?, meter: Arc::clone(&self.meter), paced }))
    }

    fn report_committed(&self, job: &str, positions: &[(SplitId, Offset)]) -> Result<(), Error> {
        self.source.report_committed(job, positions)
    }
}

struct MeteredReader {
    reader: Box<dyn SplitReader>,
    meter: Arc<Meter>,
    paced: Option<Paced>,
}

struct Paced {
    pace: Pace,
    handed_out: u64,
    began: Instant,
    alarm: Alarm,
}

impl Paced {
    /// How many records may be handed out now.
    fn due(&self) -> u64 {
        if self.pace.every.is_zero() {
            return self.pace.records - self.handed_out % self.pace.records;
        }
        let beats = self.began.elapsed().as_nanos() / self.pace.every.as_nanos();
        (u64::try_from(beats).unwrap_or(u64::MAX) * self.pace.records).saturating_sub(self.handed_out)
    }

    /// When there will be more.
    fn next(&self) -> Instant {
        let beats = self.handed_out / self.pace.records + 1;
        self.began + self.pace.every * u32::try_from(beats).unwrap_or(u32::MAX)
    }
}

impl SplitReader for MeteredReader {
    fn start(&mut self, slot: Slot, split: &SplitId, from: Offset) -> Result<(), Error> {
        self.reader.start(slot, split, from)
    }

    fn set_paused(&mut self, slot: Slot, paused: bool) -> Result<(), Error> {
        self.reader.set_paused(slot, paused)
    }

    fn poll(&mut self, most: usize, take: &mut dyn FnMut(Slot, Record<'_>)) -> Result<usize, Error> {
        let mut first = None;
        let count = match &mut self.paced {
            None => self.reader.poll(most, &mut |slot, record| {
                first.get_or_insert(record.timestamp_ms);
                take(slot, record);
            })?,
            // Such records are made on the way, and have no age.
            Some(paced) => {
                let due = usize::try_from(paced.due()).unwrap_or(usize::MAX);
                let count = self.reader.poll(most.min(due), take)?;
                paced.handed_out += count as u64;
                if count == 0 {
                    paced.alarm.ring_at(paced.next());
                }
                count
            }
        };
        if count > 0 {
            self.meter.read(count, first.flatten());
        }
        Ok(count)
    }

    fn position(&self, slot: Slot) -> Offset {
        self.reader.position(slot)
    }
}

/// Wakes the worker when there is more: a thread that ends with the reader.
struct Alarm {
    at: Arc<Mutex<Option<Instant>>>,
    thread: std::thread::Thread,
}

impl Alarm {
    fn new(waker: &Waker) -> Self {
        let at = Arc::new(Mutex::new(None::<Instant>));
        let (theirs, waker) = (Arc::downgrade(&at), waker.clone());
        let thread = std::thread::spawn(move || {
            while let Some(at) = theirs.upgrade() {
                let next = *at.lock().unwrap_or_else(PoisonError::into_inner);
                drop(at);
                let rest = next.map(|at| at.saturating_duration_since(Instant::now()));
                match rest {
                    Some(Duration::ZERO) => {
                        if let Some(at) = theirs.upgrade() {
                            *at.lock().unwrap_or_else(PoisonError::into_inner) = None;
                        }
                        waker.wake();
                    }
                    Some(rest) => std::thread::park_timeout(rest),
                    None => std::thread::park(),
                }
            }
        });
        Self { at, thread: thread.thread().clone() }
    }

    fn ring_at(&self, at: Instant) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
        self.thread.unpark();
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // The thread finds the time gone.
        self.at = Arc::default();
        self.thread.unpark();
    }
}
