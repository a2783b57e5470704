//! What a topic's settings make of what a job keeps in it.
//!
//! A topic that is compacted keeps the newest record of each key for ever, one that is not keeps every record for a time.
//! An upsert output and the progress topic need the first, an append output the second.

use std::collections::BTreeMap;

use fluvial_connector::Envelope;

/// What a job keeps in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// A table: the newest record of a key is its row.
    Table,
    /// Records, each for itself.
    Records,
    /// The progress of output partitions.
    Progress,
}

impl From<Envelope> for Kept {
    fn from(envelope: Envelope) -> Self {
        match envelope {
            Envelope::Upsert | Envelope::StreamWritten => Self::Table,
            Envelope::Append => Self::Records,
        }
    }
}

impl Kept {
    /// The `cleanup.policy` of a topic that keeps it.
    pub(crate) fn cleanup_policy(self) -> &'static str {
        match self {
            Self::Table | Self::Progress => "compact",
            Self::Records => "delete",
        }
    }

    /// What a person should know of the topic, if its settings lose what is kept in it, with the command that cures it.
    pub(crate) fn warning(self, topic: &str, settings: &BTreeMap<String, String>, brokers: &str) -> Option<String> {
        let policy = settings.get("cleanup.policy")?;
        let has = |part: &str| policy.split(',').any(|policy| policy.trim() == part);
        let limit =
            |name: &str| settings.get(name).filter(|limit| *limit != "-1").map(|limit| format!("{name}={limit}"));
        let limits: Vec<String> = ["retention.ms", "retention.bytes"].into_iter().filter_map(limit).collect();
        let what = match self {
            Self::Records if has("compact") => format!(
                "the append output '{topic}' is compacted (cleanup.policy={policy}): of several records with one key only the \
                 newest is kept"
            ),
            Self::Table if has("delete") && !limits.is_empty() => format!(
                "the upsert output '{topic}' is subject to retention (cleanup.policy={policy}, {}): rows that have not changed \
                 for that long are deleted from it, though they are still part of the table",
                limits.join(", ")
            ),
            Self::Progress if has("delete") && !limits.is_empty() => format!(
                "the progress topic '{topic}' is subject to retention (cleanup.policy={policy}, {}): a job that has written \
                 nothing for that long cannot be started again",
                limits.join(", ")
            ),
            _ => return None,
        };
        Some(format!(
            "{what}; change this with `kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics \
             --entity-name {topic} --add-config cleanup.policy={}`",
            self.cleanup_policy()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_lose_what_is_kept_are_warned_of_with_the_command_that_ends_it() {
        let check = |kept: Kept, policy: &str, retention_ms: &str, expected: Option<&str>| {
            let settings = [("cleanup.policy", policy), ("retention.ms", retention_ms), ("retention.bytes", "-1")];
            let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let said = kept.warning("counts", &settings, "b:1");
            assert_eq!(said.is_some(), expected.is_some(), "{kept:?} {policy} {retention_ms}: {said:?}");
            if let (Some(said), Some(expected)) = (said, expected) {
                assert!(said.contains("'counts'") && said.contains(expected), "{said}");
                let command = "--bootstrap-server b:1 --alter --entity-type topics --entity-name counts --add-config";
                assert!(said.contains(command), "{said}");
            }
        };
        let compact = Some("cleanup.policy=compact`");
        check(Kept::Table, "delete", "604800000", compact);
        check(Kept::Table, "compact,delete", "604800000", compact);
        check(Kept::Table, "delete", "-1", None);
        check(Kept::Table, "compact", "604800000", None);
        check(Kept::Progress, "delete", "604800000", compact);
        check(Kept::Progress, "compact", "604800000", None);
        check(Kept::Records, "delete", "604800000", None);
        check(Kept::Records, "compact", "604800000", Some("cleanup.policy=delete`"));
        check(Kept::Records, "compact, delete", "604800000", Some("cleanup.policy=delete`"));
        assert_eq!(Kept::Table.warning("counts", &BTreeMap::new(), "b:1"), None);
    }
}
