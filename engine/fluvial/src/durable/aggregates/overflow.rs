//! The error of an aggregate that has no result.

use std::fmt;

/// What is said of a key whose rows cannot be counted any more.
pub(crate) const TOO_MANY_ROWS: &str = "it has more rows than 64 bits can count";

/// The error that an aggregate has no result for its records, for example because an exact total does not fit the type of the
/// result. The job then ends with an error that names the operator and the key, and says what this error says.
///
/// ```
/// use fluvial::durable::Overflow;
///
/// let overflow = Overflow::new("the product does not fit 64 bits: multiply smaller numbers");
/// assert_eq!(overflow.to_string(), "the product does not fit 64 bits: multiply smaller numbers");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overflow(Reason);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    /// The sum of values of a type does not fit another.
    Sum { values: &'static str, into: &'static str, cure: &'static str },
    /// Another reason.
    Other(String),
}

impl Overflow {
    /// Creates the error. `reason` says what does not fit, and what the author of the job can do about it.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self(Reason::Other(reason.into()))
    }

    /// The error that the sum of `values` does not fit the type `into`; `cure` says what to do about it.
    pub(super) const fn of_sum(values: &'static str, into: &'static str, cure: &'static str) -> Self {
        Self(Reason::Sum { values, into, cure })
    }
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Reason::Sum { values, into, cure } => {
                write!(f, "the sum of {values} values does not fit {into}: {cure}")
            }
            Reason::Other(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Overflow {}
