//! What a broker's refusal of a timestamp says of the clocks.
//!
//! Kafka names the range that it takes, which lies around its own clock: from the topic's
//! `message.timestamp.before.max.ms` before it to `message.timestamp.after.max.ms` after it. So together with these settings
//! the range tells what the broker's clock read.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The topic setting for how far a timestamp may lag behind the broker's clock.
pub(crate) const BEFORE: &str = "message.timestamp.before.max.ms";
/// How far ahead of the broker's clock it may be.
pub(crate) const AFTER: &str = "message.timestamp.after.max.ms";

/// The first millisecond that RFC 3339 cannot write.
const YEAR_10_000_MS: u64 = 253_402_300_800_000;

/// A timestamp that a broker refuses, and the first and last that it takes, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfRange {
    timestamp: i64,
    from: i64,
    to: i64,
}

impl OutOfRange {
    /// Understands the words of Kafka's `LogValidator`: `Timestamp 1790000000000 of message with offset 0 is out of range. The
    /// timestamp should be within [1789990000000, 1789999999999]`.
    pub(crate) fn parse(words: &str) -> Option<Self> {
        let (_, rest) = words.split_once("Timestamp ")?;
        let (timestamp, rest) = rest.split_once(" of message with offset ")?;
        let (_, rest) = rest.split_once("should be within [")?;
        let (from, rest) = rest.split_once(", ")?;
        let (to, _) = rest.split_once(']')?;
        Some(Self { timestamp: timestamp.parse().ok()?, from: from.parse().ok()?, to: to.parse().ok()? })
    }

    /// Whether the broker would refuse this host's clock as well, so that the host is at fault and not the record.
    pub(crate) fn refuses_clock(&self, host: SystemTime) -> bool {
        let host = since_epoch(host);
        if self.is_late() { host > self.to } else { host < self.from }
    }

    /// Whether the timestamp is after the range, and not before it.
    fn is_late(&self) -> bool {
        // If the last timestamp is before the first, there is no upper limit.
        self.from <= self.to && self.timestamp > self.to
    }

    /// What the broker's clock read. `None` where the range is not that of these settings: they have been changed
    /// meanwhile, or a broker older than Kafka 4 has `message.timestamp.difference.max.ms`.
    fn brokers_clock(&self, allowed: &Allowed) -> Option<i64> {
        // The greatest number stands for no limit, and Kafka adds and subtracts without regard to it.
        let by_first = self.from.wrapping_add(allowed.before);
        (by_first == self.to.wrapping_sub(allowed.after)).then_some(by_first)
    }

    /// Why the timestamp is refused, and what a person can do; `host` is this host's clock when the broker's answer came.
    /// What is returned goes on after `refuses a record `.
    pub(crate) fn explain(&self, allowed: Option<Allowed>, host: SystemTime) -> String {
        let host = since_epoch(host);
        let timestamp = moment(self.timestamp);
        let told = allowed.and_then(|allowed| Some((allowed, self.brokers_clock(&allowed)?)));
        let Some((allowed, broker)) = told else {
            let (setting, beyond) = if self.is_late() {
                (AFTER, format!("{} after", length(self.timestamp.saturating_sub(self.to))))
            } else {
                (BEFORE, format!("{} before", length(self.from.saturating_sub(self.timestamp))))
            };
            return format!(
                "for its timestamp, {timestamp}, which is {beyond} those that the broker accepts, while this host's \
                 clock read {}: compare it with the broker's clock and set the clocks, or raise the topic's \
                 {setting}",
                moment(host)
            );
        };
        let (setting, limit) = if self.timestamp > broker { (AFTER, allowed.after) } else { (BEFORE, allowed.before) };
        // A record is older than its sending where it waited, or where its timestamp is its tick.
        let clocks_count_more = host.abs_diff(broker) >= self.timestamp.abs_diff(host);
        let cure = if clocks_count_more {
            "set the clocks, or raise"
        } else {
            "the record itself differs more from this host's clock, so raise"
        };
        format!(
            "for its timestamp, {timestamp}, which is {} the broker's clock, where the topic takes up to {}: this host's \
             clock is {} the broker's (this host's read {} when the broker's read {}): {cure} the topic's {setting}={limit}",
            apart(self.timestamp, broker),
            length(limit),
            apart(host, broker),
            moment(host),
            moment(broker)
        )
    }
}

/// How far a topic lets timestamps be from the broker's clock, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    before: i64,
    after: i64,
}

impl Allowed {
    /// As the settings of the topic say.
    pub(crate) fn of(settings: &BTreeMap<String, String>) -> Option<Self> {
        let number = |name: &str| settings.get(name)?.parse::<i64>().ok();
        Some(Self { before: number(BEFORE)?, after: number(AFTER)? })
    }
}

/// A clock, for people.
pub(crate) fn now(clock: SystemTime) -> String {
    moment(since_epoch(clock))
}

fn since_epoch(clock: SystemTime) -> i64 {
    let since = clock.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn moment(ms: i64) -> String {
    match u64::try_from(ms) {
        Ok(ms) if ms < YEAR_10_000_MS => {
            humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
        }
        _ => format!("{ms} ms since 1970"),
    }
}

/// Milliseconds for people, in whole seconds where there are any.
fn length(ms: i64) -> String {
    let ms = ms.unsigned_abs();
    let shown = if ms < 1000 { Duration::from_millis(ms) } else { Duration::from_secs(ms.saturating_add(500) / 1000) };
    humantime::format_duration(shown).to_string()
}

fn apart(one: i64, other: i64) -> String {
    let by = length(one.saturating_sub(other));
    if one < other { format!("{by} behind") } else { format!("{by} ahead of") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HOUR: i64 = 3_600_000;
    const THEN: i64 = 1_790_000_000_000;

    #[test]
    fn a_host_is_at_fault_if_its_clock_would_be_refused_for_the_same_reason() {
        let check = |timestamp, (from, to), host: i64, expected| {
            let host = UNIX_EPOCH + Duration::from_millis(host.try_into().unwrap());
            assert_eq!(
                OutOfRange { timestamp, from, to }.refuses_clock(host),
                expected,
                "{timestamp} {from} {to} {host:?}"
            );
        };
        let limits = (THEN - HOUR, THEN + HOUR);
        check(THEN + 2 * HOUR, limits, THEN + 2 * HOUR, true);
        check(THEN + 2 * HOUR, limits, THEN, false);
        check(THEN - 2 * HOUR, limits, THEN - 2 * HOUR, true);
        check(THEN - 2 * HOUR, limits, THEN, false);
        // A record that is too old says nothing of a clock that is ahead.
        check(THEN - 2 * HOUR, limits, THEN + 2 * HOUR, false);
        let no_upper_limit = (THEN - HOUR, i64::MIN);
        check(THEN - 2 * HOUR, no_upper_limit, THEN + 2 * HOUR, false);
        check(THEN - 2 * HOUR, no_upper_limit, THEN - 2 * HOUR, true);
    }

    fn at(ms: i64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs())
    }

    /// The words of a broker whose clock is this, as Kafka computes them.
    fn words(timestamp: i64, clock: i64, allowed: Allowed) -> String {
        let (from, to) = (clock.wrapping_sub(allowed.before), clock.wrapping_add(allowed.after));
        format!(
            "Timestamp {timestamp} of message with offset 0 is out of range. The timestamp should be within [{from}, {to}]"
        )
    }

    #[test]
    fn kafkas_words_are_understood() {
        let words = "Timestamp 1790000000000 of message with offset 7 is out of range. The timestamp should be within \
                     [-9223370246854775807, 1789992802000]";
        let parsed = OutOfRange { timestamp: THEN, from: -9_223_370_246_854_775_807, to: 1_789_992_802_000 };
        assert_eq!(OutOfRange::parse(words), Some(parsed));
        for other in [
            "",
            "One or more records have been rejected due to invalid timestamp",
            "Log record DefaultRecord(offset=0, timestamp=1790000000000, key=1 bytes, value=1 bytes) is rejected by the \
             record interceptor io.confluent.kafka.schemaregistry.validator.RecordSchemaValidator",
            "Timestamp 17900000000000000000000 of message with offset 0 is out of range. The timestamp should be within [1, 2]",
        ] {
            assert_eq!(OutOfRange::parse(other), None, "{other}");
        }
    }

    /// Kafka's own values: no limit before, one hour after.
    const USUAL: Allowed = Allowed { before: i64::MAX, after: HOUR };

    #[track_caller]
    fn explained(timestamp: i64, host: i64, broker: i64, allowed: Allowed) -> String {
        let refused = OutOfRange::parse(&words(timestamp, broker, allowed)).unwrap();
        refused.explain(Some(allowed), at(host))
    }

    #[test]
    fn both_clocks_are_told_and_how_far_they_differ() {
        // The broker's answer takes 120 ms.
        assert_eq!(
            explained(THEN, THEN + 120, THEN - 3 * HOUR + 2120, USUAL),
            "for its timestamp, 2026-09-21T14:13:20.000Z, which is 2h 59m 58s ahead of the broker's clock, where the topic \
             takes up to 1h: this host's clock is 2h 59m 58s ahead of the broker's (this host's read 2026-09-21T14:13:20.120Z \
             when the broker's read 2026-09-21T11:13:22.120Z): set the clocks, or raise the topic's \
             message.timestamp.after.max.ms=3600000"
        );
        let day = Allowed { before: 24 * HOUR, after: HOUR };
        let behind = explained(THEN, THEN + 3, THEN + 25 * HOUR, day);
        assert!(behind.contains("this host's clock is 1day 1h behind the broker's"), "{behind}");
        assert!(
            behind.ends_with("set the clocks, or raise the topic's message.timestamp.before.max.ms=86400000"),
            "{behind}"
        );
    }

    #[test]
    fn an_old_record_is_not_the_clocks_fault() {
        let day = Allowed { before: 24 * HOUR, after: HOUR };
        let old = explained(THEN - 48 * HOUR, THEN, THEN - 4, day);
        assert!(old.contains("which is 2days behind the broker's clock"), "{old}");
        assert!(old.contains("this host's clock is 4ms ahead of the broker's"), "{old}");
        assert!(old.contains("so raise the topic's message.timestamp.before"), "{old}");
    }

    #[test]
    fn without_the_topics_settings_the_range_is_told() {
        let refused = OutOfRange::parse(&words(THEN, THEN - 3 * HOUR, USUAL)).unwrap();
        let other = Allowed { before: i64::MAX, after: 2 * HOUR };
        for allowed in [None, Some(other)] {
            let said = refused.explain(allowed, at(THEN));
            assert!(said.contains("which is 2h after those that the broker accepts"), "{said}");
            assert!(said.contains("this host's clock read 2026-09-21T14:13:20.000Z"), "{said}");
            assert!(said.ends_with(AFTER), "{said}");
        }
        let unlimited = Allowed { before: HOUR, after: i64::MAX };
        let refused = OutOfRange::parse(&words(THEN, THEN + 3 * HOUR, unlimited)).unwrap();
        let said = refused.explain(None, at(THEN));
        assert!(said.contains("which is 2h before those") && said.ends_with(BEFORE), "{said}");
    }

    #[test]
    fn settings_and_odd_moments_are_read() {
        let settings = BTreeMap::from([(BEFORE.to_owned(), "5".to_owned()), (AFTER.to_owned(), "7".to_owned())]);
        assert_eq!(Allowed::of(&settings), Some(Allowed { before: 5, after: 7 }));
        assert_eq!(Allowed::of(&BTreeMap::new()), None);
        assert_eq!(moment(-1), "-1 ms since 1970");
        assert_eq!(moment(i64::MAX), "9223372036854775807 ms since 1970");
    }
}
