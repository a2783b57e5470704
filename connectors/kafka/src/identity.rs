//! Whether a topic is still the one that reading began with.
//!
//! librdkafka fetches by a topic's id, and takes another id from what the cluster says of its topics without a word. So
//! after every such answer the id is asked for, and nothing that arrived after it is handed on before that is known. What
//! came before it was fetched by the id that was known then. A broker that does not know ids, or fetches by name (before
//! Kafka 3.1), is left to who asks for the splits.

use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use fluvial_connector::{Error, ErrorKind, Waker};

use crate::kafka::Kafka;

/// How long one question lasts at the most; then it is asked again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to leave a cluster alone that could not say.
const PAUSE: Duration = Duration::from_millis(100);

/// What a person can do where the topic that a job reads is gone.
pub(crate) const BEGIN_ANOTHER: &str =
    "start a new job on it under another --name, with --reconcile if it is to correct the same outputs";

/// A topic's id, as it was when it was first asked for, and whether that still holds. All readers of a source share it: one
/// question answers them all.
#[derive(Debug)]
pub(crate) struct Identity {
    kafka: Kafka,
    topic: String,
    was: OnceLock<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Who is woken by an answer, as long as they are there.
    wakers: Vec<Weak<Waker>>,
    /// The number of answers about topics after which the id was asked for last.
    holds_after: u64,
    /// A question that is under way, and the number of answers when it began.
    asked: Option<(u64, Receiver<Result<String, Error>>)>,
}

impl Identity {
    /// The identity of a topic whose id is not known yet.
    pub(crate) fn new(kafka: Kafka, topic: String) -> Self {
        Self { kafka, topic, was: OnceLock::new(), state: Mutex::default() }
    }

    /// The topic has this id; the first to say it counts.
    pub(crate) fn is(&self, id: &str) {
        self.was.get_or_init(|| id.to_owned());
    }

    /// Whether the topic has been there.
    pub(crate) fn is_known(&self) -> bool {
        self.was.get().is_some()
    }

    /// Calls `waker` after each answer, as long as somebody else holds it.
    pub(crate) fn wakes(&self, waker: &Arc<Waker>) {
        let mut state = self.state();
        state.wakers.retain(|other| other.strong_count() > 0);
        state.wakers.push(Arc::downgrade(waker));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the topic is known to be the same after so many answers about topics. Does not wait.
    pub(crate) fn holds(&self, answers: u64) -> Result<bool, Error> {
        let mut state = self.state();
        if let Some((after, answer)) = &state.asked {
            match answer.try_recv() {
                Err(TryRecvError::Empty) => return Ok(answers <= state.holds_after),
                Ok(Ok(is)) => {
                    self.compare(&is)?;
                    state.holds_after = *after;
                }
                // A topic that is gone for now may come again, as another.
                Ok(Err(error)) => tracing::debug!(%error, "the id of topic '{}' is not known for now", self.topic),
                Err(TryRecvError::Disconnected) => {}
            }
            state.asked = None;
        }
        if state.holds_after < answers {
            let answer = self.ask(state.wakers.clone())?;
            state.asked = Some((answers, answer));
        }
        Ok(state.asked.is_none())
    }

    fn compare(&self, is: &str) -> Result<(), Error> {
        let was = self.was.get_or_init(|| is.to_owned());
        if was == is || was.is_empty() || is.is_empty() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Data,
            format!(
                "kafka topic '{}' was deleted and recreated (it has the id {is} and had {was}): a job cannot \
                 continue with other input; {BEGIN_ANOTHER}",
                self.topic
            ),
        ))
    }

    fn ask(&self, wakers: Vec<Weak<Waker>>) -> Result<Receiver<Result<String, Error>>, Error> {
        let (tell, answer) = channel();
        let (kafka, topic) = (self.kafka.clone(), self.topic.clone());
        let ask = move || {
            let said = kafka.questions().and_then(|questions| {
                let said = questions.describe(&[&topic], true, Instant::now() + PATIENCE);
                let said = said.map(|topics| topics.into_iter().next().unwrap_or_default().id);
                if said.is_err() {
                    questions.pause(PAUSE);
                }
                said
            });
            // Who has stopped reading needs no answer.
            let _ = tell.send(said);
            wakers.iter().filter_map(Weak::upgrade).for_each(|waker| waker.wake());
        };
        std::thread::Builder::new().name("topic-id".to_owned()).spawn(ask).map(|_| answer).map_err(|error| {
            Error::caused(ErrorKind::Restart, format!("begin to ask for the id of topic '{}'", self.topic), error)
        })
    }
}
