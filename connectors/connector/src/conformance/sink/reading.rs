//! What is read of progress and records, also while transactions are open.

use std::collections::BTreeMap;

use super::{Job, just_records, owned, records, within_patience, write};
use crate::conformance::SinkSubject;
use crate::{Offset, OutputPartition, OutputRecord, Progress, Tick, Transactor};

/// Of two writers one has committed and the other is in the middle of its transaction. The call may wait for it, but no
/// longer than the patience; when it is aborted, the call returns.
pub fn progress_is_seen_while_another_transaction_is_open<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    // Slots far apart, whose progress may well lie in one place.
    let (slow_slot, quick_slot) = (0, 240);
    let (mut slow, mut quick) = (job.fence(slow_slot, 0), job.fence(quick_slot, 0));
    let open = write(&job.at(0), &records("open", 2), 9, job.end(&job.at(0)));
    slow.prepare(&job.transaction(slow_slot, vec![open])).expect("a transaction can be prepared");
    let done = write(&job.at(1), &records("done", 2), 9, job.end(&job.at(1)));
    quick.prepare(&job.transaction(quick_slot, vec![done])).expect("a transaction can be prepared");
    quick.commit().expect("a prepared transaction can be committed");

    let what = "progress while another transaction is open";
    let complete = |progress: BTreeMap<OutputPartition, Progress>| {
        assert_eq!(progress.into_keys().collect::<Vec<_>>(), [job.at(1)], "{what}");
    };
    if let Some(progress) = within_patience(&job.impatient(subject), what, |job| job.session.progress()) {
        complete(progress);
    }
    let session = job.session.clone();
    let asking = std::thread::spawn(move || session.progress());
    let _newer = job.fence(slow_slot, 0);
    complete(asking.join().expect("progress does not panic").expect("the open transaction was aborted"));
}

/// After a change of the number of workers a partition has another owner, and later its first one again.
pub fn the_newest_progress_wins_whichever_writer_wrote_it<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    for (slot, turn, tick) in [(0, 0, 1), (1, 0, 2), (0, 0, 3), (2, 0, 4), (0, 1, 5), (1, 0, 6), (0, 0, 7)] {
        let mut writer = job.fence(slot, turn);
        let one = write(&at, &records("k", 1), tick, job.end(&at));
        let end = writer.prepare(&job.transaction(slot, vec![one])).expect("a transaction can be prepared")[0];
        writer.commit().expect("a prepared transaction can be committed");
        let progress = &job.progress()[&at];
        assert_eq!((progress.tick, progress.end), (Tick(tick), end), "progress by slot {slot}, turn {turn}");
    }
    assert_eq!(job.reopened(subject).tick(&at), Some(7), "in a session that came later");
}

/// Both in one partition: the records that were committed are seen, or the call says that it waits. When the open
/// transaction is aborted, they are seen.
pub fn records_are_seen_behind_an_open_transaction<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let (at, done) = (job.at(0), records("done", 2));
    let (mut slow, mut quick) = (job.fence(0, 0), job.fence(240, 0));
    let open = write(&at, &records("open", 2), 9, job.end(&at));
    slow.prepare(&job.transaction(0, vec![open])).expect("a transaction can be prepared");
    let some = write(&at, &done, 9, job.end(&at));
    quick.prepare(&job.transaction(240, vec![some])).expect("a transaction can be prepared");
    quick.commit().expect("a prepared transaction can be committed");

    let read = {
        let at = at.clone();
        within_patience(&job.impatient(subject), "reading behind an open transaction", move |job| {
            let (records, end) = job.try_read(&at, Offset(0));
            end.map(|_| just_records(records))
        })
    };
    if let Some(read) = read {
        assert_eq!(read, done, "what was committed behind an open transaction");
    }
    let _newer = job.fence(0, 0);
    assert_eq!(job.committed(&at), done, "what was committed behind a transaction that was aborted");
}

/// Every partition at once, in any order, from its beginning, from its middle, from beyond its end and for its end alone.
pub fn several_partitions_are_read_side_by_side<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut writer = job.fence(0, 0);
    let name = |number: usize| format!("of partition {number} ");
    let some = |(number, at): (usize, &OutputPartition)| write(at, &records(&name(number), 3 + number), 1, job.end(at));
    job.commit(&mut writer, job.places.iter().enumerate().map(some).collect());

    // Each partition: where to read from, and how many of its first records are not to come.
    let ask = |rotation: usize| -> Vec<(OutputPartition, Offset, usize)> {
        let case = |number: usize| {
            let (at, all) = (job.at(number), job.read(&job.at(number), Offset(0)));
            match (number + rotation) % 4 {
                0 => (at, Offset(0), 0),
                1 => (at, all[1].0, 1),
                2 => (at.clone(), job.end(&at), all.len()),
                _ => (at, Offset(u64::MAX), all.len()),
            }
        };
        (0..job.places.len()).rev().map(case).collect()
    };
    for rotation in 0..4 {
        let asked = ask(rotation);
        let from: Vec<_> = asked.iter().map(|(at, from, _)| (at.clone(), *from)).collect();
        let mut read: Vec<Vec<(Offset, OutputRecord)>> = vec![Vec::new(); from.len()];
        let ends = job.session.read_all_committed(&from, &mut |place, record| read[place].push(owned(record)));
        let ends = ends.expect("several partitions can be read");
        assert_eq!(ends.len(), asked.len(), "each partition has its end");
        for ((at, from, skipped), (read, end)) in asked.iter().zip(read.iter().zip(ends)) {
            assert_eq!(*read, job.read(at, Offset(0))[*skipped..], "{at} read from {from}, with others beside it");
            assert_eq!(end.end, job.end(at), "the end of {at}, with others beside it");
            assert_eq!(end.aborted, None, "nothing was aborted in {at}");
            let first = job.read(at, Offset(0))[0].0;
            assert!(end.earliest <= first, "{at} has a record at {first}, and is said to begin at {}", end.earliest);
        }
    }
    let none = job.session.read_all_committed(&[], &mut |_, record| panic!("{record:?} was not asked for"));
    assert_eq!(none.expect("no partitions can be read"), [], "no partitions have no ends");
}

/// The same records come with the same offsets, from each record, from the end, and from beyond it.
pub fn an_output_can_be_read_from_any_offset<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let mut writer = job.fence(0, 0);
    for tick in 1..=3 {
        job.commit(&mut writer, vec![write(&at, &records(&format!("{tick} "), 4), tick, job.end(&at))]);
    }
    let all = job.read(&at, Offset(0));
    assert_eq!(all.len(), 12);
    for (skipped, (from, _)) in all.iter().enumerate() {
        assert_eq!(job.read(&at, *from), all[skipped..], "read from offset {from}");
    }
    let end = job.end(&at);
    assert_eq!(job.read(&at, end), [], "read from the end");
    let beyond = Offset(end.0 + 100);
    let read = job.session.read_committed(&at, beyond, &mut |record| panic!("{record:?} came from beyond the end"));
    assert_eq!(read.expect("an output can be read from beyond its end"), end, "the end, read from beyond it");
}

/// To whoever goes on after a record that it took for committed: the record's offset, or an end before it where a sink
/// does not keep what was aborted.
pub fn an_aborted_record_before_the_offset_is_told<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let from = |from: Offset| {
        let read = job.session.read_all_committed(&[(at.clone(), from)], &mut |_, _| ());
        read.expect("an output can be read back")[0]
    };
    let prepare = |writer: &mut Box<dyn Transactor>, tick| {
        job.prepare(writer, vec![write(&at, &records("k", 3), tick, job.end(&at))])[0]
    };
    let mut writer = job.fence(0, 0);
    let kept = prepare(&mut writer, 5);
    writer.commit().expect("a prepared transaction can be committed");
    assert_eq!(from(kept).aborted, None, "the record before is committed");
    let lost = prepare(&mut writer, 6);
    drop(writer);
    let mut writer = job.fence(0, 0);
    let told = from(lost);
    match told.aborted {
        Some(record) => assert!(kept <= record && record < lost, "{record} is not between {kept} and {lost}"),
        None => assert!(told.end < lost, "{told:?} does not say that the records before {lost} were aborted"),
    }
    assert_eq!(from(kept).aborted, None, "what was aborted later does not count");
    let again = prepare(&mut writer, 7);
    writer.commit().expect("a prepared transaction can be committed");
    assert_eq!(from(again).aborted, None, "what was aborted earlier does not count");
    assert_eq!(from(Offset(u64::MAX)).aborted, None, "only the end was asked for");
}

/// After each transaction, whether it was committed or aborted.
pub fn the_end_is_between_earlier_and_later_records<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let mut ends = vec![(job.end(&at), 0)];
    for tick in 1..=4 {
        let mut writer = job.fence(0, 0);
        let one = write(&at, &records(&format!("{tick} "), 3), tick, job.end(&at));
        job.prepare(&mut writer, vec![one]);
        if tick % 2 == 1 {
            writer.commit().expect("a prepared transaction can be committed");
        } else {
            drop(job.fence(0, 0));
        }
        let count = job.read(&at, Offset(0)).len();
        ends.push((job.end(&at), count));
        let read = job.session.read_committed(&at, Offset(0), &mut |_| ());
        assert_eq!(read.expect("an output can be read back"), job.end(&at), "`end` and `read_committed` differ");
    }
    let all = job.read(&at, Offset(0));
    assert_eq!(all.len(), 6, "two transactions were committed");
    for (end, count) in ends {
        let before = all.iter().filter(|(offset, _)| *offset < end).count();
        assert_eq!(before, count, "records before the end {end} that was told when there were {count}");
    }
}
