//! Kill tests: the bank, struck by every kind of fault on real Kafka, and orders, by every one but `kill -9` of the broker,
//! say what an undisturbed replay says.
//!
//! The plans are those of fixed seeds, which are printed; `cargo run --release -p fluvial-tests --bin campaign` goes on for
//! as long as it is told.
#![allow(clippy::unwrap_used)]

use fluvial_tests::apache::{SURVIVES_A_KILL, VERSION};
use fluvial_tests::campaign::{Ground, Plan, Siege, Subject};

const ROUNDS: usize = 3;

fn survives(subject: Subject, seed: u64, version: &str) {
    println!("seed {seed}");
    let ground = Ground::new(version).unwrap();
    let plan = ground.fit(Plan::new(seed, ROUNDS));
    let report = match Siege::new(&ground, subject, plan).and_then(|siege| siege.run()) {
        Ok(report) => report,
        Err(error) => panic!("{error:#}"),
    };
    println!("{report}");
    assert!(report.is_clean(), "seed {seed}: {report}");
}

#[test]
fn orders_say_what_an_undisturbed_replay_says() {
    survives(Subject::Orders, 1, VERSION);
}

#[test]
fn the_bank_says_what_an_undisturbed_replay_says() {
    survives(Subject::Bank, 2, SURVIVES_A_KILL);
}
