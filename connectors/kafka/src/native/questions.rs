//! The questions that are asked of the cluster about topics and partitions, many at once.
//!
//! This is the one place that tells what does not exist from what is not available now. librdkafka says *unknown
//! partition* of a partition that has no leader for a moment, and goes on saying so until somebody asks for its metadata;
//! a broker that has just started may not have heard of a topic yet. So an error of that kind is never believed by itself:
//! [`Client::until`] asks the metadata, whose error codes are those of each topic and each partition, and that something
//! does not exist is an error only after several answers have said so. What exists and is not available is waited for.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use fluvial_connector::{Doubt, Error};

use super::metadata::{Described, TopicMetadata};
use super::offsets::{Bounds, Isolation};
use super::topics::TopicSettings;
use super::waiting::Failed;
use super::{Client, Code};
use crate::failure;

/// How long a partition may be without a leader and still be waited for by who would go on without it.
const MOMENT: Duration = Duration::from_secs(1);

/// That a partition ends before an offset which is known to be committed is believed when so many answers have said it, and
/// none the contrary, over
const SHORTER_TIMES: u32 = 4;
/// so long: a broker that is no leader any more, and does not know it yet, answers from before.
const SHORTER_FOR: Duration = Duration::from_secs(3);

/// A partition that exists and cannot be asked now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable {
    /// What was met.
    pub(crate) code: Code,
    /// The same for people: `has no leader`.
    pub(crate) why: String,
}

impl Unavailable {
    fn leaderless(code: Code) -> Self {
        let why = match code {
            Code::LeaderNotAvailable => "has no leader".to_owned(),
            code => format!("has no leader ({code})"),
        };
        Self { code, why }
    }

    fn refused_by_leader(code: Code) -> Self {
        let why = match code {
            Code::LeaderNotAvailable => "gets no answer from its leader".to_owned(),
            code => format!("is not served by its leader ({code})"),
        };
        Self { code, why }
    }

    fn ends_before(end: u64, committed: u64) -> Self {
        let why = format!(
            "ends at offset {end} according to its leader, and was written up to {committed}: a broker that has lost \
             the leadership may report an older end, so it is asked again"
        );
        Self { code: Code::NotLeaderForPartition, why }
    }
}

/// What a topic is, and where each of its partitions begins and ends, by number.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    /// The topic's id; empty where the brokers know none.
    pub(crate) id: String,
    /// Its partitions.
    pub(crate) partitions: Vec<Result<Bounds, Unavailable>>,
}

impl Client {
    /// What these topics are, in their order, all of which exist; with their ids if `ids` says so. A topic that no broker
    /// knows after several answers is an error.
    pub(crate) fn describe(&self, topics: &[&str], ids: bool, deadline: Instant) -> Result<Vec<TopicMetadata>, Error> {
        let what = format!("ask kafka about {}", topics_of(topics));
        self.until(deadline, &what, topics, |wait_ms| {
            let described = self.describe_once(topics, ids, wait_ms)?;
            topics.iter().zip(described).map(|(topic, described)| exists(topic, described)).collect()
        })
    }

    /// As [`Client::describe`], for topics that need not exist. That one does not is believed at once, for whoever then
    /// creates it and is told if it exists after all.
    pub(crate) fn find(&self, topics: &[&str], deadline: Instant) -> Result<Vec<Option<TopicMetadata>>, Error> {
        let what = format!("ask kafka about {}", topics_of(topics));
        self.until(deadline, &what, &[], |wait_ms| {
            let described = self.describe_once(topics, false, wait_ms)?;
            let found = topics.iter().zip(described).map(|(topic, described)| match exists(topic, described) {
                Err(Failed::Missing(_)) => Ok(None),
                other => other.map(Some),
            });
            found.collect()
        })
    }

    /// Waits until the cluster lists these topics, which exist: one that was just created is not known to every broker at
    /// once.
    pub(crate) fn appear(&self, topics: &[&str], deadline: Instant) -> Result<(), Error> {
        let what = format!("ask kafka about {}", topics_of(topics));
        self.until(deadline, &what, &[], |wait_ms| {
            let described = self.describe_once(topics, false, wait_ms)?;
            topics.iter().zip(described).try_for_each(|(topic, described)| match exists(topic, described) {
                Err(Failed::Missing(object)) => {
                    let code = Code::UnknownTopicOrPartition;
                    Err(Failed::Unavailable {
                        code,
                        why: format!(
                            "{object} was created, and the brokers do not know \
                         it yet"
                        ),
                    })
                }
                other => other.map(drop),
            })
        })
    }

    /// What a topic is and where its partitions begin and end. Waits until the cluster says, and no longer than a moment
    /// for partitions that are not available.
    pub(crate) fn survey(&self, topic: &str, isolation: Isolation, deadline: Instant) -> Result<Survey, Error> {
        let what = format!("ask kafka for the offsets of topic '{topic}'");
        let begun = Instant::now();
        self.until(deadline, &what, &[topic], |wait_ms| {
            let described = self.describe_once(&[topic], true, wait_ms)?;
            let metadata = described.into_iter().next().ok_or(Code::Fail)?;
            let metadata = [exists(topic, metadata)?];
            let asked: Vec<_> = (0..metadata[0].partitions()).map(|partition| (topic, partition)).collect();
            let partitions =
                self.bounds_of(&asked, &metadata.iter().map(|m| (topic, m)).collect(), isolation, wait_ms)?;
            let held_up =
                |(number, found): (u32, &Result<_, Unavailable>)| Some(((topic, number), found.clone().err()?));
            let unavailable: Vec<_> = (0..).zip(&partitions).filter_map(held_up).collect();
            // A leader has a successor within a moment, mostly.
            if !unavailable.is_empty() && begun.elapsed() < MOMENT {
                return Err(held_up_by(&unavailable));
            }
            let [TopicMetadata { id, .. }] = metadata;
            Ok(Survey { id, partitions })
        })
    }

    /// Where these partitions, all different, begin and end, in their order. Waits for those that are not available. Each
    /// has been committed up to the offset beside it; a smaller end is believed only when it is still so after some seconds.
    pub(crate) fn bounds_beyond(
        &self,
        asked: &[((&str, u32), u64)],
        isolation: Isolation,
        deadline: Instant,
    ) -> Result<Vec<Bounds>, Error> {
        let committed: BTreeMap<(&str, u32), u64> = asked.iter().copied().collect();
        let asked: Vec<_> = asked.iter().map(|(at, _)| *at).collect();
        let asked = asked.as_slice();
        let topics = topics_in(asked);
        let what = format!("ask kafka for the offsets of {}", partitions_of(asked));
        let mut known: BTreeMap<(&str, u32), Bounds> = BTreeMap::new();
        let mut shorter: BTreeMap<(&str, u32), Doubt> = BTreeMap::new();
        let begun = Instant::now();
        self.until(deadline, &what, &topics, |wait_ms| {
            let left: Vec<_> = asked.iter().copied().filter(|at| !known.contains_key(at)).collect();
            let topics = topics_in(&left);
            let described = self.describe_once(&topics, false, wait_ms)?;
            let mut metadata = BTreeMap::new();
            for (topic, described) in topics.iter().zip(described) {
                metadata.insert(*topic, exists(topic, described)?);
            }
            let metadata = metadata.iter().map(|(topic, metadata)| (*topic, metadata)).collect();
            let mut held_up: Vec<((&str, u32), Unavailable)> = Vec::new();
            for (at, bounds) in left.iter().zip(self.bounds_of(&left, &metadata, isolation, wait_ms)?) {
                match bounds {
                    Ok(Bounds { end, .. })
                        if committed.get(at).is_some_and(|committed| end < *committed)
                            && !is_shorter(shorter.entry(*at), begun.elapsed(), deadline <= Instant::now()) =>
                    {
                        held_up.push((*at, Unavailable::ends_before(end, committed[at])));
                    }
                    Ok(bounds) => drop(known.insert(*at, bounds)),
                    Err(unavailable) => held_up.push((*at, unavailable)),
                }
            }
            if held_up.is_empty() { Ok(()) } else { Err(held_up_by(&held_up)) }
        })?;
        Ok(asked.iter().filter_map(|at| known.get(at).copied()).collect())
    }

    /// The settings of these topics, in their order. Who may use a topic may not always see them.
    pub(crate) fn settings(&self, topics: &[&str], deadline: Instant) -> Result<Vec<TopicSettings>, Error> {
        let what = format!("ask kafka for the settings of {}", topics_of(topics));
        self.until(deadline, &what, topics, |wait_ms| {
            let settings = self.settings_once(topics, wait_ms)?;
            let passing =
                settings.iter().filter_map(|settings| settings.as_ref().err().copied()).find(|c| failure::passes(*c));
            passing.map_or(Ok(settings), |code| Err(Failed::Code(code)))
        })
    }

    /// As [`Client::settings`], for one topic.
    pub(crate) fn settings_of(&self, topic: &str, deadline: Instant) -> Result<BTreeMap<String, String>, Error> {
        let settings = self.settings(&[topic], deadline)?.into_iter().next().unwrap_or(Err(Code::Fail));
        settings.map_err(|code| failure::error(code, format!("ask kafka for the settings of topic '{topic}'")))
    }

    /// The bounds of partitions whose topics are these; those that have no leader are not asked.
    fn bounds_of(
        &self,
        asked: &[(&str, u32)],
        topics: &BTreeMap<&str, &TopicMetadata>,
        isolation: Isolation,
        wait_ms: i32,
    ) -> Result<Vec<Result<Bounds, Unavailable>>, Failed> {
        let leader = |&(topic, partition): &(&str, u32)| {
            let leaders = topics.get(topic).map_or(&[][..], |metadata| &metadata.leaders);
            let missing =
                || Failed::Missing(format!("partition {partition} of topic '{topic}', which has {},", leaders.len()));
            leaders.get(partition as usize).copied().ok_or_else(missing)
        };
        let leaders = asked.iter().map(leader).collect::<Result<Vec<_>, _>>()?;
        let led: Vec<_> = asked.iter().zip(&leaders).filter(|(_, leader)| leader.is_ok()).map(|(at, _)| *at).collect();
        let mut answers = self.bounds_once(&led, isolation, wait_ms)?.into_iter();
        let bounds = leaders.into_iter().map(|leader| match leader {
            Err(code) => Ok(Err(Unavailable::leaderless(code))),
            Ok(()) => match answers.next() {
                Some(Ok(found)) => Ok(Ok(found)),
                Some(Err(code)) if failure::passes(code) || failure::is_unknown(code) => {
                    Ok(Err(Unavailable::refused_by_leader(code)))
                }
                Some(Err(code)) => Err(code.into()),
                None => Err(Code::Fail.into()),
            },
        });
        bounds.collect()
    }

    /// Asks for the metadata of these topics, after a response has said that an object of one of them is unknown.
    /// Returns how the request failed, by what the metadata says.
    pub(super) fn doubt(&self, topics: &[&str], code: Code, wait_ms: i32) -> Failed {
        match self.are_available(topics, wait_ms) {
            Ok(()) => Failed::Unavailable {
                code: Code::LeaderNotAvailable,
                why: format!(
                    "the cluster lists {}, and one of the brokers does not know that yet ({code})",
                    topics_of(topics)
                ),
            },
            Err(failed) => failed,
        }
    }

    /// Whether these topics exist and each of their partitions has a leader, by what the cluster says now.
    pub(crate) fn are_available(&self, topics: &[&str], wait_ms: i32) -> Result<(), Failed> {
        let mut leaderless: Vec<((&str, u32), Unavailable)> = Vec::new();
        for (topic, described) in topics.iter().zip(self.describe_once(topics, false, wait_ms)?) {
            for (partition, leader) in (0..).zip(exists(topic, described)?.leaders) {
                leaderless.extend(leader.err().map(|code| ((*topic, partition), Unavailable::leaderless(code))));
            }
        }
        if leaderless.is_empty() { Ok(()) } else { Err(held_up_by(&leaderless)) }
    }
}

/// Whether to believe an end that is before what is known to be committed: either enough answers have said so, or no
/// further answer can be asked for.
fn is_shorter<K: Ord>(doubt: Entry<'_, K, Doubt>, now: Duration, is_last: bool) -> bool {
    doubt.or_insert(Doubt::new(SHORTER_TIMES, SHORTER_FOR)).is_believed(now) || is_last
}

/// The failure of a request because of these partitions, which are unavailable.
fn held_up_by(partitions: &[((&str, u32), Unavailable)]) -> Failed {
    let Some((_, Unavailable { code, why })) = partitions.first() else { return Failed::Code(Code::Fail) };
    let alike: Vec<_> = partitions.iter().filter(|(_, other)| other.why == *why).map(|(at, _)| *at).collect();
    Failed::Unavailable { code: *code, why: format!("{} {why}", partitions_of(&alike)) }
}

/// The metadata of a topic, or how a request that needs the topic fails.
fn exists(topic: &str, described: Described) -> Result<TopicMetadata, Failed> {
    described.map_err(|code| match code {
        code if failure::is_unknown(code) => Failed::Missing(format!("topic '{topic}'")),
        code if failure::passes(code) => {
            Failed::Unavailable { code, why: format!("topic '{topic}' is not available yet ({code})") }
        }
        code => Failed::Code(code),
    })
}

/// The topics of some partitions, each once.
fn topics_in<'a>(partitions: &[(&'a str, u32)]) -> Vec<&'a str> {
    let mut topics: Vec<&str> = partitions.iter().map(|(topic, _)| *topic).collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

/// Topics for people: `topic 'a'`, `topics 'a', 'b'`.
fn topics_of(topics: &[&str]) -> String {
    let names: Vec<_> = topics.iter().map(|topic| format!("'{topic}'")).collect();
    let noun = if topics.len() == 1 { "topic" } else { "topics" };
    format!("{noun} {}", names.join(", "))
}

/// Partitions for people: `topic 'a' partitions 0-3, 7; topic 'b' partition 1`.
fn partitions_of(partitions: &[(&str, u32)]) -> String {
    let of_topic = |topic: &&str| {
        let mut numbers: Vec<u32> =
            partitions.iter().filter(|(of, _)| of == topic).map(|(_, number)| *number).collect();
        numbers.sort_unstable();
        let noun = if numbers.len() == 1 { "partition" } else { "partitions" };
        let runs = numbers.chunk_by(|one, next| one + 1 == *next).map(|run| match run {
            [one] => one.to_string(),
            [first, .., last] => format!("{first}-{last}"),
            [] => String::new(),
        });
        format!("topic '{topic}' {noun} {}", runs.collect::<Vec<_>>().join(", "))
    };
    topics_in(partitions).iter().map(of_topic).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_contradicts_what_is_committed_is_believed_of_several_answers_over_some_time() {
        let believed = |answers: &[u64], deadline| -> Vec<bool> {
            let mut shorter = BTreeMap::new();
            let is_shorter = |ms: &u64| is_shorter(shorter.entry(0), Duration::from_millis(*ms), *ms >= deadline);
            answers.iter().map(is_shorter).collect()
        };
        assert_eq!(believed(&[0, 400, 800, 1200, 2999, 3000], 60_000), [false, false, false, false, false, true]);
        assert_eq!(believed(&[0, 5000, 5001, 5002], 60_000), [false, false, false, true]);
        // Who can ask no more has to believe it.
        assert_eq!(believed(&[0, 2000], 2000), [false, true]);
    }

    #[test]
    fn partitions_are_named_in_ranges() {
        let check = |partitions: &[(&str, u32)], said: &str| assert_eq!(partitions_of(partitions), said);
        check(&[("a", 3)], "topic 'a' partition 3");
        check(
            &[("b", 1), ("a", 7), ("a", 0), ("a", 2), ("a", 1)],
            "topic 'a' partitions 0-2, 7; topic 'b' partition 1",
        );
    }
}
