//! Asks the sources for their splits, from the opening of a generation on, and tells them how far the job is.
//!
//! ```text
//!   each second of an opening,   ─┬─► source A's thread ─► its splits ────────────────► leader ─► all workers
//!   then every few seconds        └─► source B's thread ─► waits for an outage to end
//! ```
//!
//! This is the only place that asks: leader and workers hear the same answers, and none of them waits. In a replay, which has
//! no leader, the first worker passes the answers on.
//!
//! Each source has a thread of its own: one that cannot be asked waits out its patience and holds up no other, and what
//! the others say is told as it comes. That a source could not be asked is a WARN, for as long as it lasts, since an outage
//! passes. An answer that a person must change something (a topic that does not exist, a permission that was removed)
//! does not pass: a reader of that input gets nothing more, and cannot say so. After several such answers in a row the run
//! ends with the last of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fluvial_connector::{Doubt, Error, ErrorKind, Offset, Source, SplitId, SplitStatus, Waker};
use fluvial_protocol::FoundSplit;

use super::ambient;
use super::background::{Background, Serve, Server};
use super::failure::{Failure, chain};
use super::leader::{Ends, Positions};
use super::unavailable::{LOOK_AGAIN, Unavailable};

/// How many times in a row a source has to say that a person must change something before the run ends with it, and over how
/// long.
const REFUSED_TIMES: u32 = 4;
const REFUSED_OVER: Duration = Duration::from_secs(3);

/// The consequence of an unavailable split, for the log.
const OTHERS_GO_ON: &str = "the other splits go on";

/// The answer of a source.
#[derive(Debug)]
pub(crate) enum Discovered {
    /// The splits of one source, all of them.
    Splits(Vec<FoundSplit>),
    /// The source cannot be read until a person changes something: the run ends.
    Refused(Error),
}

/// The settings of the questions to the sources.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    /// The job's name.
    pub(crate) job: String,
    /// How long one question waits for a source's answer.
    pub(crate) patience: Duration,
    /// How much of the input may have to be read again after a restart.
    pub(crate) window: Duration,
}

/// How far the job is in the splits of one source.
pub(crate) type OfSource = Vec<(SplitId, Offset)>;

/// The positions that belong to one source.
pub(crate) fn of_source(positions: &Positions, name: &str) -> OfSource {
    let of_source = positions.iter().filter(|(of, _)| of.source == name);
    of_source.map(|(of, at)| (of.split.clone(), *at)).collect()
}

/// The threads that ask the sources.
pub(crate) struct Discovery {
    /// The name of each source, with the thread that asks it.
    asked: Vec<(String, Server<OfSource>)>,
    background: Background<Discovered>,
}

impl Discovery {
    /// Starts the threads. `before` is what the sources have answered already.
    ///
    /// # Errors
    /// The host has no more threads.
    pub(crate) fn start(
        sources: &[(String, Arc<dyn Source>)],
        asking: &Asking,
        before: &[FoundSplit],
        waker: &Waker,
    ) -> Result<Self, Failure> {
        let background = Background::new(waker);
        let mut servers = Vec::new();
        for (name, source) in sources {
            let (of_warnings, window, patience) = (Arc::clone(source), asking.window, asking.patience);
            background.spawn("warnings", move || {
                warn(of_warnings.as_ref(), window, patience);
                None
            })?;
            let before: Vec<_> = before.iter().filter(|found| found.source == *name).cloned().collect();
            let mut unavailable = Unavailable::default();
            unavailable.note(&before, OTHERS_GO_ON);
            let mut asked = Asked {
                name: name.clone(),
                source: Arc::clone(source),
                asking: asking.clone(),
                unavailable,
                untold: None,
                began: ambient::instant(),
                refused: Doubt::new(REFUSED_TIMES, REFUSED_OVER),
            };
            // Requests that wait while the source does not answer are served as one.
            let ask = move |positions: OfSource| asked.ask(&positions).map(Ok);
            servers.push((name.clone(), background.serve("discovery", Serve::Newest, ask)?));
        }
        Ok(Self { asked: servers, background })
    }

    /// Tells the sources how far the job is, unless `positions` is empty, and asks for their splits.
    pub(crate) fn ask(&self, positions: &Positions) {
        for (name, asked) in &self.asked {
            asked.ask(of_source(positions, name));
        }
    }

    /// The answer of a source, if one has answered since the last call.
    ///
    /// # Errors
    /// As [`Background::next`].
    pub(crate) fn next(&self) -> Result<Option<Discovered>, Failure> {
        self.background.next()
    }
}

/// The splits of all sources.
///
/// # Errors
/// One of the sources cannot be asked: a start needs them all.
pub(crate) fn splits(sources: &[(String, Arc<dyn Source>)], patience: Duration) -> Result<Vec<FoundSplit>, Error> {
    let of_each = sources.iter().map(|(name, source)| splits_of(name, source.as_ref(), patience));
    Ok(of_each.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// The splits of all sources, once all of them are available. Until then the log says which of them `who` waits for.
///
/// # Errors
/// As [`splits`].
pub(crate) fn splits_when_available(
    sources: &[(String, Arc<dyn Source>)],
    patience: Duration,
    who: &str,
) -> Result<Vec<FoundSplit>, Error> {
    let mut unavailable = Unavailable::default();
    loop {
        let found = splits(sources, patience)?;
        if unavailable.note(&found, &format!("{who} waits for it")) == 0 {
            return Ok(found);
        }
        ambient::pause(LOOK_AGAIN);
    }
}

/// The ends of the splits. Splits that are unavailable are left out.
pub(crate) fn ends(found: &[FoundSplit]) -> Ends {
    found.iter().filter_map(|split| Some((split.name(), split.availability.end()?))).collect()
}

/// The splits of one source.
fn splits_of(name: &str, source: &dyn Source, patience: Duration) -> Result<Vec<FoundSplit>, Error> {
    let asked_ms = ambient::now_ms();
    let found = |SplitStatus { split, identity, availability }| FoundSplit {
        source: name.to_owned(),
        described: source.describe_split(&split),
        split,
        availability,
        identity,
        asked_ms,
    };
    Ok(source.splits(patience)?.into_iter().map(found).collect())
}

/// Logs what a person should know of a source's settings.
fn warn(source: &dyn Source, window: Duration, patience: Duration) {
    match source.warnings(window, patience) {
        Ok(warnings) => warnings.iter().for_each(|warning| tracing::warn!("{warning}")),
        Err(error) => tracing::debug!(error = chain(error), "no settings"),
    }
}

/// A source that is asked again and again.
struct Asked {
    name: String,
    source: Arc<dyn Source>,
    asking: Asking,
    unavailable: Unavailable,
    /// Why the source could not be told how far the job is.
    untold: Option<String>,
    began: Instant,
    /// Whether to believe the answer that a person must change something. A broker whose metadata is outdated may give
    /// it once by mistake.
    refused: Doubt,
}

impl Asked {
    fn ask(&mut self, positions: &[(SplitId, Offset)]) -> Option<Discovered> {
        self.report(positions);
        self.look()
    }

    fn report(&mut self, positions: &[(SplitId, Offset)]) {
        if positions.is_empty() {
            return;
        }
        let Err(error) = self.source.report_committed(&self.asking.job, positions) else { return };
        let said = error.to_string();
        // A job that lacks the permission is told so once, not at each report.
        if self.untold.replace(said.clone()).is_none_or(|before| before != said) {
            tracing::warn!(
                source = self.name,
                error = chain(error),
                "could not report the job's position; only tools that monitor its lag need it"
            );
        }
    }

    fn look(&mut self) -> Option<Discovered> {
        let found =
            splits_of(&self.name, self.source.as_ref(), self.asking.patience).and_then(|found| match &found[..] {
                // It would say nothing of the splits that the job has read, and is asked again.
                [] => Err(Error::new(ErrorKind::Retry, format!("{} has no splits", self.source.describe()))),
                _ => Ok(found),
            });
        let refused = is_refused(&mut self.refused, found.as_ref().err().map(|error| error.kind), self.began.elapsed());
        match found {
            Ok(found) => {
                self.unavailable.note(&found, OTHERS_GO_ON);
                Some(Discovered::Splits(found))
            }
            Err(error) if refused => {
                let what = format!(
                    "source '{}' has reported {REFUSED_TIMES} times in a row that it cannot be read",
                    self.name
                );
                Some(Discovered::Refused(Error::caused(error.kind, what, error)))
            }
            Err(error) => {
                tracing::warn!(error = chain(error), "could not look for new splits of source '{}'", self.name);
                None
            }
        }
    }
}

/// Takes the next answer: the kind of its error, or `None` if there was no error. Returns whether to believe that the
/// source cannot be read until a person changes something.
fn is_refused(doubt: &mut Doubt, error: Option<ErrorKind>, now: Duration) -> bool {
    if !matches!(error, Some(ErrorKind::Configuration | ErrorKind::Host)) {
        doubt.forget();
        return false;
    }
    doubt.is_believed(now)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};

    use fluvial_connector::{Availability, SplitReader, SplitStatus};
    use fluvial_memory::{Memory, MemorySource};

    use super::*;
    use crate::runtime::ambient;

    const MOST: Duration = Duration::from_secs(20);

    /// A source that cannot be asked for its splits while it is told so.
    struct Failing {
        source: MemorySource,
        /// The errors that the next answers are.
        errors: Mutex<VecDeque<ErrorKind>>,
        /// No question is answered before something comes from here or it is closed.
        held: Option<Mutex<Receiver<()>>>,
    }

    impl Failing {
        fn new(memory: &Memory, errors: impl IntoIterator<Item = ErrorKind>, held: Option<Receiver<()>>) -> Self {
            let errors = Mutex::new(errors.into_iter().collect());
            Self { source: memory.source("a"), errors, held: held.map(Mutex::new) }
        }
    }

    impl Source for Failing {
        fn describe(&self) -> String {
            self.source.describe()
        }

        fn splits(&self, patience: Duration) -> Result<Vec<SplitStatus>, Error> {
            if let Some(held) = &self.held {
                let _ = held.lock().unwrap().recv();
            }
            match self.errors.lock().unwrap().pop_front() {
                Some(kind) => Err(Error::new(kind, "it is not to be asked")),
                None => self.source.splits(patience),
            }
        }

        fn reader(&self, waker: Waker) -> Result<Box<dyn SplitReader>, Error> {
            self.source.reader(waker)
        }
    }

    fn memory() -> Memory {
        let memory = Memory::new();
        memory.create_topic("a", 1);
        memory.create_topic("b", 2);
        memory
    }

    /// Two sources that are asked: `first`, of the name `a`, and the topic `b`.
    struct Bench {
        discovery: Discovery,
        woken: Receiver<()>,
    }

    impl Bench {
        fn new(memory: &Memory, first: impl Source) -> Self {
            let sources: [(String, Arc<dyn Source>); 2] =
                [("a".to_owned(), Arc::new(first)), ("b".to_owned(), Arc::new(memory.source("b")))];
            let asking =
                Asking { job: "job".to_owned(), patience: Duration::from_secs(1), window: Duration::from_secs(1) };
            let (wake, woken) = channel();
            let waker = Waker::new(move || wake.send(()).unwrap_or_default());
            Self { discovery: Discovery::start(&sources, &asking, &[], &waker).unwrap(), woken }
        }

        /// Asks until something comes that `expected` gives something of.
        fn ask_until<T>(&self, mut expected: impl FnMut(Discovered) -> Option<T>) -> T {
            let began = ambient::instant();
            loop {
                assert!(began.elapsed() < MOST, "what is expected has not come");
                self.discovery.ask(&Vec::new());
                if self.woken.recv_timeout(Duration::from_millis(100)).is_ok()
                    && let Some(discovered) = self.discovery.next().unwrap()
                    && let Some(found) = expected(discovered)
                {
                    return found;
                }
            }
        }

        /// Asks until a source answers with its splits, and returns which of them are available.
        fn splits_of(&self, name: &str) -> Vec<bool> {
            self.ask_until(|discovered| match discovered {
                Discovered::Splits(found) if found.iter().all(|split| split.source == name) => {
                    let available = |split: &FoundSplit| matches!(split.availability, Availability::Available { .. });
                    Some(found.iter().map(available).collect())
                }
                Discovered::Splits(_) => None,
                Discovered::Refused(error) => panic!("{error}"),
            })
        }
    }

    /// A partition of one topic that came back was never read while another topic was gone.
    #[test]
    fn what_a_source_says_is_told_while_another_is_gone_and_the_run_ends_with_the_one_that_is_gone() {
        let memory = memory();
        memory.set_available("b", 1, false).unwrap();
        let bench = Bench::new(&memory, memory.source("a"));
        assert_eq!(bench.splits_of("a"), [true]);
        assert_eq!(bench.splits_of("b"), [true, false]);
        memory.delete_topic("a");
        memory.set_available("b", 1, true).unwrap();
        let said = bench.ask_until(|discovered| match discovered {
            Discovered::Refused(error) => Some(chain(error)),
            Discovered::Splits(_) => None,
        });
        assert!(said.starts_with("source 'a' has reported 4 times in a row"), "{said}");
        assert!(said.contains("memory topic 'a' does not exist"), "{said}");
        // The other is asked as before.
        bench.ask_until(|discovered| match discovered {
            Discovered::Splits(found) => (found.len() == 2 && ends(&found).len() == 2).then_some(()),
            Discovered::Refused(_) => None,
        });
    }

    #[test]
    fn a_source_that_waits_for_its_system_holds_up_no_other() {
        let memory = memory();
        let (release, held) = channel();
        let bench = Bench::new(&memory, Failing::new(&memory, [], Some(held)));
        for _ in 0..3 {
            assert_eq!(bench.splits_of("b"), [true, true]);
        }
        memory.set_available("b", 0, false).unwrap();
        bench.ask_until(|discovered| match discovered {
            Discovered::Splits(found) => (ends(&found).len() == 1 && found.len() == 2).then_some(()),
            Discovered::Refused(error) => panic!("{error}"),
        });
        drop(release);
        assert_eq!(bench.splits_of("a"), [true]);
    }

    #[test]
    fn an_outage_is_no_reason_to_end_however_long_it_lasts() {
        let memory = memory();
        let errors = [ErrorKind::Retry; 3 * REFUSED_TIMES as usize];
        let bench = Bench::new(&memory, Failing::new(&memory, errors, None));
        assert_eq!(bench.splits_of("a"), [true]);
    }

    #[test]
    fn only_answers_in_a_row_that_a_person_must_change_something_are_believed() {
        let check = |answers: &[Option<ErrorKind>], expected: &[bool]| {
            let mut refused = Doubt::new(REFUSED_TIMES, REFUSED_OVER);
            let answers = answers.iter().zip((0..).map(|number| Duration::from_secs(5) * number));
            let believed: Vec<bool> =
                answers.clone().map(|(answer, at)| is_refused(&mut refused, *answer, at)).collect();
            assert_eq!(believed, expected, "{:?}", answers.collect::<Vec<_>>());
        };
        let (refused, unavailable) = (Some(ErrorKind::Configuration), Some(ErrorKind::Retry));
        check(&[refused; 5], &[false, false, false, true, true]);
        for other in [None, unavailable, Some(ErrorKind::Restart)] {
            check(&[refused, refused, refused, other, refused, refused, refused, refused], &{
                let mut expected = [false; 8];
                expected[7] = true;
                expected
            });
        }
        check(&[unavailable; 20], &[false; 20]);
    }
}
