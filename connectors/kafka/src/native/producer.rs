//! Writing in transactions: batches of messages in, reports of their offsets out.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{c_char, c_void};
use std::ptr;
use std::time::Duration;

use fluvial_connector::Error;
use rdkafka::bindings as rd;

use super::client::{Client, Role, Topic};
pub(crate) use super::error::TransactionError;
use super::error::take;
use super::{Code, text};
use crate::failure;
use crate::settings::Settings;

/// The most messages that are handed to librdkafka in one call.
const BATCH: usize = 8192;

/// A message on its way in. Its bytes are copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    /// Its key.
    pub(crate) key: &'a [u8],
    /// Its value; `None` is a tombstone.
    pub(crate) value: Option<&'a [u8]>,
    /// Comes back in its [`Report`].
    pub(crate) opaque: usize,
}

/// What became of a message.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// The message's own.
    pub(crate) opaque: usize,
    /// Its offset, or why it was not written. What the broker says beyond the code is in the client's `Watch`: librdkafka
    /// 2.12.1 frees that text before it hands out the report, and `rd_kafka_message_produce_errstr` then points to freed
    /// memory.
    pub(crate) result: Result<u64, Code>,
}

/// A transactional producer.
pub(crate) struct Producer {
    /// Dropped before the client, which they belong to.
    topics: BTreeMap<String, Topic>,
    batch: Vec<rd::rd_kafka_message_t>,
    client: Client,
}

// SAFETY: librdkafka's handles may be used from any thread; the batch is empty between calls.
unsafe impl Send for Producer {}

impl Producer {
    /// Makes a producer; the settings hold its transactional id.
    pub(crate) fn new(settings: &Settings, describe: &str) -> Result<Self, Error> {
        let client = Client::new(Role::Producer, settings, describe)?;
        Ok(Self { topics: BTreeMap::new(), batch: Vec::with_capacity(BATCH), client })
    }

    /// The client, for questions.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Takes a handle of a topic, which must be done before it is written to.
    pub(crate) fn open_topic(&mut self, name: &str) -> Result<(), Error> {
        if !self.topics.contains_key(name) {
            let topic = Topic::new(&self.client, name)
                .map_err(|code| failure::error(code, format!("take a handle of topic '{name}'")))?;
            self.topics.insert(name.to_owned(), topic);
        }
        Ok(())
    }

    /// Queues messages for one partition, in order, until librdkafka's queue is full. Returns how many it took.
    ///
    /// # Errors
    /// A message is refused; with the opaque of the first one.
    pub(crate) fn produce<'a>(
        &mut self,
        topic: &str,
        partition: u32,
        messages: impl Iterator<Item = Message<'a>>,
    ) -> Result<usize, (Code, usize)> {
        let handle = self.topics.get(topic).ok_or((Code::UnknownTopic, 0))?.0;
        let partition = i32::try_from(partition).map_err(|_| (Code::UnknownPartition, 0))?;
        self.batch.clear();
        self.batch.extend(messages.take(BATCH).map(|message| {
            let value = message.value.unwrap_or_default();
            rd::rd_kafka_message_t {
                err: rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
                rkt: ptr::null_mut(),
                partition,
                payload: message.value.map_or(ptr::null_mut(), |v| v.as_ptr().cast_mut().cast()),
                len: value.len(),
                key: message.key.as_ptr().cast_mut().cast(),
                key_len: message.key.len(),
                offset: 0,
                _private: ptr::without_provenance_mut(message.opaque),
            }
        }));
        let count = i32::try_from(self.batch.len()).unwrap_or(i32::MAX);
        // SAFETY: the topic is valid, the messages point to bytes that live through the call and are copied in it, and
        // are not written to.
        let good = unsafe {
            rd::rd_kafka_produce_batch(handle, partition, rd::RD_KAFKA_MSG_F_COPY, self.batch.as_mut_ptr(), count)
        };
        let good = usize::try_from(good).unwrap_or(0);
        if good < self.batch.len() {
            // What was refused for another reason than a full queue fails the whole: nothing after it may be written.
            let mut refused = self.batch.iter().map(|m| (Code::from(m.err), m._private.addr()));
            if let Some(refused) = refused.find(|(code, _)| !matches!(code, Code::NoError | Code::QueueFull)) {
                return Err(refused);
            }
        }
        self.batch.clear();
        Ok(good)
    }

    /// Queues one message with one header and a timestamp, in milliseconds since the Unix epoch. `Ok(false)` says that
    /// librdkafka's queue is full.
    pub(crate) fn produce_with_header(
        &mut self,
        topic: &str,
        partition: u32,
        message: Message<'_>,
        header: (&std::ffi::CStr, &[u8]),
        timestamp_ms: u64,
    ) -> Result<bool, Code> {
        use rd::rd_kafka_vtype_t as T;
        use rd::{rd_kafka_vu_s__bindgen_ty_1 as U, rd_kafka_vu_t as Part};
        let handle = self.topics.get(topic).ok_or(Code::UnknownTopic)?.0;
        let partition = i32::try_from(partition).map_err(|_| Code::UnknownPartition)?;
        let memory = |bytes: Option<&[u8]>| U {
            mem: rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                ptr: bytes.map_or(ptr::null_mut(), |b| b.as_ptr().cast_mut().cast::<c_void>()),
                size: bytes.map_or(0, <[u8]>::len),
            },
        };
        let header = rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2 {
            name: header.0.as_ptr(),
            val: header.1.as_ptr().cast(),
            size: isize::try_from(header.1.len()).unwrap_or(isize::MAX),
        };
        let parts = [
            Part { vtype: T::RD_KAFKA_VTYPE_RKT, u: U { rkt: handle } },
            Part { vtype: T::RD_KAFKA_VTYPE_PARTITION, u: U { i32_: partition } },
            Part { vtype: T::RD_KAFKA_VTYPE_MSGFLAGS, u: U { i: rd::RD_KAFKA_MSG_F_COPY } },
            Part { vtype: T::RD_KAFKA_VTYPE_KEY, u: memory(Some(message.key)) },
            Part { vtype: T::RD_KAFKA_VTYPE_VALUE, u: memory(message.value) },
            Part { vtype: T::RD_KAFKA_VTYPE_OPAQUE, u: U { ptr: ptr::without_provenance_mut(message.opaque) } },
            Part { vtype: T::RD_KAFKA_VTYPE_TIMESTAMP, u: U { i64_: i64::try_from(timestamp_ms).unwrap_or(i64::MAX) } },
            Part { vtype: T::RD_KAFKA_VTYPE_HEADER, u: U { header } },
        ];
        // SAFETY: the parts are of the types that they say, and all bytes live through the call and are copied in it.
        let error = unsafe { rd::rd_kafka_produceva(self.client.rk(), parts.as_ptr(), parts.len()) };
        match take(error) {
            Ok(()) => Ok(true),
            Err(error) if error.code == Code::QueueFull => Ok(false),
            Err(error) => Err(error.code),
        }
    }

    /// Hands out the reports that have gathered, waiting no longer than `wait` for the first.
    pub(crate) fn reports(&self, wait: Duration, mut take: impl FnMut(Report)) {
        self.client.serve(wait, |event| {
            // SAFETY: the event is valid through the call, and its messages are valid as long as it is.
            unsafe {
                if rd::rd_kafka_event_type(event) != rd::RD_KAFKA_EVENT_DR {
                    return;
                }
                loop {
                    let message = rd::rd_kafka_event_message_next(event);
                    if message.is_null() {
                        return;
                    }
                    let message = &*message;
                    let result = match message.err.into() {
                        Code::NoError => u64::try_from(message.offset).map_err(|_| Code::Unknown),
                        code => Err(code),
                    };
                    take(Report { opaque: message._private.addr(), result });
                }
            }
        });
    }

    /// Why the client is of no further use, if so.
    pub(crate) fn fatal(&self) -> Option<(Code, String)> {
        let mut reason = [0 as c_char; 512];
        // SAFETY: the buffer has the size that is said.
        unsafe {
            match rd::rd_kafka_fatal_error(self.client.rk(), reason.as_mut_ptr(), reason.len()).into() {
                Code::NoError => None,
                code => Some((code, text(reason.as_ptr()))),
            }
        }
    }

    /// Takes over the transactional id, and aborts what an earlier producer left open.
    pub(crate) fn init(&self, wait_ms: i32) -> Result<(), TransactionError> {
        // SAFETY: the client is valid.
        take(unsafe { rd::rd_kafka_init_transactions(self.client.rk(), wait_ms) })
    }

    /// Begins a transaction.
    pub(crate) fn begin(&self) -> Result<(), TransactionError> {
        // SAFETY: the client is valid.
        take(unsafe { rd::rd_kafka_begin_transaction(self.client.rk()) })
    }

    /// Commits it. A retriable error asks for the same call again.
    pub(crate) fn commit(&self, wait_ms: i32) -> Result<(), TransactionError> {
        // SAFETY: the client is valid.
        take(unsafe { rd::rd_kafka_commit_transaction(self.client.rk(), wait_ms) })
    }
}
