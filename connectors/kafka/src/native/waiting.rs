//! Waiting for what a cluster does not give now, and telling people of it.

use std::time::{Duration, Instant};

use super::Code;

/// How long a wait lasts before it is told.
const TELL_AFTER: Duration = Duration::from_millis(1500);
/// How long after that it is told again.
const TELL_EVERY: Duration = Duration::from_secs(15);

/// Why one attempt has not succeeded.
#[derive(Clone, Debug)]
pub(crate) enum Failed {
    /// librdkafka or the cluster says so.
    Code(Code),
    /// The object exists and is not available now.
    Unavailable {
        /// What was met.
        code: Code,
        /// The object and what it lacks, for people.
        why: String,
    },
    /// The metadata of the cluster does not list the object, which this names.
    Missing(String),
}

impl From<Code> for Failed {
    fn from(code: Code) -> Self {
        Self::Code(code)
    }
}

/// One wait: a WARN after a second and a half, again every 15 s, and a line when it is over.
pub(crate) struct Waiting<'a> {
    what: &'a str,
    since: Instant,
    told: Option<Instant>,
}

impl<'a> Waiting<'a> {
    /// A wait that begins now. `what` names the operation and its object.
    pub(crate) fn new(what: &'a str) -> Self {
        Self { what, since: Instant::now(), told: None }
    }

    /// It still lasts. `why` names what is waited for.
    pub(crate) fn lasts(&mut self, why: impl FnOnce() -> String, deadline: Instant) {
        let now = Instant::now();
        let due = self.told.map_or(self.since + TELL_AFTER, |told| told + TELL_EVERY);
        if now < due {
            return;
        }
        self.told = Some(now);
        let gives_up_in_s = deadline.saturating_duration_since(now).as_secs();
        let waited_s = (now - self.since).as_secs();
        tracing::warn!(waited_s, gives_up_in_s, "waiting to {}: {}", self.what, why());
    }

    /// It is over, and what was waited for is there.
    pub(crate) fn over(&self) {
        if self.told.is_some() {
            tracing::info!(waited_s = self.since.elapsed().as_secs(), "no longer waiting to {}", self.what);
        }
    }
}
