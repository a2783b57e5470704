//! One librdkafka client: its birth from settings, its errors, its slow but bounded calls, and its end.

#![allow(unsafe_code)]

use std::ffi::c_char;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fluvial_connector::{Doubt, Error, ErrorKind, too_many_files};
use rdkafka::bindings as rd;

use super::admin::Answers;
use super::error;
use super::socket;
use super::waiting::{Failed, Waiting};
use super::watch::{self, Watch};
use super::{Code, c_string, remaining_ms, text};
use crate::access;
use crate::failure;
use crate::settings::Settings;

/// How long one blocking call may last before the client's errors are looked at.
const SLICE: Duration = Duration::from_millis(1000);

/// The pause after a call that failed at once.
const PAUSE: Duration = Duration::from_millis(100);

/// How many answers in a row must say that an object does not exist before it counts as missing.
const MISSING_TIMES: u32 = 3;
/// How long these answers must span: an object that was just created is not known to every broker at once.
const MISSING_FOR: Duration = Duration::from_millis(1500);

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It reads, or asks about topics.
    Consumer,
    /// It writes.
    Producer,
}

/// A librdkafka client.
pub(crate) struct Client {
    rk: *mut rd::rd_kafka_t,
    main: *mut rd::rd_kafka_queue_t,
    watch: Arc<Watch>,
    describe: String,
    /// Where it connects to, for people.
    brokers: String,
    /// Where the answer to a report comes that was not answered in time.
    pub(super) unanswered: Mutex<Option<Answers>>,
}

// SAFETY: librdkafka's handles may be used from any thread at any time.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

/// Frees a configuration that was not used up.
struct Conf(*mut rd::rd_kafka_conf_t);

impl Conf {
    fn new(settings: &Settings) -> Result<Self, Error> {
        // SAFETY: no precondition; never null.
        let conf = Self(unsafe { rd::rd_kafka_conf_new() });
        for (name, value) in settings.iter() {
            let (c_name, c_value) = (c_string(name), c_string(value));
            let mut reason = [0 as c_char; 512];
            // SAFETY: all strings end with a zero byte, and the buffer has the size that is said.
            let result = unsafe {
                rd::rd_kafka_conf_set(conf.0, c_name.as_ptr(), c_value.as_ptr(), reason.as_mut_ptr(), reason.len())
            };
            let why = match result {
                rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK => continue,
                rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_UNKNOWN => format!("librdkafka has no setting '{name}'"),
                rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_INVALID => {
                    // SAFETY: librdkafka has filled the buffer.
                    let reason = unsafe { text(reason.as_ptr()) };
                    format!("{reason}{}", access::missing_in_this_build(&reason))
                }
            };
            return Err(Error::new(ErrorKind::Configuration, format!("{}: {why}", settings.describe(name))));
        }
        Ok(conf)
    }
}

impl Drop for Conf {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it was not given to a client, which would have taken it over.
            unsafe { rd::rd_kafka_conf_destroy(self.0) };
        }
    }
}

/// Whether librdkafka has a setting of this name, in this build or in another.
pub(crate) fn knows_setting(name: &str) -> bool {
    let name = c_string(name);
    // SAFETY: no precondition; the name ends with a zero byte, and no value stands for the default.
    let result = unsafe {
        let conf = Conf(rd::rd_kafka_conf_new());
        rd::rd_kafka_conf_set(conf.0, name.as_ptr(), ptr::null(), ptr::null_mut(), 0)
    };
    result != rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_UNKNOWN
}

/// Whether librdkafka takes the settings.
pub(crate) fn check_settings(settings: &Settings) -> Result<(), Error> {
    Conf::new(settings).map(drop)
}

impl Client {
    /// Makes a client. It connects by itself, later.
    pub(crate) fn new(role: Role, settings: &Settings, describe: impl Into<String>) -> Result<Self, Error> {
        let mut conf = Conf::new(settings)?;
        let watch = Arc::new(Watch::new(settings));
        let describe = describe.into();
        let kind = match role {
            Role::Consumer => rd::rd_kafka_type_t::RD_KAFKA_CONSUMER,
            Role::Producer => rd::rd_kafka_type_t::RD_KAFKA_PRODUCER,
        };
        let mut reason = [0 as c_char; 512];
        // SAFETY: the configuration is valid; on success the client owns it, and `destroy` keeps the watch alive until
        // the client is gone.
        let rk = unsafe {
            watch::install(conf.0, Arc::as_ptr(&watch));
            if settings.get("socket.keepalive.enable") != Some("false") {
                socket::install(conf.0);
            }
            rd::rd_kafka_new(kind, conf.0, reason.as_mut_ptr(), reason.len())
        };
        // The client owns the configuration now, or librdkafka has refused it. In that case it may have freed the
        // interceptors and left them in the configuration, so that destroying it would free them twice: it is leaked, since
        // a client that cannot be made ends the run.
        conf.0 = ptr::null_mut();
        if rk.is_null() {
            // SAFETY: librdkafka has filled the buffer.
            let reason = unsafe { text(reason.as_ptr()) };
            let cure = access::missing_in_this_build(&reason);
            // A certificate that is being replaced while a job runs is readable a moment later.
            let kind = if watch.was_let_in() { ErrorKind::Restart } else { ErrorKind::Configuration };
            return Err(Error::new(kind, format!("create a kafka client for {describe}: {reason}{cure}")));
        }
        let brokers = settings.get("bootstrap.servers").unwrap_or_default().to_owned();
        // SAFETY: the client is valid. What comes for a consumer and is of no partition are errors, to be noted as others.
        let main = unsafe {
            let main = rd::rd_kafka_queue_get_main(rk);
            if role == Role::Consumer {
                let queue = rd::rd_kafka_queue_get_consumer(rk);
                if !queue.is_null() {
                    rd::rd_kafka_queue_forward(queue, main);
                    rd::rd_kafka_queue_destroy(queue);
                }
            }
            main
        };
        let client = Self { rk, main, watch, describe, brokers, unanswered: Mutex::new(None) };
        if settings.token_file().is_some() {
            // SAFETY: the client is valid.
            let enabled = unsafe { rd::rd_kafka_sasl_background_callbacks_enable(rk) };
            error::call(enabled, || format!("serve tokens for {}", client.describe))?;
        }
        Ok(client)
    }

    pub(super) fn rk(&self) -> *mut rd::rd_kafka_t {
        self.rk
    }

    /// What happened to its requests.
    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Notes the errors that have gathered, waiting no longer than `wait` for one; other events go to `take`, which
    /// must not keep them. Returns how many events there were. Whoever uses a client calls this at least each second, so
    /// this is where a client without brokers is told them again.
    pub(super) fn serve(&self, wait: Duration, mut take: impl FnMut(*mut rd::rd_kafka_event_t)) -> usize {
        if self.watch.connections.are_due(Instant::now()) {
            let brokers = c_string(&self.brokers);
            // SAFETY: the client is valid, and the text ends with a zero byte.
            let count = unsafe { rd::rd_kafka_brokers_add(self.rk, brokers.as_ptr()) };
            tracing::debug!(client = %self.describe, count, "no connection to a broker; {} are named again", self.brokers);
        }
        let mut wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        let mut served = 0;
        loop {
            // SAFETY: the queue is valid as long as the client is.
            let event = unsafe { rd::rd_kafka_queue_poll(self.main, wait_ms) };
            if event.is_null() {
                return served;
            }
            served += 1;
            wait_ms = 0;
            // SAFETY: the event is ours until it is destroyed.
            unsafe {
                if rd::rd_kafka_event_type(event) == rd::RD_KAFKA_EVENT_ERROR {
                    let code = rd::rd_kafka_event_error(event).into();
                    let reason = text(rd::rd_kafka_event_error_string(event));
                    tracing::debug!(client = %self.describe, ?code, "{reason}");
                    self.watch.note(code, reason);
                } else {
                    take(event);
                }
                rd::rd_kafka_event_destroy(event);
            }
        }
    }

    /// Notes the errors that have gathered.
    pub(crate) fn note_errors(&self) {
        self.serve(Duration::ZERO, |_| ());
    }

    /// Waits so long, or until the client meets an error.
    pub(crate) fn pause(&self, wait: Duration) {
        self.serve(wait, |_| ());
    }

    /// Calls `attempt`, which may take so many milliseconds, until it succeeds, fails for good, or the deadline has
    /// passed; a wait is told to people. `what` names operation and object for them, `about` the topics that the
    /// operation is about: an answer that one of their parts is unknown is compared with what the metadata says.
    pub(crate) fn until<T>(
        &self,
        deadline: Instant,
        what: &str,
        about: &[&str],
        mut attempt: impl FnMut(i32) -> Result<T, Failed>,
    ) -> Result<T, Error> {
        let mut waiting = Waiting::new(what);
        let mut missing = Doubt::new(MISSING_TIMES, MISSING_FOR);
        let waits_since = Instant::now();
        let mut unavailable: Option<String> = None;
        let answers = self.watch.answers();
        loop {
            let slice = || remaining_ms(deadline, SLICE).max(1);
            let begun = Instant::now();
            let result = attempt(slice());
            self.note_errors();
            let failed = match result {
                Ok(value) => {
                    waiting.over();
                    return Ok(value);
                }
                Err(Failed::Code(code)) if failure::is_unknown(code) && !about.is_empty() => {
                    self.doubt(about, code, slice())
                }
                Err(failed) => failed,
            };
            if self.watch.is_out_of_files() {
                let what = format!("{what}: no connection can be opened: {}", too_many_files());
                return Err(Error::new(ErrorKind::Host, what));
            }
            // A client that was let in once has correct settings, so a refusal is waited out: a person repairs the
            // cluster, or the patience ends.
            let was_let_in = self.watch.was_let_in();
            if !was_let_in && let Some((code, reason)) = self.watch.refused() {
                let what = format!("{what}: the cluster refuses this client: {reason}");
                return Err(Error::caused(ErrorKind::Configuration, what, code));
            }
            // A refusal that an outage can also cause ends the attempt. The run decides whether another generation
            // follows.
            if !was_let_in && let Some((code, reason)) = self.watch.seems_refused() {
                return Err(Error::caused(ErrorKind::Restart, format!("{what}: {reason}"), code));
            }
            let (code, why) = match failed {
                Failed::Missing(object) => {
                    if missing.is_believed(waits_since.elapsed()) || Instant::now() >= deadline {
                        return Err(failure::missing(&object, &self.brokers));
                    }
                    (Code::UnknownTopicOrPartition, format!("{object} is not known to the cluster"))
                }
                Failed::Unavailable { code, why } => {
                    missing.forget();
                    unavailable = Some(why.clone());
                    (code, why)
                }
                Failed::Code(code) if failure::passes(code) || (was_let_in && failure::is_not_let_in(code)) => {
                    missing.forget();
                    let heard = self.watch.answers() != answers;
                    let why = match self.watch.last() {
                        Some(reason) if !heard => format!("no answer from the cluster ({reason})"),
                        _ if !heard => "no answer from the cluster".to_owned(),
                        _ => format!("the cluster is reachable, but this request does not succeed yet: {code}"),
                    };
                    (code, why)
                }
                Failed::Code(code) => return Err(failure::error(code, what)),
            };
            if Instant::now() >= deadline {
                // The last attempt may have had little time, so the reason of the one before it says more.
                let cut_short = code == Code::OperationTimedOut;
                let why = unavailable.filter(|_| cut_short).unwrap_or(why);
                let what = format!("{what}: {why}");
                // A client that was answered, or refused, has reached the cluster.
                let reached = self.watch.answers() != answers || failure::is_not_let_in(code);
                return Err(if reached { failure::unavailable(what) } else { failure::error(code, what) });
            }
            waiting.lasts(|| why, deadline);
            // A request that failed at once is repeated after a pause, which an error event ends early.
            if begun.elapsed() < PAUSE {
                self.pause(PAUSE);
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // A queue goes before its client.
        drop(self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).take());
        // Destroying waits for librdkafka's threads, at times for long: nobody waits for it.
        let end = End { rk: self.rk, main: self.main, watch: self.watch.clone() };
        let name = "kafka-client-end".to_owned();
        if let Err(error) = std::thread::Builder::new().name(name).spawn(move || end.destroy()) {
            tracing::warn!(
                client = %self.describe, %error,
                "cannot start the thread that closes a Kafka client; the client stays open until the process ends"
            );
        }
    }
}

/// A client on its way out.
struct End {
    rk: *mut rd::rd_kafka_t,
    main: *mut rd::rd_kafka_queue_t,
    watch: Arc<Watch>,
}

// SAFETY: as for `Client`.
unsafe impl Send for End {}

impl End {
    fn destroy(self) {
        // SAFETY: nothing else refers to the handles, and the watch lives until after the last thread of the client.
        unsafe {
            rd::rd_kafka_queue_destroy(self.main);
            rd::rd_kafka_destroy_flags(self.rk, rd::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
        }
        drop(self.watch);
    }
}

/// A handle of a topic.
pub(super) struct Topic(pub(super) *mut rd::rd_kafka_topic_t);

// SAFETY: librdkafka's handles may be used from any thread at any time.
unsafe impl Send for Topic {}

impl Topic {
    pub(super) fn new(client: &Client, name: &str) -> Result<Self, Code> {
        let name = c_string(name);
        // SAFETY: the client is valid and the name ends with a zero byte.
        let topic = unsafe { rd::rd_kafka_topic_new(client.rk, name.as_ptr(), ptr::null_mut()) };
        if topic.is_null() {
            // SAFETY: no precondition.
            return Err(unsafe { rd::rd_kafka_last_error() }.into());
        }
        Ok(Self(topic))
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: the handle is ours; its owners drop it before their client.
        unsafe { rd::rd_kafka_topic_destroy(self.0) };
    }
}
