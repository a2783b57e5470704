//! Reading a state file, a row group at a time, each checked before it is used.

use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use bytes::{Buf, Bytes};
use fluvial_connector::BoxError;
use fluvial_protocol::manifest::{OperatorKind, StateFile};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use parquet::file::reader::{ChunkReader, Length};

use super::file_writer::{FORMAT, FileInfo, GroupInfo, INFO_KEY};
use super::routing::ROUTING_HASH_VERSION;
use super::{StateError, StateStore};

/// The number of bytes at the end of a file that are read first, which usually include the whole footer.
const TAIL: u64 = 64 << 10;
/// The number of rows that are decoded at once.
const BATCH_ROWS: usize = 8192;

/// A state file whose footer has been read and checked.
pub(super) struct OpenFile {
    store: StateStore,
    file: StateFile,
    metadata: ArrowReaderMetadata,
    pub(super) info: FileInfo,
}

impl OpenFile {
    pub(super) fn open(store: &StateStore, file: &StateFile, kind: Option<&OperatorKind>) -> Result<Self, StateError> {
        let damaged = |what: &str| store.damaged(file, what);
        let mut tail = store.read(file, file.bytes.saturating_sub(TAIL)..file.bytes)?;
        let not_parquet = "it does not end as a parquet file does";
        let end = tail.len().checked_sub(8).ok_or_else(|| damaged(not_parquet))?;
        if &tail[end + 4..] != b"PAR1" {
            return Err(damaged(not_parquet));
        }
        let footer = u64::from((&tail[end..end + 4]).get_u32_le()) + 8;
        if footer > file.bytes {
            return Err(damaged("its footer is longer than the file"));
        }
        if footer > tail.len() as u64 {
            tail = store.read(file, file.bytes - footer..file.bytes)?;
        }
        let start = tail.len() - footer as usize;
        let unreadable = |error: BoxError| damaged(&format!("its footer cannot be read: {error}"));
        let metadata =
            ParquetMetaDataReader::decode_metadata(&tail[start..tail.len() - 8]).map_err(|e| unreadable(e.into()))?;
        let info = metadata
            .file_metadata()
            .key_value_metadata()
            .and_then(|pairs| pairs.iter().find(|pair| pair.key == INFO_KEY)?.value.as_deref())
            .ok_or_else(|| StateError::Unknown {
                object: store.describe(file),
                what: "it is a parquet file, but not one of fluvial's".to_owned(),
            })?;
        let version = serde_json::from_str::<Version>(info).map_err(|e| unreadable(e.into()))?;
        if version.format != FORMAT || version.hash != ROUTING_HASH_VERSION {
            return Err(StateError::Unknown {
                object: store.describe(file),
                what: format!(
                    "its format is {}, its hash {}, and this binary knows {FORMAT} and {ROUTING_HASH_VERSION}: \
                     run the binary that wrote it",
                    version.format, version.hash
                ),
            });
        }
        let info: FileInfo = serde_json::from_str(info).map_err(|e| unreadable(e.into()))?;
        let groups_end = info.groups.last().map_or(4, |group| group.end);
        if groups_end > file.bytes || metadata.num_row_groups() != info.groups.len() {
            return Err(damaged("its footer contradicts itself"));
        }
        // The file's checksum from its parts'.
        if groups_end < file.bytes - tail.len() as u64 {
            tail = store.read(file, groups_end..file.bytes)?;
        }
        let rest = &tail[tail.len() - (file.bytes - groups_end) as usize..];
        if checksum(&info.groups, rest) != Some(file.crc32) {
            return Err(damaged("its checksum is not what the checkpoint says"));
        }
        if let Some(kind) = kind.filter(|kind| **kind != info.kind) {
            return Err(StateError::Changed {
                operator: info.operator,
                stored: info.kind.to_string(),
                wanted: kind.to_string(),
            });
        }
        let metadata = ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new())
            .map_err(|e| unreadable(e.into()))?;
        Ok(Self { store: store.clone(), file: file.clone(), metadata, info })
    }

    /// Reads the bytes of one row group. Its batches are decoded as they are asked for.
    pub(super) fn read(&self, group: usize) -> Result<Batches, StateError> {
        let range = self.range(group);
        let bytes = self.store.read(&self.file, range.clone())?;
        if crc32fast::hash(&bytes) != self.info.groups[group].crc32 {
            return Err(self.damaged(format!("the checksum of bytes {} to {} does not match", range.start, range.end)));
        }
        let part = Part { start: range.start, bytes, len: self.file.bytes };
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(part, self.metadata.clone())
            .with_row_groups(vec![group])
            .with_batch_size(BATCH_ROWS)
            .build()
            .map_err(|error| self.damaged(unreadable(group, error)))?;
        Ok(Batches { group, reader })
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> StateError {
        self.store.damaged(&self.file, what)
    }

    /// Returns the error that rows of this file could not be written into another one.
    pub(super) fn unwritable(&self, source: BoxError) -> StateError {
        StateError::Encode { operator: self.info.operator.clone(), source }
    }

    pub(super) fn describe(&self) -> String {
        self.store.describe(&self.file)
    }

    pub(super) fn schema(&self) -> arrow_schema::SchemaRef {
        Arc::clone(self.metadata.schema())
    }

    fn range(&self, group: usize) -> Range<u64> {
        let start = group.checked_sub(1).map_or(0, |before| self.info.groups[before].end);
        start..self.info.groups[group].end
    }
}

/// The batches of one row group.
pub(super) struct Batches {
    group: usize,
    reader: ParquetRecordBatchReader,
}

impl Batches {
    /// Decodes the next batch of the row group, which is one of `file`.
    pub(super) fn next(&mut self, file: &OpenFile) -> Result<Option<RecordBatch>, StateError> {
        self.reader.next().transpose().map_err(|error| file.damaged(unreadable(self.group, error)))
    }
}

fn unreadable(group: usize, error: impl Display) -> String {
    format!("row group {group} cannot be read: {error}")
}

/// The part of [`FileInfo`] that every version has.
#[derive(serde::Deserialize)]
struct Version {
    format: u32,
    hash: u32,
}

/// The checksum of a file of these row groups and this rest; `None` if the groups overlap.
fn checksum(groups: &[GroupInfo], rest: &[u8]) -> Option<u32> {
    let mut whole = crc32fast::Hasher::new();
    let mut start = 0;
    for group in groups {
        let length = group.end.checked_sub(start)?;
        whole.combine(&crc32fast::Hasher::new_with_initial_len(group.crc32, length));
        start = group.end;
    }
    if groups.is_empty() {
        // The magic bytes at the start belong to no group.
        whole.update(b"PAR1");
    }
    whole.update(rest);
    Some(whole.finalize())
}

/// The bytes of one row group, with their position in the file.
struct Part {
    start: u64,
    bytes: Bytes,
    len: u64,
}

impl Length for Part {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for Part {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let start = self.within(start, 0)?;
        Ok(self.bytes.slice(start..).reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let start = self.within(start, length)?;
        Ok(self.bytes.slice(start..start + length))
    }
}

impl Part {
    fn within(&self, start: u64, length: usize) -> Result<usize, ParquetError> {
        start
            .checked_sub(self.start)
            .map(|start| start as usize)
            .filter(|start| start.checked_add(length).is_some_and(|end| end <= self.bytes.len()))
            .ok_or_else(|| ParquetError::General("a page lies outside of its row group".to_owned()))
    }
}
