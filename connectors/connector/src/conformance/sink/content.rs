//! What a transaction contains, and what is kept of it.

use std::sync::Arc;

use super::{Job, just_records, records, write};
use crate::conformance::SinkSubject;
use crate::{Digest, Generation, Offset, OutputBlock, OutputRecord, OutputRecords, Position, Tick, TickCount, TickEnd};

/// Each is after the records of its own write, and before those of a later one.
pub fn ends_come_in_the_order_of_the_writes<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut writer = job.fence(0, 0);
    let (first, second) = (job.at(0), job.at(1));
    job.commit(&mut writer, vec![write(&first, &records("filler", 7), 1, job.end(&first))]);
    for (tick, order) in [(2, [&first, &second]), (3, [&second, &first])] {
        let writes = order.map(|at| write(at, &records("k", 2), tick, job.end(at)));
        let ends = job.commit(&mut writer, writes.to_vec());
        for (at, end) in order.into_iter().zip(ends) {
            let all = job.read(at, Offset(0));
            let (last, _) = all.last().expect("records were committed");
            assert!(*last < end, "the end {end} of {at} is not after its last record, at {last}");
            assert!(end <= job.end(at), "the end {end} of a write is after that of {at}");
            assert_eq!(job.progress()[at].end, end, "the end in the progress of {at}");
        }
    }
}

/// Deletions, empty keys and values, and any bytes. They are handed over in several parts, as the engine does.
pub fn every_record_is_read_back_as_it_was_written<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let record =
        |key: &[u8], value: Option<&[u8]>| OutputRecord { key: key.to_vec(), value: value.map(<[u8]>::to_vec) };
    let every_byte: Vec<u8> = (0..=255).collect();
    let all = vec![
        record(b"not written", Some(b"it is before the part")),
        record(b"deleted", None),
        record(b"empty", Some(b"")),
        record(b"", Some(b"of an empty key")),
        record(b"twice", Some(b"1")),
        record(b"twice", Some(b"1")),
        record(&every_byte, Some(&every_byte)),
        record(b"line\nbreak\r\n", Some(b"\n")),
        record(b"", None),
    ];
    let block = Arc::new(OutputBlock::from(all.clone()));
    let mut parts = OutputRecords::default();
    for part in [1..3, 3..3, 3..8, 8..9] {
        parts.push(&block, part);
    }
    let mut one = write(&at, &all[1..], 1, job.end(&at));
    one.records = parts;
    let mut writer = job.fence(0, 0);
    job.commit(&mut writer, vec![one]);
    assert_eq!(job.committed(&at), all[1..], "records are not read back as they were written");
}

/// In one transaction, more than any queue on the way holds.
pub fn many_records_keep_their_order<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut writer = job.fence(0, 0);
    let all = records("k", 150_000);
    let half = &all[..70_000];
    let (first, second) = (job.at(0), job.at(1));
    job.commit(&mut writer, vec![write(&first, &all, 1, job.end(&first)), write(&second, half, 1, job.end(&second))]);
    // Not by `assert_eq`, which would print them all.
    assert!(job.committed(&first) == all, "150000 records did not come back in their order");
    assert!(job.committed(&second) == half, "70000 records did not come back in their order");
}

/// Incarnation, generation, tick, position and digest; and the end of each tick, from which exactly the records of later
/// ticks are read.
pub fn progress_says_what_was_written<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let mut writer = job.fence(0, 0);
    let all = records("k", 6);
    let mut one = write(&at, &all, 12, job.end(&at));
    let count = |tick, records| TickCount { tick: Tick(tick), records };
    one.ticks = vec![count(10, 2), count(11, 3), count(12, 6)];
    one.progress.digest = Digest(u128::MAX - 7);
    one.progress.position = Position::Records(3);
    one.progress.generation = Generation(41);
    let ends = writer.prepare(&job.transaction(0, vec![one])).expect("a transaction can be prepared");
    writer.commit().expect("a prepared transaction can be committed");
    let progress = job.progress().remove(&at).expect("what was committed has progress");
    assert_eq!((progress.incarnation, progress.generation), (job.incarnation, Generation(41)), "who wrote");
    assert_eq!((progress.tick, progress.position), (Tick(12), Position::Records(3)), "the tick, and how much of it");
    assert_eq!((progress.digest, progress.end), (Digest(u128::MAX - 7), ends[0]), "the digest and the end");
    let ticks: Vec<_> = progress.ticks.iter().map(|end| end.tick.0).collect();
    assert_eq!(ticks, [10, 11, 12], "the ticks");
    for (TickEnd { tick, end }, records) in progress.ticks.iter().zip([2, 3, 6]) {
        assert_eq!(just_records(job.read(&at, *end)), all[records..], "read from the end {end} of tick {tick}");
    }
    assert_eq!(progress.ticks[2].end, progress.end, "the last tick ends with the records");
}

/// The position within the tick is kept.
pub fn a_tick_may_be_committed_in_parts<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let mut writer = job.fence(0, 0);
    for position in [Position::Records(2), Position::Records(4), Position::Complete] {
        let mut part = write(&at, &records("k", 2), 3, job.end(&at));
        part.progress.position = position;
        let end = job.commit(&mut writer, vec![part])[0];
        let progress = &job.progress()[&at];
        assert_eq!((progress.position, progress.tick, progress.end), (position, Tick(3), end), "of a part of a tick");
    }
    assert_eq!(job.committed(&at).len(), 6, "all parts of a tick are seen");
}

/// Of a partition that has nothing to write, alone and beside one that has; its end stays what the write says.
pub fn progress_may_come_without_records<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let (idle, busy) = (job.at(0), job.at(1));
    let mut writer = job.fence(0, 0);
    let nothing = job.end(&idle);
    let writes = vec![write(&idle, &[], 7, nothing), write(&busy, &records("k", 1), 7, job.end(&busy))];
    assert_eq!(job.commit(&mut writer, writes)[0], nothing, "the end of a partition that nothing was written to");
    assert_eq!(job.tick(&idle), Some(7), "progress without records");
    assert_eq!(job.committed(&idle), [], "progress without records is no record");

    let end = job.commit(&mut writer, vec![write(&idle, &records("k", 3), 8, nothing)])[0];
    assert_eq!(job.commit(&mut writer, vec![write(&idle, &[], 9, end)])[0], end, "the end stays without records");
    let progress = job.progress();
    assert_eq!((progress[&idle].tick, progress[&idle].end), (Tick(9), end), "progress without records");
    assert_eq!(progress[&idle].ticks, [], "no tick of this transaction has records");
    assert_eq!(progress[&busy].tick, Tick(7), "the progress of the other partition changed");
    assert_eq!(job.committed(&idle), records("k", 3), "progress without records is no record");
}

/// The ticks of records that a partially committed transaction left, before those of the transaction itself.
pub fn earlier_ticks_come_first<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let begin = job.end(&at);
    let mut writer = job.fence(0, 0);
    let left = job.commit(&mut writer, vec![write(&at, &records("left", 4), 1, begin)])[0];
    let offsets: Vec<_> = job.read(&at, Offset(0)).into_iter().map(|(offset, _)| offset).collect();
    let earlier = vec![TickEnd { tick: Tick(1), end: offsets[2] }, TickEnd { tick: Tick(2), end: left }];
    let mut next = write(&at, &records("next", 1), 3, job.end(&at));
    (next.progress.begin, next.progress.ticks) = (begin, earlier.clone());
    let end = job.commit(&mut writer, vec![next])[0];
    let last = TickEnd { tick: Tick(3), end };
    let progress = &job.progress()[&at];
    assert_eq!(progress.ticks, [earlier, vec![last]].concat(), "earlier ticks, and then the own");
    assert_eq!(progress.begin, begin, "the begin that the write says");
}
