//! Sums of decimals. They are exact because they are added up in units of 10^-28, the smallest unit of a `Decimal`.

use arrow_buffer::i256;
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::sealed::Linear;
use super::{Overflow, Summand};

/// The maximum number of digits after the decimal point of a `Decimal`.
const MOST_DIGITS: u32 = 28;

/// A decimal that is stored as text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(unreachable_pub)]
pub struct Kept(Decimal);

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The schema of a type is found by deserialising it from nothing.
        let value = if text.is_empty() { Ok(Decimal::ZERO) } else { Decimal::from_str_exact(&text) };
        value.map(Self).map_err(serde::de::Error::custom)
    }
}

const OVERFLOW: Overflow =
    Overflow::of_sum("decimal", "the 96 bits of a Decimal", "round the values to fewer digits, or sum smaller ones");

impl Linear for Decimal {}

impl Summand for Decimal {
    type Total = i256;
    type Kept = Kept;
    type Sum = Decimal;
    type Mean = Decimal;

    const NAME: &'static str = "decimal";

    fn add_to(self, total: &mut i256) {
        // 2^64 values of at most 190 bits do not reach the end.
        *total = total.wrapping_add(units(self));
    }

    fn add_times_to(self, total: &mut i256, times: i64) -> Result<(), Overflow> {
        let product = units(self).checked_mul(i256::from_i128(i128::from(times)));
        *total = product.and_then(|product| total.checked_add(product)).ok_or(OVERFLOW)?;
        Ok(())
    }

    fn settle(kept: &mut Kept, mut total: i256) -> Result<(), Overflow> {
        kept.0.add_to(&mut total);
        kept.0 = decimal(total).ok_or(OVERFLOW)?;
        Ok(())
    }

    fn sum(kept: &Kept) -> Decimal {
        kept.0
    }

    fn mean(kept: &Kept, count: u64) -> Decimal {
        (kept.0 / Decimal::from(count)).normalize()
    }
}

/// A decimal in units of 10^-28.
fn units(value: Decimal) -> i256 {
    let unit = 10i128.pow(MOST_DIGITS - value.scale());
    i256::from_i128(value.mantissa()).wrapping_mul(i256::from_i128(unit))
}

/// The decimal of so many units of 10^-28, without trailing zeros; `None` if a `Decimal` cannot hold it.
fn decimal(units: i256) -> Option<Decimal> {
    let (mut mantissa, mut scale) = (units, MOST_DIGITS);
    while scale > 0 {
        let (quotient, rest) = mantissa.wrapping_div_rem(i256::from_i128(10));
        if rest != i256::ZERO {
            break;
        }
        (mantissa, scale) = (quotient, scale - 1);
    }
    Decimal::try_from_i128_with_scale(mantissa.to_i128()?, scale).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[Decimal]) -> Result<Decimal, Overflow> {
        let mut total = i256::default();
        values.iter().for_each(|value| value.add_to(&mut total));
        let mut kept = Kept::default();
        Decimal::settle(&mut kept, total)?;
        Ok(kept.0)
    }

    fn parse(text: &str) -> Decimal {
        Decimal::from_str_exact(text).unwrap()
    }

    #[test]
    fn a_sum_is_exact_where_decimals_own_addition_rounds() {
        let (large, small) = (parse("7922816251426433759354395033"), parse("0.0000000000000000000000000001"));
        assert_eq!(sum(&[large, small, -large]), Ok(small));
        assert_eq!(sum(&[parse("1.10"), parse("2.20")]).unwrap().to_string(), "3.3");
        assert_eq!(sum(&[]), Ok(Decimal::ZERO));
    }

    #[test]
    fn a_sum_that_no_decimal_has_is_an_error() {
        assert!(sum(&[Decimal::MAX, Decimal::ONE]).is_err());
        assert!(sum(&[parse("7922816251426433759354395033"), parse("0.0000000000000000000000000001")]).is_err());
        assert_eq!(sum(&[Decimal::MAX, Decimal::MAX, Decimal::MIN]), Ok(Decimal::MAX));
    }

    proptest! {
        #[test]
        fn a_sum_is_that_of_the_integers_and_survives_text(values in proptest::collection::vec((any::<i64>(), 0u32..6), 0..20)) {
            let decimals: Vec<Decimal> = values.iter().map(|&(m, s)| Decimal::new(m, s)).collect();
            let units: i128 = values.iter().map(|&(m, s)| i128::from(m) * 10i128.pow(6 - s)).sum();
            let expected = Decimal::from_i128_with_scale(units, 6);
            let found = sum(&decimals).unwrap();
            prop_assert_eq!(found, expected);
            let text = serde_json::to_string(&Kept(found)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Kept>(&text).unwrap().0, expected);
        }
    }
}
