//! What a reader has read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How many attempts a text of positions holds: their nodes may still have lines that were not read.
const MOST_ATTEMPTS: usize = 2;
/// The longest text that is read.
const LONGEST: usize = 12 << 10;

/// How far a reader has read the processes of a job: by attempt and process, the number of the line that it reads next.
/// Attempts before the first of these are read. Its text is `ATTEMPT.PROCESS.NEXT`, for several processes joined by `_`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Positions(BTreeMap<(u64, u32), u64>);

impl Positions {
    /// The number of the line of a process that is read next; `None` if all of them are read.
    #[must_use]
    pub fn next(&self, attempt: u64, process: u32) -> Option<u64> {
        let first = self.0.first_key_value().map(|((first, _), _)| *first);
        match self.0.get(&(attempt, process)) {
            Some(next) => Some(*next),
            None => first.is_none_or(|first| attempt >= first).then_some(0),
        }
    }

    /// Notes that the lines of a process before number `next` are read.
    pub fn advance(&mut self, attempt: u64, process: u32, next: u64) {
        if self.next(attempt, process).is_none() {
            return;
        }
        let of_process = self.0.entry((attempt, process)).or_default();
        *of_process = next.max(*of_process);
        let attempts: BTreeSet<_> = self.0.keys().map(|(attempt, _)| *attempt).collect();
        if let Some(first) = attempts.iter().nth_back(MOST_ATTEMPTS - 1) {
            self.0.retain(|(attempt, _), _| attempt >= first);
        }
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, ((attempt, process), next)) in self.0.iter().enumerate() {
            let joint = if at == 0 { "" } else { "_" };
            write!(f, "{joint}{attempt}.{process}.{next}")?;
        }
        Ok(())
    }
}

impl FromStr for Positions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a position is ATTEMPT.PROCESS.NEXT, and several are joined by '_'".to_owned();
        if text.len() > LONGEST {
            return Err(format!("positions have more than {LONGEST} characters"));
        }
        let mut positions = Self::default();
        for part in text.split('_').filter(|part| !part.is_empty()) {
            let mut numbers = part.split('.');
            let mut next = || numbers.next().and_then(|number| number.parse::<u64>().ok());
            let (Some(attempt), Some(process), Some(line)) = (next(), next(), next()) else { return Err(wrong()) };
            let process = u32::try_from(process).map_err(|_| wrong())?;
            if numbers.next().is_some() {
                return Err(wrong());
            }
            positions.0.insert((attempt, process), line);
        }
        Ok(positions)
    }
}

impl TryFrom<String> for Positions {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Positions> for String {
    fn from(positions: Positions) -> Self {
        positions.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn positions_hold_the_two_newest_attempts_and_take_earlier_ones_for_read() {
        let mut positions = Positions::default();
        assert_eq!(positions.next(3, 0), Some(0));
        positions.advance(3, 0, 7);
        positions.advance(3, 1, 9);
        positions.advance(3, 0, 5);
        assert_eq!(positions.to_string(), "3.0.7_3.1.9");
        assert_eq!([positions.next(3, 0), positions.next(3, 2), positions.next(2, 0)], [Some(7), Some(0), None]);
        positions.advance(2, 0, 1);
        positions.advance(5, 0, 1);
        positions.advance(8, 1, 2);
        assert_eq!(positions.to_string(), "5.0.1_8.1.2");
        assert_eq!([positions.next(3, 0), positions.next(6, 0)], [None, Some(0)]);
    }

    #[test]
    fn their_text_says_the_same_and_what_is_no_such_text_is_refused() {
        for text in ["", "3.0.7", "3.0.7_3.1.9_18446744073709551615.4294967295.18446744073709551615"] {
            assert_eq!(text.parse::<Positions>().unwrap().to_string(), text);
        }
        for text in ["3", "3.0", "3.0.7.1", "a.0.7", "3.4294967296.1", "-1.0.0", &"_".repeat(20_000)] {
            assert!(text.parse::<Positions>().is_err(), "{text}");
        }
    }
}
