//! Sums of integers.

use arrow_buffer::i256;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::sealed::Linear;
use super::{Float, Overflow, Summand};

macro_rules! integers {
    ($($value:ty: $name:literal => $sum:ty, $into:literal, $cure:literal;)*) => {
        $(impl Linear for $value {}

        impl Summand for $value {
            type Total = i128;
            type Kept = $sum;
            type Sum = $sum;
            type Mean = Float;

            const NAME: &'static str = $name;

            #[inline]
            fn add_to(self, total: &mut i128) {
                // The total has at least 63 bits more than a value, so no number of records that a job can read makes
                // it overflow.
                *total += self as i128;
            }

            #[inline]
            fn add_times_to(self, total: &mut i128, times: i64) -> Result<(), Overflow> {
                let overflow = Overflow::of_sum($name, $into, $cure);
                let product = (self as i128).checked_mul(i128::from(times));
                *total = product.and_then(|product| total.checked_add(product)).ok_or(overflow)?;
                Ok(())
            }

            #[inline]
            fn settle(kept: &mut $sum, total: i128) -> Result<(), Overflow> {
                match (*kept as i128).checked_add(total).and_then(|sum| sum.try_into().ok()) {
                    Some(sum) => {
                        *kept = sum;
                        Ok(())
                    }
                    None => Err(Overflow::of_sum($name, $into, $cure)),
                }
            }

            #[inline]
            fn sum(kept: &$sum) -> $sum {
                *kept
            }

            fn mean(kept: &$sum, count: u64) -> Float {
                Float::from(*kept as f64 / count as f64)
            }
        })*
    };
}

integers! {
    i8: "i8" => i64, "i64", "sum them as i128";
    i16: "i16" => i64, "i64", "sum them as i128";
    i32: "i32" => i64, "i64", "sum them as i128";
    i64: "i64" => i64, "i64", "sum them as i128";
    isize: "isize" => i64, "i64", "sum them as i128";
    u8: "u8" => u64, "u64", "sum them as i128";
    u16: "u16" => u64, "u64", "sum them as i128";
    u32: "u32" => u64, "u64", "sum them as i128";
    u64: "u64" => u64, "u64", "sum them as i128";
    usize: "usize" => u64, "u64", "sum them as i128";
}

/// An `i128` that is stored as text, which Arrow can express and people can read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(unreachable_pub)]
pub struct Long(i128);

impl Serialize for Long {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Long {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The schema of a type is found by deserialising it from nothing.
        if text.is_empty() { Ok(Self(0)) } else { text.parse().map(Self).map_err(serde::de::Error::custom) }
    }
}

const OVERFLOW: Overflow = Overflow::of_sum("i128", "i128", "sum larger units");

impl Linear for i128 {}

impl Summand for i128 {
    type Total = i256;
    type Kept = Long;
    type Sum = i128;
    type Mean = Float;

    const NAME: &'static str = "i128";

    fn add_to(self, total: &mut i256) {
        // 2^64 values of 128 bits do not reach the end.
        *total = total.wrapping_add(i256::from_i128(self));
    }

    fn add_times_to(self, total: &mut i256, times: i64) -> Result<(), Overflow> {
        let product = i256::from_i128(self).checked_mul(i256::from_i128(i128::from(times)));
        *total = product.and_then(|product| total.checked_add(product)).ok_or(OVERFLOW)?;
        Ok(())
    }

    fn settle(kept: &mut Long, mut total: i256) -> Result<(), Overflow> {
        kept.0.add_to(&mut total);
        let Some(sum) = total.to_i128() else {
            return Err(OVERFLOW);
        };
        kept.0 = sum;
        Ok(())
    }

    fn sum(kept: &Long) -> i128 {
        kept.0
    }

    fn mean(kept: &Long, count: u64) -> Float {
        Float::from(kept.0 as f64 / count as f64)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn total<S: Summand>(values: impl IntoIterator<Item = S>) -> Result<S::Sum, Overflow> {
        let mut total = S::Total::default();
        values.into_iter().for_each(|value| value.add_to(&mut total));
        let mut kept = S::Kept::default();
        S::settle(&mut kept, total)?;
        Ok(S::sum(&kept))
    }

    #[test]
    fn a_sum_may_leave_its_type_on_the_way_but_not_at_the_end() {
        assert_eq!(total([i64::MAX, i64::MAX, -i64::MAX]), Ok(i64::MAX));
        assert_eq!(total([i128::MAX, i128::MAX, -i128::MAX]), Ok(i128::MAX));
        assert_eq!(total([u32::MAX, u32::MAX]), Ok(2 * u64::from(u32::MAX)));
        let error = total([i64::MAX, 1]).unwrap_err();
        assert_eq!(error.to_string(), "the sum of i64 values does not fit i64: sum them as i128");
        assert!(total([u64::MAX, 1]).is_err());
        assert!(total([i128::MIN, -1]).is_err());
    }

    #[test]
    fn a_long_sum_survives_text() {
        for value in [0, i128::MIN, i128::MAX, -17] {
            let text = serde_json::to_string(&Long(value)).unwrap();
            assert_eq!(serde_json::from_str::<Long>(&text).unwrap().0, value);
        }
    }
}
