//! `join_now` and `left_join_now` against naive recomputation, with the origins of their records.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use differential_dataflow::AsCollection;
use fluvial_connector::Offset;
use fluvial_protocol::journal::SplitNumber;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::durable::tests::{Script, changes, play, scripts};
use crate::harness::Dataflow;
use crate::stream::{Collection, Origin, Stream};

/// What is fed: records that one input record holds, or what a row of the table has become: its key and value, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Fed {
    Records(Vec<(u8, u16)>),
    Row(u8, Option<(u8, u8)>),
}

fn fed() -> impl Strategy<Value = Fed> {
    prop_oneof![
        proptest::collection::vec((0u8..4, any::<u16>()), 0..4).prop_map(Fed::Records),
        // Rows that are equal count as often as they are there.
        (0u8..6, proptest::option::of((0u8..4, 0u8..3))).prop_map(|(id, row)| Fed::Row(id, row)),
    ]
}

/// The table, and the records: the first of each list, and all of them.
type Parts<'s> = (Collection<'s, (u8, u8)>, Stream<'s, (u8, u16)>, Stream<'s, (u8, u16)>);

fn parts<'s>(scope: &mut crate::harness::Builder<'s>) -> Parts<'s> {
    let input = scope.input::<Fed>("in");
    let rows = input.clone().filter(|fed| matches!(fed, Fed::Row(..))).map(|fed| match fed {
        Fed::Row(id, row) => (id, row),
        Fed::Records(_) => (0, None),
    });
    let lists = input.map(|fed| match fed {
        Fed::Records(list) => list,
        Fed::Row(..) => Vec::new(),
    });
    let single = lists.clone().filter(|list| !list.is_empty()).map(|list| list[0]);
    (rows.latest("rows").map(|(_, row)| row), single, lists.flat_map(|list| list))
}

/// Numbers what the records of one input record become.
#[derive(Default)]
struct Numbers(BTreeMap<(SplitNumber, Offset), u32>);

impl Numbers {
    fn next(&mut self, parent: Origin) -> Origin {
        let next = self.0.entry((parent.split, parent.offset)).or_default();
        *next += 1;
        Origin { index: *next - 1, ..parent }
    }
}

type Joined = ((u8, (u16, u8)), Origin);
type LeftJoined = ((u8, (u16, Option<u8>)), Origin);
type Twice = ((u8, (u16, Option<u8>, u8)), Origin);

/// What each tick adds to the outputs.
#[derive(Default)]
struct Expected {
    single: Vec<Vec<Joined>>,
    left: Vec<Vec<LeftJoined>>,
    several: Vec<Vec<Joined>>,
    twice: Vec<Vec<Twice>>,
}

fn recomputed(ticks: &[Vec<Fed>]) -> Expected {
    let mut expected = Expected::default();
    let (mut table, mut count): (BTreeMap<u8, (u8, u8)>, u64) = (BTreeMap::new(), 0);
    for fed in ticks {
        let mut ordered: Vec<(Origin, Fed)> = fed
            .iter()
            .map(|fed| {
                count += 1;
                (Origin::read(SplitNumber((count - 1) as u32 % 4), Offset((count - 1) / 4)), fed.clone())
            })
            .collect();
        ordered.sort();
        let mut records = Vec::new();
        for (origin, fed) in ordered {
            match fed {
                Fed::Records(list) => records.push((origin, list)),
                Fed::Row(id, Some(row)) => drop(table.insert(id, row)),
                Fed::Row(id, None) => drop(table.remove(&id)),
            }
        }
        let rows_of = |key: u8| {
            let mut rows: Vec<u8> = table.values().filter(|row| row.0 == key).map(|row| row.1).collect();
            rows.sort_unstable();
            rows
        };
        let or_none = |rows: Vec<u8>| {
            if rows.is_empty() { vec![None] } else { rows.into_iter().map(Some).collect() }
        };
        let mut numbers = [(); 4].map(|()| Numbers::default());
        let (mut single, mut left, mut several, mut twice) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (origin, list) in records {
            if let Some((key, value)) = list.first().copied() {
                single.extend(rows_of(key).into_iter().map(|row| ((key, (value, row)), numbers[0].next(origin))));
                let pairs = or_none(rows_of(key)).into_iter();
                left.extend(pairs.map(|row| ((key, (value, row)), numbers[1].next(origin))));
            }
            for (key, value) in list {
                several.extend(rows_of(key).into_iter().map(|row| ((key, (value, row)), numbers[2].next(origin))));
                for first in or_none(rows_of(key)) {
                    // The second join is by another key, which another worker may have.
                    let key = (key + 1) % 4;
                    let pairs = rows_of(key).into_iter();
                    twice.extend(pairs.map(|row| ((key, (value, first, row)), numbers[3].next(origin))));
                }
            }
        }
        expected.single.push(single);
        expected.left.push(left);
        expected.several.push(several);
        expected.twice.push(twice);
    }
    expected
}

/// Tables that grow by so much in each tick.
fn growing<D: Ord + Clone>(added: &[Vec<D>]) -> impl Iterator<Item = Vec<D>> {
    let mut all = Vec::new();
    added.iter().map(move |added| {
        all.extend(added.iter().cloned());
        all.sort();
        all.clone()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_lookup_is_what_naive_recomputation_says(script in scripts(fed())) {
        let test = play(&script, Dataflow::new(script.workers, |scope| {
            let (rows, single, several) = parts(scope);
            scope.output("single", single.clone().join_now("now", rows.clone()).with_origins().keep_all("single"));
            scope.output("left", single.left_join_now("now", rows.clone()).with_origins().keep_all("left"));
            scope.output("several", several.clone().join_now("now", rows.clone()).with_origins().keep_all("several"));
            let twice = several.left_join_now("now", rows.clone()).map(|(key, (value, row))| ((key + 1) % 4, (value, row)));
            let twice = twice.join_now("now", rows).map(|(key, ((value, first), second))| (key, (value, first, second)));
            scope.output("twice", twice.with_origins().keep_all("twice"));
        }));
        let expected = recomputed(&script.ticks);
        prop_assert_eq!(test.updates::<Joined>("single"), changes(growing(&expected.single)));
        prop_assert_eq!(test.updates::<LeftJoined>("left"), changes(growing(&expected.left)));
        prop_assert_eq!(test.updates::<Joined>("several"), changes(growing(&expected.several)));
        prop_assert_eq!(test.updates::<Twice>("twice"), changes(growing(&expected.twice)));
    }
}

/// What one input record became is on the workers of many keys when it is numbered.
#[test]
fn what_one_record_became_is_numbered_the_same_on_any_number_of_workers() {
    let run = |workers| {
        let records = Fed::Records((0..40).map(|key| (key, u16::from(key))).collect());
        let rows = (0..40).map(|key| Fed::Row(key, Some((key, 7))));
        let script = Script { ticks: vec![rows.chain([records]).collect()], workers, restarts: Vec::new() };
        let test = play(
            &script,
            Dataflow::new(workers, |scope| {
                let (rows, _, several) = parts(scope);
                let twice = several.join_now("now", rows).flat_map(|record| [record, record]);
                scope.output("out", twice.with_origins().keep_all("out"));
            }),
        );
        test.updates::<Joined>("out")
    };
    let one = run(1);
    let mut made: Vec<_> = one.iter().map(|(((key, _), origin), ..)| (origin.index, *key)).collect();
    made.sort_unstable();
    assert_eq!(made, (0..80).map(|index| (index, (index / 2) as u8)).collect::<Vec<_>>());
    assert_eq!(run(3), one);
}

/// A retraction without an addition is a mistake of the job, which is to blame on the tick.
#[test]
fn a_row_that_is_in_the_table_a_negative_number_of_times_ends_the_job() {
    for workers in [1, 3] {
        let mut test = Dataflow::new(workers, |scope| {
            let rows = scope.input::<(u8, u8)>("rows").keep_all("rows");
            let once = rows.clone().filter(|(_, row)| *row == 0);
            let records = scope.input::<(u8, u8)>("records");
            // What is 0 is there once, and everything else is taken away.
            let table = once.clone().concat(once).concat(rows.negate());
            scope.output("out", records.join_now("now", table).keep_all("out"));
        });
        test.feed("rows", 1, [(1u8, 0u8)]);
        test.feed("records", 1, [(1u8, 5u8)]);
        test.advance_past(1);
        assert_eq!(test.table::<(u8, (u8, u8))>("out"), [(1, (5, 0))]);
        test.feed("rows", 2, [(2u8, 1u8)]);
        test.feed("records", 2, [(1u8, 6u8)]);
        let error = test.try_advance_past(2).unwrap_err();
        assert!(error.contains("operator 'now' cannot go on at tick 2, key 2: "), "{error}");
        assert!(error.contains("one of its rows -1 times"), "{error}");
    }
}

/// A join of collections would retract what it wrote, which an append output refuses.
#[test]
fn what_was_looked_up_goes_to_an_append_output_and_the_table_may_change() {
    use fluvial_connector::format::{Json, Text};
    use fluvial_memory::Memory;

    let mut test = crate::harness::JobTest::new(2, |job| {
        let memory = Memory::new();
        let prices = job.source("prices", memory.source("prices")).format((Text, Json)).changelog::<String, i64>();
        let sales = job.source("sales", memory.source("sales")).format((Text, Json)).keyed::<String, i64>();
        let sales = sales.map(|(item, pieces)| (item, pieces.unwrap_or(0)));
        let worth =
            sales.join_now("now", prices.latest("prices")).map(|(item, (pieces, price))| (item, pieces * price));
        job.output(memory.append_to("worth", 2)).format((Text, Json)).write(worth.keep_all("worth"));
        Ok(())
    });
    test.feed("prices", 1, [(Some("tea"), Some("3"))]);
    test.feed("sales", 1, [(Some("tea"), Some("2"))]);
    test.feed("prices", 2, [(Some("tea"), Some("4"))]);
    test.feed("sales", 2, [(Some("tea"), Some("1")), (Some("jam"), Some("9"))]);
    test.feed("prices", 3, [(Some("tea"), None)]);
    test.feed("sales", 4, [(Some("tea"), Some("1"))]);
    test.advance_past(4);
    test.restart_at(1, 3);
    let said = |tick| test.updates_at("worth", tick);
    assert_eq!(said(1), [("tea".into(), Some("6".into()))]);
    assert_eq!(said(2), [("tea".into(), Some("4".into()))]);
    assert_eq!((said(3), said(4)), (vec![], vec![]));
}

/// In a job many ticks are in the dataflow at once; each lookup is as of its own.
#[test]
fn ticks_that_are_in_the_dataflow_at_once_are_looked_up_each_as_of_its_own() {
    use std::cell::RefCell;
    use std::rc::Rc;

    use timely::dataflow::InputHandleVec;
    use timely::dataflow::operators::vec::Map;

    use crate::durable::Durables;

    timely::execute_directly(|worker| {
        let durables = Durables::new(0, 1, None);
        let (mut records, mut rows) = (InputHandleVec::new(), InputHandleVec::new());
        let seen = Rc::new(RefCell::new(Vec::new()));
        let into = Rc::clone(&seen);
        worker.dataflow::<u64, _, _>(|scope| {
            let table = rows.to_stream(scope).as_collection();
            let stream = Stream::<(u8, u64)>::from_source(records.to_stream(scope), &durables);
            stream.left_join_now::<u64>("now", table).inner.map(move |((_, pair), _)| into.borrow_mut().push(pair));
        });
        for tick in 1..=5u64 {
            records.advance_to(tick);
            records.send(((0u8, tick), Origin::read(SplitNumber(0), Offset(tick))));
        }
        records.close();
        let mut step = || {
            (0..100).for_each(|_| {
                worker.step();
            })
        };
        step();
        assert!(seen.borrow().is_empty(), "the table may still change");
        // The row of tick 2 goes in tick 4; both are known before the frontier says so.
        rows.advance_to(1);
        rows.send(((0u8, 20u64), 2, 1isize));
        rows.send(((0u8, 20u64), 4, -1isize));
        rows.advance_to(3);
        step();
        assert_eq!(*seen.borrow(), [(1, None), (2, Some(20))]);
        rows.close();
        step();
        assert_eq!(*seen.borrow(), [(1, None), (2, Some(20)), (3, Some(20)), (4, None), (5, None)]);
    });
}
