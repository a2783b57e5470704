//! Reading several partitions with positions of our own.
//!
//! librdkafka's own position cannot be relied on: version 2.12.1 moves it past the end of a partition when it reports
//! that end. So it is only told where to begin, and each record and each end that arrives moves the position here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_connector::{Error, ErrorKind, Offset, Record, Waker, describe_offsets};

use crate::failure;
use crate::identity::Identity;
use crate::native::{Arrival, Bounds, Client, Code, Consumer, Isolation};
use crate::permission::{Resource, denied};
use crate::settings::Settings;

/// How long the offsets that are still there are asked for, when the wanted one is gone.
const ASK_WHAT_IS_LEFT: Duration = Duration::from_secs(5);

/// Partitions that are being read. Lives on one thread.
pub(crate) struct Reading {
    consumer: Consumer,
    places: Vec<Place>,
    /// What has to hold before anything is handed on, and what it wakes us by.
    identity: Option<(Arc<Identity>, Arc<Waker>)>,
    /// Who the cluster takes this client for, if that is known.
    principal: Option<String>,
    /// By topic number and partition: the place.
    index: Vec<Vec<Option<usize>>>,
}

/// One partition.
struct Place {
    topic: String,
    /// The topic's number in the consumer.
    of: usize,
    partition: u32,
    position: u64,
    paused: bool,
    at_end: bool,
}

impl Reading {
    /// Nothing yet. `waker` is called when records come after [`Reading::poll`] found none.
    pub(crate) fn new(settings: &Settings, describe: &str, waker: Option<Waker>) -> Result<Self, Error> {
        Ok(Self::with(Consumer::new(settings, describe, waker)?, settings, None))
    }

    /// The same with a client that others use as well, of a topic that must stay the one that it is.
    pub(crate) fn sharing(client: Arc<Client>, settings: &Settings, identity: Arc<Identity>, waker: Waker) -> Self {
        let held = Arc::new(waker.clone());
        identity.wakes(&held);
        Self::with(Consumer::of(client, Some(waker)), settings, Some((identity, held)))
    }

    fn with(consumer: Consumer, settings: &Settings, identity: Option<(Arc<Identity>, Arc<Waker>)>) -> Self {
        Self { consumer, places: Vec::new(), identity, principal: settings.principal(), index: Vec::new() }
    }

    /// Begins to read a partition at an offset. Returns its number in [`Reading::poll`]; the same again for a
    /// partition that is read already, which then goes on at `from`.
    pub(crate) fn start(&mut self, topic: &str, partition: u32, from: u64) -> Result<usize, Error> {
        let of = self.consumer.topic(topic)?;
        if self.index.len() <= of {
            self.index.resize_with(of + 1, Vec::new);
        }
        let known = &mut self.index[of];
        if known.len() <= partition as usize {
            known.resize(partition as usize + 1, None);
        }
        let number = match known[partition as usize] {
            Some(number) => {
                let place = &mut self.places[number];
                if !place.paused {
                    self.consumer.unassign(of, partition);
                }
                (place.position, place.paused, place.at_end) = (from, false, false);
                number
            }
            None => {
                let topic = topic.to_owned();
                self.places.push(Place { topic, of, partition, position: from, paused: false, at_end: false });
                *known[partition as usize].insert(self.places.len() - 1)
            }
        };
        self.consumer.assign(of, partition, from);
        Ok(number)
    }

    /// Stops or resumes a partition. What was fetched of a partition that stops is fetched again later: that is how it
    /// costs no memory, and no position of librdkafka's is needed.
    pub(crate) fn set_paused(&mut self, number: usize, paused: bool) {
        let place = &mut self.places[number];
        if place.paused == paused {
            return;
        }
        if paused {
            self.consumer.unassign(place.of, place.partition);
        } else {
            self.consumer.assign(place.of, place.partition, place.position);
        }
        (place.paused, place.at_end) = (paused, false);
    }

    /// The next offset to read of a partition.
    pub(crate) fn position(&self, number: usize) -> u64 {
        self.places[number].position
    }

    /// How many requests of the client have been answered so far, those not counted that let it in.
    pub(crate) fn answers(&self) -> u64 {
        self.consumer.client().watch().served()
    }

    /// Whether the cluster said that nothing is to be read at the position of a partition.
    pub(crate) fn at_end(&self, number: usize) -> bool {
        self.places[number].at_end
    }

    /// Hands up to `most` records to `take`, waiting no longer than `wait` for something to happen. Returns how many
    /// records there were; without a wait, 0 means that there was nothing at all.
    pub(crate) fn poll(
        &mut self,
        most: usize,
        wait: Duration,
        take: &mut dyn FnMut(usize, Record<'_>),
    ) -> Result<usize, Error> {
        let mut records = 0;
        loop {
            let mut failed = None;
            self.consumer.fetch(most, wait)?;
            let told = self.consumer.told_of_topics();
            if let Some((identity, _)) = &self.identity
                && !identity.holds(told)?
            {
                return Ok(records);
            }
            let (places, index) = (&mut self.places, &self.index);
            let arrived = self.consumer.hand_on(|topic, partition, arrival| {
                let place = index.get(topic).and_then(|partitions| *partitions.get(partition as usize)?);
                let Some(number) = place else { return };
                let place = &mut places[number];
                match arrival {
                    // Left over from before a pause or a new start: it comes again.
                    _ if place.paused => {}
                    Arrival::Record(record) if record.offset.0 < place.position => {}
                    Arrival::Record(record) => {
                        place.position = record.offset.0 + 1;
                        place.at_end = false;
                        records += 1;
                        take(number, record);
                    }
                    Arrival::End(offset) => {
                        place.position = place.position.max(offset);
                        place.at_end = true;
                    }
                    Arrival::Failed(code, reason) => {
                        if is_final(code) {
                            failed = Some((number, code, reason.to_owned()));
                        } else {
                            let topic = &place.topic;
                            tracing::debug!(%topic, partition, ?code, "a partition cannot be read for now: {reason}");
                        }
                    }
                }
            });
            if let Some((number, code, reason)) = failed {
                return Err(self.failed(number, code, &reason));
            }
            if arrived == 0 || records > 0 || !wait.is_zero() {
                return Ok(records);
            }
        }
    }

    fn failed(&self, number: usize, code: Code, reason: &str) -> Error {
        let Place { topic, partition, position, .. } = &self.places[number];
        let what = format!("read topic '{topic}' partition {partition} at offset {position}");
        if code == Code::TopicAuthorizationFailed {
            return denied(&what, "Read", &Resource::topic(topic), self.principal.as_deref());
        }
        if failure::kind(code) != ErrorKind::Data {
            return failure::error(code, format!("{what}: {reason}"));
        }
        let deadline = Instant::now() + ASK_WHAT_IS_LEFT;
        let left = self.consumer.client().bounds_beyond(&[((topic, *partition), 0)], Isolation::Committed, deadline);
        let left = match left.as_deref() {
            Ok([Bounds { earliest, end }]) => {
                format!("the partition now holds {}", describe_offsets(Offset(*earliest), Offset(*end)))
            }
            _ => "which offsets are left could not be found out".to_owned(),
        };
        failure::error(
            code,
            format!("{what}: the offset is gone (retention, or a topic that was truncated or recreated); {left}"),
        )
    }
}

/// Whether a partition that failed so will not heal by itself. That it is unknown is no such failure: whoever asks for the
/// splits learns of a topic that does not exist.
fn is_final(code: Code) -> bool {
    match code {
        Code::Fatal | Code::TopicAuthorizationFailed | Code::InvalidMessage => true,
        code => failure::kind(code) == ErrorKind::Data,
    }
}
