//! Records of an output whose bytes lie one after the other in one buffer.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::OutputRecord;

/// Records of an output, in an order, in one buffer: a record costs no allocation of its own.
///
/// ```
/// use fluvial_connector::{OutputBlock, OutputRecord};
///
/// let mut block = OutputBlock::default();
/// block.push(b"tea", Some(b"3"));
/// block.push(b"jam", None);
/// let records: Vec<OutputRecord> = block.iter().map(|record| record.to_record()).collect();
/// assert_eq!(records[1], OutputRecord { key: b"jam".to_vec(), value: None });
/// ```
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OutputBlock {
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// Where a record lies in the buffer of its block: its value follows its key.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Place {
    key: usize,
    value: usize,
    /// The end of the value; [`Place::DELETED`] where there is none.
    end: usize,
}

impl Place {
    const DELETED: usize = usize::MAX;
}

/// One message of an output, in the buffer of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputRecordRef<'a> {
    /// The message's key.
    pub key: &'a [u8],
    /// The message's value; `None` deletes the key.
    pub value: Option<&'a [u8]>,
}

impl OutputRecordRef<'_> {
    /// How many bytes key and value have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.map_or(0, <[u8]>::len)
    }

    /// A record of its own, with a copy of the bytes.
    #[must_use]
    pub fn to_record(&self) -> OutputRecord {
        OutputRecord { key: self.key.to_vec(), value: self.value.map(<[u8]>::to_vec) }
    }
}

impl OutputBlock {
    /// An empty block with room for so many records and for so many bytes of keys and values.
    #[must_use]
    pub fn with_capacity(records: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), places: Vec::with_capacity(records) }
    }

    /// Adds a record at the end.
    pub fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(key);
        let middle = self.bytes.len();
        let end = match value {
            Some(value) => {
                self.bytes.extend_from_slice(value);
                self.bytes.len()
            }
            None => Place::DELETED,
        };
        self.places.push(Place { key: begin, value: middle, end });
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many bytes their keys and values have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The record at this place in the order.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<OutputRecordRef<'_>> {
        self.places.get(index).map(|place| self.at(*place))
    }

    /// The records.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = OutputRecordRef<'_>> + Clone {
        self.places.iter().map(|place| self.at(*place))
    }

    /// Those at these places in the order.
    ///
    /// # Panics
    /// There are no records at some of these places.
    pub fn range(&self, places: Range<usize>) -> impl ExactSizeIterator<Item = OutputRecordRef<'_>> + Clone {
        self.places[places].iter().map(|place| self.at(*place))
    }

    fn at(&self, place: Place) -> OutputRecordRef<'_> {
        let key = &self.bytes[place.key..place.value];
        OutputRecordRef { key, value: (place.end != Place::DELETED).then(|| &self.bytes[place.value..place.end]) }
    }
}

impl PartialEq for OutputBlock {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for OutputBlock {}

impl FromIterator<OutputRecord> for OutputBlock {
    fn from_iter<I: IntoIterator<Item = OutputRecord>>(records: I) -> Self {
        let mut block = Self::default();
        records.into_iter().for_each(|record| block.push(&record.key, record.value.as_deref()));
        block
    }
}

impl From<Vec<OutputRecord>> for OutputBlock {
    fn from(records: Vec<OutputRecord>) -> Self {
        records.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn records_are_what_was_added_whether_empty_or_deleted() {
        let mut block = OutputBlock::default();
        block.push(b"", Some(b""));
        block.push(b"k", None);
        block.push(b"key", Some(b"value"));
        block.push(b"z", Some(b"y"));
        let record = |key: &str, value: Option<&str>| OutputRecord {
            key: key.as_bytes().to_vec(),
            value: value.map(|value| value.as_bytes().to_vec()),
        };
        let expected = [record("", Some("")), record("k", None), record("key", Some("value")), record("z", Some("y"))];
        let of_block: Vec<_> = block.iter().map(|record| record.to_record()).collect();
        assert_eq!(of_block, expected);
        assert_eq!(block.range(1..3).map(|record| record.to_record()).collect::<Vec<_>>(), expected[1..3]);
        assert_eq!((block.len(), block.bytes()), (4, 11));
        let json = serde_json::to_vec(&block).unwrap();
        assert_eq!(serde_json::from_slice::<OutputBlock>(&json).unwrap(), block);
    }
}
