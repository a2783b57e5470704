//! The settings of a topic: which exist, what they may be, and what a topic has.
//!
//! Takes every setting of Kafka 4 that clients commonly set, so that code written for a real cluster runs. Only
//! `max.message.bytes` has an effect; the broker neither compacts nor expires records, whatever these say.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use crate::Refusal;

/// How a setting's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    Text,
    Int,
    Long,
    Double,
    List,
}

impl Kind {
    /// The number that stands for the kind in `DescribeConfigs`.
    pub(crate) fn code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::Text => 2,
            Self::Int => 3,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
        }
    }

    fn allows(self, value: &str) -> bool {
        match self {
            Self::Boolean => matches!(value, "true" | "false"),
            Self::Text | Self::List => true,
            Self::Int => value.parse::<i32>().is_ok(),
            Self::Long => value.parse::<i64>().is_ok(),
            Self::Double => value.parse::<f64>().is_ok_and(f64::is_finite),
        }
    }
}

/// A setting that topics have.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    /// The only values, where they are few.
    one_of: &'static [&'static str],
}

const fn known(name: &'static str, kind: Kind, default: &'static str) -> Known {
    Known { name, kind, default, one_of: &[] }
}

/// The settings of a topic with the defaults of Kafka 4.
pub(crate) const KNOWN: &[Known] = &[
    Known { one_of: &["delete", "compact"], ..known("cleanup.policy", Kind::List, "delete") },
    Known {
        one_of: &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"],
        ..known("compression.type", Kind::Text, "producer")
    },
    known("compression.gzip.level", Kind::Int, "-1"),
    known("compression.lz4.level", Kind::Int, "9"),
    known("compression.zstd.level", Kind::Int, "3"),
    known("delete.retention.ms", Kind::Long, "86400000"),
    known("file.delete.delay.ms", Kind::Long, "60000"),
    known("flush.messages", Kind::Long, "9223372036854775807"),
    known("flush.ms", Kind::Long, "9223372036854775807"),
    known("follower.replication.throttled.replicas", Kind::List, ""),
    known("index.interval.bytes", Kind::Int, "4096"),
    known("leader.replication.throttled.replicas", Kind::List, ""),
    known("local.retention.bytes", Kind::Long, "-2"),
    known("local.retention.ms", Kind::Long, "-2"),
    known("max.compaction.lag.ms", Kind::Long, "9223372036854775807"),
    known(MAX_MESSAGE_BYTES, Kind::Int, "1048588"),
    known(TIMESTAMP_AFTER, Kind::Long, "3600000"),
    known(TIMESTAMP_BEFORE, Kind::Long, "9223372036854775807"),
    Known { one_of: &["CreateTime"], ..known("message.timestamp.type", Kind::Text, "CreateTime") },
    known("min.cleanable.dirty.ratio", Kind::Double, "0.5"),
    known("min.compaction.lag.ms", Kind::Long, "0"),
    known("min.insync.replicas", Kind::Int, "1"),
    known("preallocate", Kind::Boolean, "false"),
    known("remote.storage.enable", Kind::Boolean, "false"),
    known("retention.bytes", Kind::Long, "-1"),
    known("retention.ms", Kind::Long, "604800000"),
    known("segment.bytes", Kind::Int, "1073741824"),
    known("segment.index.bytes", Kind::Int, "10485760"),
    known("segment.jitter.ms", Kind::Long, "0"),
    known("segment.ms", Kind::Long, "604800000"),
    known("unclean.leader.election.enable", Kind::Boolean, "false"),
];

const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const TIMESTAMP_AFTER: &str = "message.timestamp.after.max.ms";
const TIMESTAMP_BEFORE: &str = "message.timestamp.before.max.ms";

fn find(name: &str) -> Result<&'static Known, Refusal> {
    KNOWN
        .iter()
        .find(|k| k.name == name)
        .ok_or_else(|| Refusal::new(ResponseError::InvalidConfig, format!("Unknown topic config name: {name}")))
}

/// What was set for one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings(BTreeMap<&'static str, String>);

/// A change to one setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Take this value.
    Set,
    /// Go back to the default.
    Delete,
    /// Add to a list.
    Append,
    /// Take from a list.
    Subtract,
}

impl TryFrom<i8> for Change {
    type Error = Refusal;

    fn try_from(code: i8) -> Result<Self, Refusal> {
        match code {
            0 => Ok(Self::Set),
            1 => Ok(Self::Delete),
            2 => Ok(Self::Append),
            3 => Ok(Self::Subtract),
            _ => Err(Refusal::new(ResponseError::InvalidRequest, format!("Unknown config operation {code}"))),
        }
    }
}

impl Settings {
    /// Makes one change.
    ///
    /// # Errors
    ///
    /// `INVALID_CONFIG` for an unknown name or a value that the setting cannot have.
    pub(crate) fn change(&mut self, name: &str, change: Change, value: Option<&str>) -> Result<(), Refusal> {
        let known = find(name)?;
        let invalid = |why: &str| {
            let value = value.unwrap_or("null");
            Refusal::new(ResponseError::InvalidConfig, format!("Invalid value {value} for configuration {name}: {why}"))
        };
        let value = match (change, value) {
            (Change::Delete, _) => {
                self.0.remove(known.name);
                return Ok(());
            }
            (_, None) => return Err(invalid("a value is needed")),
            (Change::Set, Some(value)) => value.to_owned(),
            (Change::Append | Change::Subtract, _) if known.kind != Kind::List => {
                return Err(invalid("only a list can be appended to or subtracted from"));
            }
            (Change::Append, Some(value)) => {
                let mut items = items(self.value(known));
                items.extend(self::items(value).into_iter().filter(|i| !items.contains(i)).collect::<Vec<_>>());
                items.join(",")
            }
            (Change::Subtract, Some(value)) => {
                let gone = items(value);
                items(self.value(known)).into_iter().filter(|i| !gone.contains(i)).collect::<Vec<_>>().join(",")
            }
        };
        if !known.kind.allows(&value) {
            return Err(invalid("not a value of its type"));
        }
        let named = |v: &str| known.one_of.is_empty() || known.one_of.contains(&v);
        let every = if known.kind == Kind::List { items(&value).into_iter().all(named) } else { named(&value) };
        if !every {
            return Err(invalid(&format!("this broker takes {}", known.one_of.join(", "))));
        }
        self.0.insert(known.name, value);
        Ok(())
    }

    /// A setting's value.
    pub(crate) fn value(&self, known: &'static Known) -> &str {
        self.0.get(known.name).map_or(known.default, String::as_str)
    }

    /// Whether it was set for this topic.
    pub(crate) fn is_set(&self, known: &'static Known) -> bool {
        self.0.contains_key(known.name)
    }

    /// How many milliseconds a record's timestamp may be before the broker's clock, and how many after it.
    pub(crate) fn timestamp_limits_ms(&self) -> (i64, i64) {
        let limit = |name, default| self.0.get(name).and_then(|v| v.parse().ok()).unwrap_or(default);
        (limit(TIMESTAMP_BEFORE, i64::MAX), limit(TIMESTAMP_AFTER, 3_600_000))
    }

    /// The longest batch that the topic takes.
    pub(crate) fn max_message_bytes(&self) -> usize {
        let value = self.0.get(MAX_MESSAGE_BYTES).and_then(|v| v.parse().ok());
        value.unwrap_or(1_048_588)
    }
}

fn items(list: &str) -> Vec<&str> {
    list.split(',').map(str::trim).filter(|i| !i.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn policy(settings: &Settings) -> &str {
        settings.value(find("cleanup.policy").unwrap())
    }

    #[test]
    fn values_are_set_and_go_back_to_the_default() {
        let mut settings = Settings::default();
        settings.change(MAX_MESSAGE_BYTES, Change::Set, Some("5000000")).unwrap();
        assert_eq!(settings.max_message_bytes(), 5_000_000);
        settings.change(MAX_MESSAGE_BYTES, Change::Delete, None).unwrap();
        assert_eq!(settings.max_message_bytes(), 1_048_588);
    }

    #[test]
    fn lists_grow_and_shrink() {
        let mut settings = Settings::default();
        settings.change("cleanup.policy", Change::Append, Some("compact")).unwrap();
        assert_eq!(policy(&settings), "delete,compact");
        settings.change("cleanup.policy", Change::Subtract, Some("delete")).unwrap();
        assert_eq!(policy(&settings), "compact");
    }

    #[test]
    fn what_is_unknown_or_wrong_is_refused() {
        let mut settings = Settings::default();
        for (name, value) in [
            ("retention.sm", "1"),
            ("retention.ms", "soon"),
            ("cleanup.policy", "burn"),
            ("message.timestamp.type", "LogAppendTime"),
        ] {
            assert_eq!(
                settings.change(name, Change::Set, Some(value)).unwrap_err().error,
                ResponseError::InvalidConfig
            );
        }
        assert_eq!(settings, Settings::default());
    }
}
