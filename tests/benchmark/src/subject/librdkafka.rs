//! librdkafka as it is: what the bare loop needs of it, with nothing of the engine's connector.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaErrorCode as Code;

/// The most messages that are taken or given at once.
const BATCH: usize = 8192;

/// A client.
struct Client(*mut rd::rd_kafka_t);

impl Client {
    fn new(kind: rd::rd_kafka_type_t, settings: &[(&str, &str)]) -> Result<Self> {
        let mut reason = [0 as c_char; 512];
        // SAFETY: all strings end with a zero byte, the buffer has the size that is said, and the client takes the
        // configuration over.
        unsafe {
            let conf = rd::rd_kafka_conf_new();
            for (name, value) in settings {
                let (c_name, c_value) = (CString::new(*name)?, CString::new(*value)?);
                let set =
                    rd::rd_kafka_conf_set(conf, c_name.as_ptr(), c_value.as_ptr(), reason.as_mut_ptr(), reason.len());
                if set != rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
                    bail!("set {name}={value}: {}", CStr::from_ptr(reason.as_ptr()).to_string_lossy());
                }
            }
            // With reports as events, a flush waits for its messages and for nothing else.
            rd::rd_kafka_conf_set_events(conf, rd::RD_KAFKA_EVENT_DR);
            let client = rd::rd_kafka_new(kind, conf, reason.as_mut_ptr(), reason.len());
            if client.is_null() {
                bail!("make a client: {}", CStr::from_ptr(reason.as_ptr()).to_string_lossy());
            }
            Ok(Self(client))
        }
    }
}

/// Reads all partitions of a topic from their beginning.
pub(crate) struct Consumer {
    queue: *mut rd::rd_kafka_queue_t,
    batch: Vec<*mut rd::rd_kafka_message_t>,
}

impl Consumer {
    /// Assigns the partitions. The process's end is the consumer's.
    pub(crate) fn new(settings: &[(&str, &str)], topic: &str, partitions: i32) -> Result<Self> {
        let client = Client::new(rd::rd_kafka_type_t::RD_KAFKA_CONSUMER, settings)?;
        let name = CString::new(topic)?;
        // SAFETY: client, list and name are valid; the list copies the name and is freed once.
        let (error, queue) = unsafe {
            let list = rd::rd_kafka_topic_partition_list_new(partitions);
            for partition in 0..partitions {
                (*rd::rd_kafka_topic_partition_list_add(list, name.as_ptr(), partition)).offset = 0;
            }
            let error = rd::rd_kafka_assign(client.0, list);
            rd::rd_kafka_topic_partition_list_destroy(list);
            (Code::from(error), rd::rd_kafka_queue_get_consumer(client.0))
        };
        if error != Code::NoError {
            bail!("assign the partitions of {topic}: {error:?}");
        }
        Ok(Self { queue, batch: Vec::with_capacity(BATCH) })
    }

    /// Hands the values that are there, or come within `wait`, to `take`. Returns how many there were and the timestamp
    /// of the first.
    pub(crate) fn poll(&mut self, wait: Duration, mut take: impl FnMut(&[u8])) -> (usize, Option<i64>) {
        // librdkafka waits until a batch is full: the first message is waited for alone.
        if self.fill(Duration::ZERO, BATCH) == 0 && self.fill(wait, 1) == 0 {
            return (0, None);
        }
        let (mut count, mut first) = (0, None);
        for message in self.batch.drain(..) {
            // SAFETY: the message is ours until it is destroyed, once.
            unsafe {
                if Code::from((*message).err) == Code::NoError && !(*message).payload.is_null() {
                    let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
                    first.get_or_insert_with(|| rd::rd_kafka_message_timestamp(message, &raw mut kind));
                    take(std::slice::from_raw_parts((*message).payload.cast(), (*message).len));
                    count += 1;
                }
                rd::rd_kafka_message_destroy(message);
            }
        }
        (count, first)
    }

    fn fill(&mut self, wait: Duration, most: usize) -> usize {
        let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is valid, and the buffer has room for `BATCH` pointers, of which `most` are written at most.
        unsafe {
            let count = rd::rd_kafka_consume_batch_queue(self.queue, wait_ms, self.batch.as_mut_ptr(), most);
            self.batch.set_len(usize::try_from(count).unwrap_or(0));
        }
        self.batch.len()
    }
}

/// Writes to one topic in transactions.
pub(crate) struct Producer {
    client: Client,
    topic: *mut rd::rd_kafka_topic_t,
    batch: Vec<rd::rd_kafka_message_t>,
}

impl Producer {
    /// Takes over its transactional id.
    pub(crate) fn new(settings: &[(&str, &str)], topic: &str) -> Result<Self> {
        let client = Client::new(rd::rd_kafka_type_t::RD_KAFKA_PRODUCER, settings)?;
        let name = CString::new(topic)?;
        // SAFETY: client and name are valid; the metadata is freed once.
        let topic = unsafe {
            check(rd::rd_kafka_init_transactions(client.0, 60_000)).context("init transactions")?;
            let topic = rd::rd_kafka_topic_new(client.0, name.as_ptr(), ptr::null_mut());
            let mut metadata = ptr::null();
            rd::rd_kafka_metadata(client.0, 0, topic, &raw mut metadata, 10_000);
            rd::rd_kafka_metadata_destroy(metadata);
            topic
        };
        Ok(Self { client, topic, batch: Vec::with_capacity(BATCH) })
    }

    /// Begins a transaction.
    pub(crate) fn begin(&self) -> Result<()> {
        // SAFETY: the client is valid.
        check(unsafe { rd::rd_kafka_begin_transaction(self.client.0) }).context("begin a transaction")
    }

    /// Queues keys and values for a partition, flushing when librdkafka's queue is full.
    pub(crate) fn produce(&mut self, partition: u32, records: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let partition = i32::try_from(partition)?;
        let mut rest = records;
        while !rest.is_empty() {
            self.batch.clear();
            self.batch.extend(rest.iter().take(BATCH).map(|(key, value)| rd::rd_kafka_message_t {
                err: rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
                rkt: ptr::null_mut(),
                partition,
                payload: value.as_ptr().cast_mut().cast(),
                len: value.len(),
                key: key.as_ptr().cast_mut().cast(),
                key_len: key.len(),
                offset: 0,
                _private: ptr::null_mut(),
            }));
            let count = i32::try_from(self.batch.len())?;
            // SAFETY: the topic is valid, and the messages' bytes live through the call and are copied in it.
            let taken = unsafe {
                rd::rd_kafka_produce_batch(
                    self.topic,
                    partition,
                    rd::RD_KAFKA_MSG_F_COPY,
                    self.batch.as_mut_ptr(),
                    count,
                )
            };
            rest = &rest[usize::try_from(taken)?..];
            if taken < count {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Waits until everything is written.
    pub(crate) fn flush(&self) -> Result<()> {
        // SAFETY: the client is valid.
        match Code::from(unsafe { rd::rd_kafka_flush(self.client.0, 60_000) }) {
            Code::NoError => Ok(()),
            code => bail!("flush: {code:?}"),
        }
    }

    /// Commits the transaction.
    pub(crate) fn commit(&self) -> Result<()> {
        // SAFETY: the client is valid.
        check(unsafe { rd::rd_kafka_commit_transaction(self.client.0, 60_000) }).context("commit a transaction")
    }
}

fn check(error: *mut rd::rd_kafka_error_t) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the error is ours and is destroyed once, after its text has been copied.
    let text = unsafe {
        let text = CStr::from_ptr(rd::rd_kafka_error_string(error)).to_string_lossy().into_owned();
        rd::rd_kafka_error_destroy(error);
        text
    };
    bail!("{text}")
}
