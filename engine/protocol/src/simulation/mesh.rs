//! What the workers of one simulated generation exchange, tick by tick.

use std::collections::{BTreeMap, VecDeque};

use fluvial_connector::Tick;

use crate::journal::{Binding, Range, SplitNumber};

/// The ticks that are under way, by their number within the generation.
#[derive(Default)]
pub(super) struct Mesh {
    /// What workers have read for the first time: split, offset and key.
    pub(super) delivered: BTreeMap<(SplitNumber, u64), u8>,
    first: usize,
    ticks: VecDeque<MeshTick>,
}

/// A tick on its way through the dataflow.
pub(super) struct MeshTick {
    pub(super) tick: Tick,
    pub(super) checkpoint: bool,
    /// What the records of each key say together.
    pub(super) deltas: BTreeMap<u8, u64>,
    /// What each output partition gets.
    pub(super) outputs: BTreeMap<u32, Vec<(u8, u64)>>,
    /// How many workers have read their splits, counted their keys, handed on their partitions' output.
    pub(super) released: u32,
    pub(super) processed: u32,
    pub(super) emitted: u32,
}

impl Mesh {
    /// What workers have read of a range for the first time.
    pub(super) fn delivered(&self, range: &Range) -> Vec<(u64, u8)> {
        let within = (range.split, range.from.0)..(range.split, range.to.0);
        self.delivered.range(within).map(|((_, offset), key)| (*offset, *key)).collect()
    }

    /// The tick of that number, which `binding` binds.
    pub(super) fn tick(&mut self, number: usize, binding: &Binding) -> &mut MeshTick {
        if number == self.first + self.ticks.len() {
            self.ticks.push_back(MeshTick {
                tick: binding.tick,
                checkpoint: binding.checkpoint,
                deltas: BTreeMap::new(),
                outputs: BTreeMap::new(),
                released: 0,
                processed: 0,
                emitted: 0,
            });
        }
        &mut self.ticks[number - self.first]
    }

    /// The tick of that number, if anyone has read for it.
    pub(super) fn at(&mut self, number: usize) -> Option<&mut MeshTick> {
        self.ticks.get_mut(number - self.first)
    }

    /// Forgets what all workers are through with.
    pub(super) fn trim(&mut self, workers: u32) {
        while self.ticks.pop_front_if(|tick| tick.emitted == workers).is_some() {
            self.first += 1;
        }
    }
}
