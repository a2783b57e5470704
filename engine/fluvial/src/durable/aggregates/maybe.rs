//! The state of an aggregate whose result is one of the values.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value that is missing until the first record. It is stored as a list with at most one element: an `Option` of a type that
/// is an `Option` itself would not be read as it was written.
#[derive(Clone, Debug, PartialEq)]
#[allow(unreachable_pub)]
pub struct Maybe<T>(pub(super) Option<T>);

impl<T> Default for Maybe<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Maybe<T> {
    /// The value of a key that has records.
    pub(super) fn get(&self) -> T {
        self.0.clone().expect("an aggregate has a result from the first record on")
    }
}

impl<T: Serialize> Serialize for Maybe<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.0)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Maybe<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut values = Vec::<T>::deserialize(deserializer)?;
        let value = values.pop();
        if values.is_empty() { Ok(Self(value)) } else { Err(D::Error::custom("there is more than one value")) }
    }
}
