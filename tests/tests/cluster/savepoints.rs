//! Savepoints and upgrades: a job goes on with another program, and back.

use std::ffi::OsString;

use fluvial_tests::job::{binary, build_again};
use fluvial_tests::stage::Stage;
use fluvial_tests::subject::Subject;
use serde_json::Value;

use crate::logs::poison;
use crate::nodes::Cluster;

/// The savepoints of a job, by name.
pub(crate) fn savepoints(cluster: &Cluster, job: &str) -> Vec<String> {
    let listed: Value = serde_json::from_str(&cluster.tell(&format!("savepoints {job} --json"))).unwrap();
    listed.as_array().unwrap().iter().map(|savepoint| savepoint["name"].as_str().unwrap().to_owned()).collect()
}

/// Waits until a job runs in a generation after this one.
pub(crate) fn wait_for_generation_after(cluster: &Cluster, job: &str, generation: u64) {
    cluster.wait_until("a later generation", || {
        let status = cluster.status(job);
        status["state"] == "running" && status["attempt"]["generation"].as_u64() > Some(generation)
    });
}

/// A cluster with a job that has read its input, and the job's name.
pub(crate) fn of_orders() -> (Cluster, Stage, String) {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    stage.feed(0..200).unwrap();
    let (succeeded, said) = cluster.submit(&stage, 1, &binary("orders").unwrap());
    assert!(succeeded, "{said}\n{}", cluster.logs());
    cluster.wait_until_right(&stage);
    let name = stage.name().to_owned();
    (cluster, stage, name)
}

pub(crate) fn generation(cluster: &Cluster, job: &str) -> u64 {
    cluster.status(job)["attempt"]["generation"].as_u64().unwrap()
}

#[test]
fn a_job_goes_back_to_a_savepoint_and_its_outputs_are_corrected() {
    let (cluster, stage, name) = of_orders();
    cluster.wait_until("a checkpoint", || cluster.ask(["savepoint", &name, "--name", "first"]).0);
    let (succeeded, said) = cluster.ask(["savepoint", &name, "--name", "first"]);
    assert!(!succeeded && said.contains("already"), "{said}");
    let (succeeded, said) = cluster.ask(["savepoint", &name, "--name", "../first"]);
    assert!(!succeeded && said.contains("a savepoint's name"), "{said}");
    stage.feed(200..400).unwrap();
    cluster.wait_until_right(&stage);
    cluster.tell(&format!("stop {name}"));
    // The outputs have moved on: the job is not run unless they may be corrected, and nothing of them is changed.
    let before = stage.table().unwrap();
    let (succeeded, said) = cluster.ask(["start", &name, "--from", "first"]);
    assert!(!succeeded && said.contains("--correct-outputs"), "{said}\n{}", cluster.logs());
    assert_eq!(stage.table().unwrap(), before);
    let (succeeded, said) = cluster.ask(["start", &name, "--from", "no-such"]);
    assert!(!succeeded && said.contains("no savepoint 'no-such'"), "{said}");
    cluster.tell(&format!("start {name} --from first --correct-outputs"));
    cluster.wait_until_right(&stage);
    stage.feed(400..600).unwrap();
    cluster.wait_until_right(&stage);
    // It goes back once: a restart goes on from where it is.
    let generation_before = generation(&cluster, &name);
    cluster.tell(&format!("restart {name}"));
    wait_for_generation_after(&cluster, &name, generation_before);
    stage.feed(600..800).unwrap();
    cluster.wait_until_right(&stage);
    let log = cluster.tell(&format!("logs {name}"));
    assert_eq!(log.matches("the job goes back to the savepoint").count(), 1, "{log}");
    cluster.tell(&format!("savepoints {name} --drop first"));
    // That from before it went back stays.
    let left = savepoints(&cluster, &name);
    assert!(left.len() == 1 && left[0].starts_with("before-"), "{left:?}");
}

#[test]
fn an_upgrade_is_planned_and_a_rollback_brings_back_what_ran_before() {
    let cluster = Cluster::start(1);
    let faulty = binary("faulty").unwrap();
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let name = stage.name().to_owned();
    stage.feed(0..200).unwrap();
    let logic = |logic: &str| -> Vec<OsString> {
        let mut args: Vec<OsString> = crate::nodes::own_args(&stage);
        args.extend(["--logic", logic].map(OsString::from));
        args
    };
    let mut submit: Vec<OsString> = vec!["submit".into(), faulty.clone().into(), "--name".into(), name.clone().into()];
    submit.push("--".into());
    submit.extend(logic("revenue"));
    let (succeeded, said) = cluster.ask(submit);
    assert!(succeeded, "{said}\n{}", cluster.logs());
    let committed = || cluster.status(&name)["progress"]["lag_records"] == 0;
    cluster.wait_until("the input is read", committed);
    let revenue = stage.table().unwrap();
    let upgrade = |extra: &[&str], to: &str| {
        let mut args: Vec<OsString> = vec!["upgrade".into(), name.clone().into(), faulty.clone().into()];
        args.extend(extra.iter().map(OsString::from));
        args.push("--".into());
        args.extend(logic(to));
        cluster.ask(args)
    };
    let (succeeded, said) = upgrade(&[], "doubled");
    assert!(!succeeded && said.contains("--yes") && said.contains("goes on"), "{said}");
    assert_eq!(stage.table().unwrap(), revenue);
    let generation_before = generation(&cluster, &name);
    let (succeeded, said) = upgrade(&["--yes"], "doubled");
    assert!(succeeded && said.contains("rollback"), "{said}");
    wait_for_generation_after(&cluster, &name, generation_before);
    cluster.wait_until("the doubled output", || stage.table().unwrap() != revenue && committed());
    let doubled = stage.table().unwrap();
    assert_eq!(savepoints(&cluster, &name).len(), 1);
    let generation_before = generation(&cluster, &name);
    cluster.tell(&format!("rollback {name} --yes"));
    wait_for_generation_after(&cluster, &name, generation_before);
    cluster.wait_until("the output from before", || stage.table().unwrap() == revenue);
    assert_ne!(doubled, revenue);
    let (succeeded, said) = cluster.ask(["rollback", &name, "--yes"]);
    assert!(!succeeded && said.contains("was not upgraded"), "{said}");
}

/// The job whose program is replaced by one that fails comes back, whatever that one has begun.
#[test]
fn a_job_comes_back_from_a_program_that_fails_at_once() {
    let (cluster, stage) = (Cluster::start(1), Stage::new(Subject::Orders, 2).unwrap());
    let (name, faulty) = (stage.name().to_owned(), binary("faulty").unwrap());
    let with = |command: &[&str], options: &[&str]| {
        let mut args: Vec<OsString> = command.iter().map(OsString::from).collect();
        args.push("--".into());
        args.extend(crate::nodes::own_args(&stage));
        args.extend(options.iter().map(OsString::from));
        cluster.ask(args)
    };
    stage.feed(0..200).unwrap();
    let program = faulty.to_str().unwrap();
    let (succeeded, said) = with(&["submit", program, "--name", &name], &[]);
    assert!(succeeded, "{said}\n{}", cluster.logs());
    cluster.wait_until("the input is read", || cluster.status(&name)["progress"]["lag_records"] == 0);
    cluster.tell(&format!("stop {name}"));
    let before = stage.table().unwrap();
    poison(&stage);
    let (succeeded, said) = with(&["upgrade", &name, program, "--yes"], &["--logic", "doubled", "--wrong", "panics"]);
    assert!(succeeded, "{said}");
    // It may run for a moment.
    let _ = cluster.ask(["start", &name]);
    cluster.wait_until("the end of the job", || cluster.status(&name)["state"] == "failed");
    cluster.tell(&format!("rollback {name} --yes"));
    // What the other program has written, if it has, is corrected; only the last order has a new row.
    let differ = || {
        let after = stage.table().unwrap();
        let same = after.len() >= before.len() && before.keys().all(|key| after.contains_key(key));
        same.then(|| after.iter().filter(|(key, row)| before.get(*key) != Some(*row)).count())
    };
    cluster.wait_until("the rows of the old program", || {
        let status = cluster.status(&name);
        let has_read = status["state"] == "running" && status["progress"]["lag_records"] == 0;
        has_read && differ() == Some(1)
    });
}

#[test]
fn a_build_that_computes_the_same_needs_no_approval() {
    let (cluster, stage, name) = of_orders();
    let generation_before = generation(&cluster, &name);
    let again = cluster.path("built-again");
    build_again(&binary("orders").unwrap(), &again).unwrap();
    cluster.tell(&format!("upgrade {name} {} --yes --same-output", again.display()));
    wait_for_generation_after(&cluster, &name, generation_before);
    stage.feed(200..400).unwrap();
    cluster.wait_until_right(&stage);
}
