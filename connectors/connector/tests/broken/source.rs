//! The model's source.

use std::sync::Arc;
use std::time::Duration;

use fluvial_connector::conformance::{Ending, SourceSubject, TestRecord};
use fluvial_connector::{
    Availability, Error, ErrorKind, Offset, Record, Slot, Source, SplitId, SplitReader, SplitStatus, Waker,
};

use crate::model::{Bug, Fate, Model};

pub(crate) struct Input {
    model: Model,
    patience: Duration,
    open: u64,
}

impl Input {
    pub(crate) fn new(bug: Option<Bug>, patience: Duration) -> Self {
        let model = Model::new(bug);
        model.state().create("in");
        Self { model, patience, open: 0 }
    }

    fn append_to(&self, split: u32, records: &[TestRecord], transaction: Option<u64>) {
        let mut state = self.model.state();
        for (key, value) in records {
            state.append("in", split, (key.as_deref(), value.as_deref()), transaction);
        }
        drop(state);
        self.model.wake([split].into_iter(), false);
    }
}

impl SourceSubject for Input {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(ModelSource::new(self.model.clone(), "in"))
    }

    fn missing(&self) -> Arc<dyn Source> {
        Arc::new(ModelSource::new(self.model.clone(), "missing"))
    }

    fn append(&mut self, split: u32, records: &[TestRecord]) {
        self.append_to(split, records, None);
    }

    fn splits(&self) -> [String; 2] {
        ["left".to_owned(), "right".to_owned()]
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn append_open(&mut self, split: u32, records: &[TestRecord]) -> bool {
        let mut state = self.model.state();
        self.open = state.number();
        state.fates.insert(self.open, Fate::Open);
        drop(state);
        self.append_to(split, records, Some(self.open));
        true
    }

    fn end(&mut self, ending: Ending) {
        let fate = if ending == Ending::Commit { Fate::Committed } else { Fate::Aborted };
        self.model.state().finish(self.open, fate);
        self.model.wake([0, 1].into_iter(), true);
    }

    fn append_part(&mut self, split: u32, record: &TestRecord) -> bool {
        self.append_to(split, &[], None);
        let mut state = self.model.state();
        state.append("in", split, (record.0.as_deref(), record.1.as_deref()), None);
        state.partition("in", split).entries.last_mut().unwrap().is_whole = false;
        drop(state);
        self.model.wake([split].into_iter(), false);
        true
    }

    fn append_rest(&mut self) {
        let mut state = self.model.state();
        state.partition("in", 0).entries.iter_mut().for_each(|entry| entry.is_whole = true);
        drop(state);
        self.model.wake([0].into_iter(), false);
    }

    fn truncate(&mut self, split: u32, before: Offset) -> bool {
        let mut state = self.model.state();
        let partition = state.partition("in", split);
        partition.entries.retain(|entry| entry.offset >= before.0);
        partition.first = before.0;
        true
    }

    fn recreate(&mut self) -> bool {
        self.model.state().create("in");
        true
    }

    fn set_available(&mut self, split: u32, available: bool) -> bool {
        self.model.state().partition("in", split).is_available = available;
        self.model.wake([split].into_iter(), false);
        true
    }
}

pub(crate) struct ModelSource {
    model: Model,
    topic: String,
    number: u64,
}

impl ModelSource {
    pub(crate) fn new(model: Model, topic: &str) -> Self {
        let number = model.state().number();
        Self { model, topic: topic.to_owned(), number }
    }
}

fn number_of(model: &Model, split: &SplitId) -> Result<u32, Error> {
    match &*split.0 {
        "left" => Ok(0),
        "right" => Ok(1),
        _ if model.has(Bug::AnySplitExists) => Ok(0),
        _ => Err(Error::new(ErrorKind::Data, format!("there is no split '{split}'"))),
    }
}

impl Source for ModelSource {
    fn describe(&self) -> String {
        format!("model input '{}'", self.topic)
    }

    fn describe_split(&self, split: &SplitId) -> String {
        if self.model.has(Bug::DescribesNoSplit) { self.describe() } else { format!("{}, {split}", self.describe()) }
    }

    fn as_output(&self) -> Option<(String, String)> {
        let name = if self.model.has(Bug::NamesNoOutput) { "an output" } else { &self.topic };
        Some(("the model".to_owned(), name.to_owned()))
    }

    fn splits(&self, _patience: Duration) -> Result<Vec<SplitStatus>, Error> {
        let (state, has) = (self.model.state(), |bug| self.model.has(bug));
        let Some(topic) = state.topics.get(&self.topic) else {
            let kind = if has(Bug::MissingInputIsRetried) { ErrorKind::Retry } else { ErrorKind::Configuration };
            return Err(Error::new(kind, format!("there is no input '{}'", self.topic)));
        };
        let total: u64 = topic.partitions.iter().map(|partition| partition.next).sum();
        let mut splits = Vec::new();
        for (name, partition) in ["left", "right"].into_iter().zip(&topic.partitions) {
            let last = partition.entries.last().map_or(0, |entry| entry.offset);
            let end = match () {
                () if has(Bug::EndIsTheLastRecord) => last,
                () if has(Bug::StatusCountsEverything) => total,
                () if has(Bug::OpenMovesTheEnd) => partition.next,
                () => state.stable(partition),
            };
            let identity = if has(Bug::InputKeepsItsIdentity) { 0 } else { topic.identity };
            let mut status = SplitStatus::available(
                SplitId(name.to_owned()),
                Offset(partition.first),
                Offset(end),
                identity.to_string(),
            );
            if !partition.is_available {
                if has(Bug::UnavailableIsAnError) {
                    return Err(Error::new(ErrorKind::Retry, "a split is unavailable"));
                }
                status.availability = Availability::Unavailable { why: "it was made unavailable".to_owned() };
            }
            splits.push(status);
        }
        Ok(splits)
    }

    fn reader(&self, waker: Waker) -> Result<Box<dyn SplitReader>, Error> {
        let mut state = self.model.state();
        let number = state.number();
        state.wakers.insert(number, waker);
        drop(state);
        let (model, topic, source) = (self.model.clone(), self.topic.clone(), self.number);
        Ok(Box::new(ModelReader { model, topic, source, number, places: Vec::new() }))
    }

    fn report_committed(&self, _: &str, positions: &[(SplitId, Offset)]) -> Result<(), Error> {
        if self.model.has(Bug::ReportsAcknowledge) {
            for (split, offset) in positions {
                let split = number_of(&self.model, split)?;
                let mut state = self.model.state();
                let partition = state.partition(&self.topic, split);
                partition.entries.retain(|entry| entry.offset >= offset.0);
                partition.first = offset.0;
            }
        }
        Ok(())
    }
}

struct ModelReader {
    model: Model,
    topic: String,
    source: u64,
    number: u64,
    places: Vec<Place>,
}

struct Place {
    slot: Slot,
    name: SplitId,
    split: u32,
    position: u64,
    /// The last record that was delivered, and how many were.
    last: u64,
    delivered: u64,
    paused: bool,
}

impl Drop for ModelReader {
    fn drop(&mut self) {
        self.model.state().wakers.remove(&self.number);
    }
}

type Found = (Slot, u64, Option<Vec<u8>>, Option<Vec<u8>>);

impl ModelReader {
    /// What is next of one place, which moves on.
    fn next(&mut self, number: usize, most: usize) -> Result<Vec<Found>, Error> {
        let (model, first_slot) = (self.model.clone(), self.places[0].slot);
        let place = &mut self.places[number];
        let state = model.state();
        let partition = &state.topics[&self.topic].partitions[place.split as usize];
        if place.position < partition.first && !model.has(Bug::SkipsWhatIsGone)
            || place.position > partition.next && !model.has(Bug::WaitsBeyondTheEnd)
        {
            let kind = if model.has(Bug::GoneIsRetried) { ErrorKind::Retry } else { ErrorKind::Data };
            let what = match model.has(Bug::GoneNamesNothing) {
                true => "records are gone".to_owned(),
                false => format!(
                    "split '{}' at offset {}: it is gone, and the first is {}",
                    place.name, place.position, partition.first
                ),
            };
            return Err(Error::new(kind, what));
        }
        let stable = match model.has(Bug::DeliversOpen) || model.has(Bug::DeliversParts) || model.has(Bug::SkipsParts) {
            true => partition.next,
            false => state.stable(partition),
        };
        let mut found = Vec::new();
        let from = place.position;
        let entries = partition.entries.iter().filter(|entry| (from..stable).contains(&entry.offset));
        for entry in entries {
            let is_delivered = match state.fate(entry) {
                Fate::Committed => true,
                Fate::Open if entry.is_whole => model.has(Bug::DeliversOpen),
                Fate::Open => model.has(Bug::DeliversParts),
                Fate::Aborted => model.has(Bug::DeliversAborted),
            };
            if is_delivered {
                if found.len() == most {
                    return Ok(found);
                }
                let text = |bytes: &Vec<u8>| match model.has(Bug::TextOnly) {
                    true => String::from_utf8_lossy(bytes).into_owned().into_bytes(),
                    false => bytes.clone(),
                };
                let (key, mut value) = (entry.key.as_ref().map(text), entry.value.as_ref().map(text));
                if model.has(Bug::AbsentValueIsEmpty) {
                    value.get_or_insert_default();
                }
                let offset = match () {
                    () if model.has(Bug::OffsetsCountFromTheStart) => place.delivered,
                    // As if each value of the source numbered its records itself.
                    () if model.has(Bug::SourceOfItsOwn) => entry.offset + self.source,
                    () => entry.offset,
                };
                let slot = if model.has(Bug::OneSlotForAll) { first_slot } else { place.slot };
                found.push((slot, offset, key, value));
                place.delivered += 1;
                place.last = entry.offset;
            }
            place.position = entry.end;
        }
        if !model.has(Bug::PositionStopsAtMarkers) {
            place.position = place.position.max(stable);
        }
        Ok(found)
    }
}

impl SplitReader for ModelReader {
    fn start(&mut self, slot: Slot, split: &SplitId, from: Offset) -> Result<(), Error> {
        let (name, number) = (split.clone(), number_of(&self.model, split)?);
        if self.model.has(Bug::StartsOnce) && self.places.iter().any(|place| place.slot == slot) {
            return Ok(());
        }
        self.places.retain(|place| place.slot != slot);
        let place = Place { slot, name, split: number, position: from.0, last: from.0, delivered: 0, paused: false };
        self.places.push(place);
        Ok(())
    }

    fn set_paused(&mut self, slot: Slot, paused: bool) -> Result<(), Error> {
        let place = self.places.iter_mut().find(|place| place.slot == slot);
        place.unwrap().paused = paused && !self.model.has(Bug::IgnoresPause);
        Ok(())
    }

    fn poll(&mut self, most: usize, take: &mut dyn FnMut(Slot, Record<'_>)) -> Result<usize, Error> {
        if self.model.has(Bug::PollWaits) {
            let topic = self.topic.clone();
            let is_empty = |partition: &crate::model::Partition| partition.entries.is_empty();
            let state = self.model.state();
            // Long enough to be found, and not for ever.
            let patience = Duration::from_secs(10);
            drop(self.model.wait_while(state, patience, |state| state.topics[&topic].partitions.iter().all(is_empty)));
        }
        let most = if self.model.has(Bug::IgnoresMost) { usize::MAX } else { most };
        let mut all = Vec::new();
        for number in 0..self.places.len() {
            let place = &self.places[number];
            if !self.model.state().topics[&self.topic].partitions[place.split as usize].is_available {
                if self.model.has(Bug::UnavailableHoldsUpOthers) {
                    break;
                }
                continue;
            }
            if place.paused {
                if self.model.has(Bug::DropsWhatIsPaused) {
                    self.next(number, usize::MAX)?;
                }
                continue;
            }
            let mut found = self.next(number, most - all.len())?;
            if self.model.has(Bug::NewestFirst) {
                found.reverse();
            }
            all.extend(found);
        }
        for (slot, offset, key, value) in &all {
            let (key, value) = (key.as_deref(), value.as_deref());
            take(*slot, Record { offset: Offset(*offset), key, value, ..Record::default() });
        }
        Ok(all.len() + usize::from(self.model.has(Bug::CountsTooMany) && !all.is_empty()))
    }

    fn position(&self, slot: Slot) -> Offset {
        let place = self.places.iter().find(|place| place.slot == slot).unwrap();
        let state = self.model.state();
        match () {
            () if self.model.has(Bug::PositionIsTheLastRecord) => Offset(place.last),
            () if self.model.has(Bug::PositionAheadOfDelivery) => {
                Offset(state.stable(&state.topics[&self.topic].partitions[place.split as usize]))
            }
            () => Offset(place.position),
        }
    }
}
