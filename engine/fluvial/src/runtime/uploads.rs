//! Stores what durable operators froze, one state file at a time, off the worker's thread.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use fluvial_connector::{Error, Generation, Waker};
use fluvial_protocol::{Report, System};

use super::ambient;
use super::failure::Failure;
use super::turns::wait_out;
use crate::durable::Frozen;
use crate::fail_point::{FailPoint, reach};
use crate::state::{StateError, StateStore, state_object};

/// The thread that encodes and stores the state files of one worker; it ends when this is dropped.
pub(crate) struct Uploads {
    frozen: Sender<Frozen>,
    stored: Receiver<Result<Report, Failure>>,
}

impl Uploads {
    /// Starts the thread.
    pub(crate) fn start(
        store: Arc<StateStore>,
        generation: Generation,
        patience: Duration,
        waker: Waker,
    ) -> std::io::Result<Self> {
        let (frozen, inbox) = channel::<Frozen>();
        let (outbox, stored) = channel();
        std::thread::Builder::new().name("uploads".to_owned()).spawn(move || {
            for frozen in inbox {
                if outbox.send(store_one(frozen, &store, generation, patience)).is_err() {
                    return;
                }
                waker.wake();
            }
        })?;
        Ok(Self { frozen, stored })
    }

    /// Stores what an operator froze.
    pub(crate) fn store(&self, frozen: Frozen) {
        self.frozen.send(frozen).expect("the thread lives as long as its sender");
    }

    /// The next state file that is stored, or why it could not be.
    pub(crate) fn stored(&self) -> Option<Result<Report, Failure>> {
        self.stored.try_recv().ok()
    }
}

fn store_one(
    frozen: Frozen,
    store: &StateStore,
    generation: Generation,
    patience: Duration,
) -> Result<Report, Failure> {
    let (tick, operator, kind) = (frozen.tick(), frozen.operator().to_owned(), frozen.kind().clone());
    let keys = frozen.keys();
    let failed = |e: StateError| Error::caused(e.kind(), format!("cannot store the state of '{operator}'"), e);
    let fail = |e: Error| Failure::of(System::Store, e);
    let file = match frozen.encode().map_err(failed).map_err(fail)? {
        None => None,
        Some(encoded) => {
            let object = state_object(&operator, generation, ambient::uuid());
            let file = wait_out("store", patience, || store.put(&object, &encoded).map_err(failed)).map_err(fail)?;
            reach(FailPoint::DuringUpload);
            Some(file)
        }
    };
    Ok(Report::StateStored { tick, operator, kind, file, keys })
}
