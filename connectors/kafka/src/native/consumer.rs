//! Reading partitions in batches, by offsets of our own.

#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fluvial_connector::{Error, Header, Headers, ReadHeaders, Waker};
use rdkafka::bindings as rd;

use super::client::{Client, Role, Topic};
use super::error::{call, take};
use super::{Code, c_string};
use crate::failure;
use crate::settings::Settings;

/// The most messages that are taken from librdkafka at once.
const BATCH: usize = 4096;

/// Partitions of a client that one thread reads, assigned by hand. What is fetched of them comes through a queue of this
/// reader's own: several readers share one client.
pub(crate) struct Consumer {
    /// The own queues of the partitions that are assigned, by topic and partition. They and the reader's queue are
    /// dropped before the client: librdkafka does not destroy a client whose queues are held.
    assigned: BTreeMap<(usize, u32), PartitionQueue>,
    strays: Box<Strays>,
    queue: Queue,
    topics: Vec<(String, Topic)>,
    /// Partitions by topic number that librdkafka is still to be told of, all at once: each call sorts all that it reads.
    to_assign: Vec<(usize, u32, u64)>,
    /// The same for partitions that are no longer read; they go first.
    to_unassign: Vec<(usize, u32)>,
    /// What was taken from the queue and not yet handed on.
    batch: Vec<*mut rd::rd_kafka_message_t>,
    /// How many answers about topics had arrived when the batch was taken.
    told_of_topics: u64,
    client: Arc<Client>,
}

/// The reader's queue, and who is woken by it.
struct Queue {
    queue: *mut rd::rd_kafka_queue_t,
    waker: Option<Box<Waker>>,
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue is valid; disabling the callback under the queue's lock comes before the waker is freed.
        unsafe {
            if self.waker.is_some() {
                rd::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            }
            rd::rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// The own queue of a partition that is assigned. It is forwarded to the reader's.
struct PartitionQueue(*mut rd::rd_kafka_queue_t);

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: the queue is valid; disabling the callback under the queue's lock comes before its opaque is freed.
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(self.0, None, ptr::null_mut());
            rd::rd_kafka_queue_destroy(self.0);
        }
    }
}

/// Whether something has come into a partition's own queue. librdkafka takes the forwarding back at the end of an earlier
/// assignment of the partition (`rd_kafka_toppar_fetch_stop`), at a time that it tells nobody: then it has to be asked for
/// again, and brings along what has come.
struct Strays {
    some: AtomicBool,
    /// The reader's queue.
    queue: *mut rd::rd_kafka_queue_t,
}

// SAFETY: librdkafka's handles and messages may be used from any thread.
unsafe impl Send for Consumer {}

/// What came from a partition.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrival<'a> {
    /// A record.
    Record(fluvial_connector::Record<'a>),
    /// Nothing is to be read before this offset now.
    End(u64),
    /// The partition cannot be read for now or for ever.
    Failed(Code, &'a str),
}

unsafe extern "C" fn wake(_rk: *mut rd::rd_kafka_t, waker: *mut c_void) {
    // SAFETY: the opaque is the waker that the queue owns, and the callback is disabled before that is freed.
    unsafe { &*waker.cast::<Waker>() }.wake();
}

unsafe extern "C" fn stray(_rk: *mut rd::rd_kafka_t, strays: *mut c_void) {
    // SAFETY: the opaque is the reader's, and the callback is disabled before that is freed; the reader's queue is dropped
    // after the partitions'. Yielding wakes whoever waits at it, and calls its waker.
    unsafe {
        let strays = &*strays.cast::<Strays>();
        strays.some.store(true, Ordering::Release);
        rd::rd_kafka_queue_yield(strays.queue);
    }
}

impl Consumer {
    /// Makes a client for this reader alone, which calls `waker` when messages come after there were none.
    pub(crate) fn new(settings: &Settings, describe: &str, waker: Option<Waker>) -> Result<Self, Error> {
        Ok(Self::of(Arc::new(Client::new(Role::Consumer, settings, describe)?), waker))
    }

    /// A reader of a client that others read of as well, but no partition that this one does.
    pub(crate) fn of(client: Arc<Client>, waker: Option<Waker>) -> Self {
        let waker = waker.map(Box::new);
        // SAFETY: the client is valid, and lives longer than the queue. The waker lies on the heap and is freed after the
        // callback is disabled.
        let queue = unsafe {
            let queue = rd::rd_kafka_queue_new(client.rk());
            if let Some(waker) = &waker {
                let opaque = ptr::from_ref::<Waker>(waker).cast_mut().cast();
                rd::rd_kafka_queue_cb_event_enable(queue, Some(wake), opaque);
            }
            Queue { queue, waker }
        };
        let strays = Box::new(Strays { some: AtomicBool::new(false), queue: queue.queue });
        let (assigned, topics, batch) = (BTreeMap::new(), Vec::new(), Vec::with_capacity(BATCH));
        let (to_assign, to_unassign) = (Vec::new(), Vec::new());
        Self { assigned, strays, queue, topics, to_assign, to_unassign, batch, told_of_topics: 0, client }
    }

    /// The client, for questions.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Reads a partition of a topic from an offset on, from the next [`Consumer::fetch`] on.
    pub(crate) fn assign(&mut self, topic: usize, partition: u32, from: u64) {
        self.to_assign.push((topic, partition, from));
    }

    /// Reads a partition no longer: what was fetched of it and not taken is dropped by the next [`Consumer::fetch`].
    pub(crate) fn unassign(&mut self, topic: usize, partition: u32) {
        let still_to_assign = |(of, number, _): &(usize, u32, u64)| (*of, *number) == (topic, partition);
        match self.to_assign.iter().position(still_to_assign) {
            Some(place) => drop(self.to_assign.swap_remove(place)),
            None => self.to_unassign.push((topic, partition)),
        }
    }

    /// Tells librdkafka which partitions are read from now on.
    fn change_assignment(&mut self) -> Result<(), Error> {
        let name = |topic: usize| &*self.topics[topic].0;
        if !self.to_unassign.is_empty() {
            let list = Partitions::new(self.to_unassign.iter().map(|(topic, number)| (name(*topic), *number, 0)));
            // SAFETY: client and list are valid.
            let error = unsafe { rd::rd_kafka_incremental_unassign(self.client.rk(), list.0) };
            call(error, || format!("stop reading {} partitions", self.to_unassign.len()))?;
            for partition in &self.to_unassign {
                self.assigned.remove(partition);
            }
        }
        if !self.to_assign.is_empty() {
            for (topic, partition, _) in &self.to_assign {
                self.assigned.insert((*topic, *partition), self.forwarded(name(*topic), *partition));
            }
            let list =
                Partitions::new(self.to_assign.iter().map(|(topic, number, from)| (name(*topic), *number, *from)));
            // SAFETY: client and list are valid.
            let error = unsafe { rd::rd_kafka_incremental_assign(self.client.rk(), list.0) };
            call(error, || format!("begin to read {} partitions", self.to_assign.len()))?;
        }
        self.to_unassign.clear();
        self.to_assign.clear();
        Ok(())
    }

    /// A partition's own queue, forwarded to the reader's.
    fn forwarded(&self, topic: &str, partition: u32) -> PartitionQueue {
        let name = c_string(topic);
        let partition = i32::try_from(partition).unwrap_or(i32::MAX);
        // SAFETY: the client is valid and the name ends with a zero byte; a consumer's client makes the queue where it
        // has none of the partition. The opaque lies on the heap and is freed after the callback is disabled.
        unsafe {
            let queue = rd::rd_kafka_queue_get_partition(self.client.rk(), name.as_ptr(), partition);
            let opaque = ptr::from_ref::<Strays>(&self.strays).cast_mut().cast();
            rd::rd_kafka_queue_cb_event_enable(queue, Some(stray), opaque);
            rd::rd_kafka_queue_forward(queue, self.queue.queue);
            PartitionQueue(queue)
        }
    }

    /// Lets what has come into the partitions' own queues into the reader's.
    fn forward(&self) {
        if self.strays.some.swap(false, Ordering::AcqRel) {
            for queue in self.assigned.values() {
                // SAFETY: both queues are valid.
                unsafe { rd::rd_kafka_queue_forward(queue.0, self.queue.queue) };
            }
        }
    }

    /// The topic's number in [`Consumer::hand_on`].
    pub(crate) fn topic(&mut self, name: &str) -> Result<usize, Error> {
        if let Some(number) = self.topics.iter().position(|(known, _)| known == name) {
            return Ok(number);
        }
        let topic = Topic::new(&self.client, name)
            .map_err(|code| failure::error(code, format!("take a handle of topic '{name}'")))?;
        self.topics.push((name.to_owned(), topic));
        Ok(self.topics.len() - 1)
    }

    /// Takes up to `most` messages for [`Consumer::hand_on`], unless there are some from before, waiting for the first no
    /// longer than `wait`.
    pub(crate) fn fetch(&mut self, most: usize, wait: Duration) -> Result<(), Error> {
        self.change_assignment()?;
        self.client.note_errors();
        if !self.batch.is_empty() {
            return Ok(());
        }
        self.forward();
        let most = most.min(BATCH);
        // librdkafka waits until the batch is full: the first message is waited for alone.
        if self.fill(0, most) == 0 && !wait.is_zero() {
            self.fill(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX), 1);
        }
        self.told_of_topics = self.client.watch().told_of_topics();
        Ok(())
    }

    /// How many answers about topics had arrived when what is handed on next was taken: it was fetched after no more.
    pub(crate) fn told_of_topics(&self) -> u64 {
        self.told_of_topics
    }

    /// Hands each message to `take` with the number of its topic and its partition. Returns how many there were; 0 means
    /// that the queue was empty.
    pub(crate) fn hand_on(&mut self, mut take: impl FnMut(usize, u32, Arrival<'_>)) -> usize {
        let count = self.batch.len();
        let batch = Batch { messages: &mut self.batch };
        for message in batch.messages.iter() {
            // SAFETY: each message is valid until the batch is dropped.
            let message = unsafe { &**message };
            let Some(topic) = topic_number(&self.topics, message.rkt) else { continue };
            let Ok(partition) = u32::try_from(message.partition) else { continue };
            take(topic, partition, arrival(message));
        }
        count
    }

    fn fill(&mut self, wait_ms: i32, most: usize) -> usize {
        self.batch.clear();
        // SAFETY: the queue is valid, and the buffer has room for `BATCH` pointers, of which `most` are written at
        // most.
        unsafe {
            let count = rd::rd_kafka_consume_batch_queue(self.queue.queue, wait_ms, self.batch.as_mut_ptr(), most);
            let count = usize::try_from(count).unwrap_or(0);
            self.batch.set_len(count);
            count
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        drop(Batch { messages: &mut self.batch });
        let name = |topic: usize| self.topics[topic].0.as_str();
        let list = Partitions::new(self.assigned.keys().map(|(topic, partition)| (name(*topic), *partition, 0)));
        // Others may go on with the client. An error means that it has ended.
        // SAFETY: client and list are valid.
        let _ = take(unsafe { rd::rd_kafka_incremental_unassign(self.client.rk(), list.0) });
    }
}

/// Frees the messages also when the taker panics.
struct Batch<'a> {
    messages: &'a mut Vec<*mut rd::rd_kafka_message_t>,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: the message is ours, and nothing borrows from it any longer.
            unsafe { rd::rd_kafka_message_destroy(message) };
        }
    }
}

fn topic_number(topics: &[(String, Topic)], handle: *mut rd::rd_kafka_topic_t) -> Option<usize> {
    if handle.is_null() {
        return None;
    }
    // Our handles keep the topics alive, so that pointers are as good as names; names decide where they differ.
    topics.iter().position(|(_, topic)| topic.0 == handle).or_else(|| {
        // SAFETY: the handle belongs to a message that is still ours.
        let name = unsafe { CStr::from_ptr(rd::rd_kafka_topic_name(handle)) };
        topics.iter().position(|(known, _)| known.as_bytes() == name.to_bytes())
    })
}

fn arrival(message: &rd::rd_kafka_message_t) -> Arrival<'_> {
    let offset = u64::try_from(message.offset).unwrap_or(0);
    match message.err.into() {
        Code::NoError => {
            let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            // SAFETY: the message is valid.
            let timestamp = unsafe { rd::rd_kafka_message_timestamp(message, &raw mut kind) };
            Arrival::Record(fluvial_connector::Record {
                offset: fluvial_connector::Offset(offset),
                key: bytes(message.key, message.key_len),
                value: bytes(message.payload, message.len),
                timestamp_ms: (timestamp >= 0).then_some(timestamp),
                headers: Headers::of(WithHeaders::of(message)),
                split: None,
            })
        }
        Code::PartitionEOF => Arrival::End(offset),
        code => {
            let reason = bytes(message.payload, message.len).unwrap_or_default();
            Arrival::Failed(code, std::str::from_utf8(reason).unwrap_or_default())
        }
    }
}

/// A message, whose headers librdkafka parses when the first of them is asked for.
#[repr(transparent)]
struct WithHeaders(rd::rd_kafka_message_t);

impl WithHeaders {
    fn of(message: &rd::rd_kafka_message_t) -> &Self {
        // SAFETY: the type is transparent, and the reference lives as long as the message's.
        unsafe { &*ptr::from_ref(message).cast() }
    }
}

impl ReadHeaders for WithHeaders {
    fn header(&self, index: usize) -> Option<Header<'_>> {
        let mut headers = ptr::null_mut();
        let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the message is valid, and keeps the headers that librdkafka parses here, with their names and values, until
        // it is destroyed. The headers are looked at by the thread that reads alone.
        unsafe {
            if Code::from(rd::rd_kafka_message_headers(&raw const self.0, &raw mut headers)) != Code::NoError {
                return None;
            }
            let found = rd::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut length);
            if Code::from(found) != Code::NoError {
                return None;
            }
            // Kafka's names are UTF-8. A header whose name is not gets the empty name, so that no job finds it by name.
            let name = CStr::from_ptr(name).to_str().unwrap_or_default();
            Some(Header { name, value: bytes(value, length) })
        }
    }
}

fn bytes<'a>(start: *const c_void, length: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: librdkafka's pointer and length belong together; the caller ties the lifetime to the message.
    Some(unsafe { std::slice::from_raw_parts(start.cast(), length) })
}

/// A list of partitions with offsets.
pub(super) struct Partitions(pub(super) *mut rd::rd_kafka_topic_partition_list_t);

impl Partitions {
    pub(super) fn new<'a>(partitions: impl IntoIterator<Item = (&'a str, u32, u64)>) -> Self {
        let offset = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
        Self::with_offsets(partitions.into_iter().map(|(topic, partition, from)| (topic, partition, offset(from))))
    }

    /// As [`Partitions::new`], with offsets as the C interface has them, the negative ones of which have names.
    pub(super) fn with_offsets<'a>(partitions: impl IntoIterator<Item = (&'a str, u32, i64)>) -> Self {
        // SAFETY: the list grows by itself; names end with a zero byte and are copied; the new element is valid.
        unsafe {
            let list = rd::rd_kafka_topic_partition_list_new(1);
            for (topic, partition, offset) in partitions {
                let name = c_string(topic);
                let partition = i32::try_from(partition).unwrap_or(i32::MAX);
                let element = rd::rd_kafka_topic_partition_list_add(list, name.as_ptr(), partition);
                (*element).offset = offset;
            }
            Self(list)
        }
    }
}

impl Drop for Partitions {
    fn drop(&mut self) {
        // SAFETY: the list is ours.
        unsafe { rd::rd_kafka_topic_partition_list_destroy(self.0) };
    }
}
