//! Upgrades to programs that fail before they have read input: the job returns by itself to what ran before.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};

use fluvial_tests::job::binary;
use fluvial_tests::stage::Stage;
use fluvial_tests::subject::Subject;

use crate::nodes::{Cluster, own_args};
use crate::savepoints::{generation, savepoints, wait_for_generation_after};

/// A job of which other versions have faults.
struct Faulty {
    cluster: Cluster,
    stage: Stage,
    name: String,
}

impl Faulty {
    /// One that has read its input.
    fn start() -> Self {
        Self::on(Cluster::without_key(1))
    }

    fn on(cluster: Cluster) -> Self {
        let stage = Stage::new(Subject::Orders, 2).unwrap();
        let name = stage.name().to_owned();
        let faulty = Self { cluster, stage, name };
        faulty.stage.feed(0..200).unwrap();
        let program = binary("faulty").unwrap();
        let (succeeded, said) = faulty.with(&["submit", program.to_str().unwrap(), "--name", &faulty.name], &[]);
        assert!(succeeded, "{said}\n{}", faulty.cluster.logs());
        faulty.wait_until_all_is_read();
        faulty
    }

    /// Runs a command that gives the job these options besides its own.
    fn with(&self, command: &[&str], options: &[&str]) -> (bool, String) {
        let mut args: Vec<OsString> = command.iter().map(OsString::from).collect();
        args.push("--".into());
        args.extend(own_args(&self.stage));
        args.extend(options.iter().map(OsString::from));
        self.cluster.ask(args)
    }

    fn upgrade(&self, options: &[&str]) -> (bool, String) {
        let program = binary("faulty").unwrap();
        self.with(&["upgrade", &self.name, program.to_str().unwrap(), "--yes"], options)
    }

    /// Changes the job by the API itself. Returns the status and the answer.
    fn patch(&self, update: &str) -> (u16, String) {
        let (api, name) = (self.cluster.api(), &self.name);
        let mut connection = std::net::TcpStream::connect(&api).unwrap();
        let length = update.len();
        write!(
            connection,
            "PATCH /v1/jobs/{name} HTTP/1.0\r\nHost: {api}\r\nfluvial-client: 1\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{update}"
        )
        .unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
    }

    fn wait_until_all_is_read(&self) {
        self.cluster.wait_until("the input is read", || {
            let status = self.cluster.status(&self.name);
            status["state"] == "running" && status["progress"]["lag_records"] == 0
        });
    }

    /// Waits until the job has returned and runs. Returns what its status says of that.
    fn wait_until_it_has_returned(&self) -> String {
        let status = || self.cluster.status(&self.name);
        self.cluster.wait_until("the job has returned", || {
            let status = status();
            status["state"] == "running" && !status["returned"].is_null()
        });
        let status = status();
        assert_eq!(
            status["why"].as_str().unwrap().split("; revision 2 has failed").next(),
            status["returned"]["why"].as_str()
        );
        status["why"].as_str().unwrap().to_owned()
    }

    /// Checks that the output is that of a job of the old program which nobody has disturbed.
    fn check_output(&self) {
        let undisturbed = format!("{}-undisturbed", self.name);
        let mut args: Vec<OsString> = vec!["submit".into(), binary("faulty").unwrap().into(), "--name".into()];
        args.extend([undisturbed.clone().into(), "--".into()]);
        let mut own = own_args(&self.stage);
        let output = own.iter().position(|arg| arg == "--output").unwrap() + 1;
        let topic = format!("{}-undisturbed", own[output].to_str().unwrap());
        own[output] = topic.clone().into();
        args.extend(own);
        let (succeeded, said) = self.cluster.ask(args);
        assert!(succeeded, "{said}\n{}", self.cluster.logs());
        let rows = |topic: &str| self.stage.table_of_topic(topic).unwrap();
        let disturbed = self.stage.outputs().remove(0);
        self.cluster.wait_until("the same output", || {
            let rows_of_undisturbed = rows(&topic);
            !rows_of_undisturbed.is_empty() && rows_of_undisturbed == rows(&disturbed)
        });
    }
}

/// The state is untouched, and so is the output.
#[test]
fn a_job_returns_from_a_program_that_aborts_at_once_and_does_not_try_it_again() {
    let faulty = Faulty::start();
    let (cluster, name) = (&faulty.cluster, &faulty.name);
    let before = faulty.stage.table().unwrap();
    let (succeeded, said) = faulty.upgrade(&["--logic", "doubled", "--wrong", "aborts-at-start"]);
    assert!(succeeded, "{said}");
    let why = faulty.wait_until_it_has_returned();
    assert!(why.contains("signal: 6") && why.contains("failed 3 times in a row"), "{why}");
    assert!(cluster.tell("jobs").contains("signal: 6"));
    assert!(cluster.logs().contains("the job has returned to the program before it"), "{}", cluster.logs());
    let attempt = || cluster.status(name)["attempt"]["number"].as_u64().unwrap();
    let of_return = attempt();
    faulty.stage.feed(200..400).unwrap();
    faulty.wait_until_all_is_read();
    let after = faulty.stage.table().unwrap();
    assert_ne!(after, before);
    faulty.check_output();
    assert_eq!(attempt(), of_return, "something else was tried");
    let log = cluster.tell(&format!("logs {name}"));
    assert!(!log.contains("goes back to the savepoint"), "{log}");
    // It can be upgraded to a program that is right.
    let generation_before = generation(cluster, name);
    let (succeeded, said) = faulty.upgrade(&["--logic", "doubled"]);
    assert!(succeeded, "{said}");
    wait_for_generation_after(cluster, name, generation_before);
    assert!(cluster.status(name)["returned"].is_null());
}

#[test]
fn a_job_returns_from_a_program_that_hangs_at_its_start() {
    let cluster = Cluster::without_key(1);
    cluster.kill(0);
    cluster.start_node_with(0, &["--trial", "8s"]);
    let faulty = Faulty::on(cluster);
    let (succeeded, said) = faulty.upgrade(&["--wrong", "hangs-at-start"]);
    assert!(succeeded, "{said}");
    let why = faulty.wait_until_it_has_returned();
    assert!(why.contains("it had not begun to read input within 8 s"), "{why}");
    faulty.stage.feed(200..400).unwrap();
    faulty.wait_until_all_is_read();
    faulty.check_output();
}

/// Nothing of it is kept: neither the change nor the savepoint that was taken for it.
#[test]
fn a_program_that_does_not_match_the_state_is_refused_and_the_job_goes_on() {
    let faulty = Faulty::start();
    let (cluster, name) = (&faulty.cluster, &faulty.name);
    cluster.wait_until("a checkpoint", || cluster.ask(["savepoint", name, "--name", "mine"]).0);
    let generation_before = generation(cluster, name);
    let (succeeded, said) = faulty.upgrade(&["--wrong", "renamed"]);
    assert!(!succeeded && said.contains("goes on as it is") && said.contains("durable operator"), "{said}");
    // A binary that was never uploaded is only refused after the savepoint was taken.
    let unknown = r#"{"binary":"0000000000000000000000000000000000000000000000000000000000000000"}"#;
    let (status, said) = faulty.patch(unknown);
    assert!(status == 400 && said.contains("upload it first"), "{status} {said}");
    assert_eq!((savepoints(cluster, name), generation(cluster, name)), (vec!["mine".to_owned()], generation_before));
    assert_eq!(cluster.status(name)["wanted"]["revision"], 1);
}

/// It takes the old program again, and reads nothing again.
#[test]
fn a_rollback_of_an_upgrade_that_has_read_nothing_goes_back_to_no_savepoint() {
    let faulty = Faulty::start();
    let (cluster, name) = (&faulty.cluster, &faulty.name);
    cluster.tell(&format!("stop {name}"));
    let (succeeded, said) = faulty.upgrade(&["--logic", "doubled"]);
    assert!(succeeded, "{said}");
    assert_eq!(savepoints(cluster, name).len(), 1);
    cluster.tell(&format!("rollback {name} --yes"));
    assert_eq!(savepoints(cluster, name).len(), 1, "no way forward again is needed");
    faulty.stage.feed(200..400).unwrap();
    cluster.tell(&format!("start {name}"));
    faulty.wait_until_all_is_read();
    faulty.check_output();
    let log = cluster.tell(&format!("logs {name}"));
    assert!(!log.contains("goes back to the savepoint"), "{log}");
}

/// The savepoint to which it was to go back is gone: it was there when that was asked for.
#[test]
fn a_job_whose_savepoint_is_gone_goes_on_from_where_it_is() {
    let faulty = Faulty::start();
    let (cluster, name) = (&faulty.cluster, &faulty.name);
    cluster.wait_until("a checkpoint", || cluster.ask(["savepoint", name, "--name", "first"]).0);
    faulty.stage.feed(200..400).unwrap();
    faulty.wait_until_all_is_read();
    cluster.tell(&format!("stop {name}"));
    let update = r#"{"from":"first","correct_outputs":true}"#;
    let (status, said) = faulty.patch(update);
    assert_eq!(status, 200, "{said}");
    let (succeeded, said) = cluster.ask(["savepoints", name, "--drop", "first"]);
    assert!(!succeeded && said.contains("still to go back to the savepoint 'first'"), "{said}");
    // Somebody deletes its object.
    std::fs::remove_file(cluster.path("store").join(name).join("savepoints/first.json")).unwrap();
    let _ = cluster.ask(["start", name]);
    let why = faulty.wait_until_it_has_returned();
    assert!(why.contains("no savepoint 'first'"), "{why}");
    faulty.wait_until_all_is_read();
    faulty.check_output();
}
