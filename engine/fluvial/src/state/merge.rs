//! Merging state files, so that a restore reads few of them.
//!
//! ```text
//!   files, oldest first ──by hash, newest of a key wins──► one file, streamed into the store
//! ```
//!
//! **Guarantees** that the merged file has the same current row of every key as the files together, and that of each file no
//! more is in memory than one row group as it is stored and a few decoded batches. It works on columns, so that it does not need the user's types. **Does not** delete
//! the merged files, because a complete checkpoint still refers to them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_row::{RowConverter, Rows, SortField};
use arrow_select::interleave::interleave_record_batch;
use fluvial_connector::BoxError;
use fluvial_protocol::manifest::{OperatorState, StateFile};

use super::file_reader::{Batches, OpenFile};
use super::file_writer::FileWriter;
use super::rows::KeyedBatch;
use super::upload::Upload;
use super::{StateError, StateStore};
use crate::fail_point::{FailPoint, reach};

/// The number of files of about the same size that are merged into one.
const FAN_IN: usize = 12;
/// The number of checkpoints that are merged into one file at the least: each of them has a file of each worker.
const CHECKPOINTS: usize = 4;
/// The number of files above which no more of them are waited for: a restore opens all of them.
const MOST_FILES: usize = 96;
/// The number of rows per key above which all files are merged: most rows are then older ones of keys that have changed since.
const ROWS_PER_KEY: u64 = 4;
/// The number of rows that are written to the merged file at once.
const BATCH_ROWS: usize = 8192;

/// Returns which files of an operator with so many `keys` on so many `workers` should be merged now, if any: a range of neighbours
/// in [`OperatorState::files`].
///
/// Starting with the newest file, a file belongs to the range as long as it is at most 1.5 times as large as all newer files
/// together; ranges of at least twelve files are merged, and of at least four checkpoints or 96 files. A row is therefore rewritten only when the size of its file has grown by
/// two thirds or more, and the number of files stays logarithmic in the size of the state. All files are merged if they hold more than
/// four rows per key, so that state whose rows change at every checkpoint is not stored twelve times.
#[must_use]
pub(crate) fn merge_due(files: &[StateFile], keys: Option<u64>, workers: u32) -> Option<Range<usize>> {
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    if files.len() > 1 && keys.is_some_and(|keys| rows > ROWS_PER_KEY * keys.max(1)) {
        return Some(0..files.len());
    }
    let mut newer = 0;
    let joining = files.iter().rev().take_while(|file| {
        let joins = newer == 0 || 2 * file.bytes <= 3 * newer;
        newer += file.bytes;
        joins
    });
    let count = joining.count();
    (count >= FAN_IN.max(CHECKPOINTS * workers as usize).min(MOST_FILES)).then(|| files.len() - count..files.len())
}

/// Merges neighbouring files in the list of an operator into one file, which is written as `object`. Blocks until all of them
/// are read and the new one is written.
///
/// # Errors
/// A file is damaged or missing, or the store cannot be reached. `object` may then exist, but nothing refers to it.
pub(crate) fn merge(
    store: &StateStore,
    operator: &OperatorState,
    which: Range<usize>,
    object: &str,
) -> Result<StateFile, StateError> {
    let opened = operator.files[which.clone()].iter().map(|file| OpenFile::open(store, file, Some(&operator.kind)));
    let files = opened.collect::<Result<Vec<_>, _>>()?;
    let failed = |source: BoxError| StateError::Encode { operator: operator.name.clone(), source };
    let Some(first) = files.first() else { return Err(failed("there are no state files to merge".into())) };
    let schema = first.schema();
    let mut upload = Upload::begin(store, object)?;
    let writer = FileWriter::new(&mut upload, &operator.name, &operator.kind, Arc::clone(&schema)).map_err(failed)?;
    let merged = if schema.fields().len() == 1 {
        append(files, writer)
    } else {
        // If the oldest file is part of the merge, no older row of a deleted key can exist, so the deletion need not be kept.
        Merge::new(files, which.start == 0).and_then(|merge| merge.run(writer))
    };
    let written = match merged.and_then(|writer| writer.finish().map_err(failed)) {
        Ok(written) => (written.rows, written.bytes, written.crc32),
        Err(error) => {
            // The upload's own failure, if there was one, is what the writer failed of.
            let error = upload.abandon().unwrap_or(error);
            return Err(error);
        }
    };
    reach(FailPoint::DuringMerge);
    upload.complete()?;
    let (rows, bytes, crc32) = written;
    Ok(StateFile { object: object.to_owned(), rows, bytes, crc32 })
}

type Writer<'a, 'u> = FileWriter<&'a mut Upload<'u>>;

/// Concatenates files of records without keys.
fn append<'a, 'u>(files: Vec<OpenFile>, mut writer: Writer<'a, 'u>) -> Result<Writer<'a, 'u>, StateError> {
    for file in files {
        for group in 0..file.info.groups.len() {
            let mut batches = file.read(group)?;
            while let Some(batch) = batches.next(&file)? {
                writer.write(&batch, (0, 0)).map_err(|source| file.unwritable(source))?;
            }
        }
    }
    Ok(writer)
}

/// The state of a merge.
struct Merge {
    cursors: Vec<Cursor>,
    /// The next hash of each file that has one; of equal ones the newest file's comes first.
    next: BinaryHeap<Reverse<(u64, Reverse<usize>)>>,
    keys: RowConverter,
    /// Batches that the next batch of output takes rows from, with their keys in comparable form.
    sources: Vec<(RecordBatch, Arc<Rows>)>,
    /// Source and row of each row of the next batch of output, and its hash.
    chosen: Vec<(usize, usize)>,
    hashes: Vec<u64>,
    drop_deleted: bool,
}

/// The position in one of the files.
struct Cursor {
    file: OpenFile,
    next_group: usize,
    batches: Option<Batches>,
    current: Option<Current>,
}

/// The current batch of a file.
struct Current {
    source: usize,
    rows: KeyedBatch,
    row: usize,
}

impl Merge {
    fn new(files: Vec<OpenFile>, drop_deleted: bool) -> Result<Self, StateError> {
        let key = Arc::clone(&files[0].schema().fields()[1]);
        let keys = RowConverter::new(vec![SortField::new(key.data_type().clone())])
            .map_err(|error| files[0].damaged(format!("its keys cannot be compared: {error}")))?;
        let mut merge = Self {
            cursors: Vec::new(),
            next: BinaryHeap::new(),
            keys,
            sources: Vec::new(),
            chosen: Vec::new(),
            hashes: Vec::new(),
            drop_deleted,
        };
        for file in files {
            let at = merge.cursors.len();
            merge.cursors.push(Cursor { file, next_group: 0, batches: None, current: None });
            merge.load(at)?;
        }
        Ok(merge)
    }

    fn run<'a, 'u>(mut self, mut writer: Writer<'a, 'u>) -> Result<Writer<'a, 'u>, StateError> {
        let mut same_hash: Vec<(usize, usize, bool)> = Vec::new();
        while let Some(Reverse((hash, Reverse(file)))) = self.next.pop() {
            same_hash.clear();
            same_hash.push(self.take(file)?);
            while let Some(Reverse((other, Reverse(file)))) = self.next.peek().copied()
                && other == hash
            {
                self.next.pop();
                let taken = self.take(file)?;
                // Rows come newest first, so a key that is there already has won.
                if !same_hash.iter().any(|kept| self.key(*kept) == self.key(taken)) {
                    same_hash.push(taken);
                }
            }
            for (source, row, deleted) in &same_hash {
                if !(*deleted && self.drop_deleted) {
                    self.chosen.push((*source, *row));
                    self.hashes.push(hash);
                }
            }
            // Rows that are not chosen hold their batches all the same.
            if self.chosen.len() >= BATCH_ROWS || self.sources.len() > 4 * self.cursors.len() {
                self.flush(&mut writer)?;
            }
        }
        self.flush(&mut writer)?;
        Ok(writer)
    }

    fn key(&self, (source, row, _): (usize, usize, bool)) -> arrow_row::Row<'_> {
        self.sources[source].1.row(row)
    }

    /// Takes a file's current row: its source, its place there, and whether it is deleted; and moves on.
    fn take(&mut self, file: usize) -> Result<(usize, usize, bool), StateError> {
        let cursor = &mut self.cursors[file];
        let Some(current) = &mut cursor.current else {
            return Err(cursor.file.damaged("it has fewer rows than it says"));
        };
        let taken = (current.source, current.row, current.rows.deleted.value(current.row));
        current.row += 1;
        if current.row < current.rows.hashes.len() {
            self.next.push(Reverse((current.rows.hashes.value(current.row), Reverse(file))));
        } else {
            self.load(file)?;
        }
        Ok(taken)
    }

    /// Reads on to a file's next batch.
    fn load(&mut self, file: usize) -> Result<(), StateError> {
        let cursor = &mut self.cursors[file];
        let batch = loop {
            let next = cursor.batches.as_mut().map(|batches| batches.next(&cursor.file)).transpose()?.flatten();
            match next {
                Some(batch) if batch.num_rows() > 0 => break batch,
                Some(_) => {}
                None if cursor.next_group == cursor.file.info.groups.len() => {
                    cursor.current = None;
                    return Ok(());
                }
                None => {
                    cursor.batches = Some(cursor.file.read(cursor.next_group)?);
                    cursor.next_group += 1;
                }
            }
        };
        let strange = || cursor.file.damaged("its columns are not those of a state file");
        let rows = KeyedBatch::new(&batch).ok_or_else(strange)?;
        let keys = self.keys.convert_columns(std::slice::from_ref(&rows.keys)).map_err(|_| strange())?;
        self.next.push(Reverse((rows.hashes.value(0), Reverse(file))));
        cursor.current = Some(Current { source: self.sources.len(), rows, row: 0 });
        self.sources.push((batch, Arc::new(keys)));
        Ok(())
    }

    /// Writes what has been chosen, and lets go of the batches that have been read.
    fn flush(&mut self, writer: &mut Writer<'_, '_>) -> Result<(), StateError> {
        let file = &self.cursors[0].file;
        if let (Some(&first), Some(&last)) = (self.hashes.first(), self.hashes.last()) {
            let batches: Vec<&RecordBatch> = self.sources.iter().map(|(batch, _)| batch).collect();
            interleave_record_batch(&batches, &self.chosen)
                .map_err(BoxError::from)
                .and_then(|batch| writer.write(&batch, (first, last)))
                .map_err(|source| file.unwritable(source))?;
            self.chosen.clear();
            self.hashes.clear();
        }
        let mut kept = Vec::new();
        for current in self.cursors.iter_mut().filter_map(|cursor| cursor.current.as_mut()) {
            let source = std::mem::replace(&mut current.source, kept.len());
            kept.push(self.sources[source].clone());
        }
        self.sources = kept;
        Ok(())
    }
}
