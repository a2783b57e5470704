//! What a job's log says of when things happened.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use serde_json::Value;

/// `RUST_LOG` for what happens now and then: openings, checkpoints.
pub(crate) const SELDOM: &str = "info,fluvial::stages=debug";
/// `RUST_LOG` for that and what happens at every tick.
pub(crate) const ALL: &str = "info,fluvial::stages=trace";

/// A line of the log.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// When, microseconds since the Unix epoch.
    pub(crate) at_us: u64,
    /// What happened.
    pub(crate) message: String,
    /// What is said with it.
    pub(crate) fields: BTreeMap<String, Value>,
}

impl Event {
    /// A field that is a number.
    pub(crate) fn number(&self, field: &str) -> Option<u64> {
        let value = self.fields.get(field)?;
        value.as_u64().or_else(|| value.as_str()?.parse().ok())
    }
}

/// All events of a log in JSON, in their order; other lines, of other programs, are passed over.
pub(crate) fn read(log: &Path) -> Result<Vec<Event>> {
    let text = fs::read_to_string(log).with_context(|| format!("read {}", log.display()))?;
    Ok(text.lines().filter_map(event).collect())
}

fn event(line: &str) -> Option<Event> {
    #[derive(serde::Deserialize)]
    struct Line {
        timestamp: String,
        fields: BTreeMap<String, Value>,
    }
    let Line { timestamp, mut fields } = serde_json::from_str(line).ok()?;
    let at = humantime::parse_rfc3339(&timestamp).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let message = fields.remove("message")?.as_str()?.to_owned();
    Some(Event { at_us: u64::try_from(at.as_micros()).ok()?, message, fields })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_event_is_a_line_of_json() {
        let line =
            r#"{"timestamp":"2026-11-24T02:00:00.000250Z","level":"TRACE","fields":{"message":"minted","tick":7}}"#;
        let event = event(line).unwrap();
        assert_eq!((event.at_us % 1_000_000, event.message.as_str(), event.number("tick")), (250, "minted", Some(7)));
        assert!(super::event("error: something else").is_none());
    }
}
