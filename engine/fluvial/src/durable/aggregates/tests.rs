//! Aggregates that are not sums, on streams and on collections, against naive recomputation: random records, batches, numbers
//! of workers, and restarts at any tick.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use fluvial_connector::format::Json;
use fluvial_memory::Memory;
use proptest::prelude::*;

use crate::durable::tests::{changes, greatest_first, in_order, play, scripts};
use crate::durable::{Aggregate, Float};
use crate::harness::{Dataflow, JobTest};
use crate::{Average, Collect, Count, CountDistinct, First, Last, Max, MaxBy, Min, MinBy, Sum, Table, Top, of};

/// A price, which is often that of others, and the rest of the record.
type Bid = (i8, Option<u8>);

fn bids() -> impl Strategy<Value = Bid> {
    (-3i8..3, proptest::option::of(0u8..3))
}

fn price(bid: &Bid) -> i8 {
    bid.0
}

fn has_more(bid: &Bid) -> bool {
    bid.1.is_some()
}

fn distinct<T: Ord>(values: impl Iterator<Item = T>) -> u64 {
    let mut values: Vec<T> = values.collect();
    values.sort();
    values.dedup();
    values.len() as u64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn aggregates_that_are_not_sums_are_what_naive_recomputation_says(script in scripts((0u8..3, bids()))) {
        type Out = (i8, Option<u8>, Bid, Bid, Bid, Option<u8>, Vec<i8>, u64, Vec<Bid>, u64, Option<i8>, Option<Float>);
        let test = play(&script, Dataflow::new(script.workers, |scope| {
            let bids = scope.input::<(u8, Bid)>("in");
            // As many as a tuple takes.
            let all = (
                Min(price),
                Max(|bid: &Bid| bid.1),
                MinBy(price),
                MaxBy(price),
                First(|bid: &Bid| *bid),
                Last(|bid: &Bid| bid.1),
                Collect(price),
                CountDistinct(|bid: &Bid| bid.1),
                Top::new(2, price),
                Count.when(has_more),
                Max(price).when(has_more),
                Average(price).when(has_more),
            );
            scope.output("out", bids.aggregate("bids", all));
        }));
        let mut groups: BTreeMap<u8, Vec<Bid>> = BTreeMap::new();
        let tables: Vec<Vec<(u8, Out)>> = in_order(&script).into_iter().map(|records| {
            records.into_iter().for_each(|(key, bid)| groups.entry(key).or_default().push(bid));
            groups.iter().map(|(key, bids)| {
                let mut prices: Vec<i8> = bids.iter().map(price).collect();
                prices.sort_unstable();
                let sorted = greatest_first(bids);
                let more: Vec<i8> = bids.iter().filter(|bid| has_more(bid)).map(price).collect();
                let sum: i64 = more.iter().copied().map(i64::from).sum();
                let average = (!more.is_empty()).then(|| Float::from(sum as f64 / more.len() as f64));
                (*key, (
                    prices[0],
                    bids.iter().map(|bid| bid.1).max().unwrap(),
                    *sorted.last().unwrap(),
                    sorted[0],
                    bids[0],
                    bids[bids.len() - 1].1,
                    prices,
                    distinct(bids.iter().map(|bid| bid.1)),
                    sorted.iter().copied().take(2).collect(),
                    more.len() as u64,
                    more.iter().copied().max(),
                    average,
                ))
            }).collect()
        }).collect();
        prop_assert_eq!(test.updates::<(u8, Out)>("out"), changes(tables.into_iter()));
    }

    #[test]
    fn aggregates_of_a_collection_that_are_not_sums_are_what_naive_recomputation_says(
        // A row is amended into another group, and goes, at the same tick or later.
        script in scripts((0u8..8, proptest::option::of((0u8..3, bids())))),
    ) {
        type Out = (i8, Option<u8>, Bid, Bid, Vec<i8>, u64, Vec<Bid>, u64, Option<i8>, i64);
        let test = play(&script, Dataflow::new(script.workers, |scope| {
            let rows = scope.input::<(u8, Option<(u8, Bid)>)>("in").latest("rows");
            // Within a tick, a join emits intermediate rows and retracts them again.
            let bids = rows.clone().join(rows).map(|(_, (row, _))| row);
            let all = (
                Min(price),
                Max(|bid: &Bid| bid.1),
                MinBy(price),
                MaxBy(price),
                Collect(price),
                CountDistinct(|bid: &Bid| bid.1),
                Top::new(2, price),
                Count.when(has_more),
                Max(price).when(has_more),
                Sum(price).when(has_more),
            );
            scope.output("out", bids.aggregate("bids", all));
        }));
        let mut rows = BTreeMap::new();
        let tables: Vec<Vec<(u8, Out)>> = in_order(&script).into_iter().map(|records| {
            for (row, bid) in records {
                match bid {
                    Some(bid) => rows.insert(row, bid),
                    None => rows.remove(&row),
                };
            }
            let mut groups: BTreeMap<u8, Vec<Bid>> = BTreeMap::new();
            rows.values().for_each(|(group, bid)| groups.entry(*group).or_default().push(*bid));
            groups.into_iter().map(|(group, bids)| {
                let mut prices: Vec<i8> = bids.iter().map(price).collect();
                prices.sort_unstable();
                let sorted = greatest_first(&bids);
                let more: Vec<i8> = bids.iter().filter(|bid| has_more(bid)).map(price).collect();
                (group, (
                    prices[0],
                    bids.iter().map(|bid| bid.1).max().unwrap(),
                    *sorted.last().unwrap(),
                    sorted[0],
                    prices,
                    distinct(bids.iter().map(|bid| bid.1)),
                    sorted.iter().copied().take(2).collect(),
                    more.len() as u64,
                    more.iter().copied().max(),
                    more.iter().copied().map(i64::from).sum(),
                ))
            }).collect()
        }).collect();
        prop_assert_eq!(test.updates::<(u8, Out)>("out"), changes(tables.into_iter()));
    }
}

/// Two distinct counts must not share what they have seen: (1, 2, 3) and (1, 2, 4) have one `b` and two `(b, c)`.
#[test]
fn two_distinct_counts_of_different_fields_do_not_share_their_values() {
    type Row = (u8, (u8, u8));
    let mut test = Dataflow::new(2, |scope| {
        let rows = scope.input::<Row>("in");
        let both = || (CountDistinct(|row: &(u8, u8)| row.0), CountDistinct(|row: &(u8, u8)| *row));
        scope.output("stream", rows.clone().aggregate("stream", both()));
        scope.output("collection", rows.keep_all("rows").aggregate("collection", both()));
    });
    test.feed("in", 1, [(1u8, (2u8, 3u8)), (1, (2, 4))]);
    test.advance_past(1);
    test.restart(1);
    for output in ["stream", "collection"] {
        assert_eq!(test.table::<(u8, (u64, u64))>(output), [(1, (1, 2))], "{output}");
    }
}

#[test]
fn a_key_has_a_row_before_a_record_passes_the_filter_and_after_the_last_such_row_has_gone() {
    let mut test = Dataflow::new(1, |scope| {
        let rows = scope.input::<(u8, Option<(u8, i64)>)>("in").latest("rows").map(|(_, row)| row);
        let large = |value: &i64| *value > 10;
        let all = (Count.when(large), Min(|value: &i64| *value).when(large), Collect(|value: &i64| *value).when(large));
        scope.output("out", rows.aggregate("groups", all));
    });
    type Out = (u8, (u64, Option<i64>, Vec<i64>));
    test.feed("in", 1, [(0u8, Some((7u8, 5i64)))]);
    test.feed("in", 2, [(1u8, Some((7u8, 50i64)))]);
    test.feed("in", 3, [(1u8, None::<(u8, i64)>)]);
    test.advance_past(1);
    assert_eq!(test.table::<Out>("out"), [(7, (0, None, vec![]))]);
    test.advance_past(2);
    assert_eq!(test.table::<Out>("out"), [(7, (1, Some(50), vec![50]))]);
    test.advance_past(3);
    assert_eq!(test.table::<Out>("out"), [(7, (0, None, vec![]))]);
}

#[test]
fn retracting_rows_that_do_not_exist_is_an_error_for_aggregates_that_keep_rows() {
    let mut test = Dataflow::new(1, |scope| {
        let rows = scope.input::<(String, i64)>("in").keep_all("rows");
        let others = rows.clone().map(|(group, value)| (group, value + 1)).negate();
        let rows = rows.clone().concat(rows).concat(others);
        scope.output("out", rows.aggregate("greatest", Max(|value: &i64| *value)));
    });
    test.feed("in", 1, [("a".to_owned(), 5i64)]);
    let error = test.try_advance_past(1).unwrap_err();
    assert!(
        error.contains("operator 'greatest' cannot go on at tick 1, key \"a\": a row was retracted more often than"),
        "{error}"
    );
}

#[test]
fn an_overflow_behind_a_filter_ends_the_job_and_names_the_operator() {
    let mut test = Dataflow::new(1, |scope| {
        let sums = scope.input::<(u8, i64)>("in");
        scope.output("out", sums.aggregate("sums", Sum(|value: &i64| *value).when(|value: &i64| *value > 0)));
    });
    test.feed("in", 1, [(1u8, i64::MIN), (1, i64::MIN), (1, i64::MAX)]);
    test.feed("in", 2, [(1u8, 1i64)]);
    test.advance_past(1);
    let error = test.try_advance_past(2).unwrap_err();
    assert!(error.contains("operator 'sums' cannot go on at tick 2, key 1: the sum of i64 values"), "{error}");
}

#[test]
fn a_job_goes_over_from_the_changes_of_an_aggregate_to_its_collection_and_keeps_its_state() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static COLLECTED: AtomicBool = AtomicBool::new(false);
    let mut test = JobTest::new(2, |job| {
        let memory = Memory::new();
        let rows = job.source("rows", memory.source("rows")).format(Json).keyed::<u32, i64>();
        let rows = rows.map(|(key, value)| (key, value.unwrap_or(0)));
        let output = job.output(memory.upsert("out", 1)).format(Json);
        let value = of::<i64>();
        let all = (value.max(|value| *value), value.when(|value| value % 2 == 0, value.count()));
        if COLLECTED.load(Ordering::Relaxed) {
            output.write(rows.aggregate("greatest", all));
        } else {
            output.write_changes(rows.aggregate_changes("greatest", all));
        }
        Ok(())
    });
    test.feed("rows", 1, [(Some("1"), Some("5")), (Some("1"), Some("4"))]);
    test.feed("rows", 2, [(Some("1"), Some("3"))]);
    test.feed("rows", 3, [(Some("1"), Some("8"))]);
    test.advance_past(3);
    COLLECTED.store(true, Ordering::Relaxed);
    test.restart_at(1, 2);
    assert_eq!(test.updates_at("out", 2), []);
    assert_eq!(test.updates_at("out", 3), [("1".into(), Some("[8,2]".into()))]);
}

/// Checkpoints hold these names: a job whose aggregate has another one cannot be restored.
#[test]
fn the_names_of_aggregates_in_checkpoints_stay() {
    let value = of::<i64>();
    let sums = (value.count(), value.sum(|value| *value), value.average(|value| *value as u8));
    assert_eq!(sums.describe(), "(count, sum of i64, average of u8)");
    let least = (value.min(|value| *value), value.max(|value| *value));
    assert_eq!(least.describe(), "(min, max)");
    let by = (value.min_by(|value| *value), value.max_by(|value| *value), value.top(3, |value| *value));
    assert_eq!(by.describe(), "(min by, max by, top 3)");
    let ends = (value.first(|value| *value), value.last(|value| *value));
    assert_eq!(ends.describe(), "(first, last)");
    let all = (value.collect(|value| *value), value.count_distinct(|value| *value));
    assert_eq!(all.describe(), "(collect, count distinct)");
    assert_eq!(value.when(|value| *value > 0, value.count()).describe(), "filtered count");
}
