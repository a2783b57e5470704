//! The output of one partition that the dataflow has handed in and that is not committed yet, in the order of its
//! ticks, with the running digest before and after each tick.

use std::collections::VecDeque;
use std::sync::Arc;

use fluvial_connector::{Digest, OutputBlock, Position, Tick};

use super::records::{TickRecords, sum};

/// How far a partition has come: all ticks before this one, and this much of it.
pub(super) type Reached = (Tick, Position);

/// How much of a tick is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// All of it.
    Complete,
    /// So many records, whose digests sum to `sum`. The sum is kept so that the next part adds to it: summing a large
    /// tick from its beginning for each of its transactions would take time that grows with the square of its size.
    Part { records: u64, sum: Digest },
}

impl Place {
    pub(super) fn position(self) -> Position {
        match self {
            Self::Complete => Position::Complete,
            Self::Part { records, .. } => Position::Records(records),
        }
    }
}

/// A tick's output in one partition.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) tick: Tick,
    pub(super) records: Arc<OutputBlock>,
    /// The running digest before the tick.
    prior: Digest,
    /// The running digest after it.
    pub(super) digest: Digest,
    /// Whether these records are the corrections of a reconciliation. No replay can repeat them, because they depend on
    /// what the output held, so the running digest leaves them out.
    corrections: bool,
}

impl Item {
    /// The place after the first `count` records, and the running digest there. `first` is an earlier place in the
    /// item, as the number of its records and the sum of their digests, from which the sum is continued.
    pub(super) fn part(&self, first: Option<(usize, Digest)>, count: usize) -> (Place, Digest) {
        let (from, mut total) = first.unwrap_or_default();
        total.add(sum(self.records.range(from..count)));
        let digest = if self.corrections { self.digest } else { self.prior.chain(self.tick, total) };
        (Place::Part { records: count as u64, sum: total }, digest)
    }
}

/// The output of one partition on its way to the sink.
#[derive(Debug)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    /// The last tick that was handed in.
    last: Tick,
    /// The digest of everything before the first item.
    before: Digest,
    /// The digest of everything handed in.
    running: Digest,
    /// A checkpoint's tick, and the digest there once a later tick has been handed in.
    mark: Option<(Tick, Option<Digest>)>,
}

impl Queue {
    /// An empty queue that follows output whose digest is `before`.
    pub(super) fn new(before: Digest) -> Self {
        Self { items: VecDeque::new(), last: Tick(0), before, running: before, mark: None }
    }

    /// Adds the output of a tick.
    ///
    /// # Errors
    /// The last tick that was handed in, if `tick` is not after it.
    pub(super) fn push(&mut self, tick: Tick, records: TickRecords, corrections: bool) -> Result<(), Tick> {
        if tick <= self.last {
            return Err(self.last);
        }
        self.last = tick;
        if let Some((marked, digest @ None)) = &mut self.mark
            && tick > *marked
        {
            *digest = Some(self.running);
        }
        let prior = self.running;
        if !corrections {
            self.running = prior.chain(tick, records.sum());
        }
        let records = Arc::new(records.into_block());
        self.items.push_back(Item { tick, records, prior, digest: self.running, corrections });
        Ok(())
    }

    /// Sets the tick whose digest [`Queue::marked`] returns. No output after `tick` has been handed in yet.
    pub(super) fn mark(&mut self, tick: Tick) {
        self.mark = Some((tick, None));
    }

    /// The digest of everything through the marked tick, all of whose output has been handed in.
    pub(super) fn marked(&self) -> Digest {
        self.mark.and_then(|(_, digest)| digest).unwrap_or(self.running)
    }

    /// The digest of everything before [`Queue::first`].
    pub(super) fn before(&self) -> Digest {
        self.before
    }

    pub(super) fn first(&self) -> Option<&Item> {
        self.items.front()
    }

    /// The first item that has output after `reached`.
    pub(super) fn next(&self, reached: Reached) -> Option<&Item> {
        self.items.get(self.items.partition_point(|item| (item.tick, Position::Complete) <= reached))
    }

    /// Drops the items that have no output after `reached`.
    pub(super) fn drop_through(&mut self, reached: Reached) {
        while let Some(item) = self.items.pop_front_if(|item| (item.tick, Position::Complete) <= reached) {
            self.before = item.digest;
        }
    }
}
