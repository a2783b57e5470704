//! The engine's own aggregates obey the laws, and aggregates that break one of them are found.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use fluvial_connector::BoxError;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::{check_aggregate, check_retraction};
use crate::durable::{
    Aggregate, Average, Collect, Count, CountDistinct, ExactFloat, First, Last, Max, MaxBy, Min, MinBy, Origin,
    Overflow, Retract, Sum, Top,
};

/// Values of several records: many are equal in the first field, some in all.
const RECORDS: [(i64, Option<u8>); 7] =
    [(5, None), (7, Some(1)), (7, Some(2)), (7, None), (-3, Some(1)), (5, None), (i64::MAX, Some(0))];

type Record = (i64, Option<u8>);

fn both(aggregate: &impl Retract<Record>) {
    check_aggregate(aggregate, RECORDS);
    check_retraction(aggregate, RECORDS);
}

#[test]
fn every_aggregate_of_the_engine_obeys_the_laws() {
    both(&Count);
    both(&Sum(|record: &Record| record.0));
    both(&Sum(|record: &Record| Decimal::new(record.0, 3)));
    both(&Sum(|record: &Record| ExactFloat::from(record.0 as f64 / 3.0)));
    both(&Average(|record: &Record| record.0));
    both(&Min(|record: &Record| record.0));
    both(&Max(|record: &Record| record.1));
    both(&MinBy(|record: &Record| record.0));
    both(&MaxBy(|record: &Record| record.0));
    both(&Top::new(1, |record: &Record| record.0));
    both(&Top::new(3, |record: &Record| record.0));
    both(&Collect(|record: &Record| record.1));
    both(&CountDistinct(|record: &Record| record.1));
    check_aggregate(&First(|record: &Record| *record), RECORDS);
    check_aggregate(&Last(|record: &Record| record.1), RECORDS);
}

#[test]
fn filtered_and_combined_aggregates_obey_the_laws() {
    let small = |record: &Record| record.0 < 6;
    both(&Count.when(small));
    both(&Sum(|record: &Record| Decimal::new(record.0, 3)).when(small));
    both(&Average(|record: &Record| Decimal::new(record.0, 3)).when(small));
    both(&Max(|record: &Record| record.1).when(small).when(|record: &Record| record.1.is_some()));
    both(&(Count, Max(|record: &Record| record.1)).when(small));
    both(&(
        (Count, Top::new(2, |record: &Record| record.0).when(small)),
        Collect(|record: &Record| record.0).when(small),
        CountDistinct(|record: &Record| *record).when(small),
    ));
    check_aggregate(&(Last(|record: &Record| record.1).when(small), Count), RECORDS);
}

/// An aggregate of numbers whose parts are given. Its state is a list of numbers.
struct Made {
    add: fn(&mut Vec<u64>, u64),
    settle: fn(&mut Vec<u64>, Vec<u64>),
    output: fn(&[u64]) -> u64,
}

impl Aggregate<u64> for Made {
    type Total = Vec<u64>;
    type State = Vec<u64>;
    type Out = u64;
    type Filtered = Option<u64>;

    fn describe(&self) -> String {
        "made".to_owned()
    }

    fn add(&self, total: &mut Vec<u64>, value: &u64, _: Origin) {
        (self.add)(total, *value);
    }

    fn settle(&self, state: &mut Vec<u64>, total: Vec<u64>) -> Result<(), Overflow> {
        (self.settle)(state, total);
        Ok(())
    }

    fn output(&self, state: &Vec<u64>) -> u64 {
        (self.output)(state)
    }

    fn filtered(&self, out: Option<u64>) -> Option<u64> {
        out
    }
}

fn append(state: &mut Vec<u64>, mut total: Vec<u64>) {
    state.append(&mut total);
}

#[test]
#[should_panic(expected = "depends on the order of the records within a tick")]
fn an_aggregate_that_depends_on_the_order_of_arrival_is_found() {
    let last = |state: &[u64]| state.last().copied().unwrap();
    check_aggregate(&Made { add: Vec::push, settle: append, output: last }, [1, 2, 3]);
}

#[test]
#[should_panic(expected = "depends on how the records are divided into ticks")]
fn an_aggregate_that_depends_on_the_number_of_ticks_is_found() {
    // The sum of the greatest value of each tick.
    let add = |total: &mut Vec<u64>, value| *total = vec![total.first().copied().unwrap_or(0).max(value)];
    check_aggregate(&Made { add, settle: append, output: |state| state.iter().sum() }, [1, 2, 3]);
}

#[test]
#[should_panic(expected = "depends on how the records are divided into ticks")]
fn an_aggregate_that_forgets_earlier_ticks_is_found() {
    let settle = |state: &mut Vec<u64>, total| *state = total;
    check_aggregate(&Made { add: Vec::push, settle, output: |state| state.iter().sum() }, [1, 2, 3]);
}

#[test]
#[should_panic(expected = "cannot be tried without values")]
fn laws_are_not_tried_on_nothing() {
    check_aggregate(&Count, Vec::<u64>::new());
}

/// A maximum whose state, and what it keeps of a collection's rows, are given types.
struct Forgetful;

/// It is not stored.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Unstored(#[serde(skip)] u64, bool);

impl Aggregate<u64> for Forgetful {
    type Total = u64;
    type State = Unstored;
    type Out = u64;
    type Filtered = u64;

    fn describe(&self) -> String {
        "forgetful".to_owned()
    }

    fn add(&self, total: &mut u64, value: &u64, _: Origin) {
        *total = (*total).max(*value);
    }

    fn settle(&self, state: &mut Unstored, total: u64) -> Result<(), Overflow> {
        state.0 = state.0.max(total);
        Ok(())
    }

    fn output(&self, state: &Unstored) -> u64 {
        state.0
    }

    fn filtered(&self, out: Option<u64>) -> u64 {
        out.unwrap_or(0)
    }
}

#[test]
#[should_panic(expected = "is not read from a checkpoint as it was written")]
fn a_state_that_is_not_stored_as_a_whole_is_found() {
    check_aggregate(&Forgetful, [1, 2, 3]);
}

/// The number of distinct values, with what it keeps of them under retraction as given.
struct Distinct<I>(fn(&mut I, u64, i64), fn(&I) -> usize);

impl<I: 'static> Aggregate<u64> for Distinct<I> {
    type Total = BTreeSet<u64>;
    type State = BTreeSet<u64>;
    type Out = u64;
    type Filtered = u64;

    fn describe(&self) -> String {
        "distinct".to_owned()
    }

    fn add(&self, total: &mut BTreeSet<u64>, value: &u64, _: Origin) {
        total.insert(*value);
    }

    fn settle(&self, state: &mut BTreeSet<u64>, total: BTreeSet<u64>) -> Result<(), Overflow> {
        state.extend(total);
        Ok(())
    }

    fn output(&self, state: &BTreeSet<u64>) -> u64 {
        state.len() as u64
    }

    fn filtered(&self, out: Option<u64>) -> u64 {
        out.unwrap_or(0)
    }
}

impl<I: Default + PartialEq + 'static> Retract<u64> for Distinct<I> {
    type Change = Vec<(u64, i64)>;
    type Index = I;

    fn add_times(&self, change: &mut Self::Change, value: &u64, times: i64) -> Result<(), Overflow> {
        change.push((*value, times));
        Ok(())
    }

    fn apply(&self, index: &mut I, change: Self::Change) -> Result<(), BoxError> {
        change.into_iter().for_each(|(value, times)| (self.0)(index, value, times));
        Ok(())
    }

    fn result(&self, index: &I) -> u64 {
        (self.1)(index) as u64
    }
}

#[test]
#[should_panic(expected = "is not that of the rows that are left")]
fn an_aggregate_that_forgets_how_often_a_row_is_there_is_found() {
    let change = |rows: &mut BTreeSet<u64>, value, times: i64| {
        if times > 0 {
            rows.insert(value)
        } else {
            rows.remove(&value)
        };
    };
    check_retraction(&Distinct(change, BTreeSet::len), [1, 2, 3]);
}

#[test]
#[should_panic(expected = "keeps something of rows that are gone")]
fn an_aggregate_that_keeps_rows_that_are_gone_is_found() {
    let change = |rows: &mut std::collections::BTreeMap<u64, i64>, value, times: i64| {
        *rows.entry(value).or_insert(0) += times;
    };
    let present = |rows: &std::collections::BTreeMap<u64, i64>| rows.values().filter(|times| **times > 0).count();
    check_retraction(&Distinct(change, present), [1, 2, 3]);
}
