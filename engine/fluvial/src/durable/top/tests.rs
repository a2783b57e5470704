//! The greatest records and rows of each key against naive recomputation, and the bug reports of other systems.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use crate::Table;
use crate::durable::tests::{changes, greatest_first, in_order, play, scripts};
use crate::harness::Dataflow;

/// A price, which is often that of others, and the rest of the record, which is often equal too.
type Bid = (i8, u8);

type Rows = Vec<(u8, Bid)>;
type Places = Vec<(u8, (u32, Bid))>;

/// The `n` greatest of each key, and the same with their places.
fn greatest(groups: &BTreeMap<u8, Vec<Bid>>, n: usize) -> (Rows, Places) {
    let mut rows = Vec::new();
    let mut places = Vec::new();
    for (key, bids) in groups {
        for (place, bid) in greatest_first(bids).into_iter().take(n).enumerate() {
            rows.push((*key, bid));
            places.push((*key, (place as u32 + 1, bid)));
        }
    }
    (rows, places)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_greatest_records_of_a_stream_are_what_naive_recomputation_says(
        script in scripts((0u8..3, (-3i8..3, 0u8..3))),
        n in 1usize..5,
    ) {
        let test = play(&script, Dataflow::new(script.workers, move |scope| {
            let bids = scope.input::<(u8, Bid)>("in");
            scope.output("ranked", bids.clone().ranked("ranked", n, |bid| bid.0));
            scope.output("top", bids.top("top", n, |bid| bid.0));
        }));
        let mut groups: BTreeMap<u8, Vec<Bid>> = BTreeMap::new();
        let (rows, places): (Vec<_>, Vec<_>) = in_order(&script).into_iter().map(|records| {
            records.into_iter().for_each(|(key, bid)| groups.entry(key).or_default().push(bid));
            greatest(&groups, n)
        }).unzip();
        prop_assert_eq!(test.updates::<(u8, Bid)>("top"), changes(rows.into_iter()));
        prop_assert_eq!(test.updates::<(u8, (u32, Bid))>("ranked"), changes(places.into_iter()));
    }

    #[test]
    fn the_greatest_rows_of_a_collection_are_what_naive_recomputation_says(
        script in scripts((0u8..10, proptest::option::of((0u8..3, (-3i8..3, 0u8..3))))),
        n in 1usize..5,
    ) {
        let test = play(&script, Dataflow::new(script.workers, move |scope| {
            let rows = scope.input::<(u8, Option<(u8, Bid)>)>("in").latest("rows");
            // Within a tick, a join emits intermediate rows and retracts them again.
            let bids = rows.clone().join(rows).map(|(_, (row, _))| row);
            scope.output("ranked", bids.clone().ranked("ranked", n, |bid| bid.0));
            scope.output("top", bids.top("top", n, |bid| bid.0));
        }));
        let mut known = BTreeMap::new();
        let (rows, places): (Vec<_>, Vec<_>) = in_order(&script).into_iter().map(|records| {
            for (row, bid) in records {
                match bid {
                    Some(bid) => known.insert(row, bid),
                    None => known.remove(&row),
                };
            }
            let mut groups: BTreeMap<u8, Vec<Bid>> = BTreeMap::new();
            known.values().for_each(|(group, bid)| groups.entry(*group).or_default().push(*bid));
            greatest(&groups, n)
        }).unzip();
        prop_assert_eq!(test.updates::<(u8, Bid)>("top"), changes(rows.into_iter()));
        prop_assert_eq!(test.updates::<(u8, (u32, Bid))>("ranked"), changes(places.into_iter()));
    }
}

/// In other systems rows that had been pushed out and then deleted came back, or the operator failed at the deletion.
#[test]
fn a_row_that_was_pushed_out_and_then_deleted_does_not_come_back() {
    for workers in [1, 3] {
        let mut test = Dataflow::new(workers, |scope| {
            let values = scope.input::<(u32, Option<u32>)>("in").latest("values").map(|(_, value)| ((), value));
            scope.output("top", values.clone().top("top", 2, |value| *value));
            scope.output("ranked", values.ranked("ranked", 2, |value| *value));
        });
        let steps: [(&[u32], &[u32], &[u32]); 4] =
            [(&[9, 8, 7], &[], &[9, 8]), (&[], &[8], &[9, 7]), (&[], &[7], &[9]), (&[6], &[], &[9, 6])];
        for (tick, (added, deleted, expected)) in (1..).zip(steps) {
            // Each value is its own key.
            let added = added.iter().map(|value| (*value, Some(*value)));
            let deleted = deleted.iter().map(|value| (*value, None));
            test.feed("in", tick, added.chain(deleted));
            test.advance_past(tick);
            let mut rows: Vec<((), u32)> = expected.iter().map(|value| ((), *value)).collect();
            let places: Vec<_> = (1..).zip(expected).map(|(place, value)| ((), (place, *value))).collect();
            rows.sort_unstable();
            assert_eq!(test.table::<((), u32)>("top"), rows);
            assert_eq!(test.table::<((), (u32, u32))>("ranked"), places);
        }
        (1..=4).for_each(|tick| test.restart_at(tick, 4 - workers));
    }
}

/// In another system a limit greater than the batch gave wrong rows.
#[test]
fn more_rows_are_asked_for_than_a_tick_has() {
    let mut test = Dataflow::new(1, |scope| {
        let values = scope.input::<((), u32)>("in");
        scope.output("collection", values.clone().keep_all("values").top("collection", 3, |value| *value));
        scope.output("ranked", values.clone().ranked("ranked", 3, |value| *value));
        scope.output("top", values.top("top", 3, |value| *value));
    });
    for (tick, value) in (1..).zip([1u32, 5, 3, 4]) {
        test.feed("in", tick, [((), value)]);
        test.advance_past(tick);
    }
    test.restart_at(2, 2);
    let rows = [((), 3), ((), 4), ((), 5)];
    assert_eq!(test.table::<((), u32)>("top"), rows);
    assert_eq!(test.table::<((), u32)>("collection"), rows);
    assert_eq!(test.table::<((), (u32, u32))>("ranked"), [((), (1, 5)), ((), (2, 4)), ((), (3, 3))]);
}

#[test]
fn a_record_that_is_not_one_of_the_greatest_changes_nothing() {
    let mut test = Dataflow::new(1, |scope| {
        let values = scope.input::<(u8, u32)>("in");
        scope.output("greatest", values.clone().top("greatest", 1, |value| *value));
        scope.output("ranked", values.clone().ranked("ranked", 2, |value| *value));
        scope.output("top", values.top("top", 2, |value| *value));
    });
    test.feed("in", 1, [(7u8, 5u32), (7, 9)]);
    test.feed("in", 2, [(7u8, 4u32), (7, 5)]);
    test.feed("in", 3, [(7u8, 6u32)]);
    test.advance_past(3);
    for output in ["greatest", "top"] {
        assert_eq!(test.updates_at::<(u8, u32)>(output, 2), [], "{output}");
    }
    assert_eq!(test.updates_at::<(u8, (u32, u32))>("ranked", 2), []);
    assert_eq!(test.updates_at::<(u8, u32)>("top", 3), [((7, 5), -1), ((7, 6), 1)]);
    assert_eq!(test.updates_at::<(u8, (u32, u32))>("ranked", 3), [((7, (2, 5)), -1), ((7, (2, 6)), 1)]);
}

#[test]
fn a_job_goes_over_from_top_to_ranked_and_keeps_its_records_but_not_to_another_number() {
    static READING: AtomicUsize = AtomicUsize::new(0);
    let mut test = Dataflow::new(2, |scope| {
        let values = scope.input::<(u8, u32)>("in");
        let top = match READING.load(Ordering::Relaxed) {
            0 => values.top("top", 2, |value| *value),
            1 => values.ranked("top", 2, |value| *value).map(|(key, (_, value))| (key, value)),
            _ => values.top("top", 3, |value| *value),
        };
        scope.output("out", top);
    });
    test.feed("in", 1, [(7u8, 5u32), (7, 9), (7, 4), (8, 1)]);
    test.feed("in", 2, [(7u8, 6u32)]);
    test.advance_past(2);
    READING.store(1, Ordering::Relaxed);
    test.restart_at(1, 1);
    READING.store(2, Ordering::Relaxed);
    let error = test.try_restart_at(1, 1).unwrap_err();
    assert!(error.contains("'top' is top 2 (") && error.contains("in the checkpoint and top 3 ("), "{error}");
}

#[test]
fn keeping_no_records_is_refused_by_the_operators_name() {
    let check = |of_collection: bool| {
        let mut test = Dataflow::new(1, move |scope| {
            let values = scope.input::<(u8, u32)>("in");
            let top = if of_collection {
                values.keep_all("values").top("best", 0, |value| *value)
            } else {
                values.top("best", 0, |value| *value)
            };
            scope.output("out", top);
        });
        let error = test.try_advance_past(1).unwrap_err();
        assert!(
            error.contains("operator 'best' keeps the 0 greatest records of each key: keep at least one"),
            "{error}"
        );
    };
    check(false);
    check(true);
}
