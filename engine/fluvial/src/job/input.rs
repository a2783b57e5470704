//! The beginning of the dataflow: decoded records of one source, waiting for their tick.
//!
//! ```text
//!  reader ──take──► open segment ──cut(to)──► closed segments ──release(to)──► the tick's ──send(tick)──► dataflow
//! ```
//!
//! A segment is what one reported range holds; a tick's ranges are made of whole segments, so a segment goes into the
//! dataflow without being copied.

use std::collections::VecDeque;

use fluvial_connector::format::DecodeError;
use fluvial_connector::{Offset, Record, Slot, SplitId};
use fluvial_protocol::journal::SplitNumber;
use timely::dataflow::InputHandleVec;

use crate::stream::Origin;

/// One source's way into the dataflow on one worker, whatever its records are.
pub(crate) trait SourceInput {
    /// Makes room for a split; its slot is the number of splits added before.
    fn add_split(&mut self, number: SplitNumber, name: &SplitId);

    /// Decodes a record into the split's open segment.
    fn take(&mut self, slot: Slot, record: &Record<'_>) -> Result<(), DecodeError>;

    /// Closes the split's open segment: it holds all records before `to`.
    fn cut(&mut self, slot: Slot, to: Offset);

    /// Drops what is in the split's open segment.
    fn discard(&mut self, slot: Slot);

    /// Adds the split's segments that end at or before `to` to the next tick.
    fn release(&mut self, slot: Slot, to: Offset);

    /// Sends the next tick's segments at `tick`; nothing more follows at it.
    fn send(&mut self, tick: u64);
}

/// The records of one split that wait.
struct Waiting<T> {
    number: SplitNumber,
    name: SplitId,
    open: Vec<(T, Origin)>,
    closed: VecDeque<(Offset, Vec<(T, Origin)>)>,
}

/// The one implementation of [`SourceInput`].
pub(crate) struct TypedInput<T: Clone + 'static, D> {
    decode: D,
    handle: InputHandleVec<u64, (T, Origin)>,
    splits: Vec<Waiting<T>>,
    released: Vec<Vec<(T, Origin)>>,
}

impl<T: Clone + 'static, D> TypedInput<T, D> {
    pub(crate) fn new(decode: D, handle: InputHandleVec<u64, (T, Origin)>) -> Self {
        Self { decode, handle, splits: Vec::new(), released: Vec::new() }
    }
}

impl<T: Clone + 'static, D: Fn(&Record<'_>) -> Result<T, DecodeError>> SourceInput for TypedInput<T, D> {
    fn add_split(&mut self, number: SplitNumber, name: &SplitId) {
        self.splits.push(Waiting { number, name: name.clone(), open: Vec::new(), closed: VecDeque::new() });
    }

    fn take(&mut self, slot: Slot, record: &Record<'_>) -> Result<(), DecodeError> {
        let waiting = &mut self.splits[slot.0 as usize];
        let item = (self.decode)(&Record { split: Some(&waiting.name), ..*record })?;
        let origin = Origin { split: waiting.number, index: 0, offset: record.offset };
        waiting.open.push((item, origin));
        Ok(())
    }

    fn cut(&mut self, slot: Slot, to: Offset) {
        let waiting = &mut self.splits[slot.0 as usize];
        if !waiting.open.is_empty() {
            waiting.closed.push_back((to, std::mem::take(&mut waiting.open)));
        }
    }

    fn discard(&mut self, slot: Slot) {
        self.splits[slot.0 as usize].open.clear();
    }

    fn release(&mut self, slot: Slot, to: Offset) {
        let closed = &mut self.splits[slot.0 as usize].closed;
        while let Some((_, segment)) = closed.pop_front_if(|(end, _)| *end <= to) {
            self.released.push(segment);
        }
    }

    fn send(&mut self, tick: u64) {
        self.handle.advance_to(tick);
        for mut segment in self.released.drain(..) {
            self.handle.send_batch(&mut segment);
        }
        self.handle.advance_to(tick + 1);
    }
}
