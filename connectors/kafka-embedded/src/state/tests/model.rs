//! Random transactions of several producers over several partitions, against a plain list of what each of them wrote.
//!
//! A reader that drops aborted records as clients do must see, at any moment, what was committed and what needs no commit,
//! in order, up to the first open transaction, and nothing else.

use std::collections::{HashMap, HashSet};

use super::*;

const PARTITIONS: i32 = 3;
const IDS: usize = 4;

/// A small generator (xorshift), so that a seed gives the same run everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

/// A writer as a client sees itself; a zombie goes on with what it believes.
#[derive(Clone)]
struct Writer {
    id: String,
    producer: Producer,
    next: HashMap<i32, i32>,
}

struct Model {
    state: State,
    topic: Uuid,
    now: Now,
    /// Offset and transaction of each record, of each partition; `None` for a record outside transactions.
    written: Vec<Vec<(i64, Option<usize>)>>,
    fates: Vec<Fate>,
    /// The open transaction of each transactional id.
    open: HashMap<String, usize>,
}

impl Model {
    fn new() -> Self {
        let mut state = State::new(1 << 30);
        let topic = state.topics.create("t", PARTITIONS, Settings::default()).unwrap();
        let written = vec![Vec::new(); PARTITIONS as usize];
        Self { state, topic, now: Now::read(), written, fates: Vec::new(), open: HashMap::new() }
    }

    fn init(&mut self, id: &str) -> Writer {
        let (producer, ending) = self.state.transactions.init(id, Duration::from_secs(60), None).unwrap();
        assert_eq!(ending.is_some(), self.open.contains_key(id));
        if let Some(ending) = ending {
            self.state.finish(&ending, self.now);
        }
        self.settle(id, Fate::Aborted);
        Writer { id: id.to_owned(), producer, next: HashMap::new() }
    }

    fn settle(&mut self, id: &str, fate: Fate) {
        if let Some(transaction) = self.open.remove(id) {
            self.fates[transaction] = fate;
        }
    }

    /// Writes a batch, and sends it once more now and then, as a client does whose answer was lost.
    fn write(&mut self, writer: &mut Writer, live: bool, random: &mut Random) {
        let partition = random.below(PARTITIONS as usize) as i32;
        let added = self.state.transactions.add_partitions(
            &writer.id,
            writer.producer,
            [(self.topic, partition)],
            self.now.instant,
        );
        assert_eq!(added.is_ok(), live);
        let records = 1 + random.below(3) as i32;
        let sequence = writer.next.entry(partition).or_default();
        let (header, bytes) = batch((writer.producer.id, writer.producer.epoch), *sequence, records, true);
        let produced = self.state.produce(TOPIC, partition, &header, &bytes);
        assert_eq!(produced.is_ok(), live, "{produced:?}");
        let Ok(base) = produced else { return };
        *sequence += records;
        if random.below(3) == 0 {
            assert_eq!(self.state.produce(TOPIC, partition, &header, &bytes), Ok(base), "a repeated batch");
        }
        let transaction = *self.open.entry(writer.id.clone()).or_insert_with(|| {
            self.fates.push(Fate::Open);
            self.fates.len() - 1
        });
        let offsets = (0..i64::from(records)).map(|n| (base + n, Some(transaction)));
        self.written[partition as usize].extend(offsets);
    }

    fn end(&mut self, writer: &Writer, live: bool, commit: bool) {
        let open = self.open.contains_key(&writer.id);
        let ended = self.state.transactions.end(&writer.id, writer.producer, commit);
        if !live {
            assert_eq!(ended, Err(ResponseError::ProducerFenced));
            return;
        }
        assert_eq!(matches!(ended, Ok(Some(_))), open);
        if let Ok(Some(ending)) = ended {
            self.state.finish(&ending, self.now);
            self.settle(&writer.id, if commit { Fate::Committed } else { Fate::Aborted });
        }
    }

    fn check(&self, random: &mut Random) {
        for partition in 0..PARTITIONS {
            let written = &self.written[partition as usize];
            let open = written.iter().find(|(_, t)| t.is_some_and(|t| self.fates[t] == Fate::Open));
            let log = &self.state.topics.partition(TOPIC, partition).unwrap().log;
            assert_eq!(log.last_stable(), open.map_or(log.end(), |(offset, _)| *offset));
            let from = random.below(log.last_stable() as usize + 1) as i64;
            let expected: Vec<i64> = written
                .iter()
                .filter(|(offset, t)| *offset >= from && t.is_none_or(|t| self.fates[t] == Fate::Committed))
                .map(|(offset, _)| *offset)
                .take_while(|offset| *offset < log.last_stable())
                .collect();
            assert_eq!(read_as_a_client(log, from, 1 + random.below(400)), expected);
        }
    }
}

/// Reads in pieces of about `size` bytes, and drops the records between an aborted transaction's first and its marker.
fn read_as_a_client(log: &log::Log, mut from: i64, size: usize) -> Vec<i64> {
    let (mut seen, begin) = (Vec::new(), from);
    loop {
        let read = log.read(from, Isolation::Committed, size, true).unwrap();
        if read.batches.is_empty() {
            return seen;
        }
        let mut aborted = read.aborted.clone();
        aborted.sort_by_key(|a| a.first);
        let (mut dropping, mut aborted) = (HashSet::new(), aborted.into_iter().peekable());
        for bytes in &read.batches {
            let base = i64::from_be_bytes(bytes[..8].try_into().unwrap());
            let header = batch::header(bytes);
            let last = base + i64::from(header.last_offset_delta);
            while let Some(transaction) = aborted.next_if(|a| a.first <= last) {
                dropping.insert(transaction.producer_id);
            }
            if header.is_control() {
                dropping.remove(&header.producer_id);
            } else if !header.is_transactional() || !dropping.contains(&header.producer_id) {
                seen.extend((base..=last).filter(|offset| *offset >= begin));
            }
            from = last + 1;
        }
    }
}

#[test]
fn a_committed_reader_sees_what_was_committed_and_nothing_else() {
    for seed in 1..=300 {
        let (mut model, mut random) = (Model::new(), Random(seed));
        let ids: Vec<String> = (0..IDS).map(|n| format!("id-{n}")).collect();
        let mut live: Vec<Writer> = ids.iter().map(|id| model.init(id)).collect();
        let mut zombies: Vec<Writer> = Vec::new();
        for _ in 0..120 {
            let who = random.below(IDS);
            match random.below(20) {
                0..9 => {
                    let mut writer = live[who].clone();
                    model.write(&mut writer, true, &mut random);
                    live[who] = writer;
                }
                9..12 => model.end(&live[who], true, true),
                12..14 => model.end(&live[who], true, false),
                14 => {
                    let successor = model.init(&ids[who]);
                    zombies.push(std::mem::replace(&mut live[who], successor));
                }
                15 | 16 if !zombies.is_empty() => {
                    let at = random.below(zombies.len());
                    let mut zombie = zombies[at].clone();
                    if random.below(2) == 0 {
                        model.write(&mut zombie, false, &mut random);
                    } else {
                        model.end(&zombie, false, random.below(2) == 0);
                    }
                }
                17 => {
                    let (header, bytes) = plain(1 + random.below(3) as i32);
                    let partition = random.below(PARTITIONS as usize);
                    let base = model.state.produce(TOPIC, partition as i32, &header, &bytes).unwrap();
                    let offsets = (0..i64::from(header.records)).map(|n| (base + n, None));
                    model.written[partition].extend(offsets);
                }
                _ => model.check(&mut random),
            }
        }
        model.check(&mut random);
    }
}
