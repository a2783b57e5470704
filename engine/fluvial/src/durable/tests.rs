//! Durable operators against naive recomputation: random records, batches, numbers of workers, and restarts at any
//! tick. Each restart compares what comes out with what came out before (see [`Dataflow::restart_at`]).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use rust_decimal::Decimal;

use crate::Table;
use crate::durable::{Average, Count, ExactFloat, Float, Sum};
use crate::harness::Dataflow;

/// What happens in a test: records at ticks, and then restarts.
#[derive(Clone, Debug)]
pub(crate) struct Script<R> {
    pub(crate) ticks: Vec<Vec<R>>,
    pub(crate) workers: usize,
    /// At which of the ticks, with how many workers.
    pub(crate) restarts: Vec<(usize, usize)>,
}

pub(crate) fn scripts<R: Clone + std::fmt::Debug>(
    record: impl Strategy<Value = R>,
) -> impl Strategy<Value = Script<R>> {
    let ticks = proptest::collection::vec(proptest::collection::vec(record, 0..12), 1..8);
    (ticks, 1usize..4, proptest::collection::vec((0usize..8, 1usize..4), 0..3))
        .prop_map(|(ticks, workers, restarts)| Script { ticks, workers, restarts })
}

/// The time of the `index`th tick: they have gaps.
pub(crate) fn tick(index: usize) -> u64 {
    10 + 3 * index as u64
}

/// Runs a script on a dataflow with the input `in`, restarts included.
pub(crate) fn play<R>(script: &Script<R>, mut test: Dataflow) -> Dataflow
where
    R: differential_dataflow::ExchangeData + Sync,
{
    for (index, records) in script.ticks.iter().enumerate() {
        test.feed("in", tick(index), records.clone());
    }
    // Half of the ticks one by one, the others at once.
    let half = script.ticks.len() / 2;
    (0..half).for_each(|index| test.advance_past(tick(index)));
    test.advance_past(tick(script.ticks.len() - 1));
    for (index, workers) in &script.restarts {
        test.restart_at(tick(index % script.ticks.len()), *workers);
    }
    test
}

/// The records of each tick in the order of their origins. The harness spreads records over four splits.
pub(super) fn in_order<R: Clone>(script: &Script<R>) -> Vec<Vec<R>> {
    let mut fed = 0;
    let ticks = script.ticks.iter().map(|records| {
        let mut splits = vec![Vec::new(); 4];
        for record in records {
            splits[fed % 4].push(record.clone());
            fed += 1;
        }
        splits.concat()
    });
    ticks.collect()
}

/// The bids, the greatest price first, and of equal prices the greatest bid first.
pub(super) fn greatest_first<B: Ord + Clone>(values: &[B]) -> Vec<B> {
    let mut sorted = values.to_vec();
    // A tuple's own order is that of its first field and then of the others.
    sorted.sort();
    sorted.reverse();
    sorted
}

/// The differences between tables that follow each other.
pub(crate) fn changes<D: Ord + Clone>(tables: impl Iterator<Item = Vec<D>>) -> Vec<(D, u64, isize)> {
    let mut updates = Vec::new();
    let mut before = Vec::new();
    for (index, table) in tables.enumerate() {
        let mut step: Vec<(D, isize)> = before.into_iter().map(|row| (row, -1)).collect();
        step.extend(table.iter().cloned().map(|row| (row, 1)));
        differential_dataflow::consolidation::consolidate(&mut step);
        updates.extend(step.into_iter().map(|(row, diff)| (row, tick(index), diff)));
        before = table;
    }
    updates
}

/// What `latest_map` emits says nothing of the rest of a row, which is kept all the same.
#[test]
fn a_job_goes_over_from_latest_map_to_latest_with_whole_rows() {
    use std::sync::atomic::{AtomicBool, Ordering};
    static WHOLE: AtomicBool = AtomicBool::new(false);
    let mut test = Dataflow::new(2, |scope| {
        let rows = scope.input::<(u8, Option<(u8, u8)>)>("in");
        if WHOLE.load(Ordering::Relaxed) {
            let rows = rows.latest("rows");
            scope.output("whole", rows.clone());
            scope.output("out", rows.map(|(key, row)| (key, row.0)));
        } else {
            scope.output("out", rows.latest_map("rows", |row| row.0));
        }
    });
    test.feed("in", 1, [(1u8, Some((5u8, 2u8))), (2, Some((6, 2)))]);
    test.feed("in", 2, [(1u8, Some((5u8, 3u8))), (2, None)]);
    test.advance_past(1);
    test.advance_past(2);
    assert_eq!(test.updates_at::<(u8, u8)>("out", 2), [((2, 6), -1)]);
    WHOLE.store(true, Ordering::Relaxed);
    test.restart(1);
    test.feed("in", 3, [(1u8, Some((5u8, 9u8)))]);
    test.advance_past(3);
    assert_eq!(test.table::<(u8, u8)>("out"), [(1, 5)]);
    assert_eq!(test.updates_at::<(u8, (u8, u8))>("whole", 3), [((1, (5, 3)), -1), ((1, (5, 9)), 1)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn latest_is_what_naive_recomputation_says(script in scripts((0u8..6, proptest::option::of(0i32..4)))) {
        let test = play(&script, Dataflow::new(script.workers, |scope| {
            let input = scope.input::<(u8, Option<i32>)>("in");
            scope.output("halves", input.clone().latest_map("halves", |value| value / 2));
            scope.output("out", input.latest("rows"));
        }));
        let mut rows = BTreeMap::new();
        // The order within a tick is that of the four splits over which the harness spreads records.
        let mut fed = 0;
        let tables = script.ticks.iter().map(|records| {
            let mut ordered: Vec<_> = records.iter().map(|record| { fed += 1; ((fed - 1) % 4, fed, *record) }).collect();
            ordered.sort();
            for (_, _, (key, value)) in ordered {
                match value {
                    Some(value) => rows.insert(key, value),
                    None => rows.remove(&key),
                };
            }
            rows.iter().map(|(k, v)| (*k, *v)).collect()
        });
        let tables: Vec<Vec<(u8, i32)>> = tables.collect();
        let halves = tables.iter().map(|rows| rows.iter().map(|(k, v)| (*k, v / 2)).collect());
        prop_assert_eq!(test.updates::<(u8, i32)>("halves"), changes(halves));
        prop_assert_eq!(test.updates::<(u8, i32)>("out"), changes(tables.into_iter()));
    }

    #[test]
    fn aggregates_are_what_naive_recomputation_says(
        script in scripts((prop_oneof![Just("eu"), Just("us"), Just("")], any::<i32>())),
    ) {
        let script = Script {
            ticks: script.ticks.iter().map(|tick| tick.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect()).collect(),
            workers: script.workers,
            restarts: script.restarts.clone(),
        };
        type Out = (u64, i64, Decimal, Float, Float);
        let test = play(&script, Dataflow::new(script.workers, |scope| {
            let all = (
                Count,
                Sum(|v: &i32| *v),
                Sum(|v: &i32| Decimal::new(i64::from(*v), 2)),
                Sum(|v: &i32| ExactFloat::from(f64::from(*v) / 3.0)),
                Average(|v: &i32| *v),
            );
            let groups = scope.input::<(String, i32)>("in").aggregate("groups", all);
            scope.output("out", groups);
        }));
        let mut groups: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        let tables: Vec<Vec<(String, Out)>> = script.ticks.iter().map(|records| {
            for (key, value) in records {
                groups.entry(key.clone()).or_default().push(*value);
            }
            groups.iter().map(|(key, values)| {
                let sum: i64 = values.iter().copied().map(i64::from).sum();
                let mut thirds = values.iter().map(|v| f64::from(*v) / 3.0).collect::<Vec<_>>();
                (key.clone(), (
                    values.len() as u64,
                    sum,
                    Decimal::new(sum, 2).normalize(),
                    Float::from(exactly(&mut thirds)),
                    Float::from(sum as f64 / values.len() as f64),
                ))
            }).collect()
        }).collect();
        prop_assert_eq!(test.updates::<(String, Out)>("out"), changes(tables.into_iter()));
    }

    #[test]
    fn aggregates_of_a_collection_are_what_naive_recomputation_says(
        // Row, group, value: a row is amended into another group, and goes, at the same tick or later.
        script in scripts((0u8..6, proptest::option::of((0u8..3, any::<i64>())))),
    ) {
        type Row = (u8, Option<(u8, i64)>);
        type Out = (u64, i64, u64, Decimal, Float, Float);
        let small = |value: i64| value >> 8;
        let third = |value: i64| f64::from(value as i32) / 3.0;
        let test = play(&script, Dataflow::new(script.workers, move |scope| {
            let all = (
                Count,
                Sum(move |v: &i64| small(*v)),
                Sum(|v: &i64| (*v as u64) >> 8),
                Sum(|v: &i64| Decimal::new(*v, 2)),
                Sum(move |v: &i64| ExactFloat::from(third(*v))),
                Average(|v: &i64| *v as i32),
            );
            let rows = scope.input::<Row>("in").latest("rows");
            // Within a tick, a join emits intermediate rows and retracts them again.
            let groups = rows.clone().join(rows).map(|(_, ((group, value), _))| (group, value));
            scope.output("out", groups.aggregate("groups", all));
        }));
        let mut rows = BTreeMap::new();
        let mut fed = 0;
        let tables: Vec<Vec<(u8, Out)>> = script.ticks.iter().map(|records| {
            let mut ordered: Vec<_> = records.iter().map(|record| { fed += 1; ((fed - 1) % 4, fed, *record) }).collect();
            ordered.sort();
            for (_, _, (row, value)) in ordered {
                match value {
                    Some(value) => rows.insert(row, value),
                    None => rows.remove(&row),
                };
            }
            let mut groups: BTreeMap<u8, Vec<i64>> = BTreeMap::new();
            rows.values().for_each(|(group, value)| groups.entry(*group).or_default().push(*value));
            groups.into_iter().map(|(group, values)| {
                let mut thirds: Vec<_> = values.iter().map(|v| third(*v)).collect();
                let units: i128 = values.iter().map(|v| i128::from(*v)).sum();
                let lows: i64 = values.iter().map(|v| i64::from(*v as i32)).sum();
                (group, (
                    values.len() as u64,
                    values.iter().map(|v| small(*v)).sum(),
                    values.iter().map(|v| (*v as u64) >> 8).sum(),
                    Decimal::from_i128_with_scale(units, 2).normalize(),
                    Float::from(exactly(&mut thirds)),
                    Float::from(lows as f64 / values.len() as f64),
                ))
            }).collect()
        }).collect();
        prop_assert_eq!(test.updates::<(u8, Out)>("out"), changes(tables.into_iter()));
    }

    #[test]
    fn keep_all_keeps_every_record_as_often_as_it_came(script in scripts(0u8..5)) {
        let test = play(&script, Dataflow::new(script.workers, |scope| {
            let all = scope.input::<u8>("in").keep_all("all");
            scope.output("out", all.clone());
            scope.output("distinct", all.distinct());
        }));
        let mut all = Vec::new();
        let tables: Vec<Vec<u8>> = script.ticks.iter().map(|records| { all.extend(records); all.clone() }).collect();
        prop_assert_eq!(test.updates::<u8>("out"), changes(tables.clone().into_iter()));
        let distinct = tables.into_iter().map(|mut table| { table.sort_unstable(); table.dedup(); table });
        prop_assert_eq!(test.updates::<u8>("distinct"), changes(distinct));
    }

    #[test]
    fn streams_keep_the_order_of_records_through_unions_and_flat_maps(script in scripts(proptest::collection::vec(any::<u8>(), 0..4))) {
        // One key: what remains is what is last in the order.
        let test = play(&script, Dataflow::new(script.workers, |scope| {
            let lists = scope.input::<Vec<u8>>("in");
            let first = lists.clone().flat_map(|list| list).filter(|n| n % 3 != 0).map(u32::from);
            let second = lists.flat_map(|list| list).flat_map(|n| [u32::from(n) + 1000, u32::from(n) + 2000]);
            let latest = first.union(second).map(|n| ((), Some(n))).latest("last");
            scope.output("out", latest);
        }));
        let mut fed = 0;
        let mut last = None;
        let tables: Vec<Vec<((), u32)>> = script.ticks.iter().map(|records| {
            let mut ordered: Vec<_> = records.iter().map(|list| { fed += 1; ((fed - 1) % 4, fed, list.clone()) }).collect();
            ordered.sort();
            for (_, _, list) in ordered {
                // Of one record, all that came through the first branch comes before all that came through the second.
                let first = list.iter().filter(|n| **n % 3 != 0).map(|n| u32::from(*n)).next_back();
                let second = list.last().map(|n| u32::from(*n) + 2000);
                last = second.or(first).or(last);
            }
            last.map(|n| ((), n)).into_iter().collect()
        }).collect();
        prop_assert_eq!(test.updates::<((), u32)>("out"), changes(tables.into_iter()));
    }
}

/// The exact sum of floats that are multiples of 2^-60 and below 2^40, rounded once.
fn exactly(values: &mut [f64]) -> f64 {
    // Neumaier's sum would round twice; fractions of a fixed exponent do not.
    let units: i128 = values
        .iter()
        .map(|value| {
            let bits = value.to_bits();
            let exponent = ((bits >> 52) & 0x7ff) as i32 - 1075;
            if *value == 0.0 {
                return 0;
            }
            let mantissa = i128::from(bits & ((1 << 52) - 1) | 1 << 52);
            let shifted = mantissa << (exponent + 60);
            if *value < 0.0 { -shifted } else { shifted }
        })
        .sum();
    units as f64 / (1u64 << 60) as f64
}

#[test]
fn a_sum_that_does_not_fit_ends_the_job_and_names_operator_tick_and_key() {
    let mut test = Dataflow::new(2, |scope| {
        let sums = scope.input::<(String, i64)>("in").aggregate("sums", Sum(|v: &i64| *v));
        scope.output("out", sums);
    });
    test.feed("in", 1, [("a".to_owned(), i64::MAX), ("b".to_owned(), 1)]);
    test.feed("in", 2, [("a".to_owned(), 1i64)]);
    test.advance_past(1);
    let error = test.try_advance_past(2).unwrap_err();
    assert_eq!(
        error,
        "the durable operator 'sums' cannot go on at tick 2, key \"a\": the sum of i64 values does not fit i64: sum them as i128"
    );
}

#[test]
fn a_sum_of_rows_that_does_not_fit_names_operator_tick_and_key_and_what_cancels_out_may_be_any() {
    let mut test = Dataflow::new(2, |scope| {
        let rows = scope.input::<(u8, Option<(String, i64)>)>("in").latest("rows");
        scope.output("out", rows.map(|(_, row)| row).aggregate("sums", Sum(|v: &i64| *v)));
    });
    let row = |group: &str, value: i64| Some((group.to_owned(), value));
    test.feed("in", 1, [(0u8, row("a", i64::MAX)), (1, row("b", i64::MIN))]);
    // If new rows were added before old ones are subtracted, the sum would not fit, although the result does.
    test.feed("in", 2, [(2u8, row("a", i64::MAX)), (0, None), (1, row("b", -1))]);
    test.feed("in", 3, [(3u8, row("a", 7))]);
    test.advance_past(2);
    assert_eq!(test.table::<(String, i64)>("out"), [("a".to_owned(), i64::MAX), ("b".to_owned(), -1)]);
    let error = test.try_advance_past(3).unwrap_err();
    assert_eq!(
        error,
        "operator 'sums' cannot go on at tick 3, key \"a\": the sum of i64 values does not fit i64: sum them as i128"
    );
}

#[test]
fn retracting_rows_that_do_not_exist_is_an_error_that_names_the_key() {
    let check = |added: bool, expected: &str| {
        let mut test = Dataflow::new(1, move |scope| {
            let rows = scope.input::<(String, i64)>("in").keep_all("rows");
            let others = rows.clone().map(|(group, value)| (group, value + 1)).negate();
            let rows = if added { rows.concat(others) } else { others };
            scope.output("out", rows.aggregate("sums", Sum(|v: &i64| *v)));
        });
        test.feed("in", 1, [("a".to_owned(), 5i64)]);
        let error = test.try_advance_past(1).unwrap_err();
        assert!(
            error.contains("operator 'sums' cannot go on at tick 1, key \"a\": ") && error.contains(expected),
            "{error}"
        );
    };
    check(false, "it has -1 rows");
    check(true, "it has no rows, but not a total of zero");
}

#[test]
fn two_operators_of_one_name_are_refused() {
    let mut test = Dataflow::new(1, |scope| {
        let input = scope.input::<(u8, u8)>("in");
        let one = input.clone().aggregate("same", Count);
        let other = input.aggregate("same", Count);
        scope.output("out", one.concat(other));
    });
    let error = test.try_advance_past(1).unwrap_err();
    assert!(error.contains("two durable operators are named 'same'"), "{error}");
}

#[test]
fn a_name_that_is_no_path_is_refused() {
    for name in ["", "a/b", "..", "ü"] {
        let mut test = Dataflow::new(1, move |scope| {
            let rows = scope.input::<u8>("in").keep_all(name);
            scope.output("out", rows);
        });
        let error = test.try_advance_past(1).unwrap_err();
        assert!(error.contains("is not a valid name for a durable operator"), "{error}");
    }
}

#[test]
fn a_type_that_is_not_read_as_it_was_written_is_found_at_the_first_checkpoint() {
    let mut test = Dataflow::new(1, |scope| {
        let rows = scope.input::<(u8, Option<Option<Option<u8>>>)>("in").latest("rows");
        scope.output("out", rows);
    });
    test.feed("in", 1, [(1u8, Some(Some(None::<u8>)))]);
    let error = test.try_advance_past(1).unwrap_err();
    assert!(error.contains("'rows'") && error.contains("not read as it was written"), "{error}");
}

/// A row, and the same in a later version of a job.
mod versions {
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    pub(super) struct Line {
        pub(super) price: u32,
    }

    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    pub(super) struct Old {
        pub(super) lines: Vec<Line>,
        pub(super) price: u32,
    }

    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    pub(super) struct NewLine {
        #[serde(default)]
        pub(super) tax: Option<u32>,
        pub(super) price: u32,
    }

    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
    pub(super) struct New {
        pub(super) price: u32,
        #[serde(default)]
        pub(super) discount: u32,
        #[serde(default)]
        pub(super) note: String,
        pub(super) lines: Vec<NewLine>,
    }
}

#[test]
fn fields_may_be_added_to_the_rows_of_a_later_version() {
    use std::sync::atomic::{AtomicBool, Ordering};

    use versions::{Line, New, NewLine, Old};

    static LATER: AtomicBool = AtomicBool::new(false);
    type Row = (u8, u32, u32);
    let mut test = Dataflow::new(2, |scope| {
        let prices = scope.input::<(u8, Option<u32>)>("in");
        if LATER.load(Ordering::Relaxed) {
            let new =
                |price| New { price, discount: 0, note: String::new(), lines: vec![NewLine { tax: None, price }] };
            let prices = prices.map(move |(key, price)| (key, price.map(new)));
            let out = |row: &New| (row.price + row.discount, row.lines[0].price);
            let kept = prices.clone().keep_all("kept");
            scope.output("kept", kept.map(move |(key, row)| (key, row.map(|row| out(&row)))));
            let latest = prices.latest("latest");
            scope.output("latest", latest.map(move |(key, row)| -> Row { (key, out(&row).0, out(&row).1) }));
        } else {
            let prices =
                prices.map(|(key, price)| (key, price.map(|price| Old { lines: vec![Line { price }], price })));
            let out = |row: &Old| (row.price, row.lines[0].price);
            let kept = prices.clone().keep_all("kept");
            scope.output("kept", kept.map(move |(key, row)| (key, row.map(|row| out(&row)))));
            let latest = prices.latest("latest");
            scope.output("latest", latest.map(move |(key, row)| -> Row { (key, out(&row).0, out(&row).1) }));
        }
    });
    test.feed("in", 1, (0..40u8).map(|key| (key, Some(u32::from(key)))));
    test.feed("in", 2, (0..10u8).map(|key| (key, None::<u32>)));
    test.advance_past(1);
    test.advance_past(2);
    // Each restart compares what comes out with what came out before.
    LATER.store(true, Ordering::Relaxed);
    test.restart(3);
    test.feed("in", 3, [(39u8, Some(7u32)), (38, None), (0, Some(8))]);
    test.advance_past(3);
    test.restart(1);
    test.feed("in", 4, [(1u8, Some(9u32))]);
    test.advance_past(4);
    test.restart(2);
    let mut expected: Vec<Row> = (10..38u8).map(|key| (key, u32::from(key), u32::from(key))).collect();
    expected.extend([(39, 7, 7), (0, 8, 8), (1, 9, 9)]);
    expected.sort_unstable();
    assert_eq!(test.table::<Row>("latest"), expected);
    assert_eq!(test.table::<(u8, Option<(u32, u32)>)>("kept").len(), 40 + 10 + 3 + 1);
    // The way back is none: a version that lacks a field would lose it.
    LATER.store(false, Ordering::Relaxed);
    let error = test.try_restart_at(4, 1).unwrap_err();
    assert!(error.contains("durable operator") && error.contains("discount"), "{error}");
}

/// Builds a dataflow with one operator, `words`, on a checkpoint that has `stored`, if it has anything.
fn build_on(stored: Option<(&str, fluvial_protocol::manifest::OperatorKind)>) -> Result<(), crate::state::StateError> {
    use fluvial_protocol::manifest::OperatorState;

    use crate::durable::{Durables, Restore};
    use crate::state::StateStore;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let memory = std::sync::Arc::new(object_store::memory::InMemory::new());
    let store = StateStore::new(
        fluvial_node::job_store::JobStore::new(fluvial_store::Store::over(memory, "memory"), "job"),
        runtime.handle().clone(),
    );
    let stored =
        stored.map(|(name, kind)| OperatorState { name: name.to_owned(), kind, files: Vec::new(), keys: None });
    let operators: Vec<_> = stored.into_iter().collect();
    timely::execute_directly(move |worker| {
        let restore = Restore { as_of: fluvial_connector::Tick(7), operators: operators.clone(), store: store.clone() };
        let durables = Durables::new(0, 1, Some(restore));
        worker.dataflow::<u64, _, _>(|scope| {
            let mut input = timely::dataflow::InputHandleVec::new();
            let words = crate::Stream::<(String, u8)>::from_source(input.to_stream(scope), &durables);
            let _ = words.aggregate("words", Count);
        });
        durables.built()
    })
}

#[test]
fn a_checkpoint_that_does_not_fit_the_binary_is_refused_by_the_operators_name() {
    let kind = |operator: &str, schema: &str| fluvial_protocol::manifest::OperatorKind {
        operator: operator.to_owned(),
        schema: schema.to_owned(),
    };
    let fitting = kind("aggregate count", "key Utf8, value UInt64");
    assert!(build_on(Some(("words", fitting.clone()))).is_ok());
    assert_eq!(
        build_on(Some(("lines", fitting))).unwrap_err().to_string(),
        "the checkpoint holds a durable operator 'lines' (aggregate count (key Utf8, value UInt64)) that this binary \
         does not have: run the binary that wrote it, or bring the operator back under that name"
    );
    let other = kind("aggregate sum of u64", "key Utf8, value UInt64");
    let error = build_on(Some(("words", other.clone()))).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "the durable operator 'words' is {other} in the checkpoint and aggregate count (key Utf8, value UInt64) \
             in this binary: run the binary that wrote it, or start a new job under another --name"
        )
    );
    assert_eq!(error.kind(), fluvial_connector::ErrorKind::Configuration);
    let error = build_on(None).unwrap_err();
    assert!(error.to_string().contains("'words' is new, and the job has a checkpoint (of tick 7)"), "{error}");
    assert_eq!(error.kind(), fluvial_connector::ErrorKind::Configuration);
}

/// Ticks pass while a checkpoint waits for its own: the harness never has more than one in the dataflow, a job has.
#[test]
fn a_checkpoint_holds_what_came_through_its_tick_and_nothing_later() {
    use fluvial_connector::{Offset, Tick};
    use fluvial_protocol::journal::SplitNumber;

    use crate::durable::Durables;
    use crate::stream::Origin;
    timely::execute_directly(|worker| {
        let durables = Durables::new(0, 1, None);
        let mut input = timely::dataflow::InputHandleVec::new();
        worker.dataflow::<u64, _, _>(|scope| {
            let rows = crate::Stream::<(u64, u8)>::from_source(input.to_stream(scope), &durables);
            let _ = rows.clone().aggregate("counts", Count);
            let _ = rows.keep_all("rows");
        });
        durables.built().unwrap();
        for tick in [2, 3, 5] {
            durables.mark_checkpoint(Tick(tick));
        }
        for tick in 1..=6 {
            input.advance_to(tick);
            input.send(((tick, 0), Origin::read(SplitNumber(0), Offset(tick))));
        }
        drop(input);
        let mut frozen: Vec<(u64, String, u64)> = Vec::new();
        while worker.step() || frozen.len() < 6 {
            for one in durables.take_frozen() {
                let (tick, operator) = (one.tick().0, one.operator().to_owned());
                frozen.push((tick, operator, one.encode().unwrap().map_or(0, |file| file.rows)));
            }
        }
        frozen.sort();
        let expected =
            [(2, "counts", 2), (2, "rows", 2), (3, "counts", 1), (3, "rows", 1), (5, "counts", 2), (5, "rows", 2)];
        assert_eq!(frozen, expected.map(|(tick, operator, rows)| (tick, operator.to_owned(), rows)));
    });
}

/// A record that changed nothing made the row of its key part of the next checkpoint: with producers that send again, each
/// checkpoint held all keys.
#[test]
fn a_record_that_changes_nothing_does_not_make_a_checkpoint_larger() {
    use fluvial_connector::{Offset, Tick};
    use fluvial_protocol::journal::SplitNumber;

    use crate::durable::Durables;
    use crate::stream::Origin;
    timely::execute_directly(|worker| {
        let durables = Durables::new(0, 1, None);
        let mut input = timely::dataflow::InputHandleVec::new();
        worker.dataflow::<u64, _, _>(|scope| {
            let rows = crate::Stream::<(u64, u64)>::from_source(input.to_stream(scope), &durables);
            let _ = rows.clone().dedup("dedup");
            let _ = rows.clone().top("top", 2, |value| *value);
            let _ = rows.clone().top("greatest", 1, |value| *value);
            let _ = rows.map(|(key, value)| (key, Some(value))).latest("latest");
        });
        durables.built().unwrap();
        (1..=3).for_each(|tick| durables.mark_checkpoint(Tick(tick)));
        for (offset, (tick, value)) in (0..).zip([(1, 7), (1, 7), (2, 7), (3, 8)]) {
            input.advance_to(tick);
            input.send(((1, value), Origin::read(SplitNumber(0), Offset(offset))));
        }
        drop(input);
        let mut frozen: Vec<(u64, String, u64)> = Vec::new();
        while worker.step() || frozen.len() < 12 {
            for one in durables.take_frozen() {
                let (tick, operator) = (one.tick().0, one.operator().to_owned());
                frozen.push((tick, operator, one.encode().unwrap().map_or(0, |file| file.rows)));
            }
        }
        frozen.sort();
        let rows_at = |tick| frozen.iter().filter(|(at, ..)| *at == tick).map(|(_, _, rows)| *rows).collect::<Vec<_>>();
        assert_eq!(rows_at(1), [1, 1, 1, 1], "each has a row of the key");
        assert_eq!(rows_at(2), [0, 0, 0, 0], "{frozen:?}");
        // In the order of their names: the key was seen, the greatest and the latest value are others, and so are the two greatest.
        assert_eq!(rows_at(3), [0, 1, 1, 1], "{frozen:?}");
    });
}
