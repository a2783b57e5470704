//! When a transaction becomes visible.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{Job, records, within_patience, write};
use crate::conformance::{SinkSubject, in_time};
use crate::{Offset, OutputRecord, Tick};

/// Neither records nor progress, to any session, before the commit; a later reader may wait, but no longer than the
/// patience.
pub fn what_is_prepared_is_invisible<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let mut writer = job.fence(0, 0);
    job.prepare(&mut writer, vec![write(&at, &records("open", 3), 5, job.end(&at))]);
    let asking = job.impatient(subject);
    if let Some(progress) = within_patience(&asking, "progress before the commit", |job| job.session.progress()) {
        assert!(progress.is_empty(), "progress is seen before the commit: {progress:?}");
    }
    let of = at.clone();
    let seen = in_time("reading before the commit", job.patience * 2, move || asking.try_read(&of, Offset(0)).0);
    assert_eq!(seen, [], "records are seen before the commit");
    writer.commit().expect("a prepared transaction can be committed");
    assert_eq!(job.committed(&at), records("open", 3), "records are seen after the commit");
    assert_eq!(job.tick(&at), Some(5), "progress is seen after the commit");
}

/// One transaction over several partitions of several outputs.
pub fn records_and_progress_are_committed_in_one_step<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let mut writer = job.fence(0, 0);
    for tick in 1..=2u64 {
        let name = |number: usize| format!("tick {tick} of {number} ");
        let some = |(number, at)| write(at, &records(&name(number), number + 1), tick, job.end(at));
        let ends = job.commit(&mut writer, job.places.iter().enumerate().map(some).collect());
        let progress = job.progress();
        let seen: Vec<_> = progress.keys().cloned().collect();
        let mut expected = job.places.clone();
        expected.sort();
        assert_eq!(seen, expected, "each partition has progress");
        for (number, (at, end)) in job.places.iter().zip(ends).enumerate() {
            assert_eq!((progress[at].tick, progress[at].end), (Tick(tick), end), "the progress of {at}");
            let committed = job.committed(at);
            let last = &committed[committed.len() - number - 1..];
            assert_eq!(last, records(&name(number), number + 1), "the records of {at}");
        }
    }
}

/// Says at its end, also when it panics, that the other thread need not go on.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Another thread asks while transactions are committed: records that it reads are in the progress that it asks for
/// afterwards, and what progress says is in the records that it reads afterwards.
pub fn an_observer_never_sees_one_without_the_other<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let observer = job.reopened(subject);
    let (at, rounds, done) = (job.at(0), 12, AtomicBool::new(false));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let _done = Done(&done);
            let mut writer = job.fence(0, 0);
            for tick in 1..=rounds {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                job.commit(&mut writer, vec![write(&at, &records("k", 2), tick, job.end(&at))]);
            }
        });
        let _done = Done(&done);
        let mut last = 0;
        while !done.load(Ordering::SeqCst) {
            let records = observer.read(&at, Offset(0));
            let progress = observer.progress();
            let through = progress.get(&at).map_or(Offset(0), |progress| progress.end);
            if let Some((offset, _)) = records.last() {
                assert!(*offset < through, "a record at {offset} is seen, and progress says {through}");
            }
            let ticks = progress.get(&at).map_or(0, |progress| progress.tick.0);
            let records = observer.read(&at, Offset(0));
            assert!(records.len() as u64 >= 2 * ticks, "progress says {ticks} ticks, and there are {records:?}");
            assert!(ticks >= last, "progress went back from tick {last} to {ticks}");
            last = ticks;
        }
    });
    assert_eq!(observer.tick(&at), Some(rounds), "progress after the last commit");
}

/// The second prepares while the first has not committed; they commit in order.
pub fn writers_take_turns<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(1);
    let mut turns = [job.fence(0, 0), job.fence(0, 1)];
    let mut expected = Vec::new();
    let mut end = job.end(&at);
    for tick in 0..20u64 {
        let some = records(&format!("{tick} "), 3);
        let now = usize::from(tick % 2 == 1);
        let next = job.prepare(&mut turns[now], vec![write(&at, &some, tick, end)])[0];
        assert!(end < next, "the end {next} of a transaction is not after the end {end} of the one before");
        end = next;
        if tick > 0 {
            turns[1 - now].commit().expect("the first of two prepared transactions can be committed");
        }
        expected.extend(some);
    }
    turns[1].commit().expect("a prepared transaction can be committed");
    assert_eq!(job.committed(&at), expected, "the records of two writers that took turns");
    assert_eq!((job.progress()[&at].end, job.tick(&at)), (end, Some(19)), "the progress of the last turn");
}

/// An open transaction does not hold up the thread that gives it up, and the next writer aborts it.
pub fn a_writer_that_is_dropped_is_gone_at_once<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let mut writer = job.fence(0, 0);
    job.prepare(&mut writer, vec![write(&at, &records("k", 100), 1, job.end(&at))]);
    let begun = Instant::now();
    drop(writer);
    let took = begun.elapsed();
    assert!(took < job.patience / 4, "dropping a writer with an open transaction took {took:?}");
    drop(job.fence(0, 0));
    assert_eq!(job.committed(&at), [], "what a dropped writer had prepared is not committed");
}

/// After a crash before each step of a commit, and after the last, a job that reopens the sink sees all of the
/// transaction or nothing of it; it sees the same each time, and can go on.
pub fn a_crash_leaves_all_of_a_transaction_or_nothing<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let places = [job.at(0), job.at(1)];
    let (mut crashed, mut expected) = (job.clone(), Vec::<OutputRecord>::new());
    drop(job);
    let (mut tick, mut steps, mut committed) = (0, 0, 0);
    loop {
        tick += 1;
        let name = format!("of tick {tick} ");
        let mut writer = crashed.fence(0, 0);
        let writes = places.each_ref().map(|at| write(at, &records(&name, 3), tick, crashed.end(at)));
        crashed.prepare(&mut writer, writes.to_vec());
        if !subject.crash_in_commit(writer, steps) {
            break;
        }
        let incarnation = crashed.incarnation;
        drop(crashed);
        crashed = Job { incarnation, ..Job::of(subject) };
        drop(crashed.fence(0, 0));
        let seen = crashed.committed(&places[0]);
        let what = format!("after a crash before step {steps} of the commit");
        let happened = seen.len() > expected.len();
        if happened {
            expected.extend(records(&name, 3));
            committed = tick;
        }
        for at in &places {
            assert_eq!(crashed.committed(at), expected, "{what}: the records of {at} are in part there");
            let through = crashed.tick(at).unwrap_or(0);
            assert_eq!(through, committed, "{what}: the tick that {at} is committed through");
        }
        if steps == 0 {
            assert!(!happened, "{what}: a transaction was committed that was only prepared");
        }
        // It stays so for later sessions, and the job goes on.
        let again = crashed.reopened(subject);
        assert_eq!(again.committed(&places[0]), expected, "{what}: a later session sees something else");
        tick += 1;
        let mut writer = crashed.fence(0, 0);
        let writes = places.each_ref().map(|at| write(at, &records(&format!("{tick} "), 2), tick, crashed.end(at)));
        crashed.commit(&mut writer, writes.to_vec());
        expected.extend(records(&format!("{tick} "), 2));
        committed = tick;
        for at in &places {
            assert_eq!(crashed.committed(at), expected, "{what}: the job cannot go on");
        }
        steps += 1;
    }
    assert!(steps >= 2, "the subject crashes before and after the commit at the least");
}
