//! The hash that says which worker keeps a key, and where a state file sorts it.
//!
//! The hash is stored with each row of a state file, so it is part of the format. It depends only on the key's content as serde
//! serialises it, and is the same in every version and on every machine. A file whose hashes differ from what this code
//! computes is refused.
//!
//! **Definition, version 1.** The state begins as `0x243f6a8885a308d3`. `fold(a, b)` is the upper half xor the lower
//! half of the 128-bit product. Absorbing a word `w` sets the state to `fold(state ^ w, 0x9e3779b97f4a7c15)`. A number,
//! a `bool` or a `char` is absorbed as one word (signed ones extended, 128-bit ones as two, lower first; floats as
//! their bits); a string or bytes set the state to XXH3-64 of them with the state as seed; an option and an enum absorb
//! 0 or 1, or the variant's number, before their content; sequences and maps absorb their length after their content;
//! structs, tuples and units absorb nothing themselves. The hash is `fold(state, 0xd6e8feb86659fd93)`.

use std::fmt;

use serde::Serialize;
use serde::ser::{self, Serializer};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The version of the definition above.
pub(crate) const ROUTING_HASH_VERSION: u32 = 1;

/// Returns the routing hash of a key, which decides the worker that keeps the key.
///
/// ```
/// # use fluvial::durable::routing_hash;
/// assert_eq!(routing_hash(&("eu", 7u32)), routing_hash(&("eu".to_owned(), 7i64)));
/// ```
///
/// # Panics
/// If the key's own `Serialize` fails; such a type cannot be a key.
#[inline]
#[must_use]
pub fn routing_hash<K: Serialize + ?Sized>(key: &K) -> u64 {
    let mut hasher = Hasher { state: 0x243f_6a88_85a3_08d3 };
    if let Err(error) = key.serialize(&mut hasher) {
        panic!("a key of type {} cannot be hashed: {error}", std::any::type_name::<K>());
    }
    fold(hasher.state, 0xd6e8_feb8_6659_fd93)
}

/// Which of `workers` keeps the keys of a hash: each worker has one contiguous range of hashes.
#[inline]
#[must_use]
pub(crate) fn hash_owner(hash: u64, workers: u32) -> u32 {
    ((u128::from(hash) * u128::from(workers)) >> 64) as u32
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

pub(crate) struct Hasher {
    state: u64,
}

impl Hasher {
    #[inline]
    fn word(&mut self, word: u64) {
        self.state = fold(self.state ^ word, 0x9e37_79b9_7f4a_7c15);
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.state = xxh3_64_with_seed(bytes, self.state);
    }
}

/// The error of a key's own `Serialize`.
#[derive(Debug)]
pub(crate) struct HashError(String);

impl fmt::Display for HashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HashError {}

impl ser::Error for HashError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// A compound value that is being absorbed; a sequence or map counts its parts.
pub(crate) struct Open<'a> {
    hasher: &'a mut Hasher,
    parts: Option<u64>,
}

impl<'a> Open<'a> {
    #[inline]
    fn new(hasher: &'a mut Hasher, counted: bool) -> Self {
        Self { hasher, parts: counted.then_some(0) }
    }

    #[inline]
    fn part<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<(), HashError> {
        self.parts = self.parts.map(|parts| parts + 1);
        part.serialize(&mut *self.hasher)
    }

    #[inline]
    fn close(self) {
        if let Some(parts) = self.parts {
            self.hasher.word(parts);
        }
    }
}

macro_rules! words {
    ($($method:ident: $number:ty => $as:expr;)*) => {
        $(#[inline]
        fn $method(self, value: $number) -> Result<(), HashError> {
            let word: fn($number) -> u64 = $as;
            self.word(word(value));
            Ok(())
        })*
    };
}

impl<'a> Serializer for &'a mut Hasher {
    type Ok = ();
    type Error = HashError;
    type SerializeSeq = Open<'a>;
    type SerializeTuple = Open<'a>;
    type SerializeTupleStruct = Open<'a>;
    type SerializeTupleVariant = Open<'a>;
    type SerializeMap = Open<'a>;
    type SerializeStruct = Open<'a>;
    type SerializeStructVariant = Open<'a>;

    words! {
        serialize_bool: bool => u64::from;
        serialize_i8: i8 => |v| i64::from(v) as u64;
        serialize_i16: i16 => |v| i64::from(v) as u64;
        serialize_i32: i32 => |v| i64::from(v) as u64;
        serialize_i64: i64 => |v| v as u64;
        serialize_u8: u8 => u64::from;
        serialize_u16: u16 => u64::from;
        serialize_u32: u32 => u64::from;
        serialize_u64: u64 => |v| v;
        serialize_char: char => u64::from;
        serialize_f32: f32 => |v| u64::from(v.to_bits());
        serialize_f64: f64 => |v| v.to_bits();
    }

    #[inline]
    fn serialize_i128(self, value: i128) -> Result<(), HashError> {
        self.serialize_u128(value as u128)
    }

    #[inline]
    fn serialize_u128(self, value: u128) -> Result<(), HashError> {
        self.word(value as u64);
        self.word((value >> 64) as u64);
        Ok(())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), HashError> {
        self.bytes(value.as_bytes());
        Ok(())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), HashError> {
        self.bytes(value);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), HashError> {
        self.word(0);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), HashError> {
        self.word(1);
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), HashError> {
        Ok(())
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<(), HashError> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, variant: u32, _: &'static str) -> Result<(), HashError> {
        self.word(u64::from(variant));
        Ok(())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), HashError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), HashError> {
        self.word(u64::from(variant));
        value.serialize(self)
    }

    fn serialize_seq(self, _length: Option<usize>) -> Result<Open<'a>, HashError> {
        Ok(Open::new(self, true))
    }

    #[inline]
    fn serialize_tuple(self, _length: usize) -> Result<Open<'a>, HashError> {
        Ok(Open::new(self, false))
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Open<'a>, HashError> {
        Ok(Open::new(self, false))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Open<'a>, HashError> {
        self.word(u64::from(variant));
        Ok(Open::new(self, false))
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<Open<'a>, HashError> {
        Ok(Open::new(self, true))
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Open<'a>, HashError> {
        Ok(Open::new(self, false))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Open<'a>, HashError> {
        self.word(u64::from(variant));
        Ok(Open::new(self, false))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

macro_rules! open_sequences {
    ($($name:ident: $method:ident;)*) => {
        $(impl ser::$name for Open<'_> {
            type Ok = ();
            type Error = HashError;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<(), HashError> {
                self.part(part)
            }

            #[inline]
            fn end(self) -> Result<(), HashError> {
                self.close();
                Ok(())
            }
        })*
    };
}

open_sequences! {
    SerializeSeq: serialize_element;
    SerializeTuple: serialize_element;
    SerializeTupleStruct: serialize_field;
    SerializeTupleVariant: serialize_field;
}

macro_rules! open_structs {
    ($($name:ident)*) => {
        $(impl ser::$name for Open<'_> {
            type Ok = ();
            type Error = HashError;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, part: &T) -> Result<(), HashError> {
                self.part(part)
            }

            #[inline]
            fn end(self) -> Result<(), HashError> {
                self.close();
                Ok(())
            }
        })*
    };
}

open_structs! { SerializeStruct SerializeStructVariant }

impl ser::SerializeMap for Open<'_> {
    type Ok = ();
    type Error = HashError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), HashError> {
        self.part(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), HashError> {
        self.part(value)
    }

    fn end(self) -> Result<(), HashError> {
        self.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Serialize)]
    struct Group {
        region: String,
        product: Option<u32>,
    }

    #[derive(Serialize)]
    enum Kind {
        Plain,
        Number(i16),
        Pair { a: bool, b: char },
    }

    /// These figures are stored in state files: when one of them changes, every checkpoint becomes unreadable.
    #[test]
    fn the_hash_of_every_kind_of_value_stays_what_it_was() {
        let found = [
            routing_hash(&0u64),
            routing_hash(&-1i8),
            routing_hash("eu"),
            routing_hash(&Group { region: "eu".to_owned(), product: Some(7) }),
            routing_hash(&Group { region: String::new(), product: None }),
            routing_hash(&[Kind::Plain, Kind::Number(-3), Kind::Pair { a: true, b: 'x' }]),
            routing_hash(&vec![1u8, 2, 3]),
            routing_hash(&BTreeMap::from([("a", 1.5f64)])),
            routing_hash(&(1u128 << 90)),
        ];
        assert_eq!(found, STORED);
    }

    #[test]
    fn neighbours_differ_and_spread() {
        let mut seen = std::collections::BTreeSet::new();
        let mut owners = [0u32; 7];
        for key in 0u64..70_000 {
            let hash = routing_hash(&key);
            assert!(seen.insert(hash));
            owners[hash_owner(hash, 7) as usize] += 1;
        }
        assert!(owners.iter().all(|&n| (9_000..11_000).contains(&n)), "{owners:?}");
        assert_ne!(routing_hash(&("ab", "c")), routing_hash(&("a", "bc")));
        assert_ne!(routing_hash(&vec![vec![1u8], vec![]]), routing_hash(&vec![vec![], vec![1u8]]));
    }

    const STORED: [u64; 9] = [
        16757099066756008754,
        8208519314613093317,
        3606224570969955549,
        10813855005553217535,
        4413437563866151920,
        10011514775805914262,
        7773850114087630243,
        11904234013731442855,
        672927712741540883,
    ];
}
