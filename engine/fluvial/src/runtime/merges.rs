//! Merges runs of durable state in the background, one operator at a time, after each checkpoint.

use std::sync::mpsc::{Receiver, Sender, channel};

use fluvial_connector::{ErrorKind, Generation, Waker};

use super::ambient;
use crate::protocol::Report;
use crate::state::{OperatorState, RunStore, StateError, merge, merge_due, run_object};

/// The thread that merges; it ends when this is dropped.
pub(crate) struct Merges {
    complete: Sender<Vec<OperatorState>>,
    merged: Receiver<Report>,
}

impl Merges {
    /// Starts the thread.
    pub(crate) fn start(store: RunStore, generation: Generation, waker: Waker) -> std::io::Result<Self> {
        let (complete, inbox) = channel::<Vec<OperatorState>>();
        let (outbox, merged) = channel();
        std::thread::Builder::new().name("merges".to_owned()).spawn(move || {
            while let Ok(mut operators) = inbox.recv() {
                // Only the newest checkpoint's runs are worth merging: older ones may be gone.
                while let Ok(newer) = inbox.try_recv() {
                    operators = newer;
                }
                for operator in operators {
                    let report = match merge_one(&store, &operator, generation) {
                        Ok(Some(report)) => report,
                        Ok(None) => continue,
                        Err(error) => {
                            say(&operator, error);
                            continue;
                        }
                    };
                    if outbox.send(report).is_err() {
                        return;
                    }
                    waker.wake();
                }
            }
        })?;
        Ok(Self { complete, merged })
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

fn merge_one(store: &RunStore, operator: &OperatorState, generation: Generation) -> Result<Option<Report>, StateError> {
    let Some(which) = merge_due(&operator.runs) else { return Ok(None) };
    let removed = operator.runs[which.clone()].iter().map(|run| run.object.clone()).collect();
    let object = run_object(&operator.name, generation, ambient::uuid());
    let added = merge(store, operator, which, &object)?;
    Ok(Some(Report::Merged { operator: operator.name.clone(), removed, added }))
}

/// The job goes on without the merge; the next checkpoint tries again.
fn say(operator: &OperatorState, error: StateError) {
    let kind = error.kind();
    let error = format!("{:#}", anyhow::Error::from(error));
    if kind == ErrorKind::Retry {
        tracing::warn!(operator = operator.name, error, "runs could not be merged");
    } else {
        tracing::error!(operator = operator.name, error, "stored state cannot be read: a restart would fail");
    }
}
