//! Raw bytes.

use super::{Decode, DecodeError, Encode, Format, Part};
use crate::BoxError;

/// Raw bytes: reads `Vec<u8>`, and writes any type that can be borrowed as bytes.
///
/// ```
/// use fluvial_connector::format::{Bytes, Decode, Encode, Part};
///
/// let mut bytes = Vec::new();
/// Bytes.encode(&[0u8, 0xff], &mut bytes)?;
/// assert_eq!(Bytes.decode(Part::Value, &bytes)?, vec![0, 0xff]);
/// # Ok::<_, fluvial_connector::BoxError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Bytes;

impl Format for Bytes {}

impl Decode<Vec<u8>> for Bytes {
    fn decode(&self, _: Part, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
        Ok(bytes.to_vec())
    }
}

impl<T: AsRef<[u8]>> Encode<T> for Bytes {
    fn encode(&self, value: &T, into: &mut Vec<u8>) -> Result<(), BoxError> {
        into.extend_from_slice(value.as_ref());
        Ok(())
    }
}
