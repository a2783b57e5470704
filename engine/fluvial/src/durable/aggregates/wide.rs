//! Integers of 256 bits, as far as exact sums need them.

/// A signed integer of 256 bits in two's complement, lowest word first. It wraps; its users add no more than 2^64
/// values of at most 190 bits, which cannot reach the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(unreachable_pub)]
pub struct Wide([u64; 4]);

impl From<i128> for Wide {
    fn from(value: i128) -> Self {
        let sign = (value >> 127) as u64;
        Self([value as u64, (value >> 64) as u64, sign, sign])
    }
}

impl Wide {
    pub(super) fn add(&mut self, other: Self) {
        let mut carry = false;
        for (word, other) in self.0.iter_mut().zip(other.0) {
            let (sum, first) = word.overflowing_add(other);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *word = sum;
            carry = first || second;
        }
    }

    pub(super) fn is_negative(&self) -> bool {
        (self.0[3] as i64) < 0
    }

    /// `self * factor`; what does not fit 256 bits is lost.
    pub(super) fn times(mut self, factor: u64) -> Self {
        let mut carry = 0u128;
        for word in &mut self.0 {
            let product = u128::from(*word) * u128::from(factor) + carry;
            *word = product as u64;
            carry = product >> 64;
        }
        self
    }

    /// Quotient and remainder of the magnitude; the quotient has the sign of `self`.
    pub(super) fn divided(self, divisor: u64) -> (Self, u64) {
        let mut magnitude = if self.is_negative() { self.negated() } else { self };
        let mut rest = 0u128;
        for word in magnitude.0.iter_mut().rev() {
            let dividend = rest << 64 | u128::from(*word);
            *word = (dividend / u128::from(divisor)) as u64;
            rest = dividend % u128::from(divisor);
        }
        (if self.is_negative() { magnitude.negated() } else { magnitude }, rest as u64)
    }

    pub(super) fn to_i128(self) -> Option<i128> {
        let low = (u128::from(self.0[1]) << 64 | u128::from(self.0[0])) as i128;
        (Self::from(low) == self).then_some(low)
    }

    fn negated(self) -> Self {
        let mut result = Self(self.0.map(|word| !word));
        result.add(Self::from(1));
        result
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_computes_as_128_bits_do_where_they_suffice(a in -(1i128 << 120)..1i128 << 120, b in any::<i64>(), c in 1u64..) {
            let mut sum = Wide::from(a);
            sum.add(Wide::from(i128::from(b)));
            prop_assert_eq!(sum.to_i128(), Some(a + i128::from(b)));
            let (quotient, rest) = Wide::from(a).divided(c);
            prop_assert_eq!(quotient.to_i128(), Some(a / i128::from(c)));
            prop_assert_eq!(u128::from(rest), a.unsigned_abs() % u128::from(c));
            prop_assert_eq!(Wide::from(a).times(c).divided(c), (Wide::from(a), 0));
        }
    }
}
