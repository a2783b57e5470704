//! Why a record was not written: which record it is, what refuses it, and what a person can do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fluvial_connector::{CommitError, Error, ErrorKind, OutputRecordRef, PartitionWrite};

use crate::clocks::{self, AFTER, Allowed, BEFORE, OutOfRange};
use crate::failure;
use crate::flight::{Failed, Flight};
use crate::kafka::Kafka;
use crate::limits::{Limits, batch_of_one};
use crate::native::{Code, Watch, Words};
use crate::permission::{Resource, denied};
use crate::transactor::TICK_HEADER_BYTES;

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
}

/// Where a message was to go.
struct Place<'a> {
    topic: &'a str,
    described: String,
}

impl Refusals {
    /// Whether each record has its tick in a header.
    pub(crate) fn has_tick_headers(&self) -> bool {
        self.kafka.options().tick_header
    }

    /// How many bytes of headers each record has.
    fn header_bytes(&self) -> usize {
        if self.has_tick_headers() { TICK_HEADER_BYTES } else { 0 }
    }

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

    /// The broker has refused messages; `doing` names the operation, `watch` holds what the broker said of it.
    pub(crate) fn by_broker(&self, doing: &str, flight: &Flight<'_>, failed: &Failed, watch: &Watch) -> CommitError {
        let write = flight.write(failed.group);
        let place = self.place(write);
        let words = watch.words_on(place.topic, write.map(|write| write.at.partition));
        match failed.code {
            Code::MessageSizeTooLarge | Code::MessageBatchTooLarge => self.too_large(doing, &place, write, failed),
            Code::TopicAuthorizationFailed => self.denied(doing, "Write", &Resource::topic(place.topic)),
            // Where several records of a batch have a bad timestamp, librdkafka calls each of them invalid.
            code @ (Code::InvalidTimestamp | Code::InvalidRecord) => {
                let is_invalid = |words: &Words| matches!(words.code, Code::InvalidTimestamp | Code::InvalidRecord);
                let words = words.filter(is_invalid);
                let settings = || {
                    let client = self.kafka.questions().ok()?;
                    client.settings_of(place.topic, Instant::now() + PATIENCE).ok()
                };
                let (kind, why) = why_invalid(code, words.as_ref(), SystemTime::now(), settings);
                let what = format!("{doing}: {} refuses a record {why}", place.described);
                CommitError::Refused(Error::caused(kind, what, code))
            }
            code => {
                let words = words.filter(|words| words.code == code);
                let said = words.map_or(String::new(), |words| format!("; the broker says: {}", words.text));
                failure::commit(code, format!("{doing}: {}{said}", place.described))
            }
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
                let (key, bytes, most) = (key(record), batch_of_one(record, self.header_bytes()), self.message_bytes);
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
        let sized = records.map(|record| (batch_of_one(record, self.header_bytes()), record));
        let largest = sized.max_by_key(|(bytes, _)| *bytes);
        let (bytes, record) = largest.map_or((0, None), |(bytes, record)| (bytes, Some(record)));
        let said = record.map_or("a record".to_owned(), |record| format!("the record with the key {}", key(record)));
        let refused = |what: String| CommitError::Refused(Error::new(ErrorKind::Data, what));
        let brokers = self.kafka.brokers();
        let raise = |setting: &str| {
            format!(
                "make the record smaller, or raise the limit with `kafka-configs.sh --bootstrap-server {brokers} --alter \
                 --entity-type topics --entity-name {topic} --add-config {setting}={}`",
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
                    "the topic's limit was lowered: it refused a batch of up to {} bytes, and is sent smaller \
                     batches from now on",
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
                "{doing}: {said} for {described} is too large: it has {bytes} bytes, and the topic's \
                 max.message.bytes, which this client has no permission to read, is lower: {}",
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
            "the limit of one of these topics was lowered: it refused a batch of up to {} bytes, and is sent smaller \
             batches from now on",
            self.batch_bytes
        );
        CommitError::Unknown(Error::new(ErrorKind::Restart, format!("{what}; the next batches are smaller")))
    }
}

/// Why a broker refuses a record with one of Kafka's two codes for that, and what a person can do. The broker's words say
/// it, if there are any; `now` is this host's clock, `settings` asks for the settings of the topic. The text that is returned goes
/// on after `refuses a record `.
fn why_invalid(
    code: Code,
    words: Option<&Words>,
    now: SystemTime,
    settings: impl FnOnce() -> Option<BTreeMap<String, String>>,
) -> (ErrorKind, String) {
    let by_clocks = || format!("compare this host's clock, which reads {}, with the broker's", clocks::now(now));
    let Some(Words { text, heard, .. }) = words else {
        let why = match code {
            Code::InvalidTimestamp => format!(
                "for its timestamp, and the broker says no more: {} and set the clocks, or raise the topic's {AFTER} or \
                 {BEFORE}",
                by_clocks()
            ),
            _ => format!(
                "as invalid, and the broker does not say why: either the broker validates records itself (against a \
                 schema, for example), or the timestamp is too far from the broker's clock: {}; the topic's {AFTER} \
                 and {BEFORE} limit the difference",
                by_clocks()
            ),
        };
        return (ErrorKind::Configuration, why);
    };
    let refused = OutOfRange::parse(text);
    let of_host = refused.is_some_and(|refused| refused.refuses_clock(*heard));
    let why = match refused {
        Some(refused) => refused.explain(settings().as_ref().and_then(Allowed::of), *heard),
        None if code == Code::InvalidTimestamp => {
            format!("for its timestamp: {} and set the clocks, or raise the topic's {AFTER} or {BEFORE}", by_clocks())
        }
        None => "as invalid".to_owned(),
    };
    let kind = if of_host { ErrorKind::Host } else { ErrorKind::Configuration };
    (kind, format!("{why}; the broker says: {text}"))
}

fn nth(write: Option<&PartitionWrite>, index: usize) -> Option<OutputRecordRef<'_>> {
    write?.records.iter().nth(index)
}

/// A key as it is shown: quoted, with escapes, and not all of a long one.
fn key(record: OutputRecordRef<'_>) -> String {
    let shown = &record.key[..record.key.len().min(SHOWN_OF_KEY)];
    let more = if shown.len() < record.key.len() { "…" } else { "" };
    let text: String = String::from_utf8_lossy(shown).escape_debug().collect();
    format!("\"{text}{more}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(code: Code, text: Option<&str>) -> String {
        let heard = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let words = text.map(|text| Words { code, text: text.to_owned(), heard });
        let settings = [(BEFORE, i64::MAX.to_string()), (AFTER, "3600000".to_owned())];
        let settings = settings.map(|(name, value)| (name.to_owned(), value));
        let (kind, why) = why_invalid(code, words.as_ref(), heard, || Some(BTreeMap::from(settings)));
        assert_eq!(kind, if why.contains("3h ahead") { ErrorKind::Host } else { ErrorKind::Configuration }, "{why}");
        why
    }

    #[test]
    fn clocks_are_named_only_where_the_broker_speaks_of_timestamps_or_not_at_all() {
        let schema = "Log record DefaultRecord(offset=0, timestamp=1790000000000, key=1 bytes, value=1 bytes) is rejected by \
                      the record interceptor io.confluent.kafka.schemaregistry.validator.RecordSchemaValidator";
        assert_eq!(why(Code::InvalidRecord, Some(schema)), format!("as invalid; the broker says: {schema}"));
        let unknown = why(Code::InvalidRecord, None);
        assert!(unknown.contains("a schema") && unknown.contains("clock"), "{unknown}");
        for words in [None, Some("One or more records have been rejected due to invalid timestamp")] {
            let said = why(Code::InvalidTimestamp, words);
            assert!(said.contains("which reads 2026-09-21T14:13:20.000Z"), "{said}");
            assert!(said.contains(AFTER) && said.ends_with(words.unwrap_or(BEFORE)), "{said}");
        }
    }

    /// Several such records in one batch are invalid ones, by librdkafka.
    #[test]
    fn words_about_a_timestamp_tell_the_clocks_whatever_the_code_is() {
        let words = "Timestamp 1790000000000 of message with offset 0 is out of range. The timestamp should be within \
                     [-9223370246865575807, 1789992800000]";
        for code in [Code::InvalidTimestamp, Code::InvalidRecord] {
            let said = why(code, Some(words));
            assert!(said.contains("this host's clock is 3h ahead of the broker's"), "{said}");
            assert!(
                said.contains("raise the topic's message.timestamp.after.max.ms=3600000; the broker says: Time"),
                "{said}"
            );
        }
    }

    #[test]
    fn a_key_is_shortened_and_escaped() {
        let shown = |bytes: &[u8]| key(OutputRecordRef { key: bytes, value: None });
        assert_eq!(shown(b"{\"a\":1}\n"), r#""{\"a\":1}\n""#);
        assert_eq!(shown(&[b'k'; 100]), format!("\"{}…\"", "k".repeat(64)));
    }
}
