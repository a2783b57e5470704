//! Outputs, sinks and sessions.

use super::{Job, context_of, just_records, records, write};
use crate::conformance::{Outcome, SinkSubject, names};
use crate::{Offset, SinkContext, SinkStatus, Waits};

/// For any number of partitions, and for keys of any bytes.
pub fn every_key_has_its_partition<S: SinkSubject>(subject: &mut S) {
    for (output, again) in subject.outputs().iter().zip(subject.outputs()) {
        let (spec, again) = (output.spec(), again.spec());
        assert_eq!(spec.name, again.name, "an output keeps its name");
        for partitions in [1, 2, 3, 12, 1000] {
            for n in 0..500u32 {
                let key = n.to_be_bytes();
                let key = &key[(n as usize % 5).min(4)..];
                let partition = (spec.partition_of)(key, partitions);
                assert!(partition < partitions, "key {key:?} has partition {partition} of {partitions}");
                assert_eq!(partition, (again.partition_of)(key, partitions), "key {key:?} changed its partition");
            }
        }
    }
}

/// Of both outputs, and of each value.
pub fn sinks_of_one_system_have_one_identity<S: SinkSubject>(subject: &mut S) {
    let first = subject.outputs()[0].sink().identity();
    assert!(!first.is_empty(), "a sink has an identity");
    for output in subject.outputs() {
        assert_eq!(output.sink().identity(), first, "two sinks of one system have different identities");
    }
}

/// What a job finds that starts for the first time.
pub fn connecting_creates_what_is_missing<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let status = job.session.status().expect("the sink tells its status");
    let outputs: Vec<_> = status.outputs.keys().cloned().collect();
    let mut expected = job.outputs.clone();
    expected.sort();
    assert_eq!(outputs, expected, "the status has the outputs that were connected to");
    assert!(!status.progress_name.is_empty(), "the place where progress is kept has a name");
    assert!(job.progress().is_empty(), "a job that has not committed has progress");
    for at in &job.places {
        let read = job.session.read_committed(at, Offset(0), &mut |record| panic!("{record:?} was not written"));
        assert_eq!(read.expect("an empty output can be read"), job.end(at), "of an empty output");
    }
    assert_eq!(job.session.status().expect("the sink tells its status"), status, "nothing changed");
    let again = Job::of(subject).session.status().expect("the sink tells its status");
    assert_eq!(again, status, "connecting again changed what exists");
}

/// Before a job starts for the first time, and after it.
pub fn looking_creates_nothing<S: SinkSubject>(subject: &mut S) {
    let look = |subject: &mut S| {
        let outputs = subject.outputs();
        let specs: Vec<_> = outputs.iter().map(|output| output.spec()).collect();
        let session = outputs[0].sink().look(&subject.context(), &specs).expect("the sink can be looked at");
        session.status().expect("the sink tells its status")
    };
    let before = look(subject);
    assert_eq!(look(subject), before, "a look has changed what exists");
    let status = Job::of(subject).session.status().expect("the sink tells its status");
    let partitions = |status: &SinkStatus| -> Vec<_> {
        status.outputs.iter().map(|(name, output)| (name.clone(), output.partitions)).collect()
    };
    assert_eq!(partitions(&before), partitions(&status), "a look does not say what is created");
    assert_eq!(before.progress_name, status.progress_name);
    assert_eq!(look(subject), status, "a look does not say what exists");
}

/// A session of new values sees the records, the progress, the ends and the identities, while the first still lives and
/// after it is gone. The job goes on from there.
pub fn a_reopened_sink_has_everything_that_was_committed<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let (at, other, all) = (job.at(0), job.at(1), records("k", 5));
    let status = job.session.status().expect("the sink tells its status");
    let mut writer = job.fence(0, 0);
    let ends =
        job.commit(&mut writer, vec![write(&at, &all, 3, job.end(&at)), write(&other, &all[..2], 3, job.end(&other))]);
    let seen = |job: &Job| (job.read(&at, Offset(0)), job.read(&other, Offset(0)), job.progress(), job.end(&at));
    let before = seen(&job);
    let beside = job.reopened(subject);
    assert_eq!(seen(&beside), before, "a second session sees something else");
    drop((writer, beside));
    let incarnation = job.incarnation;
    drop(job);
    let job = Job { incarnation, ..Job::of(subject) };
    assert_eq!(seen(&job), before, "a session that came later sees something else");
    assert_eq!(job.session.status().expect("the sink tells its status"), status, "reopening changed what exists");
    assert_eq!(just_records(before.0), all);
    let mut writer = job.fence(0, 0);
    assert!(ends[0] <= job.end(&at), "the end is before that of a committed transaction");
    job.commit(&mut writer, vec![write(&at, &records("next", 1), 4, job.end(&at))]);
    assert_eq!(job.committed(&at), [all, records("next", 1)].concat(), "a job goes on after it was reopened");
}

/// Two jobs that write the same outputs have their own progress each.
pub fn jobs_do_not_share_progress<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let other = Job::with(subject, &context_of(subject, "-other", 0));
    let (first, second) = (job.at(0), job.at(1));
    let mut writer = job.fence(0, 0);
    job.commit(&mut writer, vec![write(&first, &records("k", 2), 5, job.end(&first))]);
    assert!(other.progress().is_empty(), "a job that has not committed has the progress of another");
    let mut others = other.fence(0, 0);
    let writes = vec![
        write(&first, &records("o", 2), 8, other.end(&first)),
        write(&second, &records("o", 2), 8, other.end(&second)),
    ];
    other.commit(&mut others, writes);
    assert_eq!(other.tick(&first), Some(8), "a job does not have its own progress");
    assert_eq!(job.tick(&first), Some(5), "a job's progress was replaced by another's");
    assert_eq!(job.tick(&second), None, "a job has the progress of another");
    job.commit(&mut writer, vec![write(&first, &records("k", 2), 6, job.end(&first))]);
    assert_eq!((job.tick(&first), other.tick(&first)), (Some(6), Some(8)), "each job goes on with its own progress");
}

/// Whichever process of a job asks.
pub fn the_processes_of_a_job_share_its_progress<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let sibling = Job::with(subject, &context_of(subject, "", 1));
    let mut writer = job.fence(0, 0);
    job.commit(&mut writer, vec![write(&job.at(0), &records("k", 2), 5, job.end(&job.at(0)))]);
    assert_eq!(sibling.progress(), job.progress(), "another process of the job has another progress");
    let sibling = Job { incarnation: job.incarnation, ..sibling };
    let mut writer = sibling.fence(1, 0);
    sibling.commit(&mut writer, vec![write(&job.at(1), &records("k", 2), 5, job.end(&job.at(1)))]);
    assert_eq!(job.progress().len(), 2, "progress that another process committed is missing");
}

/// A wait that was noted ends with its call, or the engine would report it for ever.
pub fn a_call_that_returned_waits_for_nothing<S: SinkSubject>(subject: &mut S) {
    let waits = Waits::default();
    let job = Job::with(subject, &SinkContext { waits: waits.clone(), ..subject.context() });
    let nothing = |after: &str| assert_eq!(waits.now(), Vec::<String>::new(), "is still waited for after {after}");
    nothing("connect");
    let mut writer = job.fence(0, 0);
    nothing("fence");
    job.prepare(&mut writer, vec![write(&job.at(0), &records("k", 2), 1, job.end(&job.at(0)))]);
    nothing("prepare");
    writer.commit().expect("a prepared transaction can be committed");
    nothing("commit");
    job.progress();
    nothing("progress");
    job.committed(&job.at(0));
    nothing("read_committed");
}

/// What the engine knows a job by that reads what it writes. What is committed arrives there.
pub fn an_output_that_is_read_as_an_input_names_its_sink<S: SinkSubject>(subject: &mut S) -> Outcome {
    let job = Job::of(subject);
    let at = job.at(0);
    let Some(input) = subject.input(&at.output) else {
        return Outcome::Skipped("the subject cannot read its outputs as inputs");
    };
    let identity = subject.outputs()[0].sink().identity();
    assert_eq!(input.as_output(), Some((identity, at.output.clone())), "the sink's identity and the output's name");
    let mut writer = job.fence(0, 0);
    job.commit(&mut writer, vec![write(&at, &records("k", 2), 1, job.end(&at))]);
    let splits = input.splits(job.patience).expect("an output can be read as an input");
    let extent = |split: &crate::SplitStatus| Some((split.availability.earliest()?, split.availability.end()?));
    let filled = splits.iter().filter_map(extent).filter(|(earliest, end)| earliest < end);
    assert_eq!(filled.count(), 1, "one split has what was committed to one partition: {splits:?}");
    Outcome::Passed
}

/// Threads write to different places at once, and others ask meanwhile; nothing is lost.
pub fn several_threads_share_a_session<S: SinkSubject>(subject: &mut S) {
    let job = Job::of(subject);
    let rounds = 6u64;
    let begin = std::sync::Barrier::new(3);
    // Nothing may fail before the barrier, where the others would wait for ever.
    let writers = [0, 1].map(|number| (number, job.at(number as usize), job.fence(number, 0)));
    let ends = writers.each_ref().map(|(_, at, _)| job.end(at));
    std::thread::scope(|threads| {
        for ((number, at, mut writer), mut end) in writers.into_iter().zip(ends) {
            let (job, begin) = (&job, &begin);
            threads.spawn(move || {
                begin.wait();
                for tick in 1..=rounds {
                    let one = write(&at, &records(&format!("{tick} "), 3), tick, end);
                    end =
                        writer.prepare(&job.transaction(number, vec![one])).expect("a transaction can be prepared")[0];
                    writer.commit().expect("a prepared transaction can be committed");
                }
            });
        }
        let (job, begin) = (&job, &begin);
        threads.spawn(move || {
            begin.wait();
            for _ in 0..rounds {
                job.session.status().expect("the sink tells its status");
                job.progress();
                job.committed(&job.at(0));
            }
        });
    });
    for number in 0..2 {
        let expected: Vec<_> = (1..=rounds).flat_map(|tick| records(&format!("{tick} "), 3)).collect();
        assert!(job.committed(&job.at(number)) == expected, "what two threads wrote at once is not what was committed");
        assert_eq!(job.tick(&job.at(number)), Some(rounds), "progress that two threads committed at once");
    }
}

/// All else keeps its own.
pub fn an_output_that_is_recreated_has_another_identity<S: SinkSubject>(subject: &mut S) -> Outcome {
    let job = Job::of(subject);
    let before = job.session.status().expect("the sink tells its status");
    if !subject.recreate(&job.outputs[0]) {
        return Outcome::Skipped("the subject cannot recreate an output");
    }
    let after = job.session.status().expect("the sink tells its status");
    let identity = |status: &SinkStatus, output: usize| status.outputs[&job.outputs[output]].identity.clone();
    let told = identity(&before, 0).is_empty() || identity(&before, 0) != identity(&after, 0);
    assert!(told, "output '{}' has the identity '{}' before and after", job.outputs[0], identity(&before, 0));
    assert_eq!(identity(&before, 1), identity(&after, 1), "the output that was not recreated");
    assert_eq!(before.progress_identity, after.progress_identity, "the place where progress is kept");
    Outcome::Passed
}

/// As soon as they have progress for it. A job is not named to itself.
pub fn other_jobs_that_write_an_output_are_named<S: SinkSubject>(subject: &mut S) -> Outcome {
    let job = Job::of(subject);
    let copy = Job::with(subject, &context_of(subject, "-copy", 0));
    let writers = |job: &Job, number: usize| {
        job.session.writers(&job.at(number).output).expect("the sink tells what it knows of an output's writers")
    };
    let mut writer = job.fence(0, 0);
    job.commit(&mut writer, vec![write(&job.at(0), &records("k", 1), 5, job.end(&job.at(0)))]);
    let own = writers(&job, 0);
    assert!(own.is_empty(), "the job itself is named as another writer: {own:?}");
    let of_other = writers(&copy, 1);
    assert!(of_other.is_empty(), "an output that nobody writes has writers: {of_other:?}");
    let named = writers(&copy, 0);
    if named.is_empty() {
        return Outcome::Skipped("the sink does not tell which other jobs write an output");
    }
    let name = subject.context().process.job;
    assert!(named.len() == 1 && names(&named[0], &name), "job '{name}' alone writes the output: {named:?}");
    Outcome::Passed
}
