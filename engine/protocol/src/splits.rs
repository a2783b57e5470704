//! Compares what the sources say of their splits with what the job has read of them. The leader and the workers hear
//! the same answers and use this one logic.
//!
//! | an answer says that | what follows |
//! | --- | --- |
//! | the split has another identity | it was recreated, and that is believed at once: an id does not change by itself |
//! | it ends before what was read of it | it was truncated, if answers in a row say so over some time: a broker that has lost leadership without noticing still reports an older end |
//! | it is unavailable | nothing: its end is not known, so the job waits for it |
//! | it is available, and ends after what was read | it can be read |
//!
//! An answer counts only if the source was asked after the journal had been claimed. Until then an earlier generation
//! may have read further, and an older answer may report an earlier end.

use std::collections::BTreeMap;
use std::time::Duration;

use fluvial_connector::{Availability, Doubt, Offset};

use crate::InputFault;
use crate::journal::{SplitName, SplitStart};
use crate::messages::FoundSplit;

/// How many answers in a row have to say that a split was truncated.
const TRUNCATED_TIMES: u32 = 2;
/// How much later than the first of them the last has to be asked for. The sources are asked every second while a generation
/// opens, and every five seconds after that.
const TRUNCATED_OVER: Duration = Duration::from_secs(4);

/// The splits that a job has read, and what the sources have said of them.
#[derive(Debug, Default)]
pub struct Splits(BTreeMap<SplitName, Known>);

#[derive(Debug)]
struct Known {
    start: SplitStart,
    /// The offset up to which the job has read the split, or the journal binds it.
    read: Offset,
    /// The name of the split for people; empty until its source has answered.
    described: String,
    truncated: Doubt,
    /// The latest end in the consecutive answers that the split was truncated.
    latest: Offset,
    standing: Standing,
}

/// The standing of a split in its external system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its source has not answered yet.
    Unknown,
    /// Its source has answered, and does not list it.
    Missing,
    /// It cannot be read for now.
    Unavailable {
        /// The reason for people, with the split as its subject.
        why: String,
    },
    /// It seems to end before what was read of it, and its source is asked again.
    InDoubt,
    /// It ends before what was read of it.
    Truncated {
        /// The latest end in the consecutive answers that the split was truncated.
        end: Offset,
    },
    /// It can be read.
    Available {
        /// The first offset that can still be read.
        earliest: Offset,
    },
}

impl Standing {
    /// Why the split cannot be read for now, if it cannot.
    #[must_use]
    pub fn why_not(&self) -> Option<&str> {
        match self {
            Self::Unknown => Some("its source has not answered yet"),
            Self::Missing => Some("its source does not list it"),
            Self::Unavailable { why } => Some(why),
            Self::InDoubt | Self::Truncated { .. } => Some("it seems to end too early, and is asked for again"),
            Self::Available { .. } => None,
        }
    }
}

impl Splits {
    /// Adds a split that the job has read up to `read`, by what the journal says. Its standing is unknown until its
    /// source answers.
    pub fn add(&mut self, start: &SplitStart, read: Offset) {
        let known = Known {
            start: start.clone(),
            read,
            described: String::new(),
            truncated: Doubt::new(TRUNCATED_TIMES, TRUNCATED_OVER),
            latest: Offset(0),
            standing: Standing::Unknown,
        };
        self.0.insert(start.name(), known);
    }

    /// Takes the answers of some sources, each with all of its splits. Splits that were not added are ignored.
    ///
    /// # Errors
    /// As [`Splits::refuse_recreated`].
    pub fn hear(&mut self, found: &[FoundSplit]) -> Result<(), InputFault> {
        self.refuse_recreated(found)?;
        for known in self.0.values_mut().filter(|known| found.iter().any(|found| found.source == known.start.source)) {
            known.standing = Standing::Missing;
        }
        for found in found {
            if let Some(known) = self.0.get_mut(&found.name()) {
                known.hear(found);
            }
        }
        Ok(())
    }

    /// Refuses splits whose records after what was read of them are gone.
    ///
    /// # Errors
    /// [`InputFault::Lost`] with the first of them.
    pub fn refuse_lost(&self) -> Result<(), InputFault> {
        let lost = self.0.values().find_map(|known| match known.standing {
            Standing::Available { earliest } if known.read < earliest => Some((known, earliest)),
            _ => None,
        });
        match lost {
            None => Ok(()),
            Some((known, begins)) => {
                Err(InputFault::Lost { described: known.described.clone(), read: known.read, begins })
            }
        }
    }

    /// Refuses splits that were recreated under their names: what the job has read of them is no part of the new
    /// splits. Unlike [`Splits::hear`], this may also be given answers to questions from before the journal was
    /// claimed.
    ///
    /// # Errors
    /// [`InputFault::Recreated`] with the first of them. A split whose system reported no identity, then or now, is not
    /// refused here: the digests of what is read again show whether it is the same.
    pub fn refuse_recreated(&self, found: &[FoundSplit]) -> Result<(), InputFault> {
        for found in found {
            let known = self.0.get(&found.name()).filter(|known| known.start.was_recreated(&found.identity));
            if let Some(Known { start, .. }) = known {
                let (was, is) = (start.identity.clone(), found.identity.clone());
                return Err(InputFault::Recreated { described: found.described.clone(), was, is });
            }
        }
        Ok(())
    }

    /// Adds a split that was met for the first time and that, by its source's latest answer, can be read from its start
    /// on.
    pub fn met(&mut self, start: &SplitStart) {
        self.add(start, start.offset);
        if let Some(known) = self.0.get_mut(&start.name()) {
            known.standing = Standing::Available { earliest: start.offset };
        }
    }

    /// The standing of a split; unknown if the split was not added.
    #[must_use]
    pub fn standing(&self, name: &SplitName) -> &Standing {
        self.0.get(name).map_or(&Standing::Unknown, |known| &known.standing)
    }

    /// Whether the end of each split is known, or that its source does not list it.
    #[must_use]
    pub fn is_decided(&self) -> bool {
        let is_decided = |standing: &Standing| {
            matches!(standing, Standing::Missing | Standing::Truncated { .. } | Standing::Available { .. })
        };
        self.0.values().all(|known| is_decided(&known.standing))
    }

    /// Whether one of them seems to end too early, and has to be asked for again.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.0.values().any(|known| known.standing == Standing::InDoubt)
    }

    /// The splits whose end is not known although their sources have answered: for each, its name for people and the
    /// reason.
    pub fn undecided(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.values().filter_map(|known| match &known.standing {
            standing @ (Standing::Unavailable { .. } | Standing::InDoubt) => {
                Some((&*known.described, standing.why_not()?))
            }
            _ => None,
        })
    }

    /// The splits that were truncated: for each, its name for people and its end.
    pub fn truncated(&self) -> impl Iterator<Item = (&SplitStart, &str, Offset)> {
        self.0.values().filter_map(|known| match &known.standing {
            Standing::Truncated { end } => Some((&known.start, &*known.described, *end)),
            _ => None,
        })
    }

    /// Refuses to go on with a split that was truncated.
    ///
    /// # Errors
    /// [`InputFault::Truncated`] with the first of them.
    pub fn refuse_truncated(&self) -> Result<(), InputFault> {
        match self.truncated().next() {
            None => Ok(()),
            Some((start, described, end)) => {
                let (described, read) = (described.to_owned(), self.0[&start.name()].read);
                Err(InputFault::Truncated { described, read, end })
            }
        }
    }
}

impl Known {
    fn hear(&mut self, FoundSplit { described, availability, asked_ms, .. }: &FoundSplit) {
        self.described.clone_from(described);
        let says_less = availability.end().filter(|end| *end < self.read);
        if says_less.is_none() {
            self.truncated.forget();
            self.latest = Offset(0);
        }
        self.standing = match (says_less, availability) {
            (Some(end), _) => {
                self.latest = self.latest.max(end);
                if self.truncated.is_believed(Duration::from_millis(*asked_ms)) {
                    Standing::Truncated { end: self.latest }
                } else {
                    Standing::InDoubt
                }
            }
            (None, Availability::Available { earliest, .. }) => Standing::Available { earliest: *earliest },
            (None, Availability::Unavailable { why }) => Standing::Unavailable { why: why.clone() },
        };
    }
}

#[cfg(test)]
mod tests {
    use fluvial_connector::SplitId;

    use super::*;
    use crate::journal::SplitNumber;

    fn start(split: &str) -> SplitStart {
        let (source, split, identity) = ("in".to_owned(), SplitId(split.to_owned()), "first".to_owned());
        SplitStart { number: SplitNumber(0), source, split, offset: Offset(0), identity }
    }

    /// The answer of a source with one split, which ends at `end`, asked `asked_s` seconds after the first.
    fn ends_at(end: Option<u64>, asked_s: u64) -> Vec<FoundSplit> {
        let availability = match end {
            Some(end) => Availability::Available { earliest: Offset(2), end: Offset(end) },
            None => Availability::Unavailable { why: "it has no leader".to_owned() },
        };
        let (described, asked_ms) = ("the split".to_owned(), 10_000 + asked_s * 1000);
        let SplitStart { source, split, identity, .. } = start("0");
        vec![FoundSplit { source, described, split, availability, identity, asked_ms }]
    }

    fn read_to(read: u64) -> Splits {
        let mut splits = Splits::default();
        splits.add(&start("0"), Offset(read));
        splits
    }

    #[test]
    fn a_split_is_what_its_newest_answer_says_and_truncated_only_when_answers_in_a_row_say_so_over_some_time() {
        let available = Standing::Available { earliest: Offset(2) };
        let unavailable = Standing::Unavailable { why: "it has no leader".to_owned() };
        let truncated = |end| Standing::Truncated { end: Offset(end) };
        let check = |answers: &[(Option<u64>, u64)], expected: &Standing| {
            let mut splits = read_to(9);
            for (end, asked_s) in answers {
                assert_eq!(splits.hear(&ends_at(*end, *asked_s)), Ok(()));
            }
            let standing = splits.standing(&start("0").name());
            assert_eq!(standing, expected, "{answers:?}");
            assert_eq!(splits.refuse_truncated().is_err(), matches!(expected, Standing::Truncated { .. }));
            assert_eq!(
                splits.is_decided(),
                expected != &Standing::InDoubt && expected.why_not() != unavailable.why_not()
            );
        };
        check(&[(Some(9), 0)], &available);
        check(&[(None, 0)], &unavailable);
        check(&[(Some(8), 0)], &Standing::InDoubt);
        check(&[(Some(8), 0), (Some(8), 1), (Some(8), 3)], &Standing::InDoubt);
        // Of the consecutive answers that the split was truncated, the one with the latest end counts.
        check(&[(Some(6), 0), (Some(8), 1), (Some(7), 4)], &truncated(8));
        check(&[(Some(8), 0), (Some(7), 5)], &truncated(8));
        // An answer that the split is longer, or that it is unavailable, ends the sequence of consecutive answers.
        check(&[(Some(8), 0), (Some(20), 2), (Some(7), 4)], &Standing::InDoubt);
        check(&[(Some(8), 0), (None, 2), (Some(7), 4)], &Standing::InDoubt);
        check(&[(Some(8), 0), (None, 2), (Some(7), 4), (Some(6), 8)], &truncated(7));
        check(&[(Some(8), 0), (Some(8), 4), (Some(9), 5)], &available);
    }

    #[test]
    fn what_a_source_has_not_said_is_not_known_and_what_it_does_not_list_is_missing() {
        let mut splits = read_to(9);
        let name = start("0").name();
        assert!(!splits.is_decided() && splits.undecided().next().is_none(), "nobody has answered");
        let other = FoundSplit { source: "other".to_owned(), ..ends_at(Some(1), 0).swap_remove(0) };
        assert_eq!(splits.hear(&[other]), Ok(()));
        assert_eq!(splits.standing(&name), &Standing::Unknown);
        let sibling = FoundSplit { split: SplitId("1".to_owned()), ..ends_at(Some(1), 0).swap_remove(0) };
        assert_eq!(splits.hear(&[sibling]), Ok(()));
        assert_eq!(splits.standing(&name), &Standing::Missing);
        assert!(splits.is_decided());
        assert_eq!(splits.hear(&ends_at(None, 1)), Ok(()));
        assert_eq!(splits.undecided().collect::<Vec<_>>(), [("the split", "it has no leader")]);
    }

    #[test]
    fn a_split_that_is_recreated_is_refused_at_once() {
        let recreated = |identity: &str| {
            let found = FoundSplit { identity: identity.to_owned(), ..ends_at(Some(9), 0).swap_remove(0) };
            read_to(9).hear(&[found]).is_err()
        };
        // A system that reports no identity may still have the same split.
        assert_eq!(["first", "second", ""].map(recreated), [false, true, false]);
    }
}
