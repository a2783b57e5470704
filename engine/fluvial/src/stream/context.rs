//! What a worker is doing, for the report of a panic: which operator of the job is running, and on which input.
//!
//! The panic of a job's closure is reported with these, so that a person can find the record. The worker loop notes which
//! ticks are in the dataflow and which ranges of input they hold; operators note their name and what they know of their
//! input: the record, or the tick. All of it is per thread, because a worker is one, and the panic hook alone reads it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};

use fluvial_connector::{Offset, Tick, describe_offsets};
use fluvial_protocol::journal::{Binding, Range, SplitNumber};

use super::Origin;

/// The maximum number of ranges that a report lists.
const MOST_LISTED: usize = 8;

/// What an operator knows about the input that it is working on.
#[derive(Clone, Copy)]
enum At {
    Unknown,
    Tick(u64),
    Record(SplitNumber, Offset),
}

/// The ticks that are in the dataflow of a worker, with their ranges, and the names of the splits.
struct InDataflow {
    splits: BTreeMap<SplitNumber, String>,
    ticks: VecDeque<(Tick, Vec<Range>)>,
}

thread_local! {
    static WORKER: Cell<Option<u32>> = const { Cell::new(None) };
    static OPERATOR: Cell<Option<&'static str>> = const { Cell::new(None) };
    static AT: Cell<At> = const { Cell::new(At::Unknown) };
    static IN_DATAFLOW: RefCell<InDataflow> =
        const { RefCell::new(InDataflow { splits: BTreeMap::new(), ticks: VecDeque::new() }) };
}

/// Notes that this thread is the thread of worker `index`.
pub(crate) fn this_is_worker(index: u32) {
    WORKER.set(Some(index));
}

/// The index of the worker whose thread this is, if it is one.
pub(crate) fn worker() -> Option<u32> {
    WORKER.get()
}

/// Makes a name for [`in_operator`] of a name that is created at run time. The memory is never freed, because the operator
/// exists as long as the process.
pub(crate) fn lasting(name: String) -> &'static str {
    Box::leak(name.into_boxed_str())
}

/// Runs `logic`, a closure of the job, and notes meanwhile that the operator `name` is running.
pub(crate) fn in_operator<R>(name: &'static str, logic: impl FnOnce() -> R) -> R {
    let before = (OPERATOR.replace(Some(name)), AT.replace(At::Unknown));
    let result = logic();
    OPERATOR.set(before.0);
    AT.set(before.1);
    result
}

/// The name of the operator that is running, as [`in_operator`] was given it.
pub(crate) fn operator() -> Option<&'static str> {
    OPERATOR.get()
}

/// Notes that the operator works on what this record has become.
pub(crate) fn at_record(origin: Origin) {
    AT.set(At::Record(origin.split, origin.offset));
}

/// Notes that the operator works on all its input of this tick.
pub(crate) fn at_tick(tick: u64) {
    AT.set(At::Tick(tick));
}

/// Notes the name of a split for reports.
pub(crate) fn named(split: SplitNumber, name: String) {
    IN_DATAFLOW.with_borrow_mut(|known| known.splits.insert(split, name));
}

/// Notes that a tick is released into the dataflow.
pub(crate) fn entered(binding: &Binding) {
    IN_DATAFLOW.with_borrow_mut(|known| known.ticks.push_back((binding.tick, binding.ranges.clone())));
}

/// Notes that the dataflow has completed all ticks through this one.
pub(crate) fn left(through: Tick) {
    IN_DATAFLOW.with_borrow_mut(|known| while known.ticks.pop_front_if(|(tick, _)| *tick <= through).is_some() {});
}

/// Describes the input that the operator works on, as narrowly as it is known; `None` if no tick is in the dataflow.
pub(crate) fn described() -> Option<String> {
    let at = AT.get();
    // A panic while this is being changed would be one of the engine, and there is nothing to say then.
    IN_DATAFLOW.with(|known| known.try_borrow().ok()?.described(at))
}

impl InDataflow {
    fn described(&self, at: At) -> Option<String> {
        let ticks: Vec<_> = match at {
            At::Record(split, offset) => {
                let holds = |range: &Range| range.split == split && range.from <= offset && offset < range.to;
                let tick = self.ticks.iter().find(|(_, ranges)| ranges.iter().any(holds));
                let tick = tick.map_or(String::new(), |(tick, _)| format!(" in tick {tick}"));
                return Some(format!("on the record at offset {offset} of {}{tick}", self.name(split)));
            }
            At::Tick(at) => self.ticks.iter().filter(|(tick, _)| tick.0 == at).collect(),
            At::Unknown => self.ticks.iter().collect(),
        };
        let (first, last) = (ticks.first()?.0, ticks.last()?.0);
        let mut ranges: BTreeMap<SplitNumber, (Offset, Offset)> = BTreeMap::new();
        for range in ticks.iter().flat_map(|(_, ranges)| ranges).filter(|range| range.from < range.to) {
            let (from, to) = ranges.entry(range.split).or_insert((range.from, range.to));
            (*from, *to) = ((*from).min(range.from), (*to).max(range.to));
        }
        let listed = ranges
            .iter()
            .take(MOST_LISTED)
            .map(|(split, (from, to))| format!("{} {}", self.name(*split), describe_offsets(*from, *to)));
        let mut listed: Vec<String> = listed.collect();
        if ranges.len() > MOST_LISTED {
            listed.push(format!("{} more", ranges.len() - MOST_LISTED));
        }
        let when =
            if first == last { format!("in tick {first}") } else { format!("in one of the ticks {first} to {last}") };
        Some(if listed.is_empty() { when } else { format!("{when}, whose input is {}", listed.join(", ")) })
    }

    fn name(&self, split: SplitNumber) -> String {
        self.splits.get(&split).cloned().unwrap_or_else(|| format!("split number {}", split.0))
    }
}

#[cfg(test)]
mod tests {
    use fluvial_connector::Digest;

    use super::*;

    fn range(split: u32, from: u64, to: u64) -> Range {
        let (from, to, count) = (Offset(from), Offset(to), to - from);
        Range { split: SplitNumber(split), from, to, count, digest: Digest::default() }
    }

    #[test]
    fn input_is_named_as_narrowly_as_it_is_known() {
        let known = InDataflow {
            splits: [
                (SplitNumber(0), "topic 'a' split 0".to_owned()),
                (SplitNumber(1), "topic 'a' split 1".to_owned()),
            ]
            .into(),
            ticks: [
                (Tick(5), vec![range(0, 10, 12), range(1, 7, 8)]),
                (Tick(6), vec![range(0, 12, 13), range(1, 8, 8)]),
            ]
            .into(),
        };
        let said = |at| known.described(at).unwrap_or_default();
        assert_eq!(
            said(At::Record(SplitNumber(0), Offset(11))),
            "on the record at offset 11 of topic 'a' split 0 in tick 5"
        );
        assert_eq!(said(At::Record(SplitNumber(2), Offset(1))), "on the record at offset 1 of split number 2");
        assert_eq!(said(At::Tick(6)), "in tick 6, whose input is topic 'a' split 0 offset 12");
        assert_eq!(
            said(At::Unknown),
            "in one of the ticks 5 to 6, whose input is topic 'a' split 0 offsets 10 to 12, topic 'a' split 1 offset 7"
        );
        assert_eq!(said(At::Tick(7)), "");
    }
}
