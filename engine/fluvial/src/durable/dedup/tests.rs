//! `dedup` against naive recomputation, with the origins of its records.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use fluvial_connector::Offset;
use fluvial_protocol::journal::SplitNumber;
use proptest::prelude::*;

use crate::durable::tests::{changes, play, scripts, tick};
use crate::harness::Dataflow;
use crate::stream::Origin;

type Record = (u8, u16);
type Out = (Record, Origin);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_first_record_of_each_key_passes_as_naive_recomputation_says(
        script in scripts(proptest::collection::vec((0u8..12, any::<u16>()), 0..4)),
    ) {
        let test = play(&script, Dataflow::new(script.workers, |scope| {
            let lists = scope.input::<Vec<Record>>("in");
            let single = lists.clone().filter(|list| !list.is_empty()).map(|list| list[0]);
            scope.output("single", single.dedup("single-seen").with_origins().keep_all("single"));
            let several = lists.flat_map(|list| list).dedup("several-seen");
            scope.output("several", several.clone().with_origins().keep_all("several"));
            // What one input record became is numbered again.
            scope.output("twice", several.flat_map(|record| [record, record]).with_origins().keep_all("twice"));
        }));
        let mut fed = 0u64;
        let [mut of_single, mut of_several] = [(); 2].map(|()| BTreeSet::new());
        let [mut single, mut several, mut twice] = [(); 3].map(|()| Vec::<Out>::new());
        let mut tables = [(); 3].map(|()| Vec::new());
        for lists in &script.ticks {
            let mut ordered: Vec<_> = lists.iter().map(|list| { fed += 1; ((fed - 1) as u32 % 4, (fed - 1) / 4, list) }).collect();
            ordered.sort();
            let mut numbers: BTreeMap<(u32, u64), u32> = BTreeMap::new();
            for (split, offset, list) in ordered {
                let origin = |index| Origin { index, ..Origin::read(SplitNumber(split), Offset(offset)) };
                single.extend(list.first().filter(|(key, _)| of_single.insert(*key)).map(|record| (*record, origin(0))));
                for (index, record) in (0..).zip(list) {
                    if of_several.insert(record.0) {
                        several.push((*record, origin(index)));
                        let next = numbers.entry((split, offset)).or_default();
                        twice.extend([0, 1].map(|more| (*record, origin(*next + more))));
                        *next += 2;
                    }
                }
            }
            for (tables, rows) in tables.iter_mut().zip([&single, &several, &twice]) {
                let mut rows = rows.clone();
                rows.sort_unstable();
                tables.push(rows);
            }
        }
        for (output, tables) in ["single", "several", "twice"].into_iter().zip(tables) {
            prop_assert_eq!(test.updates::<Out>(output), changes(tables.into_iter()), "{}", output);
        }
    }
}

/// What a stream emits again after a restart would be kept twice.
#[test]
fn nothing_is_emitted_again_after_a_restart_and_what_was_seen_stays_seen() {
    let mut test = Dataflow::new(2, |scope| {
        let firsts = scope.input::<(String, u32)>("in").dedup("seen");
        scope.output("out", firsts.keep_all("out"));
    });
    let record = |key: &str, value: u32| (key.to_owned(), value);
    test.feed("in", tick(0), [record("a", 1), record("b", 1), record("a", 2)]);
    test.advance_past(tick(0));
    for workers in [3, 1, 2] {
        test.restart(workers);
    }
    test.feed("in", tick(1), [record("b", 3), record("c", 3)]);
    test.advance_past(tick(1));
    assert_eq!(test.table::<(String, u32)>("out"), [record("a", 1), record("b", 1), record("c", 3)]);
}

#[test]
fn the_first_of_a_tick_is_the_first_in_the_order_of_splits_and_offsets() {
    for workers in [1, 3] {
        let mut test = Dataflow::new(workers, |scope| {
            let firsts = scope.input::<(u8, u8)>("in").dedup("seen");
            scope.output("out", firsts.keep_all("out"));
        });
        // The harness gives them the splits 0, 1, 2, 3, 0: the fifth comes after the first in split 0, before the others.
        test.feed("in", 1, [(0u8, 0u8), (1, 1), (1, 2), (1, 3), (1, 4)]);
        test.advance_past(1);
        assert_eq!(test.table::<(u8, u8)>("out"), [(0, 0), (1, 4)]);
    }
}
