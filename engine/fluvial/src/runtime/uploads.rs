//! Stores the rows that durable operators have frozen, one state file at a time, on a thread beside the worker.

use std::time::Duration;

use fluvial_connector::{Error, Generation, Waker};
use fluvial_protocol::{Report, System};

use super::ambient;
use super::background::{Background, Serve, Server, wait_out};
use super::failure::Failure;
use crate::durable::Frozen;
use crate::fail_point::{FailPoint, reach};
use crate::state::{StateError, StateStore, state_object};

/// The thread that encodes and stores the state files of one worker.
pub(crate) struct Uploads {
    frozen: Server<Frozen>,
    background: Background<Report>,
}

impl Uploads {
    /// Starts the thread.
    pub(crate) fn start(
        store: StateStore,
        generation: Generation,
        patience: Duration,
        waker: &Waker,
    ) -> Result<Self, Failure> {
        let background = Background::new(waker);
        let store_one = move |frozen| [store_one(frozen, &store, generation, patience)];
        Ok(Self { frozen: background.serve("uploads", Serve::Each, store_one)?, background })
    }

    /// Stores the rows that an operator has frozen.
    pub(crate) fn store(&self, frozen: Frozen) {
        self.frozen.ask(frozen);
    }

    /// The report of the next state file that has been stored.
    ///
    /// # Errors
    /// A state file could not be stored.
    pub(crate) fn stored(&self) -> Result<Option<Report>, Failure> {
        self.background.next()
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
