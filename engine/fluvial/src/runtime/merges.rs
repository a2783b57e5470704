//! Merges state files in the background, one operator at a time, after each checkpoint.

use fluvial_connector::{ErrorKind, Generation, Waker};
use fluvial_protocol::Report;
use fluvial_protocol::manifest::OperatorState;

use super::ambient;
use super::background::{Background, Serve, Server};
use super::failure::{Failure, chain};
use crate::state::{StateError, StateStore, merge, merge_due, state_object};

/// The thread that merges state files.
pub(crate) struct Merges {
    complete: Server<Vec<OperatorState>>,
    background: Background<Merge>,
}

/// The outcome of a merge that was due.
enum Merge {
    Done(Report),
    /// The job continues without the merge, and the next checkpoint tries again.
    Failed {
        operator: String,
        error: StateError,
    },
}

impl Merges {
    /// Starts the thread.
    pub(crate) fn start(
        store: StateStore,
        generation: Generation,
        workers: u32,
        waker: &Waker,
    ) -> Result<Self, Failure> {
        Self::with(waker, move |operator| merge_one(&store, operator, generation, workers))
    }

    fn with(
        waker: &Waker,
        merge: impl Fn(&OperatorState) -> Result<Option<Report>, StateError> + Clone + Send + 'static,
    ) -> Result<Self, Failure> {
        let background = Background::new(waker);
        let merge_all = move |operators: Vec<OperatorState>| {
            let merge = merge.clone();
            operators.into_iter().filter_map(move |operator| match merge(&operator) {
                Ok(merged) => merged.map(|report| Ok(Merge::Done(report))),
                Err(error) => Some(Ok(Merge::Failed { operator: operator.name, error })),
            })
        };
        // Only the newest checkpoint's state files are worth merging: older ones may be gone.
        Ok(Self { complete: background.serve("merges", Serve::Newest, merge_all)?, background })
    }

    /// Takes note that a checkpoint is complete, and merges files of these operators if that is due.
    pub(crate) fn consider(&self, operators: Vec<OperatorState>) {
        self.complete.ask(operators);
    }

    /// The next merge that is done. Failed merges are logged here, on the worker, so that merges which fail because the
    /// generation ends are not logged: then the store's calls are cancelled, and this is not called any more. The
    /// incomplete file of such a merge is deleted like any other object that nothing names.
    pub(crate) fn merged(&self) -> Result<Option<Report>, Failure> {
        self.next(warn)
    }

    fn next(&self, mut warn: impl FnMut(&str, StateError)) -> Result<Option<Report>, Failure> {
        loop {
            match self.background.next()? {
                Some(Merge::Done(report)) => return Ok(Some(report)),
                Some(Merge::Failed { operator, error }) => warn(&operator, error),
                None => return Ok(None),
            }
        }
    }
}

fn merge_one(
    store: &StateStore,
    operator: &OperatorState,
    generation: Generation,
    workers: u32,
) -> Result<Option<Report>, StateError> {
    let Some(which) = merge_due(&operator.files, operator.keys, workers) else { return Ok(None) };
    let removed = operator.files[which.clone()].iter().map(|file| file.object.clone()).collect();
    let object = state_object(&operator.name, generation, ambient::uuid());
    let added = merge(store, operator, which, &object)?;
    Ok(Some(Report::Merged { operator: operator.name.clone(), removed, added }))
}

fn warn(operator: &str, error: StateError) {
    let kind = error.kind();
    let error = chain(error);
    if kind == ErrorKind::Retry {
        tracing::warn!(
            operator,
            error,
            "the operator's state files could not be merged; the next checkpoint tries again"
        );
    } else {
        tracing::error!(operator, error, "a state file cannot be read, so a restart would fail");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::mpsc::channel;
    use std::time::Duration;

    use fluvial_protocol::manifest::OperatorKind;

    use super::*;

    const MOST: Duration = Duration::from_secs(20);

    /// When a job stopped, the log said that state files could not be merged because a task was cancelled, as if
    /// something were wrong.
    #[test]
    fn a_merge_that_the_end_of_the_generation_cancels_is_not_spoken_of() {
        for (ends, expected) in [(false, vec!["a", "b"]), (true, vec!["a"])] {
            let (wake, woken) = channel();
            let (begin, begun) = channel();
            let merge = move |operator: &OperatorState| {
                let (go_on, held) = channel::<()>();
                let _ = begin.send((operator.name.clone(), go_on));
                // Ends when the test lets go of the other end.
                let _ = held.recv();
                Err(StateError::Gone { object: operator.name.clone() })
            };
            let merges = Merges::with(&Waker::new(move || wake.send(()).unwrap_or_default()), merge).unwrap();
            let kind = OperatorKind { operator: "latest".to_owned(), schema: String::new() };
            let operator =
                |name: &str| OperatorState { name: name.to_owned(), kind: kind.clone(), files: Vec::new(), keys: None };
            merges.consider(vec![operator("a"), operator("b")]);
            let mut merges = Some(merges);
            let (mut tried, mut said) = (Vec::new(), Vec::new());
            // Once its owner has been dropped, the thread ends after the merge that is under way.
            while let Ok((name, go_on)) = begun.recv_timeout(MOST) {
                tried.push(name);
                if ends {
                    merges = None;
                }
                drop(go_on);
                woken.recv_timeout(MOST).unwrap();
                if let Some(merges) = &merges {
                    assert_eq!(merges.next(|operator, _| said.push(operator.to_owned())).unwrap(), None);
                }
                if said.len() == 2 {
                    break;
                }
            }
            assert_eq!(tried, expected);
            assert_eq!(said, if ends { Vec::new() } else { expected });
        }
    }
}
