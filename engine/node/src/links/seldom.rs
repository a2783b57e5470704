//! Log lines that a stranger can cause, in bounded number.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two lines of the same kind.
const EVERY: Duration = Duration::from_secs(30);

/// Says when an event of one kind is to be logged: at once, and then at most every 30 seconds.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    left_out: u64,
}

impl Seldom {
    /// The number of events of this kind that were not logged, if this one is to be logged.
    pub(crate) fn now(&self) -> Option<u64> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now < last + EVERY) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_repeats_is_logged_once_in_thirty_seconds_with_the_number_of_the_others() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        let at = |seconds| seldom.at(start + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(29), at(30), at(31), at(90)], [Some(0), None, None, Some(2), None, Some(1)]);
    }
}
