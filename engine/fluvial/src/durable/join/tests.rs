//! The join of two streams against naive recomputation, with the origins of its records.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use fluvial_connector::Offset;
use fluvial_protocol::journal::SplitNumber;
use proptest::prelude::*;

use crate::durable::tests::{changes, play, scripts};
use crate::harness::Dataflow;
use crate::stream::Origin;

/// The side, and the records of it that one input record holds: keys and values.
type Fed = (bool, Vec<(u8, u8)>);
type Pair = (u8, (u8, u8));
type Out = (Pair, Origin);

/// A record of one side, with its origin.
type Record = (Origin, u8, u8);

/// The pairs of each record with `partners`, in the order of the records and then of the partners' values.
fn pairs(records: &[Record], partners: &[Record], branch: u32, is_left: bool) -> Vec<Out> {
    let mut numbers: BTreeMap<(SplitNumber, Offset), u32> = BTreeMap::new();
    let mut made = Vec::new();
    for (origin, key, value) in records {
        let mut others: Vec<u8> =
            partners.iter().filter(|partner| partner.1 == *key).map(|partner| partner.2).collect();
        others.sort_unstable();
        for other in others {
            let next = numbers.entry((origin.split, origin.offset)).or_default();
            let pair = if is_left { (*value, other) } else { (other, *value) };
            made.push(((*key, pair), Origin { index: branch << 24 | *next, ..*origin }));
            *next += 1;
        }
    }
    made
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn each_pair_is_made_once_in_the_tick_of_its_later_half(
        script in scripts((any::<bool>(), proptest::collection::vec((0u8..3, 0u8..4), 0..3))),
    ) {
        let test = play(&script, Dataflow::new(script.workers, |scope| {
            let input = scope.input::<Fed>("in");
            let single = input.clone().filter(|fed| !fed.1.is_empty()).map(|(is_left, list)| (is_left, list[0]));
            let [left, right] = [true, false].map(|side| single.clone().filter(move |fed| fed.0 == side).map(|fed| fed.1));
            scope.output("single", left.join("single-pairs", right).with_origins().keep_all("single"));
            let [left, right] = [true, false].map(|side| input.clone().filter(move |fed| fed.0 == side).flat_map(|fed| fed.1));
            scope.output("several", left.clone().join("several-pairs", right).with_origins().keep_all("several"));
            scope.output("with itself", left.clone().join("with-itself", left).with_origins().keep_all("itself"));
        }));
        // Left and right, of what only the first record counts and of what all do: those of earlier ticks.
        let mut before = [(); 4].map(|()| Vec::<Record>::new());
        let mut fed = 0u64;
        let mut said = [(); 3].map(|()| Vec::<Out>::new());
        let mut tables = [(); 3].map(|()| Vec::new());
        for tick in &script.ticks {
            let mut ordered: Vec<(Origin, &Fed)> = tick.iter().map(|record| {
                fed += 1;
                (Origin::read(SplitNumber((fed - 1) as u32 % 4), Offset((fed - 1) / 4)), record)
            }).collect();
            ordered.sort();
            let mut now = [(); 4].map(|()| Vec::<Record>::new());
            for (origin, (is_left, list)) in ordered {
                let side = usize::from(!is_left);
                now[side].extend(list.first().map(|(key, value)| (origin, *key, *value)));
                let all = (0..).zip(list).map(|(index, (key, value))| (Origin { index, ..origin }, *key, *value));
                now[2 + side].extend(all);
            }
            let all: Vec<Vec<Record>> = before.iter().zip(&now).map(|(before, now)| [&before[..], now].concat()).collect();
            for (output, left, right) in [(0, 0, 1), (1, 2, 3), (2, 2, 2)] {
                said[output].extend(pairs(&now[left], &all[right], 0, true));
                said[output].extend(pairs(&now[right], &before[left], 1, false));
                said[output].sort_unstable();
                tables[output].push(said[output].clone());
            }
            before = all.try_into().unwrap();
        }
        for (output, tables) in ["single", "several", "with itself"].into_iter().zip(tables) {
            prop_assert_eq!(test.updates::<Out>(output), changes(tables.into_iter()), "{}", output);
        }
    }
}

#[test]
fn pairs_are_not_emitted_again_after_a_restart_and_kept_records_still_find_partners() {
    let mut test = Dataflow::new(3, |scope| {
        let left = scope.input::<(u8, String)>("left");
        let right = scope.input::<(u8, u32)>("right");
        scope.output("out", left.join("pairs", right).keep_all("out"));
    });
    test.feed("left", 1, [(1u8, "a".to_owned())]);
    test.feed("right", 1, [(1u8, 10u32), (2, 20)]);
    test.advance_past(1);
    for workers in [1, 2] {
        test.restart(workers);
    }
    test.feed("left", 2, [(2u8, "b".to_owned())]);
    test.feed("right", 3, [(1u8, 11u32)]);
    test.advance_past(3);
    let pair = |key: u8, left: &str, right: u32| (key, (left.to_owned(), right));
    assert_eq!(test.table::<(u8, (String, u32))>("out"), [pair(1, "a", 10), pair(1, "a", 11), pair(2, "b", 20)]);
}

#[test]
fn both_sides_are_kept_under_names_of_their_own() {
    let mut test = Dataflow::new(1, |scope| {
        let input = scope.input::<(u8, u8)>("in");
        let other = input.clone().keep_all("pairs.left");
        scope.output("other", other);
        scope.output("out", input.clone().join("pairs", input).keep_all("out"));
    });
    let error = test.try_advance_past(1).unwrap_err();
    assert!(error.contains("two durable operators are named 'pairs.left'"), "{error}");
}
