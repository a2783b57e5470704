//! Copies join and leave while records flow, are replaced by copies of another version one after the other, and end with the
//! job.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use fluvial_tests::client::{Isolation, Message};
use fluvial_tests::group::{GROUP_MOST, Group, Kafka, Record, Siege, Store};
use fluvial_tests::hosts::Place;
use fluvial_tests::job::build_again;
use fluvial_tests::stage::Stage;
use fluvial_tests::subject::Subject;
use serde_json::Value;

/// The number of workers of the newest attempt.
fn workers(group: &Group) -> u32 {
    let record = group.record().unwrap();
    record.places.iter().map(|(_, processes)| processes * record.threads).sum()
}

/// The addresses of the nodes that run the processes of the newest attempt, in the order of the processes.
fn nodes_of_processes(record: &Record) -> Vec<&str> {
    let places = record.places.iter();
    places.flat_map(|(node, processes)| std::iter::repeat_n(node.as_str(), *processes as usize)).collect()
}

/// Waits until `status`, asked from a host, says how far the job is, and checks that it says of the group what the group's newest
/// record does.
fn check_status(group: &Group, from: u8) {
    let mut status = Value::Null;
    group
        .wait_until("status with the lag and the last checkpoint", || {
            status = group.status(Place::Host(from))?;
            let progress = &status["progress"];
            Ok(status["state"] == "running" && progress["lag_records"].is_u64() && progress["checkpoint"].is_u64())
        })
        .unwrap();
    let record = group.record().unwrap();
    assert_eq!(status["coordinator"], record.coordinator, "{status}");
    assert_eq!(status["term"], record.term, "{status}");
    assert_eq!(status["attempt"]["number"], record.attempt.unwrap(), "{status}");
    assert!(status["progress"]["checkpoint_age_ms"].is_u64(), "{status}");
    let processes = status["attempt"]["processes"].as_array().unwrap();
    let nodes: Vec<_> = processes.iter().map(|process| process["node"].as_str().unwrap()).collect();
    assert_eq!(nodes, nodes_of_processes(&record), "{status}");
    assert!(processes.iter().all(|process| process["state"] == "listens"), "{status}");
    let members = status["members"].as_array().unwrap();
    let addresses: BTreeSet<_> = members.iter().map(|member| member["node"].as_str().unwrap().to_owned()).collect();
    let expected: BTreeSet<_> = group.hosts().map(|host| group.port(host).to_string()).collect();
    assert_eq!((members.len(), &addresses), (expected.len(), &expected), "{status}");
    for member in members {
        assert_eq!(member["state"], "ready", "{status}");
        assert_eq!(member["coordinates"], member["node"] == record.coordinator, "{status}");
        for process in member["processes"].as_array().unwrap() {
            assert_eq!(member["node"], nodes[process.as_u64().unwrap() as usize], "{status}");
        }
    }
}

#[test]
fn copies_join_and_leave_while_records_flow_and_the_job_starts_again_with_other_counts() {
    let group = Group::new(5, Subject::Orders, &Kafka::Apache, Store::Folder).unwrap();
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
    // All processes of an attempt are of the same size, so a copy with twice the slots runs two of them.
    for (host, options) in [(1, ""), (3, ""), (4, "--slots 4")] {
        group.start(host, options).unwrap();
    }
    group.wait_until_on(&[0, 1, 2, 3, 4]).unwrap();
    assert_eq!(workers(&group), 12);
    let record = group.record().unwrap();
    for (address, processes) in &record.places {
        let expected = if group.host_at(address) == Some(4) { 2 } else { 1 };
        assert_eq!(*processes, expected, "{record:?}");
    }
    check_status(&group, 3);
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
    // The first join was a move at a checkpoint, and the last copy has taken one.
    let journal = group.stage().journal().unwrap();
    assert!(journal.begin_at_checkpoint.first() == Some(&true) && journal.is_checkpointed(), "{journal:?}");
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

/// How each copy has ended: its exit code, and the reason that it gives.
fn ends(group: &Group) -> Vec<(Option<i32>, Option<String>)> {
    let end = |host| {
        let ended = group.copy(host).unwrap().finish(GROUP_MOST).unwrap();
        let reason = ended.said.lines().find(|line| line.starts_with("error:"));
        (ended.code, reason.map(str::to_owned))
    };
    group.hosts().map(end).collect()
}

#[test]
fn copies_end_with_the_job() {
    let group = Group::new(3, Subject::Orders, &Kafka::Apache, Store::Folder).unwrap();
    let stage = group.stage();
    stage.feed(0..300).unwrap();
    let table = stage.table_of_input().unwrap();
    let ends_well = |options: &str| {
        group.start_all(options).unwrap();
        assert_eq!(ends(&group), vec![(Some(0), None::<String>); 3], "{}", group.logs());
        assert_eq!(stage.table().unwrap(), table);
    };
    ends_well("--stop-at-end");
    // A record that cannot be decoded ends the job for good.
    let input = stage.input();
    let (_, offset) = stage.endpoint().watermarks(&input, 1, Isolation::Committed).unwrap();
    let bad = Message::text(&input, 1, "bad", "no JSON");
    stage.endpoint().writer(&[]).unwrap().write(&[bad]).unwrap();
    let named = format!("offset {offset} of kafka topic '{input}' partition 1");
    for _ in 0..2 {
        let before = group.record().unwrap().attempt;
        group.start_all("").unwrap();
        let ended = ends(&group);
        assert_eq!(ended[0].0, Some(1), "{}", group.logs());
        assert!(ended[0].1.as_ref().is_some_and(|reason| reason.contains(&named)), "{ended:?}");
        assert!(ended.iter().all(|end| *end == ended[0]), "{ended:?}");
        let after = group.record().unwrap();
        assert!(after.ended && after.attempt > before, "after attempt {before:?}: {after:?}");
    }
    ends_well("--stop-at-end --on-malformed skip");
}

/// A group of three whose job is the one with faults on request. It has written the rows of some input.
fn running() -> Group {
    let group = Group::with(3, Subject::Orders, &Kafka::Apache, Store::Folder, |stage| {
        let program = deployed(&stage);
        std::fs::copy(env!("CARGO_BIN_EXE_faulty"), &program).unwrap();
        stage.with_program(program)
    });
    let group = group.unwrap();
    group.start_all("").unwrap();
    feed(&group, 0);
    wait_for_rows(&group, 1);
    group
}

/// The file that the copies are started from.
fn deployed(stage: &Stage) -> PathBuf {
    stage.folder().join("deployed")
}

/// Replaces that file by another build of the same program, as an installer does.
fn deploy_again(stage: &Stage) {
    let (program, new) = (deployed(stage), stage.folder().join("new"));
    build_again(&program, &new).unwrap();
    std::fs::rename(new, program).unwrap();
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
    // A copy that is replaced leaves and joins, each of which is one attempt at most.
    let check_attempts = |since: usize, replaced: usize| {
        let records = group.records();
        let attempts = attempts_after_the_first(&records[since..]);
        assert!(
            attempts <= 2 * replaced,
            "{attempts} attempts for {replaced} replaced copies: {:?}",
            &records[since..]
        );
    };
    let newest = || group.records().len() - 1;
    wait_until_all_work(&group);
    let first = newest();
    // The first copy of the new version waits for a majority. When there is one, that is refused: nobody has approved of its
    // output. The job goes on as it was.
    replace(&group, 0, "--logic doubled");
    wait_until_runs(&group, "the old version", &[1, 2], 1, 1, |version| version == old);
    check_attempts(first, 1);
    replace(&group, 1, "--logic doubled");
    group.wait_until("refusal", || Ok(group.records().iter().any(|record| is_other(record, &old)))).unwrap();
    wait_until_runs(&group, "the old version", &[2], 2, 1, |version| version == old);
    // The attempt that was refused is one of them.
    check_attempts(first, 2);
    // The coordinator says why.
    let log = |host| std::fs::read_to_string(group.copy(host).unwrap().process().log()).unwrap();
    let logs: String = group.hosts().map(log).collect();
    let (_, hash) = logs.split_once("`run --upgrade ").expect(&logs);
    let hash: String = hash.chars().take_while(char::is_ascii_hexdigit).collect();
    // Approved, it flips once two of three have it, and not before.
    let new = format!("--logic doubled --upgrade {hash}");
    let before = newest();
    replace(&group, 0, &new);
    replace(&group, 1, &new);
    wait_until_runs(&group, "the new version", &[0, 1], 3, 2, |version| version != old);
    replace(&group, 2, &new);
    wait_until_runs(&group, "the new version", &[0, 1, 2], 4, 2, |version| version != old);
    check_attempts(before, 3);
    let undo = newest();
    // The undo needs approval, too: the old logic computes other output than what stands there.
    for host in group.hosts() {
        replace(&group, host, &format!("--upgrade {old}"));
    }
    wait_until_runs(&group, "the old version", &[0, 1, 2], 5, 1, |version| version == old);
    check_attempts(undo, 3);
    // The same logic built again needs nobody's approval. The copies that were started from the file before it was replaced
    // run its old content, in attempts that begin later, too.
    deploy_again(group.stage());
    let built_again = newest();
    replace(&group, 0, "");
    wait_until_runs(&group, "the old build", &[1, 2], 6, 1, |version| version == old);
    replace(&group, 1, "");
    wait_until_runs(&group, "the new build", &[0, 1], 7, 1, |version| version != old);
    replace(&group, 2, "");
    wait_until_runs(&group, "the new build", &[0, 1, 2], 8, 1, |version| version != old);
    check_attempts(built_again, 3);
    let mut versions: Vec<_> = group.records()[before..].iter().filter_map(|record| record.version.clone()).collect();
    versions.dedup();
    assert_eq!(versions.len(), 4, "the group ran {versions:?}");
    group.stop_all().unwrap();
}

/// How often the version or the nodes of an attempt have changed after the first of these records. A process that is lost on the
/// way is followed by an attempt that is the same.
fn attempts_after_the_first(records: &[Record]) -> usize {
    let mut attempts: Vec<_> = records.iter().map(|record| (&record.version, &record.places)).collect();
    attempts.dedup();
    attempts.len() - 1
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
    // The old version goes on beside it, and no attempt has the new one.
    wait_until_runs(&group, "the old version", &[1, 2], 1, 1, |version| version == old);
    assert!(!group.records().iter().any(|record| is_other(record, &old)), "{:?}", group.records());
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
    writer.write(&[Message::text(&input, 0, "nothing", order)]).unwrap();
    group.wait_until("the old version", || Ok(version(&group) == old)).unwrap();
    wait_for_rows(&group, 1);
    // An undo in the middle: the copies of the failed version are replaced by those of the old one.
    for host in [0, 1] {
        group.copy(host).unwrap().job().kill_all().unwrap();
        group.start(host, "").unwrap();
    }
    wait_until_all_work(&group);
    feed(&group, 2);
    wait_for_rows(&group, 1);
    group.stop_all().unwrap();
}
