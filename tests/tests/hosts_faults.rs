//! Three hosts run a job over a real Kafka while processes, copies and hosts are killed, stopped and isolated. The group goes
//! on by itself after each blow, and the output is what an undisturbed replay gives.
//!
//! The blows are in a fixed order here; `campaign --hosts 3` mixes them for as long as it is told, for one minute here.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use fluvial_tests::group::{Blow, Group, Kafka, Role, Siege, Store, campaign};
use fluvial_tests::subject::Subject;

use Blow::{
    BadLinks, CutFromBroker, CutFromStore, CutOneWay, CutOthers, CutPair, CutPower, Isolate, KillAll, KillCopy,
    KillProcess, Leave, StopCopy, StopHost, StopProcess, StoreAway, StoreAwayForAMinute,
};
use Role::{Coordinator, Other};

fn survives(subject: Subject, store: Store, blows: &[Blow]) {
    let group = Group::new(3, subject, &Kafka::Apache, store).unwrap();
    let mut siege = Siege::start(&group, subject, 1, "").unwrap();
    for blow in blows {
        if let Err(error) = siege.strike(*blow) {
            panic!("{error:#}");
        }
    }
    let report = siege.finish().unwrap();
    println!("{report}");
    assert!(report.is_clean(), "{report}");
}

#[test]
fn orders_survive_deaths_and_cuts() {
    survives(
        Subject::Orders,
        Store::Bucket,
        &[
            KillProcess(Other),
            CutPower(Coordinator),
            CutFromStore(Coordinator),
            StoreAway,
            StoreAwayForAMinute,
            KillCopy(Coordinator),
        ],
    );
}

#[test]
fn the_bank_survives_stops_and_isolation() {
    survives(
        Subject::Bank,
        Store::Folder,
        &[
            CutFromBroker(Other),
            StopProcess(Other),
            StopCopy(Other),
            Isolate(Other),
            StopHost(Coordinator),
            CutOneWay,
            CutOthers,
            BadLinks,
            Leave(Coordinator),
            CutPair,
            KillCopy(Other),
            KillAll,
            CutPower(Other),
        ],
    );
}

#[test]
fn a_minute_of_random_blows_changes_nothing() {
    assert!(campaign(3, 2, Duration::from_secs(60)));
}
