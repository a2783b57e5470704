//! Why a record was not written: which record it is, what refuses it, and what a person can do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fluvial_connector::{CommitError, Error, ErrorKind, OutputRecord, PartitionWrite};

use crate::failure;
use crate::flight::{Failed, Flight};
use crate::kafka::Kafka;
use crate::limits::{Limits, batch_of_one};
use crate::native::Code;
use crate::permission::{Resource, denied};

/// How long the settings are asked for that explain a refusal.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of a key is shown.
const SHOWN_OF_KEY: usize = 64;

/// Explains what one producer's records meet.
pub(crate) struct Refusals {
    pub(crate) kafka: Kafka,
    pub(crate) limits: Arc<Limits>,
    pub(crate) progress_topic: String,
    /// The most bytes of a batch of several records.
    pub(crate) batch_bytes: usize,
    /// The largest message that the client takes.
    pub(crate) message_bytes: usize,
    /// How many bytes of headers each record has.
    pub(crate) header_bytes: usize,
}

/// Where a message was to go.
struct Place<'a> {
    topic: &'a str,
    described: String,
}

impl Refusals {
    fn place<'a>(&'a self, write: Option<&'a PartitionWrite>) -> Place<'a> {
        match write {
            Some(PartitionWrite { at, .. }) => {
                Place { topic: &at.output, described: format!("topic '{}' partition {}", at.output, at.partition) }
            }
            None => Place {
                topic: &self.progress_topic,
                described: format!("the progress topic '{}'", self.progress_topic),
            },
        }
    }

    /// The broker has refused messages; `doing` names the operation.
    pub(crate) fn by_broker(&self, doing: &str, flight: &Flight<'_>, failed: &Failed) -> CommitError {
        let write = flight.write(failed.group);
        let place = self.place(write);
        match failed.code {
            Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => self.too_large(doing, &place, write, failed),
            Code::TopicAuthorizationFailed => self.denied(doing, "Write", &Resource::topic(place.topic)),
            // Where several records of a batch are out of time, librdkafka calls each of them invalid. Nothing else of ours
            // is: every record has a key, and is encoded by librdkafka itself.
            Code::InvalidTimestamp | Code::InvalidRecord => self.out_of_time(doing, &place, failed),
            code => failure::commit(code, format!("{doing}: {}", place.described)),
        }
    }

    /// The client itself has refused the message `index` of a write.
    pub(crate) fn by_client(
        &self,
        doing: &str,
        write: Option<&PartitionWrite>,
        index: usize,
        code: Code,
    ) -> CommitError {
        let place = self.place(write);
        match nth(write, index) {
            Some(record) if code == Code::MessageSizeTooLarge => {
                let (key, bytes, most) = (key(record), batch_of_one(record, self.header_bytes), self.message_bytes);
                let what = format!(
                    "{doing}: the record with the key {key} for {} is too large: it has {bytes} bytes, and the client's \
                     message.max.bytes is {most}: make the record smaller, or raise the limit with -X \
                     message.max.bytes={} (and the topic's max.message.bytes with it)",
                    place.described,
                    bytes + 1024
                );
                CommitError::Refused(Error::new(ErrorKind::Data, what))
            }
            _ => failure::commit(code, format!("{doing}: {}", place.described)),
        }
    }

    /// This client lacks a permission.
    pub(crate) fn denied(&self, doing: &str, operation: &str, resource: &Resource) -> CommitError {
        CommitError::Refused(denied(doing, operation, resource, self.kafka.settings().principal().as_deref()))
    }

    /// A batch is larger than the topic takes: because of one record, or because the limit is lower by now than it was
    /// when the producer was made.
    fn too_large(
        &self,
        doing: &str,
        place: &Place<'_>,
        write: Option<&PartitionWrite>,
        failed: &Failed,
    ) -> CommitError {
        let Place { topic, described } = place;
        self.limits.read(&self.kafka, &[topic]);
        let records = write.into_iter().flat_map(|write| write.records.iter());
        let records = records.skip(failed.first).take(failed.last - failed.first + 1);
        let sized = records.map(|record| (batch_of_one(record, self.header_bytes), record));
        let largest = sized.max_by_key(|(bytes, _)| *bytes);
        let (bytes, record) = largest.map_or((0, None), |(bytes, record)| (bytes, Some(record)));
        let said = record.map_or("a record".to_owned(), |record| format!("the record with the key {}", key(record)));
        let refused = |what: String| CommitError::Refused(Error::new(ErrorKind::Data, what));
        let raise = |setting: &str| {
            format!(
                "make the record smaller, or raise the limit with `kafka-configs.sh --alter --entity-type topics \
                 --entity-name {topic} --add-config {setting}={}`",
                bytes + 1024
            )
        };
        match self.limits.of(topic) {
            Some(limit) if bytes > limit.bytes => refused(format!(
                "{doing}: {said} for {described} is too large: it has {bytes} bytes, and the topic's {} is {}: {}",
                limit.setting,
                limit.bytes,
                raise(limit.setting)
            )),
            Some(limit) if limit.bytes < self.batch_bytes => {
                tracing::warn!(
                    topic,
                    setting = limit.setting,
                    bytes = limit.bytes,
                    "the topic's limit has been lowered: it refused a batch of up to {} bytes, and gets smaller ones from now on",
                    self.batch_bytes
                );
                CommitError::Unknown(Error::new(
                    ErrorKind::Restart,
                    format!(
                        "{doing}: {described} refused a batch of up to {} bytes: its {} was lowered to {}",
                        self.batch_bytes, limit.setting, limit.bytes
                    ),
                ))
            }
            Some(limit) => refused(format!(
                "{doing}: {described} refuses a batch of up to {} bytes as too large, though the topic's {} is {}; its \
                 largest record is {said}, which has {bytes} bytes",
                self.batch_bytes.max(bytes),
                limit.setting,
                limit.bytes
            )),
            // A record that has as many bytes as a batch may have was alone in it.
            None if bytes >= self.batch_bytes || record.is_none() => refused(format!(
                "{doing}: {said} for {described} is too large: it has {bytes} bytes, and the topic's max.message.bytes, \
                 which this client may not see, is less: {}",
                raise("max.message.bytes")
            )),
            None => {
                self.limits.halve(self.batch_bytes);
                CommitError::Unknown(Error::new(
                    ErrorKind::Restart,
                    format!(
                        "{doing}: {described} refused a batch of up to {} bytes; its max.message.bytes cannot be read, so \
                         the next batches are half as large",
                        self.batch_bytes
                    ),
                ))
            }
        }
    }

    /// A batch of a transaction with these writes is larger than its topic takes, and nothing says which: `what` is all that
    /// is known.
    pub(crate) fn some_batch_is_too_large(&self, what: &str, writes: &[PartitionWrite]) -> CommitError {
        let topics: BTreeSet<&str> = writes.iter().map(|write| write.at.output.as_str()).collect();
        let topics: Vec<&str> = topics.into_iter().chain([self.progress_topic.as_str()]).collect();
        self.limits.read(&self.kafka, &topics);
        if topics.iter().any(|topic| self.limits.of(topic).is_none()) {
            self.limits.halve(self.batch_bytes);
        }
        let smaller = self.limits.smallest(self.batch_bytes);
        if smaller == self.batch_bytes {
            return CommitError::Refused(Error::new(ErrorKind::Data, what));
        }
        tracing::warn!(
            ?topics,
            bytes = smaller,
            "the topic's limit has been lowered: one of these refused a batch of up to {} bytes, and smaller ones follow",
            self.batch_bytes
        );
        CommitError::Unknown(Error::new(ErrorKind::Restart, format!("{what}; the next batches are smaller")))
    }

    /// A record's timestamp is too far from the broker's clock.
    fn out_of_time(&self, doing: &str, place: &Place<'_>, failed: &Failed) -> CommitError {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let client = self.kafka.questions();
        let settings = client.and_then(|client| client.settings_of(place.topic, Instant::now() + PATIENCE));
        let settings = settings.unwrap_or_default();
        let limits = ["message.timestamp.after.max.ms", "message.timestamp.before.max.ms"]
            .map(|name| settings.get(name).map_or_else(|| name.to_owned(), |value| format!("{name}={value}")));
        let what = format!(
            "{doing}: {} refuses the timestamp of a record: the clock of this host, which reads {} s since 1970 (`date +%s`), \
             and that of the broker differ by more than the topic allows: set the clocks, or raise the topic's limits ({})",
            place.described,
            now.as_secs(),
            limits.join(", ")
        );
        CommitError::Refused(Error::caused(ErrorKind::Configuration, what, failed.code))
    }
}

fn nth(write: Option<&PartitionWrite>, index: usize) -> Option<&OutputRecord> {
    write?.records.iter().nth(index)
}

/// A key as it is shown: quoted, with escapes, and not all of a long one.
fn key(record: &OutputRecord) -> String {
    let shown = &record.key[..record.key.len().min(SHOWN_OF_KEY)];
    let more = if shown.len() < record.key.len() { "…" } else { "" };
    let text: String = String::from_utf8_lossy(shown).escape_debug().collect();
    format!("\"{text}{more}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shortened_and_escaped() {
        let shown = |bytes: &[u8]| key(&OutputRecord { key: bytes.to_vec(), value: None });
        assert_eq!(shown(b"{\"a\":1}\n"), r#""{\"a\":1}\n""#);
        assert_eq!(shown(&[b'k'; 100]), format!("\"{}…\"", "k".repeat(64)));
    }
}
