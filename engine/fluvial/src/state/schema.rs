//! The columns of an operator's state files.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::columns::Column;

/// The columns of an operator's state files, and how its rows are converted to them.
///
/// | column | keyed operators | `keep_all` |
/// | --- | --- | --- |
/// | `hash` | the key's routing hash, by which rows are sorted | |
/// | `key` | the key | |
/// | `value` | the row; null where it is deleted | the record |
/// | `deleted` | whether the key has no row any more | |
/// | `tick` | the tick of the checkpoint that stored the row: of several rows of a key, the one with the greatest counts | |
#[derive(Clone, Debug)]
pub(crate) struct RowSchema {
    pub(super) key: Option<Column>,
    pub(super) value: Column,
}

impl RowSchema {
    /// Creates the schema of rows with keys.
    pub(crate) fn keyed<K, V>() -> Self
    where
        K: Serialize + DeserializeOwned,
        V: Serialize + DeserializeOwned,
    {
        Self { key: Some(Column::of::<K>(true)), value: Column::of::<V>(false) }
    }

    /// Creates the schema of records without keys.
    pub(crate) fn plain<D: Serialize + DeserializeOwned>() -> Self {
        Self { key: None, value: Column::of::<D>(false) }
    }

    /// Describes the types, for the manifest.
    pub(crate) fn describe(&self) -> String {
        match &self.key {
            Some(key) => format!("key {}, value {}", key.describe(), self.value.describe()),
            None => format!("value {}", self.value.describe()),
        }
    }

    /// Returns the schema that reads a file which was written before the value type gained fields; `None` if the types differ in
    /// any other way. A key type cannot gain fields, because the hashes of its keys would change.
    pub(super) fn as_stored(&self, file: &Schema) -> Option<Self> {
        let same_key = match &self.key {
            Some(key) => key.field("key", false) == *file.fields().find("key")?.1,
            None => true,
        };
        let value = self.value.as_stored(file.fields().find("value")?.1)?;
        same_key.then(|| Self { key: self.key.clone(), value })
    }

    /// Returns the columns as an Arrow schema.
    pub(super) fn arrow(&self) -> SchemaRef {
        Arc::new(match &self.key {
            Some(key) => Schema::new(vec![
                Arc::new(Field::new("hash", DataType::UInt64, false)),
                key.field("key", false),
                self.value.field("value", true),
                Arc::new(Field::new("deleted", DataType::Boolean, false)),
                Arc::new(Field::new("tick", DataType::UInt64, false)),
            ]),
            None => Schema::new(vec![self.value.field("value", false)]),
        })
    }
}
