//! The order of records within a tick.

use fluvial_connector::Offset;
use serde::{Deserialize, Serialize};

use fluvial_protocol::journal::SplitNumber;

/// The number of bits of [`Origin::index`] that number the records which one input record became within one branch.
const SEQUENCE_BITS: u32 = 24;

/// The most branches that unions may join into one stream.
pub(crate) const MOST_BRANCHES: u32 = 1 << (32 - SEQUENCE_BITS);

/// Where a record of a [`Stream`](crate::Stream) comes from: its place in the total order of the records of a tick.
///
/// The order is that of source, split and offset, and then that in which operators made several records of one. It is never
/// that of arrival. No two records of a stream have the same origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The split that the input record was read from.
    pub(crate) split: SplitNumber,
    /// The offset of the input record in that split.
    pub(crate) offset: Offset,
    /// Tells apart what one input record became: the upper 8 bits say by which branch of a union it came, the rest
    /// counts what `flat_map` made of it.
    pub(crate) index: u32,
}

impl Origin {
    /// The origin of a record that has just been read.
    #[must_use]
    pub(crate) fn read(split: SplitNumber, offset: Offset) -> Self {
        Self { split, offset, index: 0 }
    }

    pub(crate) fn branch(self) -> u32 {
        self.index >> SEQUENCE_BITS
    }

    /// The origin of the same record in a branch whose number is greater by `by`.
    pub(crate) fn shifted(self, by: u32) -> Self {
        Self { index: self.index + (by << SEQUENCE_BITS), ..self }
    }
}

/// Numbers what `flat_map` makes of the records of one branch.
///
/// The records of one origin come one after the other within a branch, so counting them needs no more than the last
/// origin that was seen; how they are cut into batches does not matter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbering {
    last: Option<(SplitNumber, Offset)>,
    next: u32,
}

impl Numbering {
    /// The origin of the next record that `parent` became; `None` after the 16,777,216th.
    pub(crate) fn next(&mut self, parent: Origin) -> Option<Origin> {
        if self.last != Some((parent.split, parent.offset)) {
            self.last = Some((parent.split, parent.offset));
            self.next = 0;
        }
        let sequence = self.next;
        self.next += 1;
        (sequence < 1 << SEQUENCE_BITS)
            .then(|| Origin { index: (parent.branch() << SEQUENCE_BITS) | sequence, ..parent })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_origin_takes_sixteen_bytes_and_orders_by_split_then_offset_then_index() {
        assert_eq!(size_of::<Origin>(), 16);
        let origin = |split, offset, index| Origin { split: SplitNumber(split), offset: Offset(offset), index };
        let sorted = [origin(0, 9, 9), origin(1, 0, 5), origin(1, 1, 0), origin(1, 1, 1)];
        assert!(sorted.is_sorted());
    }

    #[test]
    fn numbering_counts_all_that_one_record_became_within_its_branch() {
        let read = Origin::read(SplitNumber(1), Offset(7));
        let mut numbering = Numbering::default();
        let first = numbering.next(read).unwrap();
        let second = numbering.next(first.shifted(0)).unwrap();
        assert_eq!((first.index, second.index), (0, 1));
        let other = numbering.next(Origin::read(SplitNumber(1), Offset(8)).shifted(3)).unwrap();
        assert_eq!(other.index, 3 << 24);
        assert!(first < second && second < other);
    }

    #[test]
    fn more_records_than_the_index_can_number_are_noticed() {
        let mut numbering = Numbering { last: Some((SplitNumber(0), Offset(0))), next: (1 << 24) - 1 };
        let read = Origin::read(SplitNumber(0), Offset(0));
        assert!(numbering.next(read).is_some());
        assert!(numbering.next(read).is_none());
    }
}
