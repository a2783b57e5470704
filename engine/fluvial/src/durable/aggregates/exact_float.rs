//! Sums of floats that do not depend on the order of the floats, because they are added up as integers of any length.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::sealed::Linear;
use super::{Overflow, Summand};

/// A float that [`Sum`](super::Sum) and [`Average`](super::Average) add up exactly, so that the result does not depend on the
/// order of the records. It is rounded once, to the nearest [`Float`].
///
/// ```
/// use fluvial::durable::{ExactFloat, Float};
/// use fluvial::harness::Dataflow;
/// use fluvial::Sum;
///
/// let mut test = Dataflow::new(1, |scope| {
///     let amounts = scope.input::<(u8, Float)>("amounts");
///     scope.output("sum", amounts.aggregate("sum", Sum(|amount: &Float| ExactFloat::from(amount.get()))));
/// });
/// test.feed("amounts", 1, [1e100, 1.0, -1e100].map(|amount| (0u8, Float::from(amount))));
/// test.advance_past(1);
/// // In this order, the sum of plain floats is 0.
/// assert_eq!(test.table::<(u8, Float)>("sum"), [(0, Float::from(1.0))]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ExactFloat(f64);

impl From<f64> for ExactFloat {
    fn from(value: f64) -> Self {
        Self(value)
    }
}

impl From<f32> for ExactFloat {
    fn from(value: f32) -> Self {
        Self(f64::from(value))
    }
}

/// A float with a total order, as rows of a collection need it. Both zeros are equal, and all NaNs are equal.
///
/// ```
/// use fluvial::durable::Float;
///
/// assert_eq!(Float::from(0.0), Float::from(-0.0));
/// assert_eq!(Float::from(f64::NAN), Float::from(-f64::NAN));
/// assert!(Float::from(1.5) < Float::from(2.0));
/// assert_eq!(Float::from(1.5).get(), 1.5);
/// ```
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Float(f64);

impl Float {
    /// Returns the float.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl From<f64> for Float {
    fn from(value: f64) -> Self {
        // One zero and one NaN, so that equal floats are equal in every byte that is written of them.
        Self(if value == 0.0 {
            0.0
        } else if value.is_nan() {
            f64::NAN
        } else {
            value
        })
    }
}

impl Ord for Float {
    fn cmp(&self, other: &Self) -> Ordering {
        Self::from(self.0).0.total_cmp(&Self::from(other.0).0)
    }
}

impl PartialOrd for Float {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Float {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Float {}

impl fmt::Debug for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The exponent of the lowest bit that a float can have.
const LOWEST_EXPONENT: i32 = -1074;

/// An exact sum of floats: an integer in two's complement, in units of 2^-1074, of which only the words between the
/// lowest and the highest that matter are kept. Equal sums have equal words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(unreachable_pub)]
pub struct ExactSum {
    /// The sum as the nearest float, for people who read state files. The engine computes it from the other fields.
    nearest: Float,
    /// The number of values that were not finite, by kind.
    special: Special,
    /// The number of words below `words`. All of them are zero, and they are not stored.
    skipped: u16,
    /// The words, lowest first; the highest bit of the last is the sign.
    words: Vec<u64>,
}

/// How many of the values were not finite. They are counted so that they can be retracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(unreachable_pub)]
pub struct Special {
    nans: i64,
    infinities: i64,
    negative_infinities: i64,
}

impl ExactSum {
    /// Adds a value `times` times, or retracts it if `times` is negative.
    fn add_times(&mut self, value: f64, times: i64) {
        if !value.is_finite() {
            let count = match value {
                value if value.is_nan() => &mut self.special.nans,
                value if value > 0.0 => &mut self.special.infinities,
                _ => &mut self.special.negative_infinities,
            };
            *count += times;
            return;
        }
        let bits = value.to_bits();
        let exponent = (bits >> 52 & 0x7ff) as u32;
        let fraction = bits & ((1 << 52) - 1);
        let (mantissa, shift) = if exponent == 0 { (fraction, 0) } else { (fraction | 1 << 52, exponent - 1) };
        if mantissa == 0 {
            return;
        }
        // At most 53 + 64 + 63 bits: three words hold it with its sign.
        let (product, by) = (u128::from(mantissa) * u128::from(times.unsigned_abs()), shift % 64);
        let (low, high) = (product << by, (product >> 64) >> (64 - by));
        let mut words = [low as u64, (low >> 64) as u64, high as u64];
        if (value < 0.0) != (times < 0) {
            negate(&mut words);
        }
        self.add_words(&words, (shift / 64) as u16);
    }

    fn merge(&mut self, other: &Self) {
        self.special.nans += other.special.nans;
        self.special.infinities += other.special.infinities;
        self.special.negative_infinities += other.special.negative_infinities;
        self.add_words(&other.words, other.skipped);
    }

    /// Adds an integer whose lowest word stands above `skipped` words.
    fn add_words(&mut self, other: &[u64], skipped: u16) {
        if other.is_empty() {
            return;
        }
        if self.words.is_empty() {
            self.skipped = skipped;
        } else if skipped < self.skipped {
            let missing = usize::from(self.skipped - skipped);
            self.words.splice(0..0, std::iter::repeat_n(0, missing));
            self.skipped = skipped;
        }
        let start = usize::from(skipped - self.skipped);
        // One word more than either has: the sum cannot outgrow it.
        let needed = self.words.len().max(start + other.len()) + 1;
        let sign = sign_of(&self.words);
        self.words.resize(needed, sign);
        let mut carry = false;
        let extended = other.iter().copied().chain(std::iter::repeat(sign_of(other)));
        for (word, other) in self.words[start..].iter_mut().zip(extended) {
            let (sum, first) = word.overflowing_add(other);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *word = sum;
            carry = first || second;
        }
        self.trim();
    }

    /// Brings the words into the one form that a number has.
    fn trim(&mut self) {
        while let [.., below, top] = self.words[..]
            && top == sign_of(&[below])
        {
            self.words.pop();
        }
        if self.words == [0] {
            self.words.clear();
        }
        let zeros = self.words.iter().take_while(|word| **word == 0).count();
        self.words.drain(..zeros);
        self.skipped = if self.words.is_empty() { 0 } else { self.skipped + zeros as u16 };
    }

    /// The nearest float, ties to even.
    fn nearest(&self) -> f64 {
        let Special { nans, infinities, negative_infinities } = self.special;
        match (nans, infinities, negative_infinities) {
            (0, 0, 0) => {}
            (0, _, 0) => return f64::INFINITY,
            (0, 0, _) => return f64::NEG_INFINITY,
            _ => return f64::NAN,
        }
        let negative = sign_of(&self.words) != 0;
        let magnitude = if negative { negated(&self.words) } else { self.words.clone() };
        let Some(top) = magnitude.iter().rposition(|word| *word != 0) else { return 0.0 };
        let highest_bit = top * 64 + 63 - magnitude[top].leading_zeros() as usize;
        let position = highest_bit + 64 * usize::from(self.skipped);
        // The lowest bit of the result: 52 below the highest, but none below the lowest that a float has.
        let lowest = position.saturating_sub(52);
        let bit = |at: usize| {
            at.checked_sub(64 * usize::from(self.skipped))
                .and_then(|at| magnitude.get(at / 64).map(|word| word >> (at % 64) & 1))
                .unwrap_or(0)
        };
        let mut mantissa = (lowest..=position).rev().fold(0u64, |mantissa, at| mantissa << 1 | bit(at));
        let below = |at: usize| (0..at).any(|at| bit(at) == 1);
        if lowest > 0 && bit(lowest - 1) == 1 && (mantissa & 1 == 1 || below(lowest - 1)) {
            mantissa += 1;
        }
        // A mantissa of at most 2^53 is exact, and so is the power of two, or the result is infinite.
        let value = scale(mantissa as f64, lowest as i32 + LOWEST_EXPONENT);
        if negative { -value } else { value }
    }
}

/// `value * 2^exponent`, in two steps so that neither power leaves the range of a float too early.
fn scale(value: f64, exponent: i32) -> f64 {
    let power = |exponent: i32| f64::from_bits(((exponent + 1023) as u64) << 52);
    if exponent < -1022 { value * power(-1022) * power(exponent + 1022) } else { value * power(exponent.min(1023)) }
}

/// The word that follows the highest one in two's complement: all ones for a negative number, otherwise zero.
fn sign_of(words: &[u64]) -> u64 {
    words.last().map_or(0, |word| ((*word as i64) >> 63) as u64)
}

fn negated(words: &[u64]) -> Vec<u64> {
    let mut result = words.to_vec();
    negate(&mut result);
    if sign_of(&result) != 0 {
        result.push(0);
    }
    result
}

/// The two's complement.
fn negate(words: &mut [u64]) {
    let mut carry = true;
    for word in words {
        (*word, carry) = (!*word).overflowing_add(u64::from(carry));
    }
}

impl Linear for ExactFloat {}

impl Summand for ExactFloat {
    type Total = ExactSum;
    type Kept = ExactSum;
    type Sum = Float;
    type Mean = Float;

    const NAME: &'static str = "exact float";

    fn add_to(self, total: &mut ExactSum) {
        total.add_times(self.0, 1);
    }

    fn add_times_to(self, total: &mut ExactSum, times: i64) -> Result<(), Overflow> {
        total.add_times(self.0, times);
        Ok(())
    }

    fn settle(kept: &mut ExactSum, total: ExactSum) -> Result<(), Overflow> {
        kept.merge(&total);
        kept.nearest = Float::from(kept.nearest());
        Ok(())
    }

    fn sum(kept: &ExactSum) -> Float {
        kept.nearest
    }

    fn mean(kept: &ExactSum, count: u64) -> Float {
        Float::from(kept.nearest.0 / count as f64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(values: &[f64]) -> ExactSum {
        let mut sum = ExactSum::default();
        values.iter().for_each(|value| sum.add_times(*value, 1));
        sum
    }

    #[test]
    fn sums_are_exact_and_rounded_once() {
        for (values, expected) in [
            (vec![], 0.0),
            (vec![0.1, 0.2, 0.3], 0.6),
            (vec![1e308, 1e308, -1e308, -1e308, 1.0], 1.0),
            (vec![1e308, 1e308], f64::INFINITY),
            (vec![1e100, 1.0, -1e100], 1.0),
            (vec![f64::MIN_POSITIVE, -f64::from_bits(1)], f64::MIN_POSITIVE - f64::from_bits(1)),
            (vec![-1.0, -f64::EPSILON / 2.0, -f64::from_bits(1)], -1.0 - f64::EPSILON),
            (vec![1.0, f64::EPSILON / 2.0], 1.0),
            (vec![f64::INFINITY, 1.0], f64::INFINITY),
            (vec![-5.0, 5.0], 0.0),
        ] {
            assert_eq!(exact(&values).nearest(), expected, "{values:?}");
        }
        assert!(exact(&[f64::INFINITY, f64::NEG_INFINITY]).nearest().is_nan());
        assert!(exact(&[f64::NAN, 1.0]).nearest().is_nan());
    }

    proptest! {
        #[test]
        fn a_single_float_is_its_own_sum(value in any::<f64>()) {
            prop_assert_eq!(Float::from(exact(&[value]).nearest()), Float::from(value));
        }

        #[test]
        fn neither_order_nor_grouping_matters(mut values in proptest::collection::vec(any::<f64>(), 0..12), cut in 0usize..12) {
            let forward = exact(&values);
            values.reverse();
            prop_assert_eq!(&exact(&values), &forward);
            let (some, others) = values.split_at(cut.min(values.len()));
            let mut grouped = exact(some);
            grouped.merge(&exact(others));
            prop_assert_eq!(grouped, forward);
        }

        #[test]
        fn what_is_taken_back_leaves_nothing(values in proptest::collection::vec(-1e300f64..1e300, 0..12)) {
            let all: Vec<f64> = values.iter().copied().chain(values.iter().map(|value| -value)).collect();
            prop_assert_eq!(exact(&all), ExactSum::default());
        }

        #[test]
        fn so_many_times_is_as_often_one_by_one(value in any::<f64>(), times in -20i64..20, more in -20i64..20) {
            let mut at_once = ExactSum::default();
            at_once.add_times(value, times);
            let mut one_by_one = ExactSum::default();
            (0..times.abs()).for_each(|_| one_by_one.add_times(value, times.signum()));
            prop_assert_eq!(&at_once, &one_by_one);
            at_once.add_times(value, more);
            at_once.add_times(value, -times - more);
            prop_assert_eq!(at_once, ExactSum::default());
        }

        #[test]
        fn it_agrees_with_integers(values in proptest::collection::vec(-(1i64 << 50)..1i64 << 50, 0..50)) {
            let floats: Vec<f64> = values.iter().map(|value| *value as f64 / 1024.0).collect();
            let sum: i64 = values.iter().sum();
            prop_assert_eq!(exact(&floats).nearest(), sum as f64 / 1024.0);
        }
    }
}
