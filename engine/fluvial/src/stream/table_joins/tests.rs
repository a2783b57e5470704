//! Joins of collections against nested loops, and what other systems got wrong.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use fluvial_connector::format::Json;
use fluvial_memory::Memory;
use proptest::prelude::*;

use crate::Table;
use crate::durable::tests::{changes, play, scripts};
use crate::harness::{Dataflow, JobTest};

/// Which side, the row's number, and what it has become: key and value, or nothing.
type Fed = (bool, u8, Option<(u8, u8)>);
type Row = (u8, u8);
/// A row of a full join.
type Full = (u8, (Option<u8>, Option<u8>));

/// The pairs of nested loops; where `with_left` or `with_right`, the rows of that side without a partner too.
fn looped(left: &[Row], right: &[Row], with_left: bool, with_right: bool) -> Vec<Full> {
    let mut pairs = Vec::new();
    for (key, value) in left {
        let partners: Vec<_> = right.iter().filter(|row| row.0 == *key).collect();
        pairs.extend(partners.iter().map(|row| (*key, (Some(*value), Some(row.1)))));
        if partners.is_empty() && with_left {
            pairs.push((*key, (Some(*value), None)));
        }
    }
    let alone = right.iter().filter(|(key, _)| with_right && left.iter().all(|row| row.0 != *key));
    pairs.extend(alone.map(|(key, value)| (*key, (None, Some(*value)))));
    pairs.sort_unstable();
    pairs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn joins_of_tables_are_what_nested_loops_say(
        script in scripts((any::<bool>(), 0u8..5, proptest::option::of((0u8..3, 0u8..3)))),
    ) {
        let test = play(&script, Dataflow::new(script.workers, |scope| {
            let input = scope.input::<Fed>("in");
            let side = |name, is_left| {
                let rows = input.clone().filter(move |fed| fed.0 == is_left).map(|(_, id, row)| (id, row));
                rows.latest(name).map(|(_, row)| row)
            };
            let (left, right) = (side("left", true), side("right", false));
            scope.output("left", left.clone().left_join(right.clone()));
            scope.output("right", left.clone().right_join(right.clone()));
            scope.output("full", left.clone().full_join(right.clone()));
            scope.output("semi", left.clone().semi_join(right.clone()));
            scope.output("anti", left.clone().anti_join(right.clone()));
            // By way of rows that are retracted within the tick.
            scope.output("checked", left.left_join(right).try_map("checked", |_, pair| Ok::<_, String>(pair)));
        }));
        let (mut left, mut right, mut fed) = (BTreeMap::new(), BTreeMap::new(), 0);
        let tables = script.ticks.iter().map(|records| {
            let mut ordered: Vec<_> = records.iter().map(|record| { fed += 1; ((fed - 1) % 4, fed, *record) }).collect();
            ordered.sort_unstable();
            for (_, _, (is_left, id, row)) in ordered {
                let side = if is_left { &mut left } else { &mut right };
                match row {
                    Some(row) => side.insert(id, row),
                    None => side.remove(&id),
                };
            }
            (left.values().copied().collect(), right.values().copied().collect())
        });
        let tables: Vec<(Vec<Row>, Vec<Row>)> = tables.collect();
        let full = tables.iter().map(|(left, right)| looped(left, right, true, true));
        prop_assert_eq!(test.updates::<Full>("full"), changes(full));
        let of_left = || tables.iter().map(|(left, right)| {
            let pairs = looped(left, right, true, false).into_iter();
            pairs.map(|(key, (left, right))| (key, (left.unwrap(), right))).collect()
        });
        prop_assert_eq!(test.updates::<(u8, (u8, Option<u8>))>("left"), changes(of_left()));
        prop_assert_eq!(test.updates::<(u8, (u8, Option<u8>))>("checked"), changes(of_left()));
        let of_right = tables.iter().map(|(left, right)| {
            let pairs = looped(left, right, false, true).into_iter();
            pairs.map(|(key, (left, right))| (key, (left, right.unwrap()))).collect()
        });
        prop_assert_eq!(test.updates::<(u8, (Option<u8>, u8))>("right"), changes(of_right));
        for (output, with) in [("semi", true), ("anti", false)] {
            let kept = tables.iter().map(|(left, right)| {
                let has = |key| right.iter().any(|row| row.0 == key);
                let mut kept: Vec<_> = left.iter().copied().filter(|row| has(row.0) == with).collect();
                kept.sort_unstable();
                kept
            });
            prop_assert_eq!(test.updates::<Row>(output), changes(kept));
        }
    }
}

/// Flink's FLINK-40681 forgot the row with null after an update and a deletion; another system said (null, null).
#[test]
fn an_outer_join_says_null_again_when_the_partner_is_gone_and_nothing_when_the_row_is_gone() {
    for workers in [1, 3] {
        let mut test = Dataflow::new(workers, |scope| {
            let left = scope.input::<(u8, Option<u8>)>("left").latest("left");
            let right = scope.input::<(u8, Option<u8>)>("right").latest("right");
            scope.output("left join", left.clone().left_join(right.clone()).map(|(key, (l, r))| (key, (Some(l), r))));
            scope.output("full join", left.full_join(right));
        });
        test.feed("left", 1, [(7u8, Some(0u8))]);
        test.feed("right", 2, [(7u8, Some(1u8))]);
        test.feed("right", 3, [(7u8, Some(2u8))]);
        test.feed("right", 4, [(7u8, None::<u8>)]);
        test.feed("left", 5, [(7u8, None::<u8>)]);
        test.advance_past(5);
        test.restart_at(3, 4 - workers);
        let row = |right| (7, (Some(0), right));
        for output in ["left join", "full join"] {
            assert_eq!(test.updates_at::<Full>(output, 1), [(row(None), 1)]);
            assert_eq!(test.updates_at::<Full>(output, 2), [(row(None), -1), (row(Some(1)), 1)]);
            assert_eq!(test.updates_at::<Full>(output, 3), [(row(Some(1)), -1), (row(Some(2)), 1)]);
            assert_eq!(test.updates_at::<Full>(output, 4), [(row(None), 1), (row(Some(2)), -1)]);
            assert_eq!(test.updates_at::<Full>(output, 5), [(row(None), -1)]);
        }
    }
}

/// Kafka Streams sent a null in between, or none at all, when a foreign key changed (KAFKA-16394, KAFKA-16407).
#[test]
fn a_foreign_key_that_changes_gives_one_message_a_tick_and_the_right_one() {
    for workers in [1, 3] {
        let mut test = JobTest::new(workers, |job| {
            let memory = Memory::new();
            let orders = job.source("orders", memory.source("orders")).format(Json).changelog::<u32, (Option<u32>,)>();
            let names = job.source("names", memory.source("names")).format(Json).changelog::<u32, String>();
            let by_customer = orders.latest("orders").map(|(order, (customer,))| (customer, order));
            let names = names.latest("names").map(|(customer, name)| (Some(customer), name));
            let named = by_customer.left_join(names).map(|(customer, (order, name))| (order, (customer, name)));
            job.output(memory.upsert("named", 3)).format(Json).write(named);
            Ok(())
        });
        test.feed("names", 1, [(Some("1"), Some("\"Ann\"")), (Some("2"), Some("\"Bob\""))]);
        test.feed("orders", 1, [(Some("7"), Some("[1]"))]);
        test.feed("orders", 2, [(Some("7"), Some("[2]"))]);
        test.feed("orders", 3, [(Some("7"), Some("[null]"))]);
        test.feed("orders", 4, [(Some("7"), Some("[1]"))]);
        // Both at once, and away and back within a tick.
        test.feed("orders", 5, [(Some("7"), Some("[2]"))]);
        test.feed("names", 5, [(Some("2"), Some("\"Bo\""))]);
        test.feed("orders", 6, [(Some("7"), Some("[2]")), (Some("7"), Some("[2]"))]);
        test.feed("names", 7, [(Some("2"), None)]);
        test.feed("orders", 8, [(Some("7"), None)]);
        test.advance_past(8);
        test.restart_at(4, 4 - workers);
        let said = |tick| {
            let updates = test.updates_at("named", tick).into_iter();
            updates
                .map(|(order, value)| {
                    assert_eq!(order, "7");
                    value
                })
                .collect::<Vec<_>>()
        };
        let one = |value: &str| vec![Some(value.to_owned())];
        assert_eq!(said(1), one(r#"[1,"Ann"]"#));
        assert_eq!(said(2), one(r#"[2,"Bob"]"#));
        assert_eq!(said(3), one("[null,null]"));
        assert_eq!(said(4), one(r#"[1,"Ann"]"#));
        assert_eq!(said(5), one(r#"[2,"Bo"]"#));
        assert_eq!(said(7), one("[2,null]"));
        assert_eq!(said(8), [None]);
    }
}
