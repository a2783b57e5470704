//! When to believe an answer that contradicts what is known.

use std::time::Duration;

/// Decides whether to believe answers of an external system that contradict what is known already, such as the answer
/// that an existing object is missing. A server that has been isolated from its cluster without noticing gives such
/// outdated answers, so a single one is not believed. Several in a row, over some time, are believed if no other answer
/// came between them.
///
/// ```
/// # use std::time::Duration;
/// let mut doubt = fluvial_connector::Doubt::new(2, Duration::from_secs(3));
/// let second = Duration::from_secs(1);
/// assert!(!doubt.is_believed(10 * second) && !doubt.is_believed(11 * second));
/// assert!(doubt.is_believed(13 * second));
/// // An answer that does not contradict.
/// doubt.forget();
/// assert!(!doubt.is_believed(20 * second));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// How many answers in a row have to contradict.
    times: u32,
    /// How much later than the first of these answers the last one has to come.
    over: Duration,
    /// When the first of these answers came, and how many have come.
    said: Option<(Duration, u32)>,
}

impl Doubt {
    /// A doubt that ends when `times` answers in a row have contradicted, the last of them at least `over` after the
    /// first.
    #[must_use]
    pub fn new(times: u32, over: Duration) -> Self {
        Self { times, over, said: None }
    }

    /// Counts one more contradicting answer, which came at `now`, measured from any fixed moment. Returns whether the
    /// answer is to be believed.
    pub fn is_believed(&mut self, now: Duration) -> bool {
        let (since, answers) = self.said.get_or_insert((now, 0));
        *answers += 1;
        *answers >= self.times && now.saturating_sub(*since) >= self.over
    }

    /// Forgets the earlier answers, because one has come that does not contradict.
    pub fn forget(&mut self) {
        self.said = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_believed_when_enough_in_a_row_have_said_it_over_enough_time() {
        let check = |times, over_ms, answers: &[Option<u64>], expected: &[bool]| {
            let mut doubt = Doubt::new(times, Duration::from_millis(over_ms));
            let believed = answers.iter().map(|answer| match answer {
                Some(ms) => doubt.is_believed(Duration::from_millis(*ms)),
                None => {
                    doubt.forget();
                    false
                }
            });
            assert_eq!(believed.collect::<Vec<_>>(), expected, "{times} over {over_ms} ms: {answers:?}");
        };
        let at = |ms: &[u64]| ms.iter().copied().map(Some).collect::<Vec<_>>();
        check(4, 3000, &at(&[0, 400, 800, 1200, 2999, 3000]), &[false, false, false, false, false, true]);
        check(4, 3000, &at(&[0, 5000, 5001, 5002, 5003]), &[false, false, false, true, true]);
        check(2, 3000, &[Some(0), None, Some(3000), Some(6000)], &[false, false, false, true]);
        check(3, 0, &at(&[7, 7, 7]), &[false, false, true]);
        // A clock that goes back makes no answer later.
        check(2, 1000, &at(&[5000, 1000, 6000]), &[false, false, true]);
    }
}
