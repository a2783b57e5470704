//! Merges state files in the background, one operator at a time, after each checkpoint.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Weak};

use fluvial_connector::{ErrorKind, Generation, Waker};
use fluvial_protocol::Report;
use fluvial_protocol::manifest::OperatorState;

use super::ambient;
use super::failure::chain;
use crate::state::{StateError, StateStore, merge, merge_due, state_object};

/// The thread that merges; it ends when this is dropped.
pub(crate) struct Merges {
    complete: Sender<Vec<OperatorState>>,
    merged: Receiver<Report>,
    /// Held by nobody else: the generation has ended when it is dropped.
    _alive: Arc<()>,
}

impl Merges {
    /// Starts the thread.
    pub(crate) fn start(store: StateStore, generation: Generation, waker: Waker) -> std::io::Result<Self> {
        let (complete, inbox) = channel::<Vec<OperatorState>>();
        let (outbox, merged) = channel();
        let alive = Arc::new(());
        let ended = Arc::downgrade(&alive);
        std::thread::Builder::new().name("merges".to_owned()).spawn(move || {
            let merge = |operator: &OperatorState| merge_one(&store, operator, generation);
            let report = |report| {
                let heard = outbox.send(report).is_ok();
                waker.wake();
                heard
            };
            merge_all(&inbox, &ended, merge, report, say);
        })?;
        Ok(Self { complete, merged, _alive: alive })
    }

    /// A checkpoint is complete; these are its operators.
    pub(crate) fn consider(&self, operators: Vec<OperatorState>) {
        self.complete.send(operators).expect("the thread lives as long as its sender");
    }

    /// A merge that is done.
    pub(crate) fn merged(&self) -> Option<Report> {
        self.merged.try_recv().ok()
    }
}

/// Merges what is due of each set of operators that comes, until the generation has ended.
fn merge_all(
    inbox: &Receiver<Vec<OperatorState>>,
    ended: &Weak<()>,
    merge: impl Fn(&OperatorState) -> Result<Option<Report>, StateError>,
    report: impl Fn(Report) -> bool,
    say: impl Fn(&OperatorState, StateError),
) {
    while let Ok(mut operators) = inbox.recv() {
        // Only the newest checkpoint's state files are worth merging: older ones may be gone.
        while let Ok(newer) = inbox.try_recv() {
            operators = newer;
        }
        for operator in operators {
            match merge(&operator) {
                Ok(Some(merged)) => {
                    if !report(merged) {
                        return;
                    }
                }
                Ok(None) => {}
                // The store's calls are cancelled at the end of a generation. What there is of the merged file is deleted
                // as any other object that nothing names.
                Err(_) if ended.strong_count() == 0 => return,
                Err(error) => say(&operator, error),
            }
        }
    }
}

fn merge_one(
    store: &StateStore,
    operator: &OperatorState,
    generation: Generation,
) -> Result<Option<Report>, StateError> {
    let Some(which) = merge_due(&operator.files) else { return Ok(None) };
    let removed = operator.files[which.clone()].iter().map(|file| file.object.clone()).collect();
    let object = state_object(&operator.name, generation, ambient::uuid());
    let added = merge(store, operator, which, &object)?;
    Ok(Some(Report::Merged { operator: operator.name.clone(), removed, added }))
}

/// The job goes on without the merge; the next checkpoint tries again.
fn say(operator: &OperatorState, error: StateError) {
    let kind = error.kind();
    let error = chain(error);
    if kind == ErrorKind::Retry {
        tracing::warn!(
            operator = operator.name,
            error,
            "the operator's state files could not be merged; the next checkpoint tries again"
        );
    } else {
        tracing::error!(operator = operator.name, error, "stored state cannot be read: a restart would fail");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use fluvial_protocol::manifest::OperatorKind;

    use super::*;

    /// A stop said that state files could not be merged since a task was cancelled, as if something were wrong.
    #[test]
    fn a_merge_that_the_end_of_the_generation_cancels_is_not_spoken_of() {
        for (ends, expected) in [(false, 2), (true, 0)] {
            let (complete, inbox) = channel();
            let kind = OperatorKind { operator: "latest".to_owned(), schema: String::new() };
            let operator =
                |name: &str| OperatorState { name: name.to_owned(), kind: kind.clone(), files: Vec::new(), keys: None };
            complete.send(vec![operator("a"), operator("b")]).expect("there is an inbox");
            drop(complete);
            let alive = RefCell::new(Some(Arc::new(())));
            let ended = alive.borrow().as_ref().map(Arc::downgrade).unwrap_or_default();
            let merge = |operator: &OperatorState| {
                if ends {
                    alive.take();
                }
                Err(StateError::Gone { object: operator.name.clone() })
            };
            let said = RefCell::new(0);
            merge_all(&inbox, &ended, merge, |_| true, |_, _| *said.borrow_mut() += 1);
            assert_eq!(said.take(), expected);
        }
    }
}
