//! Tests that the rest of a compacted input is compared with what the journal says was read of it.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use fluvial_connector::{Offset, Record, Slot, SplitReader, SplitStatus, Waker};
use fluvial_memory::{Memory, MemorySource};

use super::super::tests::{Nowhere, binding, open, range, start, state, topic};
use super::super::{ReadOptions, SourceDriver, Volume};
use super::*;
use crate::job::source::{DeclaredSource, OnMalformed};
use crate::runtime::ambient;

/// A source that may be compacted, and that some records are gone of.
struct Gone {
    source: MemorySource,
    offsets: Vec<u64>,
    compaction: Option<Compaction>,
}

/// Reads it.
struct Left {
    reader: Box<dyn SplitReader>,
    offsets: Vec<u64>,
}

impl Source for Gone {
    fn describe(&self) -> String {
        self.source.describe()
    }

    fn splits(&self, patience: Duration) -> Result<Vec<SplitStatus>, Error> {
        self.source.splits(patience)
    }

    fn reader(&self, waker: Waker) -> Result<Box<dyn SplitReader>, Error> {
        Ok(Box::new(Left { reader: self.source.reader(waker)?, offsets: self.offsets.clone() }))
    }

    fn compaction(&self, _: Duration) -> Result<Option<Compaction>, Error> {
        Ok(self.compaction.clone())
    }
}

impl SplitReader for Left {
    fn start(&mut self, slot: Slot, split: &SplitId, from: Offset) -> Result<(), Error> {
        self.reader.start(slot, split, from)
    }

    fn set_paused(&mut self, slot: Slot, paused: bool) -> Result<(), Error> {
        self.reader.set_paused(slot, paused)
    }

    fn poll(&mut self, most: usize, take: &mut dyn FnMut(Slot, Record<'_>)) -> Result<usize, Error> {
        let offsets = &self.offsets;
        self.reader.poll(most, &mut |slot, record| {
            if !offsets.contains(&record.offset.0) {
                take(slot, record);
            }
        })
    }

    fn position(&self, slot: Slot) -> Offset {
        self.reader.position(slot)
    }
}

/// A driver of a source in which these records are gone.
fn driver(memory: &Memory, gone: &[u64], deletions_kept: Option<Duration>, compare: Compare) -> SourceDriver {
    let compaction =
        deletions_kept.map(|deletions_kept| Compaction { deletions_kept, cure: "a longer lag".to_owned() });
    let source = Gone { source: memory.source("in"), offsets: gone.to_vec(), compaction };
    let declared = DeclaredSource {
        name: "in".to_owned(),
        source: Arc::new(source),
        input: Box::new(Nowhere),
        on_malformed: OnMalformed::Fail,
        only_newest: true,
    };
    let options = ReadOptions {
        most_waiting: Volume { records: 100, bytes: 1 << 20 },
        compare,
        cannot_correct: None,
        patience: Duration::ZERO,
    };
    SourceDriver::new(0, 1, options, None, vec![declared], &Waker::new(|| ())).unwrap()
}

const DAY: Option<Duration> = Some(Duration::from_secs(24 * 3600));

#[test]
fn of_what_a_checkpoint_holds_only_a_source_that_is_compacted_may_have_lost_records_and_no_others_may_stand_there() {
    let check = |values: &[&str], gone: &[u64], kept: Option<Duration>, fits: bool| {
        let topic = topic(values);
        let mut driver = driver(&topic, gone, kept, Compare::All);
        driver.resume(&state(3, Some(range(0, &["a", "b", "c"])))).unwrap();
        open(&mut driver, &topic, &[]).unwrap();
        let read = driver.read();
        assert_eq!(read.is_ok(), fits, "{values:?} without {gone:?}, {kept:?}: {:?}", read.map_err(|f| f.line()));
        if fits {
            assert!(driver.verified());
            assert_eq!(driver.report().unwrap().0, [range(3, &["d"])]);
        }
    };
    check(&["a", "b", "c", "d"], &[], DAY, true);
    check(&["a", "b", "c", "d"], &[1], DAY, true);
    check(&["a", "b", "c", "d"], &[0, 1, 2], Some(Duration::ZERO), true);
    check(&["a", "b", "c", "d"], &[1], None, false);
    check(&["a", "x", "c", "d"], &[], DAY, false);
}

#[test]
fn what_has_to_be_read_again_goes_no_further_than_what_is_gone_until_the_next_generation() {
    let values = ["a", "b", "c", "d", "e"];
    let memory = topic(&values);
    let bindings = [binding(1, range(0, &["a", "b"])), binding(2, range(2, &["c", "d"])), binding(3, range(4, &["e"]))];
    let mut driver = self::driver(&memory, &[2], DAY, Compare::All);
    driver.begin(&start(), None).unwrap();
    open(&mut driver, &memory, &bindings).unwrap();
    for _ in 0..3 {
        driver.read().unwrap();
    }
    assert_eq!(driver.replay_next().map(|binding| binding.tick.0), Some(1));
    assert!(driver.replay_next().is_none(), "the second tick is not what it was");
    assert!(driver.compacted().unwrap().contains("holds only 1 of the 2 records at offsets 2 to 3"));
    assert!(driver.report().is_none(), "nothing more is read");

    let mut driver = self::driver(&memory, &[2], DAY, Compare::AllButCompacted);
    driver.begin(&start(), None).unwrap();
    open(&mut driver, &memory, &bindings).unwrap();
    driver.read().unwrap();
    let ticks = std::iter::from_fn(|| driver.replay_next()).map(|binding| binding.tick.0);
    assert_eq!(ticks.collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(driver.compacted(), None);
}

#[test]
fn where_a_row_of_the_checkpoint_may_have_lost_its_deletion_nothing_goes_on() {
    for compare in [Compare::All, Compare::AllButCompacted] {
        for (caught_up_ms, fits) in [(0, false), (ambient::now_ms() - 13 * 3_600_000, false), (ambient::now_ms(), true)]
        {
            let topic = topic(&["a", "b", "c"]);
            let mut driver = driver(&topic, &[1], DAY, compare);
            driver.resume(&fluvial_protocol::manifest::SplitState { caught_up_ms, ..state(1, None) }).unwrap();
            open(&mut driver, &topic, &[binding(5, range(1, &["b", "c"]))]).unwrap();
            match driver.read() {
                Ok(_) => assert!(fits, "{compare:?} {caught_up_ms}"),
                Err(failure) => {
                    let why = failure.line();
                    assert!(!fits && why.contains("deletions") && why.contains("a longer lag"), "{why}");
                }
            }
        }
    }
}
