//! What requests cost, at the list prices of Amazon S3 Standard (us-east-1, 2026). Other object stores charge about the same.

/// Requests by the classes that stores charge for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Requests {
    /// Requests that write or list: PUT, POST, LIST.
    pub writes: f64,
    /// Requests that read: GET, HEAD.
    pub reads: f64,
    /// Requests that delete. They are free.
    pub deletes: f64,
}

/// Dollars for a million requests that write or list.
const WRITES: f64 = 5.0;
/// Dollars for a million requests that read.
const READS: f64 = 0.4;
/// The hours of a month, on average.
const HOURS_PER_MONTH: f64 = 730.0;

impl Requests {
    /// What so many requests each hour cost in a month, in dollars.
    #[must_use]
    pub fn dollars_per_month(self) -> f64 {
        (self.writes * WRITES + self.reads * READS) / 1e6 * HOURS_PER_MONTH
    }

    /// The requests of all classes.
    #[must_use]
    pub fn sum(self) -> f64 {
        self.writes + self.reads + self.deletes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_a_second_costs_thirteen_dollars_a_month() {
        let each_second = Requests { writes: 3600.0, reads: 0.0, deletes: 1e6 };
        assert!((each_second.dollars_per_month() - 13.14).abs() < 0.001);
    }
}
