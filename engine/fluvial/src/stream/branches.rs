//! What is known of the origins of a stream's records while a job is built.

/// What the [`Origin`](super::Origin)s of a stream's records can be.
///
/// The records that one input record has become within one branch are always on one worker, one after the other: `flat_map`
/// numbers them by counting. Where there is at most one, an operator may distribute the records by key and this stays so;
/// otherwise they have to be gathered afterwards ([`Stream::by_key`](super::Stream::by_key)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Branches {
    /// The number of branches that unions have merged into the stream. The branch numbers of its records' origins are smaller.
    pub(super) count: u32,
    /// Whether one input record can have become several records within one branch.
    pub(super) several: bool,
}

impl Branches {
    /// Those of a source: each record is one input record.
    pub(super) fn of_source() -> Self {
        Self { count: 1, several: false }
    }

    /// Those of a stream in which one record can have become several.
    pub(super) fn several(self) -> Self {
        Self { several: true, ..self }
    }

    /// Those of a union. The branches of `other` come after these.
    pub(super) fn and(self, other: Self) -> Self {
        Self { count: self.count + other.count, several: self.several || other.several }
    }
}
