//! A newer writer replaces an older one.

use super::{Job, context_of, records, write};
use crate::CommitError;
use crate::conformance::{SinkSubject, in_time};

/// Neither its records nor its progress are ever seen, and the next transaction is not disturbed.
pub fn fencing_aborts_what_was_left_open<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let mut writer = job.fence(0, 0);
    job.prepare(&mut writer, vec![write(&at, &records("lost", 3), 5, job.end(&at))]);
    drop(writer);
    let mut writer = job.fence(0, 0);
    assert_eq!(job.committed(&at), [], "records of an aborted transaction are seen");
    assert!(job.progress().is_empty(), "the progress of an aborted transaction is seen");
    job.commit(&mut writer, vec![write(&at, &records("kept", 2), 6, job.end(&at))]);
    assert_eq!(job.committed(&at), records("kept", 2), "after an aborted transaction");
    assert_eq!(job.tick(&at), Some(6));
}

/// Whatever it had begun. What it tries leaves nothing behind, and the newer writer is not disturbed by it.
pub fn a_fenced_writer_can_neither_prepare_nor_commit<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let transaction = |name: &str, tick| job.transaction(0, vec![write(&at, &records(name, 3), tick, job.end(&at))]);
    let mut idle = job.fence(0, 0);
    let mut prepared = job.fence(0, 0);
    job.prepare(&mut prepared, transaction("zombie", 5).writes);
    let mut newest = job.fence(0, 0);
    must_be_fenced(idle.prepare(&transaction("zombie", 6)), "prepare of an older writer");
    newest.prepare(&transaction("new", 7)).expect("the newest writer can prepare");
    must_be_fenced(prepared.commit(), "commit of an older writer");
    newest.commit().expect("the newest writer can commit");
    assert_eq!(job.committed(&at), records("new", 3), "the records of the newest writer alone");
    assert_eq!(job.tick(&at), Some(7), "the progress of the newest writer");
}

/// The newer writer is one of another session, on another thread, as that of a process that replaces one which hangs.
pub fn fencing_reaches_other_sessions_and_threads<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let at = job.at(0);
    let (mut idle, mut prepared) = (job.fence(0, 0), job.fence(0, 1));
    job.prepare(&mut prepared, vec![write(&at, &records("zombie", 3), 5, job.end(&at))]);
    let successor = job.reopened(subject);
    let newer = in_time("fencing from another session", job.patience * 2, move || {
        let writers = [successor.fence(0, 0), successor.fence(0, 1)];
        (successor, writers)
    });
    let (successor, [mut first, _second]) = newer;
    must_be_fenced(
        idle.prepare(&job.transaction(0, vec![write(&at, &records("zombie", 3), 6, successor.end(&at))])),
        "prepare of a writer that another session has fenced",
    );
    must_be_fenced(
        std::thread::scope(|threads| threads.spawn(|| prepared.commit()).join().expect("commit does not panic")),
        "commit of a writer that another session has fenced, on another thread",
    );
    assert_eq!(successor.committed(&at), [], "records of a writer that was fenced");
    successor.commit(&mut first, vec![write(&at, &records("new", 2), 7, successor.end(&at))]);
    assert_eq!(job.committed(&at), records("new", 2), "the older session sees what the newer one committed");
    assert_eq!(job.tick(&at), Some(7));
}

/// Those of another turn, another slot and another job go on with what they have prepared.
pub fn fencing_leaves_other_writers_alone<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let stranger = Job::with(subject, &context_of(subject, "-other", 0));
    for (writer_of, slot, turn) in [(&job, 0, 1), (&job, 1, 0), (&stranger, 0, 0)] {
        let at = job.at(0);
        let mut writer = writer_of.fence(slot, turn);
        let some = write(&at, &records(&format!("{slot} {turn} "), 2), 5, writer_of.end(&at));
        writer.prepare(&writer_of.transaction(slot, vec![some])).expect("a transaction can be prepared");
        drop(job.fence(0, 0));
        let committed = writer.commit();
        assert!(committed.is_ok(), "fencing slot 0, turn 0 of a job disturbed another writer: {committed:?}");
    }
    assert_eq!(job.committed(&job.at(0)).len(), 6, "what the other writers committed");
}

fn must_be_fenced<T: std::fmt::Debug>(result: Result<T, CommitError>, what: &str) {
    assert!(matches!(result, Err(CommitError::Fenced(_))), "{what} must be fenced, and the result is {result:?}");
}
