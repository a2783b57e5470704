//! A first kill test: orders and bank on real Kafka, killed at random moments, say what an undisturbed replay says.
//!
//! The plan is that of a fixed seed, which is printed; `FLUVIAL_SEED=n` runs the plan of another, `FLUVIAL_ROUNDS=n` a
//! longer one.
#![allow(clippy::unwrap_used)]

use fluvial_tests::apache::ApacheKafka;
use fluvial_tests::campaign::{Plan, Siege, Subject};
use fluvial_tests::client::Endpoint;

fn given(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().expect("a number"))
}

fn survives(subject: Subject) {
    let seed = given("FLUVIAL_SEED").unwrap_or(1);
    println!("FLUVIAL_SEED={seed}");
    let plan = Plan::new(seed, given("FLUVIAL_ROUNDS").unwrap_or(3) as usize);
    let broker = Endpoint::new(ApacheKafka::shared().bootstrap());
    let report = match Siege::new(&broker, subject, plan).and_then(|siege| siege.run()) {
        Ok(report) => report,
        Err(error) => panic!("{error:#}"),
    };
    println!("{report}");
    assert!(report.is_clean(), "seed {seed}: {report}");
}

#[test]
fn orders_say_what_an_undisturbed_replay_says() {
    survives(Subject::Orders);
}

#[test]
fn the_bank_says_what_an_undisturbed_replay_says() {
    survives(Subject::Bank);
}
