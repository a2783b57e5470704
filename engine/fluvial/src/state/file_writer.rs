//! Writing a state file: a Parquet file, with a checksum for each row group and one for the whole.
//!
//! ```text
//!   row group 0 │ row group 1 │ … │ footer: Parquet's own, and our FileInfo as JSON under "fluvial.state"
//!   ──crc32───── ──crc32─────      ──────────────────────────────────────────────────────────────────
//!   ───────────────────────── crc32 in the manifest's StateFile ────────────────────────────────────────
//! ```
//!
//! The checksum of the whole follows from those of the parts, so a reader checks the footer against the manifest
//! without reading the rest, and then each row group that it reads against the footer.

use std::io::Write;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use fluvial_connector::BoxError;
use fluvial_protocol::manifest::OperatorKind;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use serde::{Deserialize, Serialize};

use super::routing::ROUTING_HASH_VERSION;

/// The newest version of the format, which is written.
pub(super) const FORMAT: u32 = 1;
/// The key of our [`FileInfo`] in the footer's metadata.
pub(super) const INFO_KEY: &str = "fluvial.state";

/// The approximate maximum number of rows of a row group.
const GROUP_ROWS: usize = 1 << 16;
/// The approximate maximum number of encoded bytes of a row group.
const GROUP_BYTES: usize = 8 << 20;

/// What the footer stores about a state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileInfo {
    pub(super) format: u32,
    /// The version of the routing hash.
    pub(super) hash: u32,
    /// The operator's name.
    pub(super) operator: String,
    pub(super) kind: OperatorKind,
    pub(super) groups: Vec<GroupInfo>,
}

/// What the footer stores about a row group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GroupInfo {
    /// The offset in the file at which the row group ends.
    pub(super) end: u64,
    pub(super) rows: u64,
    /// The checksum of the bytes since the end of the group before.
    pub(super) crc32: u32,
    /// The smallest hash; 0 if rows have no keys. `last_hash` is the greatest.
    pub(super) first_hash: u64,
    pub(super) last_hash: u64,
}

/// A state file that has been written completely.
pub(super) struct Written<W> {
    pub(super) to: W,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) crc32: u32,
}

/// Writes batches into row groups.
pub(super) struct FileWriter<W: Write + Send> {
    parquet: ArrowWriter<Summed<W>>,
    info: FileInfo,
    group_hashes: Option<(u64, u64)>,
}

impl<W: Write + Send> FileWriter<W> {
    pub(super) fn new(to: W, operator: &str, kind: &OperatorKind, schema: SchemaRef) -> Result<Self, BoxError> {
        let properties = WriterProperties::builder()
            .set_created_by(concat!("fluvial ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::SNAPPY)
            // Dictionaries and min/max statistics take a third of the time of writing. Without dictionaries, columns of few values take
            // more room; without statistics, queries of other programs read whole files.
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_offset_index_disabled(true)
            .set_max_row_group_row_count(None)
            .build();
        let parquet = ArrowWriter::try_new(Summed::new(to), schema, Some(properties))?;
        let info = FileInfo {
            format: FORMAT,
            hash: ROUTING_HASH_VERSION,
            operator: operator.to_owned(),
            kind: kind.clone(),
            groups: Vec::new(),
        };
        Ok(Self { parquet, info, group_hashes: None })
    }

    /// Adds rows; `hashes` are their smallest and their greatest hash.
    pub(super) fn write(&mut self, batch: &RecordBatch, hashes: (u64, u64)) -> Result<(), BoxError> {
        self.parquet.write(batch)?;
        let first = self.group_hashes.map_or(hashes.0, |(first, _)| first);
        self.group_hashes = Some((first, hashes.1));
        if self.parquet.in_progress_rows() >= GROUP_ROWS || self.parquet.in_progress_size() >= GROUP_BYTES {
            self.end_group()?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Written<W>, BoxError> {
        self.end_group()?;
        let rows = self.info.groups.iter().map(|group| group.rows).sum();
        let info = serde_json::to_string(&self.info)?;
        self.parquet.append_key_value_metadata(KeyValue::new(INFO_KEY.to_owned(), info));
        let sink = self.parquet.into_inner()?;
        Ok(Written { to: sink.to, rows, bytes: sink.bytes, crc32: sink.whole.finalize() })
    }

    fn end_group(&mut self) -> Result<(), BoxError> {
        let rows = self.parquet.in_progress_rows() as u64;
        let Some((first_hash, last_hash)) = self.group_hashes.take().filter(|_| rows > 0) else { return Ok(()) };
        self.parquet.flush()?;
        self.parquet.sync()?;
        let sink = self.parquet.inner_mut();
        let crc32 = std::mem::take(&mut sink.part).finalize();
        self.info.groups.push(GroupInfo { end: sink.bytes, rows, crc32, first_hash, last_hash });
        Ok(())
    }
}

/// Counts the bytes that are written through it, and computes their checksum.
struct Summed<W> {
    to: W,
    bytes: u64,
    whole: crc32fast::Hasher,
    part: crc32fast::Hasher,
}

impl<W> Summed<W> {
    fn new(to: W) -> Self {
        Self { to, bytes: 0, whole: crc32fast::Hasher::new(), part: crc32fast::Hasher::new() }
    }
}

impl<W: Write> Write for Summed<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.bytes += written as u64;
        self.whole.update(&bytes[..written]);
        self.part.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}
