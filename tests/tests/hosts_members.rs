//! Copies join and leave while records flow, and are replaced by copies of another version one after the other.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use fluvial_tests::client::Isolation;
use fluvial_tests::group::{GROUP_MOST, Group, Kafka, Record, Siege, Store};
use fluvial_tests::hosts::Place;
use fluvial_tests::subject::Subject;

/// The number of workers of the newest attempt.
fn workers(group: &Group) -> u32 {
    let record = group.record().unwrap();
    record.places.iter().map(|(_, processes)| processes * record.threads).sum()
}

#[test]
fn copies_join_and_leave_while_records_flow_and_the_job_starts_again_with_other_counts() {
    let group = Group::new(5, Subject::Orders, &Kafka::Embedded, Store::Folder).unwrap();
    group.start(0, "").unwrap();
    // The input begins once the job runs, and flows through all that follows.
    let siege = Siege::feed(&group, Subject::Orders, 3).unwrap();
    group.wait_until_on(&[0]).unwrap();
    // Two within a second are one change.
    let before = group.record().unwrap().attempt.unwrap();
    group.start(1, "").unwrap();
    group.start(2, "").unwrap();
    group.wait_until_on(&[0, 1, 2]).unwrap();
    assert_eq!(workers(&group), 6);
    assert_eq!(group.record().unwrap().attempt, Some(before + 1), "{}", group.logs());
    let left = group.copy(1).unwrap().terminate(GROUP_MOST).unwrap();
    assert_eq!(left.code, Some(0), "{}", left.said);
    group.wait_until_on(&[0, 2]).unwrap();
    for host in [1, 3, 4] {
        group.start(host, "").unwrap();
    }
    group.wait_until_on(&[0, 1, 2, 3, 4]).unwrap();
    assert_eq!(workers(&group), 10);
    let status = group.status(Place::Host(3)).unwrap();
    assert_eq!(status["members"].as_array().unwrap().len(), 5, "{status}");
    // Four leave together, the coordinator among them or not.
    let stays = (group.coordinator().unwrap() + 1) % 5;
    let leave: Vec<_> = group.hosts().filter(|host| *host != stays).map(|host| group.copy(host).unwrap()).collect();
    for copy in &leave {
        copy.process().signal(rustix::process::Signal::TERM).unwrap();
    }
    group.wait_until_on(&[stays]).unwrap();
    for copy in leave {
        let left = copy.finish(GROUP_MOST).unwrap();
        assert_eq!(left.code, Some(0), "{}", left.said);
    }
    group.stop_all().unwrap();
    // All have ended; the job begins again on other hosts, with a fixed number of workers and a copy that stands by.
    for host in group.hosts().filter(|host| *host != stays).take(3) {
        group.start(host, "--workers 4").unwrap();
    }
    group
        .wait_until("two hosts of three", || Ok(group.record().is_some_and(|r| !r.ended && r.places.len() == 2)))
        .unwrap();
    group.wait_for_more("with other counts").unwrap();
    assert_eq!(workers(&group), 4);
    let report = siege.finish().unwrap();
    assert!(report.is_clean(), "{report}");
}

/// A group of three whose job is the one with faults on request. It has written the rows of some input.
fn running() -> Group {
    let faulty = env!("CARGO_BIN_EXE_faulty");
    let group = Group::with(3, Subject::Orders, &Kafka::Embedded, Store::Folder, |stage| stage.with_program(faulty));
    let group = group.unwrap();
    group.start_all("").unwrap();
    feed(&group, 0);
    wait_for_rows(&group, 1);
    group
}

/// Writes a hundred orders more.
fn feed(group: &Group, number: u64) {
    group.stage().feed(number * 100..(number + 1) * 100).unwrap();
}

/// The output is the orders' revenues, so many times.
fn wait_for_rows(group: &Group, times: i64) {
    let input = group.stage().input();
    let mut expected = BTreeMap::new();
    for record in group.stage().endpoint().read(&input, Isolation::Committed).unwrap() {
        let key = String::from_utf8(record.key.unwrap()).unwrap();
        match record.value {
            Some(order) => {
                let order: serde_json::Value = serde_json::from_slice(&order).unwrap();
                let revenue = order["quantity"].as_i64().unwrap() * order["price_cents"].as_i64().unwrap();
                expected.insert(format!("\"{key}\""), (times * revenue).to_string())
            }
            None => expected.remove(&format!("\"{key}\"")),
        };
    }
    let rows =
        || group.stage().table().unwrap().into_iter().map(|((_, key), row)| (key, row)).collect::<BTreeMap<_, _>>();
    group.wait_until("the rows of all orders", || Ok(rows() == expected)).unwrap();
}

/// Ends a copy as a rollout does, and starts it again with other options.
fn replace(group: &Group, host: u8, options: &str) {
    let left = group.copy(host).unwrap().terminate(GROUP_MOST).unwrap();
    assert_eq!(left.code, Some(0), "{}", left.said);
    group.start(host, options).unwrap();
}

fn wait_until_all_work(group: &Group) {
    group.wait_until("attempt on all hosts", || Ok(group.working() == [0, 1, 2])).unwrap();
}

fn version(group: &Group) -> String {
    group.record().unwrap().version.unwrap()
}

/// Waits until a copy has said why it is not ready.
fn wait_until_unready(group: &Group, host: u8) {
    group.copy(host).unwrap().process().wait_for_line("this copy could not run the job now", GROUP_MOST).unwrap();
}

/// Waits until a version runs on these hosts, and has written the rows of the input that comes then.
fn wait_until_runs(group: &Group, what: &str, hosts: &[u8], number: u64, times: i64, is: impl Fn(&str) -> bool) {
    let runs = || Ok(group.working() == hosts && is(&version(group)));
    group.wait_until(&format!("attempt of {what} on {hosts:?}"), runs).unwrap();
    feed(group, number);
    wait_for_rows(group, times);
}

#[test]
fn a_rolling_update_flips_the_version_once_and_its_undo_flips_it_back() {
    let group = running();
    let old = version(&group);
    // The first copy of the new version waits for a majority. When there is one, that is refused: nobody has approved of its
    // output. The job goes on as it was.
    replace(&group, 0, "--logic doubled");
    wait_until_runs(&group, "the old version", &[1, 2], 1, 1, |version| version == old);
    replace(&group, 1, "--logic doubled");
    group.wait_until("refusal", || Ok(group.records().iter().any(|record| is_other(record, &old)))).unwrap();
    wait_until_runs(&group, "the old version", &[2], 2, 1, |version| version == old);
    // The coordinator says why.
    let log = |host| std::fs::read_to_string(group.copy(host).unwrap().process().log()).unwrap();
    let logs: String = group.hosts().map(log).collect();
    let (_, hash) = logs.split_once("`run --upgrade ").expect(&logs);
    let hash: String = hash.chars().take_while(char::is_ascii_hexdigit).collect();
    // Approved, it flips once two of three have it, and not before.
    let new = format!("--logic doubled --upgrade {hash}");
    let before = group.records().len() - 1;
    replace(&group, 0, &new);
    replace(&group, 1, &new);
    wait_until_runs(&group, "the new version", &[0, 1], 3, 2, |version| version != old);
    replace(&group, 2, &new);
    wait_until_runs(&group, "the new version", &[0, 1, 2], 4, 2, |version| version != old);
    // The undo needs approval, too: the old logic computes other output than what stands there.
    for host in group.hosts() {
        replace(&group, host, &format!("--upgrade {old}"));
    }
    wait_until_runs(&group, "the old version", &[0, 1, 2], 5, 1, |version| version == old);
    let mut versions: Vec<_> = group.records()[before..].iter().filter_map(|record| record.version.clone()).collect();
    versions.dedup();
    assert_eq!(versions.len(), 3, "the group ran {versions:?}");
    group.stop_all().unwrap();
}

fn is_other(record: &Record, old: &str) -> bool {
    record.version.as_deref().is_some_and(|version| version != old)
}

#[test]
fn an_update_that_cannot_run_leaves_the_job_to_the_old_version() {
    let group = running();
    let old = version(&group);
    // Its state does not match: `check` finds it.
    replace(&group, 0, "--wrong retyped");
    wait_until_unready(&group, 0);
    // It crashes at the next order that comes to nothing, which no check can know.
    replace(&group, 0, "");
    wait_until_all_work(&group);
    for host in [0, 1] {
        replace(&group, host, "--wrong panics");
    }
    group.wait_until("another version", || Ok(version(&group) != old)).unwrap();
    let order = r#"{"quantity":0,"price_cents":7}"#;
    let input = group.stage().input();
    let writer = group.stage().endpoint().writer(&[]).unwrap();
    writer.write(&[fluvial_tests::client::Message::text(&input, 0, "nothing", order)]).unwrap();
    group.wait_until("the old version", || Ok(version(&group) == old)).unwrap();
    wait_for_rows(&group, 1);
    // An undo in the middle: the copies of the failed version are replaced by those of the old one.
    for host in [0, 1] {
        group.copy(host).unwrap().job().kill_all().unwrap();
        group.start(host, "").unwrap();
    }
    wait_until_all_work(&group);
    feed(&group, 1);
    wait_for_rows(&group, 1);
    group.stop_all().unwrap();
}
