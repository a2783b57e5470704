//! The way in.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fluvial_connector::{
    Availability, Error, ErrorKind, Offset, Record, Slot, Source, SplitId, SplitReader, SplitStatus, Waker,
    describe_offsets,
};

use crate::store::Memory;
use crate::topic::{Generated, Partitions, Topic};

/// A topic as a source, created by [`Memory::source`]. A split is a partition, named by its number.
#[derive(Clone, Debug)]
pub struct MemorySource {
    memory: Memory,
    topic: String,
}

impl MemorySource {
    pub(crate) fn new(memory: Memory, topic: String) -> Self {
        Self { memory, topic }
    }

    fn partition(&self, split: &SplitId) -> Result<u32, Error> {
        split.0.parse().map_err(|_| {
            let what = format!("split '{split}' is not a partition of memory topic '{}'", self.topic);
            Error::new(ErrorKind::Data, what)
        })
    }
}

impl Source for MemorySource {
    fn describe(&self) -> String {
        format!("memory topic '{}'", self.topic)
    }

    fn as_output(&self) -> Option<(String, String)> {
        Some((self.memory.name().to_owned(), self.topic.clone()))
    }

    fn splits(&self, _patience: Duration) -> Result<Vec<SplitStatus>, Error> {
        let topic = self.memory.topic(&self.topic)?;
        let status = |partition: u32| {
            let (split, identity) = (SplitId(partition.to_string()), topic.identity.clone());
            if !topic.is_available(partition) {
                let why = "it was made unavailable".to_owned();
                return SplitStatus { split, identity, availability: Availability::Unavailable { why } };
            }
            let (earliest, end) = match &topic.partitions {
                Partitions::Logs(_) => topic.read(partition).map_or((0, 0), |log| (log.earliest(), log.stable_end())),
                Partitions::Generated { records, .. } => (0, *records),
            };
            SplitStatus::available(split, Offset(earliest), Offset(end), identity)
        };
        Ok((0..topic.count()).map(status).collect())
    }

    fn reader(&self, waker: Waker) -> Result<Box<dyn SplitReader>, Error> {
        let topic = self.memory.topic(&self.topic)?;
        let registered = topic.add_waker(waker);
        Ok(Box::new(MemoryReader {
            source: self.clone(),
            topic,
            registered,
            places: Vec::new(),
            next: 0,
            generated: Generated::default(),
        }))
    }

    fn report_committed(&self, _: &str, positions: &[(SplitId, Offset)]) -> Result<(), Error> {
        let topic = self.memory.topic(&self.topic)?;
        for (split, offset) in positions {
            let partition = self.partition(split)?;
            topic.reported.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, *offset);
        }
        Ok(())
    }
}

struct MemoryReader {
    source: MemorySource,
    topic: Arc<Topic>,
    registered: u64,
    places: Vec<Place>,
    /// Whose turn it is.
    next: usize,
    generated: Generated,
}

struct Place {
    slot: Slot,
    partition: u32,
    position: u64,
    paused: bool,
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        self.topic.remove_waker(self.registered);
    }
}

impl MemoryReader {
    fn gone(&self, place: &Place, earliest: u64, end: u64) -> Error {
        let what = format!(
            "read memory topic '{}' partition {} at offset {}: the offset is gone; the partition now holds {}",
            self.source.topic,
            place.partition,
            place.position,
            describe_offsets(Offset(earliest), Offset(end))
        );
        Error::new(ErrorKind::Data, what)
    }

    /// Reads from one place.
    fn read(&mut self, number: usize, most: usize, take: &mut dyn FnMut(Slot, Record<'_>)) -> Result<usize, Error> {
        let topic = self.topic.clone();
        let place = &mut self.places[number];
        let slot = place.slot;
        match &topic.partitions {
            Partitions::Logs(_) => {
                let Some(log) = topic.read(place.partition) else { return Ok(0) };
                if place.position < log.earliest() || place.position > log.end() {
                    return Err(self.gone(&self.places[number], log.earliest(), log.end()));
                }
                let (count, next) = log.read(place.position, most, |record| take(slot, record));
                place.position = next;
                Ok(count)
            }
            Partitions::Generated { records, generator, .. } => {
                let end = records.saturating_sub(place.position).min(most as u64) + place.position;
                let count = end - place.position;
                for at in place.position..end {
                    self.generated.key.clear();
                    self.generated.value.clear();
                    generator(place.partition, Offset(at), &mut self.generated);
                    let Generated { key, value } = &self.generated;
                    take(slot, Record { offset: Offset(at), key: Some(key), value: Some(value), ..Record::default() });
                }
                place.position = end;
                Ok(usize::try_from(count).expect("it is at most `most`"))
            }
        }
    }
}

impl SplitReader for MemoryReader {
    fn start(&mut self, slot: Slot, split: &SplitId, from: Offset) -> Result<(), Error> {
        let partition = self.source.partition(split)?;
        if partition >= self.topic.count() {
            return Err(crate::store::no_partition(&self.source.topic, partition));
        }
        self.places.retain(|place| place.slot != slot && place.partition != partition);
        self.places.push(Place { slot, partition, position: from.0, paused: false });
        Ok(())
    }

    fn set_paused(&mut self, slot: Slot, paused: bool) -> Result<(), Error> {
        let place = self.places.iter_mut().find(|place| place.slot == slot);
        let what = || format!("slot {} of memory topic '{}' was never started", slot.0, self.source.topic);
        place.ok_or_else(|| Error::new(ErrorKind::Bug, what()))?.paused = paused;
        Ok(())
    }

    fn poll(&mut self, most: usize, take: &mut dyn FnMut(Slot, Record<'_>)) -> Result<usize, Error> {
        let mut count = 0;
        for _ in 0..self.places.len() {
            if count == most {
                break;
            }
            let number = self.next % self.places.len();
            self.next = number + 1;
            if !self.places[number].paused && self.topic.is_available(self.places[number].partition) {
                count += self.read(number, most - count, take)?;
            }
        }
        Ok(count)
    }

    fn position(&self, slot: Slot) -> Offset {
        Offset(self.places.iter().find(|place| place.slot == slot).map_or(0, |place| place.position))
    }
}
