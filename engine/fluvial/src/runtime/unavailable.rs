//! Logs which splits of the input are unavailable, and since when.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fluvial_protocol::FoundSplit;
use fluvial_protocol::journal::SplitName;

use super::ambient;

/// How long after an answer that says that a split is unavailable the sources are asked again.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often the log repeats that a split is unavailable.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// The splits that the sources called unavailable when they were asked last.
#[derive(Default)]
pub(crate) struct Unavailable(BTreeMap<SplitName, Since>);

struct Since {
    since: Instant,
    said: Instant,
}

impl Unavailable {
    /// Takes the answers of the sources, and logs which splits are newly unavailable and which have been so for long,
    /// with the `consequence`. Returns how many splits are unavailable.
    pub(crate) fn note(&mut self, found: &[FoundSplit], consequence: &str) -> usize {
        let now = ambient::instant();
        for split in found {
            let (name, FoundSplit { described, availability, .. }) = (split.name(), split);
            let Some(why) = availability.why_not() else {
                if let Some(Since { since, .. }) = self.0.remove(&name) {
                    let after_s = (now - since).as_secs();
                    tracing::info!(after_s, "{described} is available again");
                }
                continue;
            };
            let new = !self.0.contains_key(&name);
            let known = self.0.entry(name).or_insert(Since { since: now, said: now });
            if new || now - known.said >= SAY_AGAIN {
                known.said = now;
                let for_s = (now - known.since).as_secs();
                tracing::warn!(for_s, "{described} is unavailable: {why}; {consequence}");
            }
        }
        self.0.len()
    }
}
