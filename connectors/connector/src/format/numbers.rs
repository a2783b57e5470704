//! Numbers and truth values in binary, as the serializers of Kafka's own clients write them.

use super::{Decode, DecodeError, Encode, Format, Part};
use crate::BoxError;

/// Defines a format of numbers that are written with their most significant byte first.
macro_rules! big_endian {
    ($format:ident, $number:ty, $serde:literal, $expected:literal, $example:literal) => {
        #[doc = concat!("A `", stringify!($number), "` with its most significant byte first, as Kafka's `", $serde, "` writes it.")]
        ///
        /// ```
        #[doc = concat!("use fluvial_connector::format::{Decode, Encode, ", stringify!($format), ", Part};")]
        ///
        /// let mut bytes = Vec::new();
        #[doc = concat!(stringify!($format), ".encode(&", $example, ", &mut bytes)?;")]
        #[doc = concat!("assert_eq!(bytes, (", $example, " as ", stringify!($number), ").to_be_bytes());")]
        #[doc = concat!("assert_eq!(", stringify!($format), ".decode(Part::Key, &bytes)?, ", $example, ");")]
        /// # Ok::<_, fluvial_connector::BoxError>(())
        /// ```
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $format;

        impl Format for $format {}

        impl Decode<$number> for $format {
            fn decode(&self, part: Part, bytes: &[u8]) -> Result<$number, DecodeError> {
                let whole = bytes.try_into().map_err(|error| DecodeError::malformed(part, $expected, bytes, error))?;
                Ok(<$number>::from_be_bytes(whole))
            }
        }

        impl Encode<$number> for $format {
            fn encode(&self, value: &$number, into: &mut Vec<u8>) -> Result<(), BoxError> {
                into.extend_from_slice(&value.to_be_bytes());
                Ok(())
            }
        }
    };
}

big_endian!(Long, i64, "LongSerializer", "an integer of eight bytes", "-2");
big_endian!(Integer, i32, "IntegerSerializer", "an integer of four bytes", "-2");
big_endian!(Short, i16, "ShortSerializer", "an integer of two bytes", "-2");
big_endian!(Double, f64, "DoubleSerializer", "a floating-point number of eight bytes", "0.5");
big_endian!(Float, f32, "FloatSerializer", "a floating-point number of four bytes", "0.5");

/// A `bool` as one byte, 0 or 1, as Kafka's `BooleanSerializer` writes it.
///
/// ```
/// use fluvial_connector::format::{Boolean, Decode, Encode, Part};
///
/// let mut bytes = Vec::new();
/// Boolean.encode(&true, &mut bytes)?;
/// assert_eq!(bytes, [1]);
/// assert!(Boolean.decode(Part::Value, &bytes)?);
/// # Ok::<_, fluvial_connector::BoxError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Boolean;

impl Format for Boolean {}

impl Decode<bool> for Boolean {
    fn decode(&self, part: Part, bytes: &[u8]) -> Result<bool, DecodeError> {
        match bytes {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(DecodeError::malformed(part, "a truth value of one byte", bytes, "neither 0 nor 1")),
        }
    }
}

impl Encode<bool> for Boolean {
    fn encode(&self, value: &bool, into: &mut Vec<u8>) -> Result<(), BoxError> {
        into.push(u8::from(*value));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::format::Text;

    /// The bytes are those of the serializers of kafka-clients 4.1.
    #[test]
    fn the_bytes_are_those_of_kafkas_serializers() {
        fn check<F, T>(format: F, value: T, expected: &[u8])
        where
            F: Encode<T> + Decode<T>,
            T: PartialEq + std::fmt::Debug,
        {
            let mut bytes = Vec::new();
            format.encode(&value, &mut bytes).unwrap();
            assert_eq!(bytes, expected, "{value:?}");
            assert_eq!(format.decode(Part::Key, &bytes).unwrap(), value);
            let longer = [expected, &[0]].concat();
            assert!(format.decode(Part::Key, &longer).is_err() && format.decode(Part::Key, &[]).is_err(), "{value:?}");
        }
        check(Long, -2_i64, &[255, 255, 255, 255, 255, 255, 255, 254]);
        check(Long, 258_i64, &[0, 0, 0, 0, 0, 0, 1, 2]);
        check(Integer, i32::MIN, &[128, 0, 0, 0]);
        check(Short, 258_i16, &[1, 2]);
        check(Double, 1.5_f64, &[0x3f, 0xf8, 0, 0, 0, 0, 0, 0]);
        check(Float, -0.5_f32, &[0xbf, 0, 0, 0]);
        check(Boolean, true, &[1]);
        check(Boolean, false, &[0]);
        // UUIDSerializer writes text.
        let id = uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        check(Text, id, b"01234567-89ab-cdef-0123-456789abcdef");
    }

    #[test]
    fn what_is_no_number_is_named_by_what_was_expected() {
        let said = |error: DecodeError| error.to_string();
        let text = said(Long.decode(Part::Key, b"42").unwrap_err());
        assert_eq!(text, r#"the key is not an integer of eight bytes, it is "42""#);
        let text = said(Boolean.decode(Part::Value, &[2]).unwrap_err());
        assert_eq!(text, "the value is not a truth value of one byte, it is 02");
    }
}
