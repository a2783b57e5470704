//! Rows to state files and back.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::UInt64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt64Array};
use arrow_schema::SchemaRef;
use arrow_select::filter::filter;
use fluvial_connector::{BoxError, Tick};
use fluvial_protocol::manifest::{OperatorKind, StateFile};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::columns::Column;
use super::file_reader::OpenFile;
use super::file_writer::FileWriter;
use super::routing::{hash_owner, routing_hash};
use super::schema::RowSchema;
use super::{EncodedFile, StateError, StateStore};

/// The number of rows that are encoded at once.
const CHUNK_ROWS: usize = 2048;
/// How many rows of each batch are read back and compared where one value is as good as another: a type that does not
/// survive, because its `Serialize` and `Deserialize` do not fit each other, must be found when it is written and not
/// when it is needed. All rows are, where it depends on the value ([`Column::depends_on_the_value`]).
const PROVEN_ROWS: usize = 16;

/// The hashes from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HashRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl HashRange {
    /// The hashes that belong to one of so many workers: see [`hash_owner`].
    pub(crate) fn of(worker: u32, workers: u32) -> Self {
        let start = |worker: u32| (u128::from(worker) << 64).div_ceil(u128::from(workers));
        let range = Self { first: start(worker) as u64, last: (start(worker + 1) - 1) as u64 };
        debug_assert_eq!(hash_owner(range.first, workers), worker);
        range
    }
}

/// The changed keys of a range of hashes, in any order. Rows and deleted keys are kept apart, so that a row takes no more memory
/// than where it was copied from.
pub(crate) struct Part<K, V> {
    pub(crate) rows: Vec<(K, V)>,
    /// The keys that have been deleted.
    pub(crate) gone: Vec<K>,
}

impl<K: Serialize, V> Part<K, V> {
    /// The hash of each key with its place in [`Part::at`], by hash.
    fn by_hash(&self) -> Vec<(u64, u32)> {
        let keys = self.rows.iter().map(|(key, _)| key).chain(&self.gone);
        let mut places: Vec<_> = keys.zip(0..).map(|(key, place)| (routing_hash(key), place)).collect();
        places.sort_unstable();
        places
    }

    /// A key and its row; `None` for a deleted key.
    fn at(&self, place: u32) -> (&K, Option<&V>) {
        let place = place as usize;
        match self.rows.get(place) {
            Some((key, row)) => (key, Some(row)),
            None => (&self.gone[place - self.rows.len()], None),
        }
    }
}

/// Encodes keyed rows as a state file of the checkpoint of `tick`. All hashes of a part must be less than those of the next.
pub(crate) fn encode_keyed<K, V>(
    operator: &str,
    kind: &OperatorKind,
    schema: &RowSchema,
    tick: Tick,
    parts: Vec<Part<K, V>>,
) -> Result<EncodedFile, StateError>
where
    K: Serialize + DeserializeOwned + PartialEq,
    V: Serialize + DeserializeOwned + PartialEq,
{
    let encode = || {
        let key_column = schema.key.as_ref().ok_or("a schema without keys was used for rows with keys")?;
        let mut file = Encoder::new(operator, kind, schema)?;
        for part in parts {
            for chunk in part.by_hash().chunks(CHUNK_ROWS) {
                let hashes: UInt64Array = chunk.iter().map(|(hash, _)| *hash).collect();
                let range = (hashes.value(0), hashes.value(hashes.len() - 1));
                let rows: Vec<_> = chunk.iter().map(|(_, place)| part.at(*place)).collect();
                let keys = key_column.write(rows.iter().map(|(key, _)| Some(*key)))?;
                let values = schema.value.write(rows.iter().map(|(_, value)| *value))?;
                let deleted: BooleanArray = rows.iter().map(|(_, value)| Some(value.is_none())).collect();
                prove(key_column, &keys, "key", rows.iter().map(|(key, _)| Some(*key)))?;
                prove(&schema.value, &values, "value", rows.iter().map(|(_, value)| *value))?;
                let ticks = UInt64Array::from_value(tick.0, chunk.len());
                file.write(vec![Arc::new(hashes), keys, values, Arc::new(deleted), Arc::new(ticks)], range)?;
            }
        }
        file.finish()
    };
    encode().map_err(|source| StateError::Encode { operator: operator.to_owned(), source })
}

/// Encodes records without keys as a state file.
pub(crate) fn encode_plain<D: Serialize + DeserializeOwned + PartialEq>(
    operator: &str,
    kind: &OperatorKind,
    schema: &RowSchema,
    records: &[D],
) -> Result<EncodedFile, StateError> {
    let encode = || {
        let mut file = Encoder::new(operator, kind, schema)?;
        for chunk in records.chunks(CHUNK_ROWS) {
            let values = schema.value.write(chunk.iter().map(Some))?;
            prove(&schema.value, &values, "record", chunk.iter().map(Some))?;
            file.write(vec![values], (0, 0))?;
        }
        file.finish()
    };
    encode().map_err(|source| StateError::Encode { operator: operator.to_owned(), source })
}

/// Reads the rows of a file whose hashes are in `range`, in the order of their hashes; without a range those of the file's
/// first row group, which show whether the others can be read.
pub(crate) fn read_keyed<K, V>(
    store: &StateStore,
    file: &StateFile,
    kind: &OperatorKind,
    schema: &RowSchema,
    range: Option<HashRange>,
    mut take: impl FnMut(u64, K, Option<V>),
) -> Result<(), StateError>
where
    K: Serialize + DeserializeOwned,
    V: DeserializeOwned,
{
    let file = OpenFile::open(store, file, None)?;
    let schema = &as_stored(schema, &file, kind)?;
    let first = file.info.groups.first().map(|group| HashRange { first: group.first_hash, last: group.last_hash });
    let Some(range) = range.or(first) else { return Ok(()) };
    for (index, group) in file.info.groups.iter().enumerate() {
        if group.last_hash < range.first || group.first_hash > range.last {
            continue;
        }
        let mut batches = file.read(index)?;
        while let Some(batch) = batches.next(&file)? {
            let rows =
                KeyedBatch::new(&batch).ok_or_else(|| file.damaged("its columns are not those of a state file"))?;
            let start = rows.hashes.values().partition_point(|hash| *hash < range.first);
            let end = rows.hashes.values().partition_point(|hash| *hash <= range.last);
            let rows = rows.slice(start, end - start);
            let read = decode::<K, V>(schema, &rows)
                .map_err(|source| StateError::Decode { object: file.describe(), source })?;
            for (hash, key, value) in read {
                if routing_hash(&key) != hash {
                    return Err(file.damaged(
                        "a key's hash is not the stored one; a key's serialisation must not change between versions",
                    ));
                }
                take(hash, key, value);
            }
        }
    }
    Ok(())
}

/// A row group of a file, which is read independently of the others.
pub(crate) struct PlainPart {
    file: Arc<OpenFile>,
    schema: RowSchema,
    group: usize,
}

/// Returns the row groups of a file of records without keys.
pub(crate) fn plain_parts(
    store: &StateStore,
    file: &StateFile,
    kind: &OperatorKind,
    schema: &RowSchema,
) -> Result<Vec<PlainPart>, StateError> {
    let file = Arc::new(OpenFile::open(store, file, None)?);
    let schema = as_stored(schema, &file, kind)?;
    let part = |group| PlainPart { file: Arc::clone(&file), schema: schema.clone(), group };
    Ok((0..file.info.groups.len()).map(part).collect())
}

/// The schema that reads a file: the operator's own, or what it was before fields were added.
fn as_stored(schema: &RowSchema, file: &OpenFile, kind: &OperatorKind) -> Result<RowSchema, StateError> {
    let stored = &file.info.kind;
    let schema = if stored == kind {
        Some(schema.clone())
    } else {
        schema.as_stored(&file.schema()).filter(|_| stored.operator == kind.operator)
    };
    schema.ok_or_else(|| StateError::Changed {
        operator: file.info.operator.clone(),
        stored: stored.to_string(),
        wanted: kind.to_string(),
    })
}

impl PlainPart {
    /// Whether it is the first of its file.
    pub(crate) fn is_first(&self) -> bool {
        self.group == 0
    }

    /// Reads the records of the row group.
    pub(crate) fn read<D: DeserializeOwned>(&self) -> Result<Vec<D>, StateError> {
        let schema = &self.schema;
        let mut records = Vec::new();
        let mut batches = self.file.read(self.group)?;
        while let Some(batch) = batches.next(&self.file)? {
            let column = batch.columns().first().filter(|column| schema.value.fits(column));
            let column = column.ok_or_else(|| self.file.damaged("its columns are not those of a state file"))?;
            let read = schema.value.read::<D>(column);
            records.append(&mut read.map_err(|source| StateError::Decode { object: self.file.describe(), source })?);
        }
        Ok(records)
    }
}

/// The columns of a batch of keyed rows.
pub(super) struct KeyedBatch {
    pub(super) hashes: UInt64Array,
    pub(super) keys: ArrayRef,
    pub(super) values: ArrayRef,
    pub(super) deleted: BooleanArray,
}

impl KeyedBatch {
    pub(super) fn new(batch: &RecordBatch) -> Option<Self> {
        let [hashes, keys, values, deleted, _tick] = batch.columns() else { return None };
        Some(Self {
            hashes: hashes.as_primitive_opt::<UInt64Type>()?.clone(),
            keys: Arc::clone(keys),
            values: Arc::clone(values),
            deleted: deleted.as_boolean_opt()?.clone(),
        })
    }

    fn slice(&self, start: usize, length: usize) -> Self {
        Self {
            hashes: self.hashes.slice(start, length),
            keys: self.keys.slice(start, length),
            values: self.values.slice(start, length),
            deleted: self.deleted.slice(start, length),
        }
    }
}

type Decoded<K, V> = Vec<(u64, K, Option<V>)>;

fn decode<K, V>(schema: &RowSchema, rows: &KeyedBatch) -> Result<Decoded<K, V>, BoxError>
where
    K: DeserializeOwned,
    V: DeserializeOwned,
{
    let key_column =
        schema.key.as_ref().filter(|column| column.fits(&rows.keys)).ok_or("the keys are of another type")?;
    if !schema.value.fits(&rows.values) {
        return Err("the values are of another type".into());
    }
    let keys = key_column.read::<K>(&rows.keys)?;
    // A null value may be a value of the type, so which rows are deleted is a column of its own.
    let values = if rows.deleted.true_count() == 0 {
        schema.value.read::<V>(&rows.values)?
    } else {
        schema.value.read::<V>(&filter(&rows.values, &arrow_not(&rows.deleted))?)?
    };
    let mut values = values.into_iter();
    let rows = rows.hashes.values().iter().zip(keys).zip(rows.deleted.iter());
    rows.map(|((hash, key), deleted)| match deleted {
        Some(true) => Ok((*hash, key, None)),
        _ => Ok((*hash, key, Some(values.next().ok_or("there are fewer values than rows")?))),
    })
    .collect()
}

fn arrow_not(array: &BooleanArray) -> BooleanArray {
    array.iter().map(|value| Some(!value.unwrap_or(false))).collect()
}

/// Reads a column's values back and compares them; the first ones where that is enough.
fn prove<'a, T: DeserializeOwned + PartialEq + 'a>(
    column: &Column,
    array: &ArrayRef,
    part: &str,
    values: impl Iterator<Item = Option<&'a T>>,
) -> Result<(), BoxError> {
    let rows = if column.depends_on_the_value() { array.len() } else { PROVEN_ROWS.min(array.len()) };
    let values: Vec<Option<&T>> = values.take(rows).collect();
    let present: BooleanArray = values.iter().map(|value| Some(value.is_some())).collect();
    let read = filter(&array.slice(0, rows), &present).map_err(BoxError::from).and_then(|a| column.read::<T>(&a));
    let survives = read.as_ref().is_ok_and(|read| read.iter().eq(values.into_iter().flatten()));
    if survives {
        return Ok(());
    }
    let type_name = std::any::type_name::<T>();
    let what = format!(
        "a {part} of type {type_name} is not read as it was written; does it contain an Option of an Option, or a \
         field that is left out when it is empty (skip_serializing_if)?"
    );
    Err(read.err().map_or_else(|| what.clone().into(), |error| format!("{what} {error}").into()))
}

/// A state file that is being encoded in memory.
struct Encoder {
    schema: SchemaRef,
    writer: FileWriter<Vec<u8>>,
}

impl Encoder {
    fn new(operator: &str, kind: &OperatorKind, schema: &RowSchema) -> Result<Self, BoxError> {
        let schema = schema.arrow();
        Ok(Self { writer: FileWriter::new(Vec::new(), operator, kind, Arc::clone(&schema))?, schema })
    }

    fn write(&mut self, columns: Vec<ArrayRef>, hashes: (u64, u64)) -> Result<(), BoxError> {
        self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?, hashes)
    }

    fn finish(self) -> Result<EncodedFile, BoxError> {
        let written = self.writer.finish()?;
        Ok(EncodedFile { bytes: written.to.into(), rows: written.rows, crc32: written.crc32 })
    }
}
