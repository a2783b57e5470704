//! Plain UTF-8 text.

use std::fmt::Display;
use std::io::Write;
use std::str::FromStr;

use super::{Decode, DecodeError, Encode, Format, Part};
use crate::BoxError;

/// Plain UTF-8 text, without quotation marks. It reads types that implement [`FromStr`] and writes types that implement
/// [`Display`], such as strings and numbers.
///
/// ```
/// use fluvial_connector::format::{Decode, Encode, Part, Text};
///
/// let mut bytes = Vec::new();
/// Text.encode(&42u64, &mut bytes)?;
/// assert_eq!(bytes, b"42");
/// let (text, number): (String, u64) = (Text.decode(Part::Key, &bytes)?, Text.decode(Part::Key, &bytes)?);
/// assert_eq!((text.as_str(), number), ("42", 42));
/// # Ok::<_, fluvial_connector::BoxError>(())
/// ```
///
/// An empty text is a value like any other. Only a record without a value deletes its key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Text;

impl Format for Text {}

impl<T: FromStr<Err: Into<BoxError>>> Decode<T> for Text {
    fn decode(&self, part: Part, bytes: &[u8]) -> Result<T, DecodeError> {
        let text =
            std::str::from_utf8(bytes).map_err(|error| DecodeError::malformed(part, "utf-8 text", bytes, error))?;
        text.parse().map_err(|error| {
            DecodeError::malformed(part, format!("text of {}", std::any::type_name::<T>()), bytes, error)
        })
    }
}

impl<T: Display> Encode<T> for Text {
    fn encode(&self, value: &T, into: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(write!(into, "{value}")?)
    }
}
