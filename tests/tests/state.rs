//! What a job keeps: listed by `state`, open to anyone's DuckDB, merged, and pruned.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fluvial_tests::campaign::Subject;
use fluvial_tests::client::Message;
use fluvial_tests::stage::Stage;
use fluvial_tests::workspace;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);
const DUCKDB: &str = "2.0.0";

fn store_args(stage: &Stage) -> Vec<OsString> {
    vec!["--store".into(), stage.store().into(), "--name".into(), stage.name().into()]
}

/// The newest checkpoint, as `state --json` lists it.
fn newest_checkpoint(stage: &Stage) -> Value {
    let listed = stage.ask_with("state", store_args(stage), "--json").unwrap();
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    listed.into_iter().next_back().expect("there is a checkpoint")
}

fn files(operator: &Value) -> Vec<PathBuf> {
    let files = operator["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap());
    files.map(|file| PathBuf::from(file.strip_prefix("file://").unwrap_or(file))).collect()
}

/// What DuckDB answers: rows as JSON arrays, a line each.
fn duckdb(query: &str) -> Vec<Value> {
    let folder = workspace::made_once(&format!("duckdb-{DUCKDB}"), |folder| {
        let run = |command: &mut Command| {
            let output = command.output()?;
            anyhow::ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
        run(pip.arg(format!("duckdb=={DUCKDB}")))
    });
    let script = "import duckdb, json, sys\nfor row in duckdb.sql(sys.argv[1]).fetchall(): print(json.dumps(row))";
    let output = Command::new(folder.unwrap().join("bin/python")).args(["-c", script, query]).output().unwrap();
    assert!(output.status.success(), "{query}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn list(files: &[PathBuf]) -> String {
    let quoted: Vec<_> = files.iter().map(|file| format!("'{}'", file.display())).collect();
    format!("[{}]", quoted.join(", "))
}

/// They made the folder of a mistyped store, and found nothing in it.
#[test]
fn only_a_run_makes_a_store() {
    let stage = Stage::new(Subject::Orders, 1).unwrap();
    let store = stage.store();
    for (command, args) in [("state", store_args(&stage)), ("replay", stage.common_args())] {
        let refused = format!("{:#}", stage.ask_with(command, args, "").unwrap_err());
        for part in
            ["exit status: 2", "error: cannot open the store", store.to_str().unwrap(), "only `run` creates one"]
        {
            assert!(refused.contains(part), "no {part} in {refused}");
        }
        assert!(!store.exists(), "{command} has made {}", store.display());
    }
}

#[test]
fn state_lists_what_is_kept_and_duckdb_opens_it() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    stage.feed(0..500).unwrap();
    stage.complete("--workers 3 --stop-at-end").unwrap();
    let checkpoint = newest_checkpoint(&stage);
    let operators = checkpoint["operators"].as_array().unwrap();
    assert_eq!(operators.len(), 1, "{checkpoint}");
    let orders = &operators[0];
    assert_eq!(orders["name"], "orders");
    let runs = files(orders);
    let bytes: u64 = runs.iter().map(|run| std::fs::metadata(run).unwrap().len()).sum();
    assert_eq!(orders["bytes"].as_u64(), Some(bytes), "{checkpoint}");
    assert!(Path::new(checkpoint["manifest"].as_str().unwrap().trim_start_matches("file://")).exists());
    // The same for people.
    let table = stage.ask_with("state", store_args(&stage), "").unwrap();
    for part in ["orders", &bytes.to_string(), runs[0].file_name().unwrap().to_str().unwrap()] {
        assert!(table.contains(part), "no {part} in\n{table}");
    }
    // The user's own fields, and all of them: the state gives the output.
    let query = format!(
        "select value.region, value.product, count(*), sum(value.revenue_cents)::bigint from read_parquet({}) \
         where not deleted group by all order by all",
        list(&runs)
    );
    let expected: Vec<Value> =
        stage.table().unwrap().into_values().map(|row| serde_json::from_str(&row).unwrap()).collect();
    let mut expected: Vec<Value> = expected
        .iter()
        .map(|row| serde_json::json!([row["region"], row["product"], row["orders"], row["revenue_cents"]]))
        .collect();
    expected.sort_by_key(Value::to_string);
    assert_eq!(duckdb(&query), expected);
    assert!(!expected.is_empty());
}

#[test]
fn bank_state_is_listed_by_operator() {
    let stage = Stage::new(Subject::Bank, 2).unwrap();
    stage.feed(0..100).unwrap();
    stage.complete("--stop-at-end").unwrap();
    let checkpoint = newest_checkpoint(&stage);
    let operators = checkpoint["operators"].as_array().unwrap();
    let mut names: Vec<_> = operators.iter().map(|operator| operator["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["credits", "debits"]);
    let credits = operators.iter().find(|operator| operator["name"] == "credits").unwrap();
    let rows = duckdb(&format!("select count(*) from read_parquet({})", list(&files(credits))));
    assert_eq!(rows[0][0], credits["rows"]);
    assert_eq!(credits["live_keys"], credits["rows"], "one run has no key twice, and none was deleted");
}

#[test]
fn state_of_a_job_that_is_not_there_says_so() {
    let stage = Stage::new(Subject::Bank, 1).unwrap();
    std::fs::create_dir_all(stage.store()).unwrap();
    let error = stage.ask_with("state", store_args(&stage), "").unwrap_err().to_string();
    assert!(error.contains("--store") && error.contains(stage.name()), "{error}");
}

/// Runs the bank through many checkpoints, each of which has something new.
fn through_many_checkpoints(stage: &Stage, options: &str, checkpoints: usize) {
    let job = stage.start(&format!("{options} --checkpoint-every 100ms")).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let mut fed = 0;
    stage
        .wait_until(&job, "so many checkpoints", || {
            stage.feed(fed..fed + 5)?;
            fed += 5;
            let folder = stage.store().join(stage.name()).join("checkpoints");
            let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
            // While a file is written, its name has a suffix after a '#'.
            seen.extend(names.filter(|name| !name.to_string_lossy().contains('#')));
            Ok(seen.len() >= checkpoints)
        })
        .unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    assert_eq!(job.terminate(SOON).unwrap().code, Some(0));
}

fn journal_records(stage: &Stage) -> usize {
    std::fs::read_dir(stage.store().join(stage.name()).join("journal")).unwrap().count()
}

#[test]
fn runs_are_merged_and_the_journal_is_pruned_behind_checkpoints() {
    let stage = Stage::new(Subject::Bank, 2).unwrap();
    through_many_checkpoints(&stage, "--workers 2", 40);
    let checkpoint = newest_checkpoint(&stage);
    for operator in checkpoint["operators"].as_array().unwrap() {
        let runs = files(operator).len();
        assert!(runs <= 24, "{runs} of 80 runs of {} are left after 40 checkpoints by two workers", operator["name"]);
        let missing: Vec<_> = files(operator).into_iter().filter(|run| !run.exists()).collect();
        assert!(missing.is_empty(), "the newest checkpoint names what is not there: {missing:?}");
    }
    let pruned = journal_records(&stage);
    assert!(pruned < 20, "{pruned} records of the journal are left after 40 checkpoints");
    // What is left is enough.
    stage.feed(100_000..100_020).unwrap();
    stage.complete("--workers 3 --stop-at-end").unwrap();
    assert_eq!(stage.table().unwrap(), stage.table_of_input().unwrap());
}

#[test]
fn a_kept_journal_is_whole() {
    let stage = Stage::new(Subject::Bank, 2).unwrap();
    through_many_checkpoints(&stage, "--keep-journal --tick-header", 10);
    assert!(journal_records(&stage) > 10);
    let completed = stage.journal().unwrap().checkpoints;
    assert!(completed >= 10, "{completed} checkpoints");
    stage.check().unwrap();
}

/// In the obvious query (`where not deleted`) 48 of 96 groups were wrong as soon as there were several runs.
#[test]
fn the_query_that_state_prints_gives_exactly_the_live_rows() {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    let order = |id: u64, product: &str, cents: u64| {
        format!(
            r#"{{"order_id":{id},"customer":"c","region":"eu","product":"{product}","quantity":1,"price_cents":{cents},"at":0}}"#
        )
    };
    let input = stage.input();
    let mut expected = std::collections::BTreeMap::new();
    let mut write = |id: u64, row: Option<(&str, u64)>| {
        let (key, value) = (id.to_string(), row.map(|(product, cents)| order(id, product, cents)));
        let message = Message { value: value.as_deref().map(str::as_bytes), ..Message::text(&input, 0, &key, "") };
        stage.endpoint().writer(&[]).unwrap().write(&[message]).unwrap();
        match row {
            Some((product, cents)) => expected.insert(id, serde_json::json!([id.to_string(), product, cents])),
            None => expected.remove(&id),
        };
    };
    // Each run of the job leaves a run of state or more: new rows, rows that change, rows that go and come again.
    for round in 0..7u64 {
        for id in 0..12 {
            match (id + round) % 4 {
                0 => write(id, None),
                1 => write(id, Some(("pen", 10 * round + id))),
                2 if round % 2 == 0 => write(id, Some(("mug", id))),
                _ => {}
            }
        }
        stage.complete("--workers 2 --stop-at-end").unwrap();
    }
    let check = |expected: Vec<&Value>| {
        let orders = newest_checkpoint(&stage)["operators"][0].clone();
        let query = stage.ask_with("state", store_args(&stage), "--sql orders").unwrap();
        assert_eq!(duckdb(&query).len(), expected.len(), "as it is printed");
        let columns = "select key, value.product, value.revenue_cents from";
        let rows = duckdb(&format!("{columns} ({}) order by key::bigint", query.trim_end().trim_end_matches(';')));
        assert_eq!(rows.iter().collect::<Vec<_>>(), expected);
        assert_eq!(orders["live_keys"], rows.len());
        assert!(orders["rows"].as_u64().unwrap() > rows.len() as u64, "no run had a key again: {orders}");
        files(&orders).len()
    };
    let runs = check(expected.values().collect());
    assert!(runs >= 7, "{runs}");
    // Merged while the job runs, and changed again.
    let job = stage.start("--workers 2 --checkpoint-every 100ms").unwrap();
    let mut cents = 1_000;
    stage
        .wait_until(&job, "merged runs", || {
            cents += 1;
            let message = order(1, "pen", cents);
            stage.endpoint().writer(&[])?.write(&[Message::text(&input, 0, "1", &message)])?;
            expected.insert(1, serde_json::json!(["1", "pen", cents]));
            Ok(files(&newest_checkpoint(&stage)["operators"][0]).len() < runs)
        })
        .unwrap();
    stage.wait_until_caught_up(&job).unwrap();
    assert_eq!(job.terminate(SOON).unwrap().code, Some(0));
    check(expected.values().collect());
    let unknown = format!("{:#}", stage.ask_with("state", store_args(&stage), "--sql revenue").unwrap_err());
    assert!(unknown.contains("no durable operator 'revenue'; it has: orders"), "{unknown}");
}
