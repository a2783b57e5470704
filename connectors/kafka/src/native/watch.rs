//! What happens to a client's connections and requests, noted by librdkafka's own threads.
//!
//! librdkafka heals a lost connection by sending again, which is what a source wants. A transaction must know of it:
//! the request that was lost may still be on its way, and would then hit a later transaction of the same epoch. So each
//! request that ends without an answer is counted here, by the thread that finds out, before it is sent again.

#![allow(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaErrorCode as Code;

use super::connections::Connections;
use super::{text, token};
use crate::settings::Settings;
use crate::{access, failure};

/// Requests of a transaction whose loss makes its outcome uncertain, by Kafka's API keys: Produce, InitProducerId,
/// AddPartitionsToTxn, AddOffsetsToTxn, EndTxn, TxnOffsetCommit.
const TRANSACTIONAL: [i16; 6] = [0, 22, 24, 25, 26, 28];

/// The API key of what the cluster says of its topics.
const METADATA: i16 = 3;

/// Requests that are answered before the cluster has decided whether it lets the client in: SaslHandshake, ApiVersions,
/// SaslAuthenticate.
const BEFORE_LET_IN: [i16; 3] = [17, 18, 36];

/// For how long a connection must have failed in a way that hints at a wrong `security.protocol` before it counts as
/// refused: a broker that is about to end fails a connection so, too.
const HINT: Duration = Duration::from_secs(2);

/// For how long a connection that could not be opened for want of files explains why an operation fails: twice the time
/// for which librdkafka logs the same failure only once.
const OUT_OF_FILES: Duration = Duration::from_secs(60);

/// What librdkafka itself says of the valid records of a batch that holds an invalid one.
const OF_THE_OTHERS: &str = "Failed to append record because it was part of a batch";

/// The most characters of a broker's words that are kept.
const MOST_WORDS: usize = 1000;

/// What a broker says of a record that it refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) code: Code,
    pub(crate) text: String,
    /// This host's clock when they came.
    pub(crate) heard: SystemTime,
}

/// Notes of one client.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    pub(super) connections: Connections,
    lost: AtomicU64,
    told_of_topics: AtomicU64,
    answers: AtomicU64,
    served: AtomicU64,
    refused: Mutex<Option<(Code, String)>>,
    last: Mutex<Option<String>>,
    hint: Mutex<Option<Hint>>,
    denied_topics: Mutex<BTreeSet<String>>,
    /// By topic and partition: the first words of a broker on records that it refuses.
    words: Mutex<BTreeMap<(String, i32), Words>>,
    /// When the client last could not open a connection because this process may open no more files.
    out_of_files: Mutex<Option<Instant>>,
    /// Why the last certificate of a broker is not trusted, if it is not.
    certificate: Mutex<Option<String>>,
    token_file: Option<PathBuf>,
    /// `security.protocol`, in small letters.
    protocol: String,
    /// Of all clients of one cluster in this process.
    let_in: Arc<AtomicBool>,
}

/// A sign that `security.protocol` is wrong: what a connection has failed with.
#[derive(Clone, Debug)]
struct Hint {
    reason: String,
    /// Since when every failure has been such a sign.
    since: Instant,
}

impl Watch {
    pub(super) fn new(settings: &Settings) -> Self {
        let token_file = settings.token_file().map(Path::to_path_buf);
        let protocol = settings.get("security.protocol").unwrap_or("plaintext").to_lowercase();
        Self { token_file, protocol, let_in: settings.let_in().clone(), ..Self::default() }
    }

    /// Whether the cluster has answered any client of this process that is set up like this one.
    pub(crate) fn was_let_in(&self) -> bool {
        self.let_in.load(Ordering::Acquire)
    }

    /// The file that the client's tokens come from.
    pub(super) fn token_file(&self) -> Option<&Path> {
        self.token_file.as_deref()
    }

    /// How many transactional requests have ended without an answer so far.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Acquire)
    }

    /// How many answers about topics have arrived so far; each is counted before the client knows what it says.
    pub(crate) fn told_of_topics(&self) -> u64 {
        self.told_of_topics.load(Ordering::Acquire)
    }

    /// How many requests have been answered so far.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Acquire)
    }

    /// How many requests have been answered so far that only a client which the cluster has let in may make.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Acquire)
    }

    /// Why the cluster refuses this client, if it does.
    pub(crate) fn refused(&self) -> Option<(Code, String)> {
        self.refused.lock().ok()?.clone()
    }

    /// Why it seems that the cluster expects another protocol of this client: an outage may look the same.
    pub(crate) fn seems_refused(&self) -> Option<(Code, String)> {
        let hint = self.hint.lock().ok()?.clone()?;
        (hint.since.elapsed() >= HINT).then_some((Code::BrokerTransportFailure, hint.reason))
    }

    /// Whether connections have lately failed because this process may open no more files.
    pub(crate) fn is_out_of_files(&self) -> bool {
        self.out_of_files.lock().is_ok_and(|at| at.is_some_and(|at| at.elapsed() < OUT_OF_FILES))
    }

    /// Notes the failure of a connection if the cause is that this process may open no more files: librdkafka takes it
    /// for a broker that cannot be reached, and tries again for ever.
    fn look_for_files(&self, failure: &str) {
        if failure.contains("Too many open files")
            && let Ok(mut at) = self.out_of_files.lock()
        {
            *at = Some(Instant::now());
        }
    }

    /// The last error that the client met, for messages to people.
    pub(crate) fn last(&self) -> Option<String> {
        self.last.lock().ok()?.clone()
    }

    /// The topics that the transactions of this client were not authorized to write.
    pub(crate) fn denied_topics(&self) -> Vec<String> {
        self.denied_topics.lock().map(|topics| topics.iter().cloned().collect()).unwrap_or_default()
    }

    /// The first error message of a broker about a record that it refused in this partition of the topic, or in any partition
    /// if none is given.
    pub(crate) fn words_on(&self, topic: &str, partition: Option<u32>) -> Option<Words> {
        let words = self.words.lock().ok()?;
        let meant = |number: i32| partition.is_none_or(|partition| i64::from(partition) == i64::from(number));
        let found = words.iter().find(|((of, number), _)| of == topic && meant(*number));
        found.map(|(_, words)| words.clone())
    }

    /// Notes a broker's words on a record that it refuses. Only the first are kept of a partition: a transaction has failed
    /// with them, and its producer is of no further use.
    fn refused_record(&self, topic: String, partition: i32, code: Code, text: &str) {
        if text.is_empty() || text.starts_with(OF_THE_OTHERS) {
            return;
        }
        let Ok(mut words) = self.words.lock() else { return };
        words.entry((topic, partition)).or_insert_with(|| {
            let text = text.chars().take(MOST_WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect();
            Words { code, text, heard: SystemTime::now() }
        });
    }

    /// Notes a line of librdkafka's log. Only the log says which topic could not be added to a transaction, and only it
    /// says of every failed connection at once and in order: errors wait in a queue, so that an older one may be noted after
    /// a newer line.
    fn logged(&self, facility: &str, message: &str) {
        // The name of a thread comes first.
        let failed = message.split_once("]: ").map_or(message, |(_, failed)| failed);
        if facility == "FAIL" {
            self.look_for_files(failed);
            self.look_for_a_hint(failed, self.cause(failed));
        }
        if facility == "ADDPARTS"
            && let Some(topic) = denied_topic(message)
            && let Ok(mut topics) = self.denied_topics.lock()
        {
            topics.insert(topic.to_owned());
        }
    }

    /// What is wrong with the settings, as far as the failure of a connection tells. That a connection was closed tells it
    /// only of a client that the cluster has never let in: once these settings have worked, an ending or starting broker is
    /// the likelier cause. What a broker answers counts at any time, such as that a certificate has expired.
    fn cause(&self, failed: &str) -> Option<&'static str> {
        let guess = || (!self.was_let_in()).then(|| access::guess(failed, &self.protocol)).flatten();
        access::cause(failed).or_else(guess)
    }

    fn look_for_a_hint(&self, failed: &str, cause: Option<&str>) {
        let Ok(mut hint) = self.hint.lock() else { return };
        *hint = cause.map(|_| Hint {
            reason: access::explained(failed, cause),
            since: hint.as_ref().map_or_else(Instant::now, |hint| hint.since),
        });
        if let Some(hint) = &*hint
            && let Ok(mut last) = self.last.lock()
        {
            *last = Some(hint.reason.clone());
        }
    }

    /// Notes an error that is not an answer to a call.
    pub(super) fn note(&self, code: Code, mut reason: String) {
        if code == Code::SSL
            && let Some(certificate) = self.certificate.lock().ok().and_then(|noted| noted.clone())
        {
            reason = certificate;
        }
        self.look_for_files(&reason);
        let refusal = failure::is_not_let_in(code) || code == Code::ClusterAuthorizationFailed;
        let closed = reason.contains("unexpected eof");
        let cause = self.cause(&reason);
        if cause.is_none() && self.was_let_in() {
            reason = access::without_guess(&reason);
        }
        let explained = access::explained(&reason, cause);
        if refusal
            && !closed
            && let Ok(mut refused) = self.refused.lock()
        {
            *refused = Some((code, explained.clone()));
        }
        // That all brokers are down says less than why the last one is, and nothing where none says why.
        if code != Code::AllBrokersDown
            && let Ok(mut last) = self.last.lock()
        {
            *last = Some(explained);
        }
    }

    fn answered(&self, api: i16, error: Code) {
        if error == Code::NoError {
            self.answers.fetch_add(1, Ordering::AcqRel);
        }
        if api == METADATA {
            self.told_of_topics.fetch_add(1, Ordering::AcqRel);
        }
        if error == Code::NoError && !BEFORE_LET_IN.contains(&api) {
            self.served.fetch_add(1, Ordering::AcqRel);
            self.let_in.store(true, Ordering::Release);
            if let Ok(mut refused) = self.refused.lock() {
                *refused = None;
            }
        }
        if error != Code::NoError && TRANSACTIONAL.contains(&api) {
            self.lost.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// Puts `watch` into a configuration. It must live until the client that is made of it is destroyed.
///
/// # Safety
/// `conf` is valid and not yet used for a client.
pub(super) unsafe fn install(conf: *mut rd::rd_kafka_conf_t, watch: *const Watch) {
    // SAFETY: `conf` is valid; the functions match the declared types, and the opaque outlives the client.
    unsafe {
        rd::rd_kafka_conf_set_opaque(conf, watch.cast_mut().cast());
        rd::rd_kafka_conf_set_log_cb(conf, Some(on_log));
        rd::rd_kafka_conf_set_events(conf, rd::RD_KAFKA_EVENT_ERROR | rd::RD_KAFKA_EVENT_DR);
        // Without TLS there is nothing to verify, and librdkafka refuses.
        let _ = rd::rd_kafka_conf_set_ssl_cert_verify_cb(conf, Some(on_certificate));
        if (*watch).token_file().is_some() {
            rd::rd_kafka_conf_set_oauthbearer_token_refresh_cb(conf, Some(token::refresh));
            rd::rd_kafka_conf_enable_sasl_queue(conf, 1);
        }
        rd::rd_kafka_conf_interceptor_add_on_new(
            conf,
            c"fluvial".as_ptr(),
            Some(on_new),
            watch.cast_mut().cast::<c_void>(),
        );
    }
}

unsafe extern "C" fn on_new(
    rk: *mut rd::rd_kafka_t,
    _conf: *const rd::rd_kafka_conf_t,
    watch: *mut c_void,
    _error: *mut c_char,
    _error_size: usize,
) -> rd::rd_kafka_resp_err_t {
    // SAFETY: called by `rd_kafka_new` with the client that it makes.
    unsafe {
        let name = c"fluvial".as_ptr();
        let fine = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
        let results = [
            rd::rd_kafka_interceptor_add_on_response_received(rk, name, Some(on_response), watch),
            rd::rd_kafka_interceptor_add_on_acknowledgement(rk, name, Some(on_acknowledgement), watch),
            rd::rd_kafka_interceptor_add_on_broker_state_change(rk, name, Some(on_broker_state), watch),
        ];
        results.into_iter().find(|result| *result != fine).unwrap_or(fine)
    }
}

/// Notes whether a broker is connected.
unsafe extern "C" fn on_broker_state(
    _rk: *mut rd::rd_kafka_t,
    _broker_id: i32,
    _protocol: *const c_char,
    _name: *const c_char,
    port: c_int,
    state: *const c_char,
    watch: *mut c_void,
) -> rd::rd_kafka_resp_err_t {
    // Coordinators, and the one that stands for no broker at all, have no port.
    if port != 0 {
        // SAFETY: the state is a text that lives for ever, and the opaque is the watch that `install` was given, which
        // outlives the client.
        let (watch, state) = unsafe { (&*watch.cast::<Watch>(), CStr::from_ptr(state)) };
        // Between them are the states of a connection that begins, or that authenticates again and is still up.
        match state.to_bytes() {
            b"UP" => watch.connections.changed(true, Instant::now()),
            b"DOWN" => watch.connections.changed(false, Instant::now()),
            _ => {}
        }
    }
    rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// Notes what the broker says of a message that it refuses. librdkafka frees these words before it hands out the delivery
/// report; here, before the report is queued, they live.
unsafe extern "C" fn on_acknowledgement(
    _rk: *mut rd::rd_kafka_t,
    message: *mut rd::rd_kafka_message_t,
    watch: *mut c_void,
) -> rd::rd_kafka_resp_err_t {
    let fine = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    // SAFETY: the message lives through the call.
    let of = unsafe { &*message };
    // Brokers' errors are positive. librdkafka's own have no words, and with them come messages of a batch that was not
    // taken, which are the caller's own and have no place for words; those have no topic either.
    if of.err as i32 <= 0 || of.rkt.is_null() {
        return fine;
    }
    // SAFETY: a message that a broker has refused is librdkafka's; its topic and its words, if any, live through the call.
    // The opaque is the watch that `install` was given, which outlives the client.
    unsafe {
        let words = text(rd::rd_kafka_message_produce_errstr(message));
        let topic = text(rd::rd_kafka_topic_name(of.rkt));
        (*watch.cast::<Watch>()).refused_record(topic, of.partition, of.err.into(), &words);
    }
    fine
}

unsafe extern "C" fn on_response(
    _rk: *mut rd::rd_kafka_t,
    _socket: c_int,
    _broker: *const c_char,
    _broker_id: i32,
    api: i16,
    _version: i16,
    _correlation: i32,
    _size: usize,
    _rtt: i64,
    error: rd::rd_kafka_resp_err_t,
    watch: *mut c_void,
) -> rd::rd_kafka_resp_err_t {
    // SAFETY: the opaque is the watch that `install` was given, which outlives the client.
    unsafe { &*watch.cast::<Watch>() }.answered(api, error.into());
    rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// Notes what OpenSSL has against a certificate, which librdkafka does not say; its verdict stays.
unsafe extern "C" fn on_certificate(
    _rk: *mut rd::rd_kafka_t,
    broker: *const c_char,
    _broker_id: i32,
    error: *mut c_int,
    _depth: c_int,
    _certificate: *const c_char,
    _size: usize,
    _reason: *mut c_char,
    _reason_size: usize,
    watch: *mut c_void,
) -> c_int {
    // SAFETY: librdkafka hands a number and a text that live through the call, and the watch of `install`.
    let (error, broker, watch) = unsafe { (*error, text(broker), &*watch.cast::<Watch>()) };
    if let Ok(mut noted) = watch.certificate.lock() {
        *noted = (error != 0).then(|| access::why_not_trusted(error, &broker));
    }
    c_int::from(error == 0)
}

/// The topic in a log line of librdkafka: `Failed to add partition "topic" [0] to transaction: Broker: Topic authorization
/// failed`.
fn denied_topic(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("Failed to add partition \"")?;
    let (topic, rest) = rest.split_once('"')?;
    rest.contains("authorization failed").then_some(topic)
}

unsafe extern "C" fn on_log(rk: *const rd::rd_kafka_t, level: c_int, facility: *const c_char, message: *const c_char) {
    // SAFETY: librdkafka hands strings that live through the call.
    let (facility, message) = unsafe { (text(facility), text(message)) };
    if !rk.is_null() {
        // SAFETY: the opaque is the watch that `install` was given, which outlives the client; null before that.
        let watch = unsafe { rd::rd_kafka_opaque(rk).cast::<Watch>().as_ref() };
        watch.into_iter().for_each(|watch| watch.logged(&facility, &message));
    }
    // What heals itself is no warning to a person: lost connections are the common case of levels 3 and above. That a
    // producer was not given its epoch, or is of no further use, the call that wanted something of it says itself.
    match level {
        _ if matches!(facility.as_str(), "GETPID" | "FATAL") => {
            tracing::debug!(target: "librdkafka", %facility, "{message}")
        }
        0..=2 => tracing::warn!(target: "librdkafka", %facility, "{message}"),
        3..=5 => tracing::info!(target: "librdkafka", %facility, "{message}"),
        _ => tracing::debug!(target: "librdkafka", %facility, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_connection_that_fails_as_on_a_port_of_another_protocol_counts_as_refused_when_nothing_else_has_happened() {
        let closed = "[thrd:b:1/bootstrap]: b:1/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN \
                      (after 3ms in state APIVERSION_QUERY)";
        let watch = Watch::new(&Settings::default());
        watch.logged("FAIL", closed);
        assert_eq!(watch.seems_refused(), None);
        watch.hint.lock().unwrap().as_mut().unwrap().since -= HINT;
        let (_, reason) = watch.seems_refused().unwrap();
        assert!(reason.contains("expects TLS") && reason.contains("(librdkafka: b:1/bootstrap: Disconn"), "{reason}");
        // An error of before, which has waited in the queue, takes nothing back.
        let before = "b:1/bootstrap: Connect to 127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)";
        watch.note(Code::BrokerTransportFailure, before.to_owned());
        assert!(watch.seems_refused().is_some());
        // A request that meets a connection which the broker has closed is another sign of the same.
        let sent =
            "[thrd:b:1/bootstrap]: b:1/bootstrap: Send failed: Broken pipe (after 13ms in state APIVERSION_QUERY)";
        watch.logged("FAIL", sent);
        assert!(watch.seems_refused().is_some());
        // A broker that has just ended refuses connections next.
        watch.logged("FAIL", &format!("[thrd:b:1/bootstrap]: {before}"));
        assert_eq!(watch.seems_refused(), None);
        // Whoever is answered is let in.
        watch.note(Code::SaslAuthenticationFailed, "wrong password".to_owned());
        assert!(watch.refused().is_some() && !watch.was_let_in());
        watch.answered(BEFORE_LET_IN[1], Code::NoError);
        assert!(watch.refused().is_some() && !watch.was_let_in());
        watch.answered(METADATA, Code::NoError);
        assert!(watch.refused().is_none() && watch.was_let_in());
    }

    /// After the restart of a broker a job was told to check `security.protocol`, with which it had run for hours.
    #[test]
    fn settings_that_have_worked_are_not_doubted_because_a_connection_is_closed() {
        let closed = "GroupCoordinator: Disconnected: connection reset by peer (after 3ms in state APIVERSION_QUERY)";
        let guessed = "b:1/1: Disconnected: requesting ApiVersion: might be caused by incorrect security.protocol \
                       configuration (connecting to a SSL listener?) or broker version is < 0.10 (see api.version.request) \
                       (after 3ms in state APIVERSION_QUERY)";
        let last = |failed: &str, was_let_in: bool| {
            let watch = Watch::new(&Settings::default());
            if was_let_in {
                watch.answered(METADATA, Code::NoError);
            }
            watch.note(Code::BrokerTransportFailure, failed.to_owned());
            watch.logged("FAIL", failed);
            watch.last().unwrap()
        };
        assert!(last(closed, false).contains("expects TLS") && last(guessed, false).contains("expects TLS"));
        assert_eq!(last(closed, true), closed);
        assert_eq!(last(guessed, true), "b:1/1: Disconnected (after 3ms in state APIVERSION_QUERY)");
        // What a broker says counts.
        let expired = "ssl://b:1/1: SSL handshake failed: error:0A000415:SSL routines::sslv3 alert certificate expired";
        assert!(last(expired, true).contains("client certificate"));
    }

    #[test]
    fn a_connection_that_fails_for_want_of_files_is_noted_whoever_tells() {
        let failed = "b:1/1: Failed to create socket: Too many open files (after 0ms in state CONNECT)";
        let (logged, noted) = (Watch::default(), Watch::default());
        assert!(!logged.is_out_of_files());
        logged.logged("FAIL", &format!("[thrd:TxnCoordinator]: {failed}"));
        noted.note(Code::BrokerTransportFailure, failed.to_owned());
        assert!(logged.is_out_of_files() && noted.is_out_of_files());
    }

    #[test]
    fn the_first_words_of_a_broker_are_kept_for_each_partition() {
        let watch = Watch::default();
        let note = |partition, code, text: &str| watch.refused_record("t".to_owned(), partition, code, text);
        note(1, Code::InvalidTimestamp, &format!("{OF_THE_OTHERS} which had one more more invalid records"));
        note(1, Code::InvalidTimestamp, "");
        note(1, Code::InvalidTimestamp, "too\nlate");
        note(1, Code::InvalidTimestamp, "later");
        note(2, Code::InvalidRecord, "no schema");
        let on = |topic, partition| watch.words_on(topic, partition).map(|words| (words.code, words.text));
        assert_eq!(on("t", Some(1)), Some((Code::InvalidTimestamp, "too late".to_owned())));
        assert_eq!(on("t", Some(2)), Some((Code::InvalidRecord, "no schema".to_owned())));
        assert_eq!((on("t", None), on("t", Some(0)), on("other", None)), (on("t", Some(1)), None, None));
    }

    #[test]
    fn the_topic_that_may_not_be_written_is_read_from_the_log() {
        let line = |why: &str| {
            format!(r#"[thrd:main]: b:1/1: Failed to add partition "revenue" [3] to transaction: Broker: {why}"#)
        };
        assert_eq!(denied_topic(&line("Topic authorization failed")), Some("revenue"));
        assert_eq!(denied_topic(&line("Operation not attempted")), None);
        let watch = Watch::default();
        watch.logged("ADDPARTS", &line("Topic authorization failed"));
        assert_eq!(watch.denied_topics(), ["revenue"]);
    }
}
