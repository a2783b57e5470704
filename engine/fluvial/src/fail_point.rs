//! Fail points: named places at which a test ends or pauses a process, to show that nothing is lost or duplicated.
//!
//! **Guarantees** that an unused fail point costs one relaxed load. They are therefore in every build, at events that are rare
//! compared with records. **Does not** unwind, send a message or flush anything: the effect is that of a crash or a pause.
//! A process gets its fail point from its command line, and applies it only in the first generation; the following generations
//! have to recover.
//!
//! One fail point is inside a sink, which does not know about fail points. A sink emits the events of [`crate::stages`]; for this
//! fail point the process also subscribes to these events ([`in_the_sink`]).

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use rustix::process::{Signal, getpid, kill_process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::stages::STAGES;

/// A place in the life of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum FailPoint {
    /// The `opened` record is in the journal; the gap before it is not filled yet, and nothing has been read.
    AfterClaiming = 1,
    /// The plan is known; no writer of an earlier generation is fenced.
    BeforeFencing,
    /// A state file of the checkpoint has been read, others have not.
    DuringRestore,
    /// Every writer of earlier generations is fenced; the journal's tail has not been read again.
    AfterFencing,
    /// The journal has no newer generation; progress has not been read.
    AfterAllFenced,
    /// The progress has been read; the records after it have not.
    AfterProgress,
    /// A worker is about to report that it is ready.
    BeforeReady,
    /// A tick is minted and was broadcast to the workers; it is not in the journal yet.
    AfterMinting,
    /// A tick is in the journal; the workers have not been told yet.
    AfterSealing,
    /// A transaction's records are acknowledged; its progress is not written yet.
    BetweenDataAndProgress,
    /// A transaction is written; its commit has not been requested yet.
    BeforeCommit,
    /// A transaction is committed; the leader has not been told yet.
    AfterCommit,
    /// A state file of a checkpoint is stored, others are not.
    DuringUpload,
    /// A checkpoint's manifest is stored; no journal record refers to it yet.
    AfterManifest,
    /// A merged state file is written, but the upload is not completed, so that the object does not exist yet.
    DuringMerge,
    /// One object of several has been deleted.
    DuringDeletion,
}

/// What happens at a fail point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Fate {
    /// The process sends itself SIGKILL.
    Kill,
    /// The process sends itself SIGSTOP.
    Stop,
}

/// A fail point that is set: `NAME=kill`, or `NAME:N=stop` for the N-th time that it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doom {
    /// The place.
    pub point: FailPoint,
    /// At which time that the place is reached, counted from 1.
    pub time: u32,
    /// What happens.
    pub fate: Fate,
}

impl FailPoint {
    /// All of them, in the order of a generation's life.
    pub const ALL: &[Self] = &[
        Self::AfterClaiming,
        Self::BeforeFencing,
        Self::DuringRestore,
        Self::AfterFencing,
        Self::AfterAllFenced,
        Self::AfterProgress,
        Self::BeforeReady,
        Self::AfterMinting,
        Self::AfterSealing,
        Self::BetweenDataAndProgress,
        Self::BeforeCommit,
        Self::AfterCommit,
        Self::DuringUpload,
        Self::AfterManifest,
        Self::DuringMerge,
        Self::DuringDeletion,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> String {
        name(&self)
    }
}

/// How a place or a fate is written.
fn name(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The place or the fate that is written so.
fn named<T: DeserializeOwned>(name: &str) -> Option<T> {
    serde_json::from_value(name.into()).ok()
}

impl fmt::Display for Doom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}={}", self.point.name(), self.time, name(&self.fate))
    }
}

impl FromStr for Doom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || FailPoint::ALL.iter().map(|point| point.name()).collect::<Vec<_>>().join(", ");
        let form = "write NAME=kill or NAME:N=stop";
        let (place, fate) = text.split_once('=').ok_or(form)?;
        let (point, time) = place.split_once(':').unwrap_or((place, "1"));
        let point = named(point).ok_or_else(|| format!("no fail point '{point}': {}", known()))?;
        let time = time.parse().ok().filter(|time| *time > 0).ok_or(form)?;
        Ok(Self { point, time, fate: named(fate).ok_or(form)? })
    }
}

/// The fail point that is set; 0 where there is none.
static SET: AtomicU8 = AtomicU8::new(0);
/// How often it is still to be reached.
static LEFT: AtomicU32 = AtomicU32::new(0);
/// What happens then.
static FATE: AtomicU8 = AtomicU8::new(0);

/// Sets this process's fail point.
pub(crate) fn set(doom: Doom) {
    LEFT.store(doom.time, Ordering::Relaxed);
    FATE.store(doom.fate as u8, Ordering::Relaxed);
    // Last, and with what was stored before it: other threads may be on their way to the place.
    SET.store(doom.point as u8, Ordering::Release);
}

/// Says that this place is reached.
#[inline]
pub(crate) fn reach(point: FailPoint) {
    if SET.load(Ordering::Relaxed) == point as u8 {
        meet(point);
    }
}

#[cold]
fn meet(point: FailPoint) {
    // Pairs with the release above.
    SET.load(Ordering::Acquire);
    if LEFT.fetch_sub(1, Ordering::Relaxed) != 1 {
        return;
    }
    SET.store(0, Ordering::Relaxed);
    tracing::warn!("fail point {} reached", point.name());
    let signal = if FATE.load(Ordering::Relaxed) == Fate::Kill as u8 { Signal::KILL } else { Signal::STOP };
    // A process may always signal itself.
    let _ = kill_process(getpid(), signal);
}

/// A layer of the log that reaches [`FailPoint::BetweenDataAndProgress`] at the sink's event that the records of a
/// transaction are acknowledged. `None` unless that fail point is set, so that events cost nothing more.
pub(crate) fn in_the_sink<S>(doom: Option<Doom>) -> Option<impl Layer<S>>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let is_set = doom.is_some_and(|doom| doom.point == FailPoint::BetweenDataAndProgress);
    let is_it = |event: &Metadata<'_>| event.target() == STAGES && event.name() == "acknowledged";
    is_set.then(|| InTheSink.with_filter(filter_fn(is_it)))
}

/// Reaches [`FailPoint::BetweenDataAndProgress`] at every event that its filter lets through.
struct InTheSink;

impl<S: Subscriber> Layer<S> for InTheSink {
    fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
        reach(FailPoint::BetweenDataAndProgress);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_process_that_is_to_end_in_the_sink_listens_to_the_sinks_events() {
        for &point in FailPoint::ALL {
            let doom = Doom { point, time: 1, fate: Fate::Kill };
            let listens = in_the_sink::<tracing_subscriber::Registry>(Some(doom)).is_some();
            assert_eq!(listens, point == FailPoint::BetweenDataAndProgress, "{point:?}");
        }
        assert!(in_the_sink::<tracing_subscriber::Registry>(None).is_none());
    }

    #[test]
    fn a_fail_point_is_written_as_its_name_its_time_and_its_fate() {
        for (text, point, time, fate) in [
            ("after-minting=kill", FailPoint::AfterMinting, 1, Fate::Kill),
            ("between-data-and-progress:12=stop", FailPoint::BetweenDataAndProgress, 12, Fate::Stop),
        ] {
            let doom = Doom { point, time, fate };
            assert_eq!(text.parse(), Ok(doom));
            assert_eq!(doom.to_string().parse(), Ok(doom));
        }
        for text in ["", "after-minting", "after-minting:0=kill", "after-minting:x=kill", "after-minting=faint"] {
            assert!(text.parse::<Doom>().unwrap_err().contains("write NAME"), "{text}");
        }
        let unknown = "nowhere=kill".parse::<Doom>().unwrap_err();
        assert!(unknown.contains("no fail point 'nowhere'") && unknown.contains("during-merge"), "{unknown}");
    }
}
