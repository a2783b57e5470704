//! Notices that the client of a reader receives nothing although there is more to read.
//!
//! A client library hides an outage: it connects again and again, and its poll returns nothing meanwhile. In a process that
//! cannot reach the source and only reads, nothing else would fail, and its splits would stand still for as long as that lasts.
//! The leader asks the source for the ends of all splits, so it is known in every process whether there is more to read.

use std::time::Duration;

use fluvial_connector::Doubt;

/// How many answers of the source have to say that there is more.
const TIMES: u32 = 4;
/// If the source answers the leader so seldom, it is not only this process that does not reach it, in milliseconds.
const OUTAGE_MS: u64 = 30_000;

/// What is known of one reader.
#[derive(Debug)]
pub(super) struct Stall {
    /// How many answers its client had received when the source last answered the leader.
    answers: u64,
    /// When the source was asked then, in milliseconds.
    asked_ms: u64,
    /// When it was first asked since the client has received nothing.
    since_ms: u64,
    doubt: Doubt,
}

impl Stall {
    /// Of a reader whose client may receive nothing for this time.
    pub(super) fn new(patience: Duration) -> Self {
        Self { answers: 0, asked_ms: 0, since_ms: 0, doubt: Doubt::new(TIMES, patience) }
    }

    /// Takes what the source has answered when it was asked at `asked_ms`: whether there is more than the reader has read. Its
    /// client has received `answers` so far. Returns for how many seconds it has received nothing, if that is too long.
    pub(super) fn hear(&mut self, more: bool, answers: u64, asked_ms: u64) -> Option<u64> {
        let before_ms = std::mem::replace(&mut self.asked_ms, asked_ms);
        let moves = std::mem::replace(&mut self.answers, answers) != answers;
        if moves || !more || asked_ms > before_ms + OUTAGE_MS {
            self.since_ms = asked_ms;
            self.doubt.forget();
            return None;
        }
        let stalled = self.doubt.is_believed(Duration::from_millis(asked_ms));
        stalled.then(|| asked_ms.saturating_sub(self.since_ms) / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What follows from answers of the source that come every five seconds: whether there is more, how many answers the client
    /// has received, and for how many seconds more the source has not been asked.
    fn check(answers: &[(bool, u64, u64)], expected: &[Option<u64>]) {
        let mut stall = Stall::new(Duration::from_secs(20));
        let mut asked_s = 1000;
        let heard = answers.iter().map(|(more, answers, later_s)| {
            asked_s += 5 + later_s;
            stall.hear(*more, *answers, asked_s * 1000)
        });
        assert_eq!(heard.collect::<Vec<_>>(), expected, "{answers:?}");
    }

    #[test]
    fn a_client_that_receives_nothing_while_there_is_more_is_stalled_after_the_patience() {
        let more = (true, 7, 0);
        check(&[more; 7], &[None, None, None, None, None, Some(25), Some(30)]);
        let broken_by = |answer| [more, more, more, more, answer, more, more, more, more];
        let none = [None; 9];
        check(&broken_by((true, 8, 0)), &none);
        check(&broken_by((false, 7, 0)), &none);
        check(&broken_by((true, 7, 60)), &none);
        check(&[(false, 7, 0); 9], &none);
    }
}
