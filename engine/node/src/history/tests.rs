//! The tests of the last hour.
#![allow(clippy::unwrap_used)]

use fluvial_protocol::Exit;
use fluvial_protocol::group::AttemptNumber;
use fluvial_protocol::group::Outcome;

use super::*;
use crate::status::made_up::{JOB, id, progress, view};

/// Sends what one node has to tell to the other, as a message would.
fn carry(from: (&History, &NodeId), to: (&History, &NodeId)) -> bool {
    let Some(carried) = from.0.for_node(to.1) else { return false };
    let json = serde_json::to_string(&carried).unwrap();
    to.0.hear(from.1, serde_json::from_str(&json).unwrap());
    true
}

/// A node that runs process 0 of the job, and coordinates.
fn seen(lag: u64) -> View {
    let mut view = view();
    let progress = crate::status::Progress { lag_records: Some(lag), ..progress() };
    view.progress = BTreeMap::from([(JOB.to_owned(), progress)]);
    view
}

fn lags(history: &History, now_ms: u64) -> Vec<Option<u64>> {
    let samples = history.samples(now_ms).remove(JOB).unwrap_or_default();
    samples.iter().map(|(_, sample)| sample.lag_records).collect()
}

#[test]
fn an_hour_is_kept_of_what_is_fresh() {
    let history = History::default();
    for slot in 0..300 {
        history.look(slot * EVERY_MS, &seen(slot));
        history.look(slot * EVERY_MS + 1000, &seen(slot + 1000));
    }
    let now = 299 * EVERY_MS;
    let samples = history.samples(now).remove(JOB).unwrap();
    assert_eq!((samples.len(), samples[0].0, samples[239].0), (240, 60 * EVERY_MS, now));
    assert_eq!((samples[0].1.lag_records, samples[239].1.lag_records), (Some(60), Some(299)));
    let mut old = seen(0);
    old.progress.get_mut(JOB).unwrap().age_ms = FRESH_MS;
    history.look(300 * EVERY_MS, &old);
    assert_eq!(lags(&history, 300 * EVERY_MS).len(), 239, "what a process said long ago is no news");
}

#[test]
fn every_node_knows_the_same_however_messages_are_lost_and_a_new_node_is_told_all() {
    let (a, b, c) = (id("a"), id("b"), id("c"));
    let [of_a, of_b, of_c] = [(); 3].map(|()| History::default());
    for slot in 1..=10 {
        of_a.look(slot * EVERY_MS, &seen(slot));
        // Of what `a` tells only each third message arrives, and is thanked for.
        let lost = of_a.for_node(&b);
        assert!(slot % 3 == 1 || lost.is_some());
        if slot % 3 == 0 {
            assert!(carry((&of_a, &a), (&of_b, &b)));
            assert!(carry((&of_b, &b), (&of_a, &a)), "it is thanked for");
            assert!(!carry((&of_a, &a), (&of_b, &b)), "nothing is told twice");
        }
    }
    let now = 10 * EVERY_MS;
    assert!(carry((&of_a, &a), (&of_b, &b)));
    assert_eq!(lags(&of_b, now), lags(&of_a, now));
    // `a` is lost; a node that was started later learns what it knew.
    assert!(carry((&of_b, &b), (&of_c, &c)));
    assert_eq!(lags(&of_c, now), (1..=10).map(Some).collect::<Vec<_>>());
    assert_eq!(of_c.attempts(JOB), of_a.attempts(JOB));
    assert_eq!(of_c.attempts(JOB).len(), 1);
    // What `c` has learnt from `b` it does not tell `b` for ever.
    carry((&of_c, &c), (&of_b, &b));
    carry((&of_b, &b), (&of_c, &c));
    assert!(!carry((&of_c, &c), (&of_b, &b)) && !carry((&of_b, &b), (&of_c, &c)));
}

#[test]
fn an_attempt_ends_with_the_reason_of_the_next_or_with_the_run() {
    let (a, b) = (id("a"), id("b"));
    let [of_a, of_b] = [(); 2].map(|()| History::default());
    of_a.look(1000, &seen(0));
    let change = |view: &mut View, change: &dyn Fn(&mut fluvial_protocol::group::JobRecord)| {
        let mut record = (**view.record.as_ref().unwrap()).clone();
        change(record.jobs.get_mut(JOB).unwrap());
        view.record = Some(Arc::new(record));
    };
    let mut later = seen(0);
    change(&mut later, &|job| {
        let attempt = job.attempt.as_mut().unwrap();
        (attempt.number, attempt.why) = (AttemptNumber(9), "process 1 has ended: out of memory".to_owned());
    });
    of_a.look(5000, &later);
    // Another node coordinates, and learns of the earlier attempts after it has seen the newest one.
    change(&mut later, &|job| job.outcome = Some(Outcome { exit: Exit::Failed, why: "a bad record".to_owned() }));
    of_b.look(9000, &later);
    carry((&of_a, &a), (&of_b, &b));
    let attempts = of_b.attempts(JOB);
    let [newest, first] = &attempts[..] else { panic!("{attempts:?}") };
    assert_eq!((newest.number, newest.began_ms, newest.ended_ms), (9, 5000, Some(9000)));
    assert!(newest.ended.as_ref().is_some_and(|why| why.ends_with("a bad record")), "{newest:?}");
    assert_eq!((first.number, first.generation, first.began_ms, first.ended_ms), (7, Some(3), 1000, Some(5000)));
    assert_eq!(first.ended.as_deref(), Some("process 1 has ended: out of memory"));
    carry((&of_b, &b), (&of_a, &a));
    assert_eq!(of_a.attempts(JOB), attempts);
}

#[test]
fn a_whole_hour_of_many_jobs_goes_in_messages_of_bounded_size() {
    let (a, b) = (id("a"), id("b"));
    let [of_a, of_b] = [(); 2].map(|()| History::default());
    let mut view = seen(1);
    let progress = view.progress[JOB].clone();
    view.progress = (0..100).map(|job| (format!("{job:0>100}"), progress.clone())).collect();
    let mut record = (**view.record.as_ref().unwrap()).clone();
    let mut job = record.jobs[JOB].clone();
    job.attempt.as_mut().unwrap().why = "\u{1}".repeat(100_000);
    record.jobs = (0..100).map(|name| (format!("{name:0>100}"), job.clone())).collect();
    view.record = Some(Arc::new(record));
    (1..=100).for_each(|slot| of_a.look(slot * EVERY_MS, &view));
    let mut messages = 0;
    while let Some(carried) = of_a.for_node(&b) {
        assert!(serde_json::to_vec(&carried).unwrap().len() < 2 << 20);
        of_b.hear(&a, carried);
        carry((&of_b, &b), (&of_a, &a));
        messages += 1;
    }
    let now = 100 * EVERY_MS;
    assert!((3..20).contains(&messages), "{messages}");
    assert_eq!(of_b.attempts(&format!("{:0>100}", 7)), of_a.attempts(&format!("{:0>100}", 7)));
    assert_eq!(of_b.samples(now), of_a.samples(now));
    assert_eq!(of_b.samples(now).values().map(Vec::len).sum::<usize>(), 10_000);
}
