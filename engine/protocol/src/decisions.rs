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
    /// Whether it had been open for so long that its end does not count as one more of those before it.
    pub healthy: bool,
    /// Whether it was asked to stop.
    pub stopping: bool,
    /// How long it has lasted, its start included, in milliseconds.
    pub lasted_ms: u64,
    /// What its end says about the job.
    pub fault: Fault,
}

/// What the end of a generation says about its job, where a restart may mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process died, and its host did not: the job may be the cause.
    Process,
    /// The processes have lost each other, or did not meet: a network may be the cause. It is only taken for a failure of the job
    /// if nothing has worked yet in its run, because misconfiguration is then more likely than an outage.
    Surroundings,
    /// A host was lost, or an external system failed: the next generation waits for it, however often that takes.
    None,
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
    /// The run ends, because its generations have failed so often in a row.
    GiveUp {
        /// How many of them.
        times: u32,
        /// The time from the start of the first of them to the end of the last, as far as it is known, in milliseconds.
        within_ms: u64,
    },
}

/// Decides what follows when a generation of one run ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decisions {
    restart: bool,
    pause_ms: u64,
    ever_opened: bool,
    /// How many generations in a row have failed.
    #[serde(default)]
    failures: u32,
    /// How long these have lasted, with the pauses between them.
    #[serde(default)]
    failing_ms: u64,
}

impl Decisions {
    /// Of a run that has started nothing yet; without `restart` its first generation is its last.
    #[must_use]
    pub fn new(restart: bool) -> Self {
        Self { restart, pause_ms: 0, ever_opened: false, failures: 0, failing_ms: 0 }
    }

    /// The same after a person has changed what is to run: what failed before says nothing about it.
    #[must_use]
    pub fn of_change(self) -> Self {
        Self { pause_ms: 0, failures: 0, failing_ms: 0, ..self }
    }

    /// The decisions about a program that has not run before, in a run of others: as long as it has not read input, misconfiguration is
    /// more likely than an outage.
    #[must_use]
    pub fn of_new_program(self) -> Self {
        Self { ever_opened: false, ..self.of_change() }
    }

    /// The decisions about a program that has read input before, in the place of one that has failed.
    #[must_use]
    pub fn of_proven_program(self) -> Self {
        Self { ever_opened: true, ..self.of_change() }
    }

    /// A generation has ended. Restarts in a row wait longer and longer, and are given up after `most_failures` failures in a row;
    /// a generation that was healthy begins both counts again.
    pub fn after(&mut self, end: &GenerationEnd, most_failures: Option<u32>) -> Next {
        self.ever_opened |= end.opened;
        if end.healthy {
            (self.pause_ms, self.failures, self.failing_ms) = (0, 0, 0);
        }
        if end.stopping || !self.restart || !end.exit.may_restart(self.ever_opened) {
            return Next::End;
        }
        let counts = match end.fault {
            Fault::Process => true,
            Fault::Surroundings => !self.ever_opened,
            Fault::None => false,
        };
        self.failures += u32::from(counts);
        if self.failures > 0 {
            self.failing_ms += end.lasted_ms;
        }
        if counts && most_failures.is_some_and(|most| self.failures >= most) {
            return Next::GiveUp { times: self.failures, within_ms: self.failing_ms };
        }
        let pause_ms = self.pause_ms;
        if self.failures > 0 {
            self.failing_ms += pause_ms;
        }
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
        let fault = if exit == Exit::GenerationLost { Fault::Process } else { Fault::None };
        let (why, healthy, stopping, lasted_ms) = (String::new(), opened, false, 1000);
        GenerationEnd { exit, why, opened, healthy, stopping, lasted_ms, fault }
    }

    /// What follows each of these ends, in their order: a pause, or `None` for the end of the run.
    fn check(restart: bool, ends: &[GenerationEnd], expected: &[Option<u64>]) {
        let mut decisions = Decisions::new(restart);
        let next = ends.iter().map(|end| match decisions.after(end, None) {
            Next::Start { pause_ms } => Some(pause_ms),
            Next::End | Next::GiveUp { .. } => None,
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
        assert_eq!(many.iter().map(|end| decisions.after(end, None)).last(), Some(Next::Start { pause_ms: 30_000 }));
        assert_eq!(decisions.after(&lost(true), None), Next::Start { pause_ms: 0 });
    }

    /// What follows after so many ends, where restarts are given up after three failures.
    fn last(ends: &[GenerationEnd]) -> Option<Next> {
        let mut decisions = Decisions::new(true);
        ends.iter().map(|end| decisions.after(end, Some(3))).last()
    }

    #[test]
    fn failures_in_a_row_end_the_run_unless_one_was_healthy() {
        let lost = end(Exit::GenerationLost, false);
        let brief = GenerationEnd { healthy: false, ..end(Exit::GenerationLost, true) };
        // Three seconds of three generations, and the pauses between them.
        let given_up = Some(Next::GiveUp { times: 3, within_ms: 3500 });
        assert_eq!(last(&[lost.clone(), lost.clone(), lost.clone()]), given_up);
        assert_eq!(last(&[brief.clone(), brief.clone(), brief.clone()]), given_up, "it was never open for long");
        let healthy = end(Exit::GenerationLost, true);
        assert_eq!(
            last(&[lost.clone(), lost.clone(), healthy, lost.clone()]),
            Some(Next::Start { pause_ms: 500 }),
            "one was healthy"
        );
        let mut decisions = Decisions::new(true);
        for _ in 0..2 {
            decisions.after(&lost, Some(3));
        }
        assert_eq!(decisions.of_change().after(&lost, Some(3)), Next::Start { pause_ms: 0 });
    }

    #[test]
    fn what_is_no_failing_of_the_job_is_not_counted() {
        let of = |fault, opened| GenerationEnd { fault, healthy: false, ..end(Exit::GenerationLost, opened) };
        let many = |end: &GenerationEnd| last(&vec![end.clone(); 12]);
        let waits = Some(Next::Start { pause_ms: LONGEST_PAUSE_MS });
        assert_eq!(many(&of(Fault::None, false)), waits, "hosts were lost");
        assert_eq!(
            many(&GenerationEnd { healthy: false, ..end(Exit::SinkFailed, true) }),
            waits,
            "a broker is unavailable"
        );
        assert_eq!(many(&of(Fault::Surroundings, true)), waits, "a network fails");
        assert!(matches!(many(&of(Fault::Surroundings, false)), Some(Next::GiveUp { .. })), "nothing has worked yet");
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
