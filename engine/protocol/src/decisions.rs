//! What follows when a generation ends, apart from the code that starts and watches processes.
//!
//! ```text
//!   processes end ──[ProcessEnd]──► cause ──► GenerationEnd ──► Decisions::after ──► start the next (at once, or after a
//!                                                                                   pause), or end the run
//! ```

use serde::{Deserialize, Serialize};

use crate::Exit;

/// The pause before the second restart in a row; the first comes at once.
const FIRST_PAUSE_MS: u64 = 500;
/// The longest pause before a restart.
const LONGEST_PAUSE_MS: u64 = 30_000;

/// How one process of a generation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProcessEnd {
    /// It said how and why.
    Said {
        /// How it ended.
        exit: Exit,
        /// The reason, in one line.
        why: String,
        /// Whether the cause is this host, such as its clock or its limits, so that a process on another host may succeed.
        #[serde(default)]
        elsewhere: bool,
    },
    /// It ended without a word: it was killed, or the host took it.
    Died {
        /// What is known, in one line.
        why: String,
    },
}

/// How a generation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GenerationEnd {
    /// How it ended.
    pub exit: Exit,
    /// The reason, in one line.
    pub why: String,
    /// Whether it had opened: it came as far as reading input.
    pub opened: bool,
    /// Whether it was asked to stop.
    pub stopping: bool,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Start the next generation after this time.
    Start {
        /// The pause, milliseconds.
        pause_ms: u64,
    },
    /// The run ends as the generation did.
    End,
}

/// Decides what follows when a generation of one run ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decisions {
    restart: bool,
    pause_ms: u64,
    ever_opened: bool,
}

impl Decisions {
    /// Of a run that has started nothing yet; without `restart` its first generation is its last.
    #[must_use]
    pub fn new(restart: bool) -> Self {
        Self { restart, pause_ms: 0, ever_opened: false }
    }

    /// A generation has ended. Restarts in a row wait longer and longer; one that opened begins the count again.
    pub fn after(&mut self, end: &GenerationEnd) -> Next {
        if end.opened {
            self.pause_ms = 0;
            self.ever_opened = true;
        }
        if end.stopping || !self.restart || !end.exit.may_restart(self.ever_opened) {
            return Next::End;
        }
        let pause_ms = self.pause_ms;
        self.pause_ms = (pause_ms * 2).clamp(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
        Next::Start { pause_ms }
    }
}

/// How a generation ended, by how its processes did.
///
/// What a process says of itself counts for more than that another process lost it: the first of these is the consequence
/// of the second. A process that died without a word is the cause where the others only lost it, or were done.
#[must_use]
pub fn cause(ends: impl IntoIterator<Item = ProcessEnd>) -> (Exit, String) {
    let rank = |exit: Exit| match exit {
        Exit::GenerationLost => 2,
        Exit::Done => 1,
        _ => 0,
    };
    let (mut said, mut died): (Option<(Exit, String)>, Option<String>) = (None, None);
    for end in ends {
        match end {
            ProcessEnd::Said { exit, why, .. } => {
                if said.as_ref().is_none_or(|(other, _)| rank(exit) < rank(*other)) {
                    said = Some((exit, why));
                }
            }
            ProcessEnd::Died { why } => drop(died.get_or_insert(why)),
        }
    }
    match (said, died) {
        (Some((exit, why)), died) if rank(exit) == 0 || died.is_none() => (exit, why),
        (_, Some(why)) => (Exit::GenerationLost, why),
        (said, None) => said.unwrap_or((Exit::GenerationLost, "no process of the job could be started".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(exit: Exit, opened: bool) -> GenerationEnd {
        GenerationEnd { exit, why: String::new(), opened, stopping: false }
    }

    /// What follows each of these ends, in their order: a pause, or `None` for the end of the run.
    fn check(restart: bool, ends: &[GenerationEnd], expected: &[Option<u64>]) {
        let mut decisions = Decisions::new(restart);
        let next = ends.iter().map(|end| match decisions.after(end) {
            Next::Start { pause_ms } => Some(pause_ms),
            Next::End => None,
        });
        assert_eq!(next.collect::<Vec<_>>(), expected, "{ends:?}");
    }

    #[test]
    fn restarts_in_a_row_wait_longer_and_longer_until_one_opens() {
        let lost = |opened| end(Exit::GenerationLost, opened);
        check(
            true,
            &[lost(true), lost(false), lost(false), lost(false)],
            &[Some(0), Some(500), Some(1000), Some(2000)],
        );
        let many: Vec<_> = (0..12).map(|_| lost(false)).collect();
        let mut decisions = Decisions::new(true);
        assert_eq!(many.iter().map(|end| decisions.after(end)).last(), Some(Next::Start { pause_ms: 30_000 }));
        assert_eq!(decisions.after(&lost(true)), Next::Start { pause_ms: 0 });
    }

    #[test]
    fn an_outage_is_retried_only_once_the_job_has_opened() {
        check(true, &[end(Exit::SinkFailed, false)], &[None]);
        check(true, &[end(Exit::SinkFailed, true), end(Exit::SinkFailed, false)], &[Some(0), Some(500)]);
        check(true, &[end(Exit::GenerationLost, false), end(Exit::StoreFailed, false)], &[Some(0), None]);
    }

    #[test]
    fn nothing_follows_an_end_for_good() {
        for exit in Exit::ALL.into_iter().filter(|exit| !exit.may_restart(true)) {
            check(true, &[end(exit, true)], &[None]);
        }
        check(false, &[end(Exit::GenerationLost, true)], &[None]);
        check(true, &[GenerationEnd { stopping: true, ..end(Exit::GenerationLost, true) }], &[None]);
    }

    #[test]
    fn the_cause_is_what_a_process_said_of_itself() {
        let said = |exit, why: &str| ProcessEnd::Said { exit, why: why.to_owned(), elsewhere: false };
        let died = |why: &str| ProcessEnd::Died { why: why.to_owned() };
        let check = |ends: &[ProcessEnd], exit, why: &str| {
            assert_eq!(cause(ends.iter().cloned()), (exit, why.to_owned()), "{ends:?}");
        };
        check(&[said(Exit::Done, ""), said(Exit::Done, "")], Exit::Done, "");
        check(&[said(Exit::GenerationLost, "peer"), said(Exit::Failed, "bad")], Exit::Failed, "bad");
        check(&[said(Exit::Failed, "first"), said(Exit::StoreFailed, "second")], Exit::Failed, "first");
        check(&[said(Exit::GenerationLost, "peer"), died("signal 9")], Exit::GenerationLost, "signal 9");
        check(&[said(Exit::Failed, "bad"), died("signal 9")], Exit::Failed, "bad");
        check(&[said(Exit::Done, ""), died("signal 9"), died("later")], Exit::GenerationLost, "signal 9");
        check(&[], Exit::GenerationLost, "no process of the job could be started");
    }
}
