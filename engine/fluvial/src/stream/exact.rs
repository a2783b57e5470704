//! A difference that sums integers without overflowing.

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Multiply, Semigroup};
use serde::{Deserialize, Serialize};

use crate::durable::Overflow;

/// A 64-bit integer that is summed exactly as a difference of a collection, where `isize` would wrap around without a
/// word: what [`Sum`](crate::Sum) is on a stream, with rows that are taken back.
///
/// A sum of these never overflows: it has 64 bits more than the integers, as many as it takes to count them.
///
/// ```
/// use differential_dataflow::operators::CountTotal;
/// use fluvial::harness::Dataflow;
/// use fluvial::ExactInt;
///
/// let mut test = Dataflow::new(1, |scope| {
///     let accounts = scope.input::<(u64, Option<i64>)>("accounts").latest("accounts");
///     let total = accounts.explode(|(_, balance)| Some(((), (1, ExactInt::from(balance))))).count_total();
///     scope.output("total", total.map(|((), (accounts, total)): ((), (isize, ExactInt))| (accounts, total.get())));
/// });
/// test.feed("accounts", 1, [(1u64, Some(i64::MAX)), (2, Some(i64::MAX))]);
/// test.advance_past(1);
/// assert_eq!(test.table::<(isize, i128)>("total"), [(2, 2 * i128::from(i64::MAX))]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ExactInt(i128);

impl ExactInt {
    /// The integer, or the sum.
    #[must_use]
    pub fn get(self) -> i128 {
        self.0
    }
}

impl From<i64> for ExactInt {
    fn from(value: i64) -> Self {
        Self(i128::from(value))
    }
}

impl TryFrom<ExactInt> for i64 {
    type Error = Overflow;

    fn try_from(sum: ExactInt) -> Result<Self, Overflow> {
        let overflow = Overflow { values: "i64".into(), into: "i64", cure: "keep it as i128, or sum larger units" };
        Self::try_from(sum.0).map_err(|_| overflow)
    }
}

impl IsZero for ExactInt {
    fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl Semigroup for ExactInt {
    fn plus_equals(&mut self, other: &Self) {
        self.0 += other.0;
    }
}

impl Monoid for ExactInt {
    fn zero() -> Self {
        Self(0)
    }
}

impl Abelian for ExactInt {
    fn negate(&mut self) {
        self.0 = -self.0;
    }
}

impl Multiply<isize> for ExactInt {
    type Output = Self;

    fn multiply(self, times: &isize) -> Self {
        Self(self.0 * *times as i128)
    }
}
