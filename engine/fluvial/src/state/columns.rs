//! A Rust type as a column: the user's own fields where Arrow can express them, bytes where it cannot.

use std::sync::Arc;

use arrow_array::builder::LargeBinaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_row::RowConverter;
use arrow_row::SortField;
use arrow_schema::{DataType, Field, FieldRef};
use fluvial_connector::BoxError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_arrow::schema::{SchemaLike, TracingOptions};
use serde_arrow::utils::Item;

/// The column that stores values of one Rust type.
#[derive(Clone, Debug)]
pub(super) struct Column {
    /// The column of the type, as serde_arrow's wrapper for single values names it: `item`.
    item: FieldRef,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// A column of the Arrow type that corresponds to the Rust type.
    Typed,
    /// A column of bytes, in postcard's encoding of the Rust type, because Arrow has no such type.
    Bytes(&'static str),
}

impl Column {
    /// The column for a type. `comparable` asks for one whose values a merge can compare.
    pub(super) fn of<T: Serialize + DeserializeOwned>(comparable: bool) -> Self {
        let options = TracingOptions::default()
            .map_as_struct(false)
            .strings_as_large_utf8(false)
            .sequence_as_large_list(false)
            .enums_without_data_as_strings(true);
        let traced = Vec::<FieldRef>::from_type::<Item<T>>(options).ok();
        let typed = traced.as_deref().and_then(|fields| fields.first()).filter(|field| {
            is_expressible(field.data_type())
                && (!comparable || RowConverter::supports_fields(&[SortField::new(field.data_type().clone())]))
        });
        match typed {
            Some(item) => Self { item: Arc::clone(item), form: Form::Typed },
            None => Self {
                item: Arc::new(Field::new("item", DataType::LargeBinary, false)),
                form: Form::Bytes(std::any::type_name::<T>()),
            },
        }
    }

    /// The type, for a checkpoint's manifest and for people.
    pub(super) fn describe(&self) -> String {
        match self.form {
            Form::Typed => describe(&self.item),
            Form::Bytes(type_name) => format!("bytes of {type_name}"),
        }
    }

    /// The column's field under its name in a state file.
    pub(super) fn field(&self, name: &str, nullable: bool) -> FieldRef {
        let field = self.item.as_ref().clone().with_name(name);
        let nullable = nullable || field.is_nullable();
        Arc::new(field.with_nullable(nullable))
    }

    /// An array of values; `None` is null.
    pub(super) fn write<'a, T: Serialize + 'a>(
        &self,
        values: impl Iterator<Item = Option<&'a T>>,
    ) -> Result<ArrayRef, BoxError> {
        match self.form {
            Form::Typed => {
                let field = self.field("item", true);
                let mut builder = serde_arrow::ArrayBuilder::from_arrow(&[field])?;
                for value in values {
                    builder.push(Item(value))?;
                }
                builder.to_arrow()?.pop().ok_or_else(|| "the builder gave no column".into())
            }
            Form::Bytes(_) => {
                let mut builder = LargeBinaryBuilder::new();
                let mut buffer = Vec::new();
                for value in values {
                    match value {
                        Some(value) => {
                            buffer = postcard::to_extend(value, std::mem::take(&mut buffer))?;
                            builder.append_value(&buffer);
                            buffer.clear();
                        }
                        None => builder.append_null(),
                    }
                }
                Ok(Arc::new(builder.finish()))
            }
        }
    }

    /// The values of an array without nulls, but for those that the type itself has.
    pub(super) fn read<T: DeserializeOwned>(&self, array: &ArrayRef) -> Result<Vec<T>, BoxError> {
        match self.form {
            Form::Typed => {
                let field = self.field("item", false);
                let items: Vec<Item<T>> = serde_arrow::from_arrow(&[field], std::slice::from_ref(array))?;
                Ok(items.into_iter().map(|Item(value)| value).collect())
            }
            Form::Bytes(_) => {
                let bytes = array.as_binary_opt::<i64>().ok_or("a column of bytes is of another type")?;
                bytes.iter().map(|value| Ok(postcard::from_bytes(value.unwrap_or_default())?)).collect()
            }
        }
    }

    /// The column that reads what was stored as `stored`, a type that lacks fields which this one has got since; those
    /// get serde's defaults. `None` if there are other differences.
    pub(super) fn as_stored(&self, stored: &FieldRef) -> Option<Self> {
        match self.form {
            Form::Typed => Some(Self { item: narrowed(&self.item, stored)?, form: Form::Typed }),
            Form::Bytes(_) => None,
        }
    }

    /// Whether a value may be lost where others of its type are not: an `Option` of an `Option`, a field that is left
    /// out of the bytes when it is empty, one variant whose names differ.
    pub(super) fn depends_on_the_value(&self) -> bool {
        matches!(self.form, Form::Bytes(_)) || has_choices(&self.item)
    }

    /// Whether an array is of this column's type.
    pub(super) fn fits(&self, array: &dyn Array) -> bool {
        array.data_type().equals_datatype(self.item.data_type())
    }
}

/// `wanted` with the fields that `stored` has, in its order; `None` unless that is all in which they differ.
fn narrowed(wanted: &FieldRef, stored: &FieldRef) -> Option<FieldRef> {
    let data_type = match (wanted.data_type(), stored.data_type()) {
        (DataType::Struct(wanted), DataType::Struct(stored)) => {
            let field = |stored: &FieldRef| narrowed(wanted.find(stored.name())?.1, stored);
            DataType::Struct(stored.iter().map(field).collect::<Option<_>>()?)
        }
        (DataType::List(wanted), DataType::List(stored)) => DataType::List(narrowed(wanted, stored)?),
        (wanted, stored) => wanted.equals_datatype(stored).then(|| wanted.clone())?,
    };
    Some(Arc::new(wanted.as_ref().clone().with_data_type(data_type)))
}

/// Whether Parquet can hold the type.
fn is_expressible(data_type: &DataType) -> bool {
    match data_type {
        DataType::Null | DataType::Union(..) | DataType::RunEndEncoded(..) => false,
        DataType::Struct(fields) => !fields.is_empty() && fields.iter().all(|field| is_expressible(field.data_type())),
        DataType::List(field) | DataType::LargeList(field) | DataType::Map(field, _) => {
            is_expressible(field.data_type())
        }
        _ => true,
    }
}

/// Whether a part of the type may be null, or is one of some words.
fn has_choices(field: &Field) -> bool {
    let inner = match field.data_type() {
        DataType::Struct(fields) => fields.iter().any(|field| has_choices(field)),
        DataType::List(field) | DataType::LargeList(field) | DataType::Map(field, _) => has_choices(field),
        DataType::Dictionary(..) => true,
        _ => false,
    };
    field.is_nullable() || inner
}

/// Describes a type in a few words.
fn describe(field: &Field) -> String {
    let named = |fields: &[FieldRef]| {
        let parts: Vec<_> = fields.iter().map(|field| format!("{}: {}", field.name(), describe(field))).collect();
        parts.join(", ")
    };
    let text = match field.data_type() {
        DataType::Struct(fields) => format!("{{{}}}", named(fields)),
        DataType::List(element) | DataType::LargeList(element) => format!("[{}]", describe(element)),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => format!("map of {}", named(fields)),
            other => format!("map of {other}"),
        },
        DataType::Dictionary(_, value) => format!("word ({value})"),
        other => other.to_string(),
    };
    if field.is_nullable() { format!("{text}?") } else { text }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Colour {
        Red,
        Green,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Shape {
        Point,
        Circle { radius: f64 },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Order {
        id: u64,
        customer: Option<String>,
        lines: Vec<(String, i32)>,
        colour: Colour,
        labels: BTreeMap<String, bool>,
    }

    fn order(id: u64) -> Order {
        Order {
            id,
            customer: id.is_multiple_of(2).then(|| format!("c{id}")),
            lines: (0..id % 3).map(|n| (format!("p{n}"), n as i32)).collect(),
            colour: if id.is_multiple_of(2) { Colour::Red } else { Colour::Green },
            labels: (0..id % 2).map(|n| (n.to_string(), true)).collect(),
        }
    }

    /// What was written is read; returns the type as it is described.
    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(values: &[T]) -> String {
        let column = Column::of::<T>(false);
        let array = column.write(values.iter().map(Some)).unwrap();
        assert!(column.fits(&array));
        assert_eq!(column.read::<T>(&array).unwrap(), values);
        column.describe()
    }

    #[test]
    fn types_that_arrow_has_become_the_users_own_columns() {
        assert_eq!(check(&[1u64, 2]), "UInt64");
        assert_eq!(check(&["a".to_owned(), String::new()]), "Utf8");
        assert_eq!(check(&[("a".to_owned(), Some(1i32)), ("b".to_owned(), None)]), "{0: Utf8, 1: Int32?}");
        assert_eq!(check(&[Some(1i32), None]), "Int32?");
        assert_eq!(
            check(&[order(1), order(2), order(3)]),
            "{id: UInt64, customer: Utf8?, lines: [{0: Utf8, 1: Int32}], colour: word (Utf8), labels: map of key: Utf8, value: Boolean}"
        );
    }

    #[test]
    fn other_types_become_bytes() {
        for description in [
            check(&[Shape::Point, Shape::Circle { radius: 0.1 }]),
            check(&[(), ()]),
            check(&[1u128 << 100]),
            check(&[rust_decimal::Decimal::new(110, 2)]),
            check(&[uuid::Uuid::nil()]),
        ] {
            assert!(description.starts_with("bytes of "), "{description}");
        }
    }
}
